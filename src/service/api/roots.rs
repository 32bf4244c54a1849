//! `GET /v1/roots/{epoch}`: the root that began an epoch, as its envelope.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::PathRejection},
    routing::get,
};

use super::{AgentApi, ApiError};
use crate::types::{Envelope, Epoch};

pub(super) fn router() -> Router<AgentApi> {
    Router::new().route("/v1/roots/{epoch}", get(root))
}

async fn root(
    State(api): State<AgentApi>,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Json<Envelope>, ApiError> {
    let Path(epoch) = path?;
    let root = api.feed.borrow().root(Epoch::new(epoch)).map(|root| root.envelope().clone());
    root.map(Json).ok_or_else(|| ApiError::NotFound(format!("there is no root of epoch {epoch} here")))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use crate::{knowledge::fixtures::verified_root, service::api::testing::Replica};

    #[tokio::test]
    async fn a_root_is_served_by_its_epoch() {
        let replica = Replica::new();
        assert_eq!(replica.get("/v1/roots/1").await, (StatusCode::OK, json!(verified_root().envelope())));
        let (status, body) = replica.get("/v1/roots/2").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(body, json!({"error": "there is no root of epoch 2 here"}));
        assert_eq!(replica.get("/v1/roots/one").await.0, StatusCode::BAD_REQUEST);
    }
}
