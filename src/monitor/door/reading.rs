//! Reading a body: counted while it arrives, within bounds of size, time and memory.
//!
//! A body that is not kept is read to its end all the same, as far as that is bounded: a client that is still
//! writing when the connection closes takes the answer for a lost connection, and sends everything again.
//! Invariant: the bodies in memory take no more than the room that they share, and nothing waits for room.

use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::monitor::body::MAX_BODY_BYTES;

/// How long a body may take to arrive; exporters give up after ten seconds.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a body that is not kept is read.
const MOST_SKIPPED_BYTES: usize = 64 * 1024 * 1024;

/// The room that bodies share is given out in units of so many bytes.
const UNIT: usize = 1_024;

/// Room for so many bytes of bodies.
pub(crate) fn room(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes / UNIT))
}

/// Why a body is not there.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It is larger than a body may be.
    TooLarge,
    /// There is no room for it.
    NoRoom,
    /// It ends before its end, or breaks the protocol.
    Broken(String),
    /// It took too long.
    TooSlow,
}

/// Reads a body. Without room that it has to fit in, only its own size is bounded.
pub(crate) async fn read(
    body: Body,
    room: Option<&Arc<Semaphore>>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Unread> {
    let read = tokio::time::timeout(BODY_TIMEOUT, read_to_end(body, room));
    read.await.unwrap_or(Err(Unread::TooSlow))
}

/// Reads a body and forgets it.
pub(crate) async fn skip(body: Body) {
    // However it ends, there is nothing to answer for.
    let _ = read(body, Some(&Arc::new(Semaphore::new(0)))).await;
}

async fn read_to_end(
    mut body: Body,
    room: Option<&Arc<Semaphore>>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Unread> {
    let mut kept = Kept { bytes: Vec::new(), held: None, room };
    let (mut read, mut refused) = (0_usize, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Unread::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        read = read.saturating_add(data.len());
        if refused.is_none() {
            refused = kept.add(&data).err();
        }
        if refused.is_some() {
            kept = Kept { bytes: Vec::new(), held: None, room };
            if read > MOST_SKIPPED_BYTES {
                break;
            }
        }
    }
    match refused {
        Some(unread) => Err(unread),
        None => Ok((kept.bytes.into(), kept.held)),
    }
}

struct Kept<'a> {
    bytes: Vec<u8>,
    held: Option<OwnedSemaphorePermit>,
    room: Option<&'a Arc<Semaphore>>,
}

impl Kept<'_> {
    fn add(&mut self, data: &[u8]) -> Result<(), Unread> {
        let size = self.bytes.len() + data.len();
        if size > MAX_BODY_BYTES {
            return Err(Unread::TooLarge);
        }
        if let Some(room) = self.room {
            let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more =
                u32::try_from(size.div_ceil(UNIT).saturating_sub(held)).map_err(|_| Unread::TooLarge)?;
            let more = Arc::clone(room).try_acquire_many_owned(more).map_err(|_| Unread::NoRoom)?;
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}
