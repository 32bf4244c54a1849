//! The planner: turns findings into plans (rules P1 to P13). It does not judge whether a plan is allowed: what
//! it clamps and holds back, the checker judges again from the plan's own words. Invariant: at most one plan
//! for each target.

use std::collections::BTreeMap;

use super::{
    bundle::{EvidenceBundle, MAX_BUNDLE_BYTES},
    check::{Violation, check},
    report::{Decision, Hold, PlanningReport, PolicyReport, Quiet},
};
use crate::knowledge::{
    finding::{Finding, Interval, Symptom},
    plan::{
        DesiredState, Limits, Measure, Plan, Preconditions, Reason, RiskClass, Verify, VerifyElse, VerifyOp,
    },
    policy::{Action, Change, Condition, Controls, Mode, Policy, Risk, Side, Target, TargetKind, Way},
    snapshot::{Finality, Reading, Snapshot, TargetState},
};
use crate::types::{Digest, Millis, Quantity, TargetId, UnixMillis};

const HOUR: Millis = Millis::from_secs(60 * 60);

/// What planning gives: plans to sign, and an account for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// At most one plan for each target, in the order of the policies that asked.
    pub plans: Vec<Plan>,
    /// What each policy did.
    pub report: PlanningReport,
    /// The bytes of the [`EvidenceBundle`] that the plans name, if there are plans and it is not too long to be kept.
    pub bundle: Option<Vec<u8>>,
}

/// Plans for one cycle. The findings are those that analysis made in the snapshot's window, all of them, and those that it
/// remembers of earlier ones. The former, and of the latter those that a retry is owed for (P10), are part of the evidence
/// that each plan names.
#[must_use]
pub fn plan(snapshot: &Snapshot<'_>, findings: &[Finding]) -> Planned {
    let counts = |finding: &&Finding| finding.window == snapshot.window || is_owed(finding, snapshot);
    let findings: Vec<Finding> = findings.iter().filter(counts).cloned().collect();
    let evidence = Digest::of_value(&(snapshot, &findings));
    let mut cycle = Cycle { snapshot, findings, evidence, taken: BTreeMap::new() };
    let mut planned = Planned::default();
    for (index, policy) in snapshot.genesis.policies.iter().enumerate() {
        let decision = match cycle.decide(index, policy) {
            Ok((plan, clamped)) => {
                cycle.taken.insert(plan.target.clone(), policy.name.clone());
                let decision = Decision::Fired {
                    target: plan.target.clone(),
                    from: plan.preconditions.state,
                    to: plan.desired,
                    clamped,
                };
                planned.plans.push(plan);
                decision
            }
            Err(decision) => decision,
        };
        planned.report.policies.push(PolicyReport { policy: policy.name.clone(), decision });
    }
    let bundle = (!planned.plans.is_empty()).then(|| EvidenceBundle::encode(snapshot, &cycle.findings));
    planned.bundle = bundle.filter(|bundle| bundle.len() <= MAX_BUNDLE_BYTES);
    planned
}

struct Cycle<'a> {
    snapshot: &'a Snapshot<'a>,
    /// Those of this window, and earlier ones that a retry is owed for.
    findings: Vec<Finding>,
    evidence: Digest,
    /// Targets that have a plan, and by which policy.
    taken: BTreeMap<TargetId, String>,
}

impl From<Hold> for Decision {
    fn from(why: Hold) -> Self {
        Self::Held { why }
    }
}

