//! `quorate dev`: a whole cluster on this machine, for trying and testing.
//!
//! It shows what its processes say and decides nothing. Invariant: when it ends, none of them is left.

use std::path::{Path, PathBuf};

use super::{ExitCode, Failure, output::Output};
use crate::service::{
    config::Speed,
    dev::{
        Asked, DatabaseTemplate, DevCluster, DevConfig, DevError, DevFolder, DevPlanError, ReadyInfo, Shown,
    },
    durable::replace_file,
    lifecycle::{Asked as AskedToEnd, end_requests, until},
    telemetry,
};
use tokio::sync::watch;

mod show;
mod wrap;

const EXAMPLES: &str = "\
Examples:
  quorate dev
      four replicas; Ctrl-C ends them, the same command resumes them
  quorate dev --data-dir /var/tmp/seven --replicas 7 --base-port 7300 --otlp-port 4320
      a second cluster beside it
  quorate dev --data-dir /var/tmp/demo --speed 20 &
  quorate replay-otlp examples/airflow-incident.otlp.gz --speed 20 \\
      --to http://127.0.0.1:4318
      a recorded incident, twenty times as fast, and the plan that follows from it
  quorate dev --database-url 'postgres://me@localhost/quorate_{replica}'
      the replicas' databases in a Postgres of yours

Engines post OTLP over HTTP to http://127.0.0.1:4318.
While it runs, in another terminal: quorate status, quorate plans.

How many replicas: of n, f = (n-1)/3 rounded down may fail or lie.
  1 to 3: none   4 to 6: one   7 to 9: two   10 to 12: three   13: four

What lies in DIR:
  dev.json root.json genesis.toml   what the cluster is; agents trust the root
  replicas/ agents/ relay/          journals, keys, databases' URLs, documents
  owners/ operators/                keys that sign roots, and that stop targets
  postgres/ logs/ events.jsonl      private Postgres, logs, every event

A start resumes whatever ended the last one: Ctrl-C, kill -9, a power cut, also in
the middle of founding. Replicas, speed and policies stay as they were founded;
ports and databases may change. To begin anew, take another --data-dir or delete DIR.
One party holds all keys here: it is for trying and testing only.

Ctrl-C once ends everything in order, twice at once.
Exit codes: 0 ended as asked, 1 failed, 2 usage (also flags that contradict DIR),
4 refused (DIR is of another version, or not as it was founded), 78 wrong policies.";

/// Run a whole cluster on this machine: replicas, Postgres, relay, agents
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Where everything is kept; a second start resumes it
    #[arg(long, value_name = "DIR", default_value = "/var/tmp/quorate-dev")]
    data_dir: PathBuf,
    /// How many replicas, 1 to 13 [default: 4]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=13))]
    replicas: Option<u16>,
    /// The first of the replicas' ports; each takes two [default: 7100]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
    /// Where engines post OTLP over HTTP [default: 4318]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    otlp_port: Option<u16>,
    /// Times, targets and policies [default: those of the recorded Airflow incident]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How many times faster than real time telemetry comes, 1 to 1000: windows and policies' times shrink with
    /// it [default: 1]
    #[arg(long, value_name = "FACTOR")]
    speed: Option<Speed>,
    /// The replicas' databases in a Postgres of yours: {replica} becomes r0, r1, .. Missing ones are created; a
    /// password is better in PGPASSWORD or a .pgpass file [default: a private Postgres in DIR]
    #[arg(long, env = "QUORATE_DEV_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Where all processes post their traces (OTLP over HTTP)
    #[arg(long, env = "QUORATE_OTLP_TRACES", value_name = "URL")]
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
/// [`Failure`] when it cannot start, or was ended at once.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let telemetry = telemetry::init(&telemetry::TelemetryConfig::default()).map_err(Failure::failed)?;
    let mut asked = end_requests();
    let mut again = asked.clone();
    let (interrupt, interrupted) = watch::channel(false);
    let done = tokio::select! {
        done = run_cluster(arguments, output, interrupted) => done,
        () = async {
            until(&mut asked, AskedToEnd::Once).await;
            interrupt.send_replace(true);
            std::future::pending::<()>().await;
        } => Ok(ExitCode::Done),
        // All children are killed when the cluster is dropped here; Postgres ends by itself.
        () = until(&mut again, AskedToEnd::Twice) => {
            let error = anyhow::anyhow!("ended at once: replicas were killed, as a power cut would");
            Err(Failure::failed(error).next("start it again with the same --data-dir: nothing agreed is lost"))
        }
    };
    telemetry.shutdown().await;
    done
}

