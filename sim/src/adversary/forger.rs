//! An adversary that forges: others' signatures with its own key, signatures with a changed S or with points of small order
//! and second encodings in the place of R, certificates with too few, repeated or padded signers, timeout certificates that
//! hide their highest certificate. Messages carry no committee's size and no threshold, so none can be forged.
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
use crate::{requests::bad_key, rng::Stream, statements};

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
        Some(match self.stream.below(7) {
            0 => Message::Vote(self.in_anothers_name(&vote)),
            1 => Message::Vote(Vote { signature: with_larger_s(vote.signature), ..vote }),
            2 => Message::Vote(Vote { signature: self.with_small_order(vote.signature), ..vote }),
            3 => self.certificates(&vote),
            4 => self.proposal(&vote),
            5 => {
                let high_tc = self.timeout_certificate()?;
                Message::Certificates(Certificates {
                    high_qc: high_tc.high_qc.clone(),
                    high_tc: Some(high_tc),
                })
            }
            _ => self.entry()?,
        })
    }

    /// A signature whose R is a point of small order or a second encoding of one, with S as it was or zero.
    fn with_small_order(&mut self, signature: Signature) -> Signature {
        let mut bytes = *signature.as_bytes();
        bytes[..32].copy_from_slice(bad_key(&mut self.stream).as_bytes());
        if self.stream.chance(500) {
            bytes[32..].fill(0);
        }
        Signature::from_bytes(bytes)
    }

    /// A forged timeout certificate as the entry of its own timeout or proposal.
    fn entry(&mut self) -> Option<Message> {
        let tc = self.timeout_certificate()?;
        let (view, high_qc) = (tc.view.next(), tc.high_qc.clone());
        if self.stream.chance(500) {
            return Some(Message::Timeout(self.signer.timeout(view, high_qc, Some(tc))));
        }
        let block = Arc::new(Block::new(view, self.signer.config.me, high_qc, Payload::new(Vec::new())));
        Some(Message::Proposal(self.signer.proposal(block, Some(tc))))
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
        // One vote short, or as many as would do in a smaller committee.
        let votes = if self.stream.chance(500) { quorum - 1 } else { self.stream.index(quorum) };
        forged.signatures.truncate(votes);
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

    /// Too few timeouts, one of them twice or padded, or enough with their highest certificate hidden or lowered.
    fn timeout_certificate(&mut self) -> Option<TimeoutCertificate> {
        let committee = &self.signer.config.committee;
        let HeardTimeouts { view, mut signed, highest } = self.memory.newest_timeouts()?;
        let genesis = QuorumCertificate::genesis(committee);
        let short = committee.size().quorum() - 1;
        let high_qc = match self.stream.below(5) {
            0 => {
                signed.truncate(short);
                highest
            }
            1 => {
                signed.truncate(short);
                signed.extend(signed.last().copied());
                highest
            }
            2 => {
                signed.truncate(short);
                let own = self.signer.timeout(view, highest.clone(), None).signature;
                let missing: Vec<_> = committee
                    .replicas()
                    .filter(|replica| signed.iter().all(|timeout| timeout.signer != *replica))
                    .collect();
                let padded =
                    |signer| SignedTimeoutView { signer, high_qc_view: highest.view, signature: own };
                signed.extend(missing.into_iter().map(padded));
                signed.sort_by_key(|timeout| timeout.signer);
                highest
            }
            3 => genesis,
            _ => {
                let lowered = |timeout| SignedTimeoutView { high_qc_view: genesis.view, ..timeout };
                signed = signed.into_iter().map(lowered).collect();
                genesis
            }
        };
        Some(TimeoutCertificate { view, timeouts: signed, high_qc })
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
