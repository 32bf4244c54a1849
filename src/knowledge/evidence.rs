//! Evidence, verified: what exact, signed bytes prove of the replica that signed them.
//!
//! It restates what is contradictory from the signed bytes alone, without the code that made them, so that a fold,
//! a command line and a stranger with the root judge alike. It punishes nobody. Invariant: a [`VerifiedEvidence`]
//! cannot be made of what an honest replica with its journal signs, whatever others put together.
//!
//! An honest replica signs at most one vote, one proposal and one timeout for a view, one checkpoint for a height, one
//! report on a window and one endorsement of a subject, and sends the stored bytes again after a restart; and it proposes only on certificates
//! that it verified. What evidence proves is that the *key* signed otherwise: a replica that lies, a key that is
//! used twice, or a journal that was lost or rolled back.

use base64::Engine as _;
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use std::fmt;

use super::observation::ReportHeader;
use crate::types::{
    Committee, Digest, Epoch, Evidence, Height, KeyId, MAX_CERTIFICATES_BYTES, ReplicaIndex, Signature,
    SignedStatement, Statement, StatementKind, StrictJsonError, View, WindowIndex, from_strict_json,
    statement_bytes,
};

/// The document's type, which it names itself.
pub const EVIDENCE_TYPE: &str = "application/vnd.quorate.evidence.v1+json";

/// The most bytes that a statement may have: an endorsement of a subject with the longest name has some 300.
const MAX_STATEMENT_BYTES: usize = 512;

/// The most bytes that a document may have: its certificates in base64, and the rest.
pub const MAX_EVIDENCE_DOCUMENT_BYTES: usize = MAX_CERTIFICATES_BYTES / 3 * 4 + 8 * 1024;

/// The consensus protocol whose statements are understood, and the number of statements of no protocol.
const HOTSTUFF2: u8 = 1;
const NO_PROTOCOL: u8 = 0;

/// The kinds of offences.
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
pub enum EvidenceKind {
    /// Two votes in one view, for different blocks or heights.
    DoubleVote,
    /// Two proposals for one view.
    DoubleProposal,
    /// Two timeouts of one view, with different highest certificates.
    DoubleTimeout,
    /// Two reports on one window.
    DoubleReport,
    /// Two endorsements of one subject, a plan of one control cycle or a head of one number.
    DoubleEndorsement,
    /// A proposal on a certificate that does not verify.
    InvalidCertificate,
    /// Two checkpoints for one height.
    DoubleCheckpoint,
}

impl EvidenceKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::DoubleVote,
        Self::DoubleProposal,
        Self::DoubleTimeout,
        Self::DoubleReport,
        Self::DoubleEndorsement,
        Self::InvalidCertificate,
        Self::DoubleCheckpoint,
    ];

    /// Its name in JSON, as a label and in Postgres.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DoubleVote => "double_vote",
            Self::DoubleProposal => "double_proposal",
            Self::DoubleTimeout => "double_timeout",
            Self::DoubleReport => "double_report",
            Self::DoubleEndorsement => "double_endorsement",
            Self::InvalidCertificate => "invalid_certificate",
            Self::DoubleCheckpoint => "double_checkpoint",
        }
    }
}

/// What the statements are about, of which there may be one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Slot {
    /// A view.
    View(View),
    /// A window.
    Window(WindowIndex),
    /// A target's plan in a control cycle.
    Plan {
        /// The control cycle.
        cycle: u64,
        /// The target.
        target: String,
    },
    /// A shard's head.
    Head {
        /// Its number.
        number: u64,
        /// The shard.
        shard: String,
    },
    /// A height.
    Height(Height),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::View(view) => write!(f, "view {}", view.number()),
            Self::Window(window) => write!(f, "window {}", window.index()),
            Self::Plan { cycle, target } => write!(f, "plan of {target} in cycle {cycle}"),
            Self::Head { number, shard } => write!(f, "head {number} of shard {shard}"),
            Self::Height(height) => write!(f, "height {}", height.number()),
        }
    }
}

/// Evidence that proves what it says, under one committee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedEvidence {
    evidence: Evidence,
    kind: EvidenceKind,
    slot: Slot,
    digest: Digest,
    cluster: Digest,
    epoch: Epoch,
    keyid: KeyId,
}

