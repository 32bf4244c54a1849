//! What goes into the core and what comes out: configuration, inputs, outputs, refusals.
//!
//! It handles nothing. Invariant: outputs are carried out in order, and what a [`Output::Persist`] holds is durable before
//! anything later leaves the replica.

use std::sync::Arc;

use crate::{
    consensus::{
        base::Restated,
        block::Command,
        certificate::CertificateError,
        checkpoint::StableCheckpoint,
        message::{BlockRequest, ChunkRequest, Message},
        pacemaker::ViewTimes,
        pending::Share,
        record::Record,
        safety::InvalidProposal,
        snapshot::{Snapshot, SnapshotId},
        tree::CommittedBlock,
    },
    types::{Committee, Evidence, Height, ReplicaIndex, SecretKey},
};

/// What a replica needs to know to take part.
#[derive(Clone, Debug)]
pub struct Config {
    /// The committee of the epoch.
    pub committee: Arc<Committee>,
    /// This replica's place in it.
    pub me: ReplicaIndex,
    /// This replica's key.
    pub key: SecretKey,
    /// How long views may take.
    pub times: ViewTimes,
    /// A checkpoint is made at each height that this divides; all replicas must share it. Zero: none is made.
    pub checkpoint_interval: u64,
}

/// What happens to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer's message arrived over its own link.
    Message {
        /// Whose link.
        from: ReplicaIndex,
        /// The message.
        message: Message,
    },
    /// This replica wants a command of its own ordered.
    Submit(Command),
    /// It wants one ordered that counts to this share of its room.
    SubmitFor(Share, Command),
    /// A link to a peer came up: what it may have missed is sent again.
    PeerConnected(ReplicaIndex),
    /// The application names its state after the committed block of a height (rule K1).
    StateAt {
        /// The height.
        height: Height,
        /// The state.
        snapshot: SnapshotId,
        /// The height of the newest [`Output::Install`] or [`Input::Reloaded`] that the application had taken in then; zero
        /// before any.
        installed: Height,
    },
    /// So many peers that one is honest have met another process with this replica's key after this one (rule R3).
    KeyInUse,
    /// The application begins anew at the state of this stable checkpoint, as [`Output::Stable`] asked for.
    Reloaded(Height),
    /// The time that [`Core::next_timeout`](super::Core::next_timeout) named has come.
    Timer,
}

/// What the driver must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Append this to the journal. It must be durable before any later output but an append is carried out.
    Persist(Record),
    /// Append this to the journal, in its place in the order. Nothing waits for it to be durable.
    Append(Record),
    /// Send a message to one peer.
    Send {
        /// To whom.
        to: ReplicaIndex,
        /// What.
        message: Message,
    },
    /// Send a message to every other replica.
    Broadcast(Message),
    /// Hand a committed block to the application: heights rise by one, each comes once.
    Commit(CommittedBlock),
    /// Answer a fetch from the journal: the blocks asked for are no longer in memory.
    ServeFromJournal {
        /// Who asks.
        to: ReplicaIndex,
        /// For what.
        request: BlockRequest,
    },
    /// Answer a request for chunks from the journal (rule K4).
    ServeChunks {
        /// Who asks.
        to: ReplicaIndex,
        /// For what.
        request: ChunkRequest,
    },
    /// A replica broke a rule and signed it (rules Y1, Y2): tell the application. Nothing waits for it.
    Evidence(Box<Evidence>),
    /// A quorum certified the state that the application named at this height (rule K2). Its base is to be written.
    Stable {
        /// The checkpoint.
        checkpoint: StableCheckpoint,
        /// What its base restates.
        restated: Box<Restated>,
        /// Whether the application must begin there anew, from the base, for an earlier state of its was another than the
        /// certified one. The driver says [`Input::Reloaded`] when it does; until then each later one asks for it.
        reload: bool,
    },
    /// A quorum certified another state at this height than the application named (rule K2).
    Diverged {
        /// What was certified.
        certified: StableCheckpoint,
        /// What the application named.
        own: SnapshotId,
    },
    /// Begin at this checkpoint: its snapshot is here. The next block to commit is the one above it.
    Install {
        /// The checkpoint.
        checkpoint: StableCheckpoint,
        /// Its state.
        snapshot: Snapshot,
        /// What its base restates.
        restated: Box<Restated>,
    },
}

/// Why an input changed nothing. A peer's is counted against it; a submitter's goes back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// A signature or a certificate does not verify.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A proposal breaks rule B2.
    #[error("proposal: {0}")]
    Proposal(#[from] InvalidProposal),
    /// A leader signed two proposals for one view.
    #[error("a second proposal for one view")]
    SecondProposal,
    /// A voter signed votes for two blocks in one view.
    #[error("a second vote in one view")]
    SecondVote,
    /// A replica signed two checkpoints for one height.
    #[error("a second checkpoint for one height")]
    SecondCheckpoint,
    /// A message of a view far ahead without the certificates that would lead there.
    #[error("a message of a later view without a certificate that enters it")]
    ViewAhead,
    /// A message that nobody asked for.
    #[error("an answer that was not asked for")]
    Unsolicited,
    /// A chunk that is not the certified one of its place.
    #[error("a chunk is not the certified one")]
    FalseChunk,
    /// An answer to a fetch that is no certified chain from a block that is here.
    #[error("the answer is no certified chain from a block that is here")]
    BrokenChain,
    /// Too many commands of this submitter wait.
    #[error("too many commands wait to be ordered; try again later")]
    PendingFull,
}
