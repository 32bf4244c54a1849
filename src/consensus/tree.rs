//! The block tree: committed blocks end in one tip, uncommitted ones grow from it.
//!
//! Invariant: the committed chain only grows, by direct parents, each height once, but where it begins at a
//! certified checkpoint.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    block::{Block, BlockId, Command},
    certificate::QuorumCertificate,
    limits::{COMMITTED_BLOCKS_IN_MEMORY, COMMITTED_BYTES_IN_MEMORY, MAX_TREE_BLOCKS},
};
use crate::types::{Committee, Height, ReplicaIndex, View};

/// A committed block with a certificate of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedBlock {
    /// The block.
    pub block: Arc<Block>,
    /// A quorum's votes for it.
    pub certificate: QuorumCertificate,
}

#[derive(Clone, Debug)]
pub(super) struct BlockTree {
    committed_height: Height,
    committed_id: BlockId,
    committed_view: View,
    recent: VecDeque<CommittedBlock>,
    /// Bytes of the commands in `recent`.
    recent_bytes: usize,
    uncommitted: BTreeMap<BlockId, Arc<Block>>,
}

impl BlockTree {
    pub(super) fn new(committee: &Committee) -> Self {
        Self {
            committed_height: Height::ZERO,
            committed_id: Block::genesis_id(committee),
            committed_view: View::ZERO,
            recent: VecDeque::new(),
            recent_bytes: 0,
            uncommitted: BTreeMap::new(),
        }
    }

    pub(super) const fn committed_height(&self) -> Height {
        self.committed_height
    }

    pub(super) fn uncommitted_blocks(&self) -> usize {
        self.uncommitted.len()
    }

    pub(super) const fn committed_view(&self) -> View {
        self.committed_view
    }

    /// An uncommitted block, or one of the newest committed ones.
    pub(super) fn get(&self, id: BlockId) -> Option<&Arc<Block>> {
        self.uncommitted.get(&id).or_else(|| self.recent_block(id).map(|committed| &committed.block))
    }

    pub(super) fn recent_block(&self, id: BlockId) -> Option<&CommittedBlock> {
        self.recent.iter().rev().find(|committed| committed.block.id() == id)
    }

    /// The lowest committed height in memory; one above the tip when there is none.
    pub(super) fn lowest_in_memory(&self) -> Height {
        self.recent.front().map_or_else(|| self.committed_height.next(), |committed| committed.block.height())
    }

    /// The newest committed blocks above a height, lowest first.
    pub(super) fn recent_above(&self, height: Height) -> impl Iterator<Item = &CommittedBlock> {
        self.recent.iter().filter(move |committed| committed.block.height() > height)
    }

    /// A certificate for a block: that of a child in the tree, or the one it was committed with.
    pub(super) fn certificate_of(&self, id: BlockId) -> Option<&QuorumCertificate> {
        self.uncommitted
            .values()
            .map(|block| block.justify())
            .find(|justify| justify.block == id)
            .or_else(|| self.recent_block(id).map(|committed| &committed.certificate))
    }

    pub(super) fn contains(&self, id: BlockId) -> bool {
        id == self.committed_id || self.get(id).is_some()
    }

    pub(super) fn insert(&mut self, block: Arc<Block>) {
        self.uncommitted.insert(block.id(), block);
    }

    /// The blocks from above the committed tip up to this one, lowest first; `None` when an ancestor is
    /// missing or the block does not descend from the tip.
    pub(super) fn path(&self, id: BlockId) -> Option<Vec<Arc<Block>>> {
        let mut path = Vec::new();
        let mut at = id;
        while at != self.committed_id {
            let block = self.uncommitted.get(&at)?;
            path.push(Arc::clone(block));
            at = block.parent();
        }
        path.reverse();
        Some(path)
    }

    /// The commands of all uncommitted blocks with their proposers, for a replica that starts again.
    pub(super) fn uncommitted_commands(&self) -> Vec<(ReplicaIndex, Command)> {
        self.uncommitted
            .values()
            .flat_map(|block| {
                block.payload().commands().iter().map(|command| (block.proposer(), command.clone()))
            })
            .collect()
    }

    /// Moves the tip to a block that is committed and not here, with all below it.
    pub(super) fn begin_at(&mut self, height: Height, view: View, id: BlockId) {
        assert!(height > self.committed_height, "the committed chain only grows");
        (self.committed_height, self.committed_view, self.committed_id) = (height, view, id);
        self.recent.clear();
        self.recent_bytes = 0;
        self.uncommitted.retain(|_, block| block.height() > height);
    }

