//! The telemetry door: OTLP over HTTP, answered in the form of the request.
//!
//! A body is read and decoded on its connection's task and then counted by the one task that owns the
//! monitor. The answers follow what clients do with them: a 503 names a `Retry-After` longer than any
//! client's patience, so that an engine's short-lived processes drop the data at once instead of holding
//! their slots; traces and logs are taken and dropped, because engines send them to the same base address.
//! Invariant: memory is bounded before and after decompression, whatever a client sends.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
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

use super::{
    Ingested,
    otlp::{self, DecodeError, Format, MAX_BODY_BYTES},
    task::{IngestError, MonitorHandle},
};

/// How long a body may take to arrive; exporters give up after ten seconds.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bodies are read and decoded at once: each may take 20 MB.
pub const MAX_DECODING: usize = 32;

/// Seconds after which an overloaded door may be asked again; above every client's own timeout, so that
/// none waits for it.
pub const RETRY_AFTER_SECONDS: &str = "30";

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
    decoding: Arc<Semaphore>,
    counters: Arc<DoorCounters>,
}

/// The door's routes in front of a monitor, and its counters.
pub fn routes(monitor: MonitorHandle) -> (Router, Arc<DoorCounters>) {
    let counters = Arc::new(DoorCounters::default());
    let decoding = Arc::new(Semaphore::new(MAX_DECODING));
    let door = Door { monitor, decoding, counters: Arc::clone(&counters) };
    let router = Router::new()
        .route("/v1/metrics", post(take_metrics))
        // Clients use a per-signal address as it is, so a base address arrives here.
        .route("/", post(take_metrics))
        .route("/v1/traces", post(drop_signal))
        .route("/v1/logs", post(drop_signal))
        .with_state(door);
    (router, counters)
}

async fn take_metrics(State(door): State<Door>, headers: HeaderMap, body: Body) -> Response {
    let answer = door.take(&headers, body).await;
    let counter = match &answer {
        Answer::Taken(..) => &door.counters.taken,
        Answer::Refused { .. } => &door.counters.refused,
        Answer::Overloaded(_) => &door.counters.overloaded,
    };
    counter.fetch_add(1, Relaxed);
    answer.into_response()
}

async fn drop_signal(State(door): State<Door>, headers: HeaderMap, body: Body) -> Response {
    door.counters.dropped.fetch_add(1, Relaxed);
    // The body is read to its end, or a client that is still writing takes the answer for a failure. Whether
    // it can be read makes no difference: it is dropped.
    let _ = read_body(body).await;
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
    let read = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let error = DecodeError::TooLarge { most: MAX_BODY_BYTES, decompressed: false };
            Err((StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))
        }
        Ok(Err(error)) => Err((StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"))),
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            Err((StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {seconds} s")))
        }
    }
}

enum Answer {
    Taken(Format, Ingested),
    Refused { format: Option<Format>, status: StatusCode, why: String },
    Overloaded(Format),
}

impl Door {
    async fn take(&self, headers: &HeaderMap, body: Body) -> Answer {
        let (content_type, encoding) = (content_type(headers), content_encoding(headers));
        let format = Format::of_content_type(content_type);
        let refused = |status, why| Answer::Refused { format: format.clone().ok(), status, why };
        let format = match &format {
            Ok(format) => *format,
            Err(error) => return refused(status_of(error), error.to_string()),
        };
        let batch = {
            let Ok(_permit) = self.decoding.acquire().await else {
                return Answer::Overloaded(format);
            };
            let body = match read_body(body).await {
                Ok(body) => body,
                Err((status, why)) => return refused(status, why),
            };
            match otlp::decode(&body, content_type, encoding) {
                Ok(batch) => batch,
                Err(error) => return refused(status_of(&error), error.to_string()),
            }
        };
        match self.monitor.ingest(batch).await {
            Ok(ingested) => Answer::Taken(format, ingested),
            Err(IngestError::Overloaded | IngestError::Ended) => Answer::Overloaded(format),
        }
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
    let why = "too much telemetry is waiting already";
    let mut response = refusal(Some(format), StatusCode::SERVICE_UNAVAILABLE, why);
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
