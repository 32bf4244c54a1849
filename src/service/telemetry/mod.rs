//! Telemetry of our own process: logs on standard error and traces of control cycles over OTLP/HTTP.
//!
//! Metrics are not here: `/metrics` serves them from [`super::metrics`]. Nothing that the control loop
//! decides depends on telemetry: a full queue or a collector that is down costs spans, never progress.
//! Invariant: every exported span's parent is exported by the same process.

mod cycle_trace;
mod export;
mod logs;
mod setup;
mod work_spans;

pub use cycle_trace::{CycleTracer, Stage, system_time, trace_id};
pub use export::TracesError;
pub use logs::{LogFormat, LogsError};
pub use setup::{Telemetry, TelemetryConfig, TelemetryError, init};
