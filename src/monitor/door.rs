//! The telemetry door: OTLP over HTTP, answered in the form of the request.
//!
//! A body is read on its connection's task, decoded apart (`door/decoding.rs`), and queued for the task that owns
//! the monitor. An answer waits for none of them longer than [`ANSWER_PATIENCE`]: an engine's short-lived
//! processes hold their slots until they are answered. The answers follow what clients do with them: a 503 names
//! a `Retry-After` longer than any client's patience, so that they drop the data at once; traces and logs are
//! taken and dropped, because engines send them to the same base address.
//! Invariant: memory is bounded before and after decompression, whatever a client sends.

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
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use prost::Message as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

use self::{
    decoding::{Decoding, Encoded, NotDecoded},
    reading::Unread,
};
use super::{
    Ingested,
    otlp::{DROPPED_PATHS, DecodeError, Format, MAX_BODY_BYTES, METRICS_PATHS},
    task::MonitorHandle,
};
use crate::types::{Millis, UnixMillis};

pub use self::{decoding::QUICK_BYTES, reading::BODY_TIMEOUT};

/// The most bytes of bodies that are in memory before they are decoded: sixteen of the largest.
pub const MAX_BODIES_BYTES: usize = 16 * MAX_BODY_BYTES;

/// How long an answer waits to be told which points the monitor refuses. Past it the request is answered as
/// taken, which it is; what does not count then stands only in the metrics and the log.
pub const ANSWER_PATIENCE: Duration = Duration::from_millis(5);

/// Seconds after which an overloaded door may be asked again; above every client's own timeout, so that
/// none waits for it.
pub const RETRY_AFTER_SECONDS: &str = "30";

/// Requests that are refused or turned away are told of in the log, and then not again for so long.
const TELL_AGAIN: Millis = Millis::from_secs(60);

/// How far back the samples of a request lie that is turned away unread: one export interval of a fast engine.
const TURNED_AWAY_SPAN: Millis = Millis::from_secs(10);

const OVERLOADED: &str = "too much telemetry is waiting already";

/// How many requests the door answered, by what it said.
#[derive(Debug, Default)]
pub struct DoorCounters {
    taken: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    overloaded: AtomicU64,
}

impl DoorCounters {
    /// Metrics requests that were counted, wholly or in part.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Traces and logs, which are not looked at.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Requests that are no OTLP metrics, or too large.
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
    let metrics = METRICS_PATHS.iter().fold(Router::new(), |all, path| all.route(path, post(take_metrics)));
    let all = DROPPED_PATHS.iter().fold(metrics, |all, path| all.route(path, post(drop_signal)));
    all.with_state(door)
}

async fn take_metrics(State(door): State<Door>, headers: HeaderMap, body: Body) -> Response {
    let answer = door.take(&headers, body).await;
    door.note(&answer);
    answer.into_response()
}

async fn drop_signal(State(door): State<Door>, headers: HeaderMap, body: Body) -> Response {
    door.counters.dropped.fetch_add(1, Relaxed);
    // Whether it can be read makes no difference: it is dropped.
    reading::skip(body).await;
    match Format::of_content_type(content_type(&headers)) {
        Ok(format) => success(format, &Ingested::default()),
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
    Taken(Format, Ingested),
    Refused { format: Option<Format>, status: StatusCode, why: String },
    Overloaded(Format),
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

    async fn take(&self, headers: &HeaderMap, body: Body) -> Answer {
        let (content_type, encoding) = (content_type(headers), content_encoding(headers));
        let format = Format::of_content_type(content_type);
        let refused = |status, why| Answer::Refused { format: format.clone().ok(), status, why };
        let read = reading::read(body, Some(&self.room)).await;
        let format = match &format {
            Ok(format) => *format,
            Err(error) => return refused(status_of(error), error.to_string()),
        };
        let (body, room) = match read {
            Ok(read) => read,
            Err(Unread::NoRoom) => return self.turn_away(format),
            Err(unread @ (Unread::TooLarge | Unread::Broken(_) | Unread::TooSlow)) => {
                let (status, why) = answer_to(&unread);
                return refused(status, why);
            }
        };
        let (content_type, content_encoding) = (content_type.map(str::to_owned), encoding.map(str::to_owned));
        let encoded = Encoded { body, content_type, content_encoding, room: room.map(Arc::new) };
        let batch = match self.decoding.decode(encoded).await {
            Ok(batch) => batch,
            Err(NotDecoded::Overloaded) => return self.turn_away(format),
            Err(NotDecoded::Refused(error)) => return refused(status_of(&error), error.to_string()),
        };
        let as_decoded = Ingested { accepted: batch.len() as u64, rejected: batch.refused().clone() };
        let Ok(counted) = self.monitor.queue(batch) else {
            return Answer::Overloaded(format);
        };
        match tokio::time::timeout(self.patience, counted).await {
            Ok(Ok(ingested)) => Answer::Taken(format, ingested),
            // The monitor ended with the queue.
            Ok(Err(_)) => Answer::Overloaded(format),
            Err(_) => Answer::Taken(format, as_decoded),
        }
    }

    /// What is in a body that nobody decodes is not known; other replicas may have it.
    fn turn_away(&self, format: Format) -> Answer {
        let now = self.monitor.now();
        self.monitor.note_missed(now.minus(TURNED_AWAY_SPAN), now);
        Answer::Overloaded(format)
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
            Self::Taken(format, ingested) => success(format, &ingested),
            Self::Refused { format, status, why } => refusal(format, status, &why),
            Self::Overloaded(format) => overloaded(format),
        }
    }
}

