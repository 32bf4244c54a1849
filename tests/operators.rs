//! Operators' requests to a cluster of real processes: a stop in the middle of an incident, a resume, what is replayed, and
//! keys of agents.
//!
//! Invariant: every wait is for a condition, none is for a time.
#![cfg(feature = "service")]

#[expect(dead_code, reason = "these tests need a part of it")]
mod harness;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
};

use harness::{
    cluster::{AGENT, Cluster, Options, REPLICAS, TARGET, quorate},
    http,
};
use quorate::{
    knowledge::{
        head::Mode,
        operator_request::{OperatorRequest, Request, Selection},
        root::VerifiedRoot,
    },
    service::{
        founding::Layout,
        key_file::{read_secret_key, write_secret_key},
        lifecycle::END_WITH_PARENT,
    },
    types::{Digest, SecretKey, TargetId, UnixMillis},
};
use serde_json::Value;

/// A backlog that breaks the example policy's threshold of 20.
const BACKLOG: i64 = 30;

/// Plans may follow each other within seconds.
fn quick() -> Options {
    let policy = vec![
        (r#"cooldown = "5m""#, r#"cooldown = "20s""#),
        (r#"cooldown = "2m""#, r#"cooldown = "20s""#),
        ("plans_per_hour = 6", "plans_per_hour = 600"),
    ];
    Options { policy, ..Options::default() }
}

/// Runs a command of an operator against all replicas.
fn operate(cluster: &Cluster, operator: usize, words: &[&str]) -> Output {
    let layout = Layout::of(cluster.folder().to_owned());
    let mut command = quorate();
    command.args(["-o", "jsonl"]).args(words).arg("--operator-key").arg(layout.operator_key(operator));
    command.arg("--root").arg(layout.root());
    for place in 0..REPLICAS {
        command.args(["--replica", &format!("http://{}", cluster.http(place))]);
    }
    command.output().expect("the command runs")
}

/// What a command that succeeded told.
fn told(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(lines.lines().last().unwrap_or_default()).expect("it tells JSON objects")
}

/// The command was refused, and says these words.
fn refused(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains(words), "{words:?} is not in {said}");
}

/// The target's mode, its newest plan, and who stopped it, as a replica says.
fn target(cluster: &Cluster, place: usize) -> Option<(Mode, u64, Vec<String>)> {
    let status = cluster.status(place)?;
    let line = status.targets.into_iter().find(|line| line.target.as_str() == TARGET)?;
    let stops = line.stopped_by.into_iter().map(|stop| stop.operator).collect();
    Some((line.mode, line.seq.number(), stops))
}

/// An agent of the test's own, with a pool of three slots.
struct OwnAgent {
    process: Child,
    events: PathBuf,
}

impl OwnAgent {
    fn start(cluster: &Cluster, key: &Path) -> Self {
        let events = cluster.folder().join("own-agent.jsonl");
        let mut command = quorate();
        command.args(["-o", "jsonl", "agent", "run", "--target", TARGET]);
        command.args(["--actuator", "worker-pool", "--slots", "3", "--key"]).arg(key);
        command.arg("--root").arg(Layout::of(cluster.folder().to_owned()).root());
        command.arg("--state-dir").arg(cluster.folder().join("own-agent"));
        for place in 0..REPLICAS {
            command.args(["--replica", &format!("http://{}", cluster.http(place))]);
        }
        command.env(END_WITH_PARENT, "1").stdin(Stdio::piped());
        command.stdout(File::create(&events).expect("the folder is ours"));
        Self { process: command.spawn().expect("the agent starts"), events }
    }

    fn events(&self, event: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.events).unwrap_or_default();
        let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.filter(|line| line["event"] == event).collect()
    }
}

impl Drop for OwnAgent {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_stop_reaches_an_agent_that_has_not_yet_applied_and_a_resume_lets_only_the_next_plan_through() {
    // The target's agent is the test's own, so that the plan is logged before any agent is there to apply it.
    let key = SecretKey::from_seed(&[77; 32]);
    let agent_line =
        format!("plans_per_hour = 600\nagent = \"{}\"", Digest::from_bytes(key.public().to_bytes()));
    let mut options = quick();
    options.policy[2].1 = agent_line.leak();
    let mut cluster = Cluster::start(&options);
    let engine = cluster.engine();
    engine.wait_for_slots(BACKLOG);
    cluster.told("r0", "plan_logged", |_| true);

