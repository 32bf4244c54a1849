//! A replica's interface over the fixture cluster, and one request to it.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::{AgentApi, Members, RefusedDocuments, RequestLog, Submission, Submissions, queues, router};
use crate::{
    consensus::Rejected,
    execute::feed::Feed,
    knowledge::{
        change::Change,
        command::Command,
        fixtures::{agent_key, committee, target, verified_root},
        fold::{Operations, State},
        genesis::{Genesis, Parameters},
        policy::{Target, TargetKind},
    },
    types::{Evidence, Height, Millis},
};

pub(super) struct Replica {
    pub(super) api: AgentApi,
    pub(super) feed: watch::Sender<Arc<Feed>>,
    /// What was handed in, oldest first; the control task would have it ordered.
    pub(super) taken: Vec<Command>,
    /// What consensus says to it.
    pub(super) answer: Result<(), Rejected>,
    submissions: Option<Submissions>,
    operations: watch::Sender<Arc<Operations>>,
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
pub(crate) fn api_over(feed: watch::Receiver<Arc<Feed>>) -> (AgentApi, Submissions) {
    let operators = verified_root().operators().clone();
    let state = State::new(genesis(), committee(), operators.clone()).expect("the genesis is sound");
    let refused = RefusedDocuments::default();
    let (submitter, submissions) = queues(refused.clone());
    let api = AgentApi {
        feed,
        members: Arc::new(Members { genesis: genesis(), operators, committee: committee() }),
        // What is in them can be read after their senders are gone.
        operations: watch::channel(Arc::new(state.operations().clone())).1,
        requests: watch::channel(Arc::default()).1,
        evidence: watch::channel(Arc::default()).1,
        submitter,
        refused,
    };
    (api, submissions)
}

impl Replica {
    /// A replica whose consensus takes everything in.
    pub(super) fn new() -> Self {
        let (feed, seen) = watch::channel(Arc::new(Feed::new(verified_root(), [target()])));
        let (requests, outcomes) = watch::channel(Arc::default());
        let (api, submissions) = api_over(seen);
        let (operations, ordered) = watch::channel(Arc::clone(&api.operations.borrow()));
        let api = AgentApi { requests: outcomes, operations: ordered, ..api };
        let submissions = Some(submissions);
        Self { api, feed, taken: Vec::new(), answer: Ok(()), submissions, operations, requests }
    }

    /// Its control task ends.
    pub(super) fn stop(&mut self) {
        self.submissions = None;
    }

    /// The agent's receipt with this counter is logged.
    pub(super) fn log_receipt(&self, counter: u64) {
        let taken = |operations: &mut Arc<Operations>| {
            Arc::make_mut(operations).take_receipt_counter(0, agent_key().public().id(), counter)
        };
        self.operations
            .send_modify(|operations| assert!(taken(operations).is_some(), "it is not logged yet"));
    }

    /// An operator's request is ordered in a block that was not seen here.
    pub(super) fn order(&self, envelope: &[u8]) {
        let operators = verified_root().operators().clone();
        let mut state = State::new(genesis(), committee(), operators).expect("the genesis is sound");
        let command = Command::OperatorRequest { envelope: envelope.to_vec() }.encode();
        state.apply(&command.head, &command.body);
        self.operations.send_replace(Arc::new(state.operations().clone()));
    }

    /// It starts again from the state that it has.
    pub(super) fn restart(&self) {
        let mut log = RequestLog::default();
        log.restore(&self.operations.borrow(), &self.api.members.operators);
        self.requests.send_replace(Arc::new(log));
    }

    /// A block at this height changed this.
    pub(super) fn note(&self, change: &Change, height: Height) {
        self.requests.send_modify(|log| {
            Arc::make_mut(log).note(change, height);
        });
    }

    /// This evidence was ordered.
    pub(super) fn prove(&mut self, evidence: Evidence) {
        let mut state = State::new(genesis(), committee(), verified_root().operators().clone())
            .expect("the genesis is sound");
        let command = Command::Evidence(evidence).encode();
        state.apply(&command.head, &command.body);
        self.api.evidence = watch::channel(Arc::new(state.evidence().clone())).1;
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

    /// For what is no JSON.
    pub(super) async fn get_bytes(&self, uri: &str) -> (StatusCode, Vec<u8>) {
        let request = Request::get(uri).body(Body::empty()).expect("a valid request");
        send_bytes(self.api.clone(), request).await
    }

    pub(super) async fn post(&mut self, uri: &str, body: Vec<u8>) -> (StatusCode, Value) {
        let request = Request::post(uri).body(Body::from(body)).expect("a valid request");
        let api = self.api.clone();
        let Some(submissions) = &mut self.submissions else { return send(api, request).await };
        let control = async {
            while let Some(Submission { command, answer, .. }) = submissions.next().await {
                self.taken.push(Command::decode(command.head(), command.body()).expect("it is one"));
                answer.send(self.answer).expect("somebody waits");
            }
        };
        tokio::select! {
            answer = send(api, request) => answer,
            () = control => unreachable!("the API can submit"),
        }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        send(self.api.clone(), request).await
    }
}

async fn send(api: AgentApi, request: Request<Body>) -> (StatusCode, Value) {
    let (status, body) = send_bytes(api, request).await;
    (status, serde_json::from_slice(&body).expect("every other answer is JSON"))
}

async fn send_bytes(api: AgentApi, request: Request<Body>) -> (StatusCode, Vec<u8>) {
    let response = router(api).oneshot(request).await.expect("a router does not fail");
    let status = response.status();
    let body = response.into_body().collect().await.expect("the body is in memory").to_bytes();
    (status, body.to_vec())
}
