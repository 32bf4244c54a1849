//! What policies do about findings, case by case, and that nothing at all makes the planner go astray.

use proptest::prelude::*;

use super::{Planned, plan};
use crate::knowledge::{
    finding::{Finding, Interval, Symptom},
    genesis::Genesis,
    plan::{DesiredState, OnStale, Reason, VerifyOp},
    policy::{Change, Condition, Controls, Mode, Risk, TargetKind, Way},
    snapshot::{Finality, Reading, Snapshot},
};
use crate::plan::{
    Decision, Hold, Quiet, check,
    testing::{
        Alter, NOW, POOL, SWITCH, TASKS, backlog, finding, genesis, id, in_state, planned_before, policy,
        snapshot, target, value,
    },
};
use crate::types::{Cycle, Digest, Epoch, Millis, Quantity, UnixMillis, WindowIndex};

const fn slots(slots: u32) -> DesiredState {
    DesiredState::Slots { slots }
}

fn decisions(planned: Planned) -> Vec<Decision> {
    planned.report.policies.into_iter().map(|line| line.decision).collect()
}

fn held(why: Hold) -> Decision {
    Decision::Held { why }
}

fn fired(from: DesiredState, to: DesiredState, clamped: bool) -> Decision {
    Decision::Fired { target: id("pool"), from, to, clamped }
}

#[test]
fn a_plan_is_complete_and_absolute() {
    let genesis = backlog();
    let mut snapshot = snapshot(&genesis);
    let prev = Digest::of(b"the newest plan");
    let state = snapshot.targets.get_mut(&id("pool")).expect("the pool is there");
    (state.newest_plan, state.newest_seq) = (prev, Cycle::new(7));
    let findings = [finding("backlog", Symptom::Threshold)];
    let planned = plan(&snapshot, &findings);
    let [made] = planned.plans.as_slice() else { panic!("one plan, not {:?}", planned.plans) };
    assert_eq!((made.v, made.cluster, made.epoch), (1, snapshot.cluster, snapshot.epoch));
    assert_eq!((made.target.as_str(), made.seq, made.prev), ("pool", Cycle::new(42), prev));
    assert_eq!((made.issued_at, made.not_before), (NOW, NOW));
    assert_eq!(made.expires_at, NOW.plus(Millis::from_secs(900)));
    assert_eq!((made.preconditions.state, made.desired, made.rollback), (slots(3), slots(6), slots(3)));
    assert_eq!(made.on_stale, OnStale::Hold);
    assert_eq!(made.policy, Digest::of_value(&genesis.policies[0]));
    assert_eq!(made.evidence, Digest::of_value(&(&snapshot, findings.as_slice())));
    assert_eq!((made.verify.op, made.verify.value.value, made.verify.value.scale), (VerifyOp::AtMost, 5, 0));
    assert_eq!(made.verify.by, NOW.plus(Millis::from_secs(300)));
    assert_eq!(decisions(planned), [fired(slots(3), slots(6), false)]);
}

#[test]
fn nothing_is_planned_for_a_target_that_operators_have_stopped() {
    let genesis = backlog();
    let mut snapshot = snapshot(&genesis);
    let by = vec!["ana".to_owned(), "bea".to_owned()];
    snapshot.stopped.insert(id("pool"), by.clone());
    let planned = plan(&snapshot, &[finding("backlog", Symptom::Threshold)]);
    assert_eq!(planned.plans, []);
    let decision = held(Hold::Stopped { by });
    assert_eq!(decision.to_string(), "held: the target is stopped by ana, bea");
    assert_eq!(decisions(planned), [decision]);
}

#[test]
fn an_indicator_is_verified_in_the_direction_of_its_condition() {
    let mut genesis = backlog();
    let mut verify = |condition| {
        genesis.policies[0].condition = condition;
        let planned = plan(&snapshot(&genesis), &[finding("backlog", Symptom::Absence)]);
        planned.plans.first().map(|plan| (plan.verify.op, plan.verify.value.value))
    };
    let below = Condition::Threshold {
        side: crate::knowledge::policy::Side::Below,
        enter: Quantity::ONE,
        leave: Quantity::from_i64(9),
        hold: Millis::ZERO,
    };
    assert_eq!(verify(below), Some((VerifyOp::AtLeast, 9)));
    assert_eq!(verify(Condition::Absence { after_milli_intervals: 1500 }), Some((VerifyOp::Present, 0)));
}

