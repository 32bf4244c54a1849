//! What people would try: signers, quorums, other epochs and clusters and types, second spellings, sizes.

use base64::Engine as _;
use quorate::{
    knowledge::{
        head::{HEAD_TYPE, Mode},
        operator_request::{OPERATOR_REQUEST_TYPE, OperatorRequest, VerifiedOperatorRequest},
        plan::{PLAN_TYPE, Plan},
        receipt::{RECEIPT_TYPE, Receipt, VerifiedReceipt},
        root::{ROOT_TYPE, Root, RootOperator},
    },
    types::{Digest, Envelope, Epoch, MAX_DOCUMENT_BYTES, MAX_ENVELOPE_BYTES, SecretKey, Signature, pae},
};

use super::{
    fixture::{
        agent_key, cluster_of, head_of, operator_key, owner_keys, plan, receipt, replica_keys, request, root,
        seal, sealed_head, sealed_plan, sealed_receipt, sealed_root, verified_root,
    },
    verifiers::{Documents, assert_all},
};

type Cases = Vec<(String, Documents)>;

fn named<const N: usize>(cases: [(&str, Documents); N]) -> Cases {
    cases.map(|(what, documents)| (what.to_owned(), documents)).into()
}

/// The good documents with this plan's envelope.
fn with_plan(envelope: Vec<u8>) -> Documents {
    Documents { plan: envelope, ..Documents::good() }
}

/// Documents of a changed root's own cluster, so that nothing but the change can be refused.
fn with_root(change: impl FnOnce(&mut Root)) -> Documents {
    let mut root = root();
    change(&mut root);
    let plan = Plan { cluster: cluster_of(&root), ..plan() };
    let head = sealed_head(&head_of(7, Mode::Act, &plan));
    Documents { root: sealed_root(&root), plan: sealed_plan(&plan), head: Some(head) }
}

fn operator(root: &mut Root, name: &str, seed: u8) {
    let key = SecretKey::from_seed(&[seed; 32]).public();
    let ed25519 = Digest::from_bytes(key.to_bytes());
    root.operators.push(RootOperator { name: name.to_owned(), ed25519, owner: "owner-0".to_owned() });
}

/// The good documents with a part of the plan's envelope replaced.
fn with_text(from: &str, to: &str) -> Documents {
    let text = String::from_utf8(Documents::good().plan).expect("JSON is UTF-8");
    assert!(text.contains(from), "{from} does not occur in {text}");
    with_plan(text.replacen(from, to, 1).into_bytes())
}

/// A plan with this body that a quorum signed, and a head that names it.
fn with_body(body: Vec<u8>) -> Documents {
    let mut head = head_of(7, Mode::Act, &plan());
    head.targets[0].plan = Digest::of(&body);
    Documents {
        plan: seal(PLAN_TYPE, body, &replica_keys()[..3]),
        head: Some(sealed_head(&head)),
        ..Documents::good()
    }
}

fn body_text(from: &str, to: &str) -> Documents {
    let text = String::from_utf8(plan().to_bytes()).expect("JSON is UTF-8");
    assert!(text.contains(from), "{from} does not occur in {text}");
    with_body(text.replacen(from, to, 1).into_bytes())
}

/// The plan's body followed by spaces up to so many bytes.
fn padded(bytes: usize) -> Documents {
    let mut body = plan().to_bytes();
    body.resize(bytes, b' ');
    with_body(body)
}

/// The one string in the good plan's envelope behind this field's first occurrence.
fn value_of(field: &str) -> String {
    let text = String::from_utf8(Documents::good().plan).expect("JSON is UTF-8");
    let start = text.find(&format!("\"{field}\":\"")).expect("it has the field") + field.len() + 4;
    let end = text[start..].find('"').expect("the string ends") + start;
    text[start..end].to_owned()
}

