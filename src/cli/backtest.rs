//! `quorate backtest`: the production loop on virtual time against a plant, and the built-in queue under other rules.
//!
//! The loop is in [`crate::backtest`]; here are flags, files and lines. Invariant: whatever ends it, the last state of
//! the plant is told.

use flate2::read::MultiGzDecoder;
use serde::Serialize;
use std::{
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{ExitCode, Failure, output::Output};
use crate::{
    backtest::{
        Ended, Event, Finished, OWNER, Settings, agent_key,
        arrivals::{self, Job, Work},
        baseline::{Measured, TargetTracking, World},
        protocol::{Account, Answer, Desired},
        queue::{Queue, QueueSettings},
        run as run_loop,
    },
    knowledge::{
        genesis::Genesis,
        plan::{DesiredState, Plan},
        policy::{Target, TargetKind},
    },
    service::{
        config::{Completion, PolicyFile, parse_span},
        plant::ProcessPlant,
    },
    types::{Digest, Millis, TargetId},
};

const EXAMPLES: &str = "\
Examples:
  quorate backtest --policy POLICY.toml --plant 'python3 examples/plants/drain.py'
      the loop against a plant of your own (docs/backtest.md: the lines that are exchanged)
  quorate backtest --policy examples/policies/scaling.toml --plant queue \\
      --arrivals examples/traces/azure-llm-code.csv.gz \\
      --job-time ContextTokens=0.5 --job-time GeneratedTokens=30 --compare
      the built-in queue, and the same under other rules, in one table

Exit codes: 0 when the plant is done or the time is over, 1 when the plant failed.";

/// The name that chooses the built-in plant.
const QUEUE: &str = "queue";

/// The largest file of arrivals, unpacked.
const MAX_ARRIVALS_BYTES: u64 = 256 * 1024 * 1024;

/// How much more than `max` workers is still looked at for a static pool that serves.
const MOST_STATIC_WORKERS: u32 = 10_000;

/// Run a policy against a plant on virtual time
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The policy file
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// A command line that speaks the plant's protocol, or `queue`, which is built in
    #[arg(long, value_name = "COMMAND")]
    plant: String,
    /// How many replicas decide
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=13))]
    replicas: u16,
    /// How far time moves between two orders; it divides the window
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = span)]
    step: Millis,
    /// When it ends at the latest, in virtual time
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = span)]
    at_most: Millis,
    /// How long an answer of the plant is waited for
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = span)]
    time_out: Millis,
    #[command(flatten)]
    queue: QueueFlags,
}

/// What the built-in queue is like.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --plant queue")]
struct QueueFlags {
    /// Arrivals as comma-separated values, .gz or not: time, and `count` or the columns of --job-time
    #[arg(long, value_name = "FILE")]
    arrivals: Option<PathBuf>,
    /// How long a job takes: milliseconds, or COLUMN=MS for each of what a column counts; they add up
    #[arg(long, value_name = "[COLUMN=]MS", value_parser = job_time)]
    job_time: Vec<JobTime>,
    /// How long a worker starts
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    start_up: Millis,
    /// How long a job may wait; longer is a violation
    #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = span)]
    wait_bound: Millis,
    /// The target that is the pool of workers; may be left out where the policy file has one pool
    #[arg(long, value_name = "NAME", value_parser = target)]
    target: Option<TargetId>,
    /// Also run static pools, target tracking and foresight over the same arrivals
    #[arg(long)]
    compare: bool,
    /// The target utilisation of target tracking, in per cent; several may be given
    #[arg(long, value_name = "PERCENT", default_value = "70", value_delimiter = ',',
          value_parser = clap::value_parser!(u8).range(1..=100))]
    tracking_target: Vec<u8>,
}

#[derive(Clone, Debug)]
struct JobTime {
    column: Option<String>,
    micros: u64,
}

