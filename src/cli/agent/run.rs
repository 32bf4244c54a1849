//! `quorate agent run`: runs next to a target, verifies what the replicas serve, and acts on it.
//!
//! It wires nothing but flags to the service's agent. Invariant: it ends with code 0 only when it was asked
//! to end, and a change of the target that has begun is finished first.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::{actuator::ActuatorArguments, read_root, state_failure};
use crate::{
    cli::{ClientFlags, ExitCode, Failure, output::Output},
    execute::agent::Trust,
    service::{
        agent::{
            Agent, AgentError, AgentSettings, AgentTrace, Event, Replicas, ReplicasError, actuator::Actuator,
        },
        clock::wall_clock,
        key_file::read_secret_key,
        lifecycle::asked_to_end,
        telemetry::{self, Telemetry, TelemetryConfig},
    },
    types::{Millis, Shard, TargetId},
};

const EXAMPLES: &str = "\
Examples:
  quorate agent run --root root.json --key agent.key --target extract_pool --state-dir state \\
      --replica http://10.0.0.1:8100 --replica http://10.0.0.2:8100 --replica http://10.0.0.3:8100 \\
      --actuator exec --command /usr/local/bin/set-pool
  quorate agent run ... --actuator airflow --airflow http://127.0.0.1:8080 --airflow-pool extract_pool \\
      --airflow-user quorate --airflow-password-file airflow.password
  quorate agent run ... --actuator http --http-file engine.toml
  quorate agent run ... --actuator worker-pool --slots 3 --otlp http://127.0.0.1:4318 --envelopes envelopes

An exec command is called with one more argument: `read` writes the target's state to standard output,
such as {\"kind\":\"slots\",\"slots\":3}; `apply` and `rollback` get the plan's bytes on standard input and
give the target its `desired` or `rollback` state. Exit code 0 is success. The agent then reads the target.

The agent acts only on what a quorum of the root's replicas has signed, and only after more replicas have
answered than may be faulty. It keeps what it has done in the state folder: never delete that.

Exit codes: 0 asked to end, 1 failed, 2 usage, 4 the root, the key or a certificate is refused, 78 a file
that describes an engine, or a secret for it, cannot be used.";

/// How many events wait to be written; a terminal that stands still then holds the agent up.
const EVENTS: usize = 64;

/// Run the agent of one target
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The pinned root, as the owners handed it over
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// A replica's address, such as https://HOST:PORT; once for each replica
    #[arg(long = "replica", value_name = "URL", required = true)]
    replicas: Vec<String>,
    /// The target's name, as in the policy file
    #[arg(long, value_name = "NAME", value_parser = target)]
    target: TargetId,
    /// The shard that the target is in
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    shard: u16,
    /// The agent's secret key, which signs its receipts
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the agent remembers what it has done
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Where root.json, head.json, plan.json and receipt.json are kept as received and sent
    #[arg(long, value_name = "DIR")]
    envelopes: Option<PathBuf>,
    /// How long heads may stand still before they are stale, in seconds; the cluster's `stale_after`
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    stale_after: u64,
    /// How far the clock may be from the quorum's time, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    clock_tolerance: u64,
    /// Where the agent posts its traces (OTLP over HTTP); nowhere when absent
    #[arg(long, env = "QUORATE_OTLP_TRACES", value_name = "URL")]
    otlp_traces: Option<String>,
    #[command(flatten)]
    reach: ClientFlags,
    #[command(flatten)]
    actuator: ActuatorArguments,
}

pub(super) fn target(text: &str) -> Result<TargetId, String> {
    TargetId::new(text).map_err(|error| error.to_string())
}

/// Runs the command until it is asked to end.
///
/// # Errors
/// [`Failure`] when it cannot start, or ends by itself.
pub(super) async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let root = read_root(&arguments.root)?;
    let replicas = Replicas::new(
        arguments.reach.client(&arguments.replicas)?,
        &arguments.replicas,
        root.committee().size(),
    )
    .map_err(|error: ReplicasError| Failure::usage(error))?;
    let settings = AgentSettings {
        trust: Trust {
            root,
            target: arguments.target.clone(),
            shard: Shard::new(arguments.shard),
            stale_after: Millis::from_secs(arguments.stale_after),
            clock_tolerance: Millis::from_secs(arguments.clock_tolerance),
        },
        key: read_secret_key(&arguments.key).map_err(Failure::refused)?,
        replicas,
        state_folder: arguments.state_dir.clone(),
        envelopes_folder: arguments.envelopes.clone(),
    };
    let telemetry = telemetry::init(&TelemetryConfig {
        otlp_traces: arguments.otlp_traces.clone(),
        service_instance: format!("agent of {}", arguments.target),
        ..TelemetryConfig::default()
    })
    .map_err(Failure::usage)?;
    let actuator = arguments.actuator.start(&arguments.target, &arguments.state_dir).await?;
    act(settings, actuator, output, telemetry).await
}

async fn act<A: Actuator>(
    settings: AgentSettings,
    actuator: A,
    output: Output,
    telemetry: Telemetry,
) -> Result<ExitCode, Failure> {
    let trace = AgentTrace::new(settings.trust.root.committee().cluster(), telemetry.tracer());
    let (sender, events) = mpsc::channel::<Event>(EVENTS);
    let agent = Agent::open(settings, actuator, sender).map_err(failure)?;
    // The events end with the agent; when they cannot be written any more, the agent hears that and ends.
    let (ended, told) = tokio::join!(agent.run(asked_to_end()), tell(events, output, trace));
    telemetry.shutdown().await;
    told?;
    ended.map(|()| ExitCode::Done).map_err(failure)
}

async fn tell(
    mut events: mpsc::Receiver<Event>,
    output: Output,
    mut trace: AgentTrace,
) -> Result<(), Failure> {
    while let Some(event) = events.recv().await {
        trace.note(&event, wall_clock());
        output.event(&event)?;
    }
    Ok(())
}

fn failure(error: AgentError) -> Failure {
    match error {
        AgentError::Equivocation { .. } => Failure::refused(error).next(
            "show both documents to the owners: more replicas have signed falsely than the committee bears; \
             `quorate agent clear --help` says how to go on",
        ),
        AgentError::State(error) => state_failure(error),
        AgentError::Envelopes { .. } => Failure::failed(error),
        AgentError::Unheard => Failure::OutputClosed,
    }
}
