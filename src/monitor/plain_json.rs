//! Plain samples in JSON, for what speaks neither OTLP nor remote write: a script, a cron job, a shell with `curl`.
//!
//! ```json
//! {"source": "nightly-etl", "samples": [
//!   {"name": "queue_depth", "at_ms": 1764590000000, "value": 12.5, "kind": "gauge", "attributes": {"queue": "a"}}
//! ]}
//! ```
//!
//! It is read strictly, because people write it by hand: a field that is not known, that stands twice or that lacks
//! refuses the body, with its line and column. The kinds:
//!
//! - `gauge`: a level at a point in time.
//! - `counter`: what only rises, as it stands, since `start_ms` if that is given.
//! - `increase`: by how much it rose since the sample before, or since `start_ms`.
//!
//! Whole numbers may be texts, and so may decimal values, which are then exact to the billionth. Nothing here knows
//! HTTP or keeps state. Invariant: a body counts whole, but for the points refused alone, or not at all.

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData};

use super::{
    Batch, Kind, MAX_POINTS, Temporality,
    body::{
        DecodeError, Encoding, MAX_ATTRIBUTES,
        assemble::{Assembler, Attribute, Head, Number, SERVICE_NAME, Shape},
        decompress,
    },
};
use crate::types::{Quantity, SourceId};

/// The most colons of a body: those of the most samples with ten members each. A member takes some sixty bytes of
/// memory besides its text, and no more than four bytes of text.
const MAX_COLONS: usize = 10 * MAX_POINTS;

/// How much of a reason is told: those that repeat nothing are shorter.
const MAX_TOLD_CHARACTERS: usize = 240;

const MEDIA_TYPE: &str = "application/json";
const EXPECTED: &str = "list of samples in JSON";

/// A sample's times are in milliseconds, a point's in nanoseconds.
const NANOS_PER_MILLI: u64 = 1_000_000;

/// Whether a `Content-Type` names JSON; letter case and parameters do not matter.
pub(super) fn check_type(content_type: Option<&str>) -> Result<(), DecodeError> {
    let given = content_type.unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
        Ok(())
    } else {
        Err(DecodeError::unsupported_type(given, MEDIA_TYPE))
    }
}

/// The points of a body of at most so many bytes after decompression.
pub(super) fn decode(body: &[u8], content_encoding: Option<&str>, most: usize) -> Result<Batch, DecodeError> {
    let plain = decompress(body, Encoding::of_header(content_encoding)?, most)?;
    let malformed = |why: String| DecodeError::Malformed { expected: EXPECTED, why };
    if plain.iter().filter(|byte| **byte == b':').count() > MAX_COLONS {
        return Err(malformed(format!("it has more than {MAX_COLONS} members; send it in parts")));
    }
    let Object(request) =
        serde_json::from_slice::<Object<Request>>(&plain).map_err(|error| malformed(told(&error)))?;
    let mut assembler = Assembler::for_body(plain.len());
    request.read(&mut assembler);
    Ok(assembler.finish())
}

/// Where the text is wrong, and why. An error may repeat what a client wrote, which may be long.
fn told(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let why = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    let why: String = why.chars().take(MAX_TOLD_CHARACTERS).collect();
    format!("line {line}, column {column}: {why}")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    source: SourceId,
    samples: Samples,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    name: String,
    at_ms: Whole,
    #[serde(default)]
    start_ms: Option<Whole>,
    value: Value,
    kind: SampleKind,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SampleKind {
    Gauge,
    Counter,
    Increase,
}

impl SampleKind {
    const fn shape(self) -> Shape {
        match self {
            Self::Gauge => Shape::GAUGE,
            Self::Counter => Shape { kind: Kind::RisingSum, temporality: Some(Temporality::Cumulative) },
            Self::Increase => Shape { kind: Kind::RisingSum, temporality: Some(Temporality::Delta) },
        }
    }
}

impl Request {
    fn read<'a>(&'a self, into: &mut Assembler<'a>) {
        into.begin_attributes();
        into.attribute(SERVICE_NAME, &Attribute::Text(self.source.as_str()));
        into.end_resource();
        for Object(sample) in &self.samples.0 {
            into.metric(&sample.name);
            into.begin_attributes();
            for (name, value) in &sample.attributes.0 {
                into.attribute(name, &value.read());
            }
            let nanos = |whole: &Whole| whole.0.saturating_mul(NANOS_PER_MILLI);
            let start = sample.start_ms.as_ref().map_or(0, nanos);
            let head = Head { start, time: nanos(&sample.at_ms), flags: 0 };
            into.number(sample.kind.shape(), head, Some(sample.value.0));
        }
    }
}

