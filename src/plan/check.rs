//! The checker: invariants that no plan may break, whatever policies ask. It is written without the planner's
//! code and reads nothing but the plan, the snapshot and the genesis in it, so that a mistake in the planner is
//! refused here and not signed. It repairs nothing.
//!
//! # The invariants
//!
//! - **I1** The plan is of version 1, of the snapshot's cluster, epoch, cycle and agreed time.
//! - **I2** Its target is in the genesis and in the snapshot.
//! - **I3** It follows the target's newest logged plan, with a higher sequence number.
//! - **I4** The snapshot's window is confirmed.
//! - **I5** The desired state, the precondition and the rollback are of the target's kind.
//! - **I6** The precondition is the target's present state, and the plan changes it.
//! - **I7** Desired slots and rollback slots are within the target's bounds; a retry reaches up to now, and no
//!   further back than the target allows.
//! - **I8** Slots change by at most the target's largest step; a retry covers nothing that the last one did.
//! - **I9** The rollback is the precondition: it takes back what the plan changes, no more.
//! - **I10** The target's cooldown has passed since its last logged plan.
//! - **I11** The target gets at most its number of plans in 60 minutes of agreed time, this one included.
//! - **I12** It may be applied from now on, expires later than now, and at most a day later.
//! - **I13** It is judged after now.
//! - **I14** The limits it carries are the target's.
//! - **I15** The policy it names is in the genesis, acts on this target, has this risk class, which is low, and
//!   has rested for its own cooldown since the target's last plan by it.
//! - **I16** It is no larger than a document may be.
//! - **I17** No operator has stopped its target.
//! - **I18** The policy that it names acts: it is not in shadow.
//! - **I19** Slots change by at most that policy's own largest step.
//! - **I20** That policy is not paused in the direction in which slots change.

use serde::Serialize;

use crate::knowledge::{
    plan::{DesiredState, Limits, Plan, RiskClass},
    policy::{Controls, Mode, Risk, Target, TargetKind, Way},
    snapshot::{Finality, Snapshot, TargetState},
};
use crate::types::{Digest, MAX_DOCUMENT_BYTES, Millis};

/// The longest that a plan may stay applicable: a day-old order is no longer about what was seen.
pub const LONGEST_EXPIRY: Millis = Millis::from_secs(24 * 60 * 60);

/// An invariant that a plan breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Violation {
    /// I1.
    #[error("I1: it belongs to another version, cluster, epoch, cycle or time")]
    Identity,
    /// I2.
    #[error("I2: its target is not known")]
    UnknownTarget,
    /// I3.
    #[error("I3: it does not follow the target's newest plan")]
    Order,
    /// I4.
    #[error("I4: the window is not confirmed")]
    Unconfirmed,
    /// I5.
    #[error("I5: a state is not of the target's kind")]
    Kind,
    /// I6.
    #[error("I6: the precondition is not the present state, or nothing changes")]
    Precondition,
    /// I7.
    #[error("I7: slots or a retry's span are outside the target's bounds")]
    Bounds,
    /// I8.
    #[error("I8: slots change by more than the largest step, or failures are retried twice")]
    Step,
    /// I9.
    #[error("I9: the rollback is not the precondition")]
    Rollback,
    /// I10.
    #[error("I10: the target's cooldown has not passed")]
    Cooldown,
    /// I11.
    #[error("I11: the target has had its plans for the hour")]
    PlansPerHour,
    /// I12.
    #[error("I12: the time in which it may be applied is not sane")]
    Expiry,
    /// I13.
    #[error("I13: it is judged before it can be applied")]
    Verification,
    /// I14.
    #[error("I14: the limits are not the target's")]
    Limits,
    /// I15.
    #[error("I15: no policy in the genesis may ask for it now")]
    Policy,
    /// I16.
    #[error("I16: it is too large")]
    Size,
    /// I17.
    #[error("I17: an operator has stopped the target")]
    Stopped,
    /// I18.
    #[error("I18: its policy is in shadow")]
    Shadow,
    /// I19.
    #[error("I19: slots change by more than its policy's largest step")]
    PolicyStep,
    /// I20.
    #[error("I20: its policy is paused in this direction")]
    Direction,
}

