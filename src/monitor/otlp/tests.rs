//! Both forms of a body count the same, and every point that cannot be counted says why.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use std::{collections::BTreeMap, io::Write};

use super::{Format, Rename, decode, rewrite};
use crate::{
    knowledge::observation::{AttributeValue, SeriesKey},
    monitor::{
        Amount, Batch, Kind, Measure, Reason, Sample, Temporality, UnixNanos,
        body::{DecodeError, MAX_DECOMPRESSED_BYTES},
        recording,
    },
    types::{Quantity, SourceId},
};

const PROTOBUF: Option<&str> = Some("application/x-protobuf");
const JSON: Option<&str> = Some("application/json");

fn metrics(metrics: &serde_json::Value) -> Vec<u8> {
    let service = serde_json::json!({"key": "service.name", "value": {"stringValue": "airflow"}});
    let instance = serde_json::json!({"key": "service.instance.id", "value": {"stringValue": "7f"}});
    let lab = serde_json::json!({"key": "deployment", "value": {"stringValue": "lab"}});
    let resource = serde_json::json!({"attributes": [service, instance, lab]});
    let groups = serde_json::json!([{"resource": resource, "scopeMetrics": [{"metrics": metrics}]}]);
    serde_json::json!({"resourceMetrics": groups}).to_string().into_bytes()
}

fn only_sum(point: &serde_json::Value) -> Vec<u8> {
    let sum = serde_json::json!({"dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": true});
    metrics(&serde_json::json!([{"name": "runs", "unit": "1", "sum": sum}]))
}

/// The same request in both forms; the protobuf one is made by the reference library.
fn in_both_forms(body: &[u8]) -> [Batch; 2] {
    let reference: ExportMetricsServiceRequest =
        serde_json::from_slice(body).expect("the reference reads it");
    let protobuf = decode(&reference.encode_to_vec(), PROTOBUF, None).expect("the body is well-formed");
    [decoded(body), protobuf]
}

fn decoded(body: &[u8]) -> Batch {
    decode(body, JSON, None).expect("the body is well-formed")
}

fn points(batch: &Batch) -> Vec<(SeriesKey, Sample)> {
    batch.points().map(|point| (point.series_key(), point.sample.clone())).collect()
}

