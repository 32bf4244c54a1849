//! Draws a scenario from its seed: each kind of fault from a stream of its own.
//!
//! Invariant: what one cause draws depends on the seed, the committee's size and the run's length, and on no other
//! cause but this: nobody's disk is damaged who is an adversary, and clients choose replicas that keep to the rules.

use quorate::types::{CommitteeSize, ReplicaIndex};
use std::sync::Arc;

use super::{Damage, Fault, Scenario, Submission};
use crate::{
    adversary::{Kind, Side, Sides},
    disk::Crash,
    net::{Delay, Weather},
    node::Clock,
    requests,
    rng::{Cause, Stream},
    telemetry::Telemetry,
};

/// A short run: faults follow each other within a second or so.
const SHORT_MS: (u64, u64) = (3_000, 30_000);

/// A long one: minutes, with the same faults further apart.
const LONG_MS: (u64, u64) = (120_000, 1_500_000);

/// Of a thousand runs of a committee so many are long. The work grows with the square of the size, so larger ones have
/// fewer, and the largest none.
const fn long_per_mille(replicas: usize) -> u64 {
    match replicas {
        0..=4 => 650,
        5 => 500,
        6 => 250,
        7 => 150,
        _ => 0,
    }
}

/// The time over which a short run draws one handful of each kind of faults.
const SHORT_HANDFUL_MS: u64 = 20_000;

/// The same in a long run.
const LONG_HANDFUL_MS: u64 = 90_000;

/// How long a run is, and how dense its faults.
#[derive(Clone, Copy)]
struct Length {
    heal_ms: u64,
    is_long: bool,
}

impl Length {
    fn draw(stream: &mut Stream, replicas: usize) -> Self {
        let is_long = stream.chance(long_per_mille(replicas));
        let (first, last) = if is_long { LONG_MS } else { SHORT_MS };
        Self { heal_ms: stream.between(first, last), is_long }
    }

    /// How many faults there are of a kind of which a handful has up to `most`.
    fn count(self, stream: &mut Stream, most: u64) -> u64 {
        let handful_ms = if self.is_long { LONG_HANDFUL_MS } else { SHORT_HANDFUL_MS };
        (0..=self.heal_ms / handful_ms).map(|_| stream.below(most)).sum()
    }

    /// When something happens.
    const fn moment(self, stream: &mut Stream) -> u64 {
        stream.below(self.heal_ms)
    }
}

impl Scenario {
    /// The scenario of a seed; without a number of replicas it is a small one: 4, 5, 6 or 7, sometimes 1 or 10.
    ///
    /// # Panics
    /// When no committee has that many replicas.
    #[must_use]
    pub fn of_seed(seed: u64, replicas: Option<usize>) -> Self {
        Self::with_adversaries(seed, replicas, &[])
    }

    /// The same with adversaries of these kinds only, as many as may be; of all kinds, and some or none of them,
    /// when the list is empty.
    ///
    /// # Panics
    /// When no committee has that many replicas.
    #[must_use]
    pub fn with_adversaries(seed: u64, replicas: Option<usize>, kinds: &[Kind]) -> Self {
        let mut stream = Stream::new(seed, Cause::Scenario, 0);
        let drawn = [1, 4, 4, 4, 4, 4, 4, 5, 5, 5, 6, 6, 7, 7, 7, 10][stream.index(16)];
        let replicas = replicas.unwrap_or(drawn);
        let size = CommitteeSize::new(replicas).expect("the caller checked the number of replicas");
        let everybody: Vec<_> = (0..CommitteeSize::MAX).map(ReplicaIndex::new).take(replicas).collect();
        let length = Length::draw(&mut stream, replicas);
        let segment_bytes = 1 << stream.between(11, 18);
        let mut casting = Stream::new(seed, Cause::Casting, 0);
        let adversaries = adversaries(&mut casting, &everybody, size.faults(), kinds);
        let mut clocks = Stream::new(seed, Cause::Clock, 0);
        let telemetry =
            seed.is_multiple_of(2).then(|| Telemetry::of_seed(seed, length.heal_ms, length.is_long));
        let mut scenario = Self {
            seed,
            replicas,
            sides: Vec::new(),
            damaged: Vec::new(),
            adversaries,
            plants: Vec::new(),
            heal_ms: length.heal_ms,
            weather: weather(&mut Stream::new(seed, Cause::Weather, 0)),
            faults: Vec::new(),
            submissions: Vec::new(),
            errands: Vec::new(),
            clocks: everybody.iter().map(|_| clock(&mut clocks)).collect(),
            segment_bytes,
            checkpoint_interval: checkpoint_interval(seed),
            joins: None,
            telemetry: telemetry.map(Arc::new),
        };
        scenario.sides = scenario.draw_sides(&mut casting, &everybody);
        let spare = size.faults().saturating_sub(scenario.adversaries.len());
        scenario.damaged = scenario.draw_damaged(&everybody, spare);
        scenario.faults = [
            draw_cuts(seed, length, &everybody),
            draw_crashes(seed, length, &everybody),
            scenario.draw_damages(length),
            draw_failing_disks(seed, length, &everybody),
            draw_slowness(seed, length, &everybody),
        ]
        .concat();
        scenario.joins = scenario.draw_join(&everybody);
        scenario.submissions = scenario.draw_submissions(length, &everybody);
        if let Some(telemetry) = &scenario.telemetry {
            scenario.errands = requests::draw(seed, length.heal_ms, telemetry.window(), &everybody);
        }
        scenario
    }

