//! For each invariant, plans that break it and nothing else.

use super::{Violation, check};
use crate::knowledge::{
    finding::Symptom,
    plan::{DesiredState, Limits, Plan, RiskClass},
    policy::{Change, Controls, Mode, Risk, Way},
    snapshot::Finality,
};
use crate::plan::{
    plan,
    testing::{
        Alter, NOW, POOL, TASKS, backlog, finding, genesis, id, in_state, planned_before, policy, snapshot,
        target,
    },
};
use crate::types::{Cycle, Digest, Epoch, Millis};

const fn slots(slots: u32) -> DesiredState {
    DesiredState::Slots { slots }
}

/// A plan to break: 3 slots to 6, where bounds are 2 to 10 and the largest step is 4.
fn good_plan() -> Plan {
    let genesis = backlog();
    let planned = plan(&snapshot(&genesis), &[finding("backlog", Symptom::Threshold)]);
    planned.plans.into_iter().next().expect("the policy fires")
}

type Break = Box<dyn Fn(&mut Plan)>;

/// Checks rows of what is wrong, how the plan is broken, and what the checker says.
fn refuses(rows: Vec<(&str, Break, Vec<Violation>)>) {
    let genesis = backlog();
    let snapshot = snapshot(&genesis);
    assert_eq!(check(&good_plan(), &snapshot), Ok(()));
    for (what, breaks, expected) in rows {
        let mut plan = good_plan();
        breaks(&mut plan);
        assert_eq!(check(&plan, &snapshot), Err(expected), "{what}");
    }
}

#[test]
fn a_plan_of_another_place_or_time_is_refused() {
    refuses(vec![
        ("version", Box::new(|plan| plan.v = 2), vec![Violation::Identity]),
        ("cluster", Box::new(|plan| plan.cluster = Digest::ZERO), vec![Violation::Identity]),
        ("epoch", Box::new(|plan| plan.epoch = Epoch::new(2)), vec![Violation::Identity]),
        ("cycle", Box::new(|plan| plan.seq = Cycle::new(43)), vec![Violation::Identity]),
        (
            "issued later",
            Box::new(|plan| {
                plan.issued_at = NOW.plus(Millis::new(1));
                plan.not_before = plan.issued_at;
            }),
            vec![Violation::Identity],
        ),
        ("target", Box::new(|plan| plan.target = id("nobody")), vec![Violation::UnknownTarget]),
        ("prev", Box::new(|plan| plan.prev = Digest::of(b"other")), vec![Violation::Order]),
    ]);
}

#[test]
fn a_plan_with_states_that_do_not_fit_is_refused() {
    use Violation::{Bounds, Kind, Precondition, Rollback, Step};
    let paused = DesiredState::Paused {};
    refuses(vec![
        ("a pool cannot be paused", Box::new(move |plan| plan.desired = paused), vec![Kind]),
        ("nor roll back to it", Box::new(move |plan| plan.rollback = paused), vec![Kind, Rollback]),
        ("nothing changes", Box::new(|plan| plan.desired = slots(3)), vec![Precondition]),
        (
            "another present state",
            Box::new(|plan| {
                plan.preconditions.state = slots(4);
                plan.rollback = slots(4);
            }),
            vec![Precondition],
        ),
        ("below the bounds", Box::new(|plan| plan.desired = slots(1)), vec![Bounds]),
        ("above them, by too much", Box::new(|plan| plan.desired = slots(11)), vec![Bounds, Step]),
        ("at the largest step and one more", Box::new(|plan| plan.desired = slots(8)), vec![Step]),
        ("the rollback goes elsewhere", Box::new(|plan| plan.rollback = slots(4)), vec![Rollback]),
        ("and out of bounds", Box::new(|plan| plan.rollback = slots(11)), vec![Bounds, Rollback]),
    ]);
}

/// Retries reach ten minutes back at most; the last one reached up to 100 s ago.
#[test]
fn a_retry_of_other_failures_is_refused() {
    use Violation::{Bounds, Kind, Limits as OtherLimits, Rollback, Step};
    let ago = |secs| NOW.minus(Millis::from_secs(secs));
    let retried = move |after, until| DesiredState::Retried { after: ago(after), until: ago(until) };
    let genesis = genesis(vec![target("tasks", TASKS)], vec![policy("failures", "tasks", Change::Retry)]);
    let mut snapshot = snapshot(&genesis);
    in_state(retried(400, 100))(&mut snapshot);
    let planned = plan(&snapshot, &[finding("failures", Symptom::Threshold)]);
    let good = planned.plans.into_iter().next().expect("the policy fires");
    assert_eq!((good.desired, check(&good, &snapshot)), (retried(100, 0), Ok(())));
    let rows: Vec<(&str, Break, Vec<Violation>)> = vec![
        ("covered by the last one", Box::new(move |plan| plan.desired = retried(101, 0)), vec![Step]),
        ("from before the reach", Box::new(move |plan| plan.desired = retried(601, 0)), vec![Bounds, Step]),
        ("not up to now", Box::new(move |plan| plan.desired = retried(100, 1)), vec![Bounds]),
        ("an empty span", Box::new(move |plan| plan.desired = retried(0, 0)), vec![Bounds]),
        ("slots", Box::new(|plan| plan.desired = slots(3)), vec![Kind]),
        ("another way back", Box::new(move |plan| plan.rollback = retried(400, 200)), vec![Rollback]),
        (
            "more tasks",
            Box::new(|plan| plan.limits = Limits::Tasks { most: 21, within: Millis::from_secs(600) }),
            vec![OtherLimits],
        ),
    ];
    for (what, breaks, expected) in rows {
        let mut plan = good.clone();
        breaks(&mut plan);
        assert_eq!(check(&plan, &snapshot), Err(expected), "{what}");
    }
}

