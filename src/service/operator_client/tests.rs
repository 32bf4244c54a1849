//! The operator's client against replicas that are busy, silent or lie.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::Path, http::StatusCode, routing::get, routing::post};
use serde_json::{Value, json};

use super::{Handed, OperatorClient, OperatorClientError};
use crate::{
    knowledge::{
        fixtures::{committee, operator_keys, owner_keys, root, seal, target, verified_root},
        head::Mode,
        operator_request::{OperatorRequest, Request, Selection, StopMode},
        root::{ROOT_TYPE, Root},
    },
    service::{
        http_client::HttpClient,
        status::{StatusSnapshot, StopStatus, tests::snapshot},
    },
    types::{Digest, Envelope, Epoch, UnixMillis},
};

/// Long enough for a loaded machine; the tests that wait for the end of it take less.
const PATIENCE: Duration = Duration::from_secs(60);

async fn serve(routes: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(axum::serve(listener, routes).into_future());
    address
}

async fn client(replicas: Vec<Router>, patience: Duration) -> OperatorClient {
    let mut addresses = Vec::new();
    for replica in replicas {
        addresses.push(serve(replica).await);
    }
    OperatorClient::new(HttpClient::new(), &addresses, patience)
}

/// Takes every connection and never answers.
fn silent() -> Router {
    Router::new().fallback(std::future::pending::<()>)
}

fn serving_root(envelope: &[u8]) -> Router {
    let root: Value = serde_json::from_slice(envelope).expect("it is JSON");
    Router::new().route("/v1/roots/1", get(async move || Json(root)))
}

/// A root of somebody who appointed himself.
fn false_root() -> Vec<u8> {
    let own = Root { operators: Vec::new(), ..root() };
    seal(ROOT_TYPE, own.to_bytes(), &owner_keys())
}

#[tokio::test]
async fn without_a_pinned_root_one_replica_can_neither_fake_nor_hold_up_it() {
    let honest = || serving_root(&verified_root().envelope().to_json());
    let liar = || serving_root(&false_root());
    for other in [liar(), silent(), Router::new()] {
        let client = client(vec![honest(), other, honest(), honest()], PATIENCE).await;
        let served = client.root(|_, _| {}).await.expect("three of four serve it");
        assert_eq!(served.root, verified_root());
        assert_eq!(served.served_by, 3, "it is believed as soon as more than half serve it");
    }
    // With as many liars as honest ones there is nobody to believe, and nobody is waited for.
    let client = client(vec![honest(), liar(), honest(), liar()], PATIENCE).await;
    let refused = client.root(|_, _| {}).await.expect_err("two against two");
    assert!(refused.to_string().contains("--root"), "{refused}");
}

fn stop() -> OperatorRequest {
    OperatorRequest {
        v: 1,
        cluster: committee().cluster(),
        epoch: Epoch::new(1),
        counter: 7,
        expires_at: UnixMillis::new(4_000_000_000_000),
        request: Request::Stop { targets: Selection::These([target()].into()), mode: StopMode::Hold },
    }
}

fn envelope() -> (Envelope, Digest) {
    (stop().sign(&operator_keys()[0]), Digest::of(&stop().to_bytes()))
}

fn committed(digest: Digest, number: u64) -> Value {
    json!({
        "digest": digest,
        "operator": "ana",
        "height": 7,
        "status": "committed",
        "request": stop().request,
        "heads": [{"shard": 0, "number": number}],
    })
}

/// A replica that answers so to what it is handed, and tells this of every request's end.
fn replica(taken: impl Fn() -> StatusCode + Clone + Send + Sync + 'static, number: Option<u64>) -> Router {
    let take = post(async move || (taken(), Json(json!({"error": "it says no"}))));
    let end = get(async move |Path(digest): Path<Digest>| match number {
        Some(number) => Ok(Json(committed(digest, number))),
        None => Err(StatusCode::NOT_FOUND),
    });
    Router::new().route("/v1/operator-requests", take).route("/v1/operator-requests/{digest}", end)
}

async fn deliver(client: &OperatorClient) -> (Result<u64, OperatorClientError>, Vec<Handed>) {
    let (envelope, digest) = envelope();
    let mut heard = Vec::new();
    let delivered =
        client.deliver(&envelope, digest, &verified_root(), |_, said| heard.push(said.clone())).await;
    (delivered.map(|committed| committed.marks[0].number.number()), heard)
}

#[tokio::test]
async fn a_request_is_handed_again_to_those_that_were_busy() {
    let asked = Arc::new(AtomicUsize::new(0));
    let busy = || {
        let asked = Arc::clone(&asked);
        replica(
            move || match asked.fetch_add(1, Ordering::Relaxed) {
                0..6 => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::ACCEPTED,
            },
            Some(12),
        )
    };
    let client = client(vec![busy(), busy(), silent(), silent()], PATIENCE).await;
    let (delivered, heard) = deliver(&client).await;
    assert_eq!(delivered.expect("two of four are honest enough"), 12);
    assert!(asked.load(Ordering::Relaxed) >= 8, "each was asked until it took it");
    assert!(heard.contains(&Handed::Taken) && heard.iter().any(|said| matches!(said, Handed::Unanswered(_))));
}

