//! The history: the journal as consensus writes it, with its bases (rule K3). It is read back at a start, appended
//! to, asked for blocks and snapshots, and shortened from its beginning.
//!
//! It decides neither what is signed nor when anything is synced, but for a base, which is durable before anything
//! older is removed. Invariant: what a start would read back begins at a whole base or at the first block.

use std::collections::VecDeque;

use super::{
    archive::{Archive, ArchiveError},
    base::{Base, BasePiece, ReadBase, Restated},
    block::Block,
    certificate::QuorumCertificate,
    checkpoint::StableCheckpoint,
    core::{Config, Core, Recovery, RecoveryError},
    journal::{Disk, Entry, EntryLocation, Journal, JournalConfig, JournalError, OpenError, TornTail},
    limits::{MAX_KEPT_CHECKPOINTS, MAX_NAMED_SNAPSHOTS},
    message::{BlockRequest, BlockResponse},
    record::Record,
    snapshot::Snapshot,
    tree::CommittedBlock,
};
use crate::types::Height;
use std::sync::Arc;

/// The kind of a consensus record in the journal.
pub const RECORD: u8 = 1;

/// The kind of an application's note in the journal.
pub const NOTE: u8 = 2;

/// The kind of a base's entries in the journal.
pub const BASE: u8 = 3;

/// Why a journal is no replica's history. The replica must not sign anything.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The journal itself is unusable.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// Its records contradict each other.
    #[error(transparent)]
    Records(#[from] RecoveryError),
    /// An entry is of no known form.
    #[error("it holds an entry that this version does not know")]
    UnknownEntry,
    /// Its first segments are gone, and nothing in it says what they held.
    #[error("it does not begin at the first block and holds no whole checkpoint to begin at")]
    NoBeginning,
    /// A base cannot be read again.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// What was read back.
#[derive(Debug)]
pub struct Recovered {
    /// The application's notes, in order.
    pub notes: Vec<Vec<u8>>,
    /// The state to begin with; `None` when the blocks begin at height 1.
    pub base: Option<Base>,
    /// The committed blocks above the base, lowest first.
    pub blocks: Vec<CommittedBlock>,
    /// A torn tail that was cut off.
    pub torn: Option<TornTail>,
}

/// What a peer's request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These blocks.
    Blocks(BlockResponse),
    /// The blocks are gone: a checkpoint above them.
    Checkpoint(StableCheckpoint),
    /// There is nothing to say.
    Nothing,
}

/// A replica's history on its disk.
#[derive(Debug)]
pub struct History<D> {
    journal: Journal<D>,
    archive: Archive,
    /// The bases in the journal, oldest first.
    bases: VecDeque<StoredBase>,
    /// Whether the journal still begins at the first block.
    is_complete: bool,
    /// The notes that a start would give.
    notes: Vec<Vec<u8>>,
    /// Snapshots that the application named and no certificate is of yet.
    named: VecDeque<Named>,
    /// The height above which the application still needs blocks; `None`: it needs none.
    keep_above: Option<Height>,
}

/// Where a base lies.
#[derive(Debug)]
struct StoredBase {
    segment: u64,
    checkpoint: StableCheckpoint,
    chunks: Vec<EntryLocation>,
}

#[derive(Debug)]
struct Named {
    height: Height,
    snapshot: Snapshot,
    /// Restated by the application, and those that came later.
    notes: Vec<Vec<u8>>,
}

impl<D: Disk> History<D> {
    /// Opens the journal and reads a replica back from it.
    ///
    /// # Errors
    /// [`HistoryError`] says why this replica must not take part.
    pub fn open(
        disk: D,
        journal: JournalConfig,
        config: Config,
    ) -> Result<(Self, Core, Recovered), HistoryError> {
        let mut reading = Reading::new(config);
        let mut failed = None;
        let (journal, read) = Journal::open(disk, journal, |entry| {
            if failed.is_none() {
                failed = reading.entry(&entry).err();
            }
        })?;
        if let Some(failed) = failed {
            return Err(failed);
        }
        if reading.is_headless {
            return Err(HistoryError::NoBeginning);
        }
        let Reading { recovery, archive, bases, notes, .. } = reading;
        // Certificates may commit more than the records say; those blocks are put out by the core.
        let tip = recovery.tip_certificate().cloned();
        let core = recovery.finish();
        let is_complete = read.first_segment == 1;
        let (named, keep_above) = (VecDeque::new(), None);
        let history = Self { journal, archive, bases, is_complete, notes, named, keep_above };
        let base = history.bases.back().map(|base| history.read_base(base)).transpose()?;
        let above = base.as_ref().map_or(Height::ZERO, |base| base.checkpoint.height());
        let blocks = history.committed_above(above, tip.as_ref())?;
        let recovered = Recovered { notes: history.notes.clone(), base, blocks, torn: read.torn };
        Ok((history, core, recovered))
    }

