//! Recovery: the journal's records, in the order of writing, become the replica again (rule R1).

use std::sync::Arc;

use super::{Candidate, Config, Core, Output};
use crate::consensus::{
    block::BlockId,
    certificate::{QuorumCertificate, TimeoutCertificate, Verified},
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
            Record::Committed { block, certificate, .. } => {
                return self.commit(block, certificate).map(Some);
            }
        }
        Ok(None)
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
        core.outputs.extend(messages.into_iter().flatten().map(Output::Broadcast));
        core
    }
}
