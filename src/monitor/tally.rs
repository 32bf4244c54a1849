//! What each source sent: how many of its points count, how many do not, and why.
//!
//! Only sources with series have counts of their own, so that nobody fills the table with names; what others
//! sent is counted together. Invariant: there are no more counts than sources with series, and one.

use std::collections::BTreeMap;

use super::{point::Refused, reason::Reason};
use crate::types::SourceId;

/// What became of a source's points since it was first seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// How many series it has.
    pub series: usize,
    /// Points that count, resends among them.
    pub accepted: u64,
    /// Points that do not, and why.
    pub refused: Refused,
}

impl SourceCounts {
    /// How many points do not count.
    #[must_use]
    pub fn refused_points(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// Counts by source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Of each source that has series.
    pub by_source: BTreeMap<SourceId, SourceCounts>,
    /// Of all others together.
    pub others: SourceCounts,
}

impl Tally {
    pub(super) const fn new() -> Self {
        let counts = SourceCounts { series: 0, accepted: 0, refused: BTreeMap::new() };
        Self { by_source: BTreeMap::new(), others: counts }
    }

    /// A point of a source with series counts.
    pub(super) fn accept(&mut self, source: &SourceId) {
        match self.by_source.get_mut(source) {
            Some(counts) => counts.accepted += 1,
            None => self.by_source.entry(source.clone()).or_default().accepted += 1,
        }
    }

    pub(super) fn refuse(&mut self, source: Option<&SourceId>, reason: Reason, points: u64) {
        let counts = source.and_then(|source| self.by_source.get_mut(source)).unwrap_or(&mut self.others);
        *counts.refused.entry(reason).or_default() += points;
    }

    /// Takes up how many series each source has; the counts of those that have none are no longer their own.
    pub(super) fn settle(&mut self, series_of: impl Fn(&SourceId) -> usize) {
        let others = &mut self.others;
        self.by_source.retain(|source, counts| {
            counts.series = series_of(source);
            if counts.series == 0 {
                others.accepted += counts.accepted;
                for (reason, points) in &counts.refused {
                    *others.refused.entry(*reason).or_default() += points;
                }
            }
            counts.series > 0
        });
    }
}