/// Each row: what differs from a cycle in which the policy fires, and what becomes of it.
#[test]
fn a_policy_acts_only_on_its_own_proven_symptom() {
    let mut elsewhere = finding("backlog", Symptom::Threshold);
    elsewhere.window = WindowIndex::new(179);
    let rows: Vec<(&str, Vec<Finding>, Alter, Decision)> = vec![
        ("nothing is found", vec![], Box::new(|_| {}), Decision::Quiet { why: Quiet::NoSymptom }),
        (
            "another policy's symptom",
            vec![finding("other", Symptom::Threshold)],
            Box::new(|_| {}),
            Decision::Quiet { why: Quiet::NoSymptom },
        ),
        ("an older window's", vec![elsewhere], Box::new(|_| {}), Decision::Quiet { why: Quiet::NoSymptom }),
        (
            "its series was never seen",
            vec![],
            Box::new(|snapshot| {
                snapshot.readings = vec![Reading::NoSamples { since: None, learned_interval_ms: 0 }];
            }),
            Decision::Quiet { why: Quiet::NeverSeen },
        ),
        ("disputed", vec![finding("backlog", Symptom::Disputed)], Box::new(|_| {}), held(Hold::Disputed)),
        (
            "unconfirmed",
            vec![finding("backlog", Symptom::Unconfirmed)],
            Box::new(|_| {}),
            held(Hold::Unconfirmed),
        ),
        (
            "in a window that is not confirmed",
            vec![finding("backlog", Symptom::Threshold)],
            Box::new(|snapshot| snapshot.finality = Finality::Unconfirmed),
            held(Hold::Unconfirmed),
        ),
        (
            "the snapshot lacks its target",
            vec![finding("backlog", Symptom::Threshold)],
            Box::new(|snapshot| snapshot.targets.clear()),
            held(Hold::UnknownTarget),
        ),
    ];
    let genesis = backlog();
    for (what, findings, alter, expected) in rows {
        let mut snapshot = snapshot(&genesis);
        alter(&mut snapshot);
        assert_eq!(decisions(plan(&snapshot, &findings)), [expected], "{what}");
    }
}

#[test]
fn an_absence_policy_says_that_its_interval_is_not_learned() {
    let mut genesis = backlog();
    genesis.policies[0].condition = Condition::Absence { after_milli_intervals: 1500 };
    let mut snapshot = snapshot(&genesis);
    snapshot.readings = vec![Reading::NoSamples { since: Some(NOW), learned_interval_ms: 0 }];
    assert_eq!(decisions(plan(&snapshot, &[])), [Decision::Quiet { why: Quiet::IntervalNotLearned }]);
}

#[test]
fn a_policy_above_low_risk_is_held_and_one_without_an_action_only_finds() {
    let mut genesis = backlog();
    for risk in [Risk::Medium, Risk::High] {
        let action = genesis.policies[0].action.as_mut().expect("the policy acts");
        action.risk = risk;
        let planned = plan(&snapshot(&genesis), &[finding("backlog", Symptom::Threshold)]);
        assert_eq!(decisions(planned), [held(Hold::Risk)]);
    }
    genesis.policies[0].action = None;
    let planned = plan(&snapshot(&genesis), &[finding("backlog", Symptom::Threshold)]);
    assert_eq!(decisions(planned), [Decision::Found]);
}

/// Bounds are 2 to 10, the largest step is 4. Each row: present slots, the change, and what becomes of it.
#[test]
fn slots_stay_within_the_bounds_and_the_largest_step() {
    let rows = [
        (3, Change::AddSlots(3), fired(slots(3), slots(6), false)),
        (8, Change::AddSlots(3), fired(slots(8), slots(10), true)),
        (3, Change::AddSlots(5), fired(slots(3), slots(7), true)),
        (3, Change::AddSlots(-5), fired(slots(3), slots(2), true)),
        (9, Change::AddSlots(i32::MIN), fired(slots(9), slots(5), true)),
        (10, Change::AddSlots(3), held(Hold::Noop)),
        (3, Change::SetSlots(3), held(Hold::Noop)),
        (3, Change::SetSlots(5), fired(slots(3), slots(5), false)),
        (3, Change::SetSlots(9), fired(slots(3), slots(7), true)),
        (10, Change::SetSlots(u32::MAX), held(Hold::Noop)),
        (11, Change::AddSlots(-3), held(Hold::OutOfBounds)),
        (1, Change::AddSlots(3), held(Hold::OutOfBounds)),
        (3, Change::Pause, held(Hold::WrongKind)),
        (3, Change::Resume, held(Hold::WrongKind)),
    ];
    for (present, change, expected) in rows {
        let genesis = genesis(vec![target("pool", POOL)], vec![policy("backlog", "pool", change)]);
        let mut snapshot = snapshot(&genesis);
        in_state(slots(present))(&mut snapshot);
        let planned = plan(&snapshot, &[finding("backlog", Symptom::Threshold)]);
        assert_eq!(decisions(planned), [expected], "{present} slots, {change:?}");
    }
}

