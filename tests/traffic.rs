//! What four replicas send each other, byte for byte as it goes over their links: before a plan is certified,
//! none of it holds the plan. The replicas are the production consensus and control cycle; only the wires are
//! the test's, so that it can read them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use base64::Engine as _;
use quorate::{
    consensus::{Command, Config, Core, Input, Output, Recovery, ViewTimes, task::Frame},
    cycle::{self, Cycle, CycleConfig},
    knowledge::{
        genesis::{Genesis, Parameters},
        observation::{SeriesKey, SeriesSummary, WindowSummary},
        plan::OnStale,
        policy::{
            Action, Change, Combine, Condition, Controls, Indicator, Policy, Risk, Selector, Side, Statistic,
            Target, TargetKind,
        },
        root::Operators,
    },
    types::{
        Committee, Digest, Epoch, Millis, Quantity, ReplicaIndex, SecretKey, SourceId, TargetId, WindowIndex,
    },
};

const REPLICAS: u16 = 4;
const WINDOW: Millis = Millis::from_secs(10);
const FIRST_WINDOW: u64 = 1000;

struct Replica {
    core: Core,
    cycle: Cycle,
}

/// A frame on its way.
struct Sent {
    from: ReplicaIndex,
    to: ReplicaIndex,
    bytes: Vec<u8>,
}

struct Cluster {
    now: Millis,
    replicas: Vec<Replica>,
    wires: VecDeque<Sent>,
    /// Every frame so far.
    recorded: Vec<Vec<u8>>,
    /// The bodies of the plans that were derived.
    plans: Vec<Vec<u8>>,
    /// How many frames had been sent when a plan was first certified somewhere.
    certified_at: Option<usize>,
}

impl Cluster {
    fn new() -> Self {
        let keys: Vec<SecretKey> =
            (1..=REPLICAS).map(|place| SecretKey::from_seed(&[place.to_le_bytes()[0]; 32])).collect();
        let members = keys.iter().map(SecretKey::public).collect();
        let committee = Committee::new(Digest::of(b"traffic"), Epoch::new(1), members);
        let committee = Arc::new(committee.expect("four distinct keys"));
        let replica = |(place, key): (u16, SecretKey)| {
            let me = ReplicaIndex::new(place);
            let (committee, times) = (Arc::clone(&committee), ViewTimes::default());
            let core = Config {
                committee: Arc::clone(&committee),
                me,
                key: key.clone(),
                times,
                checkpoint_interval: 0,
            };
            let cycle = Cycle::new(CycleConfig {
                genesis: genesis(),
                committee,
                operators: Operators::default(),
                me,
                key,
            });
            Replica { core: Recovery::new(core).finish(), cycle: cycle.expect("the genesis is sound") }
        };
        Self {
            now: Millis::ZERO,
            replicas: (0..REPLICAS).zip(keys).map(replica).collect(),
            wires: VecDeque::new(),
            recorded: Vec::new(),
            plans: Vec::new(),
            certified_at: None,
        }
    }

    fn send(&mut self, from: ReplicaIndex, to: Option<ReplicaIndex>, frame: &Frame) {
        let bytes = borsh::to_vec(frame).expect("in memory");
        self.recorded.push(bytes.clone());
        let peers = (0..REPLICAS).map(ReplicaIndex::new).filter(|peer| *peer != from);
        let addressed = peers.filter(|peer| to.is_none_or(|to| to == *peer));
        self.wires.extend(addressed.map(|to| Sent { from, to, bytes: bytes.clone() }));
    }

    /// Carries out what a replica put out, until it has nothing more to do.
    fn carry_out(&mut self, me: ReplicaIndex) {
        loop {
            let replica = &mut self.replicas[me.as_usize()];
            if let Some(output) = replica.core.poll_output() {
                match output {
                    Output::Persist(_) | Output::Append(_) => {}
                    Output::Send { to, message } => self.send(me, Some(to), &Frame::Consensus(message)),
                    Output::Broadcast(message) => self.send(me, None, &Frame::Consensus(message)),
                    Output::Commit(committed) => replica.cycle.commit(&committed.block),
                    Output::Stable { .. } | Output::Diverged { .. } | Output::Install { .. } => {
                        panic!("no checkpoint is made")
                    }
                    Output::Evidence(evidence) => panic!("nobody is faulty: {evidence:?}"),
                    Output::ServeFromJournal { .. } | Output::ServeChunks { .. } => {
                        panic!("all blocks are in memory")
                    }
                }
            } else if let Some(output) = replica.cycle.poll_output() {
                match output {
                    cycle::Output::Endorse(endorsement) => {
                        self.send(me, None, &Frame::Endorsement(endorsement));
                    }
                    cycle::Output::Submit(command) => {
                        let command = Command::new(command.head, command.body).expect("small");
                        replica.core.handle(self.now, Input::Submit(command)).expect("room");
                    }
                    cycle::Output::Decided(decided) => {
                        self.plans.extend(decided.plans.iter().map(|(_, plan)| plan.to_bytes()));
                    }
                    cycle::Output::PlanCertified(_) => {
                        self.certified_at = self.certified_at.or(Some(self.recorded.len()));
                    }
                    cycle::Output::Alarm(alarm) => panic!("nobody is faulty: {alarm:?}"),
                    cycle::Output::Seal(_) | cycle::Output::Folded(_) | cycle::Output::HeadCertified(_) => {}
                }
            } else {
                return;
            }
        }
    }

