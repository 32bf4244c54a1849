//! One lying replica beside honest ones, every kind of lie: it is counted by its kind, nothing happens while f + 1
//! honest answers are missing, and with them the agent acts on what the quorum certified.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate::{
    execute::agent::{Aim, Attempt, Trust},
    knowledge::{
        certified::Certified,
        plan::{DesiredState, Plan},
        receipt::{Outcome, VerifiedReceipt},
    },
    service::{
        agent::{
            Agent, AgentSettings, Event, FaultKind, Replicas,
            actuator::{Actuator, ActuatorError},
        },
        http_client::HttpClient,
    },
    types::{Millis, Shard},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    fixture::{agent_key, cluster_of, root, slots, target, verified_root},
    replica::{Conduct, Quorum, Replica, plan_of_today},
};

/// A loaded machine is slow and no failure.
const PATIENCE: Duration = Duration::from_secs(90);

/// A target in memory that counts how often it was set.
#[derive(Clone, Debug)]
struct Target {
    state: Arc<Mutex<DesiredState>>,
    sets: Arc<AtomicU64>,
}

impl Target {
    fn new() -> Self {
        Self { state: Arc::new(Mutex::new(slots(3))), sets: Arc::default() }
    }

    fn is(&self) -> (DesiredState, u64) {
        (*self.state.lock().expect("nobody panics while holding it"), self.sets.load(Ordering::SeqCst))
    }
}

impl Actuator for Target {
    async fn read(&self, _: &Plan) -> Result<DesiredState, ActuatorError> {
        Ok(self.is().0)
    }