/// Bounds are 2 to 10, the largest step is 4. Each row: present slots, what the model found, and what becomes of it.
#[test]
fn a_pool_is_scaled_to_what_every_choice_asks_for_and_no_further() {
    let rows = [
        (3, (5, 8), fired(slots(3), slots(5), false)),
        (6, (5, 8), held(Hold::Noop)),
        (8, (5, 8), held(Hold::Noop)),
        (9, (5, 8), fired(slots(9), slots(8), false)),
        (3, (9, 9), fired(slots(3), slots(7), true)),
        (9, (0, 1), fired(slots(9), slots(5), true)),
        (4, (0, 0), fired(slots(4), slots(2), true)),
        (10, (1_000_000, 1_000_000), held(Hold::Noop)),
    ];
    for (present, (low, high), expected) in rows {
        let genesis = genesis(vec![target("pool", POOL)], vec![policy("load", "pool", Change::Scale)]);
        let mut snapshot = snapshot(&genesis);
        in_state(slots(present))(&mut snapshot);
        let [low, high] = [low, high].map(Quantity::from_i64);
        let observed = Some(Interval { low, median: low, high });
        let asked = Finding { observed, ..finding("load", Symptom::Capacity) };
        let planned = plan(&snapshot, &[asked]);
        assert!(planned.plans.iter().all(|plan| plan.reason == Reason::Capacity));
        assert_eq!(decisions(planned), [expected], "{present} slots, {low} to {high}");
    }
}

#[test]
fn a_switch_is_paused_and_resumed() {
    let (paused, running) = (DesiredState::Paused {}, DesiredState::Running {});
    let rows = [
        (running, Change::Pause, fired(running, paused, false)),
        (paused, Change::Pause, held(Hold::Noop)),
        (paused, Change::Resume, fired(paused, running, false)),
        (running, Change::Resume, held(Hold::Noop)),
        (running, Change::AddSlots(1), held(Hold::WrongKind)),
        (slots(1), Change::Pause, held(Hold::WrongKind)),
    ];
    for (present, change, expected) in rows {
        let genesis = genesis(vec![target("pool", SWITCH)], vec![policy("backlog", "pool", change)]);
        let mut snapshot = snapshot(&genesis);
        in_state(present)(&mut snapshot);
        let planned = plan(&snapshot, &[finding("backlog", Symptom::Threshold)]);
        assert_eq!(decisions(planned), [expected], "{present}, {change:?}");
    }
}

/// At most ten minutes back, and never twice over the same failure.
#[test]
fn a_retry_reaches_from_the_last_one_up_to_now() {
    let ago = |secs| NOW.minus(Millis::from_secs(secs));
    let retried = |after, until| DesiredState::Retried { after, until };
    let never = retried(UnixMillis::ZERO, UnixMillis::ZERO);
    let (recent, old) = (retried(ago(400), ago(100)), retried(ago(5000), ago(4000)));
    let rows = [
        (never, Change::Retry, fired(never, retried(ago(600), NOW), false)),
        (recent, Change::Retry, fired(recent, retried(ago(100), NOW), false)),
        (old, Change::Retry, fired(old, retried(ago(600), NOW), false)),
        (never, Change::Pause, held(Hold::WrongKind)),
        (slots(1), Change::Retry, held(Hold::WrongKind)),
    ];
    for (present, change, expected) in rows {
        let genesis = genesis(vec![target("pool", TASKS)], vec![policy("failures", "pool", change)]);
        let mut snapshot = snapshot(&genesis);
        in_state(present)(&mut snapshot);
        let planned = plan(&snapshot, &[finding("failures", Symptom::Threshold)]);
        assert_eq!(decisions(planned), [expected], "{present}, {change:?}");
    }
}

