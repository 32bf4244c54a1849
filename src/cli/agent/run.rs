//! `quorate agent run`: runs next to a target, verifies what the replicas serve, and acts on it.
//!
//! It wires nothing but flags to the service's agent. Invariant: it ends with code 0 only when it was asked
//! to end, and a change of the target that has begun is finished first.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    cli::{ClientFlags, ExitCode, Failure, output::Output},
    execute::agent::Trust,
    knowledge::root::VerifiedRoot,
    service::{
        agent::{
            Agent, AgentError, AgentSettings, AgentTrace, Event, Replicas, ReplicasError, StateFileError,
            actuator::{Actuator, Exec, WorkerPool, WorkerPoolSettings},
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
  quorate agent run ... --actuator worker-pool --slots 3 --otlp http://127.0.0.1:4318 --envelopes envelopes

An exec command is called with one more argument: `read` writes the target's state to standard output,
such as {\"kind\":\"slots\",\"slots\":3}; `apply` and `rollback` get the plan's bytes on standard input and
give the target its `desired` or `rollback` state. Exit code 0 is success. The agent then reads the target.

The agent acts only on what a quorum of the root's replicas has signed, and only after more replicas have
answered than may be faulty. It keeps what it has done in the state folder: never delete that.

Exit codes: 0 asked to end, 1 failed, 2 usage, 4 the root, the key or a certificate is refused.";

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
    /// What changes the target
    #[arg(long, value_enum, value_name = "KIND")]
    actuator: Kind,
    #[command(flatten)]
    reach: ClientFlags,
    #[command(flatten)]
    exec: ExecArguments,
    #[command(flatten)]
    pool: PoolArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A command of yours
    Exec,
    /// A pool of workers inside this process
    WorkerPool,
}

/// Flags of the exec actuator
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --actuator exec")]
struct ExecArguments {
    /// The command
    #[arg(long, value_name = "PROGRAM", required_if_eq("actuator", "exec"))]
    command: Option<String>,
    /// An argument of the command, before the verb; once for each
    #[arg(long = "command-arg", value_name = "TEXT", allow_hyphen_values = true)]
    command_args: Vec<String>,
    /// How long the command may take, in seconds, before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    command_timeout: u64,
}

/// Flags of the worker pool
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --actuator worker-pool")]
struct PoolArguments {
    /// Slots before the first plan; the target's `initial`
    #[arg(long, value_name = "COUNT", required_if_eq("actuator", "worker-pool"))]
    slots: Option<u32>,
    /// A job arrives every so many milliseconds; none when absent
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    job_every: Option<u64>,
    /// How long a job runs, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    job_takes: u64,
    /// Where the pool posts its metrics over OTLP/HTTP; nowhere when absent
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// How often it posts them, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    metrics_every: u64,
}

fn target(text: &str) -> Result<TargetId, String> {
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
    match arguments.actuator {
        Kind::Exec => {
            let ExecArguments { command, command_args, command_timeout } = arguments.exec;
            let program = command.unwrap_or_default();
            let exec = Exec::new(program, command_args, Duration::from_secs(command_timeout));
            act(settings, exec, output, telemetry).await
        }
        Kind::WorkerPool => {
            let pool = start_pool(&arguments)?;
            act(settings, pool, output, telemetry).await
        }
    }
}

fn start_pool(arguments: &Arguments) -> Result<WorkerPool, Failure> {
    let PoolArguments { slots, job_every, job_takes, otlp, metrics_every } = &arguments.pool;
    let folder = &arguments.state_dir;
    fs::create_dir_all(folder).map_err(|error| unreadable(folder, error))?;
    WorkerPool::start(WorkerPoolSettings {
        target: arguments.target.clone(),
        state_file: folder.join("worker-pool.json"),
        initial_slots: slots.unwrap_or_default(),
        job_every: job_every.map(Duration::from_millis),
        job_takes: Duration::from_millis(*job_takes),
        metrics: otlp.clone().map(|address| (address, Duration::from_millis(*metrics_every))),
    })
    .map_err(Failure::failed)
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

fn read_root(path: &Path) -> Result<VerifiedRoot, Failure> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, error))?;
    VerifiedRoot::first(&bytes).map_err(Failure::refused)
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::failed(anyhow::Error::new(error).context(format!("cannot use {}", path.display())))
}

fn failure(error: AgentError) -> Failure {
    match &error {
        AgentError::Equivocation(_) => Failure::refused(error).next(
            "show both documents to the owners: more replicas have signed falsely than the committee bears",
        ),
        AgentError::State(StateFileError::Damaged(_) | StateFileError::Unusable { .. }) => {
            Failure::refused(error).next(
                "restore the folder from a backup, or compare the target with the newest head yourself \
                 before you begin with an empty folder",
            )
        }
        AgentError::State(
            StateFileError::Taken(_) | StateFileError::Folder { .. } | StateFileError::Write { .. },
        )
        | AgentError::Envelopes { .. } => Failure::failed(error),
        AgentError::Unheard => Failure::OutputClosed,
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Kind};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(more: &[&str]) -> Result<Arguments, clap::Error> {
        let always = [
            "agent",
            "--root",
            "r",
            "--key",
            "k",
            "--state-dir",
            "s",
            "--target",
            "pool",
            "--replica",
            "http://a",
        ];
        Line::try_parse_from(always.iter().chain(more)).map(|line| line.arguments)
    }

    #[test]
    fn each_actuator_asks_for_what_it_needs() {
        let exec = parse(&["--actuator", "exec", "--command", "set", "--command-arg", "--dry-run"]);
        let exec = exec.expect("it is complete");
        assert_eq!((exec.actuator, exec.exec.command_args), (Kind::Exec, vec!["--dry-run".to_owned()]));
        assert!(parse(&["--actuator", "exec"]).is_err());
        assert!(parse(&["--actuator", "worker-pool", "--slots", "3"]).is_ok());
        assert!(parse(&["--actuator", "worker-pool"]).is_err());
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for wrong in [
            ["--actuator", "magic", "--slots", "3"],
            ["--actuator", "worker-pool", "--slots", "-1"],
            ["--actuator", "worker-pool", "--slots", "many"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&["--actuator", "worker-pool", "--slots", "3", "--stale-after", "0"]).is_err());
    }
}
