//! The relay between real sockets and on real files: every replica gets every body, one that is down costs the
//! others nothing, and a disk that fails is told of.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    routing::post,
};
use serde_json::Value;
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::net::TcpListener;

use super::{
    Reach, Relay, RelayConfig, RelayError, Replica,
    door::Door,
    keeper::Keeper,
    lane::BOUNDS,
    queue::{Kept, Queue, QueueConfig, Recovery},
};
use crate::{
    consensus::journal::{Disk, DiskError, FileDisk, Salt},
    monitor::form::Protocol,
    service::{clock::Stopwatch, entrance::EntranceMetrics, http_client::HttpClient},
    types::Millis,
};

type Seen = Arc<Mutex<Vec<(Option<HeaderValue>, Bytes)>>>;
/// Where each body came, with its type and encoding.
type Posted = Arc<Mutex<Vec<(String, Bytes)>>>;
type Answers = Arc<Mutex<Vec<(StatusCode, &'static str)>>>;

async fn serve_at(listener: TcpListener, router: Router) -> String {
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(axum::serve(listener, router).into_future());
    format!("http://{address}/v1/metrics")
}

async fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// The address of a door behind which nobody is.
async fn nobody() -> String {
    format!("http://{}/v1/metrics", free_port().await.local_addr().expect("it is bound"))
}

/// A replica that answers with these statuses and `Retry-After`s in turn, the last one first, then 200, and
/// notes what it got.
async fn replica(answers: &[(StatusCode, &'static str)]) -> (String, Seen) {
    replica_at(free_port().await, answers).await
}

async fn replica_at(listener: TcpListener, answers: &[(StatusCode, &'static str)]) -> (String, Seen) {
    let seen = Seen::default();
    let answers: Answers = Arc::new(Mutex::new(answers.to_vec()));
    let take = async |State((seen, answers)): State<(Seen, Answers)>, headers: HeaderMap, body: Bytes| {
        let encoding = headers.get(header::CONTENT_ENCODING).cloned();
        seen.lock().expect("nobody panics").push((encoding, body));
        let (status, retry_after) =
            answers.lock().expect("nobody panics").pop().unwrap_or((StatusCode::OK, "0"));
        (status, [(header::RETRY_AFTER, retry_after)])
    };
    let router = Router::new().route("/v1/metrics", post(take)).with_state((Arc::clone(&seen), answers));
    (serve_at(listener, router).await, seen)
}

fn config<const N: usize>(folder: &Path, addresses: [String; N]) -> RelayConfig {
    let named = |(place, address)| Replica { name: format!("r{place}"), address };
    RelayConfig {
        replicas: addresses.into_iter().enumerate().map(named).collect(),
        folder: folder.to_owned(),
        queue_bytes: 1 << 30,
        max_age: Millis::from_secs(600),
    }
}

fn start(config: RelayConfig) -> Result<Relay, RelayError> {
    Relay::start(config, &HttpClient::new())
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

async fn door(relay: &Relay) -> String {
    serve_at(free_port().await, relay.routes(EntranceMetrics::default())).await
}

async fn post_json(door: &str, body: &'static str) -> StatusCode {
    let answer = HttpClient::new().post(door, "application/json", body, BOUNDS).await;
    answer.expect("it answers").status
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), wait).await.unwrap_or_else(|_| panic!("never {what}"));
}

async fn all_settled(relay: &Relay) {
    let waiting = || relay.status().replicas.iter().any(|replica| replica.lag.bodies > 0);
    eventually("settled", || !waiting()).await;
}

async fn get(door: &str, path: &str) -> (StatusCode, String) {
    let address = door.replace("/v1/metrics", path);
    let answer = HttpClient::new().get(&address, BOUNDS).await.expect("it answers");
    (answer.status, String::from_utf8(answer.body.to_vec()).expect("it is text"))
}

#[tokio::test]
async fn every_replica_gets_the_clients_own_bytes_and_a_refusal_is_not_repeated() {
    let folder = folder();
    let (first, first_seen) = replica(&[]).await;
    let (second, second_seen) = replica(&[(StatusCode::SERVICE_UNAVAILABLE, "0")]).await;
    let (third, third_seen) = replica(&[(StatusCode::BAD_REQUEST, "0")]).await;
    let (fourth, fourth_seen) = replica(&[(StatusCode::INTERNAL_SERVER_ERROR, "0")]).await;
    let relay = start(config(folder.path(), [first, second, third, fourth])).expect("it starts");
    let door = door(&relay).await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"{}").expect("memory can be written");
    let body = Bytes::from(gzip.finish().expect("memory can be written"));
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
    ]);
    let answer = HttpClient::new().forward(&door, headers, body.clone(), BOUNDS).await.expect("it answers");
    assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, b"{}".as_ref()));
    all_settled(&relay).await;
    let status = relay.status();
    let of = |replica: &super::ReplicaStatus| (replica.sent, replica.refused, replica.retries);
    let counts: Vec<_> = status.replicas.iter().map(of).collect();
    assert_eq!(counts, [(1, 0, 0), (1, 0, 1), (0, 1, 0), (0, 1, 0)]);
    for (seen, times) in [(first_seen, 1), (second_seen, 2), (third_seen, 1), (fourth_seen, 1)] {
        let got = (Some(HeaderValue::from_static("gzip")), body.clone());
        assert_eq!(*seen.lock().expect("nobody panics"), vec![got; times]);
    }
    assert_eq!(status.replicas[2].trouble.as_deref(), Some("it answered 400 Bad Request"));
}

