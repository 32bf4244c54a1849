//! `quorate inspect-otlp`: what the telemetry door would count from a recording, offline.
//!
//! It decodes and counts with the door's own code, over the whole recording at once. It sends nothing and
//! decides nothing. Invariant: one line for each series and kind, in the order of their names.

use serde::Serialize;
use std::{collections::BTreeMap, fmt, path::PathBuf};

use super::{ExitCode, Failure, output, output::Output};
use crate::{
    knowledge::observation::{AttributeValue, Attributes, SeriesKey, SeriesSummary},
    monitor::{Kind, recording, totals},
    types::{Quantity, SourceId},
};

const EXAMPLES: &str = "\
Examples:
  quorate inspect-otlp examples/airflow-incident.otlp.gz
      every series of the recorded incident, and by how much it rose
  quorate inspect-otlp -o jsonl FILE | jq -c 'select(.name == \"airflow.ti.finish\")'
      the same for programs: name, attributes, type, increase, sum_increase, last

`increase` is by how much a sum rose, or how many values a histogram gained; `sum_increase` is the sum of
those values; `p99` is what all but a hundredth of them do not exceed; `last` is the newest value of a gauge, and of a sum that may fall. Points and requests that do not count are told on
standard error with their reasons. How counting works: docs/telemetry.md.";

/// Show what the telemetry door would count from a recording.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A packed recording, or a folder with index.jsonl.
    #[arg(value_name = "DIR_OR_FILE")]
    recording: PathBuf,
    /// Also show each series' source and resource attributes.
    #[arg(long)]
    identity: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] when the recording cannot be read or the output not written.
pub fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let requests = recording::read(&arguments.recording).map_err(Failure::failed)?;
    let totals = totals::totals(&requests);
    for ((key, kind), summary) in &totals.series {
        output.event(&Line::of(key, *kind, summary, totals.rises.get(key), arguments.identity))?;
    }
    for (n, error) in &totals.refused_requests {
        output::complain(format_args!("request {n} is refused: {error}"));
    }
    for (reason, points) in &totals.rejected {
        output::complain(format_args!("{points} points do not count: {reason}"));
    }
    output.say(format_args!(
        "{} series, {} points counted, {} requests",
        totals.series.len(),
        totals.accepted,
        requests.len()
    ))?;
    Ok(ExitCode::Done)
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    name: &'a str,
    attributes: BTreeMap<&'a str, serde_json::Value>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    increase: Option<serde_json::Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sum_increase: Option<serde_json::Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<serde_json::Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<serde_json::Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a SourceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<BTreeMap<&'a str, serde_json::Value>>,
}

impl<'a> Line<'a> {
    fn of(
        key: &'a SeriesKey,
        kind: Kind,
        summary: &SeriesSummary,
        rise: Option<&Quantity>,
        identity: bool,
    ) -> Self {
        let (increase, sum_increase, p99, last) = match summary {
            SeriesSummary::Level { last, .. } => {
                let rise = rise.filter(|_| kind == Kind::Sum);
                (rise.map(|rise| number(*rise)), None, None, Some(number(*last)))
            }
            SeriesSummary::Increase { increase, .. } => (Some(number(*increase)), None, None, None),
            SeriesSummary::Distribution { count, sum, buckets, .. } => {
                (Some((*count).into()), Some(number(*sum)), buckets.quantile(990).map(number), None)
            }
        };
        Self {
            name: &key.name,
            attributes: json_attributes(&key.attributes),
            kind: type_name(kind),
            increase,
            sum_increase,
            p99,
            last,
            source: identity.then_some(&key.source),
            resource: identity.then(|| json_attributes(&key.resource)),
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        write_attributes(f, &self.attributes)?;
        write!(f, "  {}", self.kind)?;
        let values = [
            ("+", &self.increase),
            ("sum +", &self.sum_increase),
            ("p99 ", &self.p99),
            ("last ", &self.last),
        ];
        for (label, value) in values {
            if let Some(value) = value {
                write!(f, "  {label}{value}")?;
            }
        }
        if let (Some(source), Some(resource)) = (self.source, &self.resource) {
            write!(f, "  from {source}")?;
            write_attributes(f, resource)?;
        }
        Ok(())
    }
}

fn write_attributes(
    f: &mut fmt::Formatter<'_>,
    attributes: &BTreeMap<&str, serde_json::Value>,
) -> fmt::Result {
    for (place, (key, value)) in attributes.iter().enumerate() {
        write!(f, "{}{key}={value}", if place == 0 { "{" } else { ", " })?;
    }
    f.write_str(if attributes.is_empty() { "" } else { "}" })
}

const fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "gauge",
        Kind::Sum | Kind::RisingSum => "sum",
        Kind::Histogram => "histogram",
        Kind::ExponentialHistogram => "exponential_histogram",
        Kind::Summary => "summary",
    }
}

/// A whole number where the value is whole, else the nearest double.
fn number(value: Quantity) -> serde_json::Number {
    let double = || serde_json::Number::from_f64(value.to_f64());
    value.to_i64().map(Into::into).or_else(double).unwrap_or_else(|| 0.into())
}

fn json_attributes(attributes: &Attributes) -> BTreeMap<&str, serde_json::Value> {
    let json = |value: &AttributeValue| match value {
        AttributeValue::Text(text) => text.clone().into(),
        AttributeValue::Bool(truth) => (*truth).into(),
        AttributeValue::Integer(number) => (*number).into(),
        AttributeValue::Other(text) => serde_json::from_str(text).unwrap_or(serde_json::Value::Null),
    };
    attributes.iter().map(|(key, value)| (key.as_str(), json(value))).collect()
}
