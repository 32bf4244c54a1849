//! The relay: one telemetry door for an engine, whose bodies go to every replica.
//!
//! It decodes a body only to refuse what no replica would take; what it forwards are the client's own bytes
//! and headers. It waits for no replica: an answer says that the body is queued for all. Each replica has a
//! queue of its own, bounded in number and bytes, so that one that is down costs the others nothing; when it
//! is full the oldest body goes, because its windows close first. Invariant: every body is, for each replica,
//! sent, refused, dropped, or still queued.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet};

use super::{
    clock::Stopwatch,
    http_client::{Bounds, HttpClient},
};
use crate::{
    monitor::{
        Ingested,
        door::{read_body, refusal, status_of, success},
        otlp::{Format, decode},
    },
    types::Millis,
};

/// The most bodies that wait for one replica: a minute of a busy engine.
pub const MAX_QUEUED_BODIES: usize = 4_096;

/// The most bytes that wait for one replica.
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// A body that waited so long is dropped: the windows of its samples are past their deadline.
pub const MAX_AGE: Millis = Millis::from_secs(60);

/// How many bodies are on their way to one replica at once; their order makes no difference to it.
const SENDERS: usize = 4;

const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(10), body_bytes: 64 * 1024 };

/// The pauses between attempts begin and end here.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a shutdown waits for queued bodies.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// What became of the bodies for one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaCounts {
    /// Where it is.
    pub address: String,
    /// Bodies that wait or are on their way.
    pub queued: u64,
    /// Bodies that it took.
    pub sent: u64,
    /// Bodies that it answered with an error that another attempt would not change.
    pub refused: u64,
    /// Bodies that it never got: the queue was full, or they had become too old.
    pub dropped: u64,
}

#[derive(Clone, Debug)]
struct Forwarded {
    headers: HeaderMap,
    body: Bytes,
    waited: Stopwatch,
}

#[derive(Debug, Default)]
struct Waiting {
    bodies: VecDeque<Forwarded>,
    bytes: usize,
}

#[derive(Debug)]
struct Lane {
    address: String,
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// Taken from the queue, and not settled.
    under_way: AtomicU64,
    sent: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
}

