//! `GET /metrics`: the relay's figures for Prometheus, all named `quorate_relay_*`, and its entrance's.
//!
//! Everything is read, at the moment of the scrape, from where the status has it too, so that the two cannot
//! disagree. Invariant: labels come from closed sets and the replicas' configured names.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text},
    metrics::{
        MetricType,
        counter::ConstCounter,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

use super::{
    run::Insight,
    status::{DoorStatus, Reach, RelayStatus, ReplicaStatus},
};
use crate::service::entrance::EntranceMetrics;

/// `GET /metrics`.
pub(super) fn router(insight: Insight, entrance: EntranceMetrics) -> Router {
    let mut registry = Registry::with_prefix("quorate");
    registry.register_collector(Box::new(entrance));
    registry.sub_registry_with_prefix("relay").register_collector(Box::new(insight));
    Router::new().route("/metrics", get(answer)).with_state(Arc::new(registry))
}

async fn answer(State(registry): State<Arc<Registry>>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Collector for Insight {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = self.status();
        encode_door(&status.door, &mut encoder)?;
        encode_queue(&status, &mut encoder)?;
        encode_replicas(&status.replicas, &mut encoder)
    }
}

fn encode_door(door: &DoorStatus, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let help = "Requests to the door, by answer";
    let mut requests = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
    let DoorStatus { taken, dropped, refused, overloaded, unwritable } = *door;
    for (answer, count) in [
        ("taken", taken),
        ("dropped", dropped),
        ("refused", refused),
        ("overloaded", overloaded),
        ("unwritable", unwritable),
    ] {
        ConstCounter::new(count).encode(requests.encode_family(&[("answer", answer)])?)?;
    }
    Ok(())
}

fn encode_queue(status: &RelayStatus, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let queue = &status.queue;
    for (name, help, value) in [
        ("queue_writable", "1 when bodies are taken", u64::from(queue.writable)),
        ("queue_bytes", "Bytes of the queue's files", queue.bytes),
        ("queue_bytes_limit", "Bytes that they may have", queue.most_bytes),
        ("queue_segments", "The queue's files", queue.segments),
    ] {
        let gauge = ConstGauge::new(value);
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    for (name, help, count) in [
        ("queue_write_failures", "Writes to the queue that failed", queue.failures),
        ("queue_read_failures", "Reads of the queue that failed", queue.read_failures),
    ] {
        let failures = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(count).encode(failures)?;
    }
    Ok(())
}

type Figure = (&'static str, &'static str, fn(&ReplicaStatus) -> u64);

fn encode_replicas(
    replicas: &[ReplicaStatus],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), std::fmt::Error> {
    let counters: [Figure; 3] = [
        ("sent", "Bodies that a replica took", |replica| replica.sent),
        ("bodies_refused", "Bodies that a replica refused for good", |replica| replica.refused),
        ("retries", "Attempts that had to be repeated", |replica| replica.retries),
    ];
    for (name, help, value) in counters {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for replica in replicas {
            let labels = [("replica", replica.name.as_str())];
            ConstCounter::new(value(replica)).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Bodies that a replica never got, by reason";
    let mut family = encoder.encode_descriptor("bodies_dropped", help, None, MetricType::Counter)?;
    for replica in replicas {
        let dropped = &replica.dropped;
        for (reason, count) in [("age", dropped.age), ("bytes", dropped.bytes), ("damage", dropped.damage)] {
            let labels = [("replica", replica.name.as_str()), ("reason", reason)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    let gauges: [Figure; 3] = [
        ("replica_up", "0 when a replica does not answer", |replica| u64::from(replica.reach != Reach::Away)),
        ("lag_bodies", "Bodies that wait for a replica", |replica| replica.lag.bodies),
        ("lag_bytes", "Bytes that wait for a replica", |replica| replica.lag.bytes),
    ];
    for (name, help, value) in gauges {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for replica in replicas {
            let labels = [("replica", replica.name.as_str())];
            ConstGauge::new(value(replica)).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "How long the oldest body that waits for a replica has waited";
    let mut family = encoder.encode_descriptor("lag_seconds", help, None, MetricType::Gauge)?;
    for replica in replicas {
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(seconds(replica.lag_ms));
        gauge.encode(family.encode_family(&[("replica", replica.name.as_str())])?)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a display value; ages lie far below 2^53 ms")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
