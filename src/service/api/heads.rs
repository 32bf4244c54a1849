//! `GET /v1/heads`: the newest certified head of every shard.

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::{AgentApi, ApiError, news};
use crate::types::{Envelope, HeadNumber, Shard};

pub(super) fn router() -> Router<AgentApi> {
    Router::new().route("/v1/heads", get(heads))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Only this shard.
    shard: Option<u16>,
    /// Only heads above this number.
    after: Option<u64>,
    /// How many seconds to wait for one.
    wait: Option<u64>,
}

/// Heads in the order of their shards; none when there is no news.
#[derive(Serialize)]
struct Heads {
    heads: Vec<Envelope>,
}

async fn heads(
    State(api): State<AgentApi>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Heads>, ApiError> {
    let Query(Parameters { shard, after, wait }) = query?;
    let (shard, after) = (shard.map(Shard::new), HeadNumber::new(after.unwrap_or(0)));
    let found =
        news(&api, wait, |feed| Some(feed.heads_after(shard, after)).filter(|heads| !heads.is_empty()));
    let heads = found.await.unwrap_or_default().iter().map(|head| head.envelope().clone()).collect();
    Ok(Json(Heads { heads }))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use crate::{
        knowledge::{
            fixtures::{certified_head, head},
            head::Mode,
        },
        service::api::testing::Replica,
    };

    #[tokio::test]
    async fn the_newest_head_is_served_exactly_as_certified() {
        let replica = Replica::new();
        assert_eq!(replica.get("/v1/heads").await, (StatusCode::OK, json!({"heads": []})));
        let newest = certified_head(&head(8, Mode::Act));
        replica.change(|feed| assert!(feed.publish_head(newest.clone())));
        let expected = json!({"heads": [newest.envelope()]});
        for uri in ["/v1/heads", "/v1/heads?shard=0", "/v1/heads?after=7&wait=30"] {
            assert_eq!(replica.get(uri).await, (StatusCode::OK, expected.clone()), "{uri}");
        }
        for uri in ["/v1/heads?shard=1", "/v1/heads?after=8", "/v1/heads?after=8&wait=0"] {
            assert_eq!(replica.get(uri).await, (StatusCode::OK, json!({"heads": []})), "{uri}");
        }
    }

    #[tokio::test]
    async fn a_waiting_request_is_answered_when_a_head_is_certified() {
        let replica = Replica::new();
        let newest = certified_head(&head(8, Mode::Act));
        let publish = async {
            tokio::task::yield_now().await;
            replica.change(|feed| assert!(feed.publish_head(newest.clone())));
        };
        let (answer, ()) = tokio::join!(replica.get("/v1/heads?after=7&wait=30"), publish);
        assert_eq!(answer, (StatusCode::OK, json!({"heads": [newest.envelope()]})));
    }

    #[tokio::test]
    async fn a_malformed_question_is_answered_with_what_is_wrong() {
        let replica = Replica::new();
        for uri in ["/v1/heads?shard=65536", "/v1/heads?after=-1", "/v1/heads?wait=x", "/v1/heads?more=1"] {
            let (status, body) = replica.get(uri).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{uri}");
            assert!(body["error"].is_string(), "{uri}: {body}");
        }
    }
}
