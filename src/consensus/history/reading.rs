//! A history that is being read back, entry by entry, in the order of writing.
//!
//! It reads nothing itself. Invariant: a base counts once its last piece was seen, and nothing before the first whole base
//! counts where the first segments are gone.

use std::{collections::VecDeque, sync::Arc};

use super::{BASE, HistoryError, NOTE, RECORD, StoredBase};
use crate::{
    consensus::{
        archive::Archive,
        base::{BasePiece, ReadBase, Standing},
        block::Block,
        certificate::QuorumCertificate,
        checkpoint::StableCheckpoint,
        core::{Config, Recovery},
        journal::{Entry, EntryLocation},
    },
    types::{Digest, ProofTree, leaf_hash},
};

/// What was read so far.
pub(super) struct Reading {
    pub(super) recovery: Recovery,
    pub(super) archive: Archive,
    pub(super) bases: VecDeque<StoredBase>,
    pub(super) notes: Vec<EntryLocation>,
    /// Whether the first segments are gone and no whole base was read yet.
    pub(super) is_headless: bool,
    is_first: bool,
    base: Option<UnfinishedBase>,
}

/// A base whose end was not read yet.
struct UnfinishedBase {
    segment: u64,
    checkpoint: StableCheckpoint,
    chunks: Vec<EntryLocation>,
    leaves: Vec<Digest>,
    notes: Vec<EntryLocation>,
    blocks: Vec<(Arc<Block>, Option<QuorumCertificate>, EntryLocation)>,
    standing: Option<Standing>,
}

impl Reading {
    pub(super) fn new(config: Config) -> Self {
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

    pub(super) fn entry(&mut self, entry: &Entry<'_>) -> Result<(), HistoryError> {
        if std::mem::take(&mut self.is_first) {
            self.is_headless = entry.location.segment() > 1;
        }
        match entry.kind {
            BASE => {
                let piece = borsh::from_slice(entry.payload).map_err(|_| HistoryError::UnknownEntry)?;
                return self.piece(piece, entry.location);
            }
            NOTE if !self.is_headless => self.notes.push(entry.location),
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
            self.base = Some(UnfinishedBase {
                segment: location.segment(),
                checkpoint,
                chunks: Vec::new(),
                leaves: Vec::new(),
                notes: Vec::new(),
                blocks: Vec::new(),
                standing: None,
            });
            return Ok(());
        }
        // Its beginning may have been removed.
        let Some(base) = &mut self.base else { return Ok(()) };
        match piece {
            BasePiece::Begin(_) => {}
            BasePiece::Chunk(chunk) => {
                base.chunks.push(location);
                base.leaves.push(leaf_hash(&chunk));
            }
            BasePiece::Note(_) => base.notes.push(location),
            BasePiece::Block { block, certificate } => base.blocks.push((block, certificate, location)),
            BasePiece::Standing(standing) => base.standing = Some(*standing),
            BasePiece::End => return self.finish_base(),
        }
        Ok(())
    }

    fn finish_base(&mut self) -> Result<(), HistoryError> {
        let Some(base) = self.base.take() else { return Ok(()) };
        let UnfinishedBase { segment, checkpoint, chunks, leaves, notes, blocks, standing } = base;
        let standing = standing.ok_or(HistoryError::UnknownEntry)?;
        self.archive.begin_above(checkpoint.height());
        let mut restated = Vec::with_capacity(blocks.len());
        for (block, certificate, location) in blocks {
            self.archive.restate(&block, certificate.is_some(), location);
            restated.push((block, certificate));
        }
        self.recovery.base(ReadBase { checkpoint: checkpoint.clone(), blocks: restated, standing })?;
        let proofs = ProofTree::of(leaves);
        self.bases.push_back(StoredBase { segment, checkpoint, chunks, proofs, is_sent: false });
        self.notes = notes;
        self.is_headless = false;
        Ok(())
    }
}
