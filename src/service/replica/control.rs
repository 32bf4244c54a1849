//! The task that owns a replica's control cycle: it carries the cycle's outputs out, closes windows on
//! time, and tells everybody who watches.
//!
//! It decides nothing itself. Invariant: notes that must be durable go to the consensus task, which owns the
//! journal, in one request with what depends on them.

use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    board::Board, event::ReplicaEvent, published::Published, reporting::Reporting, storing::StoreEnds,
    tracing_cycle::CycleTimes,
};
use crate::{
    consensus::{
        Base, Command as Ordered, CommittedBlock, Snapshot, SnapshotId, StableCheckpoint,
        journal::TornTail,
        task::{ConsensusStatus, Event, Request},
        transport::LinkSender,
    },
    cycle::{Cycle, Decided, Folded, Hold, Output, Seal},
    execute::feed::Feed,
    knowledge::{
        certified::Certified, change::Change, evidence::VerifiedEvidence, fold::RestoreError, head::Head,
        plan::Plan,
    },
    monitor::task::MonitorHandle,
    service::{
        api::{Submission, Submissions},
        clock,
        metrics::Metrics,
        status::StatusSnapshot,
        telemetry::CycleTracer,
    },
    types::{Committee, Height, KeyId, Millis, PublicKey, ReplicaIndex, UnixMillis},
};

/// The shortest and the longest time between two looks at the clock.
const SHORTEST_BEAT: Duration = Duration::from_millis(10);
const LONGEST_BEAT: Duration = Duration::from_millis(200);

/// The task's surroundings.
pub(super) struct Surroundings {
    pub(super) committee: Arc<Committee>,
    pub(super) me: ReplicaIndex,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) consensus: watch::Receiver<ConsensusStatus>,
    pub(super) links: LinkSender,
    pub(super) monitor: MonitorHandle,
    pub(super) submissions: Submissions,
    pub(super) store: Option<StoreEnds>,
    pub(super) feed: watch::Sender<Arc<Feed>>,
    pub(super) published: Published,
    pub(super) status: watch::Sender<StatusSnapshot>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tracer: CycleTracer,
    pub(super) told: mpsc::Sender<ReplicaEvent>,
    pub(super) stop: watch::Receiver<bool>,
}

/// What the journal gave back above the state that the cycle has.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) base: Option<Base>,
    pub(super) seals: Vec<Seal>,
    pub(super) blocks: Vec<CommittedBlock>,
    pub(super) torn: Option<TornTail>,
}

impl Remembered {
    /// The newest committed height.
    pub(super) fn height(&self) -> Height {
        let base = self.base.as_ref().map_or(Height::ZERO, |base| base.checkpoint.height());
        self.blocks.last().map_or(base, |last| last.block.height())
    }
}

/// Why the task ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was asked to.
    Stopped,
    /// Consensus is gone.
    ConsensusGone,
    /// A certified state cannot be read.
    Unreadable(Height, RestoreError),
}

pub(super) struct Control {
    cycle: Cycle,
    around: Surroundings,
    name: String,
    feed: Feed,
    board: Board,
    reporting: Reporting,
    times: CycleTimes,
    /// While the journal's blocks are applied again, nothing is sent: it was sent before.
    replaying: bool,
    /// The height of the newest certified state that consensus gave since the start.
    installed: Height,
}

impl Control {
    pub(super) fn new(cycle: Cycle, feed: Feed, around: Surroundings) -> Self {
        let parameters = cycle.state().genesis().parameters;
        let name = around.me.to_string();
        let first = around.status.borrow().clone();
        let key = around.committee.key(around.me).map_or(KeyId::ZERO, PublicKey::id);
        Self {
            board: Board::new(first, parameters, key),
            reporting: Reporting::new(parameters),
            times: CycleTimes::new(around.committee.cluster(), parameters.window, around.tracer.clone()),
            name,
            feed,
            cycle,
            around,
            replaying: false,
            installed: Height::ZERO,
        }
    }

    /// Applies what the journal gave back, then runs until it is stopped.
    pub(super) async fn run(mut self, recovered: Remembered, http: String) -> Ended {
        let height = recovered.height();
        self.replay(recovered).await;
        self.tell(ReplicaEvent::Ready { replica: self.name.clone(), http, height });
        let window = self.cycle.state().genesis().parameters.window;
        let beat = Duration::from_millis(window.as_millis() / 20).clamp(SHORTEST_BEAT, LONGEST_BEAT);
        let mut beats = tokio::time::interval(beat);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = self.around.stop.clone();
        loop {
            tokio::select! {
                event = self.around.events.recv() => match event {
                    Some(event) => if let Err(unreadable) = self.take(event).await { return unreadable },
                    None => return Ended::ConsensusGone,
                },
                Some(submission) = self.around.submissions.next() => self.order(submission).await,
                _ = beats.tick() => self.beat().await,
                () = stopped(&mut stop) => return Ended::Stopped,
            }
            self.carry_out().await;
        }
    }

