//! Checkpoints on their way: which heights are due, what the application said of them, whose statements are here,
//! which certificates wait to be compared, and when the own statement is said again (rules K1, K2).
//!
//! It signs nothing and sends nothing. Invariant: what is kept is bounded by the committee's size and
//! [`super::limits`], and a checkpoint is settled once, each higher than the one before.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    certificate::{QuorumCertificate, Verified},
    checkpoint::{Checkpoint, CheckpointCertificate, CheckpointVote, StableCheckpoint},
    limits::{
        CHECKPOINT_RESEND_INTERVAL, KEPT_CHECKPOINT_VOTES, MAX_CHECKPOINT_RESENDS, MAX_OPEN_CHECKPOINTS,
    },
    snapshot::SnapshotId,
    tree::CommittedBlock,
    votes::Counted,
};
use crate::types::{CommitteeSize, Height, Millis, ReplicaIndex};

#[derive(Clone, Debug)]
pub(super) struct Checkpoints {
    size: CommitteeSize,
    interval: u64,
    /// Committed heights at which a checkpoint is due and not settled yet.
    due: BTreeMap<Height, Due>,
    /// The newest statements of each replica, this one among them.
    votes: BTreeMap<ReplicaIndex, BTreeMap<Height, Verified<CheckpointVote>>>,
    /// Certificates that were not compared with the own state yet.
    certified: BTreeMap<Height, Verified<CheckpointCertificate>>,
    stable: Option<Verified<StableCheckpoint>>,
    /// Whose statement about the stable height was heard.
    heard: BTreeSet<ReplicaIndex>,
    /// At which height the application last began at another state than its own.
    installed: Height,
    /// The highest height at which another state was certified than the own, until the application began at one above it.
    diverged: Option<Height>,
    resend: Option<Resend>,
}

/// The own newest statement, while no certificate of its height is here.
#[derive(Clone, Copy, Debug)]
struct Resend {
    height: Height,
    sent: u32,
    due: Millis,
}

#[derive(Clone, Debug)]
struct Due {
    qc: QuorumCertificate,
    state: Option<SnapshotId>,
}

/// What comparing a certificate with the own state showed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// They are equal; whether the application must begin there all the same, for an earlier one was another.
    Stable(Verified<StableCheckpoint>, bool),
    /// They are not.
    Diverged(Verified<StableCheckpoint>, SnapshotId),
}

impl Checkpoints {
    pub(super) const fn new(size: CommitteeSize, interval: u64) -> Self {
        Self {
            size,
            interval,
            due: BTreeMap::new(),
            votes: BTreeMap::new(),
            certified: BTreeMap::new(),
            stable: None,
            heard: BTreeSet::new(),
            installed: Height::ZERO,
            diverged: None,
            resend: None,
        }
    }

    /// The newest checkpoint whose certified state is the own one.
    pub(super) const fn stable(&self) -> Option<&Verified<StableCheckpoint>> {
        self.stable.as_ref()
    }

