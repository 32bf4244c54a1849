//! Checkpoints: what the application says of its state, what peers say of theirs, and comparing them (rules K1,
//! K2).

use super::{Core, Output, Rejected};
use crate::consensus::{
    certificate::Verified,
    checkpoint::{CheckpointCertificate, CheckpointVote, StableCheckpoint},
    checkpoints::Settled,
    message::Message,
    record::Record,
    snapshot::SnapshotId,
    votes::Counted,
};
use crate::types::Height;

impl Core {
    /// Rule K1.
    pub(super) fn handle_state(&mut self, height: Height, state: SnapshotId) {
        let Some(checkpoint) = self.checkpoints.state_at(height, state) else { return };
        if self.forgotten.is_none()
            && let Some(vote) = self.safety.sign_checkpoint(checkpoint)
        {
            self.outputs.push_back(Output::Persist(Record::CheckpointVote(vote.clone())));
            self.outputs.push_back(Output::Broadcast(Message::CheckpointVote(vote.clone())));
            self.checkpoints.count(Verified::vouch(vote));
        }
        self.settle_checkpoints();
    }

    pub(super) fn handle_checkpoint_vote(&mut self, vote: CheckpointVote) -> Result<(), Rejected> {
        if vote.voter == self.me && vote.checkpoint.height > self.safety.checkpoint_height() {
            self.remember_forgotten(vote.verify(&self.committee)?.get().checkpoint.view);
            return Ok(());
        }
        if !self.checkpoints.wants(&vote) {
            return Ok(());
        }
        match self.checkpoints.count(vote.verify(&self.committee)?) {
            Counted::Yes | Counted::Again => {}
            Counted::Contradiction => return Err(Rejected::SecondCheckpoint),
        }
        self.settle_checkpoints();
        Ok(())
    }

    /// A certified checkpoint: of a height that is committed here, it is compared with the own state; of a higher
    /// one, it is kept until then.
    pub(super) fn handle_checkpoint(&mut self, checkpoint: StableCheckpoint) -> Result<(), Rejected> {
        if !self.checkpoints.wants_certificate(checkpoint.height()) {
            return Ok(());
        }
        let StableCheckpoint { certificate, qc } = checkpoint.verify(&self.committee)?.into_inner();
        self.look_for_own_checkpoint(&certificate);
        self.look_for_own_vote(&qc);
        self.absorb_qc(&Verified::vouch(qc));
        self.checkpoints.keep_certificate(Verified::vouch(certificate));
        self.settle_checkpoints();
        Ok(())
    }

    /// As [`Self::look_for_own_vote`], for a checkpoint's certificate (rule R2).
    fn look_for_own_checkpoint(&mut self, certificate: &CheckpointCertificate) {
        let mine = certificate.signatures.iter().any(|(signer, _)| *signer == self.me);
        if mine && certificate.checkpoint.height > self.safety.checkpoint_height() {
            self.remember_forgotten(certificate.checkpoint.view);
        }
    }

    /// Rule K2.
    fn settle_checkpoints(&mut self) {
        while let Some(settled) = self.checkpoints.settle() {
            self.outputs.push_back(match settled {
                Settled::Stable(stable) => {
                    Output::Stable { checkpoint: stable.into_inner(), restated: self.restate() }
                }
                Settled::Diverged(certified, own) => {
                    Output::Diverged { certified: certified.into_inner(), own }
                }
            });
        }
    }
}
