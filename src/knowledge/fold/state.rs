//! The replicated state and the one function that changes it: [`State::apply`] (rules C1 to C4).
//!
//! It routes commands to the parts that hold the rules, and puts their changes in order. Invariant: a
//! refused command changes nothing but what the rules name, and no input makes it panic.

mod encoding;

pub use encoding::RestoreError;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    agreed_time::AgreedTime,
    evidence::{EvidenceLog, EvidenceRefusal},
    operations::{Operations, OperatorRefusal, Parties},
    readings::IndicatorMemory,
    targets::Targets,
    windows::{Closing, HeldReport, OpenWindows, counted},
};
use crate::{
    knowledge::{
        certified::Certified,
        change::{Change, ClosedWindow, PlanRefusal, ReceiptRefusal, ReportRefusal, Turn},
        command::Command,
        evidence::{EvidenceClaim, EvidenceError, Slot, VerifiedEvidence},
        genesis::{Genesis, GenesisError},
        head::{Head, SHARD_TARGETS},
        merge::CountedReports,
        observation::{SignedReport, SignedTick, WindowSummary},
        operator_request::VerifiedOperatorRequest,
        plan::Plan,
        receipt::{ReceiptError, VerifiedReceipt, claimed_target},
        root::Operators,
        snapshot::{Finality, Snapshot},
    },
    types::{
        Committee, Cycle, Digest, EnvelopeError, Evidence, ReplicaIndex, Shard, TargetId, UnixMillis,
        WindowIndex,
    },
};

/// The most bytes that a report's body may have: the default limit of 10,000 series at 300 bytes each, which
/// is what consensus carries in one command. With 8 open windows a replica, it bounds the kept reports.
pub const MAX_REPORT_BODY_BYTES: usize = 3 * 1024 * 1024;

/// The protocol number of statements that are no consensus messages.
const NO_PROTOCOL: u8 = 0;

/// The replicated state: equal at all replicas that have applied the same commands.
#[derive(Clone, Debug)]
pub struct State {
    genesis: Genesis,
    committee: Committee,
    operators: Operators,
    /// Places of policies in the genesis, by the digest that plans name.
    policies: BTreeMap<Digest, usize>,
    agreed: AgreedTime,
    windows: OpenWindows,
    /// One for each policy, in the order of the genesis.
    memories: Vec<IndicatorMemory>,
    /// The newest cycle's number.
    cycle: Cycle,
    targets: Targets,
    operations: Operations,
    evidence: EvidenceLog,
}

/// What one command changed, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The changes, in the order in which they happened.
    pub changes: Vec<Change>,
}

impl Applied {
    /// The windows that closed, oldest first. Detectors see every one of them.
    pub fn closed(&self) -> impl Iterator<Item = &ClosedWindow> {
        self.changes.iter().filter_map(as_closed)
    }

    /// The newest window that closed: the only one that may plan.
    #[must_use]
    pub fn newest_closed(&self) -> Option<&ClosedWindow> {
        self.changes.iter().rev().find_map(as_closed)
    }
}

const fn as_closed(change: &Change) -> Option<&ClosedWindow> {
    match change {
        Change::WindowClosed(closed) => Some(closed),
        Change::TimeMoved(_)
        | Change::Gap { .. }
        | Change::Found { .. }
        | Change::PlanLogged(_)
        | Change::PlanRefused { .. }
        | Change::HeadDerived(_)
        | Change::ReceiptLogged { .. }
        | Change::ReceiptRefused { .. }
        | Change::EffectSettled { .. }
        | Change::ReportRefused { .. }
        | Change::OperatorRequestLogged { .. }
        | Change::OperatorRequestRefused { .. }
        | Change::EvidenceLogged(_)
        | Change::EvidenceRefused { .. }
        | Change::Malformed => None,
    }
}