#[test]
fn a_plan_with_other_terms_than_its_policys_is_refused() {
    use Violation::{Expiry, Limits as OtherLimits, Policy, Verification};
    let issued = NOW;
    refuses(vec![
        ("expired at once", Box::new(move |plan| plan.expires_at = issued), vec![Expiry]),
        (
            "for more than a day",
            Box::new(move |plan| plan.expires_at = issued.plus(Millis::new(24 * 60 * 60 * 1000 + 1))),
            vec![Expiry],
        ),
        ("from later on", Box::new(move |plan| plan.not_before = issued.plus(Millis::new(1))), vec![Expiry]),
        ("judged at once", Box::new(move |plan| plan.verify.by = issued), vec![Verification]),
        (
            "wider limits",
            Box::new(|plan| plan.limits = Limits::Slots { min: 2, max: 11, max_step: 4 }),
            vec![OtherLimits],
        ),
        ("no limits", Box::new(|plan| plan.limits = Limits::Switch {}), vec![OtherLimits]),
        ("another policy", Box::new(|plan| plan.policy = Digest::ZERO), vec![Policy]),
        ("another risk", Box::new(|plan| plan.risk = RiskClass::High), vec![Policy]),
        (
            "larger than a document",
            Box::new(|plan| plan.verify.series = "x".repeat(64 * 1024)),
            vec![Violation::Size],
        ),
    ]);
}

#[test]
fn a_plan_that_the_snapshot_does_not_allow_is_refused() {
    let rows: Vec<(&str, Alter, Vec<Violation>)> = vec![
        (
            "an unconfirmed window",
            Box::new(|snapshot| snapshot.finality = Finality::Unconfirmed),
            vec![Violation::Unconfirmed],
        ),
        (
            "a newer plan is logged",
            Box::new(|snapshot| {
                for state in snapshot.targets.values_mut() {
                    state.newest_seq = Cycle::new(42);
                }
            }),
            vec![Violation::Order],
        ),
        ("the target rests", planned_before(&[(59, "other")]), vec![Violation::Cooldown]),
        ("the policy rests", planned_before(&[(299, "backlog")]), vec![Violation::Policy]),
        (
            "the hour's plans are used up",
            planned_before(&[(3599, "a"), (2000, "a"), (1000, "a")]),
            vec![Violation::PlansPerHour],
        ),
        (
            "an operator has stopped the target",
            Box::new(|snapshot| {
                snapshot.stopped.insert(id("pool"), vec!["ana".to_owned()]);
            }),
            vec![Violation::Stopped],
        ),
        (
            "the target is not in the snapshot",
            Box::new(|s| s.targets.clear()),
            vec![Violation::UnknownTarget],
        ),
    ];
    let genesis = backlog();
    for (what, alter, expected) in rows {
        let mut snapshot = snapshot(&genesis);
        alter(&mut snapshot);
        assert_eq!(check(&good_plan(), &snapshot), Err(expected), "{what}");
    }
    let mut snapshot = snapshot(&genesis);
    planned_before(&[(3600, "a"), (2000, "a"), (1000, "a")])(&mut snapshot);
    assert_eq!(check(&good_plan(), &snapshot), Ok(()), "an hour has passed");
}

#[test]
fn a_policy_above_low_risk_may_not_ask() {
    let mut risky = policy("backlog", "pool", Change::AddSlots(3));
    risky.action.as_mut().expect("the policy acts").risk = Risk::Medium;
    let genesis = genesis(vec![target("pool", POOL)], vec![risky]);
    let mut plan = good_plan();
    plan.policy = Digest::of_value(&genesis.policies[0]);
    assert_eq!(check(&plan, &snapshot(&genesis)), Err(vec![Violation::Policy]));
    plan.risk = RiskClass::Medium;
    assert_eq!(check(&plan, &snapshot(&genesis)), Err(vec![Violation::Policy]));
}

#[test]
fn a_plan_that_its_policys_controls_forbid_is_refused() {
    let acting = Controls::ACTING;
    // Each row: the controls, what the plan makes of 3 slots, and what the checker says.
    let rows = [
        ("in shadow", Controls { mode: Mode::Shadow, ..acting }, 6, Err(vec![Violation::Shadow])),
        ("at its own step", Controls { max_step: Some(3), ..acting }, 6, Ok(())),
        ("past its own step", Controls { max_step: Some(2), ..acting }, 6, Err(vec![Violation::PolicyStep])),
        ("at its own step down", Controls { max_step: Some(1), ..acting }, 2, Ok(())),
        ("paused up", Controls { up: Way::Paused, ..acting }, 6, Err(vec![Violation::Direction])),
        ("paused up, and down it goes", Controls { up: Way::Paused, ..acting }, 2, Ok(())),
        ("paused down", Controls { down: Way::Paused, ..acting }, 2, Err(vec![Violation::Direction])),
        ("paused down, and up it goes", Controls { down: Way::Paused, ..acting }, 6, Ok(())),
        ("a new policy", Controls::default(), 6, Err(vec![Violation::Shadow])),
    ];
    for (what, controls, to, expected) in rows {
        let mut genesis = backlog();
        genesis.policies[0].action.as_mut().expect("it acts").controls = controls;
        let mut plan = good_plan();
        plan.desired = slots(to);
        plan.policy = Digest::of_value(&genesis.policies[0]);
        assert_eq!(check(&plan, &snapshot(&genesis)), expected, "{what}");
    }
}
