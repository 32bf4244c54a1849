//! What a recording adds up to: the production decoder, series and streams over all its requests at once,
//! as if they all fell into one window that never ends.
//!
//! It is for people and tests; no report is made of it. Invariant: the order of the requests changes nothing.

use std::collections::BTreeMap;

use super::{
    Amount, Batch, Kind, Measure, Monitor, MonitorParameters, Refused, Sample, Temporality,
    body::DecodeError, otlp, recording::RecordedRequest,
};
use crate::{
    knowledge::observation::{SeriesKey, SeriesSummary},
    types::{Millis, Quantity, UnixMillis, WindowIndex},
};

/// Streams that began so long before a recording's first sample count from their first value: their process
/// was started for the recording.
pub const LEAD: Millis = Millis::from_secs(60);

/// What a recording adds up to.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Every series with its kind, summed up over the whole recording.
    pub series: BTreeMap<(SeriesKey, Kind), SeriesSummary>,
    /// By how much sums that may fall rose, by the rule of those that only rise. The door reports their level.
    pub rises: BTreeMap<SeriesKey, Quantity>,
    /// How many points count.
    pub accepted: u64,
    /// How many points do not, and why.
    pub rejected: Refused,
    /// The requests that were refused whole, by number.
    pub refused_requests: Vec<(u64, DecodeError)>,
}

/// Adds a recording up.
#[must_use]
pub fn totals(requests: &[RecordedRequest]) -> Totals {
    let mut refused_requests = Vec::new();
    let mut batches = Vec::new();
    for request in requests.iter().filter(|request| request.is_metrics()) {
        let decoded =
            otlp::decode(&request.body, request.content_type.as_deref(), request.content_encoding.as_deref());
        match decoded {
            Ok(batch) => batches.push(batch),
            Err(error) => refused_requests.push((request.n, error)),
        }
    }
    let times = batches.iter().flat_map(Batch::points).map(|point| point.sample.time.to_millis());
    let started_at = times.min().unwrap_or_default().minus(LEAD);
    let (mut monitor, mut rising) = (endless_monitor(started_at), endless_monitor(started_at));
    let (mut accepted, mut rejected) = (0, Refused::new());
    for batch in &batches {
        let ingested = monitor.ingest(batch, UnixMillis::ZERO);
        accepted += ingested.accepted;
        for (reason, points) in ingested.rejected {
            *rejected.entry(reason).or_default() += points;
        }
        rising.ingest(&as_if_rising(batch), UnixMillis::ZERO);
    }
    let rises = sum_up(&mut rising).into_iter().filter_map(|((key, _), summary)| match summary {
        SeriesSummary::Increase { increase, .. } => Some((key, increase)),
        SeriesSummary::Level { .. } | SeriesSummary::Distribution { .. } => None,
    });
    let rises = rises.collect();
    Totals { series: sum_up(&mut monitor), rises, accepted, rejected, refused_requests }
}

/// The points of sums that may fall, as if they only rose.
fn as_if_rising(batch: &Batch) -> Batch {
    let mut rising = Batch::default();
    for point in batch.points().filter(|point| point.sample.kind == Kind::Sum) {
        if let Measure::Level(value) = point.sample.measure {
            let measure = Measure::Growth(Temporality::Cumulative, Amount::new(value, Quantity::ZERO));
            rising.push_encoded(point.identity, Sample { measure, ..point.sample.clone() }, false);
        }
    }
    rising
}

/// A monitor with one window that never ends.
fn endless_monitor(started_at: UnixMillis) -> Monitor {
    let parameters = MonitorParameters {
        window: Millis::new(u64::MAX),
        ahead: Millis::new(u64::MAX),
        series_limit: usize::MAX,
        samples_per_stream: usize::MAX,
    };
    Monitor::new(parameters, started_at)
}

fn sum_up(monitor: &mut Monitor) -> BTreeMap<(SeriesKey, Kind), SeriesSummary> {
    monitor.close_by_kind(WindowIndex::new(0)).expect("the one window has not been closed before")
}
