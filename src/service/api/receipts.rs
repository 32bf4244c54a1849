//! `POST /v1/receipts`: an agent's receipt, to be ordered. 202 says that it waits to be ordered here, not that it is
//! committed; agents send it to f + 1 replicas. 409 says that it can change nothing any more, 429 that its key has no more
//! room until some of its receipts are ordered.
//!
//! Invariant: one signed receipt is one command, however its envelope was spelled.

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
    let receipt = check(&api, &envelope).map_err(|(reason, error)| {
        api.refused.count(DocumentKind::Receipt, Stage::Api, reason);
        error
    })?;
    let (signer, envelope) = (receipt.signer(), receipt.envelope().to_json());
    api.submitter.submit(DocumentKind::Receipt, signer, Command::Receipt { envelope }).await?;
    Ok((StatusCode::ACCEPTED, Json(Queued { status: "queued" })))
}

/// Verifies a receipt against the keys that are bound to its target, and looks at its counter.
fn check(api: &AgentApi, envelope: &[u8]) -> Result<VerifiedReceipt, (&'static str, ApiError)> {
    let target = claimed_target(envelope).map_err(|error| (reason(&error), refused(&error, None)))?;
    let unknown =
        || ("unknown_target", ApiError::NotFound(format!("there is no target {:?}", target.as_str())));
    let operations = Arc::clone(&api.operations.borrow());
    let permit = api.members.genesis.place(&target).and_then(|place| operations.target(place));
    let permit = permit.ok_or_else(unknown)?;
    let receipt = VerifiedReceipt::verify_of_any(envelope, permit.agents(), api.members.committee.cluster())
        .map_err(|error| (reason(&error), refused(&error, Some(&target))))?;
    let (got, signer) = (receipt.receipt().counter, receipt.signer());
    if permit.receipt_turn(signer, got).is_none() {
        let last = permit.receipt_counter(signer);
        let why = format!(
            "a receipt of its key with its counter {got} was logged before, or it is too far below {last}, that of the \
             newest logged one"
        );
        return Err(("replayed", ApiError::Conflict(why)));
    }
    Ok(receipt)
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
        consensus::Rejected,
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
    async fn an_agents_receipt_is_queued_as_one_command_however_it_is_spelled() {
        let mut replica = Replica::new();
        let envelope = sealed(&receipt());
        let text = String::from_utf8(envelope.clone()).expect("JSON is UTF-8");
        let value: serde_json::Value = serde_json::from_slice(&envelope).expect("it is JSON");
        let spellings = [
            text.clone(),
            format!("\n {text}\t"),
            text.replace("\":", "\": "),
            text.replace("payloadType", "payload\\u0054ype"),
            serde_json::to_string_pretty(&value).expect("it was JSON"),
        ];
        for spelling in &spellings {
            let (status, body) = replica.post("/v1/receipts", spelling.clone().into_bytes()).await;
            assert_eq!((status, body), (StatusCode::ACCEPTED, json!({"status": "queued"})), "{spelling}");
        }
        assert_eq!(replica.taken, vec![Command::Receipt { envelope }; spellings.len()]);
    }

    #[tokio::test]
    async fn a_receipt_that_was_logged_or_is_too_old_to_tell_is_refused_at_the_door() {
        let mut replica = Replica::new();
        replica.log_receipt(100);
        for (counter, expected) in [
            (35, StatusCode::CONFLICT),
            (36, StatusCode::ACCEPTED),
            (100, StatusCode::CONFLICT),
            (101, StatusCode::ACCEPTED),
        ] {
            let (status, answer) =
                replica.post("/v1/receipts", sealed(&Receipt { counter, ..receipt() })).await;
            assert_eq!(status, expected, "counter {counter}: {answer}");
        }
        assert_eq!(replica.refused_for("replayed"), 2);
        assert_eq!(replica.taken.len(), 2);
    }

    #[tokio::test]
    async fn one_key_has_so_many_places_and_is_asked_to_come_back() {
        let mut replica = Replica::new();
        for counter in 1..=17 {
            let (status, answer) =
                replica.post("/v1/receipts", sealed(&Receipt { counter, ..receipt() })).await;
            let expected = if counter <= 16 { StatusCode::ACCEPTED } else { StatusCode::TOO_MANY_REQUESTS };
            assert_eq!(status, expected, "{answer}");
        }
        assert_eq!(replica.refused_for("signer_full"), 1);
    }

    #[tokio::test]
    async fn consensus_without_room_and_a_stopping_replica_ask_to_come_back() {
        let mut replica = Replica::new();
        replica.answer = Err(Rejected::PendingFull);
        assert_eq!(replica.post("/v1/receipts", sealed(&receipt())).await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(replica.refused_for("pending_full"), 1);
        replica.stop();
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
        assert_eq!(replica.taken, []);
    }
}
