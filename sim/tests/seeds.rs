//! Seeds that must keep every invariant: a fixed range, and all that once did not.
//!
//! It plants no fault. Invariant: a failing seed's message says how to replay it.

use quorate_sim::{Outcome, Scenario, adversary::Kind, run};

/// Seeds that broke an invariant once, with the committee's size they did it in.
const REGRESSIONS: &[(u64, Option<usize>)] = &[
    // Answers to a fetch that brought nothing new were followed by the next request without end.
    (196, None),
    // Replicas at rest did not propose, so that one that had missed a certificate never saw two in a row.
    (1173, None),
    // A replica whose journal went back to an older copy was taken for one that must not contradict itself.
    (89, Some(5)),
    // Two replicas that held both certificates of a view stayed awake alone.
    (20125, None),
];

fn keeps_every_invariant(seed: u64, replicas: Option<usize>) -> Outcome {
    let outcome = run(Scenario::of_seed(seed, replicas));
    let size = replicas.map_or(String::new(), |replicas| format!(" --replicas {replicas}"));
    if let Some(violation) = &outcome.violation {
        panic!("seed {seed}: {violation}\nreplay: quorate-sim --seed {seed}{size} --trace");
    }
    outcome
}

#[test]
fn two_hundred_seeds_over_four_to_seven_replicas_keep_every_invariant() {
    let (mut commits, mut transferred) = (0, 0);
    for seed in 0..200 {
        let outcome = keeps_every_invariant(seed, None);
        commits += outcome.commits;
        transferred += outcome.faults.get("state transferred").copied().unwrap_or_default();
    }
    assert!(commits > 2_000, "only {commits} commits: the seeds test little");
    assert!(transferred > 10, "only {transferred} state transfers");
}

#[test]
fn as_many_adversaries_of_one_kind_as_may_be_break_nothing() {
    for kind in Kind::ALL {
        let mut reached = 0;
        for seed in 0..8 {
            let replicas = if seed % 2 == 0 { 4 } else { 7 };
            let outcome = run(Scenario::with_adversaries(seed, Some(replicas), &[kind]));
            if let Some(violation) = &outcome.violation {
                panic!("seed {seed} with {kind:?} of {replicas}: {violation}");
            }
            let met = outcome.reached.get(&kind).copied().unwrap_or_default();
            reached += met.taken + met.refused;
        }
        assert_eq!(reached > 0, kind != Kind::Silent, "{kind:?}: {reached} messages reached a handler");
    }
}

#[test]
fn committees_without_a_fault_to_spare_keep_every_invariant() {
    for replicas in [1, 2, 3] {
        for seed in 0..10 {
            keeps_every_invariant(seed, Some(replicas));
        }
    }
}

#[test]
fn seeds_that_failed_once_keep_every_invariant() {
    for (seed, replicas) in REGRESSIONS {
        keeps_every_invariant(*seed, *replicas);
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
