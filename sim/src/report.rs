//! What runs amount to: the outcome of one seed, and the sum over many.
//!
//! It judges nothing. Invariant: a sum's figures are those of its runs.

use std::fmt;

use crate::invariants::Violation;

/// The outcome of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// How much virtual time passed, in milliseconds.
    pub virtual_ms: u64,
    /// How many heights were committed.
    pub commits: u64,
    /// How many crashes, cuts, partitions and adversaries there were.
    pub faults: u64,
    /// How long after healing the last command was committed everywhere, in milliseconds.
    pub settled_after_ms: Option<u64>,
    /// The digest of all events.
    pub trace: u64,
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
    /// How many faults there were.
    pub faults: u64,
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
        self.faults += outcome.faults;
        self.violations += u64::from(outcome.violation.is_some());
        self.slowest = self.slowest.max((outcome.settled_after_ms.unwrap_or(0), outcome.seed));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.virtual_ms / 36_000;
        let (hours, rest) = (hundredths / 100, hundredths % 100);
        let Self { seeds, commits, faults, violations, .. } = self;
        write!(
            f,
            "seeds={seeds} cluster_hours={hours}.{rest:02} commits={commits} faults={faults} violations={violations}"
        )
    }
}
