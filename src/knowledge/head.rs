//! A head: the quorum's signed word on which plan is the newest for each target of a shard, and when.
//! It is an agent's proof of freshness.

use serde::{Deserialize, Serialize};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::types::{Cycle, Digest, Epoch, HeadNumber, Shard, TargetId, UnixMillis};

/// The DSSE type of a head.
pub const HEAD_TYPE: &str = "application/vnd.quorate.head.v1+json";

/// The most targets that share one head, so that a head fits into a document's 64 KiB.
pub const SHARD_TARGETS: usize = 256;

/// What an agent may do with a target's newest plan.
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
pub enum Mode {
    /// Apply it.
    Act,
    /// Apply nothing new; keep what is applied.
    Hold,
    /// Apply nothing; the plan is withdrawn.
    Revoked,
}

/// A target's line in a head.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadEntry {
    /// The target.
    pub target: TargetId,
    /// Its newest logged plan's sequence number; 0 when it has none.
    pub seq: Cycle,
    /// SHA-256 of that plan's body; zeros when it has none.
    pub plan: Digest,
    /// What may be done with it.
    pub mode: Mode,
}

/// A head's body.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The format's version: 1.
    pub v: u32,
    /// The cluster.
    pub cluster: Digest,
    /// The epoch whose committee certifies it.
    pub epoch: Epoch,
    /// Which targets it speaks of.
    pub shard: Shard,
    /// +1 for each head of the shard.
    pub number: HeadNumber,
    /// Agreed time.
    pub time: UnixMillis,
    /// One line a target of the shard, sorted by target.
    pub targets: Vec<HeadEntry>,
    /// How many plans the log holds.
    pub log_size: u64,
    /// RFC 9162 tree head over the logged plans' bodies.
    pub log_root: Digest,
}

impl Head {
    /// The canonical bytes: what replicas sign.
    ///
    /// # Panics
    /// Never: the fields are integers and strings.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("integers and strings are valid JSON")
    }
}
