//! The one reader of JSON that others wrote and signed: integers, strings, arrays and objects only.
//!
//! It is stricter than the derived readers, which take an array for a struct and ignore what a tagged enum
//! does not name. Whitespace and the order of fields are free, because signatures cover the bytes and not
//! the value. Invariant: what it returns writes back to the very value that was read, so nothing in the
//! bytes is left without a meaning.

use serde::{
    Deserialize, Serialize,
    de::{self, DeserializeOwned},
};
use serde_json::{Map, Value};
use std::fmt;

/// Why bytes are not the JSON of a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StrictJsonError(String);

/// Reads a value strictly.
///
/// # Errors
/// [`StrictJsonError`] for floats, booleans, nulls, repeated, unknown and missing fields, for an array in
/// the place of an object, and for anything after the value.
pub fn from_strict_json<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, StrictJsonError> {
    let refused = |error: serde_json::Error| StrictJsonError(error.to_string());
    let Plain(read) = serde_json::from_slice(bytes).map_err(refused)?;
    let value = T::deserialize(&read).map_err(refused)?;
    let understood = serde_json::to_value(&value).map_err(refused)?;
    if understood == read {
        Ok(value)
    } else {
        Err(StrictJsonError("it has fields or forms that the format does not know".to_owned()))
    }
}

/// A JSON value of integers, strings, arrays and objects without repeated names.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor).map(Self)
    }
}

struct PlainVisitor;

// A visitor refuses what it has no method for: booleans, floats and null.
impl<'de> de::Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer, a string, an array or an object")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Plain(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Plain(value))) = fields.next_entry::<String, Plain>()? {
            if object.contains_key(&name) {
                return Err(de::Error::custom(format_args!("field {name:?} stands twice")));
            }
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::from_strict_json;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        number: u64,
        state: State,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum State {
        Level { of: i32 },
        Off {},
    }

    #[test]
    fn order_and_space_are_free() {
        let read =
            from_strict_json(br#" {"state": {"of":-3, "kind":"level"}, "number": 18446744073709551615} "#);
        assert_eq!(read, Ok(Sample { number: u64::MAX, state: State::Level { of: -3 } }));
    }

    #[test]
    fn every_lax_form_is_refused() {
        let cases = [
            ("a float", r#"{"number":1.0,"state":{"kind":"off"}}"#),
            ("an exponent", r#"{"number":1e2,"state":{"kind":"off"}}"#),
            ("minus zero", r#"{"number":-0,"state":{"kind":"off"}}"#),
            ("more than 64 bits", r#"{"number":18446744073709551616,"state":{"kind":"off"}}"#),
            ("a leading zero", r#"{"number":01,"state":{"kind":"off"}}"#),
            ("a boolean", r#"{"number":true,"state":{"kind":"off"}}"#),
            ("null", r#"{"number":null,"state":{"kind":"off"}}"#),
            ("a number as a string", r#"{"number":"1","state":{"kind":"off"}}"#),
            ("an unknown field", r#"{"number":1,"state":{"kind":"off"},"more":1}"#),
            ("an unknown field inside", r#"{"number":1,"state":{"kind":"off","more":1}}"#),
            ("a repeated field", r#"{"number":1,"number":1,"state":{"kind":"off"}}"#),
            ("a repeated tag", r#"{"number":1,"state":{"kind":"off","kind":"off"}}"#),
            ("a repeated field inside", r#"{"number":1,"state":{"kind":"level","of":1,"of":1}}"#),
            ("a repeated name in another spelling", r#"{"number":1,"n\u0075mber":1,"state":{"kind":"off"}}"#),
            ("an array for an object", r#"[1,{"kind":"off"}]"#),
            ("an array for an enum", r#"{"number":1,"state":["level",3]}"#),
            ("a missing field", r#"{"number":1}"#),
            ("a second value", r#"{"number":1,"state":{"kind":"off"}} 1"#),
            ("nothing", ""),
            ("half", r#"{"number":1,"#),
            ("bytes that are no UTF-8", "{\"number\":1,\"state\":{\"kind\":\"\u{0}\"}}"),
        ];
        for (what, text) in cases {
            assert!(from_strict_json::<Sample>(text.as_bytes()).is_err(), "{what}: {text}");
        }
        assert!(from_strict_json::<Sample>(b"{\"number\":1,\"state\":{\"kind\":\"\xff\"}}").is_err());
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        assert!(from_strict_json::<Sample>("[".repeat(60_000).as_bytes()).is_err());
    }
}
