//! An adversary that talks to some replicas only, to others in each view.
//!
//! Whatever it says is honest. Invariant: within one view it has one circle.

use quorate::{
    consensus::Message,
    types::{ReplicaIndex, View},
};
use std::collections::BTreeSet;

use super::{puppeteer::Behaviour, signer::Signer};
use crate::rng::Stream;

/// Talks to whom it likes.
#[derive(Debug)]
pub(super) struct SelectiveSender {
    signer: Signer,
    stream: Stream,
    view: View,
    circle: BTreeSet<ReplicaIndex>,
}

impl SelectiveSender {
    pub(super) const fn new(signer: Signer, stream: Stream) -> Self {
        Self { signer, stream, view: View::ZERO, circle: BTreeSet::new() }
    }

    fn enter(&mut self, view: View) {
        if view > self.view {
            self.view = view;
            let peers = self.signer.peers().into_iter();
            self.circle = peers.filter(|_| self.stream.chance(400)).collect();
        }
    }
}

impl Behaviour for SelectiveSender {
    fn says(&mut self, to: ReplicaIndex, message: Message) -> Vec<Message> {
        match &message {
            Message::Proposal(proposal) => self.enter(proposal.block.view()),
            Message::Vote(vote) => self.enter(vote.view),
            Message::Timeout(timeout) => self.enter(timeout.view),
            Message::Certificates(_)
            | Message::Commands(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_)
            | Message::CheckpointVote(_)
            | Message::Checkpoint(_)
            | Message::Gone(_)
            | Message::ChunkRequest(_)
            | Message::Chunks(_)
            | Message::Committed(_) => {}
        }
        if self.circle.contains(&to) { vec![message] } else { Vec::new() }
    }
}
