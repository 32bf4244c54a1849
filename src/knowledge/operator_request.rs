//! An operator's request: a signed command that stops or resumes targets, or binds agents' keys to them.
//!
//! Whether the operator may ask for that is the fold's to say (rules O1 to O10). Invariant: a
//! [`VerifiedOperatorRequest`] carries exactly one signature, by the operator that it names.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    head::Mode,
    root::{MAX_OPERATORS, Operator, Operators},
};
use crate::types::{
    Digest, Envelope, EnvelopeError, Epoch, KeyId, SecretKey, TargetId, UnixMillis, from_strict_json, pae,
};

/// The DSSE type of an operator's request.
pub const OPERATOR_REQUEST_TYPE: &str = "application/vnd.quorate.operator-request.v1+json";

/// A request's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorRequest {
    /// The format's version: 1.
    pub v: u32,
    /// The cluster.
    pub cluster: Digest,
    /// The epoch whose root names the operator.
    pub epoch: Epoch,
    /// Above that of every earlier request signed with the same key.
    pub counter: u64,
    /// Refused once agreed time is later: what somebody held back does not wait for its day.
    pub expires_at: UnixMillis,
    /// What is asked for.
    pub request: Request,
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Agents apply nothing new to these targets.
    Stop {
        /// Which.
        targets: Selection,
        /// Whether the newest plan waits or is withdrawn.
        mode: StopMode,
    },
    /// The operator's stops of these targets end; all stops, if the operator acts for the target's owner. Those that
    /// it has not seen stay.
    Resume {
        /// Which.
        targets: Selection,
        /// Of each operator whose stops are meant, the counter of its newest stop that the signer has seen.
        seen: BTreeMap<KeyId, u64>,
    },
    /// Receipts by this key count for the target.
    BindAgent {
        /// Which target.
        target: TargetId,
        /// The agent's raw public key, 64 lower-case hexadecimal characters.
        ed25519: Digest,
        /// The bound key whose place it takes, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<KeyId>,
    },
    /// Receipts by this key count no more.
    UnbindAgent {
        /// Which target.
        target: TargetId,
        /// The bound key.
        keyid: KeyId,
    },
}

impl Request {
    /// The name of its kind in JSON, in the store and as a label.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Stop { .. } => "stop",
            Self::Resume { .. } => "resume",
            Self::BindAgent { .. } => "bind_agent",
            Self::UnbindAgent { .. } => "unbind_agent",
        }
    }
}

/// Which targets a stop or a resume is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Selection {
    /// Every target that the request can be about, written `"all"`.
    All(All),
    /// These, at least one, sorted by name.
    These(BTreeSet<TargetId>),
}

/// The one word for every target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum All {
    /// Every one.
    All,
}

/// How far a stop goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Agents apply nothing new and keep what is applied.
    Hold,
    /// The newest plan is withdrawn as well.
    Revoked,
}

impl StopMode {
    /// The mode of a head's line.
    #[must_use]
    pub const fn mode(self) -> Mode {
        match self {
            Self::Hold => Mode::Hold,
            Self::Revoked => Mode::Revoked,
        }
    }
}

impl OperatorRequest {
    /// The bytes that the operator signs.
    ///
    /// # Panics
    /// Never: the fields are integers and strings.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("integers and strings are valid JSON")
    }

    /// The request in its envelope, signed.
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> Envelope {
        let body = self.to_bytes();
        let signature = key.sign(&pae(OPERATOR_REQUEST_TYPE, &body));
        Envelope::new(OPERATOR_REQUEST_TYPE, body, vec![(key.public().id(), signature)])
    }
}

/// A request whose operator's signature has been checked. Its only constructor verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedOperatorRequest {
    request: OperatorRequest,
    digest: Digest,
    operator: Operator,
    envelope: Envelope,
}

