//! The control cycle of one replica: the pure stages put together, in the order of the design.
//!
//! Committed commands are folded into the state; a window that becomes final is analyzed; a plan is derived;
//! what this replica derived it endorses; a quorum of equal endorsements is a certificate, which is submitted
//! to be ordered. It is sans-IO like consensus: methods take inputs and the time, [`Cycle::poll_output`] gives what to
//! do, in order. It holds no protocol of its own and reads no clock.
//!
//! Invariants: an [`Output::Seal`] is durable before any later output leaves the replica, and no output
//! carries a plan's bytes to a peer before a quorum has endorsed them.

mod reports;
mod seals;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    analyze::Analyzer,
    consensus::{
        Block,
        certify::{Certification, Collector, Endorsement, EndorsementError, Subject, SubjectKind},
    },
    knowledge::{
        certified::Certified,
        change::{Change, ClosedWindow},
        command::{Command, EncodedCommand},
        evidence::{EvidenceKind, Slot, VerifiedEvidence},
        finding::Finding,
        fold::{MAX_PROOFS, State},
        genesis::{Genesis, GenesisError},
        head::{HEAD_TYPE, Head},
        observation::{ReportHeader, Tick, WindowSummary},
        plan::{PLAN_TYPE, Plan},
        root::Operators,
    },
    plan::{PlanningReport, plan},
    types::{
        Committee, Cycle as CycleNumber, Digest, Evidence, Millis, ReplicaIndex, SecretKey, UnixMillis,
        WindowIndex,
    },
};

use reports::HeardReports;
pub use seals::Seal;
use seals::{Known, Seals};

/// Replicas that hold a certificate submit it one after the other, this far apart, so that usually one does.
const SUBMISSION_STAGGER: Millis = Millis::new(400);

/// The most certificates that wait to be logged: one a target and cycle, for some hundred targets.
const MAX_SUBMISSIONS: usize = 512;

/// What a replica needs to take part in the control cycle.
#[derive(Clone, Debug)]
pub struct CycleConfig {
    /// What the cluster starts from.
    pub genesis: Genesis,
    /// The committee of the epoch.
    pub committee: Arc<Committee>,
    /// The operators of the epoch.
    pub operators: Operators,
    /// This replica's place.
    pub me: ReplicaIndex,
    /// This replica's key.
    pub key: SecretKey,
}

/// What the driver must do, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write this to the journal. It must be durable before any later output leaves the replica.
    Seal(Seal),
    /// Send this endorsement to every other replica.
    Endorse(Endorsement),
    /// Have this command ordered.
    Submit(EncodedCommand),
    /// A committed block was folded.
    Folded(Folded),
    /// A control cycle ran: what it found and planned here.
    Decided(Decided),
    /// A quorum certified a plan; it is not logged yet.
    PlanCertified(Box<Certified<Plan>>),
    /// A quorum certified a head.
    HeadCertified(Box<Certified<Head>>),
    /// Operators should know.
    Alarm(Alarm),
}

/// What a replica derives without endorsing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It endorses all that it derives.
    Nothing,
    /// It endorses no plan: its knowledge base is too far behind, and the judgement is left to the others.
    Plans,
    /// It endorses nothing: it does not know what it signed before.
    Everything,
}

/// A committed block and what it changed.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The block.
    pub block: Arc<Block>,
    /// What its commands changed, in order.
    pub changes: Vec<Change>,
}

/// One control cycle as this replica ran it.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Its number.
    pub cycle: CycleNumber,
    /// The window that it is about.
    pub window: WindowIndex,
    /// What analysis found.
    pub findings: Vec<Finding>,
    /// What each policy did.
    pub report: PlanningReport,
    /// The plans that were derived, with the digests of their bodies.
    pub plans: Vec<(Digest, Plan)>,
    /// What they were derived from: the bytes of the [`EvidenceBundle`](crate::plan::EvidenceBundle) that they name.
    pub bundle: Option<Arc<[u8]>>,
}

/// Something that the loop survives and operators should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A replica endorses something else than this one derived.
    Disagreement {
        /// What it is about.
        subject: Subject,
        /// Who.
        by: ReplicaIndex,
        /// The digest that it names.
        theirs: Digest,
        /// The digest of what was derived here; `None` when nothing was.
        ours: Option<Digest>,
    },
    /// This replica endorsed another digest for the subject before: it signs nothing for it now.
    OwnContradiction {
        /// What it is about.
        subject: Subject,
        /// What was endorsed.
        endorsed: Digest,
        /// What was derived now.
        derived: Digest,
    },
}

#[derive(Debug)]
struct Submission {
    envelope: Vec<u8>,
    issued_at: UnixMillis,
    due: UnixMillis,
}