#[test]
fn everything_that_is_well_formed_passes() {
    let text = String::from_utf8(Documents::good().plan).expect("JSON is UTF-8");
    let (payload, kind) = (value_of("payload"), value_of("payloadType"));
    let fields = format!("\"payload\":\"{payload}\",\"payloadType\":\"{kind}\"");
    let swapped = format!("\"payloadType\":\"{kind}\",\"payload\":\"{payload}\"");
    assert_all(
        true,
        &named([
            ("as made", Documents::good()),
            ("without a head", Documents { head: None, ..Documents::good() }),
            ("all replicas signed", with_plan(seal(PLAN_TYPE, plan().to_bytes(), &replica_keys()))),
            ("fields in another order", with_text(&fields, &swapped)),
            ("spaces between", with_plan(text.replace(',', " ,\n\t").into_bytes())),
            ("letters as escapes in an envelope", with_text("payloadType", "payload\\u0054ype")),
            ("letters as escapes in a body", body_text("\"seq\"", "\"s\\u0065q\"")),
            ("a body of the largest size", padded(MAX_DOCUMENT_BYTES)),
        ]),
    );
}

/// The good plan's first signature, and the whole envelope with its signatures in reverse order.
fn signatures_as_text() -> (String, String) {
    let text = String::from_utf8(Documents::good().plan).expect("JSON is UTF-8");
    let list = text.find("[{").expect("there are signatures") + 1;
    let first = &text[list..text[list..].find("},").expect("there are several") + list + 1];
    let reversed = {
        let mut pairs: Vec<&str> = text[list..text.len() - 2].split_inclusive('}').collect();
        pairs.reverse();
        let pairs: Vec<&str> = pairs.iter().map(|pair| pair.trim_start_matches(',')).collect();
        format!("{}{}]}}", &text[..list], pairs.join(","))
    };
    (first.to_owned(), reversed)
}

#[test]
fn too_few_wrong_or_repeated_signers_are_refused() {
    let keys = replica_keys();
    let message = pae(PLAN_TYPE, &plan().to_bytes());
    let by = |signers: &[SecretKey]| with_plan(seal(PLAN_TYPE, plan().to_bytes(), signers));
    let signatures = |pairs: Vec<(Digest, Signature)>| {
        with_plan(Envelope::new(PLAN_TYPE, plan().to_bytes(), pairs).to_json())
    };
    let signed = |key: &SecretKey| (key.public().id(), key.sign(&message));
    let stranger = SecretKey::from_seed(&[99; 32]);
    let (first, reversed) = signatures_as_text();
    assert_all(
        false,
        &named([
            ("a quorum minus one", by(&keys[..2])),
            ("one", by(&keys[..1])),
            ("none", by(&[])),
            ("owners", by(&owner_keys())),
            (
                "a quorum minus one and an owner",
                by(&[keys[0].clone(), keys[1].clone(), owner_keys()[0].clone()]),
            ),
            ("a quorum and a stranger", by(&[&keys[..3], std::slice::from_ref(&stranger)].concat())),
            ("more than n signatures", by(&[&keys[..], &[stranger]].concat())),
            ("one signer twice", with_text(&first, &format!("{first},{first}"))),
            (
                "one key under a second id",
                signatures(vec![
                    signed(&keys[0]),
                    signed(&keys[1]),
                    (keys[2].public().id(), keys[0].sign(&message)),
                ]),
            ),
            (
                "one key under an unknown id",
                signatures(vec![
                    signed(&keys[0]),
                    signed(&keys[1]),
                    (Digest::of(b"x"), keys[0].sign(&message)),
                ]),
            ),
            (
                "a false signature beside a quorum",
                signatures(vec![
                    signed(&keys[0]),
                    signed(&keys[1]),
                    signed(&keys[2]),
                    (keys[3].public().id(), keys[0].sign(&message)),
                ]),
            ),
            ("signatures out of order", with_plan(reversed.into_bytes())),
            (
                "a signature of the body alone",
                signatures(
                    keys.iter().map(|key| (key.public().id(), key.sign(&plan().to_bytes()))).collect(),
                ),
            ),
            (
                "a signature for another type",
                signatures(
                    keys.iter()
                        .map(|key| (key.public().id(), key.sign(&pae(HEAD_TYPE, &plan().to_bytes()))))
                        .collect(),
                ),
            ),
        ]),
    );
}

