//! Every verdict is given twice: by this crate and by `examples/verify.py`, which shares no code with it.
//! They must agree, or agents in other languages accept what ours refuse.

use std::{fs, path::Path, process::Command};

use super::{DocumentsRefusal, verify_documents};
use crate::{
    knowledge::{
        fixtures::{
            certified_head, certified_plan, head, head_of, owner_keys, plan, replica_keys, root, seal,
        },
        head::{HEAD_TYPE, Head, Mode},
        plan::{DesiredState, Limits, PLAN_TYPE, Plan, Preconditions},
        root::{ROOT_TYPE, Root},
    },
    types::{Digest, Envelope, Epoch, SecretKey, Signature, TargetId, UnixMillis, pae},
};

#[derive(Clone)]
struct Documents {
    root: Vec<u8>,
    plan: Vec<u8>,
    head: Option<Vec<u8>>,
}

fn good() -> Documents {
    Documents {
        root: sealed_root(&root()),
        plan: certified_plan(&plan()).envelope().to_json(),
        head: Some(certified_head(&head(7, Mode::Act)).envelope().to_json()),
    }
}

fn sealed_root(root: &Root) -> Vec<u8> {
    seal(ROOT_TYPE, root.to_bytes(), &owner_keys()[..3])
}

/// The good documents with another plan, and a head that names it.
fn with_plan(body: Vec<u8>, signers: &[SecretKey]) -> Documents {
    let mut head = head(7, Mode::Act);
    head.targets[0].plan = Digest::of(&body);
    Documents { plan: seal(PLAN_TYPE, body, signers), head: Some(sealed_head(&head)), ..good() }
}

fn sealed_head(head: &Head) -> Vec<u8> {
    seal(HEAD_TYPE, head.to_bytes(), &replica_keys()[1..])
}

/// The good plan's JSON with a part replaced, signed by a quorum.
fn plan_text(from: &str, to: &str) -> Documents {
    let text = String::from_utf8(plan().to_bytes()).expect("JSON is UTF-8");
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text, "{from} does not occur in {text}");
    with_plan(changed.into_bytes(), &replica_keys())
}

fn envelope_text(from: &str, to: &str) -> Documents {
    let text = String::from_utf8(good().plan).expect("JSON is UTF-8");
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text, "{from} does not occur in {text}");
    Documents { plan: changed.into_bytes(), ..good() }
}

fn changed_root(change: impl FnOnce(&mut Root)) -> Documents {
    let mut root = root();
    change(&mut root);
    Documents { root: sealed_root(&root), ..good() }
}

fn rust(documents: &Documents) -> Result<(), DocumentsRefusal> {
    verify_documents(&documents.root, &documents.plan, documents.head.as_deref()).map(drop)
}

/// Exit code and standard error of the example.
fn python(documents: &Documents) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("the folder is writable");
        path
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verify.py");
    let output = Command::new("python3")
        .arg("-I")
        .arg(script)
        .arg(file("root.json", &documents.root))
        .arg(file("plan.json", &documents.plan))
        .args(documents.head.iter().map(|head| file("head.json", head)))
        .output()
        .expect("python3 is installed (scripts/setup test)");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !complaint.contains("ModuleNotFoundError"),
        "python3-cryptography is missing (scripts/setup test)"
    );
    (output.status.code(), complaint)
}

fn assert_refused(cases: Vec<(&str, Documents)>) {
    for (what, documents) in cases {
        assert!(rust(&documents).is_err(), "{what}: accepted here");
        let (code, complaint) = python(&documents);
        assert_eq!(code, Some(4), "{what}: the example says {complaint}");
        assert!(complaint.starts_with("refused: "), "{what}: {complaint}");
    }
}

