//! Four control cycles behind one log that the test orders by hand.

mod retries;

use std::{collections::BTreeMap, sync::Arc};

use base64::Engine as _;

use super::{Alarm, Cycle, CycleConfig, Output, Seal};
use crate::{
    consensus::{
        Block, Command as Ordered, Payload, QuorumCertificate, certify::Endorsement, certify::pledge_bytes,
    },
    knowledge::{
        certified::Certified,
        change::Change,
        command::EncodedCommand,
        fixtures::{agent_key, committee, replica_keys, target, verified_root},
        genesis::{Genesis, Parameters},
        head::Head,
        observation::{SeriesKey, SeriesSummary, WindowSummary},
        plan::{DesiredState, OnStale, Plan},
        policy::{
            Action, Change as PolicyChange, Combine, Condition, Controls, Indicator, Policy, Risk, Selector,
            Side, Statistic, Target, TargetKind,
        },
    },
    types::{Committee, Digest, Millis, Quantity, ReplicaIndex, SourceId, UnixMillis, View, WindowIndex},
};

const WINDOW: Millis = Millis::from_secs(10);

fn genesis() -> Genesis {
    let pool = TargetKind::Pool { initial: 3, min: 1, max: 12, max_step: 4 };
    let minute = Millis::from_secs(60);
    Genesis {
        parameters: Parameters::for_window(WINDOW),
        targets: vec![Target {
            id: target(),
            kind: pool,
            cooldown: minute,
            plans_per_hour: 4,
            owner: "owner-0".to_owned(),
            agent: agent_key().public(),
        }],
        policies: vec![Policy {
            name: "backlog".to_owned(),
            indicator: Indicator {
                selector: Selector { source: None, name: "backlog".to_owned(), attributes: BTreeMap::new() },
                statistic: Statistic::Last,
                combine: Combine::Sum,
            },
            condition: Condition::Threshold {
                side: Side::Above,
                enter: Quantity::from_i64(20),
                leave: Quantity::from_i64(5),
                hold: Millis::ZERO,
            },
            action: Some(Action {
                target: target(),
                change: PolicyChange::AddSlots(3),
                cooldown: minute,
                expiry: Millis::from_secs(900),
                risk: Risk::Low,
                on_stale: OnStale::Hold,
                verify_within: minute,
                controls: Controls::ACTING,
            }),
        }],
    }
}

fn backlog(value: i64) -> WindowSummary {
    let key = SeriesKey {
        source: SourceId::new("engine").expect("a valid name"),
        name: "backlog".to_owned(),
        attributes: BTreeMap::new(),
        resource: BTreeMap::new(),
    };
    let value = Quantity::from_i64(value);
    let level = SeriesSummary::Level { last: value, min: value, max: value, sum: value, samples: 1 };
    WindowSummary { series: BTreeMap::from([(key, level)]) }
}

/// What one replica put out, by kind.
#[derive(Default)]
struct Said {
    seals: Vec<Seal>,
    endorsements: Vec<Endorsement>,
    submitted: Vec<EncodedCommand>,
    changes: Vec<Change>,
    plans: Vec<Plan>,
    certified_plans: Vec<Certified<Plan>>,
    certified_heads: Vec<Certified<Head>>,
    alarms: Vec<Alarm>,
}

struct Cluster {
    committee: Arc<Committee>,
    cycles: Vec<Cycle>,
    said: Vec<Said>,
    tip: QuorumCertificate,
    /// The newest ordered block.
    newest: Option<Arc<Block>>,
}

impl Cluster {
    fn new() -> Self {
        Self::of(&genesis())
    }

    fn of(genesis: &Genesis) -> Self {
        let committee = Arc::new(committee());
        let tip = QuorumCertificate::genesis(&committee);
        let cycles = (0..4).map(|place| cycle_of(genesis, &committee, place)).collect();
        Self { committee, cycles, said: (0..4).map(|_| Said::default()).collect(), tip, newest: None }
    }

    fn collect(&mut self, place: usize) {
        let said = &mut self.said[place];
        while let Some(output) = self.cycles[place].poll_output() {
            match output {
                Output::Seal(seal) => said.seals.push(seal),
                Output::Endorse(endorsement) => said.endorsements.push(endorsement),
                Output::Submit(command) => said.submitted.push(command),
                Output::Folded(folded) => said.changes.extend(folded.changes),
                Output::Decided(decided) => {
                    let of_cycle = |change: &Change| matches!(change, Change::WindowClosed(closed) if closed.cycle == decided.cycle);
                    assert!(said.changes.iter().any(of_cycle), "a window is told before what it led to");
                    said.plans.extend(decided.plans.into_iter().map(|(_, plan)| plan));
                }
                Output::PlanCertified(plan) => said.certified_plans.push(*plan),
                Output::HeadCertified(head) => said.certified_heads.push(*head),
                Output::Alarm(alarm) => said.alarms.push(alarm),
            }
        }
    }

