//! `quorate dev`: a whole cluster on this machine, for trying and testing.
//!
//! It shows what its processes say and decides nothing. Invariant: when it ends, none of them is left.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use super::{
    ExitCode, Failure,
    output::{Format, Output},
};
use crate::service::{
    config::Speed,
    dev::{Asked, DevCluster, DevConfig, DevError, ReadyInfo, Shown},
    lifecycle::asked_to_end,
    telemetry,
};

mod show;

const EXAMPLES: &str = "\
Examples:
  quorate dev
  quorate dev --replicas 7 --data-dir /var/tmp/seven --base-port 7300 --otlp-port 4320
  quorate dev --policy examples/policies/airflow.toml --speed 20

Point an engine's OTLP/HTTP exporter at http://127.0.0.1:4318. Ctrl-C ends everything; a second start with
the same --data-dir resumes. DIR/events.jsonl keeps every event, DIR/logs every process's log.";

/// Run a whole cluster on this machine: replicas, Postgres, relay, agents
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Where everything is kept; a second start resumes it
    #[arg(long, value_name = "DIR", default_value = "/var/tmp/quorate-dev")]
    data_dir: PathBuf,
    /// How many replicas [default: 4]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=13))]
    replicas: Option<u16>,
    /// The first of the replicas' ports; each takes two [default: 7100]
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    /// Where engines post OTLP over HTTP [default: 4318]
    #[arg(long, value_name = "PORT")]
    otlp_port: Option<u16>,
    /// Times, targets and policies [default: those of the recorded Airflow incident]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How many times faster than real time telemetry comes: windows and policies' times shrink with it
    /// [default: 1]
    #[arg(long, value_name = "FACTOR")]
    speed: Option<Speed>,
    /// Where all processes post their traces (OTLP over HTTP)
    #[arg(long, value_name = "URL")]
    otlp_traces: Option<String>,
    /// Do not start the targets' agents
    #[arg(long)]
    no_agents: bool,
    /// A file to write, as JSON, once everything runs: addresses, process identifiers, folders
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Runs the cluster until it is asked to end.
///
/// # Errors
/// [`Failure`] when it cannot start.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let telemetry = telemetry::init(&telemetry::TelemetryConfig::default()).map_err(Failure::failed)?;
    let config = DevConfig {
        folder: arguments.data_dir.clone(),
        asked: Asked {
            replicas: arguments.replicas,
            base_port: arguments.base_port,
            otlp_port: arguments.otlp_port,
            speed: arguments.speed.map(|speed| speed.to_string()),
            policy: arguments.policy,
        },
        otlp_traces: arguments.otlp_traces,
        agents: !arguments.no_agents,
    };
    let mut screen = show::Screen::new(output, open_events(&arguments.data_dir)?);
    let mut ready = None;
    let mut broken = None;
    let mut show = |shown: Shown| {
        if let Shown::Ready(info) = &shown {
            ready = Some(info.clone());
        }
        if let Err(error) = screen.show(&shown) {
            broken = Some(error);
        }
    };
    let end = std::pin::pin!(asked_to_end());
    let mut end = end;
    let mut cluster = tokio::select! {
        started = DevCluster::start(config, &mut show) => started.map_err(failure)?,
        () = &mut end => return Ok(ExitCode::Done),
    };
    if let (Some(path), Some(info)) = (&arguments.ready_file, &ready) {
        write_ready_file(path, info)?;
    }
    let ended = loop {
        if let Some(error) = broken.take() {
            break Err(error);
        }
        tokio::select! {
            shown = cluster.next() => {
                if let Err(error) = screen.show(&shown) {
                    break Err(error);
                }
            }
            () = &mut end => break Ok(()),
        }
    };
    cluster.end().await;
    telemetry.shutdown().await;
    ended.map(|()| ExitCode::Done).map_err(Failure::from)
}

/// The file appears whole: a script that waits for it never reads half of it.
fn write_ready_file(path: &Path, info: &ReadyInfo) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(info).map_err(Failure::failed)?;
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|error| Failure::failed(anyhow::anyhow!("{}: {error}", path.display())))
}

fn failure(error: DevError) -> Failure {
    match &error {
        DevError::Config(_) | DevError::Incomplete(_) => Failure::configuration(error),
        DevError::Plan(_) | DevError::Speed(_) => Failure::usage(error),
        DevError::Folder { .. }
        | DevError::InUse { .. }
        | DevError::PortTaken { .. }
        | DevError::Postgres(_)
        | DevError::Database(_)
        | DevError::Founding(_)
        | DevError::Spawn(_)
        | DevError::Ended { .. }
        | DevError::NotReady { .. } => Failure::failed(error),
    }
}

/// Every event of every process, one JSON object a line.
fn open_events(folder: &Path) -> Result<File, Failure> {
    let path = folder.join("events.jsonl");
    std::fs::create_dir_all(folder)
        .and_then(|()| File::options().create(true).append(true).open(&path))
        .map_err(|error| Failure::failed(anyhow::anyhow!("{}: {error}", path.display())))
}
