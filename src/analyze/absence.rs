//! The absence detector: a series that was there and has fallen silent (rules A1 to A4). It keeps no state:
//! the reading carries how long the silence lasts and how long it may.

use borsh::{BorshDeserialize, BorshSerialize};

use super::analyzer::{Moment, Sighting};
use crate::knowledge::{finding::Symptom, snapshot::Reading};
use crate::types::{Quantity, UnixMillis};

/// The detector.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Absence {
    after_milli_intervals: u32,
}

impl Absence {
    pub(super) const fn new(after_milli_intervals: u32) -> Self {
        Self { after_milli_intervals }
    }

    pub(super) fn look(&self, moment: Moment, reading: Reading) -> Option<Sighting> {
        match reading {
            Reading::NoSamples { since: Some(since), learned_interval_ms } => {
                self.look_at_silence(moment, since, learned_interval_ms)
            }
            // A1, A4. What is unknown is not silent.
            Reading::NoSamples { since: None, .. }
            | Reading::Fresh(_)
            | Reading::Held { .. }
            | Reading::Unknown => None,
        }
    }

    fn look_at_silence(
        &self,
        moment: Moment,
        since: UnixMillis,
        learned_interval_ms: u64,
    ) -> Option<Sighting> {
        // A2.
        if learned_interval_ms == 0 {
            return None;
        }
        // A3. In microseconds, so that thousandths of an interval are whole; 128 bits hold any product of both.
        let silent_us = u128::from(moment.window.close(moment.length).since(since).as_millis()) * 1000;
        let allowed_us = u128::from(learned_interval_ms) * u128::from(self.after_milli_intervals);
        (silent_us >= allowed_us).then(|| Sighting {
            symptom: Symptom::Absence,
            since,
            observed: None,
            against: Quantity::from_nanos(
                i128::try_from(allowed_us).unwrap_or(i128::MAX).saturating_mul(1000),
            ),
        })
    }
}