    /// Half of the twins have one partition for ever, the others one every few seconds.
    fn draw_sides(&self, stream: &mut Stream, everybody: &[ReplicaIndex]) -> Sides {
        let mut draw = || {
            let side = |stream: &mut Stream| if stream.chance(500) { Side::Left } else { Side::Right };
            let sides = everybody.iter().map(|replica| {
                let side = side(stream);
                self.is_honest(*replica).then_some(side)
            });
            (sides.collect::<Vec<_>>(), stream.between(1_000, 10_000), stream.chance(500))
        };
        let (first, mut at_ms, changes) = draw();
        let mut sides = vec![(0, first)];
        while changes && at_ms < self.heal_ms {
            let (next, for_ms, _) = draw();
            sides.push((at_ms, next));
            at_ms += for_ms;
        }
        sides
    }

    fn draw_damaged(&self, everybody: &[ReplicaIndex], spare: usize) -> Vec<(ReplicaIndex, Damage)> {
        let mut stream = Stream::new(self.seed, Cause::Damage, 0);
        let mut honest: Vec<_> =
            everybody.iter().copied().filter(|replica| self.is_honest(*replica)).collect();
        if spare == 0 || stream.chance(500) {
            return Vec::new();
        }
        (0..=stream.index(spare))
            .map(|_| {
                let replica = honest.swap_remove(stream.index(honest.len()));
                let damage = [Damage::Rot, Damage::Rot, Damage::OlderCopy, Damage::OlderCopy, Damage::Gone];
                (replica, damage[stream.index(damage.len())])
            })
            .collect()
    }

    /// When the damaged disks are damaged, and of when their older copies are.
    fn draw_damages(&self, length: Length) -> Vec<(u64, Fault)> {
        let mut stream = Stream::new(self.seed, Cause::Damage, 1);
        let damages = self.damaged.iter().copied().flat_map(|(replica, damage)| {
            let copied_ms = length.moment(&mut stream);
            let damaged_ms = stream.between(copied_ms, length.heal_ms - 1);
            let away_ms = stream.between(1, 2_000);
            [(copied_ms, Fault::Copy { replica }), (damaged_ms, Fault::Damage { replica, damage, away_ms })]
        });
        damages.collect()
    }

    /// A sound replica that has never signed anything and starts when the others have been at work for a while.
    fn draw_join(&self, everybody: &[ReplicaIndex]) -> Option<(ReplicaIndex, u64)> {
        let mut stream = Stream::new(self.seed, Cause::Join, 0);
        let sound: Vec<_> = everybody.iter().copied().filter(|replica| self.is_sound(*replica)).collect();
        let replica = *sound.get(stream.index(sound.len().max(1)))?;
        let joins = stream.chance(400) && sound.len() > 1;
        joins.then(|| (replica, stream.between(self.heal_ms / 2, self.heal_ms)))
    }

    fn draw_submissions(&self, length: Length, everybody: &[ReplicaIndex]) -> Vec<Submission> {
        let mut stream = Stream::new(self.seed, Cause::Workload, 0);
        let honest: Vec<_> = everybody.iter().copied().filter(|replica| self.is_sound(*replica)).collect();
        // A long run needs commands all along, and no more of them where the control cycle has its own.
        let (least_ms, most_ms) = match (length.is_long, &self.telemetry) {
            (true, Some(_)) => (20_000, 60_000),
            (true, None) => (4_000, 9_000),
            (false, _) => (100, 6_000),
        };
        let idle_ms = stream.between(least_ms, most_ms);
        let most = if length.is_long { 2 } else { 5 };
        let mut submissions = Vec::new();
        let mut at_ms = stream.below(1_000);
        while at_ms < length.heal_ms {
            for _ in 0..stream.between(1, most) {
                let at = honest[stream.index(honest.len())];
                let bytes = if stream.chance(50) { 4_000 } else { stream.below(3) * 20 };
                let body = vec![7; usize::try_from(bytes).expect("it is small")];
                submissions.push(Submission { at_ms, at, body });
                at_ms += stream.below(150);
            }
            at_ms += stream.between(1, idle_ms);
        }
        submissions.retain(|submission| submission.at_ms < length.heal_ms);
        submissions
    }
}

fn any(stream: &mut Stream, everybody: &[ReplicaIndex]) -> ReplicaIndex {
    everybody[stream.index(everybody.len())]
}

