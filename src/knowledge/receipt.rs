//! A receipt: an agent's signed account of what it did with a plan.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use super::plan::DesiredState;
use crate::types::{
    Cycle, Digest, Envelope, EnvelopeError, KeyId, PublicKey, TargetId, UnixMillis, from_strict_json,
};

/// The DSSE type of a receipt.
pub const RECEIPT_TYPE: &str = "application/vnd.quorate.receipt.v1+json";

/// What became of the plan at the target.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The target was changed and reads back as desired.
    Applied {},
    /// The target already was as desired.
    Noop {},
    /// Nothing was changed.
    Refused {
        /// Why.
        why: Refusal,
    },
    /// The change was taken back, because the target landed elsewhere.
    Reverted {},
    /// A part of the change was made before the target refused the rest, and what was done stays done.
    Partial {},
}

/// Why an agent refused a plan that was certified and fresh.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The plan had expired.
    Expired,
    /// The target was not in the state that the plan was decided on.
    Precondition,
    /// The target could not be read or changed.
    TargetFailed,
    /// The plan breaks the bounds it carries.
    Limits,
    /// The quorum signed two things under one number. The agent leaves the target as it is, whatever became of
    /// the plan before, and acts no more.
    Contradiction,
}

/// A receipt's body.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The format's version: 1.
    pub v: u32,
    /// The cluster.
    pub cluster: Digest,
    /// The target.
    pub target: TargetId,
    /// The plan's sequence number.
    pub seq: Cycle,
    /// SHA-256 of the plan's body.
    pub plan: Digest,
    /// What became of it.
    pub outcome: Outcome,
    /// The target's state before.
    pub before: DesiredState,
    /// The target's state after.
    pub after: DesiredState,
    /// The agent's clock.
    pub at: UnixMillis,
    /// +1 for each receipt of the agent; the fold logs each once.
    pub counter: u64,
    /// How many documents the agent refused since its last receipt because they failed verification.
    pub refused_documents: u64,
    /// How many receipts the agent ever gave up because replicas did not take them in time; left out when it is zero.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_receipts: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Receipt {
    /// The bytes that the agent signs.
    ///
    /// # Panics
    /// Never: the fields are integers and strings.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("integers and strings are valid JSON")
    }
}

/// A receipt whose agent's signature has been checked. Its only constructor verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedReceipt {
    receipt: Receipt,
    signer: KeyId,
    envelope: Envelope,
}

/// Why a receipt is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The envelope is refused: its size, form, type or signature.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// More than one agent signed.
    #[error("{0} agents signed; a receipt carries the signature of exactly one")]
    Signatures(usize),
    /// The agent signed bytes that are no receipt.
    #[error("the body is malformed: {0}")]
    Body(String),
    /// It belongs to another cluster.
    #[error("the receipt belongs to cluster {got}, not to {expected}")]
    WrongCluster {
        /// The cluster in the body.
        got: Digest,
        /// This cluster.
        expected: Digest,
    },
}

impl VerifiedReceipt {
    /// Verifies the receipt of the agent with this key, as [`Self::verify_of_any`] does.
    ///
    /// # Errors
    /// [`ReceiptError`] says which check failed.
    pub fn verify(envelope_bytes: &[u8], agent: &PublicKey, cluster: Digest) -> Result<Self, ReceiptError> {
        Self::verify_of_any(envelope_bytes, [agent], cluster)
    }

    /// Verifies an envelope's JSON: size, form, type, one signature by one of these keys, then the body and its
    /// cluster. The caller finds the keys that are bound to the target under [`claimed_target`].
    ///
    /// # Errors
    /// [`ReceiptError`] says which check failed.
    pub fn verify_of_any<'a>(
        envelope_bytes: &[u8],
        agents: impl IntoIterator<Item = &'a PublicKey>,
        cluster: Digest,
    ) -> Result<Self, ReceiptError> {
        let envelope = Envelope::from_json(envelope_bytes)?;
        let signed = envelope.verify(RECEIPT_TYPE, agents, 1)?;
        let [signer] = signed.signers[..] else {
            return Err(ReceiptError::Signatures(signed.signers.len()));
        };
        let receipt = parse(&signed.body)?;
        if receipt.cluster != cluster {
            return Err(ReceiptError::WrongCluster { got: receipt.cluster, expected: cluster });
        }
        Ok(Self { receipt, signer, envelope })
    }

    /// What the agent says.
    #[must_use]
    pub const fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Whose key signed it.
    #[must_use]
    pub const fn signer(&self) -> KeyId {
        self.signer
    }

    /// SHA-256 of its body: the same under every key that signs it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.envelope.unverified_body())
    }

    /// The envelope it came in.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

/// The target that an envelope claims to be about, by which its agent's key is found. Nothing is verified.
///
/// # Errors
/// [`ReceiptError::Envelope`] and [`ReceiptError::Body`] when the bytes are no receipt at all.
pub fn claimed_target(envelope_bytes: &[u8]) -> Result<TargetId, ReceiptError> {
    let envelope = Envelope::from_json(envelope_bytes)?;
    Ok(parse(envelope.unverified_body())?.target)
}

fn parse(body: &[u8]) -> Result<Receipt, ReceiptError> {
    let receipt: Receipt = from_strict_json(body).map_err(|error| ReceiptError::Body(error.to_string()))?;
    if receipt.v != 1 {
        return Err(ReceiptError::Body(format!("version {} is not known", receipt.v)));
    }
    Ok(receipt)
}

#[cfg(test)]
mod tests {
    use super::{Outcome, RECEIPT_TYPE, Receipt, ReceiptError, Refusal, VerifiedReceipt, claimed_target};
    use crate::{
        knowledge::fixtures::{agent_key, receipt, seal},
        types::{Digest, EnvelopeError, SecretKey},
    };

