//! A control task with its real surroundings, but for consensus, which the test plays.

use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{Control, Ended, Remembered, Surroundings};
use crate::{
    consensus::{
        Block, Checkpoint, CheckpointCertificate, Command as Ordered, CommittedBlock, Payload,
        QuorumCertificate, Snapshot, StableCheckpoint,
        certify::{Endorsement, SubjectKind},
        task::{ConsensusStatus, Event, Request},
        transport::{Inbox, Links, LinksConfig},
    },
    cycle::{Cycle, CycleConfig, Output},
    execute::feed::Feed,
    knowledge::{
        command::Command,
        fixtures::{agent_key, replica_keys, target, verified_root},
        genesis::{Genesis, Parameters},
        observation::Tick,
        policy::{Target, TargetKind},
    },
    service::{
        api::AgentApi,
        clock,
        metrics::Metrics,
        replica::{event::ReplicaEvent, first_status, published::Published, start_monitor},
        status::{AlarmKind, NotReadyReason, StatusSnapshot},
        telemetry::CycleTracer,
    },
    types::{Committee, Digest, Epoch, Height, Millis, ReplicaIndex, UnixMillis, View},
};

/// A loaded machine is slow, and nothing here takes long.
const PATIENCE: Duration = Duration::from_secs(60);

const ME: ReplicaIndex = ReplicaIndex::new(0);

/// Each block's state is named, so that it is known when a block was folded and carried out.
fn genesis() -> Genesis {
    let mut parameters = Parameters::for_window(Millis::from_secs(10));
    parameters.checkpoint_interval = 1;
    let pool = Target {
        id: target(),
        kind: TargetKind::Pool { initial: 3, min: 1, max: 12, max_step: 4 },
        cooldown: Millis::from_secs(60),
        plans_per_hour: 4,
        owner: "owner-0".to_owned(),
        agent: agent_key().public(),
    };
    Genesis { parameters, targets: vec![pool], policies: Vec::new() }
}

fn cycle(committee: &Arc<Committee>) -> Cycle {
    let (operators, key) = (verified_root().operators().clone(), replica_keys()[0].clone());
    let config = CycleConfig { genesis: genesis(), committee: Arc::clone(committee), operators, me: ME, key };
    Cycle::new(config).expect("the genesis is sound")
}

/// What a folded block led to.
struct Led {
    /// The endorsements that were to leave.
    endorsed: Vec<Endorsement>,
    /// What the naming of the state says of the newest installed one.
    installed: Height,
}

/// The control task of a replica that is its own quorum, and a control cycle beside it that never goes wrong.
struct Rig {
    committee: Arc<Committee>,
    right: Cycle,
    tip: QuorumCertificate,
    seconds: u64,
    events: mpsc::Sender<Event>,
    requests: mpsc::Receiver<Request>,
    status: watch::Receiver<StatusSnapshot>,
    told: mpsc::Receiver<ReplicaEvent>,
    stop: watch::Sender<bool>,
    control: JoinHandle<Ended>,
    _links: (Links, Inbox, AgentApi, watch::Sender<ConsensusStatus>),
}

impl Rig {
    async fn start() -> Self {
        let key = replica_keys()[0].clone();
        let committee =
            Committee::new(Digest::of(b"control"), Epoch::new(1), vec![key.public()]).expect("one key");
        let committee = Arc::new(committee);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let peers = vec![listener.local_addr().expect("it is bound").to_string()];
        let now = clock::wall_clock;
        let config = LinksConfig {
            committee: Committee::clone(&committee),
            me: ME,
            secret: key,
            listener,
            peers,
            now,
        };
        let (links, inbox) = Links::start(config).expect("the configuration is sound");
        let right = cycle(&committee);
        let feed = Feed::new(verified_root(), [target()]);
        let (feed_sender, feed_receiver) = watch::channel(Arc::new(feed.clone()));
        let (published, api, submissions) = Published::new(right.state(), feed_receiver);
        let (status_sender, status) = watch::channel(first_status(&committee, ME, &genesis(), 1_000));
        let (request_sender, requests) = mpsc::channel(64);
        let (events, event_receiver) = mpsc::channel(64);
        let (consensus_sender, consensus) = watch::channel(ConsensusStatus::default());
        let (told_sender, told) = mpsc::channel(1_024);
        let (stop, stopping) = watch::channel(false);
        let (monitor, ..) = start_monitor(&genesis().parameters);
        let around = Surroundings {
            committee: Arc::clone(&committee),
            me: ME,
            requests: request_sender,
            events: event_receiver,
            consensus,
            links: links.sender(),
            monitor,
            submissions,
            store: None,
            feed: feed_sender,
            published,
            status: status_sender,
            metrics: Arc::new(Metrics::new()),
            tracer: CycleTracer::off(),
            told: told_sender,
            stop: stopping,
        };
        let control = Control::new(cycle(&committee), feed, around);
        let nothing = Remembered { base: None, seals: Vec::new(), blocks: Vec::new(), torn: None };
        let control = tokio::spawn(control.run(nothing, String::new()));
        let tip = QuorumCertificate::genesis(&committee);
        let kept = (links, inbox, api, consensus_sender);
        Self {
            committee,
            right,
            tip,
            seconds: 1_000,
            events,
            requests,
            status,
            told,
            stop,
            control,
            _links: kept,
        }
    }

