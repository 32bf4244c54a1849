//! What the application asks of the task, what the task tells it, and the channels between them.
//!
//! Nothing is done here. Invariant: every queue has a bound.

use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    consensus::{
        ArchiveError, Base, Checkpoint, Command, Rejected, Share, Snapshot, SnapshotId, StableCheckpoint,
        TransferProgress, block::Block, certify::Endorsement, tree::CommittedBlock,
    },
    types::{Evidence, Height, ReplicaIndex, View},
};

/// How many requests wait for the task: enough for a burst of a client, small enough to push back soon.
const REQUEST_QUEUE: usize = 1_024;

/// How many events wait for the application before the task keeps them itself.
const EVENT_QUEUE: usize = 256;

/// What the application asks of the task.
#[derive(Debug)]
pub enum Request {
    /// Have a command ordered.
    Submit {
        /// To what it counts.
        share: Share,
        /// The command.
        command: Command,
        /// Where to say that it waits now, or why not.
        answer: Option<oneshot::Sender<Result<(), Rejected>>>,
    },
    /// Write these notes to the journal, and when they are durable, send these endorsements to all.
    Endorse {
        /// The application's notes, in order.
        notes: Vec<Vec<u8>>,
        /// What may leave once they are durable.
        then: Vec<Endorsement>,
        /// The replica's own commands, which may leave once they are durable. One that finds no room is counted and
        /// tried again.
        submit: Vec<Command>,
        /// Where to say that they are durable, for what leaves by other ways.
        durable: Option<oneshot::Sender<()>>,
    },
    /// Send these endorsements to one peer, which has just come back.
    Remind {
        /// The peer.
        to: ReplicaIndex,
        /// What it may lack.
        endorsements: Vec<Endorsement>,
    },
    /// A checkpoint is due at this height: the application's state after it, and its notes that are still
    /// needed, restated. What was noted before is forgotten once the checkpoint is stable.
    Checkpoint {
        /// The height, which [`Config::checkpoint_interval`](crate::consensus::Config::checkpoint_interval) divides.
        height: Height,
        /// The state after the block of that height.
        snapshot: Snapshot,
        /// The notes.
        notes: Vec<Vec<u8>>,
        /// The height of the newest [`Event::Installed`] that the application had taken in when it named the state; zero
        /// before any. A state that was named before a newer one was taken in is dropped.
        installed: Height,
    },
    /// Keep the blocks above this height readable, within [`MAX_KEPT_CHECKPOINTS`](crate::consensus::limits::MAX_KEPT_CHECKPOINTS).
    KeepAbove(Height),
    /// Read a checkpoint with its state back from the journal: the newest at or below a height, else the oldest.
    /// There is none while the journal holds all blocks from the first and no checkpoint is at or below the height.
    ReadBase {
        /// The height.
        for_height: Height,
        /// Where to say it.
        answer: oneshot::Sender<Result<Option<Base>, ArchiveError>>,
    },
    /// Read committed blocks back from the journal.
    Read {
        /// Blocks above this height, lowest first: a piece of them, none when it is the newest.
        above: Height,
        /// Where to say them.
        answer: oneshot::Sender<Result<Vec<Arc<Block>>, ArchiveError>>,
    },
}

/// What the task tells the application.
#[derive(Debug)]
pub enum Event {
    /// A block is committed; heights rise by one, each comes once.
    Committed(CommittedBlock),
    /// A peer endorses a document.
    Endorsement {
        /// Whose link it came over.
        from: ReplicaIndex,
        /// What it says.
        endorsement: Endorsement,
    },
    /// A link to a peer came up.
    PeerConnected(ReplicaIndex),
    /// A quorum certified the state that the application named at this height.
    Stable(StableCheckpoint),
    /// A quorum certified another state at this height than the application named: it must endorse nothing any
    /// more until a later [`Event::Installed`].
    Diverged {
        /// What was certified.
        certified: StableCheckpoint,
        /// What the application named.
        own: SnapshotId,
    },
    /// The application's state is now this one, and the next committed block is the one above it, whatever came
    /// before.
    Installed {
        /// The certified checkpoint.
        checkpoint: StableCheckpoint,
        /// Its state.
        snapshot: Snapshot,
    },
    /// A replica broke a rule and signed it.
    Evidence(Box<Evidence>),
}

/// Where consensus stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsensusStatus {
    /// The current view.
    pub view: View,
    /// The newest committed height.
    pub height: Height,
    /// Commands that wait to be committed.
    pub pending: usize,
    /// Commands that found no room among those that wait, since the start.
    pub without_room: u64,
    /// The newest view in which this replica signed anything, as far as the journal holds it durably.
    pub signed: View,
    /// The height that is being fetched, while this replica is behind.
    pub fetching: Option<Height>,
    /// A view in which this replica signed what its journal does not hold: it signs nothing any more.
    pub forgotten: Option<View>,
    /// The peers that met another process with this replica's key after this one, once they are so many that one is
    /// honest: it signs nothing until it is started again. Else empty.
    pub key_in_use: Vec<ReplicaIndex>,
    /// Syncs of the journal since the start.
    pub syncs: u64,
    /// How often old segments of the journal could not be removed, since the start.
    pub failed_removals: u64,
    /// The newest checkpoint whose certified state is this replica's own.
    pub checkpoint: Option<Checkpoint>,
    /// How far a state transfer has come, while there is one.
    pub transfer: Option<TransferProgress>,
    /// Events that wait for the application beyond its queue.
    pub backlog: usize,
    /// Messages and commands that were refused since the start.
    pub rejected: u64,
    /// The last of them: whose, and why.
    pub last_rejection: Option<(ReplicaIndex, String)>,
}

/// The application's ends of the task's channels.
#[derive(Debug)]
pub struct Handles {
    /// Asks something of the task.
    pub requests: mpsc::Sender<Request>,
    /// What the task tells.
    pub events: mpsc::Receiver<Event>,
    /// Where consensus stands.
    pub status: watch::Receiver<ConsensusStatus>,
}

/// The task's own ends.
#[derive(Debug)]
pub struct Ends {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) status: watch::Sender<ConsensusStatus>,
}

/// Makes the channels between the task and the application.
#[must_use]
pub fn channels() -> (Handles, Ends) {
    let (request_sender, requests) = mpsc::channel(REQUEST_QUEUE);
    let (events, event_receiver) = mpsc::channel(EVENT_QUEUE);
    let (status, status_receiver) = watch::channel(ConsensusStatus::default());
    let handles = Handles { requests: request_sender, events: event_receiver, status: status_receiver };
    (handles, Ends { requests, events, status })
}
