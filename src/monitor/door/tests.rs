//! What a client sees of the door: statuses, bodies and their forms.

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use http_body_util::BodyExt as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use tower::ServiceExt as _;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;

use super::{
    Door, MAX_BODY_BYTES,
    answer::{RETRY_AFTER_SECONDS, RETRY_SOON_SECONDS},
    decoding::LARGE_PLACES,
    patient_routes, reading, routes_of,
};
use crate::{
    knowledge::observation::SeriesSummary,
    monitor::{
        Monitor, MonitorParameters, Reason, SAMPLES_PER_STREAM, recording,
        task::{self, IngestError, MAX_QUEUED_BATCHES, MAX_QUEUED_BYTES, MonitorHandle},
    },
    types::{Millis, Quantity, UnixMillis, WindowIndex},
};

const NOW: UnixMillis = UnixMillis::new(1_000_000_000);
const WINDOW: Millis = Millis::from_secs(10);

/// Longer than any answer takes on the slowest of machines.
const PATIENT: Duration = Duration::from_secs(60);

const PARAMETERS: MonitorParameters = MonitorParameters {
    window: WINDOW,
    ahead: WINDOW,
    series_limit: 10,
    samples_per_stream: SAMPLES_PER_STREAM,
};

fn monitor() -> MonitorHandle {
    task::spawn(Monitor::new(PARAMETERS, NOW), || NOW).0
}

fn routes(monitor: MonitorHandle) -> (Router, std::sync::Arc<super::DoorCounters>) {
    patient_routes(monitor, PATIENT)
}

fn gauge(times_ms: &[u64]) -> String {
    let point = |ms: &u64| {
        let nanos = NOW.plus(Millis::new(*ms)).as_millis() * 1_000_000;
        serde_json::json!({"timeUnixNano": nanos.to_string(), "asInt": ms.to_string()})
    };
    let points: Vec<_> = times_ms.iter().map(point).collect();
    let metric = serde_json::json!({"name": "open_slots", "gauge": {"dataPoints": points}});
    serde_json::json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).to_string()
}

async fn post(
    router: &Router,
    path: &str,
    headers: &[(header::HeaderName, &str)],
    body: impl Into<Body>,
) -> Response<Body> {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(body.into()).expect("the request is valid");
    router.clone().oneshot(request).await.expect("routes do not fail")
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.expect("the body is there").to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");
const PROTOBUF: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/x-protobuf");

#[tokio::test]
async fn what_is_posted_stands_in_the_next_closed_window() {
    let monitor = monitor();
    let (router, counters) = routes(monitor.clone());
    for path in ["/v1/metrics", "/"] {
        let response = post(&router, path, &[JSON], gauge(&[1, 2])).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(text(response).await, "{}");
    }
    let window = WindowIndex::containing(NOW, WINDOW);
    let closed = monitor.close(window).await.expect("it is open");
    let summaries: Vec<_> = closed.summary.series.values().collect();
    let [one, two, three] = [1, 2, 3].map(Quantity::from_i64);
    let level = SeriesSummary::Level { last: two, min: one, max: two, sum: three, samples: 2 };
    assert_eq!((summaries, closed.partial), (vec![&level], false));
    assert_eq!((counters.taken(), monitor.counters().accepted_points()), (2, 4));
    assert!(monitor.close(window).await.is_err(), "a window closes once");
}

#[tokio::test]
async fn points_that_do_not_count_are_told_in_the_form_of_the_request() {
    let monitor = monitor();
    let (router, _) = routes(monitor.clone());
    let response = post(&router, "/v1/metrics", &[JSON], gauge(&[1, 60_000])).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        text(response).await,
        r#"{"partialSuccess":{"errorMessage":"not counted: 1 future","rejectedDataPoints":"1"}}"#
    );

    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/airflow-incident.otlp.gz");
    let recorded = recording::read(&file).expect("the recording is there").swap_remove(0);
    let response = post(&router, "/v1/metrics", &[PROTOBUF], recorded.body).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-protobuf");
    let body = response.into_body().collect().await.expect("the body is there").to_bytes();
    let answer = ExportMetricsServiceResponse::decode(body).expect("it is an answer of OTLP");
    assert!(answer.partial_success.is_some_and(|partial| partial.rejected_data_points > 0));
    let rejected: Vec<_> = monitor.counters().rejected_points().filter(|(_, points)| *points > 0).collect();
    assert!(matches!(rejected[..], [(Reason::Future, points)] if points > 1), "{rejected:?}");

    let response = post(&router, "/v1/metrics", &[PROTOBUF], Body::empty()).await;
    assert_eq!((response.status(), text(response).await), (StatusCode::OK, String::new()));
}

