//! What a cluster starts from: its parameters, targets and policies. The first root commits to its digest.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{
    head::SHARD_TARGETS,
    plan::OnStale,
    policy::{
        Action, Change, Combine, Condition, Controls, Indicator, Policy, Side, Statistic, Target, TargetKind,
        Way,
    },
};
use crate::types::{Digest, MAX_DOCUMENT_BYTES, Millis, Quantity, TargetId};

/// The most targets a genesis may have: all shards that a shard's number can name, of 16 bits.
pub const MAX_TARGETS: usize = SHARD_TARGETS << 16;
/// The most policies a genesis may have: each is read from every report of every window, so that with 10,000
/// series and four differing reports this many cost a tenth of a second.
pub const MAX_POLICIES: usize = 256;
/// The most windows that a conservation check adds up: each is remembered in the replicated state. Those of an hour
/// are 360; a replay's rounding makes some more of them.
pub const MAX_CONSERVATION_WINDOWS: u64 = 512;
/// The most plans an hour that a target may allow: one a second, more than any window's length gives.
pub const MAX_PLANS_PER_HOUR: u32 = 3600;
/// The most tasks that one plan may tell to run again: one page of an engine's API, read before and after. More
/// failures at once have a cause that a retry does not mend.
pub const MOST_RETRIES: u32 = 100;
/// A head's line without the target's name: field names, a digest, a sequence number, a mode.
const HEAD_LINE_BYTES: usize = 140;
/// A head without its lines: field names, two digests, numbers.
const HEAD_FRAME_BYTES: usize = 512;
/// After how many heights there is a checkpoint, unless the genesis says otherwise: a restart and a replica that is
/// behind then replay seconds of a busy cluster, and a checkpoint costs little of what so many blocks cost.
pub const CHECKPOINT_INTERVAL: u64 = 256;
/// The longest interval: a day of blocks in a cluster with windows of ten seconds.
const MAX_CHECKPOINT_INTERVAL: u64 = 65_536;
/// How far back plans are remembered. No cooldown may be longer, because nothing would remember its start.
pub const REMEMBERED: Millis = Millis::from_secs(3600);

/// Everything that all replicas must hold equally before the first command.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Genesis {
    /// Times and bounds of the control cycle.
    pub parameters: Parameters,
    /// Targets, sorted by name, each once.
    pub targets: Vec<Target>,
    /// Policies, in the order in which they are tried.
    pub policies: Vec<Policy>,
}

impl Genesis {
    /// The digest that the first root commits to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_value(self)
    }

    /// The target with this name.
    #[must_use]
    pub fn target(&self, id: &TargetId) -> Option<&Target> {
        self.targets.get(self.place(id)?)
    }

    /// The place of the target with this name.
    #[must_use]
    pub fn place(&self, id: &TargetId) -> Option<usize> {
        self.targets.binary_search_by(|target| target.id.cmp(id)).ok()
    }

    /// Every indicator that is read from the reports: those of the policies, in their order, then those that their
    /// conditions read besides, in the same order.
    pub fn indicators(&self) -> impl Iterator<Item = &Indicator> {
        let own = self.policies.iter().map(|policy| &policy.indicator);
        own.chain(self.policies.iter().flat_map(|policy| policy.condition.further_indicators()))
    }

    /// Checks everything that the stages of the control loop rely on.
    ///
    /// # Errors
    /// The first [`GenesisError`], in the order parameters, targets, policies.
    pub fn check(&self) -> Result<(), GenesisError> {
        self.parameters.check()?;
        check_targets(&self.targets)?;
        if self.policies.len() > MAX_POLICIES {
            return Err(GenesisError::TooMany {
                what: "policies",
                got: self.policies.len(),
                most: MAX_POLICIES,
            });
        }
        for (place, policy) in self.policies.iter().enumerate() {
            if policy.name.is_empty() || self.policies[..place].iter().any(|other| other.name == policy.name)
            {
                return Err(GenesisError::PolicyName { name: policy.name.clone() });
            }
            let refused = |why| GenesisError::Policy { name: policy.name.clone(), why };
            check_condition(&policy.condition).map_err(refused)?;
            check_capacity(policy).map_err(refused)?;
            check_conservation(policy, &self.parameters).map_err(refused)?;
            let is_check = |policy: &Policy| matches!(policy.condition, Condition::Conservation { .. });
            if !is_check(policy) && self.policies[..place].last().is_some_and(is_check) {
                return Err(refused("conservation checks stand after all other policies"));
            }
            if let Some(action) = &policy.action {
                let target = self.target(&action.target).ok_or_else(|| GenesisError::UnknownTarget {
                    policy: policy.name.clone(),
                    target: action.target.clone(),
                })?;
                check_action(action, &target.kind).map_err(refused)?;
            }
        }
        Ok(())
    }
}

