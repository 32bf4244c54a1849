//! The core: one replica's consensus as a state machine over time, inputs and outputs.
//!
//! This file holds the type, its inputs and outputs and the order of work after each input; the handlers
//! stand in `handlers`, fetching in `sync`, recovery in `recovery`. Invariant: outputs are carried out in order, and
//! what a [`Output::Persist`] holds is durable before anything later leaves the replica.

mod boundary;
mod checkpoints;
mod handlers;
mod recovery;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    base::{Restated, Standing},
    block::{Block, Command, Payload},
    certificate::{QuorumCertificate, TimeoutCertificate, Verified},
    checkpoint::StableCheckpoint,
    checkpoints::Checkpoints,
    evidence::{Checked, Spoken, Witness},
    fetch::Fetch,
    limits::STALE_ANSWER_INTERVAL,
    message::{Certificates, Message, Proposal, Vote},
    pacemaker::Pacemaker,
    pending::{Admission, Pending, Share},
    record::{Record, StoredProposal, VoteEntry},
    safety::SafetyRecord,
    transfer::{Transfer, TransferProgress},
    tree::BlockTree,
    votes::Votes,
};
use crate::types::{Committee, Digest, Height, Millis, ReplicaIndex, View};

pub use boundary::{Config, Input, Output, Rejected};
pub use recovery::{Recovery, RecoveryError};

/// How much a replica keeps of what peers and submitters sent; each has its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffered {
    /// Votes: at most one for each peer in each of two views.
    pub votes: usize,
    /// Timeouts: at most one for each peer.
    pub timeouts: usize,
    /// Uncommitted blocks, at most [`MAX_TREE_BLOCKS`](super::limits::MAX_TREE_BLOCKS).
    pub uncommitted_blocks: usize,
    /// Committed blocks, at most [`COMMITTED_BLOCKS_IN_MEMORY`](super::limits::COMMITTED_BLOCKS_IN_MEMORY).
    pub committed_blocks: usize,
    /// Waiting commands of the submitter with the most, at most what all shares may have together.
    pub commands_of_one: usize,
    /// Peers whose next answer has its time: at most all.
    pub answers_noted: usize,
    /// Statements that later ones may contradict: for each of some ten views at most three a replica.
    pub statements: usize,
}

/// The first valid proposal of the current view, kept until its parent is here.
#[derive(Clone, Debug)]
struct Candidate {
    block: Arc<Block>,
    justify: Verified<QuorumCertificate>,
    entry: Option<Verified<TimeoutCertificate>>,
}

/// One replica's consensus. A copy is for models that ask what comes next; a driver runs one, for two of one key are
/// two replicas that contradict each other.
#[derive(Clone, Debug)]
pub struct Core {
    committee: Arc<Committee>,
    me: ReplicaIndex,
    safety: SafetyRecord,
    pacemaker: Pacemaker,
    tree: BlockTree,
    votes: Votes,
    witness: Witness,
    pending: Pending,
    fetch: Fetch,
    checkpoints: Checkpoints,
    transfer: Transfer,
    candidate: Option<Candidate>,
    /// This replica's proposal for the current view, to be sent again.
    own_proposal: Option<Proposal>,
    stale_answers: BTreeMap<ReplicaIndex, Millis>,
    /// When each peer was last given the stable checkpoint for its statement.
    checkpoint_answers: BTreeMap<ReplicaIndex, Millis>,
    /// When each peer was last told of committed commands.
    committed_answers: BTreeMap<ReplicaIndex, Millis>,
    /// When each peer's next request for blocks is answered.
    block_answers: BTreeMap<ReplicaIndex, Millis>,
    /// When each peer's answered requests for chunks are paid for.
    chunk_answers: BTreeMap<ReplicaIndex, Millis>,
    /// Proof that this replica signed more than its journal knows: it signs nothing any more.
    forgotten: Option<View>,
    /// Whether another process signs with this replica's key: it signs nothing until it is started again.
    key_in_use: bool,
    /// Whether no input has come since the start: the timers have never been looked at.
    fresh: bool,
    outputs: VecDeque<Output>,
}

