//! An adversary that changes single bits in the encoding of what it says, and signs some of it anew; and in what it heard
//! from others, which it passes on.
//!
//! What no longer decodes is not sent: links drop it. Invariant: each mutated message differs from the honest one in
//! what a receiver decodes.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate::{
    consensus::{Message, Proposal, Timeout, Vote, certify::Endorsement},
    types::ReplicaIndex,
};
use std::sync::Arc;

use super::{
    memory::Memory,
    puppeteer::{Addressed, Behaviour},
    signer::Signer,
};
use crate::rng::Stream;

/// How many bytes are tried until one gives a message that decodes.
const TRIES: usize = 8;

/// Of a thousand messages, so many leave mutated.
const MUTATED_PER_MILLE: u64 = 400;

/// Of a thousand letters that it hears, so many are passed on mutated.
const PASSED_ON_PER_MILLE: u64 = 50;

/// Changes single bits of what it says and hears.
#[derive(Debug)]
pub(super) struct Mutator {
    signer: Signer,
    stream: Stream,
    memory: Memory,
    extra: Vec<Addressed>,
}

impl Mutator {
    pub(super) fn new(signer: Signer, stream: Stream) -> Self {
        Self { signer, stream, memory: Memory::default(), extra: Vec::new() }
    }

    fn mutated<T: BorshSerialize + BorshDeserialize + PartialEq>(&mut self, message: &T) -> Option<T> {
        let bytes = borsh::to_vec(message).expect("writing to memory does not fail");
        (0..TRIES).find_map(|_| {
            let mut changed = bytes.clone();
            let place = self.stream.index(changed.len());
            changed[place] ^= 1 << self.stream.below(8);
            borsh::from_slice(&changed).ok().filter(|mutated| mutated != message)
        })
    }

    /// The message with a valid signature of its own under what it says now.
    fn signed_anew(&self, message: Message) -> Message {
        match message {
            Message::Proposal(Proposal { block, entry, .. }) => {
                Message::Proposal(self.signer.proposal(Arc::clone(&block), entry))
            }
            Message::Vote(Vote { view, height, block, .. }) => {
                Message::Vote(self.signer.vote(view, height, block))
            }
            Message::Timeout(Timeout { view, high_qc, entry, .. }) => {
                Message::Timeout(self.signer.timeout(view, high_qc, entry))
            }
            unsigned @ (Message::Certificates(_)
            | Message::Commands(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_)
            | Message::CheckpointVote(_)
            | Message::Checkpoint(_)
            | Message::Gone(_)
            | Message::ChunkRequest(_)
            | Message::Chunks(_)
            | Message::Committed(_)) => unsigned,
        }
    }
}

impl Behaviour for Mutator {
    fn hears(&mut self, _from: ReplicaIndex, message: &Message) -> bool {
        if self.memory.may_add(&mut self.stream, PASSED_ON_PER_MILLE)
            && let Some(mutated) = self.mutated(message)
        {
            self.extra.extend(self.signer.to_all(mutated));
        }
        true
    }

    fn hears_endorsement(&mut self, endorsement: &Endorsement) {
        if self.memory.may_add(&mut self.stream, PASSED_ON_PER_MILLE) {
            let own = Endorsement { signer: self.signer.config.me, ..endorsement.clone() };
            let mutated = self.mutated(&own);
            self.extra.extend(mutated.into_iter().flat_map(|mutated| self.signer.to_all(mutated)));
        }
    }

    fn adds(&mut self) -> Vec<Addressed> {
        std::mem::take(&mut self.extra)
    }

    fn says(&mut self, _to: ReplicaIndex, message: Message) -> Vec<Message> {
        if !self.stream.chance(MUTATED_PER_MILLE) {
            return vec![message];
        }
        let Some(mutated) = self.mutated(&message) else { return vec![message] };
        let mutated = if self.stream.chance(500) { self.signed_anew(mutated) } else { mutated };
        match self.stream.below(3) {
            0 => vec![mutated],
            1 => vec![mutated, message],
            _ => vec![message, mutated],
        }
    }
}
