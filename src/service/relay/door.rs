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
use tokio::sync::Semaphore;

use super::{
    keeper::{KeepError, Keeper},
    queue::{Kept, MAX_HEADER_BYTES},
    status::DoorStatus,
};
use crate::monitor::{
    Ingested,
    door::{
        RETRY_AFTER_SECONDS, answer_to,
        decoding::{Decoding, Encoded, NotDecoded},
        overloaded,
        reading::{self, Unread},
        refusal, status_of, success,
    },
    otlp::{DROPPED_PATHS, Format, MAX_BODY_BYTES, METRICS_PATHS},
};

/// How many bytes of bodies are read, decoded or wait for the disk at once: sixteen of the largest.
const MAX_BODIES_BYTES: usize = 16 * MAX_BODY_BYTES;

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
    room: Arc<Semaphore>,
    decoding: Decoding,
    counters: Arc<Counters>,
}

impl Door {
    pub(super) fn new(keeper: Keeper) -> Self {
        Self::with_room(keeper, MAX_BODIES_BYTES)
    }

    /// One with room for so many bytes of bodies.
    pub(super) fn with_room(keeper: Keeper, bytes: usize) -> Self {
        let room = reading::room(bytes);
        Self { keeper, room, decoding: Decoding::new(), counters: Arc::default() }
    }

    /// The paths of a replica's own door.
    pub(super) fn routes(&self) -> Router {
        let metrics =
            METRICS_PATHS.iter().fold(Router::new(), |all, path| all.route(path, post(take_metrics)));
        let all = DROPPED_PATHS.iter().fold(metrics, |all, path| all.route(path, post(drop_signal)));
        all.with_state(self.clone())
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
        let format = Format::of_content_type(content_type);
        let read = reading::read(body, Some(&self.room)).await;
        let format = match format {
            Ok(format) => format,
            Err(error) => return Answer::Refused(None, status_of(&error), error.to_string()),
        };
        let refused = |status, why| Answer::Refused(Some(format), status, why);
        // The room is held for as long as the body is in memory, also after its client was given up.
        let (body, room) = match read {
            Ok((body, room)) => (body, room.map(Arc::new)),
            Err(Unread::NoRoom) => return Answer::Overloaded(format),
            Err(unread @ (Unread::TooLarge | Unread::Broken(_) | Unread::TooSlow)) => {
                let (status, why) = answer_to(&unread);
                return refused(status, why);
            }
        };
        let (content_type, content_encoding) = (content_type.map(str::to_owned), encoding.map(str::to_owned));
        let encoded = Encoded { body: body.clone(), content_type, content_encoding, room: room.clone() };
        let batch = match self.decoding.decode(encoded).await {
            Ok(batch) => batch,
            Err(NotDecoded::Overloaded) => return Answer::Overloaded(format),
            Err(NotDecoded::Refused(error)) => return refused(status_of(&error), error.to_string()),
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
        match self.keeper.commit(kept, room).await {
            Ok(()) => Answer::Taken(format, ingested),
            Err(KeepError::Overloaded) => Answer::Overloaded(format),
            Err(error @ (KeepError::Disk(_) | KeepError::Stalled | KeepError::Ended)) => {
                Answer::Unwritable(format, error.to_string())
            }
        }
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
    reading::skip(body).await;
    match Format::of_content_type(content_type) {
        Ok(format) => success(format, &Ingested::default()),
        Err(error) => refusal(None, status_of(&error), &error.to_string()),
    }
}

fn unwritable(format: Format, why: &str) -> Response {
    let mut response = refusal(Some(format), StatusCode::SERVICE_UNAVAILABLE, why);
    let retry_after = header::HeaderValue::from_static(RETRY_AFTER_SECONDS);
    response.headers_mut().insert(header::RETRY_AFTER, retry_after);
    response
}