impl Cycle<'_> {
    /// The policy's plan and whether it was clamped, or why there is none.
    fn decide(&self, index: usize, policy: &Policy) -> Result<(Plan, bool), Decision> {
        let (reason, observed) = self.reason(index, policy)?;
        let action = policy.action.as_ref().ok_or(Decision::Found)?;
        // P3.
        match action.risk {
            Risk::Low => {}
            Risk::Medium | Risk::High => return Err(Hold::Risk.into()),
        }
        let (target, state) = self.target(action)?;
        // P9.
        if let Some(by) = self.snapshot.stopped.get(&target.id) {
            return Err(Hold::Stopped { by: by.clone() }.into());
        }
        self.rested(policy, action, target, state)?;
        let (desired, clamped) = desired(action, target.kind, state.state, self.snapshot.now, observed)?;
        if desired == state.state {
            return Err(Hold::Noop.into());
        }
        open_way(&action.controls, state.state, desired)?;
        let plan = self.build(policy, action, target, state, desired, reason)?;
        // P8.
        let mut violations = check(&plan, self.snapshot).err().unwrap_or_default();
        match action.controls.mode {
            Mode::Act => {}
            // P12: it breaks this one alone.
            Mode::Shadow => violations.retain(|violation| *violation != Violation::Shadow),
        }
        if !violations.is_empty() {
            return Err(Hold::Rejected { violations }.into());
        }
        match action.controls.mode {
            Mode::Act => Ok((plan, clamped)),
            // P12.
            Mode::Shadow => Err(Decision::Advised {
                target: plan.target,
                from: plan.preconditions.state,
                to: plan.desired,
                clamped,
            }),
        }
    }

    /// P2 and P10: why the policy may act, and on which value, or why not.
    fn reason(&self, index: usize, policy: &Policy) -> Result<(Reason, Option<Interval>), Decision> {
        let (own, earlier): (Vec<&Finding>, Vec<&Finding>) = self
            .findings
            .iter()
            .filter(|finding| finding.policy.as_deref() == Some(policy.name.as_str()))
            .partition(|finding| finding.window == self.snapshot.window);
        let is_proven = |finding: &&&Finding| match finding.symptom {
            Symptom::Threshold | Symptom::Absence | Symptom::Capacity => true,
            Symptom::Disputed | Symptom::Unconfirmed | Symptom::Gap => false,
        };
        // What is owed does not wait for what cannot be told of this window.
        let chosen = own.iter().find(is_proven).or_else(|| earlier.first()).or_else(|| own.first());
        let Some(finding) = chosen else {
            return Err(Decision::Quiet { why: self.quiet(index, policy) });
        };
        let reason = match finding.symptom {
            Symptom::Threshold => Reason::Threshold,
            Symptom::Absence => Reason::Absence,
            Symptom::Capacity => Reason::Capacity,
            Symptom::Disputed => return Err(Hold::Disputed.into()),
            Symptom::Unconfirmed | Symptom::Gap => return Err(Hold::Unconfirmed.into()),
        };
        match self.snapshot.finality {
            Finality::Confirmed => Ok((reason, finding.observed)),
            Finality::Unconfirmed => Err(Hold::Unconfirmed.into()),
        }
    }

    fn quiet(&self, index: usize, policy: &Policy) -> Quiet {
        let needs_interval = matches!(policy.condition, Condition::Absence { .. });
        match self.snapshot.readings.get(index) {
            Some(Reading::NoSamples { since: None, .. }) => Quiet::NeverSeen,
            Some(Reading::NoSamples { since: Some(_), learned_interval_ms: 0 }) if needs_interval => {
                Quiet::IntervalNotLearned
            }
            Some(Reading::NoSamples { .. } | Reading::Fresh(_) | Reading::Held { .. } | Reading::Unknown)
            | None => Quiet::NoSymptom,
        }
    }

    /// The target, when it has no plan yet (P1).
    fn target(&self, action: &Action) -> Result<(&Target, &TargetState), Decision> {
        if let Some(by) = self.taken.get(&action.target) {
            return Err(Hold::TargetTaken { by: by.clone() }.into());
        }
        let target = self.snapshot.genesis.targets.iter().find(|target| target.id == action.target);
        target.zip(self.snapshot.targets.get(&action.target)).ok_or_else(|| Hold::UnknownTarget.into())
    }

    /// P4.
    fn rested(
        &self,
        policy: &Policy,
        action: &Action,
        target: &Target,
        state: &TargetState,
    ) -> Result<(), Decision> {
        let now = self.snapshot.now;
        let own = state.recent_plans.iter().filter(|(_, by)| *by == policy.name).map(|(at, _)| *at).max();
        if let Some(until) = own.map(|at| at.plus(action.cooldown)).filter(|until| now < *until) {
            return Err(Hold::PolicyCooldown { until }.into());
        }
        let any = state.recent_plans.iter().map(|(at, _)| *at).max();
        if let Some(until) = any.map(|at| at.plus(target.cooldown)).filter(|until| now < *until) {
            return Err(Hold::TargetCooldown { until }.into());
        }
        let mut ends: Vec<UnixMillis> =
            state.recent_plans.iter().map(|(at, _)| at.plus(HOUR)).filter(|end| now < *end).collect();
        ends.sort_unstable();
        let limit = usize::try_from(target.plans_per_hour).unwrap_or(usize::MAX);
        match ends.len().checked_sub(limit) {
            None => Ok(()),
            // So many of the hour's plans must end before there is room for one more.
            Some(surplus) => Err(Hold::PlansPerHour { until: ends.get(surplus).copied() }.into()),
        }
    }

    fn build(
        &self,
        policy: &Policy,
        action: &Action,
        target: &Target,
        state: &TargetState,
        desired: DesiredState,
        reason: Reason,
    ) -> Result<Plan, Decision> {
        let snapshot = self.snapshot;
        Ok(Plan {
            v: 1,
            cluster: snapshot.cluster,
            epoch: snapshot.epoch,
            target: target.id.clone(),
            seq: snapshot.cycle,
            prev: state.newest_plan,
            issued_at: snapshot.now,
            not_before: snapshot.now,
            expires_at: snapshot.now.plus(action.expiry),
            desired,
            // P7.
            preconditions: Preconditions { state: state.state },
            rollback: state.state,
            limits: limits(target.kind),
            verify: verify(policy, snapshot.now.plus(action.verify_within))?,
            on_stale: action.on_stale,
            evidence: self.evidence,
            policy: Digest::of_value(policy),
            risk: risk_class(action.risk),
            reason,
        })
    }
}

