//! Starting telemetry at the beginning of a process and ending it at its end.

use super::{
    cycle_trace::CycleTracer,
    export::{self, Exporter, TracesError},
    logs::{self, LogFormat, LogsError},
    work_spans,
};

/// What a process tells of itself, and where to.
#[derive(Clone, Debug, Default)]
pub struct TelemetryConfig {
    /// The form of log lines.
    pub log_format: LogFormat,
    /// Which events are logged: a list of `target=level`. Empty means `info`.
    pub log_filter: String,
    /// The collector that takes traces over OTLP/HTTP (`http://host:port`, with `/v1/traces` when no path is
    /// given); none switches traces off.
    pub otlp_traces: Option<String>,
    /// `service.instance.id`: the replica's or the agent's name.
    pub service_instance: String,
}

/// Why telemetry could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The logs.
    #[error(transparent)]
    Logs(#[from] LogsError),
    /// The traces.
    #[error(transparent)]
    Traces(#[from] TracesError),
}

/// A process's telemetry. It is ended by [`Self::shutdown`]; dropped without it, the last second's spans are
/// lost.
#[derive(Debug)]
pub struct Telemetry {
    exporter: Option<Exporter>,
}

/// Starts logs and, where a collector is named, traces. To be called once, inside the tokio runtime.
///
/// # Errors
/// [`TelemetryError`] when the filter or the collector's address is not valid.
pub fn init(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let exporter = match &config.otlp_traces {
        Some(collector) => Some(export::start(collector, &config.service_instance)?),
        None => None,
    };
    logs::start(config.log_format, &config.log_filter, exporter.as_ref().map(work_spans::layer))?;
    Ok(Telemetry { exporter })
}

impl Telemetry {
    /// The handle that records control cycles; it drops them when traces are off.
    #[must_use]
    pub fn tracer(&self) -> CycleTracer {
        CycleTracer::new(self.exporter.clone())
    }

    /// Delivers what is still queued, for a bounded time, and ends.
    pub async fn shutdown(self) {
        if let Some(exporter) = self.exporter {
            exporter.shutdown().await;
        }
    }
}