/// What must be written as an object: a derived structure would also be read from a list of its fields.
struct Object<T>(T);

impl<'de, T: Deserialize<'de> + Described> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// What is expected where a structure belongs.
trait Described {
    const EXPECTED: &'static str;

    /// Whether its parts fit together.
    fn check(&self) -> Result<(), &'static str>;
}

impl Described for Request {
    const EXPECTED: &'static str = "an object with source and samples";

    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

impl Described for Sample {
    const EXPECTED: &'static str = "a sample: an object with name, at_ms, value and kind";

    fn check(&self) -> Result<(), &'static str> {
        match (self.kind, &self.start_ms) {
            (SampleKind::Gauge, Some(_)) => {
                Err("a gauge has no start_ms; only a counter and an increase have one")
            }
            (SampleKind::Gauge, None) | (SampleKind::Counter | SampleKind::Increase, _) => Ok(()),
        }
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Described> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        let value = T::deserialize(MapAccessDeserializer::new(map))?;
        value.check().map_err(A::Error::custom)?;
        Ok(Object(value))
    }
}

/// The samples of a request, no more than a request may have.
struct Samples(Vec<Object<Sample>>);

impl<'de> Deserialize<'de> for Samples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(SamplesVisitor)
    }
}

struct SamplesVisitor;

impl<'de> Visitor<'de> for SamplesVisitor {
    type Value = Samples;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of samples")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Samples, A::Error> {
        let mut samples = Vec::new();
        while let Some(sample) = seq.next_element()? {
            if samples.len() >= MAX_POINTS {
                return Err(A::Error::custom(format_args!(
                    "at most {MAX_POINTS} samples may stand in a body"
                )));
            }
            samples.push(sample);
        }
        Ok(Samples(samples))
    }
}

/// A whole number without a sign, or its text.
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("milliseconds since 1970: a whole number or its text")
    }
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Whole, E> {
        Ok(Whole(number))
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Whole, E> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_plain.then(|| text.parse().ok()).flatten();
        number.map(Whole).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

/// A sample's value.
struct Value(Number);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or the text of a decimal number")
    }
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value(Number::Exact(Quantity::from_u64(number))))
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value(Number::Integer(number)))
    }
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value(Number::Double(number)))
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        text.parse().map(|number| Value(Number::Exact(number))).map_err(E::custom)
    }
}

/// A sample's attributes, none twice.
#[derive(Default)]
struct Attributes(Vec<(String, AttributeValue)>);

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AttributesVisitor)
    }
}

struct AttributesVisitor;

impl<'de> Visitor<'de> for AttributesVisitor {
    type Value = Attributes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of attributes")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
        let mut attributes: Vec<(String, AttributeValue)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if attributes.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format_args!("attribute {name:?} stands twice")));
            }
            if attributes.len() >= MAX_ATTRIBUTES {
                return Err(A::Error::custom(format_args!(
                    "a sample has at most {MAX_ATTRIBUTES} attributes"
                )));
            }
            attributes.push((name, map.next_value()?));
        }
        Ok(Attributes(attributes))
    }
}

enum AttributeValue {
    Text(String),
    Bool(bool),
    Integer(i64),
}

impl AttributeValue {
    fn read(&self) -> Attribute<'_> {
        match self {
            Self::Text(text) => Attribute::Text(text),
            Self::Bool(truth) => Attribute::Bool(*truth),
            Self::Integer(number) => Attribute::Integer(*number),
        }
    }
}

impl<'de> Deserialize<'de> for AttributeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AttributeVisitor)
    }
}

struct AttributeVisitor;

impl Visitor<'_> for AttributeVisitor {
    type Value = AttributeValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a truth value or a whole number of 64 bits")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<AttributeValue, E> {
        Ok(AttributeValue::Text(text.to_owned()))
    }
    fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<AttributeValue, E> {
        Ok(AttributeValue::Bool(truth))
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<AttributeValue, E> {
        Ok(AttributeValue::Integer(number))
    }
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<AttributeValue, E> {
        let whole = i64::try_from(number);
        let refused = |_| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
        whole.map(AttributeValue::Integer).map_err(refused)
    }
}

#[cfg(test)]
mod tests;
