//! Every byte of every envelope, changed one at a time: the result is refused, or it is a second spelling of the
//! very same body and signers.

use quorate::{
    execute::offline::verify_documents,
    knowledge::{
        certified::Certified,
        head::{Head, Mode},
        operator_request::VerifiedOperatorRequest,
        plan::Plan,
        receipt::VerifiedReceipt,
        root::VerifiedRoot,
    },
    types::{Digest, Envelope, KeyId},
};

use super::{
    fixture::{
        agent_key, cluster_of, committee, head_of, operator_key, plan, receipt, request, root, sealed_head,
        sealed_plan, sealed_receipt, sealed_root, verified_root,
    },
    verifiers::{Documents, Files, library},
};

/// What an accepted envelope says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Meaning {
    body: Digest,
    signers: Vec<KeyId>,
}

/// A change of one place in bytes.
type Change = fn(&[u8], usize) -> Vec<u8>;

const CHANGES: [(&str, Change); 10] = [
    ("lowest bit", |bytes, at| flipped(bytes, at, 1)),
    ("case bit", |bytes, at| flipped(bytes, at, 0x20)),
    ("highest bit", |bytes, at| flipped(bytes, at, 0x80)),
    ("all bits", |bytes, at| flipped(bytes, at, 0xff)),
    ("left out", |bytes, at| [&bytes[..at], &bytes[at + 1..]].concat()),
    ("twice", |bytes, at| [&bytes[..=at], &bytes[at..]].concat()),
    ("a space before", |bytes, at| [&bytes[..at], b" ", &bytes[at..]].concat()),
    ("a zero before", |bytes, at| [&bytes[..at], b"0", &bytes[at..]].concat()),
    ("a quote before", |bytes, at| [&bytes[..at], b"\"", &bytes[at..]].concat()),
    ("cut off", |bytes, at| bytes[..at].to_vec()),
];

fn flipped(bytes: &[u8], at: usize, bits: u8) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at] ^= bits;
    changed
}

/// Changes every place in every way. Returns how many changed envelopes were accepted.
fn survives(envelope: &[u8], read: impl Fn(&[u8]) -> Option<Meaning>) -> usize {
    let meaning = read(envelope).expect("the envelope itself is accepted");
    let mut accepted = 0;
    for (what, change) in CHANGES {
        for at in 0..envelope.len() {
            if let Some(other) = read(&change(envelope, at)) {
                assert_eq!(other, meaning, "byte {at}, {what}");
                accepted += 1;
            }
        }
    }
    accepted
}

fn meaning(envelope: &Envelope, signers: &[KeyId]) -> Meaning {
    Meaning { body: Digest::of(envelope.unverified_body()), signers: signers.to_vec() }
}

/// How many tokens an envelope's JSON has: before each, and nowhere else, a space means nothing.
const fn tokens(signatures: usize) -> usize {
    // Three fields of three tokens with two commas, a list, an object; a signature is an object of two fields.
    let envelope = 13;
    envelope + signatures * 10
}

#[test]
fn every_byte_of_a_root() {
    let read = |bytes: &[u8]| {
        let verified = VerifiedRoot::first(bytes).ok()?;
        // Every signature in an accepted envelope has been verified.
        let signers: Vec<_> = verified.envelope().signatures().iter().map(|(id, _)| *id).collect();
        Some(meaning(verified.envelope(), &signers))
    };
    assert_eq!(survives(&sealed_root(&root()), read), tokens(3));
}

#[test]
fn every_byte_of_a_head() {
    let committee = committee();
    let read = |bytes: &[u8]| {
        let verified = Certified::<Head>::verify(bytes, &committee).ok()?;
        Some(meaning(verified.envelope(), verified.signers()))
    };
    assert_eq!(survives(&sealed_head(&head_of(7, Mode::Act, &plan())), read), tokens(3));
}

#[test]
fn every_byte_of_a_plan() {
    let committee = committee();
    let read = |bytes: &[u8]| {
        let verified = Certified::<Plan>::verify(bytes, &committee).ok()?;
        Some(meaning(verified.envelope(), verified.signers()))
    };
    assert_eq!(survives(&sealed_plan(&plan()), read), tokens(3));
}

#[test]
fn every_byte_of_a_receipt() {
    let (agent, cluster) = (agent_key().public(), cluster_of(&root()));
    let read = |bytes: &[u8]| {
        let verified = VerifiedReceipt::verify(bytes, &agent, cluster).ok()?;
        Some(meaning(verified.envelope(), &[agent.id()]))
    };
    assert_eq!(survives(&sealed_receipt(&receipt()), read), tokens(1));
}

#[test]
fn every_byte_of_an_operators_request() {
    let root = verified_root();
    let read = |bytes: &[u8]| {
        let cluster = root.committee().cluster();
        let verified =
            VerifiedOperatorRequest::verify(bytes, root.operators(), cluster, root.committee().epoch())
                .ok()?;
        assert_eq!(verified.digest(), Digest::of(verified.envelope().unverified_body()));
        Some(meaning(verified.envelope(), &[verified.operator().key.id()]))
    };
    assert_eq!(survives(&request().sign(&operator_key()).to_json(), read), tokens(1));
}

#[test]
fn the_script_gives_the_librarys_verdict_on_changed_bytes() {
    let good = Documents::good();
    let places: [fn(&mut Documents) -> &mut Vec<u8>; 3] = [
        |documents| &mut documents.root,
        |documents| &mut documents.plan,
        |documents| documents.head.as_mut().expect("it has one"),
    ];
    let mut cases = Vec::new();
    for place in places {
        let whole = place(&mut good.clone()).clone();
        // Every third place: three and ten have no common factor, so all ways come up.
        for at in (0..whole.len()).step_by(3) {
            let (what, change) = CHANGES[at % CHANGES.len()];
            let mut documents = good.clone();
            *place(&mut documents) = change(&whole, at);
            cases.push((format!("byte {at} {what}"), documents));
        }
    }
    let documents: Vec<Documents> = cases.iter().map(|(_, documents)| documents.clone()).collect();
    let python = Files::new().python(&documents);
    assert_eq!(python.len(), cases.len());
    let mut accepted = 0;
    for ((what, documents), python) in cases.iter().zip(python) {
        assert_eq!(library(documents), python, "{what}: library and script");
        if python {
            accepted += 1;
            let verified = verify_documents(&documents.root, &documents.plan, documents.head.as_deref());
            assert_eq!(verified.expect("it was accepted").plan.document(), &plan(), "{what}");
        }
    }
    assert!(accepted > 0, "a space between two values is no change");
}
