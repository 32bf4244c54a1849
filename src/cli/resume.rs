//! `quorate resume`: an operator lifts stops.
//!
//! Invariant: it lifts only the stops that it has shown; what was planned before them stays on hold, and only a plan that is
//! logged afterwards may be applied.

use std::collections::BTreeMap;

use super::{
    ExitCode, Failure,
    operator::{OperatorArguments, Session, TargetArguments},
    output::Output,
};
use crate::knowledge::operator_request::Request;

const EXAMPLES: &str = "\
Examples:
  quorate resume --target airflow/extract_pool --operator-key operator.key --root root.json \\
      --replica https://10.0.0.1:8100 --replica https://10.0.0.2:8100 --replica https://10.0.0.3:8100
  quorate resume --all --operator-key operator.key

Shows first which stops are in force, as f+1 replicas say, and names them in the signed request: a stop that comes \
later is not lifted by it. Lifts this operator's stops; an operator of the target's owner lifts everybody's. The plan that was newest at the \
stop stays on hold: the next one is applied.

Exit codes: 0 committed, with the certified head's mode for each target; 1 nobody took it or its head did not come in \
time; 4 the key or the request is refused.";

/// Lift stops: the next plans of these targets are applied again
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    targets: TargetArguments,
    #[command(flatten)]
    operator: OperatorArguments,
}

/// Orders the resume and shows the head that tells of it.
///
/// # Errors
/// [`Failure`] when it is refused, or its end is not known.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let session = Session::open(arguments.operator, output).await?;
    let targets = arguments.targets.selection();
    let mut seen = BTreeMap::new();
    for stop in session.in_force(&targets).await?.stops.into_values().flatten() {
        let newest = seen.entry(stop.keyid).or_insert(stop.counter);
        *newest = stop.counter.max(*newest);
    }
    session.order(Request::Resume { targets, seen }).await
}
