//! What peers named in the place of what they no longer hold, blocks or a state (rule K4).
//!
//! It asks nobody and verifies nothing. Invariant: one checkpoint is kept of each peer, and only that peer's own later
//! word or help takes it away, so nobody can unsay what others said.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{certificate::Verified, checkpoint::StableCheckpoint};
use crate::types::{Height, ReplicaIndex};

#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    by: BTreeMap<ReplicaIndex, Verified<StableCheckpoint>>,
}

impl Named {
    /// A peer no longer holds what it was asked for, and names this instead.
    pub(super) fn name(&mut self, by: ReplicaIndex, checkpoint: Verified<StableCheckpoint>) {
        self.by.insert(by, checkpoint);
    }

    /// A peer gave some of what was wanted: what it said before counts no more.
    pub(super) fn helped(&mut self, by: ReplicaIndex) {
        self.by.remove(&by);
    }

    /// The highest checkpoint above a height that an honest peer named, or one below what it named: so nobody makes this
    /// replica wait for a state that only he has. `None` while all who name one above that height may be lying.
    pub(super) fn sure(&self, above: Height, one_honest: usize) -> Option<&Verified<StableCheckpoint>> {
        let mut named: Vec<_> =
            self.by.values().filter(|checkpoint| checkpoint.get().height() > above).collect();
        named.sort_by_key(|checkpoint| Reverse(checkpoint.get().height()));
        named.get(one_honest.checked_sub(1)?).copied()
    }
}
