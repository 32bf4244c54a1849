//! The policy file: times, targets and policies, as operators write them. It holds no addresses and no secrets.
//! Targets' owners and agents' public keys may stand in it or be given when a cluster is founded. Invariant: a
//! [`PolicyFile`] is one that planning can work with; only owners and agents' keys may be missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use toml::Spanned;

use self::text::{
    CapacityText, CycleText, FileText, OnStaleText, PolicyText, PoolText, SeriesText, SwitchState,
    TargetText, TasksText, ThenText, WhenText,
};
use super::{
    error::{ConfigError, Source, nearest},
    values::{Decimal, SpanText, span_text},
};
use crate::knowledge::{
    genesis::{Genesis, MOST_RETRIES, Parameters, REMEMBERED, check_capacity},
    plan::Measure,
    policy::{
        Action, Capacity, Change, Combine, Condition, Indicator, Policy, Risk, Selector, Side, Statistic,
        Target, TargetKind,
    },
};
use crate::plan::LONGEST_EXPIRY;
use crate::types::{Millis, PublicKey, Quantity, SecretKey, TargetId};

/// The longest name of a metric: OpenTelemetry's own bound for instruments.
const MAX_METRIC_NAME_BYTES: usize = 255;
/// The longest name of an owner: that of other names in documents.
const MAX_OWNER_NAME_BYTES: usize = 128;
/// The longest name of a policy: it stands in findings, logs and the labels of metrics.
const MAX_POLICY_NAME_BYTES: usize = 64;

/// A checked policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    parameters: Parameters,
    targets: Vec<FileTarget>,
    policies: Vec<Policy>,
}

/// A target whose owner and agent's key may not be known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileTarget {
    id: TargetId,
    kind: TargetKind,
    cooldown: Millis,
    plans_per_hour: u32,
    owner: Option<String>,
    agent: Option<PublicKey>,
}

/// What a target lacks to stand in a genesis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncompleteTarget {
    /// An agent's key.
    #[error("target {0} has no agent: no key for it stands in the policy file, and none was given")]
    Agent(TargetId),
    /// An owner.
    #[error("target {0} has no owner: `owner` is missing, the name of one of the root's owners")]
    Owner(TargetId),
}

/// What completes the targets of a policy file. What stands in the file is never replaced.
#[derive(Clone, Debug, Default)]
pub struct Completion {
    /// Agents' keys.
    pub agents: BTreeMap<TargetId, PublicKey>,
    /// The owner of targets that name none.
    pub owner: Option<String>,
}

impl PolicyFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong, and where.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::of_file(&file, format!("cannot be read: {error}")))?;
        Self::parse(&file, &text)
    }

    /// Checks a file's text; `file` is its name in errors.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong, and where.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        source.parse::<FileText>()?.check(source)
    }

    /// Times and bounds of the control cycle.
    #[must_use]
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The policies, in the order in which they are tried.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The targets, in order.
    pub fn targets(&self) -> impl Iterator<Item = &TargetId> {
        self.targets.iter().map(|target| &target.id)
    }

    /// The targets whose agents' keys do not stand in the file.
    pub fn targets_without_agent(&self) -> impl Iterator<Item = &TargetId> {
        self.targets.iter().filter(|target| target.agent.is_none()).map(|target| &target.id)
    }

    /// What an operator should know about the file, though nothing is wrong with it.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let agents = self.targets_without_agent().map(|target| {
            format!("target {target} has no agent's key here; `quorate init` and `quorate dev` make one")
        });
        let policies =
            self.policies.iter().filter_map(|Policy { name, action, condition, .. }| match action {
                None if matches!(condition, Condition::Conservation { .. }) => None,
                None => Some(format!("policy {name} has no action: it only raises findings")),
                Some(action @ Action { risk: Risk::Low, .. }) => controls::note(name, action),
                Some(Action { risk: Risk::Medium | Risk::High, .. }) => {
                    Some(format!("policy {name} never acts: above low risk it needs sources of two owners"))
                }
            });
        agents.chain(policies).collect()
    }

    /// The genesis, with owners and agents' keys for the targets that have none in the file.
    ///
    /// # Errors
    /// [`IncompleteTarget`] names the first target without an owner or a key.
    pub fn genesis(&self, completion: &Completion) -> Result<Genesis, IncompleteTarget> {
        let complete = |target: &FileTarget| {
            let agent = target.agent.or_else(|| completion.agents.get(&target.id).copied());
            let owner = target.owner.clone().or_else(|| completion.owner.clone());
            Ok(Target {
                id: target.id.clone(),
                kind: target.kind,
                cooldown: target.cooldown,
                plans_per_hour: target.plans_per_hour,
                owner: owner.ok_or_else(|| IncompleteTarget::Owner(target.id.clone()))?,
                agent: agent.ok_or_else(|| IncompleteTarget::Agent(target.id.clone()))?,
            })
        };
        Ok(Genesis {
            parameters: self.parameters,
            targets: self.targets.iter().map(complete).collect::<Result<_, _>>()?,
            policies: self.policies.clone(),
        })
    }
}

