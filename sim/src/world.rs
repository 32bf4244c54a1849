//! The world: one queue of events over virtual time, the replicas, the network between them, and the judgement
//! at the end.
//!
//! It draws nothing itself: scenario, network, disks and adversaries have their streams. Invariant: events
//! happen in the order of time, then of their making, and every one is followed by the invariants.

mod clients;
mod faults;
mod judgement;

use quorate::{
    consensus::{Command, CommittedBlock, Config, Input, Rejected, Share, ViewTimes},
    cycle::{Alarm, Folded},
    knowledge::change::Change,
    types::{Committee, Digest, Epoch, Evidence, ReplicaIndex, SecretKey},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    adversary::{Adversary, Kind, adversary},
    disk::SimDisk,
    invariants::Invariants,
    letter::{Letter, Words},
    liveness::Bounds,
    net::Network,
    node::{Effect, Node},
    report::{Outcome, Reached, Refused},
    requests::Desk,
    rng::{Cause, Stream},
    scenario::Scenario,
    trace::{Lines, Trace, describe, fingerprint},
};

/// The longest view, in milliseconds, of the slowest clock with its messages: 8 s, 5 % and two delays.
const LONGEST_VIEW_MS: u64 = 8_500;

/// A run that has this many events once all faults are over never comes to rest.
const MOST_EVENTS: u64 = 2_000_000;

/// How long after healing every command submitted before is committed at every honest replica.
///
/// One view until all are in the same one. Of any n consecutive views two consecutive ones have honest leaders,
/// for fewer than a third are not; the second one's certificate commits the first one's block, and that block holds
/// every waiting command that its leader knows. A leader that lacks a block fetches it and may lose its turn: one more round.
#[must_use]
pub const fn liveness_bound_ms(replicas: usize) -> u64 {
    (2 * replicas as u64 + 3) * LONGEST_VIEW_MS
}

#[derive(Debug)]
enum Seat {
    Honest(Box<Node>),
    Adversary(Box<dyn Adversary>),
}

#[derive(Debug)]
enum Event {
    Arrive(Box<Letter>),
    Connect {
        at: ReplicaIndex,
        peer: ReplicaIndex,
    },
    Wake(ReplicaIndex),
    Submit(usize),
    /// An operator's errand.
    Errand(usize),
    /// An operator or an agent hands a command in.
    HandIn {
        command: Command,
        at: Vec<ReplicaIndex>,
    },
    Fault(usize),
    Mend {
        from: ReplicaIndex,
        to: ReplicaIndex,
    },
    Restart(ReplicaIndex),
    /// There is room on a replica's disk again.
    Room(ReplicaIndex),
    Heal,
    Judge,
}

/// A submitted command.
#[derive(Debug)]
struct Submitted {
    command: Command,
    at: ReplicaIndex,
    /// In which life of the replica; none when it was down.
    incarnation: Option<u64>,
}

#[derive(Debug)]
struct World<'a> {
    scenario: Scenario,
    now_ms: u64,
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
    everybody: Vec<ReplicaIndex>,
    seats: BTreeMap<ReplicaIndex, Seat>,
    /// For when each replica's next wake-up is in the queue.
    wakes: BTreeMap<ReplicaIndex, u64>,
    /// How long a replica that will crash stays away.
    away_ms: BTreeMap<ReplicaIndex, u64>,
    network: Network,
    invariants: Invariants,
    submitted: Vec<Submitted>,
    desk: Desk,
    /// How many events there were when all faults were over.
    events_at_healing: Option<u64>,
    /// The newest view and height when all faults were over.
    healed_at: Option<(u64, u64)>,
    recovered: Option<Bounds>,
    signed_views: Vec<u64>,
    /// Replicas that never come back.
    gone: BTreeSet<ReplicaIndex>,
    /// Commands that some honest replica has not committed, once all faults are over.
    waiting: Option<Vec<Digest>>,
    settled_after_ms: Option<u64>,
    faults: BTreeMap<&'static str, u64>,
    reached: BTreeMap<Kind, Reached>,
    finished: bool,
    trace: Trace<'a>,
}

/// Runs a scenario.
#[must_use]
pub fn run(scenario: Scenario) -> Outcome {
    World::new(scenario, None).run()
}

