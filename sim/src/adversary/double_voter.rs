//! An adversary that votes for every block it sees, for blocks that do not exist and for wrong heights.
//!
//! Else it behaves as an honest replica. Invariant: each of its votes carries its valid signature.

use quorate::{
    consensus::{BlockId, Config, Input, Message, Vote},
    types::{Digest, Height, ReplicaIndex, View},
};

use super::{Adversary, Letter, puppet::Puppet};
use crate::{rng::Stream, statements};

/// Votes for everything and for nothing that exists.
#[derive(Debug)]
pub struct DoubleVoter {
    config: Config,
    puppet: Puppet,
    stream: Stream,
    extra: Vec<Letter>,
}

impl DoubleVoter {
    /// With this place and key.
    #[must_use]
    pub fn new(config: Config, stream: Stream) -> Self {
        let puppet = Puppet::new(config.clone());
        Self { config, puppet, stream, extra: Vec::new() }
    }

    fn vote(&self, view: View, height: Height, block: BlockId) -> Message {
        let statement = statements::vote(&self.config.committee, view, height, block);
        let (voter, signature) = (self.config.me, self.config.key.sign(&statement));
        Message::Vote(Vote { view, height, block, voter, signature })
    }

    fn letter(&self, to: ReplicaIndex, message: Message) -> Letter {
        Letter { from: self.config.me, to, message, mark: None }
    }

    /// The vote that its core gave, and what else it signs for the same view.
    fn distort(&mut self, to: ReplicaIndex, vote: Vote) -> Vec<Letter> {
        let elsewhere = self.vote(vote.view, vote.height, Digest::of(vote.block.as_bytes()));
        let too_high = self.vote(vote.view, vote.height.next(), vote.block);
        let early = self.vote(vote.view.next(), vote.height.next(), vote.block);
        let honest = Message::Vote(vote);
        let messages = match self.stream.below(6) {
            0 => vec![honest],
            1 => vec![elsewhere, honest],
            2 => vec![too_high, honest],
            3 => vec![honest, too_high, elsewhere],
            4 => vec![early, elsewhere],
            _ => vec![too_high],
        };
        messages.into_iter().map(|message| self.letter(to, message)).collect()
    }
}

impl Adversary for DoubleVoter {
    fn receive(&mut self, now_ms: u64, letter: Letter) {
        if let Message::Proposal(proposal) = &letter.message {
            let block = &proposal.block;
            let vote = self.vote(block.view(), block.height(), block.id());
            let peers = self.config.committee.replicas().filter(|peer| *peer != self.config.me);
            let letters: Vec<_> = peers.map(|to| self.letter(to, vote.clone())).collect();
            self.extra.extend(letters.into_iter().filter(|_| self.stream.chance(500)));
        }
        self.puppet.handle(now_ms, Input::Message { from: letter.from, message: letter.message });
    }

    fn connected(&mut self, now_ms: u64, peer: ReplicaIndex) {
        self.puppet.handle(now_ms, Input::PeerConnected(peer));
    }

    fn timer(&mut self, now_ms: u64) {
        self.puppet.handle(now_ms, Input::Timer);
    }

    fn next_wake_ms(&self) -> Option<u64> {
        self.puppet.next_wake_ms()
    }

    fn letters(&mut self) -> Vec<Letter> {
        let mut letters = std::mem::take(&mut self.extra);
        for (to, message) in self.puppet.messages() {
            match message {
                Message::Vote(vote) => letters.extend(self.distort(to, vote)),
                honest @ (Message::Proposal(_)
                | Message::Timeout(_)
                | Message::Certificates(_)
                | Message::Commands(_)
                | Message::BlockRequest(_)
                | Message::BlockResponse(_)) => letters.push(self.letter(to, honest)),
            }
        }
        letters
    }
}
