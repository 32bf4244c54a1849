//! The telemetry door: OTLP, Prometheus remote write and plain samples over HTTP, each at its path.
//!
//! A body is read on its connection's task, decoded apart (`door/decoding.rs`), and queued for the task that owns
//! the monitor. An answer waits for none of them longer than [`ANSWER_PATIENCE`]: an engine's short-lived
//! processes hold their slots until they are answered. The answers (`door/answer.rs`) follow what clients do with
//! them; traces and logs are taken and dropped, because engines send them to the same base address. All forms share
//! the bounds, the queue and the counters.
//! Invariant: memory is bounded before and after decompression, whatever a client sends.

pub mod answer;
pub(crate) mod decoding;
pub(crate) mod reading;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

use self::{
    answer::{OVERLOADED, Told, overloaded, refusal, status_of, success},
    decoding::{Decoding, Encoded, NotDecoded},
    reading::Unread,
};
use super::{
    Ingested,
    body::{DecodeError, MAX_BODY_BYTES},
    form::{Form, Protocol},
    otlp::DROPPED_PATHS,
    task::MonitorHandle,
};
use crate::types::{Millis, UnixMillis};

pub use self::{decoding::QUICK_BYTES, reading::BODY_TIMEOUT};

/// The most bytes of bodies that are in memory before they are decoded: sixteen of the largest.
pub const MAX_BODIES_BYTES: usize = 16 * MAX_BODY_BYTES;

/// How long an answer waits to be told which points the monitor refuses. Past it the request is answered as
/// taken, which it is; what does not count then stands only in the metrics and the log.
pub const ANSWER_PATIENCE: Duration = Duration::from_millis(5);

/// Requests that are refused or turned away are told of in the log, and then not again for so long.
const TELL_AGAIN: Millis = Millis::from_secs(60);

/// How far back the samples of a request lie that is turned away unread: one export interval of a fast engine.
const TURNED_AWAY_SPAN: Millis = Millis::from_secs(10);

/// How many requests the door answered, by what it said.
#[derive(Debug, Default)]
pub struct DoorCounters {
    taken: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    overloaded: AtomicU64,
}

impl DoorCounters {
    /// Requests whose points were counted, wholly or in part.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Traces and logs, which are not looked at.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Requests that are not what their path takes, or too large.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Requests that were answered with 503.
    #[must_use]
    pub fn overloaded(&self) -> u64 {
        self.overloaded.load(Relaxed)
    }
}

#[derive(Clone)]
struct Door {
    monitor: MonitorHandle,
    patience: Duration,
    room: Arc<Semaphore>,
    decoding: Decoding,
    counters: Arc<DoorCounters>,
    told_refused: Arc<LastTold>,
    told_overloaded: Arc<LastTold>,
}

/// When something was last told of in the log.
#[derive(Debug, Default)]
struct LastTold(AtomicU64);

impl LastTold {
    /// Whether it is time to tell again; whoever is told so does it.
    fn is_due(&self, now: UnixMillis) -> bool {
        let last = self.0.load(Relaxed);
        now.since(UnixMillis::new(last)) >= TELL_AGAIN
            && self.0.compare_exchange(last, now.as_millis(), Relaxed, Relaxed).is_ok()
    }
}

/// The door's routes in front of a monitor, and its counters.
pub fn routes(monitor: MonitorHandle) -> (Router, Arc<DoorCounters>) {
    patient_routes(monitor, ANSWER_PATIENCE)
}

/// The same with another patience than [`ANSWER_PATIENCE`].
pub fn patient_routes(monitor: MonitorHandle, patience: Duration) -> (Router, Arc<DoorCounters>) {
    let door = Door::new(monitor, patience);
    let counters = Arc::clone(&door.counters);
    (routes_of(door), counters)
}

fn routes_of(door: Door) -> Router {
    let mut routes = Router::new();
    for protocol in Protocol::ALL {
        let take = async move |State(door): State<Door>, headers: HeaderMap, body: Body| {
            let answer = door.take(protocol, &headers, body).await;
            door.note(&answer);
            answer.into_response()
        };
        routes = protocol.paths().iter().fold(routes, |all, path| all.route(path, post(take)));
    }
    let all = DROPPED_PATHS.iter().fold(routes, |all, path| all.route(path, post(drop_signal)));
    all.with_state(door)
}

async fn drop_signal(State(door): State<Door>, headers: HeaderMap, body: Body) -> Response {
    door.counters.dropped.fetch_add(1, Relaxed);
    answer_dropped(&headers, body).await
}

