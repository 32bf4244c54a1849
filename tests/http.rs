//! The HTTP server over real sockets: bounds, malformed requests, shutdown, TLS, tokens; and the commands that use
//! them. Nothing here measures time: a bound is made short, and the test waits for what it must cause.
//!
//! It runs one replica at most. Invariant: a wait without success ends after a minute or two and fails.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use quorate::service::{
    entrance::{Entrance, EntranceConfig},
    http_client::{Answer, ClientSettings, HttpClient, HttpError},
    http_server::{Bounds, Cut, HttpCounters, Server, Tls, TlsFiles, listen},
    lifecycle::END_WITH_PARENT,
    tokens::{ListedToken, Scope, Token, add_token, revoke_token},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// How long a condition may take to come true. A loaded machine is slow and no failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bound that ends soon.
const SHORT: Duration = Duration::from_millis(200);

/// How long a slow client pauses between two bytes: no bound on stalls ends it.
const PAUSE: Duration = Duration::from_millis(20);

/// More than what the system's buffers on both sides take.
const LARGE: usize = 64 * 1024 * 1024;

struct Running {
    address: SocketAddr,
    counters: Arc<HttpCounters>,
    stop: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

impl Running {
    async fn start(bounds: Bounds, tls: Option<Tls>) -> Self {
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/echo", post(async |body: Bytes| body))
            .route("/ignore", post(async || "not read"))
            .route("/large", get(async || vec![b'x'; LARGE]))
            .route("/never", get(std::future::pending::<()>));
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopping) = watch::channel(false);
        let server = Server { bounds, tls, ..Server::default() };
        let counters = Arc::clone(&server.counters);
        let ended = tokio::spawn(server.serve(listener, router, stopping));
        Self { address, counters, stop, ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Sends these bytes and reads until the server closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("the server reads");
        read_to_close(&mut stream).await
    }

    async fn counted(&self, cut: Cut, at_least: u64) {
        let counted = async {
            while self.counters.of(cut) < at_least {
                sleep(PAUSE).await;
            }
        };
        let waited = timeout(PATIENCE, counted).await;
        assert!(waited.is_ok(), "{cut:?} was counted {} times, not {at_least}", self.counters.of(cut));
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.ended).await.expect("it ends").expect("it does not panic");
        assert_eq!(self.counters.open_connections(), 0, "a connection outlived its server");
    }
}

/// All that comes until the connection ends, however it ends.
async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut read)).await;
    assert!(end.is_ok(), "the connection is still open after {:?}", String::from_utf8_lossy(&read));
    String::from_utf8_lossy(&read).into_owned()
}

/// Reads until the text stands in what came.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let mut bytes = [0; 4096];
        let count = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("it comes").expect("it reads");
        assert!(count > 0, "{text:?} is missing in {read:?}");
        read.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    read
}

fn post_head(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n")
}

