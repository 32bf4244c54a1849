//! An adversary that proposes two blocks in each view that it leads, and shows each to a part of the others.
//!
//! Else it behaves as an honest replica. Invariant: both blocks are valid, so only the rule of one vote a view
//! stands between it and a fork.

use quorate::{
    consensus::{Block, Command, Message, Payload, Proposal},
    types::ReplicaIndex,
};
use std::sync::Arc;

use super::{invented::Inventor, puppeteer::Behaviour, signer::Signer};
use crate::rng::Stream;

/// Proposes two blocks for each view that it leads.
#[derive(Debug)]
pub(super) struct EquivocatingLeader {
    signer: Signer,
    stream: Stream,
    inventor: Inventor,
    /// Its newest two blocks.
    blocks: Option<(Arc<Block>, Proposal)>,
    /// Who was shown the second block.
    fooled: Vec<ReplicaIndex>,
}

impl EquivocatingLeader {
    pub(super) fn new(signer: Signer, stream: Stream) -> Self {
        Self { signer, stream, inventor: Inventor::default(), blocks: None, fooled: Vec::new() }
    }

    /// The other proposal for the same view, on the same certificate.
    fn other(&mut self, first: &Proposal) -> Proposal {
        if let Some((known, other)) = &self.blocks
            && known.id() == first.block.id()
        {
            return other.clone();
        }
        let mut commands: Vec<Command> = first.block.payload().commands().to_vec();
        commands.push(self.inventor.command(&mut self.stream));
        let (view, justify) = (first.block.view(), first.block.justify().clone());
        let block = Arc::new(Block::new(view, self.signer.config.me, justify, Payload::new(commands)));
        let other = self.signer.proposal(block, first.entry.clone());
        self.blocks = Some((Arc::clone(&first.block), other.clone()));
        self.fooled = Vec::new();
        other
    }
}

impl Behaviour for EquivocatingLeader {
    fn says(&mut self, to: ReplicaIndex, message: Message) -> Vec<Message> {
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
                    vec![Message::Vote(self.signer.vote(vote.view, vote.height, other.block.id()))]
                }
                Some(_) | None => vec![Message::Vote(vote)],
            },
            honest @ (Message::Timeout(_)
            | Message::Certificates(_)
            | Message::Commands(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_)
            | Message::CheckpointVote(_)
            | Message::Checkpoint(_)
            | Message::Gone(_)
            | Message::ChunkRequest(_)
            | Message::Chunks(_)
            | Message::Committed(_)) => vec![honest],
        }
    }
}