    async fn tell(&self, event: Event) {
        self.events.send(event).await.expect("the task runs");
    }

    /// A slot passes: a block with a tick is committed. Gives what it led to, and how many heads the right cycle derived.
    async fn pass_a_slot(&mut self) -> (Led, usize) {
        self.seconds += 10;
        let tick = Tick { replica: ME, signed_at: UnixMillis::new(self.seconds * 1_000) };
        let signed = tick.sign(&self.committee.domain(0), &replica_keys()[0]);
        let command = Command::Tick(signed).encode();
        let payload = Payload::new(vec![Ordered::new(command.head, command.body).expect("small")]);
        let view = View::new(self.tip.view.number() + 1);
        let block = Arc::new(Block::new(view, ME, self.tip.clone(), payload));
        self.tip =
            QuorumCertificate { view, height: block.height(), block: block.id(), signatures: Vec::new() };
        self.right.commit(&block);
        let mut heads = 0;
        while let Some(output) = self.right.poll_output() {
            if let Output::Endorse(endorsement) = output {
                heads += usize::from(endorsement.subject.kind == SubjectKind::Head);
            }
        }
        self.tell(Event::Committed(CommittedBlock { block, certificate: self.tip.clone() })).await;
        (timeout(PATIENCE, self.folded()).await.expect("it folds what is committed"), heads)
    }

    /// Plays the journal's owner until the state of the newest block is named.
    async fn folded(&mut self) -> Led {
        let mut endorsed = Vec::new();
        loop {
            match self.requests.recv().await.expect("the task runs") {
                Request::Endorse { then, durable, .. } => {
                    endorsed.extend(then);
                    durable.map(|durable| durable.send(()));
                }
                Request::Checkpoint { height, installed, .. } => {
                    assert_eq!(height, self.tip.height);
                    return Led { endorsed, installed };
                }
                other @ (Request::Submit { .. }
                | Request::Remind { .. }
                | Request::KeepAbove(_)
                | Request::ReadBase { .. }
                | Request::Read { .. }) => panic!("nothing led to {other:?}"),
            }
        }
    }

    /// The newest block's checkpoint, with the state that is right.
    fn certified(&self) -> (StableCheckpoint, Snapshot) {
        let snapshot = Snapshot::of(&self.right.snapshot()).expect("small");
        let QuorumCertificate { view, height, block, .. } = self.tip.clone();
        let checkpoint = Checkpoint { height, view, block, state: snapshot.id() };
        let certificate = CheckpointCertificate { checkpoint, signatures: Vec::new() };
        (StableCheckpoint { certificate, qc: self.tip.clone() }, snapshot)
    }

    async fn shows(&mut self, what: &str, shown: impl FnMut(&StatusSnapshot) -> bool) {
        let shown = timeout(PATIENCE, self.status.wait_for(shown)).await;
        assert!(shown.is_ok_and(|seen| seen.is_ok()), "it does not show {what}");
    }
}

fn says_diverged(status: &StatusSnapshot) -> bool {
    status.not_ready.iter().any(|why| why.reason == NotReadyReason::Diverged)
}

#[tokio::test]
async fn a_replica_that_has_diverged_says_so_and_endorses_nothing_until_it_begins_at_the_certified_state() {
    let mut rig = Rig::start().await;
    let mut before = 0;
    for _ in 0..3 {
        let (led, heads) = rig.pass_a_slot().await;
        assert_eq!((led.endorsed.len(), led.installed), (heads, Height::ZERO));
        before += heads;
    }
    assert!(before > 0, "heads are derived");

    let (certified, _) = rig.certified();
    let own = Snapshot::of(b"something else").expect("small").id();
    rig.tell(Event::Diverged { certified, own }).await;
    rig.shows("why it is not ready", says_diverged).await;
    let is_alarm =
        |status: &StatusSnapshot| status.alarms.iter().any(|alarm| alarm.kind == AlarmKind::Diverged);
    rig.shows("the alarm", is_alarm).await;
    let mut held = 0;
    for _ in 0..3 {
        let (led, heads) = rig.pass_a_slot().await;
        assert!(led.endorsed.is_empty(), "{:?}", led.endorsed);
        held += heads;
    }
    assert!(held > 0, "heads were derived meanwhile");

    let (checkpoint, snapshot) = rig.certified();
    let height = checkpoint.height();
    rig.tell(Event::Installed { checkpoint, snapshot }).await;
    rig.shows("that it is over", |status| !says_diverged(status)).await;
    let mut after = 0;
    for _ in 0..3 {
        let (led, heads) = rig.pass_a_slot().await;
        assert_eq!((led.endorsed.len(), led.installed), (heads, height), "as before, from that state");
        after += heads;
    }
    assert!(after > 0);

    rig.stop.send_replace(true);
    assert_eq!(rig.control.await.expect("it does not panic"), Ended::Stopped);
    let mut told = Vec::new();
    while let Ok(event) = rig.told.try_recv() {
        if let ReplicaEvent::Alarm { detail, .. } = event {
            told.push(detail);
        } else if let ReplicaEvent::Installed { height, .. } = event {
            told.push(format!("installed {height}"));
        }
    }
    let [alarm, installed] = told.as_slice() else { panic!("{told:?}") };
    assert!(alarm.contains("a quorum certified the state"), "{alarm}");
    assert_eq!(*installed, format!("installed {height}"));
}
