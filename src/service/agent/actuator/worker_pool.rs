//! The built-in target: a pool of workers inside the agent's process. It runs jobs, at most as many at once
//! as it has slots, keeps slots and pause over a restart, and posts its own OTLP metrics.
//!
//! One task owns the pool; everybody else sends it requests. Invariant: slots and pause are on disk before
//! they are in force.

use std::{io, path::PathBuf, time::Duration};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point},
    resource::v1::Resource,
};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Interval, MissedTickBehavior},
};

use super::{Actuator, ActuatorError};
use crate::{
    execute::agent::{Aim, Attempt},
    knowledge::{
        certified::Certified,
        plan::{DesiredState, Limits, Plan},
    },
    service::{
        clock::wall_clock,
        durable::replace_file,
        http_client::{Bounds, HttpClient},
    },
    types::{TargetId, UnixMillis},
};

/// Jobs beyond this are turned away: a queue that long has no meaning for anybody any more.
const LONGEST_QUEUE: u64 = 100_000;
/// One agent asks at a time.
const REQUESTS: usize = 4;
/// A collector's answer to one export is empty or a line.
const EXPORT_BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(5), body_bytes: 64 * 1024 };

/// How a worker pool begins and what it does.
#[derive(Clone, Debug)]
pub struct WorkerPoolSettings {
    /// The target's name, which is the attribute `pool` of its metrics.
    pub target: TargetId,
    /// Where slots and pause are kept.
    pub state_file: PathBuf,
    /// Slots before the first plan.
    pub initial_slots: u32,
    /// How often a job arrives; never when absent.
    pub job_every: Option<Duration>,
    /// How long a job runs.
    pub job_takes: Duration,
    /// Where metrics are posted (`/v1/metrics` is added), and how often; nowhere when absent.
    pub metrics: Option<(String, Duration)>,
}

/// Why a worker pool cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum WorkerPoolError {
    /// Its file cannot be read.
    #[error("cannot read the worker pool's state from {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its file is damaged.
    #[error("the worker pool's state in {} is damaged: {error}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
}

/// A handle to the pool. The pool ends when the last handle is gone; running jobs end with it.
#[derive(Clone, Debug)]
pub struct WorkerPool {
    requests: mpsc::Sender<Request>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    slots: u32,
    paused: bool,
}

#[derive(Debug)]
enum Request {
    Read(oneshot::Sender<Kept>),
    Set(DesiredState, oneshot::Sender<io::Result<()>>),
}

impl WorkerPool {
    /// Starts the pool with what its file says, or with its initial slots when there is none. It needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`WorkerPoolError`] when the file is there and cannot be used.
    pub fn start(settings: WorkerPoolSettings) -> Result<Self, WorkerPoolError> {
        let path = settings.state_file.clone();
        let kept = match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| WorkerPoolError::Damaged { path, error })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Kept { slots: settings.initial_slots, paused: false }
            }
            Err(source) => return Err(WorkerPoolError::Read { path, source }),
        };
        let (requests, received) = mpsc::channel(REQUESTS);
        let pool = Pool { kept, queued: 0, running: JoinSet::new(), started: wall_clock(), settings };
        tokio::spawn(pool.run(received));
        Ok(Self { requests })
    }

    async fn kept(&self) -> Result<Kept, ActuatorError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Read(answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())
    }
}

fn ended() -> ActuatorError {
    ActuatorError::Pool("it has ended".to_owned())
}

impl Actuator for WorkerPool {
    async fn read(&self, plan: &Plan) -> Result<DesiredState, ActuatorError> {
        let Kept { slots, paused } = self.kept().await?;
        match (plan.limits, paused) {
            (Limits::Slots { .. }, _) => Ok(DesiredState::Slots { slots }),
            (Limits::Switch {}, true) => Ok(DesiredState::Paused {}),
            (Limits::Switch {}, false) => Ok(DesiredState::Running {}),
            (Limits::Tasks { .. }, _) => Err(ActuatorError::Pool("its jobs do not fail".to_owned())),
        }
    }

    async fn set(&self, plan: &Certified<Plan>, aim: Aim, _: Attempt) -> Result<(), ActuatorError> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Set(aim.of(plan.document()), answer);
        self.requests.send(request).await.map_err(|_| ended())?;
        let kept = answered.await.map_err(|_| ended())?;
        kept.map_err(|error| ActuatorError::Pool(format!("cannot keep its state: {error}")))
    }
}

