//! The envelope against everything that must not pass: forms, sizes, signers and signatures.

use base64::Engine as _;

use super::{Envelope, EnvelopeError, MAX_DOCUMENT_BYTES, MAX_ENVELOPE_BYTES, pae};
use crate::types::{PublicKey, SecretKey, Signature};

const TYPE: &str = "application/vnd.quorate.plan.v1+json";

fn keys() -> Vec<SecretKey> {
    (1..=4).map(|seed| SecretKey::from_seed(&[seed; 32])).collect()
}

fn public() -> Vec<PublicKey> {
    keys().iter().map(SecretKey::public).collect()
}

fn signed_by(count: usize, body: &[u8]) -> Envelope {
    let bytes = pae(TYPE, body);
    let signatures = keys().iter().take(count).map(|key| (key.public().id(), key.sign(&bytes))).collect();
    Envelope::new(TYPE, body.to_vec(), signatures)
}

#[test]
fn the_encoding_before_signing_is_that_of_dsse() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
}

#[test]
fn a_quorum_of_distinct_keys_passes_and_one_fewer_does_not() {
    for (count, passes) in [(0, false), (1, false), (2, false), (3, true), (4, true)] {
        let read = Envelope::from_json(&signed_by(count, b"{}").to_json()).expect("it is well formed");
        let verdict = read.verify(TYPE, &public(), 3);
        assert_eq!(verdict.is_ok(), passes, "{count}: {verdict:?}");
    }
}

#[test]
fn a_threshold_of_zero_still_asks_for_one_signature() {
    let verdict = signed_by(0, b"{}").verify(TYPE, &public(), 0);
    assert_eq!(verdict, Err(EnvelopeError::TooFewSignatures { got: 0, needed: 1 }));
}

#[test]
fn one_unknown_or_false_signature_refuses_the_whole_envelope() {
    let envelope = signed_by(4, b"{}");
    let known = &public()[..3];
    assert!(matches!(envelope.verify(TYPE, known, 3), Err(EnvelopeError::UnknownKey(_))));
    let mut signatures = envelope.signatures().to_vec();
    signatures[0].1 = signatures[1].1;
    let forged = Envelope::new(TYPE, b"{}".to_vec(), signatures);
    assert!(matches!(forged.verify(TYPE, &public(), 3), Err(EnvelopeError::BadSignature(_))));
}

#[test]
fn a_signature_for_one_type_is_void_for_another() {
    let body = b"{}".to_vec();
    let other = "application/vnd.quorate.head.v1+json";
    let moved = Envelope::new(other, body, signed_by(4, b"{}").signatures().to_vec());
    assert!(matches!(moved.verify(TYPE, &public(), 3), Err(EnvelopeError::WrongType { .. })));
    assert!(matches!(moved.verify(other, &public(), 3), Err(EnvelopeError::BadSignature(_))));
}

#[test]
fn a_signature_whose_nonce_point_has_a_small_order_is_refused() {
    // For most of these the plain equation [s]B = R + [k]A holds, and laxer libraries accept them.
    for vector in &refused_encodings().signatures {
        let key = PublicKey::from_bytes(&hex(&vector.key)).expect("the key itself is admissible");
        let signature = Signature::from_bytes(hex(&vector.signature));
        assert!(key.verify(vector.message.as_bytes(), &signature).is_err(), "{}", vector.what);
    }
}

#[test]
fn no_encoding_of_a_point_of_small_order_is_a_key() {
    let refused = refused_encodings();
    assert_eq!(refused.small_order_points.len(), 8);
    for point in refused.small_order_points.iter().chain(&refused.second_encodings_of_small_order_points) {
        assert!(PublicKey::from_bytes(&hex(point)).is_err(), "{point}");
    }
}

/// The vectors that every verifier of these documents must refuse, whatever its language.
#[derive(serde::Deserialize)]
struct RefusedEncodings {
    small_order_points: Vec<String>,
    second_encodings_of_small_order_points: Vec<String>,
    signatures: Vec<RefusedSignature>,
}

