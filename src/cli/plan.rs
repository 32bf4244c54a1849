//! `quorate plan`: why there is a plan, and whether its bytes follow from what it was derived from.
//!
//! `explain` and `replay` run the planner itself over an evidence bundle, which a plan names by digest. From a file they ask
//! nobody. Invariant: a bundle is never believed: what it gives is compared with a plan, or said to be compared with none.

mod explain;
mod replay;
mod source;

use std::path::PathBuf;

use super::{ExitCode, Failure, output::Output, wait_for};
use source::{Source, fetch};

const EXAMPLES: &str = "\
Examples:
  quorate plan explain 32 --replica http://10.0.0.1:8100
      what the control cycle 32 saw, and what each policy made of it
  quorate plan evidence de52591a --replica http://10.0.0.1:8100 --write evidence.bundle
      keep what a plan was derived from
  quorate plan replay --bundle evidence.bundle --plan plan.json
      compute the plan again, in an empty folder without a network, and compare it to the byte

A plan is named by the beginning of its digest, or by its control cycle's number, as `quorate plans` shows them.
A replay proves that these bytes follow from these inputs by the rules; `quorate verify` tells whether a quorum signed
them, and so whether a quorum had these inputs. Both together need no replica.

Exit codes: 0 done, 1 the replica does not answer or a file cannot be read, 4 the plan does not follow from the bundle.";

/// Explain a plan, or compute it again from what it was derived from
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What a cycle saw, which rules fired, which did not and why, and what the checker says
    Explain(Source),
    /// Compute a cycle's plans again, and compare
    Replay(ReplayArguments),
    /// Write the evidence bundle that a plan names
    Evidence(EvidenceArguments),
}

#[derive(Debug, clap::Args)]
struct ReplayArguments {
    #[command(flatten)]
    source: Source,
    /// The certified plan's envelope, to compare with
    #[arg(long, value_name = "FILE", requires = "bundle")]
    plan: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct EvidenceArguments {
    #[command(flatten)]
    source: Source,
    /// Where to write the bundle
    #[arg(long, value_name = "FILE")]
    write: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] with code 4 when a plan does not follow from its bundle, and 1 when something cannot be had.
pub fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    match arguments.command {
        Command::Explain(source) => explain::run(&source.get(None)?, output),
        Command::Replay(ReplayArguments { source, plan }) => {
            replay::run(&source.get(plan.as_deref())?, output)
        }
        Command::Evidence(EvidenceArguments { source, write }) => {
            wait_for(async { fetch(&source).await?.write(&write, output) })
        }
    }
}
