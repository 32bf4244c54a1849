//! The relay's door: the forms and paths of a replica's, answered once the body is durable in the queue.
//!
//! The answers are those of a replica's door; what a replica's monitor will refuse is not known here. Invariant: an
//! answer of success to telemetry that is not dropped means that the body is durable; the memory of all requests
//! together is bounded.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
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
    body::MAX_BODY_BYTES,
    door::{
        answer::{Told, overloaded, refusal, status_of, success, unavailable},
        answer_dropped, answer_to, content_encoding, content_type,
        decoding::{Decoding, Encoded, NotDecoded},
        reading::{self, Unread},
    },
    form::{Form, Protocol},
    otlp::DROPPED_PATHS,
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
        let mut routes = Router::new();
        for protocol in Protocol::ALL {
            let take = async move |State(door): State<Self>, headers: HeaderMap, body: Body| {
                let answer = door.take(protocol, &headers, body).await;
                door.counted(answer)
            };
            routes = protocol.paths().iter().fold(routes, |all, path| all.route(path, post(take)));
        }
        let all = DROPPED_PATHS.iter().fold(routes, |all, path| all.route(path, post(drop_signal)));
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

    async fn take(&self, protocol: Protocol, headers: &HeaderMap, body: Body) -> Answer {
        let encoding = content_encoding(headers);
        let form = protocol.form(content_type(headers));
        let read = reading::read(body, Some(&self.room)).await;
        let form = match form {
            Ok(form) => form,
            Err(error) => return Answer::Refused(None, status_of(&error), error.to_string()),
        };
        let refused = |status, why| Answer::Refused(Some(form), status, why);
        // The room is held for as long as the body is in memory, also after its client was given up.
        let (body, room) = match read {
            Ok((body, room)) => (body, room.map(Arc::new)),
            Err(Unread::NoRoom) => return Answer::Overloaded(form),
            Err(unread @ (Unread::TooLarge | Unread::Broken(_) | Unread::TooSlow)) => {
                let (status, why) = answer_to(&unread);
                return refused(status, why);
            }
        };
        let content_encoding = encoding.map(str::to_owned);
        let encoded = Encoded { body: body.clone(), form, content_encoding, room: room.clone() };
        let batch = match self.decoding.decode(encoded).await {
            Ok(batch) => batch,
            Err(NotDecoded::Overloaded) => return Answer::Overloaded(form),
            Err(NotDecoded::Refused(error)) => return refused(status_of(&error), error.to_string()),
        };
        if encoding.is_some_and(|encoding| encoding.len() > MAX_HEADER_BYTES) {
            return refused(StatusCode::BAD_REQUEST, "the content encoding is too long".to_owned());
        }
        let kept = Kept {
            protocol,
            content_type: form.content_type().to_owned(),
            content_encoding: encoding.map(str::to_owned),
            body: body.into(),
        };
        let ingested = Ingested { accepted: batch.len() as u64, rejected: batch.refused().clone() };
        drop(batch);
        match self.keeper.commit(kept, room).await {
            Ok(()) => Answer::Taken(form, ingested),
            Err(KeepError::Overloaded) => Answer::Overloaded(form),
            Err(error @ (KeepError::Disk(_) | KeepError::Stalled | KeepError::Ended)) => {
                Answer::Unwritable(form, error.to_string())
            }
        }
    }

    fn counted(&self, answer: Answer) -> Response {
        let counters = &self.counters;
        let (counter, response) = match answer {
            Answer::Taken(form, ingested) => (&counters.taken, success(form, &Told::Queued(ingested))),
            Answer::Refused(form, status, why) => (&counters.refused, refusal(form, status, &why)),
            Answer::Overloaded(form) => (&counters.overloaded, overloaded(form)),
            Answer::Unwritable(form, why) => (&counters.unwritable, unavailable(form, &why)),
        };
        counter.fetch_add(1, Relaxed);
        response
    }
}

enum Answer {
    Taken(Form, Ingested),
    Refused(Option<Form>, StatusCode, String),
    Overloaded(Form),
    Unwritable(Form, String),
}

async fn drop_signal(State(door): State<Door>, headers: HeaderMap, body: Body) -> Response {
    door.counters.dropped.fetch_add(1, Relaxed);
    answer_dropped(&headers, body).await
}
