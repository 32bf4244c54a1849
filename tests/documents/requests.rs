//! Operators' requests byte by byte: those of every kind that are well formed, and forms that are refused though signed. They
//! are committed in `docs/vectors`, for whoever writes or reads requests in another language.
//!
//! Invariant: the committed file is what this test makes.

use quorate::{
    knowledge::operator_request::{
        All, OPERATOR_REQUEST_TYPE, OperatorRequest, Request, Selection, StopMode, VerifiedOperatorRequest,
    },
    types::{Digest, SecretKey},
};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

use super::fixture::{
    agent_key, operator_key, owner_keys, request, root, seal, sealed_root, target, verified_root,
};

const FILE: &str = "docs/vectors/operator-requests.json";

/// What is committed: envelopes as text, because every byte of them counts.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vectors {
    about: String,
    root: String,
    cases: Vec<Vector>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vector {
    what: String,
    well_formed: bool,
    envelope: String,
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

fn of(request: Request) -> OperatorRequest {
    OperatorRequest { request, ..super::fixture::request() }
}

fn resume(targets: Selection) -> OperatorRequest {
    let seen = [(operator_key().public().id(), 1), (Digest::of(b"another operator's key"), u64::MAX)];
    of(Request::Resume { targets, seen: seen.into() })
}

fn well_formed() -> Vec<(&'static str, OperatorRequest)> {
    let agent = Digest::from_bytes(agent_key().public().to_bytes());
    let (keyid, target) = (agent_key().public().id(), target());
    let all = || Selection::All(All::All);
    let bind = |replaces| Request::BindAgent { target: target.clone(), ed25519: agent, replaces };
    vec![
        ("a stop", request()),
        ("a stop of all that revokes", of(Request::Stop { targets: all(), mode: StopMode::Revoked })),
        ("a resume", resume(Selection::These([target.clone()].into()))),
        ("a resume of all", resume(all())),
        ("a binding", of(bind(None))),
        ("a binding in the place of another", of(bind(Some(keyid)))),
        ("an unbinding", of(Request::UnbindAgent { target: target.clone(), keyid })),
    ]
}

/// Bodies that the operator signed and that are no requests.
fn malformed() -> Vec<(&'static str, String)> {
    let body = text(resume(Selection::All(All::All)).to_bytes());
    let (before, seen) = body.split_once(",\"seen\":{").expect("it has seen stops");
    let (one, other) = seen.split_once(',').expect("two of them");
    let other = other.trim_end_matches('}');
    let with = |seen: String| format!("{before}{seen}}}}}");
    vec![
        ("a resume that has seen nothing", with(",\"seen\":{}".to_owned())),
        ("a resume without what it has seen", with(String::new())),
        ("a resume with a list", with(format!(",\"seen\":[{{{one}}}]"))),
        ("a resume with one key twice", with(format!(",\"seen\":{{{one},{one}}}"))),
        ("a resume with a key in capitals", with(format!(",\"seen\":{{{},{other}}}", one.to_uppercase()))),
        ("a resume with a name for a key", with(",\"seen\":{\"ana\":1}".to_owned())),
        ("a resume with a negative counter", with(format!(",\"seen\":{{{}}}", one.replace("\":", "\":-")))),
        (
            "a stop that has seen something",
            text(request().to_bytes()).replace("\"mode\"", "\"seen\":{},\"mode\""),
        ),
    ]
}

fn made() -> Vectors {
    let key = operator_key();
    let sealed = |body: Vec<u8>, keys: &[SecretKey]| text(seal(OPERATOR_REQUEST_TYPE, body, keys));
    let good = well_formed().into_iter().map(|(what, request)| Vector {
        what: what.to_owned(),
        well_formed: true,
        envelope: sealed(request.to_bytes(), std::slice::from_ref(&key)),
    });
    let bad = malformed().into_iter().map(|(what, body)| Vector {
        what: what.to_owned(),
        well_formed: false,
        envelope: sealed(body.into_bytes(), std::slice::from_ref(&key)),
    });
    let by_an_owner = Vector {
        what: "a stop that an owner signed".to_owned(),
        well_formed: false,
        envelope: sealed(request().to_bytes(), &owner_keys()[..1]),
    };
    Vectors {
        about: "Operators' requests under this root: those of every kind that are well formed (the fold judges them by \
                the rules O2 to O12), and others; made by tests/documents/requests.rs"
            .to_owned(),
        root: text(sealed_root(&root())),
        cases: good.chain(bad).chain([by_an_owner]).collect(),
    }
}

#[test]
fn operators_requests_are_the_committed_ones_and_only_the_well_formed_verify() {
    let made = made();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("QUORATE_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made).expect("texts are valid JSON");
        fs::write(&path, text + "\n").expect("the folder is writable");
    }
    let committed: Vectors =
        serde_json::from_slice(&fs::read(&path).expect("it is committed")).expect("it is JSON");
    assert_eq!(committed, made);
    let root = verified_root();
    let (cluster, epoch) = (root.committee().cluster(), root.committee().epoch());
    for Vector { what, well_formed, envelope } in &committed.cases {
        let verdict = VerifiedOperatorRequest::verify(envelope.as_bytes(), root.operators(), cluster, epoch);
        assert_eq!(verdict.is_ok(), *well_formed, "{what}: {verdict:?}");
    }
}