    #[tracing::instrument(name = "replay", skip_all, fields(blocks = recovered.blocks.len()))]
    async fn replay(&mut self, recovered: Remembered) {
        let Remembered { base, seals, blocks, torn } = recovered;
        if let Some(torn) = torn {
            tracing::warn!(?torn, "a torn tail of the journal was cut off");
        }
        seals.into_iter().for_each(|seal| self.cycle.restore(seal));
        self.reporting.resume_after(self.cycle.newest_report(), clock::wall_clock());
        self.replaying = true;
        self.restored();
        if let (Some(store), Some(base)) = (&self.around.store, &base) {
            store.committed.send_replace(base.checkpoint.height());
        }
        for committed in blocks {
            self.commit(&committed).await;
        }
        self.replaying = false;
        self.cycle.resubmit();
        self.carry_out().await;
        self.publish();
    }

    async fn take(&mut self, event: Event) -> Result<(), Ended> {
        match event {
            Event::Committed(committed) => self.commit(&committed).await,
            Event::Endorsement { from, endorsement } => {
                if let Err(error) = self.cycle.receive(from, endorsement) {
                    self.board.bad_signature(from, &error, clock::wall_clock());
                }
            }
            Event::Evidence(evidence) => self.cycle.accuse(*evidence),
            Event::PeerConnected(peer) => {
                let endorsements = self.cycle.endorsements();
                self.request(Request::Remind { to: peer, endorsements }).await;
            }
            Event::Stable(stable) => {
                let (replica, state) = (self.name.clone(), stable.checkpoint().state.root());
                self.tell(ReplicaEvent::Checkpoint { replica, height: stable.height(), state });
            }
            Event::Diverged { certified, own } => self.diverge(&certified, own),
            Event::Installed { checkpoint, snapshot } => self.install(&checkpoint, &snapshot)?,
        }
        Ok(())
    }

    /// Folds a block and carries out what it led to; at a checkpoint's height it then names the state.
    async fn commit(&mut self, committed: &CommittedBlock) {
        let height = committed.block.height();
        self.cycle.commit(&committed.block);
        self.carry_out().await;
        let interval = self.cycle.state().genesis().parameters.checkpoint_interval;
        if !height.number().is_multiple_of(interval) {
            return;
        }
        match Snapshot::of(&self.cycle.snapshot()) {
            Ok(snapshot) => {
                let note = |seal: &Seal| borsh::to_vec(seal).expect("writing to memory does not fail");
                let notes = self.cycle.seals().iter().map(note).collect();
                let installed = self.installed;
                self.request(Request::Checkpoint { height, snapshot, notes, installed }).await;
            }
            Err(error) => {
                tracing::error!(%height, %error, "there is no checkpoint: the journal is not pruned");
            }
        }
    }

    /// Endorses nothing until the certified state is here.
    fn diverge(&mut self, certified: &StableCheckpoint, own: SnapshotId) {
        let (height, certified) = (certified.height(), certified.checkpoint().state.root());
        let own = own.root();
        let detail = format!("at height {height} a quorum certified the state {certified}; here it is {own}");
        tracing::error!(%height, %certified, %own, "this replica's state is not the certified one");
        self.board.diverged(height, detail.clone(), self.around.me, clock::wall_clock());
        self.tell(ReplicaEvent::Alarm { replica: self.name.clone(), by: self.name.clone(), detail });
        self.publish();
    }

    /// Goes on from a certified state that peers gave, or the journal.
    fn install(&mut self, checkpoint: &StableCheckpoint, snapshot: &Snapshot) -> Result<(), Ended> {
        let (height, state) = (checkpoint.height(), snapshot.id().root());
        if let Err(error) = self.cycle.install(&snapshot.to_bytes()) {
            return Err(Ended::Unreadable(height, error));
        }
        tracing::info!(%height, %state, "going on from a certified state");
        self.installed = height;
        self.restored();
        if let Some(store) = &self.around.store {
            // First why, then that there is something to do.
            store.installed.send_replace(height);
            store.committed.send_replace(height);
        }
        self.tell(ReplicaEvent::Installed { replica: self.name.clone(), height, state });
        self.publish();
        Ok(())
    }

    /// Shows and serves what the state says that was read back.
    fn restored(&mut self) {
        let state = self.cycle.state();
        self.board.restored(state);
        self.board.evidence(state);
        self.around.published.restored(state);
        self.feed.restart_plans(state.newest_plans().cloned());
        self.around.feed.send_replace(Arc::new(self.feed.clone()));
    }

