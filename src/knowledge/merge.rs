//! Merging: how the reports of several replicas on one window become one value with an interval.
//!
//! It is pure arithmetic over counted reports; which reports count, and when a window closes, is the
//! fold's business. Invariant: while at most f of the counted reports are wrong, a merged median lies
//! between the smallest and the largest honest value.
//!
//! n is the committee's size and f its fault bound; m reports count; k of them have samples.
//!
//! - **M1** A partial report does not count; every other logged report does. A counted report without a
//!   series (or without a statistic of it) counts as the reading "no samples".
//! - **M2** If trimming f reports from either end would leave none (m <= 2f), nothing can be said.
//! - **M3** If more than half of the counted reports have no samples, the merged reading is "no samples".
//!   A majority of more than 2f reports includes an honest one.
//! - **M4** Otherwise the k values are sorted, and f are trimmed from either end. If none is left, or if
//!   exactly half of the reports have no samples, nothing can be said.
//! - **M5** The median is the middle of what M4 leaves: of two middle values the lower one, because it is a
//!   value that a replica signed, while their mean may be one that nobody saw. With k > 2f values of which
//!   at most f are wrong, there is an honest value at or below it and another at or above it.
//! - **M6** The interval trims only `max(0, f - (n - m))` from either end of the k values: a missing
//!   reporter is a fault already spent. It contains the median. While wrong and missing reports together
//!   are at most f, it lies inside the honest range; with a missing honest reporter it may be wider, and
//!   then a finding that must hold for the whole of it does not appear, or appears as disputed.
//! - **M7** Statistics and combinations are computed within each report, from its own series, and only the
//!   results are merged.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map},
    iter::Peekable,
};

use super::{
    buckets::Buckets,
    finding::Interval,
    observation::{Attributes, SeriesKey, SeriesSummary, WindowSummary},
    policy::{Combine, Indicator, Selector, Statistic},
};
use crate::types::{CommitteeSize, Quantity};

/// What the counted reports together say of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// A value with its interval.
    Value(Interval),
    /// A majority had no samples.
    NoSamples,
    /// Too few reports, or no agreement on whether there are samples.
    Unknown,
}

/// A distinct summary and how many of the counted reports carry it.
///
/// Reports of replicas that saw the same samples are byte-identical, so that a window usually has one.
#[derive(Clone, Copy, Debug)]
pub struct Weighted<'a> {
    /// What was seen.
    pub summary: &'a WindowSummary,
    /// By how many replicas.
    pub reports: usize,
}

/// The counted reports of one window (rule M1 has been applied by the caller).
#[derive(Clone, Debug)]
pub struct CountedReports<'a> {
    size: CommitteeSize,
    counted: usize,
    distinct: Vec<Weighted<'a>>,
}

impl<'a> CountedReports<'a> {
    /// The reports that count, each distinct summary once.
    #[must_use]
    pub fn new(size: CommitteeSize, distinct: Vec<Weighted<'a>>) -> Self {
        let counted = distinct.iter().map(|weighted| weighted.reports).sum();
        Self { size, counted, distinct }
    }

    /// An indicator's value over all counted reports.
    #[must_use]
    pub fn indicator(&self, indicator: &Indicator) -> Merged {
        let mut values = Vec::with_capacity(self.counted);
        for weighted in &self.distinct {
            if let Some(value) = indicator_in(indicator, weighted.summary) {
                values.extend(std::iter::repeat_n(value, weighted.reports));
            }
        }
        self.merge(&mut values)
    }

    /// Every series, each statistic merged by itself; those without a merged value are left out.
    #[must_use]
    pub fn all_series(&self) -> BTreeMap<SeriesKey, BTreeMap<Statistic, Interval>> {
        let mut merged = BTreeMap::new();
        if self.says_nothing() {
            return merged;
        }
        let mut cursors: Vec<Cursor<'_>> = self
            .distinct
            .iter()
            .map(|weighted| Cursor { series: weighted.summary.series.iter().peekable(), weighted })
            .collect();
        let mut values = Vec::with_capacity(self.counted);
        while let Some(key) = cursors.iter_mut().filter_map(Cursor::key).min() {
            let here: Vec<(&SeriesSummary, usize)> =
                cursors.iter_mut().filter_map(|cursor| cursor.take(key)).collect();
            let mut statistics = BTreeMap::new();
            for statistic in Statistic::ALL {
                values.clear();
                for (summary, reports) in &here {
                    if let Some(value) = statistic_of(statistic, summary) {
                        values.extend(std::iter::repeat_n(value, *reports));
                    }
                }
                if let Merged::Value(interval) = self.merge(&mut values) {
                    statistics.insert(statistic, interval);
                }
            }
            if !statistics.is_empty() {
                merged.insert(key.clone(), statistics);
            }
        }
        merged
    }

    /// Rule M2.
    const fn says_nothing(&self) -> bool {
        let faults = self.size.faults();
        self.counted.saturating_sub(faults) <= faults
    }

