//! The effect of a logged plan, judged from merged readings (rules E1 to E3). It plans nothing.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::{
    knowledge::{
        change::{ClosedWindow, Effect},
        finding::Interval,
        policy::{Condition, Side},
        snapshot::{Finality, Reading},
    },
    types::{Cycle, Digest, Quantity, UnixMillis},
};

/// A logged plan whose effect is not settled yet.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(super) struct Pending {
    pub(super) seq: Cycle,
    pub(super) plan: Digest,
    /// By when the symptom must have ended.
    pub(super) by: UnixMillis,
    /// The policy's place in the genesis.
    pub(super) policy: usize,
    /// Whether a logged receipt says that the target is as the plan desires.
    pub(super) applied: bool,
}

impl Pending {
    /// The judgement (E2, E3) after a window that ends at or after [`Self::by`].
    pub(super) fn judge(&self, closed: &ClosedWindow, condition: &Condition) -> Effect {
        let reading = match (closed.finality, self.applied) {
            (Finality::Confirmed, true) => closed.readings.get(self.policy),
            (Finality::Confirmed, false) | (Finality::Unconfirmed, true | false) => None,
        };
        match (condition, reading) {
            (
                Condition::Threshold { side, leave, .. },
                Some(Reading::Fresh(value) | Reading::Held { value, .. }),
            ) => threshold(*side, *leave, value),
            (Condition::Absence { .. }, Some(Reading::Fresh(_) | Reading::Held { .. })) => Effect::Better,
            (Condition::Absence { .. }, Some(Reading::NoSamples { .. })) => Effect::Worse,
            (Condition::Threshold { .. }, Some(Reading::NoSamples { .. }))
            | (Condition::Threshold { .. } | Condition::Absence { .. }, Some(Reading::Unknown) | None)
            // It has no action.
            | (Condition::Conservation { .. }, _)
            // What a load asked for is no bound to come back to: the next recommendation is the judgement.
            | (Condition::Capacity(_), _) => Effect::Inconclusive,
        }
    }
}

/// The symptom ends at `leave`, as for the detector and as the plan's own `verify` says: a count of failures ends at zero.
fn threshold(side: Side, leave: Quantity, value: &Interval) -> Effect {
    let (all_healthy, none_healthy) = match side {
        Side::Above => (value.high <= leave, value.low > leave),
        Side::Below => (value.low >= leave, value.high < leave),
    };
    match (all_healthy, none_healthy) {
        (true, _) => Effect::Better,
        (false, true) => Effect::Worse,
        (false, false) => Effect::Inconclusive,
    }
}
