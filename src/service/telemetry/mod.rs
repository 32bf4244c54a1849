//! Telemetry of our own process: logs on standard error and traces of control cycles over OTLP/HTTP.
//!
//! Metrics are not here: `/metrics` serves them from [`super::metrics`]. Nothing that the control loop
//! decides depends on telemetry: a full queue or a collector that is down costs spans, never progress.
//! Invariant: every exported span belongs to a control cycle and has its parent in the same export.

mod cycle_trace;
mod export;
mod logs;
mod setup;

pub use cycle_trace::{CycleTracer, Stage, system_time, trace_id};
pub use export::TracesError;
pub use logs::{LogFormat, LogsError};
pub use setup::{Telemetry, TelemetryConfig, TelemetryError, init};
