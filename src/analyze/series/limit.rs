//! Trend to a limit: at its present pace, when does the series reach it? "Full in four hours". The pace is the
//! slope of a least-squares line through the recent past. Invariant: a series that is falling, or whose line is
//! no better than chance, reaches nothing.
//!
//! - **E1** Level and slope are those of a line through the samples, each weighing less by its age: a hundredth less
//!   for every later sample. Times are the samples' own, so unequal spacing is no matter.
//! - **E2** A trend is one only if the line explains half of the variance.
//! - **E3** The strength is [`SOON_HOURS`] divided by the hours until the limit is reached; a level past the limit is
//!   as strong as can be.
//! - **E4** The first [`WARM_UP`] samples are only learned from.
//! - **E5** `since` is the time of the first of the findings in a row.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{Explanation, FOUND, Sample, Seen, Verdict, seconds};
use crate::types::{Quantity, UnixMillis};

/// What is left of a sample's weight after each later one.
const KEEPS: f64 = 0.99;
/// How many samples are only learned from.
const WARM_UP: u64 = 60;
/// Within how many hours a limit is near.
const SOON_HOURS: f64 = 4.0;

/// The detector with its running state.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub struct Limit {
    limit: f64,
    last: Option<UnixMillis>,
    samples: u64,
    sums: Sums,
    found_since: Option<UnixMillis>,
}

/// Weighted sums of the ages `t` (hours, zero at the newest sample and negative before) and values `v`, relative
/// to the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, BorshSerialize, BorshDeserialize)]
struct Sums {
    w: f64,
    t: f64,
    v: f64,
    tt: f64,
    tv: f64,
    vv: f64,
}

impl Limit {
    /// The detector of a limit from below, before the first sample.
    #[must_use]
    pub fn new(limit: Quantity) -> Self {
        Self { limit: limit.to_f64(), last: None, samples: 0, sums: Sums::default(), found_since: None }
    }

    /// Looks at the next sample.
    pub fn look(&mut self, sample: Sample) -> Verdict {
        let value = sample.value.to_f64();
        let span = self.last.map_or(0.0, |last| seconds(sample.at.since(last)) / 3600.0);
        self.last = Some(sample.at);
        self.samples = self.samples.saturating_add(1);
        self.sums.age(span);
        self.sums.add(value - self.limit);
        // E4.
        if self.samples <= WARM_UP {
            return Verdict::QUIET;
        }
        let Some((below, hours)) = self.reach(value) else {
            self.found_since = None;
            return Verdict::QUIET;
        };
        let since = self.found_since.unwrap_or(sample.at);
        // E3.
        let strength = if hours > 0.0 { (SOON_HOURS / hours).min(1e12) } else { 1e12 };
        let seen = Seen::Near { level: self.limit + below, limit: self.limit, hours };
        let verdict = Verdict::new(strength, Explanation { seen, since });
        // E5.
        self.found_since = (verdict.score >= FOUND).then_some(since);
        verdict
    }

    /// The level relative to the limit and the hours until it is reached, if it is.
    fn reach(&self, value: f64) -> Option<(f64, f64)> {
        if value >= self.limit {
            return Some((value - self.limit, 0.0));
        }
        let line = self.sums.line()?;
        let hours = if line.level >= 0.0 { 0.0 } else { -line.level / line.slope };
        Some((line.level, hours))
    }
}

struct Rising {
    level: f64,
    slope: f64,
}

impl Sums {
    /// Moves the origin of time to `span` hours later, and lets the weights fade (E1).
    fn age(&mut self, span: f64) {
        let Self { w, t, v, tt, tv, vv } = *self;
        *self = Self {
            w: KEEPS * w,
            t: KEEPS * (t - span * w),
            v: KEEPS * v,
            tt: KEEPS * (tt - 2.0 * span * t + span * span * w),
            tv: KEEPS * (tv - span * v),
            vv: KEEPS * vv,
        };
    }

    fn add(&mut self, value: f64) {
        self.w += 1.0;
        self.v += value;
        self.vv += value * value;
    }

    /// The line's level now and its slope an hour, if it rises and is one (E2).
    fn line(&self) -> Option<Rising> {
        let times = self.tt - self.t * self.t / self.w;
        let values = self.vv - self.v * self.v / self.w;
        let both = self.tv - self.t * self.v / self.w;
        if times <= 0.0 || values <= 0.0 || both <= 0.0 || both * both < 0.5 * times * values {
            return None;
        }
        let slope = both / times;
        (slope > 0.0).then(|| Rising { level: (self.v - slope * self.t) / self.w, slope })
    }
}