    /// Every replica reports this window, and all reports are ordered in one block.
    fn report(&mut self, window: u64, of: impl Fn(usize) -> WindowSummary) {
        let window = WindowIndex::new(window);
        let now = window.close(WINDOW).plus(Millis::from_secs(2));
        for place in 0..4 {
            self.cycles[place].report(window, of(place), false, now);
            self.collect(place);
        }
        self.order();
    }

    /// Orders all that was submitted, each command once.
    fn order(&mut self) {
        let mut commands: Vec<EncodedCommand> = Vec::new();
        for said in &mut self.said {
            for command in said.submitted.drain(..) {
                if !commands.contains(&command) {
                    commands.push(command);
                }
            }
        }
        let commands =
            commands.into_iter().map(|one| Ordered::new(one.head, one.body).expect("small")).collect();
        let view = View::new(self.tip.view.number() + 1);
        let block =
            Arc::new(Block::new(view, ReplicaIndex::new(0), self.tip.clone(), Payload::new(commands)));
        self.tip =
            QuorumCertificate { view, height: block.height(), block: block.id(), signatures: Vec::new() };
        for place in 0..4 {
            self.cycles[place].commit(&block);
            self.collect(place);
        }
        self.newest = Some(block);
    }

    /// Delivers the endorsements of these replicas to all others.
    fn endorse(&mut self, from: &[usize]) {
        for sender in from.iter().copied() {
            let endorsements = std::mem::take(&mut self.said[sender].endorsements);
            for receiver in (0..4).filter(|receiver| *receiver != sender) {
                for endorsement in endorsements.clone() {
                    let from = ReplicaIndex::new(u16::try_from(sender).expect("four"));
                    self.cycles[receiver].receive(from, endorsement).expect("honest endorsements are taken");
                }
                self.collect(receiver);
            }
        }
    }
}

fn cycle(committee: &Arc<Committee>, place: u16) -> Cycle {
    cycle_of(&genesis(), committee, place)
}

fn cycle_of(genesis: &Genesis, committee: &Arc<Committee>, place: u16) -> Cycle {
    Cycle::new(CycleConfig {
        genesis: genesis.clone(),
        committee: Arc::clone(committee),
        operators: verified_root().operators().clone(),
        me: ReplicaIndex::new(place),
        key: replica_keys()[usize::from(place)].clone(),
    })
    .expect("the genesis is sound")
}

const FIRST: u64 = 1000;

#[test]
fn a_backlog_becomes_one_logged_plan_that_every_replica_derived_alone() {
    let mut cluster = Cluster::new();
    cluster.report(FIRST, |_| backlog(2));
    cluster.report(FIRST + 1, |_| backlog(37));
    for said in &cluster.said {
        let [plan] = said.plans.as_slice() else { panic!("one plan, not {:?}", said.plans) };
        assert_eq!(plan.desired, DesiredState::Slots { slots: 6 });
        assert!(said.certified_plans.is_empty(), "nobody else's signature is here yet");
    }
    cluster.endorse(&[0, 1, 2, 3]);
    assert!(cluster.said.iter().all(|said| said.certified_plans.len() == 1));
    let late = UnixMillis::new((FIRST + 2) * WINDOW.as_millis() + 4_000);
    for place in 0..4 {
        cluster.cycles[place].tick(late);
        cluster.collect(place);
    }
    cluster.order();
    for said in &cluster.said {
        let logged = said.changes.iter().filter(|change| matches!(change, Change::PlanLogged(_)));
        assert_eq!(logged.count(), 1, "a plan is logged once, however many submit it");
        assert!(said.alarms.is_empty());
    }
    let roots: Vec<_> = cluster.cycles.iter().map(Cycle::root).collect();
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]), "equal logs give equal state");
}

