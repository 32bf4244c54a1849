//! `GET /v1/plans`: a target's logged plans.

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::{AgentApi, ApiError, news};
use crate::types::{Cycle, Envelope, TargetId};

pub(super) fn router() -> Router<AgentApi> {
    Router::new().route("/v1/plans", get(plans))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// For which target.
    target: TargetId,
    /// Only plans above this sequence number.
    after: Option<u64>,
    /// How many seconds to wait for one.
    wait: Option<u64>,
}

/// Plans, oldest first; none when there is no news. A client that wants more asks again after the last.
#[derive(Serialize)]
struct Plans {
    plans: Vec<Envelope>,
}

async fn plans(
    State(api): State<AgentApi>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Plans>, ApiError> {
    let Query(Parameters { target, after, wait }) = query?;
    let after = Cycle::new(after.unwrap_or(0));
    // An unknown target is news of its own kind: nobody needs to wait for it.
    let found = news(&api, wait, |feed| match feed.plans_after(&target, after) {
        Some(plans) if plans.is_empty() => None,
        answer @ (Some(_) | None) => Some(answer),
    });
    let plans = match found.await {
        None => Vec::new(),
        Some(Some(plans)) => plans,
        Some(None) => return Err(ApiError::NotFound(format!("there is no target {:?}", target.as_str()))),
    };
    Ok(Json(Plans { plans: plans.iter().map(|plan| plan.envelope().clone()).collect() }))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use crate::{
        knowledge::{
            fixtures::{certified_plan, plan},
            plan::Plan,
        },
        service::api::testing::Replica,
        types::Cycle,
    };

    #[tokio::test]
    async fn logged_plans_are_served_oldest_first_above_a_number() {
        let replica = Replica::new();
        let (first, second) = (plan(), Plan { seq: Cycle::new(40), ..plan() });
        let (first, second) = (certified_plan(&first), certified_plan(&second));
        replica.change(|feed| {
            assert!(feed.log_plan(first.clone()));
            assert!(feed.log_plan(second.clone()));
        });
        let all = json!({"plans": [first.envelope(), second.envelope()]});
        assert_eq!(replica.get("/v1/plans?target=extract_pool").await, (StatusCode::OK, all));
        let newer = json!({"plans": [second.envelope()]});
        let uri = "/v1/plans?target=extract_pool&after=37&wait=30";
        assert_eq!(replica.get(uri).await, (StatusCode::OK, newer));
        let uri = "/v1/plans?target=extract_pool&after=40";
        assert_eq!(replica.get(uri).await, (StatusCode::OK, json!({"plans": []})));
    }

    #[tokio::test]
    async fn a_waiting_request_is_answered_when_a_plan_is_logged() {
        let replica = Replica::new();
        let logged = certified_plan(&plan());
        let log = async {
            tokio::task::yield_now().await;
            replica.change(|feed| assert!(feed.log_plan(logged.clone())));
        };
        let uri = "/v1/plans?target=extract_pool&wait=30";
        let (answer, ()) = tokio::join!(replica.get(uri), log);
        assert_eq!(answer, (StatusCode::OK, json!({"plans": [logged.envelope()]})));
    }

    #[tokio::test]
    async fn waiting_requests_end_when_the_replica_stops() {
        let mut replica = Replica::new();
        let (feed, seen) = tokio::sync::watch::channel(std::sync::Arc::clone(&replica.feed.borrow()));
        replica.api.feed = seen;
        let stop = async {
            tokio::task::yield_now().await;
            drop(feed);
        };
        let (answer, ()) = tokio::join!(replica.get("/v1/plans?target=extract_pool&wait=30"), stop);
        assert_eq!(answer, (StatusCode::OK, json!({"plans": []})));
    }

    #[tokio::test]
    async fn an_unknown_target_is_told_at_once() {
        let replica = Replica::new();
        let (status, body) = replica.get("/v1/plans?target=other&wait=30").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(body, json!({"error": "there is no target \"other\""}));
    }

    #[tokio::test]
    async fn a_question_without_a_valid_target_is_refused() {
        let replica = Replica::new();
        for uri in ["/v1/plans", "/v1/plans?target=", "/v1/plans?target=a%20b", "/v1/plans?target=a&limit=9"]
        {
            let (status, body) = replica.get(uri).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{uri}");
            assert!(body["error"].is_string(), "{uri}: {body}");
        }
    }
}