impl Core {
    fn new(config: Config) -> Self {
        let Config { committee, me, key, times, checkpoint_interval } = config;
        let size = committee.size();
        Self {
            safety: SafetyRecord::new(Arc::clone(&committee), me, key),
            pacemaker: Pacemaker::new(size, times),
            tree: BlockTree::new(&committee),
            votes: Votes::new(size),
            witness: Witness::new(Arc::clone(&committee)),
            pending: Pending::default(),
            fetch: Fetch::default(),
            checkpoints: Checkpoints::new(size, checkpoint_interval),
            transfer: Transfer::new(me, size),
            candidate: None,
            own_proposal: None,
            stale_answers: BTreeMap::new(),
            checkpoint_answers: BTreeMap::new(),
            committed_answers: BTreeMap::new(),
            block_answers: BTreeMap::new(),
            chunk_answers: BTreeMap::new(),
            forgotten: None,
            key_in_use: false,
            fresh: true,
            outputs: VecDeque::new(),
            committee,
            me,
        }
    }

    /// Takes one input at a time on the driver's monotonic clock.
    ///
    /// # Errors
    /// [`Rejected`] when the input is a peer's bad message or a command that finds no room. The state is then
    /// as before, but for certificates in the message that did verify.
    pub fn handle(&mut self, now: Millis, input: Input) -> Result<(), Rejected> {
        let result = match input {
            Input::Message { from, message } => self.handle_message(now, from, message),
            Input::Submit(command) => self.handle_submission(Share::Own, command),
            Input::SubmitFor(share, command) => self.handle_submission(share, command),
            Input::PeerConnected(peer) => {
                self.redeliver_to(peer);
                Ok(())
            }
            Input::StateAt { height, snapshot, installed } => {
                self.handle_state(height, snapshot, installed);
                Ok(())
            }
            Input::Reloaded(height) => {
                self.checkpoints.begin_at(height);
                Ok(())
            }
            Input::KeyInUse => {
                self.key_in_use = true;
                Ok(())
            }
            Input::Timer => {
                self.handle_timer(now);
                Ok(())
            }
        };
        self.advance(now);
        result
    }

    /// The next thing to do, in order; `None` when all is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle`] with [`Input::Timer`] at the latest; `None` while the replica rests. Right
    /// after the start that is at once: what the journal left unfinished needs its timers though no peer speaks.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Millis> {
        if self.fresh {
            return Some(Millis::ZERO);
        }
        let deadlines = [
            self.pacemaker.deadline(),
            self.fetch.deadline(),
            self.transfer.deadline(),
            self.checkpoints.resend_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The current view.
    #[must_use]
    pub const fn view(&self) -> View {
        self.pacemaker.view()
    }

    /// The newest committed height.
    #[must_use]
    pub const fn committed_height(&self) -> Height {
        self.tree.committed_height()
    }

    /// The highest QC, which is also the lock.
    #[must_use]
    pub const fn high_qc(&self) -> &Verified<QuorumCertificate> {
        self.safety.high_qc()
    }

    /// How many commands wait to be committed.
    #[must_use]
    pub fn pending_commands(&self) -> usize {
        self.pending.len()
    }

    /// How much is kept of what peers and submitters sent.
    #[must_use]
    pub fn buffered(&self) -> Buffered {
        Buffered {
            votes: self.votes.len(),
            timeouts: self.pacemaker.kept_timeouts(),
            uncommitted_blocks: self.tree.uncommitted_blocks(),
            committed_blocks: self.tree.recent_above(Height::ZERO).count(),
            commands_of_one: self.pending.most_of_one(),
            answers_noted: self.stale_answers.len().max(self.block_answers.len()),
            statements: self.witness.len(),
        }
    }

    /// Whether there is anything to agree on (rule I1).
    #[must_use]
    pub fn is_awake(&self) -> bool {
        // Whoever holds the QC of the view before may hold its TC too, and has nothing to wait for.
        let entered_by_tc = self.safety.high_qc().get().view.next() != self.view();
        !self.pending.is_empty() || entered_by_tc || self.chain_needs_a_commit()
    }

    /// The height that a certificate proves to exist above what is here, while a fetch goes on.
    #[must_use]
    pub fn fetching(&self) -> Option<Height> {
        self.fetch.target().map(|target| target.get().height)
    }

    /// The view of a statement that this replica signed and its journal does not hold. The journal was lost or
    /// is an older copy, so the replica signs nothing any more (rule R2).
    #[must_use]
    pub const fn forgotten(&self) -> Option<View> {
        self.forgotten
    }

    /// Whether this replica signs nothing (rules R2, R3).
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.forgotten.is_some() || self.key_in_use
    }

