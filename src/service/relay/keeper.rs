//! The keeper: the one thread that owns the queue. Everything that waits is done in one turn: bodies are given
//! out and settled, then all bodies that came are made durable with one sync, then they are acknowledged.
//!
//! It sends nothing anywhere. Invariant: an acknowledgement is sent only after the commit that covers it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::queue::{Kept, Outcome, Queue, QueueStatus, Taken};
use crate::{
    consensus::journal::{Disk, DiskError},
    service::clock::wall_clock,
};

/// How many requests wait for the keeper: those of all lanes, and bodies within the door's own bound.
const MAX_WAITING: usize = 4_096;

/// How many requests are done in one turn, so that nobody's answer waits for an endless one.
const MAX_TURN: usize = 1_024;

/// How many bytes of bodies one commit takes: it is held in memory twice while it is written.
const MAX_COMMIT_BYTES: usize = 8 * 1024 * 1024;

/// How long a client waits for the disk. A commit takes milliseconds; a disk that hangs would hold an engine's
/// slots for as long as its exporters' patience of ten seconds lasts.
const COMMIT_PATIENCE: Duration = Duration::from_secs(2);

/// A body's share of the memory for bodies: given back when the body is out of memory, however long that takes and
/// whether or not anybody still waits.
pub(super) type Room = Option<Arc<OwnedSemaphorePermit>>;

#[derive(Debug)]
enum Request {
    Commit {
        body: Kept,
        /// Its share of the memory for bodies.
        room: Room,
        committed: oneshot::Sender<Result<(), DiskError>>,
    },
    Take {
        lane: usize,
        most: usize,
        most_bytes: u64,
        taken: oneshot::Sender<Result<Vec<Taken>, DiskError>>,
    },
    Settle {
        lane: usize,
        sequence: u64,
        outcome: Outcome,
    },
    Tick,
    /// Takes no more requests; those that wait are still done.
    End,
}

/// Why a body was not made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeepError {
    /// The disk refuses.
    #[error("the relay cannot write to its queue: {0}")]
    Disk(#[from] DiskError),
    /// The disk has not answered for longer than anybody should wait. What was asked may become durable yet.
    #[error("the relay's disk does not answer")]
    Stalled,
    /// Too much waits for the disk already.
    #[error("too much telemetry is waiting already")]
    Overloaded,
    /// The relay is ending.
    #[error("the relay is ending")]
    Ended,
}

/// A handle to the keeper.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<QueueStatus>,
    durable: watch::Receiver<u64>,
    /// Set by a waiter who lost patience, cleared by the keeper after each turn.
    stalled: Arc<AtomicBool>,
}

/// The keeper's thread; it ends when it is asked to, or when all handles are gone.
#[derive(Debug)]
pub(super) struct KeeperThread(std::thread::JoinHandle<()>);

impl KeeperThread {
    /// Waits until the queue is closed, its cursors durable.
    pub(super) async fn ended(self) {
        // A panic there has been told on standard error, and there is nothing left to end.
        let _ = tokio::task::spawn_blocking(|| self.0.join()).await;
    }
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start<D: Disk + Send + 'static>(queue: Queue<D>) -> std::io::Result<(Self, KeeperThread)> {
        let (requests, inbox) = mpsc::channel(MAX_WAITING);
        let (status_sender, status) = watch::channel(queue.status());
        let (durable_sender, durable) = watch::channel(queue.durable());
        let stalled = Arc::new(AtomicBool::new(false));
        let mut turns = Turns {
            queue,
            inbox,
            status: status_sender,
            durable: durable_sender,
            stalled: Arc::clone(&stalled),
        };
        let thread = std::thread::Builder::new().name("relay-queue".to_owned()).spawn(move || turns.run())?;
        Ok((Self { requests, status, durable, stalled }, KeeperThread(thread)))
    }

    /// Makes a body durable. It waits for the disk no longer than [`COMMIT_PATIENCE`], and not at all when
    /// somebody has just waited so long in vain.
    ///
    /// # Errors
    /// [`KeepError`]: there is no acknowledgement.
    pub(super) async fn commit(&self, body: Kept, room: Room) -> Result<(), KeepError> {
        if self.is_stalled() {
            return Err(KeepError::Stalled);
        }
        let committed = tokio::time::timeout(COMMIT_PATIENCE, self.ask_to_commit(body, room)).await;
        committed.unwrap_or_else(|_| {
            self.stalled.store(true, Relaxed);
            Err(KeepError::Stalled)
        })
    }

    /// As [`Self::commit`], and waits for as long as it takes.
    pub(super) async fn ask_to_commit(&self, body: Kept, room: Room) -> Result<(), KeepError> {
        let (committed, answer) = oneshot::channel();
        self.requests.try_send(Request::Commit { body, room, committed }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => KeepError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => KeepError::Ended,
        })?;
        Ok(answer.await.map_err(|_| KeepError::Ended)??)
    }

    /// The next bodies for a lane.
    ///
    /// # Errors
    /// [`KeepError`].
    pub(super) async fn take(
        &self,
        lane: usize,
        most: usize,
        most_bytes: u64,
    ) -> Result<Vec<Taken>, KeepError> {
        let (taken, answer) = oneshot::channel();
        let request = Request::Take { lane, most, most_bytes, taken };
        self.requests.send(request).await.map_err(|_| KeepError::Ended)?;
        Ok(answer.await.map_err(|_| KeepError::Ended)??)
    }

    /// Says what became of a body.
    pub(super) async fn settle(&self, lane: usize, sequence: u64, outcome: Outcome) {
        // Without a keeper the body is given out again at the next start.
        let _ = self.requests.send(Request::Settle { lane, sequence, outcome }).await;
    }

    /// Says that time has passed. A keeper that is busy does not need to be told twice.
    pub(super) fn tick(&self) {
        let _ = self.requests.try_send(Request::Tick);
    }

    /// Asks it to end; what was asked before is still done.
    pub(super) async fn end(&self) {
        // One that has ended needs no asking.
        let _ = self.requests.send(Request::End).await;
    }

    /// The newest durable body, as it grows.
    pub(super) fn durable(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    pub(super) fn status(&self) -> QueueStatus {
        self.status.borrow().clone()
    }

    /// Whether the thread runs.
    pub(super) fn is_live(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Whether somebody waited in vain and no turn has ended since: the disk hangs.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }
}

