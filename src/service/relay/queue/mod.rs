//! The relay's queue on disk: every body once, and for each replica how far it is.
//!
//! It knows no HTTP and reads no clock; only the disk behind the trait [`Disk`] touches the world. It decides
//! nothing about sending: lanes take bodies and say what became of them. Invariant: a body whose
//! [`Queue::commit`] returned `Ok` is, for each replica, settled, dropped and counted, or given out again
//! after a crash.
//!
//! The rules, which the code names:
//!
//! 1. *Segments.* Records lie in append-only files named by their number, 16 digits and `.relay`. A segment
//!    begins with a header: magic, the format's version, its number, the number of its first body, the newest
//!    body that was durable before, the queue's salt, and a check (16 bytes of SHA-256) over all that.
//! 2. *Order of creation.* A new segment's header and a record of all cursors are written and synced, and the
//!    folder is synced, before the first body goes into it. Only the newest segment is appended to, and a
//!    start begins a new one.
//! 3. *Records.* A record is a head and a payload. The head holds magic, kind, the payload's length, a sequence
//!    number, the time of arrival, the payload's check (16 bytes), and a check of its own (8 bytes): an
//!    unchecked length is never used. A body's payload is its content type, its content encoding and the
//!    client's bytes; its number is one above the body's before. A record of cursors lists each replica's name
//!    with the number of the first body that is not settled for it. All are encoded with borsh.
//! 4. *Salt.* Records' checks begin with a salt that is drawn once for the queue and stands in every header:
//!    bytes that a client sends inside a body can never pass for a record.
//! 5. *Group commit.* All bodies that wait are appended together with the cursors that moved, and one sync
//!    makes them durable. Only then are they acknowledged, and only then do lanes see them.
//! 6. *A failed write* closes its segment at the last byte that is known to be durable: a sync that succeeds
//!    after one that failed proves nothing. The numbers of its bodies are not used again. Nothing is taken
//!    until a new segment could be begun, with room to spare; that is tried at every tick.
//! 7. *Recovery* reads every record. What lies behind the last whole record of the newest segment is a torn
//!    write, and is cut off. Anything else that is no record is damage: it is skipped up to the next head whose
//!    check holds, or the next segment, and reported; gaps in the numbers say how many bodies are lost, and
//!    each replica that lacked them counts them. A file without a readable header is read with the salt of the
//!    others. Damage never stops a start; an unknown version does.
//!    What the disk cannot read is damage too: at a start, sector by sector, unless it can read nothing at all; later,
//!    once the file could not be read a few times and something else could.
//! 8. *What was read is synced* before anything is given out: no cursor may pass a body that a power cut could
//!    still take away, or its number would be given to another body.
//! 9. *Cursors.* The newest readable record of cursors says where a replica goes on. One that no record names
//!    begins at the oldest body. A cursor is durable after the next commit or tick: after a crash, bodies that
//!    were settled in between are given out again.
//! 10. *Bounds.* When the files exceed the queue's bound, or a closed segment holds only bodies older than the
//!     largest age, the oldest segment goes; each replica counts what it had not got. A single body that is too
//!     old is dropped when a lane would take it. A segment that every replica has passed goes once
//!     the cursors that say so are durable; while nothing can be written it goes without that, to make room.
//!
//! The limit of rule 7: damage to the very last commit cannot be told from a torn write.

mod format;
mod pieces;
mod reading;
mod recovery;
mod store;
#[cfg(test)]
mod tests;
mod told;

pub use format::Kept;
pub(crate) use format::MAX_HEADER_BYTES;
pub use reading::Taken;
pub use recovery::{Damage, OpenError, Recovery};
pub use store::{LEAST_QUEUE_BYTES, Queue, QueueConfig};
pub use told::{Dropped, Lag, LaneStatus, Outcome, QueueStatus};

#[cfg(doc)]
use crate::consensus::journal::Disk;
