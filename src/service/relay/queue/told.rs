//! What the queue is told of bodies, and what it tells of itself.
//!
//! Nothing is counted here. Invariant: all counts are since the queue was opened; what waits is of the moment.

use serde::Serialize;

use super::recovery::Damage;
use crate::{consensus::journal::DiskError, types::UnixMillis};

/// Bodies that a replica never got, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// They had become too old.
    pub age: u64,
    /// The queue was full.
    pub bytes: u64,
    /// Their bytes on the disk cannot be read any more.
    pub damage: u64,
}

impl Dropped {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.age + self.bytes + self.damage
    }
}

/// What became of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The replica took it.
    Sent,
    /// The replica said that it never will.
    Refused,
    /// It became too old before the replica answered.
    TooOld,
}

/// What waits for a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// Bodies.
    pub bodies: u64,
    /// Their bytes in the queue.
    pub bytes: u64,
    /// When the oldest of them came; `None` when nothing waits.
    #[serde(skip)]
    pub oldest_at: Option<UnixMillis>,
}

/// One replica's part of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// What waits for it.
    pub lag: Lag,
    /// Bodies that it took since the start.
    pub sent: u64,
    /// Bodies that it refused since the start.
    pub refused: u64,
    /// Bodies that it never got, since the start.
    pub dropped: Dropped,
}

/// The queue at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// In the order of the configuration.
    pub lanes: Vec<LaneStatus>,
    /// How long the files are together.
    pub bytes: u64,
    /// How many files there are.
    pub segments: u64,
    /// Why nothing can be written, if so.
    pub broken: Option<DiskError>,
    /// Bodies made durable since the start.
    pub committed: u64,
    /// Writes that failed since the start.
    pub failures: u64,
    /// Reads that failed since the start.
    pub read_failures: u64,
    /// The newest place that was given up because it cannot be read.
    pub unreadable: Option<Damage>,
}