#[test]
fn documents_that_belong_together_pass_in_both() {
    let spaced =
        format!(" {}\n", String::from_utf8(plan().to_bytes()).expect("JSON is UTF-8").replace(',', " ,\t"));
    let switch = Plan {
        limits: Limits::Switch {},
        preconditions: Preconditions { state: DesiredState::Running {} },
        desired: DesiredState::Paused {},
        rollback: DesiredState::Running {},
        ..plan()
    };
    let held = Documents { head: Some(sealed_head(&head(7, Mode::Hold))), ..good() };
    for (what, documents) in [
        ("as made", good()),
        ("without a head", Documents { head: None, ..good() }),
        ("all replicas signed", with_plan(plan().to_bytes(), &replica_keys())),
        ("on hold", held),
        ("a switch", with_plan(switch.to_bytes(), &replica_keys())),
        ("spaces in a body", with_plan(spaced.into_bytes(), &replica_keys())),
    ] {
        assert_eq!(rust(&documents), Ok(()), "{what}");
        assert_eq!(python(&documents), (Some(0), String::new()), "{what}");
    }
}

#[test]
fn what_too_few_or_the_wrong_keys_signed_is_refused_in_both() {
    let keys = replica_keys();
    let stranger = [keys[0].clone(), keys[1].clone(), SecretKey::from_seed(&[99; 32])];
    let by =
        |signers: &[SecretKey]| Documents { plan: seal(PLAN_TYPE, plan().to_bytes(), signers), ..good() };
    let unsigned_root = Documents { root: seal(ROOT_TYPE, root().to_bytes(), &owner_keys()[..2]), ..good() };
    let replicas_root = Documents { root: seal(ROOT_TYPE, root().to_bytes(), &keys), ..good() };
    let few = seal(HEAD_TYPE, head(7, Mode::Act).to_bytes(), &keys[..2]);
    assert_refused(vec![
        ("two of three signatures", by(&keys[..2])),
        ("no signatures", by(&[])),
        ("a stranger's signature", by(&stranger)),
        ("owners' signatures", by(&owner_keys())),
        ("a head of two", Documents { head: Some(few), ..good() }),
        ("a root of two owners", unsigned_root),
        ("a root that replicas signed", replicas_root),
        ("a head as a plan", Documents { plan: sealed_head(&head(7, Mode::Act)), ..good() }),
        ("a plan as a head", Documents { head: Some(good().plan), ..good() }),
    ]);
}

#[test]
fn second_encodings_of_envelopes_are_refused_in_both() {
    let text = String::from_utf8(good().plan).expect("JSON is UTF-8");
    let list = text.find("[{").expect("there are signatures");
    let first_end = text[list..].find("},").expect("there are several") + list + 2;
    let first = &text[list + 1..first_end];
    let swapped =
        text.replacen(first, "", 1).replacen("}]", &format!("}},{}]", first.trim_end_matches(',')), 1);
    let payload = text.find("\"payload\":\"").expect("it has one") + 11;
    let payload_end = text[payload..].find('"').expect("it ends") + payload;
    let padded = &text[payload..payload_end];
    let keyid = replica_keys()[0].public().id().to_string();
    assert_refused(vec![
        ("a repeated signature", envelope_text(first, &format!("{first}{first}"))),
        ("signatures out of order", Documents { plan: swapped.into_bytes(), ..good() }),
        ("an unknown field", envelope_text("{", "{\"more\":\"\",")),
        ("a repeated field", envelope_text("{", "{\"payloadType\":\"x\",")),
        ("capitals in a keyid", envelope_text(&keyid, &keyid.to_uppercase())),
        ("a line break in base64", envelope_text(padded, &format!("{}\\n{}", &padded[..4], &padded[4..]))),
        ("more padding", envelope_text(padded, &format!("{padded}===="))),
        ("something behind", Documents { plan: format!("{text} x").into_bytes(), ..good() }),
        ("a byte order mark", Documents { plan: format!("\u{feff}{text}").into_bytes(), ..good() }),
        ("too large", Documents { plan: [text.as_bytes(), &[b' '; 130_000]].concat(), ..good() }),
        ("empty", Documents { plan: Vec::new(), ..good() }),
    ]);
}

