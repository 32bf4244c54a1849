//! The recorded incident through the whole decision path, without a network: four monitors, their reports, four
//! control cycles behind one log, the demo's policy. What is asserted is in event time, seconds after the
//! recording's first request.
//!
//! The recording is real: at 120 s a harmless burst, at 309.1 s a backlog of 37 in a pool of 3 slots, from 800 s
//! to 860 s a stopped scheduler, at 1010.7 s the end of it all.
#![cfg(feature = "service")]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use quorate::{
    consensus::{Block, Command, Payload, QuorumCertificate, certify::Endorsement},
    cycle::{Cycle, CycleConfig, Output},
    knowledge::{
        change::Change,
        command::EncodedCommand,
        finding::Symptom,
        genesis::Genesis,
        observation::AttributeValue,
        plan::{DesiredState, PLAN_TYPE, Plan},
        root::Operators,
    },
    monitor::{
        Batch, Monitor, MonitorParameters,
        otlp::{Rename, decode, rewrite},
        recording::{self, RecordedRequest},
    },
    service::config::{Completion, PolicyFile},
    types::{
        Committee, Digest, Envelope, Epoch, Millis, ReplicaIndex, SecretKey, SourceId, TargetId, UnixMillis,
        View, WindowIndex, pae,
    },
};

const REPLICAS: u16 = 4;

/// What one run decided. Times are milliseconds after the recording's first request.
#[derive(Debug, Default, PartialEq)]
struct Decisions {
    /// Each logged plan, with when it was issued, and its exact bytes.
    plans: Vec<(u64, Plan)>,
    /// Each finding: its policy's place in the genesis, what it is, and when its window closed.
    findings: Vec<(Option<usize>, Symptom, u64)>,
    /// What the plans of each cycle that planned were derived from.
    bundles: Vec<Arc<[u8]>>,
}

impl Decisions {
    fn closes_of(&self, symptom: Symptom) -> Vec<u64> {
        let found = self.findings.iter().filter(|(_, found, _)| *found == symptom);
        found.map(|(_, _, close)| *close).collect()
    }

    /// What does not name anything: when, from which state to which, and why.
    fn nameless(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let plans: Vec<_> = self
            .plans
            .iter()
            .map(|(at, plan)| (*at, plan.seq, plan.preconditions.state, plan.desired, plan.reason))
            .collect();
        (plans, self.findings.clone())
    }
}

/// What was posted, and when, in milliseconds since 1970.
struct Telemetry {
    first: UnixMillis,
    arrivals: Vec<(UnixMillis, Batch)>,
}

fn recorded() -> Vec<RecordedRequest> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/airflow-incident.otlp.gz");
    let mut requests = recording::read(&file).expect("the recording is in the repository");
    requests.retain(RecordedRequest::is_metrics);
    requests
}

fn telemetry(requests: &[RecordedRequest]) -> Telemetry {
    let batches: Vec<(u64, Batch)> = requests
        .iter()
        .map(|request| {
            let (kind, encoding) = (request.content_type.as_deref(), request.content_encoding.as_deref());
            (request.received_at_ms, decode(&request.body, kind, encoding).expect("a real engine's body"))
        })
        .collect();
    let (received_at_ms, batch) = batches.first().expect("the recording is not empty");
    let newest = batch.points().map(|point| point.sample.time.to_millis()).max();
    let first = newest.expect("the first request has points").minus(Millis::new(*received_at_ms));
    let arrivals = batches.into_iter().map(|(at, batch)| (first.plus(Millis::new(at)), batch)).collect();
    Telemetry { first, arrivals }
}

/// The demo's policy.
fn genesis() -> Genesis {
    let text = include_str!("../examples/policies/airflow.toml");
    let file = PolicyFile::parse("airflow.toml", text).expect("the example is valid");
    let agent = SecretKey::from_seed(&[77; 32]).public();
    let completion = Completion {
        agents: file.targets().map(|target| (target.clone(), agent)).collect(),
        owner: Some("owner-0".to_owned()),
    };
    file.genesis(&completion).expect("every target is complete")
}

/// A small generator (SplitMix64), so that a seed names an order of arrivals for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ (bits >> 31)) % (bound.max(1) as u64)).expect("it is below a usize")
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The order in which things reach each replica and the log: as recorded, or as a seed says.
enum Order {
    AsRecorded,
    Shuffled(Random),
}