#[derive(serde::Deserialize)]
struct RefusedSignature {
    what: String,
    key: String,
    message: String,
    signature: String,
}

fn refused_encodings() -> RefusedEncodings {
    serde_json::from_str(include_str!("../../../docs/vectors/ed25519-refused.json"))
        .expect("the vectors are JSON")
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let byte =
        |place: usize| u8::from_str_radix(&text[2 * place..2 * place + 2], 16).expect("it is hexadecimal");
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(byte)
}

#[test]
fn every_second_encoding_of_an_envelope_is_refused() {
    let json = String::from_utf8(signed_by(3, b"{\"a\":1}").to_json()).expect("JSON is UTF-8");
    let first = json.find("{\"keyid\"").expect("there are signatures");
    let second = json[first + 1..].find("{\"keyid\"").expect("there are two") + first + 1;
    let (one, rest) = (&json[first..second], &json[second..]);
    let engine = base64::engine::general_purpose::STANDARD;
    let (payload, unpadded) = (engine.encode("{\"a\":1}"), "eyJhIjoxfQ");
    let hex = signed_by(1, b"").signatures()[0].0.to_string();
    let cases = [
        ("a repeated signature", json.replacen(one, &format!("{one}{one}"), 1)),
        (
            "signatures out of order",
            format!("{}{}{}", &json[..first], &rest[..one.len()], one) + &rest[one.len()..],
        ),
        ("an unknown field", json.replacen('{', "{\"more\":1,", 1)),
        ("an unknown field of a signature", json.replacen("{\"keyid\"", "{\"more\":1,\"keyid\"", 1)),
        ("a repeated field", json.replacen('{', "{\"payload\":\"\",", 1)),
        ("a missing field", json.replacen("\"payloadType\"", "\"payloadtype\"", 1)),
        ("no padding", json.replacen(&payload, unpadded, 1)),
        ("trailing bits", json.replacen(&payload, "eyJhIjoxfR==", 1)),
        ("a line break in base64", json.replacen(&payload, &format!("{}\\n", payload), 1)),
        (
            "the alphabet of URLs",
            json.replace(TYPE, "T")
                .replace('/', "_")
                .replace('+', "-")
                .replace("\"T\"", &format!("\"{TYPE}\"")),
        ),
        ("a key identifier in capitals", json.replacen(&hex, &hex.to_uppercase(), 1)),
        ("something behind", format!("{json}x")),
        ("an array for the envelope", format!("[\"{payload}\",\"{TYPE}\",[]]")),
        (
            "null signatures",
            format!("{{\"payload\":\"{payload}\",\"payloadType\":\"{TYPE}\",\"signatures\":null}}"),
        ),
    ];
    for (what, text) in cases {
        assert_ne!(text, json, "{what}: nothing was changed");
        let passed = Envelope::from_json(text.as_bytes()).and_then(|read| read.verify(TYPE, &public(), 3));
        assert!(passed.is_err(), "{what}: {text}");
    }
}

#[test]
fn the_bounds_of_body_and_envelope_hold_to_the_byte() {
    let largest = signed_by(4, &vec![b' '; MAX_DOCUMENT_BYTES]).to_json();
    assert!(Envelope::from_json(&largest).is_ok());
    let larger = signed_by(4, &vec![b' '; MAX_DOCUMENT_BYTES + 1]).to_json();
    assert!(Envelope::from_json(&larger).is_err());
    let padded = [signed_by(1, b"").to_json(), vec![b' '; MAX_ENVELOPE_BYTES]].concat();
    assert!(matches!(Envelope::from_json(&padded), Err(EnvelopeError::TooLarge { .. })));
}

#[test]
fn no_single_changed_bit_of_an_envelope_passes() {
    let json = signed_by(3, b"{\"a\":1}").to_json();
    for place in 0..json.len() {
        for bit in 0..8 {
            let mut changed = json.clone();
            changed[place] ^= 1 << bit;
            let passed = Envelope::from_json(&changed).and_then(|read| read.verify(TYPE, &public(), 3));
            assert!(passed.is_err(), "byte {place} bit {bit}");
        }
    }
}