/// Links that are cut one way, and partitions.
fn draw_cuts(seed: u64, length: Length, everybody: &[ReplicaIndex]) -> Vec<(u64, Fault)> {
    let mut stream = Stream::new(seed, Cause::Links, 0);
    let cuts = length.count(&mut stream, 8);
    let draw = |_| {
        let at_ms = length.moment(&mut stream);
        let for_ms = stream.between(100, 8_000);
        let fault = if stream.chance(500) {
            Fault::Cut { from: any(&mut stream, everybody), to: any(&mut stream, everybody), for_ms }
        } else {
            let part = everybody.iter().copied().filter(|_| stream.chance(500)).collect();
            Fault::Partition { part, for_ms }
        };
        (at_ms, fault)
    };
    (0..cuts).map(draw).collect()
}

fn draw_crashes(seed: u64, length: Length, everybody: &[ReplicaIndex]) -> Vec<(u64, Fault)> {
    let mut stream = Stream::new(seed, Cause::Crash, 0);
    let crashes = length.count(&mut stream, 16);
    let mut faults = Vec::new();
    for _ in 0..crashes {
        let at_ms = length.moment(&mut stream);
        let crash = if stream.chance(300) { Crash::Process } else { Crash::Power };
        let away_ms = if stream.chance(600) { stream.between(1, 500) } else { stream.between(1, 10_000) };
        // Now and then the power of all fails at once.
        let struck = if stream.chance(40) { everybody.to_vec() } else { vec![any(&mut stream, everybody)] };
        for replica in struck {
            let after_outputs = stream.below(40);
            faults.push((at_ms, Fault::Crash { replica, after_outputs, crash, away_ms }));
        }
    }
    faults
}

/// Disks that fail for a while.
fn draw_failing_disks(seed: u64, length: Length, everybody: &[ReplicaIndex]) -> Vec<(u64, Fault)> {
    let mut stream = Stream::new(seed, Cause::Damage, 2);
    let failures = length.count(&mut stream, 4);
    let draw = |_| {
        let (at_ms, replica) = (length.moment(&mut stream), any(&mut stream, everybody));
        let fails = stream.chance(600);
        let for_ms = stream.between(10, 3_000);
        (at_ms, if fails { Fault::SyncFails { replica } } else { Fault::Full { replica, for_ms } })
    };
    (0..failures).map(draw).collect()
}

/// Clogged links, slow replicas, clocks that leap.
fn draw_slowness(seed: u64, length: Length, everybody: &[ReplicaIndex]) -> Vec<(u64, Fault)> {
    let mut stream = Stream::new(seed, Cause::Slowness, 0);
    let slow = length.count(&mut stream, 5);
    let draw = |_| {
        let at_ms = length.moment(&mut stream);
        let (replica, to) = (any(&mut stream, everybody), any(&mut stream, everybody));
        let fault = match stream.below(5) {
            0 | 1 => Fault::Clog { from: replica, to, for_ms: stream.between(100, 5_000) },
            2 => Fault::Slow { replica, by_ms: stream.between(50, 900), for_ms: stream.between(500, 20_000) },
            _ => Fault::Leap { replica, by_ms: stream.between(1, 60_000) },
        };
        (at_ms, fault)
    };
    (0..slow).map(draw).collect()
}

fn adversaries(
    stream: &mut Stream,
    everybody: &[ReplicaIndex],
    most: usize,
    kinds: &[Kind],
) -> Vec<(ReplicaIndex, Kind)> {
    let (count, kinds) = match kinds {
        _ if most == 0 => return Vec::new(),
        [] if stream.chance(200) => return Vec::new(),
        [] => (1 + stream.index(most), Kind::ALL.as_slice()),
        wanted => (most, wanted),
    };
    let mut left = everybody.to_vec();
    (0..count)
        .map(|_| (left.swap_remove(stream.index(left.len())), kinds[stream.index(kinds.len())]))
        .collect()
}

/// Small intervals in almost all seeds, so that checkpoints are many and the journals' beginnings go.
fn checkpoint_interval(seed: u64) -> u64 {
    let mut stream = Stream::new(seed, Cause::Join, 1);
    if stream.chance(50) { 0 } else { stream.between(2, 12) }
}

fn weather(stream: &mut Stream) -> Weather {
    if stream.chance(250) {
        return Weather::CALM;
    }
    let delay = match stream.below(5) {
        0 => Delay::Uniform { most_ms: stream.between(1, 300) },
        1 => Delay::Steady { ms: stream.between(1, 200), jitter_ms: stream.below(20) },
        2 => Delay::Halving { step_ms: stream.between(1, 150) },
        3 => Delay::TwoRoutes {
            quick_ms: stream.between(1, 50),
            slow_ms: stream.between(50, 800),
            slow_per_mille: stream.below(400),
        },
        _ => Delay::LongTail { usual_ms: stream.between(1, 300), late_per_mille: stream.below(50) },
    };
    Weather {
        loss_per_mille: if stream.chance(500) { stream.below(301) } else { 0 },
        duplicates_per_mille: stream.below(100),
        reordered_per_mille: if stream.chance(500) { stream.below(200) } else { 0 },
        delay,
    }
}

fn clock(stream: &mut Stream) -> Clock {
    Clock {
        offset_ms: stream.below(1_000_000),
        rate_per_mille: stream.between(950, 1_050),
        skew_ms: stream.below(300),
    }
}
