//! The door at a given rate: requests are sent when they are due, whether earlier ones were answered or not.
//!
//! A request is what a task's process posts when it ends: few points, one connection. What the door turns away is
//! measured beside what it takes; nothing is sent again. Invariant: every request that was sent was answered with
//! 200 or 503, failed, or there are no figures.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Quantiles,
    ingest::{BOUNDS, Bodies, DoorProcess, IngestBenchError, PROTOBUF},
    quantiles::Durations,
};
use crate::service::{clock, http_client::HttpClient};

/// The most connections that post at once; the server allows some more. Below it one is there for every 10
/// requests a second, so that none is
/// late because others wait for their answers.
const MAX_CONNECTIONS: usize = 200;

/// What was measured at one rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PacedFigures {
    /// Always `paced`.
    pub what: &'static str,
    /// How many points a request had.
    pub points_per_request: usize,
    /// How many requests a second were to be sent.
    pub due_per_second: u32,
    /// And how many were: fewer where this machine could not send them in time.
    pub sent_per_second: f64,
    /// From sending a request that was taken to its whole answer.
    pub taken: Quantiles,
    /// The same of those that were answered with 503.
    pub turned_away: Quantiles,
    /// Requests without an answer.
    pub failed: u64,
    /// The most memory that the door's process took, in bytes.
    pub peak_bytes: u64,
}

impl fmt::Display for PacedFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = (self.taken.count + self.turned_away.count).max(1);
        #[expect(clippy::cast_precision_loss, reason = "a bench's requests are far below 2^52")]
        let share = |quantiles: &Quantiles| 100.0 * quantiles.count as f64 / all as f64;
        let millis = |micros: u32| f64::from(micros) / 1e3;
        write!(
            f,
            "{} points a request, {} requests/s due, {:.0} sent:",
            self.points_per_request, self.due_per_second, self.sent_per_second
        )?;
        for (status, quantiles) in [("200", &self.taken), ("503", &self.turned_away)] {
            if quantiles.count > 0 {
                let (p50, p99) = (millis(quantiles.p50_us), millis(quantiles.p99_us));
                let (share, max) = (share(quantiles), millis(quantiles.max_us));
                write!(f, " {share:.1} % {status} (p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.1} ms),")?;
            }
        }
        write!(f, " {} without an answer, peak {} MB", self.failed, self.peak_bytes / 1_000_000)
    }
}

/// Posts at a rate to a door in a process of its own.
///
/// # Errors
/// [`IngestBenchError`].
pub async fn measure_paced(
    measure: Duration,
    due_per_second: u32,
    points_per_metric: usize,
) -> Result<PacedFigures, IngestBenchError> {
    let door = DoorProcess::start().await?;
    let bodies = Bodies::new(points_per_metric);
    let connections = usize::try_from(due_per_second / 10).unwrap_or(usize::MAX).clamp(1, MAX_CONNECTIONS);
    let plan = Plan {
        began: Instant::now(),
        apart: Duration::from_secs(1) / due_per_second,
        requests: u64::from(due_per_second) * measure.as_secs(),
        next: Arc::default(),
    };
    let clients: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(post_when_due(door.url.clone(), bodies.clone(), plan.clone())))
        .collect();
    let mut sent = Sent::default();
    for client in clients {
        let one = client.await.map_err(|_| DoorProcess::gone("was posted to by a client that failed"))??;
        sent.taken.extend(one.taken);
        sent.turned_away.extend(one.turned_away);
        sent.failed += one.failed;
    }
    let elapsed = plan.began.elapsed();
    let peak_bytes = door.usage()?.peak_bytes;
    door.stop().await?;
    #[expect(clippy::cast_precision_loss, reason = "a bench's requests are far below 2^52")]
    let sent_per_second = plan.requests as f64 / elapsed.as_secs_f64();
    Ok(PacedFigures {
        what: "paced",
        points_per_request: bodies.points_per_request(),
        due_per_second,
        sent_per_second,
        taken: sent.taken.quantiles(),
        turned_away: sent.turned_away.quantiles(),
        failed: sent.failed,
        peak_bytes,
    })
}

/// When which request is due.
#[derive(Clone)]
struct Plan {
    began: Instant,
    apart: Duration,
    requests: u64,
    next: Arc<AtomicU64>,
}

impl Plan {
    /// The next request and when it is due; none when all were sent.
    fn take(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Relaxed);
        let after = self.apart.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
        (number < self.requests).then(|| (number, self.began + after))
    }
}

#[derive(Debug, Default)]
struct Sent {
    taken: Durations,
    turned_away: Durations,
    failed: u64,
}

async fn post_when_due(url: String, mut bodies: Bodies, plan: Plan) -> Result<Sent, IngestBenchError> {
    // A client of its own keeps a connection of its own.
    let (client, mut sent) = (HttpClient::new(), Sent::default());
    while let Some((number, due)) = plan.take() {
        tokio::time::sleep_until(due).await;
        let request = usize::try_from(number).unwrap_or_default();
        let body = bodies.at(request, clock::wall_clock()).to_vec();
        let began = Instant::now();
        match client.post(&url, PROTOBUF, body, BOUNDS).await.map(|answer| answer.status) {
            Ok(StatusCode::OK) => sent.taken.add(began.elapsed()),
            Ok(StatusCode::SERVICE_UNAVAILABLE) => sent.turned_away.add(began.elapsed()),
            Ok(status) => {
                return Err(IngestBenchError::NotCounted(format!("the door answers {status}")));
            }
            Err(_) => sent.failed += 1,
        }
    }
    Ok(sent)
}