#[test]
fn nothing_that_is_sent_before_the_certificate_holds_the_plans_bytes() {
    let mut cluster = Cluster::new();
    cluster.report(FIRST, |_| backlog(2));
    cluster.report(FIRST + 1, |_| backlog(37));
    for said in &cluster.said {
        let [plan] = said.plans.as_slice() else { panic!("one plan, not {:?}", said.plans) };
        let body = plan.to_bytes();
        let mut sent: Vec<Vec<u8>> =
            said.endorsements.iter().map(|one| borsh::to_vec(one).expect("in memory")).collect();
        sent.extend(said.submitted.iter().map(|one| [one.head.clone(), one.body.clone()].concat()));
        assert!(!sent.is_empty());
        // What only the plan says, plain or as an envelope carries it: base64 is the same from every third byte on.
        let telling = &body[90..150];
        let encoded = base64::engine::general_purpose::STANDARD.encode(telling);
        for telling in [telling, encoded.as_bytes()] {
            assert!(sent.iter().all(|bytes| !bytes.windows(telling.len()).any(|run| run == telling)));
        }
    }
}

#[test]
fn a_replica_that_lies_about_what_it_saw_changes_no_plan_and_is_named_when_it_endorses_another() {
    let mut cluster = Cluster::new();
    cluster.report(FIRST, |_| backlog(2));
    cluster.report(FIRST + 1, |place| backlog(if place == 3 { 1_000_000 } else { 2 }));
    assert!(cluster.said.iter().all(|said| said.plans.is_empty()), "one liar moves nothing");
    cluster.report(FIRST + 2, |place| backlog(if place == 3 { 0 } else { 40 }));
    assert!(cluster.said.iter().all(|said| said.plans.len() == 1), "and hides nothing");
    for endorsement in &mut cluster.said[3].endorsements {
        endorsement.digest = Digest::of(b"forged");
        let pledge = pledge_bytes(&cluster.committee, &endorsement.subject, endorsement.digest);
        endorsement.pledge = replica_keys()[3].sign(&pledge);
    }
    cluster.endorse(&[0, 1, 2, 3]);
    for said in &cluster.said[..3] {
        assert_eq!(said.certified_plans.len(), 1, "the certificate forms without it");
        let named = |alarm: &Alarm| matches!(alarm, Alarm::Disagreement { by, .. } if by.place() == 3);
        assert!(said.alarms.iter().any(named), "{:?}", said.alarms);
    }
}

#[test]
fn a_replica_that_starts_again_signs_what_it_signed_before() {
    let mut cluster = Cluster::new();
    cluster.report(FIRST, |_| backlog(2));
    let mut again = cycle(&cluster.committee, 0);
    for seal in cluster.said[0].seals.clone() {
        again.restore(seal);
    }
    assert_eq!(again.newest_report(), Some(WindowIndex::new(FIRST)));
    again.report(WindowIndex::new(FIRST), backlog(99), true, UnixMillis::new(99_999_999));
    assert!(again.poll_output().is_none(), "a window is reported once, whatever the summary says");
    again.resubmit();
    let Some(Output::Submit(command)) = again.poll_output() else {
        panic!("the sealed bytes are sent again")
    };
    let sealed = cluster.said[0].seals.iter().find_map(|seal| match seal {
        Seal::Report { head, .. } => Some(head.clone()),
        Seal::Endorsed { .. } | Seal::Forgotten(_) => None,
    });
    assert_eq!(Some(command.head), sealed);
}

#[test]
fn heads_are_certified_for_every_slot() {
    let mut cluster = Cluster::new();
    for window in FIRST..FIRST + 4 {
        cluster.report(window, |_| backlog(2));
        cluster.endorse(&[0, 1, 2, 3]);
    }
    for said in &cluster.said {
        let numbers: Vec<_> =
            said.certified_heads.iter().map(|head| head.document().number.number()).collect();
        assert!(numbers.len() >= 3 && numbers.is_sorted(), "{numbers:?}");
    }
}

#[test]
fn a_replica_that_holds_its_endorsements_accuses_nobody_and_still_learns_the_certificate() {
    let mut cluster = Cluster::new();
    cluster.cycles[0].hold(super::Hold::Plans);
    cluster.report(FIRST, |_| backlog(2));
    cluster.report(FIRST + 1, |_| backlog(37));
    let plans = |said: &Said| {
        said.endorsements.iter().filter(|one| one.subject.kind == super::SubjectKind::Plan).count()
    };
    assert_eq!((plans(&cluster.said[0]), plans(&cluster.said[1])), (0, 1));
    cluster.endorse(&[1, 2, 3]);
    assert!(cluster.said[0].alarms.is_empty(), "{:?}", cluster.said[0].alarms);
    assert_eq!(cluster.said[0].certified_plans.len(), 1);
}

/// A replica that has seen nothing goes on from another one's snapshot.
fn joined(cluster: &Cluster, place: u16, snapshot: &[u8]) -> Cycle {
    let mut joined = cycle(&cluster.committee, place);
    joined.install(snapshot).expect("the snapshot is this cluster's");
    joined
}

