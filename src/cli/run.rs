//! `quorate run`: one replica, until it is asked to end.
//!
//! It wires nothing itself. Invariant: it ends with code 0 only when it was asked to end.

use super::{ExitCode, Failure, output::Output};
use crate::{
    consensus::{HistoryError, journal::OpenError, task::StartError},
    service::{
        config::{LogFormat, ReplicaConfig, ReplicaFlags},
        lifecycle::asked_to_end,
        replica::{Membership, Replica, ReplicaError, StoreStartError},
        telemetry,
    },
};

const EXAMPLES: &str = "\
Examples:
  quorate run --config replicas/r0/replica.toml
  quorate run --config replica.toml --http 127.0.0.1:8200 -o jsonl

Every flag can also stand in the environment or in the file; `quorate config example --replica` explains
them. Events go to standard output, the log to standard error.";

/// Run one replica
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    replica: ReplicaFlags,
    /// Which events are logged, such as `info` or `quorate=debug`
    #[arg(long, env = "QUORATE_LOG_FILTER", value_name = "FILTER", default_value = "info")]
    log_filter: String,
}

/// Runs the replica.
///
/// # Errors
/// [`Failure`] when it cannot start, or ends unasked.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = ReplicaConfig::resolve(arguments.replica).map_err(Failure::configuration)?;
    let membership = Membership::read(&config).map_err(failure)?;
    let telemetry = telemetry::init(&telemetry::TelemetryConfig {
        log_format: match config.log {
            LogFormat::Text => telemetry::LogFormat::Human,
            LogFormat::Json => telemetry::LogFormat::Json,
        },
        log_filter: arguments.log_filter,
        otlp_traces: config.otlp_traces.clone(),
        service_instance: membership.me.to_string(),
    })
    .map_err(Failure::configuration)?;
    let mut replica = Replica::start(&config, membership, telemetry.tracer()).await.map_err(failure)?;
    let end = std::pin::pin!(asked_to_end());
    let failed = replica.watch(|event| output.event(&event), end).await?;
    replica.stop().await;
    telemetry.shutdown().await;
    failed.map_or(Ok(ExitCode::Done), |error| Err(failure(error)))
}

fn failure(error: ReplicaError) -> Failure {
    match &error {
        ReplicaError::Config(_)
        | ReplicaError::Unreadable { .. }
        | ReplicaError::Genesis { .. }
        | ReplicaError::Incomplete { .. }
        | ReplicaError::Entrance(_)
        | ReplicaError::Key(_) => Failure::configuration(error),
        ReplicaError::Root { .. } | ReplicaError::WrongGenesis { .. } | ReplicaError::NotAReplica { .. } => {
            Failure::refused(error)
        }
        ReplicaError::Start(StartError::Journal { error: HistoryError::Journal(OpenError::Disk(_)), .. }) | ReplicaError::Journal(_) => {
            Failure::failed(error).next(
                "make room on the disk, or repair it, and start again; nothing that left this replica depends on what \
                 was not written",
            )
        }
        ReplicaError::Start(_) => Failure::refused(error).next(
            "keep the journal's folder as it is and look into the cause; a replica without its journal signs \
             nothing, and its key is rotated in at the next epoch",
        ),
        ReplicaError::Store(StoreStartError::Url(_)) => Failure::configuration(error)
            .next("correct database_url, or the file that database_url_file names"),
        ReplicaError::Store(StoreStartError::Refused(_)) => Failure::refused(error),
        ReplicaError::Store(StoreStartError::JournalLost { .. }) => Failure::refused(error).next(
            "put the newest journal folder back if you have it; else this key must not sign again and is rotated in \
             at the next epoch. If the database is the wrong one, give this replica an empty one, which is filled \
             from its journal",
        ),
        ReplicaError::Random(_)
        | ReplicaError::Links(_)
        | ReplicaError::Listen(_)
        | ReplicaError::Snapshot { .. }
        | ReplicaError::TaskEnded(_) => Failure::failed(error),
    }
}