/// Why a genesis is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// A parameter is out of its bounds.
    #[error("parameters: {0}")]
    Parameters(&'static str),
    /// There are more targets or policies than the loop can carry.
    #[error("{got} {what}; at most {most} are allowed")]
    TooMany {
        /// Targets or policies.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// The limit.
        most: usize,
    },
    /// Targets are not sorted by name, or one stands twice.
    #[error("targets must be sorted by name, each once: {later} stands after {earlier}")]
    TargetOrder {
        /// The target that stands first.
        earlier: TargetId,
        /// The one after it.
        later: TargetId,
    },
    /// A target's limits contradict each other.
    #[error("target {target}: {why}")]
    Target {
        /// Which target.
        target: TargetId,
        /// What is wrong.
        why: &'static str,
    },
    /// A policy has no name, or another has it too.
    #[error("policy {name:?}: a policy's name is not empty and stands only once")]
    PolicyName {
        /// The name.
        name: String,
    },
    /// A policy acts on a target that does not exist.
    #[error("policy {policy:?}: there is no target {target}")]
    UnknownTarget {
        /// Which policy.
        policy: String,
        /// What it names.
        target: TargetId,
    },
    /// A policy's condition or action cannot be.
    #[error("policy {name:?}: {why}")]
    Policy {
        /// Which policy.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
}

fn check_targets(targets: &[Target]) -> Result<(), GenesisError> {
    if targets.len() > MAX_TARGETS {
        return Err(GenesisError::TooMany { what: "targets", got: targets.len(), most: MAX_TARGETS });
    }
    for pair in targets.windows(2) {
        if let [earlier, later] = pair
            && earlier.id >= later.id
        {
            return Err(GenesisError::TargetOrder { earlier: earlier.id.clone(), later: later.id.clone() });
        }
    }
    for shard in targets.chunks(SHARD_TARGETS) {
        let bytes: usize = shard.iter().map(|target| target.id.as_str().len() + HEAD_LINE_BYTES).sum();
        if bytes + HEAD_FRAME_BYTES > MAX_DOCUMENT_BYTES
            && let Some(first) = shard.first()
        {
            let why = "the names from here on are too long for one head of 64 KiB";
            return Err(GenesisError::Target { target: first.id.clone(), why });
        }
    }
    for target in targets {
        let refused = |why| Err(GenesisError::Target { target: target.id.clone(), why });
        match target.kind {
            TargetKind::Pool { initial, min, max, .. } if !(min..=max).contains(&initial) => {
                return refused("min <= initial <= max must hold");
            }
            TargetKind::Pool { max_step: 0, .. } => return refused("max_step must be at least 1"),
            TargetKind::Tasks { most, within }
                if !(1..=MOST_RETRIES).contains(&most) || within == Millis::ZERO =>
            {
                return refused("most must be from 1 to 100, and within more than nothing");
            }
            TargetKind::Pool { .. } | TargetKind::Switch { .. } | TargetKind::Tasks { .. } => {}
        }
        if !(1..=MAX_PLANS_PER_HOUR).contains(&target.plans_per_hour) {
            return refused("plans_per_hour must be 1 to 3600");
        }
        if target.cooldown > REMEMBERED {
            return refused("cooldown must be at most 1 hour");
        }
        if target.owner.is_empty() {
            return refused("it belongs to no owner");
        }
    }
    Ok(())
}

fn check_condition(condition: &Condition) -> Result<(), &'static str> {
    match condition {
        Condition::Threshold { side: Side::Above, enter, leave, .. } if leave > enter => {
            Err("leave must be at most enter, because the symptom is above")
        }
        Condition::Threshold { side: Side::Below, enter, leave, .. } if leave < enter => {
            Err("leave must be at least enter, because the symptom is below")
        }
        Condition::Absence { after_milli_intervals } if *after_milli_intervals < 1000 => {
            Err("absence must be at least 1 interval (1000 thousandths)")
        }
        Condition::Capacity(capacity) if !(1..=1000).contains(&capacity.utilization_milli) => {
            Err("utilization must be more than 0 and at most 1")
        }
        Condition::Capacity(capacity) if capacity.drain == Millis::ZERO => {
            Err("drain must be more than nothing: no pool empties a queue at once")
        }
        Condition::Capacity(capacity)
            if [capacity.drain, capacity.lead, capacity.smooth, capacity.keep].iter().max()
                > Some(&REMEMBERED) =>
        {
            Err("drain, lead, smooth and keep are at most 1 hour")
        }
        Condition::Threshold { .. }
        | Condition::Absence { .. }
        | Condition::Conservation { .. }
        | Condition::Capacity(_) => Ok(()),
    }
}

