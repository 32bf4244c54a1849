//! An adversary that makes one honest replica lock alone: its proposal and its vote are spread so that only the
//! victim sees a quorum, and in timeouts it denies every certificate it knows.
//!
//! It breaks no rule that a receiver could check. Invariant: its timeouts name genesis as their highest
//! certificate, which no one can refute.

use quorate::{
    consensus::{Message, QuorumCertificate},
    types::{ReplicaIndex, View},
};
use std::collections::BTreeSet;

use super::{puppeteer::Behaviour, signer::Signer};
use crate::rng::Stream;

/// Hides locks.
#[derive(Debug)]
pub(super) struct HiddenLock {
    signer: Signer,
    stream: Stream,
    view: View,
    victim: Option<ReplicaIndex>,
    /// Who gets the proposal: with the adversary itself a quorum.
    shown: BTreeSet<ReplicaIndex>,
}

impl HiddenLock {
    pub(super) const fn new(signer: Signer, stream: Stream) -> Self {
        Self { signer, stream, view: View::ZERO, victim: None, shown: BTreeSet::new() }
    }

    fn choose(&mut self, view: View) {
        if view <= self.view {
            return;
        }
        self.view = view;
        let mut left = self.signer.peers();
        let others = self.signer.config.committee.size().quorum() - 1;
        self.shown =
            (0..others.min(left.len())).map(|_| left.swap_remove(self.stream.index(left.len()))).collect();
        self.victim = self.shown.first().copied();
    }
}

impl Behaviour for HiddenLock {
    fn says(&mut self, to: ReplicaIndex, message: Message) -> Vec<Message> {
        match message {
            Message::Proposal(proposal) => {
                self.choose(proposal.block.view());
                let shown = self.shown.contains(&to).then_some(Message::Proposal(proposal));
                shown.into_iter().collect()
            }
            Message::Vote(vote) => {
                self.choose(vote.view);
                if self.victim == Some(to) { vec![Message::Vote(vote)] } else { Vec::new() }
            }
            Message::Timeout(timeout) => {
                let genesis = QuorumCertificate::genesis(&self.signer.config.committee);
                vec![Message::Timeout(self.signer.timeout(timeout.view, genesis, timeout.entry))]
            }
            // Certificates would show what it hides.
            Message::Certificates(_) => Vec::new(),
            honest @ (Message::Commands(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_)
            | Message::CheckpointVote(_)
            | Message::Checkpoint(_)
            | Message::Gone(_)
            | Message::ChunkRequest(_)
            | Message::Chunks(_)
            | Message::Committed(_)) => {
                vec![honest]
            }
        }
    }
}
