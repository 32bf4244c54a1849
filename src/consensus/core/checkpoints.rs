//! Checkpoints: what the application says of its state, what peers say of theirs, and comparing them (rules K1,
//! K2); the transfer of a certified state (rule K4).

use super::{Core, Output, Rejected, sync::pause_after};
use crate::consensus::{
    certificate::Verified,
    checkpoint::{Checkpoint, CheckpointCertificate, CheckpointVote, StableCheckpoint},
    checkpoints::Settled,
    limits::{CHUNK_CREDIT, MAX_SENT_CHUNKS_BYTES, STALE_ANSWER_INTERVAL},
    message::{Asked, ChunkRequest, Chunks, Gone, Message},
    record::Record,
    snapshot::{Snapshot, SnapshotId},
    transfer::Taken,
    votes::Counted,
};
use crate::types::{Height, Millis, ReplicaIndex};

impl Core {
    /// Rule K1.
    pub(super) fn handle_state(&mut self, height: Height, state: SnapshotId, installed: Height) {
        let Some(checkpoint) = self.checkpoints.state_at(height, state, installed) else { return };
        if !self.is_silent()
            && let Some(vote) = self.safety.sign_checkpoint(checkpoint)
        {
            self.outputs.push_back(Output::Persist(Record::CheckpointVote(vote.clone())));
            self.outputs.push_back(Output::Broadcast(Message::CheckpointVote(vote.clone())));
            self.checkpoints.count(Verified::vouch(vote));
        }
        self.settle_checkpoints();
    }

    /// Sends the own newest statement again, so often, while its checkpoint has no certificate here (rule K1).
    pub(super) fn resend_checkpoint(&mut self, now: Millis) {
        let Some(vote) = self.safety.checkpoint_votes().last() else { return };
        if self.checkpoints.resends(vote.checkpoint.height, now) {
            self.outputs.push_back(Output::Broadcast(Message::CheckpointVote(vote.clone())));
        }
    }

    /// Gives the newest checkpoint to a peer that lacks it, at most so often (rule K2).
    fn answer_statement(&mut self, now: Millis, to: ReplicaIndex) {
        let due = self.checkpoint_answers.get(&to).is_none_or(|last| now >= last.plus(STALE_ANSWER_INTERVAL));
        if let Some(stable) = self.checkpoints.stable().filter(|_| due) {
            self.checkpoint_answers.insert(to, now);
            let message = Message::Checkpoint(stable.get().clone());
            self.outputs.push_back(Output::Send { to, message });
        }
    }

    pub(super) fn handle_checkpoint_vote(
        &mut self,
        now: Millis,
        from: ReplicaIndex,
        vote: CheckpointVote,
    ) -> Result<(), Rejected> {
        if vote.voter == self.me && vote.checkpoint.height > self.safety.checkpoint_height() {
            self.remember_forgotten(vote.verify(&self.committee)?.get().checkpoint.view);
            return Ok(());
        }
        if vote.voter == from && self.checkpoints.lacks_stable(from, vote.checkpoint.height) {
            self.answer_statement(now, from);
        }
        if !self.checkpoints.wants(&vote) {
            return Ok(());
        }
        let vote = vote.verify(&self.committee)?;
        match self.checkpoints.count(vote.clone()) {
            Counted::Yes | Counted::Again => {}
            Counted::Contradiction => {
                let first = self.checkpoints.vote_of(vote.get().voter, vote.get().checkpoint.height);
                let evidence = first.and_then(|first| self.witness.second_checkpoint(first, vote.get())); // Y1
                self.outputs.extend(evidence.map(|evidence| Output::Evidence(Box::new(evidence))));
                return Err(Rejected::SecondCheckpoint);
            }
        }
        self.settle_checkpoints();
        Ok(())
    }

    /// A certified checkpoint: of a height that is committed here, it is compared with the own state; of a higher
    /// one, it is kept until then.
    pub(super) fn handle_checkpoint(&mut self, checkpoint: StableCheckpoint) -> Result<(), Rejected> {
        if self.checkpoints.wants_certificate(checkpoint.height()) {
            self.absorb_checkpoint(checkpoint)?;
        }
        Ok(())
    }

    fn absorb_checkpoint(
        &mut self,
        checkpoint: StableCheckpoint,
    ) -> Result<Verified<StableCheckpoint>, Rejected> {
        let verified = checkpoint.verify(&self.committee)?;
        let StableCheckpoint { certificate, qc } = verified.get().clone();
        self.look_for_own_checkpoint(&certificate);
        self.look_for_own_vote(&qc);
        self.absorb_qc(&Verified::vouch(qc));
        self.checkpoints.keep_certificate(Verified::vouch(certificate));
        self.settle_checkpoints();
        Ok(verified)
    }

