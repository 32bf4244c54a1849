//! An adversary that changes single bytes of its messages' encoding, and signs some of them anew.
//!
//! What no longer decodes is not sent: links drop it. Invariant: each mutated message differs from the honest one in
//! what a receiver decodes.

use quorate::{
    consensus::{Message, Proposal, Timeout, Vote},
    types::ReplicaIndex,
};
use std::sync::Arc;

use super::{puppeteer::Behaviour, signer::Signer};
use crate::rng::Stream;

/// How many bytes are tried until one gives a message that decodes.
const TRIES: usize = 8;

/// Of a thousand messages, so many leave mutated.
const MUTATED_PER_MILLE: u64 = 400;

/// Changes single bytes of what it says.
#[derive(Debug)]
pub(super) struct Mutator {
    signer: Signer,
    stream: Stream,
}

impl Mutator {
    pub(super) const fn new(signer: Signer, stream: Stream) -> Self {
        Self { signer, stream }
    }

    fn mutated(&mut self, message: &Message) -> Option<Message> {
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