/// A replica that takes bodies at the paths of all protocols, and notes where each came and in which encoding.
async fn replica_of_all_protocols() -> (String, Posted) {
    let seen = Posted::default();
    let take = async |State(seen): State<Posted>, uri: axum::http::Uri, headers: HeaderMap, body: Bytes| {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
        let came =
            format!("{} {} {}", uri.path(), text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
        seen.lock().expect("nobody panics").push((came, body));
        StatusCode::NO_CONTENT
    };
    let router = Router::new().fallback(take).with_state(Arc::clone(&seen));
    (serve_at(free_port().await, router).await, seen)
}

#[tokio::test]
async fn bodies_of_every_protocol_go_to_their_own_path_also_after_a_restart() {
    let folder = folder();
    let away = nobody().await;
    let relay = start(config(folder.path(), [away.clone()])).expect("it starts");
    let door = door(&relay).await;
    // A `WriteRequest` with one sample of the series `m`, as snappy.
    let plain =
        b"\x0a\x20\x0a\x0d\x0a\x08__name__\x12\x01m\x12\x0f\x09\0\0\0\0\0\0\xf0\x3f\x10\x80\xa0\xe9\xb8\x05";
    let written = snap::raw::Encoder::new().compress_vec(plain).expect("memory can be written");
    let samples = br#"{"source":"s","samples":[{"name":"m","at_ms":5,"value":1,"kind":"gauge"}]}"#;
    let sent = [
        ("/v1/metrics", "application/json", "", b"{}".as_slice(), 200, "{}"),
        ("/api/v1/write", "application/x-protobuf", "snappy", &written, 204, ""),
        ("/v1/samples", "application/json", "", samples, 202, r#"{"accepted":1,"rejected":{}}"#),
        (
            "/api/v1/write",
            "application/x-protobuf",
            "snappy",
            &written[..9],
            400,
            "the body is not valid snappy",
        ),
        ("/api/v1/write", "application/x-protobuf", "", &written, 415, "send snappy"),
        (
            "/v1/samples",
            "application/json",
            "",
            b"{\n\"source\": 1}",
            400,
            r#"{"error":"the body is no list of samples in JSON: line 2, column 11"#,
        ),
    ];
    for (path, kind, encoding, body, status, text) in sent {
        let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        if !encoding.is_empty() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let address = door.replace("/v1/metrics", path);
        let client = HttpClient::new();
        let answer = client.forward(&address, headers, Bytes::copy_from_slice(body), BOUNDS).await;
        let answer = answer.expect("it answers");
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status.as_u16(), status, "{path} {told}");
        assert!(told.contains(text), "{path} {told}");
    }
    relay.stop().await;

    let (up, seen) = replica_of_all_protocols().await;
    let relay = start(RelayConfig {
        replicas: vec![Replica { name: "r0".to_owned(), address: up }],
        ..config(folder.path(), [away])
    });
    all_settled(&relay.expect("the folder is free again")).await;
    let mut seen = seen.lock().expect("nobody panics").clone();
    seen.sort();
    let expected = [
        ("/api/v1/write application/x-protobuf snappy", written.as_slice()),
        ("/v1/metrics application/json -", b"{}"),
        ("/v1/samples application/json -", samples),
    ];
    assert_eq!(seen, expected.map(|(came, body)| (came.to_owned(), Bytes::copy_from_slice(body))));
}

#[tokio::test]
async fn a_replica_that_is_away_costs_the_others_nothing_and_gets_its_bodies_after_a_restart() {
    let folder = folder();
    let (up, seen) = replica(&[]).await;
    let away = nobody().await;
    let relay = start(config(folder.path(), [away.clone(), up.clone()])).expect("it starts");
    let first_door = door(&relay).await;
    for _ in 0..3 {
        assert_eq!(post_json(&first_door, "{}").await, StatusCode::OK);
    }
    eventually("sent to the other", || relay.status().replicas[1].sent == 3).await;
    eventually("known to be away", || relay.status().replicas[0].reach == Reach::Away).await;
    assert_eq!(seen.lock().expect("nobody panics").len(), 3);
    assert_eq!(relay.status().replicas[0].lag.bodies, 3);
    let (code, metrics) = get(&first_door, "/metrics").await;
    assert_eq!(code, StatusCode::OK);
    for line in [
        "quorate_relay_requests_total{answer=\"taken\"} 3",
        "quorate_relay_queue_writable 1",
        "quorate_relay_replica_up{replica=\"r0\"} 0",
        "quorate_relay_replica_up{replica=\"r1\"} 1",
        "quorate_relay_lag_bodies{replica=\"r0\"} 3",
        "quorate_relay_lag_seconds{replica=\"r1\"} 0.0",
        "quorate_relay_sent_total{replica=\"r1\"} 3",
        "quorate_relay_bodies_dropped_total{replica=\"r0\",reason=\"age\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
    let left = relay.stop().await;
    assert_eq!((left.replicas[0].lag.bodies, left.replicas[1].lag.bodies), (3, 0));

    let port = away.trim_start_matches("http://").trim_end_matches("/v1/metrics");
    let (_, late) = replica_at(TcpListener::bind(port).await.expect("it was free"), &[]).await;
    let relay = start(config(folder.path(), [away, up])).expect("the folder is free again");
    all_settled(&relay).await;
    assert_eq!(
        (late.lock().expect("nobody panics").len(), seen.lock().expect("nobody panics").len()),
        (3, 3)
    );
}

#[tokio::test]
async fn what_no_replica_would_take_is_refused_at_once() {
    let folder = folder();
    let (up, seen) = replica(&[]).await;
    let relay = start(config(folder.path(), [up])).expect("it starts");
    let door = door(&relay).await;
    for (media_type, body, status) in
        [("application/json", "{", 400), ("text/plain", "{}", 415), ("application/x-protobuf", "{}", 400)]
    {
        let answer = HttpClient::new().post(&door, media_type, body, BOUNDS).await.expect("it answers");
        assert_eq!(answer.status, status, "{media_type}");
    }
    assert_eq!(post_json(&door.replace("metrics", "traces"), "?").await, StatusCode::OK);
    let status = relay.status();
    assert_eq!((status.door.taken, status.door.refused, status.door.dropped), (0, 3, 1));
    assert_eq!(status.replicas[0].lag.bodies, 0);
    assert!(seen.lock().expect("nobody panics").is_empty());
}

#[tokio::test]
async fn a_replica_that_asks_for_time_is_left_alone_for_it() {
    let folder = folder();
    let (busy, seen) = replica(&[(StatusCode::TOO_MANY_REQUESTS, "2")]).await;
    let relay = start(config(folder.path(), [busy])).expect("it starts");
    let door = door(&relay).await;
    let watch = Stopwatch::start();
    assert_eq!(post_json(&door, "{}").await, StatusCode::OK);
    all_settled(&relay).await;
    assert!(watch.elapsed() >= Millis::from_secs(2), "it came back after {:?}", watch.elapsed());
    assert_eq!(seen.lock().expect("nobody panics").len(), 2);
}

#[tokio::test]
async fn a_second_relay_on_one_folder_is_refused() {
    let folder = folder();
    let relay = start(config(folder.path(), [nobody().await])).expect("it starts");
    let refused = start(config(folder.path(), [nobody().await])).map(drop);
    let refused = refused.expect_err("one is enough");
    assert!(matches!(refused, RelayError::InUse { .. }));
    let told = refused.to_string();
    assert!(told.contains("is the queue of another relay that runs"), "{told}");
    assert!(told.contains("--queue"), "{told}");
    relay.stop().await;
    let relay = start(config(folder.path(), [nobody().await])).expect("the folder is free again");
    relay.stop().await;
}

#[tokio::test]
async fn what_becomes_too_old_while_a_replica_is_away_is_dropped_and_counted() {
    let folder = folder();
    let max_age = Millis::from_secs(1);
    let relay = start(RelayConfig { max_age, ..config(folder.path(), [nobody().await]) }).expect("it starts");
    let door = door(&relay).await;
    for body in ["{}", "{ }"] {
        assert_eq!(post_json(&door, body).await, StatusCode::OK);
    }
    all_settled(&relay).await;
    let replica = &relay.status().replicas[0];
    assert_eq!((replica.sent, replica.dropped.age, replica.dropped.total()), (0, 2, 2));
}

/// What becomes of a disk.
#[derive(Clone, Debug, Default)]
struct Fate {
    /// Nothing can be appended.
    full: Arc<AtomicBool>,
    /// Syncs do not return.
    hangs: Arc<AtomicBool>,
    /// How many syncs have begun.
    syncs: Arc<AtomicUsize>,
}

/// Files on a disk with a fate.
struct FatedDisk(FileDisk, Fate);

impl Disk for FatedDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.0.list()
    }
    fn create(&mut self, name: &str) -> Result<(), DiskError> {
        self.0.create(name)
    }
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        if self.1.full.load(Relaxed) {
            return Err(DiskError::Full { name: name.to_owned() });
        }
        self.0.append(name, bytes)
    }
    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        self.1.syncs.fetch_add(1, Relaxed);
        while self.1.hangs.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.0.sync(name)
    }
    fn sync_folder(&mut self) -> Result<(), DiskError> {
        self.0.sync_folder()
    }
    fn len(&self, name: &str) -> Result<u64, DiskError> {
        self.0.len(name)
    }
    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, DiskError> {
        self.0.read(name, offset, bytes)
    }
    fn truncate(&mut self, name: &str, bytes: u64) -> Result<(), DiskError> {
        self.0.truncate(name, bytes)
    }
    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.0.remove(name)
    }
}

