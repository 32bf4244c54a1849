//! A plan: the complete, absolute desired state of one target. It leaves the agent no choice.
//!
//! Its canonical bytes are the JSON of [`Plan`] with the fields in the order written here, without spaces.
//! A replica signs those bytes; nobody encodes them a second time.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use std::fmt;

use crate::types::{Cycle, Digest, Epoch, Millis, Quantity, TargetId, UnixMillis};

/// The DSSE type of a plan.
pub const PLAN_TYPE: &str = "application/vnd.quorate.plan.v1+json";

/// The absolute state of a target.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DesiredState {
    /// A pool has so many slots.
    Slots {
        /// How many.
        slots: u32,
    },
    /// The target starts no new work.
    Paused {},
    /// The target starts new work.
    Running {},
    /// No task that failed in this span of time is still failed: each was told to run again.
    Retried {
        /// Tasks that failed after this moment.
        after: UnixMillis,
        /// And not later than this one.
        until: UnixMillis,
    },
}

impl fmt::Display for DesiredState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slots { slots: 1 } => f.write_str("1 slot"),
            Self::Slots { slots } => write!(f, "{slots} slots"),
            Self::Paused {} => f.write_str("paused"),
            Self::Running {} => f.write_str("running"),
            Self::Retried { after, until } if until <= after => f.write_str("nothing retried"),
            Self::Retried { after, until } => {
                write!(f, "failures from {} to {} ms retried", after.as_millis(), until.as_millis())
            }
        }
    }
}

/// What an agent does with an applied plan while no fresh head can be had.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum OnStale {
    /// Keeps what is applied.
    Hold,
    /// Applies the plan's certified rollback.
    Rollback,
}

/// A measured value in a document: an integer with a decimal scale and a unit beside it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// The integer; the value is `value / 10^scale`.
    pub value: i64,
    /// How many decimal places.
    pub scale: u32,
    /// The unit; empty when the source gave none.
    pub unit: String,
}

impl Measure {
    /// The value as an integer with the fewest decimal places that lose nothing; `None` when 64 bits do not
    /// hold it.
    #[must_use]
    pub fn exactly(value: Quantity, unit: &str) -> Option<Self> {
        let (mut digits, mut scale) = (value.as_nanos(), Quantity::SCALE);
        while scale > 0 && digits % 10 == 0 {
            digits /= 10;
            scale -= 1;
        }
        i64::try_from(digits).ok().map(|value| Self { value, scale, unit: unit.to_owned() })
    }
}

/// How the quorum will judge whether the plan helped.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The metric's name.
    pub series: String,
    /// `at_most`, `at_least` or `present`.
    pub op: VerifyOp,
    /// The bound.
    pub value: Measure,
    /// By when.
    pub by: UnixMillis,
    /// What follows when it does not hold.
    #[serde(rename = "else")]
    pub otherwise: VerifyElse,
}

/// The direction of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyOp {
    /// The value must be at most the bound.
    AtMost,
    /// The value must be at least the bound.
    AtLeast,
    /// There must be a value again; the bound is 0 and says nothing.
    Present,
}

/// What follows when a plan has not helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyElse {
    /// A finding for operators.
    Finding,
}

/// What must hold at the target before the plan is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preconditions {
    /// The state that the plan was decided on (compare-and-set).
    pub state: DesiredState,
}

/// The bounds the plan was checked against, for the agent to check again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Limits {
    /// A pool's bounds.
    Slots {
        /// The fewest slots.
        min: u32,
        /// The most slots.
        max: u32,
        /// The largest change by one plan.
        max_step: u32,
    },
    /// A switch has none.
    Switch {},
    /// The bounds of a retry.
    Tasks {
        /// The most tasks that one plan may tell to run again: failed ones, and those that wait for them.
        most: u32,
        /// How long ago they may have failed, counted from the plan's issue.
        within: Millis,
    },
}

/// Why, from a fixed vocabulary: nothing that telemetry says is ever repeated here.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A value was past its threshold.
    Threshold,
    /// A series had no samples.
    Absence,
    /// A load asked for more or fewer slots.
    Capacity,
}

/// The risk class that stands in the plan.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum RiskClass {
    /// Easily undone.
    Low,
    /// Needs care.
    Medium,
    /// Can stop production.
    High,
}

/// A plan's body.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The format's version: 1.
    pub v: u32,
    /// The cluster.
    pub cluster: Digest,
    /// The epoch whose committee certifies it.
    pub epoch: Epoch,
    /// What it is for.
    pub target: TargetId,
    /// The control cycle it was derived in.
    pub seq: Cycle,
    /// Digest of the body of the target's newest logged plan; zeros for the first.
    pub prev: Digest,
    /// Agreed time of its derivation.
    pub issued_at: UnixMillis,
    /// Not to be applied earlier.
    pub not_before: UnixMillis,
    /// Not to be applied later.
    pub expires_at: UnixMillis,
    /// The desired state.
    pub desired: DesiredState,
    /// What must hold first.
    pub preconditions: Preconditions,
    /// The bounds.
    pub limits: Limits,
    /// How it will be judged.
    pub verify: Verify,
    /// What takes it back.
    pub rollback: DesiredState,
    /// What to do while heads are stale.
    pub on_stale: OnStale,
    /// Digest of the snapshot and findings that these bytes can be computed from.
    pub evidence: Digest,
    /// Digest of the policy that asked.
    pub policy: Digest,
    /// The policy's risk class.
    pub risk: RiskClass,
    /// Why.
    pub reason: Reason,
}

impl Plan {
    /// The canonical bytes: what replicas sign and agents hash.
    ///
    /// # Panics
    /// Never: the fields are integers and strings.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("integers and strings are valid JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::Measure;
    use crate::types::Quantity;

    #[test]
    fn a_measure_has_the_fewest_decimal_places_that_lose_nothing() {
        let rows = [
            (Quantity::from_i64(20), Some((20, 0))),
            (Quantity::from_nanos(-1_500_000_000), Some((-15, 1))),
            (Quantity::from_nanos(1), Some((1, 9))),
            (Quantity::ZERO, Some((0, 0))),
            (Quantity::from_i64(i64::MAX), Some((i64::MAX, 0))),
            (Quantity::from_nanos(i128::from(i64::MAX) + 1), None),
        ];
        for (value, expected) in rows {
            let expected = expected.map(|(value, scale)| Measure { value, scale, unit: "1".to_owned() });
            assert_eq!(Measure::exactly(value, "1"), expected, "{value}");
        }
    }
}
