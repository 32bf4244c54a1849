//! The scenario of a seed: the committee, its adversaries, the faults and the submissions, all drawn before the
//! run begins.
//!
//! It carries nothing out. Invariant: at most f replicas are adversaries, unless a test says otherwise.

use quorate::types::{CommitteeSize, ReplicaIndex};

use crate::{
    adversary::{Kind, Side},
    disk::Crash,
    net::Weather,
    node::{Clock, Plant},
    rng::{Cause, Stream},
    telemetry::Telemetry,
};
use std::sync::Arc;

/// Something that goes wrong, or right again.
#[derive(Clone, Debug)]
pub enum Fault {
    /// One direction of a link is cut for so long.
    Cut {
        /// From whom.
        from: ReplicaIndex,
        /// To whom.
        to: ReplicaIndex,
        /// For how many milliseconds.
        for_ms: u64,
    },
    /// All links between these and the others are cut, both ways, for so long.
    Partition {
        /// The one part.
        part: Vec<ReplicaIndex>,
        /// For how many milliseconds.
        for_ms: u64,
    },
    /// A replica ends after so many more outputs and stays away for so long.
    Crash {
        /// Which.
        replica: ReplicaIndex,
        /// How many outputs it still carries out.
        after_outputs: u64,
        /// How it ends.
        crash: Crash,
        /// For how many milliseconds it stays away.
        away_ms: u64,
    },
    /// One direction of a link lets nothing through for so long; then all that waited arrives.
    Clog {
        /// From whom.
        from: ReplicaIndex,
        /// To whom.
        to: ReplicaIndex,
        /// For how many milliseconds.
        for_ms: u64,
    },
    /// A replica's messages are late, both ways, until all faults are over.
    Slow {
        /// Which.
        replica: ReplicaIndex,
        /// By how many milliseconds at most.
        by_ms: u64,
    },
    /// A replica's clock leaps ahead, as after a suspended machine.
    Leap {
        /// Which.
        replica: ReplicaIndex,
        /// By how many milliseconds.
        by_ms: u64,
    },
    /// The next sync of a replica's disk fails; those after it succeed.
    SyncFails {
        /// Which.
        replica: ReplicaIndex,
    },
    /// A replica's disk is full for so long.
    Full {
        /// Which.
        replica: ReplicaIndex,
        /// For how many milliseconds.
        for_ms: u64,
    },
    /// A replica loses its power, and its disk is damaged: it counts as one of the f.
    Damage {
        /// Which.
        replica: ReplicaIndex,
        /// How.
        damage: Damage,
        /// For how many milliseconds it stays away.
        away_ms: u64,
    },
    /// A copy is made of what is durable on a replica's disk.
    Copy {
        /// Which.
        replica: ReplicaIndex,
    },
}

/// How a disk is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit flips.
    Rot,
    /// It goes back to an earlier copy.
    OlderCopy,
}

impl Fault {
    /// Its name in a report.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cut { .. } => "cut",
            Self::Partition { .. } => "partition",
            Self::Crash { crash: Crash::Process, .. } => "killed",
            Self::Crash { crash: Crash::Power, .. } => "power lost",
            Self::Clog { .. } => "clogged link",
            Self::Slow { .. } => "slow replica",
            Self::Leap { .. } => "clock leapt",
            Self::SyncFails { .. } => "sync failed",
            Self::Full { .. } => "disk full",
            Self::Damage { damage: Damage::Rot, .. } => "bit rot",
            Self::Damage { damage: Damage::OlderCopy, .. } => "older copy of the journal",
            Self::Copy { .. } => "journal copied",
        }
    }
}

/// A client's command.
#[derive(Clone, Debug)]
pub struct Submission {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// At which replica.
    pub at: ReplicaIndex,
    /// The command's shared part.
    pub body: Vec<u8>,
}

/// All that a run needs.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// n.
    pub replicas: usize,
    /// Who is Byzantine, and how.
    pub adversaries: Vec<(ReplicaIndex, Kind)>,
    /// Whose disk will be damaged. With the adversaries they are at most f.
    pub damaged: Vec<(ReplicaIndex, Damage)>,
    /// With which side of twins each replica talks, by place; none for adversaries.
    pub sides: Vec<Option<Side>>,
    /// Which fault is planted in whom.
    pub plants: Vec<(ReplicaIndex, Plant)>,
    /// When all faults are over, in milliseconds.
    pub heal_ms: u64,
    /// The links until then.
    pub weather: Weather,
    /// What happens when.
    pub faults: Vec<(u64, Fault)>,
    /// The clients' commands.
    pub submissions: Vec<Submission>,
    /// The clocks, by place.
    pub clocks: Vec<Clock>,
    /// The journals' segment size in bytes.
    pub segment_bytes: u64,
    /// A checkpoint is made at each height that this divides; zero: none is made.
    pub checkpoint_interval: u64,
    /// Who starts late, with an empty disk, and when, in milliseconds.
    pub joins: Option<(ReplicaIndex, u64)>,
    /// What the monitors see; without it replicas run consensus alone, and the cluster has idle phases.
    pub telemetry: Option<Arc<Telemetry>>,
}

