//! The network: what becomes of a message between two replicas.
//!
//! It carries no bytes and knows no message: it answers when copies arrive. Invariant: once calm, every message
//! arrives once, within [`CALM_DELAY_MS`].

use quorate::types::ReplicaIndex;
use std::collections::{BTreeMap, BTreeSet};

use crate::rng::Stream;

/// The longest delay once all faults have healed, in milliseconds.
pub const CALM_DELAY_MS: u64 = 50;

/// How bad the links are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Messages lost, of a thousand.
    pub loss_per_mille: u64,
    /// Messages that arrive twice, of a thousand.
    pub duplicates_per_mille: u64,
    /// The usual longest delay in milliseconds.
    pub delay_ms: u64,
    /// Messages that take up to fifty times that, of a thousand.
    pub late_per_mille: u64,
}

impl Weather {
    /// The links of a quiet day.
    pub const CALM: Self =
        Self { loss_per_mille: 0, duplicates_per_mille: 0, delay_ms: CALM_DELAY_MS, late_per_mille: 0 };
}

/// The links between all pairs, each direction by itself.
#[derive(Debug)]
pub struct Network {
    weather: Weather,
    cut: BTreeSet<(ReplicaIndex, ReplicaIndex)>,
    /// Until when a link lets nothing through; then all that waited arrives.
    clogged: BTreeMap<(ReplicaIndex, ReplicaIndex), u64>,
    /// By how many milliseconds at most each slow replica's messages are late, both ways.
    slow: BTreeMap<ReplicaIndex, u64>,
    stream: Stream,
}

/// How much longer a late message may take than a usual one.
const LATENESS: u64 = 50;

impl Network {
    /// Links in this weather, none of them cut.
    #[must_use]
    pub const fn new(weather: Weather, stream: Stream) -> Self {
        Self { weather, cut: BTreeSet::new(), clogged: BTreeMap::new(), slow: BTreeMap::new(), stream }
    }

    /// Clogs one direction of a link until then.
    pub fn clog(&mut self, from: ReplicaIndex, to: ReplicaIndex, until_ms: u64) {
        self.clogged.insert((from, to), until_ms);
    }

    /// Makes a replica's links slow.
    pub fn slow_down(&mut self, replica: ReplicaIndex, by_ms: u64) {
        self.slow.insert(replica, by_ms);
    }

    /// Cuts one direction of a link.
    pub fn cut(&mut self, from: ReplicaIndex, to: ReplicaIndex) {
        self.cut.insert((from, to));
    }

    /// Mends one direction of a link; says whether it was cut.
    pub fn mend(&mut self, from: ReplicaIndex, to: ReplicaIndex) -> bool {
        self.cut.remove(&(from, to))
    }

    /// Whether a message can pass.
    #[must_use]
    pub fn passes(&self, from: ReplicaIndex, to: ReplicaIndex) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Mends all links and ends all loss.
    pub fn calm(&mut self) {
        self.cut.clear();
        self.clogged.clear();
        self.slow.clear();
        self.weather = Weather::CALM;
    }

    /// After how many milliseconds each copy of a message arrives; none when it is lost.
    pub fn delays_ms(&mut self, now_ms: u64, from: ReplicaIndex, to: ReplicaIndex) -> Vec<u64> {
        if !self.passes(from, to) || self.stream.chance(self.weather.loss_per_mille) {
            return Vec::new();
        }
        let copies = if self.stream.chance(self.weather.duplicates_per_mille) { 2 } else { 1 };
        let clogged_ms = self.clogged.get(&(from, to)).map_or(0, |until_ms| until_ms.saturating_sub(now_ms));
        let slow_ms: u64 = [from, to].iter().filter_map(|end| self.slow.get(end)).sum();
        (0..copies).map(|_| clogged_ms + self.delay_ms() + self.stream.below(slow_ms + 1)).collect()
    }

    fn delay_ms(&mut self) -> u64 {
        let late = self.stream.chance(self.weather.late_per_mille);
        let most = if late { self.weather.delay_ms * LATENESS } else { self.weather.delay_ms };
        self.stream.between(1, most.max(1))
    }
}