/// A queue for one replica on a disk with this fate.
fn fated_queue(folder: &Path, fate: &Fate) -> (Queue<FatedDisk>, Recovery) {
    let disk = FatedDisk(FileDisk::open(folder).expect("it is ours"), fate.clone());
    let config = QueueConfig {
        replicas: vec!["r0".to_owned()],
        bytes: 1 << 30,
        max_age: Millis::from_secs(600),
        salt: Salt::new([1; 16]),
    };
    Queue::open(disk, config).expect("it is new")
}

fn fated_relay(folder: &Path, fate: &Fate, replica: String) -> Relay {
    let (queue, recovery) = fated_queue(folder, fate);
    let config = config(folder, [replica]);
    Relay::start_on(queue, recovery, config, &HttpClient::new()).expect("it starts")
}

/// Posts a body that is refused with 503, for good as far as the client is concerned; the text.
async fn refused(door: &str) -> String {
    let answer = HttpClient::new().post(door, "application/json", "{}", BOUNDS).await.expect("it answers");
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.retry_after, Some(Duration::from_secs(30)));
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[tokio::test]
async fn a_full_disk_is_answered_with_503_and_told_and_taken_again_once_there_is_room() {
    let (folder, fate) = (folder(), Fate::default());
    let (up, _) = replica(&[]).await;
    let relay = fated_relay(folder.path(), &fate, up);
    let door = door(&relay).await;
    assert_eq!(post_json(&door, "{}").await, StatusCode::OK);
    assert_eq!(get(&door, "/readyz").await.0, StatusCode::OK);

    fate.full.store(true, Relaxed);
    let told = refused(&door).await;
    assert!(told.contains("no space is left on the disk"), "{told}");
    let (code, told) = get(&door, "/readyz").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(told.contains("the queue cannot be written"), "{told}");
    assert_eq!(get(&door, "/livez").await.0, StatusCode::OK);
    let status: Value = serde_json::from_str(&get(&door, "/v1/status").await.1).expect("it is JSON");
    assert_eq!((&status["queue"]["writable"], &status["door"]["unwritable"]), (&false.into(), &1.into()));

    fate.full.store(false, Relaxed);
    eventually("writable again", || relay.status().queue.writable).await;
    assert_eq!(post_json(&door, "{}").await, StatusCode::OK);
    all_settled(&relay).await;
    assert_eq!(relay.status().replicas[0].sent, 2);
}

