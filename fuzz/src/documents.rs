//! Documents: envelopes as they come, bodies behind valid signatures, and the answers that agents read.
//!
//! Invariant: a document that is taken reads back from its canonical bytes as itself.

use quorate::{
    execute::agent::AgentState,
    knowledge::{
        certified::{Certified, QuorumDocument},
        head::Head,
        operator_request::{OPERATOR_REQUEST_TYPE, VerifiedOperatorRequest},
        plan::Plan,
        receipt::{RECEIPT_TYPE, VerifiedReceipt, claimed_target},
        root::{ROOT_TYPE, VerifiedRoot},
    },
    service::status::StatusSnapshot,
    types::{Envelope, Epoch, PublicKey, Signature, from_strict_json},
};
use serde::{Deserialize, Serialize};

use crate::world::{WORLD, sealed};

/// Bytes as an envelope, and as each document in one.
pub fn envelopes(bytes: &[u8]) {
    let committee = WORLD.committee();
    let decoded = Envelope::from_json(bytes);
    if let Ok(envelope) = &decoded {
        let again = Envelope::from_json(&envelope.to_json());
        assert_eq!(again.as_ref(), Ok(envelope), "an envelope reads back as itself");
    }
    let taken = [
        Certified::<Plan>::verify(bytes, committee).is_ok(),
        Certified::<Head>::verify(bytes, committee).is_ok(),
        VerifiedRoot::first(bytes).is_ok(),
        VerifiedReceipt::verify(bytes, &WORLD.agents[0].public(), committee.cluster()).is_ok(),
        claimed_target(bytes).is_ok(),
        VerifiedOperatorRequest::verify(bytes, WORLD.root.operators(), committee.cluster(), Epoch::new(1))
            .is_ok(),
    ];
    assert!(decoded.is_ok() || taken == [false; 6], "what is no envelope is no document");
}

/// A body that everybody who must has signed: the first byte says as what.
pub fn documents(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    let (committee, cluster) = (WORLD.committee(), WORLD.committee().cluster());
    match kind % 5 {
        0 => certified::<Plan>(body, Plan::to_bytes),
        1 => certified::<Head>(body, Head::to_bytes),
        2 => {
            let envelope = sealed(RECEIPT_TYPE, body.to_vec(), [&WORLD.agents[0]]);
            let verify = |bytes: &[u8]| VerifiedReceipt::verify(bytes, &WORLD.agents[0].public(), cluster);
            if let Ok(receipt) = verify(&envelope) {
                let again = sealed(RECEIPT_TYPE, receipt.receipt().to_bytes(), [&WORLD.agents[0]]);
                assert_eq!(
                    verify(&again).map(|again| again.receipt().clone()).as_ref(),
                    Ok(receipt.receipt())
                );
                assert_eq!(claimed_target(&envelope).as_ref(), Ok(&receipt.receipt().target));
            }
        }
        3 => {
            let envelope = sealed(OPERATOR_REQUEST_TYPE, body.to_vec(), [&WORLD.operators[0]]);
            let verify = |bytes: &[u8]| {
                VerifiedOperatorRequest::verify(bytes, WORLD.root.operators(), cluster, committee.epoch())
            };
            if let Ok(request) = verify(&envelope) {
                let again = request.request().sign(&WORLD.operators[0]).to_json();
                assert_eq!(
                    verify(&again).map(|again| again.request().clone()).as_ref(),
                    Ok(request.request())
                );
                assert!(!request.request().request.to_string().is_empty());
            }
        }
        _ => {
            let envelope = sealed(ROOT_TYPE, body.to_vec(), &WORLD.owners);
            if let Ok(root) = VerifiedRoot::first(&envelope) {
                let again = VerifiedRoot::first(&sealed(ROOT_TYPE, root.root().to_bytes(), &WORLD.owners));
                assert_eq!(again.map(|again| again.root().clone()).as_ref(), Ok(root.root()));
            }
        }
    }
}

fn certified<T: QuorumDocument + Clone + PartialEq + std::fmt::Debug>(
    body: &[u8],
    to_bytes: fn(&T) -> Vec<u8>,
) {
    let committee = WORLD.committee();
    let verify = |body: Vec<u8>| Certified::<T>::verify(&sealed(T::TYPE, body, &WORLD.replicas), committee);
    if let Ok(certified) = verify(body.to_vec()) {
        let again = verify(to_bytes(certified.document()));
        assert_eq!(again.map(|again| again.document().clone()).as_ref(), Ok(certified.document()));
    }
}

/// What replicas answer to agents and to people's tools, and what an agent keeps.
pub fn answers(bytes: &[u8]) {
    #[derive(Serialize, Deserialize)]
    struct Heads {
        heads: Vec<Envelope>,
    }
    #[derive(Serialize, Deserialize)]
    struct Plans {
        plans: Vec<Envelope>,
    }
    let committee = WORLD.committee();
    // Each is taken or refused; that none of them panics is what counts.
    if let Ok(Heads { heads }) = from_strict_json(bytes) {
        heads.into_iter().for_each(|head| drop(Certified::<Head>::verify_envelope(head, committee)));
    }
    if let Ok(Plans { plans }) = from_strict_json(bytes) {
        plans.into_iter().for_each(|plan| drop(Certified::<Plan>::verify_envelope(plan, committee)));
    }
    drop(serde_json::from_slice::<StatusSnapshot>(bytes));
    if let Ok(state) = AgentState::from_bytes(bytes, committee, &WORLD.target(1)) {
        let again = AgentState::from_bytes(&state.to_bytes(), committee, &WORLD.target(1));
        assert!(again.is_ok_and(|again| again.to_bytes() == state.to_bytes()), "an agent's state reads back");
    }
    if let Some((key, rest)) = bytes.split_first_chunk::<32>()
        && let Ok(key) = PublicKey::from_bytes(key)
        && let Some((signature, message)) = rest.split_first_chunk::<64>()
    {
        // Refused or not, it is an answer.
        let _ = key.verify(message, &Signature::from_bytes(*signature));
    }
}
