//! A collector of traces: it takes what the cluster's processes post over OTLP/HTTP and decodes it with
//! OpenTelemetry's own definitions.
//!
//! Invariant: a body that does not decode is kept as an error, so a test sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, resource::v1::Resource,
};
use prost::Message as _;

/// A span as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) instance: String,
    pub(crate) trace: Vec<u8>,
    pub(crate) span: Vec<u8>,
    /// Empty for a span without one.
    pub(crate) parent: Vec<u8>,
    pub(crate) name: String,
}

#[derive(Debug, Default)]
struct Taken {
    spans: Vec<Received>,
    malformed: usize,
}

/// A running collector.
#[derive(Debug)]
pub(crate) struct Collector {
    taken: Arc<Mutex<Taken>>,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    /// Listens on a free port.
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let taken = Arc::new(Mutex::new(Taken::default()));
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&taken));
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(axum::serve(listener, router).into_future());
        Self { taken, address, _runtime: runtime }
    }

    /// Where to post.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whose spans a trace holds, by service instance: their names.
    pub(crate) fn instances(&self, trace: &[u8]) -> BTreeMap<String, BTreeSet<String>> {
        let mut instances: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for span in lock(&self.taken).spans.iter().filter(|span| span.trace == trace) {
            instances.entry(span.instance.clone()).or_default().insert(span.name.clone());
        }
        instances
    }

    /// All spans whose parent was not received in the same trace.
    pub(crate) fn orphans(&self) -> Vec<Received> {
        let taken = lock(&self.taken);
        let known: BTreeSet<_> = taken.spans.iter().map(|span| (&span.trace, &span.span)).collect();
        let has_no_parent =
            |span: &&Received| !span.parent.is_empty() && !known.contains(&(&span.trace, &span.parent));
        taken.spans.iter().filter(has_no_parent).cloned().collect()
    }

    /// How many bodies did not decode.
    pub(crate) fn malformed(&self) -> usize {
        lock(&self.taken).malformed
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn take(State(taken): State<Arc<Mutex<Taken>>>, body: Bytes) -> StatusCode {
    let mut taken = lock(&taken);
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        taken.malformed += 1;
        return StatusCode::BAD_REQUEST;
    };
    for of_resource in request.resource_spans {
        let instance = instance_of(of_resource.resource.as_ref());
        for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
            taken.spans.push(Received {
                instance: instance.clone(),
                trace: span.trace_id,
                span: span.span_id,
                parent: span.parent_span_id,
                name: span.name,
            });
        }
    }
    StatusCode::OK
}

fn instance_of(resource: Option<&Resource>) -> String {
    let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
    let named = attributes.iter().find(|attribute| attribute.key == "service.instance.id");
    match named.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(name)) => name.clone(),
        _ => String::new(),
    }
}