    fn sealed(document_type: &str, body: Vec<u8>) -> Vec<u8> {
        seal(document_type, body, &[agent_key()])
    }

    fn verify(envelope: &[u8]) -> Result<VerifiedReceipt, ReceiptError> {
        VerifiedReceipt::verify(envelope, &agent_key().public(), receipt().cluster)
    }

    #[test]
    fn an_agents_receipt_verifies_and_reads_back() {
        for outcome in [
            Outcome::Applied {},
            Outcome::Noop {},
            Outcome::Refused { why: Refusal::Expired },
            Outcome::Refused { why: Refusal::Limits },
            Outcome::Refused { why: Refusal::TargetFailed },
            Outcome::Refused { why: Refusal::Contradiction },
            Outcome::Reverted {},
            Outcome::Partial {},
        ] {
            let receipt = Receipt { outcome, ..receipt() };
            let envelope = sealed(RECEIPT_TYPE, receipt.to_bytes());
            assert_eq!(verify(&envelope).map(|verified| verified.receipt().clone()), Ok(receipt));
            assert_eq!(
                claimed_target(&envelope).map(|target| target.to_string()),
                Ok("extract_pool".to_owned())
            );
        }
    }

    #[test]
    fn lost_receipts_are_told_only_by_who_lost_some() {
        assert!(!String::from_utf8(receipt().to_bytes()).expect("JSON is UTF-8").contains("lost_receipts"));
        let told = Receipt { lost_receipts: 3, ..receipt() };
        let verified = verify(&sealed(RECEIPT_TYPE, told.to_bytes()));
        assert_eq!(verified.map(|verified| verified.receipt().clone()), Ok(told));
    }

    #[test]
    fn a_receipt_by_another_key_of_another_type_or_cluster_is_refused() {
        let envelope = sealed(RECEIPT_TYPE, receipt().to_bytes());
        let stranger = SecretKey::from_seed(&[8; 32]).public();
        assert!(matches!(
            VerifiedReceipt::verify(&envelope, &stranger, receipt().cluster),
            Err(ReceiptError::Envelope(EnvelopeError::UnknownKey(_)))
        ));
        let other_type = sealed("application/vnd.quorate.plan.v1+json", receipt().to_bytes());
        assert!(matches!(verify(&other_type), Err(ReceiptError::Envelope(EnvelopeError::WrongType { .. }))));
        assert!(matches!(
            VerifiedReceipt::verify(&envelope, &agent_key().public(), Digest::of(b"other")),
            Err(ReceiptError::WrongCluster { .. })
        ));
        let two = seal(RECEIPT_TYPE, receipt().to_bytes(), &[agent_key(), SecretKey::from_seed(&[8; 32])]);
        let of_any =
            VerifiedReceipt::verify_of_any(&two, [&agent_key().public(), &stranger], receipt().cluster);
        assert_eq!(of_any, Err(ReceiptError::Signatures(2)));
        let later = sealed(RECEIPT_TYPE, Receipt { v: 2, ..receipt() }.to_bytes());
        assert!(matches!(verify(&later), Err(ReceiptError::Body(_))));
    }

    #[test]
    fn a_receipt_without_a_signature_is_refused() {
        let unsigned = seal(RECEIPT_TYPE, receipt().to_bytes(), &[]);
        assert_eq!(
            verify(&unsigned),
            Err(ReceiptError::Envelope(EnvelopeError::TooFewSignatures { got: 0, needed: 1 }))
        );
    }

    #[test]
    fn lax_forms_of_states_and_outcomes_are_refused_though_signed() {
        let body = String::from_utf8(receipt().to_bytes()).expect("JSON is UTF-8");
        let cases = [
            (r#"{"kind":"paused"}"#, r#"{"kind":"paused","slots":3}"#),
            (r#"{"kind":"paused"}"#, r#"{"kind":"paused","kind":"paused"}"#),
            (r#"{"kind":"paused"}"#, r#"["paused"]"#),
            (r#"{"kind":"paused"}"#, r#""paused""#),
            (r#"{"kind":"paused"}"#, r#"{"kind":"stopped"}"#),
            (r#""slots":3"#, r#""slots":3.0"#),
            (r#""slots":3"#, r#""slots":-3"#),
            (r#""slots":3"#, r#""slots":4294967296"#),
            (r#""slots":3"#, r#""slots":3,"slots":3"#),
            (r#""slots":3"#, r#""slots":null"#),
            (r#""why":"precondition""#, r#""why":"precondition","more":"x""#),
            (r#""why":"precondition""#, r#""why":"telemetry says so""#),
            (r#""why":"precondition""#, r#""why":{"precondition":null}"#),
            (r#""counter":5"#, r#""counter":true"#),
            (r#""counter":5"#, r#""counter":5,"counter":6"#),
            (r#""counter":5,"#, ""),
        ];
        for (from, to) in cases {
            let changed = body.replace(from, to);
            assert_ne!(changed, body, "{from} does not occur");
            let verdict = verify(&sealed(RECEIPT_TYPE, changed.into_bytes()));
            assert!(matches!(verdict, Err(ReceiptError::Body(_))), "{to}: {verdict:?}");
        }
    }

    #[test]
    fn no_single_changed_byte_of_an_envelope_passes() {
        let envelope = sealed(RECEIPT_TYPE, receipt().to_bytes());
        for place in 0..envelope.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = envelope.clone();
                changed[place] ^= flip;
                assert!(verify(&changed).is_err(), "byte {place} xor {flip:#x}");
            }
        }
    }
}
