//! [`Certified`]: a document body that a quorum of the committee has signed. Its only constructor verifies,
//! so code that publishes or applies an uncertified plan does not compile.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    head::{HEAD_TYPE, Head},
    plan::{PLAN_TYPE, Plan},
};
use crate::types::{Committee, Digest, Envelope, EnvelopeError, Epoch, KeyId, from_strict_json};

/// A document that a quorum certifies.
pub trait QuorumDocument: DeserializeOwned + Serialize {
    /// The DSSE type.
    const TYPE: &'static str;
    /// The cluster that the body names.
    fn cluster(&self) -> Digest;
    /// The epoch that the body names.
    fn epoch(&self) -> Epoch;
    /// The format's version that the body names.
    fn version(&self) -> u32;
}

impl QuorumDocument for Plan {
    const TYPE: &'static str = PLAN_TYPE;
    fn cluster(&self) -> Digest {
        self.cluster
    }
    fn epoch(&self) -> Epoch {
        self.epoch
    }
    fn version(&self) -> u32 {
        self.v
    }
}

impl QuorumDocument for Head {
    const TYPE: &'static str = HEAD_TYPE;
    fn cluster(&self) -> Digest {
        self.cluster
    }
    fn epoch(&self) -> Epoch {
        self.epoch
    }
    fn version(&self) -> u32 {
        self.v
    }
}

/// A document with at least a quorum of distinct replicas' signatures over its exact bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified<T> {
    document: T,
    digest: Digest,
    signers: Vec<KeyId>,
    envelope: Envelope,
}

/// Why a document is not certified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The envelope is refused: its size, form, type or signatures.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// A quorum signed bytes that are no such document.
    #[error("the body is malformed: {0}")]
    Body(String),
    /// It belongs to another cluster.
    #[error("the document belongs to cluster {got}, not to {expected}")]
    WrongCluster {
        /// The cluster in the body.
        got: Digest,
        /// The cluster of the root.
        expected: Digest,
    },
    /// It belongs to another epoch.
    #[error("the document belongs to epoch {got}, not to {expected}")]
    WrongEpoch {
        /// The epoch in the body.
        got: Epoch,
        /// The epoch of the root.
        expected: Epoch,
    },
}

impl<T: QuorumDocument> Certified<T> {
    /// Verifies an envelope's JSON against the committee: size, form, type, a quorum of distinct keys,
    /// then the body itself, its cluster and its epoch.
    ///
    /// # Errors
    /// [`CertificateError`] says which check failed.
    pub fn verify(envelope_bytes: &[u8], committee: &Committee) -> Result<Self, CertificateError> {
        Self::verify_envelope(Envelope::from_json(envelope_bytes)?, committee)
    }

    /// As [`Self::verify`], for an envelope that is already decoded.
    ///
    /// # Errors
    /// [`CertificateError`] says which check failed.
    pub fn verify_envelope(envelope: Envelope, committee: &Committee) -> Result<Self, CertificateError> {
        let keys = committee.iter().map(|(_, key)| key);
        let signed = envelope.verify(T::TYPE, keys, committee.size().quorum())?;
        let document: T =
            from_strict_json(&signed.body).map_err(|error| CertificateError::Body(error.to_string()))?;
        if document.version() != 1 {
            return Err(CertificateError::Body(format!("version {} is not known", document.version())));
        }
        if document.cluster() != committee.cluster() {
            return Err(CertificateError::WrongCluster {
                got: document.cluster(),
                expected: committee.cluster(),
            });
        }
        if document.epoch() != committee.epoch() {
            return Err(CertificateError::WrongEpoch { got: document.epoch(), expected: committee.epoch() });
        }
        Ok(Self { document, digest: Digest::of(&signed.body), signers: signed.signers, envelope })
    }

    /// The document.
    #[must_use]
    pub const fn document(&self) -> &T {
        &self.document
    }

    /// SHA-256 of the body.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Whose signatures it carries, in the order of key identifiers.
    #[must_use]
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// The envelope it came in.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

#[cfg(test)]
mod tests {
    use super::{CertificateError, Certified};
    use crate::{
        knowledge::{
            fixtures::{certified_head, certified_plan, committee, head, plan, replica_keys, seal},
            head::{HEAD_TYPE, Head, Mode},
            plan::{DesiredState, PLAN_TYPE, Plan},
        },
        types::{Digest, EnvelopeError, Epoch, SecretKey},
    };

    fn verify(body: Vec<u8>, signers: &[SecretKey]) -> Result<Certified<Plan>, CertificateError> {
        Certified::verify(&seal(PLAN_TYPE, body, signers), &committee())
    }