/// What a row is about, what is remembered, how the target is, how many windows ago that was, what else is different, and
/// the desired state of the plan.
type Owed = (&'static str, Symptom, DesiredState, u64, Alter, Option<DesiredState>);

/// Each row: what is remembered of 30 s ago, how the target is, and what becomes of it. The retry reaches back 600 s.
#[test]
fn a_retry_is_owed_for_a_remembered_failure_until_one_has_covered_it() {
    let genesis = genesis(vec![target("pool", TASKS)], vec![policy("failures", "pool", Change::Retry)]);
    let length = genesis.parameters.window;
    let now = |windows: u64| WindowIndex::new(180 + windows).close(length).plus(Millis::from_secs(3));
    let close = WindowIndex::new(180).close(length);
    let retried = |until| DesiredState::Retried { after: UnixMillis::ZERO, until };
    let rested = |until: UnixMillis| Some(DesiredState::Retried { after: until, until: now(3) });
    let before = UnixMillis::new(close.as_millis() - 1);
    let none: Alter = Box::new(|_| {});
    let rows: Vec<Owed> = vec![
        ("uncovered", Symptom::Threshold, retried(before), 3, none, rested(before)),
        ("covered", Symptom::Threshold, retried(close), 3, Box::new(|_| {}), None),
        ("out of reach", Symptom::Threshold, retried(before), 61, Box::new(|_| {}), None),
        ("only disputed", Symptom::Disputed, retried(before), 3, Box::new(|_| {}), None),
        (
            "in a window that is not confirmed",
            Symptom::Threshold,
            retried(before),
            3,
            Box::new(|snapshot| snapshot.finality = Finality::Unconfirmed),
            None,
        ),
        (
            "in the rest",
            Symptom::Threshold,
            retried(before),
            3,
            Box::new(planned_before(&[(20, "failures")])),
            None,
        ),
        (
            "under a stop",
            Symptom::Threshold,
            retried(before),
            3,
            Box::new(|snapshot| drop(snapshot.stopped.insert(id("pool"), vec!["ana".to_owned()]))),
            None,
        ),
    ];
    for (what, symptom, state, windows, alter, expected) in rows {
        let mut snapshot = snapshot(&genesis);
        (snapshot.window, snapshot.now) = (WindowIndex::new(180 + windows), now(windows));
        in_state(state)(&mut snapshot);
        alter(&mut snapshot);
        let planned = plan(&snapshot, &[finding("failures", symptom)]);
        let desired = planned.plans.first().map(|plan| plan.desired);
        assert_eq!(desired, expected, "{what}: {:?}", decisions(planned));
    }
    // What is owed does not wait until the reports agree on this window.
    let mut snapshot = snapshot(&genesis);
    (snapshot.window, snapshot.now) = (WindowIndex::new(183), now(3));
    let disputed = Finding { window: snapshot.window, ..finding("failures", Symptom::Disputed) };
    let planned = plan(&snapshot, &[disputed.clone(), finding("failures", Symptom::Threshold)]);
    assert_eq!(planned.plans.len(), 1);
    assert_eq!(decisions(plan(&snapshot, &[disputed])), [held(Hold::Disputed)]);
}

#[test]
fn a_pool_is_not_changed_for_what_is_over() {
    let genesis = backlog();
    let mut snapshot = snapshot(&genesis);
    snapshot.window = WindowIndex::new(181);
    let without = plan(&snapshot, &[]);
    let planned = plan(&snapshot, &[finding("backlog", Symptom::Threshold)]);
    assert_eq!(planned, without);
    // Nor does it leave a trace in another policy's plan.
    let own = |policy| Finding { window: snapshot.window, ..finding(policy, Symptom::Threshold) };
    let alone = plan(&snapshot, &[own("backlog")]);
    assert_eq!(plan(&snapshot, &[own("backlog"), finding("backlog", Symptom::Threshold)]), alone);
    assert_eq!(alone.plans.len(), 1);
}

/// The policy rests for 300 s, the target for 60 s, and the target gets 3 plans an hour.
#[test]
fn policies_and_targets_rest() {
    let in_secs = |secs| NOW.plus(Millis::from_secs(secs));
    let fires = fired(slots(3), slots(6), false);
    let rows: [(&'static [(u64, &'static str)], Decision); 9] = [
        (&[(300, "backlog")], fires.clone()),
        (&[(299, "backlog")], held(Hold::PolicyCooldown { until: in_secs(1) })),
        (&[(900, "backlog"), (100, "backlog")], held(Hold::PolicyCooldown { until: in_secs(200) })),
        (&[(60, "other")], fires.clone()),
        (&[(59, "other")], held(Hold::TargetCooldown { until: in_secs(1) })),
        (&[(1000, "other"), (900, "other")], fires.clone()),
        (
            &[(3000, "other"), (2000, "other"), (1000, "other")],
            held(Hold::PlansPerHour { until: Some(in_secs(600)) }),
        ),
        (
            &[(3000, "a"), (2500, "a"), (2000, "a"), (1000, "a")],
            held(Hold::PlansPerHour { until: Some(in_secs(1100)) }),
        ),
        (&[(3600, "other"), (2000, "other"), (1000, "other")], fires),
    ];
    let genesis = backlog();
    for (before, expected) in rows {
        let mut snapshot = snapshot(&genesis);
        planned_before(before)(&mut snapshot);
        let planned = plan(&snapshot, &[finding("backlog", Symptom::Threshold)]);
        assert_eq!(decisions(planned), [expected], "{before:?}");
    }
}

