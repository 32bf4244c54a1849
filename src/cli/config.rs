//! `quorate config`: checks a configuration file without starting anything, and prints annotated examples.
//! It changes nothing. Invariant: a file that passes here is accepted where it is used, but for the files and
//! addresses that it names.

use serde::Serialize;
use std::{fmt, path::PathBuf};

use super::{ExitCode, Failure, output::Output};
use crate::service::config::{Checked, POLICY_EXAMPLE, REPLICA_EXAMPLE, check_file};

/// Check a configuration file, or print an example
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check a policy file or a replica file, without starting anything
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print an example with every key, its default and the reason for it
    Example(Example),
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Example {
    /// A policy file: times, targets and policies of a cluster (the default)
    #[arg(long)]
    policy: bool,
    /// A replica file: keys and addresses of one replica
    #[arg(long)]
    replica: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] with the exit code for configuration when the file is refused.
pub fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    match &arguments.action {
        Action::Check { file } => {
            let checked = check_file(file).map_err(Failure::configuration)?;
            output.event(&Report::new(file.display().to_string(), checked))?;
        }
        Action::Example(Example { replica: true, .. }) => output.document(REPLICA_EXAMPLE)?,
        Action::Example(Example { replica: false, .. }) => output.document(POLICY_EXAMPLE)?,
    }
    Ok(ExitCode::Done)
}

/// What a file that passed says.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    kind: &'static str,
    targets: usize,
    policies: usize,
    notes: Vec<String>,
}

impl Report {
    fn new(file: String, checked: Checked) -> Self {
        match checked {
            Checked::Policy(policy) => Self {
                file,
                kind: "policy",
                targets: policy.targets().count(),
                policies: policy.policies().len(),
                notes: policy.notes(),
            },
            Checked::Replica => Self { file, kind: "replica", targets: 0, policies: 0, notes: Vec::new() },
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, kind, targets, policies, notes } = self;
        write!(f, "{file}: a correct {kind} file")?;
        if *kind == "policy" {
            write!(f, "; targets: {targets}, policies: {policies}")?;
        }
        notes.iter().try_for_each(|note| write!(f, "\n  note: {note}"))
    }
}
