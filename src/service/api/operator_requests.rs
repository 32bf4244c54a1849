//! `POST /v1/operator-requests` takes an operator's request and hands it on to be ordered; `GET
//! /v1/operator-requests/{digest}` says what became of it.
//!
//! "Committed" is said only of what stands in a committed block, "queued" only of what waits to be ordered or was. Invariant: a
//! request that does not verify, or that the committed state refuses already, is never queued.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{
    AgentApi, ApiError, DocumentKind, LONGEST_WAIT_SECONDS, RequestOutcome, Stage, request_log::OUTCOMES_KEPT,
};
use crate::{
    knowledge::{
        command::Command,
        fold::OperatorRefusal,
        operator_request::{OperatorRequestError, VerifiedOperatorRequest},
    },
    types::{Digest, EnvelopeError, MAX_ENVELOPE_BYTES},
};

pub(super) fn router() -> Router<AgentApi> {
    let requests = post(receive).layer(DefaultBodyLimit::max(MAX_ENVELOPE_BYTES));
    Router::new()
        .route("/v1/operator-requests", requests)
        .route("/v1/operator-requests/{digest}", get(outcome))
}

#[derive(Serialize)]
struct Queued {
    digest: Digest,
    status: &'static str,
}

#[tracing::instrument(name = "operator request", skip_all)]
async fn receive(
    State(api): State<AgentApi>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let envelope = body?;
    let committee = &api.members.committee;
    let (cluster, epoch) = (committee.cluster(), committee.epoch());
    let request = VerifiedOperatorRequest::verify(&envelope, &api.members.operators, cluster, epoch)
        .map_err(|error| {
            api.refused.count(DocumentKind::OperatorRequest, Stage::Api, reason(&error));
            not_verified(&error)
        })?;
    let digest = request.digest();
    // It came another way, or a second time.
    if let Some(known) = api.requests.borrow().outcome(digest) {
        return Ok(Json(known.clone()).into_response());
    }
    let queued = || (StatusCode::ACCEPTED, Json(Queued { digest, status: "queued" })).into_response();
    let judged = api.operations.borrow().judge(&request, api.members.parties());
    match judged {
        Ok(()) => {}
        // It was ordered, and what became of it is about to be told, or is no longer remembered.
        Err(OperatorRefusal::Duplicate { .. }) => return Ok(queued()),
        Err(why) => {
            api.refused.count(DocumentKind::OperatorRequest, Stage::Api, why.as_str());
            return Err(refused(&why));
        }
    }
    let (signer, envelope) = (request.operator().key.id(), request.envelope().to_json());
    api.submitter
        .submit(DocumentKind::OperatorRequest, signer, Command::OperatorRequest { envelope })
        .await?;
    Ok(queued())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// How many seconds to wait until it is ordered.
    wait: Option<u64>,
}

async fn outcome(
    State(api): State<AgentApi>,
    path: Result<Path<Digest>, PathRejection>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<RequestOutcome>, ApiError> {
    let (Path(digest), Query(Parameters { wait })) = (path?, query?);
    let mut requests = api.requests.clone();
    let wait = Duration::from_secs(wait.unwrap_or(0).min(LONGEST_WAIT_SECONDS));
    let found = tokio::time::timeout(wait, requests.wait_for(|log| log.outcome(digest).is_some())).await;
    let found = found.ok().and_then(Result::ok).and_then(|log| log.outcome(digest).cloned());
    found.map(Json).ok_or_else(|| {
        ApiError::NotFound(format!(
            "this replica knows of no order of request {digest}: it waits, it was ordered nowhere, or it is older than the \
             newest {OUTCOMES_KEPT} and what was ordered before this replica began"
        ))
    })
}

const fn reason(error: &OperatorRequestError) -> &'static str {
    match error {
        OperatorRequestError::Envelope(EnvelopeError::UnknownKey(_)) => "unknown_key",
        OperatorRequestError::Envelope(EnvelopeError::Malformed(_) | EnvelopeError::TooLarge { .. })
        | OperatorRequestError::Body(_) => "malformed",
        OperatorRequestError::Envelope(
            EnvelopeError::WrongType { .. }
            | EnvelopeError::BadSignature(_)
            | EnvelopeError::TooFewSignatures { .. },
        )
        | OperatorRequestError::Signatures(_)
        | OperatorRequestError::WrongCluster { .. }
        | OperatorRequestError::WrongEpoch { .. } => "not_verified",
    }
}

fn not_verified(error: &OperatorRequestError) -> ApiError {
    match error {
        OperatorRequestError::Envelope(EnvelopeError::UnknownKey(key)) => ApiError::Refused(format!(
            "key {key} is no operator's: the root names the operators of this epoch"
        )),
        OperatorRequestError::Envelope(EnvelopeError::TooLarge { .. }) => {
            ApiError::TooLarge(error.to_string())
        }
        OperatorRequestError::Envelope(EnvelopeError::Malformed(_)) | OperatorRequestError::Body(_) => {
            ApiError::BadRequest(error.to_string())
        }
        OperatorRequestError::Envelope(
            EnvelopeError::WrongType { .. }
            | EnvelopeError::BadSignature(_)
            | EnvelopeError::TooFewSignatures { .. },
        )
        | OperatorRequestError::Signatures(_)
        | OperatorRequestError::WrongCluster { .. }
        | OperatorRequestError::WrongEpoch { .. } => ApiError::Refused(error.to_string()),
    }
}