    /// Merges the values of those counted reports that have one.
    fn merge(&self, values: &mut [Quantity]) -> Merged {
        let faults = self.size.faults();
        let absent = self.counted.saturating_sub(values.len());
        if self.says_nothing() {
            return Merged::Unknown; // M2
        }
        match absent.cmp(&values.len()) {
            Ordering::Greater => return Merged::NoSamples, // M3
            Ordering::Equal => return Merged::Unknown,     // M4
            Ordering::Less => {}
        }
        values.sort_unstable();
        let missing = self.size.replicas().saturating_sub(self.counted);
        let possible = trimmed(values, faults.saturating_sub(missing)); // M6
        let certain = trimmed(values, faults); // M4
        let median = certain.len().checked_sub(1).and_then(|last| certain.get(last / 2)); // M5
        match (possible.first(), median, possible.last()) {
            (Some(&low), Some(&median), Some(&high)) => Merged::Value(Interval { low, median, high }),
            (Some(_) | None, Some(_) | None, Some(_) | None) => Merged::Unknown, // M4
        }
    }
}

/// What is left of sorted values without so many at either end.
fn trimmed(values: &[Quantity], each_end: usize) -> &[Quantity] {
    let end = values.len().saturating_sub(each_end);
    values.get(each_end..end).unwrap_or_default()
}

/// One distinct summary's series, in order, as far as they are not merged yet.
struct Cursor<'a> {
    series: Peekable<btree_map::Iter<'a, SeriesKey, SeriesSummary>>,
    weighted: &'a Weighted<'a>,
}

impl<'a> Cursor<'a> {
    fn key(&mut self) -> Option<&'a SeriesKey> {
        self.series.peek().map(|(key, _)| *key)
    }

    fn take(&mut self, key: &SeriesKey) -> Option<(&'a SeriesSummary, usize)> {
        let (_, summary) = self.series.next_if(|(next, _)| *next == key)?;
        Some((summary, self.weighted.reports))
    }
}

/// A statistic of one series in one report; `None` where the series has no such statistic or no samples.
fn statistic_of(statistic: Statistic, summary: &SeriesSummary) -> Option<Quantity> {
    match (summary, statistic) {
        (SeriesSummary::Level { last, .. }, Statistic::Last) => Some(*last),
        (SeriesSummary::Level { min, .. }, Statistic::Min) => Some(*min),
        (SeriesSummary::Level { max, .. }, Statistic::Max) => Some(*max),
        (SeriesSummary::Increase { increase, .. }, Statistic::Increase) => Some(*increase),
        (SeriesSummary::Distribution { count, .. }, Statistic::Increase) => Some(Quantity::from_u64(*count)),
        (
            SeriesSummary::Level { .. } | SeriesSummary::Increase { .. } | SeriesSummary::Distribution { .. },
            Statistic::Mean,
        ) => match mean_parts(summary) {
            Some((sum, count)) => sum.divided_by(count),
            None => None,
        },
        (SeriesSummary::Distribution { buckets, .. }, Statistic::P50 | Statistic::P90 | Statistic::P99) => {
            buckets.quantile(statistic.quantile()?)
        }
        (SeriesSummary::Level { .. }, Statistic::Increase)
        | (
            SeriesSummary::Increase { .. } | SeriesSummary::Distribution { .. },
            Statistic::Last | Statistic::Min | Statistic::Max,
        )
        | (
            SeriesSummary::Level { .. } | SeriesSummary::Increase { .. },
            Statistic::P50 | Statistic::P90 | Statistic::P99,
        ) => None,
    }
}

/// The sum and the number of the values that a mean is over; `None` for a rising sum, which has no values.
const fn mean_parts(summary: &SeriesSummary) -> Option<(Quantity, u64)> {
    match summary {
        SeriesSummary::Level { sum, samples, .. } => Some((*sum, *samples)),
        SeriesSummary::Distribution { count, sum, .. } => Some((*sum, *count)),
        SeriesSummary::Increase { .. } => None,
    }
}

/// Where the values of a distribution lie.
const fn buckets_of(summary: &SeriesSummary) -> Option<&Buckets> {
    match summary {
        SeriesSummary::Distribution { buckets, .. } => Some(buckets),
        SeriesSummary::Level { .. } | SeriesSummary::Increase { .. } => None,
    }
}

/// An indicator's value in one report (rule M7); `None` for "no samples".
fn indicator_in(indicator: &Indicator, summary: &WindowSummary) -> Option<Quantity> {
    let matching = || {
        summary.series.iter().filter(|(key, _)| selects(&indicator.selector, key)).map(|(_, series)| series)
    };
    let each = || matching().filter_map(|series| statistic_of(indicator.statistic, series));
    match indicator.combine {
        Combine::Min => each().min(),
        Combine::Max => each().max(),
        Combine::Sum => match indicator.statistic {
            Statistic::Mean => {
                let nothing = (Quantity::ZERO, 0_u64);
                let (sum, count) = matching()
                    .filter_map(mean_parts)
                    .fold(nothing, |(sum, count), part| (sum.plus(part.0), count.saturating_add(part.1)));
                sum.divided_by(count)
            }
            Statistic::P50 | Statistic::P90 | Statistic::P99 => {
                let all =
                    matching().filter_map(buckets_of).fold(Buckets::default(), |all, one| all.plus(one));
                all.quantile(indicator.statistic.quantile()?)
            }
            Statistic::Last | Statistic::Min | Statistic::Max | Statistic::Increase => {
                each().reduce(Quantity::plus)
            }
        },
    }
}

/// Whether a selector names this series.
#[must_use]
pub fn selects(selector: &Selector, key: &SeriesKey) -> bool {
    let has = |attributes: &Attributes, name, value| attributes.get(name) == Some(value);
    key.name == selector.name
        && selector.source.as_ref().is_none_or(|source| *source == key.source)
        && selector
            .attributes
            .iter()
            .all(|(name, value)| has(&key.attributes, name, value) || has(&key.resource, name, value))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
