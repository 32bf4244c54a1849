//! [I/O] The task that owns a replica's consensus: the core, its journal and its links.
//!
//! It carries the core's outputs out in order and decides nothing. Invariant: what the core or the
//! application wants durable is synced before anything that was put out after it leaves the replica; one
//! sync serves all that came together.

mod ends;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

pub use ends::{ConsensusStatus, Ends, Event, Handles, Request, channels};

use super::{
    Answer, ArchiveError, Command, Core, History, HistoryError, Input, Message, Output, Record, Recovered,
    Rejected, Restated, Share, Snapshot, StableCheckpoint,
    certify::{Endorsement, MAX_SUBJECT_NAME_BYTES},
    journal::{FileDisk, FileDiskError, Identity, JournalConfig, JournalError, SEGMENT_BYTES, Salt},
    overflow::Overflow,
    transport::{Class, Inbox, LinkSender},
};
use crate::types::{Height, Millis, ReplicaIndex, View};

/// How many inputs are taken before their outputs are carried out together, with one sync.
const BATCH: usize = 256;

/// How often links are looked at and the status is published.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// How long inputs are taken before their outputs are carried out: below what a peer notices.
const BATCH_TIME: Duration = Duration::from_millis(5);

/// How many endorsements of one peer wait for the application: several cycles of some hundred targets.
const MAX_WAITING_ENDORSEMENTS: usize = 512;

/// What travels between two replicas in one frame.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub enum Frame {
    /// For consensus.
    Consensus(Message),
    /// For certification.
    Endorsement(Endorsement),
}

/// Why a replica's consensus cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal's folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FileDiskError),
    /// The journal is refused: the replica must not vote.
    #[error("the journal in {} is refused, so this replica does not vote: {error}", folder.display())]
    Journal {
        /// The folder.
        folder: PathBuf,
        /// Why.
        error: HistoryError,
    },
}

/// A replica's consensus, read back and ready to run.
#[derive(Debug)]
pub struct Opened {
    core: Core,
    history: History<FileDisk>,
    one_honest: usize,
}

/// Opens the journal in the folder and reads a replica's consensus back from it.
///
/// # Errors
/// [`StartError`] says why this replica must not take part.
pub fn open(config: super::Config, folder: &Path, salt: Salt) -> Result<(Opened, Recovered), StartError> {
    let disk = FileDisk::open(folder)?;
    let key = config.key.public().id();
    let identity = Identity { cluster: config.committee.cluster(), key };
    let journal = JournalConfig { identity, salt, segment_bytes: SEGMENT_BYTES };
    let one_honest = config.committee.size().one_honest();
    let opened = History::open(disk, journal, config);
    let (history, core, recovered) =
        opened.map_err(|error| StartError::Journal { folder: folder.to_owned(), error })?;
    Ok((Opened { core, history, one_honest }, recovered))
}

impl Opened {
    /// The newest view in which the journal's replica signed anything.
    #[must_use]
    pub fn signed_view(&self) -> View {
        self.core.signed_view()
    }

    /// The newest committed height.
    #[must_use]
    pub const fn committed_height(&self) -> Height {
        self.core.committed_height()
    }
}

/// Runs consensus until all its requesters are gone or the journal fails.
///
/// # Errors
/// [`JournalError`] when the journal takes nothing more: the process must end.
pub async fn run(
    opened: Opened,
    links: LinkSender,
    mut inbox: Inbox,
    ends: Ends,
) -> Result<(), JournalError> {
    let Ends { mut requests, events, status } = ends;
    let mut task = Task {
        core: opened.core,
        history: opened.history,
        links,
        one_honest: opened.one_honest,
        began: Instant::now(),
        backlog: VecDeque::new(),
        endorsements: BTreeMap::new(),
        overflow: Overflow::default(),
        must_sync: false,
        leaving: Vec::new(),
        connects: Vec::new(),
        status: ConsensusStatus::default(),
    };
    task.carry_out()?;
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let timer = task.next_timer();
        tokio::select! {
            inbound = inbox.recv() => match inbound {
                Some(inbound) => task.receive(inbound.from, &inbound.frame),
                None => return Ok(()),
            },
            request = requests.recv() => match request {
                Some(request) => task.serve(request)?,
                None => return Ok(()),
            },
            () = tokio::time::sleep_until(timer) => task.input(None, Input::Timer),
            _ = housekeeping.tick() => task.keep_house(&status),
            permit = events.reserve(), if !task.backlog.is_empty() => match (permit, task.next_event()) {
                (Ok(permit), Some(event)) => permit.send(event),
                (Ok(_), None) => {}
                (Err(_), _) => return Ok(()),
            },
        }
        let batch_began = Instant::now();
        for _ in 0..BATCH {
            // Peers and the application in turn: neither can keep the other waiting.
            let (inbound, request) = (inbox.try_recv(), requests.try_recv().ok());
            let is_idle = inbound.is_none() && request.is_none();
            if let Some(inbound) = inbound {
                task.receive(inbound.from, &inbound.frame);
            }
            if let Some(request) = request {
                task.serve(request)?;
            }
            if is_idle || batch_began.elapsed() >= BATCH_TIME {
                break;
            }
        }
        task.carry_out()?;
        task.hand_over(&events);
    }
}

