//! One broken genesis for each bound.

use std::collections::BTreeMap;

use super::{Genesis, GenesisError, Parameters, REMEMBERED};
use crate::{
    knowledge::{
        plan::OnStale,
        policy::{
            Action, Change, Combine, Condition, Controls, Indicator, Policy, Risk, Selector, Side, Statistic,
            Target, TargetKind, Way,
        },
    },
    types::{Millis, Quantity, SecretKey, TargetId},
};

fn id(name: &str) -> TargetId {
    TargetId::new(name).expect("a valid name")
}

fn good() -> Genesis {
    let target = |name, kind| Target {
        id: id(name),
        kind,
        cooldown: Millis::from_secs(60),
        plans_per_hour: 10,
        owner: "owner-0".to_owned(),
        agent: SecretKey::from_seed(&[1; 32]).public(),
    };
    let selector = Selector { source: None, name: "queue".to_owned(), attributes: BTreeMap::new() };
    let action = Action {
        target: id("pool"),
        change: Change::AddSlots(4),
        cooldown: Millis::from_secs(60),
        expiry: Millis::from_secs(900),
        risk: Risk::Low,
        on_stale: OnStale::Hold,
        verify_within: Millis::from_secs(60),
        controls: Controls::ACTING,
    };
    let policy = Policy {
        name: "backlog".to_owned(),
        indicator: Indicator { selector, statistic: Statistic::Last, combine: Combine::Sum },
        condition: threshold(Side::Above, 100, 50),
        action: Some(action),
    };
    let pool = TargetKind::Pool { initial: 8, min: 1, max: 64, max_step: 16 };
    let switch = TargetKind::Switch { initially_paused: false };
    Genesis {
        parameters: Parameters::for_window(Millis::from_secs(10)),
        targets: vec![target("dag", switch), target("pool", pool)],
        policies: vec![policy],
    }
}

fn action(genesis: &mut Genesis) -> &mut Action {
    genesis.policies[0].action.as_mut().expect("the policy acts")
}

type Break = Box<dyn Fn(&mut Genesis)>;

/// Each way of breaking a genesis is refused with these words.
fn named<const CASES: usize>(cases: [(&str, Break); CASES]) {
    for (expected, break_it) in cases {
        let mut genesis = good();
        break_it(&mut genesis);
        let error = genesis.check().map_err(|error: GenesisError| error.to_string());
        assert!(error.as_ref().is_err_and(|text| text.contains(expected)), "{expected:?}: {error:?}");
    }
}

fn threshold(side: Side, enter: i64, leave: i64) -> Condition {
    let (enter, leave) = (Quantity::from_i64(enter), Quantity::from_i64(leave));
    Condition::Threshold { side, enter, leave, hold: Millis::ZERO }
}

#[test]
fn the_defaults_pass_for_every_window_from_a_tenth_of_a_second_to_an_hour() {
    for millis in [100, 333, 500, 1000, 10_000, 60_000, 3_600_000] {
        let mut genesis = good();
        genesis.parameters = Parameters::for_window(Millis::new(millis));
        assert_eq!(genesis.check(), Ok(()), "{millis} ms");
    }
}

#[test]
fn every_broken_parameter_is_named() {
    let cases: [(&str, Break); 9] = [
        ("window must not be zero", Box::new(|g| g.parameters.window = Millis::ZERO)),
        ("grace must be", Box::new(|g| g.parameters.grace = Millis::from_secs(11))),
        ("deadline must be", Box::new(|g| g.parameters.deadline = Millis::from_secs(14))),
        ("activation_limit must be", Box::new(|g| g.parameters.activation_limit = Millis::from_secs(9))),
        ("head_slot must be at least", Box::new(|g| g.parameters.head_slot = Millis::from_secs(9))),
        ("head_slot must be at most", Box::new(|g| g.parameters.head_slot = Millis::from_secs(11))),
        ("longest_hold must be", Box::new(|g| g.parameters.longest_hold = Millis::from_secs(9))),
        ("series_limit must not", Box::new(|g| g.parameters.series_limit = 0)),
        ("checkpoint_interval must be", Box::new(|g| g.parameters.checkpoint_interval = 0)),
    ];
    named(cases);
}

#[test]
fn every_broken_target_is_named() {
    let cases: [(&str, Break); 8] = [
        ("sorted by name, each once: dag stands after pool", Box::new(|g| g.targets.reverse())),
        ("sorted by name, each once: dag stands after dag", Box::new(|g| g.targets[1].id = id("dag"))),
        (
            "target pool: min <= initial <= max",
            Box::new(|g| {
                g.targets[1].kind = TargetKind::Pool { initial: 65, min: 1, max: 64, max_step: 16 };
            }),
        ),
        (
            "target pool: max_step",
            Box::new(|g| {
                g.targets[1].kind = TargetKind::Pool { initial: 8, min: 1, max: 64, max_step: 0 };
            }),
        ),
        ("target dag: plans_per_hour", Box::new(|g| g.targets[0].plans_per_hour = 0)),
        ("target dag: plans_per_hour", Box::new(|g| g.targets[0].plans_per_hour = 3601)),
        ("target dag: cooldown", Box::new(|g| g.targets[0].cooldown = REMEMBERED.plus(Millis::new(1)))),
        (
            "too long for one head",
            Box::new(|g| {
                let target = g.targets[0].clone();
                let named = |number| Target { id: id(&format!("{number:0128}")), ..target.clone() };
                g.targets = (0..256).map(named).collect();
            }),
        ),
    ];
    named(cases);
}

