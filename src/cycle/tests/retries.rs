//! Failures that are counted once and stay until a plan has had them retried.

use std::collections::BTreeMap;

use super::{Cluster, FIRST, WINDOW, cycle_of, genesis};
use crate::{
    knowledge::{
        command::Command,
        fixtures::{agent_key, receipt, seal, target},
        genesis::Genesis,
        observation::{SeriesKey, SeriesSummary, WindowSummary},
        plan::{DesiredState, Plan},
        policy::{Change, Condition, Side, Statistic, TargetKind},
        receipt::{Outcome, RECEIPT_TYPE, Receipt, Refusal},
    },
    types::{Digest, Millis, Quantity, SourceId, UnixMillis, WindowIndex},
};

const REST: Millis = Millis::from_secs(60);

/// Failed tasks are told to run again, at most once a minute.
fn retrying() -> Genesis {
    let mut genesis = genesis();
    genesis.targets[0].kind = TargetKind::Tasks { most: 20, within: Millis::from_secs(3600) };
    genesis.targets[0].cooldown = REST;
    genesis.targets[0].plans_per_hour = 6;
    let policy = &mut genesis.policies[0];
    "failed".clone_into(&mut policy.indicator.selector.name);
    policy.indicator.statistic = Statistic::Increase;
    policy.condition = Condition::Threshold {
        side: Side::Above,
        enter: Quantity::ONE,
        leave: Quantity::ZERO,
        hold: Millis::ZERO,
    };
    let action = policy.action.as_mut().expect("the policy acts");
    (action.change, action.cooldown) = (Change::Retry, REST);
    genesis
}

/// What a counter of failures gives every window: by how much it rose.
fn failed(tasks: i64) -> WindowSummary {
    let key = SeriesKey {
        source: SourceId::new("engine").expect("a valid name"),
        name: "failed".to_owned(),
        attributes: BTreeMap::new(),
        resource: BTreeMap::new(),
    };
    let rise = SeriesSummary::Increase { increase: Quantity::from_i64(tasks), samples: 1 };
    WindowSummary { series: BTreeMap::from([(key, rise)]) }
}

/// One window at all replicas, with what follows from it: the plan that was logged, derived by all alike.
fn window(cluster: &mut Cluster, index: u64, failures: i64) -> Option<Plan> {
    for said in &mut cluster.said {
        said.plans.clear();
    }
    cluster.report(index, |_| failed(failures));
    cluster.endorse(&[0, 1, 2, 3]);
    let late = UnixMillis::new((index + 1) * WINDOW.as_millis() + 4_000);
    for place in 0..4 {
        cluster.cycles[place].tick(late);
        cluster.collect(place);
    }
    cluster.order();
    let plans = cluster.said[0].plans.clone();
    for said in &cluster.said {
        assert_eq!(said.plans, plans, "equal logs give equal plans");
        assert_eq!(said.alarms, []);
    }
    assert!(plans.len() <= 1);
    plans.into_iter().next()
}

/// The agent's receipt for a plan is ordered.
fn answer(cluster: &mut Cluster, plan: &Plan, counter: u64, outcome: Outcome) {
    let after = if outcome == (Outcome::Applied {}) { plan.desired } else { plan.preconditions.state };
    let receipt = Receipt {
        cluster: cluster.committee.cluster(),
        target: target(),
        seq: plan.seq,
        plan: Digest::of(&plan.to_bytes()),
        outcome,
        before: plan.preconditions.state,
        after,
        counter,
        ..receipt()
    };
    let envelope = seal(RECEIPT_TYPE, receipt.to_bytes(), &[agent_key()]);
    cluster.said[0].submitted.push(Command::Receipt { envelope }.encode());
    cluster.order();
}

fn span(plan: &Plan) -> (UnixMillis, UnixMillis) {
    let DesiredState::Retried { after, until } = plan.desired else { panic!("{plan:?} is no retry") };
    (after, until)
}

#[test]
fn a_failure_in_the_rest_after_a_retry_is_retried_when_the_rest_ends_though_nothing_fails_any_more() {
    let mut cluster = Cluster::of(&retrying());
    assert_eq!(window(&mut cluster, FIRST, 0), None);
    let first = window(&mut cluster, FIRST + 1, 2).expect("two tasks failed");
    answer(&mut cluster, &first, 1, Outcome::Applied {});
    assert_eq!(window(&mut cluster, FIRST + 2, 1), None, "one more failed, and the policy rests");
    assert_eq!(window(&mut cluster, FIRST + 3, 0), None);
    // A replica that comes from a snapshot knows what is owed.
    let snapshot = cluster.cycles[1].snapshot();
    let mut joined = cycle_of(&retrying(), &cluster.committee, 0);
    joined.install(&snapshot).expect("it is this cluster's");
    cluster.cycles[0] = joined;
    let mut plans = Vec::new();
    for index in FIRST + 4..FIRST + 30 {
        let Some(plan) = window(&mut cluster, index, 0) else { continue };
        // The agent could not do the second one, so it is owed still.
        let outcome = match plans.len() {
            0 => Outcome::Refused { why: Refusal::TargetFailed },
            _ => Outcome::Applied {},
        };
        answer(&mut cluster, &plan, plans.len() as u64 + 2, outcome);
        plans.push(plan);
    }
    let [second, third] = plans.as_slice() else { panic!("two plans, not {plans:?}") };
    assert_eq!(span(second).0, span(&first).1, "it begins where the first ended");
    assert!(span(second).1 >= WindowIndex::new(FIRST + 2).close(WINDOW), "the failure is in its span");
    for (plan, before) in [(second, &first), (third, second)] {
        let waited = plan.issued_at.since(before.issued_at);
        assert!(waited >= REST, "{waited:?} is no rest");
        assert!(waited < REST.plus(WINDOW.times(2)), "{waited:?}: it waits no longer than it must");
    }
    assert_eq!(span(third).0, span(second).0, "what the second did not do is in the third");
}