    /// Gives up the committed blocks up to a height below the newest one: nobody is served them any more.
    pub(super) fn forget_through(&mut self, height: Height) {
        while self.recent.len() > 1
            && self.recent.front().is_some_and(|oldest| oldest.block.height() <= height)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.recent.pop_front() {
            self.recent_bytes -= oldest.block.size_bytes();
        }
    }

    /// The uncommitted blocks, lowest first.
    pub(super) fn uncommitted(&self) -> Vec<Arc<Block>> {
        let mut blocks: Vec<_> = self.uncommitted.values().cloned().collect();
        blocks.sort_by_key(|block| block.height());
        blocks
    }

    /// The certificate of the newest committed block, if that is in memory.
    pub(super) fn tip_certificate(&self) -> Option<&QuorumCertificate> {
        self.recent.back().map(|committed| &committed.certificate)
    }

    /// Moves the tip to the next block of the path.
    pub(super) fn commit(&mut self, block: Arc<Block>, certificate: QuorumCertificate) -> CommittedBlock {
        assert_eq!(block.parent(), self.committed_id, "a committed block's parent is the tip");
        assert_eq!(block.height(), self.committed_height.next(), "heights rise by one");
        assert_eq!(certificate.block, block.id(), "the certificate is the block's");
        self.committed_height = block.height();
        self.committed_id = block.id();
        self.committed_view = block.view();
        self.recent_bytes += block.size_bytes();
        let committed = CommittedBlock { block, certificate };
        self.recent.push_back(committed.clone());
        // The newest one stays whatever its size: the next block's parent and its certificate are asked for.
        while self.recent.len() > 1
            && (self.recent.len() > COMMITTED_BLOCKS_IN_MEMORY
                || self.recent_bytes > COMMITTED_BYTES_IN_MEMORY)
        {
            self.forget_oldest();
        }
        committed
    }

    /// Drops what can never be committed any more, and past the bound what `keep` does not build on.
    pub(super) fn prune(&mut self, keep: BlockId) {
        let height = self.committed_height;
        self.uncommitted.retain(|_, block| block.height() > height);
        if self.uncommitted.len() > MAX_TREE_BLOCKS
            && let Some(kept) = self.path(keep)
        {
            self.uncommitted = kept.into_iter().map(|block| (block.id(), block)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::BlockTree;
    use crate::consensus::{
        Block, Command, Payload, QuorumCertificate,
        limits::{COMMITTED_BLOCKS_IN_MEMORY, COMMITTED_BYTES_IN_MEMORY},
    };
    use crate::types::{Committee, Digest, Epoch, Height, ReplicaIndex, SecretKey, View};
    use std::sync::Arc;

    /// Commits a chain of blocks of so many bytes each, and gives how many stay in memory.
    fn kept_of(blocks: u64, block_bytes: usize) -> usize {
        let key = SecretKey::from_seed(&[1; 32]).public();
        let committee = Committee::new(Digest::of(b"test"), Epoch::new(1), vec![key]).expect("one key");
        let mut tree = BlockTree::new(&committee);
        let mut justify = QuorumCertificate::genesis(&committee);
        for number in 1..=blocks {
            // A single command may not be as large as the block.
            let half = [vec![0; block_bytes / 2], vec![1; block_bytes - block_bytes / 2]];
            let commands = half.map(|body| Command::new(Vec::new(), body).expect("small"));
            let payload = Payload::new(commands.to_vec());
            let view = View::new(number);
            let block = Arc::new(Block::new(view, ReplicaIndex::new(0), justify, payload));
            let signatures = Vec::new();
            justify = QuorumCertificate { view, height: block.height(), block: block.id(), signatures };
            tree.insert(Arc::clone(&block));
            tree.commit(block, justify.clone());
            tree.prune(justify.block);
        }
        assert_eq!(
            tree.recent_above(Height::ZERO).last().map(|newest| newest.block.id()),
            Some(justify.block)
        );
        assert_eq!(tree.recent_bytes, tree.recent.iter().map(|kept| kept.block.size_bytes()).sum::<usize>());
        tree.recent.len()
    }

    #[test]
    fn committed_blocks_in_memory_are_bounded_in_number_and_in_bytes_and_the_newest_stays() {
        let small = COMMITTED_BLOCKS_IN_MEMORY as u64;
        assert_eq!(kept_of(small - 1, 8), COMMITTED_BLOCKS_IN_MEMORY - 1);
        assert_eq!(kept_of(2 * small, 8), COMMITTED_BLOCKS_IN_MEMORY);
        assert_eq!(kept_of(9, COMMITTED_BYTES_IN_MEMORY / 3), 3);
        assert_eq!(kept_of(9, COMMITTED_BYTES_IN_MEMORY / 2), 2);
        assert_eq!(kept_of(9, COMMITTED_BYTES_IN_MEMORY / 2 + 2), 1);
    }
}
