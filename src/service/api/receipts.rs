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
use tokio::sync::mpsc::error::TrySendError;

use super::{AgentApi, ApiError};
use crate::{
    knowledge::{
        command::Command,
        receipt::{ReceiptError, VerifiedReceipt, claimed_target},
    },
    types::{EnvelopeError, MAX_ENVELOPE_BYTES},
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
    let target = claimed_target(&envelope).map_err(|error| refused(&error))?;
    let agent = api
        .agents
        .get(&target)
        .ok_or_else(|| ApiError::NotFound(format!("there is no target {:?}", target.as_str())))?;
    VerifiedReceipt::verify(&envelope, agent, api.cluster).map_err(|error| refused(&error))?;
    match api.commands.try_send(Command::Receipt { envelope: envelope.to_vec() }) {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(Queued { status: "queued" }))),
        Err(TrySendError::Full(_)) => Err(ApiError::Busy),
        Err(TrySendError::Closed(_)) => Err(ApiError::Stopping),
    }
}

fn refused(error: &ReceiptError) -> ApiError {
    match error {
        ReceiptError::Envelope(EnvelopeError::TooLarge { .. }) => ApiError::TooLarge(error.to_string()),
        ReceiptError::Envelope(EnvelopeError::Malformed(_)) | ReceiptError::Body(_) => {
            ApiError::BadRequest(error.to_string())
        }
        ReceiptError::Envelope(
            EnvelopeError::WrongType { .. }
            | EnvelopeError::UnknownKey(_)
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
