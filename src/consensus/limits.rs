//! The bounds on everything a peer or a client can make a replica hold, each with its reason.

use crate::types::Millis;

/// The most bytes a command may have: a report of 10,000 series at some 300 bytes.
pub const MAX_COMMAND_BYTES: usize = 3 * 1024 * 1024;

/// The most bytes of commands in one block: two of the largest, and well below a link's largest frame.
pub const MAX_BLOCK_BYTES: usize = 6 * 1024 * 1024;

/// The most commands in one block: beyond that, a block's latency grows faster than its throughput.
pub const MAX_BLOCK_COMMANDS: usize = 4_096;

/// The most commands of its own that wait from one submitter, and of one peer all that it passes on: some four full
/// blocks.
pub const MAX_PENDING_COMMANDS: usize = 16_384;

/// The most bytes of such commands.
pub const MAX_PENDING_BYTES: usize = 32 * 1024 * 1024;

/// The most ordinary commands that wait from one submitter: those of one full block, so that what the submitter
/// hands in after them waits behind one block's worth at most.
pub const MAX_ORDINARY_COMMANDS: usize = MAX_BLOCK_COMMANDS;

/// The most bytes of ordinary commands that wait from one submitter, for the same reason.
pub const MAX_ORDINARY_BYTES: usize = MAX_BLOCK_BYTES;

/// The most urgent commands that wait from one submitter: people send them, one by one.
pub const MAX_URGENT_COMMANDS: usize = 256;

/// The most bytes of urgent commands that wait from one submitter.
pub const MAX_URGENT_BYTES: usize = 1024 * 1024;

/// How many committed commands are remembered so that a late copy is not ordered again: several seconds of
/// the highest load, while copies arrive within milliseconds. A copy later than that is ordered twice,
/// which the fold refuses as a duplicate.
pub const REMEMBERED_COMMANDS: usize = 1 << 17;

/// How many newest committed blocks stay in memory to answer fetches; older ones are read from the journal.
pub const COMMITTED_BLOCKS_IN_MEMORY: usize = 64;

/// The most bytes of those blocks, the newest one aside: what one answer to a fetch may carry, so that a replica that
/// missed a moment is served from memory, and large reports do not fill it.
pub const COMMITTED_BYTES_IN_MEMORY: usize = MAX_FETCHED_BYTES;

/// The most uncommitted blocks in memory. Past it, those that the highest certificate does not build on go.
pub const MAX_TREE_BLOCKS: usize = 1_024;

/// The most blocks in one answer to a fetch.
pub const MAX_FETCHED_BLOCKS: usize = 128;

/// The most bytes of blocks in one answer to a fetch, the first block aside.
pub const MAX_FETCHED_BYTES: usize = MAX_BLOCK_BYTES;

/// The most blocks that whoever follows the log is given at once: consensus waits while they are read.
pub const MAX_READ_BLOCKS: usize = 32;

/// The most bytes of blocks in one such piece, the last block aside.
pub const MAX_READ_BYTES: usize = 1024 * 1024;

/// How long a fetch waits for its answer before the next peer is asked.
pub const FETCH_DEADLINE: Millis = Millis::new(500);

/// A peer's requests for blocks are answered at most this often.
pub const FETCH_ANSWER_INTERVAL: Millis = Millis::new(5);

/// After an answer, a peer waits a millisecond for each so many bytes of it: some 60 MiB a second and peer are
/// more than its link carries, and a small part of a core.
pub const FETCH_ANSWER_BYTES_PER_MS: usize = 64 * 1024;

/// A peer's stale messages are answered at most this often.
pub const STALE_ANSWER_INTERVAL: Millis = Millis::new(100);

/// The most commands in one gossip message, and their bytes: small enough not to delay votes on a link.
pub const MAX_GOSSIP_COMMANDS: usize = 1_024;

/// The most bytes of commands in one gossip message, the first command aside.
pub const MAX_GOSSIP_BYTES: usize = 1024 * 1024;

/// The most bytes of a snapshot's chunk: small enough to be proven, sent and asked for again by itself.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;

/// The most bytes of a snapshot: a state of this size no longer travels or loads in the time of an interval, and
/// it still fits the memory of the machine that must hold it.
pub const MAX_SNAPSHOT_BYTES: u64 = 1024 * 1024 * 1024;

/// The most chunks of a snapshot: as many full ones as the bytes allow.
pub const MAX_SNAPSHOT_CHUNKS: u32 = 4_096;

/// How many checkpoint heights wait for the application to name its state, and how many certificates for a state
/// to be compared with: an application that is further behind than these catches up without checkpoints.
pub const MAX_OPEN_CHECKPOINTS: usize = 64;

/// How many snapshots wait in memory for their certificate: that of the newest checkpoint, and the one before.
pub const MAX_NAMED_SNAPSHOTS: usize = 2;

/// How many checkpoints the journal keeps while the application still needs what is below them: at the default interval
/// more blocks than the lag of a database at which plans are held, so that this is said first. Past it they go, and
/// whoever follows the journal has a gap.
pub const MAX_KEPT_CHECKPOINTS: usize = 42;

/// How many checkpoints the journal keeps while peers take the state of the oldest: it stays for four checkpoints more than it
/// would, if it was asked for since each of them. At the default interval that is longer than the largest state
/// travels; past it whoever still takes it begins again at a newer one, so that nobody can make a journal grow.
pub const MAX_CHECKPOINTS_WHILE_SENT: usize = 6;

/// The most chunks in one answer of a state transfer.
pub const MAX_SENT_CHUNKS: usize = 64;

/// The most bytes of chunks in one answer, the first chunk aside: votes wait behind it on the link for some
/// milliseconds.
pub const MAX_SENT_CHUNKS_BYTES: usize = 1024 * 1024;

/// How far ahead of its pace a peer's requests for chunks are answered: some four answers.
pub const CHUNK_CREDIT: Millis = Millis::new(64);

/// How long a request for chunks waits for its answer before the next peer is asked.
pub const TRANSFER_DEADLINE: Millis = Millis::new(500);

/// How long a replica waits for a checkpoint's certificate before it sends its own statement again: several times what
/// the others' applications take to name their states.
pub const CHECKPOINT_RESEND_INTERVAL: Millis = Millis::from_secs(2);

/// How often it does: messages that are lost that often in a row are lost with their link, and whoever connects anew gets
/// the statement anyway.
pub const MAX_CHECKPOINT_RESENDS: u32 = 8;

/// How many of its newest checkpoint statements are kept of each replica: one that is complete and one that is
/// not yet.
pub const KEPT_CHECKPOINT_VOTES: usize = 2;
