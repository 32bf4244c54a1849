//! An honest replica: the production core and journal under a driver that keeps the rule *durable before
//! visible*, one output at a time, so that a crash fits between any two.
//!
//! It knows no network and no other replica. A [`Plant`] makes the driver break one rule on purpose, to prove
//! that the invariants see it. Invariant: without a plant, nothing leaves while an entry that it depends on is
//! unsynced.

use quorate::{
    consensus::{
        Archive, CommittedBlock, Config, Core, Input, Message, Output, Record, Recovery, Rejected, Vote,
        journal::{Identity, Journal, JournalConfig, Salt},
    },
    types::{Digest, Millis, ReplicaIndex},
};
use std::collections::VecDeque;

use crate::{
    application::Application,
    disk::{Crash, SimDisk},
    rng::Stream,
    statements,
};

/// The journal's entry kind of consensus records.
const RECORD_KIND: u8 = 1;

/// A fault that the simulator plants in a replica's driver to prove that the invariants see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Messages leave before what they depend on is synced.
    SendsBeforeSync,
    /// A restart begins with an empty disk.
    ForgetsJournal,
    /// For each vote it signs another for a block that does not exist.
    VotesTwice,
}

/// A replica's monotonic clock: it begins anywhere and runs a little fast or slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What it shows when the run begins, in milliseconds.
    pub offset_ms: u64,
    /// Its milliseconds in a thousand true ones.
    pub rate_per_mille: u64,
}

impl Clock {
    fn shows(self, now_ms: u64) -> Millis {
        Millis::new(self.offset_ms + now_ms * self.rate_per_mille / 1000)
    }

    /// The first true millisecond at which it shows at least this.
    fn when(self, shown: Millis) -> u64 {
        let since = shown.as_millis().saturating_sub(self.offset_ms);
        (since * 1000).div_ceil(self.rate_per_mille)
    }
}

/// What carrying out one output did.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Something was appended to the journal, or nothing is to be seen.
    Inside,
    /// A message left for one peer.
    Sent {
        /// For whom.
        to: ReplicaIndex,
        /// What.
        message: Message,
    },
    /// A block reached the application.
    Committed(CommittedBlock),
    /// The replica crashed instead.
    Crashed,
}

/// What a replica has from its past after a start.
#[derive(Debug)]
pub struct Started {
    /// The committed blocks of the journal, lowest first.
    pub redelivered: Vec<CommittedBlock>,
}

/// One honest replica: running or down, its disk stays.
#[derive(Debug)]
pub struct Node {
    config: Config,
    clock: Clock,
    disk: SimDisk,
    salts: Stream,
    segment_bytes: u64,
    plant: Option<Plant>,
    running: Option<Running>,
    /// How many more outputs are carried out before a crash, and which crash.
    fuse: Option<(u64, Crash)>,
    incarnation: u64,
}

#[derive(Debug)]
struct Running {
    core: Core,
    journal: Journal<SimDisk>,
    archive: Archive,
    application: Application,
    /// Whether something was persisted that must be synced before anything leaves.
    owes_sync: bool,
    sending: VecDeque<(ReplicaIndex, Message)>,
}

impl Node {
    /// A replica that was never started, with an empty disk.
    #[must_use]
    pub const fn new(
        config: Config,
        clock: Clock,
        disk: SimDisk,
        salts: Stream,
        segment_bytes: u64,
        plant: Option<Plant>,
    ) -> Self {
        Self { config, clock, disk, salts, segment_bytes, plant, running: None, fuse: None, incarnation: 0 }
    }

