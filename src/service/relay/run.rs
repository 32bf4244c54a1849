//! The relay's parts together: the queue's folder, the keeper, the lanes, the door and what is told of them.
//!
//! Invariant: when [`Relay::stop`] returns, the cursors are durable and the folder is free for another relay.

use std::{io, path::PathBuf, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde::Serialize;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{
    door::Door,
    keeper::{Keeper, KeeperThread},
    lane::{self, LaneParts, LaneWindow},
    metrics,
    queue::{LaneStatus, OpenError, Queue, QueueConfig, Recovery},
    status::{QueueHealth, RelayStatus, ReplicaStatus},
};
use crate::{
    consensus::journal::{Disk, FileDisk, FileDiskError, SALT_BYTES, Salt},
    service::{clock::wall_clock, entrance::EntranceMetrics, http_client::HttpClient},
    types::Millis,
};

/// How often the queue looks at its bounds, its cursors, and whether it can be written again.
const TICK: Duration = Duration::from_secs(1);

/// How long a shutdown waits for replicas that answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A replica to forward to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// What it is called in status, metrics and logs, and by which the queue knows it after a restart.
    pub name: String,
    /// Its door: a full address, path included.
    pub address: String,
}

/// What a relay is started with.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Where to forward to; no name twice.
    pub replicas: Vec<Replica>,
    /// The queue's folder; it is created when it is missing.
    pub folder: PathBuf,
    /// How many bytes the queue may take there.
    pub queue_bytes: u64,
    /// How old a body may become.
    pub max_age: Millis,
}

/// Why a relay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Another relay uses the folder.
    #[error("{} is the queue of another relay that runs: stop that one, or give this one another folder with --queue", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder cannot be used.
    #[error("the queue's folder {} cannot be {action}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// What is in the folder cannot be used.
    #[error("{}: {error}", folder.display())]
    Queue {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        error: OpenError,
    },
    /// The system gives no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// The system gives no thread.
    #[error("no thread for the queue")]
    Thread(#[source] io::Error),
}

/// A running relay. Its lanes end when it is dropped; what they hold stays in the queue.
#[derive(Debug)]
pub struct Relay {
    insight: Insight,
    thread: KeeperThread,
    lanes: JoinSet<()>,
    ticks: JoinHandle<()>,
    ending: watch::Sender<bool>,
    recovery: Recovery,
}

impl Relay {
    /// Opens the queue and starts to forward with this client. To be called inside the tokio runtime.
    ///
    /// # Errors
    /// [`RelayError`].
    pub fn start(config: RelayConfig, client: &HttpClient) -> Result<Self, RelayError> {
        let (queue, recovery) = open(&config)?;
        Self::start_on(queue, recovery, config, client)
    }

    /// As [`Self::start`], on a queue that is open.
    pub(super) fn start_on<D: Disk + Send + 'static>(
        queue: Queue<D>,
        recovery: Recovery,
        config: RelayConfig,
        client: &HttpClient,
    ) -> Result<Self, RelayError> {
        let (keeper, thread) = Keeper::start(queue).map_err(RelayError::Thread)?;
        let (ending, ended) = watch::channel(false);
        let mut lanes = JoinSet::new();
        let mut windows = Vec::new();
        for (lane, replica) in config.replicas.iter().cloned().enumerate() {
            let window = LaneWindow::default();
            windows.push(window.clone());
            lanes.spawn(lane::run(LaneParts {
                lane,
                replica,
                keeper: keeper.clone(),
                client: client.clone(),
                window,
                max_age: config.max_age,
                ending: ended.clone(),
            }));
        }
        let ticks = tokio::spawn({
            let keeper = keeper.clone();
            async move {
                let mut tick = tokio::time::interval(TICK);
                loop {
                    tick.tick().await;
                    keeper.tick();
                }
            }
        });
        let door = Door::new(keeper.clone());
        let insight = Insight { config: config.into(), door, keeper, windows: windows.into() };
        Ok(Self { insight, thread, lanes, ticks, ending, recovery })
    }

    /// What was found in the folder.
    #[must_use]
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The door, and what is told: `/v1/status`, `/metrics` with those of the entrance, `/livez`, `/readyz`.
    pub fn routes(&self, entrance: EntranceMetrics) -> Router {
        let told = Router::new()
            .route("/v1/status", get(async |State(insight): State<Insight>| Json(insight.status())))
            .route("/livez", get(live))
            .route("/readyz", get(ready))
            .with_state(self.insight.clone());
        self.insight.door.routes().merge(told).merge(metrics::router(self.insight.clone(), entrance))
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> RelayStatus {
        self.insight.status()
    }

    /// Sends, for a bounded time, what replicas that answer still take, and ends. What is left waits in the
    /// queue for the next start; the status says how much that is.
    pub async fn stop(mut self) -> RelayStatus {
        self.ending.send_replace(true);
        let all = async { while self.lanes.join_next().await.is_some() {} };
        // Time is up or the lanes have ended; both end it.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, all).await;
        self.lanes.shutdown().await;
        self.ticks.abort();
        // The ticks hold a handle of the keeper until they have ended.
        let _ = self.ticks.await;
        let Insight { config, door, keeper, windows } = self.insight;
        // The door's routes hold handles as long as a connection lives; the keeper ends without them.
        keeper.end().await;
        self.thread.ended().await;
        Insight { config, door, keeper, windows }.status()
    }
}

