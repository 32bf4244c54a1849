//! The task that owns the [`Monitor`], and the handle that others hold of it.
//!
//! Batches and closings go through one bounded queue, in order, so that a window closes only after the
//! batches that were queued before. The task decides nothing about what it counts, and says once a minute for
//! each source what of it does not count. Invariant: what is queued is counted before any later closing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use super::{AlreadyClosed, Batch, Closed, Ingested, Monitor, Reason, SourceCounts, Tally};
use crate::types::{Millis, SourceId, UnixMillis, WindowIndex};

/// The most batches that wait for the monitor: at some hundred microseconds each, a tenth of a second.
pub const MAX_QUEUED_BATCHES: usize = 1_024;

/// The most memory that waiting batches take together.
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// A source whose points do not count is told of in the log, and then not again for so long.
const TELL_AGAIN: Millis = Millis::from_secs(60);

/// Queued memory is counted in units of so many bytes.
const MEMORY_UNIT: usize = 1_024;

#[derive(Debug)]
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
    sources: Mutex<Tally>,
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

    /// What each source sent, as of the newest closed window.
    #[must_use]
    pub fn sources(&self) -> Tally {
        // A tally is replaced whole, so it is whole also after a panic.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    messages: mpsc::Sender<Message>,
    memory: Arc<Semaphore>,
    counters: Arc<MonitorCounters>,
    missed: Arc<Missed>,
    clock: fn() -> UnixMillis,
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

    fn add(&self, from: UnixMillis, to: UnixMillis) {
        self.to.fetch_max(to.as_millis(), Relaxed);
        self.from.fetch_min(from.as_millis(), Relaxed);
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
    let (handle, owner) = prepare(monitor, clock);
    (handle, tokio::spawn(owner.run()))
}

/// The task that [`spawn`] starts, before it runs, and a handle to it.
pub(super) fn prepare(monitor: Monitor, clock: fn() -> UnixMillis) -> (MonitorHandle, Owner) {
    let (sender, messages) = mpsc::channel(MAX_QUEUED_BATCHES);
    let handle = MonitorHandle {
        messages: sender,
        memory: Arc::new(Semaphore::new(MAX_QUEUED_BYTES / MEMORY_UNIT)),
        counters: Arc::default(),
        missed: Arc::new(Missed::new()),
        clock,
    };
    let (counters, missed) = (Arc::clone(&handle.counters), Arc::clone(&handle.missed));
    (handle, Owner { monitor, clock, messages, counters, missed, told: BTreeMap::new() })
}

/// The monitor and what feeds it.
#[derive(Debug)]
pub(super) struct Owner {
    monitor: Monitor,
    clock: fn() -> UnixMillis,
    messages: mpsc::Receiver<Message>,
    counters: Arc<MonitorCounters>,
    missed: Arc<Missed>,
    /// When each source's refused points were last told of, and how many they were. One without a name stands
    /// for all that have no series.
    told: BTreeMap<Option<SourceId>, (UnixMillis, u64)>,
}

impl Owner {
    /// Counts and closes until all handles are gone.
    pub(super) async fn run(mut self) {
        while let Some(message) = self.messages.recv().await {
            if let Some((from, to)) = self.missed.take() {
                // Nobody checked these times: one of a broken clock must not spoil every window to come.
                let newest = self.monitor.newest_taken((self.clock)());
                if from <= newest {
                    self.monitor.note_gap(from, to.min(newest));
                }
            }
            // A requester that went away does not need its reply.
            match message {
                Message::Ingest { batch, memory, reply } => {
                    let ingested = self.monitor.ingest(&batch, (self.clock)());
                    drop((batch, memory));
                    self.counters.note(&ingested);
                    let _ = reply.send(ingested);
                }
                Message::Close { window, reply } => {
                    let closed = self.monitor.close(window);
                    self.publish();
                    let _ = reply.send(closed);
                }
                Message::Gap { from, to } => self.monitor.note_gap(from, to),
            }
        }
    }

    fn publish(&mut self) {
        self.counters.series.store(self.monitor.series_count() as u64, Relaxed);
        self.counters.streams.store(self.monitor.stream_count() as u64, Relaxed);
        let tally = self.monitor.sources().clone();
        let now = (self.clock)();
        self.told
            .retain(|source, _| source.as_ref().is_none_or(|source| tally.by_source.contains_key(source)));
        for (source, counts) in &tally.by_source {
            tell(&mut self.told, Some(source), counts, now);
        }
        tell(&mut self.told, None, &tally.others, now);
        *self.counters.sources.lock().unwrap_or_else(PoisonError::into_inner) = tally;
    }
}

/// Says in the log that points of a source do not count, unless that was said lately.
fn tell(
    told: &mut BTreeMap<Option<SourceId>, (UnixMillis, u64)>,
    source: Option<&SourceId>,
    counts: &SourceCounts,
    now: UnixMillis,
) {
    let refused = counts.refused_points();
    let (last, before) = told.get(&source.cloned()).copied().unwrap_or_default();
    if refused > before && (before == 0 || now.since(last) >= TELL_AGAIN) {
        told.insert(source.cloned(), (now, refused));
        let reasons: Vec<String> =
            counts.refused.iter().map(|(reason, points)| format!("{points} {reason}")).collect();
        let source = source.map_or("sources without series", SourceId::as_str);
        tracing::warn!(source, reasons = reasons.join(", "), "telemetry does not count; since the start");
    }
}

impl MonitorHandle {
    /// Hands a batch to the monitor and waits until it is counted.
    ///
    /// # Errors
    /// [`IngestError`] when it cannot be queued; it is not counted then.
    pub async fn ingest(&self, batch: Batch) -> Result<Ingested, IngestError> {
        self.queue(batch)?.await.map_err(|_| IngestError::Ended)
    }

    /// Hands a batch to the monitor, which says later what became of it. It will be counted whether anybody
    /// waits for that or not.
    ///
    /// # Errors
    /// [`IngestError`] when it cannot be queued; it is not counted then.
    pub fn queue(&self, batch: Batch) -> Result<oneshot::Receiver<Ingested>, IngestError> {
        let units = u32::try_from(batch.memory_bytes().div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.memory).try_acquire_many_owned(units);
        let (memory, place) = match (permit, self.messages.try_reserve()) {
            (Ok(memory), Ok(place)) => (memory, place),
            (_, Err(mpsc::error::TrySendError::Closed(()))) => return Err(IngestError::Ended),
            (Err(_), _) | (_, Err(mpsc::error::TrySendError::Full(()))) => {
                self.counters.overloaded.fetch_add(1, Relaxed);
                let times = || batch.points().map(|point| point.sample.time.to_millis());
                if let (Some(first), Some(last)) = (times().min(), times().max()) {
                    self.missed.add(first, last);
                }
                return Err(IngestError::Overloaded);
            }
        };
        let (reply, answer) = oneshot::channel();
        place.send(Message::Ingest { batch, memory, reply });
        Ok(answer)
    }

    /// Closes a window after everything that was queued before.
    ///
    /// # Errors
    /// [`CloseError`] when it was closed before, or the monitor has ended.
    pub async fn close(&self, window: WindowIndex) -> Result<Closed, CloseError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Close { window, reply };
        self.messages.send(message).await.map_err(|_| CloseError::Ended)?;
        Ok(answer.await.map_err(|_| CloseError::Ended)??)
    }

    /// Tells the monitor that samples with times from `from` to `to` may have been missed.
    ///
    /// # Errors
    /// [`CloseError::Ended`] when the monitor has ended.
    pub async fn note_gap(&self, from: UnixMillis, to: UnixMillis) -> Result<(), CloseError> {
        self.messages.send(Message::Gap { from, to }).await.map_err(|_| CloseError::Ended)
    }

    /// The same without waiting, for when the queue may be full.
    pub fn note_missed(&self, from: UnixMillis, to: UnixMillis) {
        self.missed.add(from, to);
    }

    /// What time it is, by the clock that the monitor goes by.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    /// How many batches wait for the monitor, and how much memory they take, in bytes.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        let memory = MAX_QUEUED_BYTES / MEMORY_UNIT - self.memory.available_permits();
        (self.messages.max_capacity() - self.messages.capacity(), memory * MEMORY_UNIT)
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Arc<MonitorCounters> {
        &self.counters
    }
}