#[test]
fn a_target_without_plans_an_hour_gets_none() {
    let mut genesis = backlog();
    genesis.targets[0].plans_per_hour = 0;
    let planned = plan(&snapshot(&genesis), &[finding("backlog", Symptom::Threshold)]);
    assert_eq!(decisions(planned), [held(Hold::PlansPerHour { until: None })]);
}

#[test]
fn the_first_policy_that_plans_takes_the_target() {
    let policies = vec![
        policy("full", "pool", Change::SetSlots(3)),
        policy("first", "pool", Change::AddSlots(1)),
        policy("second", "pool", Change::AddSlots(2)),
        policy("elsewhere", "switch", Change::Pause),
    ];
    let genesis = genesis(vec![target("pool", POOL), target("switch", SWITCH)], policies);
    let findings: Vec<Finding> =
        genesis.policies.iter().map(|policy| finding(&policy.name, Symptom::Threshold)).collect();
    let planned = plan(&snapshot(&genesis), &findings);
    let targets: Vec<_> = planned.plans.iter().map(|plan| (plan.target.as_str(), plan.desired)).collect();
    assert_eq!(targets, [("pool", slots(4)), ("switch", DesiredState::Paused {})]);
    assert_eq!(
        decisions(planned)[..3],
        [
            held(Hold::Noop),
            fired(slots(3), slots(4), false),
            held(Hold::TargetTaken { by: "first".to_owned() }),
        ]
    );
}

#[test]
fn what_the_checker_refuses_stands_in_the_report() {
    let mut genesis = backlog();
    genesis.policies[0].action.as_mut().expect("the policy acts").expiry = Millis::ZERO;
    let planned = plan(&snapshot(&genesis), &[finding("backlog", Symptom::Threshold)]);
    assert_eq!(planned.plans, []);
    assert_eq!(
        decisions(planned),
        [held(Hold::Rejected { violations: vec![crate::plan::Violation::Expiry] })]
    );
}

#[test]
fn a_threshold_that_no_document_can_carry_makes_no_plan() {
    let mut genesis = backlog();
    genesis.policies[0].condition = Condition::Threshold {
        side: crate::knowledge::policy::Side::Above,
        enter: Quantity::from_nanos(i128::MAX),
        leave: Quantity::from_nanos(i128::MAX),
        hold: Millis::ZERO,
    };
    let planned = plan(&snapshot(&genesis), &[finding("backlog", Symptom::Threshold)]);
    assert_eq!(decisions(planned), [held(Hold::Unrepresentable)]);
}

fn advised(from: DesiredState, to: DesiredState, clamped: bool) -> Decision {
    Decision::Advised { target: id("pool"), from, to, clamped }
}

