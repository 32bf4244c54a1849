//! What an adversary can sign: anything, with its own key.
//!
//! It forges nobody's signature. Invariant: what it signs verifies for its own key and no other.

use quorate::{
    consensus::{
        Block, BlockId, Checkpoint, CheckpointVote, Config, Proposal, QuorumCertificate, Timeout,
        TimeoutCertificate, Vote,
    },
    types::{Height, ReplicaIndex, View},
};
use std::sync::Arc;

use super::puppeteer::Addressed;
use crate::{letter::Words, statements};

/// An adversary's place and key.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub(super) config: Config,
}

impl Signer {
    pub(super) const fn new(config: Config) -> Self {
        Self { config }
    }

    pub(super) fn peers(&self) -> Vec<ReplicaIndex> {
        self.config.committee.replicas().filter(|peer| *peer != self.config.me).collect()
    }

    pub(super) fn to_all(&self, words: impl Into<Words>) -> Vec<Addressed> {
        let words = words.into();
        self.peers().into_iter().map(|to| (to, words.clone())).collect()
    }

    pub(super) fn vote(&self, view: View, height: Height, block: BlockId) -> Vote {
        let statement = statements::vote(&self.config.committee, view, height, block);
        Vote { view, height, block, voter: self.config.me, signature: self.config.key.sign(&statement) }
    }

    pub(super) fn checkpoint(&self, checkpoint: Checkpoint) -> CheckpointVote {
        let statement = statements::checkpoint(&self.config.committee, &checkpoint);
        let signature = self.config.key.sign(&statement);
        CheckpointVote { checkpoint, voter: self.config.me, signature }
    }

    pub(super) fn timeout(
        &self,
        view: View,
        high_qc: QuorumCertificate,
        entry: Option<TimeoutCertificate>,
    ) -> Timeout {
        let statement = statements::timeout(&self.config.committee, view, high_qc.view);
        let signature = self.config.key.sign(&statement);
        Timeout { view, high_qc, entry, sender: self.config.me, signature }
    }

    pub(super) fn proposal(&self, block: Arc<Block>, entry: Option<TimeoutCertificate>) -> Proposal {
        let (committee, justify) = (&self.config.committee, block.justify());
        let statement = statements::proposal(committee, block.view(), block.id(), justify, entry.as_ref());
        Proposal { signature: self.config.key.sign(&statement), block, entry }
    }
}
