//! One handler per message, and the timer's. Each first absorbs the certificates inside (rule P2).

use std::sync::Arc;

use super::{Admission, Candidate, Core, Output, Rejected};
use crate::consensus::{
    block::{Block, Command},
    certificate::{CertificateError, QuorumCertificate, TimeoutCertificate, Verified, check_signers},
    evidence::{Checked, Spoken},
    limits::{MAX_GOSSIP_BYTES, MAX_GOSSIP_COMMANDS, STALE_ANSWER_INTERVAL},
    message::{Certificates, Message, Proposal, Timeout, Vote},
    pending::Share,
    record::Record,
    safety::check_proposal,
    votes::Counted,
};
use crate::types::{Millis, ReplicaIndex, View};

/// Votes this many views back are the usual surplus of a pipeline and need no answer.
const USUAL_LATENESS_VIEWS: u64 = 3;

impl Core {
    pub(super) fn handle_message(
        &mut self,
        now: Millis,
        from: ReplicaIndex,
        message: Message,
    ) -> Result<(), Rejected> {
        match message {
            Message::Proposal(proposal) => self.handle_proposal(now, from, proposal),
            Message::Vote(vote) => self.handle_vote(now, from, vote),
            Message::Timeout(timeout) => self.handle_timeout(now, from, timeout),
            Message::Certificates(certificates) => self.handle_certificates(certificates),
            Message::Commands(commands) => self.handle_commands(now, from, commands),
            Message::Committed(digests) => {
                let one_honest = self.committee.size().one_honest();
                digests.into_iter().for_each(|digest| self.pending.said_committed(digest, from, one_honest));
                Ok(())
            }
            Message::BlockRequest(request) => {
                self.answer_block_request(now, from, request);
                Ok(())
            }
            Message::BlockResponse(response) => self.handle_block_response(from, response),
            Message::CheckpointVote(vote) => self.handle_checkpoint_vote(now, from, vote),
            Message::Checkpoint(checkpoint) => self.handle_checkpoint(checkpoint),
            Message::Gone(gone) => self.handle_gone(from, gone),
            Message::ChunkRequest(request) => {
                self.answer_chunk_request(now, from, request);
                Ok(())
            }
            Message::Chunks(chunks) => self.handle_chunks(from, chunks),
        }
    }

    pub(super) fn handle_submission(&mut self, share: Share, command: Command) -> Result<(), Rejected> {
        match self.pending.insert(self.me, share, command.clone()) {
            Admission::Waits => {
                self.spread(command);
                Ok(())
            }
            Admission::Known => Ok(()),
            Admission::Full => Err(Rejected::PendingFull),
        }
    }

    /// Sends a command to all, in one message with those that were put out just before it and have not left.
    fn spread(&mut self, command: Command) {
        if let Some(Output::Broadcast(Message::Commands(leaving))) = self.outputs.back_mut()
            && leaving.len() < MAX_GOSSIP_COMMANDS
            && leaving.iter().chain([&command]).map(Command::size_bytes).sum::<usize>() <= MAX_GOSSIP_BYTES
        {
            leaving.push(command);
        } else {
            self.outputs.push_back(Output::Broadcast(Message::Commands(vec![command])));
        }
    }

    fn handle_commands(
        &mut self,
        now: Millis,
        from: ReplicaIndex,
        commands: Vec<Command>,
    ) -> Result<(), Rejected> {
        self.tell_committed(now, from, &commands);
        for command in commands {
            match self.pending.insert(from, Share::Own, command) {
                Admission::Waits | Admission::Known => {}
                Admission::Full => return Err(Rejected::PendingFull),
            }
        }
        Ok(())
    }

    /// Tells a peer which of its commands are committed, at most so often (rule I3).
    fn tell_committed(&mut self, now: Millis, to: ReplicaIndex, commands: &[Command]) {
        let committed =
            commands.iter().map(Command::digest).filter(|digest| self.pending.is_committed(digest));
        let committed: Vec<_> = committed.collect();
        let due = self.committed_answers.get(&to).is_none_or(|last| now >= last.plus(STALE_ANSWER_INTERVAL));
        if due && !committed.is_empty() {
            self.committed_answers.insert(to, now);
            self.outputs.push_back(Output::Send { to, message: Message::Committed(committed) });
        }
    }

