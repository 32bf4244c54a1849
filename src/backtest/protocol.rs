//! What quorate and a plant say to each other: one JSON object a line, in turn.
//!
//! It reads no stream and keeps no state; `docs/backtest.md` describes the same for people who write plants.
//! Invariant: an [`Answer`] that was read holds only samples that lie after the last order and before this one,
//! under names that a series may have.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{
    knowledge::{
        observation::{AttributeValue, Attributes, SeriesKey},
        plan::DesiredState,
    },
    monitor::{Amount, Batch, Kind, Measure, Sample as MonitorSample, Temporality, UnixNanos},
    types::{Millis, Quantity, SourceId, TargetId, UnixMillis},
};

/// The protocol's version.
pub const VERSION: u32 = 1;

/// The longest line of a plant: what the telemetry door takes as one body.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// The longest name of a metric or an attribute: OpenTelemetry's own bound for instruments.
const MAX_NAME_BYTES: usize = 255;

/// The most attributes of one sample: as many as the door takes.
const MAX_ATTRIBUTES: usize = 64;

/// What quorate writes: what the targets are to be from this moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The protocol's version: 1.
    pub v: u32,
    /// The moment, in milliseconds since 1970 of the virtual clock.
    pub now_ms: UnixMillis,
    /// The state that each target's agent has set, sorted by target.
    pub desired: Vec<Desired>,
}

/// The state of one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// Which target.
    pub target: TargetId,
    /// What its agent has set.
    pub state: DesiredState,
}

impl Order {
    /// The line to write, with its end.
    ///
    /// # Panics
    /// Never: the fields are integers and strings.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("integers and strings are valid JSON");
        line.push(b'\n');
        line
    }
}

/// What a plant answers: what it measured since the last order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The protocol's version: 1.
    pub v: u32,
    /// The order's moment, repeated.
    pub now_ms: UnixMillis,
    /// What was measured.
    pub samples: Vec<Sample>,
    /// Whether nothing more will happen.
    #[serde(default)]
    pub done: bool,
    /// What it cost and how well it served so far, if the plant keeps an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
}

/// What a plant's work cost so far, and how well it served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Minutes, counted from the first order, in which the service level was violated at some moment.
    pub violation_minutes: u64,
    /// Workers times milliseconds, from the moment each was asked for to the moment it was gone.
    pub worker_ms: u64,
}

/// One measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The engine that posts it.
    pub source: SourceId,
    /// The metric's name.
    pub name: String,
    /// What kind of metric it is.
    pub kind: SampleKind,
    /// The value.
    pub value: f64,
    /// The series' attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Attribute>,
    /// When it was measured; the last millisecond before the order's moment when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<UnixMillis>,
}

/// What kind of metric a sample belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleKind {
    /// A value at a point in time.
    Gauge,
    /// A sum that only rises, from zero at the first order.
    Counter,
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "an attribute is a string, an integer or a truth value")]
pub enum Attribute {
    /// A truth value.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A string.
    Text(String),
}

/// Why an answer is refused, and where it is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plant's line {line}, {place}: {why}")]
pub struct AnswerError {
    /// The number of the plant's line, from 1.
    pub line: u64,
    /// A column, or the path of a field.
    pub place: String,
    /// What is wrong, and what is allowed.
    pub why: String,
}

/// Between which moments an answer's samples may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The last order's moment.
    pub from: UnixMillis,
    /// This order's moment.
    pub now: UnixMillis,
}

impl Answer {
    /// Reads the plant's line of this number, without its end, and checks every field.
    ///
    /// # Errors
    /// [`AnswerError`] names the first thing that is wrong: line, column or field, and what is allowed there.
    pub fn read(line: u64, bytes: &[u8], span: Span) -> Result<Self, AnswerError> {
        let answer: Self = serde_json::from_slice(bytes).map_err(|error| {
            let text = error.to_string();
            // The place is told in front; the reader counts lines within one line of ours.
            let why = text.rsplit_once(" at line ").map_or(text.as_str(), |(why, _)| why).to_owned();
            AnswerError { line, place: format!("column {}", error.column()), why }
        })?;
        answer.check(span).map_err(|(place, why)| AnswerError { line, place, why })?;
        Ok(answer)
    }

    /// Checks what the types do not; the error is the field and the reason.
    fn check(&self, span: Span) -> Result<(), (String, String)> {
        if self.v != VERSION {
            let why = format!("version {} is not spoken here; only {VERSION} is", self.v);
            return Err(("field v".to_owned(), why));
        }
        if self.now_ms != span.now {
            let why = format!("{} is not the order's moment, {}", self.now_ms, span.now);
            return Err(("field now_ms".to_owned(), why));
        }
        for (place, sample) in self.samples.iter().enumerate() {
            sample.check(span).map_err(|(field, why)| (format!("field samples[{place}].{field}"), why))?;
        }
        Ok(())
    }

    /// The samples as the telemetry door hands them on; counters began at `begin`.
    ///
    /// # Panics
    /// When a value is not finite, which no answer that was read holds.
    #[must_use]
    pub fn batch(&self, begin: UnixMillis) -> Batch {
        let mut batch = Batch::default();
        for sample in &self.samples {
            let value = Quantity::from_f64(sample.value).expect("an answer's values are quantities");
            let (kind, measure) = match sample.kind {
                SampleKind::Gauge => (Kind::Gauge, Measure::Level(value)),
                SampleKind::Counter => {
                    let amount = Amount::new(value, Quantity::ZERO);
                    (Kind::RisingSum, Measure::Growth(Temporality::Cumulative, amount))
                }
            };
            let start = UnixNanos::from_millis(begin);
            let time = UnixNanos::from_millis(sample.time(self.now_ms));
            batch.push(&sample.series(), MonitorSample { kind, start, time, measure });
        }
        batch
    }
}