/// Why evidence proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// A part of it is larger than any may be.
    #[error("{what} has {got} bytes; at most {most} are allowed")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size.
        got: usize,
        /// The limit.
        most: usize,
    },
    /// The document is not of the form that this version writes.
    #[error("the document is malformed: {0}")]
    Malformed(String),
    /// The offender is not in the committee.
    #[error("{0} is not in the committee")]
    Stranger(ReplicaIndex),
    /// A statement's bytes are not a statement of a known kind.
    #[error("a statement's bytes are none that a replica signs")]
    NoStatement,
    /// A statement is of another cluster, epoch or protocol.
    #[error("a statement is of another cluster, epoch or protocol than the root's committee")]
    Elsewhere,
    /// A signature does not verify.
    #[error("a signature of {0} does not verify")]
    BadSignature(ReplicaIndex),
    /// The statements do not contradict each other: they are equal, about different things, or may both be signed.
    #[error("the statements do not contradict each other")]
    NoContradiction,
    /// The statements are not in the order of their bytes.
    #[error("the statements are not in the order of their bytes")]
    OutOfOrder,
    /// The certificates are not those that the proposal's signature covers.
    #[error("the certificates are not those that were signed")]
    OtherCertificates,
    /// The proposal's certificates verify.
    #[error("the certificates verify, so nothing is wrong with the proposal")]
    CertificatesVerify,
    /// The document names another offence, replica or committee than its statements prove.
    #[error("the document says {claimed:?}, and its statements say {proven:?}")]
    OtherClaim {
        /// What stands in the document.
        claimed: String,
        /// What the statements say.
        proven: String,
    },
}

impl VerifiedEvidence {
    /// Verifies evidence against the committee of its epoch.
    ///
    /// # Errors
    /// [`EvidenceError`] says what is missing to a proof.
    pub fn verify(evidence: Evidence, committee: &Committee) -> Result<Self, EvidenceError> {
        let EvidenceClaim { offender, kind, slot } = EvidenceClaim::of(&evidence, committee)?;
        let key = committee.key(offender).ok_or(EvidenceError::Stranger(offender))?;
        let check = |signed: &SignedStatement| {
            let verified = key.verify(&signed.bytes, &signed.signature);
            verified.map_err(|_| EvidenceError::BadSignature(offender))
        };
        match &evidence {
            Evidence::Contradiction { statements, .. } => statements.iter().try_for_each(check)?,
            Evidence::InvalidCertificate { proposal, certificates, .. } => {
                check(proposal)?;
                check_invalid(certificates, committee)?;
            }
        }
        Ok(Self {
            digest: Digest::of_value(&evidence),
            cluster: committee.cluster(),
            epoch: committee.epoch(),
            keyid: key.id(),
            evidence,
            kind,
            slot,
        })
    }

    /// What it proves.
    #[must_use]
    pub fn claim(&self) -> EvidenceClaim {
        EvidenceClaim { offender: self.offender(), kind: self.kind, slot: self.slot.clone() }
    }

    /// The evidence.
    #[must_use]
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What kind of offence it proves.
    #[must_use]
    pub const fn kind(&self) -> EvidenceKind {
        self.kind
    }

    /// What the offence is about.
    #[must_use]
    pub const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Whose key signed.
    #[must_use]
    pub const fn offender(&self) -> ReplicaIndex {
        self.evidence.offender()
    }

    /// The identifier of that key.
    #[must_use]
    pub const fn keyid(&self) -> KeyId {
        self.keyid
    }

    /// The epoch of the committee.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// SHA-256 of the evidence's canonical bytes: its name.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The document, as compact JSON.
    ///
    /// # Panics
    /// Never: strings and integers are valid JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.document()).expect("strings and integers are valid JSON")
    }

    /// Reads a document and verifies it against the committee.
    ///
    /// # Errors
    /// [`EvidenceError`]; also when it claims anything else than its statements prove.
    pub fn from_json(bytes: &[u8], committee: &Committee) -> Result<Self, EvidenceError> {
        limit("the document", bytes.len(), MAX_EVIDENCE_DOCUMENT_BYTES)?;
        let malformed = |error: StrictJsonError| EvidenceError::Malformed(error.to_string());
        let document: EvidenceDocument = from_strict_json(bytes).map_err(malformed)?;
        let verified = Self::verify(document.evidence()?, committee)?;
        let proven = verified.document();
        if document == proven {
            return Ok(verified);
        }
        let (claimed, proven) = (document.claim(), proven.claim());
        Err(EvidenceError::OtherClaim { claimed, proven })
    }

    fn document(&self) -> EvidenceDocument {
        let (statements, certificates): (&[SignedStatement], &[u8]) = match &self.evidence {
            Evidence::Contradiction { statements, .. } => (statements, &[]),
            Evidence::InvalidCertificate { proposal, certificates, .. } => {
                (std::slice::from_ref(proposal), certificates)
            }
        };
        EvidenceDocument {
            document_type: EVIDENCE_TYPE.to_owned(),
            cluster: self.cluster,
            epoch: self.epoch,
            replica: self.offender(),
            keyid: self.keyid,
            kind: self.kind,
            about: self.slot.to_string(),
            digest: self.digest,
            statements: statements.iter().map(SignedText::of).collect(),
            certificates: base64().encode(certificates),
        }
    }
}

