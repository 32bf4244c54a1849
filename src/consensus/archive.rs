//! The archive: where the committed blocks lie in the journal, so that a fetch of blocks that memory no longer
//! holds is answered (rule F1).
//!
//! It holds places, never blocks, and neither writes nor decides who is answered. Invariant: the places are those of
//! the blocks that were committed one after the other above one height.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    base::BasePiece,
    block::{Block, BlockId},
    history::BASE,
    journal::{Disk, EntryLocation, Journal, JournalError},
    limits::{MAX_FETCHED_BLOCKS, MAX_FETCHED_BYTES, MAX_READ_BLOCKS, MAX_READ_BYTES},
    message::{BlockRequest, BlockResponse},
    record::Record,
};
use crate::types::Height;

/// The places of the committed blocks that one journal holds.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// The height below the first place.
    below: Height,
    committed: VecDeque<EntryLocation>,
    /// Blocks that are stored and may be committed yet.
    uncommitted: BTreeMap<BlockId, (Height, EntryLocation)>,
}

/// Why a fetch cannot be answered from the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The entry cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The entry is not the block that was committed.
    #[error("the journal's entry for height {0} is not the block that was committed there")]
    NotTheBlock(Height),
    /// The entries are not the snapshot that was certified.
    #[error("the journal's entries for the checkpoint at height {0} are not the snapshot that was certified")]
    NotTheSnapshot(Height),
    /// The blocks were removed: begin at a checkpoint.
    #[error("the journal holds no blocks up to height {through} any more")]
    Pruned {
        /// The newest height that was removed.
        through: Height,
    },
}

impl Archive {
    /// Takes note of a record that was appended, or that was read back at the start, in the order of the
    /// journal.
    pub(super) fn note(&mut self, record: &Record, location: EntryLocation) {
        match record {
            Record::Block(block) => {
                self.uncommitted.insert(block.id(), (block.height(), location));
            }
            Record::Committed { height, block, .. } => self.commit(*height, *block),
            Record::Proposal { .. }
            | Record::Vote { .. }
            | Record::Timeout(_)
            | Record::CheckpointVote(_)
            | Record::Forgotten(_) => {}
        }
    }

    fn commit(&mut self, height: Height, block: BlockId) {
        let place = self.uncommitted.get(&block).map(|(_, location)| *location);
        if let Some(place) = place.filter(|_| height == self.newest().next()) {
            self.committed.push_back(place);
        }
        self.uncommitted.retain(|_, (of, _)| *of > height);
    }

    /// The newest committed height.
    fn newest(&self) -> Height {
        Height::new(self.below.number().saturating_add(self.committed.len() as u64))
    }

    /// How many committed blocks it knows.
    pub(super) fn len(&self) -> usize {
        self.committed.len()
    }

    /// A base restates a block here.
    pub(super) fn move_block(&mut self, block: &Block, location: EntryLocation) {
        match self.index(block.height()) {
            Some(index) => self.committed[index] = location,
            None => {
                self.uncommitted.insert(block.id(), (block.height(), location));
            }
        }
    }

    /// As [`Self::move_block`], for a base that is read back: a committed block may be known from here only.
    pub(super) fn restate(&mut self, block: &Block, is_committed: bool, location: EntryLocation) {
        if block.height() > self.below {
            self.move_block(block, location);
            if is_committed && block.height() > self.newest() {
                self.commit(block.height(), block.id());
            }
        }
    }

    /// Blocks above this height are here without a gap.
    pub(super) const fn below(&self) -> Height {
        self.below
    }

    /// The blocks go on above this height: when that leaves a gap, those below it are given up.
    pub(super) fn begin_above(&mut self, height: Height) {
        if height > self.newest() {
            self.committed.clear();
            self.below = height;
            self.uncommitted.retain(|_, (of, _)| *of > height);
        }
    }

    /// The blocks up to this height are no longer in the journal.
    pub(super) fn forget_through(&mut self, height: Height) {
        while self.below < height && self.committed.pop_front().is_some() {
            self.below = self.below.next();
        }
    }

    /// Where a committed height stands among the places.
    fn index(&self, height: Height) -> Option<usize> {
        let above = height.number().checked_sub(self.below.number())?.checked_sub(1)?;
        usize::try_from(above).ok().filter(|index| *index < self.committed.len())
    }