/// A capacity model counts arrivals, and only scaling can follow from it; nothing else says how far to scale.
///
/// # Errors
/// What does not go together.
pub fn check_capacity(policy: &Policy) -> Result<(), &'static str> {
    let is_model = matches!(policy.condition, Condition::Capacity(_));
    if is_model && policy.indicator.statistic != Statistic::Increase {
        return Err("a capacity model counts arrivals: the statistic must be increase");
    }
    match policy.action.as_ref().map(|action| action.change) {
        Some(Change::Scale) if !is_model => Err("scale needs a capacity model as its condition"),
        Some(Change::AddSlots(_) | Change::SetSlots(_) | Change::Pause | Change::Resume | Change::Retry)
            if is_model =>
        {
            Err("only scale can follow from a capacity model")
        }
        Some(_) | None => Ok(()),
    }
}

/// What a conservation check needs besides its condition's own bounds.
fn check_conservation(policy: &Policy, parameters: &Parameters) -> Result<(), &'static str> {
    let Condition::Conservation { outflow, stock, tolerance, over } = &policy.condition else {
        return Ok(());
    };
    let Indicator { selector: inflow, statistic, combine } = &policy.indicator;
    if (*statistic, *combine) != (Statistic::Increase, Combine::Sum) {
        return Err("the indicator of a conservation check is the sum of increases");
    }
    if inflow.source.is_none() || [outflow, stock].iter().any(|part| part.source != inflow.source) {
        return Err("a conservation check is over the series of one source");
    }
    if policy.action.is_some() {
        return Err("a conservation check has no action: it cannot say what is wrong");
    }
    if *tolerance < Quantity::ZERO {
        return Err("tolerance must not be below zero");
    }
    let longest = parameters.window.times(MAX_CONSERVATION_WINDOWS);
    if *over < parameters.window || *over > longest {
        return Err("over must be 1 to 512 windows");
    }
    Ok(())
}

fn check_controls(controls: &Controls, kind: &TargetKind) -> Result<(), &'static str> {
    let moves_no_number =
        matches!(controls, Controls { max_step: None, up: Way::Open, down: Way::Open, mode: _ });
    match kind {
        TargetKind::Pool { .. } if controls.max_step == Some(0) => {
            Err("the policy's max_step must be at least 1; pause both directions instead")
        }
        TargetKind::Pool { .. } => Ok(()),
        TargetKind::Switch { .. } | TargetKind::Tasks { .. } if moves_no_number => Ok(()),
        TargetKind::Switch { .. } | TargetKind::Tasks { .. } => {
            Err("max_step, up and down are of slots, and the target is no pool")
        }
    }
}

