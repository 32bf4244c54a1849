//! Commands in a log: arbitrary bytes, and valid signed ones that say anything, through the fold and the whole cycle.
//!
//! The keys of all replicas are at hand, so even what a quorum would have to lie about is tried. Invariant: two
//! replicas that apply the same log have equal states, and neither time nor cycles nor heads go back.

use std::{collections::BTreeMap, sync::Arc};

use quorate::{
    consensus::{
        self, Block, Payload, QuorumCertificate,
        certify::{Subject, SubjectKind},
    },
    cycle::{Cycle, CycleConfig, Output},
    knowledge::{
        change::Change,
        command::{Command, EncodedCommand},
        fold::State,
        head::{Head, HeadEntry, Mode},
        observation::{AttributeValue, ReportHeader, SeriesKey, SeriesSummary, Tick, WindowSummary},
        operator_request::{All, OperatorRequest, Request, Selection, StopMode},
        plan::{
            DesiredState, Limits, Measure, OnStale, PLAN_TYPE, Plan, Preconditions, Reason, RiskClass,
            Verify, VerifyElse, VerifyOp,
        },
        receipt::{Outcome, RECEIPT_TYPE, Receipt, Refusal},
    },
    types::{
        Cycle as CycleNumber, Digest, Epoch, HeadNumber, Quantity, SecretKey, Shard, SourceId, UnixMillis,
        WindowIndex,
    },
};

use crate::{
    evidence::double_vote,
    messages::endorsement,
    script::Script,
    world::{REPLICAS, WORLD, place, sealed},
};

/// The most commands of a script.
const MOST_COMMANDS: usize = 96;

/// When a log begins: the start of window 100.
pub const BEGIN: u64 = 1_000_000;

/// How many commands a block of the cycle's log holds.
const BLOCK_COMMANDS: usize = 4;

/// A command's two byte strings.
pub fn commands(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (head, body) = (script.bytes(), script.rest());
    let mut state = WORLD.state();
    let before = state.root();
    let applied = state.apply(head, body);
    match Command::decode(head, body) {
        Ok(command) => {
            let again = command.encode();
            assert_eq!(
                (again.head.as_slice(), again.body.as_slice()),
                (head, body),
                "a command has one encoding"
            );
        }
        Err(_) => assert_eq!(applied.changes, [Change::Malformed]),
    }
    assert!(applied.changes != [Change::Malformed] || state.root() == before, "no command, no change");
}

/// A log through two folds.
pub fn fold(bytes: &[u8]) {
    let (mut log, mut script) = (Log::new(), Script::new(bytes));
    let (mut first, mut second) = (WORLD.state(), WORLD.state());
    let mut written: Vec<EncodedCommand> = Vec::new();
    while written.len() < MOST_COMMANDS && !script.is_over() {
        for command in log.step(&mut script, &first) {
            let before = (first.now(), first.cycle());
            let applied = first.apply(&command.head, &command.body);
            assert!(before <= (first.now(), first.cycle()), "neither time nor cycles go back");
            applied.changes.iter().for_each(|change| log.note(change));
            let again = second.apply(&command.head, &command.body);
            assert_eq!(applied, again, "equal logs give equal changes");
            written.push(command);
        }
    }
    assert_eq!(first.root(), second.root(), "equal logs give equal states");
}

/// A log through the control cycles of two replicas, with endorsements between them.
pub fn cycle(bytes: &[u8]) {
    // The second only hears what the first one's script made.
    let (mut log, mut other, mut script) = (Log::new(), Log::new(), Script::new(bytes));
    let mut cycles = [0, 1].map(new_cycle);
    let mut justify = QuorumCertificate::genesis(WORLD.committee());
    let mut ordered = 0;
    while ordered < MOST_COMMANDS && !script.is_over() {
        let block = log.block(&mut script, cycles[0].state(), justify);
        ordered += block.payload().commands().len().max(1);
        justify = certificate_of(&block);
        let now = UnixMillis::new(log.now);
        for cycle in &mut cycles {
            cycle.commit(&block);
            cycle.tick(now);
        }
        let first = outputs(&mut cycles[0], &mut log);
        let second = outputs(&mut cycles[1], &mut other);
        assert_eq!(first.plans, second.plans, "equal logs give equal plans");
        for (number, plan) in &first.plans {
            let subject = Subject { kind: SubjectKind::Plan, number: *number, of: plan.0.clone() };
            for from in 1..1 + script.pick(REPLICAS) {
                let said = endorsement(subject.clone(), &plan.1, from, &WORLD.replicas[from]);
                let _ = cycles[0].receive(place(from), said);
            }
        }
        outputs(&mut cycles[0], &mut log);
    }
    assert_eq!(cycles[0].root(), cycles[1].root(), "equal logs give equal states");
}