#[test]
fn a_point_keeps_its_identity_without_what_names_its_process() {
    let attributes = serde_json::json!([
        {"key": "pool", "value": {"stringValue": "extract"}},
        {"key": "eager", "value": {"boolValue": false}},
        {"key": "cpu", "value": {"intValue": "1"}},
        {"key": "share", "value": {"doubleValue": 0.5}},
        {"key": "nodes", "value": {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "a\"b"}]}}},
    ]);
    let point = serde_json::json!({
        "attributes": attributes, "startTimeUnixNano": "5", "timeUnixNano": 9, "asInt": "12",
    });
    let batch = decoded(&only_sum(&point));
    let [pool, eager, cpu, share, nodes] = [
        ("pool", AttributeValue::Text("extract".to_owned())),
        ("eager", AttributeValue::Bool(false)),
        ("cpu", AttributeValue::Integer(1)),
        ("share", AttributeValue::Other("0.5".to_owned())),
        ("nodes", AttributeValue::Other(r#"[1,"a\"b"]"#.to_owned())),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let key = SeriesKey {
        source: SourceId::new("airflow").expect("it is a valid name"),
        name: "runs".to_owned(),
        attributes: BTreeMap::from([pool, eager, cpu, share, nodes]),
        resource: BTreeMap::from([("deployment".to_owned(), AttributeValue::Text("lab".to_owned()))]),
    };
    let amount = Amount::new(Quantity::from_i64(12), Quantity::ZERO);
    let sample = Sample {
        kind: Kind::RisingSum,
        start: UnixNanos::new(5),
        time: UnixNanos::new(9),
        measure: Measure::Growth(Temporality::Cumulative, amount),
    };
    assert_eq!(points(&batch), [(key.clone(), sample)]);
    let identity = batch.points().next().map(|point| point.identity.to_vec());
    assert_eq!(identity, Some(borsh::to_vec(&key).expect("memory can be written")));
}

#[test]
fn a_point_that_cannot_be_counted_says_why() {
    let good = serde_json::json!({"startTimeUnixNano": 5, "timeUnixNano": 9, "asInt": 12});
    let with = |field: &str, value: serde_json::Value| {
        let mut point = good.clone();
        point[field] = value;
        only_sum(&point)
    };
    let many: Vec<_> = (0..65).map(|n| serde_json::json!({"key": n.to_string()})).collect();
    let long = serde_json::json!([{"key": "k", "value": {"stringValue": "x".repeat(5_000)}}]);
    let gauge = |value: serde_json::Value| {
        let point = serde_json::json!({"timeUnixNano": 9, "asDouble": value});
        metrics(&serde_json::json!([{"name": "g", "gauge": {"dataPoints": [point]}}]))
    };
    let shaped =
        |kind: &str, data: serde_json::Value| metrics(&serde_json::json!([{"name": "h", kind: data}]));
    let histogram = |point: serde_json::Value| {
        shaped("histogram", serde_json::json!({"dataPoints": [point], "aggregationTemporality": 1}))
    };
    let table = [
        (with("timeUnixNano", 0.into()), Reason::NoTime),
        (with("timeUnixNano", serde_json::json!({})), Reason::NoTime),
        (with("startTimeUnixNano", 10.into()), Reason::StartAfterTime),
        (with("asInt", serde_json::Value::Null), Reason::NoValue),
        (with("asInt", serde_json::json!([1])), Reason::NoValue),
        (with("asInt", (-1).into()), Reason::Negative),
        (with("attributes", many.into()), Reason::TooManyAttributes),
        (with("attributes", long), Reason::IdentityTooLarge),
        (gauge("NaN".into()), Reason::NotFinite),
        (gauge("-Infinity".into()), Reason::NotFinite),
        (gauge(1e300.into()), Reason::OutOfRange),
        (
            shaped("sum", serde_json::json!({"dataPoints": [good], "aggregationTemporality": 0})),
            Reason::NoTemporality,
        ),
        (
            shaped("sum", serde_json::json!({"dataPoints": [good], "aggregationTemporality": 1})),
            Reason::ChangeOfLevel,
        ),
        (
            shaped(
                "summary",
                serde_json::json!({"dataPoints": [{"timeUnixNano": 9, "count": 1, "sum": "NaN"}]}),
            ),
            Reason::NotFinite,
        ),
        (shaped("sketch", serde_json::json!({"dataPoints": [good]})), Reason::UnknownKind),
        (histogram(serde_json::json!({"timeUnixNano": 9, "count": 2})), Reason::NoSum),
        (
            histogram(
                serde_json::json!({"timeUnixNano": 9, "count": 2, "sum": 3, "bucketCounts": [1, 1, 0], "explicitBounds": [5]}),
            ),
            Reason::BadBuckets,
        ),
        (
            metrics(
                &serde_json::json!([{"name": "", "gauge": {"dataPoints": [{"timeUnixNano": 9, "asInt": 1}]}}]),
            ),
            Reason::BadName,
        ),
    ];
    for (body, reason) in table {
        let batch = decoded(&body);
        let text = String::from_utf8_lossy(&body);
        assert_eq!(batch.refused(), &BTreeMap::from([(reason, 1)]), "{text}");
        assert!(batch.is_empty(), "{text}");
    }
}

#[test]
fn enumerations_by_name_and_numbers_of_any_form_count() {
    for temporality in ["2".into(), 2.into(), serde_json::json!("AGGREGATION_TEMPORALITY_CUMULATIVE")] {
        let point = serde_json::json!({"timeUnixNano": 9, "count": "2", "sum": 3, "min": null});
        let data = serde_json::json!({"dataPoints": [point], "aggregationTemporality": temporality});
        let body = metrics(&serde_json::json!([{"name": "h", "exponentialHistogram": data}]));
        let amount = Amount::new(Quantity::from_i64(2), Quantity::from_i64(3));
        let batch = decoded(&body);
        let measures: Vec<_> = batch.points().map(|point| point.sample.measure.clone()).collect();
        assert_eq!(measures, [Measure::Growth(Temporality::Cumulative, amount)]);
    }
}

/// Bodies of a real engine, decoded by the reference decoder, written as JSON and decoded again.
#[test]
fn a_body_counts_the_same_in_either_form() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/airflow-incident.otlp.gz");
    let requests = recording::read(&file).expect("the recording is there");
    for request in requests.iter().step_by(40) {
        let batch = decode(&request.body, PROTOBUF, None).expect("the engine's bodies are well-formed");
        let reference = ExportMetricsServiceRequest::decode(&*request.body).expect("the reference reads it");
        let json = serde_json::to_vec(&reference).expect("the reference writes it");
        assert_eq!(points(&batch), points(&decoded(&json)), "request {}", request.n);
        assert!(!batch.is_empty(), "request {}", request.n);
    }
}

