//! Policies: what operators want done about which finding. And targets with their limits: what no plan may
//! ever do to them.
//!
//! These are the checked, typed forms, as the genesis commits them; reading them from TOML is the
//! service's business.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{observation::Attributes, plan::OnStale};
use crate::types::{Millis, PublicKey, Quantity, SourceId, TargetId};

/// Which series an indicator reads: those that have all that is named here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Selector {
    /// The posting engine; any when absent.
    pub source: Option<SourceId>,
    /// The metric's exact name.
    pub name: String,
    /// Attributes that the series has, among its own or its resource's.
    pub attributes: Attributes,
}

/// What is computed from one series' summary of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Statistic {
    /// The newest value of a level.
    Last,
    /// The smallest value of a level.
    Min,
    /// The largest value of a level.
    Max,
    /// The mean value of a level or of a distribution's new values.
    Mean,
    /// By how much a rising sum rose, or how many values a distribution gained.
    Increase,
    /// What half of a distribution's new values do not exceed.
    P50,
    /// What nine tenths of them do not exceed.
    P90,
    /// What all but a hundredth of them do not exceed.
    P99,
}

impl Statistic {
    /// Every statistic, in order.
    pub const ALL: [Self; 8] =
        [Self::Last, Self::Min, Self::Max, Self::Mean, Self::Increase, Self::P50, Self::P90, Self::P99];

    /// Of a quantile, which share of the values does not exceed it, in thousandths.
    #[must_use]
    pub const fn quantile(self) -> Option<u64> {
        match self {
            Self::P50 => Some(500),
            Self::P90 => Some(900),
            Self::P99 => Some(990),
            Self::Last | Self::Min | Self::Max | Self::Mean | Self::Increase => None,
        }
    }
}

/// How several matching series become one value, within one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Combine {
    /// Their sum (for means and quantiles: the one over all their values).
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

/// One number per report and window, which is then merged over the reports.
///
/// It is computed within each report first: a sum or a mean of separately merged parts could be a value
/// that no replica saw.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Indicator {
    /// Which series.
    pub selector: Selector,
    /// What of each.
    pub statistic: Statistic,
    /// And of all of them.
    pub combine: Combine,
}

/// On which side of a threshold the symptom lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Side {
    /// The symptom is a value at or above the threshold.
    Above,
    /// The symptom is a value at or below the threshold.
    Below,
}

/// When a policy's symptom is there.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Condition {
    /// The indicator reaches `enter` and stays for `hold`; the symptom ends past `leave`.
    Threshold {
        /// On which side the symptom lies.
        side: Side,
        /// Where the symptom begins.
        enter: Quantity,
        /// Where it ends; at or on the healthy side of `enter`.
        leave: Quantity,
        /// How long the value must have been past `enter` without a break; zero acts at once.
        hold: Millis,
    },
    /// The indicator has no samples for this many thousandths of its learned interval (usually 1,500).
    Absence {
        /// Thousandths of the learned interval.
        after_milli_intervals: u32,
    },
    /// What flowed in (the indicator's series) less what flowed out is not by how much the stock changed. It raises
    /// findings about its source and has no action.
    Conservation {
        /// The rising sums of what flowed out.
        outflow: Selector,
        /// The levels of what is there.
        stock: Selector,
        /// How much may be missing or too much.
        tolerance: Quantity,
        /// Over which span all of it is added up.
        over: Millis,
    },
    /// The indicator counts the jobs that arrive, and what is found is how many slots they ask for.
    Capacity(Box<Capacity>),
}

impl Condition {
    /// What it reads beside the policy's own indicator.
    #[must_use]
    pub fn further_indicators(&self) -> Vec<&Indicator> {
        match self {
            Self::Threshold { .. } | Self::Absence { .. } | Self::Conservation { .. } => Vec::new(),
            Self::Capacity(capacity) => vec![&capacity.work, &capacity.completions, &capacity.backlog],
        }
    }
}