fn span(text: &str) -> Result<Millis, String> {
    let form = || "a span has a number and a unit, such as 500ms, 10s, 15m or 1h".to_owned();
    parse_span(text).filter(|span| *span > Millis::ZERO).ok_or_else(form)
}

fn target(text: &str) -> Result<TargetId, String> {
    TargetId::new(text).map_err(|error| error.to_string())
}

/// `0.5` or `ContextTokens=0.5`, in milliseconds with at most three decimal places.
fn job_time(text: &str) -> Result<JobTime, String> {
    let (column, number) = text.rsplit_once('=').map_or((None, text), |(name, number)| (Some(name), number));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let micros = (is_digits(whole) && is_digits(fraction) && fraction.len() <= 3 && whole.len() <= 9)
        .then(|| format!("{whole}{fraction:0<3}").parse().ok())
        .flatten();
    let micros =
        micros.ok_or_else(|| format!("{number:?} is no number of milliseconds, such as 30 or 0.5"))?;
    Ok(JobTime { column: column.map(str::to_owned), micros })
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] when a file is refused, the settings do not fit, or the plant failed.
pub fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let genesis = read_genesis(&arguments.policy)?;
    let settings = Settings {
        replicas: usize::from(arguments.replicas),
        step: arguments.step,
        at_most: arguments.at_most,
    };
    if arguments.plant == QUEUE {
        return run_queue(arguments, &genesis, settings, output);
    }
    if arguments.queue.arrivals.is_some() || arguments.queue.compare {
        let what = "--arrivals and --compare are for the built-in plant: --plant queue";
        return Err(Failure::usage(anyhow::anyhow!(what)));
    }
    let mut plant = ProcessPlant::start(&arguments.plant, arguments.time_out).map_err(|error| {
        Failure::failed(anyhow::Error::new(error).context("cannot start a shell for the plant"))
    })?;
    let (finished, told) = follow(&genesis, settings, &mut plant, output)?;
    told?;
    end(&finished, output)
}

/// Runs the loop and tells each plan as it is logged.
fn follow(
    genesis: &Genesis,
    settings: Settings,
    plant: &mut impl crate::backtest::Plant,
    output: Output,
) -> Result<(Finished, Result<(), Failure>), Failure> {
    let mut told = Ok(());
    let mut watch = |event: Event<'_>| {
        if let Event::Logged(after, plan) = event
            && told.is_ok()
        {
            told = output.event(&PlanLine::of(after, plan)).map_err(Failure::from);
        }
    };
    let finished = run_loop(genesis, settings, plant, &mut watch).map_err(Failure::configuration)?;
    Ok((finished, told))
}

fn end(finished: &Finished, output: Output) -> Result<ExitCode, Failure> {
    output.event(&EndLine::of(finished))?;
    match &finished.ended {
        Ended::Done | Ended::TimeOver => Ok(ExitCode::Done),
        Ended::Failed(failure) => Err(Failure::failed(failure.clone())),
    }
}

fn read_genesis(path: &Path) -> Result<Genesis, Failure> {
    let file = PolicyFile::read(path).map_err(Failure::configuration)?;
    let completion = Completion {
        agents: file.targets().map(|target| (target.clone(), agent_key(target).public())).collect(),
        owner: Some(OWNER.to_owned()),
    };
    file.genesis(&completion).map_err(Failure::configuration)
}

fn run_queue(
    arguments: &Arguments,
    genesis: &Genesis,
    settings: Settings,
    output: Output,
) -> Result<ExitCode, Failure> {
    let flags = &arguments.queue;
    let pool = Pool::of(genesis, flags.target.as_ref())?;
    let jobs = read_jobs(flags)?;
    let queue = QueueSettings { start_up: flags.start_up, wait_bound: flags.wait_bound };
    let mut plant = Queue::new(queue, pool.target.clone(), Arc::clone(&jobs), pool.initial);
    let (finished, told) = follow(genesis, settings, &mut plant, output)?;
    told?;
    let ended = end(&finished, output);
    if !flags.compare || ended.is_err() {
        return ended;
    }
    let world = World {
        settings: queue,
        target: pool.target.clone(),
        jobs,
        step: arguments.step,
        at_most: arguments.at_most,
    };
    let own = Measured {
        account: plant.account(),
        totals: *plant.totals(),
        is_done: finished.ended == Ended::Done,
        ended_ms: finished.after.as_millis(),
    };
    compare(&world, &pool, own, &flags.tracking_target, output)?;
    ended
}