#[tokio::test]
async fn a_disk_that_hangs_holds_the_first_client_for_a_while_and_no_other() {
    let (folder, fate) = (folder(), Fate::default());
    let (up, _) = replica(&[]).await;
    let relay = fated_relay(folder.path(), &fate, up);
    let door = door(&relay).await;
    fate.hangs.store(true, Relaxed);
    for _ in 0..5 {
        let told = refused(&door).await;
        assert!(told.contains("the relay's disk does not answer"), "{told}");
    }
    let (code, told) = get(&door, "/readyz").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(told.contains("the disk does not answer"), "{told}");
    fate.hangs.store(false, Relaxed);
    eventually("writable again", || relay.status().queue.writable).await;
    assert_eq!(post_json(&door, "{ }").await, StatusCode::OK);
    all_settled(&relay).await;
    assert_eq!(relay.status().replicas[0].sent, 2, "what the disk took in the end is sent as well");
}

#[tokio::test]
async fn a_body_that_waits_for_the_disk_keeps_its_room_after_its_client_was_given_up() {
    let (folder, fate) = (folder(), Fate::default());
    let (queue, _) = fated_queue(folder.path(), &fate);
    let (keeper, thread) = Keeper::start(queue).expect("there is a thread");
    let room = Door::with_room(keeper.clone(), 8 * 1024);
    let door = serve_at(free_port().await, room.routes()).await;
    let large = || format!("{{{}}}", " ".repeat(5 * 1024));
    let post = async || {
        let answer = HttpClient::new().post(&door, "application/json", large(), BOUNDS).await;
        let answer = answer.expect("it answers");
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    };
    fate.hangs.store(true, Relaxed);
    let (status, told) = post().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(told.contains("the relay's disk does not answer"), "{told}");
    for _ in 0..3 {
        let (status, told) = post().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(told.contains("too much telemetry is waiting already"), "{told}");
    }
    fate.hangs.store(false, Relaxed);
    eventually("durable", || keeper.status().committed == 1).await;
    eventually("answering", || !keeper.is_stalled()).await;
    assert_eq!(post().await.0, StatusCode::OK, "the room is free again");
    keeper.end().await;
    thread.ended().await;
}

