//! `quorate analyze`: a detector over a recorded series, row by row, with the code that replicas have.
//!
//! It reads the whole recording first, so that a wrong line leaves no half a result; the detector is still shown one
//! sample at a time and nothing of what follows. Invariant: one row out for each row in, in its order.

mod recorded;

use std::{
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{ValueEnum, builder::PossibleValue};
use serde::Serialize;

use super::{ExitCode, Failure, output::Output};
use crate::{
    analyze::series::{BurnRate, Detector, Holt, LevelShift, Limit, Method, Novelty, Range, Stall, Verdict},
    service::utc::Utc,
    types::Quantity,
};

/// The largest recording that is read: some ten million samples.
const MAX_BYTES: u64 = 512 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  quorate analyze --in latency.csv --out found.csv
      where the series is unlike everything that it was before
  quorate analyze --in disk.csv --out found.csv --detector limit --limit 500e9
      when a disk of 500 GB is full within four hours
  quorate analyze --in errors.csv --out found.csv --detector burn-rate --objective 0.999
      when shares of errors burn the budget of that objective too fast

A recording has the header `timestamp,value`; a timestamp is a time in UTC such as 2026-12-01 14:30:00, or whole
seconds since 1970. The result has the header `timestamp,anomaly_score,finding` and a row for each row: a score
from 0 to 1, and from 0.5 on what was seen, against what, and since when. What each detector does: docs/detectors.md.
Exit codes: 0 done, whatever was found; 1 the recording is wrong or a file cannot be read or written; 2 usage.";

/// Run a detector over a recorded series
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The recorded series, a CSV file
    #[arg(long = "in", value_name = "FILE.csv")]
    input: PathBuf,
    /// Where the scores go, a CSV file; one that is there is replaced
    #[arg(long, value_name = "FILE.csv")]
    out: PathBuf,
    /// Which detector
    #[arg(long, value_name = "NAME", value_enum, default_value = "novelty")]
    detector: Method,
    /// What the series must not reach from below, for `limit`
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true, value_parser = quantity, required_if_eq("detector", "limit"))]
    limit: Option<Quantity>,
    /// The share of successes that is promised, for `burn-rate`
    #[arg(long, value_name = "SHARE", value_parser = quantity, default_value = "0.999")]
    objective: Quantity,
}

impl ValueEnum for Method {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.finds()))
    }
}

fn quantity(text: &str) -> Result<Quantity, String> {
    let number: f64 =
        text.parse().map_err(|_| "a value is a decimal number such as 0.5 or 2e9".to_owned())?;
    Quantity::from_f64(number).map_err(|error| error.to_string())
}

#[derive(Debug, Serialize)]
struct Done<'a> {
    recording: &'a Path,
    detector: &'static str,
    rows: usize,
    findings: usize,
}

impl fmt::Display for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recording, detector, rows, findings } = self;
        write!(f, "{}: {rows} rows, {findings} findings by {detector}", recording.display())
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] when the recording is wrong, or a file cannot be read or written.
pub fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let Arguments { input, out, .. } = arguments;
    let mut detector = detector(arguments)?;
    let bytes = read(input).map_err(Failure::failed)?;
    let rows = recorded::parse(&bytes)
        .with_context(|| format!("{} is no recording", input.display()))
        .map_err(Failure::failed)?;
    let mut table = String::from("timestamp,anomaly_score,finding\n");
    let mut findings = 0;
    for row in &rows {
        let verdict = detector.look(row.sample);
        findings += usize::from(verdict.finding.is_some());
        write_row(&mut table, row.timestamp, verdict).expect("memory takes it");
    }
    fs::write(out, table)
        .with_context(|| format!("cannot write {}", out.display()))
        .map_err(Failure::failed)?;
    output.event(&Done {
        recording: input,
        detector: arguments.detector.name(),
        rows: rows.len(),
        findings,
    })?;
    Ok(ExitCode::Done)
}

fn detector(arguments: &Arguments) -> Result<Detector, Failure> {
    Ok(match arguments.detector {
        Method::Novelty => Detector::Novelty(Novelty::new()),
        Method::Holt => Detector::Holt(Holt::new()),
        Method::Range => Detector::Range(Range::new()),
        Method::LevelShift => Detector::LevelShift(LevelShift::new()),
        Method::BurnRate => Detector::BurnRate(BurnRate::new(arguments.objective).map_err(|error| {
            Failure::usage(anyhow::anyhow!("--objective {}: {error}", arguments.objective))
        })?),
        Method::Limit => {
            Detector::Limit(Limit::new(arguments.limit.expect("the parser requires it with this detector")))
        }
        Method::Stall => Detector::Stall(Stall::new()),
    })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if bytes > MAX_BYTES {
        anyhow::bail!("{} has {bytes} bytes; allowed are {MAX_BYTES}: split it", path.display());
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write_row(table: &mut String, timestamp: &str, verdict: Verdict) -> fmt::Result {
    write!(table, "{timestamp},{},", verdict.score)?;
    if let Some(finding) = verdict.finding {
        write!(table, "{finding}; since {}", Utc(finding.since))?;
    }
    writeln!(table)
}
