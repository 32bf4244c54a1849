//! Quantiles of measured durations, exact: every one is kept.
//!
//! Invariant: a quantile is a duration that was measured, never one in between.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How many durations are kept: an hour at a thousand a second. Later ones are not counted.
const MOST: usize = 4_000_000;

/// Durations that were measured, in microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Durations(Vec<u32>);

/// What they amount to, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many were measured.
    pub count: usize,
    /// Half of them are at most this.
    pub p50_us: u32,
    /// All but a hundredth are at most this.
    pub p99_us: u32,
    /// The longest.
    pub max_us: u32,
}

impl Durations {
    pub(super) fn add(&mut self, duration: Duration) {
        if self.0.len() < MOST {
            self.0.push(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(super) fn quantiles(mut self) -> Quantiles {
        self.0.sort_unstable();
        let at = |hundredths: usize| {
            // The nearest rank: the smallest one that this share of all does not exceed.
            let rank = (self.0.len() * hundredths).div_ceil(100).max(1);
            self.0.get(rank - 1).copied().unwrap_or_default()
        };
        Quantiles { count: self.0.len(), p50_us: at(50), p99_us: at(99), max_us: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Durations, Quantiles};
    use std::time::Duration;

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let of = |millis: &[u64]| {
            let mut durations = Durations::default();
            millis.iter().for_each(|one| durations.add(Duration::from_millis(*one)));
            durations.quantiles()
        };
        assert_eq!(of(&[]), Quantiles::default());
        assert_eq!(of(&[3]), Quantiles { count: 1, p50_us: 3_000, p99_us: 3_000, max_us: 3_000 });
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(of(&hundred), Quantiles { count: 100, p50_us: 50_000, p99_us: 99_000, max_us: 100_000 });
    }
}