/// One replica's control cycle.
#[derive(Debug)]
pub struct Cycle {
    committee: Arc<Committee>,
    me: ReplicaIndex,
    key: SecretKey,
    state: State,
    analyzer: Analyzer,
    collector: Collector,
    seals: Seals,
    reports: HeardReports,
    /// The evidence that this replica had ordered since its start.
    accused: BTreeMap<(ReplicaIndex, EvidenceKind), BTreeMap<Slot, VerifiedEvidence>>,
    /// Certified plans that are not logged yet.
    submissions: BTreeMap<Subject, Submission>,
    /// The newest time that the driver told; it only spaces submissions.
    clock: UnixMillis,
    /// What is derived but not endorsed.
    hold: Hold,
    outputs: VecDeque<Output>,
}

impl Cycle {
    /// A control cycle before the first command.
    ///
    /// # Errors
    /// [`GenesisError`] when the genesis contradicts itself.
    pub fn new(config: CycleConfig) -> Result<Self, GenesisError> {
        let CycleConfig { genesis, committee, operators, me, key } = config;
        Ok(Self {
            analyzer: Analyzer::new(&genesis),
            state: State::new(genesis, Committee::clone(&committee), operators)?,
            collector: Collector::new(Arc::clone(&committee), me),
            seals: Seals::default(),
            reports: HeardReports::default(),
            accused: BTreeMap::new(),
            submissions: BTreeMap::new(),
            clock: UnixMillis::ZERO,
            hold: Hold::Nothing,
            outputs: VecDeque::new(),
            committee,
            me,
            key,
        })
    }

    /// Takes back from the journal what this replica signed before a restart. All seals come before the first
    /// block: what was signed then must not be signed differently now.
    pub fn restore(&mut self, seal: Seal) {
        self.seals.keep(seal);
    }

    /// Everything that this replica signed and must know again after a restart: what [`Self::restore`] takes.
    #[must_use]
    pub fn seals(&self) -> Vec<Seal> {
        self.seals.all()
    }

    /// Folds a committed block; blocks come in the order of their heights, each once.
    pub fn commit(&mut self, block: &Arc<Block>) {
        let mut changes = Vec::new();
        let before = self.outputs.len();
        for command in block.payload().commands() {
            self.fold(command.head(), command.body(), &mut changes);
        }
        // What changed is told before what was decided on it.
        self.outputs.insert(before, Output::Folded(Folded { block: Arc::clone(block), changes }));
    }

    /// Takes a peer's endorsement.
    ///
    /// # Errors
    /// [`EndorsementError`] when it is not the peer's own, or about no target or shard; nothing changes then.
    pub fn receive(&mut self, from: ReplicaIndex, endorsement: Endorsement) -> Result<(), EndorsementError> {
        let Subject { kind, of, .. } = &endorsement.subject;
        let is_known = match kind {
            SubjectKind::Plan => self.state.has_target(of),
            SubjectKind::Head => self.state.has_shard(of),
        };
        if !is_known {
            return Err(EndorsementError::UnknownSubject(from));
        }
        let said = self.collector.receive(from, endorsement)?;
        self.take(said);
        Ok(())
    }

    /// Signs and submits this replica's report on a window, once; a window that was reported before is
    /// not reported again, whatever the summary says.
    pub fn report(&mut self, window: WindowIndex, summary: WindowSummary, partial: bool, now: UnixMillis) {
        self.clock = self.clock.max(now);
        if self.seals.newest_report().is_some_and(|newest| window <= newest) {
            return;
        }
        let body = Digest::of_value(&summary);
        let header = ReportHeader { replica: self.me, window, partial, signed_at: now, body };
        let report = header.sign(&self.committee.domain(0), &self.key);
        let command = Command::Report { report, summary }.encode();
        self.seal(Seal::Report { window, head: command.head.clone(), body: command.body.clone() });
        self.outputs.push_back(Output::Submit(command));
    }

    /// Submits the newest sealed report again, with the bytes that were signed, and evidence that was seen in the log
    /// and is not logged: a replica that starts again cannot know whether anybody received it.
    pub fn resubmit(&mut self) {
        self.outputs.extend(self.seals.newest_report_command().map(Output::Submit));
        let evidence = self.accused.values().flat_map(BTreeMap::values);
        let unknown = evidence.filter(|evidence| self.state.evidence().check(&evidence.claim()).is_ok());
        self.outputs.extend(unknown.map(|verified| {
            let evidence = verified.evidence().clone();
            Output::Submit(Command::Evidence(evidence).encode())
        }));
    }

