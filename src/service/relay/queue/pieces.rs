//! Reading past what a disk cannot give back: piece by piece, with zeros where a piece is lost.
//!
//! Zeros are no record, so that the checks of `format` find the loss as they find any damage. It decides nothing about
//! when a failure is believed. Invariant: what is not zeroed here is what the disk gave.

use super::recovery::Damage;
use crate::consensus::journal::{Disk, DiskError};

/// A disk loses whole sectors, of at most so many bytes; pieces begin at multiples of this.
const PIECE_BYTES: u64 = 4096;

/// What could be read of a part of a file.
#[derive(Debug)]
pub(super) struct Pieces {
    /// As many bytes as were asked for.
    pub(super) bytes: Vec<u8>,
    /// Where they are zeros because they could not be read, in order.
    pub(super) damage: Vec<Damage>,
    /// Why, the first time; it names the file.
    pub(super) error: Option<DiskError>,
    /// Whether anything could be read.
    pub(super) is_any_read: bool,
}

/// Reads `bytes` bytes of a file from `offset`, at once where that is possible.
pub(super) fn read_pieces<D: Disk>(disk: &D, file: &str, offset: u64, bytes: usize) -> Pieces {
    let mut pieces =
        Pieces { bytes: Vec::with_capacity(bytes), damage: Vec::new(), error: None, is_any_read: bytes == 0 };
    if let Ok(whole) = disk.read(file, offset, bytes) {
        return Pieces { bytes: whole, is_any_read: true, ..pieces };
    }
    let end = offset.saturating_add(bytes as u64);
    let mut at = offset;
    while at < end {
        let next = (at / PIECE_BYTES).saturating_add(1).saturating_mul(PIECE_BYTES).min(end);
        let length = usize::try_from(next - at).expect("a piece is short");
        match disk.read(file, at, length) {
            Ok(piece) => {
                pieces.bytes.extend_from_slice(&piece);
                pieces.is_any_read = true;
            }
            Err(error) => {
                pieces.bytes.resize(pieces.bytes.len() + length, 0);
                pieces.lose(file, at, next - at);
                pieces.error.get_or_insert(error);
            }
        }
        at = next;
    }
    pieces
}

impl Pieces {
    fn lose(&mut self, file: &str, offset: u64, bytes: u64) {
        match self.damage.last_mut() {
            Some(last) if last.offset + last.bytes == offset => last.bytes += bytes,
            Some(_) | None => self.damage.push(Damage { file: file.to_owned(), offset, bytes }),
        }
    }
}
