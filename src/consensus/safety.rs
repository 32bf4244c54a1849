//! The safety record: what this replica has signed, and the only code that signs consensus statements.
//!
//! Invariant: for each view at most one proposal, one vote and one timeout ever get a signature, no vote follows
//! a timeout of its view, each height gets at most one checkpoint statement, and the highest QC never falls. The journal holds every change before it is seen.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    block::{Block, Payload},
    certificate::{
        QuorumCertificate, TimeoutCertificate, Verified, checkpoint_statement, proposal_statement,
        timeout_statement, vote_statement,
    },
    checkpoint::{Checkpoint, CheckpointVote},
    limits::KEPT_CHECKPOINT_VOTES,
    message::{Proposal, Timeout, Vote, certificates_bytes},
};
use crate::types::{Committee, Digest, Height, ReplicaIndex, SecretKey, View};

/// Why a proposal is not valid (rule B2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProposal {
    /// Its signer does not lead the view.
    #[error("{0} does not lead this view")]
    NotTheLeader(ReplicaIndex),
    /// Its justification is not older than itself.
    #[error("the justification is of its own or a later view")]
    FutureJustification,
    /// It enters its view by neither a QC nor a TC of the view before.
    #[error("it does not enter its view by a certificate of the view before")]
    NoEntry,
    /// Its TC proves a QC that is higher than its justification.
    #[error("its justification is below the highest that its timeout certificate proves")]
    StaleJustification,
}

/// Why no vote is given for a valid proposal (rule V1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VoteRefusal {
    /// This replica voted in this view or in a later one.
    AlreadyVoted,
    /// This replica gave this view or a later one up.
    TimedOut,
}

#[derive(Clone, Debug)]
pub(super) struct SafetyRecord {
    committee: Arc<Committee>,
    me: ReplicaIndex,
    key: SecretKey,
    last_vote: Option<Vote>,
    last_timeout: Option<Timeout>,
    last_proposed: View,
    high_qc: Verified<QuorumCertificate>,
    /// The newest checkpoint statements.
    checkpoints: BTreeMap<Height, CheckpointVote>,
}

impl SafetyRecord {
    pub(super) fn new(committee: Arc<Committee>, me: ReplicaIndex, key: SecretKey) -> Self {
        let genesis = QuorumCertificate::genesis(&committee);
        Self {
            committee,
            me,
            key,
            last_vote: None,
            last_timeout: None,
            last_proposed: View::ZERO,
            high_qc: Verified::vouch(genesis),
            checkpoints: BTreeMap::new(),
        }
    }

    pub(super) const fn high_qc(&self) -> &Verified<QuorumCertificate> {
        &self.high_qc
    }

    pub(super) const fn last_vote(&self) -> Option<&Vote> {
        self.last_vote.as_ref()
    }

    pub(super) const fn last_timeout(&self) -> Option<&Timeout> {
        self.last_timeout.as_ref()
    }

    /// The newest view in which anything was signed.
    pub(super) fn signed_view(&self) -> View {
        let voted = self.last_vote.as_ref().map_or(View::ZERO, |vote| vote.view);
        let timed_out = self.last_timeout.as_ref().map_or(View::ZERO, |timeout| timeout.view);
        voted.max(timed_out).max(self.last_proposed)
    }

    pub(super) fn voted_at_or_after(&self, view: View) -> bool {
        self.last_vote.as_ref().is_some_and(|vote| vote.view >= view)
    }

    pub(super) fn timed_out_at_or_after(&self, view: View) -> bool {
        self.last_timeout.as_ref().is_some_and(|timeout| timeout.view >= view)
    }

    pub(super) fn may_propose(&self, view: View) -> bool {
        self.last_proposed < view && !self.timed_out_at_or_after(view)
    }

    /// Moves the highest QC (which is the lock) up; says whether it moved.
    pub(super) fn raise(&mut self, qc: &Verified<QuorumCertificate>) -> bool {
        let higher = qc.get().view > self.high_qc.get().view;
        if higher {
            self.high_qc = qc.clone();
        }
        higher
    }

