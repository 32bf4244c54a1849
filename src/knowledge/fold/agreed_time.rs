//! Agreed time: the replicated clock (rules T1 and T2). It reads no clock and never goes back.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::types::{CommitteeSize, Millis, ReplicaIndex, UnixMillis};

/// Each replica's largest logged time, and what follows from all of them.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(super) struct AgreedTime {
    size: CommitteeSize,
    /// By place in the committee; as many as there are replicas.
    newest: Vec<Option<UnixMillis>>,
    now: Option<UnixMillis>,
}

impl AgreedTime {
    pub(super) fn new(size: CommitteeSize) -> Self {
        Self { size, newest: vec![None; size.replicas()], now: None }
    }

    /// Whether it can be of a committee of this size.
    pub(super) fn fits(&self, size: CommitteeSize) -> bool {
        self.size == size && self.newest.len() == size.replicas()
    }

    /// Agreed time; `None` until a quorum of replicas has a logged time.
    pub(super) const fn now(&self) -> Option<UnixMillis> {
        self.now
    }

    /// Whether agreed time has passed a point: is at or after it.
    pub(super) fn has_passed(&self, point: UnixMillis) -> bool {
        self.now.is_some_and(|now| now >= point)
    }

    /// The largest time logged for a replica.
    pub(super) fn of(&self, replica: ReplicaIndex) -> Option<UnixMillis> {
        self.newest.get(replica.as_usize()).copied().flatten()
    }

    /// Takes a replica's signed time; the new agreed time, if it moved.
    pub(super) fn take(
        &mut self,
        replica: ReplicaIndex,
        time: UnixMillis,
        window: Millis,
    ) -> Option<UnixMillis> {
        let newest = self.newest.get_mut(replica.as_usize())?;
        *newest = (*newest).max(Some(time)); // T1
        let mut times: Vec<UnixMillis> = self.newest.iter().flatten().copied().collect();
        times.sort_unstable_by(|earlier, later| later.cmp(earlier));
        // T2: the k-th largest stands at k - 1; it does not exist while fewer than a quorum have a time.
        let reached = *times.get(self.size.one_honest() - 1)?;
        let quorum = *times.get(self.size.quorum() - 1)?;
        let candidate = Some(reached.min(quorum.plus(window.times(2))));
        if candidate <= self.now {
            return None;
        }
        self.now = candidate;
        candidate
    }
}