impl Order {
    /// The points of these batches in another order and cut into other batches.
    fn of_arrivals(&mut self, batches: &[&Batch]) -> Vec<Batch> {
        let Self::Shuffled(random) = self else {
            return batches.iter().copied().cloned().collect();
        };
        let mut points: Vec<_> = batches
            .iter()
            .flat_map(|batch| batch.points().map(|point| (point.series_key(), point.sample.clone())))
            .collect();
        random.shuffle(&mut points);
        let mut cut = vec![Batch::default()];
        for (series, sample) in points {
            if random.below(20) == 0 {
                cut.push(Batch::default());
            }
            cut.last_mut().expect("there is one").push(&series, sample);
        }
        cut
    }

    /// Commands in another order and cut into other blocks.
    fn of_commands(&mut self, mut commands: Vec<EncodedCommand>) -> Vec<Vec<EncodedCommand>> {
        let Self::Shuffled(random) = self else {
            return vec![commands];
        };
        random.shuffle(&mut commands);
        let mut blocks = vec![Vec::new()];
        for command in commands {
            if random.below(2) == 0 {
                blocks.push(Vec::new());
            }
            blocks.last_mut().expect("there is one").push(command);
        }
        blocks
    }
}

/// Four replicas behind one log that the test orders.
struct Cluster {
    cycles: Vec<Cycle>,
    monitors: Vec<Monitor>,
    tip: QuorumCertificate,
    submitted: Vec<EncodedCommand>,
    endorsements: Vec<(ReplicaIndex, Endorsement)>,
    /// What each replica decided.
    decisions: Vec<Decisions>,
    first: UnixMillis,
    order: Order,
}

impl Cluster {
    fn new(genesis: &Genesis, first: UnixMillis, order: Order) -> Self {
        let keys: Vec<SecretKey> = (1..=4).map(|seed| SecretKey::from_seed(&[seed; 32])).collect();
        let members = keys.iter().map(SecretKey::public).collect();
        let committee = Committee::new(Digest::of(b"cluster"), Epoch::new(1), members).expect("four keys");
        let committee = Arc::new(committee);
        let window = genesis.parameters.window;
        let started_at = WindowIndex::containing(first, window).start(window);
        let monitor = Monitor::new(MonitorParameters::of(&genesis.parameters), started_at);
        let cycle = |place: u16, key: &SecretKey| {
            let config = CycleConfig {
                genesis: genesis.clone(),
                committee: Arc::clone(&committee),
                operators: Operators::default(),
                me: ReplicaIndex::new(place),
                key: key.clone(),
            };
            Cycle::new(config).expect("the genesis is sound")
        };
        Self {
            cycles: (0..REPLICAS).zip(&keys).map(|(place, key)| cycle(place, key)).collect(),
            monitors: vec![monitor; usize::from(REPLICAS)],
            tip: QuorumCertificate::genesis(&committee),
            submitted: Vec::new(),
            endorsements: Vec::new(),
            decisions: (0..REPLICAS).map(|_| Decisions::default()).collect(),
            first,
            order,
        }
    }

    /// Every replica takes what arrived, closes the window and reports it; then all that follows from it.
    fn window(&mut self, window: WindowIndex, arrived: &[&Batch], now: UnixMillis) {
        for place in 0..self.cycles.len() {
            for batch in self.order.of_arrivals(arrived) {
                self.monitors[place].ingest(&batch, now);
            }
            let closed = self.monitors[place].close(window).expect("windows are closed in order");
            // Clocks differ a little.
            let signed_at = now.plus(Millis::new(7 * place as u64));
            self.cycles[place].report(window, closed.summary, closed.partial, signed_at);
        }
        for pause in [100, 2_000] {
            self.settle();
            for cycle in &mut self.cycles {
                cycle.tick(now.plus(Millis::new(pause)));
            }
        }
        self.settle();
    }