/// Reads traces or logs to their end and answers. Whether they can be read makes no difference: they are dropped.
pub(crate) async fn answer_dropped(headers: &HeaderMap, body: Body) -> Response {
    reading::skip(body).await;
    match Protocol::Otlp.form(content_type(headers)) {
        Ok(form) => success(form, &Told::Queued(Ingested::default())),
        Err(error) => refusal(None, status_of(&error), &error.to_string()),
    }
}

/// Reads a body within the bounds of size and time; else the status and the text to answer with.
///
/// # Errors
/// The status and a text for the client.
pub async fn read_body(body: Body) -> Result<Bytes, (StatusCode, String)> {
    let read = reading::read(body, None).await;
    read.map(|(body, _)| body).map_err(|unread| answer_to(&unread))
}

/// What to answer when there is no body.
pub(crate) fn answer_to(unread: &Unread) -> (StatusCode, String) {
    match unread {
        Unread::TooLarge => {
            let error = DecodeError::TooLarge { most: MAX_BODY_BYTES, decompressed: false };
            (StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
        }
        Unread::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, OVERLOADED.to_owned()),
        Unread::Broken(why) => (StatusCode::BAD_REQUEST, format!("the body cannot be read: {why}")),
        Unread::TooSlow => {
            let seconds = BODY_TIMEOUT.as_secs();
            (StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {seconds} s"))
        }
    }
}

enum Answer {
    Taken(Form, Told),
    Refused { form: Option<Form>, status: StatusCode, why: String },
    Overloaded(Form),
}

impl Door {
    fn new(monitor: MonitorHandle, patience: Duration) -> Self {
        Self {
            monitor,
            patience,
            room: reading::room(MAX_BODIES_BYTES),
            decoding: Decoding::new(),
            counters: Arc::default(),
            told_refused: Arc::default(),
            told_overloaded: Arc::default(),
        }
    }

    async fn take(&self, protocol: Protocol, headers: &HeaderMap, body: Body) -> Answer {
        let encoding = content_encoding(headers);
        let form = protocol.form(content_type(headers));
        let refused = |status, why| Answer::Refused { form: form.clone().ok(), status, why };
        let read = reading::read(body, Some(&self.room)).await;
        let form = match &form {
            Ok(form) => *form,
            Err(error) => return refused(status_of(error), error.to_string()),
        };
        let (body, room) = match read {
            Ok(read) => read,
            Err(Unread::NoRoom) => return self.turn_away(form),
            Err(unread @ (Unread::TooLarge | Unread::Broken(_) | Unread::TooSlow)) => {
                let (status, why) = answer_to(&unread);
                return refused(status, why);
            }
        };
        let content_encoding = encoding.map(str::to_owned);
        let encoded = Encoded { body, form, content_encoding, room: room.map(Arc::new) };
        let batch = match self.decoding.decode(encoded).await {
            Ok(batch) => batch,
            Err(NotDecoded::Overloaded) => return self.turn_away(form),
            Err(NotDecoded::Refused(error)) => return refused(status_of(&error), error.to_string()),
        };
        let as_decoded = Ingested { accepted: batch.len() as u64, rejected: batch.refused().clone() };
        let Ok(counted) = self.monitor.queue(batch) else {
            return Answer::Overloaded(form);
        };
        match tokio::time::timeout(self.patience, counted).await {
            Ok(Ok(ingested)) => Answer::Taken(form, Told::Counted(ingested)),
            // The monitor ended with the queue.
            Ok(Err(_)) => Answer::Overloaded(form),
            Err(_) => Answer::Taken(form, Told::Queued(as_decoded)),
        }
    }

    /// What is in a body that nobody decodes is not known; other replicas may have it.
    fn turn_away(&self, form: Form) -> Answer {
        let now = self.monitor.now();
        self.monitor.note_missed(now.minus(TURNED_AWAY_SPAN), now);
        Answer::Overloaded(form)
    }

    fn note(&self, answer: &Answer) {
        let counter = match answer {
            Answer::Taken(..) => &self.counters.taken,
            Answer::Refused { status, why, .. } => {
                if self.told_refused.is_due(self.monitor.now()) {
                    tracing::warn!(status = status.as_u16(), why, "a telemetry request is refused");
                }
                &self.counters.refused
            }
            Answer::Overloaded(_) => {
                if self.told_overloaded.is_due(self.monitor.now()) {
                    tracing::warn!("more telemetry comes than can be taken; requests are turned away");
                }
                &self.counters.overloaded
            }
        };
        counter.fetch_add(1, Relaxed);
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Taken(form, told) => success(form, &told),
            Self::Refused { form, status, why } => refusal(form, status, &why),
            Self::Overloaded(form) => overloaded(form),
        }
    }
}

/// What `Content-Type` names; one that is no text is none.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

/// The encodings named; one that is no text is passed on as unknown.
pub(crate) fn content_encoding(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests;