/// One table: the loop, static pools, target tracking, foresight, and the work alone.
fn compare(world: &World, pool: &Pool, own: Measured, targets: &[u8], output: Output) -> Result<(), Failure> {
    let tell = |rule: String, measured: Option<Measured>| output.event(&Row::of(rule, measured));
    output.say(Row::HEADING)?;
    tell("quorate".to_owned(), Some(own))?;
    for percent in targets {
        let mut rule = TargetTracking::new(u64::from(*percent), pool.initial, (pool.min, pool.max));
        let measured = world.measure(pool.initial, &mut rule);
        tell(format!("target tracking {percent} %"), Some(measured))?;
    }
    let mean = world.mean_workers();
    tell(format!("static, the mean: {mean}"), Some(world.fixed(mean)))?;
    let smallest = world.smallest(MOST_STATIC_WORKERS);
    let workers = smallest.map_or_else(|| "none".to_owned(), |(workers, _)| workers.to_string());
    tell(format!("static, the smallest that serves: {workers}"), smallest.map(|(_, measured)| measured))?;
    let most = smallest.map_or(pool.max, |(workers, _)| workers);
    tell("foresight".to_owned(), world.foresight(most))?;
    output.event(&Row {
        event: "row",
        rule: "the work alone".to_owned(),
        violation_minutes: None,
        worker_hours: hours(world.work_ms()),
        longest_wait_s: None,
    })?;
    Ok(())
}

/// The target that the queue's workers are.
struct Pool {
    target: TargetId,
    initial: u32,
    min: u32,
    max: u32,
}

impl Pool {
    fn of(genesis: &Genesis, named: Option<&TargetId>) -> Result<Self, Failure> {
        let pool = |target: &Target| match target.kind {
            TargetKind::Pool { initial, min, max, .. } => {
                Some(Self { target: target.id.clone(), initial, min, max })
            }
            TargetKind::Switch { .. } | TargetKind::Tasks { .. } => None,
        };
        let is_meant = |target: &&Target| named.is_none_or(|named| *named == target.id);
        let mut pools: Vec<Self> = genesis.targets.iter().filter(is_meant).filter_map(pool).collect();
        match (pools.pop(), pools.len()) {
            (Some(pool), 0) => Ok(pool),
            (Some(_), _) => Err(Failure::usage(anyhow::anyhow!(
                "the policy file has several pools; say with --target which one is the queue's"
            ))),
            (None, _) => {
                let named = named.map_or("pool".to_owned(), |named| format!("pool {named}"));
                Err(Failure::usage(anyhow::anyhow!("the policy file has no {named} for the queue's workers")))
            }
        }
    }
}