    /// Signs this replica's one proposal for the view, on its highest QC (rule B3).
    pub(super) fn propose(
        &mut self,
        view: View,
        entry: Option<TimeoutCertificate>,
        payload: Payload,
    ) -> Proposal {
        assert!(self.may_propose(view), "one proposal a view, and none in a view that timed out");
        self.last_proposed = view;
        let justify = self.high_qc.get().clone();
        let block = Arc::new(Block::new(view, self.me, justify, payload));
        let certificates = Digest::of(&certificates_bytes(block.justify(), entry.as_ref()));
        let statement = proposal_statement(&self.committee, view, block.id(), certificates);
        let signature = self.key.sign(&statement);
        Proposal { block, entry, signature }
    }

    /// Signs this replica's one vote in the view of a valid block (rules V1, V2).
    pub(super) fn vote(
        &mut self,
        block: &Block,
        justify: &Verified<QuorumCertificate>,
    ) -> Result<Vote, VoteRefusal> {
        if self.voted_at_or_after(block.view()) {
            return Err(VoteRefusal::AlreadyVoted);
        }
        if self.timed_out_at_or_after(block.view()) {
            return Err(VoteRefusal::TimedOut);
        }
        self.raise(justify);
        let (view, height, id) = (block.view(), block.height(), block.id());
        let signature = self.key.sign(&vote_statement(&self.committee, view, height, id));
        let vote = Vote { view, height, block: id, voter: self.me, signature };
        self.last_vote = Some(vote.clone());
        Ok(vote)
    }

    /// Signs this replica's one timeout of the view; `None` when it gave this or a later view up before.
    pub(super) fn time_out(&mut self, view: View, entry: Option<TimeoutCertificate>) -> Option<Timeout> {
        if self.timed_out_at_or_after(view) {
            return None;
        }
        let high_qc = self.high_qc.get().clone();
        let signature = self.key.sign(&timeout_statement(&self.committee, view, high_qc.view));
        let timeout = Timeout { view, high_qc, entry, sender: self.me, signature };
        self.last_timeout = Some(timeout.clone());
        Some(timeout)
    }

    /// Signs this replica's one statement for a checkpoint (rule K1): none at or below an earlier one's height.
    pub(super) fn sign_checkpoint(&mut self, checkpoint: Checkpoint) -> Option<CheckpointVote> {
        if checkpoint.height <= self.checkpoint_height() {
            return None;
        }
        let signature = self.key.sign(&checkpoint_statement(&self.committee, &checkpoint));
        let vote = CheckpointVote { checkpoint, voter: self.me, signature };
        self.recover_checkpoint(vote.clone());
        Some(vote)
    }

    /// The highest height of a checkpoint statement.
    pub(super) fn checkpoint_height(&self) -> Height {
        self.checkpoints.last_key_value().map_or(Height::ZERO, |(height, _)| *height)
    }

    /// The newest checkpoint statements, lowest height first.
    pub(super) fn checkpoint_votes(&self) -> impl Iterator<Item = &CheckpointVote> {
        self.checkpoints.values()
    }

    pub(super) fn recover_checkpoint(&mut self, vote: CheckpointVote) {
        self.checkpoints.insert(vote.checkpoint.height, vote);
        while self.checkpoints.len() > KEPT_CHECKPOINT_VOTES {
            self.checkpoints.pop_first();
        }
    }

    /// Takes back from the journal what was signed before a restart. A base restates what earlier records said, so
    /// nothing replaces what is newer.
    pub(super) fn recover_vote(&mut self, vote: Vote) {
        if !self.voted_at_or_after(vote.view) {
            self.last_vote = Some(vote);
        }
    }

    pub(super) fn recover_timeout(&mut self, timeout: Timeout) {
        if !self.timed_out_at_or_after(timeout.view) {
            self.last_timeout = Some(timeout);
        }
    }

    /// The newest view with an own proposal.
    pub(super) const fn last_proposed(&self) -> View {
        self.last_proposed
    }

    pub(super) fn recover_proposal(&mut self, view: View) {
        self.last_proposed = self.last_proposed.max(view);
    }
}