impl FileText {
    fn check(self, source: Source<'_>) -> Result<PolicyFile, ConfigError> {
        let parameters = check_cycle(self.cycle, source)?;
        let mut targets: Vec<FileTarget> = Vec::new();
        for target in self.target {
            let id = target.get_ref().id.clone();
            if targets.iter().any(|other| other.id == *id.get_ref()) {
                return Err(source.error(id.span(), format!("target {} stands here twice", id.get_ref())));
            }
            targets.push(target.into_inner().check(source)?);
        }
        targets.sort_by(|one, other| one.id.cmp(&other.id));
        let mut names = BTreeSet::new();
        let mut policies = Vec::new();
        for policy in self.policy {
            let policy = policy.into_inner();
            let name = policy.name.clone();
            if !names.insert(name.get_ref().clone()) {
                let message = format!("policy {} stands here twice", name.get_ref());
                return Err(source.error(name.span(), message));
            }
            policies.push(policy.check(&targets, &parameters, source)?);
        }
        for conservation in self.conservation {
            let conservation = conservation.into_inner();
            let name = conservation.name.clone();
            if !names.insert(name.get_ref().clone()) {
                let message = format!("{} is the name of a policy or another check already", name.get_ref());
                return Err(source.error(name.span(), message));
            }
            policies.push(conservation.check(&parameters, source)?);
        }
        let file = PolicyFile { parameters, targets, policies };
        // No limit depends on a key or an owner, so one for all will do here.
        let any_key = SecretKey::from_seed(&[0; 32]).public();
        let completion = Completion {
            agents: file.targets().map(|target| (target.clone(), any_key)).collect(),
            owner: Some("owner".to_owned()),
        };
        let genesis = file
            .genesis(&completion)
            .map_err(|error| ConfigError::of_file(source.file, error.to_string()))?;
        genesis.check().map_err(|error| ConfigError::of_file(source.file, error.to_string()))?;
        Ok(file)
    }
}

fn check_cycle(text: Option<Spanned<CycleText>>, source: Source<'_>) -> Result<Parameters, ConfigError> {
    let Some(text) = text else {
        return Ok(Parameters::for_window(DEFAULT_WINDOW));
    };
    let span = text.span();
    let text = text.into_inner();
    let defaults = Parameters::for_window(text.window.map_or(DEFAULT_WINDOW, |window| window.0));
    let or = |given: Option<SpanText>, default| given.map_or(default, |given| given.0);
    let parameters = Parameters {
        window: defaults.window,
        grace: or(text.grace, defaults.grace),
        settle: or(text.settle, defaults.settle),
        deadline: or(text.deadline, defaults.deadline),
        activation_limit: or(text.activation_limit, defaults.activation_limit),
        head_slot: or(text.head_slot, defaults.head_slot),
        stale_after: or(text.stale_after, defaults.stale_after),
        longest_hold: or(text.longest_hold, defaults.longest_hold),
        series_limit: text.series_limit.unwrap_or(defaults.series_limit),
        checkpoint_interval: text.checkpoint_interval.unwrap_or(defaults.checkpoint_interval),
    };
    match parameters.check() {
        Err(error) => Err(source.error(span, error.to_string())),
        Ok(()) => Ok(parameters),
    }
}

/// A window of ten seconds holds several exports of a fast engine and is a sixth of the SDKs' default.
const DEFAULT_WINDOW: Millis = Millis::from_secs(10);