    /// Orders what was submitted and delivers what was endorsed, until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.collect();
            let (commands, endorsements) =
                (std::mem::take(&mut self.submitted), std::mem::take(&mut self.endorsements));
            if commands.is_empty() && endorsements.is_empty() {
                return;
            }
            for (from, endorsement) in endorsements {
                for place in (0..self.cycles.len()).filter(|place| *place != from.as_usize()) {
                    self.cycles[place].receive(from, endorsement.clone()).expect("replicas are honest");
                }
            }
            for commands in self.order.of_commands(commands) {
                self.commit(commands);
            }
        }
    }

    fn commit(&mut self, commands: Vec<EncodedCommand>) {
        let commands = commands.into_iter().map(|one| Command::new(one.head, one.body).expect("it is small"));
        let view = View::new(self.tip.view.number() + 1);
        let payload = Payload::new(commands.collect());
        let block = Arc::new(Block::new(view, ReplicaIndex::new(0), self.tip.clone(), payload));
        self.tip =
            QuorumCertificate { view, height: block.height(), block: block.id(), signatures: Vec::new() };
        for cycle in &mut self.cycles {
            cycle.commit(&block);
        }
    }

    fn collect(&mut self) {
        for ((cycle, decisions), place) in self.cycles.iter_mut().zip(&mut self.decisions).zip(0..) {
            while let Some(output) = cycle.poll_output() {
                match output {
                    Output::Submit(command) => self.submitted.push(command),
                    Output::Endorse(endorsement) => {
                        self.endorsements.push((ReplicaIndex::new(place), endorsement));
                    }
                    Output::Folded(folded) => {
                        for change in folded.changes {
                            note(decisions, change, cycle.state().genesis(), self.first);
                        }
                    }
                    Output::Alarm(alarm) => panic!("honest replicas raise no alarm: {alarm:?}"),
                    Output::Decided(decided) => decisions.bundles.extend(decided.bundle),
                    Output::Seal(_) | Output::PlanCertified(_) | Output::HeadCertified(_) => {}
                }
            }
        }
    }
}

fn note(decisions: &mut Decisions, change: Change, genesis: &Genesis, first: UnixMillis) {
    if let Change::Found { finding, .. } = &change {
        let place = finding.policy.as_ref().map(|name| {
            let named = genesis.policies.iter().position(|policy| policy.name == *name);
            named.expect("findings name policies of the genesis")
        });
        let close = finding.window.close(genesis.parameters.window).since(first).as_millis();
        decisions.findings.push((place, finding.symptom, close));
    }
    if let Change::PlanLogged(certified) = change {
        let plan = certified.document().clone();
        decisions.plans.push((plan.issued_at.since(first).as_millis(), plan));
    }
}

/// Everything that the four replicas decide over the telemetry; they must agree.
fn decide(telemetry: &Telemetry, genesis: &Genesis, order: Order) -> Decisions {
    let parameters = &genesis.parameters;
    let mut cluster = Cluster::new(genesis, telemetry.first, order);
    let (last, _) = telemetry.arrivals.last().expect("the recording is not empty");
    let mut window = WindowIndex::containing(telemetry.first, parameters.window);
    let mut arrivals = telemetry.arrivals.as_slice();
    while window.start(parameters.window) <= *last {
        let report_at = window.close(parameters.window).plus(parameters.grace);
        let (arrived, later) = arrivals.split_at(arrivals.partition_point(|(at, _)| *at < report_at));
        let arrived: Vec<&Batch> = arrived.iter().map(|(_, batch)| batch).collect();
        cluster.window(window, &arrived, report_at);
        (arrivals, window) = (later, window.next());
    }
    let mut decisions = cluster.decisions.into_iter();
    let of_the_first = decisions.next().expect("there are four");
    assert!(decisions.all(|of_another| of_another == of_the_first), "all replicas decide the same");
    of_the_first
}

const fn slots(slots: u32) -> DesiredState {
    DesiredState::Slots { slots }
}

#[test]
fn the_incident_raises_the_pool_once_and_the_silent_scheduler_is_only_found() {
    let decisions = decide(&telemetry(&recorded()), &genesis(), Order::AsRecorded);
    let [(issued_at, plan)] = decisions.plans.as_slice() else {
        panic!("one plan, not {:?}", decisions.plans);
    };
    assert!((309_100..329_100).contains(issued_at), "within 20 s of the backlog, not at {issued_at} ms");
    assert_eq!(plan.target.as_str(), "airflow/extract_pool");
    assert_eq!((plan.preconditions.state, plan.desired, plan.rollback), (slots(3), slots(6), slots(3)));

    let silent = decisions.closes_of(Symptom::Absence);
    let (incident, end): (Vec<u64>, Vec<u64>) = silent.into_iter().partition(|close| *close < 1_000_000);
    let (first, last) = incident.first().zip(incident.last()).expect("the scheduler was silent");
    assert!((815_000..=835_000).contains(first), "found when it has been silent for a while, at {first} ms");
    assert!((850_000..=875_000).contains(last), "until it was back, at {last} ms");
    assert!(end.iter().all(|close| *close > 1_020_000), "and again when all of it ended: {end:?}");
    assert!(incident.len() >= 3, "as long as it lasts: {incident:?}");

    let backlog = decisions.closes_of(Symptom::Threshold);
    assert!(backlog.iter().all(|close| (309_100..530_000).contains(close)), "one incident: {backlog:?}");
    for symptom in [Symptom::Disputed, Symptom::Unconfirmed, Symptom::Gap] {
        assert_eq!(decisions.closes_of(symptom), Vec::<u64>::new(), "{symptom:?}");
    }
}

