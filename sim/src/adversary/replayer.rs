//! An adversary that says again what it heard: later, to others, and with signatures moved to another view, height,
//! phase, epoch, cluster or protocol; endorsements moved to another subject or signer; commands that were ordered before
//! in the blocks of its own.
//!
//! Else it behaves as an honest replica. Invariant: it signs for other domains with its own key only.

use quorate::{
    consensus::{
        Block, Command, Message, Payload, Proposal, QuorumCertificate, SignedTimeoutView, Timeout, Vote,
        certify::{Endorsement, SubjectKind},
    },
    types::{Digest, ReplicaIndex, Signature},
};
use std::sync::Arc;

use super::{
    memory::{HeardTimeouts, Memory},
    puppeteer::{Addressed, Behaviour},
    signer::Signer,
};
use crate::{rng::Stream, statements};

/// Of a thousand letters that it hears, so many make it replay something.
const REPLAYS_PER_MILLE: u64 = 300;

/// Of a thousand of its blocks, so many have commands that were ordered before.
const ORDERED_AGAIN_PER_MILLE: u64 = 300;

/// How many commands it remembers.
const MOST_COMMANDS: usize = 64;

/// Says again what it heard.
#[derive(Debug)]
pub(super) struct Replayer {
    signer: Signer,
    stream: Stream,
    memory: Memory,
    commands: Vec<Command>,
    /// The newest proposal of its core and what it made of it.
    made: Option<(Proposal, Proposal)>,
    extra: Vec<Addressed>,
}

impl Replayer {
    pub(super) fn new(signer: Signer, stream: Stream) -> Self {
        let (memory, commands) = (Memory::default(), Vec::new());
        Self { signer, stream, memory, commands, made: None, extra: Vec::new() }
    }

    fn remember_commands(&mut self, commands: &[Command]) {
        for command in commands {
            if self.commands.len() < MOST_COMMANDS {
                self.commands.push(command.clone());
            } else {
                let place = self.stream.index(MOST_COMMANDS);
                self.commands[place] = command.clone();
            }
        }
    }

    /// The proposal with commands that were ordered before, the same to all.
    fn with_commands_again(&mut self, honest: &Proposal) -> Proposal {
        if let Some((known, made)) = &self.made
            && known == honest
        {
            return made.clone();
        }
        let mut made = honest.clone();
        if !self.commands.is_empty() && self.stream.chance(ORDERED_AGAIN_PER_MILLE) {
            let mut commands = honest.block.payload().commands().to_vec();
            for _ in 0..self.stream.between(1, 4) {
                commands.push(self.commands[self.stream.index(self.commands.len())].clone());
            }
            let (view, justify) = (honest.block.view(), honest.block.justify().clone());
            let block = Arc::new(Block::new(view, self.signer.config.me, justify, Payload::new(commands)));
            made = self.signer.proposal(block, honest.entry.clone());
        }
        self.made = Some((honest.clone(), made.clone()));
        made
    }

    fn replayed(&mut self) -> Option<Message> {
        match self.stream.below(10) {
            0..=2 => self.memory.any(&mut self.stream),
            3 => self.memory.any_vote(&mut self.stream).map(|vote| self.moved(&vote)),
            4 => self.memory.any_vote(&mut self.stream).map(|vote| self.as_timeout(&vote)),
            5 => self.timeout_as_vote(),
            6 => self.timeout_signed_elsewhere(),
            _ => self.memory.any_vote(&mut self.stream).map(|vote| self.signed_elsewhere(&vote)),
        }
    }

    /// A vote's signature over another view, height or block.
    fn moved(&mut self, vote: &Vote) -> Message {
        Message::Vote(match self.stream.below(3) {
            0 => Vote { view: vote.view.next(), ..vote.clone() },
            1 => Vote { height: vote.height.next(), ..vote.clone() },
            _ => Vote { block: Digest::of(vote.block.as_bytes()), ..vote.clone() },
        })
    }

    /// A vote's signature as that of a timeout.
    fn as_timeout(&self, vote: &Vote) -> Message {
        let Vote { view, voter, signature, .. } = *vote;
        let high_qc = QuorumCertificate::genesis(&self.signer.config.committee);
        Message::Timeout(Timeout { view, high_qc, entry: None, sender: voter, signature })
    }

