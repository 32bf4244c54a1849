//! The task that brings committed blocks into Postgres.
//!
//! Whatever fails is tried again, over another connection and after a growing pause: no state of a database is
//! beyond an operator's repair. Invariant: the block that is stored next is the one above the height that Postgres
//! itself says it holds.

use std::time::Duration;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    first::{StoreConfig, StoreStartError},
    follower::{FollowError, Follower},
    progress::StoreProgress,
};
use crate::{
    consensus::task::{ConsensusStatus, Request},
    cycle::{CycleConfig, Folded},
    knowledge::{
        certified::Certified,
        genesis::GenesisError,
        head::Head,
        store::{AppliedBlock, AppliedHeight, ApplyError, BlockHeader, StoreTrouble, Swept, Writer},
    },
    service::status::StoreState,
    types::{Height, Millis},
};

/// How many certified heads wait for Postgres: some ten minutes of them. What finds no room is not recorded; the next
/// head says all that it said, and the feed serves it all the same.
const HEAD_QUEUE: usize = 64;

/// The first pause before something is tried again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause: a database that is back is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long an idle connection goes without a sign of life.
const PING: Duration = Duration::from_secs(5);

/// How often old days are looked for, in agreed time.
const SWEEP: Millis = Millis::from_secs(3600);

/// The control task's ends.
#[derive(Debug)]
pub(in crate::service::replica) struct StoreEnds {
    /// The newest committed height.
    pub(in crate::service::replica) committed: watch::Sender<Height>,
    /// Heads that a quorum certified.
    pub(in crate::service::replica) heads: mpsc::Sender<Box<Certified<Head>>>,
    /// Where the store stands.
    pub(in crate::service::replica) progress: watch::Receiver<StoreProgress>,
}

/// What the task follows.
#[derive(Debug)]
pub(in crate::service::replica) struct Follows {
    /// The journal's owner.
    pub(in crate::service::replica) journal: mpsc::WeakSender<Request>,
    /// Where consensus stands.
    pub(in crate::service::replica) consensus: watch::Receiver<ConsensusStatus>,
    /// Whether the replica ends.
    pub(in crate::service::replica) stop: watch::Receiver<bool>,
}

/// The task's own state.
pub(in crate::service::replica) struct StoreTask {
    config: StoreConfig,
    follower: Follower,
    /// The folded block that is not stored yet.
    pending: Option<Folded>,
    committed: watch::Receiver<Height>,
    heads: mpsc::Receiver<Box<Certified<Head>>>,
    consensus: watch::Receiver<ConsensusStatus>,
    progress: watch::Sender<StoreProgress>,
    stop: watch::Receiver<bool>,
    /// Whether the journal was compared with the database.
    is_checked: bool,
    /// In which hour of agreed time old days were last looked for.
    swept: Option<u64>,
}

/// What ended a connection's work.
#[derive(Debug)]
struct Failure {
    trouble: StoreTrouble,
    words: String,
}

enum Ended {
    /// The replica ends.
    Stopped,
    Failed(Failure),
}

impl StoreTask {
    /// The task, and the ends by which the control task speaks with it. `height` is what the journal held.
    pub(in crate::service::replica) fn new(
        config: StoreConfig,
        cycle: CycleConfig,
        height: Height,
        follows: Follows,
    ) -> Result<(Self, StoreEnds), GenesisError> {
        let Follows { journal, consensus, stop } = follows;
        let (committed, committed_height) = watch::channel(Height::ZERO);
        let (head_sender, heads) = mpsc::channel(HEAD_QUEUE);
        let (progress, seen) = watch::channel(StoreProgress::new(height));
        let task = Self {
            config,
            follower: Follower::new(cycle, journal)?,
            pending: None,
            committed: committed_height,
            heads,
            consensus,
            progress,
            stop,
            is_checked: false,
            swept: None,
        };
        Ok((task, StoreEnds { committed, heads: head_sender, progress: seen }))
    }

