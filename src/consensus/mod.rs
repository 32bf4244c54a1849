//! Consensus: replicas agree on the order of commands, whatever up to f of them do.
//!
//! It knows no domain: commands are bytes. It is sans-IO: [`Core::handle`] takes time and an [`Input`],
//! [`Core::poll_output`] gives what to do, in order, and [`Core::next_timeout`] says when to come back. The
//! service's task and the simulator drive the very same type. The protocol is HotStuff-2 in the form whose
//! timeout certificate carries and proves the highest quorum certificate (Malkhi and Nayak, "Extended
//! Abstract: HotStuff-2: Optimal Two-Phase Responsive BFT", 2023; Gelashvili et al., "Jolteon and Ditto",
//! 2021), pipelined, with votes broadcast to all.
//!
//! # Rules
//!
//! Terms: a quorum certificate QC(b, v) is a quorum of distinct replicas' votes for block b in view v. A
//! timeout certificate TC(v) is a quorum of distinct replicas' timeouts for view v, each signed together with
//! the view of its sender's highest QC, and the QC with the largest of those views. Genesis is a block at
//! height 0 and view 0 that all know; QC(genesis, 0) needs no votes and equals exactly that.
//!
//! Blocks and proposals
//! - **B1** A block names its height, view, proposer, parent, justification and commands. Its identity covers
//!   all of them, but of the justification only view and block: two quorums for one block justify alike.
//!   A proposal's signature covers view, block and the digest of its certificates' bytes, so that whoever proposes on a
//!   certificate that does not verify has signed that it did.
//! - **B2** A proposal for view v is *valid* iff its signer leads v, `block.view == v`, the justification is a
//!   verified QC, `parent == justify.block`, `height == justify.height + 1`, and it *enters* v: either
//!   `justify.view == v - 1`, or it carries a verified TC(v - 1) with `justify.view >=` the highest QC view
//!   proven in that TC.
//! - **B3** The leader of v proposes once in v, on its highest QC, with the TC by which it entered when that QC is
//!   not from v - 1.
//!
//! Voting
//! - **V1** A replica votes for a valid proposal of view v iff v is its current view, `justify.view < v`, it has
//!   not voted in v or later, it has not timed out in v or later, and the parent is here and descends from
//!   the newest committed block. A missing ancestor delays only that vote.
//! - **V2** With the vote, the lock and the highest QC (which are one in this protocol) move to the larger of its
//!   own and the justification. Block, entry certificate, vote and highest QC are durable before the vote leaves.
//! - **V3** Votes are broadcast. Whoever holds a quorum of them forms the QC.
//!
//! Commit
//! - **C1** Block b is committed when there is a QC(b', v + 1) with `b'.parent == b` and
//!   `b'.justify == QC(b, v)`: direct parent, consecutive views. Its ancestors are committed with it, lowest
//!   first, each height once.
//!
//! Pacemaker
//! - **P1** Views are entered only on a verified QC or TC of the view before, and never backwards.
//! - **P2** Certificates in any message are verified and absorbed before the message's view is compared; of TCs only
//!   those that lead to a later view, or that a proposal enters by.
//! - **P3** When the view's timer ends, the replica broadcasts a timeout with its highest QC and the certificate by
//!   which it entered the view; it is durable first, and sent again at each further end of the timer.
//! - **P4** One timeout is kept per peer, the one with the highest view. f + 1 of them for the current view make
//!   the replica time out as well; a quorum of them makes the TC.
//! - **P5** The timer grows with the views since the last *commit*, up to a cap, and is short for a leader that
//!   missed its last turn.
//! - **P6** A message of an old view, and a timeout with an older QC than one's own, is answered with the newest
//!   certificates, at most so often per peer.
//!
//! Idle
//! - **I1** A replica is awake while it knows an uncommitted command or an uncommitted block that is not empty,
//!   and in a view that it entered by a TC, until the first block after that is committed: a TC shows that some honest replica is awake,
//!   and it may wait for a commit that the others have seen. Only then do its timers run and does it propose.
//!   So leaders propose empty blocks until the last block with commands has committed everywhere, and then rest.
//! - **I2** Commands of a block that lost its place return to pending.
//! - **I3** Who passes on a command that a peer has committed is told so by that peer, at most so often. When f + 1
//!   peers say so, an honest one does, and the command waits no longer. So a replica that began at a checkpoint, which
//!   names no commands, does not stay awake alone for one that was ordered below it.
//!
//! Restart
//! - **R1** A replica resumes at one above the highest QC or TC in its journal, and delivers its own durable
//!   proposal, vote and timeout of that view again, to itself and to its peers, and its newest checkpoint statements: the
//!   stored bytes, never new ones.
//!
//! - **R2** A verified statement of this replica's own, for a view above the last one that its journal records,
//!   proves the journal lost or old: the replica signs nothing any more, also after a restart, and says so. The
//!   same holds for an own checkpoint statement above the last recorded height.
//! - **R3** When f + 1 peers say that another process with this replica's key connected to them after this one had, an
//!   honest one has met both, and they are alive at once: two journals for one key. The replica signs nothing any more
//!   until it is started again; what the other one signed meanwhile is R2's to find.
//!
//! Fetch
//! - **F1** Blocks are asked for only below a verified QC. An answer is a chain that begins at a block that is
//!   here, each block certified by the next one's verified justification and the last by a QC of its own.
//! - **F2** Nobody stops voting to fetch; requests go to the QC's signers in turn, each with a deadline. Only an
//!   answer that brings a missing block is followed by the next request before the deadline.
//!
//! Checkpoints
//! - **K1** At each committed height that the interval divides, the application names its state. The replica then
//!   signs one statement: height, view, block and state. It is durable before it leaves, is broadcast, and is sent
//!   again to each peer that connects and, a few times, to all while its checkpoint has no certificate here. Who says
//!   the same again of a checkpoint that is stable here, or something of an older one, is given the stable one, at most
//!   so often. No statement is signed at or below the height of an earlier one, whatever
//!   the application says after a restart, none by a replica that is silent by R2, and none about a state that the
//!   application named before it had taken in the newest one that it was told to begin at.
//! - **K2** A quorum of equal statements is a certificate. A checkpoint is *stable* here when a certificate of it is
//!   here and the own state at that height is the certified one. If it is another one, this replica has *diverged*:
//!   it goes on voting, which depends on no state, and its application must endorse nothing any more until it has begun
//!   at a certified state: that of K4, or, when its state is the certified one again at a later checkpoint, that one,
//!   from its own base. Two newest
//!   statements are kept of each peer; certificates in any message are verified and absorbed.
//! - **K3** A stable checkpoint whose state is here becomes a *base*: a run of journal entries that begins a segment
//!   and restates the checkpoint with the certificate of its block, the state, the application's notes, the blocks
//!   above it, and everything signed or relied upon (the newest vote, timeout, own proposal and checkpoint
//!   statements, the highest QC and TC, R2's mark). It counts once its last entry is there; then it is synced, and
//!   what is older than the base before it may be removed. Recovery takes a base as a record like any other: it raises
//!   what it names, lowers nothing, and a base that was never finished says nothing. A journal without its first
//!   segment must hold a whole base; what stands before that is not read.
//! - **K4** Who asks for blocks below the oldest base is answered with the request and the newest checkpoint. It counts only for
//!   the request that is awaited of that peer, and stands until that peer itself gives some of the blocks. When f + 1 of the
//!   peers that were asked for one certificate's blocks have answered so, at least one honest peer no longer has them,
//!   and the (f + 1)-th highest of the verified checkpoints, which is no higher than what an honest one named, becomes the
//!   target of a *state transfer*, if it is above the newest committed height. A replica that has diverged wants the
//!   certified state of that height at once. Chunks are asked for from
//!   all peers in turn; each is proven against the certified root by itself, and who sends a false one, or none in
//!   time, is asked last. A base that a peer takes stays for some checkpoints more. When f + 1 peers no longer hold the target,
//!   one that they name takes its
//!   place, chosen likewise. Nobody stops voting or fetching blocks meanwhile; who comes past the target by blocks gives it up. When
//!   all chunks are here, the application and the tree begin at the checkpoint, whose QC is absorbed, and a base is
//!   written before anything later leaves. So the heights that the application sees rise by one, each once, or jump to
//!   an installed checkpoint; after a divergence that may be below the newest one, and the blocks above come again.
//!
//! Evidence
//! - **Y1** Of the newest views, the first verified vote, proposal and timeout of each replica is kept, also those inside
//!   certificates. A second, different one with a valid signature is evidence: V1, B3 and P3 let an honest replica sign
//!   one for a view, and R1 sends it again byte by byte. So are two checkpoints for one height (K1).
//! - **Y2** A proposal whose signature verifies and one of whose certificates does not is evidence: an honest leader signs
//!   only certificates that it verified.
//! - **Y3** Evidence holds only bytes that its offender's signatures cover. A timeout's certificates are not covered (its
//!   signature becomes part of a timeout certificate, which carries views only), nor are those of an answer to a fetch:
//!   anybody could have put them there, so they are counted against the link they came over and prove nothing.
//! - **Y4** A few offences of each kind are told for each replica, each once: the first proves what the others would.