/// A replica's cycle before the first command.
pub(crate) fn new_cycle(me: usize) -> Cycle {
    let config = CycleConfig {
        genesis: WORLD.genesis.clone(),
        committee: Arc::new(WORLD.committee().clone()),
        operators: WORLD.root.operators().clone(),
        me: place(me),
        key: WORLD.replicas[me].clone(),
    };
    Cycle::new(config).expect("the genesis is sound")
}

/// Blocks of at most so many commands, each committed by the cycle.
pub(crate) fn blocks_of(
    log: &mut Log,
    script: &mut Script<'_>,
    cycle: &mut Cycle,
    commands: usize,
) -> Vec<Arc<Block>> {
    let mut justify = QuorumCertificate::genesis(WORLD.committee());
    let (mut blocks, mut ordered) = (Vec::new(), 0);
    while ordered < commands && !script.is_over() {
        let block = log.block(script, cycle.state(), justify);
        ordered += block.payload().commands().len().max(1);
        justify = certificate_of(&block);
        cycle.commit(&block);
        cycle.tick(UnixMillis::new(log.now));
        outputs(cycle, log);
        blocks.push(block);
    }
    blocks
}

/// Nobody who folds looks at the signatures.
fn certificate_of(block: &Block) -> QuorumCertificate {
    QuorumCertificate {
        view: block.view(),
        height: block.height(),
        block: block.id(),
        signatures: Vec::new(),
    }
}

/// What a cycle decided: cycle numbers with targets and plans' bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    plans: Vec<(u64, (String, Vec<u8>))>,
}

pub(crate) fn outputs(cycle: &mut Cycle, log: &mut Log) -> Told {
    let mut told = Told::default();
    while let Some(output) = cycle.poll_output() {
        match output {
            Output::Folded(folded) => folded.changes.iter().for_each(|change| log.note(change)),
            Output::Decided(decided) => told.plans.extend(decided.plans.iter().map(|(digest, plan)| {
                let bytes = plan.to_bytes();
                assert_eq!(*digest, Digest::of(&bytes));
                (decided.cycle.number(), (plan.target.as_str().to_owned(), bytes))
            })),
            Output::Submit(command) => log.earlier.push(command),
            Output::Seal(_)
            | Output::Endorse(_)
            | Output::PlanCertified(_)
            | Output::HeadCertified(_)
            | Output::Alarm(_) => {}
        }
    }
    told
}

/// A log as it is written: what its commands refer to.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) now: u64,
    counter: u64,
    newest: BTreeMap<String, Plan>,
    heads: BTreeMap<Shard, HeadNumber>,
    earlier: Vec<EncodedCommand>,
}

impl Log {
    pub(crate) const fn new() -> Self {
        Self { now: BEGIN, counter: 0, newest: BTreeMap::new(), heads: BTreeMap::new(), earlier: Vec::new() }
    }

    fn note(&mut self, change: &Change) {
        match change {
            Change::PlanLogged(certified) => {
                let plan = certified.document();
                self.newest.insert(plan.target.as_str().to_owned(), plan.clone());
            }
            Change::HeadDerived(head) => {
                let newest = self.heads.insert(head.shard, head.number).unwrap_or(HeadNumber::ZERO);
                assert!(newest <= head.number, "heads do not go back");
            }
            Change::WindowClosed(_)
            | Change::TimeMoved(_)
            | Change::Gap { .. }
            | Change::Found { .. }
            | Change::PlanRefused { .. }
            | Change::ReceiptLogged { .. }
            | Change::ReceiptRefused { .. }
            | Change::EffectSettled { .. }
            | Change::ReportRefused { .. }
            | Change::OperatorRequestLogged { .. }
            | Change::OperatorRequestRefused { .. }
            | Change::EvidenceLogged(_)
            | Change::EvidenceRefused { .. }
            | Change::Malformed => {}
        }
    }