impl Lane {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock, and a queue is whole after any step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, forwarded: Forwarded) {
        let mut waiting = self.waiting();
        waiting.bytes += forwarded.body.len();
        waiting.bodies.push_back(forwarded);
        while waiting.bodies.len() > MAX_QUEUED_BODIES || waiting.bytes > MAX_QUEUED_BYTES {
            let Some(oldest) = waiting.bodies.pop_front() else { break };
            waiting.bytes -= oldest.body.len();
            self.dropped.fetch_add(1, Relaxed);
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    async fn pop(&self) -> Forwarded {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut waiting = self.waiting();
                if let Some(forwarded) = waiting.bodies.pop_front() {
                    waiting.bytes -= forwarded.body.len();
                    self.under_way.fetch_add(1, Relaxed);
                    if !waiting.bodies.is_empty() {
                        self.arrived.notify_one();
                    }
                    return forwarded;
                }
            }
            arrived.await;
        }
    }

    fn counts(&self) -> ReplicaCounts {
        ReplicaCounts {
            address: self.address.clone(),
            queued: self.waiting().bodies.len() as u64 + self.under_way.load(Relaxed),
            sent: self.sent.load(Relaxed),
            refused: self.refused.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
        }
    }

    async fn forward_all(self: Arc<Self>, client: HttpClient) {
        loop {
            let forwarded = self.pop().await;
            let settled = self.forward(&client, &forwarded).await;
            settled.fetch_add(1, Relaxed);
            self.under_way.fetch_sub(1, Relaxed);
        }
    }

    /// Sends a body until it is settled, and says which counter that is.
    async fn forward(&self, client: &HttpClient, forwarded: &Forwarded) -> &AtomicU64 {
        let mut pause = FIRST_PAUSE;
        while forwarded.waited.elapsed() < MAX_AGE {
            let Forwarded { headers, body, .. } = forwarded.clone();
            let answer = client.forward(&self.address, headers, body, BOUNDS).await;
            match answer.map(|answer| answer.status) {
                Ok(status) if status.is_success() => return &self.sent,
                Ok(StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) | Err(_) => {}
                Ok(status) if status.is_server_error() => {}
                Ok(_) => return &self.refused,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        &self.dropped
    }
}

/// The lanes to the replicas, and the tasks that empty them. They end when it is dropped.
#[derive(Debug)]
pub struct Relay {
    lanes: Arc<[Arc<Lane>]>,
    senders: JoinSet<()>,
}

impl Relay {
    /// Starts to forward to these doors: full addresses, path included.
    #[must_use]
    pub fn start(doors: impl IntoIterator<Item = String>) -> Self {
        let lane = |address| {
            Arc::new(Lane {
                address,
                waiting: Mutex::default(),
                arrived: Notify::new(),
                under_way: AtomicU64::new(0),
                sent: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
            })
        };
        let lanes: Arc<[_]> = doors.into_iter().map(lane).collect();
        let mut senders = JoinSet::new();
        let client = HttpClient::new();
        for lane in lanes.iter().flat_map(|lane| std::iter::repeat_n(lane, SENDERS)) {
            senders.spawn(Arc::clone(lane).forward_all(client.clone()));
        }
        Self { lanes, senders }
    }

    /// The relay's door: the paths of a replica's own, and `GET /v1/status`.
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/v1/metrics", post(take_metrics))
            .route("/", post(take_metrics))
            .route("/v1/traces", post(drop_signal))
            .route("/v1/logs", post(drop_signal))
            .route("/v1/status", get(async |State(lanes): State<Lanes>| Json(counts(&lanes))))
            .with_state(Arc::clone(&self.lanes))
    }

    /// What became of the bodies, for each replica in the order given.
    #[must_use]
    pub fn counts(&self) -> Vec<ReplicaCounts> {
        counts(&self.lanes)
    }

    /// Waits a bounded time for what is queued, and ends. What is left is counted as dropped.
    pub async fn stop(mut self) -> Vec<ReplicaCounts> {
        let drained = async {
            while self.counts().iter().any(|counts| counts.queued > 0) {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        // Time is up or the queues are empty; both end it.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
        self.senders.shutdown().await;
        let mut counts = self.counts();
        for counts in &mut counts {
            counts.dropped += std::mem::take(&mut counts.queued);
        }
        counts
    }
}

type Lanes = Arc<[Arc<Lane>]>;

fn counts(lanes: &Lanes) -> Vec<ReplicaCounts> {
    lanes.iter().map(|lane| lane.counts()).collect()
}

async fn take_metrics(State(lanes): State<Lanes>, headers: HeaderMap, body: Body) -> Response {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let content_type = text(header::CONTENT_TYPE);
    let format = match Format::of_content_type(content_type) {
        Ok(format) => format,
        Err(error) => return refusal(None, status_of(&error), &error.to_string()),
    };
    let body = match read_body(body).await {
        Ok(body) => body,
        Err((status, why)) => return refusal(Some(format), status, &why),
    };
    let batch = match decode(&body, content_type, text(header::CONTENT_ENCODING)) {
        Ok(batch) => batch,
        Err(error) => return refusal(Some(format), status_of(&error), &error.to_string()),
    };
    let kept = [header::CONTENT_TYPE, header::CONTENT_ENCODING];
    let headers: HeaderMap =
        kept.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect();
    for lane in lanes.iter() {
        lane.push(Forwarded { headers: headers.clone(), body: body.clone(), waited: Stopwatch::start() });
    }
    success(format, &Ingested { accepted: batch.len() as u64, rejected: batch.refused().clone() })
}

async fn drop_signal(headers: HeaderMap, body: Body) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // A body that cannot be read is dropped like any other.
    let _ = read_body(body).await;
    match Format::of_content_type(content_type) {
        Ok(format) => success(format, &Ingested::default()),
        Err(error) => refusal(None, status_of(&error), &error.to_string()),
    }
}

#[cfg(test)]
mod tests;
