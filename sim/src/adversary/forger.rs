//! An adversary that forges: others' signatures with its own key, signatures with a changed S, certificates with too
//! few, repeated or padded signers, timeout certificates that hide their highest certificate.
//!
//! Nothing that it forges is valid. Invariant: it never holds another replica's key.

use quorate::{
    consensus::{
        Block, Certificates, Message, Payload, QuorumCertificate, SignedTimeoutView, TimeoutCertificate, Vote,
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

/// Of a thousand letters that it hears, so many make it forge something.
const FORGERIES_PER_MILLE: u64 = 300;

/// The order of the curve's prime subgroup, little endian (RFC 8032, section 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Forges signatures and certificates.
#[derive(Debug)]
pub(super) struct Forger {
    signer: Signer,
    stream: Stream,
    memory: Memory,
    extra: Vec<Addressed>,
}

impl Forger {
    pub(super) fn new(signer: Signer, stream: Stream) -> Self {
        Self { signer, stream, memory: Memory::default(), extra: Vec::new() }
    }

    fn forged(&mut self) -> Option<Message> {
        let vote = self.memory.any_vote(&mut self.stream)?;
        Some(match self.stream.below(5) {
            0 => Message::Vote(self.in_anothers_name(&vote)),
            1 => Message::Vote(Vote { signature: with_larger_s(vote.signature), ..vote }),
            2 => self.certificates(&vote),
            3 => self.proposal(&vote),
            _ => self.timeout_certificate()?,
        })
    }

    fn in_anothers_name(&self, vote: &Vote) -> Vote {
        let committee = &self.signer.config.committee;
        let block = Digest::of(vote.block.as_bytes());
        let statement = statements::vote(committee, vote.view, vote.height, block);
        Vote { block, signature: self.signer.config.key.sign(&statement), ..vote.clone() }
    }

    /// A certificate for what may have no quorum: one vote short, one signer twice, padded, or all by one key.
    fn certificate(&mut self, vote: &Vote) -> QuorumCertificate {
        let quorum = self.signer.config.committee.size().quorum();
        let mut forged = self.memory.votes_like(vote);
        forged.signatures.truncate(quorum - 1);
        let own = self.signer.vote(vote.view, vote.height, vote.block).signature;
        match self.stream.below(4) {
            0 => {}
            1 => {
                let last = forged.signatures.last().copied();
                forged.signatures.extend(last);
            }
            2 => {
                let missing: Vec<_> = self
                    .signer
                    .config
                    .committee
                    .replicas()
                    .filter(|replica| forged.signatures.iter().all(|(signer, _)| signer != replica))
                    .collect();
                forged.signatures.extend(missing.into_iter().map(|replica| (replica, own)));
                forged.signatures.sort_by_key(|(signer, _)| *signer);
            }
            _ => {
                forged.block = Digest::of(vote.block.as_bytes());
                let signature = self.signer.vote(vote.view, vote.height, forged.block).signature;
                let everybody = self.signer.config.committee.replicas();
                forged.signatures = everybody.map(|replica| (replica, signature)).collect();
            }
        }
        forged
    }

    fn certificates(&mut self, vote: &Vote) -> Message {
        Message::Certificates(Certificates { high_qc: self.certificate(vote), high_tc: None })
    }

    /// A proposal on a forged certificate.
    fn proposal(&mut self, vote: &Vote) -> Message {
        let justify = self.certificate(vote);
        let view = justify.view.next();
        let block = Arc::new(Block::new(view, self.signer.config.me, justify, Payload::new(Vec::new())));
        Message::Proposal(self.signer.proposal(block, None))
    }

    /// Too few timeouts, or enough with their highest certificate hidden or lowered.
    fn timeout_certificate(&mut self) -> Option<Message> {
        let committee = &self.signer.config.committee;
        let HeardTimeouts { view, mut signed, highest } = self.memory.newest_timeouts()?;
        let genesis = QuorumCertificate::genesis(committee);
        let high_qc = match self.stream.below(3) {
            0 => {
                signed.truncate(committee.size().quorum() - 1);
                highest
            }
            1 => genesis,
            _ => {
                let lowered = |timeout| SignedTimeoutView { high_qc_view: genesis.view, ..timeout };
                signed = signed.into_iter().map(lowered).collect();
                genesis
            }
        };
        let high_tc = Some(TimeoutCertificate { view, timeouts: signed, high_qc: high_qc.clone() });
        Some(Message::Certificates(Certificates { high_qc, high_tc }))
    }
}

/// The same signature with S + L: it satisfies the equation and is not canonical.
fn with_larger_s(signature: Signature) -> Signature {
    let mut bytes = *signature.as_bytes();
    let mut carry = 0_u16;
    for (byte, add) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    Signature::from_bytes(bytes)
}

impl Behaviour for Forger {
    fn hears(&mut self, _from: ReplicaIndex, message: &Message) -> bool {
        self.memory.hear(message);
        if self.memory.may_add(&mut self.stream, FORGERIES_PER_MILLE)
            && let Some(message) = self.forged()
        {
            self.extra.extend(self.signer.to_all(message));
        }
        true
    }

    fn adds(&mut self) -> Vec<Addressed> {
        std::mem::take(&mut self.extra)
    }
}
