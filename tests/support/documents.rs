//! Documents of a small cluster for tests that see only what a user of the library sees: four replicas, four
//! owners, one operator and one agent, whose keys are made from fixed seeds.
//!
//! Invariant: everything here is the same in every run, so that its bytes can be committed as vectors.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use quorate::{
    knowledge::{
        head::{HEAD_TYPE, Head, HeadEntry, Mode},
        operator_request::{OperatorRequest, Request, Selection, StopMode},
        plan::{
            DesiredState, Limits, Measure, OnStale, PLAN_TYPE, Plan, Preconditions, Reason, RiskClass,
            Verify, VerifyElse, VerifyOp,
        },
        receipt::{Outcome, RECEIPT_TYPE, Receipt},
        root::{ROOT_TYPE, Root, RootOperator, RootOwner, RootReplica, VerifiedRoot},
    },
    types::{
        Committee, Cycle, Digest, Envelope, Epoch, HeadNumber, SecretKey, Shard, TargetId, UnixMillis, pae,
    },
};

pub(crate) const TARGET: &str = "extract_pool";

pub(crate) fn replica_keys() -> Vec<SecretKey> {
    (1..=4).map(|seed| SecretKey::from_seed(&[seed; 32])).collect()
}

pub(crate) fn owner_keys() -> Vec<SecretKey> {
    (11..=14).map(|seed| SecretKey::from_seed(&[seed; 32])).collect()
}

pub(crate) fn operator_key() -> SecretKey {
    SecretKey::from_seed(&[31; 32])
}

pub(crate) fn agent_key() -> SecretKey {
    SecretKey::from_seed(&[21; 32])
}

pub(crate) fn slots(slots: u32) -> DesiredState {
    DesiredState::Slots { slots }
}

pub(crate) fn target() -> TargetId {
    TargetId::new(TARGET).expect("a valid name")
}

/// An envelope's JSON with these signatures.
pub(crate) fn seal(document_type: &str, body: Vec<u8>, signers: &[SecretKey]) -> Vec<u8> {
    let bytes = pae(document_type, &body);
    let signatures = signers.iter().map(|key| (key.public().id(), key.sign(&bytes))).collect();
    Envelope::new(document_type, body, signatures).to_json()
}

pub(crate) fn root() -> Root {
    let owner = |place: usize| format!("owner-{place}");
    let raw = |key: &SecretKey| Digest::from_bytes(key.public().to_bytes());
    let replica = |(place, key): (usize, &SecretKey)| RootReplica {
        keyid: key.public().id(),
        ed25519: raw(key),
        owner: owner(place),
    };
    Root {
        v: 1,
        cluster: Digest::ZERO,
        epoch: Epoch::new(1),
        replicas: replica_keys().iter().enumerate().map(replica).collect(),
        owners: owner_keys()
            .iter()
            .enumerate()
            .map(|(place, key)| RootOwner { name: owner(place), ed25519: raw(key) })
            .collect(),
        operators: vec![RootOperator {
            name: "ana".to_owned(),
            ed25519: raw(&operator_key()),
            owner: owner(0),
        }],
        owner_threshold: 3,
        genesis: Digest::of(b"genesis"),
        not_after: UnixMillis::new(4_000_000_000_000),
        prev: Digest::ZERO,
    }
}

pub(crate) fn sealed_root(root: &Root) -> Vec<u8> {
    seal(ROOT_TYPE, root.to_bytes(), &owner_keys()[..3])
}

pub(crate) fn verified_root() -> VerifiedRoot {
    VerifiedRoot::first(&sealed_root(&root())).expect("it is well made")
}

pub(crate) fn committee() -> Committee {
    verified_root().committee().clone()
}

/// The cluster that a root founds.
pub(crate) fn cluster_of(root: &Root) -> Digest {
    Digest::of(&root.to_bytes())
}

/// Plan 37: from 3 slots to 6.
pub(crate) fn plan() -> Plan {
    Plan {
        v: 1,
        cluster: cluster_of(&root()),
        epoch: Epoch::new(1),
        target: target(),
        seq: Cycle::new(37),
        prev: Digest::ZERO,
        issued_at: UnixMillis::new(1_000_000),
        not_before: UnixMillis::new(1_000_000),
        expires_at: UnixMillis::new(1_900_000),
        desired: slots(6),
        preconditions: Preconditions { state: slots(3) },
        limits: Limits::Slots { min: 1, max: 12, max_step: 4 },
        verify: Verify {
            series: "pool.queued_slots".to_owned(),
            op: VerifyOp::AtMost,
            value: Measure { value: 5, scale: 0, unit: String::new() },
            by: UnixMillis::new(1_300_000),
            otherwise: VerifyElse::Finding,
        },
        rollback: slots(3),
        on_stale: OnStale::Hold,
        evidence: Digest::of(b"evidence"),
        policy: Digest::of(b"policy"),
        risk: RiskClass::Low,
        reason: Reason::Threshold,
    }
}

pub(crate) fn sealed_plan(plan: &Plan) -> Vec<u8> {
    seal(PLAN_TYPE, plan.to_bytes(), &replica_keys()[..3])
}

/// A head of shard 0 that names this plan as the newest.
pub(crate) fn head_of(number: u64, mode: Mode, plan: &Plan) -> Head {
    Head {
        v: 1,
        cluster: plan.cluster,
        epoch: Epoch::new(1),
        shard: Shard::new(0),
        number: HeadNumber::new(number),
        time: UnixMillis::new(1_001_000),
        targets: vec![HeadEntry {
            target: plan.target.clone(),
            seq: plan.seq,
            plan: Digest::of(&plan.to_bytes()),
            mode,
        }],
        log_size: 1,
        log_root: Digest::of(b"log"),
    }
}

pub(crate) fn sealed_head(head: &Head) -> Vec<u8> {
    seal(HEAD_TYPE, head.to_bytes(), &replica_keys()[1..])
}

/// The agent's account of [`plan`].
pub(crate) fn receipt() -> Receipt {
    Receipt {
        v: 1,
        cluster: plan().cluster,
        target: target(),
        seq: plan().seq,
        plan: Digest::of(&plan().to_bytes()),
        outcome: Outcome::Applied {},
        before: slots(3),
        after: slots(6),
        at: UnixMillis::new(1_002_000),
        counter: 5,
        refused_documents: 0,
        lost_receipts: 0,
    }
}

pub(crate) fn sealed_receipt(receipt: &Receipt) -> Vec<u8> {
    seal(RECEIPT_TYPE, receipt.to_bytes(), &[agent_key()])
}

/// The operator's first request: to hold every target it may.
pub(crate) fn request() -> OperatorRequest {
    OperatorRequest {
        v: 1,
        cluster: cluster_of(&root()),
        epoch: Epoch::new(1),
        counter: 1,
        expires_at: UnixMillis::new(4_000_000_000_000),
        request: Request::Stop { targets: Selection::These([target()].into()), mode: StopMode::Hold },
    }
}