    /// The next block of the script's commands.
    fn block(&mut self, script: &mut Script<'_>, state: &State, justify: QuorumCertificate) -> Arc<Block> {
        let mut commands = Vec::new();
        while commands.len() < BLOCK_COMMANDS && !script.is_over() {
            commands.extend(self.step(script, state));
        }
        let carried = commands.into_iter().filter_map(|one| consensus::Command::new(one.head, one.body).ok());
        let view = justify.view.next();
        Arc::new(Block::new(view, place(0), justify, Payload::new(carried.collect())))
    }

    /// The next commands of the script: usually one.
    fn step(&mut self, script: &mut Script<'_>, state: &State) -> Vec<EncodedCommand> {
        let commands = match script.pick(14) {
            0 => {
                self.now = self.now.saturating_add(script.number().saturating_mul(1_000));
                return Vec::new();
            }
            1 => {
                return vec![EncodedCommand { head: script.bytes().to_vec(), body: script.bytes().to_vec() }];
            }
            2 => {
                let back = script.pick(self.earlier.len());
                return self.earlier.iter().rev().nth(back).cloned().into_iter().collect();
            }
            3 => {
                let Some(mut changed) = self.earlier.last().cloned() else { return Vec::new() };
                let part = if script.flag() { &mut changed.head } else { &mut changed.body };
                script.mutate(part);
                return vec![changed];
            }
            4 => vec![self.tick(script.pick(REPLICAS), script)],
            5 => (0..REPLICAS).map(|replica| self.tick(replica, script)).collect(),
            6 | 7 => {
                // A whole window as an honest cluster closes it.
                self.now = self.now.saturating_add(10_000);
                let summary = summary(script);
                let window = WindowIndex::containing(
                    UnixMillis::new(self.now.saturating_sub(10_000)),
                    WORLD.genesis.parameters.window,
                );
                let all = 0..REPLICAS - usize::from(script.flag());
                all.map(|replica| {
                    report(replica, window, self.now.saturating_add(2_000), false, summary.clone())
                })
                .collect()
            }
            8 => vec![self.any_report(script)],
            9 | 10 => vec![self.plan(script, state)],
            11 => {
                let target = WORLD.target(script.pick(4));
                let Some(plan) = self.newest.get(target.as_str()) else { return Vec::new() };
                let envelope = receipt(plan, script.number(), &WORLD.agents[script.pick(WORLD.agents.len())]);
                vec![Command::Receipt { envelope }]
            }
            12 => vec![self.operator_request(script)],
            _ => vec![Command::Evidence(double_vote(script.pick(REPLICAS), script.number()))],
        };
        let encoded: Vec<EncodedCommand> = commands.into_iter().map(Command::encode).collect();
        self.earlier.extend(encoded.iter().cloned());
        encoded
    }

    fn tick(&self, replica: usize, script: &mut Script<'_>) -> Command {
        let signed_at = if script.pick(16) == 0 { script.number() } else { self.now };
        let tick = Tick { replica: place(replica), signed_at: UnixMillis::new(signed_at) };
        Command::Tick(tick.sign(&WORLD.committee().domain(0), &WORLD.replicas[replica]))
    }

    fn any_report(&self, script: &mut Script<'_>) -> Command {
        let current =
            WindowIndex::containing(UnixMillis::new(self.now), WORLD.genesis.parameters.window).index();
        let window = match script.pick(4) {
            0 => script.number(),
            1 => current.saturating_add(script.number() % 16),
            _ => current.saturating_sub(script.number() % 16),
        };
        let signed_at = if script.flag() { script.number() } else { self.now.saturating_add(12_000) };
        let summary = match script.flag() {
            true => borsh::from_slice(script.bytes()).unwrap_or_default(),
            false => summary(script),
        };
        report(script.pick(REPLICAS), WindowIndex::new(window), signed_at, script.flag(), summary)
    }

