//! Seeds that must keep every invariant: a fixed range of each size, and each kind of adversary.
//!
//! It plants no fault. Invariant: a failing seed's message says how to replay it.

use quorate::knowledge::evidence::EvidenceKind;
use quorate_sim::{Outcome, Report, Scenario, adversary::Kind, run};
use std::collections::BTreeSet;

fn keeps_every_invariant(seed: u64, replicas: Option<usize>) -> Outcome {
    let outcome = run(Scenario::of_seed(seed, replicas));
    let size = replicas.map_or(String::new(), |replicas| format!(" --replicas {replicas}"));
    if let Some(violation) = &outcome.violation {
        panic!("seed {seed}: {violation}\nreplay: quorate-sim --seed {seed}{size} --trace");
    }
    outcome
}

#[test]
fn seeds_of_the_usual_sizes_keep_every_invariant_and_meet_every_kind_of_fault() {
    let mut report = Report::default();
    for seed in 0..30 {
        report.add(&keeps_every_invariant(seed, None));
    }
    assert!(
        report.is_busy(),
        "only {} commits an hour: the seeds test little",
        report.busy_commits_per_hour()
    );
    for fault in [
        "bit rot",
        "clock leapt",
        "clogged link",
        "cut",
        "disk full",
        "ended by its journal",
        "gone for good",
        "killed",
        "older copy of the journal",
        "partition",
        "power lost",
        "slow replica",
        "state transferred",
        "sync failed",
        "unsynced write lost",
        "unsynced write torn",
    ] {
        assert!(report.faults.contains_key(fault), "no seed met {fault:?}: {:?}", report.faults);
    }
    let traffic = report.traffic;
    let met =
        [traffic.lost, traffic.doubled, traffic.held_back, traffic.overtaking, traffic.cut_off, traffic.late];
    assert!(met.iter().all(|count| *count > 0), "{traffic:?}");
    let orders = report.orders;
    let happened =
        [orders.plans, orders.requests, orders.refused_requests, orders.receipts, orders.refused_receipts];
    assert!(happened.iter().all(|count| *count > 0), "{orders:?}");
}

#[test]
fn as_many_adversaries_of_one_kind_as_may_be_break_nothing() {
    for kind in Kind::ALL {
        let mut reached = 0;
        let mut witnessed = BTreeSet::new();
        for seed in 0..4 {
            let replicas = if seed % 2 == 0 { 7 } else { 4 };
            let outcome = run(Scenario::with_adversaries(seed, Some(replicas), &[kind]));
            if let Some(violation) = &outcome.violation {
                panic!("seed {seed} with {kind:?} of {replicas}: {violation}");
            }
            let met = outcome.reached.get(&kind).copied().unwrap_or_default();
            reached += met.taken + met.refused;
            witnessed.extend(outcome.witnessed.into_iter().map(|(_, offence)| offence));
        }
        let certain = certain_offences(kind);
        assert!(certain.iter().all(|offence| witnessed.contains(offence)), "{kind:?}: {witnessed:?}");
        assert!(!is_silent_about_itself(kind) || witnessed.is_empty(), "{kind:?}: {witnessed:?}");
        assert_eq!(reached > 0, kind != Kind::Silent, "{kind:?}: {reached} messages reached a handler");
    }
}

/// What is always seen of such an adversary in a few seeds, because both statements reach one honest replica.
const fn certain_offences(kind: Kind) -> &'static [EvidenceKind] {
    match kind {
        Kind::EquivocatingLeader => &[EvidenceKind::DoubleProposal, EvidenceKind::DoubleVote],
        Kind::DoubleVoter => &[EvidenceKind::DoubleVote],
        Kind::Forger => &[EvidenceKind::InvalidCertificate],
        Kind::Mutator => {
            &[EvidenceKind::DoubleVote, EvidenceKind::DoubleProposal, EvidenceKind::InvalidCertificate]
        }
        Kind::Silent
        | Kind::DelayingLeader
        | Kind::VoteWithholder
        | Kind::SelectiveSender
        | Kind::Replayer
        | Kind::HiddenLock
        | Kind::Flooder
        | Kind::LyingSyncPeer
        | Kind::DrippingSyncPeer
        | Kind::LyingReporter
        | Kind::StaleProposer
        // Each falls silent as soon as it meets the other's signature.
        | Kind::Twin => &[],
    }
}

/// Whether such an adversary signs nothing that contradicts anything in consensus.
const fn is_silent_about_itself(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Silent
            | Kind::DelayingLeader
            | Kind::VoteWithholder
            | Kind::SelectiveSender
            | Kind::LyingSyncPeer
            | Kind::DrippingSyncPeer
            | Kind::LyingReporter
    )
}

#[test]
fn committees_without_a_fault_to_spare_keep_every_invariant() {
    for replicas in [1, 2, 3] {
        for seed in 0..6 {
            keeps_every_invariant(seed, Some(replicas));
        }
    }
}

#[test]
fn large_committees_keep_every_invariant() {
    for (replicas, seeds) in [(10, 0..3), (13, 0..2), (31, 0..1)] {
        for seed in seeds {
            keeps_every_invariant(seed, Some(replicas));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    for seed in [3, 4, 5] {
        let traces: Vec<_> = (0..2).map(|_| run(Scenario::of_seed(seed, None)).trace).collect();
        assert_eq!(traces[0], traces[1], "seed {seed}");
        assert_ne!(traces[0], run(Scenario::of_seed(seed + 100, None)).trace);
    }
}