#[test]
fn another_cluster_epoch_type_or_plan_is_refused() {
    let of = |plan: Plan| with_body(plan.to_bytes());
    let good = Documents::good();
    let head = good.head.clone().expect("it has one");
    let other_plan = Plan { desired: quorate::knowledge::plan::DesiredState::Slots { slots: 5 }, ..plan() };
    let kind = value_of("payloadType");
    assert_all(
        false,
        &named([
            ("another cluster", of(Plan { cluster: Digest::of(b"other"), ..plan() })),
            ("another epoch", of(Plan { epoch: Epoch::new(2), ..plan() })),
            ("epoch zero", of(Plan { epoch: Epoch::new(0), ..plan() })),
            ("another version", of(Plan { v: 2, ..plan() })),
            ("a head as a plan", with_plan(head.clone())),
            ("a plan as a head", Documents { head: Some(good.plan.clone()), ..good.clone() }),
            ("a plan as a root", Documents { root: good.plan.clone(), ..good.clone() }),
            ("a receipt as a plan", with_plan(sealed_receipt(&receipt()))),
            (
                "a receipt that replicas signed",
                with_plan(seal(RECEIPT_TYPE, receipt().to_bytes(), &replica_keys())),
            ),
            ("a receipt's body as a plan", with_plan(seal(PLAN_TYPE, receipt().to_bytes(), &replica_keys()))),
            ("the type in capitals", with_text(&kind, &kind.to_uppercase())),
            ("the type with a parameter", with_text(&kind, &format!("{kind};v=1"))),
            (
                "the head of another plan",
                Documents { head: Some(sealed_head(&head_of(7, Mode::Act, &other_plan))), ..good.clone() },
            ),
            (
                "a root of another cluster",
                Documents {
                    root: {
                        let mut other = root();
                        other.genesis = Digest::of(b"other");
                        seal(ROOT_TYPE, other.to_bytes(), &owner_keys())
                    },
                    ..good
                },
            ),
        ]),
    );
}

#[test]
fn second_spellings_of_an_envelope_are_refused() {
    let (payload, sig, keyid) = (value_of("payload"), value_of("sig"), value_of("keyid"));
    let engine = base64::engine::general_purpose::STANDARD;
    let signature = engine.decode(&sig).expect("it is base64");
    // A signature's 64 bytes end in two base64 characters of which the last has four bits without a meaning.
    assert!(sig.ends_with("=="));
    let next = |char: char| char::from(char as u8 + 1);
    let last = sig.chars().rev().nth(2).expect("it is long");
    let trailing_bits = format!("{}{}==", &sig[..sig.len() - 3], next(last));
    let other_alphabet = |text: &str| text.replace('+', "-").replace('/', "_");
    assert_ne!(other_alphabet(&sig), sig, "another seed is needed");
    assert_all(
        false,
        &named([
            ("no padding", with_text(&sig, sig.trim_end_matches('='))),
            ("more padding", with_text(&sig, &format!("{sig}===="))),
            ("trailing bits", with_text(&sig, &trailing_bits)),
            ("the alphabet of URLs", with_text(&sig, &other_alphabet(&sig))),
            (
                "a line break in base64",
                with_text(&payload, &format!("{}\\n{}", &payload[..64], &payload[64..])),
            ),
            ("a space in base64", with_text(&payload, &format!("{payload} "))),
            ("63 bytes of signature", with_text(&sig, &engine.encode(&signature[..63]))),
            ("65 bytes of signature", with_text(&sig, &engine.encode([&signature[..], &[0]].concat()))),
            ("no signature bytes", with_text(&sig, "")),
            ("a keyid in capitals", with_text(&keyid, &keyid.to_uppercase())),
            ("a keyid with a space", with_text(&keyid, &format!("{keyid} "))),
            ("half a keyid", with_text(&keyid, &keyid[..32])),
            ("an unknown field", with_text("{\"payload\"", "{\"more\":1,\"payload\"")),
            ("an unknown field of a signature", with_text("{\"keyid\"", "{\"more\":1,\"keyid\"")),
            ("a field twice", with_text("{\"payload\"", "{\"payload\":\"\",\"payload\"")),
            (
                "a field twice, spelled with an escape",
                with_text("{\"payload\"", "{\"payl\\u006fad\":\"\",\"payload\""),
            ),
            ("a keyid twice in a signature", with_text("{\"keyid\"", "{\"keyid\":\"\",\"keyid\"")),
            ("a missing field", with_text("\"payloadType\"", "\"payloadtype\"")),
            (
                "null signatures",
                with_plan(
                    format!(
                        "{{\"payload\":\"{payload}\",\"payloadType\":\"{PLAN_TYPE}\",\"signatures\":null}}"
                    )
                    .into_bytes(),
                ),
            ),
            (
                "an array for the envelope",
                with_plan(format!("[\"{payload}\",\"{PLAN_TYPE}\",[]]").into_bytes()),
            ),
            ("two values", with_plan([Documents::good().plan, Documents::good().plan].concat())),
            ("nothing", with_plan(Vec::new())),
            ("a byte order mark", with_plan([b"\xef\xbb\xbf".to_vec(), Documents::good().plan].concat())),
            ("bytes that are no UTF-8", with_plan([Documents::good().plan, vec![0xff]].concat())),
        ]),
    );
}

