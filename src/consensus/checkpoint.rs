//! Checkpoints: signed statements about the state after a committed block, and certificates of them (rules K1,
//! K2). Decoding gives unverified values.
//!
//! It neither decides what is signed nor when. Invariant: nothing that a receiver uses stays outside what was
//! signed.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{
    block::BlockId,
    certificate::{
        CertificateError, QuorumCertificate, Verified, check_signature, check_signers, checkpoint_statement,
    },
    snapshot::SnapshotId,
};
use crate::types::{Committee, Height, ReplicaIndex, Signature, View};

/// What is said at a checkpoint: the state after a committed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Checkpoint {
    /// The block's height.
    pub height: Height,
    /// The block's view.
    pub view: View,
    /// The block.
    pub block: BlockId,
    /// The application's state after it.
    pub state: SnapshotId,
}

/// One replica's statement (rule K1).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CheckpointVote {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Who says it.
    pub voter: ReplicaIndex,
    /// Its signature.
    pub signature: Signature,
}

impl CheckpointVote {
    /// Checks the voter's signature.
    ///
    /// # Errors
    /// [`CertificateError`] when it is no member's.
    pub fn verify(self, committee: &Committee) -> Result<Verified<Self>, CertificateError> {
        let statement = checkpoint_statement(committee, &self.checkpoint);
        check_signature(committee, self.voter, &statement, &self.signature)?;
        Ok(Verified::vouch(self))
    }
}

/// A quorum's equal statements (rule K2). Its identity is the checkpoint, never its bytes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CheckpointCertificate {
    /// What they say.
    pub checkpoint: Checkpoint,
    /// Their signatures by signer, in ascending order.
    pub signatures: Vec<(ReplicaIndex, Signature)>,
}

impl CheckpointCertificate {
    /// Checks the signatures of a quorum of distinct members.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong.
    pub fn verify(self, committee: &Committee) -> Result<Verified<Self>, CertificateError> {
        check_signers(committee, self.signatures.iter().map(|(signer, _)| *signer))?;
        let statement = checkpoint_statement(committee, &self.checkpoint);
        for (signer, signature) in &self.signatures {
            check_signature(committee, *signer, &statement, signature)?;
        }
        Ok(Verified::vouch(self))
    }
}

/// A checkpoint that a quorum certified, with a certificate of its block: all that is needed to begin there.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StableCheckpoint {
    /// The quorum's statements about the state.
    pub certificate: CheckpointCertificate,
    /// The quorum's votes for the block.
    pub qc: QuorumCertificate,
}

impl StableCheckpoint {
    /// What was certified.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.certificate.checkpoint
    }

    /// Its height.
    #[must_use]
    pub const fn height(&self) -> Height {
        self.certificate.checkpoint.height
    }

    /// Checks both certificates, and that they are of one block.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong.
    pub fn verify(self, committee: &Committee) -> Result<Verified<Self>, CertificateError> {
        let Checkpoint { height, view, block, .. } = self.certificate.checkpoint;
        if (height, view, block) != (self.qc.height, self.qc.view, self.qc.block) {
            return Err(CertificateError::AnotherBlock);
        }
        self.certificate.clone().verify(committee)?;
        self.qc.clone().verify(committee)?;
        Ok(Verified::vouch(self))
    }
}

#[cfg(test)]
mod tests {
    use super::{Checkpoint, CheckpointCertificate, CheckpointVote, StableCheckpoint};
    use crate::{
        consensus::{
            CertificateError, QuorumCertificate, Snapshot,
            certificate::{checkpoint_statement, vote_statement},
        },
        types::{Committee, Digest, Epoch, Height, ReplicaIndex, SecretKey, View},
    };

    fn key(place: u16) -> SecretKey {
        SecretKey::from_seed(&[u8::try_from(place + 1).expect("a small committee"); 32])
    }

    fn committee(cluster: &[u8], epoch: u64) -> Committee {
        let members = (0..4).map(|place| key(place).public()).collect();
        Committee::new(Digest::of(cluster), Epoch::new(epoch), members).expect("distinct keys")
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            height: Height::new(256),
            view: View::new(300),
            block: Digest::of(b"block"),
            state: Snapshot::of(b"state").expect("small").id(),
        }
    }

    fn certificate(signers: &[u16]) -> CheckpointCertificate {
        let statement = checkpoint_statement(&committee(b"cluster", 1), &checkpoint());
        let signatures =
            signers.iter().map(|place| (ReplicaIndex::new(*place), key(*place).sign(&statement))).collect();
        CheckpointCertificate { checkpoint: checkpoint(), signatures }
    }

    #[test]
    fn every_field_of_a_statement_is_signed_and_so_is_where_it_belongs() {
        let committee_of = committee;
        let committee = committee(b"cluster", 1);
        let signature = key(2).sign(&checkpoint_statement(&committee, &checkpoint()));
        let vote = CheckpointVote { checkpoint: checkpoint(), voter: ReplicaIndex::new(2), signature };
        assert!(vote.clone().verify(&committee).is_ok());
        for other in [committee_of(b"other", 1), committee_of(b"cluster", 2)] {
            assert!(vote.clone().verify(&other).is_err());
        }
        let honest = checkpoint();
        for changed in [
            Checkpoint { height: honest.height.next(), ..honest },
            Checkpoint { view: honest.view.next(), ..honest },
            Checkpoint { block: Digest::ZERO, ..honest },
            Checkpoint { state: Snapshot::of(b"other").expect("small").id(), ..honest },
            Checkpoint { state: Snapshot::cut(b"state", 1).expect("small").id(), ..honest },
        ] {
            assert!(CheckpointVote { checkpoint: changed, ..vote.clone() }.verify(&committee).is_err());
        }
        assert!(CheckpointVote { voter: ReplicaIndex::new(1), ..vote }.verify(&committee).is_err());
    }

    #[test]
    fn a_certificate_needs_a_quorum_of_distinct_members_and_no_more_than_all() {
        let committee = committee(b"cluster", 1);
        for (signers, verifies) in [
            (vec![0, 1, 2], true),
            (vec![1, 2, 3], true),
            (vec![0, 1, 2, 3], true),
            (vec![0, 1], false),
            (vec![], false),
            (vec![0, 1, 1], false),
            (vec![0, 2, 1], false),
            (vec![0, 1, 4], false),
            (vec![0, 1, 2, 3, 4], false),
        ] {
            assert_eq!(certificate(&signers).verify(&committee).is_ok(), verifies, "{signers:?}");
        }
    }

    #[test]
    fn a_stable_checkpoint_comes_with_the_certificate_of_its_own_block() {
        let committee = committee(b"cluster", 1);
        let qc = |view: u64, height: u64, block: &[u8]| {
            let (view, height, block) = (View::new(view), Height::new(height), Digest::of(block));
            let statement = vote_statement(&committee, view, height, block);
            let signatures = (0..3).map(|place| (ReplicaIndex::new(place), key(place).sign(&statement)));
            QuorumCertificate { view, height, block, signatures: signatures.collect() }
        };
        let stable = |qc| StableCheckpoint { certificate: certificate(&[0, 1, 2]), qc }.verify(&committee);
        assert!(stable(qc(300, 256, b"block")).is_ok());
        for other in [qc(301, 256, b"block"), qc(300, 257, b"block"), qc(300, 256, b"other")] {
            assert_eq!(stable(other), Err(CertificateError::AnotherBlock));
        }
        let unsigned = QuorumCertificate { signatures: Vec::new(), ..qc(300, 256, b"block") };
        assert!(stable(unsigned).is_err());
    }
}
