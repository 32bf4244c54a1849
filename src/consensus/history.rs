//! The history: the journal as consensus writes it, with its bases (rule K3). It is read back at a start, appended
//! to, asked for blocks and snapshots, and shortened from its beginning.
//!
//! It decides neither what is signed nor when anything is synced, but for a base, which is durable before anything
//! older is removed. Invariant: what a start would read back begins at a whole base or at the first block.

mod reading;

use std::{collections::VecDeque, sync::Arc};

use super::{
    archive::{Archive, ArchiveError},
    base::{Base, BasePiece, Restated},
    block::Block,
    certificate::QuorumCertificate,
    checkpoint::StableCheckpoint,
    core::{Config, Core, RecoveryError},
    journal::{Disk, EntryLocation, Journal, JournalConfig, JournalError, OpenError, TornTail},
    limits::{
        MAX_CHECKPOINTS_WHILE_SENT, MAX_KEPT_CHECKPOINTS, MAX_NAMED_SNAPSHOTS, MAX_SENT_CHUNKS,
        MAX_SENT_CHUNKS_BYTES,
    },
    message::{Asked, BlockRequest, BlockResponse, ChunkRequest, Chunks, Gone, Message},
    record::Record,
    snapshot::{ProvenChunk, Snapshot},
    tree::CommittedBlock,
};
use crate::types::{Height, ProofTree, leaf_hash};
use reading::Reading;

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
    /// What was asked for is gone.
    Gone(Gone),
    /// These chunks.
    Chunks(Chunks),
    /// There is nothing to say.
    Nothing,
}

impl Answer {
    /// As a message, if there is anything to say.
    #[must_use]
    pub fn into_message(self) -> Option<Message> {
        match self {
            Self::Blocks(response) => Some(Message::BlockResponse(response)),
            Self::Gone(gone) => Some(Message::Gone(gone)),
            Self::Chunks(chunks) => Some(Message::Chunks(chunks)),
            Self::Nothing => None,
        }
    }
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
    /// Where the notes lie that a start would give: between two bases they may be far larger than the state.
    notes: Vec<EntryLocation>,
    /// Snapshots that the application named and no certificate is of yet.
    named: VecDeque<Named>,
    /// The height above which the application still needs blocks; `None`: it needs none.
    keep_above: Option<Height>,
    /// How many beginnings beyond two stayed when the newest base was written, because peers took the oldest state.
    held: usize,
    /// How often old segments could not be removed since the start, and why the last time.
    failed_removals: Option<(u64, JournalError)>,
}

/// Where a base lies.
#[derive(Debug)]
struct StoredBase {
    segment: u64,
    checkpoint: StableCheckpoint,
    chunks: Vec<EntryLocation>,
    /// For the chunks' proofs.
    proofs: ProofTree,
    /// Whether a peer took chunks of it since the newest base was written.
    is_sent: bool,
}

#[derive(Debug)]
struct Named {
    height: Height,
    snapshot: Snapshot,
    /// Restated by the application.
    notes: Vec<Vec<u8>>,
    /// How many of the history's notes came before.
    notes_before: usize,
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
        let (is_complete, torn) = (read.first_segment == 1, read.torn);
        let history = Self {
            journal,
            archive,
            bases,
            is_complete,
            notes,
            named: VecDeque::new(),
            keep_above: None,
            held: 0,
            failed_removals: None,
        };
        let base = history.bases.back().map(|base| history.read_base(base)).transpose()?;
        let above = base.as_ref().map_or(Height::ZERO, |base| base.checkpoint.height());
        let blocks = history.committed_above(above, tip.as_ref())?;
        let notes = history.notes.iter().map(|location| history.read_note(*location));
        let notes = notes.collect::<Result<_, _>>().map_err(ArchiveError::from)?;
        let recovered = Recovered { notes, base, blocks, torn };
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
    pub fn note(&mut self, note: &[u8]) -> Result<(), JournalError> {
        self.notes.push(self.journal.append(NOTE, note)?);
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
        self.named.push_back(Named { height, snapshot, notes, notes_before: self.notes.len() });
        if self.named.len() > MAX_NAMED_SNAPSHOTS {
            self.named.pop_front();
        }
    }

    /// The application still needs the blocks above this height.
    pub const fn keep_above(&mut self, height: Height) {
        self.keep_above = Some(height);
    }

    /// Writes the base of a checkpoint whose state was named and is here still, and removes what is older than the
    /// base before it. It is durable then. Says whether there is one now: not when the snapshot is no longer here or a
    /// block above it cannot be read; the older base stays then, and all that is above it.
    ///
    /// # Errors
    /// [`JournalError`], as of [`Journal::append`].
    pub fn stable(
        &mut self,
        checkpoint: StableCheckpoint,
        restated: &Restated,
    ) -> Result<bool, JournalError> {
        let height = checkpoint.height();
        while self.named.front().is_some_and(|named| named.height < height) {
            self.named.pop_front();
        }
        match self.named.front() {
            Some(named) if named.height == height && named.snapshot.id() == checkpoint.checkpoint().state => {
            }
            Some(_) | None => return Ok(false),
        }
        match self.named.pop_front() {
            Some(named) => self.write_base(checkpoint, &named, restated),
            None => Ok(false),
        }
    }

