//! Telemetry of an engine that does not exist: one gauge, posted on a steady beat to every replica's door.
//!
//! Every door gets the same bytes, as from one collector that fans out. Invariant: the thread ends with its
//! handle.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use quorate::service::clock::wall_clock;
use serde_json::json;

use super::http;

/// Several beats in a window of half a second.
const BEAT: Duration = Duration::from_millis(100);

/// An engine that posts how many tasks wait for a slot of the pool.
#[derive(Debug)]
pub(crate) struct Engine {
    waiting: Arc<AtomicI64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Begins to post to the doors, with nothing waiting.
    pub(crate) fn start(doors: Vec<SocketAddr>) -> Self {
        let (waiting, ended) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let (level, end) = (Arc::clone(&waiting), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let body = gauge(level.load(Ordering::Relaxed));
                for door in &doors {
                    // A replica that is down misses the sample: that is what is tested.
                    let _ = http::post_json(*door, "/v1/metrics", &body);
                }
                std::thread::sleep(BEAT);
            }
        });
        Self { waiting, ended, thread: Some(thread) }
    }

    /// From the next beat on so many tasks wait.
    pub(crate) fn wait_for_slots(&self, tasks: i64) {
        self.waiting.store(tasks, Ordering::Relaxed);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that only posts does not panic, and a test may be failing already.
            let _ = thread.join();
        }
    }
}

fn gauge(waiting: i64) -> Vec<u8> {
    let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let nanos = u128::from(wall_clock().as_millis()) * 1_000_000;
    let point = json!({
        "attributes": [attribute("pool_name", "extract_pool")],
        "timeUnixNano": nanos.to_string(),
        "asInt": waiting.to_string(),
    });
    let metric = json!({"name": "airflow.pool.scheduled_slots", "gauge": {"dataPoints": [point]}});
    let request = json!({"resourceMetrics": [{
        "resource": {"attributes": [attribute("service.name", "airflow")]},
        "scopeMetrics": [{"metrics": [metric]}],
    }]});
    request.to_string().into_bytes()
}
