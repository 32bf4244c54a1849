//! Attribute values that are no string, truth value or integer, as canonical compact JSON: keys sorted,
//! no spaces, bytes in base64. Both forms of OTLP write the same text for the same value.

use base64::Engine as _;
use std::collections::BTreeMap;

/// How deeply lists and maps may be nested in an attribute.
pub(in crate::monitor) const MAX_DEPTH: usize = 16;

pub(in crate::monitor) const NOTHING: &str = "null";

pub(in crate::monitor) fn text(text: &str) -> String {
    serde_json::to_string(text).expect("a string is valid JSON")
}

pub(in crate::monitor) fn double(number: f64) -> String {
    if number.is_finite() {
        serde_json::to_string(&number).expect("a finite number is valid JSON")
    } else if number.is_nan() {
        text("NaN")
    } else if number > 0.0 {
        text("Infinity")
    } else {
        text("-Infinity")
    }
}

pub(in crate::monitor) fn bytes(bytes: &[u8]) -> String {
    text(&base64::engine::general_purpose::STANDARD.encode(bytes))
}

pub(in crate::monitor) fn list(values: &[String]) -> String {
    format!("[{}]", values.join(","))
}

pub(in crate::monitor) fn map(entries: &BTreeMap<&str, String>) -> String {
    let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{}:{value}", text(key))).collect();
    format!("{{{}}}", entries.join(","))
}