    fn plan(&self, script: &mut Script<'_>, state: &State) -> Command {
        let target = WORLD.target(script.pick(4));
        let newest = self.newest.get(target.as_str());
        let mut plan = plan(script.pick(5), state.cycle().number().saturating_add(script.number() % 4));
        plan.target = target;
        plan.prev = newest
            .filter(|_| script.pick(8) > 0)
            .map_or(Digest::ZERO, |newest| Digest::of(&newest.to_bytes()));
        plan.issued_at = UnixMillis::new(if script.pick(8) == 0 { script.number() } else { self.now });
        plan.verify.by = plan.issued_at.plus(WORLD.genesis.parameters.window);
        plan.verify.value = Measure {
            value: i64::from_le_bytes(script.number().to_le_bytes()),
            scale: u32::from(script.byte()),
            unit: String::new(),
        };
        plan.desired = desired(script);
        plan.rollback = desired(script);
        let signers = if script.pick(8) == 0 { script.pick(5) } else { 3 };
        Command::Certified {
            envelope: sealed(PLAN_TYPE, plan.to_bytes(), WORLD.replicas.iter().take(signers)),
        }
    }

    fn operator_request(&mut self, script: &mut Script<'_>) -> Command {
        let agent = &WORLD.agents[script.pick(WORLD.agents.len())];
        let target = WORLD.target(script.pick(4));
        let targets = match script.pick(3) {
            0 => Selection::All(All::All),
            1 => Selection::These([target.clone()].into()),
            _ => Selection::These((0..script.pick(4)).map(|place| WORLD.target(place)).collect()),
        };
        let request = match script.pick(5) {
            0 => Request::Stop { targets, mode: StopMode::Hold },
            1 => Request::Stop { targets, mode: StopMode::Revoked },
            2 => {
                let counter = |place: usize| (WORLD.operators[place].public().id(), self.counter);
                let seen = (0..script.pick(WORLD.operators.len() + 1)).map(counter).collect();
                Request::Resume { targets, seen }
            }
            3 => Request::BindAgent {
                target,
                ed25519: Digest::from_bytes(agent.public().to_bytes()),
                replaces: script.flag().then(|| WORLD.agents[script.pick(WORLD.agents.len())].public().id()),
            },
            _ => Request::UnbindAgent { target, keyid: agent.public().id() },
        };
        self.counter += 1;
        let request = OperatorRequest {
            v: 1,
            cluster: WORLD.committee().cluster(),
            epoch: Epoch::new(1),
            counter: if script.pick(8) == 0 { script.number() } else { self.counter },
            expires_at: UnixMillis::new(if script.pick(8) == 0 { script.number() } else { u64::MAX }),
            request,
        };
        let signer = &WORLD.operators[script.pick(WORLD.operators.len())];
        Command::OperatorRequest { envelope: request.sign(signer).to_json() }
    }
}

/// A replica's signed report.
#[must_use]
pub fn report(
    replica: usize,
    window: WindowIndex,
    signed_at: u64,
    partial: bool,
    summary: WindowSummary,
) -> Command {
    let header = ReportHeader {
        replica: place(replica),
        window,
        partial,
        signed_at: UnixMillis::new(signed_at),
        body: Digest::of_value(&summary),
    };
    let report = header.sign(&WORLD.committee().domain(0), &WORLD.replicas[replica]);
    Command::Report { report, summary }
}

/// A summary of one series, above the threshold of a policy.
#[must_use]
pub fn example_summary() -> WindowSummary {
    summary(&mut Script::new(&[1, 0, 0, 0, 9, 3, 3, 100, 0, 0]))
}

/// Up to seven series, among them those that policies look at.
fn summary(script: &mut Script<'_>) -> WindowSummary {
    let count = script.pick(8);
    let one = |_| {
        let name = ["queue", "failures", "duration", "heartbeat", "other"][script.pick(5)];
        let state = script.flag().then(|| ("state".to_owned(), AttributeValue::Text("failed".to_owned())));
        let key = SeriesKey {
            source: SourceId::new(["engine", "other"][script.pick(2)]).expect("a valid name"),
            name: name.to_owned(),
            attributes: state.into_iter().collect(),
            resource: BTreeMap::new(),
        };
        let samples = script.number();
        let summary = match script.pick(4) {
            0 => SeriesSummary::Increase { increase: quantity(script), samples },
            1 => SeriesSummary::Distribution {
                count: script.number(),
                sum: quantity(script),
                samples,
                buckets: borsh::from_slice(script.bytes()).unwrap_or_default(),
            },
            _ => {
                let value = quantity(script);
                let other = if script.flag() { quantity(script) } else { value };
                SeriesSummary::Level { last: value, min: other, max: value, sum: value, samples }
            }
        };
        (key, summary)
    };
    WindowSummary { series: (0..count).map(one).collect() }
}

