//! What Prometheus really sends, what a reference encoder makes, and every wrong body with its place and reason.

use proptest::prelude::*;
use prost::Message as _;
use std::collections::BTreeMap;

use super::{STALE, check_type, decode};
use crate::{
    knowledge::observation::{AttributeValue, SeriesKey, SeriesSummary},
    monitor::{
        Amount, Batch, Kind, Measure, Monitor, MonitorParameters, Reason, SAMPLES_PER_STREAM, Sample,
        Temporality, UnixNanos,
        body::{DecodeError, MAX_BODY_BYTES, MAX_DECOMPRESSED_BYTES},
        recording,
    },
    types::{Millis, Quantity, SourceId, UnixMillis, WindowIndex},
};

/// The messages as `prompb` defines them, encoded by another library.
mod reference {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub(super) metadata: Vec<Other>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(super) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) exemplars: Vec<Other>,
        #[prost(message, repeated, tag = "4")]
        pub(super) histograms: Vec<Other>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sample {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
        #[prost(int64, tag = "2")]
        pub(super) timestamp: i64,
    }

    /// A message that nobody here looks into.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Other {
        #[prost(string, tag = "2")]
        pub(super) text: String,
    }
}

fn snapped(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).expect("memory can be written")
}

fn series(labels: &[(&str, &str)], samples: &[(f64, i64)]) -> reference::TimeSeries {
    let label = |(name, value): &(&str, &str)| reference::Label {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    let sample = |(value, timestamp): &(f64, i64)| reference::Sample { value: *value, timestamp: *timestamp };
    reference::TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: samples.iter().map(sample).collect(),
        ..reference::TimeSeries::default()
    }
}

fn body(timeseries: Vec<reference::TimeSeries>) -> Vec<u8> {
    reference::WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec()
}

fn decoded(plain: &[u8]) -> Result<Batch, DecodeError> {
    decode(&snapped(plain), Some("snappy"), MAX_DECOMPRESSED_BYTES)
}

fn points(batch: &Batch) -> Vec<(SeriesKey, Sample)> {
    batch.points().map(|point| (point.series_key(), point.sample.clone())).collect()
}

fn key(source: &str, name: &str, attributes: &[(&str, &str)]) -> SeriesKey {
    let attribute =
        |(name, value): &(&str, &str)| ((*name).to_owned(), AttributeValue::Text((*value).to_owned()));
    SeriesKey {
        source: SourceId::new(source).expect("it is a valid name"),
        name: name.to_owned(),
        attributes: attributes.iter().map(attribute).collect(),
        resource: BTreeMap::new(),
    }
}

fn rising(value: Quantity) -> Measure {
    Measure::Growth(Temporality::Cumulative, Amount::new(value, Quantity::ZERO))
}

fn sample(kind: Kind, millis: u64, measure: Measure) -> Sample {
    Sample { kind, start: UnixNanos::ZERO, time: UnixNanos::new(millis * 1_000_000), measure }
}

#[test]
fn labels_and_names_become_source_attributes_and_kinds() {
    let runs = [("__name__", "runs_total"), ("dag", "load"), ("instance", "a:1"), ("job", "etl")];
    let plain = body(vec![
        series(&runs, &[(7.0, 5), (9.5, 6)]),
        series(&[("__name__", "depth"), ("job", "etl"), ("pool", "p")], &[(-2.5, 7)]),
        series(&[("__name__", "depth")], &[(f64::from_bits(STALE), 8)]),
        series(&[("__name__", "wait_bucket"), ("job", "etl"), ("le", "+Inf")], &[(3.0, 9)]),
    ]);
    let batch = decoded(&plain).expect("it is well-formed");
    let number = |tenths: i128| Quantity::from_nanos(tenths * 100_000_000);
    let runs = key("etl", "runs_total", &[("dag", "load"), ("instance", "a:1")]);
    let expected = [
        (runs.clone(), sample(Kind::RisingSum, 5, rising(number(70)))),
        (runs, sample(Kind::RisingSum, 6, rising(number(95)))),
        (key("etl", "depth", &[("pool", "p")]), sample(Kind::Gauge, 7, Measure::Level(number(-25)))),
        (key("unknown_service", "depth", &[]), sample(Kind::Gauge, 8, Measure::Ended)),
        (key("etl", "wait_bucket", &[("le", "+Inf")]), sample(Kind::RisingSum, 9, rising(number(30)))),
    ];
    assert_eq!(points(&batch), expected);
    assert!(batch.refused().is_empty());
    for point in batch.points() {
        assert_eq!(point.identity, borsh::to_vec(&point.series_key()).expect("memory can be written"));
    }
}