#[test]
fn what_is_no_request_is_refused_whole() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory can be written");
        encoder.finish().expect("memory can be written")
    };
    let zlib = |bytes: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory can be written");
        encoder.finish().expect("memory can be written")
    };
    let body = only_sum(&serde_json::json!({"timeUnixNano": 9, "asInt": 1}));
    let two_members = [gzip(&body[..20]), gzip(&body[20..])].concat();
    for (encoding, bytes) in [
        (None, body.clone()),
        (Some("identity"), body.clone()),
        (Some("GZIP"), gzip(&body)),
        (Some("gzip"), two_members),
        (Some("deflate"), zlib(&body)),
    ] {
        assert_eq!(decode(&bytes, JSON, encoding).map(|batch| batch.len()), Ok(1), "{encoding:?}");
        let empty = decode(&[], JSON, encoding).map(|batch| batch.len());
        assert_eq!(empty, Ok(0), "{encoding:?}");
        if bytes != body {
            let cut = decode(&bytes[..bytes.len() - 9], JSON, encoding);
            assert!(matches!(cut, Err(DecodeError::Compression { .. })), "{encoding:?} {cut:?}");
        }
    }
    let bomb = vec![b' '; MAX_DECOMPRESSED_BYTES + 1];
    for (encoding, bytes) in [("gzip", gzip(&bomb)), ("deflate", zlib(&bomb))] {
        let refused = decode(&bytes, JSON, Some(encoding)).map(|batch| batch.len());
        let expected = DecodeError::TooLarge { most: MAX_DECOMPRESSED_BYTES, decompressed: true };
        assert_eq!(refused, Err(expected));
    }
    for (content_type, body) in
        [(PROTOBUF, &body[..]), (JSON, &b"[1]"[..]), (JSON, &b"{"[..]), (PROTOBUF, &[10, 5][..])]
    {
        let refused = decode(body, content_type, None);
        assert!(matches!(refused, Err(DecodeError::Malformed { .. })), "{content_type:?} {refused:?}");
    }
}

#[test]
fn content_types_are_told_apart() {
    let table = [
        ("application/x-protobuf", Some(Format::Protobuf)),
        ("Application/X-Protobuf", Some(Format::Protobuf)),
        ("application/json; charset=utf-8", Some(Format::Json)),
        ("application/protobuf", None),
        ("text/plain", None),
    ];
    for (content_type, format) in table {
        assert_eq!(Format::of_content_type(Some(content_type)).ok(), format, "{content_type}");
    }
    assert!(Format::of_content_type(None).is_err());
}

#[test]
fn a_body_written_anew_has_other_times_and_names_and_nothing_else_changed() {
    let pool = serde_json::json!({"key": "pool", "value": {"stringValue": "extract"}});
    let size = serde_json::json!({"key": "size", "value": {"intValue": "3"}});
    let point = |start: u64, time: serde_json::Value| serde_json::json!({"attributes": [pool, size], "startTimeUnixNano": start, "timeUnixNano": time, "asInt": 7});
    let body = metrics(&serde_json::json!([{"name": "open_slots", "unit": "1", "gauge": {
        "dataPoints": [point(0, 100.into()), point(90, "120".into())],
    }}]));
    let rename = Rename {
        metric: &|name| format!("new.{name}"),
        attribute: &|key, value| if key == "pool" { format!("new-{value}") } else { value.to_owned() },
    };
    let reference: ExportMetricsServiceRequest =
        serde_json::from_slice(&body).expect("the reference reads it");
    let bodies = [(JSON, body), (PROTOBUF, reference.encode_to_vec())];
    for (content_type, body) in bodies {
        let anew = rewrite(&body, content_type, None, &|time| time * 2, &rename).expect("it can be read");
        let [before, after] = [&body, &anew]
            .map(|body| points(&decode(body, content_type, None).expect("the body is well-formed")));
        let times: Vec<_> = after.iter().map(|(_, sample)| (sample.start, sample.time)).collect();
        let nanos = UnixNanos::new;
        assert_eq!(times, [(nanos(0), nanos(200)), (nanos(180), nanos(240))]);
        for ((key, sample), (new_key, new_sample)) in before.into_iter().zip(after) {
            let mut expected = SeriesKey { name: "new.open_slots".to_owned(), ..key };
            expected.attributes.insert("pool".to_owned(), AttributeValue::Text("new-extract".to_owned()));
            assert_eq!((new_key, new_sample.measure), (expected, sample.measure));
        }
    }
}