    // An operator of another owner stops it; the head that says so is certified when the command ends.
    let stopped = told(&operate(&cluster, 1, &["stop", "--target", TARGET]));
    let line = &stopped["targets"][0];
    assert_eq!((&line["target"], &line["mode"]), (&TARGET.into(), &"hold".into()));
    assert!(line["head"].as_u64() > Some(0) && line["signers"].as_u64() >= Some(3), "{line}");
    let (mode, held, stops) = target(&cluster, 0).expect("it answers");
    assert_eq!((mode, stops), (Mode::Hold, vec!["operator-1".to_owned()]));
    assert!(held > 0);
    let key_file = cluster.folder().join("own-agent.key");
    write_secret_key(&key_file, &key).expect("the folder is ours");
    let agent = OwnAgent::start(&cluster, &key_file);
    cluster.eventually("the agent to say that it is on hold", || {
        let idle = agent.events("idle");
        idle.iter().any(|idle| idle["why"].as_str().is_some_and(|why| why.contains("on hold"))).then_some(())
    });

    // A replica that was killed still knows it; meanwhile windows close with the symptom, and nothing is planned.
    cluster.kill(&[3]);
    cluster.restart(3);
    cluster.eventually("the restarted replica to know the stop", || {
        let (mode, seq, stops) = target(&cluster, 3)?;
        (mode == Mode::Hold && seq == held && stops == ["operator-1"]).then_some(())
    });
    let closed = cluster.events("r0", "window_final").len();
    cluster.eventually("more windows with the symptom", || {
        (cluster.events("r0", "window_final").len() > closed + 4).then_some(())
    });
    assert_eq!(target(&cluster, 0).expect("it answers").1, held, "nothing was logged");

