//! The scenario of a seed: the committee, its adversaries, the faults and the submissions, all drawn before the
//! run begins.
//!
//! It carries nothing out. Invariant: at most f replicas are adversaries, unless a test says otherwise.

mod draw;

use quorate::types::ReplicaIndex;
use std::sync::Arc;

use crate::{
    adversary::{Kind, Sides},
    disk::Crash,
    net::Weather,
    node::{Clock, Plant},
    requests::Errand,
    telemetry::Telemetry,
};

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
    /// A replica's messages are late, both ways, for so long.
    Slow {
        /// Which.
        replica: ReplicaIndex,
        /// By how many milliseconds at most.
        by_ms: u64,
        /// For how many milliseconds.
        for_ms: u64,
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
    /// It never comes back, and its replica neither.
    Gone,
}

impl Fault {
    /// Its name in a report.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cut { .. } => "cut",
            Self::Partition { .. } => "partition",
            Self::Crash { .. } => "crash",
            Self::Clog { .. } => "clogged link",
            Self::Slow { .. } => "slow replica",
            Self::Leap { .. } => "clock leapt",
            Self::SyncFails { .. } => "failing sync",
            Self::Full { .. } => "full disk",
            Self::Damage { damage: Damage::Rot, .. } => "bit rot",
            Self::Damage { damage: Damage::OlderCopy, .. } => "older copy of the journal",
            Self::Damage { damage: Damage::Gone, .. } => "gone for good",
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
    /// With which side of twins each replica talks, by place, from when on; none for adversaries.
    pub sides: Sides,
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
    /// What operators ask for; nothing where replicas run consensus alone.
    pub errands: Vec<Errand>,
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
}
