//! Detectors over one series of samples: online, of constant memory, with an explanation in each finding.
//!
//! A detector is given the samples of one series one by one and says of each how unusual it is. It never
//! looks ahead, never looks back at more than its bounded state, and knows no policy: what to do about a
//! finding is not its business. Each detector answers for one kind of symptom with an alarm budget of its own;
//! nobody joins them into one score. Invariant: equal samples give equal state and equal verdicts, byte for
//! byte, on every machine (ADR 0012).
//!
//! # The rules of all detectors
//!
//! - **D1** A verdict depends on the samples up to its own and on nothing else: not on how many will come, nor
//!   on the range that they will have.
//! - **D2** A score is a number from 0 to 1, comparable between series; [`FOUND`] and more is a finding.
//! - **D3** A finding says what was seen, against what, and since when.
//! - **D4** A detector's state has at most [`MAX_STATE_BYTES`] canonical bytes, however many samples it has
//!   seen.
//! - **D5** Arithmetic is `+ - * /`, the square root and comparisons, of finite doubles, in one order. A
//!   difference that could be divided by is bounded away from zero, so no value is ever infinite or no number.
//! - **D6** Samples come in the order of their times; of two with the same time both count.
//!
//! The rules of each detector are in its own file.

mod burn_rate;
pub mod clean;
mod explanation;
mod holt;
mod level_shift;
mod limit;
mod line;
mod novelty;
mod past;
mod range;
mod ring;
mod stall;

pub use burn_rate::{BurnRate, NoObjective};
pub use explanation::{Explanation, Seen};
pub use holt::Holt;
pub use level_shift::LevelShift;
pub use limit::Limit;
pub use novelty::Novelty;
pub use range::Range;
pub use stall::{Backlog, Stall};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::types::{Millis, Quantity, UnixMillis};

/// From this score on a verdict is a finding (D2).
pub const FOUND: f64 = 0.5;

/// The canonical bytes of a detector's state (D4): ten thousand series fit beside all else that a replica holds.
pub const MAX_STATE_BYTES: usize = 10 * 1024;

/// One measured value of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its own time.
    pub at: UnixMillis,
    /// The value.
    pub value: Quantity,
}

/// What a detector says of one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// How unusual it is, from 0 to 1 (D2).
    pub score: f64,
    /// The explanation, if it is a finding (D3).
    pub finding: Option<Explanation>,
}

impl Verdict {
    /// Nothing to say.
    const QUIET: Self = Self { score: 0.0, finding: None };

    /// A verdict whose `strength` is measured in its detector's own bound: 1 is just a finding. The score is
    /// `strength / (strength + 1)`.
    fn new(strength: f64, explanation: Explanation) -> Self {
        let strength = strength.max(0.0);
        let score = strength / (strength + 1.0);
        Self { score, finding: (score >= FOUND).then_some(explanation) }
    }
}

/// A detector of any kind.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub enum Detector {
    /// A pair of a recent value and a long mean that was never there before.
    Novelty(Novelty),
    /// A value far from where level and trend, and the time of day, said it would be.
    Holt(Holt),
    /// A value outside the range of all earlier ones.
    Range(Range),
    /// A level that has moved for good.
    LevelShift(LevelShift),
    /// An error budget that burns too fast.
    BurnRate(BurnRate),
    /// A trend that reaches a limit soon.
    Limit(Limit),
    /// A counter that has stopped rising.
    Stall(Stall),
}

/// The kinds of detectors, for those who name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// [`Novelty`].
    Novelty,
    /// [`Holt`].
    Holt,
    /// [`Range`].
    Range,
    /// [`LevelShift`].
    LevelShift,
    /// [`BurnRate`].
    BurnRate,
    /// [`Limit`].
    Limit,
    /// [`Stall`].
    Stall,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Novelty, Self::Holt, Self::Range, Self::LevelShift, Self::BurnRate, Self::Limit, Self::Stall];

    /// The name by which it is chosen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Novelty => "novelty",
            Self::Holt => "holt",
            Self::Range => "range",
            Self::LevelShift => "level-shift",
            Self::BurnRate => "burn-rate",
            Self::Limit => "limit",
            Self::Stall => "stall",
        }
    }

    /// What it finds, in a few words.
    #[must_use]
    pub const fn finds(self) -> &'static str {
        match self {
            Self::Novelty => {
                "a value that, with the mean of the last 300, is far from every earlier such pair"
            }
            Self::Holt => "a value far from what level and trend predicted",
            Self::Range => "a value outside the range of all earlier ones",
            Self::LevelShift => "a level that has moved and stays there",
            Self::BurnRate => "an error budget that burns too fast; values are shares of errors, 0 to 1",
            Self::Limit => "a trend that reaches a limit within four hours",
            Self::Stall => "a counter of completions that has stopped rising",
        }
    }
}

impl Detector {
    /// Looks at the next sample of the series.
    pub fn look(&mut self, sample: Sample) -> Verdict {
        match self {
            Self::Novelty(detector) => detector.look(sample),
            Self::Holt(detector) => detector.look(sample),
            Self::Range(detector) => detector.look(sample),
            Self::LevelShift(detector) => detector.look(sample),
            Self::BurnRate(detector) => detector.look(sample),
            Self::Limit(detector) => detector.look(sample),
            Self::Stall(detector) => detector.look(sample, Backlog::Waiting),
        }
    }
}

/// A span in seconds.
#[expect(clippy::cast_precision_loss, reason = "spans below 285,000 years are exact to the millisecond")]
const fn seconds(span: Millis) -> f64 {
    span.as_millis() as f64 / 1000.0
}

/// A count as a divisor.
#[expect(clippy::cast_precision_loss, reason = "no detector counts beyond 2^53")]
const fn count(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