    async fn set(&self, plan: &Certified<Plan>, aim: Aim, _: Attempt) -> Result<(), ActuatorError> {
        *self.state.lock().expect("nobody panics while holding it") = aim.of(plan.document());
        self.sets.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn settings(replicas: &[&Replica], folder: &Path) -> AgentSettings {
    let addresses: Vec<String> = replicas.iter().map(|replica| replica.url()).collect();
    let root = verified_root();
    let replicas = Replicas::new(HttpClient::new(), &addresses, root.committee().size());
    AgentSettings {
        trust: Trust {
            root,
            target: target(),
            shard: Shard::new(0),
            // A third of it is how long a replica without news is waited for.
            stale_after: Millis::from_secs(9),
            clock_tolerance: Millis::from_secs(300),
        },
        key: agent_key(),
        replicas: replicas.expect("the addresses are distinct"),
        state_folder: folder.join("state"),
        envelopes_folder: None,
    }
}

/// What the honest replicas hold back at first, so that the lie is what the agent waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// There is one honest answer and f + 1 = 2 are needed.
    Answers,
    /// The quorum's head names a plan that the honest replicas do not have yet.
    Plan,
}

const LIES: [(Conduct, FaultKind, Missing); 23] = [
    (Conduct::OldHead, FaultKind::OldHead, Missing::Plan),
    (Conduct::ForgedHead, FaultKind::Uncertified, Missing::Answers),
    (Conduct::OtherShard, FaultKind::Foreign, Missing::Answers),
    (Conduct::OtherTargets, FaultKind::Foreign, Missing::Answers),
    (Conduct::TwoHeads, FaultKind::Malformed, Missing::Answers),
    (Conduct::OldPlan, FaultKind::Foreign, Missing::Plan),
    (Conduct::OtherTargetsPlan, FaultKind::Foreign, Missing::Plan),
    (Conduct::UnsignedPlan, FaultKind::Uncertified, Missing::Plan),
    (Conduct::NoPlan, FaultKind::NoPlan, Missing::Plan),
    (Conduct::Silent, FaultKind::Slow, Missing::Answers),
    (Conduct::EndlessBody, FaultKind::TooLarge, Missing::Answers),
    (Conduct::SlowBody, FaultKind::Slow, Missing::Answers),
    (Conduct::EndlessInterim, FaultKind::Slow, Missing::Answers),
    (Conduct::SlowHead, FaultKind::Slow, Missing::Answers),
    (Conduct::EndlessHeaders, FaultKind::Unreachable, Missing::Answers),
    (Conduct::Garbage, FaultKind::Unreachable, Missing::Answers),
    (Conduct::Html, FaultKind::Malformed, Missing::Answers),
    (Conduct::OtherJson, FaultKind::Malformed, Missing::Answers),
    (Conduct::ClosesMidway, FaultKind::Unreachable, Missing::Answers),
    (Conduct::ClosesAtOnce, FaultKind::Unreachable, Missing::Answers),
    (Conduct::Error, FaultKind::Status, Missing::Answers),
    (Conduct::NoContent, FaultKind::Status, Missing::Answers),
    (Conduct::Redirect, FaultKind::Status, Missing::Answers),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_is_counted_by_its_kind_and_the_agent_acts_on_what_the_quorum_certified() {
    let mut rows = JoinSet::new();
    for (conduct, kind, missing) in LIES {
        rows.spawn(async move {
            let row = tokio::time::timeout(PATIENCE, survives(conduct, kind, missing));
            row.await.unwrap_or_else(|_| panic!("{conduct:?}: waited in vain"));
        });
    }
    while let Some(row) = rows.join_next().await {
        row.expect("each row holds");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_slow_or_endless_is_counted_though_the_others_are_enough() {
    for (conduct, kind) in [(Conduct::SlowBody, FaultKind::Slow), (Conduct::EndlessBody, FaultKind::TooLarge)]
    {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let quorum = Quorum::start();
        let liar = Replica::start(conduct, &quorum);
        let honest = [(); 3].map(|()| Replica::start(Conduct::Honest, &quorum));
        quorum.publish(&plan_of_today());
        let (target, (sender, events)) = (Target::new(), mpsc::channel(100));
        let settings = settings(&[&liar, &honest[0], &honest[1], &honest[2]], folder.path());
        let agent = Agent::open(settings, target.clone(), sender).expect("the folder is ours");
        let running = tokio::spawn(agent.run(std::future::pending()));
        let mut told = Told { conduct, events, seen: Vec::new() };
        let counted =
            |event: &Event| matches!(event, Event::ReplicaFault { kind: of, count: 2, .. } if *of == kind);
        tokio::time::timeout(PATIENCE, told.until(counted)).await.expect("it is counted twice");
        assert_eq!(target.is(), (slots(6), 1), "{conduct:?}: meanwhile the others were heard");
        // One at a time; the liar notices the end of one a moment later than the agent does.
        assert!(liar.most_at_once.load(Ordering::SeqCst) <= 2, "{conduct:?}");
        running.abort();
    }
}

async fn survives(conduct: Conduct, kind: FaultKind, missing: Missing) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let quorum = Quorum::start();
    let liar = Replica::start(conduct, &quorum);
    let honest = Replica::start(Conduct::Honest, &quorum);
    let late =
        Replica::start(if missing == Missing::Answers { Conduct::Down } else { Conduct::Honest }, &quorum);
    quorum.serve_plan(missing == Missing::Answers);
    quorum.publish(&plan_of_today());

    let (target, (sender, events)) = (Target::new(), mpsc::channel(100));
    let (stop, stopped) = oneshot::channel::<()>();
    let settings = settings(&[&liar, &honest, &late], folder.path());
    let agent = Agent::open(settings, target.clone(), sender).expect("the folder is ours");
    let running = tokio::spawn(agent.run(async { drop(stopped.await) }));
    let url = liar.url();
    let mut told = Told { conduct, events, seen: Vec::new() };
    told.until(|event| {
        matches!(event, Event::ReplicaFault { replica, kind: of, count: 1, .. } if *replica == url && *of == kind)
    })
    .await;
    assert_eq!(target.is(), (slots(3), 0), "{conduct:?}: nothing is done");

    late.up();
    quorum.serve_plan(true);
    told.until(|event| matches!(event, Event::ReceiptSent { .. })).await;
    assert_eq!(target.is(), (slots(6), 1), "{conduct:?}: what the quorum certified, and once");
    let verify = |receipt: &Vec<u8>| {
        VerifiedReceipt::verify(receipt, &agent_key().public(), cluster_of(&root()))
            .expect("it is the agent's")
    };
    // The agent heard f + 1 replicas take it; the liar may be one of them.
    let receipt = quorum.receipts().first().map(verify).expect("an honest replica took it");
    assert_eq!(receipt.receipt().outcome, Outcome::Applied {}, "{conduct:?}");
    let is_attack = kind.is_sign_of_attack();
    assert_eq!(receipt.receipt().refused_documents > 0, is_attack, "{conduct:?}: {:?}", receipt.receipt());
    assert_eq!(liar.followed.load(Ordering::SeqCst), 0, "{conduct:?}: redirects are not followed");
    stop.send(()).expect("the agent listens");
    // It tells on while it stops, and ends with an error when nobody listens any more.
    while told.events.recv().await.is_some() {}
    running.await.expect("it does not panic").expect("it ends well");
}

/// What an agent tells.
struct Told {
    conduct: Conduct,
    events: mpsc::Receiver<Event>,
    seen: Vec<Event>,
}

impl Told {
    async fn until(&mut self, is_it: impl Fn(&Event) -> bool) {
        let Self { conduct, events, seen } = self;
        loop {
            let event = events.recv().await.unwrap_or_else(|| panic!("{conduct:?}: it ended after {seen:?}"));
            if let Event::ReplicaFault { why, .. } = &event {
                let is_plain = why.chars().count() < 250 && !why.chars().any(char::is_control);
                assert!(is_plain, "{conduct:?}: {why:?}");
            }
            let found = is_it(&event);
            seen.push(event);
            if found {
                return;
            }
        }
    }
}