    /// How far a state transfer has come, while there is one.
    #[must_use]
    pub fn transfer(&self) -> Option<TransferProgress> {
        self.transfer.progress()
    }

    /// The newest checkpoint whose certified state is this replica's own (rule K2).
    #[must_use]
    pub fn stable_checkpoint(&self) -> Option<&StableCheckpoint> {
        self.checkpoints.stable().map(Verified::get)
    }

    /// The height of the newest state that the application was told to begin at; zero before any. A state that it names
    /// before it knows of that is no state of this replica any more.
    #[must_use]
    pub const fn installed(&self) -> Height {
        self.checkpoints.installed()
    }

    /// The newest view in which this replica signed anything.
    #[must_use]
    pub fn signed_view(&self) -> View {
        self.safety.signed_view()
    }

    /// Whether the candidate or an uncommitted block on the highest certificate's chain is one that somebody waits
    /// for: it has commands, or its view was entered by a timeout certificate.
    fn chain_needs_a_commit(&self) -> bool {
        let proposed = self.candidate.as_ref().is_some_and(|candidate| !candidate.block.payload().is_empty());
        let awaited =
            |block: &Arc<Block>| !block.payload().is_empty() || block.justify().view.next() != block.view();
        proposed
            || self.tree.path(self.safety.high_qc().get().block).is_some_and(|path| path.iter().any(awaited))
    }

    /// Does all that the last input made possible: votes, certificates, proposals, fetches, the timer.
    fn advance(&mut self, now: Millis) {
        self.fresh = false;
        while self.try_vote() || self.try_certify() || self.try_give_up() || self.try_propose() {}
        if self.is_awake() {
            self.pacemaker.start_timer(now);
        } else {
            self.pacemaker.stop_timer();
        }
        self.request_blocks(now);
        self.request_chunks(now);
        self.resend_checkpoint(now);
    }

    /// Proposes when this replica leads the view and there is something to agree on (rules B3, I1).
    fn try_propose(&mut self) -> bool {
        let view = self.view();
        if self.pacemaker.leader(view) != self.me
            || self.is_silent()
            || !self.safety.may_propose(view)
            || !self.is_awake()
        {
            return false;
        }
        let justify = self.safety.high_qc().clone();
        let entry = if justify.get().view.next() == view {
            None
        } else {
            let Some(tc) = self.pacemaker.entry_tc() else { return false };
            Some(tc.clone())
        };
        let Some(path) = self.tree.path(justify.get().block) else {
            self.fetch.want(&justify);
            return false;
        };
        let payload = self.payload_after(&path);
        let proposal = self.safety.propose(view, entry.as_ref().map(|tc| tc.get().clone()), payload);
        let block = Arc::clone(&proposal.block);
        self.store_block(&block);
        self.outputs.push_back(Output::Persist(Record::Proposal {
            block: block.id(),
            proposal: StoredProposal::of(&proposal),
        }));
        self.outputs.push_back(Output::Broadcast(Message::Proposal(proposal.clone())));
        self.own_proposal = Some(proposal);
        self.candidate = Some(Candidate { block, justify, entry });
        true
    }

    fn payload_after(&mut self, path: &[Arc<Block>]) -> Payload {
        let ordered: BTreeSet<Digest> =
            path.iter().flat_map(|block| block.payload().commands()).map(Command::digest).collect();
        self.pending.next_payload(&ordered)
    }