/// Runs a scenario and tells every event.
#[must_use]
pub fn run_traced(scenario: Scenario, lines: Lines<'_>) -> Outcome {
    World::new(scenario, Some(lines)).run()
}

impl<'a> World<'a> {
    fn new(scenario: Scenario, lines: Option<Lines<'a>>) -> Self {
        let keys: Vec<_> = (1..).map(key).take(scenario.replicas).collect();
        let members = keys.iter().map(SecretKey::public).collect();
        let committee = Committee::new(Digest::of(b"simulated cluster"), Epoch::new(1), members);
        let committee = Arc::new(committee.expect("the keys are distinct and the size was checked"));
        let everybody: Vec<_> = committee.replicas().collect();
        let mut seats = BTreeMap::new();
        for (replica, key) in everybody.iter().zip(keys) {
            let config = Config {
                committee: Arc::clone(&committee),
                me: *replica,
                key,
                times: ViewTimes::default(),
                checkpoint_interval: scenario.checkpoint_interval,
            };
            seats.insert(*replica, seat(&scenario, config));
        }
        let network = Network::new(scenario.weather, Stream::new(scenario.seed, Cause::Network, 0));
        let mut world = Self {
            faults: BTreeMap::new(),
            reached: BTreeMap::new(),
            now_ms: 0,
            events: BTreeMap::new(),
            made: 0,
            everybody,
            seats,
            wakes: BTreeMap::new(),
            away_ms: BTreeMap::new(),
            network,
            invariants: Invariants::new(committee, scenario.adversaries.len() + scenario.damaged.len()),
            submitted: Vec::new(),
            desk: Desk::new(scenario.seed),
            events_at_healing: None,
            healed_at: None,
            recovered: None,
            signed_views: Vec::new(),
            gone: BTreeSet::new(),
            waiting: None,
            settled_after_ms: None,
            finished: false,
            trace: Trace::new(lines),
            scenario,
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        for replica in self.everybody.clone() {
            let first_ms = self.scenario.first_start_ms(replica);
            self.push(first_ms, Event::Restart(replica));
        }
        for index in 0..self.scenario.submissions.len() {
            self.push(self.scenario.submissions[index].at_ms, Event::Submit(index));
        }
        for index in 0..self.scenario.errands.len() {
            self.push(self.scenario.errands[index].at_ms, Event::Errand(index));
        }
        for index in 0..self.scenario.faults.len() {
            self.push(self.scenario.faults[index].0, Event::Fault(index));
        }
        self.push(self.scenario.heal_ms, Event::Heal);
    }

    fn push(&mut self, at_ms: u64, event: Event) {
        self.made += 1;
        self.events.insert((at_ms.max(self.now_ms), self.made), event);
    }

    fn run(mut self) -> Outcome {
        while !self.finished
            && let Some(((at_ms, _), event)) = self.events.pop_first()
        {
            self.now_ms = at_ms;
            self.invariants.at(at_ms);
            self.happen(event);
            self.finish_at_rest();
            let events = self.events_at_healing.map_or(0, |before| self.trace.events() - before);
            self.invariants.claim(events < MOST_EVENTS, || "the cluster does not come to rest".to_owned());
            self.finished |= self.invariants.broken().is_some();
        }
        self.count_what_disks_met();
        Outcome {
            seed: self.scenario.seed,
            virtual_ms: self.now_ms,
            commits: self.invariants.heights(),
            busy_commits: self.invariants.busy_heights(),
            recovered: self.recovered,
            signed_views: self.signed_views,
            traffic: self.network.traffic(),
            orders: self.invariants.orders(),
            faults: self.faults,
            reached: self.reached,
            settled_after_ms: self.settled_after_ms,
            trace: self.trace.digest(),
            witnessed: self.invariants.offences_witnessed().clone(),
            proven: self.invariants.offences_proven().clone(),
            violation: self.invariants.broken().cloned(),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(letter) => self.arrive(*letter),
            Event::Connect { at, peer } => self.connect(at, peer),
            Event::Wake(replica) => self.wake(replica),
            Event::Submit(index) => self.submit(index),
            Event::Errand(index) => self.errand(index),
            Event::HandIn { command, at } => self.hand_in_at(Share::Ordinary, &command, &at),
            Event::Fault(index) => self.fault(index),
            Event::Mend { from, to } => self.mend(from, to),
            Event::Restart(replica) => self.restart(replica),
            Event::Room(replica) => self.room(replica),
            Event::Heal => self.heal(),
            Event::Judge => self.judge(),
        }
    }

    fn arrive(&mut self, letter: Letter) {
        let (from, to) = (letter.from, letter.to);
        let [kind, one, two] = fingerprint(&letter.words);
        let words = [10, number(from), number(to), kind, one, two];
        self.trace.event(self.now_ms, &words, || format!("{from} -> {to}: {}", describe(&letter.words)));
        match self.seats.get_mut(&to) {
            Some(Seat::Honest(node)) => {
                let decoded = letter.words.through_the_codec();
                let same = decoded.as_ref() == Some(&letter.words);
                let answer = decoded.map(|words| match words {
                    Words::Consensus(message) => node
                        .handle(self.now_ms, Input::Message { from, message })
                        .map_err(Refused::ByConsensus),
                    Words::Endorsement(endorsement) => {
                        let taken = node.take_endorsement(from, endorsement);
                        if taken { Ok(()) } else { Err(Refused::Endorsement) }
                    }
                });
                match self.scenario.kind_of(from) {
                    None => {
                        self.invariants
                            .claim(same, || format!("words of honest {from} do not survive their encoding"));
                        // One whose disk was damaged may contradict what it has forgotten.
                        if self.scenario.is_sound(from) {
                            self.invariant_honest_words_are_valid(from, to, answer.unwrap_or(Ok(())));
                        }
                    }
                    Some(kind) => self.reached.entry(kind).or_default().count(answer),
                }
            }
            Some(Seat::Adversary(adversary)) => adversary.receive(self.now_ms, letter),
            None => {}
        }
        self.pump(to);
    }

    /// What an honest replica says is refused as late, early or too much, never as wrong.
    fn invariant_honest_words_are_valid(
        &mut self,
        from: ReplicaIndex,
        to: ReplicaIndex,
        answer: Result<(), Refused>,
    ) {
        let Err(refused) = answer else { return };
        let rejected = match refused {
            Refused::ByConsensus(rejected) => rejected,
            Refused::Endorsement => {
                return self
                    .invariants
                    .claim(false, || format!("{to} refused an endorsement of honest {from}"));
            }
        };
        let wrong = match rejected {
            Rejected::Certificate(_)
            | Rejected::Proposal(_)
            | Rejected::SecondProposal
            | Rejected::SecondVote
            | Rejected::SecondCheckpoint
            | Rejected::FalseChunk => true,
            Rejected::ViewAhead | Rejected::Unsolicited | Rejected::BrokenChain | Rejected::PendingFull => {
                false
            }
        };
        self.invariants.claim(!wrong, || format!("{to} refused a message of honest {from}: {rejected}"));
    }

    fn connect(&mut self, at: ReplicaIndex, peer: ReplicaIndex) {
        self.trace.event(self.now_ms, &[11, number(at), number(peer)], || format!("{at} reaches {peer}"));
        match self.seats.get_mut(&at) {
            Some(Seat::Honest(node)) => {
                let taken = node.connected(self.now_ms, peer);
                self.invariants.claim(taken.is_ok(), || format!("{at} refused a new link"));
            }
            Some(Seat::Adversary(adversary)) => adversary.connected(self.now_ms, peer),
            None => {}
        }
        self.pump(at);
    }

    fn wake(&mut self, replica: ReplicaIndex) {
        self.wakes.remove(&replica);
        let now_ms = self.now_ms;
        let is_due = |due_ms: Option<u64>| due_ms.is_some_and(|due_ms| due_ms <= now_ms);
        match self.seats.get_mut(&replica) {
            Some(Seat::Honest(node)) if is_due(node.next_wake_ms()) => {
                self.trace.event(now_ms, &[12, number(replica)], || format!("{replica}: timer"));
                let taken = node.wake(now_ms);
                self.invariants.claim(taken.is_ok(), || format!("{replica} refused its own timer"));
            }
            Some(Seat::Adversary(adversary)) if is_due(adversary.next_wake_ms()) => adversary.timer(now_ms),
            Some(Seat::Honest(_) | Seat::Adversary(_)) | None => {}
        }
        self.pump(replica);
    }

    /// Carries out all that a replica has to do, and wakes it when it asks for it.
    fn pump(&mut self, replica: ReplicaIndex) {
        while let Some(effect) = self.step(replica) {
            self.witness(replica, effect);
        }
        let due_ms = match self.seats.get_mut(&replica) {
            Some(Seat::Honest(node)) => {
                if let Some(core) = node.core() {
                    let endorsements = node.kept_endorsements();
                    self.invariants.invariant_bounded_memory(replica, core.buffered(), endorsements);
                }
                node.next_wake_ms()
            }
            Some(Seat::Adversary(adversary)) => {
                let letters = adversary.letters();
                let due_ms = adversary.next_wake_ms();
                for letter in letters {
                    self.invariants.adversary_sent(&letter.words);
                    self.post(&letter);
                }
                due_ms
            }
            None => None,
        };
        if let Some(due_ms) = due_ms.map(|due_ms| due_ms.max(self.now_ms))
            && self.wakes.get(&replica).is_none_or(|known_ms| due_ms < *known_ms)
        {
            self.wakes.insert(replica, due_ms);
            self.push(due_ms, Event::Wake(replica));
        }
    }

    fn witness(&mut self, replica: ReplicaIndex, effect: Effect) {
        let sound = self.scenario.is_sound(replica);
        match effect {
            Effect::Inside => {}
            Effect::Sent { to, words } => self.post(&Letter { from: replica, to, words, mark: None }),
            Effect::Committed(committed) => self.committed(replica, &committed),
            Effect::Stable(checkpoint) => {
                let height = checkpoint.height();
                let words = [23, number(replica), height.number()];
                self.trace
                    .event(self.now_ms, &words, || format!("{replica}: checkpoint h{height} is stable"));
                self.invariants.certified_state(replica, &checkpoint);
            }
            Effect::Diverged(checkpoint) => {
                let height = checkpoint.height();
                self.trace.event(self.now_ms, &[24, number(replica), height.number()], || {
                    format!("{replica} has another state at h{height}")
                });
                self.invariants
                    .claim(false, || format!("{replica} has diverged from the certified state at h{height}"));
            }
            Effect::Installed(begun) => {
                let height = begun.checkpoint.height();
                let words = [25, number(replica), height.number()];
                self.trace.event(self.now_ms, &words, || format!("{replica} begins at checkpoint h{height}"));
                *self.faults.entry("state transferred").or_default() += 1;
                self.invariants.jumped(replica, &begun);
                self.strike_out();
            }
            Effect::Folded(folded) => self.folded(replica, &folded),
            Effect::Submitted(command) => {
                self.invariants.submitted(&command);
                let words = [19, number(replica), u64::from(command.digest().as_bytes()[0])];
                self.trace.event(self.now_ms, &words, || format!("{replica} submits {:?}", command.digest()));
            }
            Effect::Decided(decided) => {
                let words = [20, number(replica), decided.cycle.number(), decided.plans.len() as u64];
                self.trace.event(self.now_ms, &words, || {
                    let plans = decided.plans.len();
                    format!("{replica} decides cycle {} with {plans} plans", decided.cycle)
                });
                self.invariants.decided(replica, &decided);
            }
            Effect::Certified(target, seq, digest) => {
                let words = [21, number(replica), seq];
                self.trace
                    .event(self.now_ms, &words, || format!("{replica} certifies {target} {seq}: {digest:?}"));
                self.invariants.certified(replica, target, seq, digest);
            }
            Effect::Alarm(alarm) => {
                self.trace.event(self.now_ms, &[22, number(replica)], || format!("{replica}: {alarm:?}"));
                self.invariant_nobody_sound_is_accused(replica, sound, &alarm);
            }
            Effect::Witnessed(evidence) => self.witnessed(replica, &evidence),
            Effect::Crashed(why) => self.crashed(replica, why),
        }
    }

    fn committed(&mut self, replica: ReplicaIndex, committed: &CommittedBlock) {
        let (height, id) = (committed.block.height(), committed.block.id());
        let words = [18, number(replica), height.number()];
        self.trace.event(self.now_ms, &words, || {
            let commands = committed.block.payload().commands().len();
            format!("{replica} commits h{height} {id:?} with {commands} commands")
        });
        let root = match self.seats.get(&replica) {
            Some(Seat::Honest(node)) => node.root(),
            Some(Seat::Adversary(_)) | None => None,
        };
        self.invariants.applied(replica, committed, root);
        self.note_recovery(replica);
        self.strike_out();
    }

    fn witnessed(&mut self, replica: ReplicaIndex, evidence: &Evidence) {
        let words = [26, number(replica), number(evidence.offender())];
        self.trace.event(self.now_ms, &words, || format!("{replica} witnesses {evidence:?}"));
        let sound = self.scenario.is_sound(evidence.offender());
        self.invariants.witnessed(replica, evidence, sound);
    }

    pub(super) fn proven(&mut self, replica: ReplicaIndex, folded: &Folded) {
        let logged = |change: &Change| match change {
            Change::EvidenceLogged(evidence) => Some((evidence.offender(), evidence.kind())),
            Change::TimeMoved(_)
            | Change::WindowClosed(_)
            | Change::Gap { .. }
            | Change::Found { .. }
            | Change::PlanLogged(_)
            | Change::PlanRefused { .. }
            | Change::HeadDerived(_)
            | Change::ReceiptLogged { .. }
            | Change::ReceiptRefused { .. }
            | Change::EffectSettled { .. }
            | Change::ReportRefused { .. }
            | Change::OperatorRequestLogged { .. }
            | Change::OperatorRequestRefused { .. }
            | Change::EvidenceRefused { .. }
            | Change::Malformed => None,
        };
        for (offender, kind) in folded.changes.iter().filter_map(logged) {
            let words = [27, number(replica), number(offender)];
            self.trace.event(self.now_ms, &words, || format!("{replica} logs {kind:?} by {offender}"));
            self.invariants.proven(replica, offender, kind, self.scenario.is_sound(offender));
        }
    }

    /// An alarm names only replicas that break the rules or whose disk was damaged.
    fn invariant_nobody_sound_is_accused(&mut self, replica: ReplicaIndex, sound: bool, alarm: &Alarm) {
        let justified = match alarm {
            Alarm::Disagreement { by, .. } => !sound || !self.scenario.is_sound(*by),
            Alarm::OwnContradiction { .. } => !sound,
        };
        self.invariants
            .claim(justified, || format!("{replica} raised an alarm on a sound replica: {alarm:?}"));
    }

    /// The next output of an honest replica, with the invariants on what leaves.
    fn step(&mut self, replica: ReplicaIndex) -> Option<Effect> {
        let Some(Seat::Honest(node)) = self.seats.get_mut(&replica) else { return None };
        match node.step(self.now_ms) {
            Ok(effect) => {
                if let Some(Effect::Sent { words, .. }) = &effect {
                    let sound = self.scenario.is_sound(replica);
                    self.invariants.honest_sent(replica, words, sound.then(|| node.disk()));
                }
                effect
            }
            Err(error) => {
                self.invariants.claim(false, || format!("{replica}'s journal failed: {error}"));
                None
            }
        }
    }

    fn post(&mut self, letter: &Letter) {
        for delay_ms in self.network.delays_ms(self.now_ms, letter.from, letter.to) {
            self.push(self.now_ms + delay_ms, Event::Arrive(Box::new(letter.clone())));
        }
    }
}

fn number(replica: ReplicaIndex) -> u64 {
    u64::from(replica.place())
}

fn key(place: u8) -> SecretKey {
    SecretKey::from_seed(&[place; 32])
}

fn seat(scenario: &Scenario, config: Config) -> Seat {
    let (seed, me) = (scenario.seed, config.me);
    let place = number(me);
    if let Some((_, kind)) = scenario.adversaries.iter().find(|(whose, _)| *whose == me) {
        let stream = Stream::new(seed, Cause::Adversary, place);
        return Seat::Adversary(adversary(*kind, config, &scenario.sides, stream));
    }
    let plant = scenario.plants.iter().find(|(whose, _)| *whose == me).map(|(_, plant)| *plant);
    let disk = SimDisk::new(Stream::new(seed, Cause::Disk, place));
    let salts = Stream::new(seed, Cause::Disk, place + 1000);
    let clock = scenario.clocks[me.as_usize()];
    let telemetry = scenario.telemetry.clone();
    Seat::Honest(Box::new(Node::new(config, clock, disk, salts, scenario.segment_bytes, plant, telemetry)))
}