#[test]
fn a_policys_controls_hold_it_back() {
    let acting = Controls::ACTING;
    let shadow = Controls::default();
    let (up, down) = (Controls { up: Way::Paused, ..acting }, Controls { down: Way::Paused, ..acting });
    let (add, set) = (Change::AddSlots, Change::SetSlots);
    // Each row: what the policy asks for with 3 slots (bounds 2 to 10, largest step 4), its controls, what it does.
    let rows = [
        ("shadow advises", add(3), shadow, advised(slots(3), slots(6), false)),
        ("and is clamped", set(9), shadow, advised(slots(3), slots(7), true)),
        ("its own step", set(9), Controls { max_step: Some(2), ..acting }, fired(slots(3), slots(5), true)),
        (
            "not past the target's",
            set(9),
            Controls { max_step: Some(9), ..acting },
            fired(slots(3), slots(7), true),
        ),
        ("paused up", add(1), up, held(Hold::UpPaused)),
        ("paused up, goes down", add(-1), up, fired(slots(3), slots(2), false)),
        ("paused down", set(2), down, held(Hold::DownPaused)),
        ("paused down, goes up", set(4), down, fired(slots(3), slots(4), false)),
        ("shadow and paused", add(1), Controls { up: Way::Paused, ..shadow }, held(Hold::UpPaused)),
    ];
    for (what, change, controls, expected) in rows {
        let mut genesis = genesis(vec![target("pool", POOL)], vec![policy("backlog", "pool", change)]);
        genesis.policies[0].action.as_mut().expect("it acts").controls = controls;
        let planned = plan(&snapshot(&genesis), &[finding("backlog", Symptom::Threshold)]);
        let is_plan = matches!(expected, Decision::Fired { .. });
        assert_eq!(planned.plans.len(), usize::from(is_plan), "{what}");
        assert_eq!(decisions(planned), [expected], "{what}");
    }
}

#[test]
fn a_policy_in_shadow_takes_no_target_and_keeps_to_its_limits() {
    let policies =
        vec![policy("first", "pool", Change::AddSlots(1)), policy("second", "pool", Change::AddSlots(2))];
    let mut genesis = genesis(vec![target("pool", POOL)], policies);
    genesis.policies[0].action.as_mut().expect("it acts").controls = Controls::default();
    let findings = ["first", "second"].map(|name| finding(name, Symptom::Threshold));
    let planned = plan(&snapshot(&genesis), &findings);
    let expected = [advised(slots(3), slots(4), false), fired(slots(3), slots(5), false)];
    assert_eq!(decisions(planned), expected);
    // What the checker would refuse beside its shadow is no advice.
    genesis.policies[0].action.as_mut().expect("it acts").expiry = Millis::ZERO;
    let planned = plan(&snapshot(&genesis), &findings);
    assert_eq!(
        decisions(planned)[0],
        held(Hold::Rejected { violations: vec![crate::plan::Violation::Expiry] })
    );
}