    /// How many heights, statements and certificates are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize, usize) {
        (self.due.len(), self.votes.values().map(BTreeMap::len).sum(), self.certified.len())
    }

    fn stable_height(&self) -> Height {
        self.stable.as_ref().map_or(Height::ZERO, |stable| stable.get().height())
    }

    /// Whether a checkpoint of this height may still be settled.
    fn is_open(&self, height: Height) -> bool {
        height.number().is_multiple_of(self.interval) && height > self.stable_height()
    }

    /// A block was committed.
    pub(super) fn committed(&mut self, committed: &CommittedBlock) {
        let height = committed.block.height();
        if self.is_open(height) {
            self.due.insert(height, Due { qc: committed.certificate.clone(), state: None });
            keep_newest(&mut self.due, MAX_OPEN_CHECKPOINTS);
        }
    }

    /// The application names its state after a committed block: the statement to sign. `None` when no checkpoint is
    /// due at that height, its state was named before, or the application does not know yet that it begins at another
    /// state than the one that it was at.
    pub(super) fn state_at(
        &mut self,
        height: Height,
        state: SnapshotId,
        installed: Height,
    ) -> Option<Checkpoint> {
        if installed != self.installed {
            return None;
        }
        let due = self.due.get_mut(&height).filter(|due| due.state.is_none())?;
        due.state = Some(state);
        Some(Checkpoint { height, view: due.qc.view, block: due.qc.block, state })
    }

    /// Whether a statement is new, so that it is worth a verification.
    pub(super) fn wants(&self, vote: &CheckpointVote) -> bool {
        let height = vote.checkpoint.height;
        let kept = self.votes.get(&vote.voter);
        let is_newer = kept.is_none_or(|kept| {
            kept.len() < KEPT_CHECKPOINT_VOTES || kept.keys().next().is_some_and(|oldest| *oldest < height)
        });
        let known = kept.and_then(|kept| kept.get(&height));
        self.is_open(height)
            && (known.is_some_and(|known| known.get() != vote) || known.is_none() && is_newer)
    }

    /// Counts a statement that is wanted.
    pub(super) fn count(&mut self, vote: Verified<CheckpointVote>) -> Counted {
        let height = vote.get().checkpoint.height;
        let kept = self.votes.entry(vote.get().voter).or_default();
        match kept.get(&height) {
            Some(known) if known.get().checkpoint == vote.get().checkpoint => return Counted::Again,
            Some(_) => return Counted::Contradiction,
            None => {}
        }
        kept.insert(height, vote);
        keep_newest(kept, KEPT_CHECKPOINT_VOTES);
        self.certify(height);
        Counted::Yes
    }

    /// The statement that is kept of a replica at a height.
    pub(super) fn vote_of(&self, voter: ReplicaIndex, height: Height) -> Option<&CheckpointVote> {
        self.votes.get(&voter)?.get(&height).map(Verified::get)
    }

    /// Makes the certificate of a height once a quorum says the same.
    fn certify(&mut self, height: Height) {
        let mut equal: BTreeMap<&Checkpoint, Vec<&CheckpointVote>> = BTreeMap::new();
        for vote in self.votes.values().filter_map(|kept| kept.get(&height)) {
            equal.entry(&vote.get().checkpoint).or_default().push(vote.get());
        }
        let quorum = self.size.quorum();
        let Some((checkpoint, votes)) = equal.into_iter().find(|(_, votes)| votes.len() >= quorum) else {
            return;
        };
        let signatures = votes.iter().take(quorum).map(|vote| (vote.voter, vote.signature)).collect();
        let certificate = CheckpointCertificate { checkpoint: *checkpoint, signatures };
        self.keep_certificate(Verified::vouch(certificate));
    }

    /// Whether a certificate for this height says something new.
    pub(super) fn wants_certificate(&self, height: Height) -> bool {
        self.is_open(height) && !self.certified.contains_key(&height)
    }

    pub(super) fn keep_certificate(&mut self, certificate: Verified<CheckpointCertificate>) {
        let height = certificate.get().checkpoint.height;
        if self.wants_certificate(height) {
            self.certified.insert(height, certificate);
            keep_newest(&mut self.certified, MAX_OPEN_CHECKPOINTS);
        }
    }

    /// At which height the application last began at another state than its own.
    pub(super) const fn installed(&self) -> Height {
        self.installed
    }

    /// The application begins at another state: what it named before counts no more.
    pub(super) fn begin_at(&mut self, height: Height) {
        self.installed = height;
        self.diverged = self.diverged.filter(|diverged| *diverged > height);
        self.due.values_mut().for_each(|due| due.state = None);
    }

    /// Whether the own statement about this height is to be sent again now: so often, while no certificate is here.
    pub(super) fn resends(&mut self, height: Height, now: Millis) -> bool {
        if self.due.get(&height).is_none_or(|due| due.state.is_none()) {
            self.resend = None;
            return false;
        }
        let due = now.plus(CHECKPOINT_RESEND_INTERVAL);
        match &mut self.resend {
            Some(resend) if resend.height == height => {
                let resends = now >= resend.due && resend.sent < MAX_CHECKPOINT_RESENDS;
                if resends {
                    *resend = Resend { height, sent: resend.sent + 1, due };
                }
                resends
            }
            Some(_) | None => {
                self.resend = Some(Resend { height, sent: 0, due });
                false
            }
        }
    }

    /// When it is to be sent again.
    pub(super) fn resend_deadline(&self) -> Option<Millis> {
        self.resend.filter(|resend| resend.sent < MAX_CHECKPOINT_RESENDS).map(|resend| resend.due)
    }

    /// Whether a replica that says something of this height lacks the stable checkpoint: it is behind, or says it again.
    pub(super) fn lacks_stable(&mut self, from: ReplicaIndex, height: Height) -> bool {
        let stable = self.stable_height();
        height < stable || height == stable && stable > Height::ZERO && !self.heard.insert(from)
    }

    /// Compares the lowest certificate that can be with the own state at its height.
    pub(super) fn settle(&mut self) -> Option<Settled> {
        let comparable = self.certified.iter().find_map(|(height, certificate)| {
            let due = self.due.get(height)?;
            Some((*height, certificate.get().clone(), due.qc.clone(), due.state?))
        });
        let (height, certificate, qc, own) = comparable?;
        self.due.remove(&height);
        self.certified.remove(&height);
        let certified = certificate.checkpoint.state;
        let stable = Verified::vouch(StableCheckpoint { certificate, qc });
        if certified != own {
            self.diverged = self.diverged.max(Some(height));
            return Some(Settled::Diverged(stable, own));
        }
        self.settle_at(stable.clone());
        Some(Settled::Stable(stable, self.diverged.is_some()))
    }

    /// This checkpoint is the newest one; nothing at or below it is open any more.
    pub(super) fn settle_at(&mut self, stable: Verified<StableCheckpoint>) {
        let height = stable.get().height();
        if height <= self.stable_height() {
            return;
        }
        self.stable = Some(stable);
        let says = |kept: &BTreeMap<Height, _>| kept.contains_key(&height);
        self.heard = self.votes.iter().filter(|(_, kept)| says(kept)).map(|(voter, _)| *voter).collect();
        self.due.retain(|of, _| *of > height);
        self.certified.retain(|of, _| *of > height);
        for kept in self.votes.values_mut() {
            kept.retain(|of, _| *of > height);
        }
    }
}

/// Drops the lowest heights past the bound.
fn keep_newest<T>(map: &mut BTreeMap<Height, T>, most: usize) {
    while map.len() > most {
        map.pop_first();
    }
}
