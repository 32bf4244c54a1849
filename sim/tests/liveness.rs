//! Recovery within bounds, case by case; `quorate-sim liveness` tells the figures.
//!
//! Invariant: a case that takes longer than its bounds, or is no longer what it claims to be, fails.

use quorate_sim::{liveness, run};

#[test]
fn after_every_case_the_first_block_is_committed_within_its_bounds() {
    let broken: Vec<_> = liveness::cases().into_iter().filter_map(|case| case.run().broken).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_three_that_crash_had_each_timed_out_in_another_view() {
    let outcome = run(liveness::each_in_another_view());
    assert_eq!(outcome.signed_views, [3, 2, 1, 0]);
    assert_eq!(outcome.violation, None);
    assert!(outcome.recovered.is_some(), "they never met again");
}

#[test]
fn f_peers_that_give_one_block_at_a_time_keep_nobody_from_beginning_at_a_checkpoint() {
    for drips in [[1, 3], [2, 4]] {
        let outcome = run(liveness::joins_beside_drips(drips));
        assert_eq!(outcome.violation, None, "{drips:?}");
        assert!(
            outcome.commits > 500,
            "a chain of {} blocks is caught up with block by block",
            outcome.commits
        );
        assert_eq!(outcome.faults.get("state transferred"), Some(&1), "{drips:?}");
    }
}
