//! A replica's interface over the fixture cluster, and one request to it.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt as _;

use super::{AgentApi, Members, RefusedDocuments, RequestLog, router};
use crate::{
    execute::feed::Feed,
    knowledge::{
        change::Change,
        command::Command,
        fixtures::{agent_key, committee, target, verified_root},
        fold::State,
        genesis::{Genesis, Parameters},
        policy::{Target, TargetKind},
    },
    types::{Height, Millis},
};

pub(super) struct Replica {
    pub(super) api: AgentApi,
    pub(super) feed: watch::Sender<Arc<Feed>>,
    pub(super) commands: mpsc::Receiver<Command>,
    requests: watch::Sender<Arc<RequestLog>>,
}

/// The fixture's target, which belongs to owner-0.
fn genesis() -> Genesis {
    let target = Target {
        id: target(),
        kind: TargetKind::Pool { initial: 3, min: 1, max: 12, max_step: 4 },
        cooldown: Millis::ZERO,
        plans_per_hour: 4,
        owner: "owner-0".to_owned(),
        agent: agent_key().public(),
    };
    let parameters = Parameters::for_window(Millis::from_secs(10));
    Genesis { parameters, targets: vec![target], policies: Vec::new() }
}

/// An interface before the first block.
pub(crate) fn api_over(feed: watch::Receiver<Arc<Feed>>, commands: mpsc::Sender<Command>) -> AgentApi {
    let operators = verified_root().operators().clone();
    let state = State::new(genesis(), committee(), operators.clone()).expect("the genesis is sound");
    AgentApi {
        feed,
        members: Arc::new(Members { genesis: genesis(), operators, committee: committee() }),
        // What is in them can be read after their senders are gone.
        operations: watch::channel(Arc::new(state.operations().clone())).1,
        requests: watch::channel(Arc::default()).1,
        commands,
        refused: RefusedDocuments::default(),
    }
}

impl Replica {
    /// A replica whose queue holds one receipt.
    pub(super) fn new() -> Self {
        let (feed, seen) = watch::channel(Arc::new(Feed::new(verified_root(), [target()])));
        let (sender, commands) = mpsc::channel(1);
        let (requests, outcomes) = watch::channel(Arc::default());
        let api = AgentApi { requests: outcomes, ..api_over(seen, sender) };
        Self { api, feed, commands, requests }
    }

    /// A block at this height changed this.
    pub(super) fn note(&self, change: &Change, height: Height) {
        self.requests.send_modify(|log| {
            Arc::make_mut(log).note(change, height);
        });
    }

    /// How many documents were refused for this reason.
    pub(super) fn refused_for(&self, reason: &str) -> u64 {
        self.api
            .refused
            .counts()
            .iter()
            .filter(|(_, _, why, _)| *why == reason)
            .map(|(.., count)| count)
            .sum()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Feed)) {
        self.feed.send_modify(|feed| change(Arc::make_mut(feed)));
    }

    pub(super) async fn get(&self, uri: &str) -> (StatusCode, Value) {
        self.send(Request::get(uri).body(Body::empty()).expect("a valid request")).await
    }

    pub(super) async fn post(&self, uri: &str, body: Vec<u8>) -> (StatusCode, Value) {
        self.send(Request::post(uri).body(Body::from(body)).expect("a valid request")).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = router(self.api.clone()).oneshot(request).await.expect("a router does not fail");
        let status = response.status();
        let body = response.into_body().collect().await.expect("the body is in memory").to_bytes();
        (status, serde_json::from_slice(&body).expect("every answer is JSON"))
    }
}