#[test]
fn lax_bodies_and_roots_are_refused_though_signed() {
    assert_all(
        false,
        &named([
            ("an unknown field", body_text("{\"v\":1", "{\"more\":1,\"v\":1")),
            ("an unknown field inside", body_text("\"min\":1", "\"min\":1,\"more\":1")),
            ("a field twice", body_text("\"seq\":37", "\"seq\":37,\"seq\":37")),
            ("a field twice, spelled with an escape", body_text("\"seq\":37", "\"seq\":37,\"s\\u0065q\":37")),
            ("a float", body_text("\"seq\":37", "\"seq\":37.0")),
            ("an exponent", body_text("\"seq\":37", "\"seq\":37e0")),
            ("a leading zero", body_text("\"seq\":37", "\"seq\":037")),
            ("a plus sign", body_text("\"seq\":37", "\"seq\":+37")),
            ("true", body_text("\"seq\":37", "\"seq\":true")),
            ("null", body_text("\"seq\":37", "\"seq\":null")),
            ("something behind", with_body([plan().to_bytes(), b"{}".to_vec()].concat())),
            ("no JSON", with_body(b"plan".to_vec())),
            ("no owner's threshold", with_root(|root| root.owner_threshold = 0)),
            ("a threshold above the owners", with_root(|root| root.owner_threshold = 5)),
            ("two operators of one name", with_root(|root| operator(root, "ana", 81))),
            ("an operator's key twice", with_root(|root| operator(root, "bea", 31))),
            ("an operator with a replica's key", with_root(|root| operator(root, "bea", 1))),
            ("an operator with an owner's key", with_root(|root| operator(root, "bea", 11))),
            ("an operator without a name", with_root(|root| operator(root, "", 81))),
            ("an operator with a name of two lines", with_root(|root| operator(root, "b\n", 81))),
            ("an operator of nobody", with_root(|root| root.operators[0].owner = "owner-9".to_owned())),
            ("an operator's key of small order", with_root(|root| root.operators[0].ed25519 = Digest::ZERO)),
            (
                "65 operators",
                with_root(|root| (100..164).for_each(|seed| operator(root, &format!("o{seed}"), seed))),
            ),
            (
                "one replica's key twice",
                with_root(|root| root.replicas[1].ed25519 = root.replicas[0].ed25519),
            ),
            ("one replica twice", with_root(|root| root.replicas[1] = root.replicas[0].clone())),
            (
                "one key under two ids",
                with_root(|root| {
                    root.replicas[1].ed25519 = root.replicas[0].ed25519;
                    root.replicas[1].keyid = Digest::of(b"second");
                }),
            ),
            (
                "an owner's key as a replica's",
                with_root(|root| {
                    root.replicas[0].ed25519 = root.owners[0].ed25519;
                    root.replicas[0].keyid = Digest::of(root.owners[0].ed25519.as_bytes());
                }),
            ),
            ("epoch 2 as the first", with_root(|root| root.epoch = Epoch::new(2))),
            ("a body of one byte too many", padded(MAX_DOCUMENT_BYTES + 1)),
            (
                "an envelope of one byte too many",
                with_plan({
                    let mut envelope = Documents::good().plan;
                    envelope.resize(MAX_ENVELOPE_BYTES + 1, b' ');
                    envelope
                }),
            ),
        ]),
    );
}

