//! The network: what becomes of a message between two replicas.
//!
//! It carries no bytes and knows no message: it answers when copies arrive. Invariant: once calm, every message
//! arrives once, within [`CALM_DELAY_MS`].

use quorate::types::ReplicaIndex;
use std::collections::BTreeSet;

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
    stream: Stream,
}

/// How much longer a late message may take than a usual one.
const LATENESS: u64 = 50;

impl Network {
    /// Links in this weather, none of them cut.
    #[must_use]
    pub const fn new(weather: Weather, stream: Stream) -> Self {
        Self { weather, cut: BTreeSet::new(), stream }
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
        self.weather = Weather::CALM;
    }

    /// After how many milliseconds each copy of a message arrives; none when it is lost.
    pub fn delays_ms(&mut self, from: ReplicaIndex, to: ReplicaIndex) -> Vec<u64> {
        if !self.passes(from, to) || self.stream.chance(self.weather.loss_per_mille) {
            return Vec::new();
        }
        let copies = if self.stream.chance(self.weather.duplicates_per_mille) { 2 } else { 1 };
        (0..copies).map(|_| self.delay_ms()).collect()
    }

    fn delay_ms(&mut self) -> u64 {
        let late = self.stream.chance(self.weather.late_per_mille);
        let most = if late { self.weather.delay_ms * LATENESS } else { self.weather.delay_ms };
        self.stream.between(1, most.max(1))
    }
}