struct Task {
    core: Core,
    history: History<FileDisk>,
    links: LinkSender,
    /// Among so many replicas one is honest.
    one_honest: usize,
    began: Instant,
    backlog: VecDeque<Event>,
    /// How many endorsements of each peer wait for the application.
    endorsements: BTreeMap<ReplicaIndex, usize>,
    /// The replica's own commands that found no room.
    overflow: Overflow,
    /// Whether something was appended that must be durable before anything leaves.
    must_sync: bool,
    /// What leaves after the next sync, in order.
    leaving: Vec<Leaving>,
    /// How often each peer was connected to, when last looked.
    connects: Vec<u64>,
    status: ConsensusStatus,
}

enum Leaving {
    Frame { to: Option<ReplicaIndex>, frame: Frame, class: Class },
    Answer(oneshot::Sender<Result<(), Rejected>>, Result<(), Rejected>),
    Durable(oneshot::Sender<()>),
    Event(Event),
}

impl Task {
    fn now(&self) -> Millis {
        Millis::new(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn next_timer(&self) -> Instant {
        // Without a timer the select still needs an instant; an hour from now is as good as never.
        let never = Millis::from_secs(3600).plus(self.now());
        let due = self.core.next_timeout().unwrap_or(never);
        self.began + Duration::from_millis(due.as_millis())
    }

    fn receive(&mut self, from: ReplicaIndex, bytes: &[u8]) {
        match borsh::from_slice(bytes) {
            Ok(Frame::Consensus(message)) => self.input(Some(from), Input::Message { from, message }),
            Ok(Frame::Endorsement(endorsement)) => {
                if endorsement.subject.of.len() > MAX_SUBJECT_NAME_BYTES {
                    return self.refuse(from, "an endorsement with too long a name".to_owned());
                }
                let waiting = self.endorsements.entry(from).or_default();
                if *waiting >= MAX_WAITING_ENDORSEMENTS {
                    return self.refuse(from, "more endorsements than the application takes".to_owned());
                }
                *waiting += 1;
                self.leaving.push(Leaving::Event(Event::Endorsement { from, endorsement }));
            }
            Err(error) => {
                self.refuse(from, format!("a frame of {} bytes is malformed: {error}", bytes.len()));
            }
        }
    }

    fn input(&mut self, from: Option<ReplicaIndex>, input: Input) {
        let now = self.now();
        if let Err(rejected) = self.core.handle(now, input)
            && let Some(from) = from
        {
            self.refuse(from, rejected.to_string());
        }
    }

    fn refuse(&mut self, from: ReplicaIndex, why: String) {
        tracing::debug!(peer = %from, why, "refused a peer's message");
        self.status.rejected += 1;
        self.status.last_rejection = Some((from, why));
    }

    fn serve(&mut self, request: Request) -> Result<(), JournalError> {
        match request {
            Request::Submit { share, command, answer } => {
                let result = self.submit(share, command);
                if let Some(answer) = answer {
                    self.leaving.push(Leaving::Answer(answer, result));
                }
            }
            Request::Endorse { notes, then, submit, durable } => {
                // What the core put out before comes first, as it happened first.
                self.collect()?;
                for note in notes {
                    self.history.note(&note)?;
                    self.must_sync = true;
                }
                let frames = then.into_iter().map(|endorsement| Leaving::Frame {
                    to: None,
                    frame: Frame::Endorsement(endorsement),
                    class: Class::Urgent,
                });
                self.leaving.extend(frames);
                self.leaving.extend(durable.map(Leaving::Durable));
                for command in submit {
                    self.submit_own(command);
                }
            }
            Request::Remind { to, endorsements } => {
                let frames = endorsements.into_iter().map(|endorsement| Leaving::Frame {
                    to: Some(to),
                    frame: Frame::Endorsement(endorsement),
                    class: Class::Bulk,
                });
                self.leaving.extend(frames);
            }
            Request::Checkpoint { height, snapshot, notes, installed } => {
                // The application's next event may be that it begins at another state.
                if installed == self.core.installed() {
                    let state = snapshot.id();
                    self.history.name_state(height, snapshot, notes);
                    self.input(None, Input::StateAt { height, snapshot: state, installed });
                }
            }
            Request::KeepAbove(height) => self.history.keep_above(height),
            Request::ReadBase { for_height, answer } => {
                // A reader that is gone needs no answer.
                drop(answer.send(self.history.base_for(for_height)));
            }
            Request::Read { above, answer } => {
                // A reader that is gone needs no answer.
                drop(answer.send(self.history.blocks_above(above)));
            }
        }
        Ok(())
    }

    fn submit(&mut self, share: Share, command: Command) -> Result<(), Rejected> {
        let now = self.now();
        let result = self.core.handle(now, Input::SubmitFor(share, command));
        if result.is_err() {
            self.status.without_room += 1;
        }
        result
    }

    fn submit_own(&mut self, command: Command) {
        if let Err(error) = self.submit(Share::Own, command.clone()) {
            tracing::warn!(%error, "an own command waits outside");
            self.overflow.keep(command);
        }
    }

    /// Appends what the core wants in the journal and queues what leaves after it.
    fn collect(&mut self) -> Result<(), JournalError> {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Persist(record) => {
                    self.append(&record)?;
                    self.must_sync = true;
                }
                Output::Append(record) => self.append(&record)?,
                Output::Send { to, message } => self.send(Some(to), message),
                Output::Broadcast(message) => self.send(None, message),
                Output::Commit(committed) => {
                    self.leaving.push(Leaving::Event(Event::Committed(committed)));
                }
                Output::Stable { checkpoint, restated, reload } => {
                    self.stable(checkpoint, &restated, reload)?;
                }
                Output::Evidence(evidence) => {
                    self.leaving.push(Leaving::Event(Event::Evidence(evidence)));
                }
                Output::Diverged { certified, own } => {
                    self.leaving.push(Leaving::Event(Event::Diverged { certified, own }));
                }
                Output::Install { checkpoint, snapshot, restated } => {
                    self.install(checkpoint, snapshot, &restated)?;
                }
                Output::ServeFromJournal { to, request } => self.answer(to, self.history.answer(&request)),
                Output::ServeChunks { to, request } => {
                    let answer = self.history.chunks(&request);
                    self.answer(to, answer);
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, to: ReplicaIndex, answer: Result<Answer, ArchiveError>) {
        match answer {
            Ok(answer) => {
                if let Some(message) = answer.into_message() {
                    self.send(Some(to), message);
                }
            }
            Err(error) => tracing::error!(%error, "a peer cannot be answered from the journal"),
        }
    }

    fn stable(
        &mut self,
        checkpoint: StableCheckpoint,
        restated: &Restated,
        reload: bool,
    ) -> Result<(), JournalError> {
        let height = checkpoint.height();
        if !self.history.stable(checkpoint.clone(), restated)? {
            tracing::warn!(%height, "the journal has no base at this checkpoint; the next one may have");
        }
        self.leaving.push(Leaving::Event(Event::Stable(checkpoint.clone())));
        if !reload {
            return Ok(());
        }
        match self.history.reload(height) {
            Ok(Some(snapshot)) => {
                self.begin_at(checkpoint, snapshot, restated);
                self.input(None, Input::Reloaded(height));
            }
            Ok(None) => tracing::warn!(%height, "the certified state is not here; the next one may be"),
            Err(error) => tracing::error!(%error, "the certified state cannot be read from the journal"),
        }
        Ok(())
    }

    /// Begins at a checkpoint of the peers'.
    fn install(
        &mut self,
        checkpoint: StableCheckpoint,
        snapshot: Snapshot,
        restated: &Restated,
    ) -> Result<(), JournalError> {
        if !self.history.install(checkpoint.clone(), &snapshot, restated)? {
            let height = checkpoint.height().number();
            tracing::error!(height, "the journal has no base at the installed checkpoint");
        }
        self.begin_at(checkpoint, snapshot, restated);
        Ok(())
    }

    /// The application begins at a checkpoint. Blocks above it that were committed here before come again.
    fn begin_at(&mut self, checkpoint: StableCheckpoint, snapshot: Snapshot, restated: &Restated) {
        let above = self.history.committed_above(checkpoint.height(), restated.tip.as_ref());
        self.leaving.push(Leaving::Event(Event::Installed { checkpoint, snapshot }));
        match above {
            Ok(above) => {
                let again = above.into_iter().map(|committed| Leaving::Event(Event::Committed(committed)));
                self.leaving.extend(again);
            }
            Err(error) => tracing::error!(%error, "committed blocks cannot be read from the journal"),
        }
    }

    fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        self.history.append(record)
    }

    fn send(&mut self, to: Option<ReplicaIndex>, message: Message) {
        let class = match &message {
            Message::Proposal(_)
            | Message::Vote(_)
            | Message::Timeout(_)
            | Message::Certificates(_)
            | Message::BlockRequest(_)
            | Message::ChunkRequest(_) => Class::Urgent,
            Message::Commands(_)
            | Message::BlockResponse(_)
            | Message::CheckpointVote(_)
            | Message::Checkpoint(_)
            | Message::Gone(_)
            | Message::Chunks(_)
            | Message::Committed(_) => Class::Bulk,
        };
        self.leaving.push(Leaving::Frame { to, frame: Frame::Consensus(message), class });
    }

    /// Syncs when something must be durable, then lets everything leave, in order.
    fn carry_out(&mut self) -> Result<(), JournalError> {
        self.collect()?;
        if self.must_sync && !self.leaving.is_empty() {
            self.history.sync()?;
            self.must_sync = false;
            self.status.syncs += 1;
            self.status.signed = self.core.signed_view();
        }
        for leaving in std::mem::take(&mut self.leaving) {
            match leaving {
                Leaving::Frame { to, frame, class } => self.transmit(to, &frame, class),
                // A requester that is gone needs no answer.
                Leaving::Answer(answer, result) => drop(answer.send(result)),
                Leaving::Durable(durable) => drop(durable.send(())),
                Leaving::Event(event) => self.backlog.push_back(event),
            }
        }
        Ok(())
    }

    fn transmit(&self, to: Option<ReplicaIndex>, frame: &Frame, class: Class) {
        let bytes = Bytes::from(borsh::to_vec(frame).expect("writing to memory does not fail"));
        let sent = match to {
            Some(peer) => self.links.send(peer, bytes, class),
            None => self.links.broadcast(&bytes, class),
        };
        if let Err(error) = sent {
            tracing::error!(%error, "a frame was not sent");
        }
    }

    /// Gives the application what it has room for, without waiting: consensus goes on while it is slow.
    fn hand_over(&mut self, events: &mpsc::Sender<Event>) {
        while !self.backlog.is_empty()
            && let Ok(place) = events.try_reserve()
            && let Some(event) = self.next_event()
        {
            place.send(event);
        }
    }

    fn next_event(&mut self) -> Option<Event> {
        let event = self.backlog.pop_front()?;
        if let Event::Endorsement { from, .. } = &event
            && let Some(waiting) = self.endorsements.get_mut(from)
        {
            *waiting = waiting.saturating_sub(1);
        }
        Some(event)
    }

    fn tell_failed_removals(&mut self) {
        if let Some((times, error)) = self.history.failed_removals()
            && *times > self.status.failed_removals
        {
            tracing::warn!(times, %error, "the next checkpoint tries again to remove what is old");
            self.status.failed_removals = *times;
        }
    }

    fn keep_house(&mut self, status: &watch::Sender<ConsensusStatus>) {
        let peers = self.links.status().peers;
        self.connects.resize(peers.len(), 0);
        for (peer, seen) in peers.iter().zip(std::mem::take(&mut self.connects)) {
            self.connects.push(peer.connects);
            if peer.connects > seen && peer.sending_since.is_some() {
                self.input(None, Input::PeerConnected(peer.peer));
                self.leaving.push(Leaving::Event(Event::PeerConnected(peer.peer)));
            }
        }
        let tellers: Vec<_> =
            peers.iter().filter(|peer| peer.says_key_in_use).map(|peer| peer.peer).collect();
        if tellers.len() >= self.one_honest && tellers.len() > self.status.key_in_use.len() {
            if self.status.key_in_use.is_empty() {
                tracing::error!(
                    ?tellers,
                    "another process has this replica's key: nothing is signed any more"
                );
                self.input(None, Input::KeyInUse);
            }
            self.status.key_in_use = tellers;
        }
        let now = self.now();
        self.overflow.try_again(|command| self.core.handle(now, Input::Submit(command)).is_ok());
        self.status.view = self.core.view();
        self.status.height = self.core.committed_height();
        self.status.pending = self.core.pending_commands();
        self.status.fetching = self.core.fetching();
        self.status.forgotten = self.core.forgotten();
        self.status.transfer = self.core.transfer();
        self.status.checkpoint = self.core.stable_checkpoint().map(|stable| *stable.checkpoint());
        self.status.backlog = self.backlog.len();
        self.tell_failed_removals();
        if *status.borrow() != self.status {
            status.send_replace(self.status.clone());
        }
    }
}

#[cfg(test)]
mod tests;
