//! The driver: starts the replicas' processes, lets one of them be the client, counts what all of them use.
//!
//! Invariant: no process and no journal is left when it ends, however it ends.

use serde::Serialize;
use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::Instant,
};

use super::protocol::{Counts, Load, Order, Said};
use crate::service::bench::{FolderError, Quantiles, TemporaryFolder, Usage, UsageError};

/// How long before anything is measured: connections, caches and the journal's first segment settle.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long a replica may take to say what it is asked for, beyond the load's own time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setting {
    /// How many replicas.
    pub replicas: u16,
    /// How many commands the client keeps under way.
    pub outstanding: usize,
    /// The size of each.
    pub command_bytes: usize,
    /// How long.
    pub measure: Duration,
    /// Below which folder the journals lie.
    pub folder: PathBuf,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// How many replicas there were.
    pub replicas: u16,
    /// How many commands the client kept under way.
    pub outstanding: usize,
    /// The size of each.
    pub command_bytes: usize,
    /// How long was measured.
    pub seconds: f64,
    /// Committed commands in a second.
    pub commands_per_second: f64,
    /// Committed blocks with commands in a second.
    pub blocks_per_second: f64,
    /// How many commands such a block had.
    pub commands_per_block: f64,
    /// How many empty blocks were committed for each with commands.
    pub empty_blocks_per_block: f64,
    /// From handing a command over to seeing it committed, at the client.
    pub latency: Quantiles,
    /// Processors that all replicas and the client together kept busy.
    pub cores: f64,
    /// Flushes of a replica's journal for each block with commands.
    pub flushes_per_block: f64,
    /// The most memory that a replica took, in bytes.
    pub peak_bytes: u64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The journals' folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A replica's process.
    #[error("replica {place} {what}")]
    Replica {
        /// Its place.
        place: u16,
        /// What happened.
        what: String,
    },
    /// What a process used.
    #[error(transparent)]
    Usage(#[from] UsageError),
}

