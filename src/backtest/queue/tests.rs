//! The queue by hand-counted cases, and what must hold of it whatever is ordered when.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Queue, QueueSettings};
use crate::{
    backtest::arrivals::Job,
    types::{Millis, TargetId},
};

fn queue(jobs: &[(u64, u64)], workers: u32) -> Queue {
    let settings = QueueSettings { start_up: Millis::from_secs(60), wait_bound: Millis::from_secs(30) };
    let target = TargetId::new("workers").expect("a valid name");
    let jobs: Arc<[Job]> =
        jobs.iter().map(|(at_ms, work_ms)| Job { at_ms: *at_ms, work_ms: *work_ms }).collect();
    Queue::new(settings, target, jobs, workers)
}

#[test]
fn jobs_are_taken_up_in_order_and_waits_past_the_bound_are_violations() {
    // One worker: the second job waits 40 s, of which the last ten are too much, in the minute of their own.
    let mut queue = queue(&[(0, 70_000), (30_000, 1_000)], 1);
    queue.advance(59_999);
    assert_eq!((queue.running(), queue.depth(), queue.account().violation_minutes), (1, 1, 0));
    queue.advance(60_000);
    assert_eq!(queue.account().violation_minutes, 0, "it waited as long as it may");
    queue.advance(100_000);
    assert_eq!((queue.account().violation_minutes, queue.totals().longest_wait_ms), (1, 40_000));
    assert!(queue.is_done());
    assert_eq!((queue.totals().worker_ms, queue.totals().busy_ms), (100_000, 71_000));
}

#[test]
fn workers_cost_from_the_moment_they_are_asked_for_and_work_after_the_start_up() {
    let mut queue = queue(&[(0, 1_000)], 0);
    queue.advance(5_000);
    queue.order(2);
    queue.advance(64_999);
    assert_eq!((queue.ready(), queue.starting(), queue.running()), (0, 2, 0));
    queue.advance(65_000);
    assert_eq!((queue.ready(), queue.running()), (2, 1));
    assert_eq!((queue.totals().worker_ms, queue.totals().ready_ms), (120_000, 0));
}

#[test]
fn starting_workers_go_first_then_idle_ones_and_busy_ones_after_their_jobs() {
    let mut queue = queue(&[(0, 10_000)], 2);
    queue.advance(1_000);
    queue.order(3);
    queue.order(2);
    assert_eq!((queue.ready(), queue.starting()), (2, 0));
    queue.order(0);
    assert_eq!((queue.ready(), queue.running()), (1, 1), "the busy one finishes");
    queue.order(1);
    queue.advance(20_000);
    assert_eq!(queue.ready(), 1, "it was wanted again before it had finished");
    queue.order(0);
    assert_eq!(queue.ready(), 0);
}

proptest! {
    /// Whatever is ordered when: jobs are neither lost nor done twice, work is done in full, and nobody is paid or works
    /// who is not there.
    #[test]
    fn every_job_is_waiting_worked_on_or_done(
        arrivals in proptest::collection::vec((0_u64..5_000, 1_u64..40_000), 1..60),
        orders in proptest::collection::vec((1_u64..30_000, 0_u32..8), 1..40),
    ) {
        let mut at_ms = 0;
        let jobs: Vec<(u64, u64)> = arrivals.iter().map(|(gap, work_ms)| { at_ms += gap; (at_ms, *work_ms) }).collect();
        let mut queue = queue(&jobs, 1);
        let mut now = 0;
        for (later, workers) in orders {
            now += later;
            queue.advance(now);
            queue.order(workers);
            let totals = *queue.totals();
            let due = jobs.iter().filter(|(at_ms, _)| *at_ms <= now).count() as u64;
            prop_assert_eq!(totals.arrived, due);
            prop_assert_eq!(totals.arrived, totals.completed + queue.depth() + queue.running());
            prop_assert!(totals.busy_ms <= totals.ready_ms && totals.ready_ms <= totals.worker_ms);
            prop_assert!(queue.depth() == 0 || queue.running() == queue.ready(), "nobody rests while jobs wait");
        }
        queue.order(3);
        queue.advance(now + 60_000 + jobs.len() as u64 * 40_000);
        prop_assert!(queue.is_done());
        let work: u64 = jobs.iter().map(|(_, work_ms)| work_ms).sum();
        prop_assert_eq!((queue.totals().busy_ms, queue.totals().completed_work_ms), (work, work));
    }
}
