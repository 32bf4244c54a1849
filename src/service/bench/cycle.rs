//! The whole loop under measurement: a private development cluster, an anomaly in every window, and the time
//! from a window's last sample to what follows from it.
//!
//! Everything is taken from what the cluster's processes say, when it is heard here. Invariant: a cycle that
//! did not come to its end is counted as missed, never left out.

use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tokio::time::Instant;

use super::{Quantiles, quantiles::Durations};
use crate::{
    service::{
        agent::Event as AgentEvent,
        clock,
        config::{Completion, PolicyFile},
        dev::{Asked, DevCluster, DevConfig, DevError, DevFolder, ReadyInfo, Shown},
        founding::Layout,
        http_client::{Bounds, HttpClient, HttpError},
        replica::ReplicaEvent,
    },
    types::{Cycle, Millis, UnixMillis, WindowIndex},
};

/// An anomaly that never ends, and a target that every cycle may change.
const POLICY: &str = r#"
[[target]]
id = "bench/pool"
pool = { initial = 1, min = 1, max = 100000, max_step = 1 }
cooldown = "0s"
plans_per_hour = 3600

[[policy]]
name = "load"
series = { source = "bench", name = "bench.load" }
statistic = "last"
combine = "sum"
when = { above = 20, until = 5, for = "0s" }

[policy.then]
target = "bench/pool"
add_slots = 1
cooldown = "0s"
expiry = "15m"
risk = "low"
mode = "act"
on_stale = "hold"
verify_within = "5m"
"#;

/// The last sample comes so long before its window's close: enough to be there, too little to matter.
const BEFORE_CLOSE: Millis = Millis::new(20);

/// The first windows of a cluster, and of one that has just lost a replica, are not counted.
const SETTLING: u64 = 5;

/// A cycle that takes longer than this many windows and the default deadline is missed.
const PATIENCE: Duration = Duration::from_secs(20);

const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(5), body_bytes: 64 * 1024 };

/// What is measured.
#[derive(Clone, Debug)]
pub struct CycleSetting {
    /// Where the cluster lies. It must be new.
    pub folder: PathBuf,
    /// How many replicas.
    pub replicas: u16,
    /// The first of the replicas' ports.
    pub base_port: u16,
    /// The relay's port.
    pub otlp_port: u16,
    /// How many times shorter than the default all times are.
    pub speed: u32,
    /// How many windows are measured.
    pub cycles: u64,
    /// Whether the last replica is killed first.
    pub one_down: bool,
}

