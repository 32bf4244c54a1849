//! Ingest under load: OTLP bodies into windows, by the decoder and the monitor alone and through the door.
//!
//! The bodies are made once; only their times move. Invariant: every point that was sent was counted, or
//! there are no figures.

use std::{fmt, io, process::Stdio, time::Duration};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
        metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
    time::Instant,
};

use super::{Quantiles, Usage, UsageError, quantiles::Durations};
use crate::{
    knowledge::genesis::Parameters,
    monitor::{self, Monitor, MonitorParameters, otlp},
    service::{
        clock,
        http_client::{Bounds, HttpClient, HttpError},
        http_server::{self, ListenError},
    },
    types::{Millis, UnixMillis, WindowIndex},
};

/// Points in one request: what a collector's batch processor makes of a fast engine's.
pub const POINTS_PER_REQUEST: usize = METRICS * POINTS_PER_METRIC;

/// Different series: what one source may have at most.
pub const SERIES: usize = POINTS_PER_REQUEST * REQUESTS;

const METRICS: usize = 20;
const POINTS_PER_METRIC: usize = 100;
const REQUESTS: usize = 5;

/// The default window.
const WINDOW: Millis = Millis::from_secs(10);

/// How often every series is exported: what fast engines do.
const EXPORT_INTERVAL: Millis = Millis::from_secs(1);

/// Stands in the bodies where a point's time belongs; no other field has this value.
const TIME_MARK: u64 = 0x0123_4567_89ab_cdef;

/// A start long before: the streams are old.
const STREAM_START_NANOS: u64 = 1_000_000_000_000_000_000;

pub(super) const PROTOBUF: &str = "application/x-protobuf";

pub(super) const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(10), body_bytes: 64 * 1024 };

/// What was measured without HTTP, on one thread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AloneFigures {
    /// Always `decode_and_count`.
    pub what: &'static str,
    /// Points counted in a second of the clock.
    pub points_per_second: f64,
    /// Seconds of a processor for a million points.
    pub processor_seconds_per_million: f64,
}

/// What was measured through the door.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DoorFigures {
    /// Always `door`.
    pub what: &'static str,
    /// How many connections posted.
    pub connections: usize,
    /// Points counted in a second.
    pub points_per_second: f64,
    /// Seconds of a processor for a million points, in the door's process.
    pub processor_seconds_per_million: f64,
    /// From sending a request to its whole answer.
    pub latency: Quantiles,
    /// The most memory that the door's process took, in bytes.
    pub peak_bytes: u64,
}

impl fmt::Display for AloneFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "decode, identify, count on one thread: {:.2} M points/s, {:.2} s of a processor per M points \
             ({:.2} M points/s per core)",
            self.points_per_second / 1e6,
            self.processor_seconds_per_million,
            1.0 / self.processor_seconds_per_million
        )
    }
}

impl fmt::Display for DoorFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |micros: u32| f64::from(micros) / 1e3;
        write!(
            f,
            "through the door, {} connections: {:.2} M points/s, {:.2} s of a processor per M points ({:.2} M \
             points/s per core), request p50 {:.2} ms, p99 {:.2} ms, peak {} MB",
            self.connections,
            self.points_per_second / 1e6,
            self.processor_seconds_per_million,
            1.0 / self.processor_seconds_per_million,
            millis(self.latency.p50_us),
            millis(self.latency.p99_us),
            self.peak_bytes / 1_000_000
        )
    }
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum IngestBenchError {
    /// Points were not counted, so the figures would lie.
    #[error("{0}")]
    NotCounted(String),
    /// The door's process.
    #[error("the door's process {what}")]
    Door {
        /// What happened.
        what: String,
    },
    /// The door does not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The door's address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
    /// What a process used.
    #[error(transparent)]
    Usage(#[from] UsageError),
}

/// Requests that together carry every series once, with the places of their times.
#[derive(Clone, Debug)]
pub(super) struct Bodies(Vec<(Vec<u8>, Vec<usize>)>);

impl Bodies {
    /// Requests of [`METRICS`] metrics with so many points each.
    pub(super) fn new(points_per_metric: usize) -> Self {
        let body = |request: usize| {
            let bytes = request_of(request, points_per_metric).encode_to_vec();
            let mark = TIME_MARK.to_le_bytes();
            let places = (0..bytes.len() - mark.len()).filter(|at| bytes[*at..].starts_with(&mark)).collect();
            (bytes, places)
        };
        Self((0..REQUESTS).map(body).collect())
    }

    /// How many points each has.
    pub(super) fn points_per_request(&self) -> usize {
        self.0.first().map_or(0, |(_, places)| places.len())
    }

    /// A request's body with this time.
    pub(super) fn at(&mut self, request: usize, time: UnixMillis) -> &[u8] {
        let (bytes, places) = &mut self.0[request % REQUESTS];
        let nanos = (time.as_millis() * 1_000_000).to_le_bytes();
        for place in places {
            bytes[*place..*place + nanos.len()].copy_from_slice(&nanos);
        }
        bytes
    }
}

fn request_of(request: usize, points_per_metric: usize) -> ExportMetricsServiceRequest {
    let attribute = |key: &str, value: String| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..Default::default()
    };
    let metric = |number: usize| {
        let points = (0_i64..).take(points_per_metric).map(|point| NumberDataPoint {
            attributes: vec![
                attribute("dag_id", format!("nightly_{}", point / 10)),
                attribute("task_id", format!("extract_{point}")),
                attribute("state", "running".to_owned()),
            ],
            start_time_unix_nano: STREAM_START_NANOS,
            time_unix_nano: TIME_MARK,
            value: Some(number_data_point::Value::AsInt(point)),
            ..Default::default()
        });
        let data_points = points.collect();
        let data = if number.is_multiple_of(2) {
            Data::Gauge(Gauge { data_points })
        } else {
            let aggregation_temporality = AggregationTemporality::Cumulative.into();
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
        };
        Metric {
            name: format!("airflow.task.metric_{}", request * METRICS + number),
            data: Some(data),
            ..Default::default()
        }
    };
    let scope_metrics =
        vec![ScopeMetrics { metrics: (0..METRICS).map(metric).collect(), ..Default::default() }];
    let resource =
        Resource { attributes: vec![attribute("service.name", "airflow".to_owned())], ..Default::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics,
            ..Default::default()
        }],
    }
}

