//! Faults of real processes: replicas killed with SIGKILL, one at a time, two, all at once, and one that lies.
//!
//! Each test runs a cluster of real processes, one cluster at a time. The adversary is a program of its own. Invariant: every wait is for a condition, none is for a time.
#![cfg(feature = "service")]

#[expect(dead_code, reason = "each test binary uses its own part of the harness")]
mod harness;

use std::{
    fs,
    net::TcpListener,
    process::{Command, Output},
};

use harness::{
    adversaries,
    cluster::{AGENT, Cluster, Options, REPLICAS, folder, free_ports, quorate, turn},
    journal,
    processes::{self, Signal},
    traces::Collector,
};
use quorate::{
    service::{status::AlarmKind, telemetry::trace_id},
    types::Cycle,
};
use serde_json::Value;

/// A backlog that breaks the example policy's threshold of 20.
const BACKLOG: i64 = 30;

/// One that grows and does not break it yet.
const GROWING: i64 = 15;

/// Waits until the cluster closes windows on the telemetry that comes.
fn observe(cluster: &Cluster) {
    cluster.told("r0", "window_final", |told| told["series"] == 1 && told["reports"] == REPLICAS);
}

fn signers(told: &Value) -> Vec<&str> {
    told["signers"].as_array().expect("they are listed").iter().filter_map(Value::as_str).collect()
}

#[test]
fn a_replica_killed_in_the_middle_of_an_incident_stops_nothing_and_catches_up() {
    let mut cluster = Cluster::start(&Options::default());
    let engine = cluster.engine();
    observe(&cluster);
    engine.wait_for_slots(GROWING);
    cluster.kill(&[3]);
    engine.wait_for_slots(BACKLOG);

    let logged = cluster.told("r0", "plan_logged", |_| true);
    assert_eq!(signers(&logged), ["r0", "r1", "r2"], "the dead replica signed nothing");
    cluster.told(AGENT, "applied", |applied| applied["seq"] == logged["cycle"]);
    cluster.told("r0", "receipt_logged", |receipt| {
        receipt["seq"] == logged["cycle"] && receipt["outcome"]["kind"] == "applied"
    });

    let before = cluster.status(0).expect("it runs");
    cluster.restart(3);
    cluster.eventually("the restarted replica to catch up", || {
        let status = cluster.status(3)?;
        let is_there = status.height >= before.height
            && status.agreed_time_ms >= before.agreed_time_ms
            && status.is_ready();
        is_there.then_some(())
    });
    let plans = cluster.plans(0).expect("it answers");
    assert!(!plans.is_empty());
    cluster.eventually("the same plans at the restarted replica", || {
        (cluster.plans(3)? == cluster.plans(0)?).then_some(())
    });
    assert!(cluster.plans(3).expect("it answers").starts_with(&plans));
}

