//! An adversary that votes for every block it sees, for blocks that do not exist and for wrong heights.
//!
//! Else it behaves as an honest replica. Invariant: each of its votes carries its valid signature.

use quorate::{
    consensus::{Message, Vote},
    types::{Digest, ReplicaIndex},
};

use super::{
    puppeteer::{Addressed, Behaviour},
    signer::Signer,
};
use crate::rng::Stream;

/// Votes for everything and for nothing that exists.
#[derive(Debug)]
pub(super) struct DoubleVoter {
    signer: Signer,
    stream: Stream,
    extra: Vec<Addressed>,
}

impl DoubleVoter {
    pub(super) const fn new(signer: Signer, stream: Stream) -> Self {
        Self { signer, stream, extra: Vec::new() }
    }
}

impl Behaviour for DoubleVoter {
    fn hears(&mut self, _from: ReplicaIndex, message: &Message) -> bool {
        if let Message::Proposal(proposal) = message {
            let block = &proposal.block;
            let vote = Message::Vote(self.signer.vote(block.view(), block.height(), block.id()));
            let votes = self.signer.to_all(vote).into_iter();
            self.extra.extend(votes.filter(|_| self.stream.chance(500)));
        }
        true
    }

    /// The vote that its core gave, and what else it signs for the same view.
    fn says(&mut self, _to: ReplicaIndex, message: Message) -> Vec<Message> {
        let Message::Vote(Vote { view, height, block, .. }) = message else { return vec![message] };
        let elsewhere = Message::Vote(self.signer.vote(view, height, Digest::of(block.as_bytes())));
        let too_high = Message::Vote(self.signer.vote(view, height.next(), block));
        let early = Message::Vote(self.signer.vote(view.next(), height.next(), block));
        match self.stream.below(6) {
            0 => vec![message],
            1 => vec![elsewhere, message],
            2 => vec![too_high, message],
            3 => vec![message, too_high, elsewhere],
            4 => vec![early, elsewhere],
            _ => vec![too_high],
        }
    }

    fn adds(&mut self) -> Vec<Addressed> {
        std::mem::take(&mut self.extra)
    }
}
