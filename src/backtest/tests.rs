//! The loop on virtual time against the built-in queue and against plants that fail, and the baselines by hand.

use std::sync::Arc;

use super::{
    Ended, Event, Finished, Plant, PlantFailure, Settings, SettingsError, agent_key,
    arrivals::Job,
    baseline::{TargetTracking, World},
    protocol::{Answer, Order, Span},
    queue::{Queue, QueueSettings},
    run,
};
use crate::{
    knowledge::{
        genesis::{Genesis, MAX_PLANS_PER_HOUR, Parameters},
        plan::{DesiredState, OnStale},
        policy::{
            Action, Change, Combine, Condition, Controls, Indicator, Policy, Risk, Selector, Side, Statistic,
            Target, TargetKind,
        },
    },
    types::{Millis, Quantity, TargetId},
};
use std::collections::BTreeMap;

fn target() -> TargetId {
    TargetId::new("workers").expect("a valid name")
}

/// Two more workers while more than ten jobs wait.
fn genesis() -> Genesis {
    let target = target();
    Genesis {
        parameters: Parameters::for_window(Millis::from_secs(10)),
        targets: vec![Target {
            id: target.clone(),
            kind: TargetKind::Pool { initial: 1, min: 1, max: 20, max_step: 4 },
            cooldown: Millis::from_secs(20),
            plans_per_hour: MAX_PLANS_PER_HOUR,
            owner: super::OWNER.to_owned(),
            agent: agent_key(&target).public(),
        }],
        policies: vec![Policy {
            name: "backlog".to_owned(),
            indicator: Indicator {
                selector: Selector {
                    source: None,
                    name: "queue.depth".to_owned(),
                    attributes: BTreeMap::new(),
                },
                statistic: Statistic::Last,
                combine: Combine::Sum,
            },
            condition: Condition::Threshold {
                side: Side::Above,
                enter: Quantity::from_i64(10),
                leave: Quantity::from_i64(2),
                hold: Millis::ZERO,
            },
            action: Some(Action {
                target,
                change: Change::AddSlots(2),
                cooldown: Millis::from_secs(20),
                expiry: Millis::from_secs(900),
                risk: Risk::Low,
                on_stale: OnStale::Hold,
                verify_within: Millis::from_secs(300),
                controls: Controls::ACTING,
            }),
        }],
    }
}

/// A job of four seconds every second for five minutes.
fn jobs() -> Arc<[Job]> {
    (0..300).map(|second| Job { at_ms: second * 1000, work_ms: 4000 }).collect()
}

const QUEUE: QueueSettings =
    QueueSettings { start_up: Millis::from_secs(30), wait_bound: Millis::from_secs(60) };

const SETTINGS: Settings =
    Settings { replicas: 1, step: Millis::from_secs(1), at_most: Millis::from_secs(3600) };

fn finish(settings: Settings, plant: &mut impl Plant) -> (Finished, Vec<(Millis, DesiredState)>) {
    let mut plans = Vec::new();
    let mut watch = |event: Event<'_>| {
        if let Event::Logged(at, plan) = event {
            plans.push((at, plan.desired));
        }
    };
    let finished = run(&genesis(), settings, plant, &mut watch).expect("the settings are sound");
    (finished, plans)
}

#[test]
fn plans_take_effect_with_the_delays_of_production() {
    let (finished, plans) = finish(SETTINGS, &mut Queue::new(QUEUE, target(), jobs(), 1));
    assert_eq!(finished.ended, Ended::Done);
    // Eleven jobs wait after some 15 s; that window closes at 20 s, is reported at 22 s, and its plan is certified and
    // ordered within the second after.
    let (at, state) = plans.first().expect("the queue grew");
    assert_eq!(*state, DesiredState::Slots { slots: 3 });
    assert!((22_000..23_000).contains(&at.as_millis()), "{at}");
    assert!(plans.len() >= 2 && finished.plans == plans.len() as u64);
    let last = plans.last().map(|(_, state)| *state);
    assert_eq!(
        finished.desired.first().map(|desired| desired.state),
        last,
        "the agent has applied the last one"
    );
}

#[test]
fn equal_inputs_give_equal_bytes_whatever_is_watched_and_others_do_not() {
    let (one, _) = finish(SETTINGS, &mut Queue::new(QUEUE, target(), jobs(), 1));
    let (other, _) = finish(SETTINGS, &mut Queue::new(QUEUE, target(), jobs(), 1));
    assert_eq!(one, other);
    let (changed, _) = finish(SETTINGS, &mut Queue::new(QUEUE, target(), jobs(), 2));
    assert_ne!(one.digest, changed.digest);
}