/// The pool itself, owned by its task.
struct Pool {
    kept: Kept,
    queued: u64,
    running: JoinSet<()>,
    started: UnixMillis,
    settings: WorkerPoolSettings,
}

impl Pool {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let client = HttpClient::new();
        let mut arrivals = self.settings.job_every.map(every);
        let mut exports = self.settings.metrics.as_ref().map(|(_, period)| every(*period));
        let mut exporting = JoinSet::new();
        loop {
            self.begin_jobs();
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.answer(request),
                    None => return,
                },
                () = tick(&mut arrivals) => self.queued = (self.queued + 1).min(LONGEST_QUEUE),
                Some(_) = self.running.join_next() => {}
                () = tick(&mut exports), if exporting.is_empty() => {
                    if let Some((address, _)) = &self.settings.metrics {
                        exporting.spawn(export(client.clone(), address.clone(), self.metrics(wall_clock())));
                    }
                }
                Some(_) = exporting.join_next() => {}
            }
        }
    }

    fn begin_jobs(&mut self) {
        while !self.kept.paused && self.queued > 0 && self.running.len() < self.kept.slots as usize {
            self.queued -= 1;
            self.running.spawn(tokio::time::sleep(self.settings.job_takes));
        }
    }

    fn answer(&mut self, request: Request) {
        // Whoever asked and did not wait for the answer does not need it.
        match request {
            Request::Read(answer) => drop(answer.send(self.kept)),
            Request::Set(state, answer) => drop(answer.send(self.set(state))),
        }
    }

    fn set(&mut self, state: DesiredState) -> io::Result<()> {
        let next = match state {
            DesiredState::Slots { slots } => Kept { slots, ..self.kept },
            DesiredState::Paused {} => Kept { paused: true, ..self.kept },
            DesiredState::Running {} => Kept { paused: false, ..self.kept },
            DesiredState::Retried { .. } => return Err(io::Error::other("its jobs do not fail")),
        };
        replace_file(&self.settings.state_file, &serde_json::to_vec(&next)?)?;
        self.kept = next;
        Ok(())
    }

    fn metrics(&self, now: UnixMillis) -> ExportMetricsServiceRequest {
        let running = u64::try_from(self.running.len()).unwrap_or(u64::MAX);
        let gauges = [
            ("worker_pool.slots", "{slot}", u64::from(self.kept.slots)),
            ("worker_pool.running", "{job}", running),
            ("worker_pool.queued", "{job}", self.queued),
        ];
        let nanos = |time: UnixMillis| time.as_millis().saturating_mul(1_000_000);
        let gauge = |(name, unit, value): (&str, &str, u64)| Metric {
            name: name.to_owned(),
            unit: unit.to_owned(),
            data: Some(metric::Data::Gauge(Gauge {
                data_points: vec![NumberDataPoint {
                    attributes: vec![text("pool", self.settings.target.as_str())],
                    start_time_unix_nano: nanos(self.started),
                    time_unix_nano: nanos(now),
                    value: Some(number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX))),
                    ..NumberDataPoint::default()
                }],
            })),
            ..Metric::default()
        };
        let scope = ScopeMetrics { metrics: gauges.map(gauge).to_vec(), ..ScopeMetrics::default() };
        let resource =
            Resource { attributes: vec![text("service.name", "quorate-worker-pool")], ..Resource::default() };
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(resource),
                scope_metrics: vec![scope],
                ..ResourceMetrics::default()
            }],
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn every(period: Duration) -> Interval {
    // A period of zero would spin; a millisecond is as often as anybody can mean.
    let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// A lost export is followed by the next: gauges need no repetition.
async fn export(client: HttpClient, address: String, request: ExportMetricsServiceRequest) {
    let url = format!("{}/v1/metrics", address.trim_end_matches('/'));
    match client.post(&url, "application/x-protobuf", request.encode_to_vec(), EXPORT_BOUNDS).await {
        Ok(answer) if answer.status.is_success() => {}
        Ok(answer) => tracing::warn!(%url, status = %answer.status, "the worker pool's metrics were refused"),
        Err(error) => tracing::warn!(%url, %error, "the worker pool's metrics were not taken"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Actuator as _, ExportMetricsServiceRequest, WorkerPool, WorkerPoolSettings};
    use crate::{
        execute::agent::{Aim, Attempt},
        knowledge::{
            fixtures::{certified_plan, plan, target},
            plan::{DesiredState, Limits, Plan, Preconditions},
        },
    };
    use axum::{Router, body::Bytes, routing::post};
    use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
    use prost::Message as _;
    use std::{collections::BTreeMap, path::Path, time::Duration};
    use tokio::sync::mpsc;

    fn settings(folder: &Path) -> WorkerPoolSettings {
        WorkerPoolSettings {
            target: target(),
            state_file: folder.join("pool"),
            initial_slots: 3,
            job_every: None,
            job_takes: Duration::from_millis(1),
            metrics: None,
        }
    }

    fn slots(slots: u32) -> DesiredState {
        DesiredState::Slots { slots }
    }

    #[tokio::test]
    async fn a_pool_has_the_slots_it_was_given_also_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let pool = WorkerPool::start(settings(folder.path())).expect("it is new");
        assert_eq!(pool.read(&plan()).await.expect("it runs"), slots(3));
        pool.set(&certified_plan(&plan()), Aim::Desired, Attempt::FIRST).await.expect("it runs");
        assert_eq!(pool.read(&plan()).await.expect("it runs"), slots(6));
        let again = WorkerPool::start(settings(folder.path())).expect("its file is whole");
        assert_eq!(again.read(&plan()).await.expect("it runs"), slots(6));
        again.set(&certified_plan(&plan()), Aim::Rollback, Attempt::FIRST).await.expect("it runs");
        assert_eq!(again.read(&plan()).await.expect("it runs"), slots(3));
    }

    #[tokio::test]
    async fn a_pool_can_be_paused_and_resumed_and_keeps_its_slots() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let pool = WorkerPool::start(settings(folder.path())).expect("it is new");
        let pause = Plan {
            limits: Limits::Switch {},
            preconditions: Preconditions { state: DesiredState::Running {} },
            desired: DesiredState::Paused {},
            rollback: DesiredState::Running {},
            ..plan()
        };
        assert_eq!(pool.read(&pause).await.expect("it runs"), DesiredState::Running {});
        pool.set(&certified_plan(&pause), Aim::Desired, Attempt::FIRST).await.expect("it runs");
        assert_eq!(pool.read(&pause).await.expect("it runs"), DesiredState::Paused {});
        assert_eq!(pool.read(&plan()).await.expect("it runs"), slots(3));
        pool.set(&certified_plan(&pause), Aim::Rollback, Attempt::FIRST).await.expect("it runs");
        assert_eq!(pool.read(&pause).await.expect("it runs"), DesiredState::Running {});
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        std::fs::write(folder.path().join("pool"), b"{\"slots\":3}").expect("the folder is writable");
        assert!(WorkerPool::start(settings(folder.path())).is_err());
    }

    #[tokio::test]
    async fn jobs_run_up_to_the_slots_and_the_rest_waits_as_the_metrics_tell() {
        let (sender, mut exports) = mpsc::channel::<Bytes>(1);
        let receive = move |body: Bytes| async move { drop(sender.send(body).await) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let routes = Router::new().route("/v1/metrics", post(receive));
        tokio::spawn(axum::serve(listener, routes).into_future());

        let folder = tempfile::tempdir().expect("a folder for the test");
        let pool = WorkerPool::start(WorkerPoolSettings {
            job_every: Some(Duration::from_millis(1)),
            job_takes: Duration::from_secs(600),
            metrics: Some((address, Duration::from_millis(5))),
            ..settings(folder.path())
        })
        .expect("it is new");
        let mut seen = BTreeMap::new();
        while seen.get("worker_pool.running") != Some(&3) || seen.get("worker_pool.queued") < Some(&5) {
            seen = gauges(&exports.recv().await.expect("it exports"));
        }
        assert_eq!(seen.get("worker_pool.slots"), Some(&3));
        pool.set(&certified_plan(&plan()), Aim::Desired, Attempt::FIRST).await.expect("it runs");
        while seen.get("worker_pool.running") != Some(&6) {
            seen = gauges(&exports.recv().await.expect("it exports"));
        }
        assert_eq!(seen.get("worker_pool.slots"), Some(&6));
    }

    fn gauges(body: &[u8]) -> BTreeMap<String, i64> {
        let request = ExportMetricsServiceRequest::decode(body).expect("it is OTLP");
        let metrics = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        metrics
            .flat_map(|scope| &scope.metrics)
            .map(|metric| match &metric.data {
                Some(Data::Gauge(gauge)) => match gauge.data_points[0].value {
                    Some(Value::AsInt(value)) => (metric.name.clone(), value),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            })
            .collect()
    }
}
