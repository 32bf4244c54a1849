//! `quorate plan explain`: what a cycle saw and what each policy made of it, in words.
//!
//! Everything it says is read from the bundle or computed from it. Invariant: each policy has its lines, whether it acted or
//! not.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use super::{
    super::{ExitCode, Failure, output::Output, utc::Utc},
    source::Gathered,
};
use crate::{
    knowledge::{
        finding::Finding,
        plan::{Limits, Plan},
        policy::{Combine, Condition, Indicator, Policy, Side, Statistic},
        snapshot::{Finality, Reading, Snapshot, TargetState},
    },
    plan::{Decision, check},
    types::{Cycle, Digest, Millis, TargetId, UnixMillis, WindowIndex},
};

pub(super) fn run(gathered: &Gathered, output: Output) -> Result<ExitCode, Failure> {
    let (snapshot, findings) = (gathered.bundle.snapshot(), gathered.bundle.findings());
    let planned = gathered.bundle.replay();
    output.event(&CycleAccount::of(&snapshot, gathered.bundle.digest()))?;
    let reports = planned.report.policies.iter();
    for (place, (policy, report)) in snapshot.genesis.policies.iter().zip(reports).enumerate() {
        output.event(&PolicyAccount::of(place, policy, &report.decision, &snapshot, findings))?;
    }
    for plan in &planned.plans {
        output.event(&PlanAccount::of(plan, &snapshot, gathered.certified.as_deref()))?;
    }
    Ok(ExitCode::Done)
}

/// What the cycle is about.
#[derive(Debug, Serialize)]
struct CycleAccount {
    event: &'static str,
    cycle: Cycle,
    window: WindowIndex,
    closes_at: UnixMillis,
    agreed_time: UnixMillis,
    confirmed: bool,
    /// Whose reports were logged.
    reporters: Vec<String>,
    /// Those of them that missed a part of the window: they did not count.
    partial: Vec<String>,
    evidence: Digest,
}

impl CycleAccount {
    fn of(snapshot: &Snapshot<'_>, evidence: Digest) -> Self {
        let of_kind = |partial: bool| {
            let of_kind = snapshot.reporters.iter().filter(move |(_, is_partial)| *is_partial == partial);
            of_kind.map(|(place, _)| place.to_string()).collect()
        };
        Self {
            event: "cycle",
            cycle: snapshot.cycle,
            window: snapshot.window,
            closes_at: snapshot.window.close(snapshot.genesis.parameters.window),
            agreed_time: snapshot.now,
            confirmed: snapshot.finality == Finality::Confirmed,
            reporters: of_kind(false),
            partial: of_kind(true),
            evidence,
        }
    }
}

impl fmt::Display for CycleAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let confirmed = if self.confirmed { "confirmed by a quorum" } else { "not confirmed by a quorum" };
        writeln!(f, "cycle {}: window {}, {confirmed}", self.cycle, self.window)?;
        writeln!(f, "  until      {}", Utc(self.closes_at))?;
        writeln!(f, "  decided    {} of agreed time", Utc(self.agreed_time))?;
        write!(f, "  reported   {}", self.reporters.join(" "))?;
        if !self.partial.is_empty() {
            write!(f, "; in part, and so not counted: {}", self.partial.join(" "))?;
        }
        write!(f, "\n  evidence   {}", self.evidence)
    }
}

/// What one policy read, found and did.
#[derive(Debug, Serialize)]
struct PolicyAccount {
    event: &'static str,
    policy: String,
    reads: String,
    condition: String,
    saw: String,
    findings: Vec<String>,
    decision: Decision,
    account: String,
}

impl PolicyAccount {
    fn of(
        place: usize,
        policy: &Policy,
        decision: &Decision,
        snapshot: &Snapshot<'_>,
        findings: &[Finding],
    ) -> Self {
        let own = findings.iter().filter(|finding| finding.policy.as_deref() == Some(policy.name.as_str()));
        Self {
            event: "policy",
            policy: policy.name.clone(),
            reads: reads(&policy.indicator),
            condition: condition(&policy.condition),
            saw: snapshot.readings.get(place).map_or_else(|| "nothing".to_owned(), saw),
            findings: own.map(|finding| found(finding, snapshot.window)).collect(),
            decision: decision.clone(),
            account: decision.to_string(),
        }
    }
}

impl fmt::Display for PolicyAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy {}: {}", self.policy, self.account)?;
        writeln!(f, "  reads      {}", self.reads)?;
        writeln!(f, "  when       {}", self.condition)?;
        write!(f, "  saw        {}", self.saw)?;
        for finding in &self.findings {
            write!(f, "\n  found      {finding}")?;
        }
        Ok(())
    }
}

/// A plan of the cycle with what bounds it.
#[derive(Debug, Serialize)]
struct PlanAccount {
    event: &'static str,
    target: TargetId,
    change: String,
    digest: Digest,
    /// `None` where there is no plan to compare with.
    equals_the_certified: Option<bool>,
    limits: String,
    history: String,
    checker: Vec<String>,
}