/// Why a request is refused before anybody looks at what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorRequestError {
    /// The envelope is refused: its size, form, type or signature.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// More than one operator signed.
    #[error("{0} operators signed; a request carries the signature of exactly one")]
    Signatures(usize),
    /// The operator signed bytes that are no request.
    #[error("the body is malformed: {0}")]
    Body(String),
    /// It belongs to another cluster.
    #[error("the request belongs to cluster {got}, not to {expected}")]
    WrongCluster {
        /// The cluster in the body.
        got: Digest,
        /// This cluster.
        expected: Digest,
    },
    /// It belongs to another epoch.
    #[error("the request belongs to epoch {got}, not to {expected}: sign it again with the newest root")]
    WrongEpoch {
        /// The epoch in the body.
        got: Epoch,
        /// This epoch.
        expected: Epoch,
    },
}

impl VerifiedOperatorRequest {
    /// Verifies an envelope's JSON: size, form, type, one operator's signature, then the body, its cluster and
    /// its epoch.
    ///
    /// # Errors
    /// [`OperatorRequestError`] says which check failed.
    pub fn verify(
        envelope_bytes: &[u8],
        operators: &Operators,
        cluster: Digest,
        epoch: Epoch,
    ) -> Result<Self, OperatorRequestError> {
        let envelope = Envelope::from_json(envelope_bytes)?;
        let keys = operators.iter().map(|(_, operator)| &operator.key);
        let signed = envelope.verify(OPERATOR_REQUEST_TYPE, keys, 1)?;
        let [signer] = signed.signers.as_slice() else {
            return Err(OperatorRequestError::Signatures(signed.signers.len()));
        };
        let operator = operators.by_key(*signer).ok_or(EnvelopeError::UnknownKey(*signer))?;
        let request = parse(&signed.body)?;
        if request.cluster != cluster {
            return Err(OperatorRequestError::WrongCluster { got: request.cluster, expected: cluster });
        }
        if request.epoch != epoch {
            return Err(OperatorRequestError::WrongEpoch { got: request.epoch, expected: epoch });
        }
        Ok(Self { request, digest: Digest::of(&signed.body), operator: operator.clone(), envelope })
    }

    /// What the operator signed.
    #[must_use]
    pub const fn request(&self) -> &OperatorRequest {
        &self.request
    }

