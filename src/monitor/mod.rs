//! Monitor: samples become series, windows and signed reports.
//!
//! The way of the data: a body is decoded by its `form` (`otlp`, `remote_write`, `plain_json`; what they share is in
//! `body`) into a [`Batch`] of points; [`Monitor::ingest`] sorts them into series and windows; [`Monitor::close`]
//! sums a window up, and [`Closed::report`] signs it. That much is pure: the same samples in any order and batching
//! give byte-identical summaries. The `door` is what the network sees, `task` owns the monitor behind it;
//! `recording` reads what a door once received.
//!
//! The counting rule is in `streams`, what is no part of a series' identity in `series`, and both in words
//! in `docs/telemetry.md`. Nothing here decides anything about what it sees.

mod intake;
mod point;
mod reason;
mod samples;
mod series;
mod streams;
mod tally;
mod windows;

#[cfg(feature = "service")]
pub mod body;
#[cfg(feature = "service")]
pub mod door;
#[cfg(feature = "service")]
pub mod form;
#[cfg(feature = "service")]
pub mod otlp;
#[cfg(feature = "service")]
mod plain_json;
#[cfg(feature = "service")]
pub mod recording;
#[cfg(feature = "service")]
mod remote_write;
#[cfg(feature = "service")]
pub mod task;
#[cfg(feature = "service")]
pub mod totals;

#[cfg(all(test, feature = "service"))]
mod tests;

pub use intake::{
    AlreadyClosed, Closed, Ingested, MAX_SUMMARY_BYTES, Monitor, MonitorParameters, SAMPLES_PER_STREAM,
};
pub use point::{
    Amount, Batch, Kind, MAX_BATCH_BYTES, MAX_POINTS, Measure, Point, Refused, RefusedBySource, Sample,
    Temporality, UnixNanos,
};
pub use reason::Reason;
pub use series::{MAX_SERIES_PER_SOURCE, MAX_SOURCES, PROCESS_ATTRIBUTES, SERIES_IDLE, names_a_process};
pub use streams::MAX_STREAMS;
pub use tally::{SourceCounts, Tally};
pub use windows::{MAX_DELTAS_PER_SERIES, MAX_HELD_SAMPLES, MAX_OPEN_WINDOWS};