#[tokio::test]
async fn bodies_that_wait_together_share_a_sync() {
    let (folder, fate) = (folder(), Fate::default());
    let (queue, _) = fated_queue(folder.path(), &fate);
    let before = fate.syncs.load(Relaxed);
    let (keeper, thread) = Keeper::start(queue).expect("there is a thread");
    fate.hangs.store(true, Relaxed);
    let mut commits = tokio::task::JoinSet::new();
    for number in 0..50 {
        let body = Kept {
            protocol: Protocol::Otlp,
            content_type: "application/json".to_owned(),
            content_encoding: None,
            body: vec![number],
        };
        let keeper = keeper.clone();
        commits.spawn(async move { keeper.ask_to_commit(body, None).await });
    }
    // All of them have asked when this task, on the one thread, goes on.
    tokio::task::yield_now().await;
    eventually("syncing", || fate.syncs.load(Relaxed) > before).await;
    fate.hangs.store(false, Relaxed);
    while let Some(committed) = commits.join_next().await {
        assert_eq!(committed.expect("it ends"), Ok(()));
    }
    assert_eq!(keeper.status().committed, 50);
    let syncs = fate.syncs.load(Relaxed) - before;
    assert!(syncs <= 3, "{syncs} syncs");
    keeper.end().await;
    thread.ended().await;
}