/// What leaves the quorum: the exact bytes in base64, and beside them what they prove, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceDocument {
    #[serde(rename = "type")]
    document_type: String,
    cluster: Digest,
    epoch: Epoch,
    #[serde(with = "place")]
    replica: ReplicaIndex,
    keyid: KeyId,
    kind: EvidenceKind,
    about: String,
    digest: Digest,
    statements: Vec<SignedText>,
    /// Empty unless one statement is a proposal on certificates.
    certificates: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedText {
    statement: String,
    signature: String,
}

impl SignedText {
    fn of(statement: &SignedStatement) -> Self {
        let SignedStatement { bytes, signature } = statement;
        Self { statement: base64().encode(bytes), signature: base64().encode(signature.as_bytes()) }
    }

    fn read(&self) -> Result<SignedStatement, EvidenceError> {
        let signature: [u8; 64] = decode("signature", &self.signature)?
            .try_into()
            .map_err(|_| EvidenceError::Malformed("a signature has 64 bytes".to_owned()))?;
        let bytes = decode("statement", &self.statement)?;
        Ok(SignedStatement { bytes, signature: Signature::from_bytes(signature) })
    }
}

impl EvidenceDocument {
    /// The evidence in it, not yet verified.
    fn evidence(&self) -> Result<Evidence, EvidenceError> {
        let offender = self.replica;
        let certificates = decode("certificates", &self.certificates)?;
        match self.statements.as_slice() {
            [first, second] if certificates.is_empty() => {
                Ok(Evidence::Contradiction { offender, statements: [first.read()?, second.read()?] })
            }
            [proposal] => {
                Ok(Evidence::InvalidCertificate { offender, proposal: proposal.read()?, certificates })
            }
            _ => Err(EvidenceError::Malformed(
                "it holds neither two statements nor one with certificates".to_owned(),
            )),
        }
    }

    /// What it says of itself, in words.
    fn claim(&self) -> String {
        let Self { document_type, cluster, epoch, replica, keyid, kind, about, digest, .. } = self;
        let kind = kind.as_str();
        format!(
            "{document_type} {digest}: {kind} by {replica} ({keyid}), {about}, epoch {epoch} of {cluster}"
        )
    }
}

/// A replica by its place, as `r3`.
mod place {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::types::ReplicaIndex;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub(super) fn serialize<S: Serializer>(replica: &ReplicaIndex, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(replica)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ReplicaIndex, D::Error> {
        let name = String::deserialize(deserializer)?;
        let place = name.strip_prefix('r').and_then(|place| place.parse().ok()).map(ReplicaIndex::new);
        place
            .filter(|place| place.to_string() == name)
            .ok_or_else(|| D::Error::custom(format_args!("{name:?} is no replica's name")))
    }
}

/// What evidence says that it proves, read from its form alone: no signature and no certificate was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceClaim {
    /// Whose key is said to have signed.
    pub offender: ReplicaIndex,
    /// What it is said to have done.
    pub kind: EvidenceKind,
    /// What the offence is said to be about.
    pub slot: Slot,
}

impl EvidenceClaim {
    /// Reads the claim: cheap, and right if the evidence verifies.
    ///
    /// # Errors
    /// [`EvidenceError`] when it is not of the form that any evidence has.
    pub fn of(evidence: &Evidence, committee: &Committee) -> Result<Self, EvidenceError> {
        let offender = evidence.offender();
        let (kind, slot) = match evidence {
            Evidence::Contradiction { statements: [first, second], .. } => {
                if first.bytes >= second.bytes {
                    let equal = first.bytes == second.bytes;
                    return Err(if equal {
                        EvidenceError::NoContradiction
                    } else {
                        EvidenceError::OutOfOrder
                    });
                }
                let claimed = said(first, offender, committee)?;
                // The bytes differ, so what is equal here is signed twice with different words.
                if claimed != said(second, offender, committee)? {
                    return Err(EvidenceError::NoContradiction);
                }
                claimed
            }
            Evidence::InvalidCertificate { proposal, certificates, .. } => {
                limit("the certificates", certificates.len(), MAX_CERTIFICATES_BYTES)?;
                let view = proposed_on(proposal, certificates, committee)?;
                (EvidenceKind::InvalidCertificate, Slot::View(view))
            }
        };
        Ok(Self { offender, kind, slot })
    }
}

