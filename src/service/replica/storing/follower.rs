//! The log folded once more, as far as the store is.
//!
//! It is a control cycle that endorses nothing: only what blocks change is taken from it, so what is stored is what the
//! replica itself derived. Invariant: it holds at most one piece of the log that is not folded yet.

use std::{collections::VecDeque, sync::Arc};
use tokio::sync::{mpsc, oneshot};

use crate::{
    consensus::{ArchiveError, Block, task::Request},
    cycle::{Cycle, CycleConfig, Folded, Hold, Output},
    knowledge::genesis::GenesisError,
    types::{Height, UnixMillis},
};

/// Why there is no next block.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// Consensus ends, and with it the replica.
    #[error("consensus is gone")]
    ConsensusGone,
    /// The journal's disk is at fault.
    #[error("the journal cannot be read")]
    Journal(#[from] ArchiveError),
}

pub(super) struct Follower {
    config: CycleConfig,
    cycle: Cycle,
    height: Height,
    read: VecDeque<Arc<Block>>,
    /// The journal's owner. It ends when nobody can ask anything of it, and following alone shall not keep it.
    journal: mpsc::WeakSender<Request>,
}

impl Follower {
    /// Begins before the first block.
    pub(super) fn new(config: CycleConfig, journal: mpsc::WeakSender<Request>) -> Result<Self, GenesisError> {
        let cycle = fresh(&config)?;
        Ok(Self { config, cycle, height: Height::ZERO, read: VecDeque::new(), journal })
    }

    /// Begins before the first block again: a state does not go back.
    pub(super) fn restart(&mut self) {
        self.cycle = fresh(&self.config).expect("the same genesis was sound before");
        self.height = Height::ZERO;
        self.read.clear();
    }

    /// The height of the newest folded block.
    pub(super) const fn height(&self) -> Height {
        self.height
    }

    /// Agreed time after it.
    pub(super) fn agreed_time(&self) -> Option<UnixMillis> {
        self.cycle.state().now()
    }

    /// Folds the next committed block; `None` when there is none.
    pub(super) async fn next(&mut self) -> Result<Option<Folded>, FollowError> {
        if self.read.is_empty() {
            self.read = self.read_on().await?.into();
        }
        let Some(block) = self.read.pop_front() else { return Ok(None) };
        self.height = block.height();
        self.cycle.commit(&block);
        let mut folded = None;
        while let Some(output) = self.cycle.poll_output() {
            if let Output::Folded(changed) = output {
                folded = Some(changed);
            }
        }
        Ok(folded)
    }

    async fn read_on(&self) -> Result<Vec<Arc<Block>>, FollowError> {
        let journal = self.journal.upgrade().ok_or(FollowError::ConsensusGone)?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Read { above: self.height, answer };
        journal.send(request).await.map_err(|_| FollowError::ConsensusGone)?;
        drop(journal);
        Ok(answered.await.map_err(|_| FollowError::ConsensusGone)??)
    }
}

fn fresh(config: &CycleConfig) -> Result<Cycle, GenesisError> {
    let mut cycle = Cycle::new(config.clone())?;
    cycle.hold(Hold::Everything);
    Ok(cycle)
}
