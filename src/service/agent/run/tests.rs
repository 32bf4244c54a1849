//! The agent against real HTTP servers that serve the fixture cluster's documents.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{Router, routing::get};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{Agent, AgentError, AgentSettings};
use crate::{
    execute::{
        agent::{Account, Aim, Attempt, Equivocation, Idle, Progress, Trust},
        feed::Feed,
    },
    knowledge::{
        certified::Certified,
        command::Command,
        fixtures::{
            self, agent_key, certified_head, certified_plan, committee, head_of, plan, target, verified_root,
        },
        head::{Head, Mode},
        plan::{DesiredState, OnStale, Plan, Preconditions},
        receipt::{Outcome, Receipt, Refusal, VerifiedReceipt},
    },
    service::{
        agent::{
            StateFile,
            actuator::{Actuator, ActuatorError},
            event::{Event, TakenBack},
            fault::FaultKind,
            pull::Replicas,
        },
        api::{Submission, router, testing::api_over},
        clock::wall_clock,
        http_client::HttpClient,
    },
    types::{Cycle, Millis, SecretKey, Shard, UnixMillis},
};

fn slots(slots: u32) -> DesiredState {
    DesiredState::Slots { slots }
}

/// The fixture's plan, issued a moment ago.
fn plan_of_today() -> Plan {
    let now = wall_clock();
    Plan {
        issued_at: now.minus(Millis::from_secs(1)),
        not_before: now.minus(Millis::from_secs(1)),
        expires_at: now.plus(Millis::from_secs(900)),
        ..plan()
    }
}

fn head_of_today(number: u64, mode: Mode, plan: &Plan) -> Head {
    Head { time: wall_clock(), ..head_of(number, mode, plan) }
}

/// A target that does what its script says: what it is after it was set for an aim.
#[derive(Clone)]
struct Target {
    state: Arc<Mutex<DesiredState>>,
    changes: Arc<Mutex<Vec<(Aim, Attempt)>>>,
    lands: fn(DesiredState, Aim) -> Option<DesiredState>,
    error: fn() -> ActuatorError,
}

impl Target {
    fn new(state: DesiredState, lands: fn(DesiredState, Aim) -> Option<DesiredState>) -> Self {
        let error = || ActuatorError::Pool("it refuses".to_owned());
        Self { state: Arc::new(Mutex::new(state)), changes: Arc::default(), lands, error }
    }

    fn obedient(state: DesiredState) -> Self {
        Self::new(state, |wanted, _| Some(wanted))
    }

    fn state(&self) -> DesiredState {
        *self.state.lock().expect("no test panics while it holds this")
    }
}

impl Actuator for Target {
    async fn read(&self, _: &Plan) -> Result<DesiredState, ActuatorError> {
        Ok(self.state())
    }

    async fn set(&self, plan: &Certified<Plan>, aim: Aim, attempt: Attempt) -> Result<(), ActuatorError> {
        self.changes.lock().expect("no test panics while it holds this").push((aim, attempt));
        let landed = (self.lands)(aim.of(plan.document()), aim);
        let landed = landed.ok_or_else(self.error)?;
        *self.state.lock().expect("no test panics while it holds this") = landed;
        Ok(())
    }
}

/// Four replicas that share one feed.
struct Cluster {
    feed: Option<watch::Sender<Arc<Feed>>>,
    receipts: mpsc::Receiver<Command>,
    addresses: Vec<String>,
    servers: Vec<JoinHandle<()>>,
}

async fn serve(routes: Router) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = tokio::spawn(async move { drop(axum::serve(listener, routes).await) });
    (format!("http://{address}"), server)
}

impl Cluster {
    async fn start() -> Self {
        let (feed, seen) = watch::channel(Arc::new(Feed::new(verified_root(), [target()])));
        let (commands, receipts) = mpsc::channel(100);
        let (api, mut submissions) = api_over(seen);
        let waiting = api.submitter.waiting().clone();
        tokio::spawn(async move {
            while let Some(Submission { command, answer, .. }) = submissions.next().await {
                let (digest, encoded) = (command.digest(), command);
                let command = Command::decode(encoded.head(), encoded.body()).expect("it is one");
                waiting.ordered([digest]);
                if commands.send(command).await.is_err() {
                    break;
                }
                // Whoever has enough answers waits for no other.
                let _ = answer.send(Ok(()));
            }
        });
        let (mut addresses, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let (address, server) = serve(router(api.clone())).await;
            addresses.push(address);
            servers.push(server);
        }
        Self { feed: Some(feed), receipts, addresses, servers }
    }

