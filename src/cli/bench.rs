//! `quorate bench`: figures of this machine, from the production code.
//!
//! It shows what the drivers measured and judges nothing.

use std::{fmt, path::PathBuf, time::Duration};

use serde::Serialize;

use super::{
    ExitCode, Failure,
    output::{Format, Output},
};
use crate::service::bench::{
    Quantiles, TemporaryFolder, consensus, cycle, detectors, footprint, ingest, paced,
};

const EXAMPLES: &str = "\
Examples:
  quorate bench consensus
  quorate bench consensus --replicas 7 --outstanding 1,300 --seconds 30 -o jsonl
  quorate bench ingest
  quorate bench detectors

Figures depend on everything else that the machine does: measure when it is quiet, and a release build.";

/// Measure consensus and ingest on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Consensus(ConsensusArguments),
    Ingest(IngestArguments),
    Cycle(CycleArguments),
    Idle(FootprintArguments),
    Memory(FootprintArguments),
    /// The novelty detector over clean series: time a sample, bytes of state, false alarms
    Detectors,
    /// One replica of `bench consensus`
    #[command(hide = true)]
    Replica(ReplicaArguments),
    /// The telemetry door of `bench ingest`
    #[command(hide = true)]
    Door,
}

/// Processes of this program on loopback with TLS and journals agree on commands of one client
#[derive(Debug, clap::Args)]
struct ConsensusArguments {
    /// How many replicas
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=13))]
    replicas: u16,
    /// How many commands the client keeps under way; one measurement for each
    #[arg(
        long,
        value_name = "COUNT,..",
        value_delimiter = ',',
        default_values_t = [1, 100, 1_000, 3_000],
        value_parser = clap::value_parser!(u16).range(1..=16_384)
    )]
    outstanding: Vec<u16>,
    /// How long each measurement takes, in seconds, after two of warming up
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// The size of a command
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    command_bytes: u32,
    /// Where the journals lie while it runs: on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    dir: PathBuf,
}

/// Telemetry into windows: by the decoder and the monitor alone, through the HTTP door, and at given rates
#[derive(Debug, clap::Args)]
struct IngestArguments {
    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Connections to the door, each with one request at a time
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,
    /// Requests a second that come whether earlier ones were answered or not; one measurement for each
    #[arg(
        long,
        value_name = "COUNT,..",
        value_delimiter = ',',
        default_values_t = [1_000, 10_000],
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    rates: Vec<u32>,
    /// Points of each of twenty metrics in those requests; 1 is what a short process posts
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rate_points: u16,
}

/// From a window's last sample to the plan's certificate, its logging and the agent's application
#[derive(Debug, clap::Args)]
struct CycleArguments {
    /// How many windows are measured
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
    cycles: u16,
    /// How many times shorter than the default all times are: 10 makes windows of a second
    #[arg(long, value_name = "FACTOR", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=50))]
    speed: u16,
    /// Kill the last replica first
    #[arg(long)]
    one_down: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Processors and memory of a whole cluster: `idle` without telemetry, `memory` with 10,000 series a window
#[derive(Debug, clap::Args)]
struct FootprintArguments {
    /// How long is measured, in seconds, after 30 of settling
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u16).range(10..))]
    seconds: u16,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// A private cluster like that of `quorate dev`
#[derive(Debug, clap::Args)]
struct ClusterArguments {
    /// How many replicas
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=13))]
    replicas: u16,
    /// The first of the replicas' ports; each takes two
    #[arg(long, value_name = "PORT", default_value_t = 7900)]
    base_port: u16,
    /// The relay's port
    #[arg(long, value_name = "PORT", default_value_t = 4918)]
    otlp_port: u16,
    /// Below which folder the cluster lies while it runs: on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct ReplicaArguments {
    #[arg(long)]
    place: u16,
    #[arg(long)]
    replicas: u16,
    #[arg(long)]
    journal: PathBuf,
}

/// Measures and shows.
///
/// # Errors
/// [`Failure`] when something cannot be measured.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    match arguments.what {
        What::Consensus(arguments) => measure_consensus(arguments, output).await,
        What::Ingest(arguments) => measure_ingest(&arguments, output).await,
        What::Cycle(arguments) => measure_cycles(arguments, output).await,
        What::Idle(arguments) => measure_footprint(arguments, false, output).await,
        What::Memory(arguments) => measure_footprint(arguments, true, output).await,
        What::Detectors => measure_detectors(output),
        What::Replica(ReplicaArguments { place, replicas, journal }) => {
            let driver = Output::new(Format::Jsonl);
            let seat = consensus::Seat { place, replicas, journal };
            consensus::run(seat, |said| driver.record(said)).await.map_err(Failure::failed)?;
            Ok(ExitCode::Done)
        }
        What::Door => {
            let driver = Output::new(Format::Jsonl);
            ingest::serve_door(|address| driver.record(address)).await.map_err(Failure::failed)?;
            Ok(ExitCode::Done)
        }
    }
}

fn measure_detectors(output: Output) -> Result<ExitCode, Failure> {
    for kind in detectors::Kind::ALL {
        output.event(&detectors::measure(kind))?;
    }
    Ok(ExitCode::Done)
}

