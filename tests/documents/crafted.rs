//! Documents whose keys and signatures were crafted against lax verifiers. They are committed under `docs/vectors`,
//! so that verifiers in other languages can be tried on them; this file makes them.
//!
//! To write the file anew after the formats have changed: `QUORATE_WRITE_VECTORS=1 cargo test --test documents`.

use curve25519_dalek::{
    constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION},
    edwards::EdwardsPoint,
    scalar::{Scalar, clamp_integer},
};
use quorate::{
    knowledge::{
        plan::{PLAN_TYPE, Plan},
        root::Root,
    },
    types::{Digest, Envelope, SecretKey, Signature, UnixMillis, pae},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512};
use std::{fs, path::Path};

use super::{
    fixture::{cluster_of, plan, replica_keys, root, sealed_root},
    verifiers::{Documents, assert_all, library, run_python},
};

const FILE: &str = "docs/vectors/documents-refused.json";

/// The second encodings of points of small order: y + p where that fits, and a sign bit on x = 0. The least
/// significant byte comes first.
const SECOND_ENCODINGS: [[u8; 32]; 6] = [
    bytes(0x01, 0x00, 0x80),
    bytes(0xec, 0xff, 0xff),
    bytes(0xed, 0xff, 0x7f),
    bytes(0xed, 0xff, 0xff),
    bytes(0xee, 0xff, 0x7f),
    bytes(0xee, 0xff, 0xff),
];

/// The group order, least significant byte first.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

