//! All scripts of twins and partitions (Bano et al., "Twins: BFT Systems Made Robust", 2021): one replica or more is
//! two processes with one key, and for each of the first views every partition of the processes in two is tried.
//!
//! A message passes when the partition of its view leaves both processes on one side. Within a view messages arrive
//! in the order of sending; what a partition keeps apart is lost. When nothing moves any more, all timers end; when
//! that moves nothing either, the partition of the view heals. After the scripted views all are connected,
//! and every honest replica must commit. Leaders rotate as ever, so which views a twin leads is which replica it is.
//!
//! Symmetry: a partition and its complement are one. Scripts that led to the same state of all processes, with the same
//! messages under way, are followed once from there. Invariant: every script within the bound is covered.

use quorate::{
    consensus::BlockId,
    types::{Millis, View},
};
use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
};

use super::{
    REPLICAS,
    automaton::{Automaton, Event, Sent, State, Statement, TIMER_ENDS},
    committee,
};

/// Healed, a cluster of four commits within so many ends of all timers: each replica leads a view in that time, and
/// one of them, with a link that comes up again, helps whoever is behind.
const MOST_ROUNDS: u8 = 24;

/// What is enumerated.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Which replicas are twins.
    pub twins: Vec<u8>,
    /// For how many views every partition is tried.
    pub views: u32,
}

/// What was enumerated.
#[derive(Clone, Debug, Default)]
pub struct Enumerated {
    /// How many scripts were covered.
    pub scripts: u64,
    /// How many distinct ends they had, from there on followed once.
    pub ends: u64,
    /// Distinct states of all processes at which a partition was chosen.
    pub states: usize,
    /// Steps of one process.
    pub steps: u64,
    /// Distinct states of one process.
    pub local_states: usize,
    /// At how many ends a block was committed within the scripted views.
    pub with_commits: u64,
    /// At how many choices an honest replica's lock was on a block that another honest lock does not build on.
    pub with_forks: u64,
    /// At how many ends one of those locks had given way.
    pub with_unlocks: u64,
    /// At how many ends twins had signed contradicting votes.
    pub with_contradictions: u64,
    /// The first broken invariant, and its script: for each view the processes on the first side.
    pub violation: Option<(String, Vec<Vec<usize>>)>,
}

impl fmt::Display for Enumerated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scripts, ends, states, steps, local_states, .. } = self;
        let Self { with_commits, with_forks, with_unlocks, with_contradictions, .. } = self;
        write!(
            f,
            "scripts={scripts} ends={ends} states={states} steps={steps} local_states={local_states} with_commits={with_commits} with_forks={with_forks} with_unlocks={with_unlocks} with_contradictions={with_contradictions}"
        )
    }
}

/// The processes with the messages between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    processes: Vec<State>,
    /// Under way: the sending process, to whom, what.
    under_way: VecDeque<(usize, Option<u8>, u32)>,
    /// The partitions of the first views: a bit for each process on the second side.
    script: Vec<u8>,
    /// Up to which view partitions have healed.
    healed: u64,
    rounds: u8,
    /// Whether the scripted views are over.
    scripted: bool,
    /// The processes' views when the timers last ended.
    before: Vec<View>,
    /// A fork of locks came up.
    forked: Option<BlockId>,
    contradicted: bool,
    votes: BTreeSet<(View, u8, BlockId)>,
}

#[derive(Debug)]
struct Enumeration {
    bound: Bound,
    /// Whose key each process has.
    places: Vec<u8>,
    automaton: Automaton,
    seen: BTreeSet<World>,
    enumerated: Enumerated,
}

/// Covers every script within the bound, until an invariant breaks.
#[must_use]
pub fn enumerate(bound: Bound) -> Enumerated {
    let places: Vec<u8> = (0..REPLICAS).chain(bound.twins.iter().copied()).collect();
    let mut enumeration = Enumeration {
        places,
        automaton: Automaton::new(committee(), 0),
        seen: BTreeSet::new(),
        enumerated: Enumerated::default(),
        bound,
    };
    enumeration.run();
    let Enumeration { bound, places, automaton, seen, mut enumerated } = enumeration;
    enumerated.states = seen.len();
    enumerated.local_states = automaton.states();
    let partitions = 1_u64 << (places.len() - 1);
    enumerated.scripts = partitions.pow(bound.views);
    enumerated
}

