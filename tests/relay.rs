//! The relay as a process: killed with SIGKILL while bodies arrive and a replica is away, started again on its
//! queue, and asked to end.
//!
//! Replicas are doors that note what they get, and once real ones. Invariant: every wait is for a condition, none
//! is for a time.
#![cfg(feature = "service")]

#[expect(dead_code, reason = "these tests need a part of it")]
mod harness;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use harness::{
    cluster::{Cluster, Options, REPLICAS, free_ports, quorate},
    http, poll,
    processes::{self, Signal},
};
use quorate::service::{clock::wall_clock, lifecycle::END_WITH_PARENT};
use serde_json::{Value, json};

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A replica's door that takes everything and notes it.
#[derive(Debug)]
struct Door {
    seen: Arc<Mutex<BTreeSet<Bytes>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Door {
    fn open(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let seen = Arc::default();
        let note = async |State(seen): State<Arc<Mutex<BTreeSet<Bytes>>>>, body: Bytes| {
            seen.lock().unwrap_or_else(PoisonError::into_inner).insert(body);
        };
        let router = Router::new().route("/v1/metrics", post(note)).with_state(Arc::clone(&seen));
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).expect("the port is free");
        runtime.spawn(axum::serve(listener, router).into_future());
        Self { seen, _runtime: runtime }
    }

    fn seen(&self) -> MutexGuard<'_, BTreeSet<Bytes>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A relay's process. It ends with the test.
#[derive(Debug)]
struct Relay {
    child: Child,
    address: SocketAddr,
}

fn command(queue: &Path, address: SocketAddr, replicas: &[(&str, SocketAddr)]) -> Command {
    let mut command = quorate();
    command.args(["relay", "--listen", &address.to_string(), "--queue"]).arg(queue);
    for (name, replica) in replicas {
        command.arg("--to").arg(format!("{name}=http://{replica}"));
    }
    command.env(END_WITH_PARENT, "1").stdin(Stdio::piped());
    command
}

impl Relay {
    /// Starts it, its output in files beside the queue, and waits until it answers.
    fn start(queue: &Path, address: SocketAddr, replicas: &[(&str, SocketAddr)]) -> Self {
        let mut command = command(queue, address, replicas);
        let log = |kind| {
            let file = File::options().create(true).append(true).open(queue.with_extension(kind));
            file.expect("the folder is ours")
        };
        let child = command.stdout(log("out")).stderr(log("err")).spawn().expect("the program starts");
        let relay = Self { child, address };
        poll(|| http::get(address, "/livez")).expect("the relay answers");
        relay
    }

    fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        processes::signal(self.child.id(), signal);
        self.child.wait().expect("it is a child")
    }

    fn replicas(&self) -> Option<Vec<Value>> {
        let status: Value = serde_json::from_slice(&http::get(self.address, "/v1/status")?).ok()?;
        status["replicas"].as_array().cloned()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Posts different bodies from several threads until this many more are acknowledged; then the relay is killed.
fn post_until_killed(relay: &mut Relay, acknowledged: &Mutex<BTreeSet<Bytes>>, round: usize, bodies: usize) {
    let (address, count, killed) = (relay.address, AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for poster in 0..6 {
            let (count, killed) = (&count, &killed);
            scope.spawn(move || {
                for number in 0.. {
                    if killed.load(Relaxed) {
                        return;
                    }
                    let filling = "x".repeat(number * 97 % 3_000);
                    let body = json!({"resourceMetrics": [], "id": [round, poster, number], "x": filling});
                    let body = body.to_string();
                    if http::post_json(address, "/v1/metrics", body.as_bytes()).is_some() {
                        acknowledged.lock().expect("nobody panics").insert(body.into());
                        count.fetch_add(1, Relaxed);
                    }
                }
            });
        }
        let enough = poll(|| (count.load(Relaxed) >= bodies).then_some(()));
        relay.signal(Signal::KILL);
        killed.store(true, Relaxed);
        enough.expect("the relay acknowledges bodies");
    });
}

#[test]
fn a_relay_that_is_killed_while_bodies_arrive_gives_every_replica_all_that_it_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let queue = folder.path().join("queue");
    let port = free_ports(3);
    let (address, up, away) = (local(port), local(port + 1), local(port + 2));
    let replicas = [("up", up), ("away", away)];
    let door = Door::open(up);
    let acknowledged = Mutex::new(BTreeSet::new());
    for round in 0..3 {
        let mut relay = Relay::start(&queue, address, &replicas);
        let moment = usize::try_from(wall_clock().as_millis() % 150).expect("it is small");
        post_until_killed(&mut relay, &acknowledged, round, 20 + moment);
    }
    let acknowledged = acknowledged.into_inner().expect("nobody panics");
    assert!(acknowledged.len() >= 60);