#[tokio::test]
async fn one_liar_can_neither_fake_nor_refuse_an_end_and_nobody_waits_for_it() {
    let honest = || replica(|| StatusCode::ACCEPTED, Some(12));
    let liars = [
        replica(|| StatusCode::ACCEPTED, Some(13)),
        replica(|| StatusCode::FORBIDDEN, None),
        replica(|| StatusCode::ACCEPTED, None),
        silent(),
    ];
    for liar in liars {
        let client = client(vec![liar, honest(), honest(), honest()], PATIENCE).await;
        assert_eq!(deliver(&client).await.0.expect("three say so"), 12);
    }
    // Whatever a liar takes, what three refuse is refused.
    let refuses = || replica(|| StatusCode::CONFLICT, None);
    let takes = replica(|| StatusCode::ACCEPTED, Some(13));
    let client = client(vec![takes, refuses(), refuses(), refuses()], PATIENCE).await;
    let refused = deliver(&client).await.0.expect_err("three refuse it");
    assert!(matches!(&refused, OperatorClientError::Refused(words) if words == &["it says no"]), "{refused}");
}

/// A replica that was started again after the request was ordered, and knows only whether it took effect.
fn forgetful(took_effect: bool) -> Router {
    let told = move |digest: Digest| {
        Json(json!({
            "digest": digest, "operator": "ana", "status": "ordered_before", "took_effect": took_effect,
        }))
    };
    let take = post(async move || told(envelope().1));
    let end = get(async move |Path(digest): Path<Digest>| told(digest));
    Router::new().route("/v1/operator-requests", take).route("/v1/operator-requests/{digest}", end)
}

#[tokio::test]
async fn a_request_that_was_ordered_before_the_replicas_began_stands_or_not_as_they_say() {
    let knows = || replica(|| StatusCode::ACCEPTED, Some(12));
    let (envelope, digest) = envelope();
    let root = verified_root();
    // Both say it; of the others one remembers the block, and one says otherwise.
    for (replicas, patience) in [
        (vec![forgetful(true), forgetful(true), silent(), forgetful(false)], PATIENCE),
        (vec![forgetful(true), knows(), silent(), silent()], Duration::from_secs(3)),
    ] {
        let client = client(replicas, patience).await;
        let delivered = client.deliver(&envelope, digest, &root, |_, _| {}).await;
        match delivered {
            Ok(committed) => {
                assert!(committed.outcome.outcome.took_effect() && committed.marks.is_empty());
            }
            Err(error) => panic!("{error}"),
        }
    }
    let client = client(vec![forgetful(false), forgetful(false), silent(), knows()], PATIENCE).await;
    let refused = client.deliver(&envelope, digest, &root, |_, _| {}).await.expect_err("two say so");
    assert!(refused.to_string().contains("ordered before and refused"), "{refused}");
}

#[tokio::test]
async fn a_replica_where_the_key_has_no_more_room_is_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let full = || {
        let asked = Arc::clone(&asked);
        replica(
            move || match asked.fetch_add(1, Ordering::Relaxed) {
                0..8 => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::ACCEPTED,
            },
            Some(12),
        )
    };
    let client = client(vec![full(), full(), full(), full()], PATIENCE).await;
    assert_eq!(deliver(&client).await.0.expect("there is room at last"), 12);
}

#[tokio::test]
async fn what_no_replica_takes_or_commits_is_told_at_the_deadline() {
    let busy = || replica(|| StatusCode::SERVICE_UNAVAILABLE, None);
    let short = Duration::from_millis(500);
    let nobody = client(vec![busy(), busy()], short).await;
    let error = deliver(&nobody).await.0.expect_err("nobody takes it");
    assert!(matches!(error, OperatorClientError::Unanswered(_)), "{error}");
    let taken = client(vec![replica(|| StatusCode::ACCEPTED, None), busy()], Duration::from_secs(3)).await;
    let error = deliver(&taken).await.0.expect_err("it is never committed");
    assert!(
        matches!(&error, OperatorClientError::NotCommitted { taken: 1, given: 2, said } if said.len() == 1),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_in_force_is_what_f_plus_one_replicas_say() {
    let stopped = |counters: &[u64]| {
        let mut status = snapshot();
        status.targets[0].stopped_by = counters
            .iter()
            .map(|counter| StopStatus {
                operator: "bea".to_owned(),
                mode: Mode::Hold,
                keyid: operator_keys()[1].public().id(),
                counter: *counter,
                since_ms: None,
            })
            .collect();
        status
    };
    let serving = |status: StatusSnapshot| Router::new().route("/v1/status", get(async move || Json(status)));
    let pool = snapshot().targets[0].target.clone();
    // A liar names a stop that nobody has given, so that a later one could be lifted with it.
    let replicas =
        vec![serving(stopped(&[u64::MAX])), serving(stopped(&[5])), silent(), serving(stopped(&[5]))];
    let client = client(replicas, PATIENCE).await;
    let these = |name| Selection::These([name].into());
    let in_force = client.in_force(&these(pool.clone()), &verified_root(), |_, _| {}).await;
    let in_force = in_force.expect("two of four say so");
    assert_eq!((in_force.said_by, in_force.stops[&pool][0].counter), (2, 5));
    let unknown = client.in_force(&these(target()), &verified_root(), |_, _| {}).await;
    assert!(matches!(unknown, Err(OperatorClientError::UnknownTarget(_))), "{unknown:?}");
}