    /// The state of the base at this height, for an application that begins there anew: what it named meanwhile counts no
    /// more. `None` when there is no such base.
    ///
    /// # Errors
    /// [`ArchiveError`]: the journal's disk is at fault.
    pub fn reload(&mut self, height: Height) -> Result<Option<Snapshot>, ArchiveError> {
        let base = self.bases.iter().find(|base| base.checkpoint.height() == height);
        let Some(base) = base.map(|base| self.read_base(base)).transpose()? else { return Ok(None) };
        self.named.clear();
        Ok(Some(base.snapshot))
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
    ) -> Result<bool, JournalError> {
        self.named.clear();
        self.archive.begin_above(checkpoint.height());
        let named = Named {
            height: checkpoint.height(),
            snapshot: snapshot.clone(),
            notes: Vec::new(),
            notes_before: 0,
        };
        self.write_base(checkpoint, &named, restated)
    }

    fn write_base(
        &mut self,
        checkpoint: StableCheckpoint,
        named: &Named,
        restated: &Restated,
    ) -> Result<bool, JournalError> {
        let committed = match self.committed_above(checkpoint.height(), restated.tip.as_ref()) {
            Ok(committed) => committed,
            Err(ArchiveError::Journal(error @ JournalError::Failed(_))) => return Err(error),
            Err(_) => return Ok(false),
        };
        let segment = self.journal.rotate()?;
        self.append_piece(&BasePiece::Begin(checkpoint.clone()))?;
        let snapshot = &named.snapshot;
        let mut chunks = Vec::with_capacity(snapshot.chunks().len());
        for chunk in snapshot.chunks() {
            chunks.push(self.append_piece(&BasePiece::Chunk(Arc::clone(chunk)))?);
        }
        let proofs = ProofTree::of(snapshot.chunks().iter().map(|chunk| leaf_hash(chunk)).collect());
        let notes = self.restate_notes(named)?;
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
        self.bases.push_back(StoredBase { segment, checkpoint, chunks, proofs, is_sent: false });
        for waiting in &mut self.named {
            waiting.notes_before =
                waiting.notes_before.saturating_sub(named.notes_before) + named.notes.len();
        }
        self.notes = notes;
        self.remove_old()?;
        Ok(true)
    }

    /// Restates in a base the notes of a state that was named and those that came later; gives where they lie now. One
    /// that cannot be read is an error: what this replica signed would be forgotten with the older base.
    fn restate_notes(&mut self, named: &Named) -> Result<Vec<EntryLocation>, JournalError> {
        let mut locations = Vec::with_capacity(named.notes.len() + self.notes.len() - named.notes_before);
        for note in &named.notes {
            locations.push(self.append_piece(&BasePiece::Note(note.clone()))?);
        }
        for place in named.notes_before..self.notes.len() {
            let note = self.read_note(self.notes[place])?;
            locations.push(self.append_piece(&BasePiece::Note(note))?);
        }
        Ok(locations)
    }

    fn read_note(&self, location: EntryLocation) -> Result<Vec<u8>, JournalError> {
        let (kind, payload) = self.journal.read(location)?;
        if kind == NOTE {
            return Ok(payload);
        }
        match borsh::from_slice(&payload) {
            Ok(BasePiece::Note(note)) => Ok(note),
            Ok(_) | Err(_) => Err(Journal::<D>::damaged(location)),
        }
    }

    fn append_piece(&mut self, piece: &BasePiece) -> Result<EntryLocation, JournalError> {
        let payload = borsh::to_vec(piece).expect("writing to memory does not fail");
        self.journal.append(BASE, &payload)
    }

    /// Two beginnings stay, and more while the application needs them or a peer takes the oldest state, up to the bounds.
    fn remove_old(&mut self) -> Result<(), JournalError> {
        self.held = 0;
        loop {
            let beginnings = self.bases.len() + usize::from(self.is_complete);
            let second = self.bases.get(usize::from(!self.is_complete));
            let Some(second) = second.filter(|_| beginnings > 2) else { break };
            let is_needed = self.keep_above.is_some_and(|above| above < second.checkpoint.height());
            let is_sent = !self.is_complete && self.bases.front().is_some_and(|oldest| oldest.is_sent);
            if is_needed && beginnings <= MAX_KEPT_CHECKPOINTS {
                break;
            }
            if is_sent && beginnings <= MAX_CHECKPOINTS_WHILE_SENT {
                self.held = beginnings - 2;
                break;
            }
            if !std::mem::take(&mut self.is_complete) {
                self.bases.pop_front();
            }
        }
        self.bases.iter_mut().for_each(|base| base.is_sent = false);
        let Some(oldest) = self.bases.front().filter(|_| !self.is_complete) else { return Ok(()) };
        self.archive.forget_through(oldest.checkpoint.height());
        match self.journal.remove_before(oldest.segment) {
            // They take room and do no harm; the next base tries it again.
            Err(error @ JournalError::NotRemoved(_)) => {
                let before = self.failed_removals.as_ref().map_or(0, |(times, _)| *times);
                self.failed_removals = Some((before + 1, error));
                Ok(())
            }
            removed => removed,
        }
    }