    /// Appends a record. It is durable after the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`JournalError`], as of [`Journal::append`].
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let payload = borsh::to_vec(record).expect("writing to memory does not fail");
        let location = self.journal.append(RECORD, &payload)?;
        self.archive.note(record, location);
        Ok(())
    }

    /// Appends a note of the application's. It is durable after the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`JournalError`], as of [`Journal::append`].
    pub fn note(&mut self, note: Vec<u8>) -> Result<(), JournalError> {
        self.journal.append(NOTE, &note)?;
        self.named.iter_mut().for_each(|named| named.notes.push(note.clone()));
        self.notes.push(note);
        Ok(())
    }

    /// Makes all that was appended durable.
    ///
    /// # Errors
    /// [`JournalError::Failed`] now and ever after.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.journal.sync()
    }

    /// The application named its state at a height: its snapshot waits for a certificate, with the notes that the
    /// application restates.
    pub fn name_state(&mut self, height: Height, snapshot: Snapshot, notes: Vec<Vec<u8>>) {
        self.named.retain(|named| named.height != height);
        self.named.push_back(Named { height, snapshot, notes });
        if self.named.len() > MAX_NAMED_SNAPSHOTS {
            self.named.pop_front();
        }
    }

    /// The application still needs the blocks above this height.
    pub const fn keep_above(&mut self, height: Height) {
        self.keep_above = Some(height);
    }

    /// Writes the base of a checkpoint whose state was named and is here still, and removes what is older than the
    /// base before it. It is durable then.
    ///
    /// # Errors
    /// [`JournalError`], as of [`Journal::append`].
    pub fn stable(&mut self, checkpoint: StableCheckpoint, restated: &Restated) -> Result<(), JournalError> {
        let height = checkpoint.height();
        while self.named.front().is_some_and(|named| named.height < height) {
            self.named.pop_front();
        }
        match self.named.front() {
            Some(named) if named.height == height => {}
            Some(_) | None => return Ok(()),
        }
        match self.named.pop_front() {
            Some(Named { snapshot, notes, .. }) => self.write_base(checkpoint, &snapshot, notes, restated),
            None => Ok(()),
        }
    }

    /// Writes the base of a checkpoint that came from peers, as [`Self::stable`] does; all notes stay.
    ///
    /// # Errors
    /// [`JournalError`], as of [`Journal::append`].
    pub fn install(
        &mut self,
        checkpoint: StableCheckpoint,
        snapshot: &Snapshot,
        restated: &Restated,
    ) -> Result<(), JournalError> {
        self.named.clear();
        self.archive.begin_above(checkpoint.height());
        self.write_base(checkpoint, snapshot, self.notes.clone(), restated)
    }

    fn write_base(
        &mut self,
        checkpoint: StableCheckpoint,
        snapshot: &Snapshot,
        notes: Vec<Vec<u8>>,
        restated: &Restated,
    ) -> Result<(), JournalError> {
        let committed = match self.committed_above(checkpoint.height(), restated.tip.as_ref()) {
            Ok(committed) => committed,
            Err(ArchiveError::Journal(error)) => return Err(error),
            // Without those blocks there is no base; the older one stays.
            Err(
                ArchiveError::NotTheBlock(_) | ArchiveError::NotTheSnapshot(_) | ArchiveError::Pruned { .. },
            ) => {
                return Ok(());
            }
        };
        let segment = self.journal.rotate()?;
        self.append_piece(&BasePiece::Begin(checkpoint.clone()))?;
        let mut chunks = Vec::with_capacity(snapshot.chunks().len());
        for chunk in snapshot.chunks() {
            chunks.push(self.append_piece(&BasePiece::Chunk(Arc::clone(chunk)))?);
        }
        for note in &notes {
            self.append_piece(&BasePiece::Note(note.clone()))?;
        }
        let committed = committed.into_iter().map(|committed| (committed.block, Some(committed.certificate)));
        let uncommitted = restated.uncommitted.iter().map(|block| (Arc::clone(block), None));
        for (block, certificate) in committed.chain(uncommitted) {
            let piece = BasePiece::Block { block: Arc::clone(&block), certificate };
            let location = self.append_piece(&piece)?;
            self.archive.move_block(&block, location);
        }
        self.append_piece(&BasePiece::Standing(Box::new(restated.standing.clone())))?;
        self.append_piece(&BasePiece::End)?;
        self.journal.sync()?;
        self.bases.push_back(StoredBase { segment, checkpoint, chunks });
        self.notes = notes;
        self.remove_old()
    }

    fn append_piece(&mut self, piece: &BasePiece) -> Result<EntryLocation, JournalError> {
        let payload = borsh::to_vec(piece).expect("writing to memory does not fail");
        self.journal.append(BASE, &payload)
    }

    /// Two beginnings stay, and more while the application needs them, up to the bound.
    fn remove_old(&mut self) -> Result<(), JournalError> {
        loop {
            let beginnings = self.bases.len() + usize::from(self.is_complete);
            let second = self.bases.get(usize::from(!self.is_complete));
            let Some(second) = second.filter(|_| beginnings > 2) else { break };
            let is_needed = self.keep_above.is_some_and(|above| above < second.checkpoint.height());
            if is_needed && beginnings <= MAX_KEPT_CHECKPOINTS {
                break;
            }
            if !std::mem::take(&mut self.is_complete) {
                self.bases.pop_front();
            }
        }
        match self.bases.front().filter(|_| !self.is_complete) {
            Some(oldest) => {
                self.archive.forget_through(oldest.checkpoint.height());
                self.journal.remove_before(oldest.segment)
            }
            None => Ok(()),
        }
    }

    /// The answer to a fetch: blocks, lowest first and within the limits of an answer, or a checkpoint above them.
    ///
    /// # Errors
    /// [`ArchiveError`]: the journal's disk is at fault, not the asker.
    pub fn answer(&self, request: &BlockRequest) -> Result<Answer, ArchiveError> {
        match self.archive.answer(&self.journal, request) {
            Ok(Some(blocks)) => Ok(Answer::Blocks(blocks)),
            Ok(None) => Ok(Answer::Nothing),
            Err(ArchiveError::Pruned { .. }) => {
                let newest = self.bases.back().map(|base| base.checkpoint.clone());
                Ok(newest.map_or(Answer::Nothing, Answer::Checkpoint))
            }
            Err(error) => Err(error),
        }
    }

    /// The committed blocks above a height, lowest first: a piece of them, none when that height is the newest.
    ///
    /// # Errors
    /// [`ArchiveError::Pruned`] when the next one was removed; else the journal's disk is at fault.
    pub fn blocks_above(&self, above: Height) -> Result<Vec<Arc<Block>>, ArchiveError> {
        self.archive.blocks_above(&self.journal, above)
    }

    /// All committed blocks above a height with certificates, lowest first. That of the newest one is given.
    ///
    /// # Errors
    /// As [`Self::blocks_above`].
    pub fn committed_above(
        &self,
        above: Height,
        tip: Option<&QuorumCertificate>,
    ) -> Result<Vec<CommittedBlock>, ArchiveError> {
        let blocks = self.archive.all_above(&self.journal, above)?;
        let above: Vec<_> = blocks.iter().skip(1).map(|block| block.justify().clone()).collect();
        let certificates = above.into_iter().chain(tip.cloned());
        let committed = blocks.into_iter().zip(certificates);
        Ok(committed.map(|(block, certificate)| CommittedBlock { block, certificate }).collect())
    }

    /// The newest base at or below a height, else the oldest one there is.
    ///
    /// # Errors
    /// [`ArchiveError`]: the journal's disk is at fault.
    pub fn base_for(&self, height: Height) -> Result<Option<Base>, ArchiveError> {
        let below = self.bases.iter().rev().find(|base| base.checkpoint.height() <= height);
        let oldest = self.bases.front().filter(|_| !self.is_complete);
        below.or(oldest).map(|base| self.read_base(base)).transpose()
    }

    fn read_base(&self, base: &StoredBase) -> Result<Base, ArchiveError> {
        let damaged = || ArchiveError::NotTheSnapshot(base.checkpoint.height());
        let mut chunks = Vec::with_capacity(base.chunks.len());
        for location in &base.chunks {
            chunks.push(self.read_chunk(*location)?.ok_or_else(damaged)?);
        }
        let snapshot = Snapshot::of_chunks(chunks).map_err(|_| damaged())?;
        if snapshot.id() != base.checkpoint.checkpoint().state {
            return Err(damaged());
        }
        Ok(Base { checkpoint: base.checkpoint.clone(), snapshot })
    }

    fn read_chunk(&self, location: EntryLocation) -> Result<Option<Arc<[u8]>>, JournalError> {
        let (_, payload) = self.journal.read(location)?;
        match borsh::from_slice(&payload) {
            Ok(BasePiece::Chunk(chunk)) => Ok(Some(chunk)),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// How many blocks' places, bases, notes and segments there are: all bounded while checkpoints become stable.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept {
            blocks: self.archive.len(),
            bases: self.bases.len(),
            notes: self.notes.len(),
            segments: self.journal.segments(),
        }
    }
}