#[tokio::test]
async fn a_body_that_is_no_metrics_request_is_refused_with_a_text() {
    let (router, counters) = routes(monitor());
    let encoding = |name| (header::CONTENT_ENCODING, name);
    let large = vec![b' '; MAX_BODY_BYTES + 1];
    let table: [(&[_], &[u8], u16, &str); 7] = [
        (&[], b"{}", 415, "application/x-protobuf"),
        (&[(header::CONTENT_TYPE, "text/plain")], b"{}", 415, "text/plain"),
        (&[JSON, encoding("zstd")], b"{}", 415, "zstd"),
        (&[JSON, encoding("gzip")], b"{}", 400, "gzip"),
        (&[JSON], b"{", 400, "application/json"),
        (&[PROTOBUF], b"{}", 400, "application/x-protobuf"),
        (&[JSON], &large, 413, "4194304"),
    ];
    for (headers, body, status, word) in table {
        let response = post(&router, "/v1/metrics", headers, body.to_vec()).await;
        assert_eq!(response.status(), status, "{headers:?}");
        let text = text(response).await;
        assert!(text.contains(word), "{headers:?}: {text}");
    }
    assert_eq!(counters.refused(), 7);
}

#[tokio::test]
async fn traces_and_logs_are_taken_and_dropped() {
    let (router, counters) = routes(monitor());
    for path in ["/v1/traces", "/v1/logs"] {
        let response = post(&router, path, &[PROTOBUF], "not looked at").await;
        assert_eq!((response.status(), text(response).await), (StatusCode::OK, String::new()));
    }
    assert_eq!((counters.dropped(), counters.taken()), (2, 0));
}

fn assert_turned_away(response: &Response<Body>) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], RETRY_AFTER_SECONDS);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn while_the_monitor_stands_still_the_door_fills_its_queue_and_frees_all_others_and_then_recovers() {
    let (monitor, owner) = task::prepare(Monitor::new(PARAMETERS, NOW), || NOW);
    let (router, counters) = patient_routes(monitor.clone(), Duration::ZERO);
    for n in 0..MAX_QUEUED_BATCHES {
        let response = post(&router, "/v1/metrics", &[JSON], gauge(&[n as u64])).await;
        assert_eq!(response.status(), StatusCode::OK, "{n}");
    }
    let queued = monitor.queued();
    for _ in 0..50 {
        let response = post(&router, "/v1/metrics", &[JSON], gauge(&[1])).await;
        assert_turned_away(&response);
        assert!(text(response).await.contains("waiting"));
        assert_eq!(monitor.queued(), queued, "what is turned away is not kept");
    }
    assert_eq!(queued.0, MAX_QUEUED_BATCHES);
    assert_eq!((counters.taken(), counters.overloaded()), (MAX_QUEUED_BATCHES as u64, 50));

    let owner = tokio::spawn(owner.run());
    let closed = monitor.close(WindowIndex::containing(NOW, WINDOW)).await.expect("it is open");
    assert!(closed.partial, "samples of the window were turned away");
    assert_eq!(monitor.counters().accepted_points(), MAX_QUEUED_BATCHES as u64);
    assert_eq!(monitor.queued(), (0, 0));
    let response = post(&router, "/v1/metrics", &[JSON], gauge(&[10_000])).await;
    assert_eq!(response.status(), StatusCode::OK);
    drop((monitor, router));
    owner.await.expect("it ends when nobody can ask any more");
}

