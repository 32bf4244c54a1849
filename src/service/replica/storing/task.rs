//! The task that brings committed blocks into Postgres.
//!
//! Whatever fails is tried again, over another connection and after a growing pause: no state of a database is
//! beyond an operator's repair. Invariant: the block that is stored next is the one above the height that Postgres
//! itself says it holds.

use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    first::{StoreConfig, StoreStartError},
    follower::{FollowError, Followed, Follower},
    progress::StoreProgress,
};
use crate::{
    consensus::task::{ConsensusStatus, Request},
    cycle::{CycleConfig, Folded},
    knowledge::{
        certified::Certified,
        genesis::GenesisError,
        head::Head,
        store::{AppliedBlock, AppliedHeight, ApplyError, BlockHeader, LogGap, StoreTrouble, Swept, Writer},
    },
    service::status::StoreState,
    types::{Digest, Height, Millis},
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
    /// At which height this replica last began at a certified state instead of its own.
    pub(in crate::service::replica) installed: watch::Sender<Height>,
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
    pending: Option<Followed>,
    /// What Postgres holds, as far as this connection knows.
    stored: Stored,
    /// Up to which height the journal's owner was told that it is stored.
    kept_above: Height,
    interval: u64,
    committed: watch::Receiver<Height>,
    installed: watch::Receiver<Height>,
    heads: mpsc::Receiver<Box<Certified<Head>>>,
    consensus: watch::Receiver<ConsensusStatus>,
    progress: watch::Sender<StoreProgress>,
    stop: watch::Receiver<bool>,
    /// Whether the journal was compared with the database.
    is_checked: bool,
    /// In which hour of agreed time old days were last looked for.
    swept: Option<u64>,
}

