//! The task that owns the [`Monitor`], and the handle that others hold of it.
//!
//! Batches and closings go through one bounded queue, in order, so that a window closes only after the
//! batches that were answered before. The task decides nothing about what it counts.
//! Invariant: what is answered as taken is counted before any later closing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use super::{AlreadyClosed, Batch, Closed, Ingested, Monitor, Reason};
use crate::types::{UnixMillis, WindowIndex};

/// The most batches that wait for the monitor: at some hundred microseconds each, a tenth of a second.
pub const MAX_QUEUED_BATCHES: usize = 1_024;

/// The most memory that waiting batches take together.
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// Queued memory is counted in units of so many bytes.
const MEMORY_UNIT: usize = 1_024;

enum Message {
    Ingest { batch: Batch, memory: OwnedSemaphorePermit, reply: oneshot::Sender<Ingested> },
    Close { window: WindowIndex, reply: oneshot::Sender<Result<Closed, AlreadyClosed>> },
    Gap { from: UnixMillis, to: UnixMillis },
}

/// What the monitor counted since it began.
#[derive(Debug, Default)]
pub struct MonitorCounters {
    accepted: AtomicU64,
    rejected: [AtomicU64; Reason::ALL.len()],
    overloaded: AtomicU64,
    series: AtomicU64,
    streams: AtomicU64,
}

impl MonitorCounters {
    /// Points that count, resends among them.
    #[must_use]
    pub fn accepted_points(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Points that do not count, for each reason.
    pub fn rejected_points(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.rejected.iter().map(|points| points.load(Relaxed)))
    }

    /// Batches that found the queue full.
    #[must_use]
    pub fn overloads(&self) -> u64 {
        self.overloaded.load(Relaxed)
    }

    /// Series that are known, as of the newest closed window.
    #[must_use]
    pub fn series(&self) -> u64 {
        self.series.load(Relaxed)
    }

    /// Cumulative streams that are followed, as of the newest closed window.
    #[must_use]
    pub fn streams(&self) -> u64 {
        self.streams.load(Relaxed)
    }

    fn note(&self, ingested: &Ingested) {
        self.accepted.fetch_add(ingested.accepted, Relaxed);
        for (reason, points) in &ingested.rejected {
            self.rejected[*reason as usize].fetch_add(*points, Relaxed);
        }
    }
}

/// Why a batch is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// Too much waits already; the windows of the batch are marked as partial.
    #[error("the monitor is overloaded")]
    Overloaded,
    /// The monitor has ended.
    #[error("the monitor has ended")]
    Ended,
}

/// Why a window is not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// It is closed already.
    #[error(transparent)]
    AlreadyClosed(#[from] AlreadyClosed),
    /// The monitor has ended.
    #[error("the monitor has ended")]
    Ended,
}

/// A handle to the task that owns the monitor. Copies share it; the task ends when all are gone.
#[derive(Clone, Debug)]
pub struct MonitorHandle {
    queue: mpsc::Sender<Message>,
    memory: Arc<Semaphore>,
    counters: Arc<MonitorCounters>,
    missed: Arc<Missed>,
}

/// The span of the samples that found the queue full and that the monitor was not told of yet.
#[derive(Debug)]
struct Missed {
    from: AtomicU64,
    to: AtomicU64,
}

impl Missed {
    const NOTHING: u64 = u64::MAX;

    const fn new() -> Self {
        Self { from: AtomicU64::new(Self::NOTHING), to: AtomicU64::new(0) }
    }

    fn add(&self, batch: &Batch) {
        for point in batch.points() {
            let time = point.sample.time.to_millis().as_millis();
            self.to.fetch_max(time, Relaxed);
            self.from.fetch_min(time, Relaxed);
        }
    }

    fn take(&self) -> Option<(UnixMillis, UnixMillis)> {
        if self.from.load(Relaxed) == Self::NOTHING {
            return None;
        }
        let from = self.from.swap(Self::NOTHING, Relaxed);
        Some((UnixMillis::new(from), UnixMillis::new(self.to.swap(0, Relaxed).max(from))))
    }
}

/// Starts the task that owns a monitor. The clock says how far ahead a sample may lie.
#[must_use]
pub fn spawn(monitor: Monitor, clock: fn() -> UnixMillis) -> (MonitorHandle, JoinHandle<()>) {
    let (queue, messages) = mpsc::channel(MAX_QUEUED_BATCHES);
    let handle = MonitorHandle {
        queue,
        memory: Arc::new(Semaphore::new(MAX_QUEUED_BYTES / MEMORY_UNIT)),
        counters: Arc::default(),
        missed: Arc::new(Missed::new()),
    };
    let (counters, missed) = (Arc::clone(&handle.counters), Arc::clone(&handle.missed));
    (handle, tokio::spawn(own(monitor, clock, messages, counters, missed)))
}

async fn own(
    mut monitor: Monitor,
    clock: fn() -> UnixMillis,
    mut messages: mpsc::Receiver<Message>,
    counters: Arc<MonitorCounters>,
    missed: Arc<Missed>,
) {
    while let Some(message) = messages.recv().await {
        if let Some((from, to)) = missed.take() {
            monitor.note_gap(from, to);
        }
        // A requester that went away does not need its reply.
        match message {
            Message::Ingest { batch, memory, reply } => {
                let ingested = monitor.ingest(&batch, clock());
                drop((batch, memory));
                counters.note(&ingested);
                let _ = reply.send(ingested);
            }
            Message::Close { window, reply } => {
                let closed = monitor.close(window);
                counters.series.store(monitor.series_count() as u64, Relaxed);
                counters.streams.store(monitor.stream_count() as u64, Relaxed);
                let _ = reply.send(closed);
            }
            Message::Gap { from, to } => monitor.note_gap(from, to),
        }
    }
}

impl MonitorHandle {
    /// Hands a batch to the monitor and waits until it is counted.
    ///
    /// # Errors
    /// [`IngestError`] when it cannot be queued; it is not counted then.
    pub async fn ingest(&self, batch: Batch) -> Result<Ingested, IngestError> {
        let units = u32::try_from(batch.memory_bytes().div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.memory).try_acquire_many_owned(units);
        let (memory, place) = match (permit, self.queue.try_reserve()) {
            (Ok(memory), Ok(place)) => (memory, place),
            (_, Err(mpsc::error::TrySendError::Closed(()))) => return Err(IngestError::Ended),
            (Err(_), _) | (_, Err(mpsc::error::TrySendError::Full(()))) => {
                self.counters.overloaded.fetch_add(1, Relaxed);
                self.missed.add(&batch);
                return Err(IngestError::Overloaded);
            }
        };
        let (reply, answer) = oneshot::channel();
        place.send(Message::Ingest { batch, memory, reply });
        answer.await.map_err(|_| IngestError::Ended)
    }

    /// Closes a window after everything that was queued before.
    ///
    /// # Errors
    /// [`CloseError`] when it was closed before, or the monitor has ended.
    pub async fn close(&self, window: WindowIndex) -> Result<Closed, CloseError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Close { window, reply };
        self.queue.send(message).await.map_err(|_| CloseError::Ended)?;
        Ok(answer.await.map_err(|_| CloseError::Ended)??)
    }

    /// Tells the monitor that samples with times from `from` to `to` may have been missed.
    ///
    /// # Errors
    /// [`CloseError::Ended`] when the monitor has ended.
    pub async fn note_gap(&self, from: UnixMillis, to: UnixMillis) -> Result<(), CloseError> {
        self.queue.send(Message::Gap { from, to }).await.map_err(|_| CloseError::Ended)
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Arc<MonitorCounters> {
        &self.counters
    }
}