/// Runs `quorate plan` in a folder with these files and nothing else: no network, no database, no configuration.
fn quorate_plan(files: &[(&str, &[u8])], arguments: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("the folder is writable");
    }
    let mut quorate = std::process::Command::new(env!("CARGO_BIN_EXE_quorate"));
    quorate.env_clear().current_dir(folder.path()).arg("plan").args(arguments);
    quorate.output().expect("the program is built")
}

fn envelope(plan: &Plan) -> Vec<u8> {
    let (body, key) = (plan.to_bytes(), SecretKey::from_seed(&[1; 32]));
    let signature = (key.public().id(), key.sign(&pae(PLAN_TYPE, &body)));
    Envelope::new(PLAN_TYPE, body, vec![signature]).to_json()
}

#[test]
fn every_plan_is_computed_again_and_explained_from_its_bundle_in_an_empty_folder() {
    // Plans may follow each other in every window, so that there are several.
    let mut genesis = genesis();
    for target in &mut genesis.targets {
        (target.cooldown, target.plans_per_hour) = (Millis::ZERO, 600);
    }
    for action in genesis.policies.iter_mut().filter_map(|policy| policy.action.as_mut()) {
        action.cooldown = Millis::ZERO;
    }
    let decisions = decide(&telemetry(&recorded()), &genesis, Order::AsRecorded);
    assert!(!decisions.plans.is_empty());
    for (_, plan) in &decisions.plans {
        let bundle = decisions.bundles.iter().find(|bundle| Digest::of(bundle) == plan.evidence);
        let bundle = bundle.expect("its evidence is kept");
        let envelope = envelope(plan);
        let files = [("bundle", &bundle[..]), ("plan.json", &envelope)];
        let replayed = quorate_plan(&files, &["replay", "--bundle", "bundle", "--plan", "plan.json"]);
        assert_eq!(replayed.status.code(), Some(0), "{replayed:?}");
        let said = String::from_utf8_lossy(&replayed.stdout).into_owned();
        assert!(said.contains(&Digest::of(&plan.to_bytes()).to_string()), "{said}");
        assert!(said.contains("the plan has these very bytes"), "{said}");

        let forged =
            self::envelope(&Plan { expires_at: plan.expires_at.plus(Millis::new(1)), ..plan.clone() });
        let files = [("bundle", &bundle[..]), ("plan.json", &forged)];
        let refused = quorate_plan(&files, &["replay", "--bundle", "bundle", "--plan", "plan.json"]);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("the plan has expires_at"), "{said}");
    }
    let (_, first) = &decisions.plans[0];
    let bundle = decisions.bundles.iter().find(|bundle| Digest::of(bundle) == first.evidence);
    let bundle = bundle.expect("its evidence is kept");
    let explained = quorate_plan(&[("bundle", bundle)], &["explain", "--bundle", "bundle"]);
    assert_eq!(explained.status.code(), Some(0), "{explained:?}");
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    for words in [
        "confirmed by a quorum",
        "reported   r0 r1 r2 r3",
        "policy extract-backlog: fired: airflow/extract_pool from 3 slots to 6 slots",
        "found      threshold 37 against 20, since ",
        "quiet: no symptom",
        "limits     2 to 12 slots, at most 3 a plan",
        "checker    breaks no invariant",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    let damaged = [&bundle[..bundle.len() - 1], &[7, 7]].concat();
    let refused = quorate_plan(&[("bundle", &damaged)], &["explain", "--bundle", "bundle"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("bundle: not an evidence bundle"),
        "{refused:?}"
    );
}

#[test]
fn the_order_and_batching_of_arrivals_change_no_plan_byte() {
    let (telemetry, genesis) = (telemetry(&recorded()), genesis());
    let as_recorded = decide(&telemetry, &genesis, Order::AsRecorded);
    assert_eq!(as_recorded.plans.len(), 1);
    for seed in 1..=2 {
        let shuffled = decide(&telemetry, &genesis, Order::Shuffled(Random(seed)));
        let bytes = |decisions: &Decisions| -> Vec<Vec<u8>> {
            decisions.plans.iter().map(|(_, plan)| plan.to_bytes()).collect()
        };
        assert_eq!(bytes(&shuffled), bytes(&as_recorded), "seed {seed}");
        assert_eq!(shuffled, as_recorded, "seed {seed}");
    }
}

/// Another name for anything, of which nothing of the old one is left.
fn renamed(name: &str) -> String {
    format!("x{}", &Digest::of(name.as_bytes()).to_string()[..12])
}

fn renamed_requests(requests: &[RecordedRequest], later: Millis) -> Vec<RecordedRequest> {
    let shift_ns = later.as_millis() * 1_000_000;
    let names = Rename { metric: &renamed, attribute: &|_, value| renamed(value) };
    let rename = |request: &RecordedRequest| {
        let (kind, encoding) = (request.content_type.as_deref(), request.content_encoding.as_deref());
        let body = rewrite(&request.body, kind, encoding, &|time| time + shift_ns, &names);
        RecordedRequest {
            body: body.expect("a real engine's body"),
            content_encoding: None,
            ..request.clone()
        }
    };
    requests.iter().map(rename).collect()
}

fn renamed_genesis(mut genesis: Genesis) -> Genesis {
    let target = |id: &TargetId| TargetId::new(renamed(id.as_str())).expect("a valid name");
    for one in &mut genesis.targets {
        one.id = target(&one.id);
    }
    genesis.targets.sort_by(|one, other| one.id.cmp(&other.id));
    for policy in &mut genesis.policies {
        policy.name = renamed(&policy.name);
        let selector = &mut policy.indicator.selector;
        selector.name = renamed(&selector.name);
        selector.source =
            selector.source.as_ref().map(|source| SourceId::new(renamed(source.as_str())).expect("a name"));
        let attributes = std::mem::take(&mut selector.attributes);
        selector.attributes = attributes
            .into_iter()
            .map(|(name, value)| match value {
                AttributeValue::Text(text) => (name, AttributeValue::Text(renamed(&text))),
                AttributeValue::Bool(_) | AttributeValue::Integer(_) | AttributeValue::Other(_) => {
                    (name, value)
                }
            })
            .collect::<BTreeMap<_, _>>();
        if let Some(action) = &mut policy.action {
            action.target = target(&action.target);
        }
    }
    genesis
}

#[test]
fn a_copy_with_other_names_at_another_time_gives_the_same_decisions() {
    let (requests, genesis) = (recorded(), genesis());
    let original = decide(&telemetry(&requests), &genesis, Order::AsRecorded);
    let other_names = renamed_genesis(genesis.clone());

    let whole_windows = genesis.parameters.window.times(123_456);
    let copy = telemetry(&renamed_requests(&requests, whole_windows));
    let of_copy = decide(&copy, &other_names, Order::AsRecorded);
    assert_eq!(of_copy.nameless(), original.nameless());
    assert_eq!(of_copy.plans[0].1.target.as_str(), renamed("airflow/extract_pool"));

    // Windows are cut elsewhere now, so decisions may fall a window earlier or later, and no more.
    for odd in [1_700, 8_800] {
        let copy = telemetry(&renamed_requests(&requests, whole_windows.plus(Millis::new(odd))));
        let of_copy = decide(&copy, &other_names, Order::AsRecorded);
        let [(issued_at, plan)] = of_copy.plans.as_slice() else {
            panic!("one plan, not {:?}", of_copy.plans);
        };
        assert!((309_100..329_100).contains(issued_at), "shifted by {odd} ms: at {issued_at} ms");
        assert_eq!((plan.preconditions.state, plan.desired), (slots(3), slots(6)));
        let silent = of_copy.closes_of(Symptom::Absence);
        let silent: Vec<_> = silent.into_iter().filter(|close| *close < 1_000_000).collect();
        assert!(silent.iter().all(|close| (815_000..=875_000).contains(close)), "{silent:?}");
        assert!(silent.len() >= 3, "{silent:?}");
    }
}