/// The newest block in Postgres.
#[derive(Clone, Copy, Debug)]
struct Stored {
    height: Height,
    digest: Digest,
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
        let (installed, installed_height) = watch::channel(Height::ZERO);
        let (head_sender, heads) = mpsc::channel(HEAD_QUEUE);
        let (progress, seen) = watch::channel(StoreProgress::new(height));
        let interval = cycle.genesis.parameters.checkpoint_interval;
        let task = Self {
            config,
            follower: Follower::new(cycle, journal)?,
            pending: None,
            stored: Stored { height: Height::ZERO, digest: Digest::ZERO },
            kept_above: Height::ZERO,
            interval,
            committed: committed_height,
            installed: installed_height,
            heads,
            consensus,
            progress,
            stop,
            is_checked: false,
            swept: None,
        };
        Ok((task, StoreEnds { committed, installed, heads: head_sender, progress: seen }))
    }

    /// Stores what is committed until the replica ends. `first` is a connection that is open already.
    pub(in crate::service::replica) async fn run(
        mut self,
        mut first: Option<Writer>,
    ) -> Result<(), StoreStartError> {
        let mut stop = self.stop.clone();
        let mut pause = FIRST_PAUSE;
        self.is_checked = first.is_some();
        // Until the database tells what it holds, the journal keeps what it may need.
        self.follower.keep_above(Height::ZERO).await;
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
        let AppliedHeight { height, digest, .. } = writer.applied();
        self.stored = Stored { height, digest };
        let gap = writer.gap();
        self.progress.send_modify(|progress| (progress.applied, progress.gap) = (height, gap));
        if self.must_begin() {
            self.begin(writer).await?;
        }
        self.tell_kept(true).await;
        let leftovers = writer.drop_leftovers().await;
        self.count_swept(leftovers)?;
        let (mut lives, mut anew) = (false, false);
        loop {
            if *stop.borrow() {
                return Ok(());
            }
            while let Ok(head) = self.heads.try_recv() {
                record(writer, &head).await?;
            }
            if self.must_begin() {
                self.begin(writer).await?;
            }
            match self.next().await {
                Ok(true) => anew = false,
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
                Err(FollowError::Pruned) if !anew => {
                    anew = true;
                    self.begin(writer).await?;
                    continue;
                }
                Err(error @ (FollowError::Pruned | FollowError::Journal(_) | FollowError::State(..))) => {
                    return Err(Failure::of(StoreTrouble::Faulty, &error));
                }
            }
            if self.apply(writer).await? {
                lives = true;
                self.works(pause);
                self.tell_kept(false).await;
            }
            self.sweep(writer).await?;
        }
    }

    /// Whether the next block to be folded lies above the one to be stored next, the log is not taken up, or this replica
    /// began at a certified state since: then what was folded from its own may be wrong.
    fn must_begin(&self) -> bool {
        let pending = self.pending.as_ref().map(|pending| pending.folded.block.height());
        let next = pending.or(self.follower.height().map(Height::next));
        // A control task that is gone has nothing to say.
        let began_elsewhere = self.installed.has_changed().unwrap_or(false);
        began_elsewhere || next.is_none_or(|next| next > self.stored.height.next())
    }

    /// Takes the log up at what is stored. What the journal no longer holds of it stays missing, and a row says so.
    async fn begin(&mut self, writer: &mut Writer) -> Result<(), Failure> {
        if self.follower.height().is_some() {
            tracing::warn!(stored = %self.stored.height, "the log is taken up anew below what was folded last");
        }
        self.pending = None;
        self.installed.mark_unchanged();
        let base = match self.follower.begin(self.stored.height).await {
            Ok(base) => base,
            // The replica ends.
            Err(FollowError::ConsensusGone) => return Ok(()),
            Err(error @ (FollowError::Pruned | FollowError::Journal(_) | FollowError::State(..))) => {
                return Err(Failure::of(StoreTrouble::Faulty, &error));
            }
        };
        let Some(base) = base else { return Ok(()) };
        let signed = self.consensus.borrow().signed;
        let begun = writer.begin_at(&base, signed).await;
        begun.map_err(|error| Failure::of(error.trouble(), &error))?;
        let gap = LogGap { first: self.stored.height.next(), last: base.height };
        tracing::warn!(first = %gap.first, last = %gap.last, "blocks that the journal no longer holds are not stored");
        self.stored = Stored { height: base.height, digest: base.block };
        self.progress.send_modify(|progress| (progress.applied, progress.gap) = (gap.last, Some(gap)));
        Ok(())
    }

    /// Tells the journal's owner what is stored, once a checkpoint: more often would change nothing.
    async fn tell_kept(&mut self, at_once: bool) {
        let stored = self.stored.height;
        let passed = |height: Height| height.number() / self.interval;
        if at_once || passed(stored) > passed(self.kept_above) {
            self.kept_above = stored;
            self.follower.keep_above(stored).await;
        }
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
        if self.pending.is_none() && self.follower.height() < Some(*self.committed.borrow_and_update()) {
            self.pending = self.follower.next().await?;
        }
        Ok(self.pending.is_some())
    }

    /// Stores the block that waits, unless Postgres has it; says whether Postgres was asked.
    async fn apply(&mut self, writer: &mut Writer) -> Result<bool, Failure> {
        let Some(Followed { folded, bundles }) = &self.pending else { return Ok(false) };
        let (height, digest) = (folded.block.height(), folded.block.id());
        if height == self.stored.height && digest != self.stored.digest {
            let stored = self.stored.digest;
            let error = ApplyError::Diverged { what: "the block", height, stored, got: digest };
            return Err(Failure::of(error.trouble(), &error));
        }
        let is_new = height > self.stored.height;
        if is_new {
            let signed = self.consensus.borrow().signed;
            let applied = writer.apply(&applied_block(folded, bundles), signed).await;
            applied.map_err(|error| Failure::of(error.trouble(), &error))?;
            self.stored = Stored { height, digest };
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
        if self.swept == Some(hour) || self.follower.height() < Some(self.progress.borrow().applied) {
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

fn applied_block(folded: &Folded, bundles: &[Arc<[u8]>]) -> AppliedBlock {
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
        bundles: bundles.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, path::PathBuf, sync::Arc};
    use tokio::sync::{mpsc, watch};

    use super::{Follows, StoreTask};
    use crate::{
        consensus::task::{ConsensusStatus, Request},
        cycle::CycleConfig,
        knowledge::{
            fixtures::{committee, replica_keys, verified_root},
            genesis::{Genesis, Parameters},
            store::StoreIdentity,
        },
        service::replica::storing::{JournalFound, StoreConfig},
        types::{Height, Millis, ReplicaIndex, View},
    };

    fn cycle() -> CycleConfig {
        let parameters = Parameters::for_window(Millis::from_secs(10));
        CycleConfig {
            genesis: Genesis { parameters, targets: Vec::new(), policies: Vec::new() },
            committee: Arc::new(committee()),
            operators: verified_root().operators().clone(),
            me: ReplicaIndex::new(0),
            key: replica_keys()[0].clone(),
        }
    }

    #[tokio::test]
    async fn the_log_is_taken_up_anew_once_this_replica_began_at_a_certified_state() {
        let config = StoreConfig {
            url: "postgres://nobody@localhost/none".into(),
            identity: StoreIdentity {
                cluster: committee().cluster(),
                epoch: committee().epoch(),
                replica: ReplicaIndex::new(0),
            },
            window: Millis::from_secs(10),
            keep_days: NonZeroU32::MIN,
            journal: PathBuf::new(),
            found: JournalFound { signed: View::ZERO, height: Height::ZERO },
        };
        let (requests, mut asked) = mpsc::channel(1);
        let (_consensus, consensus) = watch::channel(ConsensusStatus::default());
        let (_stop, stop) = watch::channel(false);
        let follows = Follows { journal: requests.downgrade(), consensus, stop };
        let (mut task, ends) = StoreTask::new(config, cycle(), Height::ZERO, follows).expect("sound");
        assert!(task.must_begin(), "it follows nothing yet");
        let owner = tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                let Request::ReadBase { answer, .. } = request else { panic!("it asks for a base alone") };
                let _ = answer.send(Ok(None));
            }
        });
        task.installed.mark_unchanged();
        task.follower.begin(Height::ZERO).await.expect("it answers");
        assert!(!task.must_begin());
        ends.committed.send_replace(Height::new(9));
        assert!(!task.must_begin(), "blocks alone are no reason");
        ends.installed.send_replace(Height::new(8));
        assert!(task.must_begin());
        task.installed.mark_unchanged();
        assert!(!task.must_begin(), "once");
        drop(requests);
        owner.await.expect("it was asked for nothing else");
    }
}