    fn publish(&self, plan: &Plan, head: &Head) {
        self.feed.as_ref().expect("it runs").send_modify(|feed| {
            let feed = Arc::make_mut(feed);
            feed.log_plan(certified_plan(plan));
            feed.publish_head(certified_head(head));
        });
    }

    async fn receipt(&mut self) -> Receipt {
        match self.receipts.recv().await {
            Some(Command::Receipt { envelope }) => {
                let cluster = committee().cluster();
                VerifiedReceipt::verify(&envelope, &agent_key().public(), cluster)
                    .expect("replicas queue verified receipts only")
                    .receipt()
                    .clone()
            }
            other => panic!("{other:?}"),
        }
    }

    /// The receipt with this counter; each receipt reaches several replicas.
    async fn newest_receipt(&mut self, counter: u64) -> Receipt {
        loop {
            let receipt = self.receipt().await;
            if receipt.counter == counter {
                return receipt;
            }
        }
    }

    /// The replica's server ends, with its connections.
    fn kill(&mut self) {
        self.feed = None;
        for server in self.servers.drain(..) {
            server.abort();
        }
    }
}

struct Running {
    events: mpsc::Receiver<Event>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), AgentError>>,
}

fn settings(addresses: &[String], folder: &Path, stale_after: Millis) -> AgentSettings {
    let replicas = Replicas::new(HttpClient::new(), addresses, committee().size());
    AgentSettings {
        trust: Trust {
            root: verified_root(),
            target: target(),
            shard: Shard::new(0),
            stale_after,
            clock_tolerance: Millis::from_secs(30),
        },
        key: agent_key(),
        replicas: replicas.expect("the addresses are distinct"),
        state_folder: folder.join("state"),
        envelopes_folder: Some(folder.join("envelopes")),
    }
}

fn start(settings: AgentSettings, target: &Target) -> Running {
    start_with(settings, |_| target.clone())
}

/// An agent with an actuator that may look at how many events wait to be read.
fn start_with<A: Actuator + 'static>(
    settings: AgentSettings,
    actuator: impl FnOnce(&mpsc::Sender<Event>) -> A,
) -> Running {
    let (sender, events) = mpsc::channel(100);
    let (stop, stopped) = oneshot::channel();
    let actuator = actuator(&sender);
    let agent = Agent::open(settings, actuator, sender).expect("the folder is ours");
    let task = tokio::spawn(agent.run(async { drop(stopped.await) }));
    Running { events, stop, task }
}

impl Running {
    /// The next event that the predicate picks.
    async fn wait_for<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            let event = self.events.recv().await.expect("the agent runs");
            if let Some(picked) = pick(&event) {
                return picked;
            }
        }
    }

    async fn stop(self) {
        self.stop.send(()).expect("the agent listens");
        drop(self.events);
        self.task.await.expect("it does not panic").expect("it ends well");
    }
}

/// Waits until the agent ends over this contradiction.
async fn stops_over(agent: Running, proof: &Equivocation) {
    let Running { mut events, stop: _stop, task } = agent;
    let told = loop {
        if let Event::Equivocation { contradiction, .. } =
            events.recv().await.expect("it tells before it ends")
        {
            break contradiction;
        }
    };
    let listening = tokio::spawn(async move { while events.recv().await.is_some() {} });
    match task.await.expect("it does not panic") {
        Err(AgentError::Equivocation { contradiction, .. }) => {
            assert_eq!((contradiction, told), (proof.digest(), proof.digest()));
        }
        other => panic!("{other:?}"),
    }
    listening.await.expect("it ends with the events");
}

const CALM: Millis = Millis::from_secs(300);

