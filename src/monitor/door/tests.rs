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

use super::{MAX_BODY_BYTES, RETRY_AFTER_SECONDS, overloaded, routes};
use crate::{
    knowledge::observation::SeriesSummary,
    monitor::{
        Monitor, MonitorParameters, Reason, SAMPLES_PER_STREAM,
        otlp::Format,
        recording,
        task::{self, MonitorHandle},
    },
    types::{Millis, Quantity, UnixMillis, WindowIndex},
};

const NOW: UnixMillis = UnixMillis::new(1_000_000_000);
const WINDOW: Millis = Millis::from_secs(10);

fn monitor() -> MonitorHandle {
    let parameters = MonitorParameters {
        window: WINDOW,
        ahead: WINDOW,
        series_limit: 10,
        samples_per_stream: SAMPLES_PER_STREAM,
    };
    task::spawn(Monitor::new(parameters, NOW), || NOW).0
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

#[tokio::test]
async fn an_overloaded_door_frees_its_clients_at_once() {
    let response = overloaded(Format::Json);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], RETRY_AFTER_SECONDS);
    let text = text(response).await;
    assert!(text.contains("waiting"), "{text}");
}