    let late = Door::open(away);
    let relay = Relay::start(&queue, address, &replicas);
    for (name, door) in [("up", &door), ("away", &late)] {
        let missing = || acknowledged.difference(&door.seen()).count();
        let all = poll(|| (missing() == 0).then_some(()));
        assert!(all.is_some(), "{name} lacks {} of {} bodies", missing(), acknowledged.len());
    }
    let settled = poll(|| relay.replicas()?.iter().all(|it| it["lag"]["bodies"] == 0).then_some(()));
    settled.expect("nothing waits any more");
    let lost = relay.replicas().expect("it answers");
    let dropped = lost.iter().map(|it| &it["dropped"]);
    for dropped in dropped {
        assert_eq!(dropped, &json!({"age": 0, "bytes": 0, "damage": 0}));
    }
}

#[test]
fn a_relay_that_is_asked_to_end_says_what_waits_and_its_folder_is_for_one_alone() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let queue = folder.path().join("queue");
    let port = free_ports(3);
    let replicas = [("r0", local(port + 2))];
    let mut relay = Relay::start(&queue, local(port), &replicas);
    for body in [br#"{"resourceMetrics": []}"#.as_slice(), b"{}"] {
        http::post_json(relay.address, "/v1/metrics", body).expect("it is taken");
    }

    let second = command(&queue, local(port + 1), &replicas).output().expect("the program starts");
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(told.contains("is the queue of another relay that runs: stop that one"), "{told}");

    assert_eq!(relay.signal(Signal::INT).code(), Some(0));
    let told = fs::read_to_string(queue.with_extension("out")).expect("it was written");
    assert!(told.contains("2 bodies wait for r0; they are sent at the next start"), "{told}");

    let door = Door::open(local(port + 2));
    let _relay = Relay::start(&queue, local(port), &replicas);
    poll(|| (door.seen().len() == 2).then_some(())).expect("both bodies arrive");
    let told = fs::read_to_string(queue.with_extension("out")).expect("it was written");
    assert!(told.contains("2 bodies from before are sent now"), "{told}");
}

/// How many points a replica's door has decoded, whether or not they count.
fn points(replica: SocketAddr) -> Option<u64> {
    let text = String::from_utf8(http::get(replica, "/metrics")?).ok()?;
    let of = |line: &str| -> Option<u64> {
        let is_points = line.starts_with("quorate_points_accepted_total")
            || line.starts_with("quorate_points_rejected_total{");
        if is_points { line.rsplit_once(' ')?.1.parse().ok() } else { None }
    };
    Some(text.lines().filter_map(of).sum())
}

#[test]
fn real_replicas_get_what_a_killed_relay_acknowledged_while_one_of_them_was_down() {
    let mut cluster = Cluster::start(&Options::default());
    let ready = fs::read(cluster.folder().join("ready.json")).expect("the cluster is ready");
    let ready: Value = serde_json::from_slice(&ready).expect("it is JSON");
    let dev_relay = ready["processes"]["relay"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    let dev_relay = dev_relay.expect("the cluster has a relay");
    let address = ready["otlp"].as_str().and_then(|url| url.strip_prefix("http://")?.parse().ok());
    let address: SocketAddr = address.expect("it has an address");
    cluster.kill(&[3]);
    let post = |count: u64| {
        for number in 0..count {
            let time = u128::from(wall_clock().as_millis()) * 1_000_000 + u128::from(number);
            let point = json!({"timeUnixNano": time.to_string(), "asInt": number.to_string()});
            let metric = json!({"name": "relayed", "gauge": {"dataPoints": [point]}});
            let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).to_string();
            poll(|| http::post_json(address, "/v1/metrics", body.as_bytes())).expect("the relay takes it");
        }
    };
    post(20);
    processes::signal(dev_relay, Signal::KILL);
    poll(|| (!processes::runs(dev_relay)).then_some(())).expect("the relay is gone");

    let names: Vec<String> = (0..REPLICAS).map(|place| format!("r{place}")).collect();
    let replicas: Vec<(&str, SocketAddr)> =
        names.iter().enumerate().map(|(place, name)| (name.as_str(), cluster.http(place))).collect();
    let relay = Relay::start(&cluster.folder().join("relay"), address, &replicas);
    post(5);
    let waits = poll(|| (relay.replicas()?[3]["lag"]["bodies"].as_u64()? >= 25).then_some(()));
    waits.expect("all bodies wait for the replica that is down");
    cluster.restart(3);
    let all = poll(|| relay.replicas()?.iter().all(|it| it["lag"]["bodies"] == 0).then_some(()));
    all.expect("every replica gets every body");
    let taken = relay.replicas().expect("it answers");
    assert!(taken[3]["sent"].as_u64() >= Some(25), "{taken:?}");
    for place in 0..REPLICAS {
        assert!(
            points(cluster.http(place)) >= Some(25),
            "replica {place}: {:?}",
            points(cluster.http(place))
        );
    }
}