#[test]
fn without_a_quorum_nothing_is_certified_and_the_agent_takes_its_plan_back_until_heads_flow_again() {
    // Plans may follow each other within seconds, and are taken back while nobody vouches for them.
    let policy = vec![
        (r#"on_stale = "hold""#, r#"on_stale = "rollback""#),
        (r#"cooldown = "5m""#, r#"cooldown = "20s""#),
        (r#"cooldown = "2m""#, r#"cooldown = "20s""#),
        ("plans_per_hour = 6", "plans_per_hour = 600"),
    ];
    let mut cluster = Cluster::start(&Options { policy, ..Options::default() });
    let engine = cluster.engine();
    observe(&cluster);
    engine.wait_for_slots(BACKLOG);
    cluster.told(AGENT, "applied", |_| true);
    engine.wait_for_slots(0);
    cluster.eventually("the backlog to be gone from a window", || {
        let plans = cluster.plans(0)?;
        let applied = cluster.events(AGENT, "applied").last()?["seq"].as_u64()?;
        let closed = cluster.events("r0", "window_final").last()?["cycle"].as_u64()?;
        (plans.last()?.0 == applied && closed > applied + 4).then_some(())
    });

    cluster.kill(&[2, 3]);
    engine.wait_for_slots(BACKLOG);
    cluster.told(AGENT, "idle", |idle| {
        idle["why"].as_str().is_some_and(|why| why.starts_with("heads are stale"))
    });
    cluster.told(AGENT, "taken_back", |_| true);
    let stands = |cluster: &Cluster| {
        let told =
            ["window_final", "plan_certified", "plan_logged"].map(|kind| cluster.events("r0", kind).len());
        let status = cluster.status(0).expect("it runs");
        (told, status.height, status.head, status.agreed_time_ms)
    };
    let (before, view) = (stands(&cluster), cluster.status(0).expect("it runs").view);
    assert!(!cluster.status(0).expect("it runs").is_ready(), "it says that it lacks a quorum");
    assert_eq!(cluster.status(0).expect("it runs").view, view, "no view ends without a quorum");
    assert_eq!(stands(&cluster), before);
    let newest = cluster.plans(0).expect("it answers").last().expect("one was applied").0;
    let applied = cluster.events(AGENT, "applied").len();

    cluster.restart(2);
    cluster.restart(3);
    cluster.told("r0", "plan_logged", |logged| logged["cycle"].as_u64() > Some(newest));
    cluster.eventually("the agent to apply a plan again", || {
        let again = cluster.events(AGENT, "applied").into_iter().skip(applied);
        again.filter_map(|told| told["seq"].as_u64()).find(|seq| *seq > newest)
    });
    cluster.eventually("heads to flow again", || {
        (cluster.status(0)?.head?.number > before.2?.number).then_some(())
    });
}

#[test]
fn all_killed_at_once_contradict_nothing_that_they_signed_and_change_no_plan() {
    let all: Vec<usize> = (0..REPLICAS).collect();
    let mut cluster = Cluster::start(&Options::default());
    let engine = cluster.engine();
    observe(&cluster);
    engine.wait_for_slots(BACKLOG);
    cluster.told("r0", "plan_derived", |_| true);
    cluster.kill(&all);
    all.iter().for_each(|place| cluster.restart(*place));
    let logged = cluster.eventually("a logged plan at every replica", || {
        let plans: Option<Vec<_>> = all.iter().map(|place| cluster.plans(*place)).collect();
        plans.filter(|plans| plans.iter().all(|of_one| !of_one.is_empty()))
    });
    let height = cluster.status(0).expect("it runs").height;
    cluster.kill(&all);
    all.iter().for_each(|place| cluster.restart(*place));
    cluster.eventually("new blocks at every replica", || {
        let grown = |place: &usize| cluster.status(*place).is_some_and(|status| status.height > height);
        all.iter().all(grown).then_some(())
    });
    for (place, before) in logged.iter().enumerate() {
        let after = cluster.plans(place).expect("it answers");
        assert!(after.starts_with(before), "r{place} served {before:?}, and then {after:?}");
    }
    drop(engine);
    cluster.end_replicas();
    for place in all {
        let signed = journal::check(&cluster.replica_file(place));
        assert!(signed.votes > 0 && signed.reports > 0 && signed.endorsements > 0, "r{place}: {signed:?}");
    }
}

#[test]
fn a_forger_changes_neither_what_is_observed_nor_what_is_applied_and_is_named() {
    let mut forger = Command::new(adversaries::program());
    let mut cluster = Cluster::start(&Options::default());
    let engine = cluster.engine();
    observe(&cluster);
    cluster.kill(&[3]);
    forger.arg("forger").arg("--config").arg(cluster.replica_file(3));
    cluster.put_in_place(3, forger);
    let closed = cluster.events("r0", "window_final").len();
    cluster.eventually("windows that the forger reported on", || {
        let later = cluster.events("r0", "window_final").into_iter().skip(closed);
        (later.filter(|told| told["reports"] == REPLICAS).count() >= 5).then_some(())
    });
    for place in 0..3 {
        let derived = cluster.events(&format!("r{place}"), "plan_derived");
        assert!(derived.is_empty(), "one replica's backlog is nobody's: {derived:?}");
    }

    engine.wait_for_slots(BACKLOG);
    let logged = cluster.told("r0", "plan_logged", |_| true);
    assert_eq!(signers(&logged), ["r0", "r1", "r2"], "the forged plan is none");
    let of_logged = |told: &Value| told["cycle"] == logged["cycle"];
    let derived = cluster.told("r0", "plan_derived", of_logged);
    let applied = cluster.told(AGENT, "applied", |applied| applied["seq"] == logged["cycle"]);
    assert_eq!((&derived["digest"], &applied["state"]), (&logged["digest"], &derived["to"]));
    for place in 0..3 {
        cluster.eventually("an alarm that names the forger", || {
            let alarms = cluster.status(place)?.alarms;
            alarms
                .iter()
                .any(|alarm| alarm.kind == AlarmKind::OtherPlan && alarm.replica == "r3")
                .then_some(())
        });
        let alarms = cluster.status(place).expect("it runs").alarms;
        assert!(alarms.iter().all(|alarm| alarm.replica == "r3"), "nobody else is named: {alarms:?}");
    }
}

#[test]
fn a_cycle_is_one_trace_over_a_quorum_of_replicas_and_the_agent() {
    let collector = Collector::start();
    let options = Options { otlp_traces: Some(collector.url()), ..Options::default() };
    let mut cluster = Cluster::start(&options);
    let engine = cluster.engine();
    observe(&cluster);
    engine.wait_for_slots(BACKLOG);
    let applied = cluster.told(AGENT, "applied", |_| true);
    let status = cluster.status(0).expect("it runs");
    let seq = Cycle::new(applied["seq"].as_u64().expect("a plan has a number"));
    let trace = trace_id(status.cluster, seq).to_bytes();
    // A process posts the spans of one cycle in more than one piece.
    cluster.eventually("the cycle's spans of all processes", || {
        let instances = collector.instances(&trace);
        let is_whole = |name: &str| {
            instances.get(name).is_some_and(|spans| spans.contains("observe") && spans.contains("decide"))
        };
        let replicas = ["r0", "r1", "r2", "r3"].into_iter().filter(|name| is_whole(name)).count();
        (replicas >= status.quorum && instances.len() > replicas).then_some(())
    });
    // What the processes still hold they post at their end; then every parent must have been received.
    drop(engine);
    processes::signal(cluster.dev(), Signal::INT);
    assert_eq!(cluster.ended().code(), Some(0));
    assert_eq!((collector.orphans(), collector.malformed()), (vec![], 0));
}

#[test]
fn an_interrupted_cluster_ends_whole_and_a_second_start_resumes_it() {
    let mut cluster = Cluster::start(&Options::default());
    let engine = cluster.engine();
    observe(&cluster);
    let before = cluster.status(0).expect("it runs");

    let second = quorate().arg("dev").arg("--data-dir").arg(cluster.folder()).output().expect("it starts");
    assert_told(&second, 1, "another `quorate dev` runs there");

    let all = cluster.processes();
    processes::signal(cluster.dev(), Signal::INT);
    assert_eq!(cluster.ended().code(), Some(0));
    let left: Vec<_> = all.into_iter().filter(|pid| processes::runs(*pid)).collect();
    assert_eq!((left, processes::naming(cluster.folder())), (vec![], vec![]), "nothing is left");

    cluster.resume();
    cluster.eventually("new blocks after the second start", || {
        let status = cluster.status(0)?;
        assert_eq!(status.cluster, before.cluster);
        (status.height > before.height && status.cycle > before.cycle).then_some(())
    });
    drop(engine);
}

#[test]
fn no_process_outlives_a_parent_that_was_killed() {
    let mut cluster = Cluster::start(&Options::default());
    let all = cluster.processes();
    processes::signal(cluster.dev(), Signal::KILL);
    assert_eq!(cluster.ended().code(), None);
    cluster.eventually("all processes to end", || {
        let none =
            all.iter().all(|pid| !processes::runs(*pid)) && processes::naming(cluster.folder()).is_empty();
        none.then_some(())
    });
}

#[test]
fn what_keeps_a_cluster_from_starting_is_one_clear_line() {
    let _turn = turn();
    let folder = folder();
    let base_port = free_ports(9);
    let listener = TcpListener::bind(("127.0.0.1", base_port + 1)).expect("the port is free");
    let broken = folder.path().join("broken.toml");
    fs::write(&broken, "[[target]]\nid = 7\n").expect("the folder is ours");
    let dev = |name: &str, more: &[&str]| {
        let mut command = quorate();
        command.arg("dev").arg("--data-dir").arg(folder.path().join(name));
        command.args(["--base-port", &base_port.to_string(), "--otlp-port", &(base_port + 8).to_string()]);
        command.args(more).output().expect("it starts")
    };
    assert_told(&dev("taken", &[]), 1, &format!("127.0.0.1:{} is taken", base_port + 1));
    drop(listener);
    assert_told(&dev("flag", &["--replicas", "many"]), 2, "many");
    assert_told(&dev("speed", &["--speed", "0"]), 2, "--speed");
    assert_told(&dev("broken", &["--policy", &broken.display().to_string()]), 78, "broken.toml");
    assert_eq!(processes::naming(folder.path()), Vec::<String>::new(), "nothing is left");
}

/// The command failed with this code and one line that says so.
fn assert_told(output: &Output, code: i32, why: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    let lines: Vec<&str> = told.lines().filter(|line| line.contains(why)).collect();
    assert_eq!(lines.len(), 1, "{told}");
}
