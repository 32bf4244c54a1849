//! The log folded once more, as far as the store is.
//!
//! It is a control cycle that endorses nothing: only what blocks change is taken from it, so what is stored is what the
//! replica itself derived. It begins with the newest state that the journal has at or below what is stored. Invariant: it
//! holds at most one piece of the log that is not folded yet.

use std::{collections::VecDeque, sync::Arc};
use tokio::sync::{mpsc, oneshot};

use crate::{
    consensus::{ArchiveError, Base, Block, task::Request},
    cycle::{Cycle, CycleConfig, Folded, Hold, Output},
    knowledge::{fold::RestoreError, genesis::GenesisError, store::StoreBase},
    types::{Height, UnixMillis},
};

/// Why there is no next block.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// Consensus ends, and with it the replica.
    #[error("consensus is gone")]
    ConsensusGone,
    /// The journal holds the next block no more: the log must be taken up anew.
    #[error("the journal begins above the next block")]
    Pruned,
    /// The journal's disk is at fault.
    #[error("the journal cannot be read")]
    Journal(#[source] ArchiveError),
    /// A state of the journal cannot be read.
    #[error("the journal's state at height {0} cannot be read")]
    State(Height, #[source] RestoreError),
}

impl From<ArchiveError> for FollowError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Pruned { .. } => Self::Pruned,
            ArchiveError::Journal(_) | ArchiveError::NotTheBlock(_) | ArchiveError::NotTheSnapshot(_) => {
                Self::Journal(error)
            }
        }
    }
}

/// A committed block that was folded.
pub(super) struct Followed {
    /// The block and what it changed.
    pub(super) folded: Folded,
    /// What plans that were derived at it name as their evidence.
    pub(super) bundles: Vec<Arc<[u8]>>,
}

pub(super) struct Follower {
    config: CycleConfig,
    cycle: Cycle,
    /// The height of the newest folded block; `None` until the log is taken up.
    height: Option<Height>,
    read: VecDeque<Arc<Block>>,
    /// The journal's owner. It ends when nobody can ask anything of it, and following alone shall not keep it.
    journal: mpsc::WeakSender<Request>,
}

impl Follower {
    /// Follows nothing yet.
    pub(super) fn new(config: CycleConfig, journal: mpsc::WeakSender<Request>) -> Result<Self, GenesisError> {
        let cycle = fresh(&config)?;
        Ok(Self { config, cycle, height: None, read: VecDeque::new(), journal })
    }

    /// Takes the log up, so that the block above a height can be reached, or the lowest above it that the journal still
    /// leads to: then it gives the state below that block, and the heights up to there are missing.
    pub(super) async fn begin(&mut self, stored: Height) -> Result<Option<StoreBase>, FollowError> {
        self.cycle = fresh(&self.config).expect("the same genesis was sound before");
        (self.height, self.read) = (None, VecDeque::new());
        let base = self.ask(|answer| Request::ReadBase { for_height: stored, answer }).await??;
        let Some(Base { checkpoint, snapshot }) = base else {
            self.height = Some(Height::ZERO);
            return Ok(None);
        };
        let height = checkpoint.height();
        self.cycle.install(&snapshot.to_bytes()).map_err(|error| FollowError::State(height, error))?;
        self.height = Some(height);
        let state = self.cycle.state();
        Ok((height > stored).then(|| StoreBase {
            height,
            block: checkpoint.checkpoint().block,
            state: checkpoint.checkpoint().state.root(),
            agreed_time: state.now().unwrap_or_default(),
            plans: state.newest_plans().cloned().collect(),
        }))
    }

    /// The height of the newest folded block; `None` until the log is taken up.
    pub(super) const fn height(&self) -> Option<Height> {
        self.height
    }

    /// Agreed time after it.
    pub(super) fn agreed_time(&self) -> Option<UnixMillis> {
        self.cycle.state().now()
    }

    /// Folds the next committed block; `None` when there is none.
    pub(super) async fn next(&mut self) -> Result<Option<Followed>, FollowError> {
        let Some(height) = self.height else { return Ok(None) };
        if self.read.is_empty() {
            self.read = self.read_above(height).await?.into();
        }
        let Some(block) = self.read.pop_front() else { return Ok(None) };
        self.height = Some(block.height());
        self.cycle.commit(&block);
        let (mut folded, mut bundles) = (None, Vec::new());
        while let Some(output) = self.cycle.poll_output() {
            match output {
                Output::Folded(changed) => folded = Some(changed),
                Output::Decided(decided) => bundles.extend(decided.bundle),
                Output::Seal(_)
                | Output::Endorse(_)
                | Output::Submit(_)
                | Output::PlanCertified(_)
                | Output::HeadCertified(_)
                | Output::Alarm(_) => {}
            }
        }
        Ok(folded.map(|folded| Followed { folded, bundles }))
    }

    /// Tells the journal's owner that only blocks above this height are still needed.
    pub(super) async fn keep_above(&self, stored: Height) {
        if let Some(journal) = self.journal.upgrade() {
            // Without its owner the journal is not pruned either.
            let _ = journal.send(Request::KeepAbove(stored)).await;
        }
    }

