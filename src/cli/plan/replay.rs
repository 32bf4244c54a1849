//! `quorate plan replay`: the plans that follow from a bundle, compared with a certified one to the byte.
//!
//! Invariant: exit code 0 with a plan to compare with means that its bytes are those that the planner gives.

use std::fmt;

use serde::Serialize;

use super::{
    super::{ExitCode, Failure, output::Output},
    source::Gathered,
};
use crate::{
    knowledge::plan::{DesiredState, Plan},
    types::{Cycle, Digest, TargetId, from_strict_json},
};

pub(super) fn run(gathered: &Gathered, output: Output) -> Result<ExitCode, Failure> {
    let planned = gathered.bundle.replay();
    let plans = planned.plans.iter().map(|plan| (plan, plan.to_bytes()));
    let chosen: Vec<(&Plan, Vec<u8>)> = match (&gathered.certified, &gathered.name) {
        (Some(certified), _) => {
            let certified = read(certified)?;
            plans.filter(|(plan, _)| plan.target == certified.target).collect()
        }
        (None, Some(name)) => plans.filter(|(plan, body)| name.names(plan, Digest::of(body))).collect(),
        (None, None) => plans.collect(),
    };
    if chosen.is_empty() {
        let evidence = gathered.bundle.digest();
        return Err(Failure::refused(anyhow::anyhow!("no such plan follows from the evidence {evidence}")));
    }
    if let Some(certified) = &gathered.certified {
        let [(_, body)] = chosen.as_slice() else { unreachable!("a target has at most one plan a cycle") };
        compare(body, certified)?;
    }
    let is_compared = gathered.certified.is_some();
    for (plan, body) in &chosen {
        output.event(&Replayed::of(plan, body, is_compared))?;
    }
    Ok(ExitCode::Done)
}

fn read(body: &[u8]) -> Result<Plan, Failure> {
    from_strict_json(body).map_err(|error| Failure::refused(anyhow::anyhow!("not a plan: {error}")))
}

/// Names the first field that differs.
fn compare(replayed: &[u8], certified: &[u8]) -> Result<(), Failure> {
    if replayed == certified {
        return Ok(());
    }
    let fields = |body: &[u8]| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body);
    let (replayed, certified) =
        (fields(replayed).map_err(Failure::refused)?, fields(certified).map_err(Failure::refused)?);
    let differs = certified.iter().find(|(field, value)| replayed.get(*field) != Some(value));
    let told = match differs {
        Some((field, value)) => {
            let other = replayed.get(field).cloned().unwrap_or_default();
            format!("the plan has {field} {value}, and from the bundle follows {other}")
        }
        None => "the plan's bytes are another encoding than the canonical one".to_owned(),
    };
    Err(Failure::refused(anyhow::anyhow!(told))
        .next("look at `evidence` first: a plan follows from its own bundle alone"))
}

/// A plan that was computed again.
#[derive(Debug, Serialize)]
struct Replayed {
    event: &'static str,
    target: TargetId,
    seq: Cycle,
    before: DesiredState,
    desired: DesiredState,
    digest: Digest,
    evidence: Digest,
    /// Whether the bytes were compared with a plan's; they are equal then.
    compared: bool,
    /// The plan's exact bytes.
    body: String,
}

impl Replayed {
    fn of(plan: &Plan, body: &[u8], compared: bool) -> Self {
        Self {
            event: "replayed",
            target: plan.target.clone(),
            seq: plan.seq,
            before: plan.preconditions.state,
            desired: plan.desired,
            digest: Digest::of(body),
            evidence: plan.evidence,
            compared,
            body: String::from_utf8_lossy(body).into_owned(),
        }
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, seq, before, desired, digest, evidence, compared, .. } = self;
        writeln!(f, "replayed: plan {seq} for {target}, {before} -> {desired}")?;
        writeln!(f, "  digest     {digest}")?;
        writeln!(f, "  evidence   {evidence}")?;
        f.write_str(if *compared {
            "  the plan has these very bytes"
        } else {
            "  compared with no plan: give --plan FILE, or compare the digest"
        })
    }
}
