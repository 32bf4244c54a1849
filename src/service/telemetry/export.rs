//! Delivery of finished spans to a collector, in batches, over OTLP/HTTP with protobuf.
//!
//! It speaks plain HTTP: a collector beyond the machine is reached through one on it. Invariant: recording a
//! span never waits; when the queue is full it is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::Uri;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    runtime,
    trace::{
        BatchConfigBuilder, SpanData, SpanExporter, SpanProcessor as _,
        span_processor_with_async_runtime::BatchSpanProcessor,
    },
};

/// A cycle has some twenty spans a process: these are a hundred cycles, or a quarter of an hour without a
/// collector.
const MAX_QUEUED_SPANS: usize = 2048;

/// A quarter of the queue, so that a slow collector is met with few large requests.
const MAX_BATCH_SPANS: usize = 512;

/// A cycle shows in the collector about as soon as it is over.
const BATCH_EVERY: Duration = Duration::from_secs(1);

/// Shorter than the processor's own limit, so that a failure is seen here and told.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A process does not outlive its work because a collector is slow.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Why traces could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The collector's address cannot be used.
    #[error("the trace collector {address:?} is not of the form http://host:port[/path]")]
    Address {
        /// As it was given.
        address: String,
    },
    /// The exporter refused its configuration.
    #[error("the trace exporter cannot be set up")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
}

/// A handle to the queue of finished spans.
#[derive(Clone, Debug)]
pub(super) struct Exporter {
    processor: Arc<BatchSpanProcessor<runtime::Tokio>>,
}

/// Starts the task that delivers spans.
pub(super) fn start(collector: &str, instance: &str) -> Result<Exporter, TracesError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint(collector)?)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(REQUEST_TIMEOUT)
        .build()
        .map_err(TracesError::Exporter)?;
    let limits = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_QUEUED_SPANS)
        .with_max_export_batch_size(MAX_BATCH_SPANS)
        .with_scheduled_delay(BATCH_EVERY)
        .with_max_export_timeout(EXPORT_TIMEOUT)
        .build();
    let outage = Outage { exporter, collector: collector.to_owned(), failing: AtomicBool::new(false) };
    // The default processor has a thread of its own, where the HTTP client finds no reactor.
    let mut processor = BatchSpanProcessor::builder(outage, runtime::Tokio).with_batch_config(limits).build();
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", "quorate"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ]);
    processor.set_resource(&resource.build());
    Ok(Exporter { processor: Arc::new(processor) })
}

/// The collector's address, with OTLP's path for traces when it has none.
fn endpoint(address: &str) -> Result<String, TracesError> {
    let refused = || TracesError::Address { address: address.to_owned() };
    let uri: Uri = address.parse().map_err(|_| refused())?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err(refused());
    }
    match uri.path() {
        "" | "/" => Ok(format!("{}/v1/traces", address.trim_end_matches('/'))),
        _ => Ok(address.to_owned()),
    }
}

impl Exporter {
    /// Queues a finished span, or drops it when the queue is full.
    pub(super) fn queue(&self, span: SpanData) {
        self.processor.on_end(span);
    }

    /// Delivers the queue and ends the task.
    pub(super) async fn shutdown(self) {
        // The processor blocks its caller until the task has delivered.
        let ended =
            tokio::task::spawn_blocking(move || self.processor.shutdown_with_timeout(SHUTDOWN_TIMEOUT));
        match tokio::time::timeout(SHUTDOWN_TIMEOUT, ended).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans were not delivered"),
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not delivered"),
            Err(_) => tracing::warn!("the last spans were not delivered in time"),
        }
    }
}

/// The exporter, telling once when deliveries begin to fail and once when they pass again.
#[derive(Debug)]
struct Outage<E> {
    exporter: E,
    collector: String,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Outage<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let failed_before = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed_before => {
                tracing::warn!(collector = self.collector, %error, "traces are not delivered");
            }
            Ok(()) if failed_before => {
                tracing::info!(collector = self.collector, "traces are delivered again");
            }
            Ok(()) | Err(_) => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn a_collector_is_named_by_its_address_alone_or_with_a_path() {
        for (address, expected) in [
            ("http://127.0.0.1:4318", Some("http://127.0.0.1:4318/v1/traces")),
            ("http://localhost:4318/", Some("http://localhost:4318/v1/traces")),
            ("http://collector:80/otlp/v1/traces", Some("http://collector:80/otlp/v1/traces")),
            ("https://collector:443", None),
            ("127.0.0.1:4318", None),
            ("collector", None),
            ("", None),
        ] {
            assert_eq!(endpoint(address).ok().as_deref(), expected, "{address}");
        }
    }
}