#[tokio::test]
async fn a_plan_is_verified_applied_read_back_and_accounted_for() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let target = Target::obedient(slots(3));
    let mut agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    let plan = plan_of_today();
    let head = head_of_today(8, Mode::Act, &plan);
    cluster.publish(&plan, &head);
    let receipt = cluster.receipt().await;
    assert_eq!(receipt.outcome, Outcome::Applied {});
    assert_eq!((receipt.before, receipt.after, receipt.counter), (slots(3), slots(6), 1));
    assert_eq!(target.state(), slots(6));
    agent.wait_for(|event| matches!(event, Event::Verified { .. }).then_some(())).await;
    agent.wait_for(|event| matches!(event, Event::Applied { .. }).then_some(())).await;
    agent.wait_for(|event| matches!(event, Event::ReadBack { .. }).then_some(())).await;
    agent.wait_for(|event| matches!(event, Event::ReceiptSent { replicas: 2 }).then_some(())).await;
    agent.stop().await;
    let kept = |name| std::fs::read(folder.path().join("envelopes").join(name)).expect("it was kept");
    assert_eq!(kept("root.json"), verified_root().envelope().to_json());
    assert_eq!(kept("head.json"), certified_head(&head).envelope().to_json());
    assert_eq!(kept("plan.json"), certified_plan(&plan).envelope().to_json());
    let receipt_kept =
        VerifiedReceipt::verify(&kept("receipt.json"), &agent_key().public(), committee().cluster());
    assert_eq!(receipt_kept.map(|kept| kept.receipt().clone()), Ok(receipt));
}

/// A target that notes how many events were told when it was set.
struct Watching {
    target: Target,
    events: mpsc::WeakSender<Event>,
    told: Arc<Mutex<Vec<usize>>>,
}

impl Actuator for Watching {
    async fn read(&self, plan: &Plan) -> Result<DesiredState, ActuatorError> {
        self.target.read(plan).await
    }

    async fn set(&self, plan: &Certified<Plan>, aim: Aim, attempt: Attempt) -> Result<(), ActuatorError> {
        let events = self.events.upgrade().expect("the agent runs");
        let told = events.max_capacity() - events.capacity();
        self.told.lock().expect("no test panics while it holds this").push(told);
        self.target.set(plan, aim, attempt).await
    }
}

/// Whoever listens may take long: a plan that was judged long ago must not be set.
#[tokio::test]
async fn a_plan_is_told_of_only_after_the_target_was_set() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let (target, told) = (Target::obedient(slots(3)), Arc::new(Mutex::new(Vec::new())));
    let plan = plan_of_today();
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let mut agent = start_with(settings(&cluster.addresses, folder.path(), CALM), |events| Watching {
        target: target.clone(),
        events: events.downgrade(),
        told: Arc::clone(&told),
    });
    // Nothing is read from the events before the target is set.
    assert_eq!(cluster.receipt().await.outcome, Outcome::Applied {});
    let [told] = told.lock().expect("no test panics while it holds this")[..] else {
        panic!("it was set once")
    };
    let mut before = Vec::new();
    for _ in 0..told {
        before.push(agent.wait_for(|event| Some(event.clone())).await);
    }
    let of_the_plan = |event: &Event| matches!(event, Event::Verified { .. } | Event::Applied { .. });
    assert!(!before.iter().any(of_the_plan), "{before:?}");
    agent.wait_for(|event| matches!(event, Event::Verified { .. }).then_some(())).await;
    agent.wait_for(|event| matches!(event, Event::Applied { .. }).then_some(())).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_target_that_was_changed_in_part_is_told_as_that() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let mut target = Target::new(slots(3), |_, _| None);
    target.error = || ActuatorError::Halfway {
        done: 1,
        of: 2,
        source: Box::new(ActuatorError::Pool("it refuses".to_owned())),
    };
    let plan = plan_of_today();
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let mut agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    let receipt = cluster.receipt().await;
    assert_eq!(receipt.outcome, Outcome::Partial {});
    assert_eq!((receipt.before, receipt.after), (slots(3), slots(3)));
    let failed = |event: &Event| {
        let Event::TargetFailed { error, .. } = event else { return None };
        Some(error.clone())
    };
    let error = agent.wait_for(failed).await;
    assert!(error.starts_with("1 of 2 failed tasks run again, then: the worker pool: it refuses"), "{error}");
    agent.wait_for(|event| matches!(event, Event::DoneInPart { .. }).then_some(())).await;
    agent.stop().await;
}