    #[test]
    fn a_quorums_plan_and_head_are_certified() {
        let certified = certified_plan(&plan());
        assert_eq!(certified.document(), &plan());
        assert_eq!(certified.digest(), Digest::of(&plan().to_bytes()));
        assert_eq!(certified.signers().len(), 3);
        let again = Certified::<Plan>::verify(&certified.envelope().to_json(), &committee());
        assert_eq!(again, Ok(certified));
        assert_eq!(certified_head(&head(7, Mode::Act)).document(), &head(7, Mode::Act));
    }

    #[test]
    fn one_signature_fewer_than_a_quorum_is_refused() {
        assert_eq!(
            verify(plan().to_bytes(), &replica_keys()[..2]),
            Err(EnvelopeError::TooFewSignatures { got: 2, needed: 3 }.into())
        );
    }

    #[test]
    fn a_head_is_no_plan() {
        let envelope = seal(HEAD_TYPE, plan().to_bytes(), &replica_keys());
        assert!(matches!(
            Certified::<Plan>::verify(&envelope, &committee()),
            Err(CertificateError::Envelope(EnvelopeError::WrongType { .. }))
        ));
        let envelope = seal(HEAD_TYPE, plan().to_bytes(), &replica_keys());
        assert!(matches!(Certified::<Head>::verify(&envelope, &committee()), Err(CertificateError::Body(_))));
    }

    #[test]
    fn a_plan_of_another_cluster_epoch_or_version_is_refused() {
        let other = Plan { cluster: Digest::of(b"x"), ..plan() };
        assert!(matches!(
            verify(other.to_bytes(), &replica_keys()),
            Err(CertificateError::WrongCluster { .. })
        ));
        let other = Plan { epoch: Epoch::new(2), ..plan() };
        assert!(matches!(
            verify(other.to_bytes(), &replica_keys()),
            Err(CertificateError::WrongEpoch { .. })
        ));
        let other = Plan { v: 2, ..plan() };
        assert!(matches!(verify(other.to_bytes(), &replica_keys()), Err(CertificateError::Body(_))));
    }

    #[test]
    fn lax_forms_of_a_plan_are_refused_though_a_quorum_signed_them() {
        let plan = Plan { rollback: DesiredState::Running {}, ..plan() };
        let body = String::from_utf8(plan.to_bytes()).expect("JSON is UTF-8");
        let cases = [
            (r#""rollback":{"kind":"running"}"#, r#""rollback":{"kind":"running","slots":1}"#),
            (r#""rollback":{"kind":"running"}"#, r#""rollback":["running"]"#),
            (r#""rollback":{"kind":"running"}"#, r#""rollback":{"kind":"running","kind":"paused"}"#),
            (r#""min":1"#, r#""min":1,"min":0"#),
            (r#""min":1"#, r#""min":1,"average":1"#),
            (r#""min":1"#, r#""min":1.0"#),
            (r#""min":1,"#, ""),
            (r#""kind":"slots","min""#, r#""kind":"switch","min""#),
            (r#""on_stale":"rollback""#, r#""on_stale":"Rollback""#),
            (r#""on_stale":"rollback""#, r#""on_stale":{"rollback":null}"#),
            (r#""reason":"threshold""#, r#""reason":"the operator said so""#),
            (r#""risk":"low""#, r#""risk":0"#),
            (r#""scale":0"#, r#""scale":false"#),
            (r#""v":1,"#, r#""v":1,"v":1,"#),
            (r#""v":1,"#, r#""v":1,"note":"x","#),
        ];
        for (from, to) in cases {
            let changed = body.replacen(from, to, 1);
            assert_ne!(changed, body, "{from} does not occur in {body}");
            let verdict = verify(changed.into_bytes(), &replica_keys());
            assert!(matches!(verdict, Err(CertificateError::Body(_))), "{to}: {verdict:?}");
        }
    }

    #[test]
    fn lax_forms_of_a_head_are_refused_though_a_quorum_signed_them() {
        let body = String::from_utf8(head(7, Mode::Act).to_bytes()).expect("JSON is UTF-8");
        let cases = [
            (r#""mode":"act""#, r#""mode":"act","mode":"act""#),
            (r#""mode":"act""#, r#""mode":"obey""#),
            (r#""mode":"act""#, r#""mode":{"act":null}"#),
            (r#""number":7"#, r#""number":7.0"#),
            (r#""number":7"#, r#""number":-7"#),
            (r#""shard":0"#, r#""shard":65536"#),
            (r#""targets":["#, r#""targets":[null,"#),
        ];
        for (from, to) in cases {
            let changed = body.replacen(from, to, 1);
            assert_ne!(changed, body, "{from} does not occur in {body}");
            let envelope = seal(HEAD_TYPE, changed.into_bytes(), &replica_keys());
            let verdict = Certified::<Head>::verify(&envelope, &committee());
            assert!(matches!(verdict, Err(CertificateError::Body(_))), "{to}: {verdict:?}");
        }
    }
}