impl TargetText {
    fn check(self, source: Source<'_>) -> Result<FileTarget, ConfigError> {
        let kind = match (self.pool, self.switch, self.tasks) {
            (Some(pool), None, None) => check_pool(&pool, source)?,
            (None, Some(switch), None) => TargetKind::Switch {
                initially_paused: match switch.initially {
                    SwitchState::Running => false,
                    SwitchState::Paused => true,
                },
            },
            (None, None, Some(tasks)) => {
                let TasksText { most, within: SpanText(within) } = *tasks.get_ref();
                if !(1..=MOST_RETRIES).contains(&most) || within == Millis::ZERO {
                    let message = format!("most is from 1 to {MOST_RETRIES}, and within more than nothing");
                    return Err(source.error(tasks.span(), message));
                }
                TargetKind::Tasks { most, within }
            }
            (_, _, _) => {
                let message = "a target is one of a `pool`, a `switch` and `tasks`";
                return Err(source.error(self.id.span(), message));
            }
        };
        let agent = match self.agent {
            Some(key) => Some(
                PublicKey::from_bytes(key.get_ref().as_bytes())
                    .map_err(|error| source.error(key.span(), format!("agent: {error}")))?,
            ),
            None => None,
        };
        if *self.plans_per_hour.get_ref() == 0 {
            let message = "plans_per_hour must be at least 1; leave the target out to never plan for it";
            return Err(source.error(self.plans_per_hour.span(), message));
        }
        Ok(FileTarget {
            id: self.id.into_inner(),
            kind,
            cooldown: check_cooldown(&self.cooldown, source)?,
            plans_per_hour: self.plans_per_hour.into_inner(),
            owner: check_owner(self.owner, source)?,
            agent,
        })
    }
}

fn check_owner(owner: Option<Spanned<String>>, source: Source<'_>) -> Result<Option<String>, ConfigError> {
    let Some(owner) = owner else { return Ok(None) };
    if !(1..=MAX_OWNER_NAME_BYTES).contains(&owner.get_ref().len()) {
        let message = "`owner` is the name of one of the root's owners: 1 to 128 bytes";
        return Err(source.error(owner.span(), message));
    }
    Ok(Some(owner.into_inner()))
}

fn check_pool(pool: &Spanned<PoolText>, source: Source<'_>) -> Result<TargetKind, ConfigError> {
    let PoolText { initial, min, max, max_step } = *pool.get_ref();
    if !(min..=max).contains(&initial) {
        let message = format!("min <= initial <= max must hold, not {min}, {initial}, {max}");
        return Err(source.error(pool.span(), message));
    }
    if max_step == 0 {
        return Err(source.error(pool.span(), "max_step must be at least 1"));
    }
    Ok(TargetKind::Pool { initial, min, max, max_step })
}

fn check_cooldown(cooldown: &Spanned<SpanText>, source: Source<'_>) -> Result<Millis, ConfigError> {
    let span = cooldown.get_ref().0;
    if span > REMEMBERED {
        return Err(
            source.error(cooldown.span(), "a cooldown is at most 1h: plans are remembered for so long")
        );
    }
    Ok(span)
}

impl PolicyText {
    fn check(
        self,
        targets: &[FileTarget],
        parameters: &Parameters,
        source: Source<'_>,
    ) -> Result<Policy, ConfigError> {
        check_policy_name(&self.name, source)?;
        let whole = self.name.span();
        let policy = Policy {
            indicator: Indicator {
                selector: check_series(self.series, source)?,
                statistic: self.statistic.into(),
                combine: self.combine.into(),
            },
            condition: check_when(self.when, source)?,
            action: self.then.map(|then| check_then(then, targets, parameters, source)).transpose()?,
            name: self.name.into_inner(),
        };
        check_capacity(&policy).map_err(|why| source.error(whole, why))?;
        Ok(policy)
    }
}

fn check_policy_name(name: &Spanned<String>, source: Source<'_>) -> Result<(), ConfigError> {
    let text = name.get_ref();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
    if !(1..=MAX_POLICY_NAME_BYTES).contains(&text.len()) || !text.bytes().all(allowed) {
        let message = "a policy's name has 1 to 64 characters of a-z A-Z 0-9 . _ - / :";
        return Err(source.error(name.span(), message));
    }
    Ok(())
}

fn check_series(series: SeriesText, source: Source<'_>) -> Result<Selector, ConfigError> {
    if !(1..=MAX_METRIC_NAME_BYTES).contains(&series.name.get_ref().len()) {
        return Err(source.error(series.name.span(), "a metric's name has 1 to 255 bytes"));
    }
    let attributes = series.attributes.into_iter().map(|(name, value)| (name, value.0)).collect();
    Ok(Selector { source: series.source, name: series.name.into_inner(), attributes })
}

