//! What the tests of planner and checker share: a small genesis and a snapshot in which one policy fires.

use std::collections::BTreeMap;

use crate::knowledge::{
    finding::{Finding, Interval, Symptom},
    genesis::{Genesis, Parameters},
    observation::Attributes,
    plan::{DesiredState, OnStale},
    policy::{
        Action, Change, Combine, Condition, Controls, Indicator, Policy, Risk, Selector, Side, Statistic,
        Target, TargetKind,
    },
    snapshot::{Finality, Reading, Snapshot, TargetState},
};
use crate::types::{
    Cycle, Digest, Epoch, Millis, Quantity, ReplicaIndex, SecretKey, TargetId, UnixMillis, WindowIndex,
};

pub(super) const NOW: UnixMillis = UnixMillis::new(1_800_000_000_000);

pub(super) fn id(name: &str) -> TargetId {
    TargetId::new(name).expect("a valid name")
}

pub(super) fn target(name: &str, kind: TargetKind) -> Target {
    Target {
        id: id(name),
        kind,
        cooldown: Millis::from_secs(60),
        plans_per_hour: 3,
        owner: "owner-0".to_owned(),
        agent: SecretKey::from_seed(&[7; 32]).public(),
    }
}

pub(super) const POOL: TargetKind = TargetKind::Pool { initial: 3, min: 2, max: 10, max_step: 4 };
pub(super) const SWITCH: TargetKind = TargetKind::Switch { initially_paused: false };

/// A retry of at most 20 tasks that failed within the last ten minutes.
pub(super) const TASKS: TargetKind = TargetKind::Tasks { most: 20, within: Millis::from_secs(600) };

pub(super) fn policy(name: &str, target: &str, change: Change) -> Policy {
    Policy {
        name: name.to_owned(),
        indicator: Indicator {
            selector: Selector {
                source: None,
                name: format!("{name}.waiting"),
                attributes: Attributes::new(),
            },
            statistic: Statistic::Last,
            combine: Combine::Sum,
        },
        condition: Condition::Threshold {
            side: Side::Above,
            enter: Quantity::from_i64(20),
            leave: Quantity::from_i64(5),
            hold: Millis::ZERO,
        },
        action: Some(Action {
            target: id(target),
            change,
            cooldown: Millis::from_secs(300),
            expiry: Millis::from_secs(900),
            risk: Risk::Low,
            on_stale: OnStale::Hold,
            verify_within: Millis::from_secs(300),
            controls: Controls::ACTING,
        }),
    }
}

pub(super) fn genesis(targets: Vec<Target>, policies: Vec<Policy>) -> Genesis {
    Genesis { parameters: Parameters::for_window(Millis::from_secs(10)), targets, policies }
}

/// A pool with three slots and a policy that adds three.
pub(super) fn backlog() -> Genesis {
    genesis(vec![target("pool", POOL)], vec![policy("backlog", "pool", Change::AddSlots(3))])
}

pub(super) fn value(of: i64) -> Interval {
    let point = Quantity::from_i64(of);
    Interval { low: point, median: point, high: point }
}

/// A confirmed cycle in which every target is as the genesis says and nothing was planned before.
pub(super) fn snapshot(genesis: &Genesis) -> Snapshot<'_> {
    let state = |target: &Target| TargetState {
        state: match target.kind {
            TargetKind::Pool { initial, .. } => DesiredState::Slots { slots: initial },
            TargetKind::Switch { initially_paused: true } => DesiredState::Paused {},
            TargetKind::Switch { initially_paused: false } => DesiredState::Running {},
            TargetKind::Tasks { .. } => {
                DesiredState::Retried { after: UnixMillis::ZERO, until: UnixMillis::ZERO }
            }
        },
        newest_plan: Digest::ZERO,
        newest_seq: Cycle::ZERO,
        recent_plans: Vec::new(),
    };
    let targets: BTreeMap<_, _> =
        genesis.targets.iter().map(|target| (target.id.clone(), state(target))).collect();
    Snapshot {
        cluster: Digest::of(b"cluster"),
        epoch: Epoch::new(1),
        cycle: Cycle::new(42),
        now: NOW,
        window: WindowIndex::new(180),
        finality: Finality::Confirmed,
        reporters: (0..4).map(|place| (ReplicaIndex::new(place), false)).collect(),
        readings: genesis.policies.iter().map(|_| Reading::Fresh(value(37))).collect(),
        targets,
        stopped: BTreeMap::new(),
        genesis,
    }
}

pub(super) fn finding(policy: &str, symptom: Symptom) -> Finding {
    Finding {
        policy: Some(policy.to_owned()),
        symptom,
        window: WindowIndex::new(180),
        since: NOW,
        observed: Some(value(37)),
        against: Some(Quantity::from_i64(20)),
    }
}

/// A change to a snapshot by a row of a table.
pub(super) type Alter = Box<dyn Fn(&mut Snapshot<'_>)>;

/// Puts the pool into a state.
pub(super) fn in_state(state: DesiredState) -> Alter {
    Box::new(move |snapshot| {
        for target in snapshot.targets.values_mut() {
            target.state = state;
        }
    })
}

/// Lets plans have been logged so many seconds ago, oldest first, by these policies.
pub(super) fn planned_before(plans: &'static [(u64, &'static str)]) -> Alter {
    Box::new(move |snapshot| {
        let now = snapshot.now;
        for target in snapshot.targets.values_mut() {
            target.recent_plans = plans
                .iter()
                .map(|(secs, by)| (now.minus(Millis::from_secs(*secs)), (*by).to_owned()))
                .collect();
        }
    })
}