#[test]
fn a_replica_that_goes_on_from_a_snapshot_takes_part_as_if_it_had_been_there() {
    let mut cluster = Cluster::new();
    cluster.report(FIRST, |_| backlog(2));
    cluster.report(FIRST + 1, |_| backlog(2));
    let snapshot = cluster.cycles[1].snapshot();
    cluster.cycles[0] = joined(&cluster, 0, &snapshot);
    cluster.said[0] = Said::default();
    cluster.report(FIRST + 2, |_| backlog(37));
    assert_eq!(cluster.said[0].plans, cluster.said[1].plans, "it derives the same plan");
    cluster.endorse(&[0, 1, 2, 3]);
    let late = UnixMillis::new((FIRST + 3) * WINDOW.as_millis() + 4_000);
    for place in 0..4 {
        cluster.cycles[place].tick(late);
        cluster.collect(place);
    }
    cluster.order();
    assert!(cluster.said.iter().all(|said| said.alarms.is_empty()));
    assert_eq!(cluster.said[0].certified_plans.len(), 1);
    let roots: Vec<_> = cluster.cycles.iter().map(Cycle::root).collect();
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    let newest = cluster.cycles[0].state().newest_plans().next().cloned();
    assert_eq!(newest.map(|newest| newest.document().clone()), cluster.said[1].plans.first().cloned());
}

#[test]
fn endorsements_of_what_was_derived_before_a_snapshot_accuse_nobody() {
    let mut cluster = Cluster::new();
    cluster.report(FIRST, |_| backlog(2));
    cluster.report(FIRST + 1, |_| backlog(37));
    let endorsements = cluster.cycles[1].endorsements();
    let snapshot = cluster.cycles[1].snapshot();
    let mut joined = joined(&cluster, 0, &snapshot);
    for endorsement in endorsements {
        joined.receive(ReplicaIndex::new(1), endorsement).expect("honest endorsements are taken");
    }
    cluster.cycles[0] = joined;
    cluster.report(FIRST + 2, |_| backlog(37));
    assert!(cluster.said[0].alarms.is_empty(), "{:?}", cluster.said[0].alarms);
}

#[test]
fn what_was_derived_before_a_reload_counts_no_more_and_what_peers_said_of_it_counts_again() {
    let mut cluster = Cluster::new();
    cluster.report(FIRST, |_| backlog(2));
    cluster.endorse(&[0, 1, 2, 3]);
    let (certified, tip) = (cluster.cycles[1].snapshot(), cluster.tip.clone());
    // Replica 0 goes wrong: it folds a block that nobody ordered, with reports that nobody signed so.
    let mut wrong = Cluster::new();
    std::mem::swap(&mut wrong.cycles[0], &mut cluster.cycles[0]);
    for place in 1..4 {
        wrong.cycles[place].install(&certified).expect("the snapshot is this cluster's");
    }
    wrong.report(FIRST + 1, |_| backlog(60));
    let plan_of = |said: &Said| {
        said.endorsements.iter().find(|one| one.subject.kind == super::SubjectKind::Plan).cloned()
    };
    let own = plan_of(&wrong.said[0]).expect("it derived a plan");
    std::mem::swap(&mut wrong.cycles[0], &mut cluster.cycles[0]);
    cluster.tip = tip;

    // The others go on without it; what they endorse contradicts what it derived.
    let mut absent = cycle(&cluster.committee, 0);
    std::mem::swap(&mut absent, &mut cluster.cycles[0]);
    cluster.report(FIRST + 1, |_| backlog(37));
    let others: Vec<_> = (1..4).filter_map(|place| plan_of(&cluster.said[place])).collect();
    std::mem::swap(&mut absent, &mut cluster.cycles[0]);
    assert!(others.iter().all(|other| other.subject == own.subject && other.digest != own.digest));
    cluster.said[0] = Said::default();
    for other in &others {
        cluster.cycles[0].receive(other.signer, other.clone()).expect("honest endorsements are taken");
    }
    cluster.collect(0);
    assert_eq!(cluster.said[0].alarms.len(), 3, "each of them says something else");

    // It begins at the certified state and folds what was ordered.
    cluster.cycles[0].install(&certified).expect("the snapshot is this cluster's");
    assert!(cluster.cycles[0].endorsements().iter().all(|one| one.subject != own.subject));
    cluster.said[0] = Said::default();
    cluster.cycles[0].commit(&cluster.newest.clone().expect("a block was ordered"));
    cluster.collect(0);
    let said = &cluster.said[0];
    let [Alarm::OwnContradiction { subject, endorsed, .. }] = said.alarms.as_slice() else {
        panic!("it endorsed another digest before, and nobody is accused: {:?}", said.alarms)
    };
    assert_eq!((subject, *endorsed), (&own.subject, own.digest));
    assert!(plan_of(said).is_none(), "it endorses one digest for a subject");
    let [certified] = said.certified_plans.as_slice() else { panic!("the others are a quorum") };
    assert_eq!(certified.digest(), others[0].digest);
}

