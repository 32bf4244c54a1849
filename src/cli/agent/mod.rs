//! `quorate agent`: the agent of a target, and its key. One file a subcommand; this one only joins them.

mod actuator;
mod keygen;
mod run;

use super::{ExitCode, Failure, output::Output};

/// Run the agent of a target, or make its key
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Run(Box<run::Arguments>),
    Keygen(keygen::Arguments),
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] as the subcommand says.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    match arguments.action {
        Action::Run(arguments) => run::run(*arguments, output).await,
        Action::Keygen(arguments) => keygen::run(&arguments, output),
    }
}