/// P10: whether it tells of failures in an earlier window that no retry has covered and one still may.
fn is_owed(finding: &Finding, snapshot: &Snapshot<'_>) -> bool {
    let genesis = snapshot.genesis;
    let policy = genesis.policies.iter().find(|policy| finding.policy.as_ref() == Some(&policy.name));
    let Some(action) = policy.and_then(|policy| policy.action.as_ref()) else { return false };
    let target = genesis.targets.iter().find(|target| target.id == action.target);
    let state = snapshot.targets.get(&action.target).map(|target| target.state);
    let (Change::Retry, Some(TargetKind::Tasks { within, .. }), Some(DesiredState::Retried { until, .. })) =
        (action.change, target.map(|target| target.kind), state)
    else {
        return false;
    };
    let close = finding.window.close(genesis.parameters.window);
    let is_earlier = finding.window < snapshot.window;
    let can_act = finding.symptom == Symptom::Threshold;
    is_earlier && can_act && close > until && snapshot.now.since(close) < within
}

/// P5: the absolute state that the change leads to, and whether the limits made the change smaller.
fn desired(
    action: &Action,
    kind: TargetKind,
    present: DesiredState,
    now: UnixMillis,
    observed: Option<Interval>,
) -> Result<(DesiredState, bool), Decision> {
    // P13.
    let step = |largest: u32| action.controls.max_step.map_or(largest, |own| own.min(largest));
    match (kind, present, action.change) {
        (TargetKind::Pool { min, max, max_step, .. }, DesiredState::Slots { slots }, Change::Scale) => {
            let wanted = observed.map_or(i64::from(slots), |asked| scaled(slots, asked));
            slots_toward(wanted, slots, (min, max), step(max_step))
        }
        (TargetKind::Pool { min, max, max_step, .. }, DesiredState::Slots { slots }, Change::AddSlots(n)) => {
            slots_toward(i64::from(slots) + i64::from(n), slots, (min, max), step(max_step))
        }
        (TargetKind::Pool { min, max, max_step, .. }, DesiredState::Slots { slots }, Change::SetSlots(n)) => {
            slots_toward(i64::from(n), slots, (min, max), step(max_step))
        }
        (TargetKind::Switch { .. }, DesiredState::Paused {} | DesiredState::Running {}, Change::Pause) => {
            Ok((DesiredState::Paused {}, false))
        }
        (TargetKind::Switch { .. }, DesiredState::Paused {} | DesiredState::Running {}, Change::Resume) => {
            Ok((DesiredState::Running {}, false))
        }
        (TargetKind::Tasks { within, .. }, DesiredState::Retried { until, .. }, Change::Retry) => {
            // A failure is retried once: what an earlier plan covered is not covered again.
            Ok((DesiredState::Retried { after: until.max(now.minus(within)), until: now }, false))
        }
        (
            TargetKind::Pool { .. } | TargetKind::Switch { .. } | TargetKind::Tasks { .. },
            DesiredState::Slots { .. }
            | DesiredState::Paused {}
            | DesiredState::Running {}
            | DesiredState::Retried { .. },
            Change::AddSlots(_)
            | Change::SetSlots(_)
            | Change::Pause
            | Change::Resume
            | Change::Retry
            | Change::Scale,
        ) => Err(Hold::WrongKind.into()),
    }
}