/// Whoever changes the form of a snapshot raises `VERSION` in `knowledge::fold::state::encoding` and pins here what it is then:
/// a replica of another form must refuse it, not misread it.
#[test]
fn the_form_of_a_snapshot_has_its_own_version() {
    let mut cluster = Cluster::new();
    cluster.report(FIRST, |_| backlog(2));
    cluster.report(FIRST + 1, |_| backlog(37));
    cluster.endorse(&[0, 1, 2, 3]);
    let cycle = &cluster.cycles[0];
    let snapshot = cycle.snapshot();
    let version = u32::from_le_bytes(snapshot[..4].try_into().expect("it begins with its version"));
    let analysis = borsh::to_vec(&cycle.analyzer).expect("in memory");
    assert!(snapshot.ends_with(&analysis));
    let form = (version, Digest::of(&analysis).to_string());
    assert_eq!(
        form,
        (2, "65252f4ec3da05cb903ec1ba444e0751ff580d59e4f8f2d4c84bc64bd9435c70".to_owned()),
        "raise VERSION, unless only the sample changed, then pin this"
    );
}

#[test]
fn what_was_signed_stays_known_when_a_snapshot_is_installed_and_when_the_seals_are_restated() {
    let mut cluster = Cluster::new();
    cluster.report(FIRST, |_| backlog(2));
    cluster.report(FIRST + 1, |_| backlog(37));
    let snapshot = cluster.cycles[1].snapshot();
    let before = cluster.cycles[0].seals();
    cluster.cycles[0].install(&snapshot).expect("the snapshot is this cluster's");
    assert_eq!(cluster.cycles[0].seals(), before);
    let mut again = joined(&cluster, 0, &snapshot);
    before.iter().for_each(|seal| again.restore(seal.clone()));
    assert_eq!(again.seals(), before);
    assert_eq!(again.newest_report(), Some(WindowIndex::new(FIRST + 1)));
}

#[test]
fn a_snapshot_that_is_refused_changes_nothing() {
    let mut cluster = Cluster::new();
    cluster.report(FIRST, |_| backlog(2));
    let sound = cluster.cycles[1].snapshot();
    cluster.report(FIRST + 1, |_| backlog(37));
    let root = cluster.cycles[0].root();
    let longer = [sound.as_slice(), &[0]].concat();
    for refused in [&sound[..sound.len() - 1], &sound[1..], &longer, &[]] {
        assert!(cluster.cycles[0].install(refused).is_err());
        assert_eq!(cluster.cycles[0].root(), root);
    }
}

#[test]
fn nothing_that_a_replica_keeps_grows_with_the_number_of_windows() {
    let mut cluster = Cluster::new();
    // The last one is as the store's follower is: it derives everything and endorses nothing.
    cluster.cycles[3].hold(super::Hold::Everything);
    let mut kept = Vec::new();
    for window in 0..96 {
        cluster.report(FIRST + window, |_| backlog(if window % 12 < 6 { 40 } else { 2 }));
        cluster.endorse(&[0, 1, 2]);
        let now = UnixMillis::new((FIRST + window + 1) * WINDOW.as_millis() + 4_000);
        for place in 0..4 {
            cluster.cycles[place].tick(now);
            cluster.collect(place);
            cluster.said[place].seals.clear();
        }
        cluster.order();
        if window == 47 || window == 95 {
            let of = |cycle: &Cycle| (cycle.seals().len(), cycle.collector.memory_bytes());
            kept.push(cluster.cycles.iter().map(of).collect::<Vec<_>>());
        }
    }
    let plans: usize = cluster.said[0].certified_plans.len();
    assert!(plans > 1, "plans were made");
    let [half, whole] = kept.as_slice() else { panic!("it was looked twice") };
    for ((seals, bytes), (more_seals, more_bytes)) in half.iter().zip(whole) {
        assert!(more_seals <= &(seals + 2), "{seals} seals, then {more_seals}");
        assert!(*more_bytes <= bytes + 4_096, "{bytes} bytes of what is collected, then {more_bytes}");
    }
}
