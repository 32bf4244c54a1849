//! Recovery: the journal's records, in the order of writing, become the replica again (rule R1).

use std::sync::Arc;

use super::{Candidate, Config, Core, Output};
use crate::consensus::{
    base::{ReadBase, Standing},
    block::BlockId,
    certificate::{QuorumCertificate, TimeoutCertificate, Verified},
    checkpoint::Checkpoint,
    message::Message,
    pending::Share,
    record::{Record, VoteEntry},
    tree::CommittedBlock,
};
use crate::types::View;

/// A replica that is being read back from its journal.
#[derive(Debug)]
pub struct Recovery {
    core: Core,
    own_proposal: Option<crate::consensus::Proposal>,
}

/// A journal that does not tell one replica's history. The replica must not vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// A record names a block that no earlier record holds.
    #[error("the journal names block {0} but does not hold it")]
    MissingBlock(BlockId),
    /// A committed block does not follow the one before.
    #[error("the journal commits block {0}, which does not follow the newest committed one")]
    OutOfOrder(BlockId),
    /// A record is signed by another replica than this one.
    #[error("the journal holds a statement of {0}, not of this replica")]
    AnotherReplica(crate::types::ReplicaIndex),
}

impl Recovery {
    /// Begins with an empty past.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { core: Core::new(config), own_proposal: None }
    }

    /// Takes the next record. A committed block is given back for the application to apply again.
    ///
    /// # Errors
    /// [`RecoveryError`] when the record contradicts those before it.
    pub fn record(&mut self, record: Record) -> Result<Option<CommittedBlock>, RecoveryError> {
        let core = &mut self.core;
        match record {
            Record::Block(block) => {
                // Only blocks with verified justifications are stored.
                core.safety.raise(&Verified::vouch(block.justify().clone()));
                core.tree.insert(block);
            }
            Record::Proposal { block, proposal } => {
                let block = core.tree.get(block).ok_or(RecoveryError::MissingBlock(block))?;
                core.safety.recover_proposal(block.view());
                let proposal = proposal.with_block(Arc::clone(block));
                self.certificates([], proposal.entry.clone());
                self.own_proposal = Some(proposal);
            }
            Record::Vote { vote, entry, high_qc } => {
                if vote.voter != core.me {
                    return Err(RecoveryError::AnotherReplica(vote.voter));
                }
                let block = core.tree.get(vote.block).ok_or(RecoveryError::MissingBlock(vote.block))?;
                let justify = block.justify().clone();
                core.safety.recover_vote(vote);
                self.certificates(
                    high_qc.into_iter().chain([justify]),
                    match entry {
                        VoteEntry::Justification => None,
                        VoteEntry::Timeout(tc) => Some(tc),
                    },
                );
            }
            Record::Timeout(timeout) => {
                if timeout.sender != core.me {
                    return Err(RecoveryError::AnotherReplica(timeout.sender));
                }
                core.safety.recover_timeout(timeout.clone());
                self.certificates([timeout.high_qc], timeout.entry);
            }
            Record::CheckpointVote(vote) => {
                if vote.voter != core.me {
                    return Err(RecoveryError::AnotherReplica(vote.voter));
                }
                core.safety.recover_checkpoint(vote);
            }
            Record::Forgotten(view) => core.forgotten = core.forgotten.max(Some(view)),
            Record::Committed { block, certificate, .. } => {
                return self.commit(block, certificate).map(Some);
            }
        }
        Ok(None)
    }

    /// A certificate of the newest committed block that a record names.
    pub(in crate::consensus) fn tip_certificate(&self) -> Option<&QuorumCertificate> {
        self.core.tree.tip_certificate()
    }

    /// Takes a whole base (rule K3): a record like any other, which lowers nothing.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub(in crate::consensus) fn base(&mut self, base: ReadBase) -> Result<(), RecoveryError> {
        let ReadBase { checkpoint, blocks, standing } = base;
        let core = &mut self.core;
        let Checkpoint { height, view, block, .. } = *checkpoint.checkpoint();
        if height > core.tree.committed_height() {
            core.tree.begin_at(height, view, block);
            core.pacemaker.committed(view);
        }
        core.safety.raise(&Verified::vouch(checkpoint.qc.clone()));
        core.checkpoints.settle_at(Verified::vouch(checkpoint));
        for (block, certificate) in blocks {
            if block.height() <= self.core.tree.committed_height() {
                continue;
            }
            let id = block.id();
            self.core.safety.raise(&Verified::vouch(block.justify().clone()));
            self.core.tree.insert(block);
            if let Some(certificate) = certificate {
                self.commit(id, certificate)?;
            }
        }
        self.stand(standing)
    }

    fn stand(&mut self, standing: Standing) -> Result<(), RecoveryError> {
        let Standing { vote, timeout, proposal, proposed, checkpoints, high_qc, high_tc, forgotten } =
            standing;
        let core = &mut self.core;
        let signers = vote.iter().map(|vote| vote.voter).chain(timeout.iter().map(|timeout| timeout.sender));
        let mut signers = signers.chain(checkpoints.iter().map(|vote| vote.voter));
        if let Some(other) = signers.find(|signer| *signer != core.me) {
            return Err(RecoveryError::AnotherReplica(other));
        }
        vote.into_iter().for_each(|vote| core.safety.recover_vote(vote));
        timeout.into_iter().for_each(|timeout| core.safety.recover_timeout(timeout));
        core.safety.recover_proposal(proposed);
        checkpoints.into_iter().for_each(|vote| core.safety.recover_checkpoint(vote));
        core.forgotten = core.forgotten.max(forgotten);
        if let Some((block, proposal)) = proposal
            && let Some(block) = core.tree.get(block)
        {
            self.own_proposal = Some(proposal.with_block(Arc::clone(block)));
        }
        self.certificates([high_qc], high_tc);
        Ok(())
    }

    fn certificates(
        &mut self,
        qcs: impl IntoIterator<Item = QuorumCertificate>,
        tc: Option<TimeoutCertificate>,
    ) {
        for qc in qcs {
            self.core.safety.raise(&Verified::vouch(qc));
        }
        if let Some(tc) = tc {
            self.core.pacemaker.keep_tc(&Verified::vouch(tc));
        }
    }

    fn commit(
        &mut self,
        id: BlockId,
        certificate: QuorumCertificate,
    ) -> Result<CommittedBlock, RecoveryError> {
        let core = &mut self.core;
        let block = Arc::clone(core.tree.get(id).ok_or(RecoveryError::MissingBlock(id))?);
        let is_next = core.tree.path(id).is_some_and(|path| path.len() == 1);
        if !is_next || certificate.block != id {
            return Err(RecoveryError::OutOfOrder(id));
        }
        for command in block.payload().commands() {
            core.pending.commit(command.digest());
        }
        core.safety.raise(&Verified::vouch(certificate.clone()));
        let committed = core.tree.commit(block, certificate);
        core.checkpoints.committed(&committed);
        core.pacemaker.committed(core.tree.committed_view());
        core.tree.prune(core.safety.high_qc().get().block);
        Ok(committed)
    }

    /// The replica, in the view after its highest certificate, with its own messages of that view to send again.
    #[must_use]
    pub fn finish(self) -> Core {
        let Self { mut core, own_proposal } = self;
        let high_tc_view = core.pacemaker.high_tc().map_or(View::ZERO, |tc| tc.get().view);
        core.pacemaker.enter(core.safety.high_qc().get().view.max(high_tc_view));
        let view = core.view();
        core.own_proposal = own_proposal.filter(|proposal| proposal.block.view() == view);
        core.candidate = core.own_proposal.as_ref().map(|proposal| Candidate {
            block: Arc::clone(&proposal.block),
            justify: Verified::vouch(proposal.block.justify().clone()),
            entry: proposal.entry.clone().map(Verified::vouch),
        });
        for (submitter, command) in core.tree.uncommitted_commands() {
            core.pending.insert(submitter, Share::Own, command);
        }
        let high_qc = core.safety.high_qc().clone();
        if core.tree.path(high_qc.get().block).is_none() {
            core.fetch.want(&high_qc);
        } else {
            // The record of a commit waits for no sync, so the newest one may be missing.
            core.commit_by(high_qc.get());
        }
        let messages = [
            core.own_proposal.clone().map(Message::Proposal),
            core.own_vote_in(view).cloned().map(Message::Vote),
            core.safety.last_timeout().filter(|timeout| timeout.view == view).cloned().map(Message::Timeout),
        ];
        if let Some(vote) = core.own_vote_in(view).cloned() {
            core.votes.count(Verified::vouch(vote));
        }
        if let Some(timeout) = core.safety.last_timeout().cloned() {
            core.pacemaker.record_timeout(Verified::vouch(timeout));
        }
        for vote in core.safety.checkpoint_votes().cloned().collect::<Vec<_>>() {
            if core.checkpoints.wants(&vote) {
                core.checkpoints.count(Verified::vouch(vote));
            }
        }
        // Lowest height first: a statement that never left before the crash must not follow a higher one.
        let checkpoints = core.safety.checkpoint_votes().cloned().map(Message::CheckpointVote);
        let messages = messages.into_iter().flatten().chain(checkpoints);
        core.outputs.extend(messages.map(Output::Broadcast));
        core
    }
}
