//! What a cluster starts from: its parameters, targets and policies. The first root commits to its digest.

use borsh::{BorshDeserialize, BorshSerialize};

use super::policy::{Policy, Target};
use crate::types::{Digest, Millis};

/// Everything that all replicas must hold equally before the first command.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Genesis {
    /// Times and bounds of the control cycle.
    pub parameters: Parameters,
    /// Targets, sorted by name, each once.
    pub targets: Vec<Target>,
    /// Policies, in the order in which they are tried.
    pub policies: Vec<Policy>,
}

impl Genesis {
    /// The digest that the first root commits to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_value(self)
    }
}

/// Times and bounds of the control cycle. The defaults and their reasons: `quorate config example`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Parameters {
    /// A window's length, which is also the reports' cadence.
    pub window: Millis,
    /// How long after a window's close its report waits for late samples.
    pub grace: Millis,
    /// How long after close + grace a quorum of reports waits for the missing ones.
    pub settle: Millis,
    /// How long after its close a window is final at the latest.
    pub deadline: Millis,
    /// How long after its issue a certified plan may still be logged.
    pub activation_limit: Millis,
    /// How often every shard's head is derived anew, even when nothing changed.
    pub head_slot: Millis,
    /// When an agent calls a head stale.
    pub stale_after: Millis,
    /// The longest that one reading of a series may hold.
    pub longest_hold: Millis,
    /// The most series that one report may carry.
    pub series_limit: u32,
}

impl Parameters {
    /// The default times for a window of this length.
    #[must_use]
    pub const fn for_window(window: Millis) -> Self {
        let millis = window.as_millis();
        let grace = millis / 5;
        let settle = millis * 3 / 10;
        let three_windows = millis * 3;
        let other = grace + settle + 2 * millis;
        Self {
            window,
            grace: Millis::new(grace),
            settle: Millis::new(settle),
            deadline: Millis::new(if three_windows > other { three_windows } else { other }),
            activation_limit: Millis::new(if 2 * millis > 10_000 { 2 * millis } else { 10_000 }),
            head_slot: window,
            stale_after: Millis::new(three_windows),
            longest_hold: Millis::new(millis * 9),
            series_limit: 10_000,
        }
    }
}