    /// Opens the journal and becomes the replica that it tells of.
    ///
    /// # Errors
    /// The reason for which the journal or its records were refused. On a disk that works and was not damaged that is
    /// a fault of the production code or of the plant.
    pub fn start(&mut self) -> Result<Started, String> {
        if self.plant == Some(Plant::ForgetsJournal) {
            self.disk = SimDisk::new(self.salts.clone());
        }
        self.incarnation += 1;
        let key = self.config.key.public().id();
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.salts.next().to_le_bytes());
        let config = JournalConfig {
            identity: Identity { cluster: self.config.committee.cluster(), key },
            salt: Salt::new(salt),
            segment_bytes: self.segment_bytes,
        };
        let mut entries = Vec::new();
        let (journal, _) = Journal::open(self.disk.clone(), config, |entry| {
            entries.push((entry.location, entry.payload.to_vec()));
        })
        .map_err(|error| error.to_string())?;
        let mut archive = Archive::default();
        let mut recovery = Recovery::new(self.config.clone());
        let mut application = Application::default();
        let mut redelivered = Vec::new();
        for (location, payload) in entries {
            let record: Record = borsh::from_slice(&payload).map_err(|error| error.to_string())?;
            archive.note(&record, location);
            if let Some(committed) = recovery.record(record).map_err(|error| error.to_string())? {
                application.apply(&committed.block);
                redelivered.push(committed);
            }
        }
        let core = recovery.finish();
        let sending = VecDeque::new();
        self.running = Some(Running { core, journal, archive, application, owes_sync: false, sending });
        Ok(Started { redelivered })
    }

    /// Gives the core an input; nothing happens while the replica is down.
    ///
    /// # Errors
    /// The core's own refusal.
    pub fn handle(&mut self, now_ms: u64, input: Input) -> Result<(), Rejected> {
        let now = self.clock.shows(now_ms);
        self.running.as_mut().map_or(Ok(()), |running| running.core.handle(now, input))
    }

    /// Carries out the next output; `None` when there is none, or the replica is down.
    ///
    /// # Errors
    /// The journal's failure on a disk that was not asked to fail: a fault of the production code.
    pub fn step(&mut self) -> Result<Option<Effect>, String> {
        let Some(running) = self.running.as_mut() else { return Ok(None) };
        let sending = running.sending.pop_front();
        let Some(output) =
            sending.map(|(to, message)| Output::Send { to, message }).or_else(|| running.core.poll_output())
        else {
            return Ok(None);
        };
        match &mut self.fuse {
            Some((0, crash)) => {
                let crash = *crash;
                self.crash(crash);
                return Ok(Some(Effect::Crashed));
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        match running.carry_out(output, &self.config, self.plant) {
            // A replica whose journal fails ends.
            Err(_) if self.disk.has_failed() => {
                self.crash(Crash::Process);
                Ok(Some(Effect::Crashed))
            }
            carried_out => carried_out.map(Some),
        }
    }

    /// Its clock leaps ahead.
    pub const fn leap(&mut self, by_ms: u64) {
        self.clock.offset_ms += by_ms;
    }

    /// Ends the replica now.
    pub fn crash(&mut self, crash: Crash) {
        self.running = None;
        self.fuse = None;
        self.disk.crash(crash);
    }

    /// Ends the replica after so many more outputs.
    pub const fn crash_after(&mut self, outputs: u64, crash: Crash) {
        self.fuse = Some((outputs, crash));
    }

    /// Takes back a crash that has not come.
    pub const fn spare(&mut self) {
        self.fuse = None;
    }

    /// When the core wants to be called, in true milliseconds.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        let shown = self.running.as_ref()?.core.next_timeout()?;
        Some(self.clock.when(shown))
    }

    /// The running core.
    #[must_use]
    pub fn core(&self) -> Option<&Core> {
        self.running.as_ref().map(|running| &running.core)
    }

    /// The digest of the running application.
    #[must_use]
    pub fn state(&self) -> Option<Digest> {
        self.running.as_ref().map(|running| running.application.digest())
    }

    /// The disk, to look at.
    #[must_use]
    pub const fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// How often it was started.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }
}

impl Running {
    fn carry_out(&mut self, output: Output, config: &Config, plant: Option<Plant>) -> Result<Effect, String> {
        match output {
            Output::Persist(record) => {
                self.owes_sync = true;
                self.append(&record)?;
                Ok(Effect::Inside)
            }
            Output::Append(record) => {
                self.append(&record)?;
                Ok(Effect::Inside)
            }
            Output::Send { to, message } => {
                self.sync(plant)?;
                Ok(Effect::Sent { to, message })
            }
            Output::Broadcast(message) => {
                self.sync(plant)?;
                let peers: Vec<_> = config.committee.replicas().filter(|peer| *peer != config.me).collect();
                self.sending.extend(peers.iter().map(|to| (*to, message.clone())));
                if plant == Some(Plant::VotesTwice)
                    && let Message::Vote(vote) = &message
                {
                    let second = second_vote(config, vote);
                    self.sending.extend(peers.into_iter().map(|to| (to, second.clone())));
                }
                Ok(Effect::Inside)
            }
            Output::Commit(committed) => {
                self.sync(plant)?;
                self.application.apply(&committed.block);
                Ok(Effect::Committed(committed))
            }
            Output::ServeFromJournal { to, request } => {
                self.sync(plant)?;
                let answer = self.archive.answer(&self.journal, &request);
                Ok(match answer.map_err(|error| error.to_string())? {
                    Some(response) => Effect::Sent { to, message: Message::BlockResponse(response) },
                    None => Effect::Inside,
                })
            }
        }
    }

    fn append(&mut self, record: &Record) -> Result<(), String> {
        let payload = borsh::to_vec(record).map_err(|error| error.to_string())?;
        let location = self.journal.append(RECORD_KIND, &payload).map_err(|error| error.to_string())?;
        self.archive.note(record, location);
        Ok(())
    }

    fn sync(&mut self, plant: Option<Plant>) -> Result<(), String> {
        if self.owes_sync && plant != Some(Plant::SendsBeforeSync) {
            self.journal.sync().map_err(|error| error.to_string())?;
            self.owes_sync = false;
        }
        Ok(())
    }
}

fn second_vote(config: &Config, vote: &Vote) -> Message {
    let block = Digest::of(vote.block.as_bytes());
    let signature = config.key.sign(&statements::vote(&config.committee, vote.view, vote.height, block));
    Message::Vote(Vote { block, signature, ..vote.clone() })
}
