//! What clients really send, through the real door on a real socket: every request of the recorded SDKs and of
//! the hand-made edge cases (`tests/data/otlp-sdk.otlp.gz`), with its path, content type, encoding and framing.
//!
//! What is expected of a request stands beside it in the recording: the status that was suggested, and how many
//! points the reference decoder finds. `DIFFERENT` names each request that is answered or counted otherwise,
//! and why. Every point is counted or refused with a reason: their sum is always the reference's number.
#![cfg(feature = "service")]

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use quorate::{
    knowledge::observation::{AttributeValue, SeriesKey, SeriesSummary},
    monitor::{
        Monitor, MonitorParameters, Reason, SAMPLES_PER_STREAM, door, recording,
        recording::RecordedRequest,
        task::{self, MonitorHandle},
    },
    service::http_server,
    types::{Millis, Quantity, UnixMillis, WindowIndex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

/// Before all samples of the recording, so that no stream is older than the monitor.
const STARTED_AT: UnixMillis = UnixMillis::new(1_794_900_000_000);
/// After all of them but the one from ten years ahead.
const NOW: UnixMillis = UnixMillis::new(1_795_400_000_000);

/// One window that holds everything, so that what a case adds up to can be looked at.
const ENDLESS: Millis = Millis::new(u64::MAX);

/// How many points are refused, and why.
type Refusals = &'static [(Reason, u64)];

/// The requests that are answered, or whose points are counted, otherwise than the recording suggests: the
/// case, the status, and which points are refused.
const DIFFERENT: &[(&str, u16, Refusals)] = &[
    // Answered as suggested, with a point that does not count and the reason in the partial success.
    ("handmade-point-without-value", 200, &[(Reason::NoValue, 1)]),
    ("handmade-time-zero", 200, &[(Reason::NoTime, 1)]),
    ("handmade-time-far-future", 200, &[(Reason::Future, 1)]),
    ("handmade-non-finite-proto", 200, &[(Reason::NotFinite, 3)]),
    ("handmade-json-nan-string", 200, &[(Reason::NotFinite, 1)]),
    ("handmade-exphist-overflow", 200, &[(Reason::BadBuckets, 1)]),
    ("handmade-partly-bad", 200, &[(Reason::NoTemporality, 1)]),
    ("handmade-temporality-unspecified", 200, &[(Reason::NoTemporality, 1)]),
    ("handmade-start-after-end", 200, &[(Reason::StartAfterTime, 1)]),
    ("handmade-histogram-bad-buckets", 200, &[(Reason::BadBuckets, 1)]),
    // A 404 would lose all telemetry of an engine whose endpoint has a slash too many or no path, and nobody
    // reads an exporter's log: it is clear what is meant, so it is taken.
    ("handmade-trailing-slash", 200, &[]),
    ("handmade-double-slash", 200, &[]),
    ("handmade-base-path-post", 200, &[]),
];

fn sdk_requests() -> Vec<RecordedRequest> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/otlp-sdk.otlp.gz");
    recording::read(&file).expect("the recording is there")
}

fn note<'a>(request: &'a RecordedRequest, name: &str) -> &'a str {
    request.notes.get(name).and_then(serde_json::Value::as_str).unwrap_or_default()
}

/// A door with a monitor of its own.
struct Door {
    address: SocketAddr,
    monitor: MonitorHandle,
    _stop: watch::Sender<bool>,
}

impl Door {
    async fn open() -> Self {
        let parameters = MonitorParameters {
            window: ENDLESS,
            ahead: Millis::from_secs(24 * 3600),
            series_limit: 10_000,
            samples_per_stream: SAMPLES_PER_STREAM,
        };
        let (monitor, _) = task::spawn(Monitor::new(parameters, STARTED_AT), || NOW);
        // An answer that is not waited for does not say what is refused, and this machine may be slow.
        let (router, _) = door::patient_routes(monitor.clone(), Duration::from_secs(60));
        let listener = http_server::listen(([127, 0, 0, 1], 0).into()).await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(http_server::serve(listener, router, stopping));
        Self { address, monitor, _stop: stop }
    }

    async fn post(&self, request: &RecordedRequest) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("the door listens");
        stream.write_all(&as_sent(request)).await.expect("the door reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("the door answers");
        Answer::parse(&bytes)
    }