mod archive;
mod base;
mod block;
mod certificate;
mod checkpoint;
mod checkpoints;
mod core;
mod digest_map;
mod evidence;
mod fetch;
mod history;
mod message;
mod named;
#[cfg(feature = "service")]
mod overflow;
mod pacemaker;
mod pending;
mod record;
mod safety;
mod snapshot;
mod transfer;
mod tree;
mod votes;

pub mod certify;
pub mod journal;
pub mod limits;
#[cfg(feature = "service")]
pub mod task;
#[cfg(feature = "service")]
pub mod transport;

pub use self::core::{Buffered, Config, Core, Input, Output, Recovery, RecoveryError, Rejected};
pub use archive::ArchiveError;
pub use base::{Base, Restated, Standing};
pub use block::{Block, BlockId, Command, CommandError, Payload};
pub use certificate::{CertificateError, QuorumCertificate, SignedTimeoutView, TimeoutCertificate, Verified};
pub use checkpoint::{Checkpoint, CheckpointCertificate, CheckpointVote, StableCheckpoint};
pub use history::{Answer, BASE, History, HistoryError, Kept, NOTE, RECORD, Recovered};
pub use message::{
    Asked, BlockRequest, BlockResponse, Certificates, ChunkRequest, Chunks, Gone, Message, Proposal, Timeout,
    Vote,
};
pub use pacemaker::ViewTimes;
pub use pending::Share;
pub use record::{Record, StoredProposal, VoteEntry};
pub use safety::InvalidProposal;
pub use snapshot::{ProvenChunk, Snapshot, SnapshotId, SnapshotTooLarge};
pub use transfer::TransferProgress;
pub use tree::CommittedBlock;

/// The number of this protocol in the domain of every signed consensus statement.
pub const PROTOCOL_HOTSTUFF2: u8 = 1;
