//! Level shift: a level that has moved and stays moved, by a two-sided CUSUM of clipped, scaled deviations.
//! A single spike is no shift. Invariant: no value adds more than [`CLIP`] to a sum, so a finding takes at least
//! [`BOUND`] / [`CLIP`] samples.
//!
//! - **L1** The reference level and the usual deviation from it are means over the first [`WARM_UP`] samples, then ones
//!   that forget in [`SPAN`] samples and learn from clipped deviations only.
//!   Where the whole past is one straight line, the reference level is what that line predicts: a trend is no shift.
//! - **L2** The sums are S+ = max(0, S+ + z - [`SLACK`]) and S- alike with -z (Page 1954), where z is the deviation in
//!   usual ones. The strength is the larger sum in units of [`BOUND`].
//! - **L3** A finding names the level before and the mean since its sum last was 0, and that time. The reference
//!   then begins anew at that mean; the sums at 0.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{Explanation, FOUND, Sample, Seen, Verdict, count, line::Line};
use crate::types::UnixMillis;

/// How many samples are only learned from, also after a shift.
const WARM_UP: u64 = 300;
/// How many samples the reference forgets in.
const SPAN: f64 = 1000.0;
/// What a deviation counts at most, in usual ones.
const CLIP: f64 = 4.0;
/// What a deviation must exceed to count at all: seasons and noise stay below it on average.
const SLACK: f64 = 1.5;
/// The sum that is just a finding.
const BOUND: f64 = 60.0;

/// The detector with its running state.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub struct LevelShift {
    level: f64,
    line: Line,
    usual: f64,
    samples: u64,
    up: Side,
    down: Side,
}

/// One of the two sums, and what came since it was last 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, BorshSerialize, BorshDeserialize)]
struct Side {
    sum: f64,
    values: f64,
    counted: u64,
    since: Option<UnixMillis>,
}

impl Default for LevelShift {
    fn default() -> Self {
        Self::new()
    }
}

impl LevelShift {
    /// The detector before the first sample.
    #[must_use]
    pub const fn new() -> Self {
        const NOTHING: Side = Side { sum: 0.0, values: 0.0, counted: 0, since: None };
        Self { level: 0.0, line: Line::new(), usual: 0.0, samples: 0, up: NOTHING, down: NOTHING }
    }

    /// Looks at the next sample.
    pub fn look(&mut self, sample: Sample) -> Verdict {
        let value = sample.value.to_f64();
        self.samples = self.samples.saturating_add(1);
        if self.samples == 1 {
            self.level = value;
            return Verdict::QUIET;
        }
        let level = self.line.prediction().unwrap_or(self.level);
        self.line.push(value);
        let deviation = value - level;
        if self.samples <= WARM_UP {
            // L1.
            let weight = 1.0 / count(self.samples);
            self.level = level + weight * deviation;
            self.usual += weight * (deviation.abs() - self.usual);
            return Verdict::QUIET;
        }
        let usual = self.usual.max(1e-6 * (level.abs() + 1e-3));
        let scaled = (deviation / usual).clamp(-CLIP, CLIP);
        // L2.
        self.up.push(scaled, sample.at, value);
        self.down.push(-scaled, sample.at, value);
        let side = if self.up.sum >= self.down.sum { self.up } else { self.down };
        let since = side.since.unwrap_or(sample.at);
        let to = side.values / count(side.counted.max(1));
        let verdict =
            Verdict::new(side.sum / BOUND, Explanation { seen: Seen::Shift { from: level, to }, since });
        if verdict.score >= FOUND {
            // L3.
            *self = Self { level: to, usual, samples: 1, ..Self::new() };
        } else {
            // L1.
            self.level = level + scaled * usual / SPAN;
            self.usual += (scaled.abs() * usual - self.usual) / SPAN;
        }
        verdict
    }
}

impl Side {
    fn push(&mut self, scaled: f64, at: UnixMillis, value: f64) {
        let sum = self.sum + scaled - SLACK;
        if sum <= 0.0 {
            *self = Self::default();
            return;
        }
        self.sum = sum;
        self.values += value;
        self.counted += 1;
        self.since = self.since.or(Some(at));
    }
}
