//! Faults planted from outside, to prove that the invariants see what they claim to see.
//!
//! It tests the simulator, not the protocol. Invariant: each test names the invariant that must break.

use quorate::types::ReplicaIndex;
use quorate_sim::{
    Scenario,
    adversary::{Kind, Side},
    disk::Crash,
    node::Plant,
    run,
    scenario::Fault,
};

/// Within so many seeds each planted fault must be seen.
const SEEDS: u64 = 40;

/// What the first seeds break, with the scenarios changed.
fn violations(change: impl Fn(&mut Scenario)) -> Vec<String> {
    (0..SEEDS)
        .filter_map(|seed| {
            let mut scenario = Scenario::of_seed(seed, Some(4));
            change(&mut scenario);
            run(scenario).violation.map(|violation| violation.what)
        })
        .collect()
}

fn plant(scenario: &mut Scenario, plant: Plant) {
    scenario.adversaries.clear();
    scenario.plants = (0..4).map(|place| (ReplicaIndex::new(place), plant)).collect();
}

fn assert_seen(violations: &[String], what: &str) {
    let seen = violations.iter().filter(|violation| violation.contains(what)).count();
    assert!(seen > 0, "no {what:?} within {SEEDS} seeds, but {violations:?}");
}

#[test]
fn a_driver_that_sends_before_it_syncs_is_seen() {
    let violations = violations(|scenario| plant(scenario, Plant::SendsBeforeSync));
    assert_seen(&violations, "left before it was durable");
}

#[test]
fn a_replica_that_forgets_its_journal_is_seen_to_contradict_itself() {
    let violations = violations(|scenario| {
        plant(scenario, Plant::ForgetsJournal);
        for at_ms in (100..scenario.heal_ms).step_by(700) {
            let replica = ReplicaIndex::new(u16::try_from(at_ms / 100 % 4).expect("below four"));
            let crash = Fault::Crash { replica, after_outputs: at_ms % 9, crash: Crash::Power, away_ms: 1 };
            scenario.faults.push((at_ms, crash));
        }
    });
    assert_seen(&violations, "signed two");
}

#[test]
fn a_replica_that_votes_twice_is_seen() {
    let violations = violations(|scenario| plant(scenario, Plant::VotesTwice));
    assert_seen(&violations, "signed two votes");
}

#[test]
fn a_replica_whose_state_is_another_is_seen_to_diverge() {
    let violations = violations(|scenario| {
        scenario.adversaries.clear();
        scenario.plants = vec![(ReplicaIndex::new(0), Plant::NamesAnotherState)];
    });
    assert_seen(&violations, "has diverged from the certified state");
}

#[test]
fn one_twin_too_many_forks_the_chain_and_the_fork_is_seen() {
    let violations = violations(|scenario| {
        let replica = ReplicaIndex::new;
        scenario.adversaries = vec![(replica(0), Kind::Twin), (replica(1), Kind::Twin)];
        scenario.sides = vec![None, None, Some(Side::Left), Some(Side::Right)];
        let for_ms = scenario.heal_ms;
        scenario.faults = vec![
            (0, Fault::Cut { from: replica(2), to: replica(3), for_ms }),
            (0, Fault::Cut { from: replica(3), to: replica(2), for_ms }),
        ];
        scenario.submissions.retain(|submission| submission.at.place() > 1);
    });
    assert_seen(&violations, "committed another block at height");
}

#[test]
fn without_a_quorum_of_honest_replicas_the_missing_progress_is_seen() {
    let violations = violations(|scenario| {
        let replica = ReplicaIndex::new;
        scenario.adversaries = vec![(replica(0), Kind::Silent), (replica(1), Kind::Silent)];
        scenario.submissions.retain(|submission| submission.at.place() > 1);
    });
    assert_seen(&violations, "not committed everywhere");
}
