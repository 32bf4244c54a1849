//! `quorate stop`: an operator stops targets, and sees the quorum's head that says so.
//!
//! Invariant: a stop is no more than a signed request; nothing is stopped by this process itself.

use super::{
    ExitCode, Failure,
    operator::{OperatorArguments, Session, TargetArguments},
    output::Output,
};
use crate::knowledge::operator_request::{Request, StopMode};

const EXAMPLES: &str = "\
Examples:
  quorate stop --target airflow/extract_pool --operator-key operator.key --root root.json \\
      --replica https://10.0.0.1:8100 --replica https://10.0.0.2:8100 --replica https://10.0.0.3:8100
  quorate stop --all --revoke --operator-key operator.key

The request goes to every replica, again to those that cannot take it at once, until f+1 replicas say that it is \
committed and a head that a quorum signed shows it. With --root that head is verified against the root in the file. \
Without, the root is the one that more than half of the given replicas serve: fewer can neither fake nor prevent a \
stop, so name all replicas.

Any operator may stop any target. Agents then apply nothing new; what is applied stays. Nothing is planned for the \
target until `quorate resume`, by the operator who stopped it or by one of the target's owner.

Exit codes: 0 a certified head shows the stop, 1 nobody took it or its head did not come in time, 3 it was resumed \
meanwhile, 4 the key or the request is refused.";

/// Stop targets: their agents apply nothing new
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    targets: TargetArguments,
    /// Withdraw the newest plans as well
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    operator: OperatorArguments,
}

/// Orders the stop and shows the head that tells of it.
///
/// # Errors
/// [`Failure`] when it is refused, or its end is not known.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let mode = if arguments.revoke { StopMode::Revoked } else { StopMode::Hold };
    let session = Session::open(arguments.operator, output).await?;
    session.order(Request::Stop { targets: arguments.targets.selection(), mode }).await
}
