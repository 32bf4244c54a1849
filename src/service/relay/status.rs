//! What the relay tells of itself, in JSON at `GET /v1/status` and to the command line.
//!
//! It is read at the moment of the question from where the metrics have it too. Invariant: nothing here holds
//! text from telemetry.

use serde::Serialize;

use super::queue::{Dropped, Lag};

/// Whether a replica answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Nothing was sent to it yet.
    #[default]
    Untried,
    /// It answered the last time.
    Up,
    /// It did not answer the last time, or said that it cannot take anything.
    Away,
}

/// One replica, as the relay sees it. Counts are since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaStatus {
    /// Its name.
    pub name: String,
    /// Where its door is.
    pub address: String,
    /// Whether it answers.
    pub reach: Reach,
    /// What was wrong the last time that something was: why it did not answer, or what it refused with.
    pub trouble: Option<String>,
    /// What waits for it.
    pub lag: Lag,
    /// How long the oldest of it has waited, in milliseconds; 0 when nothing waits.
    pub lag_ms: u64,
    /// Bodies that it took.
    pub sent: u64,
    /// Bodies that it refused for good.
    pub refused: u64,
    /// Attempts that have to be repeated.
    pub retries: u64,
    /// Bodies that it never got.
    pub dropped: Dropped,
}

/// How the queue is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueHealth {
    /// Whether bodies are taken.
    pub writable: bool,
    /// Why not.
    pub trouble: Option<String>,
    /// How long its files are together.
    pub bytes: u64,
    /// How long they may be.
    pub most_bytes: u64,
    /// How many files there are.
    pub segments: u64,
    /// How old a body may become, in milliseconds.
    pub max_age_ms: u64,
    /// Writes that failed.
    pub failures: u64,
    /// Reads that failed.
    pub read_failures: u64,
    /// The newest place of the files that was given up because it cannot be read.
    pub unreadable: Option<String>,
}

/// What the door answered, in requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DoorStatus {
    /// Durable, and answered with 200.
    pub taken: u64,
    /// Traces and logs, answered with 200 and dropped.
    pub dropped: u64,
    /// No OTLP metrics, or too large.
    pub refused: u64,
    /// Answered with 503 because too much waited.
    pub overloaded: u64,
    /// Answered with 503 because the queue cannot be written.
    pub unwritable: u64,
}

/// The relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RelayStatus {
    /// Its door.
    pub door: DoorStatus,
    /// Its queue.
    pub queue: QueueHealth,
    /// Each replica, in the order given.
    pub replicas: Vec<ReplicaStatus>,
}