fn any_controls() -> impl Strategy<Value = Controls> {
    let way = || prop_oneof![3 => Just(Way::Open), 1 => Just(Way::Paused)];
    let mode = prop_oneof![3 => Just(Mode::Act), 1 => Just(Mode::Shadow)];
    (mode, proptest::option::of(0u32..6), way(), way()).prop_map(|(mode, max_step, up, down)| Controls {
        mode,
        max_step,
        up,
        down,
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<i32>().prop_map(Change::AddSlots),
        (-6i32..6).prop_map(Change::AddSlots),
        (0u32..12).prop_map(Change::SetSlots),
        Just(Change::Pause),
        Just(Change::Resume),
    ]
}

fn any_kind() -> impl Strategy<Value = TargetKind> {
    prop_oneof![
        (0u32..12, 0u32..12, 0u32..12, 0u32..12).prop_map(|(initial, min, max, max_step)| TargetKind::Pool {
            initial,
            min,
            max,
            max_step
        }),
        any::<bool>().prop_map(|initially_paused| TargetKind::Switch { initially_paused }),
    ]
}

fn any_state() -> impl Strategy<Value = DesiredState> {
    prop_oneof![
        4 => (0u32..14).prop_map(slots),
        1 => Just(slots(u32::MAX)),
        1 => Just(DesiredState::Paused {}),
        1 => Just(DesiredState::Running {}),
    ]
}

fn any_span() -> impl Strategy<Value = Millis> {
    prop_oneof![0u64..4_000, Just(u64::MAX / 1000)].prop_map(Millis::from_secs)
}

prop_compose! {
    fn any_genesis()(
        kinds in proptest::collection::vec((any_kind(), any_span(), 0u32..4), 1..3),
        actions in proptest::collection::vec(
            (0usize..4, any_change(), any_span(), any_span(), any_span(), 0u8..8, any_controls()), 1..5),
    ) -> Genesis {
        let targets = kinds.into_iter().enumerate().map(|(index, (kind, cooldown, plans_per_hour))| {
            let mut target = target(&format!("t{index}"), kind);
            (target.cooldown, target.plans_per_hour) = (cooldown, plans_per_hour);
            target
        });
        let policies = actions.into_iter().enumerate().map(|(index, (at, change, cooldown, expiry, within, odd, controls))| {
            let mut policy = policy(&format!("p{index}"), &format!("t{at}"), change);
            let action = policy.action.as_mut().expect("the policy acts");
            (action.cooldown, action.expiry, action.verify_within) = (cooldown, expiry, within);
            action.controls = controls;
            match odd {
                0 => policy.action = None,
                1 => action.risk = Risk::High,
                2 => policy.condition = Condition::Absence { after_milli_intervals: 1500 },
                _ => {}
            }
            policy
        });
        genesis(targets.collect(), policies.collect())
    }
}

type AnyPlans = Vec<(u64, usize)>;
type AnyFinding = (usize, u8, bool);

prop_compose! {
    fn any_cycle()(
        genesis in any_genesis(),
        states in proptest::collection::vec(
            (any_state(), 0u64..60, proptest::collection::vec((0u64..5_000, 0usize..4), 0..5)), 2),
        findings in proptest::collection::vec((0usize..5, 0u8..5, prop::bool::weighted(0.9)), 0..8),
        is_confirmed in prop::bool::weighted(0.9),
        now in prop_oneof![9 => Just(NOW.as_millis()), 1 => Just(u64::MAX), 1 => 0u64..1000],
    ) -> (Genesis, Vec<(DesiredState, u64, AnyPlans)>, Vec<AnyFinding>, bool, u64) {
        (genesis, states, findings, is_confirmed, now)
    }
}

fn build<'a>(
    genesis: &'a Genesis,
    states: &[(DesiredState, u64, AnyPlans)],
    is_confirmed: bool,
    now: u64,
) -> Snapshot<'a> {
    let mut snapshot = snapshot(genesis);
    snapshot.now = UnixMillis::new(now);
    snapshot.epoch = Epoch::new(1);
    if !is_confirmed {
        snapshot.finality = Finality::Unconfirmed;
    }
    for (target, (state, newest_seq, plans)) in snapshot.targets.values_mut().zip(states) {
        target.state = *state;
        target.newest_seq = Cycle::new(*newest_seq);
        target.recent_plans = plans
            .iter()
            .map(|(secs, by)| (UnixMillis::new(now).minus(Millis::from_secs(*secs)), format!("p{by}")))
            .collect();
    }
    snapshot
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_plan_passes_the_checker_and_every_policy_has_its_line(
        (genesis, states, findings, is_confirmed, now) in any_cycle(),
    ) {
        let snapshot = build(&genesis, &states, is_confirmed, now);
        let findings: Vec<Finding> = findings
            .iter()
            .map(|(policy, symptom, is_now)| {
                let symptom = [
                    Symptom::Threshold, Symptom::Absence, Symptom::Disputed, Symptom::Unconfirmed, Symptom::Gap,
                ][usize::from(*symptom)];
                let mut finding = finding(&format!("p{policy}"), symptom);
                finding.observed = Some(value(1));
                if !is_now {
                    finding.window = WindowIndex::new(1);
                }
                finding
            })
            .collect();
        let planned = plan(&snapshot, &findings);
        for plan in &planned.plans {
            prop_assert_eq!(check(plan, &snapshot), Ok(()));
        }
        for (policy, line) in genesis.policies.iter().zip(&planned.report.policies) {
            let acts = policy.action.as_ref().is_some_and(|action| action.controls.mode == Mode::Act);
            match &line.decision {
                Decision::Fired { .. } => prop_assert!(acts),
                Decision::Advised { .. } => prop_assert!(!acts),
                Decision::Quiet { .. } | Decision::Found | Decision::Held { .. } => {}
            }
        }
        let targets: std::collections::BTreeSet<_> = planned.plans.iter().map(|plan| &plan.target).collect();
        prop_assert_eq!(targets.len(), planned.plans.len());
        let named: Vec<_> = planned.report.policies.iter().map(|line| line.policy.as_str()).collect();
        let policies: Vec<_> = genesis.policies.iter().map(|policy| policy.name.as_str()).collect();
        prop_assert_eq!(named, policies);
        let fired = |decision: &&Decision| matches!(decision, Decision::Fired { .. });
        let lines = planned.report.policies.iter().map(|line| &line.decision).filter(fired).count();
        prop_assert_eq!(lines, planned.plans.len());
        prop_assert_eq!(plan(&snapshot, &findings), planned);
    }
}

