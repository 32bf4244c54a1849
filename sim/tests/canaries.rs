//! Faults planted from outside, and one adversary more than may be, to prove that the invariants see what they claim to
//! see.
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
const SEEDS: usize = 40;

/// Longer runs show no more.
const SHORT_MS: u64 = 30_000;

/// Whether one of the first seeds with a short run, changed so, breaks the invariant of which this is told.
fn assert_seen(what: &str, replicas: usize, change: impl Fn(&mut Scenario)) {
    let scenarios = (0..).map(|seed| Scenario::of_seed(seed, Some(replicas)));
    let mut others = Vec::new();
    for mut scenario in scenarios.filter(|scenario| scenario.heal_ms <= SHORT_MS).take(SEEDS) {
        change(&mut scenario);
        match run(scenario).violation {
            Some(violation) if violation.what.contains(what) => return,
            other => others.extend(other.map(|violation| violation.what)),
        }
    }
    panic!("no {what:?} within {SEEDS} seeds, but {others:?}");
}

fn plant(scenario: &mut Scenario, plant: Plant) {
    scenario.adversaries.clear();
    scenario.plants = (0..4).map(|place| (ReplicaIndex::new(place), plant)).collect();
}

/// The first replicas are adversaries of these kinds, more than may be, and nobody counts on them.
fn cast(scenario: &mut Scenario, kinds: &[Kind]) {
    scenario.adversaries = (0..).map(ReplicaIndex::new).zip(kinds.iter().copied()).collect();
    scenario.damaged.clear();
    scenario.faults.retain(|(_, fault)| !matches!(fault, Fault::Damage { .. }));
    let adversaries = kinds.len();
    scenario.submissions.retain(|submission| submission.at.as_usize() >= adversaries);
}

#[test]
fn a_driver_that_sends_before_it_syncs_is_seen() {
    assert_seen("left before it was durable", 4, |scenario| plant(scenario, Plant::SendsBeforeSync));
}

#[test]
fn a_replica_that_forgets_its_journal_is_seen_to_contradict_itself() {
    assert_seen("signed two", 4, |scenario| {
        plant(scenario, Plant::ForgetsJournal);
        for at_ms in (100..scenario.heal_ms).step_by(700) {
            let replica = ReplicaIndex::new(u16::try_from(at_ms / 100 % 4).expect("below four"));
            let crash = Fault::Crash { replica, after_outputs: at_ms % 9, crash: Crash::Power, away_ms: 1 };
            scenario.faults.push((at_ms, crash));
        }
    });
}

#[test]
fn a_replica_that_votes_twice_is_seen() {
    assert_seen("signed two votes", 4, |scenario| plant(scenario, Plant::VotesTwice));
}

/// f + 1 twins, whose sides divide the others for as long as the run lasts.
fn too_many_twins(scenario: &mut Scenario, twins: usize) {
    cast(scenario, &vec![Kind::Twin; twins]);
    let honest = || (twins..scenario.replicas).map(|place| u16::try_from(place).expect("there are few"));
    let side = |place: u16| if place.is_multiple_of(2) { Side::Left } else { Side::Right };
    let sides = honest().map(|place| Some(side(place)));
    scenario.sides = vec![(0, [None].into_iter().cycle().take(twins).chain(sides).collect())];
    let part = honest().filter(|place| side(*place) == Side::Left).map(ReplicaIndex::new);
    let part: Vec<_> = part.collect();
    let mut faults = Vec::new();
    for one in honest().map(ReplicaIndex::new) {
        for other in
            honest().map(ReplicaIndex::new).filter(|other| part.contains(&one) != part.contains(other))
        {
            faults.push((0, Fault::Cut { from: one, to: other, for_ms: scenario.heal_ms }));
        }
    }
    scenario.faults = faults;
}

#[test]
fn a_replica_whose_state_is_another_is_seen_to_diverge() {
    assert_seen("has diverged from the certified state", 4, |scenario| {
        scenario.adversaries.clear();
        scenario.plants = vec![(ReplicaIndex::new(0), Plant::NamesAnotherState)];
    });
}

#[test]
fn one_twin_too_many_forks_the_chain_and_the_fork_is_seen() {
    for (replicas, twins) in [(4, 2), (7, 3)] {
        assert_seen("committed another block at height", replicas, |scenario| {
            too_many_twins(scenario, twins);
        });
    }
}

#[test]
fn one_silent_adversary_too_many_is_seen_to_stop_the_cluster() {
    for (replicas, silent) in [(4, 2), (7, 3)] {
        let kinds = vec![Kind::Silent; silent];
        assert_seen("not committed everywhere", replicas, |scenario| cast(scenario, &kinds));
    }
}

#[test]
fn one_adversary_too_many_that_keeps_its_votes_is_seen_to_stop_the_plans() {
    assert_seen("is not stopped and has no new plan", 4, |scenario| {
        cast(scenario, &[Kind::VoteWithholder; 2]);
    });
}

#[test]
fn one_lying_reporter_too_many_is_seen_in_what_is_planned() {
    assert_seen("is not stopped and has no new plan", 4, |scenario| {
        cast(scenario, &[Kind::LyingReporter; 2]);
    });
}
