//! The task of a replica that is its own quorum, driven by hand.

use std::{path::Path, sync::Arc};
use tokio::{net::TcpListener, time::Instant};

use super::{BTreeMap, ConsensusStatus, Event, Opened, Overflow, Request, Task, VecDeque, open};
use crate::{
    consensus::{
        Command, Config, Restated, Share, Snapshot, StableCheckpoint, Standing, ViewTimes,
        journal::{SALT_BYTES, Salt},
        transport::{Inbox, Links, LinksConfig},
    },
    types::{Committee, Digest, Epoch, Height, ReplicaIndex, SecretKey, UnixMillis, View},
};

const INTERVAL: u64 = 4;

const ME: ReplicaIndex = ReplicaIndex::new(0);

async fn task(folder: &Path) -> (Task, Links, Inbox) {
    let key = SecretKey::from_seed(&[1; 32]);
    let committee = Committee::new(Digest::of(b"task"), Epoch::new(1), vec![key.public()]).expect("one key");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let peers = vec![listener.local_addr().expect("it is bound").to_string()];
    let links = LinksConfig {
        committee: committee.clone(),
        me: ME,
        secret: key.clone(),
        listener,
        peers,
        now: || UnixMillis::ZERO,
    };
    let (links, inbox) = Links::start(links).expect("the configuration is sound");
    let config = Config {
        committee: Arc::new(committee),
        me: ME,
        key,
        times: ViewTimes::default(),
        checkpoint_interval: INTERVAL,
    };
    let opened = open(config, folder, Salt::new([7; SALT_BYTES])).expect("an empty folder");
    let (Opened { core, history, one_honest }, _) = opened;
    let task = Task {
        core,
        history,
        one_honest,
        links: links.sender(),
        began: Instant::now(),
        backlog: VecDeque::new(),
        endorsements: BTreeMap::new(),
        overflow: Overflow::default(),
        must_sync: false,
        leaving: Vec::new(),
        connects: Vec::new(),
        status: ConsensusStatus::default(),
    };
    (task, links, inbox)
}

impl Task {
    /// Has so many commands ordered, one block each, and gives what the application is told.
    fn order(&mut self, commands: u64) -> Vec<String> {
        for number in 0..commands {
            let head = (self.core.committed_height().number(), number);
            let command = Command::new(borsh::to_vec(&head).expect("in memory"), Vec::new()).expect("small");
            self.submit(Share::Own, command).expect("there is room");
            self.carry_out().expect("the disk works");
        }
        self.told()
    }

    fn name(&mut self, height: Height, state: &[u8], installed: Height) -> Vec<String> {
        let snapshot = Snapshot::of(state).expect("small");
        let request = Request::Checkpoint { height, snapshot, notes: Vec::new(), installed };
        self.serve(request).expect("the disk works");
        self.carry_out().expect("the disk works");
        self.told()
    }

    fn told(&mut self) -> Vec<String> {
        let told = self.backlog.drain(..).map(|event| match event {
            Event::Committed(committed) => format!("committed {}", committed.block.height()),
            Event::Stable(stable) => format!("stable {}", stable.height()),
            Event::Installed { checkpoint, snapshot } => {
                assert_eq!(snapshot.id(), checkpoint.checkpoint().state);
                format!("installed {}", checkpoint.height())
            }
            other @ (Event::Diverged { .. }
            | Event::Endorsement { .. }
            | Event::PeerConnected(_)
            | Event::Evidence(_)) => panic!("nothing led to {other:?}"),
        });
        told.collect()
    }

    fn stable_here(&self) -> StableCheckpoint {
        self.core.stable_checkpoint().cloned().expect("there is one")
    }
}

/// What a base restates does not matter to a base that is written already.
fn restated(task: &Task) -> Restated {
    let standing = Standing {
        vote: None,
        timeout: None,
        proposal: None,
        proposed: View::ZERO,
        checkpoints: Vec::new(),
        high_qc: task.core.high_qc().get().clone(),
        high_tc: None,
        forgotten: None,
    };
    Restated { standing, tip: Some(task.core.high_qc().get().clone()), uncommitted: Vec::new() }
}

#[tokio::test]
async fn an_application_that_must_begin_anew_gets_the_state_of_the_base_and_the_blocks_above_it_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut task, _links, _inbox) = task(folder.path()).await;
    task.order(INTERVAL + 1);
    let height = Height::new(INTERVAL);
    assert_eq!(task.name(height, b"state", Height::ZERO), [format!("stable {height}")]);
    task.order(2);
    let (checkpoint, restated) = (task.stable_here(), restated(&task));
    task.stable(checkpoint, &restated, true).expect("the disk works");
    task.carry_out().expect("the disk works");
    let newest = task.core.committed_height().number();
    let above = (INTERVAL + 1..=newest).map(|height| format!("committed {height}"));
    let expected = [format!("stable {height}"), format!("installed {height}")].into_iter().chain(above);
    assert_eq!(task.told(), expected.collect::<Vec<_>>());
    assert_eq!(task.core.installed(), height);

    // Before the application knows, it names one more state: of what it was.
    let next = Height::new(2 * INTERVAL);
    while task.core.committed_height() < next {
        task.order(1);
    }
    assert_eq!(task.name(next, b"stale", Height::ZERO), [""; 0]);
    assert_eq!(task.stable_here().height(), height, "nobody signed it");
    assert_eq!(task.name(next, b"right", height), [format!("stable {next}")]);
    let stable = task.stable_here();
    assert_eq!(stable.checkpoint().state, Snapshot::of(b"right").expect("small").id());
    let base = task.history.base_for(next).expect("the disk works").expect("there is one");
    assert_eq!((base.checkpoint, base.snapshot.to_bytes()), (stable, b"right".to_vec()));
}