#[test]
fn lax_bodies_are_refused_in_both_though_a_quorum_signed_them() {
    let seq = |to: &str| plan_text("\"seq\":37", &format!("\"seq\":{to}"));
    assert_refused(vec![
        ("a float", seq("37.0")),
        ("an exponent", seq("37e0")),
        ("minus zero", seq("-0")),
        ("a negative number", seq("-37")),
        ("65 bits", seq("18446744073709551616")),
        ("a boolean", seq("true")),
        ("null", seq("null")),
        ("a text", seq("\"37\"")),
        ("a field twice", seq("37,\"seq\":37")),
        ("not a number", seq("NaN")),
        ("an unknown field", plan_text("{", "{\"more\":1,")),
        ("a missing field", plan_text("\"seq\":37,", "")),
        ("a boolean version", plan_text("\"v\":1", "\"v\":true")),
        ("another version", plan_text("\"v\":1", "\"v\":2")),
        (
            "a state with more",
            plan_text("{\"kind\":\"slots\",\"slots\":6}", "{\"kind\":\"slots\",\"slots\":6,\"x\":1}"),
        ),
        (
            "a pause with slots",
            plan_text("{\"kind\":\"slots\",\"slots\":6}", "{\"kind\":\"paused\",\"slots\":6}"),
        ),
        ("a state as a list", plan_text("{\"kind\":\"slots\",\"slots\":6}", "[\"slots\",6]")),
        ("33 bits of slots", plan_text("\"slots\":6", "\"slots\":4294967296")),
        ("an unknown reason", plan_text("\"threshold\"", "\"boredom\"")),
        ("a name with a space", plan_text("extract_pool", "extract pool")),
        ("a lone surrogate", plan_text("pool.queued_slots", "\\ud800")),
        ("deep nesting", with_plan("[".repeat(60_000).into_bytes(), &replica_keys())),
    ]);
}

#[test]
fn documents_that_contradict_each_other_are_refused_in_both() {
    let of = |plan: Plan| Documents {
        plan: certified_plan(&plan).envelope().to_json(),
        head: Some(sealed_head(&head_of(7, Mode::Act, &plan))),
        ..good()
    };
    let uncertified = |plan: Plan| with_plan(plan.to_bytes(), &replica_keys());
    let headed = |head: Head| Documents { head: Some(sealed_head(&head)), ..good() };
    let bounded = |min, max, max_step| Plan { limits: Limits::Slots { min, max, max_step }, ..plan() };
    let twice = [head(7, Mode::Act).targets, head(7, Mode::Act).targets].concat();
    let other = TargetId::new("other").expect("a valid name");
    assert_refused(vec![
        ("another cluster", uncertified(Plan { cluster: Digest::ZERO, ..plan() })),
        ("another epoch", uncertified(Plan { epoch: Epoch::new(2), ..plan() })),
        ("before its issue", of(Plan { not_before: UnixMillis::ZERO, ..plan() })),
        ("over before it begins", of(Plan { expires_at: UnixMillis::ZERO, ..plan() })),
        ("above the most", of(bounded(1, 5, 4))),
        ("below the least", of(bounded(7, 12, 4))),
        ("too large a step", of(bounded(1, 12, 2))),
        ("a rollback outside", of(Plan { rollback: DesiredState::Slots { slots: 13 }, ..plan() })),
        ("states of two kinds", of(Plan { desired: DesiredState::Paused {}, ..plan() })),
        ("slots under a switch", of(Plan { limits: Limits::Switch {}, ..plan() })),
        ("a head of another plan", headed(head_of(7, Mode::Act, &bounded(1, 12, 5)))),
        ("a head of another target", headed(head_of(7, Mode::Act, &Plan { target: other, ..plan() }))),
        ("a head without lines", headed(Head { targets: Vec::new(), ..head(7, Mode::Act) })),
        ("a head that names it twice", headed(Head { targets: twice, ..head(7, Mode::Act) })),
        ("a head of another cluster", headed(Head { cluster: Digest::ZERO, ..head(7, Mode::Act) })),
    ]);
}