fn read_jobs(flags: &QueueFlags) -> Result<Arc<[Job]>, Failure> {
    let Some(path) = &flags.arrivals else {
        return Err(Failure::usage(anyhow::anyhow!("--plant queue needs --arrivals FILE")));
    };
    if flags.job_time.is_empty() {
        return Err(Failure::usage(anyhow::anyhow!("--plant queue needs --job-time: how long a job takes")));
    }
    let mut work = Work::default();
    for time in &flags.job_time {
        match &time.column {
            Some(column) => work.per.push((column.clone(), time.micros)),
            None => work.base_us += time.micros,
        }
    }
    let refused =
        |error: anyhow::Error| Failure::failed(error.context(format!("cannot read {}", path.display())));
    let text = read_text(path).map_err(|error| refused(error.into()))?;
    let jobs = arrivals::parse(&text, &work)
        .map_err(|error| Failure::configuration(anyhow::anyhow!("{}: {error}", path.display())))?;
    Ok(jobs.into())
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let file = File::open(path)?;
    let is_packed = path.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn Read> = if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut text = String::new();
    let read = reader.take(MAX_ARRIVALS_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_ARRIVALS_BYTES {
        return Err(std::io::Error::other(format!("it holds more than {MAX_ARRIVALS_BYTES} bytes")));
    }
    Ok(text)
}

/// A logged plan.
#[derive(Debug, Serialize)]
struct PlanLine {
    event: &'static str,
    after_ms: u64,
    target: TargetId,
    from: DesiredState,
    to: DesiredState,
}

impl PlanLine {
    fn of(after: Millis, plan: &Plan) -> Self {
        Self {
            event: "plan",
            after_ms: after.as_millis(),
            target: plan.target.clone(),
            from: plan.preconditions.state,
            to: plan.desired,
        }
    }
}

impl fmt::Display for PlanLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after_ms, target, from, to, .. } = self;
        write!(f, "{:>8}.{:03} s  {target}: {from} -> {to}", after_ms / 1000, after_ms % 1000)
    }
}

/// How it ended.
#[derive(Debug, Serialize)]
struct EndLine<'a> {
    event: &'static str,
    ended: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    after_ms: u64,
    plans: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<Account>,
    desired: &'a [Desired],
    last: Option<&'a Answer>,
    digest: Digest,
}

impl<'a> EndLine<'a> {
    fn of(finished: &'a Finished) -> Self {
        let (ended, why) = match &finished.ended {
            Ended::Done => ("done", None),
            Ended::TimeOver => ("time_over", None),
            Ended::Failed(failure) => ("failed", Some(failure.to_string())),
        };
        Self {
            event: "ended",
            ended,
            why,
            after_ms: finished.after.as_millis(),
            plans: finished.plans,
            account: finished.account,
            desired: &finished.desired,
            last: finished.last.as_ref(),
            digest: finished.digest,
        }
    }
}

impl fmt::Display for EndLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = match self.ended {
            "done" => "the plant is done",
            "failed" => "the plant failed",
            _ => "the time is over",
        };
        write!(f, "{ended} after {} s, {} plans logged", self.after_ms / 1000, self.plans)?;
        if let Some(account) = &self.account {
            let (minutes, hours) = (account.violation_minutes, hours(account.worker_ms));
            write!(f, "\n  {minutes} violation minutes, {hours:.2} worker-hours")?;
        }
        for desired in self.desired {
            write!(f, "\n  {}: {}", desired.target, desired.state)?;
        }
        for sample in self.last.iter().flat_map(|answer| &answer.samples) {
            write!(f, "\n  {} = {}", sample.name, sample.value)?;
        }
        write!(f, "\n  digest {}", self.digest)
    }
}

/// A line of the comparison.
#[derive(Debug, Serialize)]
struct Row {
    event: &'static str,
    rule: String,
    violation_minutes: Option<u64>,
    worker_hours: f64,
    longest_wait_s: Option<u64>,
}

impl Row {
    const HEADING: &'static str =
        "rule                                 violation minutes   worker-hours   longest wait s";

    fn of(rule: String, measured: Option<Measured>) -> Self {
        Self {
            event: "row",
            rule,
            violation_minutes: measured.map(|measured| measured.account.violation_minutes),
            worker_hours: hours(measured.map_or(0, |measured| measured.account.worker_ms)),
            longest_wait_s: measured.map(|measured| measured.totals.longest_wait_ms / 1000),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let (minutes, wait) = (number(self.violation_minutes), number(self.longest_wait_s));
        write!(f, "{:<36} {minutes:>17}   {:>12.2}   {wait:>14}", self.rule, self.worker_hours)
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is for people, and far below 2^53")]
fn hours(worker_ms: u64) -> f64 {
    worker_ms as f64 / 3_600_000.0
}
