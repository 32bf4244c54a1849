//! Certificates: proofs that a quorum of distinct replicas signed. The committee and the threshold are the
//! verifier's own; nothing of them is taken from the message.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{
    PROTOCOL_HOTSTUFF2,
    block::{Block, BlockId},
    checkpoint::Checkpoint,
};
use crate::types::{
    Committee, Digest, Height, ReplicaIndex, Signature, StatementKind, View, statement_bytes,
};

/// A value whose signatures were checked against the committee. Only this module makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Vouches for a value whose parts were verified one by one.
    pub(super) const fn vouch(value: T) -> Self {
        Self(value)
    }

    /// The value.
    pub const fn get(&self) -> &T {
        &self.0
    }

    /// The value, without the proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Why a certificate or a signed message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A signer is not in the committee.
    #[error("{0} is not in the committee")]
    Stranger(ReplicaIndex),
    /// Signers are not in ascending order, or one stands twice.
    #[error("the signers are not distinct and in order")]
    SignersOutOfOrder,
    /// There are too few or too many signers.
    #[error("{got} signers; a certificate has {needed} to {most}")]
    WrongCount {
        /// How many there are.
        got: usize,
        /// The quorum.
        needed: usize,
        /// The committee's size.
        most: usize,
    },
    /// A signature does not verify.
    #[error("the signature of {0} does not verify")]
    BadSignature(ReplicaIndex),
    /// A certificate of view 0 that is not genesis' own.
    #[error("the certificate is not the one of genesis")]
    NotGenesis,
    /// The highest certificate inside a timeout or a timeout certificate is not the one that was signed for.
    #[error("the highest certificate is not the one that the signers named")]
    HighestNotProven,
    /// A certificate is of a view not below the one that it may justify.
    #[error("a certificate is of its own or a later view")]
    FromTheFuture,
    /// A checkpoint comes with the certificate of another block than its own.
    #[error("the checkpoint and the certificate beside it are of different blocks")]
    AnotherBlock,
}

/// What a vote says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize)]
struct VoteStatement {
    view: View,
    height: Height,
    block: BlockId,
}

pub(super) fn vote_statement(committee: &Committee, view: View, height: Height, block: BlockId) -> Vec<u8> {
    statement(committee, StatementKind::Vote, &VoteStatement { view, height, block })
}

pub(super) fn timeout_statement(committee: &Committee, view: View, high_qc_view: View) -> Vec<u8> {
    statement(committee, StatementKind::Timeout, &(view, high_qc_view))
}

pub(super) fn proposal_statement(
    committee: &Committee,
    view: View,
    block: BlockId,
    certificates: Digest,
) -> Vec<u8> {
    statement(committee, StatementKind::Proposal, &(view, block, certificates))
}

pub(super) fn checkpoint_statement(committee: &Committee, checkpoint: &Checkpoint) -> Vec<u8> {
    statement(committee, StatementKind::Checkpoint, checkpoint)
}

fn statement<T: BorshSerialize>(committee: &Committee, kind: StatementKind, body: &T) -> Vec<u8> {
    let body = borsh::to_vec(body).expect("writing to memory does not fail");
    statement_bytes(kind, &committee.domain(PROTOCOL_HOTSTUFF2), &body)
}

/// A quorum's votes for one block in one view. Its identity is view and block, never its bytes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct QuorumCertificate {
    /// The view of the votes.
    pub view: View,
    /// The block's height.
    pub height: Height,
    /// The block.
    pub block: BlockId,
    /// The votes' signatures by signer, in ascending order. None for genesis.
    pub signatures: Vec<(ReplicaIndex, Signature)>,
}

impl QuorumCertificate {
    /// The certificate of genesis, which all know.
    #[must_use]
    pub fn genesis(committee: &Committee) -> Self {
        Self {
            view: View::ZERO,
            height: Height::ZERO,
            block: Block::genesis_id(committee),
            signatures: Vec::new(),
        }
    }

    /// Whether both certify the same block in the same view.
    #[must_use]
    pub fn same_statement(&self, other: &Self) -> bool {
        (self.view, self.height, self.block) == (other.view, other.height, other.block)
    }

    /// Checks the signatures of a quorum of distinct members.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong.
    pub fn verify(self, committee: &Committee) -> Result<Verified<Self>, CertificateError> {
        if self.view == View::ZERO {
            let genesis = Self::genesis(committee);
            return if self == genesis { Ok(Verified(self)) } else { Err(CertificateError::NotGenesis) };
        }
        check_signers(committee, self.signatures.iter().map(|(signer, _)| *signer))?;
        let statement = vote_statement(committee, self.view, self.height, self.block);
        for (signer, signature) in &self.signatures {
            check_signature(committee, *signer, &statement, signature)?;
        }
        Ok(Verified(self))
    }
}

/// One replica's part in a timeout certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedTimeoutView {
    /// Who timed out.
    pub signer: ReplicaIndex,
    /// The view of its highest QC, which it signed together with the view that timed out.
    pub high_qc_view: View,
    /// Its signature.
    pub signature: Signature,
}

/// A quorum's timeouts for one view, with the highest QC among them.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TimeoutCertificate {
    /// The view that timed out.
    pub view: View,
    /// The signers' parts, in ascending order.
    pub timeouts: Vec<SignedTimeoutView>,
    /// The QC with the largest view that a signer named.
    pub high_qc: QuorumCertificate,
}

impl TimeoutCertificate {
    /// Checks the signatures of a quorum of distinct members and that the QC is the one they prove.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong.
    pub fn verify(self, committee: &Committee) -> Result<Verified<Self>, CertificateError> {
        check_signers(committee, self.timeouts.iter().map(|timeout| timeout.signer))?;
        let highest = self.timeouts.iter().map(|timeout| timeout.high_qc_view).max();
        if highest != Some(self.high_qc.view) {
            return Err(CertificateError::HighestNotProven);
        }
        if self.high_qc.view >= self.view {
            return Err(CertificateError::FromTheFuture);
        }
        for timeout in &self.timeouts {
            let statement = timeout_statement(committee, self.view, timeout.high_qc_view);
            check_signature(committee, timeout.signer, &statement, &timeout.signature)?;
        }
        self.high_qc.clone().verify(committee)?;
        Ok(Verified(self))
    }
}

impl Verified<TimeoutCertificate> {
    /// The highest QC, which was verified with the whole.
    #[must_use]
    pub fn high_qc(&self) -> Verified<QuorumCertificate> {
        Verified(self.0.high_qc.clone())
    }
}

pub(super) fn check_signature(
    committee: &Committee,
    signer: ReplicaIndex,
    statement: &[u8],
    signature: &Signature,
) -> Result<(), CertificateError> {
    let key = committee.key(signer).ok_or(CertificateError::Stranger(signer))?;
    key.verify(statement, signature).map_err(|_| CertificateError::BadSignature(signer))
}

pub(super) fn check_signers(
    committee: &Committee,
    signers: impl Iterator<Item = ReplicaIndex>,
) -> Result<(), CertificateError> {
    let signers: Vec<_> = signers.collect();
    let (needed, most) = (committee.size().quorum(), committee.size().replicas());
    if !(needed..=most).contains(&signers.len()) {
        return Err(CertificateError::WrongCount { got: signers.len(), needed, most });
    }
    if !signers.is_sorted_by(|earlier, later| earlier < later) {
        return Err(CertificateError::SignersOutOfOrder);
    }
    match signers.iter().find(|signer| committee.key(**signer).is_none()) {
        Some(stranger) => Err(CertificateError::Stranger(*stranger)),
        None => Ok(()),
    }
}