impl PlanAccount {
    fn of(plan: &Plan, snapshot: &Snapshot<'_>, certified: Option<&[u8]>) -> Self {
        let body = plan.to_bytes();
        let target = snapshot.genesis.target(&plan.target);
        let rests = target.map_or(String::new(), |target| {
            format!(", {} plans an hour, {} apart", target.plans_per_hour, span(target.cooldown))
        });
        Self {
            event: "plan",
            target: plan.target.clone(),
            change: format!(
                "{} -> {}, taken back to {}",
                plan.preconditions.state, plan.desired, plan.rollback
            ),
            digest: Digest::of(&body),
            equals_the_certified: certified.map(|certified| certified == body),
            limits: limits(plan.limits) + &rests,
            history: snapshot.targets.get(&plan.target).map_or(String::new(), history),
            checker: match check(plan, snapshot) {
                Ok(()) => Vec::new(),
                Err(violations) => violations.iter().map(ToString::to_string).collect(),
            },
        }
    }
}

impl fmt::Display for PlanAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan for {}: {}", self.target, self.change)?;
        writeln!(f, "  limits     {}", self.limits)?;
        writeln!(f, "  before     {}", self.history)?;
        let checker = self.checker.join(", ");
        writeln!(f, "  checker    {}", if checker.is_empty() { "breaks no invariant" } else { &checker })?;
        write!(f, "  digest     {}", self.digest)?;
        match self.equals_the_certified {
            Some(true) => f.write_str(", the plan that is served"),
            Some(false) => f.write_str(", which is NOT the plan that is served"),
            None => Ok(()),
        }
    }
}

fn reads(indicator: &Indicator) -> String {
    let statistic = match indicator.statistic {
        Statistic::Last => "newest value",
        Statistic::Min => "smallest value",
        Statistic::Max => "largest value",
        Statistic::Mean => "mean",
        Statistic::Increase => "increase",
        Statistic::P50 => "median",
        Statistic::P90 => "90 % quantile",
        Statistic::P99 => "99 % quantile",
    };
    let combine = match indicator.combine {
        Combine::Sum => "together",
        Combine::Min => "the smallest of them",
        Combine::Max => "the largest of them",
    };
    let selector = &indicator.selector;
    let source = selector.source.as_ref().map_or(String::new(), |source| format!(" of {source}"));
    let attributes: Vec<String> =
        selector.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let attributes =
        if attributes.is_empty() { String::new() } else { format!("{{{}}}", attributes.join(",")) };
    format!("{statistic} of {}{attributes}{source}, {combine}", selector.name)
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Threshold { side, enter, leave, hold } => {
            let (from, back) = match side {
                Side::Above => ("at least", "down to"),
                Side::Below => ("at most", "up to"),
            };
            let hold = if *hold == Millis::ZERO { String::new() } else { format!(" for {}", span(*hold)) };
            format!("{from} {enter}{hold}, until it is {back} {leave}")
        }
        Condition::Absence { after_milli_intervals } => {
            let (whole, thousandths) = (after_milli_intervals / 1000, after_milli_intervals % 1000);
            format!("silent for {whole}.{thousandths:03} of the learned intervals")
        }
        Condition::Conservation { outflow, stock, tolerance, over } => format!(
            "adds up with {} flowing out and {} there, within {tolerance}, over {}",
            outflow.name,
            stock.name,
            span(*over)
        ),
        Condition::Capacity(capacity) => {
            let (milli, drain) = (capacity.utilization_milli, span(capacity.drain));
            let (whole, thousandths) = (milli / 1000, milli % 1000);
            format!(
                "as many slots as the load asks for at {whole}.{thousandths:03} of their time, and a backlog \
                 gone within {drain}"
            )
        }
    }
}

fn saw(reading: &Reading) -> String {
    match reading {
        Reading::Fresh(value) => value.to_string(),
        Reading::Held { value, since } => format!("{value}, which holds since {}", Utc(*since)),
        Reading::NoSamples { since: None, .. } => "no samples, ever".to_owned(),
        Reading::NoSamples { since: Some(since), learned_interval_ms } => {
            let interval = span(Millis::new(*learned_interval_ms));
            format!("no samples since {}, the learned interval is {interval}", Utc(*since))
        }
        Reading::Unknown => "too few reports that count".to_owned(),
    }
}

fn found(finding: &Finding, window: WindowIndex) -> String {
    let mut words = finding.symptom.as_str().to_owned();
    if let Some(observed) = finding.observed {
        words += &format!(" {observed}");
    }
    if let Some(against) = finding.against {
        words += &format!(" against {against}");
    }
    words += &format!(", since {}", Utc(finding.since));
    if finding.window != window {
        words += &format!(", remembered from window {}", finding.window);
    }
    words
}

fn limits(limits: Limits) -> String {
    match limits {
        Limits::Slots { min, max, max_step } => format!("{min} to {max} slots, at most {max_step} a plan"),
        Limits::Switch {} => "a switch has none".to_owned(),
        Limits::Tasks { most, within } => format!("at most {most} tasks that failed within {}", span(within)),
    }
}

fn history(state: &TargetState) -> String {
    let policies: BTreeSet<&str> = state.recent_plans.iter().map(|(_, policy)| policy.as_str()).collect();
    let policies: Vec<&str> = policies.into_iter().collect();
    match state.recent_plans.last() {
        None => "no plan in the last hour".to_owned(),
        Some((newest, _)) => format!(
            "plans in the last hour: {}, the newest at {}, by {}",
            state.recent_plans.len(),
            Utc(*newest),
            policies.join(", ")
        ),
    }
}

fn span(span: Millis) -> String {
    let millis = span.as_millis();
    if millis.is_multiple_of(1000) { format!("{} s", millis / 1000) } else { format!("{millis} ms") }
}