#[tokio::test]
async fn receipts_that_no_replica_takes_are_given_up_one_by_one_and_counted() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let (target, plan) = (Target::obedient(slots(3)), plan_of_today());
    let older = Plan { seq: Cycle::new(36), ..plan.clone() };
    {
        let (file, mut state) =
            StateFile::open(&folder.path().join("state"), &committee(), &self::target()).expect("it is new");
        for _ in 0..64 {
            let account =
                Account { outcome: Outcome::Noop {}, before: slots(3), after: slots(3), at: wall_clock() };
            let progress = Progress::Done { outcome: Outcome::Noop {} };
            state.conclude(certified_plan(&older), progress, account, &agent_key());
        }
        file.save(&state).expect("the folder is writable");
    }
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let mut agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    let lost = |event: &Event| {
        let Event::ReceiptLost { lost } = event else { return None };
        Some(*lost)
    };
    assert_eq!(agent.wait_for(lost).await, 1);
    let receipt = cluster.newest_receipt(65).await;
    assert_eq!((receipt.outcome, receipt.lost_receipts), (Outcome::Applied {}, 1));
    agent.stop().await;
}

#[tokio::test]
async fn a_lying_a_stalling_and_a_missing_replica_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let plan = plan_of_today();
    let forged = Head { number: crate::types::HeadNumber::new(99), ..head_of_today(99, Mode::Hold, &plan) };
    let forged =
        fixtures::seal(crate::knowledge::head::HEAD_TYPE, forged.to_bytes(), &fixtures::replica_keys()[..1]);
    let lie = format!("{{\"heads\":[{}]}}", String::from_utf8(forged).expect("JSON is UTF-8"));
    let liar = Router::new().route("/v1/heads", get(move || std::future::ready(lie.clone())));
    let stalling = Router::new().fallback(std::future::pending::<()>);
    let (liar, _) = serve(liar).await;
    let (stalling, _) = serve(stalling).await;
    let (missing, server) = serve(Router::new()).await;
    server.abort();
    let asked = [vec![liar, stalling, missing], cluster.addresses[..2].to_vec()].concat();
    let target = Target::obedient(slots(3));
    // Without news a round ends after a third of this.
    let mut agent = start(settings(&asked, folder.path(), Millis::from_secs(3)), &target);
    let uncertified =
        |event: &Event| matches!(event, Event::ReplicaFault { kind: FaultKind::Uncertified, .. });
    agent.wait_for(|event| uncertified(event).then_some(())).await;
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let receipt = cluster.receipt().await;
    assert_eq!(receipt.outcome, Outcome::Applied {});
    assert!(receipt.refused_documents > 0);
    agent.stop().await;
}

#[tokio::test]
async fn one_replica_alone_moves_nothing_and_stale_heads_take_the_plan_back() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let target = Target::obedient(slots(3));
    let plan = plan_of_today();
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    assert_eq!(cluster.receipt().await.outcome, Outcome::Applied {});
    agent.stop().await;

    // The same documents, but only one replica is left to tell.
    let alone = [cluster.addresses[0].clone(), "http://127.0.0.1:9".to_owned()];
    let mut agent = start(settings(&alone, folder.path(), Millis::from_secs(1)), &target);
    agent.wait_for(|event| matches!(event, Event::Answers { answered: 1, needed: 2 }).then_some(())).await;
    let taken_back = |event: &Event| {
        if let Event::TakenBack { why: TakenBack::Stale, state, .. } = event { Some(*state) } else { None }
    };
    assert_eq!(agent.wait_for(taken_back).await, slots(3));
    agent.stop().await;

    // With the cluster back and a new head the plan is in force again.
    let agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    cluster.publish(&plan, &head_of_today(9, Mode::Act, &plan));
    let mut last = cluster.receipt().await;
    while last.outcome != (Outcome::Applied {}) || last.counter < 3 {
        last = cluster.receipt().await;
    }
    assert_eq!(target.state(), slots(6));
    agent.stop().await;
    let first = Attempt::FIRST;
    let changes = target.changes.lock().expect("no test panics while it holds this");
    assert_eq!(*changes, [(Aim::Desired, first), (Aim::Rollback, first), (Aim::Desired, first.next())]);
}