    /// Votes for the current view's proposal once its parent is here (rules V1, V2, V3).
    fn try_vote(&mut self) -> bool {
        let Some(candidate) = self.candidate.as_ref().filter(|_| !self.is_silent()) else {
            return false;
        };
        let block = Arc::clone(&candidate.block);
        if self.safety.voted_at_or_after(block.view()) || self.safety.timed_out_at_or_after(block.view()) {
            return false;
        }
        if self.tree.path(block.parent()).is_none() {
            let justify = candidate.justify.clone();
            self.fetch.want(&justify);
            return false;
        }
        let (justify, entry) = (candidate.justify.clone(), candidate.entry.clone());
        let Ok(vote) = self.safety.vote(&block, &justify) else { return false };
        self.store_block(&block);
        let high_qc = self.safety.high_qc().get();
        let high_qc = (!high_qc.same_statement(justify.get())).then(|| high_qc.clone());
        let entry = match entry {
            Some(tc) => VoteEntry::Timeout(tc.into_inner()),
            None => VoteEntry::Justification,
        };
        self.outputs.push_back(Output::Persist(Record::Vote { vote: vote.clone(), entry, high_qc }));
        self.outputs.push_back(Output::Broadcast(Message::Vote(vote.clone())));
        self.votes.count(Verified::vouch(vote));
        true
    }

    /// Forms the current view's QC from votes, or its TC from timeouts, and enters the next view.
    fn try_certify(&mut self) -> bool {
        if let Some(qc) = self.votes.certificate(self.view()) {
            self.absorb_qc(&qc);
            return true;
        }
        let Some(tc) = self.pacemaker.timeout_certificate() else { return false };
        self.absorb_tc(&tc);
        // The next leader may lack one of these timeouts, and then waits for this certificate.
        let leader = self.pacemaker.leader(self.view());
        if leader != self.me {
            let message = Message::Certificates(self.certificates());
            self.outputs.push_back(Output::Send { to: leader, message });
        }
        true
    }

    /// Times out once f + 1 replicas have (rule P4).
    fn try_give_up(&mut self) -> bool {
        self.pacemaker.others_timed_out() && self.time_out()
    }

    /// Gives the current view up; says whether that is new (rule P3).
    fn time_out(&mut self) -> bool {
        if self.is_silent() {
            return false;
        }
        let entry = self.pacemaker.entry_tc().map(|tc| tc.get().clone());
        let Some(timeout) = self.safety.time_out(self.view(), entry) else { return false };
        if self.candidate.is_none() && self.pacemaker.leader(self.view()) != self.me {
            self.pacemaker.mark_silent();
        }
        self.outputs.push_back(Output::Persist(Record::Timeout(timeout.clone())));
        self.outputs.push_back(Output::Broadcast(Message::Timeout(timeout.clone())));
        self.pacemaker.record_timeout(Verified::vouch(timeout));
        true
    }

    /// Puts a block into the tree and the journal, once, and its commands among the waiting ones.
    fn store_block(&mut self, block: &Arc<Block>) {
        if self.tree.contains(block.id()) {
            return;
        }
        self.tree.insert(Arc::clone(block));
        self.outputs.push_back(Output::Persist(Record::Block(Arc::clone(block))));
        self.wait_for_commands_of(block);
    }

    /// A block's commands wait like any others: whether it is committed or not, all shall know them.
    fn wait_for_commands_of(&mut self, block: &Block) {
        for command in block.payload().commands() {
            self.pending.insert(block.proposer(), Share::Own, command.clone());
        }
    }

    /// Takes in a verified QC: the lock, the view, and what it commits (rules V2, P1, C1).
    fn absorb_qc(&mut self, qc: &Verified<QuorumCertificate>) {
        if !self.safety.raise(qc) {
            return;
        }
        self.enter_after(qc.get().view);
        if self.tree.path(qc.get().block).is_some() {
            self.commit_by(qc.get());
        } else {
            self.fetch.want(qc);
        }
    }

    fn absorb_tc(&mut self, tc: &Verified<TimeoutCertificate>) {
        self.absorb_qc(&tc.high_qc());
        self.pacemaker.keep_tc(tc);
        self.enter_after(tc.get().view);
    }

    fn enter_after(&mut self, certified: View) {
        if self.pacemaker.enter(certified) {
            let view = self.view();
            self.votes.enter(view);
            self.witness.enter(view);
            self.candidate = None;
            self.own_proposal = None;
        }
    }