    // Another owner's operator may not resume it. The owner's may; the earlier plan stays on hold.
    refused(&operate(&cluster, 2, &["resume", "--target", TARGET]), "belongs to owner-0");
    let resumed = told(&operate(&cluster, 0, &["resume", "--target", TARGET]));
    assert_eq!(resumed["request"]["kind"], "resume");
    cluster.told("r0", "plan_logged", |logged| logged["cycle"].as_u64() > Some(held));
    let applied =
        cluster.eventually("the next plan to be applied", || agent.events("applied").first().cloned());
    assert!(
        applied["seq"].as_u64() > Some(held),
        "the plan from before the stop is never applied: {applied}"
    );
    assert_eq!(target(&cluster, 0).map(|(mode, ..)| mode), Some(Mode::Act));
}

#[test]
fn a_replayed_resume_lifts_no_later_stop() {
    let cluster = Cluster::start(&Options::default());
    let _engine = cluster.engine();
    cluster.told("r0", "window_final", |told| told["series"] == 1 && told["reports"] == REPLICAS);
    told(&operate(&cluster, 0, &["stop", "--all", "--revoke"]));
    // The resume as it goes over the wire, for whoever listens.
    let layout = Layout::of(cluster.folder().to_owned());
    let root = fs::read(layout.root()).expect("the cluster is founded");
    let root = VerifiedRoot::first(&root).expect("the cluster runs with it");
    let counter = quorate::service::clock::wall_clock().as_millis();
    let target_id = TargetId::new(TARGET).expect("a valid name");
    let stop = cluster.eventually("r0 to say who stopped the target", || {
        let line = cluster.status(0)?.targets.into_iter().find(|line| line.target == target_id)?;
        line.stopped_by.into_iter().next()
    });
    let resume = OperatorRequest {
        v: 1,
        cluster: root.committee().cluster(),
        epoch: root.committee().epoch(),
        counter,
        expires_at: UnixMillis::new(counter + 60_000),
        request: Request::Resume {
            targets: Selection::These([target_id].into()),
            seen: [(stop.keyid, stop.counter)].into(),
        },
    };
    let key = read_secret_key(&layout.operator_key(0)).expect("it was written");
    let envelope = resume.sign(&key).to_json();
    let send = |place| http::post(cluster.http(place), "/v1/operator-requests", &envelope);
    assert_eq!(send(0).map(|(status, _)| status), Some(202));
    let digest = Digest::of(&resume.to_bytes());
    cluster.eventually("the resume to be committed", || {
        let answer = http::get(cluster.http(2), &format!("/v1/operator-requests/{digest}"))?;
        let outcome: Value = serde_json::from_slice(&answer).ok()?;
        (outcome["status"] == "committed").then_some(())
    });
    assert_eq!(target(&cluster, 2).expect("it answers").2, [""; 0]);

    told(&operate(&cluster, 0, &["stop", "--target", TARGET]));
    for place in 0..REPLICAS {
        // It is told what became of the first, and is not ordered again.
        assert_eq!(send(place).map(|(status, _)| status), Some(200), "r{place}");
    }
    // One that was signed before that stop and withheld until after it lifts nothing, though it is in time.
    let counter_now = quorate::service::clock::wall_clock().as_millis();
    let withheld = OperatorRequest { counter: counter_now, ..resume.clone() };
    let late = http::post(cluster.http(0), "/v1/operator-requests", &withheld.sign(&key).to_json());
    let (status, answer) = late.expect("it answers");
    assert_eq!(status, 409);
    assert!(String::from_utf8_lossy(&answer).contains("after the stops that this resume names"));
    let older = OperatorRequest { counter: counter - 1, ..resume };
    let replayed = http::post(cluster.http(1), "/v1/operator-requests", &older.sign(&key).to_json());
    let (status, answer) = replayed.expect("it answers");
    assert_eq!(status, 409);
    assert!(String::from_utf8_lossy(&answer).contains("is not above"), "it says what to do");
    assert_eq!(target(&cluster, 1).expect("it answers").2, ["operator-0"]);
    refused(&operate(&cluster, 0, &["stop", "--all", "--counter", "5"]), "--counter");
}

#[test]
fn receipts_count_from_an_enrolled_key_and_from_no_other() {
    let cluster = Cluster::start(&Options::default());
    let engine = cluster.engine();
    let key_file = cluster.folder().join("spare.key");
    let key_name = key_file.display().to_string();
    let made = quorate().args(["-o", "jsonl", "agent", "keygen", "--out", &key_name]).output();
    let made = told(&made.expect("the command runs"));
    let public_key = format!("{key_name}.pub");
    let enroll = ["agent", "enroll", "--target", TARGET, "--agent-key", &public_key];
    refused(&operate(&cluster, 1, &enroll), "belongs to owner-0");
    let secret_given = ["agent", "enroll", "--target", TARGET, "--agent-key", &key_name];
    refused(&operate(&cluster, 0, &secret_given), "secret");
    told(&operate(&cluster, 0, &enroll));
    let bound = |place: usize| {
        let line = cluster.status(place)?.targets.into_iter().find(|line| line.target.as_str() == TARGET)?;
        Some(line.agents.iter().map(Digest::to_string).collect::<Vec<_>>())
    };
    let spare = made["keyid"].as_str().expect("it told").to_owned();
    let both = cluster.eventually("all replicas to know the key", || {
        (0..REPLICAS).all(|place| bound(place).is_some_and(|keys| keys.contains(&spare))).then(|| bound(0))
    });
    let genesis_key = both.into_iter().flatten().find(|keyid| *keyid != spare).expect("the first is bound");

    // The running agent's key is taken back: it acts, and its receipts count no more.
    told(&operate(&cluster, 0, &["agent", "enroll", "--target", TARGET, "--unbind", &genesis_key]));
    refused(&operate(&cluster, 0, &["agent", "enroll", "--target", TARGET, "--unbind", &spare]), "only key");
    engine.wait_for_slots(BACKLOG);
    cluster.told(AGENT, "applied", |_| true);
    cluster.eventually("its receipts to be refused and counted", || {
        let refused = (0..REPLICAS).filter_map(|place| cluster.status(place)).flat_map(|said| said.refused);
        refused.into_iter().find(|line| line.document == "receipt" && line.reason == "unbound_key")
    });
    assert!(cluster.events("r0", "receipt_logged").is_empty());
}