/// A model of how many slots a load asks for (rules C1 to C7 in [`crate::analyze`]).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Capacity {
    /// How long the finished jobs were worked on, in seconds, as an increase.
    pub work: Indicator,
    /// How many jobs were finished, as an increase.
    pub completions: Indicator,
    /// How many jobs wait.
    pub backlog: Indicator,
    /// Which share of the slots' time is to be work, in thousandths.
    pub utilization_milli: u32,
    /// Within which time the backlog is to be gone.
    pub drain: Millis,
    /// How long a new slot takes to work: so far ahead the load is forecast.
    pub lead: Millis,
    /// How long a change of the load takes to be believed, beyond its window.
    pub smooth: Millis,
    /// How long the highest recommendation holds before there may be fewer slots.
    pub keep: Millis,
}

/// How a policy's action changes its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Change {
    /// Adds slots to a pool (takes them away when negative), within the target's limits.
    AddSlots(i32),
    /// Gives a pool exactly so many slots.
    SetSlots(u32),
    /// Stops the target from starting new work.
    Pause,
    /// Lets it start new work again.
    Resume,
    /// Tells tasks that failed since the last retry to run again.
    Retry,
    /// Gives a pool as many slots as the condition's capacity model found, within the target's limits.
    Scale,
}

/// How much harm an action can do when it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Risk {
    /// Easily undone and bounded by the target's limits.
    Low,
    /// Needs care.
    Medium,
    /// Can stop production.
    High,
}

/// Whether a policy's plans are made or only told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Mode {
    /// What it would do is derived and reported as advice. It never makes a plan.
    #[default]
    Shadow,
    /// It makes plans.
    Act,
}

/// Whether a policy may move its target's number in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Way {
    /// It may.
    #[default]
    Open,
    /// Operators have paused it.
    Paused,
}

/// What holds a policy back, beside its target's limits. The default is that of a new policy: in shadow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Controls {
    /// Whether it acts.
    pub mode: Mode,
    /// The most slots that one plan of it may add or take away, where that is less than its target allows.
    pub max_step: Option<u32>,
    /// Whether it may add slots.
    pub up: Way,
    /// Whether it may take slots away.
    pub down: Way,
}

impl Controls {
    /// Of a policy that acts within its target's limits alone.
    pub const ACTING: Self = Self { mode: Mode::Act, max_step: None, up: Way::Open, down: Way::Open };
}

/// What a policy does about its symptom.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Action {
    /// To which target.
    pub target: TargetId,
    /// What.
    pub change: Change,
    /// No further plan of this policy so long after its last one.
    pub cooldown: Millis,
    /// How long a plan may be applied after it was issued.
    pub expiry: Millis,
    /// How much harm it can do.
    pub risk: Risk,
    /// What the agent does with an applied plan when heads grow stale.
    pub on_stale: OnStale,
    /// How long after the application the indicator must be back at `leave` for the plan to have helped.
    pub verify_within: Millis,
    /// What holds it back.
    pub controls: Controls,
}

/// One policy. Without an action it only raises a finding.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Policy {
    /// Its name, unique in the genesis.
    pub name: String,
    /// What it looks at.
    pub indicator: Indicator,
    /// When it acts.
    pub condition: Condition,
    /// What it does.
    pub action: Option<Action>,
}

/// What a target is and the bounds of its absolute state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum TargetKind {
    /// A pool of worker slots.
    Pool {
        /// Slots it has before the first plan.
        initial: u32,
        /// The fewest slots a plan may give it.
        min: u32,
        /// The most slots a plan may give it.
        max: u32,
        /// The most slots one plan may add or take away.
        max_step: u32,
    },
    /// Something that runs or is paused.
    Switch {
        /// Whether it is paused before the first plan.
        initially_paused: bool,
    },
    /// Tasks that can be told to run again after they failed.
    Tasks {
        /// The most tasks that one plan may tell to run again: failed ones, and those that wait for them.
        most: u32,
        /// How long ago they may have failed.
        within: Millis,
    },
}

/// A target with its limits: the invariants that `plan::check` holds every plan against.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Target {
    /// Its name.
    pub id: TargetId,
    /// What it is.
    pub kind: TargetKind,
    /// No plan so long after the last one for this target, whichever policy asks.
    pub cooldown: Millis,
    /// At most so many plans in any 60 minutes of agreed time.
    pub plans_per_hour: u32,
    /// The owner that the target belongs to, by its name in the root: its operators bind agents' keys and lift
    /// anybody's stop.
    pub owner: String,
    /// The first key that is bound to the target: whose receipts count.
    pub agent: PublicKey,
}
