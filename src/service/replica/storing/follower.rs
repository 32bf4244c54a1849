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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use tokio::sync::mpsc;

    use super::{FollowError, Follower};
    use crate::{
        consensus::{Block, Command, Payload, QuorumCertificate, task::Request},
        cycle::CycleConfig,
        knowledge::{
            fixtures::verified_root,
            genesis::{Genesis, Parameters},
        },
        types::{Committee, Digest, Epoch, Height, Millis, ReplicaIndex, SecretKey, View},
    };

    /// How many blocks the journal's owner gives at once.
    const PIECE: usize = 3;

    fn config() -> CycleConfig {
        let key = SecretKey::from_seed(&[1; 32]);
        let keys = vec![key.public()];
        let committee = Committee::new(Digest::of(b"test"), Epoch::new(1), keys).expect("one key");
        let parameters = Parameters::for_window(Millis::from_secs(10));
        let genesis = Genesis { parameters, targets: Vec::new(), policies: Vec::new() };
        let (operators, me) = (verified_root().operators().clone(), ReplicaIndex::new(0));
        CycleConfig { genesis, committee: Arc::new(committee), operators, me, key }
    }

    /// Blocks with one command each that is no command.
    fn chain(blocks: u64) -> Vec<Arc<Block>> {
        let mut chain = Vec::new();
        let mut justify = QuorumCertificate::genesis(&config().committee);
        for number in 1..=blocks {
            let view = View::new(number);
            let command = Command::new(number.to_le_bytes().to_vec(), Vec::new()).expect("small");
            let payload = Payload::new(vec![command]);
            let block = Arc::new(Block::new(view, ReplicaIndex::new(0), justify, payload));
            let (height, id) = (block.height(), block.id());
            justify = QuorumCertificate { view, height, block: id, signatures: Vec::new() };
            chain.push(block);
        }
        chain
    }

    /// The journal's owner: it gives pieces of the chain, and each height that it was asked for is told.
    fn owner(chain: Vec<Arc<Block>>) -> (mpsc::Sender<Request>, mpsc::UnboundedReceiver<Height>) {
        let (requests, mut asked) = mpsc::channel(1);
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Request::Read { above, answer }) = asked.recv().await {
                let _ = tell.send(above);
                let from = usize::try_from(above.number()).expect("a small height").min(chain.len());
                let piece = chain[from..].iter().take(PIECE).cloned().collect();
                let _ = answer.send(Ok(piece));
            }
        });
        (requests, told)
    }

    #[tokio::test]
    async fn the_log_is_read_piece_by_piece_and_again_from_its_beginning() {
        let chain = chain(5);
        let (requests, mut told) = owner(chain.clone());
        let mut follower = Follower::new(config(), requests.downgrade()).expect("the genesis is sound");
        for _ in 0..2 {
            for block in &chain {
                let folded = follower.next().await.expect("it answers").expect("there is one more");
                assert_eq!((folded.block.id(), folded.changes.len()), (block.id(), 1));
                assert_eq!(follower.height(), block.height());
            }
            assert!(follower.next().await.expect("it answers").is_none(), "the newest was the last");
            follower.restart();
        }
        drop(requests);
        let mut asked = Vec::new();
        while let Some(above) = told.recv().await {
            asked.push(above.number());
        }
        assert_eq!(asked, [0, 3, 5, 0, 3, 5], "no piece is asked for before the last one is folded");
        assert!(matches!(follower.next().await, Err(FollowError::ConsensusGone)));
    }
}