    /// Stores what is committed until the replica ends. `first` is a connection that is open already.
    pub(in crate::service::replica) async fn run(
        mut self,
        mut first: Option<Writer>,
    ) -> Result<(), StoreStartError> {
        let mut stop = self.stop.clone();
        let mut pause = FIRST_PAUSE;
        self.is_checked = first.is_some();
        loop {
            let connected = match first.take() {
                Some(writer) => Ok(writer),
                None => tokio::select! {
                    connected = self.config.connect() => connected,
                    () = stopped(&mut stop) => return Ok(()),
                },
            };
            let failure = match connected {
                Ok(mut writer) => {
                    if !self.is_checked {
                        self.config.check_journal(&writer)?;
                        self.is_checked = true;
                    }
                    match self.store(&mut writer, &mut pause).await {
                        Ended::Stopped => {
                            writer.close().await;
                            return Ok(());
                        }
                        Ended::Failed(failure) => failure,
                    }
                }
                Err(error) => Failure::of(error.trouble(), &error),
            };
            if !failure.trouble.passes() {
                pause = LONGEST_PAUSE;
            }
            self.report(failure);
            tokio::select! {
                () = sleep(pause) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn report(&self, failure: Failure) {
        let Failure { trouble, words } = failure;
        self.progress.send_modify(|progress| {
            let state = StoreState::Trouble(trouble);
            if progress.state != state {
                tracing::warn!(state = trouble.as_str(), failure = words, "blocks are not stored");
            }
            progress.retries += 1;
            progress.state = state;
            progress.failure = Some(words);
        });
    }

    /// Stores blocks and heads over one connection until it fails or the replica ends.
    async fn store(&mut self, writer: &mut Writer, pause: &mut Duration) -> Ended {
        match self.store_on(writer, pause).await {
            Ok(()) => Ended::Stopped,
            Err(failure) => Ended::Failed(failure),
        }
    }

    async fn store_on(&mut self, writer: &mut Writer, pause: &mut Duration) -> Result<(), Failure> {
        let mut stop = self.stop.clone();
        let base = writer.applied();
        self.begin(base);
        let leftovers = writer.drop_leftovers().await;
        self.count_swept(leftovers)?;
        let mut lives = false;
        loop {
            if *stop.borrow() {
                return Ok(());
            }
            while let Ok(head) = self.heads.try_recv() {
                record(writer, &head).await?;
            }
            match self.next().await {
                Ok(true) => {}
                Ok(false) => {
                    // Only a connection on which something was done is known to work.
                    if !lives {
                        writer.ping().await.map_err(|error| Failure::of(error.trouble(), &error))?;
                        lives = true;
                        self.works(pause);
                    }
                    tokio::select! {
                        changed = self.committed.changed() => if changed.is_err() { return Ok(()) },
                        Some(head) = self.heads.recv() => record(writer, &head).await?,
                        () = sleep(PING) => lives = false,
                        () = stopped(&mut stop) => return Ok(()),
                    }
                    continue;
                }
                Err(FollowError::ConsensusGone) => return Ok(()),
                Err(error @ FollowError::Journal(_)) => {
                    return Err(Failure::of(StoreTrouble::Faulty, &error));
                }
            }
            if self.apply(writer, base).await? {
                lives = true;
                self.works(pause);
            }
            self.sweep(writer).await?;
        }
    }

    /// Makes sure that the next block to be folded is not above the one to be stored next.
    fn begin(&mut self, base: AppliedHeight) {
        let next =
            self.pending.as_ref().map_or(self.follower.height().next(), |folded| folded.block.height());
        if next > base.height.next() {
            tracing::warn!(
                stored = %base.height, known = %self.progress.borrow().applied,
                "the database is older than before; it is caught up from the journal"
            );
            self.pending = None;
            self.follower.restart();
        }
        self.progress.send_modify(|progress| progress.applied = base.height);
    }

    fn works(&self, pause: &mut Duration) {
        *pause = FIRST_PAUSE;
        self.progress.send_if_modified(|progress| {
            let recovers = progress.state != StoreState::Storing;
            if recovers && progress.failure.is_some() {
                tracing::info!(applied = %progress.applied, "blocks are stored again");
            }
            progress.state = StoreState::Storing;
            progress.failure = None;
            recovers
        });
    }

    /// Folds the next committed block, unless one waits; says whether there is one.
    async fn next(&mut self) -> Result<bool, FollowError> {
        if self.pending.is_none() && self.follower.height() < *self.committed.borrow_and_update() {
            self.pending = self.follower.next().await?;
        }
        Ok(self.pending.is_some())
    }

    /// Stores the block that waits, unless Postgres has it; says whether Postgres was asked.
    async fn apply(&mut self, writer: &mut Writer, base: AppliedHeight) -> Result<bool, Failure> {
        let Some(folded) = &self.pending else { return Ok(false) };
        let (height, id) = (folded.block.height(), folded.block.id());
        if height == base.height && id != base.digest {
            let error = ApplyError::Diverged { what: "the block", height, stored: base.digest, got: id };
            return Err(Failure::of(error.trouble(), &error));
        }
        let is_new = height > base.height;
        if is_new {
            let signed = self.consensus.borrow().signed;
            let applied = writer.apply(&applied_block(folded), signed).await;
            applied.map_err(|error| Failure::of(error.trouble(), &error))?;
            self.progress.send_modify(|progress| progress.applied = height);
        }
        self.pending = None;
        Ok(is_new)
    }

    /// Once an hour of agreed time, makes the next day's tables and drops those of days that are too old. A day
    /// that cannot be dropped keeps no block from being stored.
    async fn sweep(&mut self, writer: &mut Writer) -> Result<(), Failure> {
        let Some(now) = self.follower.agreed_time() else { return Ok(()) };
        let hour = now.as_millis() / SWEEP.as_millis();
        if self.swept == Some(hour) || self.follower.height() < self.progress.borrow().applied {
            return Ok(());
        }
        // Whatever becomes of it, it is tried again in an hour, and blocks come first until then.
        self.swept = Some(hour);
        let swept = writer.sweep(self.config.keep_days, now).await;
        if self.count_swept(swept)? {
            self.swept = None;
        }
        Ok(())
    }

    /// Says whether there is more to drop.
    fn count_swept(&self, swept: Result<Swept, ApplyError>) -> Result<bool, Failure> {
        match swept {
            Ok(Swept { dropped, has_more }) => {
                if dropped > 0 {
                    tracing::info!(tables = dropped, "dropped days older than are kept");
                    self.progress.send_modify(|progress| progress.tables_dropped += dropped);
                }
                Ok(has_more)
            }
            Err(error @ ApplyError::Statement(_)) if error.trouble() != StoreTrouble::Unreachable => {
                tracing::warn!(error = %describe(&error), "old days are dropped later");
                self.progress.send_modify(|progress| progress.sweeps_failed += 1);
                Ok(false)
            }
            Err(error) => Err(Failure::of(error.trouble(), &error)),
        }
    }
}

async fn record(writer: &mut Writer, head: &Certified<Head>) -> Result<(), Failure> {
    let Err(error) = writer.record_certified_head(head).await else { return Ok(()) };
    match error.trouble() {
        Some(trouble) => Err(Failure::of(trouble, &error)),
        // It is superseded by the next one.
        None => {
            tracing::warn!(error = %describe(&error), "a certified head was not recorded");
            Ok(())
        }
    }
}

impl Failure {
    fn of(trouble: StoreTrouble, error: &dyn std::error::Error) -> Self {
        Self { trouble, words: describe(error) }
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !words.ends_with(&more) {
            words = format!("{words}: {more}");
        }
        cause = inner.source();
    }
    words
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn applied_block(folded: &Folded) -> AppliedBlock {
    let block = &folded.block;
    AppliedBlock {
        header: BlockHeader {
            height: block.height(),
            view: block.view(),
            digest: block.id(),
            parent: block.parent(),
            proposer: block.proposer(),
            commands: block.payload().commands().len() as u64,
        },
        changes: folded.changes.clone(),
    }
}
