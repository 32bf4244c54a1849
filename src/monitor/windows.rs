//! The open windows: samples wait here, as sets, until their window closes.
//!
//! Nothing is added up before that, so no result depends on the order of arrival. Invariant: `held` is the
//! number of samples in all open windows.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    point::{Amount, Kind, Measure, Sample, Temporality, UnixNanos},
    reason::Reason,
    samples::Samples,
    series::{SeriesId, SeriesIndex},
    streams::{StreamKey, Streams},
};
use crate::{
    knowledge::{
        buckets::{Buckets, MAX_REPORTED_BUCKETS},
        observation::SeriesSummary,
    },
    types::{Quantity, WindowIndex},
};

/// The most windows that are open at once: the one that fills, those that wait for late samples, and those
/// that fast clocks fill early; the state keeps as many of each replica.
pub const MAX_OPEN_WINDOWS: u64 = 8;

/// The most samples that all open windows hold together: 64 bytes each, so some 250 MB at the worst. Four
/// buckets of a histogram count as one more.
pub const MAX_HELD_SAMPLES: usize = 4_000_000;

/// The most changes that one delta series may post in a window. All must be kept until it closes, since a
/// resend can only be told by its start and time; some 400 a second in a window of ten seconds.
pub const MAX_DELTAS_PER_SERIES: usize = 4_096;

#[derive(Clone, Debug, Default)]
struct Window {
    levels: BTreeMap<SeriesId, Samples<Quantity>>,
    cumulative: BTreeMap<StreamKey, Samples<Amount>>,
    deltas: BTreeMap<SeriesId, Samples<(UnixNanos, Amount)>>,
    /// When each of these series said that it ended.
    ended: BTreeMap<SeriesId, UnixNanos>,
    held: usize,
}

/// What a window held.
#[derive(Clone, Debug, Default)]
pub(super) struct ClosedWindow {
    pub(super) summaries: BTreeMap<SeriesId, SeriesSummary>,
    /// When each of these series said that it ended.
    pub(super) ended: BTreeMap<SeriesId, UnixNanos>,
}

/// All windows that are still open and have samples.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    open: BTreeMap<WindowIndex, Window>,
    held: usize,
}

impl Windows {
    pub(super) const fn new() -> Self {
        Self { open: BTreeMap::new(), held: 0 }
    }

    /// Puts a sample into its window; `per_stream` is how many of a stream or level are kept.
    pub(super) fn add(
        &mut self,
        window: WindowIndex,
        series: SeriesId,
        sample: &Sample,
        per_stream: usize,
    ) -> Result<(), Reason> {
        if self.held >= MAX_HELD_SAMPLES {
            return Err(Reason::TooManySamples);
        }
        let window = self.open.entry(window).or_default();
        let time = sample.time;
        let gained = match &sample.measure {
            Measure::Level(value) => window.levels.entry(series).or_default().add(time, *value, per_stream),
            Measure::Growth(Temporality::Cumulative, amount) => {
                let stream = (series, sample.start);
                window.cumulative.entry(stream).or_default().add(time, amount.clone(), per_stream)
            }
            Measure::Growth(Temporality::Delta, amount) => {
                let deltas = window.deltas.entry(series).or_default();
                if deltas.as_slice().len() >= MAX_DELTAS_PER_SERIES {
                    return Err(Reason::TooManySamples);
                }
                deltas.add(time, (sample.start, amount.clone()), MAX_DELTAS_PER_SERIES)
            }
            Measure::Ended => {
                let before = window.ended.insert(series, time);
                window.ended.insert(series, before.map_or(time, |before| before.max(time)));
                isize::from(before.is_none())
            }
        };
        window.held = window.held.saturating_add_signed(gained);
        self.held = self.held.saturating_add_signed(gained);
        Ok(())
    }

    /// The oldest window that has samples.
    pub(super) fn oldest(&self) -> Option<WindowIndex> {
        self.open.keys().next().copied()
    }

    /// Takes a window out and sums it up; the streams move on. Windows must be closed in order. A level that
    /// ended and did not come back is left out: it has no value at the window's end.
    pub(super) fn close(
        &mut self,
        window: WindowIndex,
        streams: &mut Streams,
        index: &SeriesIndex,
    ) -> ClosedWindow {
        let Some(window) = self.open.remove(&window) else {
            return ClosedWindow::default();
        };
        self.held -= window.held;
        let lives = |series: &SeriesId, samples: &Samples<Quantity>| {
            let last = samples.as_slice().last().map(|(time, _)| *time);
            window.ended.get(series).is_none_or(|ended| Some(*ended) < last)
        };
        let levels = window.levels.iter().filter(|(series, samples)| lives(series, samples));
        let levels = levels.filter_map(|(series, samples)| Some((*series, level(samples)?)));
        let mut growth: BTreeMap<SeriesId, (Amount, u64)> = BTreeMap::new();
        let mut grow = |series: SeriesId, amount: Amount, samples: usize| {
            let (total, count) = growth.entry(series).or_default();
            *total = total.plus(&amount);
            *count += samples as u64;
        };
        for (stream, samples) in &window.cumulative {
            let risen = streams.advance(*stream, samples, index);
            grow(stream.0, risen, samples.by_time().count());
        }
        for (series, samples) in &window.deltas {
            for (_, (_, amount)) in samples.as_slice() {
                grow(*series, amount.clone(), 1);
            }
        }
        let growth = growth.into_iter().filter_map(|(series, (amount, samples))| {
            Some((series, growth_summary(index.entry(series)?.kind, amount, samples)))
        });
        ClosedWindow { summaries: levels.chain(growth).collect(), ended: window.ended }
    }
}

fn level(samples: &Samples<Quantity>) -> Option<SeriesSummary> {
    let samples = samples.as_slice();
    let (_, last) = samples.last()?;
    let values = || samples.iter().map(|(_, value)| *value);
    Some(SeriesSummary::Level {
        last: *last,
        min: values().min()?,
        max: values().max()?,
        sum: values().fold(Quantity::ZERO, Quantity::plus),
        samples: samples.len() as u64,
    })
}

fn growth_summary(kind: Kind, amount: Amount, samples: u64) -> SeriesSummary {
    match kind {
        Kind::Gauge | Kind::Sum | Kind::RisingSum => {
            SeriesSummary::Increase { increase: amount.value, samples }
        }
        Kind::Histogram | Kind::ExponentialHistogram | Kind::Summary => {
            let count = amount.value.to_i64().and_then(|count| u64::try_from(count).ok());
            let buckets = amount.buckets.map_or_else(Buckets::default, Arc::unwrap_or_clone);
            SeriesSummary::Distribution {
                count: count.unwrap_or(u64::MAX),
                sum: amount.sum,
                samples,
                buckets: buckets.at_most(MAX_REPORTED_BUCKETS),
            }
        }
    }
}