/// What was measured. All times run from the last sample of a window, which is sent just before its close.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CycleFigures {
    /// Whether a replica was down.
    pub one_down: bool,
    /// A window's length.
    pub window_ms: u64,
    /// How long after its close a window waits for late samples: part of every time below.
    pub grace_ms: u64,
    /// How long a quorum of reports waits for the others: part of every time below while a replica is down.
    pub settle_ms: u64,
    /// How many windows brought no plan to the agent's application.
    pub missed: usize,
    /// To the first replica's certificate.
    pub certified: Quantiles,
    /// To the plan being logged at the first replica.
    pub logged: Quantiles,
    /// To the agent's application.
    pub applied: Quantiles,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum CycleBenchError {
    /// The cluster does not start.
    #[error(transparent)]
    Cluster(#[from] DevError),
    /// The policy file cannot be written.
    #[error("{}: {error}", path.display())]
    Policy {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The relay does not take a sample.
    #[error("the relay does not take a sample: {0}")]
    Sample(String),
    /// A replica cannot be stopped.
    #[error("replica {0} cannot be killed")]
    Kill(String),
}

impl From<HttpError> for CycleBenchError {
    fn from(error: HttpError) -> Self {
        Self::Sample(error.to_string())
    }
}

/// Starts a cluster, measures its cycles and ends it.
///
/// # Errors
/// [`CycleBenchError`].
pub async fn measure_cycles(setting: &CycleSetting) -> Result<CycleFigures, CycleBenchError> {
    let policy = setting.folder.join("bench-policy.toml");
    std::fs::create_dir_all(&setting.folder)
        .and_then(|()| std::fs::write(&policy, POLICY))
        .map_err(|error| CycleBenchError::Policy { path: policy.clone(), error })?;
    let folder = DevFolder::take(&setting.folder.join("cluster")).map_err(DevError::from)?;
    let config = DevConfig {
        asked: Asked {
            replicas: Some(setting.replicas),
            base_port: Some(setting.base_port),
            otlp_port: Some(setting.otlp_port),
            speed: Some(setting.speed.to_string()),
            policy: Some(policy),
            database: None,
        },
        otlp_traces: None,
        agents: true,
    };
    let mut ready = None;
    let (_never, interrupted) = tokio::sync::watch::channel(false);
    let mut cluster = DevCluster::start(folder, config, interrupted, &mut |shown| {
        if let Shown::Ready(info) = shown {
            ready = Some(info);
        }
    })
    .await?;
    let measured = match ready {
        Some(info) => measure(setting, &mut cluster, &info).await,
        None => Err(CycleBenchError::Sample("the cluster did not say where it is".to_owned())),
    };
    cluster.end(&mut |_| {}).await;
    measured
}

async fn measure(
    setting: &CycleSetting,
    cluster: &mut DevCluster,
    info: &ReadyInfo,
) -> Result<CycleFigures, CycleBenchError> {
    let genesis = PolicyFile::read(&Layout::of(setting.folder.join("cluster")).genesis());
    let genesis = genesis.map_err(DevError::from)?.genesis(&Completion::default()).map_err(DevError::from)?;
    let parameters = genesis.parameters;
    if setting.one_down {
        kill_last(setting, info)?;
    }
    let (client, mut seen) = (HttpClient::new(), Seen::default());
    let first = WindowIndex::containing(clock::wall_clock(), parameters.window).next();
    let mut window = first;
    let last = first.index() + SETTLING + setting.cycles;
    while window.index() < last {
        let due = window.close(parameters.window).minus(BEFORE_CLOSE);
        let wait = Duration::from_millis(due.since(clock::wall_clock()).as_millis());
        listen(cluster, &mut seen, Instant::now() + wait).await;
        if window.index() >= first.index() + SETTLING {
            seen.sent.insert(window, Instant::now());
        }
        post_sample(&client, &info.otlp, clock::wall_clock()).await?;
        window = window.next();
    }
    listen(cluster, &mut seen, Instant::now() + PATIENCE).await;
    let [certified, logged, applied] =
        [&seen.certified, &seen.logged, &seen.applied].map(|at| seen.since_sent(at));
    Ok(CycleFigures {
        one_down: setting.one_down,
        window_ms: parameters.window.as_millis(),
        grace_ms: parameters.grace.as_millis(),
        settle_ms: parameters.settle.as_millis(),
        missed: seen.sent.len().saturating_sub(applied.count),
        certified,
        logged,
        applied,
    })
}

fn kill_last(setting: &CycleSetting, info: &ReadyInfo) -> Result<(), CycleBenchError> {
    let name = format!("r{}", setting.replicas - 1);
    let id = info.processes.get(&name).and_then(|id| i32::try_from(*id).ok());
    id.and_then(rustix::process::Pid::from_raw)
        .and_then(|id| rustix::process::kill_process(id, rustix::process::Signal::KILL).ok())
        .ok_or(CycleBenchError::Kill(name))
}

/// When what was first heard.
#[derive(Debug, Default)]
struct Seen {
    sent: BTreeMap<WindowIndex, Instant>,
    windows: BTreeMap<Cycle, WindowIndex>,
    certified: BTreeMap<Cycle, Instant>,
    logged: BTreeMap<Cycle, Instant>,
    applied: BTreeMap<Cycle, Instant>,
}

impl Seen {
    fn hear(&mut self, json: &str) {
        let now = Instant::now();
        match serde_json::from_str(json) {
            Ok(ReplicaEvent::WindowFinal { cycle, window, .. }) => {
                self.windows.insert(cycle, window);
            }
            Ok(ReplicaEvent::PlanCertified { cycle, .. }) => {
                self.certified.entry(cycle).or_insert(now);
            }
            Ok(ReplicaEvent::PlanLogged { cycle, .. }) => {
                self.logged.entry(cycle).or_insert(now);
            }
            Ok(
                ReplicaEvent::Ready { .. }
                | ReplicaEvent::Found { .. }
                | ReplicaEvent::PlanDerived { .. }
                | ReplicaEvent::ReceiptLogged { .. }
                | ReplicaEvent::EffectSettled { .. }
                | ReplicaEvent::OperatorRequest { .. }
                | ReplicaEvent::OperatorRequestRefused { .. }
                | ReplicaEvent::Checkpoint { .. }
                | ReplicaEvent::Installed { .. }
                | ReplicaEvent::Evidence { .. }
                | ReplicaEvent::Alarm { .. },
            ) => {}
            // What is no replica's event is the agent's.
            Err(_) => {
                if let Ok(AgentEvent::Applied { seq, .. }) = serde_json::from_str(json) {
                    self.applied.entry(seq).or_insert(now);
                }
            }
        }
    }

    fn since_sent(&self, heard: &BTreeMap<Cycle, Instant>) -> Quantiles {
        let mut durations = Durations::default();
        for (cycle, at) in heard {
            if let Some(sent) = self.windows.get(cycle).and_then(|window| self.sent.get(window)) {
                durations.add(*at - *sent);
            }
        }
        durations.quantiles()
    }
}

async fn listen(cluster: &mut DevCluster, seen: &mut Seen, until: Instant) {
    while let Ok(shown) = tokio::time::timeout_at(until, cluster.next()).await {
        if let Shown::Event { json, .. } = shown {
            seen.hear(&json);
        }
    }
}

async fn post_sample(client: &HttpClient, relay: &str, time: UnixMillis) -> Result<(), CycleBenchError> {
    let nanos = u128::from(time.as_millis()) * 1_000_000;
    let body = serde_json::json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "bench"}}]},
        "scopeMetrics": [{"metrics": [{
            "name": "bench.load",
            "gauge": {"dataPoints": [{"timeUnixNano": nanos.to_string(), "asInt": "100"}]},
        }]}],
    }]});
    let url = format!("{relay}/v1/metrics");
    let answer = client.post(&url, "application/json", body.to_string(), BOUNDS).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    Err(CycleBenchError::Sample(String::from_utf8_lossy(&answer.body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::{POLICY, Seen};
    use crate::{
        service::config::PolicyFile,
        types::{Cycle, WindowIndex},
    };
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn the_policy_of_the_bench_is_one() {
        let policies = PolicyFile::parse("the bench's policy", POLICY).expect("it is a policy file");
        assert_eq!(policies.targets().count(), 1);
    }

    #[test]
    fn a_cycles_time_runs_from_the_last_sample_of_its_own_window() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let window = WindowIndex::new(7);
        seen.sent.insert(window, start);
        seen.windows.insert(Cycle::new(3), window);
        seen.applied.insert(Cycle::new(3), start + Duration::from_millis(12));
        // A cycle of a window that was not sent to, and one of an unknown window.
        seen.windows.insert(Cycle::new(4), WindowIndex::new(8));
        seen.applied.extend([4, 5].map(|cycle| (Cycle::new(cycle), start + Duration::from_secs(9))));
        let quantiles = seen.since_sent(&seen.applied);
        assert_eq!((quantiles.count, quantiles.p50_us), (1, 12_000));
    }
}