impl Enumeration {
    fn run(&mut self) {
        let mut world = World {
            processes: Vec::new(),
            under_way: VecDeque::new(),
            script: Vec::new(),
            healed: 0,
            rounds: 0,
            scripted: false,
            before: Vec::new(),
            forked: None,
            contradicted: false,
            votes: BTreeSet::new(),
        };
        for (process, at) in self.places.clone().into_iter().enumerate() {
            let client = u8::from(process >= usize::from(REPLICAS));
            let step = self.automaton.start(at, client);
            world.processes.push(step.to);
            self.post(&mut world, process, &step.sent);
        }
        let mut open = vec![world];
        while let Some(world) = open.pop() {
            if self.enumerated.violation.is_some() {
                return;
            }
            open.extend(self.follow(world));
        }
    }

    /// Follows a script until its next partition must be chosen: gives the world with each choice.
    fn follow(&mut self, mut world: World) -> Vec<World> {
        loop {
            if self.ends(&world) {
                self.end(&world);
                return Vec::new();
            }
            let Some((from, to, message)) = world.under_way.front().copied() else {
                if world.rounds == MOST_ROUNDS {
                    self.break_at(&world, "the honest replicas do not commit".to_owned());
                    return Vec::new();
                }
                self.wait(&mut world);
                continue;
            };
            let view = self.view_of(&world, from, message);
            let chosen = world.script.len() as u64;
            if view > chosen {
                if chosen < u64::from(self.bound.views) {
                    return self.choices(world);
                }
                if !world.scripted {
                    world.scripted = true;
                    if !self.is_new(&world) {
                        return Vec::new();
                    }
                }
            }
            world.under_way.pop_front();
            for process in 0..self.places.len() {
                let addressed = process != from && to.is_none_or(|to| to == self.places[process]);
                if addressed
                    && self.places[process] != self.places[from]
                    && passes(&world, view, from, process)
                {
                    let from = self.places[from];
                    self.step(&mut world, process, Event::Hears { from, message });
                }
            }
            if let Some(broken) = self.invariants(&world) {
                self.break_at(&world, broken);
                return Vec::new();
            }
        }
    }

    /// The world with each partition of the next view, unless it was met before.
    fn choices(&mut self, mut world: World) -> Vec<World> {
        let locks: Vec<_> = self.honest(&world).map(|local| local.core.high_qc().get()).collect();
        let highest = locks.iter().max_by_key(|qc| qc.view).expect("some are honest");
        let beside = locks.iter().find(|qc| !self.automaton.descends(highest.block, qc.block));
        let beside = beside.map(|qc| qc.block);
        self.enumerated.with_forks += u64::from(beside.is_some());
        world.forked = beside.or(world.forked);
        if !self.is_new(&world) {
            return Vec::new();
        }
        let partitions = 1_u8 << (self.places.len() - 1);
        (0..partitions)
            .map(|partition| {
                let mut next = world.clone();
                next.script.push(partition);
                next
            })
            .collect()
    }

    /// Whether no script led here before. Partitions of views that every process has left decide nothing any more.
    fn is_new(&mut self, world: &World) -> bool {
        let lowest = world.processes.iter().map(|state| self.automaton.local(*state).core.view()).min();
        let left = usize::try_from(lowest.unwrap_or_default().number().saturating_sub(1)).unwrap_or(0);
        let mut likeness = world.clone();
        likeness.script.iter_mut().take(left).for_each(|partition| *partition = 0);
        self.seen.insert(likeness)
    }

    /// All timers end; when that changed nothing the last time, links come up again and the view's partition heals.
    fn wait(&mut self, world: &mut World) {
        world.rounds += 1;
        let views: Vec<View> =
            world.processes.iter().map(|state| self.automaton.local(*state).core.view()).collect();
        if world.before != views {
            world.before = views;
            for process in 0..self.places.len() {
                self.step(world, process, Event::Timer);
            }
            return;
        }
        world.before.clear();
        world.healed = world.healed.max(views.into_iter().min().unwrap_or_default().number());
        for process in 0..self.places.len() {
            let own = self.places[process];
            for peer in (0..REPLICAS).filter(|peer| *peer != own) {
                self.step(world, process, Event::Reaches(peer));
            }
        }
    }

