//! Spans of the work around the loop, from the code's own `tracing` spans: what a start, a block in the store
//! or a receipt at the door takes.
//!
//! They are traces of their own; a control cycle's trace is put together in [`super::cycle_trace`]. Invariant:
//! they go through the same queue as all other spans, so recording one never waits.

use opentelemetry::{Context, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use std::time::Duration;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use super::export::Exporter;

/// Whose spans are exported: this program's own, not those of its libraries.
const OWN: &str = "quorate";

/// The layer that exports this program's `tracing` spans.
pub(super) fn layer<S>(exporter: &Exporter) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let provider = SdkTracerProvider::builder().with_span_processor(Queue(exporter.clone())).build();
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(OWN))
        .with_location(false)
        .with_threads(false)
        .with_filter(Targets::new().with_target(OWN, LevelFilter::INFO))
}

/// The one queue of finished spans, which outlives the provider that is given this.
#[derive(Debug)]
struct Queue(Exporter);

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.queue(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn set_resource(&mut self, _: &Resource) {}
}
