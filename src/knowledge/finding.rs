//! A finding: a symptom that analysis sees, with its evidence.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

use crate::types::{Quantity, UnixMillis, WindowIndex};

/// What the quorum can say of an indicator: every honest value lies between `low` and `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Interval {
    /// The smallest value that may be true.
    pub low: Quantity,
    /// The trimmed median: what running states of detectors advance on.
    pub median: Quantity,
    /// The largest value that may be true.
    pub high: Quantity,
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high {
            write!(f, "{}", self.low)
        } else {
            write!(f, "{}..{}", self.low, self.high)
        }
    }
}

/// What kind of symptom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Symptom {
    /// A value is past its threshold for every choice of points in its interval.
    Threshold,
    /// An indicator has no samples for longer than it may.
    Absence,
    /// The reports disagree: the symptom holds for some choices of points and not for others.
    Disputed,
    /// The window closed without a quorum of reports.
    Unconfirmed,
    /// Windows passed that nobody reported.
    Gap,
    /// How many slots a load asks for, by a capacity model: it is found in every window.
    Capacity,
}

impl Symptom {
    /// Its name in events, the database and accounts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Threshold => "threshold",
            Self::Absence => "absence",
            Self::Disputed => "disputed",
            Self::Unconfirmed => "unconfirmed",
            Self::Gap => "gap",
            Self::Capacity => "capacity",
        }
    }
}

/// A symptom with its interval of evidence.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Finding {
    /// The policy whose condition it meets; `None` for findings about the loop itself.
    pub policy: Option<String>,
    /// What it is.
    pub symptom: Symptom,
    /// The window in which it was seen.
    pub window: WindowIndex,
    /// Since when, in agreed time.
    pub since: UnixMillis,
    /// What was seen; `None` where the symptom is that nothing was.
    pub observed: Option<Interval>,
    /// Against what: the threshold, or the longest allowed silence in seconds.
    pub against: Option<Quantity>,
}