    /// The blocks asked for, lowest first and within the limits of an answer; `None` when there is nothing
    /// to say. The journal's entries of the noted places are the records' canonical bytes.
    ///
    /// A block is given out with the justification of the next one as its certificate. So the newest
    /// committed block is never given out from here: memory has it.
    ///
    /// # Errors
    /// [`ArchiveError::Pruned`] when the first of them was removed; else the journal's disk is at fault.
    pub(super) fn answer<D: Disk>(
        &self,
        journal: &Journal<D>,
        request: &BlockRequest,
    ) -> Result<Option<BlockResponse>, ArchiveError> {
        self.check_above(request.above)?;
        let mut blocks: Vec<Arc<Block>> = Vec::new();
        let mut bytes = 0;
        let mut height = request.above;
        let tip = loop {
            height = height.next();
            let Some(block) = self.read(journal, height)? else {
                break blocks.pop().map(|last| last.justify().clone());
            };
            if blocks.last().is_some_and(|before| before.id() != block.parent()) {
                return Err(ArchiveError::NotTheBlock(height));
            }
            let fits = blocks.is_empty() || bytes + block.size_bytes() <= MAX_FETCHED_BYTES;
            if height > request.target_height || blocks.len() == MAX_FETCHED_BLOCKS || !fits {
                break Some(block.justify().clone());
            }
            bytes += block.size_bytes();
            blocks.push(block);
        };
        Ok(tip.filter(|_| !blocks.is_empty()).map(|tip| BlockResponse { blocks, tip }))
    }

    /// The committed blocks above a height, lowest first: a piece of them, none when that height is the newest.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub(super) fn blocks_above<D: Disk>(
        &self,
        journal: &Journal<D>,
        above: Height,
    ) -> Result<Vec<Arc<Block>>, ArchiveError> {
        self.check_above(above)?;
        let mut blocks = Vec::new();
        let (mut bytes, mut height) = (0, above.next());
        while blocks.len() < MAX_READ_BLOCKS
            && bytes < MAX_READ_BYTES
            && let Some(block) = self.read(journal, height)?
        {
            bytes += block.size_bytes();
            height = height.next();
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// All committed blocks above a height, lowest first.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub(super) fn all_above<D: Disk>(
        &self,
        journal: &Journal<D>,
        above: Height,
    ) -> Result<Vec<Arc<Block>>, ArchiveError> {
        self.check_above(above)?;
        let mut blocks = Vec::new();
        let mut height = above.next();
        while let Some(block) = self.read(journal, height)? {
            height = height.next();
            blocks.push(block);
        }
        Ok(blocks)
    }

    fn check_above(&self, above: Height) -> Result<(), ArchiveError> {
        if above < self.below { Err(ArchiveError::Pruned { through: self.below }) } else { Ok(()) }
    }

    fn read<D: Disk>(
        &self,
        journal: &Journal<D>,
        height: Height,
    ) -> Result<Option<Arc<Block>>, ArchiveError> {
        let Some(index) = self.index(height) else { return Ok(None) };
        let (kind, payload) = journal.read(self.committed[index])?;
        let block = match kind {
            BASE => match borsh::from_slice(&payload) {
                Ok(BasePiece::Block { block, .. }) => Some(block),
                Ok(_) | Err(_) => None,
            },
            _ => match borsh::from_slice(&payload) {
                Ok(Record::Block(block)) => Some(block),
                Ok(_) | Err(_) => None,
            },
        };
        let block = block.filter(|block: &Arc<Block>| block.height() == height);
        block.map(Some).ok_or(ArchiveError::NotTheBlock(height))
    }
}

#[cfg(test)]
mod tests {
    use super::{Archive, BlockRequest};
    use crate::consensus::{
        Block, Command, Payload, QuorumCertificate, Record,
        journal::{
            Journal,
            tests::{config, memory::MemoryDisk},
        },
        limits::{MAX_FETCHED_BLOCKS, MAX_FETCHED_BYTES, MAX_READ_BLOCKS, MAX_READ_BYTES},
    };
    use crate::types::{Committee, Digest, Epoch, Height, ReplicaIndex, SecretKey, View};
    use std::sync::Arc;

