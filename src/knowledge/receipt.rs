//! A receipt: an agent's signed account of what it did with a plan.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use super::plan::DesiredState;
use crate::types::{Cycle, Digest, TargetId, UnixMillis};

/// The DSSE type of a receipt.
pub const RECEIPT_TYPE: &str = "application/vnd.quorate.receipt.v1+json";

/// What became of the plan at the target.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The target was changed and reads back as desired.
    Applied {},
    /// The target already was as desired.
    Noop {},
    /// Nothing was changed.
    Refused {
        /// Why.
        why: Refusal,
    },
    /// The change was taken back, because the target landed elsewhere.
    Reverted {},
}

/// Why an agent refused a plan that was certified and fresh.
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
pub enum Refusal {
    /// The plan had expired.
    Expired,
    /// The target was not in the state that the plan was decided on.
    Precondition,
    /// The target could not be read or changed.
    TargetFailed,
    /// The plan breaks the bounds it carries.
    Limits,
}

/// A receipt's body.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The format's version: 1.
    pub v: u32,
    /// The cluster.
    pub cluster: Digest,
    /// The target.
    pub target: TargetId,
    /// The plan's sequence number.
    pub seq: Cycle,
    /// SHA-256 of the plan's body.
    pub plan: Digest,
    /// What became of it.
    pub outcome: Outcome,
    /// The target's state before.
    pub before: DesiredState,
    /// The target's state after.
    pub after: DesiredState,
    /// The agent's clock.
    pub at: UnixMillis,
    /// +1 for each receipt of the agent; the fold refuses one that is not above the last.
    pub counter: u64,
    /// How many documents the agent refused since its last receipt because they failed verification.
    pub refused_documents: u64,
}

impl Receipt {
    /// The bytes that the agent signs.
    ///
    /// # Panics
    /// Never: the fields are integers and strings.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("integers and strings are valid JSON")
    }
}