async fn measure_consensus(arguments: ConsensusArguments, output: Output) -> Result<ExitCode, Failure> {
    let ConsensusArguments { replicas, outstanding, seconds, command_bytes, dir } = arguments;
    output.say(format_args!(
        "{replicas} replicas on loopback with TLS and journals in {}; distinct commands of {command_bytes} bytes",
        dir.display()
    ))?;
    output.say(
        "under way  commands/s   blocks/s  commands/block   p50 ms   p99 ms  cores  flushes/block  peak MB",
    )?;
    for outstanding in outstanding {
        let setting = consensus::Setting {
            replicas,
            outstanding: outstanding.into(),
            command_bytes: command_bytes as usize,
            measure: Duration::from_secs(seconds.into()),
            folder: dir.clone(),
        };
        let figures = consensus::measure(&setting).await.map_err(Failure::failed)?;
        output.event(&Row(figures))?;
    }
    Ok(ExitCode::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Row(consensus::Figures);

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(figures) = self;
        let millis = |micros: u32| f64::from(micros) / 1e3;
        write!(
            f,
            "{:>9}  {:>10.0}  {:>9.1}  {:>14.1}  {:>7.2}  {:>7.2}  {:>5.2}  {:>13.2}  {:>7}",
            figures.outstanding,
            figures.commands_per_second,
            figures.blocks_per_second,
            figures.commands_per_block,
            millis(figures.latency.p50_us),
            millis(figures.latency.p99_us),
            figures.cores,
            figures.flushes_per_block,
            figures.peak_bytes / 1_000_000
        )
    }
}

async fn measure_ingest(arguments: &IngestArguments, output: Output) -> Result<ExitCode, Failure> {
    let measure = Duration::from_secs(arguments.seconds.into());
    output.say(format_args!(
        "{} points a request, {} series, half of them gauges and half cumulative sums",
        ingest::POINTS_PER_REQUEST,
        ingest::SERIES
    ))?;
    let alone = ingest::measure_alone(measure).map_err(Failure::failed)?;
    output.event(&alone)?;
    let door = ingest::measure_door(measure, arguments.connections.into()).await.map_err(Failure::failed)?;
    output.event(&door)?;
    for rate in &arguments.rates {
        let paced = paced::measure_paced(measure, *rate, arguments.rate_points.into()).await;
        output.event(&paced.map_err(Failure::failed)?)?;
    }
    Ok(ExitCode::Done)
}

async fn measure_cycles(arguments: CycleArguments, output: Output) -> Result<ExitCode, Failure> {
    let ClusterArguments { replicas, base_port, otlp_port, dir } = arguments.cluster;
    let folder = TemporaryFolder::new(&dir).map_err(Failure::failed)?;
    let setting = cycle::CycleSetting {
        folder: folder.path().to_owned(),
        replicas,
        base_port,
        otlp_port,
        speed: arguments.speed.into(),
        cycles: arguments.cycles.into(),
        one_down: arguments.one_down,
    };
    let figures = cycle::measure_cycles(&setting).await.map_err(Failure::failed)?;
    output.event(&CycleReport(figures))?;
    Ok(ExitCode::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
struct CycleReport(cycle::CycleFigures);

impl fmt::Display for CycleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(figures) = self;
        let replicas = if figures.one_down { "one replica down" } else { "all replicas up" };
        writeln!(
            f,
            "windows of {} ms, grace {} ms, settle {} ms, {replicas}, {} windows missed; from the last sample:",
            figures.window_ms, figures.grace_ms, figures.settle_ms, figures.missed
        )?;
        let line = |name: &str, quantiles: &Quantiles| {
            let millis = |micros: u32| f64::from(micros) / 1e3;
            let (p50, p99) = (millis(quantiles.p50_us), millis(quantiles.p99_us));
            format!("  to {name:<22} p50 {p50:>7.1} ms, p99 {p99:>7.1} ms, of {}", quantiles.count)
        };
        writeln!(f, "{}", line("the certificate", &figures.certified))?;
        writeln!(f, "{}", line("the logged plan", &figures.logged))?;
        write!(f, "{}", line("the agent's application", &figures.applied))
    }
}

async fn measure_footprint(
    arguments: FootprintArguments,
    telemetry: bool,
    output: Output,
) -> Result<ExitCode, Failure> {
    let ClusterArguments { replicas, base_port, otlp_port, dir } = arguments.cluster;
    let folder = TemporaryFolder::new(&dir).map_err(Failure::failed)?;
    let setting = footprint::FootprintSetting {
        folder: folder.path().to_owned(),
        replicas,
        base_port,
        otlp_port,
        measure: Duration::from_secs(arguments.seconds.into()),
        telemetry,
    };
    output.say("process                     % of a core  resident MB  peak MB")?;
    let footprints = footprint::measure_footprint(&setting).await.map_err(Failure::failed)?;
    for footprint in footprints {
        output.event(&FootprintRow(footprint))?;
    }
    Ok(ExitCode::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
struct FootprintRow(footprint::Footprint);

impl fmt::Display for FootprintRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(footprint) = self;
        write!(
            f,
            "{:<26}  {:>11.2}  {:>11}  {:>7}",
            footprint.process,
            footprint.core_percent,
            footprint.resident_bytes / 1_000_000,
            footprint.peak_bytes / 1_000_000
        )
    }
}