/// Checks a plan against every invariant.
///
/// # Errors
/// All the invariants that it breaks, in order.
pub fn check(plan: &Plan, snapshot: &Snapshot<'_>) -> Result<(), Vec<Violation>> {
    let target = snapshot.genesis.targets.iter().find(|candidate| candidate.id == plan.target);
    let state = snapshot.targets.get(&plan.target);
    let (Some(target), Some(state)) = (target, state) else {
        return Err(vec![Violation::UnknownTarget]);
    };
    let controls = controls_of(plan, snapshot);
    let rows = [
        (Violation::Identity, identity_holds(plan, snapshot)),
        (Violation::Order, plan.prev == state.newest_plan && plan.seq > state.newest_seq),
        (Violation::Unconfirmed, snapshot.finality == Finality::Confirmed),
        (Violation::Kind, states(plan).iter().all(|state| is_of_kind(state, &target.kind))),
        (
            Violation::Precondition,
            plan.preconditions.state == state.state && plan.desired != plan.preconditions.state,
        ),
        (
            Violation::Bounds,
            in_bounds(plan.desired, target)
                && in_bounds(plan.rollback, target)
                && span_is_allowed(plan, target),
        ),
        (Violation::Step, step_is_allowed(plan, target)),
        (Violation::Rollback, plan.rollback == plan.preconditions.state),
        (Violation::Cooldown, has_rested(state, target.cooldown, None, snapshot)),
        (Violation::PlansPerHour, hour_has_room(state, target, snapshot)),
        (Violation::Expiry, expiry_is_sane(plan)),
        (Violation::Verification, plan.verify.by > plan.issued_at),
        (Violation::Limits, limits_are_the_targets(plan, target)),
        (Violation::Policy, a_policy_may_ask(plan, state, snapshot)),
        (Violation::Size, plan.to_bytes().len() <= MAX_DOCUMENT_BYTES),
        (Violation::Stopped, !snapshot.stopped.contains_key(&plan.target)),
        (Violation::Shadow, controls.is_none_or(|controls| controls.mode == Mode::Act)),
        (Violation::PolicyStep, controls.is_none_or(|controls| is_within_own_step(plan, controls))),
        (Violation::Direction, controls.is_none_or(|controls| direction_is_open(plan, controls))),
    ];
    let broken: Vec<Violation> =
        rows.into_iter().filter(|(_, holds)| !holds).map(|(violation, _)| violation).collect();
    if broken.is_empty() { Ok(()) } else { Err(broken) }
}

fn identity_holds(plan: &Plan, snapshot: &Snapshot<'_>) -> bool {
    plan.v == 1
        && plan.cluster == snapshot.cluster
        && plan.epoch == snapshot.epoch
        && plan.seq == snapshot.cycle
        && plan.issued_at == snapshot.now
}

const fn states(plan: &Plan) -> [DesiredState; 3] {
    [plan.desired, plan.preconditions.state, plan.rollback]
}

const fn is_of_kind(state: &DesiredState, kind: &TargetKind) -> bool {
    match state {
        DesiredState::Slots { .. } => matches!(kind, TargetKind::Pool { .. }),
        DesiredState::Paused {} | DesiredState::Running {} => matches!(kind, TargetKind::Switch { .. }),
        DesiredState::Retried { .. } => matches!(kind, TargetKind::Tasks { .. }),
    }
}

/// Whether a state of slots is within a pool's bounds. Other states have none.
const fn in_bounds(state: DesiredState, target: &Target) -> bool {
    match (state, target.kind) {
        (DesiredState::Slots { slots }, TargetKind::Pool { min, max, .. }) => min <= slots && slots <= max,
        (DesiredState::Slots { .. }, TargetKind::Switch { .. } | TargetKind::Tasks { .. })
        | (DesiredState::Paused {} | DesiredState::Running {} | DesiredState::Retried { .. }, _) => true,
    }
}

/// Whether a retry reaches from some moment that is not too long ago up to now. Other plans have no span.
fn span_is_allowed(plan: &Plan, target: &Target) -> bool {
    let (DesiredState::Retried { after, until }, TargetKind::Tasks { within, .. }) =
        (plan.desired, target.kind)
    else {
        return true;
    };
    after < until && until == plan.issued_at && until.since(after) <= within
}