/// Checks rule B2, given the proposal's verified certificates.
pub(super) fn check_proposal(
    block: &Block,
    leader: ReplicaIndex,
    justify: &Verified<QuorumCertificate>,
    entry: Option<&Verified<TimeoutCertificate>>,
) -> Result<(), InvalidProposal> {
    if block.proposer() != leader {
        return Err(InvalidProposal::NotTheLeader(block.proposer()));
    }
    if justify.get().view >= block.view() {
        return Err(InvalidProposal::FutureJustification);
    }
    debug_assert_eq!(justify.get().block, block.parent(), "a block's parent is what it justifies");
    if justify.get().view.next() == block.view() {
        return Ok(());
    }
    match entry {
        Some(tc) if tc.get().view.next() == block.view() => {
            if justify.get().view >= tc.get().high_qc.view {
                Ok(())
            } else {
                Err(InvalidProposal::StaleJustification)
            }
        }
        Some(_) | None => Err(InvalidProposal::NoEntry),
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidProposal, SafetyRecord, VoteRefusal, check_proposal};
    use crate::{
        consensus::{Block, Payload, QuorumCertificate, TimeoutCertificate, Verified},
        types::{Committee, Digest, Epoch, Height, ReplicaIndex, SecretKey, View},
    };
    use std::sync::Arc;

    const LEADER: ReplicaIndex = ReplicaIndex::new(1);

    fn qc(view: u64) -> QuorumCertificate {
        let block = Digest::of(&view.to_le_bytes());
        QuorumCertificate { view: View::new(view), height: Height::new(view), block, signatures: Vec::new() }
    }

    fn tc(view: u64, proven: u64) -> TimeoutCertificate {
        TimeoutCertificate { view: View::new(view), timeouts: Vec::new(), high_qc: qc(proven) }
    }

    fn block(view: u64, justify: u64) -> Block {
        Block::new(View::new(view), LEADER, qc(justify), Payload::default())
    }

    #[test]
    fn a_proposal_enters_its_view_by_the_view_before_and_never_below_what_a_timeout_proves() {
        // The block's view, its justification's, and the timeout certificate's view with the QC view it proves.
        let cases = [
            (9, 8, None, Ok(())),
            (9, 7, None, Err(InvalidProposal::NoEntry)),
            (9, 7, Some((8, 7)), Ok(())),
            (9, 7, Some((8, 6)), Ok(())),
            (9, 6, Some((8, 7)), Err(InvalidProposal::StaleJustification)),
            (9, 6, Some((7, 6)), Err(InvalidProposal::NoEntry)),
            (9, 6, Some((9, 6)), Err(InvalidProposal::NoEntry)),
            (9, 9, None, Err(InvalidProposal::FutureJustification)),
            (9, 10, Some((8, 7)), Err(InvalidProposal::FutureJustification)),
        ];
        for (view, justify, entry, expected) in cases {
            let entry = entry.map(|(view, proven)| Verified::vouch(tc(view, proven)));
            let verdict =
                check_proposal(&block(view, justify), LEADER, &Verified::vouch(qc(justify)), entry.as_ref());
            assert_eq!(verdict, expected, "view {view}, justified by {justify}, entered by {entry:?}");
        }
        let other = ReplicaIndex::new(2);
        let verdict = check_proposal(&block(9, 8), other, &Verified::vouch(qc(8)), None);
        assert_eq!(verdict, Err(InvalidProposal::NotTheLeader(LEADER)));
    }

    #[test]
    fn a_view_gets_one_vote_and_none_after_its_timeout() {
        let key = SecretKey::from_seed(&[1; 32]);
        let committee = Committee::new(Digest::of(b"safety"), Epoch::new(1), vec![key.public()]);
        let committee = Arc::new(committee.expect("one key"));
        let mut safety = SafetyRecord::new(committee, ReplicaIndex::new(0), key);
        let vote = |safety: &mut SafetyRecord, view, justify| {
            safety.vote(&block(view, justify), &Verified::vouch(qc(justify))).map(|vote| vote.view)
        };
        assert_eq!(vote(&mut safety, 5, 4), Ok(View::new(5)));
        assert_eq!(vote(&mut safety, 5, 3), Err(VoteRefusal::AlreadyVoted));
        assert_eq!(vote(&mut safety, 4, 3), Err(VoteRefusal::AlreadyVoted));
        assert!(safety.time_out(View::new(7), None).is_some());
        assert!(safety.time_out(View::new(7), None).is_none(), "one timeout a view");
        assert_eq!(vote(&mut safety, 6, 5), Err(VoteRefusal::TimedOut));
        assert_eq!(vote(&mut safety, 7, 5), Err(VoteRefusal::TimedOut));
        assert_eq!(vote(&mut safety, 8, 4), Ok(View::new(8)));
        assert_eq!(safety.high_qc().get().view, View::new(4), "the lock follows the votes and never falls");
    }
}
