//! The planner's account of a cycle: for each policy what it did, or why it did nothing. It is for people,
//! logs and the API; nothing is decided from it. Invariant: it has one line for each policy of the genesis.

use serde::Serialize;
use std::fmt;

use super::check::Violation;
use crate::knowledge::plan::DesiredState;
use crate::types::{TargetId, UnixMillis};

/// What planning did in one cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlanningReport {
    /// One line for each policy, in the genesis' order.
    pub policies: Vec<PolicyReport>,
}

/// What one policy did in one cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyReport {
    /// The policy's name.
    pub policy: String,
    /// What it did.
    pub decision: Decision,
}

/// What a policy did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// It has nothing to act on.
    Quiet {
        /// Why not.
        why: Quiet,
    },
    /// Its symptom is there, and it has no action: the finding is all it gives.
    Found,
    /// Its symptom is there, and it does not act now.
    Held {
        /// Why not.
        why: Hold,
    },
    /// It made a plan.
    Fired {
        /// For which target.
        target: TargetId,
        /// From which state.
        from: DesiredState,
        /// To which state.
        to: DesiredState,
        /// Whether the target's bounds, or its or the policy's largest step, made the change smaller than the policy asks.
        clamped: bool,
    },
    /// It is in shadow: this is the plan that it would have made.
    Advised {
        /// For which target.
        target: TargetId,
        /// From which state.
        from: DesiredState,
        /// To which state.
        to: DesiredState,
        /// Whether the limits made the change smaller than the policy asks.
        clamped: bool,
    },
}

/// Why a policy has nothing to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quiet {
    /// Its symptom is not there.
    NoSymptom,
    /// Its series was never seen: it may not exist yet, or its name may be misspelt.
    NeverSeen,
    /// The interval between its series' samples is not learned yet, so that silence cannot be judged.
    IntervalNotLearned,
}

/// Why a policy does not act on its symptom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Hold {
    /// The symptom is there for some values that may be true and not for others.
    Disputed,
    /// Too few reports say so.
    Unconfirmed,
    /// Its risk is above low, and no source has a second owner.
    Risk,
    /// The genesis has no such target.
    UnknownTarget,
    /// An earlier policy has planned for the target in this cycle.
    TargetTaken {
        /// Which policy.
        by: String,
    },
    /// Operators have stopped the target.
    Stopped {
        /// Which operators, by name.
        by: Vec<String>,
    },
    /// The action is not one for this kind of target, or the target is in a state of another kind.
    WrongKind,
    /// The target lies outside its bounds.
    OutOfBounds,
    /// The policy would add slots, and operators have paused it in that direction.
    UpPaused,
    /// The policy would take slots away, and operators have paused it in that direction.
    DownPaused,
    /// The policy rests after its last plan.
    PolicyCooldown {
        /// Until when.
        until: UnixMillis,
    },
    /// The target rests after its last plan.
    TargetCooldown {
        /// Until when.
        until: UnixMillis,
    },
    /// The target has had its plans for the hour.
    PlansPerHour {
        /// Until when; never when it gets none.
        until: Option<UnixMillis>,
    },
    /// The target already is as the policy wants it.
    Noop,
    /// A threshold has more digits than a plan can carry.
    Unrepresentable,
    /// The checker refused the plan.
    Rejected {
        /// Which invariants it breaks.
        violations: Vec<Violation>,
    },
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiet { why } => write!(f, "quiet: {why}"),
            Self::Found => f.write_str("found: the policy has no action"),
            Self::Held { why } => write!(f, "held: {why}"),
            Self::Fired { target, from, to, clamped } => {
                write!(f, "fired: {target} from {from} to {to}{}", note(*clamped))
            }
            Self::Advised { target, from, to, clamped } => {
                write!(f, "advised, in shadow: {target} from {from} to {to}{}", note(*clamped))
            }
        }
    }
}

const fn note(clamped: bool) -> &'static str {
    if clamped { ", clamped to the limits" } else { "" }
}

impl fmt::Display for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSymptom => "no symptom",
            Self::NeverSeen => "its series was never seen",
            Self::IntervalNotLearned => "its series' interval is not learned yet",
        })
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disputed => f.write_str("the reports disagree"),
            Self::Unconfirmed => f.write_str("too few reports count"),
            Self::Risk => f.write_str("its risk needs sources of two owners"),
            Self::UnknownTarget => f.write_str("the genesis has no such target"),
            Self::TargetTaken { by } => write!(f, "policy {by} has planned for the target in this cycle"),
            Self::Stopped { by } => write!(f, "the target is stopped by {}", by.join(", ")),
            Self::WrongKind => f.write_str("the action does not fit the target"),
            Self::OutOfBounds => f.write_str("the target lies outside its bounds"),
            Self::UpPaused => f.write_str("the policy may not add slots: `up` is false"),
            Self::DownPaused => f.write_str("the policy may not take slots away: `down` is false"),
            Self::PolicyCooldown { until } => write!(f, "the policy rests until {until}"),
            Self::TargetCooldown { until } => write!(f, "the target rests until {until}"),
            Self::PlansPerHour { until: Some(until) } => {
                write!(f, "plans per hour are used up until {until}")
            }
            Self::PlansPerHour { until: None } => f.write_str("the target gets no plans"),
            Self::Noop => f.write_str("the target already is as the policy wants it"),
            Self::Unrepresentable => f.write_str("a threshold has more digits than a plan can carry"),
            Self::Rejected { violations } => {
                f.write_str("the checker refused the plan: ")?;
                for (index, violation) in violations.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{violation}")?;
                }
                Ok(())
            }
        }
    }
}
