//! What consensus writes to the journal, and must find there again.

use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;

use super::{
    block::{Block, BlockId},
    certificate::{QuorumCertificate, TimeoutCertificate},
    checkpoint::CheckpointVote,
    message::{Proposal, Timeout, Vote},
};
use crate::types::{Height, View};

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// A block that this replica votes for, proposes, or fetched below a certificate.
    Block(Arc<Block>),
    /// This replica's own proposal; its block stands in an earlier record.
    Proposal {
        /// The block's identity.
        block: BlockId,
        /// The proposal without the block, which is found by its identity.
        proposal: StoredProposal,
    },
    /// This replica's vote, with the certificates that it relies on; the block stands in an earlier record.
    Vote {
        /// The signed vote.
        vote: Vote,
        /// How the view was entered.
        entry: VoteEntry,
        /// The highest QC when it is not the block's justification.
        high_qc: Option<QuorumCertificate>,
    },
    /// This replica's timeout; the certificates that it relies on are inside.
    Timeout(Timeout),
    /// A block is committed.
    Committed {
        /// Its height.
        height: Height,
        /// Its identity; the block stands in an earlier record.
        block: BlockId,
        /// A certificate of the block, the proof that a fetch can be answered with.
        certificate: QuorumCertificate,
    },
    /// This replica's statement about the state after a committed block.
    CheckpointVote(CheckpointVote),
    /// This replica signed in this view and its journal does not hold it (rule R2).
    Forgotten(View),
}

/// How the view of a vote was entered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum VoteEntry {
    /// By the block's justification.
    Justification,
    /// By a timeout certificate.
    Timeout(TimeoutCertificate),
}

/// An own proposal without its block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StoredProposal {
    entry: Option<TimeoutCertificate>,
    signature: crate::types::Signature,
}

impl StoredProposal {
    /// What is stored of a proposal.
    #[must_use]
    pub fn of(proposal: &Proposal) -> Self {
        Self { entry: proposal.entry.clone(), signature: proposal.signature }
    }

    /// The proposal again, with its block.
    #[must_use]
    pub fn with_block(self, block: Arc<Block>) -> Proposal {
        Proposal { block, entry: self.entry, signature: self.signature }
    }
}