fn check_model(text: CapacityText, source: Source<'_>) -> Result<Condition, ConfigError> {
    const MILLI: i128 = Quantity::ONE.as_nanos() / 1000;
    let share = text.utilization.get_ref().0.as_nanos();
    let utilization_milli = u32::try_from(share / MILLI).ok().filter(|milli| (1..=1000).contains(milli));
    let (Some(utilization_milli), 0) = (utilization_milli, share % MILLI) else {
        let message = "`utilization` is a share from 0.001 to 1, with at most three decimal places";
        return Err(source.error(text.utilization.span(), message));
    };
    if text.drain.get_ref().0 == Millis::ZERO {
        let message = "`drain` is more than nothing: no pool empties a queue at once";
        return Err(source.error(text.drain.span(), message));
    }
    let smooth = text.smooth.as_ref();
    for span in [Some(&text.drain), Some(&text.lead), smooth, Some(&text.keep)].into_iter().flatten() {
        if span.get_ref().0 > REMEMBERED {
            return Err(source.error(span.span(), "`drain`, `lead`, `smooth` and `keep` are at most 1h"));
        }
    }
    let indicator = |series, statistic| {
        let selector = check_series(series, source)?;
        Ok(Indicator { selector, statistic, combine: Combine::Sum })
    };
    Ok(Condition::Capacity(Box::new(Capacity {
        utilization_milli,
        drain: text.drain.get_ref().0,
        lead: text.lead.get_ref().0,
        smooth: smooth.map_or(Millis::ZERO, |smooth| smooth.get_ref().0),
        keep: text.keep.get_ref().0,
        work: indicator(text.work, Statistic::Increase)?,
        completions: indicator(text.completions, Statistic::Increase)?,
        backlog: indicator(text.backlog, Statistic::Last)?,
    })))
}

fn check_when(when: Spanned<WhenText>, source: Source<'_>) -> Result<Condition, ConfigError> {
    let whole = when.span();
    let text = when.into_inner();
    let (side, enter) = match (text.above, text.below, &text.absent, text.capacity) {
        (Some(enter), None, None, None) => (Side::Above, enter.0),
        (None, Some(enter), None, None) => (Side::Below, enter.0),
        (None, None, None, Some(capacity)) if text.until.is_none() && text.hold.is_none() => {
            return check_model(capacity.into_inner(), source);
        }
        (None, None, None, Some(capacity)) => {
            let message = "a capacity model is found in every window: no `until` and no `for`";
            return Err(source.error(capacity.span(), message));
        }
        (None, None, Some(absent), None) => {
            if let Some(until) = &text.until {
                return Err(source.error(until.span(), "silence ends with the next sample: no `until`"));
            }
            if let Some(hold) = &text.hold {
                let message = "`absent` already says how long: no `for`";
                return Err(source.error(hold.span(), message));
            }
            return check_absent(absent, source);
        }
        (_, _, _, _) => {
            let message = "a condition is one of `above`, `below`, `absent` and `capacity`";
            return Err(source.error(whole, message));
        }
    };
    let Some(until) = &text.until else {
        let message = "`until` is missing: the value at which the symptom ends";
        return Err(source.error(whole, message));
    };
    let leave = until.get_ref().0;
    let apart = match side {
        Side::Above => leave < enter,
        Side::Below => leave > enter,
    };
    if !apart {
        let message = "`until` lies on the healthy side: less than `above`, or more than `below`";
        return Err(source.error(until.span(), message));
    }
    if [enter, leave].iter().any(|bound| Measure::exactly(*bound, "").is_none()) {
        return Err(source.error(whole, "a bound has more digits than a plan can carry (18)"));
    }
    let hold = text.hold.as_ref().map_or(Millis::ZERO, |hold| hold.get_ref().0);
    Ok(Condition::Threshold { side, enter, leave, hold })
}

fn check_absent(absent: &Spanned<Decimal>, source: Source<'_>) -> Result<Condition, ConfigError> {
    const MILLI: i128 = Quantity::ONE.as_nanos() / 1000;
    let nanos = absent.get_ref().0.as_nanos();
    let milli_intervals =
        u32::try_from(nanos / MILLI).ok().filter(|milli| (1000..=1_000_000).contains(milli));
    match milli_intervals {
        Some(after_milli_intervals) if nanos % MILLI == 0 => Ok(Condition::Absence { after_milli_intervals }),
        Some(_) | None => {
            let message = "`absent` counts learned intervals: 1 to 1000, with at most three decimal places";
            Err(source.error(absent.span(), message))
        }
    }
}

