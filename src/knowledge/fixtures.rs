//! Documents for tests: one small cluster of four replicas, four owners, three operators and one agent, whose keys are
//! made from fixed seeds. Nothing here is compiled outside tests.

use super::{
    certified::Certified,
    head::{HEAD_TYPE, Head, HeadEntry, Mode},
    observation::ReportHeader,
    plan::{
        DesiredState, Limits, Measure, OnStale, PLAN_TYPE, Plan, Preconditions, Reason, RiskClass, Verify,
        VerifyElse, VerifyOp,
    },
    receipt::{Outcome, Receipt, Refusal},
    root::{ROOT_TYPE, Root, RootOperator, RootOwner, RootReplica, VerifiedRoot},
};
use crate::types::{
    Committee, Cycle, Digest, Envelope, Epoch, Evidence, HeadNumber, ReplicaIndex, SecretKey, Shard,
    SignedStatement, TargetId, UnixMillis, WindowIndex, pae,
};

/// Agreed time at which the fixture's plan is issued.
pub(crate) const ISSUED_AT: UnixMillis = UnixMillis::new(1_000_000);

pub(crate) fn replica_keys() -> Vec<SecretKey> {
    (1..=4).map(|seed| SecretKey::from_seed(&[seed; 32])).collect()
}

pub(crate) fn owner_keys() -> Vec<SecretKey> {
    (11..=14).map(|seed| SecretKey::from_seed(&[seed; 32])).collect()
}

/// The keys of ana, who acts for owner-0, and of bea and bob, who act for owner-1.
pub(crate) fn operator_keys() -> Vec<SecretKey> {
    (31..=33).map(|seed| SecretKey::from_seed(&[seed; 32])).collect()
}

pub(crate) fn agent_key() -> SecretKey {
    SecretKey::from_seed(&[21; 32])
}

pub(crate) fn target() -> TargetId {
    TargetId::new("extract_pool").expect("a valid name")
}

/// Evidence of two reports on window 7 by the replica at this place.
pub(crate) fn double_report(place: u16) -> Evidence {
    let (replica, window) = (ReplicaIndex::new(place), WindowIndex::new(7));
    let signed = |partial| {
        let (signed_at, body) = (UnixMillis::ZERO, Digest::ZERO);
        let header = ReportHeader { replica, window, partial, signed_at, body };
        let bytes = header.statement(&committee().domain(0));
        SignedStatement { signature: replica_keys()[replica.as_usize()].sign(&bytes), bytes }
    };
    Evidence::contradiction(replica, signed(false), signed(true))
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
    Root {
        v: 1,
        cluster: Digest::ZERO,
        epoch: Epoch::new(1),
        replicas: replica_keys()
            .iter()
            .enumerate()
            .map(|(place, key)| RootReplica {
                keyid: key.public().id(),
                ed25519: raw(key),
                owner: owner(place),
            })
            .collect(),
        owners: owner_keys()
            .iter()
            .enumerate()
            .map(|(place, key)| RootOwner { name: owner(place), ed25519: raw(key) })
            .collect(),
        operators: operator_keys()
            .iter()
            .zip([("ana", 0), ("bea", 1), ("bob", 1)])
            .map(|(key, (name, place))| RootOperator {
                name: name.to_owned(),
                ed25519: raw(key),
                owner: owner(place),
            })
            .collect(),
        owner_threshold: 3,
        genesis: Digest::of(b"genesis"),
        not_after: UnixMillis::new(4_000_000_000_000),
        prev: Digest::ZERO,
    }
}

pub(crate) fn verified_root() -> VerifiedRoot {
    VerifiedRoot::first(&seal(ROOT_TYPE, root().to_bytes(), &owner_keys())).expect("the fixture verifies")
}

pub(crate) fn committee() -> Committee {
    verified_root().committee().clone()
}

/// Plan 37: from 3 slots to 6, to be applied within 900 s.
pub(crate) fn plan() -> Plan {
    Plan {
        v: 1,
        cluster: Digest::of(&root().to_bytes()),
        epoch: Epoch::new(1),
        target: target(),
        seq: Cycle::new(37),
        prev: Digest::ZERO,
        issued_at: ISSUED_AT,
        not_before: ISSUED_AT,
        expires_at: UnixMillis::new(1_900_000),
        desired: DesiredState::Slots { slots: 6 },
        preconditions: Preconditions { state: DesiredState::Slots { slots: 3 } },
        limits: Limits::Slots { min: 1, max: 12, max_step: 4 },
        verify: Verify {
            series: "pool.queued_slots".to_owned(),
            op: VerifyOp::AtMost,
            value: Measure { value: 5, scale: 0, unit: String::new() },
            by: UnixMillis::new(1_300_000),
            otherwise: VerifyElse::Finding,
        },
        rollback: DesiredState::Slots { slots: 3 },
        on_stale: OnStale::Rollback,
        evidence: Digest::of(b"evidence"),
        policy: Digest::of(b"policy"),
        risk: RiskClass::Low,
        reason: Reason::Threshold,
    }
}

pub(crate) fn certified_plan(plan: &Plan) -> Certified<Plan> {
    Certified::verify(&seal(PLAN_TYPE, plan.to_bytes(), &replica_keys()[..3]), &committee())
        .expect("the fixture verifies")
}

/// A head of shard 0 that names [`plan`] as the newest, derived one second after the plan.
pub(crate) fn head(number: u64, mode: Mode) -> Head {
    head_of(number, mode, &plan())
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

pub(crate) fn certified_head(head: &Head) -> Certified<Head> {
    Certified::verify(&seal(HEAD_TYPE, head.to_bytes(), &replica_keys()[..3]), &committee())
        .expect("the fixture verifies")
}

/// The agent's account of refusing [`plan`] over a precondition.
pub(crate) fn receipt() -> Receipt {
    Receipt {
        v: 1,
        cluster: plan().cluster,
        target: target(),
        seq: plan().seq,
        plan: Digest::of(&plan().to_bytes()),
        outcome: Outcome::Refused { why: Refusal::Precondition },
        before: DesiredState::Slots { slots: 3 },
        after: DesiredState::Paused {},
        at: ISSUED_AT,
        counter: 5,
        refused_documents: 0,
        lost_receipts: 0,
    }
}