#[test]
fn every_broken_policy_is_named() {
    let cases: [(&str, Break); 18] = [
        ("policy \"\"", Box::new(|g| g.policies[0].name = String::new())),
        ("policy \"backlog\": a policy's name", Box::new(|g| g.policies.push(g.policies[0].clone()))),
        ("there is no target nowhere", Box::new(|g| action(g).target = id("nowhere"))),
        (
            "leave must be at most enter",
            Box::new(move |g| {
                g.policies[0].condition = threshold(Side::Above, 1, 2);
            }),
        ),
        (
            "leave must be at least enter",
            Box::new(move |g| {
                g.policies[0].condition = threshold(Side::Below, 2, 1);
            }),
        ),
        (
            "absence must be",
            Box::new(|g| {
                g.policies[0].condition = Condition::Absence { after_milli_intervals: 999 };
            }),
        ),
        (
            "policy \"backlog\": cooldown",
            Box::new(|g| {
                action(g).cooldown = REMEMBERED.plus(Millis::new(1));
            }),
        ),
        ("expiry must not be zero", Box::new(|g| action(g).expiry = Millis::ZERO)),
        ("adding no slots", Box::new(|g| action(g).change = Change::AddSlots(0))),
        ("set_slots lies outside", Box::new(|g| action(g).change = Change::SetSlots(65))),
        ("only a switch is paused", Box::new(|g| action(g).change = Change::Pause)),
        ("only a pool has slots", Box::new(|g| action(g).target = id("dag"))),
        ("the policy's max_step must be", Box::new(|g| action(g).controls.max_step = Some(0))),
        (
            "max_step, up and down are of slots",
            Box::new(|g| {
                (action(g).target, action(g).change) = (id("dag"), Change::Pause);
                action(g).controls.down = Way::Paused;
            }),
        ),
        (
            "max_step, up and down are of slots",
            Box::new(|g| {
                (action(g).target, action(g).change) = (id("dag"), Change::Pause);
                action(g).controls.max_step = Some(1);
            }),
        ),
        ("only tasks are retried", Box::new(|g| action(g).change = Change::Retry)),
        (
            "most must be from 1 to 100",
            Box::new(|g| g.targets[0].kind = TargetKind::Tasks { most: 101, within: REMEMBERED }),
        ),
        (
            "a retry cannot be taken back",
            Box::new(|g| {
                g.targets[0].kind = TargetKind::Tasks { most: 1, within: REMEMBERED };
                action(g).target = id("dag");
                action(g).change = Change::Retry;
                action(g).on_stale = OnStale::Rollback;
            }),
        ),
    ];
    named(cases);
}

#[test]
fn a_conservation_check_is_over_one_source_and_stands_last() {
    let part = |source: &str| Selector {
        source: Some(crate::types::SourceId::new(source).expect("a valid name")),
        name: "m".to_owned(),
        attributes: BTreeMap::new(),
    };
    let check = |outflow: &str, tolerance, over_secs| Policy {
        name: "adds-up".to_owned(),
        indicator: Indicator { selector: part("a"), statistic: Statistic::Increase, combine: Combine::Sum },
        condition: Condition::Conservation {
            outflow: part(outflow),
            stock: part("a"),
            tolerance: Quantity::from_i64(tolerance),
            over: Millis::from_secs(over_secs),
        },
        action: None,
    };
    let with = |check: Policy| {
        let mut genesis = good();
        genesis.policies.push(check);
        genesis
    };
    assert_eq!(with(check("a", 0, 10)).check(), Ok(()));
    let mut acts = check("a", 0, 10);
    acts.action = good().policies[0].action.clone();
    let mut of_levels = check("a", 0, 10);
    of_levels.indicator.statistic = Statistic::Last;
    let mut first = with(check("a", 0, 10));
    first.policies.reverse();
    let broken = [
        (with(check("b", 0, 10)), "over the series of one source"),
        (with(check("a", -1, 10)), "tolerance must not be below zero"),
        (with(check("a", 0, 9)), "over must be 1 to 512 windows"),
        (with(check("a", 0, 5_121)), "over must be 1 to 512 windows"),
        (with(acts), "has no action"),
        (with(of_levels), "the sum of increases"),
        (first, "stand after all other policies"),
    ];
    for (genesis, why) in broken {
        let refused = genesis.check().expect_err(why).to_string();
        assert!(refused.contains(why), "{why}: {refused}");
    }
}
