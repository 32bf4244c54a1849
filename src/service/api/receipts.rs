//! `POST /v1/receipts`: an agent's receipt, to be ordered. 202 says that this replica has it, not that it is
//! committed; agents send it to f + 1 replicas.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::StatusCode,
    routing::post,
};
use serde::Serialize;
use std::sync::Arc;

use super::{AgentApi, ApiError, DocumentKind, Stage};
use crate::{
    knowledge::{
        command::Command,
        receipt::{ReceiptError, VerifiedReceipt, claimed_target},
    },
    types::{EnvelopeError, MAX_ENVELOPE_BYTES, TargetId},
};

pub(super) fn router() -> Router<AgentApi> {
    Router::new().route("/v1/receipts", post(receive)).layer(DefaultBodyLimit::max(MAX_ENVELOPE_BYTES))
}

#[derive(Serialize)]
struct Queued {
    status: &'static str,
}

#[tracing::instrument(name = "receipt", skip_all)]
async fn receive(
    State(api): State<AgentApi>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Queued>), ApiError> {
    let envelope = body?;
    check(&api, &envelope).map_err(|(reason, error)| {
        api.refused.count(DocumentKind::Receipt, Stage::Api, reason);
        error
    })?;
    api.commands.try_send(Command::Receipt { envelope: envelope.to_vec() })?;
    Ok((StatusCode::ACCEPTED, Json(Queued { status: "queued" })))
}

/// Verifies a receipt against the keys that are bound to its target.
fn check(api: &AgentApi, envelope: &[u8]) -> Result<(), (&'static str, ApiError)> {
    let target = claimed_target(envelope).map_err(|error| (reason(&error), refused(&error, None)))?;
    let unknown =
        || ("unknown_target", ApiError::NotFound(format!("there is no target {:?}", target.as_str())));
    let operations = Arc::clone(&api.operations.borrow());
    let permit = api.members.genesis.place(&target).and_then(|place| operations.target(place));
    let agents = permit.ok_or_else(unknown)?.agents();
    VerifiedReceipt::verify_of_any(envelope, agents, api.members.committee.cluster())
        .map_err(|error| (reason(&error), refused(&error, Some(&target))))?;
    Ok(())
}

const fn reason(error: &ReceiptError) -> &'static str {
    match error {
        ReceiptError::Envelope(EnvelopeError::UnknownKey(_)) => "unbound_key",
        ReceiptError::Envelope(EnvelopeError::Malformed(_) | EnvelopeError::TooLarge { .. })
        | ReceiptError::Signatures(_)
        | ReceiptError::Body(_) => "malformed",
        ReceiptError::Envelope(
            EnvelopeError::WrongType { .. }
            | EnvelopeError::BadSignature(_)
            | EnvelopeError::TooFewSignatures { .. },
        )
        | ReceiptError::WrongCluster { .. } => "not_verified",
    }
}

fn refused(error: &ReceiptError, target: Option<&TargetId>) -> ApiError {
    match error {
        ReceiptError::Envelope(EnvelopeError::UnknownKey(key)) => {
            let target = target.map_or("the target", TargetId::as_str);
            ApiError::Refused(format!(
                "key {key} is not bound to {target}: an operator of its owner binds it with `quorate agent enroll`"
            ))
        }
        ReceiptError::Envelope(EnvelopeError::TooLarge { .. }) => ApiError::TooLarge(error.to_string()),
        ReceiptError::Envelope(EnvelopeError::Malformed(_))
        | ReceiptError::Signatures(_)
        | ReceiptError::Body(_) => ApiError::BadRequest(error.to_string()),
        ReceiptError::Envelope(
            EnvelopeError::WrongType { .. }
            | EnvelopeError::BadSignature(_)
            | EnvelopeError::TooFewSignatures { .. },
        )
        | ReceiptError::WrongCluster { .. } => ApiError::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use crate::{
        knowledge::{
            command::Command,
            fixtures::{agent_key, receipt, replica_keys, seal},
            receipt::{RECEIPT_TYPE, Receipt},
        },
        service::api::testing::Replica,
        types::{Digest, MAX_ENVELOPE_BYTES, TargetId},
    };

    fn sealed(receipt: &Receipt) -> Vec<u8> {
        seal(RECEIPT_TYPE, receipt.to_bytes(), &[agent_key()])
    }

    #[tokio::test]
    async fn an_agents_receipt_is_queued_byte_by_byte() {
        let mut replica = Replica::new();
        let envelope = sealed(&receipt());
        let (status, body) = replica.post("/v1/receipts", envelope.clone()).await;
        assert_eq!((status, body), (StatusCode::ACCEPTED, json!({"status": "queued"})));
        assert_eq!(replica.commands.recv().await, Some(Command::Receipt { envelope }));
    }

    #[tokio::test]
    async fn a_full_queue_and_a_stopping_replica_ask_to_come_back() {
        let mut replica = Replica::new();
        assert_eq!(replica.post("/v1/receipts", sealed(&receipt())).await.0, StatusCode::ACCEPTED);
        assert_eq!(replica.post("/v1/receipts", sealed(&receipt())).await.0, StatusCode::SERVICE_UNAVAILABLE);
        replica.commands.close();
        assert_eq!(replica.post("/v1/receipts", sealed(&receipt())).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn what_does_not_verify_is_never_queued() {
        let mut replica = Replica::new();
        let other = TargetId::new("other").expect("a valid name");
        let cases = [
            ("no JSON", b"{".to_vec(), StatusCode::BAD_REQUEST),
            ("no receipt", seal(RECEIPT_TYPE, b"{}".to_vec(), &[agent_key()]), StatusCode::BAD_REQUEST),
            (
                "a stranger's",
                seal(RECEIPT_TYPE, receipt().to_bytes(), &replica_keys()[..1]),
                StatusCode::FORBIDDEN,
            ),
            ("unsigned", seal(RECEIPT_TYPE, receipt().to_bytes(), &[]), StatusCode::FORBIDDEN),
            (
                "another cluster's",
                sealed(&Receipt { cluster: Digest::of(b"x"), ..receipt() }),
                StatusCode::FORBIDDEN,
            ),
            ("another target's", sealed(&Receipt { target: other, ..receipt() }), StatusCode::NOT_FOUND),
            ("too large", vec![b' '; MAX_ENVELOPE_BYTES + 1], StatusCode::PAYLOAD_TOO_LARGE),
        ];
        for (what, body, expected) in cases {
            let (status, answer) = replica.post("/v1/receipts", body).await;
            assert_eq!(status, expected, "{what}: {answer}");
            assert!(answer["error"].is_string(), "{what}: {answer}");
        }
        assert!(replica.commands.try_recv().is_err());
    }
}