    /// SHA-256 of the body: the name under which the request is asked after.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Who signed it.
    #[must_use]
    pub const fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The envelope it came in.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

fn parse(body: &[u8]) -> Result<OperatorRequest, OperatorRequestError> {
    let refused = OperatorRequestError::Body;
    let request: OperatorRequest = from_strict_json(body).map_err(|error| refused(error.to_string()))?;
    if request.v != 1 {
        return Err(refused(format!("version {} is not known", request.v)));
    }
    match &request.request {
        Request::Stop { targets: Selection::These(names), .. }
        | Request::Resume { targets: Selection::These(names), .. }
            if names.is_empty() =>
        {
            Err(refused("it names no target".to_owned()))
        }
        Request::Resume { seen, .. } if seen.is_empty() || seen.len() > MAX_OPERATORS => Err(refused(
            format!("it has seen stops of {} operators; 1 to {MAX_OPERATORS} are allowed", seen.len()),
        )),
        Request::Stop { .. }
        | Request::Resume { .. }
        | Request::BindAgent { .. }
        | Request::UnbindAgent { .. } => Ok(request),
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop { targets, mode: StopMode::Hold } => write!(f, "stop {targets}"),
            Self::Stop { targets, mode: StopMode::Revoked } => {
                write!(f, "stop {targets} and withdraw the newest plans")
            }
            Self::Resume { targets, .. } => write!(f, "resume {targets}"),
            Self::BindAgent { target, ed25519, replaces: None } => {
                write!(f, "bind agent key {ed25519} to {target}")
            }
            Self::BindAgent { target, ed25519, replaces: Some(keyid) } => {
                write!(f, "bind agent key {ed25519} to {target} in the place of keyid {keyid}")
            }
            Self::UnbindAgent { target, keyid } => {
                write!(f, "unbind the agent key with keyid {keyid} from {target}")
            }
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(All::All) => f.write_str("all targets"),
            Self::These(names) => {
                let names: Vec<&str> = names.iter().map(TargetId::as_str).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        All, OPERATOR_REQUEST_TYPE, OperatorRequest, OperatorRequestError, Request, Selection, StopMode,
        VerifiedOperatorRequest,
    };
    use crate::{
        knowledge::fixtures::{committee, operator_keys, owner_keys, seal, target, verified_root},
        types::{Digest, EnvelopeError, Epoch, SecretKey, UnixMillis},
    };

    fn stop() -> OperatorRequest {
        OperatorRequest {
            v: 1,
            cluster: committee().cluster(),
            epoch: Epoch::new(1),
            counter: 7,
            expires_at: UnixMillis::new(4_000_000_000_000),
            request: Request::Stop { targets: Selection::These([target()].into()), mode: StopMode::Hold },
        }
    }

    /// It has seen the stops of ana and bea.
    fn resume() -> Request {
        let seen =
            operator_keys().into_iter().zip([7, u64::MAX]).map(|(key, counter)| (key.public().id(), counter));
        Request::Resume { targets: Selection::All(All::All), seen: seen.collect() }
    }

    fn verify(envelope: &[u8]) -> Result<VerifiedOperatorRequest, OperatorRequestError> {
        let root = verified_root();
        VerifiedOperatorRequest::verify(envelope, root.operators(), committee().cluster(), Epoch::new(1))
    }

    fn sealed(request: &OperatorRequest, keys: &[SecretKey]) -> Vec<u8> {
        seal(OPERATOR_REQUEST_TYPE, request.to_bytes(), keys)
    }

    #[test]
    fn an_operators_request_of_every_kind_verifies_and_reads_back() {
        let key = Digest::from_bytes(SecretKey::from_seed(&[90; 32]).public().to_bytes());
        let keyid = Digest::of(key.as_bytes());
        let bind = |replaces| Request::BindAgent { target: target(), ed25519: key, replaces };
        for request in [
            stop().request,
            Request::Stop { targets: Selection::All(All::All), mode: StopMode::Revoked },
            resume(),
            bind(None),
            bind(Some(keyid)),
            Request::UnbindAgent { target: target(), keyid },
        ] {
            let request = OperatorRequest { request, ..stop() };
            let verified = verify(&request.sign(&operator_keys()[1]).to_json()).expect("it is signed");
            assert_eq!(verified.request(), &request);
            assert_eq!(verified.operator().name, "bea");
            assert_eq!(verified.digest(), Digest::of(&request.to_bytes()));
        }
    }

    #[test]
    fn only_one_operators_signature_over_this_type_cluster_and_epoch_passes() {
        let operator = &operator_keys()[..1];
        let mut cluster = stop();
        cluster.cluster = Digest::of(b"other");
        let epoch = OperatorRequest { epoch: Epoch::new(2), ..stop() };
        type Expected = fn(&OperatorRequestError) -> bool;
        let cases: [(&str, Vec<u8>, Expected); 7] = [
            ("an owner's", sealed(&stop(), &owner_keys()[..1]), |error| {
                matches!(error, OperatorRequestError::Envelope(EnvelopeError::UnknownKey(_)))
            }),
            ("nobody's", sealed(&stop(), &[]), |error| {
                matches!(error, OperatorRequestError::Envelope(EnvelopeError::TooFewSignatures { .. }))
            }),
            ("two operators'", sealed(&stop(), &operator_keys()[..2]), |error| {
                *error == OperatorRequestError::Signatures(2)
            }),
            (
                "a receipt",
                seal("application/vnd.quorate.receipt.v1+json", stop().to_bytes(), operator),
                |error| matches!(error, OperatorRequestError::Envelope(EnvelopeError::WrongType { .. })),
            ),
            ("another cluster's", sealed(&cluster, operator), |error| {
                matches!(error, OperatorRequestError::WrongCluster { .. })
            }),
            ("another epoch's", sealed(&epoch, operator), |error| {
                matches!(error, OperatorRequestError::WrongEpoch { .. })
            }),
            ("another version", sealed(&OperatorRequest { v: 2, ..stop() }, operator), |error| {
                matches!(error, OperatorRequestError::Body(_))
            }),
        ];
        for (what, envelope, expected) in cases {
            let error = verify(&envelope).expect_err(what);
            assert!(expected(&error), "{what}: {error}");
        }
    }

    #[test]
    fn lax_forms_of_a_request_are_refused_though_signed() {
        let body = String::from_utf8(stop().to_bytes()).expect("JSON is UTF-8");
        let cases = [
            (r#""targets":["extract_pool"]"#, r#""targets":[]"#),
            (r#""targets":["extract_pool"]"#, r#""targets":["extract_pool","extract_pool"]"#),
            (r#""targets":["extract_pool"]"#, r#""targets":["extract_pool","a"]"#),
            (r#""targets":["extract_pool"]"#, r#""targets":"every""#),
            (r#""targets":["extract_pool"]"#, r#""targets":["a b"]"#),
            (r#""mode":"hold""#, r#""mode":"act""#),
            (r#""mode":"hold""#, r#""mode":"hold","more":1"#),
            (r#","mode":"hold""#, ""),
            (r#""kind":"stop""#, r#""kind":"halt""#),
            (r#""counter":7"#, r#""counter":"7""#),
            (r#""counter":7"#, r#""counter":-7"#),
            (r#""counter":7"#, r#""counter":7,"replaces":null"#),
        ];
        for (from, to) in cases {
            let changed = body.replace(from, to);
            assert_ne!(changed, body, "{from} does not occur");
            let verdict = verify(&seal(OPERATOR_REQUEST_TYPE, changed.into_bytes(), &operator_keys()[..1]));
            assert!(matches!(verdict, Err(OperatorRequestError::Body(_))), "{to}: {verdict:?}");
        }
    }

    #[test]
    fn lax_forms_of_what_a_resume_has_seen_are_refused_though_signed() {
        let request = OperatorRequest { request: resume(), ..stop() };
        let body = String::from_utf8(request.to_bytes()).expect("JSON is UTF-8");
        let start = body.find(r#","seen":"#).expect("it has seen something");
        let (before, seen) = body.split_at(start);
        let mut entries = seen[r#","seen":{"#.len()..].trim_end_matches('}').split(',');
        let [one, other] = [entries.next(), entries.next()].map(|entry| entry.expect("two stops"));
        let with = |seen: &str| format!("{before}{seen}}}}}").into_bytes();
        let many: Vec<String> = (0..65_u8).map(|number| format!("\"{}\":1", Digest::of(&[number]))).collect();
        let cases = [
            ("nothing", with("")),
            ("none", with(r#","seen":{}"#)),
            ("a list", with(&format!(r#","seen":[{{{one}}}]"#))),
            ("one twice", with(&format!(r#","seen":{{{one},{one}}}"#))),
            ("upper case", with(&format!(r#","seen":{{{}}}"#, one.to_uppercase()))),
            ("no key", with(r#","seen":{"ana":1}"#)),
            (
                "a negative counter",
                with(&format!(r#","seen":{{{}}}"#, one.replace(":7", ":-7").replace(":1844", ":-1844"))),
            ),
            ("too many", with(&format!(r#","seen":{{{}}}"#, many.join(",")))),
        ];
        for (what, changed) in cases {
            let verdict = verify(&seal(OPERATOR_REQUEST_TYPE, changed, &operator_keys()[..1]));
            assert!(matches!(verdict, Err(OperatorRequestError::Body(_))), "{what}: {verdict:?}");
        }
        let good = with(&format!(r#","seen":{{{one},{other}}}"#));
        assert!(verify(&seal(OPERATOR_REQUEST_TYPE, good, &operator_keys()[..1])).is_ok());
    }

    #[test]
    fn no_single_changed_byte_of_a_request_passes() {
        let envelope = stop().sign(&operator_keys()[0]).to_json();
        for place in 0..envelope.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = envelope.clone();
                changed[place] ^= flip;
                assert!(verify(&changed).is_err(), "byte {place} xor {flip:#x}");
            }
        }
    }
}
