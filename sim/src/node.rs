//! An honest replica: the production core and journal under a driver that keeps the rule *durable before
//! visible*, one output at a time, so that a crash fits between any two.
//!
//! It knows no network and no other replica. A [`Plant`] makes the driver break one rule on purpose, to prove
//! that the invariants see it. Invariant: without a plant, nothing leaves while an entry that it depends on is
//! unsynced.

use quorate::{
    consensus::{
        Answer, ArchiveError, Command, CommittedBlock, Config, Core, History, Input, Kept, Message, Output,
        Recovered, Rejected, Snapshot, StableCheckpoint, Vote,
        certify::Endorsement,
        journal::{Identity, JournalConfig, Salt},
    },
    cycle::{Alarm, Decided, Folded, Output as CycleOutput, Seal},
    types::{Digest, Evidence, Millis, ReplicaIndex, TargetId},
};
use std::{collections::VecDeque, sync::Arc};

use crate::{
    application::Application,
    control::Control,
    disk::{Crash, SimDisk},
    letter::Words,
    rng::Stream,
    statements,
    telemetry::Telemetry,
};

/// The chunks of the simulated snapshots: so small that there are several.
const CHUNK_BYTES: usize = 200;

/// A fault that the simulator plants in a replica's driver to prove that the invariants see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Messages leave before what they depend on is synced.
    SendsBeforeSync,
    /// A restart begins with an empty disk.
    ForgetsJournal,
    /// For each vote it signs another for a block that does not exist.
    VotesTwice,
    /// It names another state than its own at checkpoints.
    NamesAnotherState,
}

/// A replica's monotonic clock: it begins anywhere and runs a little fast or slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What it shows when the run begins, in milliseconds.
    pub offset_ms: u64,
    /// Its milliseconds in a thousand true ones.
    pub rate_per_mille: u64,
    /// How far its wall clock is ahead of the true time, in milliseconds: less than the grace.
    pub skew_ms: u64,
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
    /// Words left for one peer.
    Sent {
        /// For whom.
        to: ReplicaIndex,
        /// What.
        words: Words,
    },
    /// A block reached the application.
    Committed(CommittedBlock),
    /// A checkpoint with the own state is certified.
    Stable(StableCheckpoint),
    /// A checkpoint with another state is certified.
    Diverged(StableCheckpoint),
    /// The application begins at a checkpoint.
    Installed(Begun),
    /// The control cycle folded a block.
    Folded(Folded),
    /// The control cycle handed a command in.
    Submitted(Command),
    /// A control cycle ran.
    Decided(Decided),
    /// A quorum endorsed a plan, by its target, sequence number and digest.
    Certified(String, u64, Digest),
    /// The control cycle raised an alarm.
    Alarm(Alarm),
    /// Its core saw a replica contradict itself, or sign what does not verify.
    Witnessed(Box<Evidence>),
    /// The replica crashed instead, of this.
    Crashed(&'static str),
}

/// What a replica has from its past after a start.
#[derive(Debug)]
pub struct Started {
    /// The checkpoint of the journal that the application begins at.
    pub begun: Option<Begun>,
    /// The committed blocks of the journal, lowest first.
    pub redelivered: Vec<Redelivered>,
}

/// A committed block that is applied again after a start.
#[derive(Debug)]
pub struct Redelivered {
    /// The block.
    pub committed: CommittedBlock,
    /// The control cycle's root after it.
    pub root: Option<Digest>,
    /// What it changed.
    pub folded: Option<Folded>,
}

/// An application that begins at a checkpoint.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The checkpoint.
    pub checkpoint: StableCheckpoint,
    /// The application at it.
    pub application: Application,
    /// The control cycle's root, where there is a cycle.
    pub root: Option<Digest>,
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
    telemetry: Option<Arc<Telemetry>>,
    running: Option<Running>,
    /// How many more outputs are carried out before a crash, and which crash.
    fuse: Option<(u64, Crash)>,
    incarnation: u64,
}