    /// Does what the clock says: windows whose grace is over are reported, then the cycle's own timers.
    async fn beat(&mut self) {
        let now = clock::wall_clock();
        self.board.look(
            &self.around.consensus.borrow(),
            &self.around.links.status(),
            self.around.store.as_ref().map(|store| store.progress.borrow().clone()),
            self.cycle.state(),
            now,
        );
        let parameters = self.cycle.state().genesis().parameters;
        while let Some(window) = self.reporting.due(now) {
            let Ok(closed) = self.around.monitor.close(window).await else { continue };
            let (from, to) = (window.start(parameters.window), window.close(parameters.window));
            if self.board.must_not_report() {
                tracing::debug!(%window, "not reported: the clock is off, or the journal was lost");
                continue;
            }
            tracing::debug!(%window, series = closed.summary.series.len(), partial = closed.partial, "reporting");
            self.times.reported(window, from, to, clock::wall_clock());
            self.cycle.report(window, closed.summary, closed.partial, clock::wall_clock());
        }
        self.cycle.tick(now);
        self.board.set_reported(self.cycle.newest_report());
        self.board.refused(self.around.published.refused());
        self.publish();
    }

    /// A receipt or an operator's request, verified at the API, goes to be ordered.
    async fn order(&mut self, submission: Submission) {
        let Submission { command, share, answer } = submission;
        self.request(Request::Submit { share, command, answer: Some(answer) }).await;
    }

    async fn request(&self, request: Request) {
        if self.around.requests.send(request).await.is_err() {
            tracing::error!("consensus is gone");
        }
    }

    /// Carries out what the cycle put out, in order, as one request to the journal's owner.
    async fn carry_out(&mut self) {
        let (mut notes, mut then, mut submit) = (Vec::new(), Vec::new(), Vec::new());
        let mut heads = Vec::new();
        let mut changed = false;
        while let Some(output) = self.cycle.poll_output() {
            changed = true;
            match output {
                Output::Seal(seal) => {
                    notes.push(borsh::to_vec(&seal).expect("writing to memory does not fail"));
                }
                Output::Endorse(endorsement) => then.push(endorsement),
                Output::Submit(command) => match Ordered::new(command.head, command.body) {
                    Ok(command) => submit.push(command),
                    Err(error) => tracing::error!(%error, "a command is too large to be ordered"),
                },
                Output::Folded(folded) => self.folded(&folded),
                Output::Decided(decided) => self.decided(&decided),
                Output::PlanCertified(plan) => {
                    let (seq, digest) = (plan.document().seq, plan.digest());
                    self.times.certified(seq, clock::wall_clock());
                    let signers = self.board.names(&self.around.committee, plan.signers());
                    self.tell(ReplicaEvent::PlanCertified {
                        replica: self.name.clone(),
                        cycle: seq,
                        digest,
                        signers,
                    });
                }
                Output::HeadCertified(head) => heads.push(head),
                Output::Alarm(alarm) => {
                    let by = self.board.alarm(&alarm, self.around.me, clock::wall_clock());
                    self.tell(ReplicaEvent::alarm(&self.name, &by, &alarm));
                }
            }
        }
        if self.replaying {
            (then, submit) = (Vec::new(), Vec::new());
        }
        if !notes.is_empty() || !then.is_empty() || !submit.is_empty() {
            let (told, durable) = oneshot::channel();
            let wanted = !heads.is_empty();
            self.request(Request::Endorse { notes, then, submit, durable: wanted.then_some(told) }).await;
            // A certificate holds this replica's own signature, which must not leave before its note is durable.
            if wanted && durable.await.is_err() {
                return;
            }
        }
        heads.into_iter().for_each(|head| self.publish_head(head));
        if changed && !self.replaying {
            self.publish();
        }
    }

    fn publish_head(&mut self, head: Box<Certified<Head>>) {
        if let Some(store) = &self.around.store
            && !self.replaying
        {
            // What finds no room is superseded by the next head, and the store's task may have ended.
            let _ = store.heads.try_send(head.clone());
        }
        self.board.head(head.document());
        self.feed.publish_head(*head);
        self.around.feed.send_replace(Arc::new(self.feed.clone()));
    }

