//! Cycle traces as a collector sees them: a real OTLP decoder behind a real socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message as _;
use tokio::sync::mpsc;

use super::{CycleTracer, Stage, system_time, trace_id};
use crate::{
    service::telemetry::export,
    types::{Cycle, Digest, UnixMillis},
};

/// A collector on loopback: its address and the requests that it decodes.
async fn collector() -> (String, mpsc::Receiver<ExportTraceServiceRequest>) {
    async fn take(
        State(requests): State<mpsc::Sender<ExportTraceServiceRequest>>,
        body: Bytes,
    ) -> StatusCode {
        match ExportTraceServiceRequest::decode(body) {
            Ok(request) => {
                requests.send(request).await.expect("the test holds the receiver");
                StatusCode::OK
            }
            Err(_) => StatusCode::BAD_REQUEST,
        }
    }
    let (sender, receiver) = mpsc::channel(16);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    let router = Router::new().route("/v1/traces", post(take)).with_state(sender);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, receiver)
}

/// Every span that came, with the name of its process.
fn spans(requests: &mut mpsc::Receiver<ExportTraceServiceRequest>) -> Vec<(String, Span)> {
    let mut found = Vec::new();
    while let Ok(request) = requests.try_recv() {
        for group in request.resource_spans {
            let attributes = group.resource.expect("spans have a resource").attributes;
            let text = |name: &str| {
                let attribute = attributes.iter().find(|attribute| attribute.key == name);
                match attribute.and_then(|attribute| attribute.value.clone()).and_then(|value| value.value) {
                    Some(Value::StringValue(text)) => text,
                    other => panic!("{name} is {other:?}"),
                }
            };
            assert_eq!(text("service.name"), "quorate");
            let instance = text("service.instance.id");
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            found.extend(spans.map(|span| (instance.clone(), span)));
        }
    }
    found
}

fn stage(name: &'static str, from_ms: u64, to_ms: u64) -> Stage {
    Stage::new(name, system_time(UnixMillis::new(from_ms)), system_time(UnixMillis::new(to_ms)))
}

#[tokio::test]
async fn one_trace_holds_the_cycle_of_all_processes_without_an_orphan() {
    let (address, mut requests) = collector().await;
    let (cluster, cycle) = (Digest::of(b"cluster"), Cycle::new(7));
    for instance in ["r0", "r1", "r2", "agent-pool"] {
        let exporter = export::start(&address, instance).expect("the address is valid");
        let tracer = CycleTracer::new(Some(exporter.clone()));
        let top = stage("cycle", 1_000, 1_400)
            .with("quorate.window", 12_i64)
            .part(stage("analyze", 1_100, 1_110).part(stage("threshold", 1_101, 1_102)))
            .part(stage("certify", 1_110, 1_400).failed("no quorum"));
        tracer.record(cluster, cycle, top);
        tracer.record(cluster, cycle, stage("receipt", 2_000, 2_001));
        tracer.record(cluster, Cycle::new(8), stage("cycle", 3_000, 3_001));
        exporter.shutdown().await;
    }

    let spans = spans(&mut requests);
    assert_eq!(spans.len(), 4 * 6);
    let mut traces: BTreeMap<Vec<u8>, Vec<&(String, Span)>> = BTreeMap::new();
    for span in &spans {
        traces.entry(span.1.trace_id.clone()).or_default().push(span);
    }
    assert_eq!(traces.len(), 2, "one trace a cycle");
    let of_the_cycle = &traces[trace_id(cluster, cycle).to_bytes().as_slice()];
    let instances: BTreeSet<_> = of_the_cycle.iter().map(|(instance, _)| instance.as_str()).collect();
    assert_eq!(instances.len(), 4, "all processes share the trace");
    let ids: BTreeSet<_> = of_the_cycle.iter().map(|(_, span)| span.span_id.clone()).collect();
    assert_eq!(ids.len(), 4 * 5, "no span takes another's place");
    for (instance, span) in of_the_cycle {
        let is_top = ["cycle", "receipt"].contains(&span.name.as_str());
        assert_eq!(span.parent_span_id.is_empty(), is_top, "{instance} {}", span.name);
        assert!(is_top || ids.contains(&span.parent_span_id), "{instance} {} is an orphan", span.name);
    }
}

#[tokio::test]
async fn a_span_keeps_its_times_attributes_and_failure() {
    let (address, mut requests) = collector().await;
    let exporter = export::start(&address, "r0").expect("the address is valid");
    let stage = stage("certify", 1_110, 1_400).with("quorate.signers", 3_i64).failed("no quorum");
    CycleTracer::new(Some(exporter.clone())).record(Digest::ZERO, Cycle::new(1), stage);
    exporter.shutdown().await;
    let spans = spans(&mut requests);
    let [(_, span)] = spans.as_slice() else { panic!("one span, not {spans:?}") };
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_110_000_000, 1_400_000_000));
    assert_eq!(span.attributes[0].key, "quorate.signers");
    assert_eq!(span.status.as_ref().map(|status| status.message.as_str()), Some("no quorum"));
}

#[test]
fn a_trace_belongs_to_one_cycle_of_one_cluster() {
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    assert_eq!(trace_id(a, Cycle::new(1)), trace_id(a, Cycle::new(1)));
    assert_ne!(trace_id(a, Cycle::new(1)), trace_id(a, Cycle::new(2)));
    assert_ne!(trace_id(a, Cycle::new(1)), trace_id(b, Cycle::new(1)));
}

#[test]
fn a_stage_never_ends_before_it_starts() {
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let stage = Stage::new("stage", later, SystemTime::UNIX_EPOCH);
    assert_eq!((stage.start, stage.end), (later, later));
}

#[tokio::test]
async fn a_collector_that_is_down_costs_spans_and_nothing_else() {
    let exporter = export::start("http://127.0.0.1:9", "r0").expect("the address is valid");
    let tracer = CycleTracer::new(Some(exporter.clone()));
    for cycle in 0..5_000 {
        tracer.record(Digest::ZERO, Cycle::new(cycle), stage("cycle", 1, 2));
    }
    exporter.shutdown().await;
}