#[test]
fn roots_that_contradict_themselves_are_refused_in_both() {
    let mut cases = vec![
        ("another epoch", changed_root(|root| root.epoch = Epoch::new(2))),
        ("a predecessor", changed_root(|root| root.prev = Digest::of(b"x"))),
        ("no threshold", changed_root(|root| root.owner_threshold = 0)),
        ("too high a threshold", changed_root(|root| root.owner_threshold = 5)),
        ("a name twice", changed_root(|root| root.owners[1].name = root.owners[0].name.clone())),
        ("a key twice", changed_root(|root| root.replicas[1] = root.replicas[0].clone())),
        ("a replica of nobody", changed_root(|root| root.replicas[0].owner = "x".to_owned())),
        ("a wrong keyid", changed_root(|root| root.replicas[0].keyid = Digest::of(b"x"))),
        ("no replicas", changed_root(|root| root.replicas.clear())),
    ];
    // The least significant byte comes first: y = 2 is on no point; y = p is a second zero.
    let mut two = [0; 32];
    two[0] = 2;
    let mut prime = [0xff; 32];
    (prime[0], prime[31]) = (0xed, 0x7f);
    for (what, key) in [("a key of small order", [0; 32]), ("no point", two), ("a second encoding", prime)] {
        cases.push((
            what,
            changed_root(|root| {
                root.replicas[0].ed25519 = Digest::from_bytes(key);
                root.replicas[0].keyid = Digest::of(&key);
            }),
        ));
    }
    assert_refused(cases);
}

/// Forges, with the secret key of seed `argv[1]`, a signature over `argv[2]` whose R is the identity: then
/// `s = k * a` fulfils the equation that OpenSSL checks.
const IDENTITY_R: &str = r#"
import hashlib, sys
seed, message = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2])
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
order = 2**252 + 27742317777372353535851937790883648493
a = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little") & (2**254 - 8) | 2**254
r = (1).to_bytes(32, "little")
k = int.from_bytes(hashlib.sha512(r + raw + message).digest(), "little")
signature = r + (k * a % order).to_bytes(32, "little")
public.verify(signature, message)
print(signature.hex())
"#;

#[test]
fn a_signature_with_an_r_of_small_order_is_refused_in_both_though_openssl_accepts_it() {
    let body = plan().to_bytes();
    let message = pae(PLAN_TYPE, &body);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let key = &replica_keys()[0];
    let forged = Command::new("python3")
        .args(["-I", "-c", IDENTITY_R, &hex(&key.to_seed()), &hex(&message)])
        .output()
        .expect("python3 is installed (scripts/setup test)");
    assert!(forged.status.success(), "{}", String::from_utf8_lossy(&forged.stderr));
    let text = String::from_utf8(forged.stdout).expect("it is hexadecimal");
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("it is hexadecimal");
    let signature = Signature::from_bytes(std::array::from_fn(byte));
    let mut signatures: Vec<_> =
        replica_keys()[1..3].iter().map(|key| (key.public().id(), key.sign(&message))).collect();
    signatures.push((key.public().id(), signature));
    let plan = Envelope::new(PLAN_TYPE, body, signatures).to_json();
    assert_refused(vec![("R is the identity", Documents { plan, ..good() })]);
}

#[test]
fn the_error_names_the_document_and_what_is_wrong_with_it() {
    let few = Documents { plan: seal(PLAN_TYPE, plan().to_bytes(), &replica_keys()[..2]), ..good() };
    assert_eq!(
        rust(&few).map_err(|error| error.to_string()),
        Err("plan: 2 of at least 3 signatures".to_owned())
    );
    assert_eq!(python(&few).1, "refused: plan: 2 of at least 3 signatures\n");
}
