//! The network: what becomes of a message between two replicas.
//!
//! It carries no bytes and knows no message: it answers when copies arrive. Invariant: once calm, every message
//! arrives once, within [`CALM_DELAY_MS`].

use quorate::types::ReplicaIndex;
use std::collections::{BTreeMap, BTreeSet};

use crate::rng::Stream;

/// The longest delay once all faults have healed, in milliseconds.
pub const CALM_DELAY_MS: u64 = 50;

/// How long messages take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// Any delay up to this is as likely as another.
    Uniform {
        /// In milliseconds.
        most_ms: u64,
    },
    /// Always nearly the same, so that messages seldom overtake each other.
    Steady {
        /// In milliseconds.
        ms: u64,
        /// How much longer at most.
        jitter_ms: u64,
    },
    /// Each further step is half as likely as the one before.
    Halving {
        /// A step, in milliseconds.
        step_ms: u64,
    },
    /// A quick route and a slow one.
    TwoRoutes {
        /// The quick one takes at most this.
        quick_ms: u64,
        /// The slow one takes this and up to half as much again.
        slow_ms: u64,
        /// Messages that take the slow one, of a thousand.
        slow_per_mille: u64,
    },
    /// Short, but for a few that take up to fifty times as long.
    LongTail {
        /// The usual longest delay in milliseconds.
        usual_ms: u64,
        /// Messages that take longer, of a thousand.
        late_per_mille: u64,
    },
}

/// How bad the links are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Messages lost, of a thousand.
    pub loss_per_mille: u64,
    /// Messages that arrive twice, of a thousand.
    pub duplicates_per_mille: u64,
    /// Messages that are held back until later ones have overtaken them, of a thousand.
    pub reordered_per_mille: u64,
    /// How long messages take.
    pub delay: Delay,
}

impl Weather {
    /// The links of a quiet day.
    pub const CALM: Self = Self {
        loss_per_mille: 0,
        duplicates_per_mille: 0,
        reordered_per_mille: 0,
        delay: Delay::Uniform { most_ms: CALM_DELAY_MS },
    };
}

/// What became of the messages of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that were sent.
    pub sent: u64,
    /// Messages that met a cut link.
    pub cut_off: u64,
    /// Messages that were lost.
    pub lost: u64,
    /// Messages that arrive twice.
    pub doubled: u64,
    /// Copies that were held back.
    pub held_back: u64,
    /// Copies that arrive before one that was sent earlier over the same link.
    pub overtaking: u64,
    /// Copies that took a second or longer.
    pub late: u64,
}

impl Traffic {
    /// Adds another run's.
    pub const fn add(&mut self, other: Self) {
        let Self { sent, cut_off, lost, doubled, held_back, overtaking, late } = other;
        self.sent += sent;
        self.cut_off += cut_off;
        self.lost += lost;
        self.doubled += doubled;
        self.held_back += held_back;
        self.overtaking += overtaking;
        self.late += late;
    }
}

type Link = (ReplicaIndex, ReplicaIndex);

/// The links between all pairs, each direction by itself.
#[derive(Debug)]
pub struct Network {
    weather: Weather,
    cut: BTreeSet<Link>,
    /// Until when a link lets nothing through; then all that waited arrives.
    clogged: BTreeMap<Link, u64>,
    /// By how many milliseconds at most each slow replica's messages are late, both ways, and until when.
    slow: BTreeMap<ReplicaIndex, (u64, u64)>,
    /// When the last of a link's messages so far arrives.
    newest: BTreeMap<Link, u64>,
    traffic: Traffic,
    stream: Stream,
}

/// How much longer a late message may take than a usual one.
const LATENESS: u64 = 50;

/// How long a message is held back at most: several times the usual delay, shorter than a view.
const HELD_BACK_MS: u64 = 700;

/// A delay from which a message counts as late: the shortest view.
const LATE_MS: u64 = 1_000;

impl Network {
    /// Links in this weather, none of them cut.
    #[must_use]
    pub fn new(weather: Weather, stream: Stream) -> Self {
        Self {
            weather,
            cut: BTreeSet::new(),
            clogged: BTreeMap::new(),
            slow: BTreeMap::new(),
            newest: BTreeMap::new(),
            traffic: Traffic::default(),
            stream,
        }
    }

    /// What became of the messages so far.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Clogs one direction of a link until then.
    pub fn clog(&mut self, from: ReplicaIndex, to: ReplicaIndex, until_ms: u64) {
        self.clogged.insert((from, to), until_ms);
    }

    /// Makes a replica's links slow until then.
    pub fn slow_down(&mut self, replica: ReplicaIndex, by_ms: u64, until_ms: u64) {
        self.slow.insert(replica, (by_ms, until_ms));
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
        self.traffic.sent += 1;
        if !self.passes(from, to) {
            self.traffic.cut_off += 1;
            return Vec::new();
        }
        if self.stream.chance(self.weather.loss_per_mille) {
            self.traffic.lost += 1;
            return Vec::new();
        }
        let doubled = self.stream.chance(self.weather.duplicates_per_mille);
        self.traffic.doubled += u64::from(doubled);
        let copies = if doubled { 2 } else { 1 };
        (0..copies).map(|_| self.copy_ms(now_ms, from, to)).collect()
    }

    /// After how many milliseconds one copy arrives.
    fn copy_ms(&mut self, now_ms: u64, from: ReplicaIndex, to: ReplicaIndex) -> u64 {
        let clogged_ms = self.clogged.get(&(from, to)).map_or(0, |until_ms| until_ms.saturating_sub(now_ms));
        let slow = [from, to].into_iter().filter_map(|end| self.slow.get(&end));
        let slow_ms: u64 = slow.filter(|(_, until_ms)| now_ms < *until_ms).map(|(by_ms, _)| by_ms).sum();
        let held_back = self.stream.chance(self.weather.reordered_per_mille);
        let held_back_ms = if held_back { self.stream.between(1, HELD_BACK_MS) } else { 0 };
        let delay_ms = clogged_ms + self.delay_ms() + self.stream.below(slow_ms + 1) + held_back_ms;
        let newest = self.newest.entry((from, to)).or_default();
        self.traffic.held_back += u64::from(held_back);
        self.traffic.overtaking += u64::from(now_ms + delay_ms < *newest);
        self.traffic.late += u64::from(delay_ms >= LATE_MS);
        *newest = (*newest).max(now_ms + delay_ms);
        delay_ms
    }

    fn delay_ms(&mut self) -> u64 {
        let stream = &mut self.stream;
        match self.weather.delay {
            Delay::Uniform { most_ms } => stream.between(1, most_ms.max(1)),
            Delay::Steady { ms, jitter_ms } => ms + stream.below(jitter_ms + 1),
            Delay::Halving { step_ms } => {
                let steps = u64::from(stream.next().trailing_zeros());
                1 + steps * step_ms + stream.below(step_ms + 1)
            }
            Delay::TwoRoutes { quick_ms, slow_ms, slow_per_mille } => {
                if stream.chance(slow_per_mille) {
                    slow_ms + stream.below(slow_ms / 2 + 1)
                } else {
                    stream.between(1, quick_ms.max(1))
                }
            }
            Delay::LongTail { usual_ms, late_per_mille } => {
                let most_ms = if stream.chance(late_per_mille) { usual_ms * LATENESS } else { usual_ms };
                stream.between(1, most_ms.max(1))
            }
        }
    }
}
