//! An adversary that floods: votes, timeouts and certificates of views far ahead, requests for absurd heights,
//! commands that it invents.
//!
//! Else it behaves as an honest replica. Invariant: its own signatures are valid, so only bounds stand between it
//! and a peer's memory.

use quorate::{
    consensus::{BlockRequest, Certificates, Message, QuorumCertificate},
    types::{Digest, Height, ReplicaIndex, View},
};

use super::{
    invented::Inventor,
    memory::Memory,
    puppeteer::{Addressed, Behaviour},
    signer::Signer,
};
use crate::rng::Stream;

/// Of a thousand letters that it hears, so many make it send a flood.
const FLOODS_PER_MILLE: u64 = 100;

/// How many messages a flood has.
const FLOOD: u64 = 20;

/// Floods its peers.
#[derive(Debug)]
pub(super) struct Flooder {
    signer: Signer,
    stream: Stream,
    memory: Memory,
    inventor: Inventor,
    newest: View,
    extra: Vec<Addressed>,
}

impl Flooder {
    pub(super) fn new(signer: Signer, stream: Stream) -> Self {
        let (memory, inventor) = (Memory::default(), Inventor::default());
        Self { signer, stream, memory, inventor, newest: View::ZERO, extra: Vec::new() }
    }

    fn far_view(&mut self) -> View {
        match self.stream.below(4) {
            0 => View::new(u64::MAX),
            1 => View::new(u64::MAX - 1 - self.stream.below(10)),
            _ => View::new(self.newest.number().saturating_add(self.stream.below(1_000))),
        }
    }

    fn message(&mut self) -> Message {
        let view = self.far_view();
        let height = Height::new(self.stream.next());
        let block = Digest::of(&view.number().to_le_bytes());
        let genesis = QuorumCertificate::genesis(&self.signer.config.committee);
        let unsigned = QuorumCertificate { view, height, block, signatures: Vec::new() };
        match self.stream.below(6) {
            0 => Message::Vote(self.signer.vote(view, height, block)),
            1 => Message::Timeout(self.signer.timeout(view, genesis, None)),
            2 => Message::Timeout(self.signer.timeout(view, unsigned, None)),
            3 => Message::Certificates(Certificates { high_qc: unsigned, high_tc: None }),
            4 => {
                let above = Height::new(self.stream.below(3) * (u64::MAX / 2));
                Message::BlockRequest(BlockRequest { target: block, target_height: height, above })
            }
            _ => Message::Commands(vec![self.inventor.command(&mut self.stream)]),
        }
    }
}

impl Behaviour for Flooder {
    fn hears(&mut self, from: ReplicaIndex, message: &Message) -> bool {
        if let Message::Vote(vote) = message
            && from == vote.voter
        {
            self.newest = self.newest.max(vote.view);
        }
        if self.memory.may_add(&mut self.stream, FLOODS_PER_MILLE) {
            for _ in 0..FLOOD {
                let message = self.message();
                self.extra.push((from, message.into()));
            }
        }
        true
    }

    fn adds(&mut self) -> Vec<Addressed> {
        std::mem::take(&mut self.extra)
    }
}