impl Sample {
    fn check(&self, span: Span) -> Result<(), (&'static str, String)> {
        let is_name = |name: &str| (1..=MAX_NAME_BYTES).contains(&name.len());
        if !is_name(&self.name) {
            return Err(("name", format!("a name has 1 to {MAX_NAME_BYTES} bytes, not {}", self.name.len())));
        }
        if let Err(error) = Quantity::from_f64(self.value) {
            return Err(("value", error.to_string()));
        }
        if self.kind == SampleKind::Counter && self.value < 0.0 {
            return Err(("value", format!("a counter starts at zero and only rises; it is {}", self.value)));
        }
        if self.attributes.len() > MAX_ATTRIBUTES {
            let why = format!("there are {} of them; at most {MAX_ATTRIBUTES}", self.attributes.len());
            return Err(("attributes", why));
        }
        if let Some(name) = self.attributes.keys().find(|name| !is_name(name)) {
            let why = format!("a name has 1 to {MAX_NAME_BYTES} bytes, not {}", name.len());
            return Err(("attributes", why));
        }
        let at = self.time(span.now);
        if at < span.from || at >= span.now {
            let why = format!("{at} lies outside this step, which is {} to before {}", span.from, span.now);
            return Err(("at_ms", why));
        }
        Ok(())
    }

    fn time(&self, now: UnixMillis) -> UnixMillis {
        self.at_ms.unwrap_or_else(|| now.minus(Millis::new(1)))
    }

    fn series(&self) -> SeriesKey {
        let attributes: Attributes = self
            .attributes
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    Attribute::Bool(truth) => AttributeValue::Bool(*truth),
                    Attribute::Integer(number) => AttributeValue::Integer(*number),
                    Attribute::Text(text) => AttributeValue::Text(text.clone()),
                };
                (name.clone(), value)
            })
            .collect();
        SeriesKey {
            source: self.source.clone(),
            name: self.name.clone(),
            attributes,
            resource: Attributes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Span};
    use crate::types::UnixMillis;

    const SPAN: Span = Span { from: UnixMillis::new(1000), now: UnixMillis::new(2000) };

    fn sample(fields: &str) -> String {
        format!(r#"{{"v":1,"now_ms":2000,"samples":[{{{fields}}}]}}"#)
    }

    const GOOD: &str = r#""source":"queue","name":"queue.depth","kind":"gauge","value":3"#;

    #[test]
    fn a_good_answer_is_read_and_becomes_points() {
        let line = sample(&format!(r#"{GOOD},"attributes":{{"pool":"a","n":1}},"at_ms":1500"#));
        let answer = Answer::read(1, line.as_bytes(), SPAN).expect("it is as the protocol says");
        assert!(!answer.done);
        let batch = answer.batch(UnixMillis::new(1000));
        let point = batch.points().next().expect("there is one");
        assert_eq!(point.sample.time.to_millis(), UnixMillis::new(1500));
        assert_eq!(point.series_key().attributes.len(), 2);
    }

    /// Each row: the plant's line, and what it is told.
    #[test]
    fn what_is_wrong_is_named_with_its_place_and_what_is_allowed() {
        let rows = [
            ("{".to_owned(), "the plant's line 7, column 1: EOF while parsing an object"),
            (
                r#"{"v":1,"now_ms":2000,"samples":[],"finished":true}"#.to_owned(),
                "the plant's line 7, column 44: unknown field `finished`, expected one of `v`, `now_ms`, \
                 `samples`, `done`, `account`",
            ),
            (
                r#"{"v":2,"now_ms":2000,"samples":[]}"#.to_owned(),
                "the plant's line 7, field v: version 2 is not spoken here; only 1 is",
            ),
            (
                r#"{"v":1,"now_ms":2001,"samples":[]}"#.to_owned(),
                "the plant's line 7, field now_ms: 2001 is not the order's moment, 2000",
            ),
            (
                sample(&GOOD.replace("gauge", "level")),
                "the plant's line 7, column 85: unknown variant `level`, expected `gauge` or `counter`",
            ),
            (
                sample(&GOOD.replace("queue.depth", "")),
                "the plant's line 7, field samples[0].name: a name has 1 to 255 bytes, not 0",
            ),
            (
                sample(&GOOD.replace("gauge", "counter").replace('3', "-3")),
                "the plant's line 7, field samples[0].value: a counter starts at zero and only rises; it is -3",
            ),
            (
                sample(&format!(r#"{GOOD},"at_ms":2000"#)),
                "the plant's line 7, field samples[0].at_ms: 2000 lies outside this step, which is 1000 to \
                 before 2000",
            ),
            (sample(&GOOD.replace('3', "1e300")), "the plant's line 7, field samples[0].value: "),
        ];
        for (line, expected) in rows {
            let error = Answer::read(7, line.as_bytes(), SPAN).expect_err(&line).to_string();
            assert!(error.starts_with(expected), "{line}\n  says {error}\n  not  {expected}");
        }
    }
}