fn open(config: &RelayConfig) -> Result<(Queue<FileDisk>, Recovery), RelayError> {
    let disk = FileDisk::open(&config.folder).map_err(|error| match error {
        FileDiskError::InUse { path } => RelayError::InUse { folder: path },
        FileDiskError::Io { path, action, error } => RelayError::Folder { folder: path, action, error },
    })?;
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(RelayError::Random)?;
    let queue_config = QueueConfig {
        replicas: config.replicas.iter().map(|replica| replica.name.clone()).collect(),
        bytes: config.queue_bytes,
        max_age: config.max_age,
        salt: Salt::new(salt),
    };
    Queue::open(disk, queue_config)
        .map_err(|error| RelayError::Queue { folder: config.folder.clone(), error })
}

/// What can be known of a running relay.
#[derive(Clone, Debug)]
pub(super) struct Insight {
    config: std::sync::Arc<RelayConfig>,
    door: Door,
    keeper: Keeper,
    windows: std::sync::Arc<[LaneWindow]>,
}

impl Insight {
    pub(super) fn status(&self) -> RelayStatus {
        let (now, queue) = (wall_clock(), self.keeper.status());
        let lanes = self.config.replicas.iter().zip(&*self.windows).zip(&queue.lanes);
        let replica = |((replica, window), lane): ((&Replica, &LaneWindow), &LaneStatus)| {
            let LaneStatus { lag, sent, refused, dropped } = *lane;
            let view = window.view();
            ReplicaStatus {
                name: replica.name.clone(),
                address: replica.address.clone(),
                reach: view.reach,
                trouble: view.trouble,
                lag,
                lag_ms: lag.oldest_at.map_or(0, |at| now.since(at).as_millis()),
                sent,
                refused,
                retries: view.retries,
                dropped,
            }
        };
        let trouble = if let Some(error) = &queue.broken {
            Some(error.to_string())
        } else if self.keeper.is_stalled() {
            Some("the disk does not answer".to_owned())
        } else {
            None
        };
        RelayStatus {
            door: self.door.status(),
            replicas: lanes.map(replica).collect(),
            queue: QueueHealth {
                writable: trouble.is_none(),
                trouble,
                bytes: queue.bytes,
                most_bytes: self.config.queue_bytes,
                segments: queue.segments,
                max_age_ms: self.config.max_age.as_millis(),
                failures: queue.failures,
                read_failures: queue.read_failures,
                unreadable: queue.unreadable.as_ref().map(ToString::to_string),
            },
        }
    }
}

#[derive(Serialize)]
struct Live {
    live: bool,
}

async fn live(State(insight): State<Insight>) -> (StatusCode, Json<Live>) {
    let live = insight.keeper.is_live();
    (code(live), Json(Live { live }))
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<String>,
}

/// Ready means that the door takes bodies; a replica that is away is the queue's business.
async fn ready(State(insight): State<Insight>) -> (StatusCode, Json<Ready>) {
    let trouble = insight.status().queue.trouble;
    let reasons: Vec<String> =
        trouble.map(|trouble| format!("the queue cannot be written: {trouble}")).into_iter().collect();
    let ready = reasons.is_empty() && insight.keeper.is_live();
    (code(ready), Json(Ready { ready, reasons }))
}

const fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