/// What a statement is one of, by its bytes.
fn said(
    signed: &SignedStatement,
    offender: ReplicaIndex,
    committee: &Committee,
) -> Result<(EvidenceKind, Slot), EvidenceError> {
    let statement = statement_in(signed)?;
    let (kind, protocol) = match statement.kind {
        StatementKind::Vote => (EvidenceKind::DoubleVote, HOTSTUFF2),
        StatementKind::Proposal => (EvidenceKind::DoubleProposal, HOTSTUFF2),
        StatementKind::Timeout => (EvidenceKind::DoubleTimeout, HOTSTUFF2),
        StatementKind::Checkpoint => (EvidenceKind::DoubleCheckpoint, HOTSTUFF2),
        StatementKind::Report => (EvidenceKind::DoubleReport, NO_PROTOCOL),
        StatementKind::Endorsement => (EvidenceKind::DoubleEndorsement, NO_PROTOCOL),
        // A replica says the time as often as it likes.
        StatementKind::Tick => return Err(EvidenceError::NoContradiction),
    };
    if statement.domain != committee.domain(protocol) {
        return Err(EvidenceError::Elsewhere);
    }
    let body = statement.body;
    let slot = match kind {
        EvidenceKind::DoubleVote => Slot::View(read::<Vote>(body)?.view),
        EvidenceKind::DoubleProposal | EvidenceKind::InvalidCertificate => {
            Slot::View(read::<Proposal>(body)?.view)
        }
        EvidenceKind::DoubleTimeout => Slot::View(read::<Timeout>(body)?.view),
        EvidenceKind::DoubleReport => {
            let header: ReportHeader = read(body)?;
            if header.replica != offender {
                return Err(EvidenceError::NoContradiction);
            }
            Slot::Window(header.window)
        }
        EvidenceKind::DoubleEndorsement => read::<Endorsement>(body)?.slot(),
        EvidenceKind::DoubleCheckpoint => Slot::Height(read::<Checkpoint>(body)?.height),
    };
    Ok((kind, slot))
}

/// The statement, once size and form are as they must be.
fn statement_in(signed: &SignedStatement) -> Result<Statement<'_>, EvidenceError> {
    limit("a statement", signed.bytes.len(), MAX_STATEMENT_BYTES)?;
    Statement::read(&signed.bytes).ok_or(EvidenceError::NoStatement)
}

/// The view of a proposal whose statement covers these certificates.
fn proposed_on(
    signed: &SignedStatement,
    certificates: &[u8],
    committee: &Committee,
) -> Result<View, EvidenceError> {
    let statement = statement_in(signed)?;
    if statement.kind != StatementKind::Proposal || statement.domain != committee.domain(HOTSTUFF2) {
        return Err(EvidenceError::Elsewhere);
    }
    let proposal: Proposal = read(statement.body)?;
    if Digest::of(certificates) != proposal.certificates {
        return Err(EvidenceError::OtherCertificates);
    }
    Ok(proposal.view)
}

/// Whether one of a proposal's certificates does not verify.
fn check_invalid(certificates: &[u8], committee: &Committee) -> Result<(), EvidenceError> {
    let (justify, entry): (Quorum, Option<TimeoutQuorum>) = read(certificates)?;
    if justify.verifies(committee) && entry.is_none_or(|entry| entry.verifies(committee)) {
        return Err(EvidenceError::CertificatesVerify);
    }
    Ok(())
}

#[derive(BorshDeserialize)]
#[expect(dead_code, reason = "all that is signed is read, so that nothing else can stand there")]
struct Vote {
    view: View,
    height: Height,
    block: Digest,
}

#[derive(BorshDeserialize)]
#[expect(dead_code, reason = "all that is signed is read, so that nothing else can stand there")]
struct Proposal {
    view: View,
    block: Digest,
    certificates: Digest,
}

#[derive(BorshDeserialize)]
#[expect(dead_code, reason = "all that is signed is read, so that nothing else can stand there")]
struct Timeout {
    view: View,
    high_qc_view: View,
}