#[tokio::test]
async fn batches_that_wait_take_bounded_memory_however_large_they_are() {
    let (monitor, _owner) = task::prepare(Monitor::new(PARAMETERS, NOW), || NOW);
    let points: Vec<u64> = (0..20_000).collect();
    let batch = crate::monitor::otlp::decode(gauge(&points).as_bytes(), Some("application/json"), None);
    let batch = batch.expect("it is a request");
    let mut queued = 0;
    while monitor.queue(batch.clone()).is_ok() {
        queued += 1;
    }
    assert!(matches!(monitor.queue(batch.clone()), Err(IngestError::Overloaded)));
    assert!((2..MAX_QUEUED_BATCHES).contains(&queued), "{queued}");
    assert!(monitor.queued().1 <= MAX_QUEUED_BYTES);
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_monitor_and_says_what_is_known_without_it() {
    let (monitor, _owner) = task::prepare(Monitor::new(PARAMETERS, NOW), || NOW);
    let (router, _) = patient_routes(monitor, Duration::ZERO);
    let body = gauge(&[1, 2]).replacen("\"asInt\"", "\"asNothing\"", 1);
    let response = post(&router, "/v1/metrics", &[JSON], body).await;
    assert_eq!(response.status(), StatusCode::OK);
    let text = text(response).await;
    assert!(text.contains("1 no_value"), "{text}");
}

fn bomb() -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&vec![b' '; 17 * 1024 * 1024]).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

#[tokio::test]
async fn a_flood_of_bombs_delays_no_ordinary_request() {
    let door = Door::new(monitor(), PATIENT);
    let router = routes_of(door.clone());
    let bomb = bomb();
    let occupied = door.decoding.occupy_large().await;
    let flood: Vec<_> = (0..LARGE_PLACES + 5)
        .map(|_| {
            let (router, bomb) = (router.clone(), bomb.clone());
            let gzip = (header::CONTENT_ENCODING, "gzip");
            tokio::spawn(async move { post(&router, "/v1/metrics", &[JSON, gzip], bomb).await })
        })
        .collect();
    // All but those that found a place are answered, while the bombs that did wait for the one that is decoded.
    while door.counters.overloaded() < 5 {
        tokio::task::yield_now().await;
    }
    for n in 0..20 {
        let response = post(&router, "/v1/metrics", &[JSON], gauge(&[n])).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    drop(occupied);
    let mut statuses = Vec::new();
    for answered in flood {
        statuses.push(answered.await.expect("it is answered").status().as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![413; LARGE_PLACES], vec![503; 5]].concat());
}

/// A body that comes as it is told to.
struct Slow(mpsc::UnboundedReceiver<Vec<u8>>);

impl axum::body::HttpBody for Slow {
    type Data = axum::body::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        let frame = |data: Vec<u8>| Ok(hyper::body::Frame::data(data.into()));
        self.0.poll_recv(context).map(|data| data.map(frame))
    }
}

