//! An adversary that answers each fetch with the next block alone, out of all that were ever committed: so whoever is far
//! behind always gets a little further, and never learns from it that others no longer have the blocks.
//!
//! Else it is honest, but that it gives no state and signs the one that it hears of first. Invariant: whatever it gives is
//! true.

use quorate::{
    consensus::{BlockResponse, CheckpointVote, CommittedBlock, Message},
    types::{Height, ReplicaIndex},
};
use std::{collections::BTreeMap, sync::Arc};

use super::{
    puppeteer::{Addressed, Behaviour},
    signer::Signer,
};

/// Gives one block at a time.
#[derive(Debug)]
pub(super) struct DrippingSyncPeer {
    signer: Signer,
    /// The newest height of which it signed a state.
    signed: Height,
    archive: BTreeMap<Height, CommittedBlock>,
    extra: Vec<Addressed>,
}

impl DrippingSyncPeer {
    pub(super) const fn new(signer: Signer) -> Self {
        Self { signer, signed: Height::ZERO, archive: BTreeMap::new(), extra: Vec::new() }
    }
}

impl Behaviour for DrippingSyncPeer {
    fn hears(&mut self, from: ReplicaIndex, message: &Message) -> bool {
        if let Message::CheckpointVote(CheckpointVote { checkpoint, .. }) = message
            && checkpoint.height > self.signed
        {
            self.signed = checkpoint.height;
            let vote = self.signer.checkpoint(*checkpoint);
            self.extra.extend(self.signer.to_all(Message::CheckpointVote(vote)));
        }
        let Message::BlockRequest(request) = message else { return true };
        let Some(next) = self.archive.get(&request.above.next()) else { return true };
        let answer = BlockResponse { blocks: vec![Arc::clone(&next.block)], tip: next.certificate.clone() };
        self.extra.push((from, Message::BlockResponse(answer).into()));
        false
    }

    fn commits(&mut self, committed: CommittedBlock) {
        self.archive.insert(committed.block.height(), committed);
    }

    fn adds(&mut self) -> Vec<Addressed> {
        std::mem::take(&mut self.extra)
    }
}
