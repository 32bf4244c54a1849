//! A real agent of a real cluster, and an Airflow that answers from a record: what it refuses changes nothing and is
//! told by a signed receipt; what it takes is read back.
//!
//! Invariant: every wait is for a condition, none is for a time.
#![cfg(feature = "service")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod harness;
#[expect(dead_code, reason = "the actuator's own tests use the rest")]
#[path = "support/airflow.rs"]
mod recorded;

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Stdio},
};

use axum::http::StatusCode;
use harness::cluster::{Cluster, Options, REPLICAS, TARGET, quorate};
use quorate::{
    service::{founding::Layout, lifecycle::END_WITH_PARENT},
    types::TargetId,
};
use recorded::{PASSWORD, RecordedAirflow, USER};
use serde_json::{Value, json};

/// A backlog that breaks the example policy's threshold of 20.
const BACKLOG: i64 = 30;

/// An agent's process; it ends with its handle.
struct Agent(Child);

impl Agent {
    /// Starts the agent of the cluster's target for the pool `extract_pool`.
    fn start(cluster: &Cluster, airflow: &RecordedAirflow) -> Self {
        let layout = Layout::of(cluster.folder().to_owned());
        let target = TargetId::new(TARGET).expect("a valid name");
        let password = cluster.folder().join("airflow-password");
        fs::write(&password, PASSWORD).expect("the folder is ours");
        fs::set_permissions(&password, Permissions::from_mode(0o600)).expect("it is ours");
        let log = |name: &str| File::create(cluster.folder().join(name)).expect("the folder is ours");
        let mut command = quorate();
        command.args(["-o", "jsonl", "agent", "run", "--target", TARGET, "--stale-after", "10"]);
        for place in 0..REPLICAS {
            command.arg("--replica").arg(format!("http://{}", cluster.http(place)));
        }
        command
            .args(["--actuator", "airflow", "--airflow", &airflow.url, "--airflow-pool", "extract_pool"])
            .args(["--airflow-user", USER, "--airflow-password-file"])
            .arg(&password)
            .arg("--root")
            .arg(layout.root())
            .arg("--key")
            .arg(layout.agent_key(&target))
            .arg("--state-dir")
            .arg(layout.agent(&target).join("state"))
            .env(END_WITH_PARENT, "1")
            .stdin(Stdio::piped())
            .stdout(log("agent.jsonl"))
            .stderr(log("agent.log"));
        Self(command.spawn().expect("the binary starts"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first event of a kind that the agent told and the condition holds for.
fn told(cluster: &Cluster, event: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    cluster.eventually(&format!("{event} of the agent"), || {
        let text = fs::read_to_string(cluster.folder().join("agent.jsonl")).unwrap_or_default();
        // The last line may be half written.
        let mut all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.find(|told| told["event"] == event && is_it(told))
    })
}

#[test]
fn a_refusal_of_airflow_changes_nothing_and_the_next_plan_changes_the_pool() {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let airflow = runtime.block_on(RecordedAirflow::start());
    let cluster = Cluster::start(&Options { no_agents: true, ..Options::default() });
    let _agent = Agent::start(&cluster, &airflow);
    told(&cluster, "started", |_| true);
    let engine = cluster.engine();
    cluster.told("r0", "window_final", |told| told["series"] == 1 && told["reports"] == REPLICAS);

    airflow.engine().refuses_changes = Some(StatusCode::FORBIDDEN);
    engine.wait_for_slots(BACKLOG);
    let refused = cluster.told("r0", "receipt_logged", |receipt| {
        receipt["outcome"] == json!({ "kind": "refused", "why": "target_failed" })
    });
    let failed = told(&cluster, "target_failed", |failed| failed["seq"] == refused["seq"]);
    let error = failed["error"].as_str().expect("it says why");
    assert!(error.contains("cannot set pool extract_pool of Airflow to 6 slots"), "{error}");
    assert!(error.contains("403 Forbidden") && error.contains("next:"), "{error}");
    assert_eq!(airflow.engine().slots["extract_pool"], 3);

    // Meanwhile the token has expired too: the agent logs in anew by itself.
    airflow.engine().refuses_changes = None;
    airflow.engine().token = "token-2".to_owned();
    let applied = cluster.told("r0", "receipt_logged", |receipt| {
        receipt["seq"].as_u64() > refused["seq"].as_u64() && receipt["outcome"]["kind"] == "applied"
    });
    assert_eq!(airflow.engine().slots["extract_pool"], 6);
    let read_back = told(&cluster, "read_back", |read| read["seq"] == applied["seq"]);
    assert_eq!(read_back["state"], json!({ "kind": "slots", "slots": 6 }));
    let text = fs::read_to_string(cluster.folder().join("agent.log")).unwrap_or_default();
    assert!(!text.contains("token-") && !text.contains(PASSWORD), "{text}");
}
