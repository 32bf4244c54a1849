//! An adversary that proposes two blocks in each view that it leads, and shows each to a part of the others.
//!
//! Else it behaves as an honest replica. Invariant: both blocks are valid, so only the rule of one vote a view
//! stands between it and a fork.

use quorate::{
    consensus::{Block, Command, Config, Input, Message, Payload, Proposal, Vote},
    types::ReplicaIndex,
};
use std::sync::Arc;

use super::{Adversary, INVENTED, Letter, puppet::Puppet};
use crate::{rng::Stream, statements};

/// How many commands it invents. Then it repeats old ones, so that the cluster can come to rest.
const MOST_INVENTED: usize = 10;

/// Proposes two blocks for each view that it leads.
#[derive(Debug)]
pub struct EquivocatingLeader {
    config: Config,
    puppet: Puppet,
    stream: Stream,
    invented: Vec<Command>,
    /// Its newest two blocks.
    blocks: Option<(Arc<Block>, Proposal)>,
    /// Who was shown the second block.
    fooled: Vec<ReplicaIndex>,
}

impl EquivocatingLeader {
    /// With this place and key.
    #[must_use]
    pub fn new(config: Config, stream: Stream) -> Self {
        let puppet = Puppet::new(config.clone());
        Self { config, puppet, stream, invented: Vec::new(), blocks: None, fooled: Vec::new() }
    }

    fn command(&mut self) -> Command {
        if self.invented.len() == MOST_INVENTED {
            let index = self.stream.index(MOST_INVENTED);
            return self.invented[index].clone();
        }
        let head = [INVENTED, &self.stream.next().to_le_bytes()].concat();
        let command = Command::new(head, Vec::new()).expect("it is small");
        self.invented.push(command.clone());
        command
    }

    /// The other proposal for the same view, on the same certificate.
    fn other(&mut self, first: &Proposal) -> Proposal {
        if let Some((known, other)) = &self.blocks
            && known.id() == first.block.id()
        {
            return other.clone();
        }
        let mut commands = first.block.payload().commands().to_vec();
        commands.push(self.command());
        let justify = first.block.justify().clone();
        let block = Arc::new(Block::new(first.block.view(), self.config.me, justify, Payload::new(commands)));
        let statement = statements::proposal(&self.config.committee, block.view(), block.id());
        let signature = self.config.key.sign(&statement);
        let other = Proposal { block, entry: first.entry.clone(), signature };
        self.blocks = Some((Arc::clone(&first.block), other.clone()));
        self.fooled = Vec::new();
        other
    }

    fn distort(&mut self, to: ReplicaIndex, message: Message) -> Vec<Message> {
        match message {
            Message::Proposal(first) => {
                let other = Message::Proposal(self.other(&first));
                let first = Message::Proposal(first);
                match self.stream.below(5) {
                    0 | 1 => vec![first],
                    2 => vec![first, other],
                    _ => {
                        self.fooled.push(to);
                        vec![other]
                    }
                }
            }
            Message::Vote(vote) => match &self.blocks {
                Some((first, other)) if first.id() == vote.block && self.fooled.contains(&to) => {
                    let block = other.block.id();
                    let statement = statements::vote(&self.config.committee, vote.view, vote.height, block);
                    let signature = self.config.key.sign(&statement);
                    vec![Message::Vote(Vote { block, signature, ..vote })]
                }
                Some(_) | None => vec![Message::Vote(vote)],
            },
            honest @ (Message::Timeout(_)
            | Message::Certificates(_)
            | Message::Commands(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_)) => vec![honest],
        }
    }
}

impl Adversary for EquivocatingLeader {
    fn receive(&mut self, now_ms: u64, letter: Letter) {
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
        let from = self.config.me;
        let mut letters = Vec::new();
        for (to, message) in self.puppet.messages() {
            let distorted = self.distort(to, message);
            letters.extend(distorted.into_iter().map(|message| Letter { from, to, message, mark: None }));
        }
        letters
    }
}