    fn handle_proposal(
        &mut self,
        now: Millis,
        from: ReplicaIndex,
        proposal: Proposal,
    ) -> Result<(), Rejected> {
        let view = proposal.block.view();
        let leader = self.pacemaker.leader(view);
        let proposal = proposal.verify(&self.committee)?;
        if proposal.get().block.proposer() == leader {
            self.pacemaker.heard(leader);
        }
        // P2: certificates first, whatever the view.
        let (justify, entry) = self.absorb_certificates_of(&proposal).inspect_err(|_| {
            let evidence = self.witness.invalid_certificate(proposal.get()); // Y2
            self.outputs.extend(evidence.map(|evidence| Output::Evidence(Box::new(evidence))));
        })?;
        self.witness([Spoken::proposal(proposal.get())], Checked::Yes);
        let block = with_checked_justify(proposal.into_inner().block, &justify);
        if view < self.view() {
            self.take_overtaken_block(&block);
            self.answer_stale(now, from);
            return Ok(());
        }
        if view > self.view() {
            return Err(Rejected::ViewAhead);
        }
        check_proposal(&block, leader, &justify, entry.as_ref())?;
        match &self.candidate {
            Some(known) if known.block.id() == block.id() => Ok(()),
            Some(_) => Err(Rejected::SecondProposal),
            None => {
                self.wait_for_commands_of(&block);
                self.candidate = Some(Candidate { block, justify, entry });
                Ok(())
            }
        }
    }

    fn absorb_certificates_of(
        &mut self,
        proposal: &Verified<Proposal>,
    ) -> Result<(Verified<QuorumCertificate>, Option<Verified<TimeoutCertificate>>), CertificateError> {
        let Proposal { block, entry, .. } = proposal.get();
        let justify = self.verify_qc(block.justify())?;
        self.absorb_qc(&justify);
        let entry = entry.as_ref().map(|tc| self.verify_tc(tc.clone())).transpose()?.flatten();
        if let Some(tc) = &entry {
            self.absorb_tc(tc);
        }
        Ok((justify, entry))
    }

    /// A block whose votes were faster than itself: it need not be fetched.
    fn take_overtaken_block(&mut self, block: &Arc<Block>) {
        let certificate = self.safety.high_qc().clone();
        if certificate.get().block == block.id() && self.tree.path(block.parent()).is_some() {
            self.store_block(block);
            self.commit_by(block.justify());
            self.commit_by(certificate.get());
        }
    }

    /// Rule R2: a statement of this replica's that its journal does not hold.
    pub(super) fn remember_forgotten(&mut self, view: View) {
        if self.forgotten < Some(view) {
            self.forgotten = Some(view);
            self.outputs.push_back(Output::Persist(Record::Forgotten(view)));
        }
    }

    /// Looks for own signatures in a verified QC (rule R2): a vote is durable before it leaves, so there is none
    /// above the last recorded vote unless the journal was lost.
    pub(super) fn look_for_own_vote(&mut self, qc: &QuorumCertificate) {
        let mine = qc.signatures.iter().any(|(signer, _)| *signer == self.me);
        if mine && !self.safety.voted_at_or_after(qc.view) {
            self.remember_forgotten(qc.view);
        }
    }

    /// As [`Self::look_for_own_vote`], for a TC.
    fn look_for_own_timeout(&mut self, tc: &TimeoutCertificate) {
        self.witness(Spoken::timeouts(tc), Checked::Yes);
        self.witness(Spoken::votes(&tc.high_qc), Checked::Yes);
        let mine = tc.timeouts.iter().any(|timeout| timeout.signer == self.me);
        if mine && !self.safety.timed_out_at_or_after(tc.view) {
            self.remember_forgotten(tc.view);
        }
        self.look_for_own_vote(&tc.high_qc);
    }

    fn handle_vote(&mut self, now: Millis, from: ReplicaIndex, vote: Vote) -> Result<(), Rejected> {
        let (view, current) = (vote.view, self.view());
        if vote.voter == self.me && !self.safety.voted_at_or_after(view) {
            self.remember_forgotten(vote.verify(&self.committee)?.get().view);
            return Ok(());
        }
        if view < current {
            self.witness([Spoken::vote(&vote)], Checked::No);
            if view.number().saturating_add(USUAL_LATENESS_VIEWS) <= current.number() {
                self.answer_stale(now, from);
            }
            return Ok(());
        }
        if view > current.next() {
            return Err(Rejected::ViewAhead);
        }
        if self.votes.has(&vote) {
            return Ok(());
        }
        let vote = vote.verify(&self.committee)?;
        self.witness([Spoken::vote(vote.get())], Checked::Yes);
        match self.votes.count(vote) {
            Counted::Yes | Counted::Again => Ok(()),
            Counted::Contradiction => Err(Rejected::SecondVote),
        }
    }

