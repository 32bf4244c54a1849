//! The relay's door: OTLP over HTTP, answered once the body is durable in the queue.
//!
//! The answers follow what exporters do with them: a 503 comes at once and names a `Retry-After` longer than
//! their patience, so that they drop the data instead of holding an engine's slot. Invariant: an answer of 200
//! to metrics means that the body is durable; the memory of all requests together is bounded.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::post,
};
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    keeper::{KeepError, Keeper},
    queue::{Kept, MAX_HEADER_BYTES},
    status::DoorStatus,
};
use crate::monitor::{
    Ingested,
    door::{BODY_TIMEOUT, RETRY_AFTER_SECONDS, overloaded, read_body, refusal, status_of, success},
    otlp::{Format, MAX_BODY_BYTES, decode},
};

/// How many bytes of bodies are read, decoded or waited for at once: sixty bodies of the largest size, which is
/// also what a body of unknown length counts as until it is read.
const MAX_BYTES_AT_ONCE: usize = 60 * MAX_BODY_BYTES;

#[derive(Debug, Default)]
struct Counters {
    taken: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    overloaded: AtomicU64,
    unwritable: AtomicU64,
}

/// The door in front of a keeper. Clones share their counters.
#[derive(Clone, Debug)]
pub(super) struct Door {
    keeper: Keeper,
    bytes: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl Door {
    pub(super) fn new(keeper: Keeper) -> Self {
        let bytes = Arc::new(Semaphore::new(MAX_BYTES_AT_ONCE));
        Self { keeper, bytes, counters: Arc::default() }
    }

    /// The paths of a replica's own door.
    pub(super) fn routes(&self) -> Router {
        Router::new()
            .route("/v1/metrics", post(take_metrics))
            .route("/", post(take_metrics))
            .route("/v1/traces", post(drop_signal))
            .route("/v1/logs", post(drop_signal))
            .with_state(self.clone())
    }

    pub(super) fn status(&self) -> DoorStatus {
        DoorStatus {
            taken: self.counters.taken.load(Relaxed),
            dropped: self.counters.dropped.load(Relaxed),
            refused: self.counters.refused.load(Relaxed),
            overloaded: self.counters.overloaded.load(Relaxed),
            unwritable: self.counters.unwritable.load(Relaxed),
        }
    }

    async fn take(&self, headers: &HeaderMap, body: Body) -> Answer {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let (content_type, encoding) = (text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
        let format = match Format::of_content_type(content_type) {
            Ok(format) => format,
            Err(error) => return Answer::Refused(None, status_of(&error), error.to_string()),
        };
        let refused = |status, why| Answer::Refused(Some(format), status, why);
        let Some(mut reserved) = self.reserve(headers) else {
            skip(body).await;
            return Answer::Overloaded(format);
        };
        let body = match read_body(body).await {
            Ok(body) => body,
            Err((status, why)) => return refused(status, why),
        };
        let spare = reserved.num_permits().saturating_sub(body.len().max(1));
        drop(reserved.split(spare));
        let batch = match decode(&body, content_type, encoding) {
            Ok(batch) => batch,
            Err(error) => return refused(status_of(&error), error.to_string()),
        };
        if encoding.is_some_and(|encoding| encoding.len() > MAX_HEADER_BYTES) {
            return refused(StatusCode::BAD_REQUEST, "the content encoding is too long".to_owned());
        }
        let kept = Kept {
            content_type: format.content_type().to_owned(),
            content_encoding: encoding.map(str::to_owned),
            body: body.into(),
        };
        let ingested = Ingested { accepted: batch.len() as u64, rejected: batch.refused().clone() };
        drop(batch);
        match self.keeper.commit(kept).await {
            Ok(()) => Answer::Taken(format, ingested),
            Err(KeepError::Overloaded) => Answer::Overloaded(format),
            Err(error @ (KeepError::Disk(_) | KeepError::Stalled | KeepError::Ended)) => {
                Answer::Unwritable(format, error.to_string())
            }
        }
    }

    /// Room for a body; `None` when all of it is in use.
    fn reserve(&self, headers: &HeaderMap) -> Option<OwnedSemaphorePermit> {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = length.unwrap_or(MAX_BODY_BYTES).clamp(1, MAX_BODY_BYTES);
        Arc::clone(&self.bytes).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }
}

enum Answer {
    Taken(Format, Ingested),
    Refused(Option<Format>, StatusCode, String),
    Overloaded(Format),
    Unwritable(Format, String),
}

async fn take_metrics(State(door): State<Door>, headers: HeaderMap, body: Body) -> Response {
    let answer = door.take(&headers, body).await;
    let counters = &door.counters;
    let (counter, response) = match answer {
        Answer::Taken(format, ingested) => (&counters.taken, success(format, &ingested)),
        Answer::Refused(format, status, why) => (&counters.refused, refusal(format, status, &why)),
        Answer::Overloaded(format) => (&counters.overloaded, overloaded(format)),
        Answer::Unwritable(format, why) => (&counters.unwritable, unwritable(format, &why)),
    };
    counter.fetch_add(1, Relaxed);
    response
}

async fn drop_signal(State(door): State<Door>, headers: HeaderMap, body: Body) -> Response {
    door.counters.dropped.fetch_add(1, Relaxed);
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    skip(body).await;
    match Format::of_content_type(content_type) {
        Ok(format) => success(format, &Ingested::default()),
        Err(error) => refusal(None, status_of(&error), &error.to_string()),
    }
}

/// Reads a body and forgets it, within the bounds of any body: a client that is still writing when it is
/// answered takes the answer for a lost connection, and sends everything again.
async fn skip(body: Body) {
    let mut body = Limited::new(body, MAX_BODY_BYTES);
    let read = async { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} };
    // However it ends, there is nothing to answer for.
    let _ = tokio::time::timeout(BODY_TIMEOUT, read).await;
}

fn unwritable(format: Format, why: &str) -> Response {
    let mut response = refusal(Some(format), StatusCode::SERVICE_UNAVAILABLE, why);
    let retry_after = header::HeaderValue::from_static(RETRY_AFTER_SECONDS);
    response.headers_mut().insert(header::RETRY_AFTER, retry_after);
    response
}
