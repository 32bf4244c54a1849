//! `quorate-sim`: runs seeds and says which broke an invariant. The library runs them; this file reads arguments
//! and writes lines.
//!
//! Invariant: exit code 0 means that every seed kept every invariant and enough happened in them, 1 that not, 2 a wrong
//! argument.

use clap::Parser;
use quorate_sim::{
    Outcome, Report, Scenario, adversary::Kind, liveness, report::BUSY_COMMITS_PER_HOUR, run, run_traced,
};
use std::{
    io::{self, Write as _},
    num::NonZero,
    process::ExitCode,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

/// Runs the production consensus and journal on virtual time under seeded faults and adversaries.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many seeds to run
    #[arg(long, default_value_t = 200, conflicts_with = "seed")]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    first: u64,
    /// Run this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// The committee's size; by default the seed chooses a small one: 1, 4, 5, 6, 7 or 10
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    replicas: Option<u16>,
    /// Adversaries of these kinds only, as many as the committee may have; by default the seed chooses
    #[arg(long, value_delimiter = ',', value_enum)]
    byzantine: Vec<Kind>,
    /// The protocol
    #[arg(long, value_enum, default_value = "hotstuff-2")]
    protocol: Protocol,
    /// How many seeds to run at once; by default as many as there are processors
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
    /// Begin no further seed once one broke an invariant
    #[arg(long)]
    stop: bool,
    /// Tell every event of the one seed
    #[arg(long, requires = "seed")]
    trace: bool,
}

/// What else it can do.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Command {
    /// Run the cases of recovery and tell how many views and how much virtual time each took, as a table
    Liveness,
}

/// The protocols that a replica can run.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Protocol {
    /// HotStuff-2
    #[value(name = "hotstuff-2")]
    HotStuff2,
}

/// Progress is told each time that so many seeds are done.
const PROGRESS_SEEDS: u64 = 500;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Liveness) => tell_liveness(),
        None => simulate(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // Nobody reads on: there is nobody to tell.
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// Says whether all cases kept their bounds.
fn tell_liveness() -> io::Result<bool> {
    let mut all = true;
    writeln!(io::stdout(), "| after | n | variants | views | virtual time |\n|---|---|---|---|---|")?;
    for case in liveness::cases() {
        let recovered = case.run();
        all &= recovered.broken.is_none();
        writeln!(io::stdout(), "{recovered}")?;
    }
    Ok(all)
}

/// Says whether all went well.
fn simulate(arguments: &Arguments) -> io::Result<bool> {
    let report = match arguments.seed {
        Some(seed) => one_seed(seed, arguments)?,
        None => many_seeds(arguments)?,
    };
    write!(io::stdout(), "{}", report.details())?;
    // One seed may be any.
    let idle = arguments.seed.is_none() && !report.is_busy();
    if idle {
        let commits = report.busy_commits_per_hour();
        writeln!(
            io::stdout(),
            "too idle: {commits} non-empty commits per cluster-hour, at least {BUSY_COMMITS_PER_HOUR} are needed"
        )?;
    }
    writeln!(io::stdout(), "{report}")?;
    Ok(report.violations == 0 && !idle)
}

fn scenario(seed: u64, arguments: &Arguments) -> Scenario {
    match arguments.protocol {
        Protocol::HotStuff2 => {}
    }
    Scenario::with_adversaries(seed, arguments.replicas.map(usize::from), &arguments.byzantine)
}

fn one_seed(seed: u64, arguments: &Arguments) -> io::Result<Report> {
    let mut out = io::stdout().lock();
    let mut failed = None;
    let outcome = if arguments.trace {
        run_traced(scenario(seed, arguments), &mut |line| {
            failed = failed.take().or_else(|| writeln!(out, "{line}").err());
        })
    } else {
        run(scenario(seed, arguments))
    };
    failed.map_or(Ok(()), Err)?;
    tell_violation(&mut out, &outcome, arguments)?;
    let mut report = Report::default();
    report.add(&outcome);
    Ok(report)
}

/// Runs share nothing, so each seed's outcome is the same whatever runs beside it.
fn many_seeds(arguments: &Arguments) -> io::Result<Report> {
    let processors = || thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let jobs = arguments.jobs.unwrap_or_else(processors).get();
    let taken = AtomicU64::new(0);
    let mut report = Report::default();
    thread::scope(|scope| {
        let (sender, outcomes) = mpsc::sync_channel(jobs);
        for _ in 0..jobs {
            let (sender, taken) = (sender.clone(), &taken);
            scope.spawn(move || {
                let places = std::iter::repeat_with(|| taken.fetch_add(1, Ordering::Relaxed));
                for place in places.take_while(|place| *place < arguments.seeds) {
                    let outcome = run(scenario(arguments.first.wrapping_add(place), arguments));
                    if arguments.stop && outcome.violation.is_some() {
                        taken.store(arguments.seeds, Ordering::Relaxed);
                    }
                    if sender.send(outcome).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for outcome in outcomes {
            tell_violation(&mut io::stdout(), &outcome, arguments)?;
            report.add(&outcome);
            if report.seeds % PROGRESS_SEEDS == 0 && report.seeds < arguments.seeds {
                let (ms, seed) = report.slowest;
                writeln!(io::stderr(), "{report}; slowest to settle: seed {seed}, {ms} ms after healing")?;
            }
        }
        Ok(report)
    })
}

fn tell_violation(out: &mut impl io::Write, outcome: &Outcome, arguments: &Arguments) -> io::Result<()> {
    let Some(violation) = &outcome.violation else { return Ok(()) };
    let seed = outcome.seed;
    writeln!(out, "seed {seed}: {violation}")?;
    let replicas = arguments.replicas.map_or(String::new(), |replicas| format!(" --replicas {replicas}"));
    let kinds: Vec<_> = arguments.byzantine.iter().filter_map(clap::ValueEnum::to_possible_value).collect();
    let kinds: Vec<_> = kinds.iter().map(clap::builder::PossibleValue::get_name).collect();
    let byzantine =
        if kinds.is_empty() { String::new() } else { format!(" --byzantine {}", kinds.join(",")) };
    writeln!(out, "  replay: quorate-sim --seed {seed}{replicas}{byzantine} --trace")
}