#[test]
fn four_replicas_decide_what_one_does_a_little_later() {
    let (_, of_one) = finish(SETTINGS, &mut Queue::new(QUEUE, target(), jobs(), 1));
    let settings = Settings { replicas: 4, ..SETTINGS };
    let (_, of_four) = finish(settings, &mut Queue::new(QUEUE, target(), jobs(), 1));
    let states = |plans: &[(Millis, DesiredState)]| plans.iter().map(|(_, state)| *state).collect::<Vec<_>>();
    assert_eq!(states(&of_one), states(&of_four));
    assert!(of_one.iter().zip(&of_four).all(|((one, _), (four, _))| four > one));
}

/// A queue that fails after so many steps.
struct Dies(Queue, u64);

impl Plant for Dies {
    fn step(&mut self, order: &Order, span: Span) -> Result<Answer, PlantFailure> {
        self.1 = self.1.checked_sub(1).ok_or_else(|| PlantFailure("it is gone".to_owned()))?;
        self.0.step(order, span)
    }
}

#[test]
fn a_plant_that_fails_ends_it_with_what_it_answered_last() {
    let (finished, _) = finish(SETTINGS, &mut Dies(Queue::new(QUEUE, target(), jobs(), 1), 40));
    assert_eq!(finished.ended, Ended::Failed(PlantFailure("it is gone".to_owned())));
    assert_eq!(finished.after, Millis::from_secs(40));
    let last = finished.last.expect("it answered before");
    assert!(last.samples.iter().any(|sample| sample.name == "queue.depth" && sample.value > 20.0));
    assert!(finished.account.is_some_and(|account| account.worker_ms > 0));
}

#[test]
fn a_step_that_does_not_divide_the_window_is_refused() {
    let settings = Settings { step: Millis::from_secs(3), ..SETTINGS };
    let refused = run(&genesis(), settings, &mut Queue::new(QUEUE, target(), jobs(), 1), &mut |_| {});
    assert!(matches!(refused, Err(SettingsError::Step { .. })));
}

fn world() -> World {
    World {
        settings: QUEUE,
        target: target(),
        jobs: jobs(),
        step: Millis::from_secs(1),
        at_most: Millis::from_secs(3600),
    }
}

#[test]
fn the_smallest_static_pool_serves_and_one_worker_less_does_not() {
    let world = world();
    let (workers, measured) = world.smallest(100).expect("a hundred are enough");
    assert_eq!(measured.account.violation_minutes, 0);
    assert!(world.fixed(workers - 1).account.violation_minutes > 0);
    assert_eq!((world.mean_workers(), world.work_ms()), (5, 1_200_000));
    assert!(workers <= 4, "four workers keep up, and a wait of a minute lets fewer do");
}

#[test]
fn foresight_serves_everything_and_costs_no_more_than_any_other() {
    let world = world();
    let (workers, smallest) = world.smallest(100).expect("a hundred are enough");
    let foresight = world.foresight(workers).expect("there is a schedule");
    assert!(foresight.is_done && foresight.account.violation_minutes == 0);
    assert!(foresight.account.worker_ms >= world.work_ms());
    assert!(foresight.account.worker_ms <= smallest.account.worker_ms);
}

#[test]
fn target_tracking_doubles_at_once_and_waits_before_it_shrinks() {
    // One worker is always busy: 100 % of a target of 50 % asks for two, and at once at most four more.
    let world = world();
    let mut rule = TargetTracking::new(50, 1, (1, 100));
    let measured = world.measure(1, &mut rule);
    assert!(measured.is_done && measured.totals.completed == 300);
    let mut seen = Vec::new();
    let mut rule = TargetTracking::new(50, 1, (1, 100));
    let mut queue = Queue::new(QUEUE, target(), jobs(), 1);
    for moment in (1000..=900_000).step_by(1000) {
        queue.advance(moment);
        let workers = super::baseline::Rule::workers(&mut rule, moment, &queue);
        queue.order(workers);
        if seen.last().is_none_or(|(_, before)| *before != workers) {
            seen.push((moment, workers));
        }
    }
    assert_eq!(seen[..2], [(1000, 1), (15_000, 2)]);
    let most = seen.iter().map(|(_, workers)| *workers).max().expect("some were seen");
    let shrinks = seen.windows(2).find(|pair| pair[1].1 < pair[0].1).expect("it shrinks in the end");
    assert!(most >= 8 && shrinks[1].0 >= 300_000, "{seen:?}");
}
