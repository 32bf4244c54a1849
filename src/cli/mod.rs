//! The command line: one file a subcommand, and the tree that joins them.
//!
//! A subcommand's file has a `clap::Args` struct named `Arguments` and a `run(arguments, output)` that
//! returns an [`ExitCode`] or a [`Failure`]; an async `run` is given a runtime here. It writes through
//! [`output`] alone. No decision of the control loop is made here.

pub mod agent;
pub mod analyze;
pub mod backtest;
pub mod bench;
pub mod config;
pub mod dev;
pub mod evidence;
mod exit;
pub mod init;
pub mod inspect_otlp;
mod operator;
pub mod output;
pub mod plan;
pub mod plans;
mod reach;
pub mod relay;
pub mod replay_otlp;
pub mod resume;
pub mod run;
pub mod status;
pub mod stop;
pub mod token;
pub mod verify;

pub use exit::{ExitCode, Failure};
pub use reach::ClientFlags;

use std::time::Duration;

use clap::{Parser, Subcommand};

use output::{Format, Output};

use crate::service::utc;

const EXAMPLES: &str = "\
Examples:
  quorate dev
      four replicas, an agent and its target on this machine
  quorate config example > policy.toml
      a policy file with every key, its default and the reason for it
  quorate init --help
      found a cluster: keys, the signed root, a folder for each replica
  quorate run --config replicas/r0/replica.toml
      run one replica
  quorate replay-otlp examples/airflow-incident.otlp.gz --to http://127.0.0.1:4318 --speed 20
      post a recorded incident to it
  quorate inspect-otlp RECORDING
      what the telemetry door would count from a recording
  quorate analyze --in FILE.csv --out FOUND.csv
      where a recorded series is unlike everything that it was before
  quorate stop --all --operator-key operator.key
      no agent applies anything new; `quorate resume` lets the next plans through
  quorate backtest --policy examples/policies/scaling.toml --plant queue --arrivals FILE --compare
      what a policy costs and how well it serves, on virtual time
  quorate plan explain 32
      why there is a plan: what was seen, which rules fired, which did not and why
  quorate verify --root root.json --plan plan.json
      is this plan certified, and by whom

Exit codes:
  0 done, 1 failed, 2 usage, 3 degraded, 4 refused (verification, permission), 78 configuration";

/// An autonomic control loop whose plans take effect only with a Byzantine quorum's certificate.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, after_help = EXAMPLES, max_term_width = 100)]
struct CommandLine {
    /// Write for people or for programs.
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value = "human")]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Arguments),
    Init(init::Arguments),
    Run(Box<run::Arguments>),
    Agent(agent::Arguments),
    Status(status::Arguments),
    Stop(Box<stop::Arguments>),
    Resume(Box<resume::Arguments>),
    Plans(plans::Arguments),
    Plan(plan::Arguments),
    Verify(verify::Arguments),
    Evidence(evidence::Arguments),
    Token(token::Arguments),
    Relay(relay::Arguments),
    ReplayOtlp(replay_otlp::Arguments),
    InspectOtlp(inspect_otlp::Arguments),
    Analyze(analyze::Arguments),
    Bench(bench::Arguments),
    Backtest(Box<backtest::Arguments>),
    Config(config::Arguments),
}

/// Runs the command line of this process and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    // First, so that a process that is still starting does not outlive its parent either.
    drop(crate::service::lifecycle::parent_ended());
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            output::parser_message(&error);
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
        }
    };
    match dispatch(line.command, Output::new(line.output)) {
        Ok(code) => code,
        Err(failure) => {
            if let Failure::Told { .. } = &failure {
                output::complain(format_args!("quorate: {failure}"));
            }
            failure.code()
        }
    }
}

fn dispatch(command: Command, output: Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Dev(arguments) => wait_for(dev::run(arguments, output)),
        Command::Init(arguments) => init::run(&arguments, output),
        Command::Run(arguments) => wait_for(run::run(*arguments, output)),
        Command::Agent(arguments) => wait_for(agent::run(arguments, output)),
        Command::Status(arguments) => wait_for(status::run(arguments, output)),
        Command::Stop(arguments) => wait_for(stop::run(*arguments, output)),
        Command::Resume(arguments) => wait_for(resume::run(*arguments, output)),
        Command::Plans(arguments) => wait_for(plans::run(arguments, output)),
        Command::Plan(arguments) => plan::run(arguments, output),
        Command::Verify(arguments) => verify::run(&arguments, output),
        Command::Evidence(arguments) => evidence::run(arguments, output),
        Command::Token(arguments) => token::run(&arguments, output),
        Command::Relay(arguments) => wait_for(relay::run(arguments, output)),
        Command::ReplayOtlp(arguments) => wait_for(replay_otlp::run(arguments, output)),
        Command::InspectOtlp(arguments) => inspect_otlp::run(&arguments, output),
        Command::Analyze(arguments) => analyze::run(&arguments, output),
        Command::Bench(arguments) => wait_for(bench::run(arguments, output)),
        Command::Backtest(arguments) => backtest::run(&arguments, output),
        Command::Config(arguments) => config::run(&arguments, output),
    }
}

/// Runs a subcommand that waits for the world on a runtime of its own.
fn wait_for(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    let result = runtime.block_on(work);
    // What still blocks now, such as a name that is looked up, must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}