    fn counted(&self) -> (u64, BTreeMap<Reason, u64>) {
        let rejected = self.monitor.counters().rejected_points().filter(|(_, points)| *points > 0).collect();
        (self.monitor.counters().accepted_points(), rejected)
    }

    async fn series(&self) -> BTreeMap<SeriesKey, SeriesSummary> {
        self.monitor.close(WindowIndex::new(0)).await.expect("it is open").summary.series
    }
}

/// The request's bytes on the wire.
fn as_sent(request: &RecordedRequest) -> Vec<u8> {
    let mut bytes = format!("POST {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", request.path);
    for (name, value) in
        [("Content-Type", &request.content_type), ("Content-Encoding", &request.content_encoding)]
    {
        if let Some(value) = value {
            bytes += &format!("{name}: {value}\r\n");
        }
    }
    if request.notes["chunked"] == true {
        let mut bytes = (bytes + "Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for chunk in request.body.chunks(100) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        return bytes;
    }
    let mut bytes = format!("{bytes}Content-Length: {}\r\n\r\n", request.body.len()).into_bytes();
    bytes.extend(&request.body);
    bytes
}

struct Answer {
    status: u16,
    content_type: String,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("the answer has a head");
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("it has a status");
        let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: "));
        Self {
            status,
            content_type: content_type.unwrap_or_default().to_owned(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    /// How many points the answer says are refused; it has the form of the request.
    fn rejected_points(&self, json: bool) -> u64 {
        if json {
            let body: serde_json::Value = serde_json::from_slice(&self.body).expect("the answer is JSON");
            let rejected = body.pointer("/partialSuccess/rejectedDataPoints");
            return rejected
                .map_or(0, |points| points.as_str().and_then(|n| n.parse().ok()).expect("a number"));
        }
        let body = ExportMetricsServiceResponse::decode(&*self.body).expect("the answer is OTLP's");
        body.partial_success.map_or(0, |partial| {
            assert!(!partial.error_message.is_empty());
            u64::try_from(partial.rejected_data_points).expect("a number of points")
        })
    }
}

#[tokio::test]
async fn every_recorded_request_is_answered_as_it_should_be_and_all_its_points_are_accounted_for() {
    let mut different: BTreeMap<&str, _> =
        DIFFERENT.iter().map(|(case, status, rejected)| (*case, (*status, *rejected))).collect();
    let (mut requests, mut cases) = (0, std::collections::BTreeSet::new());
    for request in &sdk_requests() {
        let case = note(request, "case");
        let what = format!("request {} of {case}", request.n);
        let suggested =
            request.notes.get("suggested_status").and_then(serde_json::Value::as_u64).unwrap_or(200);
        let (status, rejected) =
            different.remove(case).unwrap_or((u16::try_from(suggested).expect("a status"), &[]));
        let points = request.notes.get("ref_points").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let door = Door::open().await;
        let answer = door.post(request).await;
        assert_eq!(answer.status, status, "{what}: {}", String::from_utf8_lossy(&answer.body));

        let content_type = request.content_type.as_deref().unwrap_or_default().to_ascii_lowercase();
        let form = ["application/x-protobuf", "application/json"]
            .into_iter()
            .find(|form| content_type.starts_with(form));
        assert_eq!(answer.content_type, form.unwrap_or("text/plain; charset=utf-8"), "{what}");

        let refused: u64 = rejected.iter().map(|(_, points)| points).sum();
        if status == 200 {
            assert_eq!(answer.rejected_points(form == Some("application/json")), refused, "{what}");
            let expected = (points - refused, rejected.iter().copied().collect());
            assert_eq!(door.counted(), expected, "{what}: {}", note(request, "why"));
        } else {
            assert!(!answer.body.is_empty(), "{what} says nothing");
            assert_eq!(door.counted(), (0, BTreeMap::new()), "{what}");
        }
        requests += 1;
        cases.insert(case.to_owned());
    }
    assert_eq!((requests, cases.len()), (145, 87));
    assert!(different.is_empty(), "no such case: {different:?}");
}

/// What a series adds up to over all requests of a case.
#[derive(Clone, Copy, Debug)]
enum Adds {
    /// A sum rose by so much.
    Rise(&'static str),
    /// A histogram gained so many values, with this sum.
    Values(u64, &'static str),
    /// The newest value of a level.
    Last(&'static str),
}

impl Adds {
    fn up_to(self, summary: &SeriesSummary) -> bool {
        // Clients add up in floating point.
        let near = |value: Quantity, text: &str| {
            let expected: f64 = text.parse().expect("it is a number");
            (value.to_f64() - expected).abs() < 1e-6
        };
        match (self, summary) {
            (Self::Rise(rise), SeriesSummary::Increase { increase, .. }) => near(*increase, rise),
            (Self::Values(values, all), SeriesSummary::Distribution { count, sum, .. }) => {
                *count == values && near(*sum, all)
            }
            (Self::Last(value), SeriesSummary::Level { last, .. }) => near(*last, value),
            (
                Self::Rise(_) | Self::Values(..) | Self::Last(_),
                SeriesSummary::Level { .. }
                | SeriesSummary::Increase { .. }
                | SeriesSummary::Distribution { .. },
            ) => false,
        }
    }
}

/// A series' name, one of its attributes or none, and what it adds up to.
type Expected = (&'static str, Option<(&'static str, &'static str)>, Adds);

/// By the beginning of the cases' names.
const ADDS_UP: &[(&str, &[Expected])] = &[
    (
        "kinds-",
        &[
            ("tasks.finished", Some(("state", "success")), Adds::Rise("15")),
            ("tasks.finished", Some(("state", "failed")), Adds::Rise("4")),
            ("task.duration", None, Adds::Values(15, "18")),
            ("cpu.seconds", None, Adds::Rise("0.75")),
            // A sum that may fall comes as its level also from clients that export changes.
            ("tasks.active", None, Adds::Last("1")),
            ("queue.depth", None, Adds::Last("14")),
            ("loop.iterations", None, Adds::Rise("300")),
            ("pool.open_slots", Some(("pool", "half")), Adds::Last("0.5")),
            ("workers.registered", None, Adds::Last("2")),
        ],
    ),
    (
        "exphist-",
        &[
            ("task.duration", Some(("dag", "a")), Adds::Values(11, "1000030009.300001")),
            ("task.duration", Some(("dag", "b")), Adds::Values(1, "42")),
        ],
    ),
    ("restart-cumulative", &[("tasks.finished", None, Adds::Rise("12"))]),
    ("two-writers-same-identity", &[("tasks.finished", None, Adds::Rise("15"))]),
    (
        "js-",
        &[
            ("tasks.finished", None, Adds::Rise("15")),
            ("task.wait", None, Adds::Values(12, "600033")),
            ("task.duration", None, Adds::Values(12, "333.3")),
            ("queue.depth", None, Adds::Last("15")),
            ("tasks.active", None, Adds::Last("1")),
        ],
    ),
];

#[tokio::test]
async fn a_cases_requests_add_up_to_what_its_client_counted_also_when_each_is_sent_again() {
    let requests = sdk_requests();
    let mut cases: BTreeMap<&str, Vec<&RecordedRequest>> = BTreeMap::new();
    for request in &requests {
        cases.entry(note(request, "case")).or_default().push(request);
    }
    let mut looked_at = 0;
    for (case, requests) in cases {
        for (_, expected) in ADDS_UP.iter().filter(|(beginning, _)| case.starts_with(beginning)) {
            let (once, twice) = (Door::open().await, Door::open().await);
            for request in &requests {
                once.post(request).await;
            }
            for request in requests.iter().chain(requests.iter().rev()) {
                twice.post(request).await;
            }
            let series = once.series().await;
            assert_eq!(series, twice.series().await, "{case}: a resend counts once");
            for (name, attribute, adds) in *expected {
                let found = find(&series, name, *attribute);
                assert!(adds.up_to(found), "{case}: {name} {attribute:?} is {found:?}, not {adds:?}");
            }
            looked_at += 1;
        }
    }
    assert_eq!(looked_at, 22);
}

fn find<'a>(
    series: &'a BTreeMap<SeriesKey, SeriesSummary>,
    name: &str,
    attribute: Option<(&str, &str)>,
) -> &'a SeriesSummary {
    let has = |key: &SeriesKey| {
        attribute.is_none_or(|(attribute, value)| {
            key.attributes.get(attribute) == Some(&AttributeValue::Text(value.to_owned()))
        })
    };
    let mut found = series.iter().filter(|(key, _)| key.name == name && has(key)).map(|(_, summary)| summary);
    found.next().unwrap_or_else(|| panic!("there is no {name} {attribute:?} in {:?}", series.keys()))
}
