//! What a person writes by hand, and what a slip of the hand is answered with.

use proptest::prelude::*;
use std::{collections::BTreeMap, io::Write as _};

use super::{check_type, decode};
use crate::{
    knowledge::observation::{AttributeValue, SeriesKey},
    monitor::{
        Amount, Batch, Kind, Measure, Reason, Sample, Temporality, UnixNanos,
        body::{DecodeError, MAX_DECOMPRESSED_BYTES},
    },
    types::{Quantity, SourceId},
};

fn read(text: &str) -> Result<Batch, DecodeError> {
    decode(text.as_bytes(), None, MAX_DECOMPRESSED_BYTES)
}

fn points(batch: &Batch) -> Vec<(SeriesKey, Sample)> {
    batch.points().map(|point| (point.series_key(), point.sample.clone())).collect()
}

fn key(name: &str, attributes: &[(&str, AttributeValue)]) -> SeriesKey {
    SeriesKey {
        source: SourceId::new("nightly-etl").expect("it is a valid name"),
        name: name.to_owned(),
        attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        resource: BTreeMap::new(),
    }
}

fn nanos(millis: u64) -> UnixNanos {
    UnixNanos::new(millis * 1_000_000)
}

fn growth(temporality: Temporality, value: Quantity) -> Measure {
    Measure::Growth(temporality, Amount::new(value, Quantity::ZERO))
}