fn refused(why: &OperatorRefusal) -> ApiError {
    match why {
        OperatorRefusal::UnknownTarget(_) => ApiError::NotFound(why.to_string()),
        OperatorRefusal::NotPermitted { .. } | OperatorRefusal::NotVerified(_) => {
            ApiError::Refused(why.to_string())
        }
        OperatorRefusal::BadKey(_) => ApiError::BadRequest(why.to_string()),
        OperatorRefusal::Duplicate { .. }
        | OperatorRefusal::Expired(_)
        | OperatorRefusal::OldCounter { .. }
        | OperatorRefusal::CounterAhead { .. }
        | OperatorRefusal::NotStopped(_)
        | OperatorRefusal::StoppedLater { .. }
        | OperatorRefusal::NothingToResume(_)
        | OperatorRefusal::KeyTaken
        | OperatorRefusal::AlreadyBound(_)
        | OperatorRefusal::NotBound(_)
        | OperatorRefusal::LastKey
        | OperatorRefusal::TooManyKeys { .. } => ApiError::Conflict(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use crate::{
        consensus::Rejected,
        knowledge::{
            change::Change,
            command::Command,
            fixtures::{committee, operator_keys, owner_keys, seal, target},
            operator_request::{
                OPERATOR_REQUEST_TYPE, OperatorRequest, Request, Selection, StopMode, VerifiedOperatorRequest,
            },
        },
        service::api::testing::Replica,
        types::{Digest, Epoch, HeadNumber, Height, MAX_ENVELOPE_BYTES, Shard, TargetId, UnixMillis},
    };

    fn request(counter: u64, request: Request) -> OperatorRequest {
        let expires_at = UnixMillis::new(4_000_000_000_000);
        OperatorRequest {
            v: 1,
            cluster: committee().cluster(),
            epoch: Epoch::new(1),
            counter,
            expires_at,
            request,
        }
    }

    fn these() -> Selection {
        Selection::These([target()].into())
    }

    fn stop(counter: u64) -> OperatorRequest {
        request(counter, Request::Stop { targets: these(), mode: StopMode::Hold })
    }

    fn signed(request: &OperatorRequest) -> Vec<u8> {
        request.sign(&operator_keys()[0]).to_json()
    }

    #[tokio::test]
    async fn an_operators_request_is_queued_and_told_of_when_it_is_committed() {
        let mut replica = Replica::new();
        let envelope = signed(&stop(1));
        let digest = Digest::of(&stop(1).to_bytes());
        let (status, body) = replica.post("/v1/operator-requests", envelope.clone()).await;
        assert_eq!((status, body), (StatusCode::ACCEPTED, json!({"digest": digest, "status": "queued"})));
        assert_eq!(replica.taken, [Command::OperatorRequest { envelope: envelope.clone() }]);
        let uri = format!("/v1/operator-requests/{digest}");
        let (status, body) = replica.get(&uri).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body["error"].is_string());

        let commit = async {
            tokio::task::yield_now().await;
            let members = &replica.api.members;
            let request = VerifiedOperatorRequest::verify(
                &envelope,
                &members.operators,
                committee().cluster(),
                Epoch::new(1),
            );
            let request = Box::new(request.expect("it verified before"));
            let heads = vec![(Shard::new(0), HeadNumber::new(12))];
            let change = Change::OperatorRequestLogged { request, heads };
            replica.note(&change, Height::new(7));
        };
        let waiting = format!("{uri}?wait=30");
        let (answer, ()) = tokio::join!(replica.get(&waiting), commit);
        let expected = json!({
            "digest": digest,
            "operator": "ana",
            "height": 7,
            "status": "committed",
            "request": {"kind": "stop", "targets": ["extract_pool"], "mode": "hold"},
            "heads": [{"shard": 0, "number": 12}],
        });
        assert_eq!(answer, (StatusCode::OK, expected.clone()));
        let again = replica.post("/v1/operator-requests", envelope).await;
        assert_eq!(again, (StatusCode::OK, expected), "a copy is told what became of the first");
        assert_eq!(replica.taken.len(), 1);
    }

    #[tokio::test]
    async fn a_request_that_the_state_knows_of_is_no_refused_one() {
        let mut replica = Replica::new();
        let unknown = stop(1);
        let digest = Digest::of(&unknown.to_bytes());
        // The state has it and nothing here remembers more.
        replica.order(&signed(&unknown));
        let (status, body) = replica.post("/v1/operator-requests", signed(&unknown)).await;
        assert_eq!((status, body), (StatusCode::ACCEPTED, json!({"digest": digest, "status": "queued"})));
        // As after a start from a state that was certified after the request.
        replica.restart();
        let expected = json!({
            "digest": digest, "operator": "ana", "status": "ordered_before", "took_effect": true,
        });
        for _ in 0..2 {
            let answer = replica.post("/v1/operator-requests", signed(&unknown)).await;
            assert_eq!(answer, (StatusCode::OK, expected.clone()));
            assert_eq!(replica.get(&format!("/v1/operator-requests/{digest}")).await, answer);
        }
        assert_eq!((replica.taken.len(), replica.refused_for("duplicate")), (0, 0));
        let older = replica.post(
            "/v1/operator-requests",
            signed(&request(1, Request::Stop { targets: these(), mode: StopMode::Revoked })),
        );
        assert_eq!(older.await.0, StatusCode::CONFLICT, "another request with its counter is refused");
    }

    #[tokio::test]
    async fn one_operators_key_that_floods_the_door_keeps_no_other_out() {
        let mut replica = Replica::new();
        let mut refused = 0;
        for counter in 1..=20 {
            let (status, answer) = replica.post("/v1/operator-requests", signed(&stop(counter))).await;
            match status {
                StatusCode::ACCEPTED => assert_eq!(refused, 0),
                StatusCode::TOO_MANY_REQUESTS => refused += 1,
                other => panic!("{other}: {answer}"),
            }
        }
        assert_eq!((refused, replica.refused_for("signer_full")), (4, 4));
        let bea = stop(1).sign(&operator_keys()[1]).to_json();
        assert_eq!(replica.post("/v1/operator-requests", bea).await.0, StatusCode::ACCEPTED);
    }

    #[tokio::test]
    async fn consensus_without_room_and_a_stopping_replica_ask_to_come_back() {
        let mut replica = Replica::new();
        let post = |counter| signed(&stop(counter));
        replica.answer = Err(Rejected::PendingFull);
        assert_eq!(replica.post("/v1/operator-requests", post(2)).await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(replica.refused_for("pending_full"), 1);
        replica.stop();
        assert_eq!(replica.post("/v1/operator-requests", post(3)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn what_does_not_verify_or_cannot_be_is_never_queued() {
        let mut replica = Replica::new();
        let other = TargetId::new("other").expect("a valid name");
        let foreign = OperatorRequest { cluster: Digest::of(b"x"), ..stop(1) };
        let unknown = Request::Stop { targets: Selection::These([other].into()), mode: StopMode::Hold };
        let bind = |ed25519| Request::BindAgent { target: target(), ed25519, replaces: None };
        let operators = Digest::from_bytes(operator_keys()[1].public().to_bytes());
        let by_bea = request(1, bind(Digest::of(b"any"))).sign(&operator_keys()[1]).to_json();
        let cases = [
            ("no JSON", b"{".to_vec(), StatusCode::BAD_REQUEST, "malformed"),
            (
                "no request",
                seal(OPERATOR_REQUEST_TYPE, b"{}".to_vec(), &operator_keys()[..1]),
                StatusCode::BAD_REQUEST,
                "malformed",
            ),
            (
                "an owner's",
                seal(OPERATOR_REQUEST_TYPE, stop(1).to_bytes(), &owner_keys()[..1]),
                StatusCode::FORBIDDEN,
                "unknown_key",
            ),
            (
                "two operators'",
                seal(OPERATOR_REQUEST_TYPE, stop(1).to_bytes(), &operator_keys()[..2]),
                StatusCode::FORBIDDEN,
                "not_verified",
            ),
            ("another cluster's", signed(&foreign), StatusCode::FORBIDDEN, "not_verified"),
            ("another target's", signed(&request(1, unknown)), StatusCode::NOT_FOUND, "unknown_target"),
            ("without a counter", signed(&stop(0)), StatusCode::CONFLICT, "old_counter"),
            ("the last counter", signed(&stop(u64::MAX)), StatusCode::CONFLICT, "counter_ahead"),
            (
                "not stopped",
                signed(&request(1, Request::Resume { targets: these(), seen: [(Digest::ZERO, 1)].into() })),
                StatusCode::CONFLICT,
                "not_stopped",
            ),
            ("not the owner's", by_bea, StatusCode::FORBIDDEN, "not_permitted"),
            ("a weak key", signed(&request(1, bind(Digest::ZERO))), StatusCode::BAD_REQUEST, "bad_key"),
            ("an operator's key", signed(&request(1, bind(operators))), StatusCode::CONFLICT, "key_taken"),
        ];
        for (what, body, expected, reason) in cases {
            let before = replica.refused_for(reason);
            let (status, answer) = replica.post("/v1/operator-requests", body).await;
            assert_eq!(status, expected, "{what}: {answer}");
            assert!(answer["error"].is_string(), "{what}: {answer}");
            assert_eq!(replica.refused_for(reason), before + 1, "{what}");
        }
        let large = replica.post("/v1/operator-requests", vec![b' '; MAX_ENVELOPE_BYTES + 1]).await;
        assert_eq!(large.0, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(replica.taken, []);
        for uri in ["/v1/operator-requests/x", "/v1/operator-requests/00?wait=1"] {
            assert_eq!(replica.get(uri).await.0, StatusCode::BAD_REQUEST, "{uri}");
        }
    }
}