    /// Does what is due by this replica's clock: ticks, and certificates whose turn it is.
    pub fn tick(&mut self, now: UnixMillis) {
        self.clock = self.clock.max(now);
        if self.state.wants_tick(self.me, now) {
            let tick = Tick { replica: self.me, signed_at: now };
            let signed = tick.sign(&self.committee.domain(0), &self.key);
            self.outputs.push_back(Output::Submit(Command::Tick(signed).encode()));
        }
        self.submit_due();
    }

    /// Stops endorsing, or goes on. What is not endorsed here is derived all the same, and the others'
    /// endorsements of it are collected.
    pub const fn hold(&mut self, hold: Hold) {
        self.hold = hold;
    }

    /// Has evidence ordered, unless it proves nothing that is not known.
    pub fn accuse(&mut self, evidence: Evidence) {
        let Ok(verified) = self.state.judge(evidence) else { return };
        let accused = self.accused.entry((verified.offender(), verified.kind())).or_default();
        if accused.len() < MAX_PROOFS && !accused.contains_key(verified.slot()) {
            let command = Command::Evidence(verified.evidence().clone()).encode();
            accused.insert(verified.slot().clone(), verified);
            self.outputs.push_back(Output::Submit(command));
        }
    }

    /// This replica's newest endorsements, for a peer that comes back.
    #[must_use]
    pub fn endorsements(&self) -> Vec<Endorsement> {
        self.collector.own()
    }

    /// The most endorsements that are kept of one peer's, see [`Collector::most_of_one_peer`].
    #[must_use]
    pub fn kept_of_one_peer(&self) -> usize {
        self.collector.most_of_one_peer()
    }

    /// The next thing to do, in order; `None` when all is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The replicated state.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The newest window that this replica reported, also before a restart.
    #[must_use]
    pub const fn newest_report(&self) -> Option<WindowIndex> {
        self.seals.newest_report()
    }

    fn fold(&mut self, head: &[u8], body: &[u8], changes: &mut Vec<Change>) {
        let applied = self.state.apply(head, body);
        let closed = self.state.newest_closed();
        if let Some(evidence) = self.reports.hear(head, &applied.changes, closed, &self.committee) {
            self.accuse(evidence);
        }
        let newest = applied.newest_closed().cloned();
        let mut findings = Vec::new();
        for change in applied.changes {
            findings = self.consider(&change, findings, changes);
            changes.push(change);
        }
        if let Some(closed) = newest {
            self.decide(&closed, findings);
        }
    }

    /// Analyzes every closed window and gap in order, and endorses heads; gives the findings of the newest.
    fn consider(
        &mut self,
        change: &Change,
        findings: Vec<Finding>,
        changes: &mut Vec<Change>,
    ) -> Vec<Finding> {
        match change {
            Change::WindowClosed(closed) => {
                let now = self.state.now().unwrap_or(closed.closed_at);
                let found = self.analyzer.advance(closed, now);
                let cycle = closed.cycle;
                changes.extend(found.iter().cloned().map(|finding| Change::Found { cycle, finding }));
                found
            }
            Change::Gap { last, cycle, .. } => {
                let now = self.state.now().unwrap_or_default();
                let finding = self.analyzer.pass_gap(*last, now);
                changes.push(Change::Found { cycle: *cycle, finding });
                findings
            }
            Change::HeadDerived(head) => {
                let subject = Subject {
                    number: head.number.number(),
                    kind: SubjectKind::Head,
                    of: head.shard.to_string(),
                };
                self.endorse(&subject, HEAD_TYPE, head.to_bytes());
                findings
            }
            Change::PlanLogged(certified) => {
                let (target, seq) = (certified.document().target.as_str(), certified.document().seq.number());
                self.submissions.retain(|subject, _| subject.of != target || subject.number > seq);
                findings
            }
            Change::TimeMoved(_)
            | Change::Found { .. }
            | Change::PlanRefused { .. }
            | Change::ReceiptLogged { .. }
            | Change::ReceiptRefused { .. }
            | Change::ReportRefused { .. }
            | Change::EffectSettled { .. }
            | Change::OperatorRequestLogged { .. }
            | Change::OperatorRequestRefused { .. }
            | Change::EvidenceLogged(_)
            | Change::EvidenceRefused { .. }
            | Change::Malformed => findings,
        }
    }