#[derive(BorshDeserialize)]
#[expect(dead_code, reason = "all that is signed is read, so that nothing else can stand there")]
struct Endorsement {
    kind: DocumentKind,
    number: u64,
    of: String,
    digest: Digest,
}

#[derive(BorshDeserialize)]
#[expect(dead_code, reason = "all that is signed is read, so that nothing else can stand there")]
struct Checkpoint {
    height: Height,
    view: View,
    block: Digest,
    state: (Digest, u32, u64),
}

#[derive(BorshDeserialize)]
enum DocumentKind {
    Plan,
    Head,
}

impl Endorsement {
    fn slot(self) -> Slot {
        let Self { kind, number, of, .. } = self;
        match kind {
            DocumentKind::Plan => Slot::Plan { cycle: number, target: of },
            DocumentKind::Head => Slot::Head { number, shard: of },
        }
    }
}

/// A quorum certificate, restated.
#[derive(BorshDeserialize)]
struct Quorum {
    view: View,
    height: Height,
    block: Digest,
    signatures: Vec<(ReplicaIndex, Signature)>,
}

impl Quorum {
    fn verifies(&self, committee: &Committee) -> bool {
        let Self { view, height, block, signatures } = self;
        if *view == View::ZERO {
            let genesis = Digest::of_value(&("quorate genesis", committee.cluster(), committee.epoch()));
            return (*height, *block) == (Height::ZERO, genesis) && signatures.is_empty();
        }
        let statement = consensus_statement(committee, StatementKind::Vote, &(view, height, block));
        is_quorum(committee, signatures.iter().map(|(signer, _)| *signer))
            && signatures.iter().all(|(signer, signature)| signs(committee, *signer, &statement, signature))
    }
}

/// A timeout certificate, restated.
#[derive(BorshDeserialize)]
struct TimeoutQuorum {
    view: View,
    timeouts: Vec<(ReplicaIndex, View, Signature)>,
    high_qc: Quorum,
}

impl TimeoutQuorum {
    fn verifies(&self, committee: &Committee) -> bool {
        let Self { view, timeouts, high_qc } = self;
        let highest = timeouts.iter().map(|(_, high_qc_view, _)| *high_qc_view).max();
        is_quorum(committee, timeouts.iter().map(|(signer, ..)| *signer))
            && highest == Some(high_qc.view)
            && high_qc.view < *view
            && timeouts.iter().all(|(signer, high_qc_view, signature)| {
                let body = (view, high_qc_view);
                let statement = consensus_statement(committee, StatementKind::Timeout, &body);
                signs(committee, *signer, &statement, signature)
            })
            && high_qc.verifies(committee)
    }
}

/// Whether these are a quorum of distinct members, in ascending order.
fn is_quorum(committee: &Committee, signers: impl Iterator<Item = ReplicaIndex>) -> bool {
    let signers: Vec<ReplicaIndex> = signers.collect();
    let size = committee.size();
    (size.quorum()..=size.replicas()).contains(&signers.len())
        && signers.is_sorted_by(|earlier, later| earlier < later)
        && signers.iter().all(|signer| committee.key(*signer).is_some())
}

fn signs(committee: &Committee, signer: ReplicaIndex, statement: &[u8], signature: &Signature) -> bool {
    committee.key(signer).is_some_and(|key| key.verify(statement, signature).is_ok())
}

fn consensus_statement(committee: &Committee, kind: StatementKind, body: &impl BorshSerialize) -> Vec<u8> {
    let body = borsh::to_vec(body).expect("writing to memory does not fail");
    statement_bytes(kind, &committee.domain(HOTSTUFF2), &body)
}

/// Reads a whole body: neither less nor more.
fn read<T: BorshDeserialize>(body: &[u8]) -> Result<T, EvidenceError> {
    borsh::from_slice(body).map_err(|_| EvidenceError::NoStatement)
}

const fn limit(what: &'static str, got: usize, most: usize) -> Result<(), EvidenceError> {
    if got > most { Err(EvidenceError::TooLarge { what, got, most }) } else { Ok(()) }
}

const fn base64() -> &'static base64::engine::GeneralPurpose {
    &base64::engine::general_purpose::STANDARD
}

fn decode(field: &str, text: &str) -> Result<Vec<u8>, EvidenceError> {
    base64().decode(text).map_err(|error| EvidenceError::Malformed(format!("{field}: {error}")))
}

#[cfg(test)]
#[path = "evidence/tests.rs"]
mod tests;
