//! Between the model's values and columns. Writing never fails for what outsiders chose; reading names the
//! row and the column of what this program cannot have written.

use std::fmt::Display;

use super::{
    error::{ApplyError, CorruptRow},
    queries::PlanState,
};
use crate::{
    knowledge::{
        change::Effect,
        finding::{Interval, Symptom},
        observation::{AttributeValue, Attributes},
        plan::DesiredState,
        policy::Statistic,
        receipt::Refusal,
        snapshot::Finality,
    },
    types::{Digest, Quantity, ReplicaIndex, TargetId, UnixMillis},
};

/// The last millisecond of the year 9999. A later time, which only a broken or lying clock has, is stored as
/// this one: it must not make the block unstorable.
const LATEST_MS: u64 = 253_402_300_799_999;

/// A point in time as a timestamp's milliseconds.
pub(super) fn time_ms(time: UnixMillis) -> i64 {
    column_i64(time.as_millis().min(LATEST_MS))
}

/// A claimed number, cut to what a column holds.
pub(super) fn column_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A counter of the log, which must be stored exactly.
pub(super) fn counter(table: &'static str, column: &'static str, value: u64) -> Result<i64, ApplyError> {
    i64::try_from(value).map_err(|_| ApplyError::OutOfRange { table, column, value })
}

/// Text for people: U+0000, which Postgres cannot hold, becomes U+FFFD.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Attributes as a JSON object's text, for people.
pub(super) fn attributes_json(attributes: &Attributes) -> String {
    let object: serde_json::Map<String, serde_json::Value> = attributes
        .iter()
        .map(|(name, value)| {
            let value = match value {
                AttributeValue::Text(value) | AttributeValue::Other(value) => text(value).into(),
                AttributeValue::Bool(value) => (*value).into(),
                AttributeValue::Integer(value) => (*value).into(),
            };
            (text(name), value)
        })
        .collect();
    serde_json::Value::Object(object).to_string()
}

/// A target's state as a JSON object's text.
pub(super) fn state_json(state: &DesiredState) -> String {
    serde_json::to_string(state).expect("integers and strings are valid JSON")
}

/// Intervals as three columns of decimal text, which Postgres turns into exact numbers.
#[derive(Default)]
pub(super) struct IntervalColumns {
    pub(super) low: Vec<Option<String>>,
    pub(super) median: Vec<Option<String>>,
    pub(super) high: Vec<Option<String>>,
}

impl IntervalColumns {
    pub(super) fn push(&mut self, interval: Option<&Interval>) {
        self.low.push(interval.map(|interval| interval.low.to_string()));
        self.median.push(interval.map(|interval| interval.median.to_string()));
        self.high.push(interval.map(|interval| interval.high.to_string()));
    }
}

/// An enum that is stored by name.
pub(super) trait Named: Copy + 'static {
    /// Every value with its name.
    const NAMES: &'static [(Self, &'static str)];

    /// The name by which the value is stored.
    fn column_name(self) -> &'static str;
}

macro_rules! named {
    ($type:ident { $($variant:ident = $name:literal),* $(,)? }) => {
        impl Named for $type {
            const NAMES: &'static [(Self, &'static str)] = &[$(($type::$variant, $name)),*];

            fn column_name(self) -> &'static str {
                match self {
                    $($type::$variant => $name),*
                }
            }
        }
    };
}

named!(Statistic { Last = "last", Min = "min", Max = "max", Mean = "mean", Increase = "increase", P50 = "p50", P90 = "p90", P99 = "p99" });
named!(Finality { Confirmed = "confirmed", Unconfirmed = "unconfirmed" });
named!(Symptom {
    Threshold = "threshold",
    Absence = "absence",
    Disputed = "disputed",
    Unconfirmed = "unconfirmed",
    Gap = "gap",
    Capacity = "capacity",
});

named!(Refusal {
    Expired = "expired",
    Precondition = "precondition",
    TargetFailed = "target_failed",
    Limits = "limits",
    Contradiction = "contradiction",
});
named!(Effect { Better = "better", Worse = "worse", Inconclusive = "inconclusive" });
named!(PlanState {
    Logged = "logged",
    Applied = "applied",
    Noop = "noop",
    Refused = "refused",
    Reverted = "reverted",
});

/// A row that is being read.
pub(super) struct Row {
    table: &'static str,
    key: String,
}

impl Row {
    pub(super) fn new(table: &'static str, key: impl Display) -> Self {
        Self { table, key: key.to_string() }
    }

    pub(super) fn corrupt(&self, column: &'static str, problem: impl Display) -> CorruptRow {
        CorruptRow { table: self.table, row: self.key.clone(), column, problem: problem.to_string() }
    }

    pub(super) fn digest(&self, column: &'static str, bytes: &[u8]) -> Result<Digest, CorruptRow> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| self.corrupt(column, "not 32 bytes"))?;
        Ok(Digest::from_bytes(bytes))
    }

    pub(super) fn counter(&self, column: &'static str, number: i64) -> Result<u64, CorruptRow> {
        u64::try_from(number).map_err(|_| self.corrupt(column, "negative"))
    }

    pub(super) fn time(&self, column: &'static str, ms: i64) -> Result<UnixMillis, CorruptRow> {
        self.counter(column, ms).map(UnixMillis::new)
    }

    pub(super) fn replica(&self, column: &'static str, place: i32) -> Result<ReplicaIndex, CorruptRow> {
        u16::try_from(place)
            .map(ReplicaIndex::new)
            .map_err(|_| self.corrupt(column, "no place in a committee"))
    }

    pub(super) fn target(&self, column: &'static str, name: String) -> Result<TargetId, CorruptRow> {
        TargetId::new(name).map_err(|invalid| self.corrupt(column, invalid))
    }

    /// A `numeric(39, 9)` as Postgres prints it: always nine digits after the point, so without the point it
    /// is the number of billionths.
    pub(super) fn quantity(&self, column: &'static str, decimal: &str) -> Result<Quantity, CorruptRow> {
        decimal
            .replacen('.', "", 1)
            .parse()
            .map(Quantity::from_nanos)
            .map_err(|_| self.corrupt(column, "not a number of billionths"))
    }

    /// Three columns that are all there or all absent.
    pub(super) fn interval(
        &self,
        columns: [&'static str; 3],
        decimals: [Option<&str>; 3],
    ) -> Result<Option<Interval>, CorruptRow> {
        match decimals {
            [Some(low), Some(median), Some(high)] => Ok(Some(Interval {
                low: self.quantity(columns[0], low)?,
                median: self.quantity(columns[1], median)?,
                high: self.quantity(columns[2], high)?,
            })),
            [None, None, None] => Ok(None),
            _ => Err(self.corrupt(columns[0], "an interval without one of its ends")),
        }
    }

    pub(super) fn named<T: Named>(&self, column: &'static str, name: &str) -> Result<T, CorruptRow> {
        let known = T::NAMES.iter().find(|(_, known)| *known == name);
        known.map(|(value, _)| *value).ok_or_else(|| self.corrupt(column, format!("{name:?} is not known")))
    }

    pub(super) fn state(&self, column: &'static str, json: &str) -> Result<DesiredState, CorruptRow> {
        serde_json::from_str(json).map_err(|error| self.corrupt(column, error))
    }
}