#[tokio::test]
async fn bodies_that_arrive_share_a_bounded_room_and_nobody_waits_for_it() {
    let mut door = Door::new(monitor(), PATIENT);
    door.room = reading::room(8 * 1024);
    let router = routes_of(door.clone());
    let (sender, body) = mpsc::unbounded_channel();
    let slow = {
        let (router, body) = (router.clone(), Body::new(Slow(body)));
        tokio::spawn(async move { post(&router, "/v1/metrics", &[JSON], body).await })
    };
    sender.send(vec![b' '; 7 * 1024 + 1]).expect("somebody reads");
    while door.room.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_turned_away(&post(&router, "/v1/metrics", &[JSON], gauge(&[1])).await);

    sender.send(b"{}".to_vec()).expect("somebody reads");
    drop(sender);
    assert_eq!(slow.await.expect("it is answered").status(), StatusCode::OK);
    assert_eq!(post(&router, "/v1/metrics", &[JSON], gauge(&[1])).await.status(), StatusCode::OK);
    assert_eq!(door.room.available_permits(), 8, "all room is given back");

    // A size that no header told of is counted while it arrives.
    let (sender, body) = mpsc::unbounded_channel();
    (0..5).for_each(|_| sender.send(vec![b' '; MAX_BODY_BYTES / 4]).expect("somebody reads"));
    drop(sender);
    door.room = reading::room(2 * MAX_BODY_BYTES);
    let response = post(&routes_of(door), "/v1/metrics", &[JSON], Body::new(Slow(body))).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn what_does_not_count_is_told_by_source() {
    let monitor = monitor();
    let (router, _) = routes(monitor.clone());
    let of = |service: &str, times: &[u64]| {
        let service = serde_json::json!({"key": "service.name", "value": {"stringValue": service}});
        let resource = serde_json::json!({"attributes": [service]});
        let mut body: serde_json::Value = serde_json::from_str(&gauge(times)).expect("it is JSON");
        body["resourceMetrics"][0]["resource"] = resource;
        body.to_string()
    };
    for body in [of("airflow", &[1, 2, 60_000]), of("prefect", &[60_000]), of("no source!", &[1])] {
        assert_eq!(post(&router, "/v1/metrics", &[JSON], body).await.status(), StatusCode::OK);
    }
    monitor.close(WindowIndex::containing(NOW, WINDOW)).await.expect("it is open");
    let tally = monitor.counters().sources();
    let airflow = tally.by_source.iter().map(|(source, counts)| (source.as_str(), counts.clone()));
    let one_late = std::collections::BTreeMap::from([(Reason::Future, 1)]);
    let counts = crate::monitor::SourceCounts { series: 1, accepted: 2, refused: one_late };
    assert_eq!(airflow.collect::<Vec<_>>(), [("airflow", counts)]);
    let others = std::collections::BTreeMap::from([(Reason::Future, 1), (Reason::BadSource, 1)]);
    assert_eq!(tally.others.refused, others, "a source gets counts of its own once a point of it counts");
}

const REMOTE_WRITE: [(header::HeaderName, &str); 2] = [PROTOBUF, (header::CONTENT_ENCODING, "snappy")];

/// A body of remote write with one series and these values, each a second after the one before.
fn written(name: &str, values: &[f64]) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).expect("a test's messages are small");
        [&[tag, length], bytes].concat()
    };
    let label = |name: &str, value: &str| {
        field(0x0a, &[field(0x0a, name.as_bytes()), field(0x12, value.as_bytes())].concat())
    };
    let mut series = [label("__name__", name), label("job", "etl")].concat();
    for (value, second) in values.iter().zip(0_u64..) {
        let mut sample = [&[0x09], value.to_le_bytes().as_slice(), &[0x10]].concat();
        prost::encoding::encode_varint(NOW.as_millis() + second * 1_000, &mut sample);
        series.extend(field(0x12, &sample));
    }
    let length = u8::try_from(series.len()).expect("a test's messages are small");
    let plain = [&[0x0a, length], series.as_slice()].concat();
    snap::raw::Encoder::new().compress_vec(&plain).expect("memory can be written")
}

fn plain_samples(times_ms: &[u64]) -> String {
    let sample = |ms: &u64| {
        let at_ms = NOW.plus(Millis::new(*ms)).as_millis();
        serde_json::json!({"name": "depth", "at_ms": at_ms, "value": ms, "kind": "gauge"})
    };
    let samples: Vec<_> = times_ms.iter().map(sample).collect();
    serde_json::json!({"source": "etl", "samples": samples}).to_string()
}

#[tokio::test]
async fn remote_write_and_plain_samples_are_counted_as_otlp_is() {
    let monitor = monitor();
    let (router, counters) = routes(monitor.clone());
    let response = post(&router, "/api/v1/write", &REMOTE_WRITE, written("runs_total", &[3.0, 5.0])).await;
    assert_eq!((response.status(), text(response).await), (StatusCode::NO_CONTENT, String::new()));
    // What no window takes is refused alone, and counted: a second time would be refused as well.
    let response = post(&router, "/api/v1/write", &REMOTE_WRITE, written("ratio", &[f64::NAN])).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let response = post(&router, "/v1/samples", &[JSON], plain_samples(&[1, 2, 60_000])).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, r#"{"accepted":2,"rejected":{"future":1}}"#);

    let closed = monitor.close(WindowIndex::containing(NOW, WINDOW)).await.expect("it is open");
    let series: Vec<_> = closed.summary.series.iter().collect();
    let [(depth, SeriesSummary::Level { samples: 2, .. }), (runs, SeriesSummary::Increase { increase, .. })] =
        series[..]
    else {
        panic!("a level and a sum that rises: {series:?}");
    };
    let sources = [depth.source.as_str(), runs.source.as_str()];
    assert_eq!((depth.name.as_str(), runs.name.as_str(), sources), ("depth", "runs_total", ["etl"; 2]));
    assert_eq!(*increase, Quantity::from_i64(2));
    let refused = &monitor.counters().sources().by_source.into_values().next().expect("one source").refused;
    assert_eq!(*refused, [(Reason::NotFinite, 1), (Reason::Future, 1)].into());
    assert_eq!((counters.taken(), counters.refused()), (3, 0));
}