    async fn read_above(&self, above: Height) -> Result<Vec<Arc<Block>>, FollowError> {
        Ok(self.ask(|answer| Request::Read { above, answer }).await??)
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, FollowError> {
        let journal = self.journal.upgrade().ok_or(FollowError::ConsensusGone)?;
        let (answer, answered) = oneshot::channel();
        journal.send(request(answer)).await.map_err(|_| FollowError::ConsensusGone)?;
        drop(journal);
        answered.await.map_err(|_| FollowError::ConsensusGone)
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

    use super::{FollowError, Followed, Follower};
    use crate::{
        consensus::{
            ArchiveError, Base, Block, Checkpoint, CheckpointCertificate, Command, Payload,
            QuorumCertificate, Snapshot, StableCheckpoint, task::Request,
        },
        cycle::{Cycle, CycleConfig},
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

    /// The journal's owner: it gives pieces of the chain, and each height that it was asked for is told. Blocks up to
    /// that of its base are gone.
    fn owner(
        chain: Vec<Arc<Block>>,
        base: Option<Base>,
    ) -> (mpsc::Sender<Request>, mpsc::UnboundedReceiver<Height>) {
        let (requests, mut asked) = mpsc::channel(1);
        let (tell, told) = mpsc::unbounded_channel();
        let through = base.as_ref().map_or(Height::ZERO, |base| base.checkpoint.height());
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                match request {
                    Request::ReadBase { answer, .. } => drop(answer.send(Ok(base.clone()))),
                    Request::Read { above, answer } if above < through => {
                        drop(answer.send(Err(ArchiveError::Pruned { through })));
                    }
                    Request::Read { above, answer } => {
                        let _ = tell.send(above);
                        let from = usize::try_from(above.number()).expect("a small height").min(chain.len());
                        let piece = chain[from..].iter().take(PIECE).cloned().collect();
                        let _ = answer.send(Ok(piece));
                    }
                    other @ (Request::Submit { .. }
                    | Request::Endorse { .. }
                    | Request::Remind { .. }
                    | Request::Checkpoint { .. }
                    | Request::KeepAbove(_)) => panic!("a follower asks no {other:?}"),
                }
            }
        });
        (requests, told)
    }

    #[tokio::test]
    async fn the_log_is_read_piece_by_piece_and_again_from_its_beginning() {
        let chain = chain(5);
        let (requests, mut told) = owner(chain.clone(), None);
        let mut follower = Follower::new(config(), requests.downgrade()).expect("the genesis is sound");
        assert!(follower.next().await.expect("it asks nobody").is_none(), "the log is not taken up");
        for _ in 0..2 {
            assert_eq!(follower.begin(Height::new(4)).await.expect("it answers"), None);
            for block in &chain {
                let Followed { folded, .. } =
                    follower.next().await.expect("it answers").expect("there is one more");
                assert_eq!((folded.block.id(), folded.changes.len()), (block.id(), 1));
                assert_eq!(follower.height(), Some(block.height()));
            }
            assert!(follower.next().await.expect("it answers").is_none(), "the newest was the last");
        }
        drop(requests);
        let mut asked = Vec::new();
        while let Some(above) = told.recv().await {
            asked.push(above.number());
        }
        assert_eq!(asked, [0, 3, 5, 0, 3, 5], "no piece is asked for before the last one is folded");
        assert!(matches!(follower.next().await, Err(FollowError::ConsensusGone)));
    }

    /// The state after the first blocks, as a checkpoint that nobody has signed.
    fn base(chain: &[Arc<Block>]) -> Base {
        let mut cycle = Cycle::new(config()).expect("the genesis is sound");
        chain.iter().for_each(|block| cycle.commit(block));
        let snapshot = Snapshot::of(&cycle.snapshot()).expect("it is small");
        let last = chain.last().expect("there is a block");
        let checkpoint =
            Checkpoint { height: last.height(), view: last.view(), block: last.id(), state: snapshot.id() };
        let qc = QuorumCertificate {
            view: last.view(),
            height: last.height(),
            block: last.id(),
            signatures: Vec::new(),
        };
        let certificate = CheckpointCertificate { checkpoint, signatures: Vec::new() };
        Base { checkpoint: StableCheckpoint { certificate, qc }, snapshot }
    }

    #[tokio::test]
    async fn the_log_is_taken_up_at_a_checkpoint_and_what_is_missing_below_it_is_said() {
        let chain = chain(5);
        let (requests, _told) = owner(chain.clone(), Some(base(&chain[..3])));
        let mut follower = Follower::new(config(), requests.downgrade()).expect("the genesis is sound");
        // What is stored, and whether heights below the checkpoint are missing.
        for (stored, is_missing) in [(1, true), (3, false), (4, false)] {
            let missing = follower.begin(Height::new(stored)).await.expect("it answers");
            let expected = is_missing.then(|| (Height::new(3), chain[2].id()));
            assert_eq!(missing.map(|base| (base.height, base.block)), expected, "{stored} are stored");
            let Followed { folded, .. } =
                follower.next().await.expect("it answers").expect("there is one more");
            assert_eq!(folded.block.id(), chain[3].id());
        }
    }
}
