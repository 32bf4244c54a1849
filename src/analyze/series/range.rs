//! Range exceedance: a value outside of all earlier ones, by a share of their range. Invariant: the range only
//! grows, so a level that stays outside is found once.
//!
//! - **R1** The first [`WARM_UP`] samples are only learned from.
//! - **R2** The strength is the distance past the range's end, in units of a quarter of the range. A range of
//!   no width has no unit: any other value is as strong as can be.
//! - **R3** Every value widens the range, also one that is found.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{Explanation, Sample, Seen, Verdict};

/// How many samples are only learned from.
const WARM_UP: u64 = 300;
/// The share of the range that is just a finding.
const SHARE: f64 = 0.25;

/// The detector with its running state.
#[derive(Clone, Debug, Default, PartialEq, BorshSerialize, BorshDeserialize)]
pub struct Range {
    range: Option<(f64, f64)>,
    samples: u64,
}

impl Range {
    /// The detector before the first sample.
    #[must_use]
    pub const fn new() -> Self {
        Self { range: None, samples: 0 }
    }

    /// Looks at the next sample.
    pub fn look(&mut self, sample: Sample) -> Verdict {
        let value = sample.value.to_f64();
        let (low, high) = self.range.unwrap_or((value, value));
        // R3.
        self.range = Some((low.min(value), high.max(value)));
        self.samples = self.samples.saturating_add(1);
        let end = if value > high { high } else { low };
        // R1.
        if self.samples <= WARM_UP || (low..=high).contains(&value) {
            return Verdict::QUIET;
        }
        let (past, width) = ((value - end).abs(), high - low);
        // R2.
        let strength = if width > 0.0 { past / (SHARE * width) } else { f64::MAX };
        let strength = strength.min(1e12);
        Verdict::new(strength, Explanation { seen: Seen::Outside { value, end, width }, since: sample.at })
    }
}