fn only(kind: &str, point: &serde_json::Value) -> Vec<u8> {
    let data = serde_json::json!({"dataPoints": [point], "aggregationTemporality": 2});
    metrics(&serde_json::json!([{"name": "m", kind: data}]))
}

#[test]
fn histograms_of_both_kinds_say_where_their_values_lie_in_either_form() {
    let exponential = serde_json::json!({
        "timeUnixNano": "9", "count": "6", "sum": 90.0, "scale": 0, "zeroCount": "1",
        "positive": {"offset": 2, "bucketCounts": ["1", "0", "2"]},
        "negative": {"offset": -1, "bucketCounts": ["2"]},
    });
    let finest = serde_json::json!({
        "timeUnixNano": "9", "count": "1", "sum": 42.0, "scale": 20,
        "positive": {"offset": 5_654_254, "bucketCounts": ["1"]},
    });
    let explicit = serde_json::json!({
        "timeUnixNano": "9", "count": "4", "sum": 90.0,
        "bucketCounts": ["1", "2", "0", "1"], "explicitBounds": [8.0, 16.0, 32.0],
    });
    let table = [
        ("exponentialHistogram", &exponential, [-0.5, 8.0, 32.0]),
        ("exponentialHistogram", &finest, [42.0, 42.0, 42.0]),
        ("histogram", &explicit, [8.0, 16.0, 32.0]),
    ];
    for (kind, point, expected) in table {
        for batch in in_both_forms(&only(kind, point)) {
            let points = points(&batch);
            let [(_, Sample { measure: Measure::Growth(_, amount), .. })] = &points[..] else {
                panic!("{kind} is {points:?}, {:?}", batch.refused());
            };
            let buckets = amount.buckets.as_ref().expect("it says where its values lie");
            for (thousandths, value) in [250, 660, 1_000].into_iter().zip(expected) {
                let found = buckets.quantile(thousandths).expect("there are values").to_f64();
                assert!((found - value).abs() < 1e-3, "{kind} {point} at {thousandths}: {found}");
            }
        }
    }
}

#[test]
fn a_summary_is_a_distribution_and_a_gauge_for_each_quantile() {
    let point = serde_json::json!({
        "timeUnixNano": "9", "startTimeUnixNano": "5", "count": "10", "sum": 55.0,
        "attributes": [{"key": "zone", "value": {"stringValue": "z"}}],
        "quantileValues": [{"quantile": 0.5, "value": 5.0}, {"quantile": 0.99, "value": 10.0}],
    });
    for batch in in_both_forms(&only("summary", &point)) {
        assert_eq!((batch.len(), batch.refused().len()), (1, 0), "it is one data point");
        let found: Vec<_> = points(&batch)
            .into_iter()
            .map(|(key, sample)| (key.attributes.get("quantile").cloned(), sample.kind, sample.measure))
            .collect();
        let amount = Amount::new(Quantity::from_i64(10), Quantity::from_i64(55));
        let level = |quantile: &str, value| {
            let quantile = Some(AttributeValue::Text(quantile.to_owned()));
            (quantile, Kind::Gauge, Measure::Level(Quantity::from_i64(value)))
        };
        let growth = (None, Kind::Summary, Measure::Growth(Temporality::Cumulative, amount));
        assert_eq!(found, [growth, level("0.5", 5), level("0.99", 10)]);
    }
    // Quantiles of no values are NaN; and a point counts whole or not at all.
    let mut unknown = point.clone();
    unknown["quantileValues"][0]["value"] = "NaN".into();
    assert_eq!(decoded(&only("summary", &unknown)).points().count(), 2);
    let mut infinite = point;
    infinite["quantileValues"][1]["value"] = "Infinity".into();
    let batch = decoded(&only("summary", &infinite));
    assert!(batch.is_empty());
    assert_eq!(batch.refused(), &BTreeMap::from([(Reason::NotFinite, 1)]));
}

