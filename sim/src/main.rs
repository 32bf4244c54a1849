//! `quorate-sim`: runs seeds and says which broke an invariant. The library runs them; this file reads arguments
//! and writes lines.
//!
//! Invariant: exit code 0 means that every seed kept every invariant, 1 that one did not, 2 a wrong argument.

use clap::Parser;
use quorate_sim::{Outcome, Report, Scenario, run, run_traced};
use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Runs the production consensus and journal on virtual time under seeded faults and adversaries.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 200, conflicts_with = "seed")]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    first: u64,
    /// Run this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// The committee's size; by default the seed chooses among 4, 5, 6 and 7
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    replicas: Option<u16>,
    /// Tell every event of the one seed
    #[arg(long, requires = "seed")]
    trace: bool,
}

/// Progress is told each time that so many seeds are done.
const PROGRESS_SEEDS: u64 = 500;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match simulate(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        // Nobody reads on: there is nobody to tell.
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}

fn simulate(arguments: &Arguments) -> io::Result<u64> {
    let (mut out, mut progress) = (io::stdout().lock(), io::stderr());
    let mut report = Report::default();
    let (first, count) = arguments.seed.map_or((arguments.first, arguments.seeds), |seed| (seed, 1));
    for seed in (first..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        let scenario = Scenario::of_seed(seed, arguments.replicas.map(usize::from));
        let outcome = if arguments.trace {
            let mut failed = None;
            let outcome = run_traced(scenario, &mut |line| {
                failed = failed.take().or_else(|| writeln!(out, "{line}").err());
            });
            failed.map_or(Ok(outcome), Err)?
        } else {
            run(scenario)
        };
        tell_violation(&mut out, &outcome, arguments)?;
        report.add(&outcome);
        if report.seeds % PROGRESS_SEEDS == 0 && report.seeds < count {
            let slowest_ms = report.slowest_ms;
            writeln!(progress, "{report}; slowest settling {slowest_ms} ms after healing")?;
        }
    }
    writeln!(out, "{report}")?;
    Ok(report.violations)
}

fn tell_violation(out: &mut impl io::Write, outcome: &Outcome, arguments: &Arguments) -> io::Result<()> {
    let Some(violation) = &outcome.violation else { return Ok(()) };
    let seed = outcome.seed;
    writeln!(out, "seed {seed}: {violation}")?;
    let replicas = arguments.replicas.map_or(String::new(), |replicas| format!(" --replicas {replicas}"));
    writeln!(out, "  replay: quorate-sim --seed {seed}{replicas} --trace")
}
