//! The journal: the local record of all that must be durable before a message that depends on it leaves.
//!
//! It keeps typed, opaque entries in the order of their appending and gives them back at the next start. It
//! knows no vote and no block: [`crate::consensus`] decides what an entry means and when it must be synced.
//! It reads no clock, and only `files` touches the world: everything else works over the trait [`Disk`].
//! Invariant: what [`Journal::open`] hands out is exactly what was appended, in order, without a gap, and
//! reaches at least as far as the last sync that was reported as done; or it refuses and says why.
//!
//! The rules, which the code names:
//!
//! 1. *Segments.* Entries lie in append-only files of at most [`SEGMENT_BYTES`]. A segment begins with a
//!    header that names the format's version, the cluster, the replica's key, its own number, the first
//!    sequence number and the seal of the last record before it.
//! 2. *Order of creation.* The old segment is synced, then the new one is created, its header appended and
//!    synced, and the folder synced, before the first record goes into it. So all but the last segment are
//!    durable as a whole, and a segment with a record has a durable header.
//! 3. *Records.* A record is a fixed head, the payload and a seal. The head holds the length, kind, sequence
//!    number, the seal of the record before it and the number of the newest record known to be durable when
//!    it was appended. The head has a check of its own: an unchecked length is never used.
//! 4. *Salt.* Checks and seals begin with the segment's salt, which nobody else knows: bytes that a peer made
//!    us store inside a payload can never pass for a record.
//! 5. *End.* Reading stops at the first byte that is no record with the expected number and predecessor.
//! 6. *Torn or damaged.* What follows the end is a torn tail, and is cut off and reported, only if it lies in
//!    the last segment and nothing proves that the missing record had been durable. A later segment proves
//!    it, and so does any later head in the same segment that says so (3). Then the journal refuses.
//! 7. *What was read is synced* before opening succeeds: an entry that a killed process wrote and never
//!    synced must not be acted upon and then lost with the power.
//! 8. *No second chance.* After a failed append or sync every operation fails: a sync that succeeds after one
//!    that failed proves nothing.
//! 9. *The beginning.* A segment may be ended early, so that what follows begins a new one. Segments are removed
//!    from the oldest on, and the folder is synced after each: those that are left are always consecutive. So a
//!    journal may begin at any segment, and says at which: whether all that is needed is in it, who uses it must
//!    know. The last segment with records is never removed. A removal that fails loses nothing: it is reported, the next call
//!    tries it again, and nothing newer is removed before it is durable.
//! 10. *Begun.* After the first sync of records, and before it is reported as done, the file [`BEGUN_FILE`] is made
//!     durable. So a folder without records is new only without that file and without a segment above the first: else
//!     all records are lost, and the journal refuses.
//!
//! The limit of rule 6: damage to the very last batch before the end cannot be told from a torn write. A
//! replica learns of it from its peers and its Postgres, which prove more than the journal holds.

mod disk;
#[cfg(feature = "service")]
mod files;
mod format;
mod log;
mod recovery;
#[cfg(test)]
pub(crate) mod tests;

pub use disk::{Disk, DiskError};
#[cfg(feature = "service")]
pub use files::{FileDisk, FileDiskError, LOCK_FILE};
pub use format::{Identity, MAX_ENTRY_BYTES, SALT_BYTES, SEGMENT_BYTES, Salt};
pub use log::{BEGUN_FILE, Entry, EntryLocation, Journal, JournalConfig, JournalError};
pub use recovery::{Damage, OpenError, Recovery, TornTail};
