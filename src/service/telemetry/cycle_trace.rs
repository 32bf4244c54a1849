//! The trace of a control cycle: one trace for all replicas and the agent, though none of them tells the
//! others about it.
//!
//! The trace's identifier is derived from the cluster and the cycle's number, which every plan carries as
//! its sequence number, so an agent finds the trace of the plan it applies. A process records a [`Stage`]
//! with all its parts once it is over. Invariant: the top stage has no parent and every other span's parent
//! is recorded with it, so no span is an orphan.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, Value,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};

use super::export::Exporter;
use crate::types::{Cycle, Digest, Hasher, UnixMillis};

/// The trace of a cluster's cycle.
#[must_use]
pub fn trace_id(cluster: Digest, cycle: Cycle) -> TraceId {
    let mut hasher = Hasher::default();
    hasher.update(b"quorate/1 trace");
    hasher.update(cluster.as_bytes());
    hasher.update(&cycle.number().to_be_bytes());
    let digest = hasher.finish();
    let (half, _) = digest.as_bytes().split_first_chunk::<16>().expect("a digest has 32 bytes");
    TraceId::from_bytes(*half)
}

/// A point in time as spans want it.
#[must_use]
pub fn system_time(time: UnixMillis) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(time.as_millis())
}

/// A part of a control cycle at one process, once it is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    name: Cow<'static, str>,
    start: SystemTime,
    end: SystemTime,
    attributes: Vec<KeyValue>,
    failure: Option<String>,
    parts: Vec<Stage>,
}

impl Stage {
    /// A stage that lasted from `start` to `end`; an end before the start counts as the start.
    pub fn new(name: impl Into<Cow<'static, str>>, start: SystemTime, end: SystemTime) -> Self {
        let end = end.max(start);
        Self { name: name.into(), start, end, attributes: Vec::new(), failure: None, parts: Vec::new() }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(name, value));
        self
    }

    /// Marks the stage as failed, with the reason.
    #[must_use]
    pub fn failed(mut self, reason: impl Into<String>) -> Self {
        self.failure = Some(reason.into());
        self
    }

    /// Adds a part.
    #[must_use]
    pub fn part(mut self, part: Self) -> Self {
        self.parts.push(part);
        self
    }
}

/// Records control cycles; a handle that tasks may copy. When traces are off it drops them.
#[derive(Clone, Debug)]
pub struct CycleTracer {
    exporter: Option<Exporter>,
}

impl CycleTracer {
    pub(super) const fn new(exporter: Option<Exporter>) -> Self {
        Self { exporter }
    }

    /// Records nothing.
    #[cfg(test)]
    pub(in crate::service) const fn off() -> Self {
        Self::new(None)
    }

    /// Whether anything is recorded: if not, stages need not be built.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.exporter.is_some()
    }

    /// Records what this process did in a cycle. It may be called again for the same cycle, when more of it
    /// happens later.
    pub fn record(&self, cluster: Digest, cycle: Cycle, stage: Stage) {
        if let Some(exporter) = &self.exporter {
            queue(exporter, trace_id(cluster, cycle), SpanId::INVALID, stage);
        }
    }
}

fn queue(exporter: &Exporter, trace: TraceId, parent: SpanId, stage: Stage) {
    let id = RandomIdGenerator::default().new_span_id();
    for part in stage.parts {
        queue(exporter, trace, id, part);
    }
    exporter.queue(SpanData {
        span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: stage.name,
        start_time: stage.start,
        end_time: stage.end,
        attributes: stage.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: stage.failure.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("quorate").build(),
    });
}

#[cfg(test)]
mod tests;
