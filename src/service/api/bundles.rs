//! `GET /v1/bundles/{digest}`: what the plans that name this digest as their evidence were derived from.
//!
//! The answer is what this replica derived its own plans from. Whoever asked hashes it: nothing here needs to be believed.

use axum::{
    Router,
    extract::{Path, State, rejection::PathRejection},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use super::{AgentApi, ApiError};
use crate::types::Digest;

pub(super) fn router() -> Router<AgentApi> {
    Router::new().route("/v1/bundles/{digest}", get(bundle))
}

async fn bundle(
    State(api): State<AgentApi>,
    path: Result<Path<Digest>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(digest) = path?;
    let found = api.feed.borrow().bundle(digest).map(|bundle| bundle.to_vec());
    let bundle = found.ok_or_else(|| {
        ApiError::NotFound(format!(
            "no evidence {digest} is among those of this replica's newest plans; older ones are in its database, table \
             evidence_bundles"
        ))
    })?;
    // It is named by its content, so it never changes.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, bundle).into_response())
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use crate::{service::api::testing::Replica, types::Digest};

    #[tokio::test]
    async fn a_bundle_is_served_by_its_digest_as_it_is() {
        let replica = Replica::new();
        let bundle = [0, 255, 7];
        replica.change(|feed| feed.keep_bundle(bundle.as_slice().into()));
        let (status, body) = replica.get_bytes(&format!("/v1/bundles/{}", Digest::of(&bundle))).await;
        assert_eq!((status, body.as_slice()), (StatusCode::OK, bundle.as_slice()));
        let (status, body) = replica.get(&format!("/v1/bundles/{}", Digest::ZERO)).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body["error"].as_str().is_some_and(|error| error.contains("evidence_bundles")), "{body}");
        assert_eq!(replica.get("/v1/bundles/x").await.0, StatusCode::BAD_REQUEST);
    }
}