impl Scenario {
    /// The scenario of a seed; without a number of replicas it is one of 4, 5, 6 and 7.
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
        let drawn = 4 + stream.index(4);
        let replicas = replicas.unwrap_or(drawn);
        let size = CommitteeSize::new(replicas).expect("the caller checked the number of replicas");
        let everybody: Vec<_> = (0..CommitteeSize::MAX).map(ReplicaIndex::new).take(replicas).collect();
        let adversaries = adversaries(&mut stream, &everybody, size.faults(), kinds);
        let heal_ms = stream.between(3_000, 30_000);
        let mut clocks = Stream::new(seed, Cause::Clock, 0);
        let mut scenario = Self {
            seed,
            replicas,
            sides: Vec::new(),
            damaged: Vec::new(),
            adversaries,
            plants: Vec::new(),
            heal_ms,
            weather: weather(&mut stream),
            faults: Vec::new(),
            submissions: Vec::new(),
            clocks: everybody.iter().map(|_| clock(&mut clocks)).collect(),
            segment_bytes: 1 << stream.between(11, 18),
            checkpoint_interval: checkpoint_interval(seed),
            joins: None,
            telemetry: seed.is_multiple_of(2).then(|| Arc::new(Telemetry::of_seed(seed, heal_ms))),
        };
        scenario.sides = everybody
            .iter()
            .map(|replica| {
                let side = if stream.chance(500) { Side::Left } else { Side::Right };
                scenario.is_honest(*replica).then_some(side)
            })
            .collect();
        let spare = size.faults().saturating_sub(scenario.adversaries.len());
        scenario.damaged = scenario.draw_damaged(&everybody, spare);
        scenario.faults = scenario.draw_faults(&mut stream, &everybody);
        scenario.faults.extend(scenario.draw_disk_faults(&everybody));
        scenario.faults.extend(scenario.draw_slowness(&everybody));
        scenario.joins = scenario.draw_join(&everybody);
        scenario.submissions = scenario.draw_submissions(&everybody);
        scenario
    }

    /// Whether a replica keeps to the rules.
    #[must_use]
    pub fn is_honest(&self, replica: ReplicaIndex) -> bool {
        self.kind_of(replica).is_none()
    }

    /// Whether a replica keeps to the rules and its disk keeps what it synced.
    #[must_use]
    pub fn is_sound(&self, replica: ReplicaIndex) -> bool {
        self.is_honest(replica) && self.damaged.iter().all(|(damaged, _)| *damaged != replica)
    }

    /// When a replica is started for the first time, in milliseconds.
    #[must_use]
    pub fn first_start_ms(&self, replica: ReplicaIndex) -> u64 {
        self.joins.filter(|(joins, _)| *joins == replica).map_or(0, |(_, at_ms)| at_ms)
    }

    /// How a replica is Byzantine, if it is.
    #[must_use]
    pub fn kind_of(&self, replica: ReplicaIndex) -> Option<Kind> {
        self.adversaries.iter().find(|(adversary, _)| *adversary == replica).map(|(_, kind)| *kind)
    }

    fn draw_faults(&self, stream: &mut Stream, everybody: &[ReplicaIndex]) -> Vec<(u64, Fault)> {
        let mut crashes = Stream::new(self.seed, Cause::Crash, 0);
        let (most_cuts, most_crashes) = (stream.below(8), crashes.below(16));
        let mut faults = Vec::new();
        for _ in 0..most_cuts {
            let at_ms = stream.below(self.heal_ms);
            let for_ms = stream.between(100, 8_000);
            let (from, to) =
                (everybody[stream.index(everybody.len())], everybody[stream.index(everybody.len())]);
            if stream.chance(500) {
                faults.push((at_ms, Fault::Cut { from, to, for_ms }));
            } else {
                let part = everybody.iter().copied().filter(|_| stream.chance(500)).collect();
                faults.push((at_ms, Fault::Partition { part, for_ms }));
            }
        }
        for _ in 0..most_crashes {
            let at_ms = crashes.below(self.heal_ms);
            let replica = everybody[crashes.index(everybody.len())];
            let after_outputs = crashes.below(40);
            let crash = if crashes.chance(300) { Crash::Process } else { Crash::Power };
            let away_ms =
                if crashes.chance(600) { crashes.between(1, 500) } else { crashes.between(1, 10_000) };
            faults.push((at_ms, Fault::Crash { replica, after_outputs, crash, away_ms }));
        }
        faults
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
                (replica, if stream.chance(500) { Damage::Rot } else { Damage::OlderCopy })
            })
            .collect()
    }

    /// Disks that fail for a while, and those that are damaged for good.
    fn draw_disk_faults(&self, everybody: &[ReplicaIndex]) -> Vec<(u64, Fault)> {
        let mut stream = Stream::new(self.seed, Cause::Damage, 1);
        let mut faults = Vec::new();
        for (replica, damage) in self.damaged.iter().copied() {
            let copied_ms = stream.below(self.heal_ms);
            let damaged_ms = stream.between(copied_ms, self.heal_ms - 1);
            let away_ms = stream.between(1, 2_000);
            faults.push((copied_ms, Fault::Copy { replica }));
            faults.push((damaged_ms, Fault::Damage { replica, damage, away_ms }));
        }
        for _ in 0..stream.below(4) {
            let at_ms = stream.below(self.heal_ms);
            let replica = everybody[stream.index(everybody.len())];
            let fault = if stream.chance(600) {
                Fault::SyncFails { replica }
            } else {
                Fault::Full { replica, for_ms: stream.between(10, 3_000) }
            };
            faults.push((at_ms, fault));
        }
        faults
    }

    /// A sound replica that has never signed anything and starts when the others have been at work for a while.
    fn draw_join(&self, everybody: &[ReplicaIndex]) -> Option<(ReplicaIndex, u64)> {
        let mut stream = Stream::new(self.seed, Cause::Join, 0);
        let sound: Vec<_> = everybody.iter().copied().filter(|replica| self.is_sound(*replica)).collect();
        let replica = *sound.get(stream.index(sound.len().max(1)))?;
        let joins = stream.chance(400) && sound.len() > 1;
        joins.then(|| (replica, stream.between(self.heal_ms / 2, self.heal_ms)))
    }

    /// Clogged links, slow replicas, clocks that leap.
    fn draw_slowness(&self, everybody: &[ReplicaIndex]) -> Vec<(u64, Fault)> {
        let mut stream = Stream::new(self.seed, Cause::Slowness, 0);
        let mut faults = Vec::new();
        for _ in 0..stream.below(5) {
            let at_ms = stream.below(self.heal_ms);
            let replica = everybody[stream.index(everybody.len())];
            let to = everybody[stream.index(everybody.len())];
            let fault = match stream.below(5) {
                0 | 1 => Fault::Clog { from: replica, to, for_ms: stream.between(100, 5_000) },
                2 => Fault::Slow { replica, by_ms: stream.between(50, 900) },
                _ => Fault::Leap { replica, by_ms: stream.between(1, 60_000) },
            };
            faults.push((at_ms, fault));
        }
        faults
    }

    fn draw_submissions(&self, everybody: &[ReplicaIndex]) -> Vec<Submission> {
        let mut stream = Stream::new(self.seed, Cause::Workload, 0);
        let honest: Vec<_> = everybody.iter().copied().filter(|replica| self.is_sound(*replica)).collect();
        let idle_ms = stream.between(100, 6_000);
        let mut submissions = Vec::new();
        let mut at_ms = stream.below(1_000);
        while at_ms < self.heal_ms {
            for _ in 0..stream.between(1, 5) {
                let at = honest[stream.index(honest.len())];
                let length = if stream.chance(50) { 4_000 } else { stream.below(3) * 20 };
                let body = vec![7; usize::try_from(length).expect("it is small")];
                submissions.push(Submission { at_ms, at, body });
                at_ms += stream.below(150);
            }
            at_ms += stream.between(1, idle_ms);
        }
        submissions.retain(|submission| submission.at_ms < self.heal_ms);
        submissions
    }
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
    if stream.chance(300) {
        return Weather::CALM;
    }
    Weather {
        loss_per_mille: if stream.chance(500) { stream.below(200) } else { 0 },
        duplicates_per_mille: stream.below(100),
        delay_ms: stream.between(1, 300),
        late_per_mille: stream.below(50),
    }
}

fn clock(stream: &mut Stream) -> Clock {
    Clock {
        offset_ms: stream.below(1_000_000),
        rate_per_mille: stream.between(950, 1_050),
        skew_ms: stream.below(300),
    }
}
