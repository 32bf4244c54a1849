//! A replica's interface over the fixture cluster, and one request to it.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt as _;

use super::{AgentApi, router};
use crate::{
    execute::feed::Feed,
    knowledge::{
        command::Command,
        fixtures::{agent_key, committee, target, verified_root},
    },
};

pub(super) struct Replica {
    pub(super) api: AgentApi,
    pub(super) feed: watch::Sender<Arc<Feed>>,
    pub(super) commands: mpsc::Receiver<Command>,
}

impl Replica {
    /// A replica whose queue holds one receipt.
    pub(super) fn new() -> Self {
        let (feed, seen) = watch::channel(Arc::new(Feed::new(verified_root(), [target()])));
        let (sender, commands) = mpsc::channel(1);
        let api = AgentApi {
            feed: seen,
            cluster: committee().cluster(),
            agents: Arc::new(BTreeMap::from([(target(), agent_key().public())])),
            commands: sender,
        };
        Self { api, feed, commands }
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