    /// An archive of a chain of blocks with one command of so many bytes each, all but the last committed.
    fn chain(blocks: u64, command_bytes: usize) -> (Archive, Journal<MemoryDisk>, Vec<Arc<Block>>) {
        let key = SecretKey::from_seed(&[1; 32]).public();
        let committee = Committee::new(Digest::of(b"test"), Epoch::new(1), vec![key]).expect("one key");
        let (mut journal, _) =
            Journal::open(MemoryDisk::default(), config(1 << 20), |_| ()).expect("a new journal");
        let mut archive = Archive::default();
        let mut append = |record: &Record| {
            let payload = borsh::to_vec(record).expect("in memory");
            archive.note(record, journal.append(1, &payload).expect("the disk works"));
        };
        let mut chain = Vec::new();
        let mut justify = QuorumCertificate::genesis(&committee);
        for number in 1..=blocks {
            let command = Command::new(number.to_le_bytes().to_vec(), vec![0; command_bytes]);
            let payload = Payload::new(vec![command.expect("small")]);
            let view = View::new(number);
            let block = Arc::new(Block::new(view, ReplicaIndex::new(0), justify, payload));
            append(&Record::Block(Arc::clone(&block)));
            justify =
                QuorumCertificate { view, height: block.height(), block: block.id(), signatures: Vec::new() };
            if number < blocks {
                let (height, block, certificate) = (block.height(), block.id(), justify.clone());
                append(&Record::Committed { height, block, certificate });
            }
            chain.push(block);
        }
        (archive, journal, chain)
    }

    fn request(above: u64, target: u64) -> BlockRequest {
        let target_height = Height::new(target);
        BlockRequest { target: Digest::ZERO, target_height, above: Height::new(above) }
    }

    #[test]
    fn a_fetch_is_answered_with_the_blocks_asked_for_and_a_certificate_of_the_last() {
        let (archive, journal, chain) = chain(200, 0);
        let most = MAX_FETCHED_BLOCKS as u64;
        // Above, target, the heights of the answer.
        let cases = [
            (0, 10, Some((1, 10))),
            (7, 8, Some((8, 8))),
            (0, 190, Some((1, most))),
            // Height 199 is the newest committed one.
            (150, 300, Some((151, 198))),
            (198, 300, None),
            (500, 600, None),
            (8, 8, None),
        ];
        for (above, target, expected) in cases {
            let answer = archive.answer(&journal, &request(above, target)).expect("the disk works");
            let heights = answer.as_ref().map(|answer| {
                assert!(answer.blocks.windows(2).all(|pair| pair[0].id() == pair[1].parent()));
                let (first, last) = (&answer.blocks[0], &answer.blocks[answer.blocks.len() - 1]);
                assert_eq!(answer.tip.block, last.id());
                assert!(chain.iter().any(|block| block.id() == first.id()));
                (first.height().number(), last.height().number())
            });
            assert_eq!(heights, expected, "above {above}, target {target}");
        }
    }

    #[test]
    fn all_committed_blocks_are_read_in_order_piece_by_piece() {
        let large = MAX_READ_BYTES / 2 - 1;
        for (blocks, command_bytes, expected_piece) in [(200, 0, MAX_READ_BLOCKS), (9, large, 3)] {
            let (archive, journal, chain) = chain(blocks, command_bytes);
            let mut read = Vec::new();
            loop {
                let above = Height::new(read.len() as u64);
                let piece = archive.blocks_above(&journal, above).expect("the disk works");
                assert!(piece.len() <= expected_piece, "{}", piece.len());
                if piece.is_empty() {
                    break;
                }
                read.extend(piece);
            }
            let ids = |blocks: &[Arc<Block>]| blocks.iter().map(|block| block.id()).collect::<Vec<_>>();
            assert_eq!(ids(&read), ids(&chain[..chain.len() - 1]), "the newest block is not committed");
        }
    }

    #[test]
    fn an_answer_keeps_within_its_bytes_and_always_has_one_block() {
        let command_bytes = MAX_FETCHED_BYTES / 5 * 2;
        let (archive, journal, _) = chain(5, command_bytes);
        let answer = archive.answer(&journal, &request(0, 4)).expect("the disk works");
        assert_eq!(answer.map(|answer| answer.blocks.len()), Some(2));
    }
}