#[tokio::test]
async fn requests_that_are_too_large_or_none_at_all_get_the_fitting_status() {
    let running = Running::start(Bounds::default(), None).await;
    let get = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    let fields = |count: usize| (0..count).map(|n| format!("f{n}: x\r\n")).collect::<String>();
    let chunked = |body: &str| post_head("/echo", "transfer-encoding: chunked\r\n") + body;
    let close = "connection: close\r\n";
    let rows = [
        ("plain", get("/", close), 200, None),
        ("no such route", get("/nowhere", close), 404, None),
        ("another method", post_head("/", close), 405, None),
        ("many fields", get("/", &(fields(62) + close)), 200, None),
        ("too many fields", get("/", &(fields(64) + close)), 431, Some(Cut::HeadTooLarge)),
        ("a long field", get("/", &format!("f: {}\r\n", "x".repeat(40_000))), 431, Some(Cut::HeadTooLarge)),
        ("a long target", get(&format!("/?{}", "x".repeat(9_000)), close), 414, Some(Cut::TargetTooLong)),
        ("a very long target", get(&format!("/{}", "x".repeat(70_000)), ""), 431, Some(Cut::HeadTooLarge)),
        ("no request", "HELLO\r\n\r\n".to_owned(), 400, Some(Cut::Malformed)),
        ("no version", "GET /\r\n\r\n".to_owned(), 400, Some(Cut::Malformed)),
        ("another version", "GET / HTTP/3.0\r\n\r\n".to_owned(), 400, Some(Cut::Malformed)),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 0, Some(Cut::Malformed)),
        ("TLS", "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\u{3}".to_owned(), 400, Some(Cut::Malformed)),
        ("a space in a field's name", get("/", "bad name: x\r\n"), 400, Some(Cut::Malformed)),
        ("a folded field", get("/", "a: b\r\n c\r\n"), 400, Some(Cut::Malformed)),
        ("a null", get("/", "a: b\0\r\n"), 400, Some(Cut::Malformed)),
        ("no length", post_head("/echo", "content-length: x\r\n"), 400, Some(Cut::Malformed)),
        ("a signed length", post_head("/echo", "content-length: +4\r\n"), 400, Some(Cut::Malformed)),
        (
            "two lengths",
            post_head("/echo", "content-length: 4\r\ncontent-length: 5\r\n"),
            400,
            Some(Cut::Malformed),
        ),
        ("an unknown coding", post_head("/echo", "transfer-encoding: gzip\r\n"), 400, Some(Cut::Malformed)),
        ("a chunk of no size", chunked("x\r\n"), 400, None),
        ("a large length", post_head("/echo", "content-length: 6000000\r\n"), 413, Some(Cut::BodyTooLarge)),
        ("large chunks", chunked(&format!("{:x}\r\n{}", 6_000_000, "x".repeat(6_000_000))), 413, None),
    ];
    for (what, bytes, status, cut) in rows {
        let before = cut.map(|cut| running.counters.of(cut));
        let answer = running.exchange(bytes.as_bytes()).await;
        let line = answer.lines().next().unwrap_or_default();
        // Nothing is said to a client that would not understand it.
        let expected = if status == 0 { String::new() } else { format!("HTTP/1.1 {status} ") };
        assert!(line.starts_with(&expected) && line.is_empty() == (status == 0), "{what}: {line:?}");
        if let (Some(cut), Some(before)) = (cut, before) {
            running.counted(cut, before + 1).await;
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn old_pipelining_and_closing_clients_are_served() {
    let running = Running::start(Bounds::default(), None).await;
    let answer = running.exchange(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("here"), "{answer}");
    let mut pipelined = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(5);
    pipelined.extend_from_slice(
        b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4\r\n\r\nlast",
    );
    let answer = running.exchange(&pipelined).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 6, "{answer}");
    assert!(answer.ends_with("last"), "{answer}");
    // A client that asks first gets its interim answer, and its body is taken.
    let mut stream = running.connect().await;
    let head = post_head("/echo", "expect: 100-continue\r\nconnection: close\r\ncontent-length: 4\r\n");
    stream.write_all(head.as_bytes()).await.expect("the server reads");
    read_until(&mut stream, "100 Continue").await;
    stream.write_all(b"body").await.expect("the server reads");
    assert!(read_to_close(&mut stream).await.ends_with("body"));
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_still_writes_gets_an_early_answer_and_nothing_of_its_body_is_a_request() {
    let running = Running::start(Bounds::default(), None).await;
    let hidden = "GET /never HTTP/1.1\r\nhost: x\r\n\r\n".repeat(50_000);
    let request = post_head("/ignore", &format!("content-length: {}\r\n", hidden.len())) + &hidden;
    let answer = running.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("not read"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    running.stop().await;
}

/// What a slow client does.
enum Slow {
    /// Sends this and then nothing.
    Rests(String),
    /// Sends the first, and then the second byte by byte, again and again.
    Trickles(String, &'static str),
    /// Asks, and reads nothing.
    NeverReads,
    /// Asks, and reads a little now and then.
    SipsTheAnswer,
}

#[tokio::test]
async fn slow_clients_are_ended_by_the_bound_that_they_outstay() {
    let usual = Bounds::default;
    let half_head = || "GET / HTTP/1.1\r\nhost:".to_owned();
    let body_head = || post_head("/echo", "content-length: 1000\r\n");
    let rows = [
        (Slow::Rests(String::new()), Bounds { header: SHORT, ..usual() }, Cut::HeaderTimeout, ""),
        (Slow::Rests(half_head()), Bounds { header: SHORT, ..usual() }, Cut::HeaderTimeout, ""),
        (Slow::Trickles(half_head(), "x"), Bounds { header: SHORT, ..usual() }, Cut::HeaderTimeout, ""),
        (
            Slow::Rests("GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
            Bounds { idle: SHORT, ..usual() },
            Cut::IdleTimeout,
            "200",
        ),
        (
            Slow::Trickles("GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\na:".to_owned(), "x"),
            Bounds { header: SHORT, ..usual() },
            Cut::HeaderTimeout,
            "200",
        ),
        (Slow::Rests(body_head()), Bounds { body_stall: SHORT, ..usual() }, Cut::BodyStalled, "408"),
        (Slow::Trickles(body_head(), "x"), Bounds { body: SHORT, ..usual() }, Cut::BodyTimeout, "408"),
        (
            Slow::Trickles(post_head("/echo", "transfer-encoding: chunked\r\n"), "1\r\nx\r\n"),
            Bounds { body: SHORT, ..usual() },
            Cut::BodyTimeout,
            "408",
        ),
        (
            Slow::Rests("GET /never HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
            Bounds { request: SHORT, idle: SHORT, ..usual() },
            Cut::RequestTimeout,
            "503",
        ),
        (
            Slow::Rests("GET /never?after=1&wait=9 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
            Bounds { long_poll: SHORT, idle: SHORT, ..usual() },
            Cut::RequestTimeout,
            "503",
        ),
        (Slow::NeverReads, Bounds { answer_stall: SHORT, ..usual() }, Cut::AnswerNotTaken, ""),
        (Slow::SipsTheAnswer, Bounds { answer: SHORT, ..usual() }, Cut::AnswerNotTaken, "200"),
    ];
    for (row, (slow, bounds, cut, status)) in rows.into_iter().enumerate() {
        let running = Running::start(bounds, None).await;
        let mut stream = running.connect().await;
        let answer = timeout(PATIENCE, be_slow(&mut stream, slow)).await;
        let answer = answer.unwrap_or_else(|_| panic!("row {row}: it is never ended"));
        running.counted(cut, 1).await;
        let found = answer.split(' ').nth(1).unwrap_or_default();
        assert_eq!(found, status, "row {row}: {}", answer.chars().take(100).collect::<String>());
        running.stop().await;
    }
}

/// What the client read until its connection ended.
async fn be_slow(stream: &mut TcpStream, slow: Slow) -> String {
    let send = async |stream: &mut TcpStream, text: &str| stream.write_all(text.as_bytes()).await;
    match slow {
        Slow::Rests(text) => {
            send(stream, &text).await.expect("the server reads");
            read_to_close(stream).await
        }
        Slow::Trickles(text, again) => {
            send(stream, &text).await.expect("the server reads");
            let (mut reading, mut writing) = stream.split();
            let mut read = Vec::new();
            let trickle = async {
                while writing.write_all(again.as_bytes()).await.is_ok() {
                    sleep(PAUSE).await;
                }
            };
            // However it ends, what was read is there.
            let _ = tokio::join!(reading.read_to_end(&mut read), trickle);
            String::from_utf8_lossy(&read).into_owned()
        }
        Slow::NeverReads => {
            send(stream, "GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the server reads");
            String::new()
        }
        Slow::SipsTheAnswer => {
            send(stream, "GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the server reads");
            let (mut read, mut sip) = (Vec::new(), [0; 1024]);
            while let Ok(count @ 1..) = stream.read(&mut sip).await {
                read.extend_from_slice(&sip[..count]);
                sleep(PAUSE / 20).await;
            }
            String::from_utf8_lossy(&read).into_owned()
        }
    }
}

#[tokio::test]
async fn a_large_answer_reaches_whoever_takes_it() {
    let bounds = Bounds { answer_stall: PATIENCE, answer: PATIENCE, ..Bounds::default() };
    let running = Running::start(bounds, None).await;
    let answer = running.exchange(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(answer.len() - answer.find("\r\n\r\n").expect("a head") - 4, LARGE);
    running.stop().await;
}

#[tokio::test]
async fn one_address_cannot_take_all_connections_and_all_addresses_not_more_than_there_are() {
    let bounds = Bounds { connections: 3, connections_per_address: 2, ..Bounds::default() };
    let running = Running::start(bounds, None).await;
    let from = async |address: [u8; 4]| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((address, 0).into()).expect("all of 127/8 is this machine");
        let mut stream = socket.connect(running.address).await.expect("the server listens");
        // A request would make the refusal a reset connection now and then.
        stream.write_all(b"").await.expect("nothing is written");
        stream
    };
    let held = [from([127, 0, 0, 1]).await, from([127, 0, 0, 1]).await];
    let refused = read_to_close(&mut from([127, 0, 0, 1]).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: "), "{refused}");
    assert_eq!((running.counters.of(Cut::AddressFull), running.counters.of(Cut::Full)), (1, 0));
    let mut other = from([127, 0, 0, 2]).await;
    other.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the server reads");
    read_until(&mut other, "here").await;
    assert!(read_to_close(&mut from([127, 0, 0, 3]).await).await.starts_with("HTTP/1.1 503 "));
    assert_eq!(running.counters.of(Cut::Full), 1);
    drop(held);
    // Places come back as soon as the server has seen the ends.
    let again = async {
        while !running_answers(&running).await {
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the places of closed connections are free again");
    running.stop().await;
}

async fn running_answers(running: &Running) -> bool {
    running.exchange(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.ends_with("here")
}

#[tokio::test]
async fn a_shutdown_is_not_held_up_by_whoever_is_slow() {
    let running = Running::start(Bounds { drain: SHORT, ..Bounds::default() }, None).await;
    let mut open = Vec::new();
    let body = post_head("/echo", "content-length: 9\r\n");
    for text in
        ["", "GET / HT", "GET /never HTTP/1.1\r\nhost: x\r\n\r\n", &body, "GET /large HTTP/1.1\r\n\r\n"]
    {
        let mut stream = running.connect().await;
        stream.write_all(text.as_bytes()).await.expect("the server reads");
        open.push(stream);
    }
    let mut served = running.connect().await;
    served.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the server reads");
    read_until(&mut served, "here").await;
    let (counters, all) = (Arc::clone(&running.counters), open.len() as u64 + 1);
    let connected = async {
        while counters.open_connections() < all {
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, connected).await.expect("all are accepted");
    running.stop().await;
    assert!(counters.of(Cut::Stopped) >= 3, "{}", counters.of(Cut::Stopped));
    assert_eq!(read_to_close(&mut served).await, "", "an idle connection is closed, not reset");
}

fn tls_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

/// A certificate of the tests with its key, where only we can read it.
fn put_certificate(folder: &Path, name: &str) -> TlsFiles {
    let files = TlsFiles { certificate: folder.join("server.pem"), key: folder.join("server.key") };
    fs::copy(tls_file(&format!("{name}.pem")), &files.certificate).expect("the folder is ours");
    fs::copy(tls_file(&format!("{name}.key")), &files.key).expect("the folder is ours");
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    files
}

async fn ask(running: &Running, ca: Option<&str>, host: &str) -> Result<Answer, HttpError> {
    let settings = ClientSettings { ca: ca.map(tls_file), token_file: None };
    let client = HttpClient::with(&settings).expect("the files are there");
    let address = format!("https://{host}:{}/", running.address.port());
    let bounds = quorate::service::http_client::Bounds { timeout: PATIENCE, body_bytes: 100 };
    client.get(&address, bounds).await
}

#[tokio::test]
async fn a_client_trusts_only_its_authority_and_the_name_that_it_asked_for() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let tls = Tls::start(put_certificate(folder.path(), "local")).expect("the files are right");
    let bounds = Bounds { handshake: SHORT, ..Bounds::default() };
    let running = Running::start(bounds, Some(tls)).await;
    for host in ["127.0.0.1", "localhost"] {
        let answer = ask(&running, Some("ca.pem"), host).await.expect("it is trusted");
        assert_eq!(answer.body.as_ref(), b"here");
    }
    // The system's authorities did not sign it, nor did another certificate.
    for ca in [None, Some("elsewhere.pem")] {
        let refused = ask(&running, ca, "127.0.0.1").await;
        assert!(matches!(refused, Err(HttpError::Untrusted { .. })), "{refused:?}");
    }
    running.counted(Cut::HandshakeFailed, 2).await;
    assert_eq!(running.exchange(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.find("200"), None);
    running.counted(Cut::HandshakeFailed, 3).await;
    assert_eq!(running.exchange(b"").await, "");
    running.counted(Cut::HandshakeTimeout, 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_in_use_without_a_restart_and_a_broken_one_never() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let tls = Tls::start(put_certificate(folder.path(), "elsewhere")).expect("the files are right");
    let running = Running::start(Bounds::default(), Some(tls)).await;
    let refused = ask(&running, Some("ca.pem"), "127.0.0.1").await;
    assert!(matches!(refused, Err(HttpError::Untrusted { .. })), "another name: {refused:?}");
    put_certificate(folder.path(), "local");
    let trusted = async {
        while ask(&running, Some("ca.pem"), "127.0.0.1").await.is_err() {
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, trusted).await.expect("the new certificate is in use");
    fs::write(folder.path().join("server.pem"), "broken").expect("the folder is ours");
    // Two looks at the files later it is still the last good one.
    sleep(Duration::from_secs(3)).await;
    ask(&running, Some("ca.pem"), "127.0.0.1").await.expect("the last good one is in use");
    running.stop().await;
}

/// A token of these scopes, listed, and in a file of its own.
fn put_token(folder: &Path, name: &str, scopes: &[Scope]) -> PathBuf {
    let token = Token::generate().expect("random numbers");
    let listed = ListedToken {
        name: name.parse().expect("a valid name"),
        scopes: scopes.iter().copied().collect(),
        sha256: token.digest(),
        created_ms: Default::default(),
        expires_ms: None,
    };
    add_token(&folder.join("tokens.json"), listed).expect("the folder is ours");
    let path = folder.join(format!("{name}.token"));
    fs::write(&path, token.reveal()).expect("the folder is ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    path
}

#[tokio::test]
async fn tokens_let_in_by_their_scope_until_they_are_revoked() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let reader = put_token(folder.path(), "reader", &[Scope::Read]);
    let engine = put_token(folder.path(), "engine", &[Scope::Ingest]);
    let tokens = folder.path().join("tokens.json");
    let config =
        EntranceConfig { tls: Some(put_certificate(folder.path(), "local")), tokens: Some(tokens.clone()) };
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let entrance = Entrance::open(&config, address).expect("the files are right");
    let routes = Router::new().route("/v1/status", get(async || "status")).route("/livez", get(async || ""));
    let (stop, stopping) = watch::channel(false);
    let ended = tokio::spawn(entrance.serve(listener, routes, stopping));
    let status = async |path: &str, token_file: Option<&Path>| {
        let settings =
            ClientSettings { ca: Some(tls_file("ca.pem")), token_file: token_file.map(Path::to_owned) };
        let client = HttpClient::with(&settings).expect("the files are there");
        let bounds = quorate::service::http_client::Bounds { timeout: PATIENCE, body_bytes: 1_000 };
        let answer = client.get(&format!("https://{address}{path}"), bounds).await.expect("it answers");
        answer.status.as_u16()
    };
    assert_eq!(status("/livez", None).await, 200);
    assert_eq!(status("/v1/status", None).await, 401);
    assert_eq!(status("/v1/status", Some(&reader)).await, 200);
    assert_eq!(status("/v1/status", Some(&engine)).await, 403);
    let becomes = async |token: &Path, expected: u16| {
        let wait = async {
            while status("/v1/status", Some(token)).await != expected {
                sleep(PAUSE).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the change of the list holds");
    };
    revoke_token(&tokens, &"reader".parse().expect("a name")).expect("it is listed");
    becomes(&reader, 401).await;
    let operator = put_token(folder.path(), "operator", &[Scope::Operator]);
    becomes(&operator, 200).await;
    assert_eq!(status("/v1/status", Some(&reader)).await, 401, "it stays revoked");
    stop.send_replace(true);
    timeout(PATIENCE, ended).await.expect("it ends").expect("it does not panic");
}

fn quorate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The exit code, standard output and standard error of a command that ends by itself.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = quorate(arguments).output().expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_token_is_shown_once_and_kept_as_a_hash() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (tokens, out) = (path("tokens.json"), path("agent.token"));
    let create = ["token", "create", "--tokens", &tokens, "--name"];
    let (code, shown, _) = run(&[&create[..], &["airflow", "--scope", "ingest"]].concat());
    assert_eq!(code, Some(0));
    let secret = shown.strip_suffix('\n').expect("it is one line");
    assert!(secret.starts_with("quorate_") && secret.len() == 51, "{shown:?}");
    let more = ["pool", "--scope", "agent,read", "--expires", "90d", "--out", &out];
    let (code, told, _) = run(&[&create[..], &more].concat());
    assert!(code == Some(0) && told.contains("agent.token") && !told.contains("quorate_"), "{told}");
    for file in [&tokens, &out] {
        let mode = fs::metadata(file).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(!fs::read_to_string(&tokens).expect("it is there").contains(secret));
    let (code, list, _) = run(&["token", "list", "--tokens", &tokens]);
    assert_eq!(code, Some(0));
    assert!(list.contains("airflow: ingest, made ") && list.contains("pool: agent,read, made "), "{list}");
    assert!(list.contains("valid until ") && !list.contains("quorate_"), "{list}");

    // What cannot be done is said, and changes nothing.
    let before = fs::read(&tokens).expect("it is there");
    let (code, _, said) = run(&[&create[..], &["airflow", "--scope", "read"]].concat());
    assert!(code == Some(1) && said.contains("two tokens are called airflow"), "{said}");
    let (code, _, said) = run(&[&create[..], &["new", "--scope", "read", "--out", &out]].concat());
    assert!(code == Some(1) && said.contains("cannot write"), "{said}");
    let (code, _, said) = run(&[&create[..], &["new", "--scope", "raed"]].concat());
    assert!(code == Some(2) && said.contains("'read'"), "{said}");
    let (code, _, said) = run(&["token", "revoke", "--tokens", &tokens, "airflo"]);
    assert!(code == Some(1) && said.contains("no token called airflo"), "{said}");
    let (code, _, said) = run(&["token", "list", "--tokens", &path("nothing.json")]);
    assert!(code == Some(78) && said.contains("`quorate token create` makes it"), "{said}");
    assert_eq!(fs::read(&tokens).expect("it is there"), before);

    let (code, told, _) = run(&["token", "revoke", "--tokens", &tokens, "airflow"]);
    assert!(code == Some(0) && told.contains("airflow lets nobody in any more"), "{told}");
    assert!(!run(&["token", "list", "--tokens", &tokens]).1.contains("airflow"));
}

#[test]
fn commands_refuse_to_listen_or_speak_where_others_could_read() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    put_certificate(folder.path(), "local");
    let token = put_token(folder.path(), "reader", &[Scope::Read]).display().to_string();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (cluster, certificate, key) = (path("cluster"), path("server.pem"), path("server.key"));
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policies/airflow.toml");
    let (code, _, said) = run(&["init", "--dir", &cluster, "--policy", &policy.display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    let config = path("cluster/replicas/r0/replica.toml");
    let replica = ["run", "--config", &config, "--http", "0.0.0.0:0"];
    let relay = ["relay", "--to", "http://127.0.0.1:1", "--listen", "0.0.0.0:0"];
    let tls = ["--tls-certificate", &certificate, "--tls-key", &key];
    let elsewhere = ["status", "--replica", "http://10.255.255.1:1", "--token-file", &token];
    let missing = path("nothing");
    let rows: [(&[&str], &[&str], i32, &str); 9] = [
        (&replica, &[], 78, "there is neither a certificate nor a file of tokens"),
        (&replica, &tls, 78, "there is no file of tokens"),
        (&replica, &["--tokens", &missing], 78, "there is no certificate"),
        (&replica, &["--tls-key", &key], 2, "--tls-certificate"),
        (&relay, &[], 78, "there is neither a certificate nor a file of tokens"),
        (&relay, &tls, 78, "listen on 127.0.0.1"),
        (&elsewhere, &[], 2, "a token is sent there only over https://"),
        (&["status", "--token-file", &missing], &[], 78, "cannot read"),
        (&["status", "--ca", &token], &[], 78, "holds no certificate in PEM form"),
    ];
    for (command, more, code, words) in rows {
        let arguments = [command, more].concat();
        let (ended, _, said) = run(&arguments);
        assert!(ended == Some(code) && said.contains(words), "{arguments:?}: {ended:?} {said}");
        assert!(!said.contains("quorate_"), "a token is never repeated: {said}");
    }
    // With everything given, files that cannot be used are named.
    let tokens = path("tokens.json");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let (code, _, said) = run(&[&replica[..], &tls, &["--tokens", &tokens]].concat());
    assert!(code == Some(78) && said.contains("others can read the TLS key"), "{code:?} {said}");
}

#[test]
fn a_replica_beyond_this_machine_is_asked_with_its_certificate_and_a_token() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let TlsFiles { certificate, key } = put_certificate(folder.path(), "local");
    let reader = put_token(folder.path(), "reader", &[Scope::Read]).display().to_string();
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policies/airflow.toml");
    let (code, _, said) =
        run(&["init", "--dir", &path("cluster"), "--policy", &policy.display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let port = port.expect("a free port").port();
    let mut replica = quorate(&["run", "--config", &path("cluster/replicas/r0/replica.toml")])
        .args(["--http", &format!("0.0.0.0:{port}"), "--listen", "127.0.0.1:0"])
        .args(["--tokens", &path("tokens.json")])
        .arg("--tls-certificate")
        .arg(&certificate)
        .arg("--tls-key")
        .arg(&key)
        .env(END_WITH_PARENT, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(fs::File::create(path("log")).expect("the folder is ours"))
        .spawn()
        .expect("the binary starts");
    let (address, ca) = (format!("https://localhost:{port}"), tls_file("ca.pem").display().to_string());
    let status = ["status", "--replica", &address, "--ca", &ca];
    let with_token = [&status[..], &["--token-file", &reader]].concat();
    // Alone it has no quorum and says so; that is an answer.
    let answered = (0..PATIENCE.as_secs()).any(|_| {
        let answered = run(&with_token).0 == Some(3);
        if !answered {
            // Between two looks: the replica is still starting.
            std::thread::sleep(Duration::from_secs(1));
        }
        answered
    });
    let (code, told, _) = run(&status);
    let (distrusted, why, _) = run(&["status", "--replica", &address, "--token-file", &reader]);
    drop(replica.stdin.take());
    let ended = replica.wait().expect("it is a child");
    let log = fs::read_to_string(path("log")).unwrap_or_default();
    assert!(answered, "{log}");
    assert!(ended.success(), "{log}");
    assert!(code == Some(1) && told.contains("401") && told.contains("scope read or operator"), "{told}");
    assert!(distrusted == Some(1) && why.contains("is not trusted: "), "{why}");
}
