//! The one envelope in which documents leave the quorum, and the one function that verifies it.
//!
//! A document is a DSSE envelope: `{"payload", "payloadType", "signatures": [{"keyid", "sig"}]}` in JSON,
//! where each signature is over [`pae`] of the type and the body. Decoding is strict: unknown or repeated
//! fields, non-canonical base64, unsorted or repeated key identifiers and more signatures than the verifier
//! knows keys are refused. The keys and the threshold come from the caller, never from the envelope.

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use super::{
    keys::{KeyId, PublicKey, Signature},
    strict_json::from_strict_json,
};

/// The most bytes a document's body may have.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024;

/// The most bytes an envelope's JSON may have: base64 of the body, a hundred signatures of some 180 bytes,
/// and the field names.
pub const MAX_ENVELOPE_BYTES: usize = MAX_DOCUMENT_BYTES / 3 * 4 + 32 * 1024;

/// DSSE's pre-authentication encoding: `DSSEv1 SP len(type) SP type SP len(body) SP body`.
#[must_use]
pub fn pae(document_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {document_type} {} ", document_type.len(), body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A decoded envelope. Nothing in it is trusted until [`Envelope::verify`] has passed.
///
/// Inside larger JSON it reads and writes itself; only [`from_strict_json`] makes that reading strict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireEnvelope", into = "WireEnvelope")]
pub struct Envelope {
    document_type: String,
    body: Vec<u8>,
    signatures: Vec<(KeyId, Signature)>,
}

/// Why an envelope is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It is larger than any document may be.
    #[error("the document has {got} bytes; at most {most} are allowed")]
    TooLarge {
        /// Its size.
        got: usize,
        /// The limit.
        most: usize,
    },
    /// It is not the JSON of an envelope.
    #[error("the envelope is malformed: {0}")]
    Malformed(String),
    /// It carries another kind of document.
    #[error("the document is of type {got:?}, not {expected:?}")]
    WrongType {
        /// The type in the envelope.
        got: String,
        /// The type that was asked for.
        expected: String,
    },
    /// A signature claims a key that the verifier does not know.
    #[error("key {0} is not one of the keys that may sign this document")]
    UnknownKey(KeyId),
    /// A signature does not verify.
    #[error("the signature by key {0} does not verify")]
    BadSignature(KeyId),
    /// Too few of the known keys signed.
    #[error("{got} of at least {needed} signatures")]
    TooFewSignatures {
        /// How many distinct known keys signed.
        got: usize,
        /// The threshold.
        needed: usize,
    },
}

/// What a verified envelope says: its exact body and who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The exact bytes that were signed.
    pub body: Vec<u8>,
    /// Whose keys signed them, in the order of the key identifiers.
    pub signers: Vec<KeyId>,
}

/// Why the fields of an envelope's JSON make no envelope.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WireError(String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEnvelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    keyid: String,
    sig: String,
}

impl Envelope {
    /// An envelope of a body and signatures over its [`pae`]; they are put in the order of key identifiers.
    #[must_use]
    pub fn new(document_type: &str, body: Vec<u8>, mut signatures: Vec<(KeyId, Signature)>) -> Self {
        signatures.sort_unstable();
        signatures.dedup_by_key(|(key, _)| *key);
        Self { document_type: document_type.to_owned(), body, signatures }
    }

    /// Decodes an envelope strictly.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`] and [`EnvelopeError::Malformed`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        limit(bytes.len(), MAX_ENVELOPE_BYTES)?;
        from_strict_json(bytes).map_err(|error| EnvelopeError::Malformed(error.to_string()))
    }

    /// The envelope as JSON.
    ///
    /// # Panics
    /// Never: strings are always valid JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings are valid JSON")
    }

    /// The body, not yet verified.
    #[must_use]
    pub fn unverified_body(&self) -> &[u8] {
        &self.body
    }

    /// The claimed signatures, in the order of key identifiers.
    #[must_use]
    pub fn signatures(&self) -> &[(KeyId, Signature)] {
        &self.signatures
    }

    /// Checks that at least `threshold` of these distinct keys signed exactly this body as this type.
    ///
    /// One signature by an unknown key or one that does not verify refuses the whole envelope: an honest
    /// sender has no reason to include it.
    ///
    /// # Errors
    /// Every [`EnvelopeError`] but those of decoding.
    pub fn verify<'a>(
        &self,
        document_type: &str,
        keys: impl IntoIterator<Item = &'a PublicKey>,
        threshold: usize,
    ) -> Result<Signed, EnvelopeError> {
        if self.document_type != document_type {
            return Err(EnvelopeError::WrongType {
                got: self.document_type.clone(),
                expected: document_type.to_owned(),
            });
        }
        let keys: std::collections::BTreeMap<KeyId, &PublicKey> =
            keys.into_iter().map(|key| (key.id(), key)).collect();
        let bytes = pae(document_type, &self.body);
        let mut signers = std::collections::BTreeSet::new();
        for (id, signature) in &self.signatures {
            let key = keys.get(id).ok_or(EnvelopeError::UnknownKey(*id))?;
            key.verify(&bytes, signature).map_err(|_| EnvelopeError::BadSignature(*id))?;
            signers.insert(*id);
        }
        // A threshold of zero would make an unsigned document pass.
        let needed = threshold.max(1);
        if signers.len() < needed {
            return Err(EnvelopeError::TooFewSignatures { got: signers.len(), needed });
        }
        Ok(Signed { body: self.body.clone(), signers: signers.into_iter().collect() })
    }
}

impl TryFrom<WireEnvelope> for Envelope {
    type Error = WireError;

    fn try_from(wire: WireEnvelope) -> Result<Self, WireError> {
        let body = decode_base64("payload", &wire.payload)?;
        limit(body.len(), MAX_DOCUMENT_BYTES).map_err(|error| WireError(error.to_string()))?;
        let signatures: Vec<_> = wire.signatures.iter().map(decode_signature).collect::<Result<_, _>>()?;
        if !signatures.is_sorted_by(|(earlier, _), (later, _)| earlier < later) {
            return Err(WireError("signatures are not in the order of distinct key identifiers".to_owned()));
        }
        Ok(Self { document_type: wire.payload_type, body, signatures })
    }
}

impl From<Envelope> for WireEnvelope {
    fn from(envelope: Envelope) -> Self {
        let base64 = &base64::engine::general_purpose::STANDARD;
        let wire_signature = |(key, signature): &(KeyId, Signature)| WireSignature {
            keyid: key.to_string(),
            sig: base64.encode(signature.as_bytes()),
        };
        Self {
            payload: base64.encode(&envelope.body),
            payload_type: envelope.document_type,
            signatures: envelope.signatures.iter().map(wire_signature).collect(),
        }
    }
}

fn limit(got: usize, most: usize) -> Result<(), EnvelopeError> {
    if got > most { Err(EnvelopeError::TooLarge { got, most }) } else { Ok(()) }
}

fn decode_base64(field: &str, text: &str) -> Result<Vec<u8>, WireError> {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|error| WireError(format!("{field}: {error}")))
}

fn decode_signature(wire: &WireSignature) -> Result<(KeyId, Signature), WireError> {
    let key = wire.keyid.parse().map_err(|error| WireError(format!("keyid: {error}")))?;
    let bytes: [u8; 64] = decode_base64("sig", &wire.sig)?
        .try_into()
        .map_err(|_| WireError("sig: a signature has 64 bytes".to_owned()))?;
    Ok((key, Signature::from_bytes(bytes)))
}

#[cfg(test)]
#[path = "dsse/tests.rs"]
mod tests;
