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
