//! `quorate agent`: the agent of a target, and its key. One file a subcommand; this one only joins them.

mod actuator;
mod clear;
mod enroll;
mod keygen;
mod run;

use std::{fs, path::Path};

use super::{ExitCode, Failure, output::Output};
use crate::{knowledge::root::VerifiedRoot, service::agent::StateFileError};

/// Run the agent of a target, make its key, bind it, or let it go on after a contradiction
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Run(Box<run::Arguments>),
    Keygen(keygen::Arguments),
    Enroll(Box<enroll::Arguments>),
    Clear(clear::Arguments),
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] as the subcommand says.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    match arguments.action {
        Action::Run(arguments) => run::run(*arguments, output).await,
        Action::Keygen(arguments) => keygen::run(&arguments, output),
        Action::Enroll(arguments) => enroll::run(*arguments, output).await,
        Action::Clear(arguments) => clear::run(&arguments, output),
    }
}

fn read_root(path: &Path) -> Result<VerifiedRoot, Failure> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, error))?;
    VerifiedRoot::first(&bytes).map_err(Failure::refused)
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::failed(anyhow::Error::new(error).context(format!("cannot use {}", path.display())))
}

fn state_failure(error: StateFileError) -> Failure {
    match &error {
        StateFileError::Damaged(_) | StateFileError::Unusable { .. } => Failure::refused(error).next(
            "restore the folder from a backup, or compare the target with the newest head yourself \
             before you begin with an empty folder",
        ),
        StateFileError::Taken(_) | StateFileError::Folder { .. } | StateFileError::Write { .. } => {
            Failure::failed(error)
        }
    }
}