#[derive(Debug)]
struct Running {
    core: Core,
    history: History<SimDisk>,
    application: Application,
    control: Option<Control>,
    interval: u64,
    /// Whether something was persisted that must be synced before anything leaves.
    owes_sync: bool,
    sending: VecDeque<(ReplicaIndex, Words)>,
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
        telemetry: Option<Arc<Telemetry>>,
    ) -> Self {
        let (running, fuse, incarnation) = (None, None, 0);
        Self { config, clock, disk, salts, segment_bytes, plant, telemetry, running, fuse, incarnation }
    }

    /// Opens the journal and becomes the replica that it tells of.
    ///
    /// # Errors
    /// The reason for which the journal or its records were refused. On a disk that works and was not damaged that is
    /// a fault of the production code or of the plant.
    pub fn start(&mut self, now_ms: u64) -> Result<Started, String> {
        if self.plant == Some(Plant::ForgetsJournal) {
            self.disk = SimDisk::new(self.salts.clone());
        }
        self.incarnation += 1;
        let (history, core, recovered) = self.open_journal()?;
        let telemetry = self.telemetry.clone();
        let control = telemetry.map(|telemetry| Control::new(&self.config, telemetry, self.clock.skew_ms));
        let mut running = Running {
            core,
            history,
            application: Application::default(),
            control,
            interval: self.config.checkpoint_interval,
            owes_sync: false,
            sending: VecDeque::new(),
        };
        let begun =
            recovered.base.map(|base| running.install(base.checkpoint, &base.snapshot)).transpose()?;
        for note in recovered.notes {
            let seal: Seal = borsh::from_slice(&note).map_err(|error| error.to_string())?;
            running.control.iter_mut().for_each(|control| control.restore(seal.clone()));
        }
        let now = self.clock.shows(now_ms);
        let mut redelivered = Vec::new();
        for committed in recovered.blocks {
            running.application.apply(&committed.block);
            let folded = running.replay(&committed)?;
            let root = running.control.as_ref().map(Control::root);
            running.name_state(&committed, now, self.plant)?;
            redelivered.push(Redelivered { committed, root, folded });
        }
        if let Some(control) = &mut running.control {
            control.begin(now_ms);
        }
        self.running = Some(running);
        Ok(Started { begun, redelivered })
    }

    fn open_journal(&mut self) -> Result<(History<SimDisk>, Core, Recovered), String> {
        let key = self.config.key.public().id();
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.salts.next().to_le_bytes());
        let config = JournalConfig {
            identity: Identity { cluster: self.config.committee.cluster(), key },
            salt: Salt::new(salt),
            segment_bytes: self.segment_bytes,
        };
        History::open(self.disk.clone(), config, self.config.clone()).map_err(|error| error.to_string())
    }

    /// Gives the core an input; nothing happens while the replica is down.
    ///
    /// # Errors
    /// The core's own refusal.
    pub fn handle(&mut self, now_ms: u64, input: Input) -> Result<(), Rejected> {
        let now = self.clock.shows(now_ms);
        self.running.as_mut().map_or(Ok(()), |running| running.core.handle(now, input))
    }

    /// Takes a peer's endorsement. What the cycle refuses is counted against the peer, and is none of ours here.
    pub fn take_endorsement(&mut self, from: ReplicaIndex, endorsement: Endorsement) -> bool {
        let control = self.running.as_mut().and_then(|running| running.control.as_mut());
        control.is_none_or(|control| control.cycle().receive(from, endorsement).is_ok())
    }

    /// A link to a peer came up: what it may have missed is sent again.
    ///
    /// # Errors
    /// The core's own refusal.
    pub fn connected(&mut self, now_ms: u64, peer: ReplicaIndex) -> Result<(), Rejected> {
        let now = self.clock.shows(now_ms);
        let Some(running) = &mut self.running else { return Ok(()) };
        if let Some(control) = &mut running.control {
            let own = control.cycle().endorsements();
            running.sending.extend(own.into_iter().map(|endorsement| (peer, endorsement.into())));
        }
        running.core.handle(now, Input::PeerConnected(peer))
    }

    /// Its own time has come: the core's timer, the driver's beat.
    ///
    /// # Errors
    /// The core's own refusal.
    pub fn wake(&mut self, now_ms: u64) -> Result<(), Rejected> {
        let now = self.clock.shows(now_ms);
        let Some(running) = &mut self.running else { return Ok(()) };
        if let Some(control) = &mut running.control {
            control.beat(now_ms);
        }
        if running.core.next_timeout().is_some_and(|due| due <= now) {
            return running.core.handle(now, Input::Timer);
        }
        Ok(())
    }

    /// Carries out the next output; `None` when there is none, or the replica is down.
    ///
    /// # Errors
    /// The journal's failure on a disk that was not asked to fail: a fault of the production code.
    pub fn step(&mut self, now_ms: u64) -> Result<Option<Effect>, String> {
        let now = self.clock.shows(now_ms);
        let Some(running) = self.running.as_mut() else { return Ok(None) };
        let Some(next) = running.next() else { return Ok(None) };
        match &mut self.fuse {
            Some((0, crash)) => {
                let crash = *crash;
                self.crash(crash);
                let why = match crash {
                    Crash::Process => "killed",
                    Crash::Power => "power lost",
                };
                return Ok(Some(Effect::Crashed(why)));
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        match running.carry_out(next, now, &self.config, self.plant) {
            // A replica whose journal fails ends.
            Err(_) if self.disk.has_failed() => {
                self.crash(Crash::Process);
                Ok(Some(Effect::Crashed("ended by its journal")))
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

    /// When it wants to be woken, in true milliseconds.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        let running = self.running.as_ref()?;
        let timer = running.core.next_timeout().map(|shown| self.clock.when(shown));
        let beat = running.control.as_ref().and_then(Control::next_beat_ms);
        [timer, beat].into_iter().flatten().min()
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

    /// The root of the running control cycle, if there is one.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        self.running.as_ref()?.control.as_ref().map(Control::root)
    }

    /// How much of its history is kept.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        self.running.as_ref().map(|running| running.history.kept())
    }

    /// The sequence number of the newest plan that its control cycle logged for a target; zero before any.
    #[must_use]
    pub fn newest_plan(&self, target: &TargetId) -> u64 {
        let control = self.running.as_ref().and_then(|running| running.control.as_ref());
        control.map_or(0, |control| control.newest_plan(target))
    }

    /// The most endorsements that it keeps of one peer.
    #[must_use]
    pub fn kept_endorsements(&self) -> usize {
        let control = self.running.as_ref().and_then(|running| running.control.as_ref());
        control.map_or(0, Control::kept_endorsements)
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

/// What is carried out next.
enum Next {
    Send(ReplicaIndex, Words),
    Core(Output),
    Cycle(CycleOutput),
}

impl Running {
    fn next(&mut self) -> Option<Next> {
        if let Some((to, words)) = self.sending.pop_front() {
            return Some(Next::Send(to, words));
        }
        if let Some(output) = self.core.poll_output() {
            return Some(Next::Core(output));
        }
        self.control.as_mut()?.cycle().poll_output().map(Next::Cycle)
    }

    /// Applies a block of the journal again; gives what it changed.
    fn replay(&mut self, committed: &CommittedBlock) -> Result<Option<Folded>, String> {
        let Some(control) = &mut self.control else { return Ok(None) };
        let (seals, folded) = control.replay(&committed.block);
        for seal in seals {
            self.seal(&seal)?;
        }
        Ok(folded)
    }

    fn seal(&mut self, seal: &Seal) -> Result<(), String> {
        let seal = borsh::to_vec(seal).map_err(|error| error.to_string())?;
        self.history.note(&seal).map_err(|error| error.to_string())?;
        self.owes_sync = true;
        Ok(())
    }

    /// Names the state after a block at whose height a checkpoint is due.
    fn name_state(
        &mut self,
        committed: &CommittedBlock,
        now: Millis,
        plant: Option<Plant>,
    ) -> Result<(), String> {
        let height = committed.block.height();
        if !height.number().is_multiple_of(self.interval) {
            return Ok(());
        }
        let control = self.control.as_ref().map(Control::snapshot);
        let (cycle, seals) = control.unzip();
        let mut state = borsh::to_vec(&(&self.application, cycle)).map_err(|error| error.to_string())?;
        if plant == Some(Plant::NamesAnotherState) {
            state.push(0);
        }
        let snapshot = Snapshot::cut(&state, CHUNK_BYTES).map_err(|error| error.to_string())?;
        let notes = seals.into_iter().flatten().map(|seal| borsh::to_vec(&seal));
        let notes = notes.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let state = snapshot.id();
        self.history.name_state(height, snapshot, notes);
        let installed = self.core.installed();
        let taken = self.core.handle(now, Input::StateAt { height, snapshot: state, installed });
        taken.map_err(|error| error.to_string())
    }

    /// The application begins at a checkpoint.
    fn install(&mut self, checkpoint: StableCheckpoint, snapshot: &Snapshot) -> Result<Begun, String> {
        let (application, cycle): (Application, Option<Vec<u8>>) =
            borsh::from_slice(&snapshot.to_bytes()).map_err(|error| error.to_string())?;
        self.application = application;
        if let (Some(control), Some(cycle)) = (&mut self.control, cycle) {
            control.install(&cycle)?;
        }
        Ok(Begun { checkpoint, application, root: self.control.as_ref().map(Control::root) })
    }

    fn carry_out(
        &mut self,
        next: Next,
        now: Millis,
        config: &Config,
        plant: Option<Plant>,
    ) -> Result<Effect, String> {
        match next {
            Next::Send(to, words) => {
                self.sync(plant)?;
                Ok(Effect::Sent { to, words })
            }
            Next::Core(output) => self.core_output(output, now, config, plant),
            Next::Cycle(output) => self.cycle_output(output, now, config, plant),
        }
    }

    fn cycle_output(
        &mut self,
        output: CycleOutput,
        now: Millis,
        config: &Config,
        plant: Option<Plant>,
    ) -> Result<Effect, String> {
        Ok(match output {
            CycleOutput::Seal(seal) => {
                self.seal(&seal)?;
                Effect::Inside
            }
            CycleOutput::Endorse(endorsement) => {
                self.sync(plant)?;
                let peers = config.committee.replicas().filter(|peer| *peer != config.me);
                self.sending.extend(peers.map(|to| (to, endorsement.clone().into())));
                Effect::Inside
            }
            CycleOutput::Submit(encoded) => {
                let command = Command::new(encoded.head, encoded.body).map_err(|error| error.to_string())?;
                self.core
                    .handle(now, Input::Submit(command.clone()))
                    .map_err(|error| format!("no room for an own command: {error}"))?;
                Effect::Submitted(command)
            }
            CycleOutput::Decided(decided) => Effect::Decided(decided),
            CycleOutput::PlanCertified(plan) => {
                let document = plan.document();
                Effect::Certified(document.target.to_string(), document.seq.number(), plan.digest())
            }
            CycleOutput::Alarm(alarm) => Effect::Alarm(alarm),
            CycleOutput::Folded(folded) => Effect::Folded(folded),
            CycleOutput::HeadCertified(_) => Effect::Inside,
        })
    }

    fn core_output(
        &mut self,
        output: Output,
        now: Millis,
        config: &Config,
        plant: Option<Plant>,
    ) -> Result<Effect, String> {
        match output {
            Output::Persist(record) => {
                self.owes_sync = true;
                self.history.append(&record).map_err(|error| error.to_string())?;
                Ok(Effect::Inside)
            }
            Output::Append(record) => {
                self.history.append(&record).map_err(|error| error.to_string())?;
                Ok(Effect::Inside)
            }
            Output::Send { to, message } => {
                self.sync(plant)?;
                Ok(Effect::Sent { to, words: message.into() })
            }
            Output::Broadcast(message) => {
                self.sync(plant)?;
                let peers: Vec<_> = config.committee.replicas().filter(|peer| *peer != config.me).collect();
                self.sending.extend(peers.iter().map(|to| (*to, message.clone().into())));
                if plant == Some(Plant::VotesTwice)
                    && let Message::Vote(vote) = &message
                {
                    let second = second_vote(config, vote);
                    self.sending.extend(peers.into_iter().map(|to| (to, second.clone().into())));
                }
                Ok(Effect::Inside)
            }
            Output::Commit(committed) => {
                self.sync(plant)?;
                self.application.apply(&committed.block);
                if let Some(control) = &mut self.control {
                    control.cycle().commit(&committed.block);
                }
                self.name_state(&committed, now, plant)?;
                Ok(Effect::Committed(committed))
            }
            Output::Stable { reload: true, .. } => {
                Err("a state that never was another is to be taken up anew".to_owned())
            }
            Output::Stable { checkpoint, restated, reload: false } => {
                let written = self.history.stable(checkpoint.clone(), &restated);
                written.map_err(|error| error.to_string())?;
                Ok(Effect::Stable(checkpoint))
            }
            Output::Diverged { certified, .. } => Ok(Effect::Diverged(certified)),
            Output::Install { checkpoint, snapshot, restated } => {
                let written = self.history.install(checkpoint.clone(), &snapshot, &restated);
                written.map_err(|error| error.to_string())?;
                self.install(checkpoint, &snapshot).map(Effect::Installed)
            }
            Output::Evidence(evidence) => {
                if let Some(control) = &mut self.control {
                    control.cycle().accuse(Evidence::clone(&evidence));
                }
                Ok(Effect::Witnessed(evidence))
            }
            Output::ServeFromJournal { to, request } => {
                self.sync(plant)?;
                answered(to, self.history.answer(&request))
            }
            Output::ServeChunks { to, request } => {
                self.sync(plant)?;
                answered(to, self.history.chunks(&request))
            }
        }
    }

    fn sync(&mut self, plant: Option<Plant>) -> Result<(), String> {
        if self.owes_sync && plant != Some(Plant::SendsBeforeSync) {
            self.history.sync().map_err(|error| error.to_string())?;
            self.owes_sync = false;
        }
        Ok(())
    }
}

fn answered(to: ReplicaIndex, answer: Result<Answer, ArchiveError>) -> Result<Effect, String> {
    let message = answer.map_err(|error| error.to_string())?.into_message();
    Ok(message.map_or(Effect::Inside, |message| Effect::Sent { to, words: message.into() }))
}

fn second_vote(config: &Config, vote: &Vote) -> Message {
    let block = Digest::of(vote.block.as_bytes());
    let signature = config.key.sign(&statements::vote(&config.committee, vote.view, vote.height, block));
    Message::Vote(Vote { block, signature, ..vote.clone() })
}
