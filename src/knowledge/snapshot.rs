//! The snapshot: everything that one control cycle may read. It is immutable, and its digest is the
//! evidence that a plan names.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;

use super::{finding::Interval, genesis::Genesis, plan::DesiredState};
use crate::types::{Cycle, Digest, Epoch, ReplicaIndex, TargetId, UnixMillis, WindowIndex};

/// How a window closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Finality {
    /// All replicas' reports were logged, or a quorum's and the settle time had passed.
    Confirmed,
    /// The deadline passed without a quorum.
    Unconfirmed,
}

/// What the merged reports say of one indicator in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Reading {
    /// A value, new in this window.
    Fresh(Interval),
    /// No new samples, but the last value still holds: its age is within the learned interval.
    Held {
        /// The last value.
        value: Interval,
        /// The close of its window, in event time.
        since: UnixMillis,
    },
    /// No samples, for longer than a value holds, or none ever.
    NoSamples {
        /// The close of the last window with samples, in event time; `None` when there never was one.
        since: Option<UnixMillis>,
        /// The learned interval between samples, in milliseconds; 0 when none was learned yet.
        learned_interval_ms: u64,
    },
    /// Too few reports count to say anything.
    Unknown,
}

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TargetState {
    /// The state it was last seen or declared in: by the newest receipt, else by the genesis.
    pub state: DesiredState,
    /// Digest of its newest logged plan's body; zeros when it has none.
    pub newest_plan: Digest,
    /// The newest logged plan's sequence number; zero when it has none.
    pub newest_seq: Cycle,
    /// When plans for it were logged in the last hour of agreed time, and by which policy, oldest first.
    pub recent_plans: Vec<(UnixMillis, String)>,
}

/// Everything that one control cycle may read.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Snapshot<'a> {
    /// The cluster.
    pub cluster: Digest,
    /// The epoch.
    pub epoch: Epoch,
    /// The cycle's number.
    pub cycle: Cycle,
    /// Agreed time.
    pub now: UnixMillis,
    /// The window that was finalised.
    pub window: WindowIndex,
    /// How it closed.
    pub finality: Finality,
    /// The replicas whose reports on it were logged by then, and whether a report was partial: such a one did not count.
    pub reporters: Vec<(ReplicaIndex, bool)>,
    /// One reading for each of the genesis' indicators, in their order: those of the policies come first.
    pub readings: Vec<Reading>,
    /// What is known of each target.
    pub targets: BTreeMap<TargetId, TargetState>,
    /// The targets that are stopped, and by which operators: nothing is planned for them.
    pub stopped: BTreeMap<TargetId, Vec<String>>,
    /// Parameters, targets' limits and policies.
    pub genesis: &'a Genesis,
}