#[test]
fn exemplars_change_nothing_whatever_they_say() {
    let exemplars = serde_json::json!([
        {"timeUnixNano": "18446744073709551615", "asDouble": 1e300, "traceId": "00", "spanId": "00"},
        {"timeUnixNano": 0, "asInt": "-5", "filteredAttributes": [{"key": "a", "value": {"stringValue": "x"}}]},
    ]);
    let number = serde_json::json!({"startTimeUnixNano": 5, "timeUnixNano": 9, "asInt": 12});
    let histogram = serde_json::json!({
        "startTimeUnixNano": 5, "timeUnixNano": 9, "count": 2, "sum": 3, "bucketCounts": [1, 1], "explicitBounds": [1],
    });
    let exponential = serde_json::json!({
        "startTimeUnixNano": 5, "timeUnixNano": 9, "count": 1, "sum": 3, "zeroCount": 1,
    });
    for (kind, point) in [("sum", number), ("histogram", histogram), ("exponentialHistogram", exponential)] {
        let of = |point: &serde_json::Value| {
            let data =
                serde_json::json!({"dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": true});
            in_both_forms(&metrics(&serde_json::json!([{"name": "m", kind: data}])))
                .map(|batch| points(&batch))
        };
        let mut with = point.clone();
        with["exemplars"] = exemplars.clone();
        assert_eq!(of(&with), of(&point), "{kind}");
        assert_eq!(of(&with)[0].len(), 1, "{kind}");
    }
}

#[test]
fn what_names_a_process_or_a_run_is_no_part_of_an_identity_and_the_order_of_attributes_neither() {
    let point = |pairs: &[(&str, &str)]| {
        let attribute =
            |(key, value): &(&str, &str)| serde_json::json!({"key": key, "value": {"stringValue": value}});
        pairs.iter().map(attribute).collect::<Vec<_>>()
    };
    let body = |resource: &[(&str, &str)], attributes: &[(&str, &str)]| {
        let gauge = serde_json::json!({"dataPoints": [{"timeUnixNano": 9, "asInt": 1, "attributes": point(attributes)}]});
        let scopes = serde_json::json!([{"metrics": [{"name": "m", "gauge": gauge}]}]);
        let group = serde_json::json!({"resource": {"attributes": point(resource)}, "scopeMetrics": scopes});
        serde_json::json!({"resourceMetrics": [group]}).to_string().into_bytes()
    };
    let bare = [("service.name", "unknown_service:python"), ("zone", "z")];
    let identity = |body: &[u8]| points(&decoded(body))[0].0.clone();
    let expected = identity(&body(&bare, &[("a", "1"), ("b", "2")]));
    for named in ["service.instance.id", "prefect.flow-run.id", "prefect.flow-run.name", "process.pid"] {
        let resource = [("zone", "z"), (named, "7f"), ("service.name", "unknown_service:python")];
        assert_eq!(identity(&body(&resource, &[("b", "2"), ("a", "1")])), expected, "{named}");
    }
    assert_ne!(identity(&body(&bare, &[("a", "2"), ("b", "2")])), expected);
}

#[test]
fn a_request_has_a_bounded_number_of_points_and_bytes_and_the_rest_is_refused_alone() {
    let table = [(super::super::MAX_POINTS + 7, 1), (20_000, 3_000)];
    for (all, attribute_bytes) in table {
        let value = "x".repeat(attribute_bytes);
        let resource = serde_json::json!({"attributes": [{"key": "k", "value": {"stringValue": value}}]});
        let points = vec![r#"{"timeUnixNano":9,"asInt":1}"#; all].join(",");
        let body = format!(
            r#"{{"resourceMetrics":[{{"resource":{resource},"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{points}]}}}}]}}]}}]}}"#
        );
        let batch = decoded(body.as_bytes());
        let refused = batch.refused().get(&Reason::TooManyPoints).copied().unwrap_or_default();
        assert_eq!(batch.len() as u64 + refused, all as u64);
        assert!(refused > 0 && batch.len() <= super::super::MAX_POINTS);
        assert!(batch.memory_bytes() <= 3 * super::super::MAX_BATCH_BYTES, "{}", batch.memory_bytes());
    }
    let objects = format!(r#"{{"resourceMetrics":[{}{{}}]}}"#, "{},".repeat(500_000));
    assert!(matches!(decode(objects.as_bytes(), JSON, None), Err(DecodeError::Malformed { .. })));
}