/// How much of a history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Committed blocks that can be read back.
    pub blocks: usize,
    /// Bases.
    pub bases: usize,
    /// Notes in memory.
    pub notes: usize,
    /// The journal's segments.
    pub segments: usize,
}

/// A history that is being read back.
struct Reading {
    recovery: Recovery,
    archive: Archive,
    bases: VecDeque<StoredBase>,
    notes: Vec<Vec<u8>>,
    /// Whether the first segments are gone and no whole base was read yet.
    is_headless: bool,
    is_first: bool,
    base: Option<UnfinishedBase>,
}

/// A base whose end was not read yet.
struct UnfinishedBase {
    stored: StoredBase,
    notes: Vec<Vec<u8>>,
    blocks: Vec<(Arc<Block>, Option<QuorumCertificate>, EntryLocation)>,
    standing: Option<super::base::Standing>,
}

impl Reading {
    fn new(config: Config) -> Self {
        Self {
            recovery: Recovery::new(config),
            archive: Archive::default(),
            bases: VecDeque::new(),
            notes: Vec::new(),
            is_headless: false,
            is_first: true,
            base: None,
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), HistoryError> {
        if std::mem::take(&mut self.is_first) {
            self.is_headless = entry.location.segment() > 1;
        }
        match entry.kind {
            BASE => {
                let piece = borsh::from_slice(entry.payload).map_err(|_| HistoryError::UnknownEntry)?;
                return self.piece(piece, entry.location);
            }
            NOTE if !self.is_headless => self.notes.push(entry.payload.to_vec()),
            RECORD if !self.is_headless => {
                let record = borsh::from_slice(entry.payload).map_err(|_| HistoryError::UnknownEntry)?;
                self.archive.note(&record, entry.location);
                self.recovery.record(record)?;
            }
            NOTE | RECORD => {}
            _ => return Err(HistoryError::UnknownEntry),
        }
        // A base is written in one run: it will never be finished.
        self.base = None;
        Ok(())
    }

    fn piece(&mut self, piece: BasePiece, location: EntryLocation) -> Result<(), HistoryError> {
        if let BasePiece::Begin(checkpoint) = piece {
            let stored = StoredBase { segment: location.segment(), checkpoint, chunks: Vec::new() };
            let (notes, blocks) = (Vec::new(), Vec::new());
            self.base = Some(UnfinishedBase { stored, notes, blocks, standing: None });
            return Ok(());
        }
        // Its beginning may have been removed.
        let Some(base) = &mut self.base else { return Ok(()) };
        match piece {
            BasePiece::Begin(_) => {}
            BasePiece::Chunk(_) => base.stored.chunks.push(location),
            BasePiece::Note(note) => base.notes.push(note),
            BasePiece::Block { block, certificate } => base.blocks.push((block, certificate, location)),
            BasePiece::Standing(standing) => base.standing = Some(*standing),
            BasePiece::End => return self.finish_base(),
        }
        Ok(())
    }

    fn finish_base(&mut self) -> Result<(), HistoryError> {
        let Some(UnfinishedBase { stored, notes, blocks, standing }) = self.base.take() else {
            return Ok(());
        };
        let standing = standing.ok_or(HistoryError::UnknownEntry)?;
        self.archive.begin_above(stored.checkpoint.height());
        let mut restated = Vec::with_capacity(blocks.len());
        for (block, certificate, location) in blocks {
            self.archive.restate(&block, certificate.is_some(), location);
            restated.push((block, certificate));
        }
        let checkpoint = stored.checkpoint.clone();
        self.recovery.base(ReadBase { checkpoint, blocks: restated, standing })?;
        self.bases.push_back(stored);
        self.notes = notes;
        self.is_headless = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