/// Runs a cluster under one load and measures it.
///
/// # Errors
/// [`BenchError`] when a process cannot be started or ends.
pub async fn measure(setting: &Setting) -> Result<Figures, BenchError> {
    let folder = TemporaryFolder::new(&setting.folder)?;
    let mut replicas = Vec::new();
    for place in 0..setting.replicas {
        replicas.push(Replica::start(place, setting.replicas, folder.path())?);
    }
    let mut addresses = Vec::new();
    for replica in &mut replicas {
        let said = replica.hear(Duration::ZERO).await?;
        let Said::Listening { address } = said else { return Err(replica.unexpected(&said)) };
        addresses.push(address);
    }
    for replica in &mut replicas {
        replica.order(&Order::Meet { addresses: addresses.clone() }).await?;
    }
    for replica in &mut replicas {
        replica.expect(&Said::Linked, Duration::ZERO).await?;
    }
    let load = Load {
        outstanding: setting.outstanding,
        command_bytes: setting.command_bytes,
        warm_up_ms: millis(WARM_UP),
        measure_ms: millis(setting.measure),
    };
    replicas[0].order(&Order::Load(load)).await?;
    replicas[0].expect(&Said::Measuring, WARM_UP).await?;
    let before = Reading::take(&mut replicas).await?;
    let said = replicas[0].hear(setting.measure).await?;
    let Said::Measured(latency) = said else { return Err(replicas[0].unexpected(&said)) };
    let after = Reading::take(&mut replicas).await?;
    for replica in replicas {
        replica.end().await;
    }
    Ok(figures(setting, &before, &after, latency))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// All counters at one moment.
struct Reading {
    at: Instant,
    /// The client's replica's.
    counts: Counts,
    /// All replicas'.
    syncs: u64,
    processor: Duration,
    peak_bytes: u64,
}

impl Reading {
    async fn take(replicas: &mut [Replica]) -> Result<Self, BenchError> {
        let mut reading = Self {
            at: Instant::now(),
            counts: Counts::default(),
            syncs: 0,
            processor: Duration::ZERO,
            peak_bytes: 0,
        };
        for replica in &mut *replicas {
            let usage = Usage::of(replica.id)?;
            reading.processor += usage.processor;
            reading.peak_bytes = reading.peak_bytes.max(usage.peak_bytes);
        }
        for (place, replica) in replicas.iter_mut().enumerate() {
            replica.order(&Order::Count).await?;
            let said = replica.hear(Duration::ZERO).await?;
            let Said::Counted(counts) = said else { return Err(replica.unexpected(&said)) };
            reading.syncs += counts.syncs;
            if place == 0 {
                reading.counts = counts;
            }
        }
        Ok(reading)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counters of some seconds are far below 2^52")]
fn figures(setting: &Setting, before: &Reading, after: &Reading, latency: Quantiles) -> Figures {
    let seconds = (after.at - before.at).as_secs_f64();
    let more = |of: fn(&Counts) -> u64| (of(&after.counts) - of(&before.counts)) as f64;
    let (blocks, full, commands) =
        (more(|counts| counts.blocks), more(|counts| counts.full_blocks), more(|counts| counts.commands));
    let syncs = (after.syncs - before.syncs) as f64 / f64::from(setting.replicas);
    let per_block = |count: f64| if full > 0.0 { count / full } else { 0.0 };
    Figures {
        replicas: setting.replicas,
        outstanding: setting.outstanding,
        command_bytes: setting.command_bytes,
        seconds,
        commands_per_second: commands / seconds,
        blocks_per_second: full / seconds,
        commands_per_block: per_block(commands),
        empty_blocks_per_block: per_block(blocks - full),
        latency,
        cores: (after.processor - before.processor).as_secs_f64() / seconds,
        flushes_per_block: per_block(syncs),
        peak_bytes: after.peak_bytes,
    }
}

/// A replica's process. It ends when its standard input closes, and is killed when this is dropped.
struct Replica {
    place: u16,
    id: u32,
    process: Child,
    orders: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Replica {
    fn start(place: u16, replicas: u16, folder: &Path) -> Result<Self, BenchError> {
        let failed = |error: io::Error| BenchError::Replica { place, what: format!("cannot start: {error}") };
        let mut process = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["bench", "replica", "--place", &place.to_string(), "--replicas", &replicas.to_string()])
            .arg("--journal")
            .arg(folder.join(format!("r{place}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(orders), Some(said), Some(id)) =
            (process.stdin.take(), process.stdout.take(), process.id())
        else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Self { place, id, process, orders, said: BufReader::new(said).lines() })
    }

    async fn order(&mut self, order: &Order) -> Result<(), BenchError> {
        let mut line = serde_json::to_vec(order).expect("an order has a JSON form");
        line.push(b'\n');
        let written = self.orders.write_all(&line).await;
        written.map_err(|error| self.failed(format!("takes no orders: {error}")))
    }

    async fn hear(&mut self, busy: Duration) -> Result<Said, BenchError> {
        let line = match tokio::time::timeout(busy + ANSWER_TIMEOUT, self.said.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => return Err(self.failed("has ended")),
            Ok(Err(error)) => return Err(self.failed(format!("is not heard: {error}"))),
            Err(_) => return Err(self.failed("says nothing")),
        };
        serde_json::from_str(&line).map_err(|error| self.failed(format!("is not understood: {error}")))
    }

    async fn expect(&mut self, expected: &Said, busy: Duration) -> Result<(), BenchError> {
        let said = self.hear(busy).await?;
        if said == *expected { Ok(()) } else { Err(self.unexpected(&said)) }
    }

    fn unexpected(&self, said: &Said) -> BenchError {
        self.failed(format!("says {said:?} out of turn"))
    }

    fn failed(&self, what: impl Into<String>) -> BenchError {
        BenchError::Replica { place: self.place, what: what.into() }
    }

    async fn end(self) {
        let Self { mut process, orders, .. } = self;
        drop(orders);
        if tokio::time::timeout(ANSWER_TIMEOUT, process.wait()).await.is_err() {
            tracing::warn!(place = self.place, "a replica does not end and is killed");
        }
    }
}
