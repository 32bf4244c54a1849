//! Checkpoints with real processes: a replica that was never there joins a cluster whose log is pruned, one that was
//! away for long catches up while load goes on, a journal stays small, and an empty database is begun at a checkpoint.
//!
//! The clusters are founded and started here replica by replica, because one of them shall not have run before.
//! Invariant: every wait is for a condition, none is for a time.
#![cfg(feature = "service")]

#[expect(dead_code, reason = "each test binary uses its own part of the harness")]
mod harness;
#[path = "support/postgres.rs"]
mod postgres;

use std::{
    fs::{self, File, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::MutexGuard,
};

use harness::{
    cluster::{TARGET, folder, free_ports, quorate, turn},
    http, poll,
    telemetry::Engine,
};
use postgres::fresh_database;
use quorate::{
    service::{
        clock::wall_clock,
        config::PolicyFile,
        founding::{Founding, Layout, ReplicaPlace, found},
        lifecycle::END_WITH_PARENT,
        status::{NotReadyReason, StatusSnapshot},
    },
    types::Height,
};
use serde_json::Value;
use tempfile::TempDir;

const REPLICAS: usize = 4;

/// Blocks between two checkpoints: a checkpoint every second or two.
const INTERVAL: u64 = 8;

/// A backlog that breaks the example policy's threshold of 20.
const BACKLOG: i64 = 30;

/// The most segments that a pruned journal has: two bases with what came after each, one that is being begun, and what
/// a database that is a checkpoint behind still needs.
const SEGMENTS: usize = 6;

/// A cluster whose replicas are started one by one.
struct Cluster {
    folder: TempDir,
    layout: Layout,
    http: Vec<SocketAddr>,
    running: Vec<Option<Child>>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Founds a cluster; each replica's database, where it has one, is the URL in its place.
    fn found(databases: &[Option<String>; REPLICAS]) -> Self {
        let (turn, folder) = (turn(), folder());
        let policy = folder.path().join("policy.toml");
        let example = include_str!("../examples/policies/airflow.toml");
        fs::write(&policy, format!("[cycle]\ncheckpoint_interval = {INTERVAL}\n{example}"))
            .expect("it is ours");
        let first = free_ports(2 * 4);
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let places = databases.iter().zip((first..).step_by(2));
        let replicas: Vec<ReplicaPlace> = places
            .map(|(database, port)| ReplicaPlace {
                peer: address(port),
                http: address(port + 1),
                database_url_file: database.as_ref().map(|_| PathBuf::from("database.url")),
            })
            .collect();
        let http = replicas.iter().map(|replica| replica.http).collect();
        let founding = Founding {
            folder: folder.path().join("cluster"),
            policies: PolicyFile::read(&policy).expect("the example is sound"),
            speed: "20".parse().expect("it is a speed"),
            replicas,
            now: wall_clock(),
        };
        let (layout, ..) = found(&founding).expect("the folder is empty");
        let cluster =
            Self { folder, layout, http, running: (0..REPLICAS).map(|_| None).collect(), _turn: turn };
        for (place, url) in databases.iter().enumerate() {
            if let Some(url) = url {
                cluster.write_database_url(place, url);
            }
        }
        cluster
    }

    fn write_database_url(&self, place: usize, url: &str) {
        let path = self.layout.replica(place).join("database.url");
        fs::write(&path, url).expect("the folder is ours");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
    }

    fn start(&mut self, place: usize) {
        let log = |kind: &str| {
            let path = self.log(place, kind);
            File::options().create(true).append(true).open(path).expect("the folder is ours")
        };
        let child = quorate()
            .args(["-o", "jsonl", "run", "--config"])
            .arg(self.layout.replica_config(place))
            .env(END_WITH_PARENT, "1")
            .stdin(Stdio::piped())
            .stdout(log("jsonl"))
            .stderr(log("log"))
            .spawn()
            .expect("the binary starts");
        self.running[place] = Some(child);
        self.eventually(&format!("r{place} to answer"), || self.status(place));
    }

    /// Ends a replica as a failing machine would.
    fn kill(&mut self, place: usize) {
        let mut child = self.running[place].take().expect("it runs");
        child.kill().expect("it is a child");
        child.wait().expect("it is a child");
    }

    fn log(&self, place: usize, kind: &str) -> PathBuf {
        self.folder.path().join(format!("r{place}.{kind}"))
    }

    fn status(&self, place: usize) -> Option<StatusSnapshot> {
        serde_json::from_slice(&http::get(self.http[place], "/v1/status")?).ok()
    }

    /// What a replica told of a kind, over all its starts.
    fn events(&self, place: usize, kind: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.log(place, "jsonl")).unwrap_or_default();
        let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.filter(|event| event["event"] == kind).collect()
    }

    /// The newest plan that a replica serves to agents, as it serves it.
    fn newest_plan(&self, place: usize) -> Option<Value> {
        let body = http::get(self.http[place], &format!("/v1/plans?target={TARGET}"))?;
        let answer: Value = serde_json::from_slice(&body).ok()?;
        answer["plans"].as_array()?.last().cloned()
    }

    fn segments(&self, place: usize) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.layout.replica(place).join("journal")).expect("the replica has run");
        let mut segments: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "journal"));
        segments.sort();
        segments
    }

    fn checkpoint(&self, place: usize) -> Option<Height> {
        Some(self.status(place)?.checkpoint?.height)
    }

    /// Waits for so many more checkpoints at a replica.
    fn checkpoints(&self, place: usize, count: u64) -> Height {
        let from = self.checkpoint(place).map_or(0, Height::number);
        let wanted = Height::new(from + count * INTERVAL);
        self.eventually(&format!("a checkpoint at {wanted} of r{place}"), || {
            self.checkpoint(place).filter(|height| *height >= wanted)
        })
    }

    /// Waits until a replica has certified the same state as another at a height above one.
    fn agree_above(&self, one: usize, other: usize, above: Height) {
        let states = |place| {
            let told = self.events(place, "checkpoint").into_iter();
            told.filter_map(|told| Some((told["height"].as_u64()?, told["state"].as_str()?.to_owned())))
                .filter(|(height, _)| *height > above.number())
                .collect::<Vec<_>>()
        };
        self.eventually(&format!("r{one} and r{other} to certify one state above {above}"), || {
            let theirs = states(other);
            states(one).into_iter().find(|state| theirs.contains(state))
        });
    }

    fn eventually<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        poll(look).unwrap_or_else(|| {
            let tail = |path: &Path| {
                let text = fs::read_to_string(path).unwrap_or_default();
                text.lines().rev().take(6).collect::<Vec<_>>().join("\n")
            };
            let logs: Vec<String> = (0..REPLICAS).map(|place| tail(&self.log(place, "log"))).collect();
            let said: Vec<_> = (0..REPLICAS).map(|place| self.status(place)).collect();
            panic!("waited in vain for {what}:\n{}\n{said:#?}", logs.join("\n"))
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            // It may have ended by itself; then there is nothing left to end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_never_there_joins_a_pruned_cluster_with_nothing_on_its_disk_and_in_its_database()
{
    let (first, last) = (fresh_database().await, fresh_database().await);
    let mut cluster = Cluster::found(&[Some(first), None, None, Some(last)]);
    (0..3).for_each(|place| cluster.start(place));
    let engine = Engine::start(cluster.http.clone());
    engine.wait_for_slots(BACKLOG);
    let plan = cluster.eventually("a logged plan", || cluster.newest_plan(0));
    engine.wait_for_slots(0);
    cluster.checkpoints(0, 4);
    for place in 0..3 {
        cluster.eventually("the first segment to be gone", || {
            cluster
                .segments(place)
                .first()
                .filter(|path| !path.ends_with("0000000000000001.journal"))
                .cloned()
        });
    }

    cluster.start(3);
    let installed = cluster
        .eventually("r3 to go on from a certified state", || cluster.events(3, "installed").first().cloned());
    let height = Height::new(installed["height"].as_u64().expect("it is a number"));
    let served = cluster.eventually("a plan at r3", || cluster.newest_plan(3));
    assert_eq!(served, plan, "agents are served what was ordered before r3 was there");
    cluster.eventually("r3's reports to count", || {
        let all = |told: &Value| told["reports"] == REPLICAS;
        cluster.events(0, "window_final").into_iter().find(all)
    });
    cluster.agree_above(3, 0, height);
    engine.wait_for_slots(2 * BACKLOG);
    cluster.eventually("r3's signature under a plan or head that r3 serves", || cluster.status(3)?.head);
    let stored = cluster.eventually("r3's database to follow", || {
        let store = cluster.status(3)?.store;
        (store.gap.is_some() && store.applied_height > height).then_some(store)
    });
    let gap = stored.gap.expect("it was looked for");
    assert_eq!(gap.first, Height::new(1));
    assert!(gap.last >= height, "{gap:?}");
    assert_eq!(stored.failure, None);
    assert_eq!(cluster.status(0).expect("it runs").store.gap, None, "r0 has stored everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_for_many_checkpoints_catches_up_under_load_and_journals_stay_small() {
    let (first, second) = (fresh_database().await, fresh_database().await);
    let mut cluster = Cluster::found(&[Some(first), None, None, None]);
    (0..REPLICAS).for_each(|place| cluster.start(place));
    let engine = Engine::start(cluster.http.clone());
    engine.wait_for_slots(1);
    cluster.checkpoints(2, 1);
    cluster.kill(2);
    let left_at = cluster.checkpoints(0, 6);

    cluster.start(2);
    cluster
        .eventually("r2 to go on from a certified state", || cluster.events(2, "installed").last().cloned());
    cluster.agree_above(2, 0, left_at);
    cluster.eventually("r2 to be ready", || cluster.status(2)?.is_ready().then_some(()));

    // An emptied database is begun where the journal begins, not where the log began.
    cluster.kill(0);
    cluster.write_database_url(0, &second);
    cluster.start(0);
    let store = cluster.eventually("r0's empty database to follow", || {
        let store = cluster.status(0)?.store;
        (store.gap.is_some() && store.lag_heights < INTERVAL).then_some(store)
    });
    assert_eq!(store.gap.map(|gap| gap.first), Some(Height::new(1)));

    cluster.checkpoints(1, 6);
    for place in 0..REPLICAS {
        let segments = cluster.segments(place);
        assert!(segments.len() <= SEGMENTS, "r{place}: {segments:?}");
        let status = cluster.status(place).expect("it runs");
        assert!(!status.not_ready.iter().any(|why| why.reason == NotReadyReason::Diverged), "{status:?}");
    }
    drop(engine);
}