    /// Derives the plans of the newest closed window, and endorses them.
    fn decide(&mut self, closed: &ClosedWindow, findings: Vec<Finding>) {
        let earlier = self.analyzer.remembered().filter(|finding| finding.window != closed.window);
        let known: Vec<Finding> = findings.iter().chain(earlier).cloned().collect();
        let planned = plan(&self.state.snapshot(closed), &known);
        let mut plans = Vec::with_capacity(planned.plans.len());
        for plan in planned.plans {
            let body = plan.to_bytes();
            let subject = Subject {
                number: plan.seq.number(),
                kind: SubjectKind::Plan,
                of: plan.target.as_str().to_owned(),
            };
            plans.push((Digest::of(&body), plan, subject, body));
        }
        self.outputs.push_back(Output::Decided(Decided {
            cycle: closed.cycle,
            window: closed.window,
            findings,
            report: planned.report,
            plans: plans.iter().map(|(digest, plan, ..)| (*digest, plan.clone())).collect(),
            bundle: planned.bundle.map(Arc::from),
        }));
        for (_, _, subject, body) in plans {
            self.endorse(&subject, PLAN_TYPE, body);
        }
        let unfounded = self.collector.settle_plans(closed.cycle.number());
        self.take(unfounded);
    }

    fn endorse(&mut self, subject: &Subject, document_type: &str, body: Vec<u8>) {
        let holds = match self.hold {
            Hold::Nothing => false,
            Hold::Plans => subject.kind == SubjectKind::Plan,
            Hold::Everything => true,
        };
        if holds {
            let said = self.collector.collect(subject, document_type, body);
            return self.take(said);
        }
        let derived = Digest::of(&body);
        match self.seals.endorsed(subject) {
            Known::Endorsed(endorsed) if endorsed != derived => {
                let alarm = Alarm::OwnContradiction { subject: subject.clone(), endorsed, derived };
                self.outputs.push_back(Output::Alarm(alarm));
                let said = self.collector.collect(subject, document_type, body);
                return self.take(said);
            }
            Known::Endorsed(_) => {}
            Known::New => self.seal(Seal::Endorsed { subject: subject.clone(), digest: derived }),
            Known::Forgotten => {
                let said = self.collector.collect(subject, document_type, body);
                return self.take(said);
            }
        }
        if let Some((endorsement, said)) = self.collector.endorse(subject, document_type, body, &self.key) {
            self.outputs.push_back(Output::Endorse(endorsement));
            self.take(said);
        }
    }

    fn seal(&mut self, seal: Seal) {
        self.seals.keep(seal.clone());
        self.outputs.push_back(Output::Seal(seal));
    }

    fn take(&mut self, said: Vec<Certification>) {
        for certification in said {
            match certification {
                Certification::Certified { subject, envelope } => match subject.kind {
                    SubjectKind::Plan => {
                        let envelope_json = envelope.to_json();
                        if let Ok(certified) = Certified::verify_envelope(envelope, &self.committee)
                            && !self.is_logged(&certified)
                        {
                            self.await_logging(subject, envelope_json, &certified);
                            self.outputs.push_back(Output::PlanCertified(Box::new(certified)));
                        }
                    }
                    SubjectKind::Head => {
                        if let Ok(certified) = Certified::verify_envelope(envelope, &self.committee) {
                            self.outputs.push_back(Output::HeadCertified(Box::new(certified)));
                        }
                    }
                },
                Certification::Proven(evidence) => self.accuse(evidence),
                Certification::Contradicted { subject, by, theirs, ours } => {
                    self.outputs.push_back(Output::Alarm(Alarm::Disagreement { subject, by, theirs, ours }));
                }
            }
        }
    }

    /// Whether this plan or a newer one of its target is logged: a peer that comes back may endorse it again.
    fn is_logged(&self, certified: &Certified<Plan>) -> bool {
        let plan = certified.document();
        self.state.newest_seq(&plan.target).is_some_and(|newest| newest >= plan.seq)
    }

    /// A certified plan is submitted by every holder in turn until it is logged or too late.
    fn await_logging(&mut self, subject: Subject, envelope: Vec<u8>, certified: &Certified<Plan>) {
        let replicas = self.committee.size().replicas() as u64;
        let place = u64::from(self.me.place());
        let turn = (place + replicas - subject.number % replicas) % replicas;
        let due = self.clock.plus(SUBMISSION_STAGGER.times(turn));
        let issued_at = certified.document().issued_at;
        self.submissions.insert(subject, Submission { envelope, issued_at, due });
        if self.submissions.len() > MAX_SUBMISSIONS {
            self.submissions.pop_first();
        }
        self.submit_due();
    }

    fn submit_due(&mut self) {
        let limit = self.state.genesis().parameters.activation_limit;
        let agreed = self.state.now().unwrap_or_default();
        self.submissions.retain(|_, submission| agreed <= submission.issued_at.plus(limit));
        for submission in self.submissions.values_mut().filter(|submission| submission.due <= self.clock) {
            let envelope = submission.envelope.clone();
            self.outputs.push_back(Output::Submit(Command::Certified { envelope }.encode()));
            // Consensus keeps a command until it is committed, so this is the last time.
            submission.due = UnixMillis::new(u64::MAX);
        }
    }
}
