//! One key in two processes that both live: a copy of a replica's data folder and key, started beside it.
//!
//! Invariant: every wait is for a condition, none is for a time.
#![cfg(feature = "service")]

#[expect(dead_code, reason = "this test needs a part of it")]
mod harness;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use harness::{
    cluster::{Cluster, Options, REPLICAS, free_ports, quorate},
    http,
};
use quorate::service::{
    config::{ReplicaConfig, ReplicaFlags},
    lifecycle::END_WITH_PARENT,
    replica::Membership,
    status::{AlarmKind, NotReadyReason, StatusSnapshot},
};

#[test]
fn two_processes_with_one_key_both_fall_silent_and_everybody_says_so() {
    let mut cluster = Cluster::start(&Options { no_agents: true, ..Options::default() });
    let engine = cluster.engine();
    cluster.told("r0", "window_final", |told| told["reports"] == REPLICAS);
    let config = config_of(&cluster.replica_file(3));
    let key = Membership::read(&config).expect("the replica runs with it").key.public().id().to_string();
    cluster.kill(&[3]);
    let copy = copy_of(&config, &cluster.folder().join("copy"));
    cluster.restart(3);
    cluster.eventually("an honest restart to be ready", || cluster.status(3)?.is_ready().then_some(()));
    for place in 0..REPLICAS {
        let status = cluster.status(place).expect("it runs");
        assert!(!status.alarms.iter().any(|alarm| alarm.kind == AlarmKind::KeyInUse), "{:?}", status.alarms);
    }

    let process = Copy::start(&cluster, &copy);
    let statuses: [&dyn Fn() -> Option<StatusSnapshot>; 2] = [&|| cluster.status(3), &|| process.status()];
    for status in statuses {
        let detail = cluster.eventually("a process with a shared key to say so", || {
            let reasons = status()?.not_ready;
            Some(reasons.into_iter().find(|why| why.reason == NotReadyReason::KeyInUse)?.detail)
        });
        for part in [key.as_str(), "nothing is signed until a restart", "End the other process"] {
            assert!(detail.contains(part), "{part:?} in {detail}");
        }
        let tellers = ["r0", "r1", "r2"].iter().filter(|name| detail.contains(*name)).count();
        assert!(tellers >= 2, "one more than may be faulty say so: {detail}");
    }
    cluster.eventually("every peer to name the key's replica", || {
        let names = |place| {
            let alarms = cluster.status(place)?.alarms;
            alarms.into_iter().find(|alarm| alarm.kind == AlarmKind::KeyInUse && alarm.replica == "r3")
        };
        (0..3).all(|place| names(place).is_some()).then_some(())
    });
    let metrics = http::get(cluster.http(0), "/metrics").expect("it answers");
    let metrics = String::from_utf8(metrics).expect("it is text");
    assert!(metrics.contains("quorate_alarms{replica=\"r3\",kind=\"key_in_use\"}"), "{metrics}");
    let told = said(&format!("http://{}", cluster.http(3)));
    assert_eq!(told.status.code(), Some(3), "`quorate status` calls it degraded: {told:?}");

    // Three of four are a quorum: they go on without the key's vote.
    let before = cluster.status(0).expect("it runs").windows.closed;
    cluster.eventually("the others to close windows", || {
        (cluster.status(0)?.windows.closed > before).then_some(())
    });
    drop(process);
    drop(engine);
}

fn config_of(file: &Path) -> ReplicaConfig {
    let flags = ReplicaFlags { config: Some(file.to_owned()), ..ReplicaFlags::default() };
    ReplicaConfig::resolve(flags).expect("the replica runs with it")
}

/// A second home for the same replica, with addresses of its own and without a database; its configuration.
fn copy_of(config: &ReplicaConfig, folder: &Path) -> (PathBuf, SocketAddr) {
    let (from, to) = (config.data_dir.join("journal"), folder.join("data").join("journal"));
    fs::create_dir_all(&to).expect("the folder is ours");
    for item in fs::read_dir(&from).expect("the replica has a journal") {
        let item = item.expect("it is readable");
        fs::copy(item.path(), to.join(item.file_name())).expect("it can be copied");
    }
    let port = free_ports(2);
    let http = SocketAddr::from(([127, 0, 0, 1], port + 1));
    let text = format!(
        "data_dir = {:?}\nkey_file = {:?}\nroot_file = {:?}\ngenesis_file = {:?}\nlisten = \"127.0.0.1:{port}\"\n\
         peers = {:?}\nhttp = \"{http}\"\n",
        folder.join("data"),
        config.key_file,
        config.root_file,
        config.genesis_file,
        config.peers,
    );
    let file = folder.join("replica.toml");
    fs::write(&file, text).expect("the folder is ours");
    (file, http)
}

/// The second process.
struct Copy {
    child: Child,
    http: SocketAddr,
}

impl Copy {
    fn start(cluster: &Cluster, (file, http): &(PathBuf, SocketAddr)) -> Self {
        let log = |name: &str| fs::File::create(cluster.folder().join(name)).expect("the folder is ours");
        let mut command = quorate();
        command.args(["-o", "jsonl", "run", "--config"]).arg(file).env(END_WITH_PARENT, "1");
        command.stdin(Stdio::piped()).stdout(log("copy.jsonl")).stderr(log("copy.log"));
        Self { child: command.spawn().expect("the program starts"), http: *http }
    }

    fn status(&self) -> Option<StatusSnapshot> {
        serde_json::from_slice(&http::get(self.http, "/v1/status")?).ok()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `quorate status` says of a replica.
fn said(replica: &str) -> Output {
    let mut command: Command = quorate();
    command.args(["status", "--replica", replica]).output().expect("the command runs")
}
