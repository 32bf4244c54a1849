//! Where bodies are decoded: apart from the tasks that serve connections, few at once, behind bounded queues.
//!
//! There are two lanes. The quick one takes what is small, also after decompression; what turns out to be large
//! goes over to the other, where one body at a time is decoded. Nothing here knows HTTP or counts a point.
//! Invariant: a body that takes long never stands before one that does not.

use axum::body::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::monitor::{
    Batch,
    body::{DecodeError, MAX_DECOMPRESSED_BYTES},
    form::Form,
};

/// What counts as small, before and after decompression: fifty exports of a busy engine. It decodes in a
/// millisecond.
pub const QUICK_BYTES: usize = 256 * 1024;

/// How many small bodies are decoded at once.
const QUICK_WORKERS: usize = 2;

/// The most small bodies that wait or are decoded: some ten milliseconds' worth of an engine's exports.
const QUICK_PLACES: usize = 512;

/// And the most bytes of them, as they arrived.
const QUICK_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// How many large bodies are decoded at once. Each takes up to 16 MiB, and several times that while it is read.
const LARGE_WORKERS: usize = 1;

/// The most large bodies that wait or are decoded; each takes up to a fifth of a second.
pub(crate) const LARGE_PLACES: usize = 8;

/// Why a body is not decoded.
#[derive(Debug)]
pub(crate) enum NotDecoded {
    /// Too many wait already.
    Overloaded,
    /// It is refused whole.
    Refused(DecodeError),
}

impl From<TryAcquireError> for NotDecoded {
    fn from(_: TryAcquireError) -> Self {
        Self::Overloaded
    }
}

/// A body with its form and its encoding, and its share of the memory for bodies, which it gives back when it is decoded and nobody
/// else holds it.
pub(crate) struct Encoded {
    pub(crate) body: Bytes,
    pub(crate) form: Form,
    pub(crate) content_encoding: Option<String>,
    #[expect(dead_code, reason = "it is given back when the body is dropped")]
    pub(crate) room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Encoded {
    fn decode(&self, most: usize) -> Result<Batch, DecodeError> {
        self.form.decode(&self.body, self.content_encoding.as_deref(), most)
    }
}

/// Both lanes; copies share them.
#[derive(Clone, Debug)]
pub(crate) struct Decoding {
    quick: Lane,
    quick_bytes: Arc<Semaphore>,
    large: Lane,
}

#[derive(Clone, Debug)]
struct Lane {
    places: Arc<Semaphore>,
    workers: Arc<Semaphore>,
}

impl Lane {
    fn new(places: usize, workers: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), workers: Arc::new(Semaphore::new(workers)) }
    }

    /// A place, if there is one, and then a worker.
    async fn enter(&self) -> Result<[OwnedSemaphorePermit; 2], NotDecoded> {
        let place = Arc::clone(&self.places).try_acquire_owned()?;
        let worker = Arc::clone(&self.workers).acquire_owned().await;
        Ok([place, worker.map_err(|_| NotDecoded::Overloaded)?])
    }
}

impl Decoding {
    pub(crate) fn new() -> Self {
        Self {
            quick: Lane::new(QUICK_PLACES, QUICK_WORKERS),
            quick_bytes: Arc::new(Semaphore::new(QUICK_WAITING_BYTES)),
            large: Lane::new(LARGE_PLACES, LARGE_WORKERS),
        }
    }

    /// The points of a body, or why there are none. What is refused for want of a place is refused at once.
    pub(crate) async fn decode(&self, encoded: Encoded) -> Result<Batch, NotDecoded> {
        let encoded = if encoded.body.len() <= QUICK_BYTES {
            let bytes = u32::try_from(encoded.body.len()).map_err(|_| NotDecoded::Overloaded)?;
            let bytes = Arc::clone(&self.quick_bytes).try_acquire_many_owned(bytes)?;
            let held = (self.quick.enter().await?, bytes);
            match apart(encoded, QUICK_BYTES, held).await? {
                (encoded, Err(DecodeError::TooLarge { decompressed: true, .. })) => encoded,
                (_, decoded) => return decoded.map_err(NotDecoded::Refused),
            }
        } else {
            encoded
        };
        let held = self.large.enter().await?;
        let (_, decoded) = apart(encoded, MAX_DECOMPRESSED_BYTES, held).await?;
        decoded.map_err(NotDecoded::Refused)
    }

    /// Takes all workers for large bodies, as if such bodies were being decoded.
    #[cfg(test)]
    pub(crate) async fn occupy_large(&self) -> OwnedSemaphorePermit {
        let workers = u32::try_from(LARGE_WORKERS).expect("there are few");
        Arc::clone(&self.large.workers).acquire_many_owned(workers).await.expect("lanes are never closed")
    }
}

/// Decodes on a thread that may be busy for a while. What is held is given back when it is done, also when the
/// client has gone.
async fn apart<H: Send + 'static>(
    encoded: Encoded,
    most: usize,
    held: H,
) -> Result<(Encoded, Result<Batch, DecodeError>), NotDecoded> {
    let decode = move || {
        let decoded = encoded.decode(most);
        drop(held);
        (encoded, decoded)
    };
    tokio::task::spawn_blocking(decode).await.map_err(|_| NotDecoded::Overloaded)
}