    fn settle(&mut self) {
        while let Some(Sent { from, to, bytes }) = self.wires.pop_front() {
            let replica = &mut self.replicas[to.as_usize()];
            match borsh::from_slice(&bytes).expect("what is sent can be read") {
                Frame::Consensus(message) => {
                    let input = Input::Message { from, message };
                    replica.core.handle(self.now, input).expect("an honest message");
                }
                Frame::Endorsement(endorsement) => {
                    replica.cycle.receive(from, endorsement).expect("an honest endorsement");
                }
            }
            self.carry_out(to);
        }
    }

    /// All replicas report a window in which so much waits, and everything that follows happens.
    fn observe(&mut self, window: u64, backlog: i64) {
        let window = WindowIndex::new(window);
        let reported_at = window.close(WINDOW).plus(Millis::from_secs(2));
        for place in (0..REPLICAS).map(ReplicaIndex::new) {
            let cycle = &mut self.replicas[place.as_usize()].cycle;
            cycle.report(window, summary(backlog), false, reported_at);
            self.carry_out(place);
        }
        self.settle();
        // Time for whoever's turn it is to submit the certificate.
        for place in (0..REPLICAS).map(ReplicaIndex::new) {
            self.replicas[place.as_usize()].cycle.tick(reported_at.plus(Millis::from_secs(2)));
            self.carry_out(place);
        }
        self.settle();
    }
}

fn genesis() -> Genesis {
    let pool = TargetKind::Pool { initial: 3, min: 1, max: 12, max_step: 4 };
    let target = TargetId::new("pool").expect("a valid name");
    let minute = Millis::from_secs(60);
    Genesis {
        parameters: Parameters::for_window(WINDOW),
        targets: vec![Target {
            id: target.clone(),
            kind: pool,
            cooldown: minute,
            plans_per_hour: 4,
            owner: "owner-0".to_owned(),
            agent: SecretKey::from_seed(&[21; 32]).public(),
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
                target,
                change: Change::AddSlots(3),
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

fn summary(backlog: i64) -> WindowSummary {
    let key = SeriesKey {
        source: SourceId::new("engine").expect("a valid name"),
        name: "backlog".to_owned(),
        attributes: BTreeMap::new(),
        resource: BTreeMap::new(),
    };
    let value = Quantity::from_i64(backlog);
    let level = SeriesSummary::Level { last: value, min: value, max: value, sum: value, samples: 1 };
    WindowSummary { series: BTreeMap::from([(key, level)]) }
}

/// Whether bytes hold what only this plan says, as it is or as an envelope carries it: its target and what follows,
/// after the fields that other documents begin with as well. Base64 is the same from every third byte on.
fn holds(bytes: &[u8], plan: &[u8]) -> bool {
    let telling = &plan[90..150];
    let encoded = base64::engine::general_purpose::STANDARD.encode(telling);
    [telling, encoded.as_bytes()]
        .iter()
        .any(|telling| bytes.windows(telling.len()).any(|run| run == *telling))
}

#[test]
fn no_frame_holds_a_plan_before_a_quorum_has_endorsed_it() {
    let mut cluster = Cluster::new();
    cluster.observe(FIRST_WINDOW, 2);
    cluster.observe(FIRST_WINDOW + 1, 37);
    assert_eq!(cluster.plans.len(), usize::from(REPLICAS), "every replica derives the plan");
    let plan = cluster.plans[0].clone();
    assert!(cluster.plans.iter().all(|other| *other == plan), "and all derive the same bytes");
    let certified_at = cluster.certified_at.expect("a quorum endorsed it");
    let (before, after) = cluster.recorded.split_at(certified_at);
    assert!(before.iter().all(|frame| !holds(frame, &plan)));
    assert!(after.iter().any(|frame| holds(frame, &plan)), "the certificate itself carries the plan");
}