#[tokio::test]
async fn a_target_that_lands_elsewhere_is_put_back_by_the_certified_rollback() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let target = Target::new(slots(3), |wanted, aim| match aim {
        Aim::Desired => Some(slots(5)),
        Aim::Rollback | Aim::Revert => Some(wanted),
    });
    let plan = plan_of_today();
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    let receipt = cluster.receipt().await;
    assert_eq!(receipt.outcome, Outcome::Reverted {});
    assert_eq!((receipt.before, receipt.after), (slots(3), slots(3)));
    agent.stop().await;
}

#[tokio::test]
async fn a_target_that_refuses_and_one_that_cannot_be_put_back_are_told_as_they_are() {
    let stubborn = Target::new(slots(3), |_, _| None);
    let broken = Target::new(slots(3), |_, _| Some(slots(5)));
    for (target, after) in [(stubborn, slots(3)), (broken, slots(5))] {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mut cluster = Cluster::start().await;
        let plan = plan_of_today();
        cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
        let agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
        let receipt = cluster.receipt().await;
        assert_eq!(receipt.outcome, Outcome::Refused { why: Refusal::TargetFailed });
        assert_eq!((receipt.before, receipt.after), (after.min(slots(3)), after));
        agent.stop().await;
    }
}

#[tokio::test]
async fn an_agent_that_was_killed_while_applying_settles_by_reading_the_target() {
    let cases = [
        (slots(6), Outcome::Applied {}, slots(6)),
        (slots(3), Outcome::Applied {}, slots(6)),
        (slots(4), Outcome::Refused { why: Refusal::Precondition }, slots(4)),
    ];
    for (found, outcome, after) in cases {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mut cluster = Cluster::start().await;
        let plan = plan_of_today();
        {
            let state_folder = folder.path().join("state");
            let (file, mut state) =
                StateFile::open(&state_folder, &committee(), &target()).expect("it is new");
            state.begin(certified_plan(&plan), slots(3), Aim::Desired);
            file.save(&state).expect("the folder is writable");
        }
        let target = Target::obedient(found);
        let agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
        cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
        let receipt = cluster.receipt().await;
        assert_eq!((receipt.outcome, receipt.after), (outcome, after), "found {found:?}");
        assert_eq!((receipt.before, receipt.counter), (slots(3), 1));
        agent.stop().await;
    }
}

#[tokio::test]
async fn two_plans_under_one_number_stop_the_agent_until_a_person_clears_it() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let target = Target::obedient(slots(3));
    let plan = plan_of_today();
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    assert_eq!(cluster.receipt().await.outcome, Outcome::Applied {});
    let other = Plan { desired: slots(7), ..plan.clone() };
    let contradicting = head_of_today(9, Mode::Act, &other);
    cluster.publish(&other, &contradicting);
    let proof = Equivocation {
        kept: certified_plan(&plan).envelope().clone(),
        other: certified_head(&contradicting).envelope().clone(),
    };
    stops_over(agent, &proof).await;
    let receipt = cluster.newest_receipt(2).await;
    assert_eq!(receipt.outcome, Outcome::Refused { why: Refusal::Contradiction });
    assert_eq!((receipt.before, receipt.after), (slots(6), slots(6)), "the target is left as it is");
    for (number, envelope) in [(1, &proof.kept), (2, &proof.other)] {
        let name = format!("contradiction-{}-{number}.json", proof.digest());
        let kept = std::fs::read(folder.path().join("state").join(name)).expect("it was kept");
        assert_eq!(kept, envelope.to_json());
    }

    // A restart changes nothing: neither the same number nor a later one is looked at.
    let later = Plan { seq: Cycle::new(38), preconditions: Preconditions { state: slots(6) }, ..other };
    cluster.publish(&later, &head_of_today(10, Mode::Act, &later));
    stops_over(start(settings(&cluster.addresses, folder.path(), CALM), &target), &proof).await;
    assert_eq!(target.state(), slots(6));

    // After a person has cleared it, the agent goes on with what came later.
    {
        let opened = StateFile::open(&folder.path().join("state"), &committee(), &self::target());
        let (file, mut state) = opened.expect("the agent has ended");
        assert!(state.clear(proof.digest()));
        file.save(&state).expect("the folder is writable");
    }
    let agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    let receipt = cluster.newest_receipt(3).await;
    assert_eq!((receipt.seq, receipt.outcome), (Cycle::new(38), Outcome::Applied {}));
    assert_eq!(target.state(), slots(7));
    agent.stop().await;
    cluster.kill();
}

