//! A base: a stable checkpoint with all that a replica needs to begin there, restated in one run of journal
//! entries (rule K3).
//!
//! It neither writes nor reads entries. Invariant: a base is whole or it is none; what stands in it lowers nothing
//! that another record says.

use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;

use super::{
    block::{Block, BlockId},
    certificate::{QuorumCertificate, TimeoutCertificate},
    checkpoint::{CheckpointVote, StableCheckpoint},
    message::{Timeout, Vote},
    record::StoredProposal,
    snapshot::Snapshot,
};
use crate::types::View;

/// A stable checkpoint with its state: where the application begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The checkpoint.
    pub checkpoint: StableCheckpoint,
    /// Its state.
    pub snapshot: Snapshot,
}

/// One entry of a base.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) enum BasePiece {
    /// The first entry of a base and of its segment.
    Begin(StableCheckpoint),
    /// The next chunk of the snapshot.
    Chunk(Arc<[u8]>),
    /// The next of the application's notes.
    Note(Vec<u8>),
    /// A block above the checkpoint; with its certificate when it is committed. Lowest first.
    Block {
        /// The block.
        block: Arc<Block>,
        /// Its certificate.
        certificate: Option<QuorumCertificate>,
    },
    /// What this replica has signed and relies on.
    Standing(Box<Standing>),
    /// The base is whole.
    End,
}

/// What a replica has signed and relies on, as far as later signatures depend on it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Standing {
    /// The newest vote.
    pub(super) vote: Option<Vote>,
    /// The newest timeout.
    pub(super) timeout: Option<Timeout>,
    /// The current view's own proposal; its block is one of those above the checkpoint.
    pub(super) proposal: Option<(BlockId, StoredProposal)>,
    /// The newest view with an own proposal.
    pub(super) proposed: View,
    /// The newest own checkpoint statements.
    pub(super) checkpoints: Vec<CheckpointVote>,
    /// The highest QC, which is the lock.
    pub(super) high_qc: QuorumCertificate,
    /// The highest TC.
    pub(super) high_tc: Option<TimeoutCertificate>,
    /// A view that was signed in and is not in the journal (rule R2).
    pub(super) forgotten: Option<View>,
}

/// What a replica restates in a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restated {
    /// What it has signed and relies on.
    pub standing: Standing,
    /// A certificate of the newest committed block, when that is above the checkpoint.
    pub tip: Option<QuorumCertificate>,
    /// The uncommitted blocks.
    pub uncommitted: Vec<Arc<Block>>,
}

/// A whole base as it was read back, but for the application's part.
#[derive(Debug)]
pub(super) struct ReadBase {
    pub(super) checkpoint: StableCheckpoint,
    /// With certificates those that are committed, lowest first.
    pub(super) blocks: Vec<(Arc<Block>, Option<QuorumCertificate>)>,
    pub(super) standing: Standing,
}