#[test]
fn receipts_of_other_agents_clusters_types_and_sizes_are_refused() {
    let (key, cluster) = (agent_key(), cluster_of(&root()));
    let verify = |envelope: &[u8]| VerifiedReceipt::verify(envelope, &key.public(), cluster).is_ok();
    assert!(verify(&sealed_receipt(&receipt())));
    let body = receipt().to_bytes();
    let mut large = body.clone();
    large.resize(MAX_DOCUMENT_BYTES + 1, b' ');
    let stranger = SecretKey::from_seed(&[22; 32]);
    let of = |receipt: Receipt| sealed_receipt(&receipt);
    let cases = [
        ("a stranger's", seal(RECEIPT_TYPE, body.clone(), std::slice::from_ref(&stranger))),
        ("the agent's and a stranger's", seal(RECEIPT_TYPE, body.clone(), &[key.clone(), stranger])),
        ("nobody's", seal(RECEIPT_TYPE, body.clone(), &[])),
        ("a quorum's", seal(RECEIPT_TYPE, body.clone(), &replica_keys())),
        ("of another type", seal(PLAN_TYPE, body, std::slice::from_ref(&key))),
        ("of another cluster", of(Receipt { cluster: Digest::of(b"other"), ..receipt() })),
        ("of another version", of(Receipt { v: 2, ..receipt() })),
        ("a byte too large", seal(RECEIPT_TYPE, large, std::slice::from_ref(&key))),
    ];
    for (what, envelope) in cases {
        assert!(!verify(&envelope), "{what}");
    }
}

#[test]
fn requests_of_others_and_for_other_clusters_epochs_types_and_sizes_are_refused() {
    let (key, root) = (operator_key(), verified_root());
    let verify = |envelope: &[u8]| {
        let (cluster, epoch) = (root.committee().cluster(), root.committee().epoch());
        VerifiedOperatorRequest::verify(envelope, root.operators(), cluster, epoch).is_ok()
    };
    assert!(verify(&request().sign(&key).to_json()));
    let body = request().to_bytes();
    let seal = |body: &[u8], signers: &[SecretKey]| seal(OPERATOR_REQUEST_TYPE, body.to_vec(), signers);
    let mut large = body.clone();
    large.resize(MAX_DOCUMENT_BYTES + 1, b' ');
    let text = String::from_utf8(body.clone()).expect("JSON is UTF-8");
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} does not occur in {text}");
        seal(text.replacen(from, to, 1).as_bytes(), std::slice::from_ref(&key))
    };
    let of = |request: OperatorRequest| request.sign(&key).to_json();
    let cases = [
        ("a stranger's", seal(&body, &[SecretKey::from_seed(&[22; 32])])),
        ("an owner's", seal(&body, &owner_keys()[..1])),
        ("an agent's", seal(&body, &[agent_key()])),
        ("a quorum's", seal(&body, &replica_keys())),
        ("the operator's and an owner's", seal(&body, &[key.clone(), owner_keys()[0].clone()])),
        ("nobody's", seal(&body, &[])),
        ("of another type", super::fixture::seal(RECEIPT_TYPE, body.clone(), std::slice::from_ref(&key))),
        ("for another cluster", of(OperatorRequest { cluster: Digest::of(b"other"), ..request() })),
        ("for another epoch", of(OperatorRequest { epoch: Epoch::new(2), ..request() })),
        ("of another version", of(OperatorRequest { v: 2, ..request() })),
        ("a byte too large", seal(&large, std::slice::from_ref(&key))),
        ("an unknown field", changed("{", "{\"more\":1,")),
        ("an unknown field inside", changed("\"mode\"", "\"more\":1,\"mode\"")),
        ("a field twice", changed("\"counter\":1", "\"counter\":1,\"counter\":1")),
        ("a float", changed("\"counter\":1", "\"counter\":1.0")),
        ("another kind", changed("\"stop\"", "\"pause\"")),
        ("another mode", changed("\"hold\"", "\"act\"")),
        ("a target twice", changed("[\"extract_pool\"]", "[\"extract_pool\",\"extract_pool\"]")),
        ("no target", changed("[\"extract_pool\"]", "[]")),
        ("another word for all", changed("[\"extract_pool\"]", "\"every\"")),
    ];
    for (what, envelope) in cases {
        assert!(!verify(&envelope), "{what}");
    }
}