#[tokio::test]
async fn two_heads_under_one_number_stop_the_agent_whoever_serves_them() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (one, other) = (Cluster::start().await, Cluster::start().await);
    let plan = plan_of_today();
    let (acting, holding) = (head_of_today(8, Mode::Act, &plan), head_of_today(8, Mode::Hold, &plan));
    one.publish(&plan, &acting);
    other.publish(&plan, &holding);
    // Two answers are needed and there are two replicas: one serves the one head, one the other.
    let addresses = [one.addresses[0].clone(), other.addresses[0].clone()];
    let target = Target::obedient(slots(3));
    let agent = start(settings(&addresses, folder.path(), CALM), &target);
    let Running { mut events, stop: _stop, task } = agent;
    while !matches!(events.recv().await, Some(Event::Equivocation { .. })) {}
    let ended = task.await.expect("it does not panic");
    assert!(matches!(ended, Err(AgentError::Equivocation { .. })), "{ended:?}");
    assert_eq!(target.state(), slots(3), "no plan was taken up, and none is");
    let opened = StateFile::open(&folder.path().join("state"), &committee(), &self::target());
    let (_file, state) = opened.expect("the agent has ended");
    let kept = state.equivocation().expect("it is durable");
    let mut bodies = [&kept.kept, &kept.other].map(|envelope| envelope.unverified_body().to_vec());
    let mut expected = [acting.to_bytes(), holding.to_bytes()];
    bodies.sort_unstable();
    expected.sort_unstable();
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn a_clock_a_day_off_keeps_what_is_applied_applies_nothing_new_says_so_and_recovers() {
    const DAY: Millis = Millis::from_secs(86_400);
    // What counts is the distance, so the quorum's clock is moved and not the machine's.
    let shifts: [fn(UnixMillis) -> UnixMillis; 2] = [|now| now.plus(DAY), |now| now.minus(DAY)];
    for shift in shifts {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mut cluster = Cluster::start().await;
        let target = Target::obedient(slots(3));
        let plan = plan_of_today();
        cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
        let mut agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
        assert_eq!(cluster.receipt().await.outcome, Outcome::Applied {});

        let now = shift(wall_clock());
        let next = Plan {
            seq: Cycle::new(38),
            issued_at: now,
            not_before: now,
            expires_at: now.plus(Millis::from_secs(900)),
            preconditions: Preconditions { state: slots(6) },
            desired: slots(7),
            ..plan
        };
        cluster.publish(&next, &Head { time: now, ..head_of_today(9, Mode::Act, &next) });
        let clock_fault = |event: &Event| {
            matches!(event, Event::Idle { why } if *why == Idle::ClockFault.to_string()).then_some(())
        };
        agent.wait_for(clock_fault).await;
        assert_eq!(target.state(), slots(6), "what is applied stays, and nothing new comes");

        let now = wall_clock();
        let last = Plan { seq: Cycle::new(39), issued_at: now, not_before: now, ..next };
        let last = Plan { expires_at: now.plus(Millis::from_secs(900)), ..last };
        cluster.publish(&last, &head_of_today(10, Mode::Act, &last));
        let receipt = cluster.newest_receipt(2).await;
        assert_eq!((receipt.seq, receipt.outcome), (Cycle::new(39), Outcome::Applied {}));
        assert_eq!(target.state(), slots(7));
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_plan_that_holds_stays_in_force_while_heads_are_stale_and_after() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let target = Target::obedient(slots(3));
    let plan = Plan { on_stale: OnStale::Hold, ..plan_of_today() };
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let mut agent = start(settings(&cluster.addresses, folder.path(), Millis::from_secs(1)), &target);
    let idle = |is: Idle| {
        move |event: &Event| matches!(event, Event::Idle { why } if *why == is.to_string()).then_some(())
    };
    agent.wait_for(idle(Idle::Stale)).await;
    assert_eq!(target.state(), slots(6));
    cluster.publish(&plan, &head_of_today(9, Mode::Act, &plan));
    agent.wait_for(idle(Idle::UpToDate)).await;
    assert_eq!(target.state(), slots(6));
    assert_eq!(cluster.receipt().await.outcome, Outcome::Applied {});
    agent.stop().await;
}

#[tokio::test]
async fn a_stopped_target_is_left_as_it_is_by_an_agent_that_is_cut_off() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let target = Target::obedient(slots(3));
    let plan = plan_of_today();
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    assert_eq!(cluster.receipt().await.outcome, Outcome::Applied {});
    agent.stop().await;

    // It has heard of the stop, and then of nothing any more.
    cluster.kill();
    {
        let opened = StateFile::open(&folder.path().join("state"), &committee(), &self::target());
        let (file, mut state) = opened.expect("the agent has ended");
        assert!(state.raise_head(&certified_head(&head_of_today(9, Mode::Hold, &plan))));
        file.save(&state).expect("the folder is writable");
    }
    let mut agent = start(settings(&cluster.addresses, folder.path(), Millis::from_secs(1)), &target);
    let on_hold = |event: &Event| {
        let is_held = matches!(event, Event::Idle { why } if *why == Idle::StaleOnHold.to_string());
        (is_held || matches!(event, Event::TakenBack { .. })).then_some(is_held)
    };
    assert!(agent.wait_for(on_hold).await);
    assert_eq!(target.state(), slots(6));
    agent.stop().await;
}

