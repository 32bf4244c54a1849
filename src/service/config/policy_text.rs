//! A genesis as the text of a policy file: what a founded cluster keeps beside its root, for people to read and
//! for replicas to load. Invariant: reading the text gives the genesis back, bit for bit.

use std::fmt::Write as _;

use super::values::span_text;
use crate::knowledge::{
    genesis::Genesis,
    observation::AttributeValue,
    plan::OnStale,
    policy::{
        Action, Capacity, Change, Combine, Condition, Controls, Mode, Policy, Risk, Selector, Side,
        Statistic, Target, TargetKind, Way,
    },
};
use crate::types::{Millis, Quantity};

/// The text of a policy file that gives this genesis.
#[must_use]
pub fn policy_text(genesis: &Genesis) -> String {
    let mut lines = Lines::default();
    let parameters = &genesis.parameters;
    lines.put("[cycle]");
    for (name, span) in [
        ("window", parameters.window),
        ("grace", parameters.grace),
        ("settle", parameters.settle),
        ("deadline", parameters.deadline),
        ("activation_limit", parameters.activation_limit),
        ("head_slot", parameters.head_slot),
        ("stale_after", parameters.stale_after),
        ("longest_hold", parameters.longest_hold),
    ] {
        lines.put(format_args!("{name} = \"{}\"", span_text(span)));
    }
    lines.put(format_args!("series_limit = {}", parameters.series_limit));
    lines.put(format_args!("checkpoint_interval = {}", parameters.checkpoint_interval));
    for target in &genesis.targets {
        put_target(&mut lines, target);
    }
    for policy in &genesis.policies {
        put_policy(&mut lines, policy);
    }
    lines.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn put(&mut self, line: impl std::fmt::Display) {
        writeln!(self.0, "{line}").expect("writing to memory does not fail");
    }
}

fn put_target(lines: &mut Lines, target: &Target) {
    lines.put("\n[[target]]");
    lines.put(format_args!("id = \"{}\"", target.id));
    match target.kind {
        TargetKind::Pool { initial, min, max, max_step } => lines.put(format_args!(
            "pool = {{ initial = {initial}, min = {min}, max = {max}, max_step = {max_step} }}"
        )),
        TargetKind::Switch { initially_paused } => {
            let state = if initially_paused { "paused" } else { "running" };
            lines.put(format_args!("switch = {{ initially = \"{state}\" }}"));
        }
        TargetKind::Tasks { most, within } => {
            lines.put(format_args!("tasks = {{ most = {most}, within = \"{}\" }}", span_text(within)));
        }
    }
    lines.put(format_args!("cooldown = \"{}\"", span_text(target.cooldown)));
    lines.put(format_args!("plans_per_hour = {}", target.plans_per_hour));
    lines.put(format_args!("owner = {}", quoted(&target.owner)));
    lines.put(format_args!("agent = \"{}\"", crate::types::Digest::from_bytes(target.agent.to_bytes())));
}

/// A series' name and attributes.
fn series(selector: &Selector) -> String {
    let attributes = selector.attributes.iter();
    let attributes: Vec<String> =
        attributes.map(|(name, value)| format!("{} = {}", quoted(name), attribute(value))).collect();
    format!("name = {}, attributes = {{ {} }}", quoted(&selector.name), attributes.join(", "))
}

/// A series as a policy names it: its source as well.
fn sourced_series(selector: &Selector) -> String {
    let source = selector.source.as_ref().map_or(String::new(), |source| format!("source = \"{source}\", "));
    format!("{{ {source}{} }}", series(selector))
}

fn put_conservation(
    lines: &mut Lines,
    policy: &Policy,
    [outflow, stock]: [&Selector; 2],
    tolerance: Quantity,
    over: Millis,
) {
    let inflow = &policy.indicator.selector;
    lines.put("\n[[conservation]]");
    lines.put(format_args!("name = {}", quoted(&policy.name)));
    if let Some(source) = &inflow.source {
        lines.put(format_args!("source = \"{source}\""));
    }
    for (term, selector) in [("inflow", inflow), ("outflow", outflow), ("stock", stock)] {
        lines.put(format_args!("{term} = {{ {} }}", series(selector)));
    }
    lines.put(format_args!("tolerance = \"{tolerance}\""));
    lines.put(format_args!("over = \"{}\"", span_text(over)));
}