    fn folded(&mut self, folded: &Folded) {
        let now = clock::wall_clock();
        let window = self.cycle.state().genesis().parameters.window;
        self.around.published.folded(&folded.changes, &folded.block, self.cycle.state());
        for change in &folded.changes {
            self.around.metrics.changed(change);
            match change {
                Change::WindowClosed(closed) => {
                    self.board.closed(closed);
                    let close = closed.window.close(window);
                    self.times.closed(closed, now);
                    self.tell(ReplicaEvent::window_final(&self.name, closed, close));
                }
                Change::Found { cycle, finding } => {
                    let close = finding.window.close(window);
                    self.tell(ReplicaEvent::found(&self.name, *cycle, finding, close));
                }
                Change::PlanLogged(plan) => self.plan_logged(plan, now),
                Change::ReceiptLogged { receipt, .. } => {
                    self.tell(ReplicaEvent::receipt_logged(&self.name, receipt));
                }
                Change::EffectSettled { target, seq, effect, .. } => {
                    self.tell(ReplicaEvent::effect_settled(&self.name, target, *seq, *effect));
                }
                Change::ReportRefused { replica, why } => tracing::debug!(%replica, ?why, "a report is void"),
                Change::PlanRefused { plan, why } => tracing::debug!(?plan, ?why, "a plan is not logged"),
                Change::ReceiptRefused { target, why } => {
                    tracing::warn!(?target, ?why, "a receipt changes nothing");
                }
                Change::OperatorRequestLogged { request, .. } => {
                    self.board.operations(self.cycle.state());
                    self.tell(ReplicaEvent::operator_request(&self.name, request));
                }
                Change::OperatorRequestRefused { request, why } => {
                    tracing::warn!(?request, %why, "an operator's request changes nothing");
                    if let Some((digest, operator)) = request {
                        self.tell(ReplicaEvent::OperatorRequestRefused {
                            replica: self.name.clone(),
                            operator: operator.clone(),
                            digest: *digest,
                            why: why.to_string(),
                        });
                    }
                }
                Change::EvidenceLogged(evidence) => self.evidence_logged(evidence),
                Change::EvidenceRefused { offender, why } => {
                    tracing::debug!(%offender, %why, "evidence changes nothing");
                }
                Change::TimeMoved(_) | Change::Gap { .. } | Change::HeadDerived(_) | Change::Malformed => {}
            }
        }
        if let Some(store) = &self.around.store {
            store.committed.send_replace(folded.block.height());
        }
    }

    fn plan_logged(&mut self, plan: &Certified<Plan>, now: Moment) {
        let Plan { seq, target, .. } = plan.document();
        let since = self.times.logged(*seq, now).unwrap_or(Millis::ZERO);
        self.around.metrics.plan_took(since);
        self.board.logged(plan);
        self.board.operations(self.cycle.state());
        self.tell(ReplicaEvent::PlanLogged {
            replica: self.name.clone(),
            cycle: *seq,
            target: target.clone(),
            digest: plan.digest(),
            signers: self.board.names(&self.around.committee, plan.signers()),
            since_close_ms: since.as_millis(),
        });
        self.feed.log_plan(plan.clone());
        self.around.feed.send_replace(Arc::new(self.feed.clone()));
    }

    fn evidence_logged(&mut self, evidence: &VerifiedEvidence) {
        self.board.evidence(self.cycle.state());
        if !self.replaying {
            trace_evidence(evidence);
            self.tell(ReplicaEvent::evidence(&self.name, evidence));
        }
    }

    fn decided(&mut self, decided: &Decided) {
        self.times.decided(decided, clock::wall_clock());
        if let Some(bundle) = &decided.bundle {
            self.feed.keep_bundle(Arc::clone(bundle));
            self.around.feed.send_replace(Arc::new(self.feed.clone()));
        }
        for (digest, plan) in &decided.plans {
            self.tell(ReplicaEvent::plan_derived(&self.name, *digest, plan));
        }
    }

    /// Nobody is waited for: an event that finds no room is missed.
    fn tell(&self, event: ReplicaEvent) {
        if !self.replaying {
            let _ = self.around.told.try_send(event);
        }
    }

    fn publish(&mut self) {
        self.cycle.hold(
            match (
                self.board.is_silent() || self.board.has_diverged(),
                self.board.snapshot().store.holds_plans,
            ) {
                (true, _) => Hold::Everything,
                (false, true) => Hold::Plans,
                (false, false) => Hold::Nothing,
            },
        );
        let snapshot = self.board.snapshot();
        if *self.around.status.borrow() != *snapshot {
            self.around.status.send_replace(snapshot.clone());
        }
    }
}

/// Says in the logs and in a span of its own what is proven of a replica.
#[tracing::instrument(
    name = "evidence",
    skip_all,
    fields(
        offender = %evidence.offender(),
        kind = evidence.kind().as_str(),
        about = %evidence.slot(),
        digest = %evidence.digest(),
    )
)]
fn trace_evidence(evidence: &VerifiedEvidence) {
    let (offender, kind) = (evidence.offender(), evidence.kind().as_str());
    tracing::warn!(%offender, kind, about = %evidence.slot(), "a replica is proven to have broken a rule");
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A moment in milliseconds since 1970, for the times kept per cycle.
pub(super) type Moment = UnixMillis;

#[cfg(test)]
mod tests;