impl State {
    /// The state before the first command.
    ///
    /// # Errors
    /// [`GenesisError`] when the genesis does not pass its check.
    pub fn new(genesis: Genesis, committee: Committee, operators: Operators) -> Result<Self, GenesisError> {
        genesis.check()?;
        let policies = genesis.policies.iter().enumerate();
        Ok(Self {
            policies: policies.map(|(place, policy)| (Digest::of_value(policy), place)).collect(),
            agreed: AgreedTime::new(committee.size()),
            windows: OpenWindows::default(),
            memories: vec![IndicatorMemory::default(); genesis.indicators().count()],
            cycle: Cycle::ZERO,
            targets: Targets::new(&genesis),
            operations: Operations::new(&genesis),
            evidence: EvidenceLog::default(),
            genesis,
            committee,
            operators,
        })
    }

    /// Applies one committed command, given as the two byte strings that consensus carried.
    pub fn apply(&mut self, head: &[u8], body: &[u8]) -> Applied {
        let mut changes = Vec::new();
        match Command::decode(head, body) {
            Ok(Command::Report { report, summary }) => {
                self.report(&report, summary, body, &mut changes);
            }
            Ok(Command::Tick(tick)) => self.tick(&tick, &mut changes),
            Ok(Command::Certified { envelope }) => self.certified(&envelope, &mut changes),
            Ok(Command::Receipt { envelope }) => self.receipt(envelope, &mut changes),
            Ok(Command::OperatorRequest { envelope }) => self.operator_request(&envelope, &mut changes),
            Ok(Command::Evidence(evidence)) => changes.push(self.take_evidence(evidence)),
            Err(_) => changes.push(Change::Malformed), // C1
        }
        Applied { changes }
    }