#[tokio::test]
async fn a_wrong_body_of_remote_write_or_of_plain_samples_is_refused_with_a_text() {
    let (router, counters) = routes(monitor());
    let claims = [&[0x80, 0x80, 0x80, 0x10], [0; 1_600_000].as_slice()].concat();
    let wrong = b"{\"source\": \"etl\",\n \"samples\": [{\"nom\": 1}]}";
    let snappy = |plain: &[u8]| snap::raw::Encoder::new().compress_vec(plain).expect("memory can be written");
    let (label, write) = (snappy(b"\x0a\x04\x0a\x02\x12\x00"), "/api/v1/write");
    let table: [(&str, &[_], &[u8], u16, &str); 8] = [
        (write, &REMOTE_WRITE, &label, 400, "series 1, byte 2 after decompression: a label has no name"),
        (write, &REMOTE_WRITE, b"\x05", 400, "the body is not valid snappy"),
        (write, &REMOTE_WRITE, &claims, 413, "more than 16777216 bytes after decompression"),
        (write, &[PROTOBUF], &label, 415, "send snappy"),
        (write, &[JSON], b"{}", 415, "send application/x-protobuf"),
        ("/v1/samples", &[JSON], wrong, 400, "line 2, column 19: unknown field `nom`"),
        ("/v1/samples", &[PROTOBUF], b"", 415, "send application/json"),
        ("/v1/samples", &[JSON, (header::CONTENT_ENCODING, "snappy")], b"", 415, "send gzip"),
    ];
    for (path, headers, body, status, word) in table {
        let response = post(&router, path, headers, body.to_vec()).await;
        assert_eq!(response.status(), status, "{path} {word}");
        let text = text(response).await;
        assert!(text.contains(word), "{path}: {text}");
    }
    assert_eq!(counters.refused(), 8);
}

#[tokio::test]
async fn all_forms_share_the_queue_and_others_than_otlp_may_ask_again_soon() {
    let (monitor, owner) = task::prepare(Monitor::new(PARAMETERS, NOW), || NOW);
    let (router, counters) = patient_routes(monitor.clone(), Duration::ZERO);
    for n in 0..MAX_QUEUED_BATCHES as u64 {
        let response = post(&router, "/v1/samples", &[JSON], plain_samples(&[n])).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED, "it is queued, and nobody waited for more");
    }
    let table: [(&str, &[_], _, _); 3] = [
        ("/api/v1/write", &REMOTE_WRITE, written("depth", &[1.0]), RETRY_SOON_SECONDS),
        ("/v1/samples", &[JSON], plain_samples(&[1]).into_bytes(), RETRY_SOON_SECONDS),
        ("/v1/metrics", &[JSON], gauge(&[1]).into_bytes(), RETRY_AFTER_SECONDS),
    ];
    for (path, headers, body, seconds) in table {
        let response = post(&router, path, headers, body).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(response.headers()[header::RETRY_AFTER], seconds, "{path}");
    }
    assert_eq!(counters.overloaded(), 3);
    let owner = tokio::spawn(owner.run());
    let closed = monitor.close(WindowIndex::containing(NOW, WINDOW)).await.expect("it is open");
    assert!(closed.partial, "samples of the window were turned away");
    drop((monitor, router));
    owner.await.expect("it ends when nobody can ask any more");
}
