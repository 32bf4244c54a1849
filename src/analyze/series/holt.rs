//! Holt's method: level and trend predict the next value; a value that errs far more than predictions
//! usually do is found. It knows no seasons of its own: a slow season is trend enough, a fast one widens the
//! usual error. Invariant: one value moves the usual error by a bounded factor, however far off it is.
//!
//! - **H1** The prediction is level + trend. The level follows a value by [`LEVEL`], the trend follows the
//!   level's change by [`TREND`] (Holt 1957).
//! - **H2** The usual error is a mean of the errors' sizes, each counted as at most [`CLIP`] times the usual one
//!   so far (a Huber mean). After [`WARM_UP`] samples it is never 0 without all errors having been.
//! - **H3** The strength is the error in units of the larger of [`BOUND`] times the usual one and [`AGAIN`] times the
//!   largest so far, which fades by half in some 3,500 samples: what has happened lately is no surprise, such as
//!   a weekend's beginning. Where every prediction has been right to a millionth of the value, the usual error is
//!   that millionth.
//! - **H4** Level and trend follow a value clipped to the same distance, so that one spike leaves little behind.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{Explanation, Sample, Seen, Verdict};

/// How much the level follows.
const LEVEL: f64 = 0.2;
/// How much the trend follows.
const TREND: f64 = 0.02;
/// How much the usual error follows.
const ERROR: f64 = 0.01;
/// What an error counts at most, in usual ones.
const CLIP: f64 = 4.0;
/// The error that is just a finding, in usual ones: of normal noise, less than one in a million.
const BOUND: f64 = 7.0;
/// The error that is just a finding, in largest ones.
const AGAIN: f64 = 1.5;
/// What is left of the largest error from sample to sample.
const FADES: f64 = 0.9998;
/// How many samples are only learned from.
const WARM_UP: u64 = 200;

/// The detector with its running state.
#[derive(Clone, Debug, Default, PartialEq, BorshSerialize, BorshDeserialize)]
pub struct Holt {
    level: f64,
    trend: f64,
    usual: f64,
    largest: f64,
    samples: u64,
}

impl Holt {
    /// The detector before the first sample.
    #[must_use]
    pub const fn new() -> Self {
        Self { level: 0.0, trend: 0.0, usual: 0.0, largest: 0.0, samples: 0 }
    }

    /// Looks at the next sample.
    pub fn look(&mut self, sample: Sample) -> Verdict {
        let value = sample.value.to_f64();
        self.samples = self.samples.saturating_add(1);
        if self.samples == 1 {
            self.level = value;
            return Verdict::QUIET;
        }
        // H1.
        let predicted = self.level + self.trend;
        let error = value - predicted;
        // H3.
        let floor = 1e-6 * (predicted.abs() + 1e-3);
        let usual = self.usual.max(floor);
        let known = self.samples > WARM_UP;
        // H4.
        let reach = if known { CLIP * usual } else { f64::MAX };
        self.follow(predicted, error.clamp(-reach, reach));
        let largest = self.largest * FADES;
        self.largest = largest.max(error.abs());
        if !known {
            return Verdict::QUIET;
        }
        let strength = error.abs() / (BOUND * usual).max(AGAIN * largest);
        Verdict::new(
            strength,
            Explanation { seen: Seen::Surprise { value, predicted, usual }, since: sample.at },
        )
    }

    fn follow(&mut self, predicted: f64, error: f64) {
        let level = predicted + LEVEL * error;
        self.trend += TREND * (level - self.level - self.trend);
        self.level = level;
        // H2. Plain at first, so that the first errors do not stand for all.
        let weight = (1.0 / super::count(self.samples)).max(ERROR);
        self.usual += weight * (error.abs() - self.usual);
    }
}
