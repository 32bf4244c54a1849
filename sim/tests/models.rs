//! The small exhaustive models within the bounds of CI, and planted faults that each of them must find.
//!
//! The ignored ones have larger bounds; `just models` runs them. Invariant: a model that visits little fails.

use quorate_sim::models::{breadth, twins};
use std::io::Write as _;

/// Tests' own output is swallowed unless one fails; what a model covered is for whoever asks with `--nocapture`.
fn tell(what: &str) {
    writeln!(std::io::stdout(), "{what}").expect("standard output takes a line");
}

/// Everything with this replica Byzantine: complete, and without a broken invariant.
fn explore(byzantine: u8, views: u64, restarts: u8, merges: bool) -> breadth::Explored {
    let byzantine = vec![byzantine];
    let bound = breadth::Bound { byzantine, views, restarts, forgets: None, merges, most_states: 20_000_000 };
    let told = format!("{bound:?}");
    let explored = breadth::explore(bound);
    tell(&format!("{told}: {explored}"));
    assert_eq!(explored.violation, None, "{told}");
    assert!(explored.complete, "{told}: {explored}");
    explored
}

fn enumerate(twin: u8, views: u32) -> twins::Enumerated {
    let enumerated = twins::enumerate(twins::Bound { twins: vec![twin], views });
    tell(&format!("twin {twin}, {views} views: {enumerated}"));
    assert_eq!(enumerated.violation, None, "twin {twin}, {views} views");
    enumerated
}

#[test]
fn no_interleaving_of_two_views_with_one_byzantine_replica_breaks_voting_or_locking() {
    let explored = explore(0, 2, 0, false);
    assert!(explored.with_commits > 0 && explored.with_unlocks > 0, "{explored}");
    explore(1, 2, 0, false);
}

#[test]
fn no_interleaving_of_three_views_with_one_byzantine_replica_breaks_voting_or_locking() {
    let explored = explore(0, 3, 0, true);
    assert!(explored.with_commits > 0 && explored.with_unlocks > 0, "{explored}");
    explore(1, 3, 0, true);
}

#[test]
#[ignore = "a larger bound: `just models`"]
fn whichever_replica_is_byzantine_no_interleaving_breaks_voting_or_locking() {
    for byzantine in [2, 3] {
        explore(byzantine, 4, 0, true);
    }
}

#[test]
fn a_restart_between_any_two_messages_breaks_neither_voting_nor_locking() {
    explore(1, 1, 1, false);
}

#[test]
fn breadth_first_finds_a_replica_that_forgets_its_journal() {
    let bound = breadth::Bound {
        byzantine: vec![1],
        views: 1,
        restarts: 0,
        forgets: Some(0),
        merges: false,
        most_states: 1_000_000,
    };
    let (what, way) = breadth::explore(bound).violation.expect("it votes twice");
    assert!(what.contains("signed two votes"), "{what}: {way:?}");
}

#[test]
fn breadth_first_finds_what_one_byzantine_replica_too_many_does() {
    let bound = breadth::Bound {
        byzantine: vec![0, 1],
        views: 2,
        restarts: 0,
        forgets: None,
        merges: true,
        most_states: 1_000_000,
    };
    let (what, _) = breadth::explore(bound).violation.expect("two of four certify what they like");
    assert!(what.contains("certified"), "{what}");
}

#[test]
fn no_script_of_one_twin_and_partitions_of_two_views_breaks_an_invariant() {
    let mut sum = twins::Enumerated::default();
    for twin in 0..4 {
        let enumerated = enumerate(twin, 2);
        sum.scripts += enumerated.scripts;
        sum.with_commits += enumerated.with_commits;
    }
    assert_eq!(sum.scripts, 1024);
    assert!(sum.with_commits > 100, "{sum}");
}

#[test]
#[ignore = "a larger bound: `just models`"]
fn no_script_of_one_twin_and_partitions_of_three_views_breaks_an_invariant() {
    for twin in 0..4 {
        enumerate(twin, 3);
    }
}

#[test]
fn the_scripts_find_one_twin_too_many() {
    let enumerated = twins::enumerate(twins::Bound { twins: vec![1, 2], views: 2 });
    let (what, script) = enumerated.violation.expect("two of four twins fork the chain");
    assert!(what.contains("different blocks"), "{what}: {script:?}");
}