    fn handle_timeout(&mut self, now: Millis, from: ReplicaIndex, timeout: Timeout) -> Result<(), Rejected> {
        let mut timeout = timeout.verify(&self.committee)?.into_inner();
        self.witness([Spoken::timeout(&timeout)], Checked::Yes);
        // P2: certificates first, whatever the view.
        let high_qc = self.verify_qc(&timeout.high_qc)?;
        self.absorb_qc(&high_qc);
        timeout.high_qc = high_qc.into_inner();
        if let Some(tc) = &timeout.entry {
            self.take_tc(tc)?;
        }
        // A peer of the same view whose highest certificate is older may wait for what the others rest upon.
        if timeout.view < self.view() || timeout.high_qc.view < self.safety.high_qc().get().view {
            self.answer_stale(now, from);
        }
        if timeout.view < self.view() {
            return Ok(());
        }
        if timeout.view > self.view() {
            return Err(Rejected::ViewAhead);
        }
        self.pacemaker.record_timeout(Verified::vouch(timeout));
        Ok(())
    }

    fn handle_certificates(&mut self, certificates: Certificates) -> Result<(), Rejected> {
        // One that is not higher teaches nothing and need not be verified.
        if certificates.high_qc.view > self.safety.high_qc().get().view {
            let qc = self.verify_qc(&certificates.high_qc)?;
            self.absorb_qc(&qc);
        }
        certificates.high_tc.map_or(Ok(()), |tc| self.take_tc(&tc))
    }

    pub(super) fn handle_timer(&mut self, now: Millis) {
        if !self.pacemaker.timer_ended(now) {
            return;
        }
        if !self.time_out()
            && let Some(timeout) = self.safety.last_timeout().cloned()
        {
            // P3: the stored bytes again, with the vote that the leader may have missed.
            let vote = self.own_vote_in(timeout.view).cloned();
            self.outputs.extend(vote.map(|vote| Output::Broadcast(Message::Vote(vote))));
            self.outputs.push_back(Output::Broadcast(Message::Timeout(timeout)));
        }
        // Some peer may lack the commands that this view waits for, and rest.
        let commands = self.pending.oldest(None);
        if !commands.is_empty() {
            self.outputs.push_back(Output::Broadcast(Message::Commands(commands)));
        }
    }

    /// A QC of the same statement as the highest one needs no second check; this replica's own bytes of it
    /// are kept.
    pub(super) fn verify_qc(
        &mut self,
        qc: &QuorumCertificate,
    ) -> Result<Verified<QuorumCertificate>, CertificateError> {
        let known = self.safety.high_qc();
        if qc.same_statement(known.get()) {
            let known = known.clone();
            // Its signatures were not checked, so no more of them than a certificate may have are looked at.
            if check_signers(&self.committee, qc.signatures.iter().map(|(signer, _)| *signer)).is_ok() {
                self.witness(Spoken::votes(qc), Checked::No);
            }
            return Ok(known);
        }
        let verified = qc.clone().verify(&self.committee)?;
        self.look_for_own_vote(verified.get());
        self.witness(Spoken::votes(verified.get()), Checked::Yes);
        Ok(verified)
    }

    /// Takes in a TC that leads to a later view. Another one says nothing new: its highest QC is not above that
    /// of an honest sender, which comes with it. In a bad hour each peer repeats its own, so none is checked in vain.
    fn take_tc(&mut self, tc: &TimeoutCertificate) -> Result<(), Rejected> {
        if tc.view >= self.view() {
            let tc = tc.clone().verify(&self.committee)?;
            self.look_for_own_timeout(tc.get());
            self.absorb_tc(&tc);
        }
        Ok(())
    }

    /// A TC of a view below the current entry's can neither lead anywhere nor justify a proposal: `None`.
    fn verify_tc(
        &mut self,
        tc: TimeoutCertificate,
    ) -> Result<Option<Verified<TimeoutCertificate>>, CertificateError> {
        if tc.view.next() < self.view() {
            return Ok(None);
        }
        let verified = tc.verify(&self.committee)?;
        self.look_for_own_timeout(verified.get());
        Ok(Some(verified))
    }
}

/// The block with the bytes of the certificate that was checked: only those are stored and served.
pub(super) fn with_checked_justify(block: Arc<Block>, justify: &Verified<QuorumCertificate>) -> Arc<Block> {
    if block.justify() == justify.get() {
        return block;
    }
    Arc::new(Arc::unwrap_or_clone(block).with_justify(justify.get().clone()))
}
