//! The task that brings committed blocks into Postgres, behind the loop and never in its way.
//!
//! Invariant: blocks are applied in the order of their heights, each once, and what waits is bounded: past a first
//! bound the replica stops endorsing until the store has caught up, past a second one the store is left alone
//! until the next start, which applies what is missing from the journal.

use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

use crate::{
    cycle::Folded,
    knowledge::{
        certified::Certified,
        head::Head,
        store::{AppliedBlock, BlockHeader, Store, StoreIdentity},
    },
    types::{Height, Millis},
};

/// How many blocks may wait for Postgres before this replica stops endorsing: several hours of windows.
pub(super) const STORE_BACKLOG_BLOCKS: usize = 10_000;

/// How many blocks may wait for Postgres before the store is left alone until the next start: some hundred MB.
const MAX_WAITING_BLOCKS: usize = 2 * STORE_BACKLOG_BLOCKS;

/// How long the task waits before it tries again what failed for a while.
const RETRY: Duration = Duration::from_secs(1);

/// What the store is given.
#[derive(Debug)]
pub(super) enum StoreWork {
    /// A block with what it changed.
    Block(Folded),
    /// A head that a quorum certified.
    Head(Box<Certified<Head>>),
}

/// Where the store stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoreProgress {
    /// The newest height in Postgres.
    pub(super) applied: Height,
    /// How many blocks wait.
    pub(super) waiting: usize,
    /// Why it does not go on; `None` when it does.
    pub(super) failure: Option<String>,
}

/// What the store task needs.
#[derive(Clone, Debug)]
pub(super) struct StoreConfig {
    /// Where the database is.
    pub(super) url: String,
    /// Whose database it is.
    pub(super) identity: StoreIdentity,
    /// The windows' length.
    pub(super) window: Millis,
}

/// Applies what comes until the sender is gone; then it applies what is left and closes.
pub(super) async fn run(
    config: StoreConfig,
    mut work: mpsc::UnboundedReceiver<StoreWork>,
    progress: watch::Sender<StoreProgress>,
) {
    let mut waiting = VecDeque::new();
    let mut open = true;
    while open {
        let Some(store) = connect(&config, &mut work, &mut waiting, &progress, &mut open).await else {
            return;
        };
        if !apply_all(&store, &mut work, &mut waiting, &progress, &mut open).await {
            // A permanent failure: the database must not be written to; blocks are in the journal.
            while work.recv().await.is_some() {}
            return;
        }
        store.close().await;
    }
}

/// Connects, however long it takes; what comes meanwhile waits.
async fn connect(
    config: &StoreConfig,
    work: &mut mpsc::UnboundedReceiver<StoreWork>,
    waiting: &mut VecDeque<Arc<StoreWork>>,
    progress: &watch::Sender<StoreProgress>,
    open: &mut bool,
) -> Option<Store> {
    loop {
        match Store::connect(&config.url, config.identity, config.window).await {
            Ok(store) => match store.applied_height().await {
                Ok(applied) => {
                    progress.send_modify(|progress| {
                        progress.applied = applied.height;
                        progress.failure = None;
                    });
                    return Some(store);
                }
                Err(error) => report(progress, waiting.len(), &error),
            },
            Err(error) => report(progress, waiting.len(), &error),
        }
        let until = tokio::time::Instant::now() + RETRY;
        while let Ok(next) = tokio::time::timeout_at(until, work.recv()).await {
            match next {
                Some(next) => waiting.push_back(Arc::new(next)),
                None => {
                    *open = false;
                    return None;
                }
            }
        }
        if waiting.len() > MAX_WAITING_BLOCKS {
            report(progress, waiting.len(), &TooMuchWaits);
            waiting.clear();
            while work.recv().await.is_some() {}
            *open = false;
            return None;
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the store was away for too long; once it is back, start this replica again: it then applies what is missing \
     from its journal"
)]
struct TooMuchWaits;

fn report(progress: &watch::Sender<StoreProgress>, waiting: usize, error: &dyn std::error::Error) {
    let failure = describe(error);
    progress.send_modify(|progress| {
        if progress.failure.as_ref() != Some(&failure) {
            tracing::warn!(%failure, "the store does not answer; blocks wait");
        }
        progress.waiting = waiting;
        progress.failure = Some(failure);
    });
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}

/// Applies until the connection fails (`true`: connect again) or the database must be left alone (`false`).
async fn apply_all(
    store: &Store,
    work: &mut mpsc::UnboundedReceiver<StoreWork>,
    waiting: &mut VecDeque<Arc<StoreWork>>,
    progress: &watch::Sender<StoreProgress>,
    open: &mut bool,
) -> bool {
    loop {
        let next = match waiting.front() {
            Some(next) => Arc::clone(next),
            None => match work.recv().await {
                Some(next) => {
                    waiting.push_back(Arc::new(next));
                    continue;
                }
                None => {
                    *open = false;
                    return true;
                }
            },
        };
        while let Ok(more) = work.try_recv() {
            waiting.push_back(Arc::new(more));
        }
        match apply(store, &next, progress).await {
            Ok(()) => {
                waiting.pop_front();
                progress.send_modify(|progress| {
                    progress.waiting = waiting.len();
                    progress.failure = None;
                });
            }
            Err(Failure::Passing(error)) => {
                report(progress, waiting.len(), error.as_ref());
                tokio::time::sleep(RETRY).await;
                return true;
            }
            Err(Failure::Lasting(error)) => {
                report(progress, waiting.len(), error.as_ref());
                tracing::error!(error = %describe(error.as_ref()), "the store is left alone from here on");
                return false;
            }
        }
    }
}

enum Failure {
    Passing(Box<dyn std::error::Error + Send + Sync>),
    Lasting(Box<dyn std::error::Error + Send + Sync>),
}

async fn apply(
    store: &Store,
    work: &StoreWork,
    progress: &watch::Sender<StoreProgress>,
) -> Result<(), Failure> {
    match work {
        StoreWork::Block(folded) => {
            let height = folded.block.height();
            if height <= progress.borrow().applied {
                return Ok(());
            }
            let block = applied_block(folded);
            store.apply(&block).await.map_err(|error| {
                if error.is_transient() {
                    Failure::Passing(Box::new(error))
                } else {
                    Failure::Lasting(Box::new(error))
                }
            })?;
            progress.send_modify(|progress| progress.applied = height);
        }
        StoreWork::Head(head) => {
            // A head that cannot be recorded is superseded by the next; the feed serves it all the same.
            if let Err(error) = store.record_certified_head(head).await {
                tracing::warn!(error = %describe(&error), "a certified head was not recorded");
            }
        }
    }
    Ok(())
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