const fn step_is_allowed(plan: &Plan, target: &Target) -> bool {
    match (plan.preconditions.state, plan.desired, target.kind) {
        (
            DesiredState::Slots { slots: before },
            DesiredState::Slots { slots: after },
            TargetKind::Pool { max_step, .. },
        ) => before.abs_diff(after) <= max_step,
        (
            DesiredState::Retried { until: before, .. },
            DesiredState::Retried { after, .. },
            TargetKind::Tasks { .. },
        ) => before.as_millis() <= after.as_millis(),
        // States of another kind break I5.
        (_, _, TargetKind::Pool { .. } | TargetKind::Switch { .. } | TargetKind::Tasks { .. }) => true,
    }
}

/// Whether so much time has passed since the target's last plan, by that policy if one is named.
fn has_rested(state: &TargetState, cooldown: Millis, policy: Option<&str>, snapshot: &Snapshot<'_>) -> bool {
    for (logged_at, by) in &state.recent_plans {
        if policy.is_some_and(|name| name != by) {
            continue;
        }
        if snapshot.now.since(*logged_at) < cooldown {
            return false;
        }
    }
    true
}

fn hour_has_room(state: &TargetState, target: &Target, snapshot: &Snapshot<'_>) -> bool {
    let mut within_the_hour = 1u64;
    for (logged_at, _) in &state.recent_plans {
        if snapshot.now.since(*logged_at) < Millis::from_secs(3600) {
            within_the_hour += 1;
        }
    }
    within_the_hour <= u64::from(target.plans_per_hour)
}

fn expiry_is_sane(plan: &Plan) -> bool {
    plan.not_before == plan.issued_at
        && plan.expires_at > plan.not_before
        && plan.expires_at.since(plan.issued_at) <= LONGEST_EXPIRY
}

fn limits_are_the_targets(plan: &Plan, target: &Target) -> bool {
    match target.kind {
        TargetKind::Pool { min, max, max_step, initial: _ } => {
            plan.limits == Limits::Slots { min, max, max_step }
        }
        TargetKind::Switch { .. } => plan.limits == Limits::Switch {},
        TargetKind::Tasks { most, within } => plan.limits == Limits::Tasks { most, within },
    }
}

fn a_policy_may_ask(plan: &Plan, state: &TargetState, snapshot: &Snapshot<'_>) -> bool {
    snapshot.genesis.policies.iter().any(|policy| {
        policy.action.as_ref().is_some_and(|action| {
            Digest::of_value(policy) == plan.policy
                && action.target == plan.target
                && action.risk == Risk::Low
                && plan.risk == RiskClass::Low
                && has_rested(state, action.cooldown, Some(&policy.name), snapshot)
        })
    })
}

/// The controls of the policy that the plan names. Where there is none, I15 is broken, and the rest hangs on nothing.
fn controls_of<'a>(plan: &Plan, snapshot: &Snapshot<'a>) -> Option<&'a Controls> {
    let named = snapshot.genesis.policies.iter().find(|policy| Digest::of_value(*policy) == plan.policy)?;
    named.action.as_ref().map(|action| &action.controls)
}

fn is_within_own_step(plan: &Plan, controls: &Controls) -> bool {
    match (plan.preconditions.state, plan.desired, controls.max_step) {
        (DesiredState::Slots { slots: before }, DesiredState::Slots { slots: after }, Some(most)) => {
            after <= before.saturating_add(most) && before <= after.saturating_add(most)
        }
        // Only slots have steps.
        (_, _, Some(_) | None) => true,
    }
}

fn direction_is_open(plan: &Plan, controls: &Controls) -> bool {
    match (plan.preconditions.state, plan.desired) {
        (DesiredState::Slots { slots: before }, DesiredState::Slots { slots: after }) => {
            (after <= before || controls.up == Way::Open) && (after >= before || controls.down == Way::Open)
        }
        // Only slots have directions.
        (_, _) => true,
    }
}

#[cfg(test)]
mod tests;