async fn run_cluster(
    arguments: Arguments,
    output: Output,
    mut interrupted: watch::Receiver<bool>,
) -> Result<ExitCode, Failure> {
    // Not by the parser of arguments, which repeats what it refuses: there may be a password in it.
    let database = arguments.database_url.as_deref().map(str::parse::<DatabaseTemplate>).transpose();
    let database = database.map_err(|error| Failure::usage(anyhow::anyhow!("--database-url: {error}")))?;
    let folder = DevFolder::take(&arguments.data_dir).map_err(|error| failure(error.into()))?;
    let events = folder.open_log("events.jsonl").map_err(|error| failure(error.into()))?;
    if let Some(path) = &arguments.ready_file {
        // One from an earlier start would be taken for this one's. Where there is none, nothing is to be removed.
        let _ = std::fs::remove_file(path);
    }
    let config = DevConfig {
        asked: Asked {
            replicas: arguments.replicas,
            base_port: arguments.base_port,
            otlp_port: arguments.otlp_port,
            speed: arguments.speed.map(|speed| speed.to_string()),
            policy: arguments.policy.map(|path| std::path::absolute(&path).unwrap_or(path)),
            database,
        },
        otlp_traces: arguments.otlp_traces,
        agents: !arguments.no_agents,
    };
    let mut screen = show::Screen::new(output, events);
    let mut ready = None;
    // A reader of our output that has left ends the cluster as Ctrl-C does.
    let mut broken = None;
    let mut show = |shown: Shown| {
        if let Shown::Ready(info) = &shown {
            ready = Some(info.clone());
        }
        if let Err(error) = screen.show(&shown) {
            broken.get_or_insert(error);
        }
    };
    let started = DevCluster::start(folder, config, interrupted.clone(), &mut show).await;
    let mut cluster = match started {
        Ok(cluster) => cluster,
        Err(DevError::Interrupted) => return Ok(ExitCode::Done),
        Err(error) => return Err(failure(error)),
    };
    let mut written = Ok(());
    if let (Some(path), Some(info)) = (&arguments.ready_file, &ready) {
        written = write_ready_file(path, info);
    }
    while broken.is_none() && written.is_ok() {
        tokio::select! {
            shown = cluster.next() => {
                if let Err(error) = screen.show(&shown) {
                    broken = Some(error);
                }
            }
            _ = interrupted.wait_for(|interrupted| *interrupted) => break,
        }
    }
    // What still cannot be shown changes nothing any more.
    cluster.end(&mut |shown| drop(screen.show(&shown))).await;
    written?;
    broken.map_or(Ok(ExitCode::Done), |error| Err(Failure::from(error)))
}

/// The file appears whole: a script that waits for it never reads half of it.
fn write_ready_file(path: &Path, info: &ReadyInfo) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(info).map_err(Failure::failed)?;
    replace_file(path, &text)
        .map_err(|error| Failure::failed(anyhow::anyhow!("--ready-file {}: {error}", path.display())))
}

fn failure(error: DevError) -> Failure {
    match &error {
        DevError::Config(_) | DevError::Incomplete(_) => Failure::configuration(error),
        DevError::Plan(
            DevPlanError::MadeOtherwise { .. } | DevPlanError::Ports { .. } | DevPlanError::Overlap { .. },
        )
        | DevError::Speed(_) => Failure::usage(error),
        DevError::Plan(
            DevPlanError::OtherVersion { .. }
            | DevPlanError::Damaged { .. }
            | DevPlanError::NotOurs { .. }
            | DevPlanError::RootLost { .. },
        )
        | DevError::NotAsFounded { .. } => Failure::refused(error),
        DevError::Plan(DevPlanError::Io { .. })
        | DevError::Folder(_)
        | DevError::Ports(_)
        | DevError::Postgres(_)
        | DevError::EnsureDatabase(_)
        | DevError::Database(_)
        | DevError::Founding(_)
        | DevError::Write { .. }
        | DevError::Spawn(_)
        | DevError::Ended { .. }
        | DevError::NotReady { .. }
        | DevError::Interrupted => Failure::failed(error),
    }
}