fn new_monitor(started_at: UnixMillis) -> Monitor {
    Monitor::new(MonitorParameters::of(&Parameters::for_window(WINDOW)), started_at)
}

/// Decodes and counts on this thread, as fast as it goes: each pass over all series is one second of event
/// time, and windows close as in a replica.
///
/// # Errors
/// [`IngestBenchError`].
pub fn measure_alone(measure: Duration) -> Result<AloneFigures, IngestBenchError> {
    let (mut bodies, process) = (Bodies::new(POINTS_PER_METRIC), std::process::id());
    let mut time = clock::wall_clock();
    let mut monitor = new_monitor(time);
    let mut open = WindowIndex::containing(time, WINDOW);
    let (began, before) = (Instant::now(), Usage::of(process)?);
    let mut points = 0;
    while began.elapsed() < measure {
        for request in 0..REQUESTS {
            let body = bodies.at(request, time);
            let batch = otlp::decode(body, Some(PROTOBUF), None)
                .map_err(|error| IngestBenchError::NotCounted(error.to_string()))?;
            let ingested = monitor.ingest(&batch, time);
            if ingested.accepted != POINTS_PER_REQUEST as u64 {
                return Err(IngestBenchError::NotCounted(format!("refused points: {:?}", ingested.rejected)));
            }
            points += POINTS_PER_REQUEST;
        }
        time = time.plus(EXPORT_INTERVAL);
        while time >= open.close(WINDOW) {
            monitor.close(open).map_err(|error| IngestBenchError::NotCounted(error.to_string()))?;
            open = open.next();
        }
    }
    let processor = Usage::of(process)?.processor.saturating_sub(before.processor);
    Ok(AloneFigures {
        what: "decode_and_count",
        points_per_second: per_second(points, began.elapsed()),
        processor_seconds_per_million: per_million(processor, points),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a bench's points are far below 2^52")]
fn per_second(points: usize, elapsed: Duration) -> f64 {
    points as f64 / elapsed.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a bench's points are far below 2^52")]
fn per_million(processor: Duration, points: usize) -> f64 {
    processor.as_secs_f64() * 1e6 / points as f64
}

/// Where the door's process listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DoorAddress {
    /// Its URL.
    pub url: String,
}

/// Serves the telemetry door until standard input closes; windows close as in a replica.
///
/// # Errors
/// [`IngestBenchError`].
pub async fn serve_door<E>(say: impl FnOnce(&DoorAddress) -> Result<(), E>) -> Result<(), IngestBenchError> {
    let listener = http_server::listen(([127, 0, 0, 1], 0).into()).await?;
    let url = format!("http://{}/v1/metrics", listener.local_addr()?);
    let (monitor, _) = monitor::task::spawn(new_monitor(clock::wall_clock()), clock::wall_clock);
    let (router, _) = monitor::door::routes(monitor.clone());
    let (stop, stopping) = watch::channel(false);
    let server = tokio::spawn(http_server::serve(listener, router, stopping));
    let close = async move {
        let mut open = WindowIndex::containing(clock::wall_clock(), WINDOW);
        loop {
            let wait = open.close(WINDOW).since(clock::wall_clock());
            tokio::time::sleep(Duration::from_millis(wait.as_millis())).await;
            // A late sample of the closed window is refused and then told; there is no grace to wait for.
            if monitor.close(open).await.is_err() {
                return;
            }
            open = open.next();
        }
    };
    say(&DoorAddress { url }).map_err(|_| IngestBenchError::Door { what: "has no reader".to_owned() })?;
    let mut input = tokio::io::stdin();
    tokio::select! {
        () = close => {}
        _ = input.read_u8() => {}
    }
    stop.send_replace(true);
    // The server ends by itself; a task that failed was told of already.
    drop(server.await);
    Ok(())
}

/// A door in a process of its own.
#[derive(Debug)]
pub(super) struct DoorProcess {
    child: Child,
    id: u32,
    /// Where it takes metrics.
    pub(super) url: String,
}

impl DoorProcess {
    pub(super) async fn start() -> Result<Self, IngestBenchError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "door"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(id), Some(said)) = (child.id(), child.stdout.take()) else {
            return Err(Self::gone("cannot be started"));
        };
        let line = BufReader::new(said).lines().next_line().await?.ok_or_else(|| Self::gone("has ended"))?;
        let DoorAddress { url } = serde_json::from_str(&line).map_err(io::Error::from)?;
        Ok(Self { child, id, url })
    }

    pub(super) fn usage(&self) -> Result<Usage, IngestBenchError> {
        Ok(Usage::of(self.id)?)
    }

    pub(super) async fn stop(mut self) -> Result<(), IngestBenchError> {
        drop(self.child.stdin.take());
        self.child.wait().await?;
        Ok(())
    }

    pub(super) fn gone(what: &str) -> IngestBenchError {
        IngestBenchError::Door { what: what.to_owned() }
    }
}

/// Posts to a door in a process of its own, each connection one request at a time.
///
/// # Errors
/// [`IngestBenchError`].
pub async fn measure_door(measure: Duration, connections: usize) -> Result<DoorFigures, IngestBenchError> {
    let door = DoorProcess::start().await?;
    // The series are known before anything is measured.
    let mut bodies = Bodies::new(POINTS_PER_METRIC);
    for request in 0..REQUESTS {
        post(&HttpClient::new(), &door.url, bodies.at(request, clock::wall_clock())).await?;
    }
    let (began, before) = (Instant::now(), door.usage()?);
    let clients: Vec<_> = (0..connections)
        .map(|first| tokio::spawn(post_for(measure, door.url.clone(), bodies.clone(), first)))
        .collect();
    let mut durations = Durations::default();
    for client in clients {
        let one = client.await.map_err(|_| DoorProcess::gone("was posted to by a client that failed"))?;
        durations.extend(one?);
    }
    let (elapsed, after) = (began.elapsed(), door.usage()?);
    door.stop().await?;
    let latency = durations.quantiles();
    let points = latency.count * POINTS_PER_REQUEST;
    Ok(DoorFigures {
        what: "door",
        connections,
        points_per_second: per_second(points, elapsed),
        processor_seconds_per_million: per_million(after.processor.saturating_sub(before.processor), points),
        latency,
        peak_bytes: after.peak_bytes,
    })
}

/// Posts every series once in each window, until it fails.
pub(super) async fn post_every_window(url: &str) -> Result<std::convert::Infallible, IngestBenchError> {
    let (client, mut bodies) = (HttpClient::new(), Bodies::new(POINTS_PER_METRIC));
    loop {
        for request in 0..REQUESTS {
            post(&client, url, bodies.at(request, clock::wall_clock())).await?;
        }
        tokio::time::sleep(Duration::from_millis(WINDOW.as_millis())).await;
    }
}

async fn post_for(
    measure: Duration,
    url: String,
    mut bodies: Bodies,
    first: usize,
) -> Result<Durations, IngestBenchError> {
    // A client of its own keeps a connection of its own.
    let client = HttpClient::new();
    let (began, mut durations) = (Instant::now(), Durations::default());
    for request in first.. {
        if began.elapsed() >= measure {
            break;
        }
        let body = bodies.at(request, clock::wall_clock());
        let sent = Instant::now();
        post(&client, &url, body).await?;
        durations.add(sent.elapsed());
    }
    Ok(durations)
}

async fn post(client: &HttpClient, url: &str, body: &[u8]) -> Result<(), IngestBenchError> {
    let answer = client.post(url, PROTOBUF, body.to_vec(), BOUNDS).await?;
    let response = ExportMetricsServiceResponse::decode(answer.body);
    let refused =
        response.map(|response| response.partial_success.map_or(0, |part| part.rejected_data_points));
    if answer.status.is_success() && refused == Ok(0) {
        return Ok(());
    }
    Err(IngestBenchError::NotCounted(format!("the door answers {}, refused {refused:?}", answer.status)))
}

#[cfg(test)]
mod tests {
    use super::{Bodies, POINTS_PER_METRIC, POINTS_PER_REQUEST, REQUESTS, SERIES, new_monitor, otlp};
    use crate::types::{Millis, UnixMillis};

    #[test]
    fn every_point_of_the_load_counts_and_is_a_series_of_its_own() {
        let start = UnixMillis::new(1_800_000_000_000);
        let (mut bodies, mut monitor) = (Bodies::new(POINTS_PER_METRIC), new_monitor(start));
        for second in 0..2 {
            let time = start.plus(Millis::from_secs(second));
            for request in 0..REQUESTS {
                let batch = otlp::decode(bodies.at(request, time), Some(super::PROTOBUF), None)
                    .expect("it is a request");
                assert_eq!(monitor.ingest(&batch, time).accepted, POINTS_PER_REQUEST as u64);
            }
        }
        assert_eq!(monitor.series_count(), SERIES);
    }
}