/// What happens around one window: whether tasks fail in it, whether it is confirmed, whether the target is stopped, and
/// whether the agent carries a plan out.
type AnyWindow = (bool, bool, bool, bool);

fn any_window() -> impl Strategy<Value = AnyWindow> {
    let likely = prop::bool::weighted;
    (likely(0.2), likely(0.9), likely(0.1), likely(0.8))
}

proptest! {
    /// The loop around a target whose failures are retried, against an account of all windows: a plan comes exactly when
    /// one may come and some failure is not covered.
    #[test]
    fn a_failure_is_retried_as_soon_as_a_plan_may_be_and_no_plan_comes_without_one(
        windows in proptest::collection::vec(any_window(), 1..400),
        plans_per_hour in 1u32..7,
        cooldown in 0u64..200,
    ) {
        let mut genesis = genesis(vec![target("pool", TASKS)], vec![policy("failures", "pool", Change::Retry)]);
        genesis.targets[0].plans_per_hour = plans_per_hour;
        genesis.policies[0].action.as_mut().expect("it acts").cooldown = Millis::from_secs(cooldown);
        let length = genesis.parameters.window;
        let reach = Millis::from_secs(600);
        let rest = Millis::from_secs(cooldown.max(60));
        let mut state = DesiredState::Retried { after: UnixMillis::ZERO, until: UnixMillis::ZERO };
        let (mut failures, mut logged) = (Vec::<WindowIndex>::new(), Vec::<UnixMillis>::new());
        for ((fails, is_confirmed, is_stopped, is_applied), index) in windows.into_iter().zip(10_000..) {
            let window = WindowIndex::new(index);
            let now = window.close(length).plus(Millis::from_secs(3));
            let mut snapshot = snapshot(&genesis);
            (snapshot.window, snapshot.now) = (window, now);
            if !is_confirmed {
                snapshot.finality = Finality::Unconfirmed;
            }
            if is_stopped {
                snapshot.stopped.insert(id("pool"), vec!["ana".to_owned()]);
            }
            let known = snapshot.targets.get_mut(&id("pool")).expect("it is there");
            known.state = state;
            known.recent_plans = logged.iter().map(|at| (*at, "failures".to_owned())).collect();
            // Analysis remembers the newest, and only of confirmed windows.
            let at = |window| Finding { window, ..finding("failures", Symptom::Threshold) };
            let earlier = failures.last().copied().map(at);
            if fails && is_confirmed {
                failures.push(window);
            }
            let findings: Vec<Finding> = (fails && is_confirmed).then(|| at(window)).into_iter().chain(earlier).collect();
            let planned = plan(&snapshot, &findings);

            let DesiredState::Retried { until, .. } = state else { panic!("it is a retry") };
            let is_uncovered = |failed: &&WindowIndex| {
                let close = failed.close(length);
                close > until && now.since(close) < reach
            };
            let uncovered: Vec<&WindowIndex> = failures.iter().filter(is_uncovered).collect();
            let has_rested = logged.last().is_none_or(|last| now.since(*last) >= rest);
            let this_hour = logged.iter().filter(|at| now.since(**at) < Millis::from_secs(3600)).count();
            let has_room = this_hour < plans_per_hour as usize;
            let may = is_confirmed && !is_stopped && has_rested && has_room;
            prop_assert_eq!(planned.plans.len(), usize::from(may && !uncovered.is_empty()), "{:?}", planned.report);
            let Some(plan) = planned.plans.first() else { continue };
            let DesiredState::Retried { after, until: covered } = plan.desired else { panic!("it is a retry") };
            for failed in uncovered {
                let close = failed.close(length);
                prop_assert!(after < close && close <= covered);
            }
            logged.push(now);
            if is_applied {
                state = plan.desired;
            }
        }
    }
}