fn check_action(action: &Action, kind: &TargetKind) -> Result<(), &'static str> {
    if action.cooldown > REMEMBERED {
        return Err("cooldown must be at most 1 hour");
    }
    if action.expiry == Millis::ZERO {
        return Err("expiry must not be zero");
    }
    check_controls(&action.controls, kind)?;
    match (action.change, kind) {
        (Change::AddSlots(0), TargetKind::Pool { .. }) => Err("adding no slots changes nothing"),
        (Change::SetSlots(slots), TargetKind::Pool { min, max, .. }) if !(*min..=*max).contains(&slots) => {
            Err("set_slots lies outside the target's min and max")
        }
        (Change::AddSlots(_) | Change::SetSlots(_) | Change::Scale, TargetKind::Pool { .. })
        | (Change::Pause | Change::Resume, TargetKind::Switch { .. }) => Ok(()),
        (Change::Retry, TargetKind::Tasks { .. }) if action.on_stale == OnStale::Rollback => {
            Err("a retry cannot be taken back, so on_stale must be hold")
        }
        (Change::Retry, TargetKind::Tasks { .. }) => Ok(()),
        (
            Change::AddSlots(_) | Change::SetSlots(_) | Change::Scale,
            TargetKind::Switch { .. } | TargetKind::Tasks { .. },
        ) => Err("only a pool has slots, and the target is none"),
        (Change::Pause | Change::Resume, TargetKind::Pool { .. } | TargetKind::Tasks { .. }) => {
            Err("only a switch is paused or resumed, and the target is none")
        }
        (Change::Retry, TargetKind::Pool { .. } | TargetKind::Switch { .. }) => {
            Err("only tasks are retried, and the target is a pool or a switch")
        }
    }
}

/// Times and bounds of the control cycle. The defaults and their reasons: `quorate config example`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Parameters {
    /// A window's length, which is also the reports' cadence.
    pub window: Millis,
    /// How long after a window's close its report waits for late samples.
    pub grace: Millis,
    /// How long after close + grace a quorum of reports waits for the missing ones.
    pub settle: Millis,
    /// How long after its close a window is final at the latest.
    pub deadline: Millis,
    /// How long after its issue a certified plan may still be logged.
    pub activation_limit: Millis,
    /// How often every shard's head is derived anew, even when nothing changed.
    pub head_slot: Millis,
    /// When an agent calls a head stale.
    pub stale_after: Millis,
    /// The longest that one reading of a series may hold.
    pub longest_hold: Millis,
    /// The most series that one report may carry.
    pub series_limit: u32,
    /// After how many heights the replicas certify their state and drop what is older than two such checkpoints.
    pub checkpoint_interval: u64,
}

impl Parameters {
    /// The default times for a window of this length.
    #[must_use]
    pub const fn for_window(window: Millis) -> Self {
        let millis = window.as_millis();
        let grace = millis / 5;
        let settle = millis * 3 / 10;
        let three_windows = millis * 3;
        let other = grace + settle + 2 * millis;
        Self {
            window,
            grace: Millis::new(grace),
            settle: Millis::new(settle),
            deadline: Millis::new(if three_windows > other { three_windows } else { other }),
            activation_limit: Millis::new(if 2 * millis > 10_000 { 2 * millis } else { 10_000 }),
            head_slot: window,
            stale_after: Millis::new(three_windows),
            longest_hold: Millis::new(millis * 9),
            series_limit: 10_000,
            checkpoint_interval: CHECKPOINT_INTERVAL,
        }
    }

    /// Checks the times against each other.
    ///
    /// # Errors
    /// [`GenesisError::Parameters`] names the bound that does not hold.
    pub fn check(&self) -> Result<(), GenesisError> {
        let finality = self.grace.plus(self.settle);
        let bounds = [
            (self.window > Millis::ZERO, "window must not be zero"),
            (self.grace <= self.window, "grace must be at most one window"),
            (
                self.deadline >= finality.plus(self.window),
                "deadline must be at least grace + settle + window",
            ),
            (self.activation_limit >= self.window, "activation_limit must be at least one window"),
            (self.head_slot >= self.window, "head_slot must be at least one window"),
            (self.head_slot.times(3) <= self.stale_after, "head_slot must be at most a third of stale_after"),
            (self.longest_hold >= self.window, "longest_hold must be at least one window"),
            (self.series_limit > 0, "series_limit must not be zero"),
            (
                (1..=MAX_CHECKPOINT_INTERVAL).contains(&self.checkpoint_interval),
                "checkpoint_interval must be from 1 to 65536",
            ),
        ];
        match bounds.iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(GenesisError::Parameters(why)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
