//! An adversary that says again what it heard: later, to others, and with signatures moved to another view, height,
//! phase, epoch, cluster or protocol.
//!
//! Else it behaves as an honest replica. Invariant: it signs for other domains with its own key only.

use quorate::{
    consensus::{Message, QuorumCertificate, Timeout, Vote},
    types::{Digest, ReplicaIndex},
};

use super::{
    memory::Memory,
    puppeteer::{Addressed, Behaviour},
    signer::Signer,
};
use crate::{rng::Stream, statements};

/// Of a thousand letters that it hears, so many make it replay something.
const REPLAYS_PER_MILLE: u64 = 300;

/// Says again what it heard.
#[derive(Debug)]
pub(super) struct Replayer {
    signer: Signer,
    stream: Stream,
    memory: Memory,
    extra: Vec<Addressed>,
}

impl Replayer {
    pub(super) fn new(signer: Signer, stream: Stream) -> Self {
        Self { signer, stream, memory: Memory::default(), extra: Vec::new() }
    }

    fn replayed(&mut self) -> Option<Message> {
        match self.stream.below(8) {
            0..=2 => self.memory.any(&mut self.stream),
            3 => self.memory.any_vote(&mut self.stream).map(|vote| self.moved(&vote)),
            4 => self.memory.any_vote(&mut self.stream).map(|vote| self.as_timeout(&vote)),
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

    /// Its own vote, signed for another epoch, cluster, protocol or phase.
    fn signed_elsewhere(&mut self, vote: &Vote) -> Message {
        let Vote { view, height, block, .. } = *vote;
        let mut bytes = statements::vote(&self.signer.config.committee, view, height, block);
        let place = match self.stream.below(4) {
            0 => statements::KIND_AT,
            1 => statements::CLUSTER_AT,
            2 => statements::EPOCH_AT,
            _ => statements::PROTOCOL_AT,
        };
        bytes[place] ^= 1;
        let signature = self.signer.config.key.sign(&bytes);
        Message::Vote(Vote { voter: self.signer.config.me, signature, ..vote.clone() })
    }
}

impl Behaviour for Replayer {
    fn hears(&mut self, _from: ReplicaIndex, message: &Message) -> bool {
        self.memory.hear(message);
        if self.memory.may_add(&mut self.stream, REPLAYS_PER_MILLE) {
            let peers = self.signer.peers();
            let to: ReplicaIndex = peers[self.stream.index(peers.len())];
            let message = self.replayed();
            self.extra.extend(message.map(|message| (to, message.into())));
        }
        true
    }

    fn adds(&mut self) -> Vec<Addressed> {
        std::mem::take(&mut self.extra)
    }
}