    /// What a control cycle may read after this window: of the windows that one command closed, the newest
    /// plans; detectors see a snapshot of each.
    #[must_use]
    pub fn snapshot(&self, closed: &ClosedWindow) -> Snapshot<'_> {
        let ids = self.genesis.targets.iter().map(|target| target.id.clone());
        Snapshot {
            cluster: self.committee.cluster(),
            epoch: self.committee.epoch(),
            cycle: closed.cycle,
            now: closed.closed_at,
            window: closed.window,
            finality: closed.finality,
            reporters: closed.reporters.clone(),
            readings: closed.readings.clone(),
            targets: ids.zip(self.targets.states(closed.closed_at)).collect(),
            stopped: self.stopped(),
            genesis: &self.genesis,
        }
    }

    /// O8: the stopped targets, and the names of the operators whose stops hold, in the order of their keys.
    fn stopped(&self) -> BTreeMap<TargetId, Vec<String>> {
        let permits = self.genesis.targets.iter().zip(0..);
        let stopped = permits.filter_map(|(target, place)| {
            let permit = self.operations.target(place).filter(|permit| permit.is_stopped())?;
            let names = permit.stops().filter_map(|(key, _)| self.operators.by_key(key));
            Some((target.id.clone(), names.map(|operator| operator.name.clone()).collect()))
        });
        stopped.collect()
    }

    /// Whether this replica should submit a tick now, by its own clock (rule W10).
    #[must_use]
    pub fn wants_tick(&self, replica: ReplicaIndex, clock: UnixMillis) -> bool {
        let (size, parameters) = (self.committee.size(), &self.genesis.parameters);
        self.windows.wants_tick(replica, clock, size, &self.agreed, parameters)
    }

    /// The digest of the whole state's canonical bytes.
    #[must_use]
    pub fn root(&self) -> Digest {
        Digest::of_value(self)
    }

    /// Of each target that has one, the newest logged plan with the certificate that was ordered.
    pub fn newest_plans(&self) -> impl Iterator<Item = &Arc<Certified<Plan>>> {
        self.targets.newest_plans()
    }

    /// The newest window that is closed, or passed over; `None` before the first agreed time.
    #[must_use]
    pub fn newest_closed(&self) -> Option<WindowIndex> {
        self.windows.newest_closed()
    }

    /// Agreed time; `None` until a quorum of replicas has said what time it is.
    #[must_use]
    pub const fn now(&self) -> Option<UnixMillis> {
        self.agreed.now()
    }

    /// The sequence number of a target's newest logged plan, zero before the first; `None` for a target that is
    /// not in the genesis.
    #[must_use]
    pub fn newest_seq(&self, target: &TargetId) -> Option<Cycle> {
        self.targets.newest_seq(self.genesis.place(target)?)
    }

    /// The newest cycle's number; zero before the first.
    #[must_use]
    pub const fn cycle(&self) -> Cycle {
        self.cycle
    }

    /// Parameters, targets and policies.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// What operators have ordered.
    #[must_use]
    pub const fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Which replicas are proven to have broken a rule.
    #[must_use]
    pub const fn evidence(&self) -> &EvidenceLog {
        &self.evidence
    }

    /// The operators of the epoch.
    #[must_use]
    pub const fn operators(&self) -> &Operators {
        &self.operators
    }

    /// The committee of the epoch.
    #[must_use]
    pub const fn committee(&self) -> &Committee {
        &self.committee
    }

    fn report(
        &mut self,
        report: &SignedReport,
        summary: WindowSummary,
        body: &[u8],
        changes: &mut Vec<Change>,
    ) {
        let header = &report.header;
        let replica = header.replica;
        let statement = header.statement(&self.committee.domain(NO_PROTOCOL));
        let key = self.committee.key(replica);
        if key.is_none_or(|key| key.verify(&statement, &report.signature).is_err()) {
            changes.push(Change::ReportRefused { replica, why: ReportRefusal::BadSignature }); // C2
            return;
        }
        self.take_time(replica, header.signed_at, changes); // C3, T1
        let series_limit = self.genesis.parameters.series_limit as usize;
        let kept = if body.len() > MAX_REPORT_BODY_BYTES
            || summary.series.len() > series_limit
            || Digest::of(body) != header.body
        {
            Err(ReportRefusal::BadBody)
        } else {
            let held = HeldReport { header: header.clone(), summary: Arc::new(summary) };
            self.windows.keep(held, &self.agreed, &self.genesis.parameters)
        };
        if let Err(why) = kept {
            changes.push(Change::ReportRefused { replica, why });
        }
        self.close_windows(changes); // C4
    }

    fn tick(&mut self, signed: &SignedTick, changes: &mut Vec<Change>) {
        let replica = signed.tick.replica;
        let statement = signed.tick.statement(&self.committee.domain(NO_PROTOCOL));
        let key = self.committee.key(replica);
        if key.is_none_or(|key| key.verify(&statement, &signed.signature).is_err()) {
            changes.push(Change::ReportRefused { replica, why: ReportRefusal::BadSignature }); // C2
            return;
        }
        self.take_time(replica, signed.tick.signed_at, changes);
        self.close_windows(changes); // C4
    }

    fn take_time(&mut self, replica: ReplicaIndex, time: UnixMillis, changes: &mut Vec<Change>) {
        let length = self.genesis.parameters.window;
        let Some(now) = self.agreed.take(replica, time, length) else { return };
        changes.push(Change::TimeMoved(now)); // T3
        self.windows.begin(WindowIndex::containing(now, length)); // W1
        let heads = self.targets.enter_slot(&self.genesis, &self.committee, &self.operations, now); // H2
        changes.extend(heads.into_iter().map(|head| Change::HeadDerived(Box::new(head))));
    }

    fn close_windows(&mut self, changes: &mut Vec<Change>) {
        let Some(now) = self.agreed.now() else { return };
        let size = self.committee.size();
        for closing in self.windows.close(size, &self.agreed, &self.genesis.parameters) {
            if let Some((first, last)) = closing.gap {
                self.cycle = self.cycle.next(); // W9
                self.memories.iter_mut().for_each(IndicatorMemory::interrupt); // R4
                changes.push(Change::Gap { first, last, cycle: self.cycle });
            }
            let closed = self.merge(&closing, now);
            let effects = self.targets.settle_effects(&closed, &self.genesis); // E1
            changes.push(Change::WindowClosed(closed));
            changes.extend(effects);
        }
    }

    fn merge(&mut self, closing: &Closing, now: UnixMillis) -> ClosedWindow {
        let size = self.committee.size();
        self.cycle = self.cycle.next(); // W9
        let finality = if closing.reports.len() >= size.quorum() {
            Finality::Confirmed // W7
        } else {
            Finality::Unconfirmed // W7
        };
        let counted = CountedReports::new(size, counted(&closing.reports));
        let parameters = &self.genesis.parameters;
        let readings = self.genesis.indicators().zip(&mut self.memories).map(|(indicator, memory)| {
            memory.read(closing.window, finality, counted.indicator(indicator), parameters)
        });
        ClosedWindow {
            window: closing.window,
            cycle: self.cycle,
            closed_at: now,
            finality,
            reporters: closing
                .reports
                .values()
                .map(|held| (held.header.replica, held.header.partial))
                .collect(),
            readings: readings.collect(),
            series: counted.all_series(),
        }
    }

    fn certified(&mut self, envelope: &[u8], changes: &mut Vec<Change>) {
        let certified = match Certified::<Plan>::verify(envelope, &self.committee) {
            Ok(certified) => certified,
            Err(error) => {
                let why = PlanRefusal::NotCertified(error.to_string());
                changes.push(Change::PlanRefused { plan: None, why }); // P1
                return;
            }
        };
        let digest = certified.digest();
        match self.log_plan(&certified) {
            Ok((place, now, superseded)) => {
                changes.push(Change::PlanLogged(Box::new(certified))); // P4
                changes.extend(superseded); // E1
                let shard = place / SHARD_TARGETS; // H1
                changes.extend(self.derive_head(shard, now).map(|head| Change::HeadDerived(Box::new(head)))); // H2
            }
            Err(why) => changes.push(Change::PlanRefused { plan: Some(digest), why }),
        }
    }

    /// P1 to P5 and O7; the target's place, agreed time, and the effect of the plan before.
    fn log_plan(
        &mut self,
        certified: &Certified<Plan>,
    ) -> Result<(usize, UnixMillis, Option<Change>), PlanRefusal> {
        let plan = certified.document();
        let place = self.genesis.place(&plan.target).ok_or(PlanRefusal::UnknownTarget)?;
        let policy = *self.policies.get(&plan.policy).ok_or(PlanRefusal::UnknownPolicy)?;
        let now = self.agreed.now().ok_or(PlanRefusal::Late)?; // P3
        let permit = self.operations.target(place).ok_or(PlanRefusal::UnknownTarget)?;
        if permit.is_stopped() {
            return Err(PlanRefusal::Stopped); // O7
        }
        if plan.seq <= permit.lifted() {
            return Err(PlanRefusal::BeforeResume); // O7
        }
        let superseded = self.targets.log_plan(place, policy, certified, &self.genesis, now)?;
        self.operations.plan_logged(place); // O6
        Ok((place, now, superseded))
    }

    fn receipt(&mut self, envelope: Vec<u8>, changes: &mut Vec<Change>) {
        let target = match claimed_target(&envelope) {
            Ok(target) => target,
            Err(error) => {
                let why = ReceiptRefusal::NotVerified(error.to_string());
                changes.push(Change::ReceiptRefused { target: None, why }); // A1
                return;
            }
        };
        match self.log_receipt(&target, &envelope) {
            Ok((verified, turn)) => {
                let receipt = Box::new(verified.receipt().clone());
                changes.push(Change::ReceiptLogged { receipt, envelope, turn }); // A4
            }
            Err(why) => changes.push(Change::ReceiptRefused { target: Some(target), why }),
        }
    }

    fn log_receipt(
        &mut self,
        id: &TargetId,
        envelope: &[u8],
    ) -> Result<(VerifiedReceipt, Turn), ReceiptRefusal> {
        let place = self.genesis.place(id).ok_or(ReceiptRefusal::UnknownTarget)?; // A1
        let target = self.genesis.targets.get(place).ok_or(ReceiptRefusal::UnknownTarget)?;
        let permit = self.operations.target(place).ok_or(ReceiptRefusal::UnknownTarget)?;
        let verified = VerifiedReceipt::verify_of_any(envelope, permit.agents(), self.committee.cluster())
            .map_err(|error| match error {
                ReceiptError::Envelope(EnvelopeError::UnknownKey(key)) => ReceiptRefusal::UnboundKey(key),
                other @ (ReceiptError::Envelope(_)
                | ReceiptError::Signatures(_)
                | ReceiptError::Body(_)
                | ReceiptError::WrongCluster { .. }) => ReceiptRefusal::NotVerified(other.to_string()),
            })?; // A1
        let receipt = verified.receipt();
        self.targets.check_receipt(place, target, receipt)?; // A1, A2
        let digest = verified.digest();
        if self.targets.has_heard(place, digest) {
            return Err(ReceiptRefusal::Replayed); // A3
        }
        let taken = self.operations.take_receipt_counter(place, verified.signer(), receipt.counter);
        let turn = taken.ok_or(ReceiptRefusal::Replayed)?; // A3
        self.targets.log_receipt(place, receipt, digest, turn); // A4
        Ok((verified, turn))
    }

    fn operator_request(&mut self, envelope: &[u8], changes: &mut Vec<Change>) {
        let (cluster, epoch) = (self.committee.cluster(), self.committee.epoch());
        let request = match VerifiedOperatorRequest::verify(envelope, &self.operators, cluster, epoch) {
            Ok(request) => request,
            Err(error) => {
                let why = OperatorRefusal::NotVerified(error.to_string());
                changes.push(Change::OperatorRequestRefused { request: None, why }); // O1
                return;
            }
        };
        let parties =
            Parties { genesis: &self.genesis, operators: &self.operators, committee: &self.committee };
        let has_plan = |place| self.targets.newest_seq(place).is_some_and(|seq| seq > Cycle::ZERO);
        match self.operations.take(&request, parties, self.agreed.now(), self.cycle, has_plan) {
            Ok(places) => {
                let shards: BTreeSet<usize> = places.iter().map(|place| place / SHARD_TARGETS).collect(); // H1
                let now = self.agreed.now();
                let heads: Vec<Head> = now.map_or_else(Vec::new, |now| {
                    shards.iter().filter_map(|shard| self.derive_head(*shard, now)).collect()
                }); // H2, O9
                let numbers = heads.iter().map(|head| (head.shard, head.number)).collect();
                changes.push(Change::OperatorRequestLogged { request: Box::new(request), heads: numbers });
                changes.extend(heads.into_iter().map(|head| Change::HeadDerived(Box::new(head))));
            }
            Err(why) => {
                let request = Some((request.digest(), request.operator().name.clone()));
                changes.push(Change::OperatorRequestRefused { request, why });
            }
        }
    }

    fn take_evidence(&mut self, evidence: Evidence) -> Change {
        let offender = evidence.offender();
        match self.judge(evidence) {
            Ok(verified) => {
                self.evidence.log(&verified, self.agreed.now());
                Change::EvidenceLogged(Box::new(verified))
            }
            Err(why) => Change::EvidenceRefused { offender, why },
        }
    }

    /// Verifies evidence that would be logged. What is refused by its claim alone costs no signature.
    ///
    /// # Errors
    /// [`EvidenceRefusal`] by the rules V1 to V4.
    pub fn judge(&self, evidence: Evidence) -> Result<VerifiedEvidence, EvidenceRefusal> {
        let not_verified = |error: EvidenceError| EvidenceRefusal::NotVerified(error.to_string());
        let claim = EvidenceClaim::of(&evidence, &self.committee).map_err(not_verified)?;
        self.evidence.check(&claim)?; // V2, V3
        let is_known = match &claim.slot {
            Slot::Plan { target, .. } => self.has_target(target),
            Slot::Head { shard, .. } => self.has_shard(shard),
            Slot::View(_) | Slot::Window(_) | Slot::Height(_) => true,
        };
        if !is_known {
            return Err(EvidenceRefusal::UnknownSubject(claim.slot)); // V4
        }
        VerifiedEvidence::verify(evidence, &self.committee).map_err(not_verified) // V1
    }

    /// Whether the genesis has a target of this name.
    #[must_use]
    pub fn has_target(&self, name: &str) -> bool {
        TargetId::new(name).is_ok_and(|target| self.genesis.place(&target).is_some())
    }

    /// Whether this is the name of one of its targets' shards (H1).
    #[must_use]
    pub fn has_shard(&self, name: &str) -> bool {
        let shards = self.genesis.targets.len().div_ceil(SHARD_TARGETS);
        let shard = name.parse::<u16>().ok().filter(|shard| usize::from(*shard) < shards);
        shard.is_some_and(|shard| Shard::new(shard).to_string() == name)
    }

    fn derive_head(&mut self, shard: usize, now: UnixMillis) -> Option<Head> {
        self.targets.derive_head(shard, &self.genesis, &self.committee, &self.operations, now)
    }
}