/// P11: up to what every choice asks for, down to what every choice is content with; in between nothing changes.
fn scaled(slots: u32, asked: Interval) -> i64 {
    let (present, whole) = (i64::from(slots), |slots: Quantity| slots.to_i64().unwrap_or(i64::MAX));
    present.clamp(whole(asked.low), whole(asked.high).max(whole(asked.low)))
}

/// P13: whether the policy may move its target in this direction.
fn open_way(controls: &Controls, present: DesiredState, desired: DesiredState) -> Result<(), Decision> {
    let (DesiredState::Slots { slots: before }, DesiredState::Slots { slots: after }) = (present, desired)
    else {
        return Ok(());
    };
    match (controls.up, controls.down) {
        (Way::Paused, _) if after > before => Err(Hold::UpPaused.into()),
        (_, Way::Paused) if after < before => Err(Hold::DownPaused.into()),
        (Way::Open | Way::Paused, Way::Open | Way::Paused) => Ok(()),
    }
}

fn slots_toward(
    wanted: i64,
    slots: u32,
    (min, max): (u32, u32),
    max_step: u32,
) -> Result<(DesiredState, bool), Decision> {
    if !(min..=max).contains(&slots) {
        return Err(Hold::OutOfBounds.into());
    }
    // Both ranges hold the present number of slots, so what lies in one still lies in the other.
    let lowest = slots.saturating_sub(max_step).max(min);
    let highest = slots.saturating_add(max_step).min(max);
    let reached = wanted.clamp(i64::from(lowest), i64::from(highest));
    let to = u32::try_from(reached).expect("a value between two u32 is one");
    Ok((DesiredState::Slots { slots: to }, reached != wanted))
}

const fn limits(kind: TargetKind) -> Limits {
    match kind {
        TargetKind::Pool { min, max, max_step, .. } => Limits::Slots { min, max, max_step },
        TargetKind::Switch { .. } => Limits::Switch {},
        TargetKind::Tasks { most, within } => Limits::Tasks { most, within },
    }
}

fn verify(policy: &Policy, by: UnixMillis) -> Result<Verify, Decision> {
    let (op, bound) = match policy.condition {
        Condition::Threshold { side: Side::Above, leave, .. } => (VerifyOp::AtMost, leave),
        Condition::Threshold { side: Side::Below, leave, .. } => (VerifyOp::AtLeast, leave),
        Condition::Absence { .. } | Condition::Capacity(_) => (VerifyOp::Present, Quantity::ZERO),
        // It has no action, so nobody asks.
        Condition::Conservation { .. } => return Err(Decision::Found),
    };
    Ok(Verify {
        series: policy.indicator.selector.name.clone(),
        op,
        value: Measure::exactly(bound, "").ok_or(Hold::Unrepresentable)?,
        by,
        otherwise: VerifyElse::Finding,
    })
}

const fn risk_class(risk: Risk) -> RiskClass {
    match risk {
        Risk::Low => RiskClass::Low,
        Risk::Medium => RiskClass::Medium,
        Risk::High => RiskClass::High,
    }
}

#[cfg(test)]
mod tests;