    /// How often old segments could not be removed since the start, and why the last time. Each new base tries it again.
    #[must_use]
    pub const fn failed_removals(&self) -> Option<&(u64, JournalError)> {
        self.failed_removals.as_ref()
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
                let asked = Asked::Blocks(*request);
                let newest =
                    self.bases.back().map(|base| Gone { asked, checkpoint: base.checkpoint.clone() });
                Ok(newest.map_or(Answer::Nothing, Answer::Gone))
            }
            Err(error) => Err(error),
        }
    }

    /// The answer to a request for chunks: as many as an answer may have, or a newer checkpoint when that one is not
    /// here any more. What is taken stays while it is taken, up to a bound.
    ///
    /// # Errors
    /// [`ArchiveError`]: the journal's disk is at fault, not the asker.
    pub fn chunks(&mut self, request: &ChunkRequest) -> Result<Answer, ArchiveError> {
        let ChunkRequest { height, root, first } = *request;
        let base = self.bases.iter_mut().find(|base| {
            base.checkpoint.height() == height && base.checkpoint.checkpoint().state.root() == root
        });
        let Some(base) = base else {
            let asked = Asked::Chunks(*request);
            let newer = self.bases.back().filter(|newest| newest.checkpoint.height() > height);
            let gone = newer.map(|base| Gone { asked, checkpoint: base.checkpoint.clone() });
            return Ok(gone.map_or(Answer::Nothing, Answer::Gone));
        };
        base.is_sent = true;
        let base = &*base;
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        let from = usize::try_from(first).unwrap_or(usize::MAX);
        for (place, location) in base.chunks.iter().enumerate().skip(from).take(MAX_SENT_CHUNKS) {
            let chunk = read_chunk(&self.journal, *location)?.ok_or(ArchiveError::NotTheSnapshot(height))?;
            bytes += chunk.len();
            if !chunks.is_empty() && bytes > MAX_SENT_CHUNKS_BYTES {
                break;
            }
            let Some(proof) = base.proofs.proof(place) else { break };
            chunks.push(ProvenChunk { bytes: chunk, proof });
        }
        if chunks.is_empty() {
            return Ok(Answer::Nothing);
        }
        Ok(Answer::Chunks(Chunks { height, root, first, chunks }))
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

    /// The newest base at or below a height from which the blocks go on without a gap, else the oldest such one; `None`
    /// when they go on from the beginning.
    ///
    /// # Errors
    /// [`ArchiveError`]: the journal's disk is at fault.
    pub fn base_for(&self, height: Height) -> Result<Option<Base>, ArchiveError> {
        let lowest = self.archive.below();
        let usable = || self.bases.iter().filter(|base| base.checkpoint.height() >= lowest);
        let below = usable().rfind(|base| base.checkpoint.height() <= height);
        let oldest = usable().next().filter(|_| lowest > Height::ZERO);
        below.or(oldest).map(|base| self.read_base(base)).transpose()
    }

    fn read_base(&self, base: &StoredBase) -> Result<Base, ArchiveError> {
        let damaged = || ArchiveError::NotTheSnapshot(base.checkpoint.height());
        let mut chunks = Vec::with_capacity(base.chunks.len());
        for location in &base.chunks {
            chunks.push(read_chunk(&self.journal, *location)?.ok_or_else(damaged)?);
        }
        let snapshot = Snapshot::of_chunks(chunks).map_err(|_| damaged())?;
        if snapshot.id() != base.checkpoint.checkpoint().state {
            return Err(damaged());
        }
        Ok(Base { checkpoint: base.checkpoint.clone(), snapshot })
    }

    /// How many blocks' places, bases, notes and segments there are: all bounded while checkpoints become stable.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept {
            blocks: self.archive.len(),
            bases: self.bases.len(),
            held: self.held,
            notes: self.notes.len(),
            segments: self.journal.segments(),
        }
    }
}

fn read_chunk<D: Disk>(
    journal: &Journal<D>,
    location: EntryLocation,
) -> Result<Option<Arc<[u8]>>, JournalError> {
    let (_, payload) = journal.read(location)?;
    match borsh::from_slice(&payload) {
        Ok(BasePiece::Chunk(chunk)) => Ok(Some(chunk)),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// How much of a history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Committed blocks that can be read back.
    pub blocks: usize,
    /// Bases.
    pub bases: usize,
    /// How many beginnings beyond two stay because peers take the oldest state.
    pub held: usize,
    /// Notes that a start would give.
    pub notes: usize,
    /// The journal's segments.
    pub segments: usize,
}

#[cfg(test)]
mod tests;
