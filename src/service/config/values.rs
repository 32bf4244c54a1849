//! Values as people write them: spans of time with units, decimals, attributes. Invariant: what has
//! a unit is never written without one.

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use std::fmt;

use crate::knowledge::observation::AttributeValue;
use crate::types::{Millis, Quantity};

/// A span of time, such as `"500ms"`, `"10s"`, `"15m"` or `"1h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service) struct SpanText(pub(in crate::service) Millis);

/// A decimal number, as a TOML number or, where every digit counts, as a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal(pub(super) Quantity);

/// An attribute's value to compare with: a string, an integer or a truth value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute(pub(super) AttributeValue);

/// A span of time in the largest unit that writes it as a whole number.
pub(super) fn span_text(span: Millis) -> String {
    let millis = span.as_millis();
    let unit = [("h", 3_600_000), ("m", 60_000), ("s", 1000)]
        .into_iter()
        .find(|(_, size)| millis != 0 && millis.is_multiple_of(*size));
    match unit {
        Some((unit, size)) => format!("{}{unit}", millis / size),
        None => format!("{millis}ms"),
    }
}

/// The span that a text says, such as `10s`.
#[must_use]
pub fn parse_span(text: &str) -> Option<Millis> {
    let (number, unit) = number_and_unit(text)?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    millis.map(Millis::new)
}

/// The number in front of a unit, and the unit.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    number.parse().ok().map(|number| (number, unit))
}

impl<'de> Deserialize<'de> for SpanText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const FORM: &str = "a span of time with its unit, such as \"500ms\", \"10s\", \"15m\" or \"1h\"";
        struct Text;
        impl Visitor<'_> for Text {
            type Value = SpanText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(FORM)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<SpanText, E> {
                parse_span(text).map(SpanText).ok_or_else(|| E::custom(format!("{text:?} is not {FORM}")))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Decimal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, such as 20, 1.5 or \"0.000000001\"")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Decimal, E> {
                Ok(Decimal(Quantity::from_i64(number)))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Decimal, E> {
                Ok(Decimal(Quantity::from_u64(number)))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Decimal, E> {
                Quantity::from_f64(number).map(Decimal).map_err(E::custom)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
                text.parse().map(Decimal).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Attribute;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an integer, true or false")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Attribute, E> {
                Ok(Attribute(AttributeValue::Text(text.to_owned())))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Attribute, E> {
                Ok(Attribute(AttributeValue::Integer(number)))
            }
            fn visit_bool<E: Error>(self, truth: bool) -> Result<Attribute, E> {
                Ok(Attribute(AttributeValue::Bool(truth)))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

#[cfg(test)]
mod tests {
    use super::{Attribute, Decimal, SpanText, span_text};
    use crate::knowledge::observation::AttributeValue;
    use crate::types::{Millis, Quantity};

    fn read<T: serde::de::DeserializeOwned>(value: &str) -> Option<T> {
        #[derive(serde::Deserialize)]
        struct Line<T> {
            value: T,
        }
        toml::from_str(&format!("value = {value}")).ok().map(|line: Line<T>| line.value)
    }

    #[test]
    fn spans_have_units() {
        let rows = [
            ("\"500ms\"", Some(500)),
            ("\"10s\"", Some(10_000)),
            ("\"15m\"", Some(900_000)),
            ("\"2h\"", Some(7_200_000)),
            ("\"0s\"", Some(0)),
            ("\"10\"", None),
            ("10", None),
            ("\"1.5s\"", None),
            ("\"-1s\"", None),
            ("\"10 s\"", None),
            ("\"s\"", None),
            ("\"\"", None),
            ("\"18446744073709551615h\"", None),
        ];
        for (text, millis) in rows {
            assert_eq!(read(text), millis.map(|millis| SpanText(Millis::new(millis))), "{text}");
        }
    }

    #[test]
    fn spans_are_written_as_they_are_read() {
        for (millis, text) in [(0, "0ms"), (1, "1ms"), (1500, "1500ms"), (90_000, "90s"), (7_200_000, "2h")] {
            assert_eq!(span_text(Millis::new(millis)), text);
            assert_eq!(read(&format!("{text:?}")), Some(SpanText(Millis::new(millis))));
        }
    }

    #[test]
    fn decimals_are_exact() {
        let rows =
            [("20", 20_000_000_000), ("1.5", 1_500_000_000), ("0.1", 100_000_000), ("\"-0.000000001\"", -1)];
        for (text, nanos) in rows {
            assert_eq!(read(text), Some(Decimal(Quantity::from_nanos(nanos))), "{text}");
        }
        for text in ["nan", "inf", "\"1e3\"", "true"] {
            assert_eq!(read::<Decimal>(text), None, "{text}");
        }
    }

    #[test]
    fn attributes_are_strings_integers_and_truths() {
        assert_eq!(read("\"1\""), Some(Attribute(AttributeValue::Text("1".to_owned()))));
        assert_eq!(read("1"), Some(Attribute(AttributeValue::Integer(1))));
        assert_eq!(read("true"), Some(Attribute(AttributeValue::Bool(true))));
        assert_eq!(read::<Attribute>("1.5"), None);
        assert_eq!(read::<Attribute>("[1]"), None);
    }
}
