//! The HTTP interface for agents and operators: one file an endpoint. It serves what the feed holds and hands receipts
//! and requests on; it decides nothing, and whoever reads its answers verifies them.
//!
//! Invariant: an answer other than success is JSON with a field `error` that says what is wrong.

mod bundles;
mod evidence;
mod heads;
mod operator_requests;
mod plans;
mod receipts;
mod refused;
mod request_log;
mod roots;
mod submissions;
mod waiting;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::rejection::{BytesRejection, PathRejection, QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    execute::feed::Feed,
    knowledge::{
        fold::{EvidenceLog, Operations, Parties},
        genesis::Genesis,
        root::Operators,
    },
    types::Committee,
};

pub use evidence::ProvenOffences;
pub use refused::{DocumentKind, RefusedDocuments, Stage};
pub use request_log::{HeadMark, Outcome, RequestLog, RequestOutcome};
pub use submissions::{Submission, Submissions, Submitter, queues};
pub use waiting::Waiting;

/// The longest that a request may wait for news, in seconds; a longer `wait` means this. Proxies between an
/// agent and a replica usually give up after 60 s.
pub const LONGEST_WAIT_SECONDS: u64 = 30;

/// Everything that the endpoints need.
#[derive(Clone, Debug)]
pub struct AgentApi {
    /// What is served; a change wakes the requests that wait.
    pub feed: watch::Receiver<Arc<Feed>>,
    /// Who takes part.
    pub members: Arc<Members>,
    /// What operators have ordered: whose receipts count, and which counters are used.
    pub operations: watch::Receiver<Arc<Operations>>,
    /// What became of operators' requests; a change wakes the requests that wait.
    pub requests: watch::Receiver<Arc<RequestLog>>,
    /// Which replicas are proven to have broken a rule.
    pub evidence: watch::Receiver<Arc<EvidenceLog>>,
    /// Where verified receipts and requests go to be ordered.
    pub submitter: Submitter,
    /// Counts the documents that are refused here.
    pub refused: RefusedDocuments,
}

/// Who takes part in an epoch, and in what.
#[derive(Clone, Debug)]
pub struct Members {
    /// Targets and their owners.
    pub genesis: Genesis,
    /// The operators of the root.
    pub operators: Operators,
    /// The replicas.
    pub committee: Committee,
}

impl Members {
    /// What requests are judged against.
    #[must_use]
    pub const fn parties(&self) -> Parties<'_> {
        Parties { genesis: &self.genesis, operators: &self.operators, committee: &self.committee }
    }
}

/// The endpoints under `/v1`, with their state.
pub fn router(api: AgentApi) -> Router {
    Router::new()
        .merge(heads::router())
        .merge(plans::router())
        .merge(bundles::router())
        .merge(roots::router())
        .merge(receipts::router())
        .merge(operator_requests::router())
        .merge(evidence::router())
        .with_state(api)
}

/// Waits until `look` finds news in the feed, at most `seconds`; then `None`. It also ends when the replica
/// stops, so that waiting agents do not hold a shutdown up.
async fn news<T>(api: &AgentApi, seconds: Option<u64>, look: impl Fn(&Feed) -> Option<T>) -> Option<T> {
    let mut feed = api.feed.clone();
    let mut found = None;
    let wait = Duration::from_secs(seconds.unwrap_or(0).min(LONGEST_WAIT_SECONDS));
    let search = feed.wait_for(|feed| {
        found = look(feed);
        found.is_some()
    });
    // A timeout and a closed feed leave the same: nothing found.
    drop(tokio::time::timeout(wait, search).await);
    found
}

/// An answer other than success.
#[derive(Debug, PartialEq, Eq)]
enum ApiError {
    /// The request is malformed.
    BadRequest(String),
    /// The thing asked for does not exist.
    NotFound(String),
    /// The body is larger than any document.
    TooLarge(String),
    /// The document does not verify.
    Refused(String),
    /// It contradicts what is committed.
    Conflict(String),
    /// There is no room; the same request may pass later.
    Busy,
    /// There is no more room for this signer; the same request may pass later.
    TooMany(String),
    /// The replica is shutting down.
    Stopping,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
        }
        let answer = |status: StatusCode, error: String| (status, Json(Body { error })).into_response();
        let later = |status: StatusCode, error: String| {
            let retry = [(header::RETRY_AFTER, "1")];
            (retry, answer(status, error)).into_response()
        };
        let unavailable = |error: &str| later(StatusCode::SERVICE_UNAVAILABLE, error.to_owned());
        match self {
            Self::BadRequest(error) => answer(StatusCode::BAD_REQUEST, error),
            Self::NotFound(error) => answer(StatusCode::NOT_FOUND, error),
            Self::TooLarge(error) => answer(StatusCode::PAYLOAD_TOO_LARGE, error),
            Self::Refused(error) => answer(StatusCode::FORBIDDEN, error),
            Self::Conflict(error) => answer(StatusCode::CONFLICT, error),
            Self::Busy => unavailable("too many commands wait for their order; try again"),
            Self::TooMany(error) => later(StatusCode::TOO_MANY_REQUESTS, error),
            Self::Stopping => unavailable("this replica is stopping; ask another"),
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::BadRequest(rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::BadRequest(rejection.body_text())
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Self::TooLarge(format!("a document has at most {} bytes", crate::types::MAX_ENVELOPE_BYTES))
        } else {
            Self::BadRequest(rejection.body_text())
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