    fn step(&mut self, world: &mut World, process: usize, event: Event) {
        self.enumerated.steps += 1;
        let step = self.automaton.step(world.processes[process], now(world), event);
        world.processes[process] = step.to;
        self.post(world, process, &step.sent);
    }

    fn post(&mut self, world: &mut World, process: usize, sent: &[Sent]) {
        for Sent { to, message } in sent {
            if let Statement::Vote(vote) = self.automaton.statement(*message)
                && self.bound.twins.contains(&self.places[process])
            {
                let at = self.places[process];
                let other = world
                    .votes
                    .iter()
                    .any(|(view, by, block)| (*view, *by) == (vote.view, at) && *block != vote.block);
                world.contradicted |= other;
                world.votes.insert((vote.view, at, vote.block));
            }
            world.under_way.push_back((process, *to, *message));
        }
    }

    /// The view whose partition a message meets.
    fn view_of(&self, world: &World, from: usize, message: u32) -> u64 {
        let view = match self.automaton.statement(message) {
            Statement::Proposal(proposal) => proposal.block.view(),
            Statement::Vote(vote) => vote.view,
            Statement::Timeout(timeout) => timeout.view,
            Statement::Other => self.automaton.local(world.processes[from]).core.view(),
        };
        view.number()
    }

    fn honest<'a>(&'a self, world: &'a World) -> impl Iterator<Item = &'a super::automaton::Local> {
        let states = world.processes.iter().zip(&self.places);
        states.filter(|(_, at)| !self.bound.twins.contains(at)).map(|(state, _)| self.automaton.local(*state))
    }

    /// Whether every honest replica has committed a block of a view after the scripted ones.
    fn ends(&self, world: &World) -> bool {
        self.honest(world).all(|local| {
            let newest = local.committed.last().and_then(|block| self.automaton.block(*block));
            newest.is_some_and(|block| block.view().number() > u64::from(self.bound.views))
        })
    }

    fn end(&mut self, world: &World) {
        let honest = self.honest(world).next().expect("some are honest");
        let early = honest.committed.first().and_then(|block| self.automaton.block(*block));
        let early = early.is_some_and(|block| block.view().number() <= u64::from(self.bound.views));
        let gave_way = world.forked.is_some_and(|block| !honest.committed.contains(&block));
        self.enumerated.ends += 1;
        self.enumerated.with_commits += u64::from(early);
        self.enumerated.with_unlocks += u64::from(gave_way);
        self.enumerated.with_contradictions += u64::from(world.contradicted);
    }

    /// What must hold after every message.
    fn invariants(&self, world: &World) -> Option<String> {
        let longest =
            self.honest(world).map(|local| &local.committed).max_by_key(|committed| committed.len())?;
        self.honest(world).find_map(|local| {
            if !longest.starts_with(&local.committed) {
                return Some("two honest replicas committed different blocks at one height".to_owned());
            }
            let lost = local.core.forgotten().is_some();
            lost.then(|| "an honest replica takes its own journal for lost".to_owned())
        })
    }

    fn break_at(&mut self, world: &World, what: String) {
        let side =
            |partition: &u8| (0..self.places.len()).filter(|process| partition >> process & 1 == 0).collect();
        self.enumerated.violation = Some((what, world.script.iter().map(side).collect()));
    }
}

/// All clocks agree, and every round of timers ends after the longest of them.
fn now(world: &World) -> Millis {
    Millis::new(TIMER_ENDS.as_millis() * u64::from(world.rounds))
}

/// Whether a message of a view passes between two processes.
fn passes(world: &World, view: u64, from: usize, to: usize) -> bool {
    let place = usize::try_from(view).ok().and_then(|view| view.checked_sub(1));
    match place.and_then(|place| world.script.get(place)) {
        Some(partition) if view > world.healed => partition >> from & 1 == partition >> to & 1,
        Some(_) | None => true,
    }
}
