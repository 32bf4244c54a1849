//! What JSON writes where a number belongs, and structures that must not grow with what they do not keep.
//!
//! Nothing here knows what a number means. Invariant: a list of numbers takes a few times the memory of its
//! text, and what is not known takes none.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{fmt, marker::PhantomData};

use super::Metric;

/// A number, or what stands in its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Loose {
    #[default]
    Absent,
    Unsigned(u64),
    Signed(i64),
    Double(f64),
    Text(Box<str>),
    Wrong,
}

impl Loose {
    /// A count; zero when it is absent.
    pub(super) fn or_zero(&self) -> Option<u64> {
        if *self == Self::Absent { Some(0) } else { self.to_u64() }
    }

    pub(super) fn to_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::Double(number) => whole(*number).and_then(|number| u64::try_from(number).ok()),
            Self::Absent | Self::Signed(_) | Self::Wrong => None,
        }
    }

    pub(super) fn to_i64(&self) -> Option<i64> {
        match self {
            Self::Unsigned(number) => i64::try_from(*number).ok(),
            Self::Signed(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::Double(number) => whole(*number),
            Self::Absent | Self::Wrong => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a client wrote an integer where a double belongs")]
    pub(super) fn to_f64(&self) -> Option<f64> {
        match self {
            Self::Unsigned(number) => Some(*number as f64),
            Self::Signed(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            // Also "NaN", "Infinity" and "-Infinity", the names of those values in OTLP.
            Self::Text(text) => text.parse().ok(),
            Self::Absent | Self::Wrong => None,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the value is whole and below 2^53 in size")]
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract().abs() < f64::EPSILON && number.abs() < EXACT).then_some(number as i64)
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or its text")
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Loose, E> {
        Ok(Loose::Unsigned(number))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Loose, E> {
        Ok(Loose::Signed(number))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Loose, E> {
        Ok(Loose::Double(number))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(text.into()))
    }
    fn visit_unit<E: Error>(self) -> Result<Loose, E> {
        Ok(Loose::Absent)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Loose, E> {
        Ok(Loose::Wrong)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose::Wrong)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose::Wrong)
    }
}

/// A list of numbers; none when one of them is none.
#[derive(Debug)]
pub(super) struct Numbers<T>(pub(super) Option<Vec<T>>);

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self(Some(Vec::new()))
    }
}

/// A kind of number that lists hold.
pub(super) trait FromLoose: Sized {
    fn of(loose: &Loose) -> Option<Self>;
}

impl FromLoose for u64 {
    fn of(loose: &Loose) -> Option<Self> {
        loose.to_u64()
    }
}

impl FromLoose for f64 {
    fn of(loose: &Loose) -> Option<Self> {
        loose.to_f64()
    }
}

impl<'de, T: FromLoose> Deserialize<'de> for Numbers<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumbersVisitor(PhantomData))
    }
}

struct NumbersVisitor<T>(PhantomData<T>);

impl<'de, T: FromLoose> Visitor<'de> for NumbersVisitor<T> {
    type Value = Numbers<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers")
    }
    fn visit_unit<E: Error>(self) -> Result<Numbers<T>, E> {
        Ok(Numbers::default())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Numbers<T>, A::Error> {
        let mut numbers = Some(Vec::new());
        while let Some(loose) = seq.next_element::<Loose>()? {
            numbers = numbers.zip(T::of(&loose)).map(|(mut numbers, number)| {
                numbers.push(number);
                numbers
            });
        }
        Ok(Numbers(numbers))
    }
}

/// How many points something of an unknown kind has, if it has any.
#[derive(Debug, Default)]
struct UnknownKind(u64);

impl<'de> Deserialize<'de> for UnknownKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnknownVisitor)
    }
}

/// Goes through anything, and counts the elements of a list that is called `dataPoints`.
struct UnknownVisitor;

impl<'de> Visitor<'de> for UnknownVisitor {
    type Value = UnknownKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<UnknownKind, E> {
        Ok(UnknownKind(0))
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<UnknownKind, E> {
        Ok(UnknownKind(0))
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<UnknownKind, E> {
        Ok(UnknownKind(0))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<UnknownKind, E> {
        Ok(UnknownKind(0))
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<UnknownKind, E> {
        Ok(UnknownKind(0))
    }
    fn visit_unit<E: Error>(self) -> Result<UnknownKind, E> {
        Ok(UnknownKind(0))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<UnknownKind, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(UnknownKind(0))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UnknownKind, A::Error> {
        let mut points = 0;
        while let Some(name) = map.next_key::<String>()? {
            if name == "dataPoints" {
                let list = map.next_value::<Option<Vec<IgnoredAny>>>()?;
                points += list.map_or(0, |list| list.len() as u64);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(UnknownKind(points))
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetricVisitor)
    }
}

struct MetricVisitor;

impl<'de> Visitor<'de> for MetricVisitor {
    type Value = Metric;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a metric")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metric, A::Error> {
        fn next<'de, A: MapAccess<'de>, T: DeserializeOwned>(map: &mut A) -> Result<Option<T>, A::Error> {
            map.next_value()
        }
        let mut metric = Metric::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "name" => metric.name = next(&mut map)?,
                "gauge" => metric.gauge = next(&mut map)?,
                "sum" => metric.sum = next(&mut map)?,
                "histogram" => metric.histogram = next(&mut map)?,
                "exponentialHistogram" => metric.exponential_histogram = next(&mut map)?,
                "summary" => metric.summary = next(&mut map)?,
                "description" | "unit" | "metadata" => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => metric.unknown_points += map.next_value::<UnknownKind>()?.0,
            }
        }
        Ok(metric)
    }
}
