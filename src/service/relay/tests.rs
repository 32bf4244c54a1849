//! The relay between real sockets: every replica gets every body, and one that is down costs the others
//! nothing.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    routing::post,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;

use super::{BOUNDS, Forwarded, Lane, MAX_QUEUED_BODIES, Relay, ReplicaCounts};
use crate::service::{clock::Stopwatch, http_client::HttpClient};

type Seen = Arc<Mutex<Vec<(Option<HeaderValue>, Bytes)>>>;

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(axum::serve(listener, router).into_future());
    format!("http://{address}/v1/metrics")
}

/// A replica that answers with these statuses in turn, then 200, and notes what it got.
async fn replica(statuses: &[StatusCode]) -> (String, Seen) {
    let seen = Seen::default();
    let answers = Arc::new(Mutex::new(statuses.to_vec()));
    let take = async |State((seen, answers)): State<(Seen, Arc<Mutex<Vec<StatusCode>>>)>,
                      headers: HeaderMap,
                      body: Bytes| {
        let encoding = headers.get(header::CONTENT_ENCODING).cloned();
        seen.lock().expect("nobody panics").push((encoding, body));
        answers.lock().expect("nobody panics").pop().unwrap_or(StatusCode::OK)
    };
    let router = Router::new().route("/v1/metrics", post(take)).with_state((Arc::clone(&seen), answers));
    (serve(router).await, seen)
}

async fn settled(relay: &Relay) -> Vec<ReplicaCounts> {
    let all_settled = async {
        while relay.counts().iter().any(|counts| counts.queued > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_settled).await.expect("the queues empty in time");
    relay.counts()
}

#[tokio::test]
async fn every_replica_gets_the_clients_own_bytes_and_a_refusal_is_not_repeated() {
    let (first, first_seen) = replica(&[]).await;
    let (second, second_seen) = replica(&[StatusCode::SERVICE_UNAVAILABLE]).await;
    let (third, third_seen) = replica(&[StatusCode::BAD_REQUEST]).await;
    let relay = Relay::start([first, second, third]);
    let door = serve(relay.routes()).await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"{}").expect("memory can be written");
    let body = Bytes::from(gzip.finish().expect("memory can be written"));
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
    ]);
    let answer = HttpClient::new().forward(&door, headers, body.clone(), BOUNDS).await.expect("it answers");
    assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, b"{}".as_ref()));
    let counts = settled(&relay).await;
    let of = |counts: &ReplicaCounts| (counts.sent, counts.refused, counts.dropped);
    assert_eq!(counts.iter().map(of).collect::<Vec<_>>(), [(1, 0, 0), (1, 0, 0), (0, 1, 0)]);
    for (seen, times) in [(first_seen, 1), (second_seen, 2), (third_seen, 1)] {
        let got = (Some(HeaderValue::from_static("gzip")), body.clone());
        assert_eq!(*seen.lock().expect("nobody panics"), vec![got; times]);
    }
}

#[tokio::test]
async fn a_replica_that_is_down_costs_the_others_nothing() {
    let (up, seen) = replica(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let down = format!("http://{}/", listener.local_addr().expect("it is bound"));
    drop(listener);
    let relay = Relay::start([down, up]);
    let door = serve(relay.routes()).await;
    for _ in 0..3 {
        let answer = HttpClient::new().post(&door, "application/json", "{}", BOUNDS).await;
        assert_eq!(answer.expect("it answers").status, StatusCode::OK);
    }
    let all_sent = async {
        while relay.counts()[1].sent < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_sent).await.expect("the other replica gets all");
    assert_eq!(seen.lock().expect("nobody panics").len(), 3);
    assert_eq!(relay.counts()[0].queued, 3);
    let left = relay.stop().await;
    assert_eq!((left[0].queued, left[0].dropped), (0, 3));
}

#[tokio::test]
async fn what_no_replica_would_take_is_refused_at_once() {
    let (up, seen) = replica(&[]).await;
    let relay = Relay::start([up]);
    let door = serve(relay.routes()).await;
    for (media_type, body, status) in
        [("application/json", "{", 400), ("text/plain", "{}", 415), ("application/x-protobuf", "{}", 400)]
    {
        let answer = HttpClient::new().post(&door, media_type, body, BOUNDS).await.expect("it answers");
        assert_eq!(answer.status, status, "{media_type}");
    }
    assert_eq!(settled(&relay).await[0].sent, 0);
    assert!(seen.lock().expect("nobody panics").is_empty());
}

#[tokio::test]
async fn a_full_queue_drops_the_oldest() {
    let lane = Lane {
        address: String::new(),
        waiting: Mutex::default(),
        arrived: tokio::sync::Notify::new(),
        under_way: 0.into(),
        sent: 0.into(),
        refused: 0.into(),
        dropped: 0.into(),
    };
    for number in 0..MAX_QUEUED_BODIES + 2 {
        let body = Bytes::from(number.to_string());
        lane.push(Forwarded { headers: HeaderMap::new(), body, waited: Stopwatch::start() });
    }
    assert_eq!(lane.counts().dropped, 2);
    assert_eq!(lane.pop().await.body, "2");
}