    /// A timeout's signature as that of a vote for what its highest certificate names.
    fn timeout_as_vote(&mut self) -> Option<Message> {
        let HeardTimeouts { view, signed, highest } = self.memory.newest_timeouts()?;
        let SignedTimeoutView { signer: voter, signature, .. } = signed[self.stream.index(signed.len())];
        Some(Message::Vote(Vote { view, height: highest.height, block: highest.block, voter, signature }))
    }

    /// Its own timeout, signed for another epoch, cluster, protocol or phase.
    fn timeout_signed_elsewhere(&mut self) -> Option<Message> {
        let HeardTimeouts { view, highest, .. } = self.memory.newest_timeouts()?;
        let statement = statements::timeout(&self.signer.config.committee, view, highest.view);
        let signature = self.sign_elsewhere(statement);
        let timeout = self.signer.timeout(view, highest, None);
        Some(Message::Timeout(Timeout { signature, ..timeout }))
    }

    /// Its own vote, signed for another epoch, cluster, protocol or phase.
    fn signed_elsewhere(&mut self, vote: &Vote) -> Message {
        let Vote { view, height, block, .. } = *vote;
        let statement = statements::vote(&self.signer.config.committee, view, height, block);
        let signature = self.sign_elsewhere(statement);
        Message::Vote(Vote { voter: self.signer.config.me, signature, ..vote.clone() })
    }

    fn sign_elsewhere(&mut self, mut bytes: Vec<u8>) -> Signature {
        let place = match self.stream.below(4) {
            0 => statements::KIND_AT,
            1 => statements::CLUSTER_AT,
            2 => statements::EPOCH_AT,
            _ => statements::PROTOCOL_AT,
        };
        bytes[place] ^= 1;
        self.signer.config.key.sign(&bytes)
    }

    /// Another's endorsement in its own name, or for another number or kind of document.
    fn moved_endorsement(&mut self, endorsement: &Endorsement) -> Endorsement {
        let mut moved = endorsement.clone();
        match self.stream.below(4) {
            0 => {}
            1 => moved.signer = self.signer.config.me,
            2 => {
                moved.signer = self.signer.config.me;
                moved.subject.number += 1;
            }
            _ => {
                moved.signer = self.signer.config.me;
                moved.subject.kind = match moved.subject.kind {
                    SubjectKind::Plan => SubjectKind::Head,
                    SubjectKind::Head => SubjectKind::Plan,
                };
            }
        }
        moved
    }
}

impl Behaviour for Replayer {
    fn hears(&mut self, _from: ReplicaIndex, message: &Message) -> bool {
        self.memory.hear(message);
        if let Message::Commands(commands) = message {
            self.remember_commands(commands);
        }
        if self.memory.may_add(&mut self.stream, REPLAYS_PER_MILLE) {
            let peers = self.signer.peers();
            let to: ReplicaIndex = peers[self.stream.index(peers.len())];
            let message = self.replayed();
            self.extra.extend(message.map(|message| (to, message.into())));
        }
        true
    }

    fn hears_endorsement(&mut self, endorsement: &Endorsement) {
        if self.memory.may_add(&mut self.stream, REPLAYS_PER_MILLE) {
            let moved = self.moved_endorsement(endorsement);
            self.extra.extend(self.signer.to_all(moved));
        }
    }

    fn says(&mut self, _to: ReplicaIndex, message: Message) -> Vec<Message> {
        match message {
            Message::Proposal(honest) => vec![Message::Proposal(self.with_commands_again(&honest))],
            other @ (Message::Vote(_)
            | Message::Timeout(_)
            | Message::Certificates(_)
            | Message::Commands(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_)
            | Message::CheckpointVote(_)
            | Message::Checkpoint(_)
            | Message::Gone(_)
            | Message::ChunkRequest(_)
            | Message::Chunks(_)
            | Message::Committed(_)) => vec![other],
        }
    }

    fn adds(&mut self) -> Vec<Addressed> {
        std::mem::take(&mut self.extra)
    }
}