fn quantity(script: &mut Script<'_>) -> Quantity {
    match script.pick(4) {
        0 => Quantity::from_nanos(i128::from_le_bytes(std::array::from_fn(|_| script.byte()))),
        1 => Quantity::from_nanos(if script.flag() { i128::MAX } else { i128::MIN }),
        2 => Quantity::from_i64(-i64::from(script.byte())),
        _ => Quantity::from_u64(script.number()),
    }
}

fn desired(script: &mut Script<'_>) -> DesiredState {
    match script.pick(4) {
        0 => DesiredState::Slots { slots: u32::try_from(script.number()).unwrap_or(u32::MAX) },
        1 => DesiredState::Paused {},
        2 => DesiredState::Running {},
        _ => DesiredState::Retried {
            after: UnixMillis::new(script.number()),
            until: UnixMillis::new(script.number()),
        },
    }
}

/// A plan for the pool, of one of the policies, in a cycle.
#[must_use]
pub fn plan(policy: usize, cycle: u64) -> Plan {
    let policies = &WORLD.genesis.policies;
    Plan {
        v: 1,
        cluster: WORLD.committee().cluster(),
        epoch: Epoch::new(1),
        target: WORLD.target(1),
        seq: CycleNumber::new(cycle),
        prev: Digest::ZERO,
        issued_at: UnixMillis::new(BEGIN),
        not_before: UnixMillis::new(BEGIN),
        expires_at: UnixMillis::new(BEGIN + 900_000),
        desired: DesiredState::Slots { slots: 12 },
        preconditions: Preconditions { state: DesiredState::Slots { slots: 8 } },
        limits: Limits::Slots { min: 1, max: 64, max_step: 16 },
        verify: Verify {
            series: "queue".to_owned(),
            op: VerifyOp::AtMost,
            value: Measure { value: 5, scale: 0, unit: String::new() },
            by: UnixMillis::new(BEGIN + 30_000),
            otherwise: VerifyElse::Finding,
        },
        rollback: DesiredState::Slots { slots: 8 },
        on_stale: OnStale::Rollback,
        evidence: Digest::of(b"evidence"),
        policy: Digest::of_value(&policies[policy % policies.len()]),
        risk: RiskClass::Low,
        reason: Reason::Threshold,
    }
}

/// A head that names the plan as its target's newest.
#[must_use]
pub fn head(plan: &Plan, number: u64) -> Head {
    let entry = HeadEntry {
        target: plan.target.clone(),
        seq: plan.seq,
        plan: Digest::of(&plan.to_bytes()),
        mode: Mode::Act,
    };
    Head {
        v: 1,
        cluster: plan.cluster,
        epoch: plan.epoch,
        shard: Shard::new(0),
        number: HeadNumber::new(number),
        time: plan.issued_at,
        targets: vec![entry],
        log_size: 1,
        log_root: Digest::of(b"log"),
    }
}

/// An agent's receipt for a plan, in its envelope.
#[must_use]
pub fn receipt(plan: &Plan, counter: u64, agent: &SecretKey) -> Vec<u8> {
    let outcomes = [
        Outcome::Applied {},
        Outcome::Noop {},
        Outcome::Refused { why: Refusal::Precondition },
        Outcome::Reverted {},
    ];
    let outcome = usize::try_from(counter % outcomes.len() as u64).expect("there are four");
    let receipt = Receipt {
        v: 1,
        cluster: plan.cluster,
        target: plan.target.clone(),
        seq: plan.seq,
        plan: Digest::of(&plan.to_bytes()),
        outcome: outcomes[outcome].clone(),
        before: plan.rollback,
        after: plan.desired,
        at: plan.issued_at,
        counter,
        refused_documents: 0,
        lost_receipts: 0,
    };
    sealed(RECEIPT_TYPE, receipt.to_bytes(), [agent])
}

/// An operator's request to stop everything, in its envelope.
#[must_use]
pub fn stop(counter: u64, operator: &SecretKey) -> Vec<u8> {
    let request = OperatorRequest {
        v: 1,
        cluster: WORLD.committee().cluster(),
        epoch: Epoch::new(1),
        counter,
        expires_at: UnixMillis::new(u64::MAX),
        request: Request::Stop { targets: Selection::All(All::All), mode: StopMode::Hold },
    };
    request.sign(operator).to_json()
}