/// The answer when nothing more can be taken: the client should drop the data at once.
pub fn overloaded(format: Format) -> Response {
    let mut response = refusal(Some(format), StatusCode::SERVICE_UNAVAILABLE, OVERLOADED);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER_SECONDS));
    response
}

/// The answer to a request that was taken: empty, or how many of its points do not count and why.
#[must_use]
pub fn success(format: Format, ingested: &Ingested) -> Response {
    let rejected: u64 = ingested.rejected.values().sum();
    let reasons: Vec<String> =
        ingested.rejected.iter().map(|(reason, points)| format!("{points} {reason}")).collect();
    let partial_success = (rejected > 0).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: i64::try_from(rejected).unwrap_or(i64::MAX),
        error_message: format!("not counted: {}", reasons.join(", ")),
    });
    let body = match format {
        Format::Protobuf => ExportMetricsServiceResponse { partial_success }.encode_to_vec(),
        Format::Json => match partial_success {
            None => b"{}".to_vec(),
            Some(partial) => serde_json::json!({"partialSuccess": {
                "rejectedDataPoints": partial.rejected_data_points.to_string(),
                "errorMessage": partial.error_message,
            }})
            .to_string()
            .into_bytes(),
        },
    };
    answer(StatusCode::OK, format.content_type(), body)
}

/// `google.rpc.Status`, which OTLP wants as the body of errors.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// The answer to a request that is not taken, with a text; plain when the form is not known.
#[must_use]
pub fn refusal(format: Option<Format>, status: StatusCode, why: &str) -> Response {
    /// `google.rpc.Code`.
    const INVALID_ARGUMENT: i32 = 3;
    const PERMISSION_DENIED: i32 = 7;
    const UNAVAILABLE: i32 = 14;
    const UNAUTHENTICATED: i32 = 16;
    let code = match status {
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        StatusCode::FORBIDDEN => PERMISSION_DENIED,
        status if status.is_server_error() => UNAVAILABLE,
        _ => INVALID_ARGUMENT,
    };
    match format {
        Some(Format::Protobuf) => {
            let body = RpcStatus { code, message: why.to_owned() }.encode_to_vec();
            answer(status, Format::Protobuf.content_type(), body)
        }
        Some(Format::Json) => {
            let body = serde_json::json!({"code": code, "message": why}).to_string();
            answer(status, Format::Json.content_type(), body.into_bytes())
        }
        None => answer(status, "text/plain; charset=utf-8", format!("{why}\n").into_bytes()),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// The status to answer with when a body is refused whole.
#[must_use]
pub const fn status_of(error: &DecodeError) -> StatusCode {
    match error {
        DecodeError::UnsupportedType(_) | DecodeError::UnsupportedEncoding(_) => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        DecodeError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        DecodeError::Compression { .. } | DecodeError::Malformed { .. } => StatusCode::BAD_REQUEST,
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

/// The encodings named; one that is no text is passed on as unknown.
fn content_encoding(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests;