fn put_policy(lines: &mut Lines, policy: &Policy) {
    let indicator = &policy.indicator;
    if let Condition::Conservation { outflow, stock, tolerance, over } = &policy.condition {
        return put_conservation(lines, policy, [outflow, stock], *tolerance, *over);
    }
    lines.put("\n[[policy]]");
    lines.put(format_args!("name = {}", quoted(&policy.name)));
    lines.put(format_args!("series = {}", sourced_series(&indicator.selector)));
    let statistic = match indicator.statistic {
        Statistic::Last => "last",
        Statistic::Min => "min",
        Statistic::Max => "max",
        Statistic::Mean => "mean",
        Statistic::Increase => "increase",
        Statistic::P50 => "p50",
        Statistic::P90 => "p90",
        Statistic::P99 => "p99",
    };
    let combine = match indicator.combine {
        Combine::Sum => "sum",
        Combine::Min => "min",
        Combine::Max => "max",
    };
    lines.put(format_args!("statistic = \"{statistic}\""));
    lines.put(format_args!("combine = \"{combine}\""));
    match &policy.condition {
        Condition::Threshold { side, enter, leave, hold } => {
            let side = match side {
                Side::Above => "above",
                Side::Below => "below",
            };
            let hold = span_text(*hold);
            lines.put(format_args!(
                "when = {{ {side} = \"{enter}\", until = \"{leave}\", for = \"{hold}\" }}"
            ));
        }
        Condition::Absence { after_milli_intervals } => {
            let intervals = Quantity::from_nanos(i128::from(*after_milli_intervals) * 1_000_000);
            lines.put(format_args!("when = {{ absent = \"{intervals}\" }}"));
        }
        Condition::Capacity(capacity) => put_capacity(lines, capacity),
        // It stands in a table of its own.
        Condition::Conservation { .. } => {}
    }
    if let Some(action) = &policy.action {
        put_action(lines, action);
    }
}

fn put_capacity(lines: &mut Lines, capacity: &Capacity) {
    lines.put("[policy.when.capacity]");
    for (name, indicator) in
        [("work", &capacity.work), ("completions", &capacity.completions), ("backlog", &capacity.backlog)]
    {
        lines.put(format_args!("{name} = {}", sourced_series(&indicator.selector)));
    }
    let utilization = Quantity::from_nanos(i128::from(capacity.utilization_milli) * 1_000_000);
    lines.put(format_args!("utilization = \"{utilization}\""));
    for (name, span) in [
        ("drain", capacity.drain),
        ("lead", capacity.lead),
        ("smooth", capacity.smooth),
        ("keep", capacity.keep),
    ] {
        lines.put(format_args!("{name} = \"{}\"", span_text(span)));
    }
}

fn put_action(lines: &mut Lines, action: &Action) {
    lines.put("[policy.then]");
    lines.put(format_args!("target = \"{}\"", action.target));
    match action.change {
        Change::AddSlots(slots) => lines.put(format_args!("add_slots = {slots}")),
        Change::SetSlots(slots) => lines.put(format_args!("set_slots = {slots}")),
        Change::Pause => lines.put("pause = true"),
        Change::Resume => lines.put("resume = true"),
        Change::Retry => lines.put("retry = true"),
        Change::Scale => lines.put("scale = true"),
    }
    let risk = match action.risk {
        Risk::Low => "low",
        Risk::Medium => "medium",
        Risk::High => "high",
    };
    let on_stale = match action.on_stale {
        OnStale::Hold => "hold",
        OnStale::Rollback => "rollback",
    };
    lines.put(format_args!("cooldown = \"{}\"", span_text(action.cooldown)));
    lines.put(format_args!("expiry = \"{}\"", span_text(action.expiry)));
    lines.put(format_args!("risk = \"{risk}\""));
    lines.put(format_args!("on_stale = \"{on_stale}\""));
    lines.put(format_args!("verify_within = \"{}\"", span_text(action.verify_within)));
    put_controls(lines, &action.controls);
}

fn put_controls(lines: &mut Lines, controls: &Controls) {
    let mode = match controls.mode {
        Mode::Shadow => "shadow",
        Mode::Act => "act",
    };
    lines.put(format_args!("mode = \"{mode}\""));
    if let Some(most) = controls.max_step {
        lines.put(format_args!("max_step = {most}"));
    }
    for (name, way) in [("up", controls.up), ("down", controls.down)] {
        match way {
            Way::Open => {}
            Way::Paused => lines.put(format_args!("{name} = false")),
        }
    }
}

fn attribute(value: &AttributeValue) -> String {
    match value {
        AttributeValue::Text(text) | AttributeValue::Other(text) => quoted(text),
        AttributeValue::Bool(truth) => truth.to_string(),
        AttributeValue::Integer(number) => number.to_string(),
    }
}

/// A basic string of TOML: its escapes are JSON's, but it escapes the control character 0x7F as well.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}