#[test]
fn samples_of_each_kind_become_points() {
    let batch = read(
        r#"{"source": "nightly-etl", "samples": [
            {"name": "depth", "at_ms": 5, "value": 12.5, "kind": "gauge",
             "attributes": {"queue": "a", "eager": true, "shard": -3}},
            {"name": "runs", "at_ms": "7", "start_ms": 2, "value": "9007199254740993.000000001", "kind": "counter"},
            {"kind": "increase", "value": 18446744073709551615, "at_ms": 8, "name": "retries", "start_ms": null},
            {"kind": "gauge", "value": -4, "at_ms": 9, "name": "drift", "attributes": {}}
        ]}"#,
    )
    .expect("it is well-formed");
    let exact = Quantity::from_nanos(9_007_199_254_740_993_000_000_001);
    let attributes = [
        ("queue", AttributeValue::Text("a".to_owned())),
        ("eager", AttributeValue::Bool(true)),
        ("shard", AttributeValue::Integer(-3)),
    ];
    let sample =
        |kind, start, time, measure| Sample { kind, start: nanos(start), time: nanos(time), measure };
    let (whole, half) = (Quantity::from_i64, Quantity::from_nanos(12_500_000_000));
    let expected = [
        (key("depth", &attributes), sample(Kind::Gauge, 0, 5, Measure::Level(half))),
        (key("runs", &[]), sample(Kind::RisingSum, 2, 7, growth(Temporality::Cumulative, exact))),
        (
            key("retries", &[]),
            sample(Kind::RisingSum, 0, 8, growth(Temporality::Delta, Quantity::from_u64(u64::MAX))),
        ),
        (key("drift", &[]), sample(Kind::Gauge, 0, 9, Measure::Level(whole(-4)))),
    ];
    assert_eq!(points(&batch), expected);
    assert!(read(r#"{"source":"a","samples":[]}"#).expect("it is well-formed").is_empty());
}

#[test]
fn a_sample_that_cannot_be_counted_is_refused_alone_and_says_why() {
    let good = r#"{"name": "good", "at_ms": 1, "value": 1, "kind": "gauge"}"#;
    let long = "x".repeat(5_000);
    let table = [
        (r#"{"name": "m", "at_ms": 0, "value": 1, "kind": "gauge"}"#.to_owned(), Reason::NoTime),
        (r#"{"name": "m", "at_ms": 1, "value": 1e300, "kind": "gauge"}"#.to_owned(), Reason::OutOfRange),
        (r#"{"name": "m", "at_ms": 1, "value": -1, "kind": "counter"}"#.to_owned(), Reason::Negative),
        (
            r#"{"name": "m", "at_ms": 1, "start_ms": 2, "value": 1, "kind": "increase"}"#.to_owned(),
            Reason::StartAfterTime,
        ),
        (r#"{"name": "", "at_ms": 1, "value": 1, "kind": "gauge"}"#.to_owned(), Reason::BadName),
        (
            format!(
                r#"{{"name": "m", "at_ms": 1, "value": 1, "kind": "gauge", "attributes": {{"a": "{long}"}}}}"#
            ),
            Reason::IdentityTooLarge,
        ),
    ];
    for (wrong, reason) in table {
        let batch =
            read(&format!(r#"{{"source":"s","samples":[{wrong},{good}]}}"#)).expect("it is well-formed");
        assert_eq!(batch.refused(), &BTreeMap::from([(reason, 1)]), "{wrong}");
        assert_eq!(batch.len(), 1, "the good one counts");
    }
}

/// Reads what is wrong, and compares what is said of it.
fn assert_told(table: &[(String, &str)]) {
    let different: Vec<(String, &str)> = table
        .iter()
        .map(|(text, expected)| (read(text).expect_err(expected).to_string(), *expected))
        .filter(|(error, expected)| {
            !error.starts_with("the body is no list of samples in JSON: line ") || !error.contains(expected)
        })
        .collect();
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn a_slip_is_answered_with_its_line_and_column() {
    let text = str::to_owned;
    assert_told(&[
        (String::new(), "line 1, column 0: EOF while parsing a value"),
        (text("[]"), "line 1, column 0: invalid type: sequence, expected an object with source and samples"),
        (text("{}"), "line 1, column 2: missing field `source`"),
        (
            text(r#"{"source": "two words", "samples": []}"#),
            "line 1, column 22: source \"two words\" is not valid",
        ),
        (text(r#"{"source": "s", "samples": [], "more": 1}"#), "line 1, column 37: unknown field `more`"),
        (text(r#"{"source": "s", "samples": {}}"#), "expected a list of samples"),
        (text(r#"{"source": "s", "samples": []} {}"#), "line 1, column 32: trailing characters"),
        (
            text(r#"{"source": "s", "samples": [["m", 1, 1, "gauge"]]}"#),
            "expected a sample: an object with name",
        ),
    ]);
    let long = format!(r#"{{"{}": 1}}"#, "x".repeat(10_000));
    assert!(
        read(&long).expect_err("it is not known").to_string().len() < 400,
        "a client's text is told in part"
    );
}

#[test]
fn a_slip_in_a_sample_is_answered_with_its_line_and_column() {
    let sample = |fields: &str| format!("{{\"source\": \"s\",\n \"samples\": [\n  {{{fields}}}\n]}}");
    let full = r#""name": "m", "at_ms": 1, "value": 1, "kind": "gauge""#;
    let with = |part: &str, other: &str| sample(&full.replace(part, other));
    let and = |more: &str| sample(&format!("{full}, {more}"));
    let many: Vec<String> = (0..65).map(|n| format!("\"a{n}\": 1")).collect();
    assert_told(&[
        (with("at_ms", "at"), "line 3, column 20: unknown field `at`, expected one of `name`, `at_ms`"),
        (with(r#", "value": 1"#, ""), "missing field `value`"),
        (
            with("gauge", "level"),
            "line 3, column 55: unknown variant `level`, expected one of `gauge`, `counter`, `increase`",
        ),
        (
            with(r#""at_ms": 1"#, r#""at_ms": 1.5"#),
            "line 3, column 28: invalid type: floating point `1.5`, expected milliseconds since 1970",
        ),
        (
            with(r#""at_ms": 1"#, r#""at_ms": "+1""#),
            "invalid value: string \"+1\", expected milliseconds since 1970",
        ),
        (with(r#""value": 1"#, r#""value": "NaN""#), "line 3, column 42: \"NaN\" is not a decimal number"),
        (with(r#""value": 1"#, r#""value": null"#), "expected a number or the text of a decimal number"),
        (and(r#""kind": "gauge""#), "duplicate field `kind`"),
        (and(r#""start_ms": 1"#), "a gauge has no start_ms"),
        (and(r#""attributes": {"a": 1, "a": 2}"#), "attribute \"a\" stands twice"),
        (and(r#""attributes": {"a": 1.5}"#), "expected a text, a truth value or a whole number"),
        (and(&format!("\"attributes\": {{{}}}", many.join(","))), "a sample has at most 64 attributes"),
    ]);
}

#[test]
fn more_samples_or_members_than_a_request_may_have_are_refused() {
    let colons = ":".repeat(super::MAX_COLONS + 1);
    let error = read(&format!(r#"{{"source": "{colons}"}}"#)).expect_err("there are too many").to_string();
    assert!(error.ends_with("it has more than 1000000 members; send it in parts"), "{error}");
    let sample = r#"{"name":"m","at_ms":1,"value":1,"kind":"gauge"},"#;
    let mut samples = sample.repeat(super::MAX_POINTS + 1);
    samples.pop();
    let text = format!(r#"{{"source":"s","samples":[{samples}]}}"#);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("memory can be written");
    let body = gzip.finish().expect("memory can be written");
    let error = decode(&body, Some("gzip"), MAX_DECOMPRESSED_BYTES).expect_err("there are too many");
    assert!(error.to_string().contains("at most 100000 samples"), "{error}");
}

#[test]
fn only_json_is_taken() {
    assert_eq!(check_type(Some("application/json; charset=utf-8")), Ok(()));
    for refused in [None, Some("text/plain"), Some("application/x-protobuf")] {
        assert!(matches!(check_type(refused), Err(DecodeError::UnsupportedType { .. })), "{refused:?}");
    }
}

proptest! {
    #[test]
    fn a_number_and_its_text_count_alike(value in -1_000_000_000_i64..1_000_000_000, at in 1_u64..9_000_000_000_000) {
        let body = |at: &str, value: &str| {
            format!(r#"{{"source":"s","samples":[{{"name":"m","at_ms":{at},"value":{value},"kind":"gauge"}}]}}"#)
        };
        let plain = read(&body(&at.to_string(), &value.to_string())).expect("it is well-formed");
        let quoted = read(&body(&format!("\"{at}\""), &format!("\"{value}\""))).expect("it is well-formed");
        prop_assert_eq!(points(&plain), points(&quoted));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\\PC\\n]{0,200}", at in any::<prop::sample::Index>(), new in any::<u8>()) {
        let _ = read(&text);
        let good = br#"{"source":"s","samples":[{"name":"m","at_ms":1,"value":1,"kind":"gauge","attributes":{"a":"b"}}]}"#;
        let mut changed = good.to_vec();
        let at = at.index(changed.len());
        changed[at] = new;
        let _ = decode(&changed, None, MAX_DECOMPRESSED_BYTES);
    }
}
