//! What runs amount to: the outcome of one seed, and the sum over many.
//!
//! It judges nothing. Invariant: a sum's figures are those of its runs.

use quorate::{consensus::Rejected, knowledge::evidence::EvidenceKind, types::ReplicaIndex};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{adversary::Kind, invariants::Violation, liveness::Bounds, net::Traffic, orders::Counts};

/// The fewest commits with commands in an hour of virtual time that make a run worth its hours.
pub const BUSY_COMMITS_PER_HOUR: u64 = 500;

const HOUR_MS: u64 = 3_600_000;

/// Why an honest replica did not take an adversary's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Consensus refused a message.
    ByConsensus(Rejected),
    /// The control cycle refused an endorsement.
    Endorsement,
}

/// What became of one kind of adversary's messages at honest replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// How many seeds had such an adversary.
    pub seeds: u64,
    /// Messages that a handler took.
    pub taken: u64,
    /// Messages that a handler refused.
    pub refused: u64,
    /// Messages that did not decode.
    pub undecodable: u64,
}

impl Reached {
    /// Counts a message by what it met.
    pub const fn count(&mut self, answer: Option<Result<(), Refused>>) {
        match answer {
            Some(Ok(())) => self.taken += 1,
            Some(Err(_)) => self.refused += 1,
            None => self.undecodable += 1,
        }
    }

    const fn add(&mut self, other: Self) {
        self.seeds += 1;
        self.taken += other.taken;
        self.refused += other.refused;
        self.undecodable += other.undecodable;
    }
}

/// The outcome of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// How much virtual time passed, in milliseconds.
    pub virtual_ms: u64,
    /// How many heights were committed.
    pub commits: u64,
    /// How many of them have commands.
    pub busy_commits: u64,
    /// How soon after the healing the first block was committed by somebody.
    pub recovered: Option<Bounds>,
    /// In which view each replica had signed last when all were healed, by place; zero for adversaries.
    pub signed_views: Vec<u64>,
    /// What became of the messages.
    pub traffic: Traffic,
    /// What operators and agents achieved.
    pub orders: Counts,
    /// How many faults of each name there were, adversaries aside.
    pub faults: BTreeMap<&'static str, u64>,
    /// What became of the adversaries' messages.
    pub reached: BTreeMap<Kind, Reached>,
    /// How long after healing the last command was committed everywhere, in milliseconds.
    pub settled_after_ms: Option<u64>,
    /// The digest of all events.
    pub trace: u64,
    /// What consensus saw of replicas that broke a rule.
    pub witnessed: BTreeSet<(ReplicaIndex, EvidenceKind)>,
    /// What was ordered and logged of it, and of what control cycles saw.
    pub proven: BTreeSet<(ReplicaIndex, EvidenceKind)>,
    /// The first broken invariant.
    pub violation: Option<Violation>,
}

/// The sum over many seeds. It prints itself as the last line of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many seeds.
    pub seeds: u64,
    /// How much virtual time passed, in milliseconds.
    pub virtual_ms: u64,
    /// How many heights were committed.
    pub commits: u64,
    /// How many of them have commands.
    pub busy_commits: u64,
    /// What became of the messages.
    pub traffic: Traffic,
    /// What operators and agents achieved.
    pub orders: Counts,
    /// How many faults of each name there were.
    pub faults: BTreeMap<&'static str, u64>,
    /// What became of the adversaries' messages.
    pub reached: BTreeMap<Kind, Reached>,
    /// How many seeds broke an invariant.
    pub violations: u64,
    /// The longest time from healing to the last commit, in milliseconds, and its seed.
    pub slowest: (u64, u64),
}

impl Report {
    /// Adds a seed's outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.virtual_ms += outcome.virtual_ms;
        self.commits += outcome.commits;
        self.busy_commits += outcome.busy_commits;
        self.traffic.add(outcome.traffic);
        self.orders.add(outcome.orders);
        for (name, count) in &outcome.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (kind, reached) in &outcome.reached {
            self.reached.entry(*kind).or_default().add(*reached);
        }
        self.violations += u64::from(outcome.violation.is_some());
        self.slowest = self.slowest.max((outcome.settled_after_ms.unwrap_or(0), outcome.seed));
    }
}

impl Report {
    /// Commits with commands in an hour of virtual time.
    #[must_use]
    pub const fn busy_commits_per_hour(&self) -> u64 {
        match (self.busy_commits * HOUR_MS).checked_div(self.virtual_ms) {
            Some(commits) => commits,
            None => 0,
        }
    }

    /// Whether enough happened in the hours: idle time does not count.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.busy_commits_per_hour() >= BUSY_COMMITS_PER_HOUR
    }

    /// The counts of each fault, of what became of messages, and of each adversary's messages, a line each.
    #[must_use]
    pub fn details(&self) -> String {
        let faults = self.faults.iter().map(|(name, count)| format!("  {name}: {count}\n"));
        let reached = self.reached.iter().map(|(kind, reached)| {
            let Reached { seeds, taken, refused, undecodable } = reached;
            format!("  {kind:?}: {seeds} seeds, {taken} messages taken, {refused} refused, {undecodable} undecodable\n")
        });
        let Traffic { sent, cut_off, lost, doubled, held_back, overtaking, late } = self.traffic;
        let Counts { requests, refused_requests, plans, refused_plans, receipts, refused_receipts } =
            self.orders;
        let network = format!(
            "messages: {sent} sent, {lost} lost, {cut_off} met a cut link, {doubled} doubled, {held_back} held back, \
             {overtaking} overtook another, {late} late by a second or more\n"
        );
        let orders = format!(
            "control: {plans} plans logged, {refused_plans} refused; {requests} operators' requests logged, \
             {refused_requests} refused; {receipts} receipts logged, {refused_receipts} refused\n"
        );
        let busy = format!(
            "non-empty commits: {}, {} per cluster-hour\n",
            self.busy_commits,
            self.busy_commits_per_hour()
        );
        let lines = ["faults:\n".to_owned()].into_iter().chain(faults);
        let lines = lines.chain(["adversaries:\n".to_owned()]).chain(reached);
        lines.chain([network, orders, busy]).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.virtual_ms / 36_000;
        let (hours, rest) = (hundredths / 100, hundredths % 100);
        let Self { seeds, commits, violations, .. } = self;
        let faults =
            self.faults.values().sum::<u64>() + self.reached.values().map(|kind| kind.seeds).sum::<u64>();
        write!(
            f,
            "seeds={seeds} cluster_hours={hours}.{rest:02} commits={commits} faults={faults} violations={violations}"
        )
    }
}