    /// Commits what a certificate completes: two certified blocks in consecutive views (rule C1).
    fn commit_by(&mut self, qc: &QuorumCertificate) {
        let Some(child) = self.tree.get(qc.block) else { return };
        let justify = child.justify().clone();
        if child.view() != qc.view || justify.view.next() != qc.view {
            return;
        }
        let Some(path) = self.tree.path(justify.block) else { return };
        let mut certificates: Vec<_> = path.iter().skip(1).map(|block| block.justify().clone()).collect();
        certificates.push(justify);
        for (block, certificate) in path.into_iter().zip(certificates) {
            self.commit(block, certificate);
        }
        self.pacemaker.committed(self.tree.committed_view());
        self.tree.prune(self.safety.high_qc().get().block);
    }

    fn commit(&mut self, block: Arc<Block>, certificate: QuorumCertificate) {
        for command in block.payload().commands() {
            self.pending.commit(command.digest());
        }
        let committed = self.tree.commit(block, certificate);
        self.checkpoints.committed(&committed);
        self.outputs.push_back(Output::Append(Record::Committed {
            height: committed.block.height(),
            block: committed.block.id(),
            certificate: committed.certificate.clone(),
        }));
        self.outputs.push_back(Output::Commit(committed));
    }

    fn certificates(&self) -> Certificates {
        let high_qc = self.safety.high_qc().get().clone();
        let high_tc =
            self.pacemaker.high_tc().map(Verified::get).filter(|tc| tc.view > high_qc.view).cloned();
        Certificates { high_qc, high_tc }
    }

    /// Answers a stale message with the newest certificates, at most so often per peer (rule P6).
    fn answer_stale(&mut self, now: Millis, to: ReplicaIndex) {
        let due = self.stale_answers.get(&to).is_none_or(|last| now >= last.plus(STALE_ANSWER_INTERVAL));
        if due {
            self.stale_answers.insert(to, now);
            let message = Message::Certificates(self.certificates());
            self.outputs.push_back(Output::Send { to, message });
        }
    }

    /// Sends a peer what it may have missed: certificates, this view's own messages, own waiting commands.
    fn redeliver_to(&mut self, to: ReplicaIndex) {
        let view = self.view();
        let mut messages = vec![Message::Certificates(self.certificates())];
        messages.extend(self.own_proposal.clone().map(Message::Proposal));
        let vote = self.safety.last_vote().filter(|vote| vote.view == view);
        messages.extend(vote.cloned().map(Message::Vote));
        let timeout = self.safety.last_timeout().filter(|timeout| timeout.view == view);
        messages.extend(timeout.cloned().map(Message::Timeout));
        messages.extend(self.checkpoints.stable().map(|stable| Message::Checkpoint(stable.get().clone())));
        messages.extend(self.safety.checkpoint_votes().cloned().map(Message::CheckpointVote));
        let commands = self.pending.oldest(Some(self.me));
        if !commands.is_empty() {
            messages.push(Message::Commands(commands));
        }
        self.outputs.extend(messages.into_iter().map(|message| Output::Send { to, message }));
    }

    /// What a base restates of this replica (rule K3).
    fn restate(&self) -> Box<Restated> {
        let standing = Standing {
            vote: self.safety.last_vote().cloned(),
            timeout: self.safety.last_timeout().cloned(),
            proposal: self.own_proposal.as_ref().map(|own| (own.block.id(), StoredProposal::of(own))),
            proposed: self.safety.last_proposed(),
            checkpoints: self.safety.checkpoint_votes().cloned().collect(),
            high_qc: self.safety.high_qc().get().clone(),
            high_tc: self.pacemaker.high_tc().map(|tc| tc.get().clone()),
            forgotten: self.forgotten,
        };
        let tip = self.tree.tip_certificate().cloned();
        Box::new(Restated { standing, tip, uncommitted: self.tree.uncommitted() })
    }

    /// Rule Y1.
    fn witness(&mut self, spoken: impl IntoIterator<Item = Spoken>, checked: Checked) {
        let current = self.view();
        for spoken in spoken {
            let evidence = self.witness.hear(current, spoken, checked);
            self.outputs.extend(evidence.map(|evidence| Output::Evidence(Box::new(evidence))));
        }
    }

    fn own_vote_in(&self, view: View) -> Option<&Vote> {
        self.safety.last_vote().filter(|vote| vote.view == view)
    }
}
