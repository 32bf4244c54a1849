//! Evidence in the replicated state: which replicas are proven to have broken a rule (rules V1 to V3).
//!
//! Nothing follows from it here. Invariant: of each replica and kind of offence at most [`MAX_PROOFS`] are kept.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;

use crate::{
    knowledge::evidence::{EvidenceClaim, EvidenceKind, Slot, VerifiedEvidence},
    types::{Committee, Digest, Evidence, ReplicaIndex, UnixMillis},
};

/// How many proofs of one kind are kept for each replica: the first proves what the others would, and a replica that
/// breaks a rule in every view fills neither the log nor the state.
pub const MAX_PROOFS: usize = 4;

/// What is proven, by replica and kind, and by what it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EvidenceLog {
    proofs: BTreeMap<(ReplicaIndex, EvidenceKind), BTreeMap<Slot, Proof>>,
}

/// One logged piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proof {
    /// The evidence.
    pub evidence: Evidence,
    /// Its digest.
    pub digest: Digest,
    /// Agreed time of its logging; `None` before the first agreed time.
    pub at: Option<UnixMillis>,
}

/// A logged piece of evidence with what it proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven<'a> {
    /// Whose key signed.
    pub offender: ReplicaIndex,
    /// What it did.
    pub kind: EvidenceKind,
    /// What it is about.
    pub slot: &'a Slot,
    /// The proof.
    pub proof: &'a Proof,
}

/// Why evidence changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceRefusal {
    /// It is no evidence.
    #[error("{0}")]
    NotVerified(String),
    /// It is about the plan of a target, or the head of a shard, that the cluster does not have.
    #[error("it is about a target or shard that this cluster does not have: {0}")]
    UnknownSubject(Slot),
    /// The same offence is proven already.
    #[error("the same offence is proven already")]
    Duplicate,
    /// Enough offences of this kind are proven of the replica.
    #[error("{MAX_PROOFS} offences of this kind are proven of the replica already")]
    Enough,
}

impl EvidenceRefusal {
    /// Its name, as a label and in Postgres.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotVerified(_) => "not_verified",
            Self::UnknownSubject(_) => "unknown_subject",
            Self::Duplicate => "duplicate",
            Self::Enough => "enough",
        }
    }
}

impl EvidenceLog {
    /// Whether evidence that claims this would be logged, if it verifies (rules V2, V3).
    ///
    /// # Errors
    /// [`EvidenceRefusal`] when it would prove nothing new.
    pub fn check(&self, claim: &EvidenceClaim) -> Result<(), EvidenceRefusal> {
        match self.proofs.get(&(claim.offender, claim.kind)) {
            Some(proofs) if proofs.contains_key(&claim.slot) => Err(EvidenceRefusal::Duplicate),
            Some(proofs) if proofs.len() >= MAX_PROOFS => Err(EvidenceRefusal::Enough),
            Some(_) | None => Ok(()),
        }
    }

    /// Logs evidence that is new.
    pub(super) fn log(&mut self, evidence: &VerifiedEvidence, at: Option<UnixMillis>) {
        let proof = Proof { evidence: evidence.evidence().clone(), digest: evidence.digest(), at };
        let proofs = self.proofs.entry((evidence.offender(), evidence.kind())).or_default();
        proofs.insert(evidence.slot().clone(), proof);
    }

    /// Whether everything in it is proven, and no more than is kept.
    pub(super) fn is_sound(&self, committee: &Committee) -> bool {
        let few = self.proofs.values().all(|proofs| (1..=MAX_PROOFS).contains(&proofs.len()));
        few && self.iter().all(|proven| {
            let Proven { offender, kind, slot, proof } = proven;
            VerifiedEvidence::verify(proof.evidence.clone(), committee).is_ok_and(|verified| {
                (verified.offender(), verified.kind(), verified.slot(), verified.digest())
                    == (offender, kind, slot, proof.digest)
            })
        })
    }

    /// All that is proven, by replica, kind and slot.
    pub fn iter(&self) -> impl Iterator<Item = Proven<'_>> {
        self.proofs.iter().flat_map(|((offender, kind), proofs)| {
            proofs.iter().map(|(slot, proof)| Proven { offender: *offender, kind: *kind, slot, proof })
        })
    }
}