fn check_then(
    then: Spanned<ThenText>,
    targets: &[FileTarget],
    parameters: &Parameters,
    source: Source<'_>,
) -> Result<Action, ConfigError> {
    let whole = then.span();
    let then = then.into_inner();
    let id = then.target.get_ref();
    let Some(target) = targets.iter().find(|target| target.id == *id) else {
        let known = targets.iter().map(|target| target.id.as_str());
        let hint =
            nearest(id.as_str(), known).map_or(String::new(), |near| format!("; did you mean {near}?"));
        return Err(source.error(then.target.span(), format!("there is no target {id}{hint}")));
    };
    let change = check_change(&then, target, whole, source)?;
    let expiry = then.expiry.as_ref().map_or(DEFAULT_EXPIRY, |expiry| expiry.get_ref().0);
    if !(parameters.activation_limit..=LONGEST_EXPIRY).contains(&expiry) {
        let place = then.expiry.as_ref().map_or_else(|| then.target.span(), Spanned::span);
        let limit = span_text(parameters.activation_limit);
        let message = format!("expiry must be at least activation_limit ({limit}) and at most 24h");
        return Err(source.error(place, message));
    }
    let verify_within = then.verify_within.as_ref().map_or(expiry, |within| within.get_ref().0);
    if verify_within == Millis::ZERO {
        let place = then.verify_within.as_ref().map_or_else(|| then.target.span(), Spanned::span);
        return Err(source.error(place, "verify_within must be more than nothing"));
    }
    let controls = controls::check_controls(&then, change, target.kind, source)?;
    Ok(Action {
        controls,
        cooldown: check_cooldown(&then.cooldown, source)?,
        change,
        expiry,
        risk: then.risk.into(),
        on_stale: then.on_stale.into(),
        verify_within,
        target: then.target.into_inner(),
    })
}

/// As long as an operator may need to notice; a plan that was not applied by then is no longer wanted.
const DEFAULT_EXPIRY: Millis = Millis::from_secs(15 * 60);

fn check_change(
    then: &ThenText,
    target: &FileTarget,
    whole: std::ops::Range<usize>,
    source: Source<'_>,
) -> Result<Change, ConfigError> {
    let stated = |flag: &Option<Spanned<bool>>, change| match flag {
        Some(flag) if *flag.get_ref() => Ok(Some((change, flag.span()))),
        Some(flag) => Err(source.error(flag.span(), "leave it out instead of saying false")),
        None => Ok(None),
    };
    let changes = [
        then.add_slots.as_ref().map(|slots| (Change::AddSlots(*slots.get_ref()), slots.span())),
        then.set_slots.as_ref().map(|slots| (Change::SetSlots(*slots.get_ref()), slots.span())),
        stated(&then.pause, Change::Pause)?,
        stated(&then.resume, Change::Resume)?,
        stated(&then.retry, Change::Retry)?,
        stated(&then.scale, Change::Scale)?,
    ];
    let mut stated = changes.into_iter().flatten();
    let (Some((change, span)), None) = (stated.next(), stated.next()) else {
        let message = "an action is one of `add_slots`, `set_slots`, `pause = true`, `resume = true`, \
                       `retry = true` and `scale = true`";
        return Err(source.error(whole, message));
    };
    let refused = match (change, target.kind) {
        (Change::AddSlots(0), TargetKind::Pool { .. }) => Some("adding no slots changes nothing".to_owned()),
        (Change::AddSlots(slots), TargetKind::Pool { max_step, .. }) if slots.unsigned_abs() > max_step => {
            Some(format!("one plan may move {} by at most {max_step} slots", target.id))
        }
        (Change::SetSlots(slots), TargetKind::Pool { min, max, .. }) if !(min..=max).contains(&slots) => {
            Some(format!("{} may have {min} to {max} slots", target.id))
        }
        (Change::AddSlots(_) | Change::SetSlots(_) | Change::Scale, TargetKind::Pool { .. })
        | (Change::Pause | Change::Resume, TargetKind::Switch { .. }) => None,
        (Change::Retry, TargetKind::Tasks { .. }) => match then.on_stale {
            OnStaleText::Hold => None,
            OnStaleText::Rollback => {
                Some("a retry cannot be taken back: on_stale must be \"hold\"".to_owned())
            }
        },
        (Change::AddSlots(_) | Change::SetSlots(_) | Change::Scale, TargetKind::Switch { .. }) => {
            Some(format!("{} is a switch and has no slots", target.id))
        }
        (Change::AddSlots(_) | Change::SetSlots(_) | Change::Scale, TargetKind::Tasks { .. }) => {
            Some(format!("{} are tasks and have no slots", target.id))
        }
        (Change::Pause | Change::Resume, TargetKind::Pool { .. }) => {
            Some(format!("{} is a pool and cannot be paused or resumed", target.id))
        }
        (Change::Pause | Change::Resume, TargetKind::Tasks { .. }) => {
            Some(format!("{} are tasks and cannot be paused or resumed", target.id))
        }
        (Change::Retry, TargetKind::Pool { .. } | TargetKind::Switch { .. }) => {
            Some(format!("{} has no tasks to retry", target.id))
        }
    };
    refused.map_or(Ok(change), |message| Err(source.error(span, message)))
}

mod conservation;
mod controls;
#[cfg(test)]
mod tests;
mod text;
