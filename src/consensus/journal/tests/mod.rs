//! Tests of the journal: on a disk in memory that crashes as the rules of the trait allow, and on files.

mod crash;
#[cfg(feature = "service")]
mod files;
pub(crate) mod memory;

use super::{Disk, Entry, Identity, Journal, JournalConfig, OpenError, Recovery, Salt};
use crate::types::Digest;

pub(super) type Entries = Vec<(u8, Vec<u8>)>;

pub(in crate::consensus) fn config(segment_bytes: u64) -> JournalConfig {
    let identity = Identity { cluster: Digest::of(b"cluster"), key: Digest::of(b"key") };
    JournalConfig { identity, salt: Salt::new([7; 16]), segment_bytes }
}

/// Opens a journal and collects what it holds.
pub(super) fn open<D: Disk>(
    disk: D,
    config: JournalConfig,
) -> Result<(Journal<D>, Entries, Recovery), OpenError> {
    let mut entries = Entries::new();
    let (journal, recovery) =
        Journal::open(disk, config, |entry: Entry<'_>| entries.push((entry.kind, entry.payload.to_vec())))?;
    Ok((journal, entries, recovery))
}

/// The entry number `index` of a test's log: sizes from 0 to some hundred bytes.
pub(super) fn entry(index: usize) -> (u8, Vec<u8>) {
    let byte = u8::try_from(index % 251).expect("the remainder is small");
    (byte, vec![byte; index * 37 % 200])
}
