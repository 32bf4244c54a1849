//! Evidence: documents as people hand them around, evidence as replicas order it, and whatever an offender may sign.
//!
//! Invariant: what verifies reads back from its document as itself.

use borsh::BorshSerialize;
use quorate::{
    consensus::PROTOCOL_HOTSTUFF2,
    knowledge::evidence::VerifiedEvidence,
    types::{Digest, Evidence, SecretKey, SignedStatement, StatementKind, View, statement_bytes},
};

use crate::{
    script::Script,
    world::{REPLICAS, WORLD, place},
};

/// A document, encoded evidence, or statements that one replica signed: the first byte says which.
pub fn evidence(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let read = match script.pick(3) {
        0 => VerifiedEvidence::from_json(script.rest(), WORLD.committee()).ok(),
        1 => borsh::from_slice(script.rest()).ok().and_then(verified),
        _ => verified(signed(&mut script)),
    };
    if let Some(read) = read {
        let again = VerifiedEvidence::from_json(&read.to_json(), WORLD.committee());
        assert_eq!(again.as_ref(), Ok(&read), "evidence reads back as itself");
    }
}

fn verified(evidence: Evidence) -> Option<VerifiedEvidence> {
    VerifiedEvidence::verify(evidence, WORLD.committee()).ok()
}

/// What the script's offender signed.
fn signed(script: &mut Script<'_>) -> Evidence {
    let offender = script.pick(REPLICAS);
    let key = &WORLD.replicas[offender];
    if script.flag() {
        let mut one = || {
            let kind = u8::try_from(script.pick(8)).ok().and_then(StatementKind::numbered);
            let (kind, protocol) = (kind.unwrap_or(StatementKind::Vote), script.byte());
            sign(key, kind, protocol, script.bytes())
        };
        let (first, second) = (one(), one());
        return Evidence::contradiction(place(offender), first, second);
    }
    let (view, block) = (View::new(script.number()), Digest::of(&[script.byte()]));
    let certificates = script.rest().to_vec();
    let proposal = sign_value(
        key,
        StatementKind::Proposal,
        PROTOCOL_HOTSTUFF2,
        &(view, block, Digest::of(&certificates)),
    );
    Evidence::InvalidCertificate { offender: place(offender), proposal, certificates }
}

/// Two votes of a replica in one view.
pub(crate) fn double_vote(offender: usize, view: u64) -> Evidence {
    let vote = |block: &[u8]| {
        let body = (View::new(view), 1_u64, Digest::of(block));
        sign_value(&WORLD.replicas[offender], StatementKind::Vote, PROTOCOL_HOTSTUFF2, &body)
    };
    Evidence::contradiction(place(offender), vote(b"one"), vote(b"other"))
}

/// A proposal on certificates that are none.
pub(crate) fn invalid_certificate(offender: usize, certificates: Vec<u8>) -> Evidence {
    let body = (View::new(1), Digest::of(b"block"), Digest::of(&certificates));
    let proposal = sign_value(&WORLD.replicas[offender], StatementKind::Proposal, PROTOCOL_HOTSTUFF2, &body);
    Evidence::InvalidCertificate { offender: place(offender), proposal, certificates }
}

fn sign_value(
    key: &SecretKey,
    kind: StatementKind,
    protocol: u8,
    body: &impl BorshSerialize,
) -> SignedStatement {
    sign(key, kind, protocol, &borsh::to_vec(body).expect("memory takes all"))
}

fn sign(key: &SecretKey, kind: StatementKind, protocol: u8, body: &[u8]) -> SignedStatement {
    let bytes = statement_bytes(kind, &WORLD.committee().domain(protocol), body);
    let signature = key.sign(&bytes);
    SignedStatement { bytes, signature }
}