#[tokio::test]
async fn receipts_that_an_older_key_signed_reach_the_quorum_under_the_agents_new_key() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let (target, plan) = (Target::obedient(slots(3)), plan_of_today());
    let older = Plan { seq: Cycle::new(36), ..plan.clone() };
    {
        let state_folder = folder.path().join("state");
        let (file, mut state) =
            StateFile::open(&state_folder, &committee(), &self::target()).expect("it is new");
        let account =
            Account { outcome: Outcome::Noop {}, before: slots(3), after: slots(3), at: wall_clock() };
        let progress = Progress::Done { outcome: Outcome::Noop {} };
        let unbound = SecretKey::from_seed(&[77; 32]);
        state.conclude(certified_plan(&older), progress, account, &unbound);
        file.save(&state).expect("the folder is writable");
    }
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let mut agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    let (waited, newer) = (cluster.newest_receipt(1).await, cluster.newest_receipt(2).await);
    assert_eq!((waited.seq, waited.outcome), (Cycle::new(36), Outcome::Noop {}));
    assert_eq!((newer.seq, newer.outcome), (Cycle::new(37), Outcome::Applied {}));
    agent.wait_for(|event| matches!(event, Event::ReceiptSent { .. }).then_some(())).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_cut_off_never_undoes_what_came_later() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::start().await;
    let target = Target::obedient(slots(3));
    let plan = plan_of_today();
    cluster.publish(&plan, &head_of_today(8, Mode::Act, &plan));
    let agent = start(settings(&cluster.addresses, folder.path(), CALM), &target);
    assert_eq!(cluster.receipt().await.outcome, Outcome::Applied {});
    agent.stop().await;

    // Another agent, which hears the quorum, has applied a newer plan since.
    *target.state.lock().expect("no test panics while it holds this") = slots(9);
    let agent = start(settings(&cluster.addresses, folder.path(), Millis::from_secs(1)), &target);
    let receipt = cluster.newest_receipt(2).await;
    assert_eq!(receipt.outcome, Outcome::Refused { why: Refusal::Precondition });
    assert_eq!((receipt.after, target.state()), (slots(9), slots(9)));
    agent.stop().await;
}