type Acknowledgement = oneshot::Sender<Result<(), DiskError>>;

struct Turns<D> {
    queue: Queue<D>,
    inbox: mpsc::Receiver<Request>,
    status: watch::Sender<QueueStatus>,
    durable: watch::Sender<u64>,
    stalled: Arc<AtomicBool>,
}

impl<D: Disk> Turns<D> {
    fn run(&mut self) {
        while let Some(first) = self.inbox.blocking_recv() {
            let (committed, waiting) = self.turn(first);
            // Whoever hears of a commit finds it in the status.
            self.publish();
            for waiting in waiting {
                // A client that has left does not hear it; its body is in the queue all the same.
                let _ = waiting.send(committed.clone());
            }
        }
        self.queue.tick(wall_clock());
        self.publish();
    }

    /// Does what waits; what became of the bodies, and who is to be told.
    fn turn(&mut self, first: Request) -> (Result<(), DiskError>, Vec<Acknowledgement>) {
        let now = wall_clock();
        let (mut bodies, mut rooms) = (Vec::new(), Vec::new());
        let mut waiting = Vec::new();
        let (mut bytes, mut next, mut done) = (0, Some(first), 0);
        while let Some(request) = next {
            match request {
                Request::Commit { body, room, committed } => {
                    bytes += body.body.len();
                    bodies.push(body);
                    rooms.push(room);
                    waiting.push(committed);
                }
                Request::Take { lane, most, most_bytes, taken } => {
                    // A lane that has ended does not settle what it never saw: it is given out again.
                    let _ = taken.send(self.queue.take(lane, most, most_bytes, now));
                }
                Request::Settle { lane, sequence, outcome } => self.queue.settle(lane, sequence, outcome),
                Request::Tick => self.queue.tick(now),
                Request::End => self.inbox.close(),
            }
            done += 1;
            let has_room = done < MAX_TURN && bytes < MAX_COMMIT_BYTES;
            next = if has_room { self.inbox.try_recv().ok() } else { None };
        }
        let committed = if bodies.is_empty() { Ok(()) } else { self.queue.commit(&bodies, now) };
        drop(bodies);
        drop(rooms);
        (committed, waiting)
    }

    fn publish(&self) {
        self.stalled.store(false, Relaxed);
        let before = self.status.send_replace(self.queue.status());
        match (&before.broken, &self.status.borrow().broken) {
            (None, Some(error)) => tracing::warn!(%error, "the queue cannot be written; the door refuses"),
            (Some(_), None) => tracing::info!("the queue is written again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let damage = self.status.borrow().unreadable.clone();
        if let Some(damage) = damage.filter(|damage| before.unreadable.as_ref() != Some(damage)) {
            tracing::warn!(%damage, "a part of the queue is given up; what was in it is lost, and counted as damage");
        }
        let durable = self.queue.durable();
        self.durable.send_if_modified(|known| std::mem::replace(known, durable) != durable);
    }
}