#[test]
fn a_point_that_cannot_be_counted_is_refused_alone_and_says_why() {
    let many: Vec<(String, String)> = (0..65).map(|n| (format!("l{n:02}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = std::iter::once(("__name__", "m"))
        .chain(many.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .collect();
    let one = |name, samples| series(&[("__name__", name)], samples);
    let native = reference::TimeSeries {
        histograms: vec![reference::Other::default(); 2],
        exemplars: vec![reference::Other { text: "not looked at".to_owned() }],
        ..one("h", &[])
    };
    let long = "x".repeat(5_000);
    let table = [
        (one("m", &[(f64::NAN, 1)]), Reason::NotFinite, 1),
        (one("m", &[(f64::INFINITY, 1), (f64::NEG_INFINITY, 2)]), Reason::NotFinite, 2),
        (one("m", &[(1e300, 1)]), Reason::OutOfRange, 1),
        (one("m_total", &[(-1.0, 1)]), Reason::Negative, 1),
        (one("m", &[(1.0, 0), (1.0, -5)]), Reason::NoTime, 2),
        (series(&[("job", "etl")], &[(1.0, 1)]), Reason::BadName, 1),
        (series(&[("__name__", "m"), ("job", "two words")], &[(1.0, 1)]), Reason::BadSource, 1),
        (series(&many, &[(1.0, 1)]), Reason::TooManyAttributes, 1),
        (series(&[("__name__", "m"), ("l", &long)], &[(1.0, 1)]), Reason::IdentityTooLarge, 1),
        (native, Reason::UnknownKind, 2),
    ];
    for (wrong, reason, refused) in table {
        let batch = decoded(&body(vec![wrong, one("good", &[(1.0, 1)])])).expect("it is well-formed");
        assert_eq!(batch.refused(), &BTreeMap::from([(reason, refused)]));
        assert_eq!(points(&batch).len(), 1, "{reason}: the good one counts");
    }
    let metadata = reference::WriteRequest {
        timeseries: Vec::new(),
        metadata: vec![reference::Other { text: "m".to_owned() }],
    };
    let batch = decoded(&metadata.encode_to_vec()).expect("metadata is skipped");
    assert!(batch.is_empty() && batch.refused().is_empty());
}

#[test]
fn a_wrong_body_is_refused_with_its_place_the_reason_and_what_is_allowed() {
    let good = series(&[("__name__", "m")], &[(1.0, 1)]);
    let with = |labels: &[(&str, &str)]| body(vec![good.clone(), series(labels, &[(1.0, 1)])]);
    let start = body(vec![good.clone()]).len();
    let cut = body(vec![good.clone()])[..start - 1].to_vec();
    let not_text = [b"\x0a\x09\x0a\x07\x0a\x02\xff\xfe\x12\x01v".as_slice()].concat();
    let inside = |bytes: usize| start + bytes;
    // A series begins with two bytes of tag and length, and so does a label.
    let second = inside(2 + 2 + "__name__".len() + 2 + "m".len() + 2);
    let table = [
        (
            with(&[("__name__", "m"), ("b", "1"), ("a", "1")]),
            format!(
                "series 2, byte {} after decompression: label \"a\" stands after \"b\"; labels must be sorted by name",
                second + 8
            ),
        ),
        (
            with(&[("__name__", "m"), ("a", "1"), ("a", "1")]),
            format!(
                "series 2, byte {} after decompression: label \"a\" stands twice; each name may stand once",
                second + 8
            ),
        ),
        (
            with(&[("__name__", "m"), ("a", "")]),
            format!(
                "series 2, byte {second} after decompression: label \"a\" has no value; a label without a value is left out"
            ),
        ),
        (
            with(&[("", "m")]),
            format!(
                "series 2, byte {} after decompression: a label has no name; names have at least one byte",
                inside(2)
            ),
        ),
        (
            cut,
            "byte 0 after decompression: it is cut short; an encoded protobuf message is expected".to_owned(),
        ),
        (
            not_text,
            "series 1, byte 2 after decompression: field 1 is not valid UTF-8; an encoded protobuf message is expected"
                .to_owned(),
        ),
        (
            b"\x10\x01\x0a\x02\x0a\x05".to_vec(),
            "series 1, byte 4 after decompression: it is cut short; an encoded protobuf message is expected"
                .to_owned(),
        ),
        (
            b"\x08".to_vec(),
            "byte 0 after decompression: it is cut short; an encoded protobuf message is expected".to_owned(),
        ),
    ];
    let told = |plain: &[u8]| decoded(plain).expect_err("it is wrong").to_string();
    let (got, expected): (Vec<String>, Vec<String>) = table
        .into_iter()
        .map(|(plain, expected)| {
            (told(&plain), format!("the body is no prometheus.WriteRequest of remote write 1.0: {expected}"))
        })
        .unzip();
    assert_eq!(got, expected);
}

#[test]
fn what_is_no_snappy_or_claims_too_much_is_refused_before_it_is_decompressed() {
    let snappy = Some("snappy");
    let refused = |body: &[u8], most| decode(body, snappy, most).expect_err("it is refused");
    // A header that claims 2^32 - 1 bytes, one of a length that its bytes could hold, and one with a byte too few.
    let claims = [&[0xff, 0xff, 0xff, 0xff, 0x0f], [0; 100].as_slice()].concat();
    let error = refused(&claims, MAX_DECOMPRESSED_BYTES).to_string();
    assert_eq!(
        error,
        "the body is not valid snappy: it claims 4294967295 bytes, more than 105 bytes of it can hold"
    );
    let large = snapped(&vec![b' '; 300_000]);
    let expected = DecodeError::TooLarge { most: 299_999, decompressed: true };
    assert_eq!(refused(&large, 299_999), expected);
    let expected = DecodeError::TooLarge { most: MAX_BODY_BYTES, decompressed: false };
    assert_eq!(refused(&vec![0; MAX_BODY_BYTES + 1], MAX_DECOMPRESSED_BYTES), expected);
    let good = snapped(&body(vec![series(&[("__name__", "m")], &[(1.0, 1)])]));
    for wrong in [&[][..], &[0xff; 6], &good[..good.len() - 1], b"plain text"] {
        let error = refused(wrong, MAX_DECOMPRESSED_BYTES);
        assert!(matches!(error, DecodeError::Compression { encoding: "snappy", .. }), "{error}");
    }
    for encoding in [None, Some("gzip"), Some("snappy, gzip")] {
        let error = decode(&good, encoding, MAX_DECOMPRESSED_BYTES).expect_err("it is refused").to_string();
        assert!(error.ends_with("is not supported; send snappy, the block format"), "{error}");
    }
    assert!(decode(&good, Some("Snappy"), MAX_DECOMPRESSED_BYTES).is_ok());
}

#[test]
fn only_the_message_of_version_one_is_taken() {
    for taken in [
        "application/x-protobuf",
        "Application/X-Protobuf",
        "application/x-protobuf;proto=prometheus.WriteRequest",
        "application/x-protobuf; charset=x; proto=\"prometheus.WriteRequest\"",
    ] {
        assert_eq!(check_type(Some(taken)), Ok(()), "{taken}");
    }
    for refused in
        [None, Some("application/json"), Some("application/x-protobuf;proto=io.prometheus.write.v2.Request")]
    {
        let error = check_type(refused).expect_err("it is refused").to_string();
        assert!(error.ends_with("send application/x-protobuf, remote write 1.0"), "{error}");
    }
}

/// Prometheus 2.42 scraped a target every five seconds from 1796130663398 on, six times, the last time in vain: the
/// target had gone. What the target said of itself at `k` seconds is in the table.
#[test]
fn what_prometheus_sends_adds_up_to_what_its_target_said() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prometheus-remote-write.gz");
    let requests = recording::read(&file).expect("the recording is there");
    assert_eq!(requests.len(), 8);
    let first = UnixMillis::new(1_796_130_663_097);
    let parameters = MonitorParameters {
        window: Millis::new(u64::MAX),
        ahead: Millis::from_secs(60),
        series_limit: 1_000,
        samples_per_stream: SAMPLES_PER_STREAM,
    };
    let mut monitor = Monitor::new(parameters, first);
    let mut refused = BTreeMap::new();
    for request in &requests {
        assert_eq!(
            (request.path.as_str(), request.notes["version"].as_str()),
            ("/api/v1/write", Some("0.1.0"))
        );
        check_type(request.content_type.as_deref()).expect("it is of version 1");
        let batch = decode(&request.body, request.content_encoding.as_deref(), MAX_DECOMPRESSED_BYTES);
        for (reason, points) in
            monitor.ingest(&batch.expect("Prometheus sends what it should"), first).rejected
        {
            *refused.entry(reason).or_insert(0) += points;
        }
    }
    // The target's NaN and its infinity, five times each.
    assert_eq!(refused, BTreeMap::from([(Reason::NotFinite, 10)]));
    let closed = monitor.close(WindowIndex::new(0)).expect("it is open").summary.series;
    let of = |name: &str, attributes: &[(&str, &str)]| {
        let instance = ("instance", "127.0.0.1:19901");
        let attributes: Vec<(&str, &str)> = attributes.iter().copied().chain([instance]).collect();
        closed.get(&key("nightly-etl", name, &attributes)).cloned()
    };
    let rose =
        |increase: i64| Some(SeriesSummary::Increase { increase: Quantity::from_i64(increase), samples: 5 });
    // The target counts from k = 8 to k = 28.
    let success = [("dag", "load"), ("state", "success")];
    assert_eq!(of("etl_runs_total", &success), rose(20), "7 + k");
    assert_eq!(of("etl_runs_total", &[("dag", "load"), ("state", "failed")]), rose(2), "k / 10");
    assert_eq!(of("etl_task_seconds_bucket", &[("le", "0.5")]), rose(20), "k");
    assert_eq!(of("etl_task_seconds_bucket", &[("le", "5")]), rose(40), "2 k");
    assert_eq!(of("etl_task_seconds_bucket", &[("le", "+Inf")]), rose(40), "2 k + 1");
    assert_eq!(of("etl_task_seconds_sum", &[]), rose(30), "1.5 k");
    assert_eq!(of("etl_task_seconds_count", &[]), rose(40), "2 k + 1");
    assert_eq!(of("etl_queue_depth", &[("pool", "extract_pool")]), None, "the level ended with its target");
    let Some(SeriesSummary::Level { last, min, max, samples, .. }) = of("up", &[]) else {
        panic!("Prometheus says whether its target is up");
    };
    assert_eq!((last, min, max, samples), (Quantity::ZERO, Quantity::ZERO, Quantity::ONE, 8));
    let sources: std::collections::BTreeSet<&str> = closed.keys().map(|key| key.source.as_str()).collect();
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), ["nightly-etl", "prometheus"]);
}

/// Series with sorted labels, and samples of any kind.
fn any_series() -> impl Strategy<Value = (BTreeMap<String, String>, Vec<(f64, i64)>)> {
    let name = "[a-z]{1,6}(_total|_count|_sum|_bucket)?";
    let labels = proptest::collection::btree_map("[a-z]{1,4}", "[a-zA-Z0-9 é]{1,6}", 0..6);
    let value = prop_oneof![
        4 => -1e6_f64..1e6,
        1 => Just(f64::from_bits(STALE)),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => any::<f64>(),
    ];
    let time = prop_oneof![9 => 1_i64..4_000_000_000_000, 1 => any::<i64>()];
    (proptest::option::weighted(0.9, name), labels, proptest::collection::vec((value, time), 0..5)).prop_map(
        |(name, mut labels, samples)| {
            if let Some(name) = name {
                labels.insert("__name__".to_owned(), name);
            }
            (labels, samples)
        },
    )
}

proptest! {
    /// The rules said again over the reference's structures: each sample is one point or one refusal, in order.
    #[test]
    fn whatever_a_reference_encoder_writes_counts_as_the_rules_say(
        all in proptest::collection::vec(any_series(), 0..5),
        samples_first in any::<bool>(),
    ) {
        let mut plain = Vec::new();
        let mut expected = Vec::new();
        let mut refused = 0;
        for (labels, samples) in &all {
            let pairs: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let whole = series(&pairs, samples);
            let (labels_only, samples_only) = (series(&pairs, &[]).encode_to_vec(), series(&[], samples).encode_to_vec());
            let bytes = if samples_first { [samples_only, labels_only].concat() } else { whole.encode_to_vec() };
            plain.push(0x0a);
            prost::encoding::encode_varint(bytes.len() as u64, &mut plain);
            plain.extend(bytes);
            let name = labels.get("__name__").map_or("", String::as_str);
            let source = labels.get("job").map_or("unknown_service", String::as_str);
            let only_rises = ["_total", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end));
            for (value, time) in samples {
                let ended = value.to_bits() == 0x7ff0_0000_0000_0002;
                let counts = !name.is_empty()
                    && SourceId::new(source).is_ok()
                    && *time > 0
                    && (ended || (value.abs() <= 1e29 && !(only_rises && Quantity::from_f64(*value).is_ok_and(|v| v < Quantity::ZERO))));
                if !counts {
                    refused += 1;
                    continue;
                }
                let attributes: Vec<(&str, &str)> =
                    pairs.iter().copied().filter(|(name, _)| !["__name__", "job"].contains(name)).collect();
                let kind = if only_rises { Kind::RisingSum } else { Kind::Gauge };
                let measure = if ended {
                    Measure::Ended
                } else {
                    let value = Quantity::from_f64(*value).expect("it is in range");
                    if only_rises { rising(value) } else { Measure::Level(value) }
                };
                let time = u64::try_from(*time).expect("it is positive").saturating_mul(1_000_000);
                let sample = Sample { kind, start: UnixNanos::ZERO, time: UnixNanos::new(time), measure };
                expected.push((key(source, name, &attributes), sample));
            }
        }
        let batch = decoded(&plain).expect("the reference writes what is well-formed");
        prop_assert_eq!(points(&batch), expected);
        prop_assert_eq!(batch.refused().values().sum::<u64>(), refused);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        new in any::<u8>(),
    ) {
        let _ = decode(&bytes, Some("snappy"), MAX_DECOMPRESSED_BYTES);
        let _ = decoded(&bytes);
        let labels = [("__name__", "m_total"), ("dag", "load"), ("job", "etl")];
        let mut plain = body(vec![series(&labels, &[(1.0, 5)]); 2]);
        let at = at.index(plain.len());
        plain[at] = new;
        let _ = decoded(&plain);
    }
}
