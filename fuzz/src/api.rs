//! What clients ask of a replica's API: any method, path, query and body, over a feed with a plan and a head.
//!
//! No socket and no clock: a request that waits for news is left waiting. Invariant: every answer has a status that
//! names no failure of the replica, and its body is JSON.

use std::{
    pin::pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, Waker},
};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt as _;
use quorate::{
    execute::feed::Feed,
    knowledge::{certified::Certified, command::Command, head::HEAD_TYPE, plan::PLAN_TYPE},
    service::api::{AgentApi, Members, RefusedDocuments, queues, router},
};
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::{
    commands::{head, plan, receipt, stop},
    evidence::double_vote,
    script::Script,
    world::{WORLD, sealed},
};

const PATHS: [&str; 10] = [
    "/v1/heads",
    "/v1/plans",
    "/v1/roots/1",
    "/v1/roots/",
    "/v1/receipts",
    "/v1/operator-requests",
    "/v1/operator-requests/",
    "/",
    "/v1/evidence",
    "/v1/evidence/",
];

/// Timers must have somewhere to live; nothing runs there.
static TIMERS: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("timers need nothing that could be missing")
});

static FEED: LazyLock<Arc<Feed>> = LazyLock::new(|| {
    let targets = WORLD.genesis.targets.iter().map(|target| target.id.clone());
    let mut feed = Feed::new(WORLD.root.clone(), targets);
    let plan = plan(1, 1);
    let certified = |kind: &str, body: Vec<u8>| sealed(kind, body, &WORLD.replicas);
    let verified = Certified::verify(&certified(PLAN_TYPE, plan.to_bytes()), WORLD.committee());
    assert!(feed.log_plan(verified.expect("the plan is certified")));
    let head = certified(HEAD_TYPE, head(&plan, 1).to_bytes());
    assert!(feed.publish_head(Certified::verify(&head, WORLD.committee()).expect("the head is certified")));
    Arc::new(feed)
});

/// Requests, one after the other, to one replica.
pub fn requests(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut state = WORLD.state();
    let proven = Command::Evidence(double_vote(1, 1)).encode();
    drop(state.apply(&proven.head, &proven.body));
    let members = Members {
        genesis: WORLD.genesis.clone(),
        operators: WORLD.root.operators().clone(),
        committee: WORLD.committee().clone(),
    };
    let (_feed, feed) = watch::channel(Arc::clone(&FEED));
    let (_operations, operations) = watch::channel(Arc::new(state.operations().clone()));
    let (_evidence, evidence) = watch::channel(Arc::new(state.evidence().clone()));
    let (_requests, requests) = watch::channel(Arc::default());
    let refused = RefusedDocuments::default();
    // Nobody takes anything in: what is handed over waits in the queue.
    let (submitter, _submissions) = queues(refused.clone());
    let api =
        AgentApi { feed, members: Arc::new(members), operations, evidence, requests, submitter, refused };
    for _ in 0..8 {
        if script.is_over() {
            break;
        }
        if let Some(request) = request(&mut script) {
            ask(&api, request);
        }
    }
}

fn request(script: &mut Script<'_>) -> Option<Request<Body>> {
    let path = PATHS[script.pick(PATHS.len())];
    let method = if script.pick(4) == 0 { Method::POST } else { Method::GET };
    let mut uri = path.as_bytes().to_vec();
    if script.flag() {
        uri.push(b'?');
    }
    let length = usize::from(script.byte());
    uri.extend_from_slice(script.take(length));
    let body = match script.pick(4) {
        0 => script.bytes().to_vec(),
        1 => receipt(&plan(1, script.number()), script.number(), &WORLD.agents[script.pick(3)]),
        2 => stop(script.number(), &WORLD.operators[script.pick(3)]),
        _ => {
            let mut changed = stop(1, &WORLD.operators[0]);
            script.mutate(&mut changed);
            changed
        }
    };
    let method = if body.is_empty() { method } else { Method::POST };
    Request::builder().method(method).uri(uri.as_slice()).body(Body::from(body)).ok()
}

fn ask(api: &AgentApi, request: Request<Body>) {
    let _timers = TIMERS.enter();
    let answer = async {
        let response = router(api.clone()).oneshot(request).await.expect("a router does not fail");
        let status = response.status();
        (status, response.into_body().collect().await.expect("the body is in memory").to_bytes())
    };
    let mut answer = pin!(answer);
    if let Poll::Ready((status, body)) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        let is_busy = status == StatusCode::SERVICE_UNAVAILABLE;
        assert!(is_busy || !status.is_server_error(), "{status}");
        let unrouted =
            [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status) && body.is_empty();
        assert!(unrouted || serde_json::from_slice::<serde_json::Value>(&body).is_ok(), "{status}: {body:?}");
    }
}