const fn bytes(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// What is committed: envelopes as text, because every byte of them counts.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vectors {
    about: String,
    cases: Vec<Vector>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vector {
    what: String,
    root: String,
    plan: String,
}

/// The secret scalar of replica 0, as Ed25519 derives it from the seed.
fn secret_scalar() -> Scalar {
    let hash = Sha512::digest(replica_keys()[0].to_seed());
    let half: [u8; 32] = hash[..32].try_into().expect("it is half of 64 bytes");
    Scalar::from_bytes_mod_order(clamp_integer(half))
}

fn challenge(nonce: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(nonce).chain_update(key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

fn signature(nonce: [u8; 32], s: [u8; 32]) -> Signature {
    let both = [nonce, s].concat();
    Signature::from_bytes(both.try_into().expect("it is 64 bytes"))
}

/// The plan signed well by all replicas but 0, and by 0 as given.
fn plan_with(plan: &Plan, keyid: Digest, crafted: Signature) -> Vec<u8> {
    let body = plan.to_bytes();
    let message = pae(PLAN_TYPE, &body);
    let mut signatures: Vec<_> =
        replica_keys()[1..].iter().map(|key| (key.public().id(), key.sign(&message))).collect();
    signatures.push((keyid, crafted));
    Envelope::new(PLAN_TYPE, body, signatures).to_json()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// R is an encoding of a point of small order and s = k * a: where R is the identity, the equation that OpenSSL
/// checks holds.
fn small_nonces() -> Vec<Vector> {
    let (key, message) = (replica_keys()[0].public(), pae(PLAN_TYPE, &plan().to_bytes()));
    let points = EIGHT_TORSION.map(|point| point.compress().to_bytes());
    let nonces = points.iter().chain(&SECOND_ENCODINGS).enumerate();
    nonces
        .map(|(number, nonce)| {
            let s = challenge(nonce, &key.to_bytes(), &message) * secret_scalar();
            let crafted = signature(*nonce, s.to_bytes());
            Vector {
                what: format!("R is encoding {number} of the points of small order, s = k * a"),
                root: text(sealed_root(&root())),
                plan: text(plan_with(&plan(), key.id(), crafted)),
            }
        })
        .collect()
}

/// Replica 0's key has a torsion part, which no verifier can see; the plan is varied until the equation without
/// the cofactor holds with an R of small order.
fn small_nonces_under_a_mixed_key() -> Vec<Vector> {
    let torsion = EIGHT_TORSION[1];
    let mixed: EdwardsPoint = &secret_scalar() * ED25519_BASEPOINT_TABLE + torsion;
    let mixed = mixed.compress().to_bytes();
    let mut root = root();
    root.replicas[0].ed25519 = Digest::from_bytes(mixed);
    root.replicas[0].keyid = Digest::of(&mixed);
    let sealed = text(sealed_root(&root));
    let crafted = |nonce_point: &EdwardsPoint| {
        let nonce = nonce_point.compress().to_bytes();
        (0..1000)
            .map(|variation| Plan {
                cluster: cluster_of(&root),
                expires_at: UnixMillis::new(1_900_000 + variation),
                ..plan()
            })
            .find_map(|plan| {
                let k = challenge(&nonce, &mixed, &pae(PLAN_TYPE, &plan.to_bytes()));
                let holds = -(torsion * k) == *nonce_point;
                holds.then(|| {
                    plan_with(&plan, Digest::of(&mixed), signature(nonce, (k * secret_scalar()).to_bytes()))
                })
            })
            .expect("one in eight fits")
    };
    EIGHT_TORSION
        .iter()
        .enumerate()
        .map(|(number, point)| Vector {
            what: format!("R is point {number} of small order, under a key with a torsion part"),
            root: sealed.clone(),
            plan: text(crafted(point)),
        })
        .collect()
}

/// A good signature with s spelled otherwise.
fn large_scalars() -> Vec<Vector> {
    let key = &replica_keys()[0];
    let good = *key.sign(&pae(PLAN_TYPE, &plan().to_bytes())).as_bytes();
    let (nonce, s) = good.split_first_chunk::<32>().expect("it has 64 bytes");
    let s: [u8; 32] = s.try_into().expect("it is the other half");
    let mut top_bits = s;
    top_bits[31] |= 0xe0;
    let mut all_bits = s;
    all_bits.fill(0xff);
    let mut spellings = vec![
        ("s with its highest bits set", top_bits),
        ("s is all ones", all_bits),
        ("s is the order", ORDER),
    ];
    let mut more = s;
    for what in ["s + L", "s + 2 L", "s + 3 L"] {
        more = sum(more, ORDER);
        spellings.push((what, more));
    }
    spellings
        .into_iter()
        .map(|(what, s)| Vector {
            what: format!("s is not reduced: {what}"),
            root: text(sealed_root(&root())),
            plan: text(plan_with(&plan(), key.public().id(), signature(*nonce, s))),
        })
        .collect()
}

fn sum(a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    let mut carry = 0;
    std::array::from_fn(|place| {
        let digit = u16::from(a[place]) + u16::from(b[place]) + carry;
        carry = digit >> 8;
        digit.to_le_bytes()[0]
    })
}

/// Roots with a replica's key that is no point, not canonical or of small order. The plan is signed by a quorum of
/// the others.
fn inadmissible_keys() -> Vec<Vector> {
    let points = EIGHT_TORSION.map(|point| point.compress().to_bytes());
    // y = 2 lies on no point; y = p + 3 and p + 4 are second encodings of others.
    let others = [bytes(2, 0, 0), bytes(0xf0, 0xff, 0x7f), bytes(0xf1, 0xff, 0x7f)];
    let keys = points.into_iter().chain(SECOND_ENCODINGS).chain(others).enumerate();
    keys.map(|(number, key)| {
        let mut root: Root = root();
        root.replicas[0].ed25519 = Digest::from_bytes(key);
        root.replicas[0].keyid = Digest::of(&key);
        let plan = Plan { cluster: cluster_of(&root), ..plan() };
        let signers: &[SecretKey] = &replica_keys()[1..];
        Vector {
            what: format!("inadmissible key {number} of a replica"),
            root: text(sealed_root(&root)),
            plan: text(super::fixture::seal(PLAN_TYPE, plan.to_bytes(), signers)),
        }
    })
    .collect()
}

fn made() -> Vectors {
    let groups = [small_nonces(), small_nonces_under_a_mixed_key(), large_scalars(), inadmissible_keys()];
    Vectors {
        about: "Every verifier of quorate's documents refuses each of these plans under its root; made by \
                tests/documents/crafted.rs"
            .to_owned(),
        cases: groups.into_iter().flatten().collect(),
    }
}

#[test]
fn crafted_documents_are_the_committed_ones_and_all_three_verifiers_refuse_them() {
    let made = made();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("QUORATE_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made).expect("texts are valid JSON");
        fs::write(&path, text + "\n").expect("the folder is writable");
    }
    let committed: Vectors =
        serde_json::from_slice(&fs::read(&path).expect("it is committed")).expect("it is JSON");
    assert_eq!(committed, made);
    let cases = committed.cases.into_iter().map(|Vector { what, root, plan }| {
        (what, Documents { root: root.into_bytes(), plan: plan.into_bytes(), head: None })
    });
    assert_all(false, &cases.collect::<Vec<_>>());
}

#[test]
fn the_same_documents_pass_when_the_crafted_replica_signs_well() {
    // What is refused above is refused for what was crafted, and for nothing else.
    let key = &replica_keys()[0];
    let good = plan_with(&plan(), key.public().id(), key.sign(&pae(PLAN_TYPE, &plan().to_bytes())));
    assert!(library(&Documents { plan: good, head: None, ..Documents::good() }));
    let under_a_mixed_key = &small_nonces_under_a_mixed_key()[0];
    let others: Plan = Plan { cluster: Digest::of(&body_of(&under_a_mixed_key.root)), ..plan() };
    let plan = super::fixture::seal(PLAN_TYPE, others.to_bytes(), &replica_keys()[1..]);
    let root = under_a_mixed_key.root.clone().into_bytes();
    assert!(library(&Documents { root, plan, head: None }), "a key with a torsion part is admissible");
}

fn body_of(envelope: &str) -> Vec<u8> {
    Envelope::from_json(envelope.as_bytes()).expect("it is well formed").unverified_body().to_vec()
}

/// Loads the functions of the script named in `argv[1]` without running it, and tries them on the vectors.
const PRIMITIVES: &str = r#"
import hashlib, json, sys
functions = {}
exec(open(sys.argv[1]).read().split("if len(sys.argv)")[0], functions)
vectors = json.load(sys.stdin)
def refused(what, call):
    try: call()
    except Exception as why: return print("refused")
    print("accepted: " + what)
for point in vectors["small_order_points"] + vectors["second_encodings_of_small_order_points"]:
    refused(point, lambda: functions["key"](bytes.fromhex(point)))
for one in vectors["signatures"]:
    raw, keyid = bytes.fromhex(one["key"]), hashlib.sha256(bytes.fromhex(one["key"])).hexdigest()
    key = functions["key"](raw)
    signature = [(keyid, bytes.fromhex(one["signature"]))]
    refused(one["what"], lambda: functions["signed"]("vector", signature, one["message"].encode(), {keyid: key}, 1))
"#;

#[test]
fn the_script_refuses_every_encoding_that_the_formats_list() {
    let vectors = include_str!("../../docs/vectors/ed25519-refused.json");
    let told = run_python(PRIMITIVES, vectors);
    assert_eq!(told.lines().count(), 24, "{told}");
    assert!(told.lines().all(|line| line == "refused"), "{told}");
}
