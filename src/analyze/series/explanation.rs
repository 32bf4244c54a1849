//! What a finding says to people: what was seen, against what, since when. It decides nothing. Invariant: its
//! text is one line without a comma or a quote, so that it can stand in a field of a CSV file as it is.

use std::fmt;

use crate::types::UnixMillis;

/// The explanation of a finding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Explanation {
    /// What was seen.
    pub seen: Seen,
    /// Since when, in the series' own time.
    pub since: UnixMillis,
}

/// What was seen, against what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// A pair of value and long mean that no earlier one is near to.
    Novel {
        /// The value.
        value: f64,
        /// The mean of the last values.
        mean: f64,
        /// How far the nearest earlier pair is.
        distance: f64,
        /// How far it usually is.
        usual: f64,
    },
    /// A value that was predicted otherwise.
    Surprise {
        /// The value.
        value: f64,
        /// What was predicted.
        predicted: f64,
        /// By how much predictions are usually wrong.
        usual: f64,
    },
    /// A value outside of the range.
    Outside {
        /// The value.
        value: f64,
        /// The end of the range that it is past.
        end: f64,
        /// The width of the range.
        width: f64,
    },
    /// A level that has moved.
    Shift {
        /// The level that was.
        from: f64,
        /// The mean since it left.
        to: f64,
    },
    /// A budget that burns.
    Burning {
        /// How many times faster than allowed, over the long window.
        long: f64,
        /// The same over the short one.
        short: f64,
        /// What is allowed over both.
        allowed: f64,
        /// The long window, in hours.
        hours: f64,
    },
    /// A limit that comes near.
    Near {
        /// The level.
        level: f64,
        /// The limit.
        limit: f64,
        /// Hours until it is reached.
        hours: f64,
    },
    /// Completions that do not come.
    Stalled {
        /// How many seconds ago the last one was.
        silent: f64,
        /// How long the spans between them are at most, in seconds.
        usual: f64,
    },
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seen {
            Seen::Novel { value, mean, distance, usual } => write!(
                f,
                "value {value:.6} with mean {mean:.6} is {distance:.6} from the nearest earlier such pair; usual is {usual:.6}"
            ),
            Seen::Surprise { value, predicted, usual } => {
                write!(
                    f,
                    "value {value:.6} where {predicted:.6} was predicted; predictions err by {usual:.6}"
                )
            }
            Seen::Outside { value, end, width } => write!(
                f,
                "value {value:.6} is past {end:.6} which all earlier ones kept; their range is {width:.6} wide"
            ),
            Seen::Shift { from, to } => write!(f, "the level moved from {from:.6} to {to:.6}"),
            Seen::Burning { long, short, allowed, hours } => write!(
                f,
                "the budget burns {long:.1} times too fast over {hours:.1} h and {short:.1} times over its twelfth or less; {allowed:.1} is allowed"
            ),
            Seen::Near { level, limit, hours } => {
                write!(f, "level {level:.6} reaches {limit:.6} in {hours:.1} h")
            }
            Seen::Stalled { silent, usual } => {
                write!(f, "nothing was completed for {silent:.0} s; at most {usual:.0} s are usual")
            }
        }
    }
}
