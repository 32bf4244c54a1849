//! `GET /livez` and `GET /readyz`: what a supervisor and a load balancer ask.
//!
//! Live means that the replica's core still runs; restarting helps when it does not. Ready means that it
//! takes part fully; restarting does not help when it does not, and the reasons say what would. Invariant:
//! an answer of 200 never has a reason against it.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde::Serialize;
use tokio::sync::watch;

use super::status::{NotReady, StatusSnapshot};

/// `GET /livez` and `GET /readyz`.
pub fn router(status: watch::Receiver<StatusSnapshot>) -> Router {
    Router::new().route("/livez", get(live)).route("/readyz", get(ready)).with_state(status)
}

#[derive(Serialize)]
struct Live {
    live: bool,
}

async fn live(State(status): State<watch::Receiver<StatusSnapshot>>) -> (StatusCode, Json<Live>) {
    // The core holds the sender for as long as it runs.
    let live = status.has_changed().is_ok();
    (code(live), Json(Live { live }))
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<NotReady>,
}

async fn ready(State(status): State<watch::Receiver<StatusSnapshot>>) -> (StatusCode, Json<Ready>) {
    let reasons = status.borrow().not_ready.clone();
    let ready = reasons.is_empty() && status.has_changed().is_ok();
    (code(ready), Json(Ready { ready, reasons }))
}

const fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Request, StatusCode},
    };
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};
    use tokio::sync::watch;
    use tower::ServiceExt as _;

    use super::router;
    use crate::service::status::{NotReady, NotReadyReason, StatusSnapshot, tests::snapshot};

    async fn ask(status: &watch::Receiver<StatusSnapshot>, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).expect("a valid request");
        let response = router(status.clone()).oneshot(request).await.expect("a router does not fail");
        let code = response.status();
        let body = response.into_body().collect().await.expect("the body is in memory").to_bytes();
        (code, serde_json::from_slice(&body).expect("every answer is JSON"))
    }

    #[tokio::test]
    async fn a_replica_is_ready_until_there_is_a_reason_against_it() {
        let (sender, status) = watch::channel(snapshot());
        assert_eq!(ask(&status, "/readyz").await, (StatusCode::OK, json!({"ready": true, "reasons": []})));
        sender.send_modify(|status| {
            status.not_ready.push(NotReady {
                reason: NotReadyReason::NoQuorum,
                detail: "2 of 3 replicas are linked".to_owned(),
            });
        });
        let reason = json!({"reason": "no_quorum", "detail": "2 of 3 replicas are linked"});
        assert_eq!(
            ask(&status, "/readyz").await,
            (StatusCode::SERVICE_UNAVAILABLE, json!({"ready": false, "reasons": [reason]}))
        );
        assert_eq!(ask(&status, "/livez").await, (StatusCode::OK, json!({"live": true})));
    }

    #[tokio::test]
    async fn a_replica_without_its_core_is_neither_live_nor_ready() {
        let (sender, status) = watch::channel(snapshot());
        drop(sender);
        assert_eq!(ask(&status, "/livez").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(&status, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