    /// What this replica asked a peer for is gone (rule K4). An answer counts only for what it names, and only if just that
    /// was asked of that peer last.
    pub(super) fn handle_gone(&mut self, from: ReplicaIndex, gone: Gone) -> Result<(), Rejected> {
        let Gone { asked, checkpoint } = gone;
        let height = checkpoint.height();
        match asked {
            Asked::Blocks(request) => {
                if !self.fetch.awaits(from, &request) || !self.fetch.answered(from) {
                    return Err(Rejected::Unsolicited);
                }
                if height > self.tree.committed_height() {
                    let checkpoint = self.absorb_checkpoint(checkpoint)?;
                    self.blocks_are_gone(from, checkpoint);
                }
            }
            Asked::Chunks(request) => {
                if !self.transfer.awaits(from, &request) {
                    return Err(Rejected::Unsolicited);
                }
                if height > request.height {
                    let checkpoint = self.absorb_checkpoint(checkpoint)?;
                    self.transfer.gone(from, &checkpoint);
                }
            }
        }
        Ok(())
    }

    fn blocks_are_gone(&mut self, from: ReplicaIndex, checkpoint: Verified<StableCheckpoint>) {
        self.fetch.did_not_help();
        let (committed, one_honest) = (self.tree.committed_height(), self.committee.size().one_honest());
        if let Some(target) = self.fetch.gone(from, checkpoint, committed, one_honest) {
            self.transfer.want(target, false);
        }
    }

    /// Asks the next peer for chunks when a request is due.
    pub(super) fn request_chunks(&mut self, now: Millis) {
        let stable = self.checkpoints.stable().map_or(Height::ZERO, |stable| stable.get().height());
        self.transfer.drop_overtaken(self.tree.committed_height(), stable);
        if let Some((to, request)) = self.transfer.next_request(now) {
            self.outputs.push_back(Output::Send { to, message: Message::ChunkRequest(request) });
        }
    }

    /// The journal holds the chunks, if anything does. Some requests are answered on credit, since the next one comes
    /// as soon as an answer is there.
    pub(super) fn answer_chunk_request(&mut self, now: Millis, to: ReplicaIndex, request: ChunkRequest) {
        let paid_for = self.chunk_answers.get(&to).copied().unwrap_or_default().max(now);
        if paid_for <= now.plus(CHUNK_CREDIT) {
            self.chunk_answers.insert(to, paid_for.plus(pause_after(MAX_SENT_CHUNKS_BYTES)));
            self.outputs.push_back(Output::ServeChunks { to, request });
        }
    }

    pub(super) fn handle_chunks(&mut self, from: ReplicaIndex, chunks: Chunks) -> Result<(), Rejected> {
        match self.transfer.take(from, chunks) {
            Taken::Yes | Taken::Again => {}
            Taken::Unsolicited => return Err(Rejected::Unsolicited),
            Taken::False => return Err(Rejected::FalseChunk),
        }
        if let Some((checkpoint, snapshot)) = self.transfer.finished() {
            self.install(checkpoint, snapshot);
        }
        Ok(())
    }

    /// Begins at a checkpoint (rule K4).
    fn install(&mut self, checkpoint: Verified<StableCheckpoint>, snapshot: Snapshot) {
        let StableCheckpoint { certificate, qc } = checkpoint.get().clone();
        let Checkpoint { height, view, block, .. } = certificate.checkpoint;
        if height > self.tree.committed_height() {
            self.tree.begin_at(height, view, block);
            self.pacemaker.committed(view);
        }
        self.absorb_qc(&Verified::vouch(qc));
        self.checkpoints.settle_at(checkpoint.clone());
        self.checkpoints.begin_at(height);
        let (checkpoint, restated) = (checkpoint.into_inner(), self.restate());
        self.outputs.push_back(Output::Install { checkpoint, snapshot, restated });
        // What waited for its ancestors may be whole now.
        let high_qc = self.safety.high_qc().clone();
        if self.tree.path(high_qc.get().block).is_some() {
            self.commit_by(high_qc.get());
        } else {
            self.fetch.done();
            self.fetch.want(&high_qc);
        }
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
        let older = self.checkpoints.stable().map(|stable| stable.get().height());
        while let Some(settled) = self.checkpoints.settle() {
            if let (Settled::Stable(..), Some(older)) = (&settled, older) {
                self.tree.forget_through(older);
            }
            self.outputs.push_back(match settled {
                Settled::Stable(stable, reload) => {
                    Output::Stable { checkpoint: stable.into_inner(), restated: self.restate(), reload }
                }
                Settled::Diverged(certified, own) => {
                    self.transfer.want(certified.clone(), true);
                    Output::Diverged { certified: certified.into_inner(), own }
                }
            });
        }
    }
}
