//! `GET /v1/evidence`: the offences that are proven, and `GET /v1/evidence/{digest}`: one proof's document.
//!
//! It is this replica's word; the document proves itself to whoever has the root. Invariant: only what was ordered and
//! verified by the fold is served.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::PathRejection},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::{AgentApi, ApiError};
use crate::{
    knowledge::{
        evidence::{EVIDENCE_TYPE, VerifiedEvidence},
        fold::Proven,
    },
    service::status::EvidenceStatus,
    types::Digest,
};

pub(super) fn router() -> Router<AgentApi> {
    Router::new().route("/v1/evidence", get(list)).route("/v1/evidence/{digest}", get(document))
}

/// What is proven, by replica and kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenOffences {
    /// One a proof.
    pub evidence: Vec<EvidenceStatus>,
}

async fn list(State(api): State<AgentApi>) -> Json<ProvenOffences> {
    let evidence = api.evidence.borrow().iter().map(EvidenceStatus::of).collect();
    Json(ProvenOffences { evidence })
}

async fn document(
    State(api): State<AgentApi>,
    path: Result<Path<Digest>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(digest) = path?;
    let committee = &api.members.committee;
    let is_asked_for = |proven: &Proven<'_>| proven.proof.digest == digest;
    let log = Arc::clone(&api.evidence.borrow());
    let found = log.iter().find(is_asked_for).map(|proven| proven.proof.evidence.clone());
    // What the fold logged verifies.
    let verified = found.and_then(|evidence| VerifiedEvidence::verify(evidence, committee).ok());
    let verified = verified.ok_or_else(|| {
        ApiError::NotFound(format!("no evidence {digest} is logged, as far as this replica knows"))
    })?;
    Ok(([(header::CONTENT_TYPE, EVIDENCE_TYPE)], verified.to_json()).into_response())
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use crate::{
        knowledge::{
            evidence::VerifiedEvidence,
            fixtures::{committee, double_report},
        },
        service::api::testing::Replica,
        types::Digest,
    };

    #[tokio::test]
    async fn what_is_proven_is_listed_and_each_document_verifies() {
        let mut replica = Replica::new();
        assert_eq!(replica.get("/v1/evidence").await, (StatusCode::OK, json!({"evidence": []})));
        let evidence = double_report(2);
        let digest = VerifiedEvidence::verify(evidence.clone(), &committee()).expect("it is").digest();
        replica.prove(evidence);
        let (status, body) = replica.get("/v1/evidence").await;
        assert_eq!(status, StatusCode::OK);
        let line = json!({
            "replica": "r2", "kind": "double_report", "about": "window 7", "digest": digest, "at_ms": null
        });
        assert_eq!(body, json!({"evidence": [line]}));
        let (status, body) = replica.get(&format!("/v1/evidence/{digest}")).await;
        assert_eq!(status, StatusCode::OK);
        let document = serde_json::to_vec(&body).expect("it is JSON");
        let read = VerifiedEvidence::from_json(&document, &committee()).expect("it verifies");
        assert_eq!(read.digest(), digest);
    }

    #[tokio::test]
    async fn evidence_that_is_not_logged_is_not_found() {
        let replica = Replica::new();
        let (status, _) = replica.get(&format!("/v1/evidence/{}", Digest::ZERO)).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(replica.get("/v1/evidence/x").await.0, StatusCode::BAD_REQUEST);
    }
}
