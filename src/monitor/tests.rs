//! The monitor as a whole: the recorded incident's totals, and the laws that hold for any samples.

use proptest::prelude::*;
use std::{collections::BTreeMap, io::Read, path::Path, sync::Arc};

use super::{
    Amount, Batch, Closed, Kind, Measure, Monitor, MonitorParameters, Reason, SAMPLES_PER_STREAM, Sample,
    Temporality, UnixNanos, recording, totals,
};
use crate::{
    knowledge::{
        buckets::Buckets,
        observation::{AttributeValue, SeriesKey, SeriesSummary},
    },
    types::{Millis, Quantity, SourceId, UnixMillis, WindowIndex},
};

const WINDOW: Millis = Millis::from_secs(10);
const STARTED_AT: UnixMillis = UnixMillis::new(1_000_000_000);

fn project_file(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn parameters() -> MonitorParameters {
    MonitorParameters {
        window: WINDOW,
        ahead: WINDOW.times(2),
        series_limit: 10_000,
        samples_per_stream: SAMPLES_PER_STREAM,
    }
}

fn series(name: &str) -> SeriesKey {
    SeriesKey {
        source: SourceId::new("airflow").expect("it is a valid name"),
        name: name.to_owned(),
        attributes: BTreeMap::new(),
        resource: BTreeMap::new(),
    }
}

fn at(millis: u64) -> UnixNanos {
    UnixNanos::from_millis(STARTED_AT.plus(Millis::new(millis)))
}

fn amount(value: i64) -> Amount {
    Amount::new(Quantity::from_i64(value), Quantity::ZERO)
}

fn cumulative(start: UnixNanos, time_ms: u64, value: i64) -> Sample {
    let measure = Measure::Growth(Temporality::Cumulative, amount(value));
    Sample { kind: Kind::RisingSum, start, time: at(time_ms), measure }
}

fn level(time_ms: u64, value: i64) -> Sample {
    let measure = Measure::Level(Quantity::from_i64(value));
    Sample { kind: Kind::Gauge, start: UnixNanos::ZERO, time: at(time_ms), measure }
}

fn batch(samples: &[(&str, Sample)]) -> Batch {
    let mut batch = Batch::default();
    samples.iter().for_each(|(name, sample)| batch.push(&series(name), sample.clone()));
    batch
}

fn window(offset: u64) -> WindowIndex {
    WindowIndex::containing(STARTED_AT.plus(WINDOW.times(offset)), WINDOW)
}

/// Ingests everything at a time at which nothing is too far ahead, and closes so many windows.
fn closed(samples: &[(&str, Sample)], windows: u64) -> Vec<Closed> {
    let mut monitor = Monitor::new(parameters(), STARTED_AT);
    monitor.ingest(&batch(samples), STARTED_AT.plus(WINDOW.times(8)));
    (0..windows).map(|offset| monitor.close(window(offset)).expect("windows close in order")).collect()
}

fn increases(samples: &[(&str, Sample)], windows: u64) -> Vec<Option<i64>> {
    let increase = |closed: &Closed| match closed.summary.series.get(&series("m")) {
        Some(SeriesSummary::Increase { increase, .. }) => increase.to_i64(),
        Some(SeriesSummary::Level { .. } | SeriesSummary::Distribution { .. }) | None => None,
    };
    closed(samples, windows).iter().map(increase).collect()
}

#[test]
fn a_stream_that_began_with_the_monitor_counts_from_its_first_value() {
    let samples = [("m", cumulative(at(0), 5_000, 3)), ("m", cumulative(at(0), 15_000, 7))];
    assert_eq!(increases(&samples, 3), [Some(3), Some(4), None]);
}

#[test]
fn a_stream_that_is_older_than_the_monitor_counts_from_its_second_value() {
    let before = UnixNanos::from_millis(STARTED_AT.minus(Millis::new(1)));
    for start in [before, UnixNanos::ZERO] {
        let samples = [("m", cumulative(start, 5_000, 300)), ("m", cumulative(start, 15_000, 304))];
        assert_eq!(increases(&samples, 2), [Some(0), Some(4)]);
    }
}

#[test]
fn streams_of_one_series_that_started_apart_add_up() {
    let samples = [
        ("m", cumulative(at(1_000), 2_000, 1)),
        ("m", cumulative(at(3_000), 4_000, 1)),
        ("m", cumulative(at(5_000), 6_000, 1)),
    ];
    assert_eq!(increases(&samples, 1), [Some(3)]);
}

#[test]
fn a_value_that_falls_counts_from_where_it_fell_to() {
    let samples = [
        ("m", cumulative(at(0), 1_000, 10)),
        ("m", cumulative(at(0), 2_000, 2)),
        ("m", cumulative(at(0), 3_000, 5)),
        ("m", cumulative(at(0), 13_000, 6)),
    ];
    assert_eq!(increases(&samples, 2), [Some(13), Some(1)]);
}

#[test]
fn resends_count_once() {
    let delta = |start, time_ms, value| Sample {
        measure: Measure::Growth(Temporality::Delta, amount(value)),
        ..cumulative(start, time_ms, value)
    };
    let deltas = [("m", delta(at(0), 1_000, 4)), ("m", delta(at(1_000), 2_000, 5))];
    assert_eq!(increases(&[deltas.clone(), deltas].concat(), 1), [Some(9)]);

    let levels = [("m", level(1_000, 4)), ("m", level(2_000, 2)), ("m", level(1_000, 4))];
    let summary = &closed(&levels, 1)[0].summary;
    let [last, min, sum, max] = [2, 2, 6, 4].map(Quantity::from_i64);
    let expected = SeriesSummary::Level { last, min, max, sum, samples: 2 };
    assert_eq!(summary.series.get(&series("m")), Some(&expected));
}

#[test]
fn late_and_future_samples_are_refused_and_counted() {
    let mut monitor = Monitor::new(parameters(), STARTED_AT);
    let now = STARTED_AT.plus(Millis::from_secs(11));
    monitor.close(window(0)).expect("it is open");
    let table = [(9_999, Some(Reason::Late)), (10_000, None), (31_000, None), (31_001, Some(Reason::Future))];
    for (time_ms, reason) in table {
        let ingested = monitor.ingest(&batch(&[("m", level(time_ms, 1))]), now);
        assert_eq!(ingested.rejected.keys().next().copied(), reason, "{time_ms}");
        assert_eq!(ingested.accepted, u64::from(reason.is_none()), "{time_ms}");
    }
    assert!(monitor.close(window(0)).is_err(), "a window closes once");
}

#[test]
fn a_window_is_partial_when_the_monitor_began_inside_it_or_missed_something() {
    let mut monitor = Monitor::new(parameters(), STARTED_AT.plus(Millis::new(1)));
    let second = STARTED_AT.plus(Millis::from_secs(25));
    monitor.note_gap(second, second);
    let partial = (0..4).map(|offset| monitor.close(window(offset)).map(|closed| closed.partial));
    assert_eq!(partial.collect::<Result<Vec<_>, _>>(), Ok(vec![true, false, true, false]));
}

#[test]
fn one_series_too_many_is_refused_and_the_others_go_on() {
    let mut monitor = Monitor::new(parameters(), STARTED_AT);
    let mut many = Batch::default();
    for n in 0..=super::MAX_SERIES_PER_SOURCE {
        many.push(&series(&format!("m{n}")), level(1_000, 1));
    }
    let ingested = monitor.ingest(&many, STARTED_AT);
    assert_eq!(ingested.rejected, BTreeMap::from([(Reason::TooManySeries, 1)]));
    assert_eq!(monitor.ingest(&batch(&[("m1", level(2_000, 2))]), STARTED_AT).accepted, 1);
}

#[test]
fn a_series_without_samples_for_an_hour_makes_room_and_does_not_count_twice() {
    let mut monitor = Monitor::new(parameters(), STARTED_AT);
    monitor.ingest(&batch(&[("m", cumulative(at(1), 1_000, 5))]), STARTED_AT);
    monitor.close(window(0)).expect("it is open");
    assert_eq!((monitor.series_count(), monitor.stream_count()), (1, 1));
    monitor.close(window(361)).expect("it is open");
    assert_eq!((monitor.series_count(), monitor.stream_count()), (0, 0));
}

#[test]
fn streams_of_tasks_that_ended_leave_after_an_hour_though_their_series_goes_on_and_are_not_counted_again() {
    let mut monitor = Monitor::new(parameters(), STARTED_AT);
    let hour = 360;
    let mut close = |offset: u64, samples: &[(&str, Sample)]| {
        monitor.ingest(&batch(samples), STARTED_AT.plus(WINDOW.times(offset)));
        let closed = monitor.close(window(offset)).expect("windows close in order");
        let rise = match closed.summary.series.get(&series("m")) {
            Some(SeriesSummary::Increase { increase, .. }) => increase.to_i64(),
            Some(SeriesSummary::Level { .. } | SeriesSummary::Distribution { .. }) | None => None,
        };
        (rise, monitor.stream_count())
    };
    let task = |offset: u64| ("m", cumulative(at(offset * 10_000), offset * 10_000 + 1_000, 1));
    for offset in 0..2 * hour {
        let (rise, streams) = close(offset, &[task(offset)]);
        assert_eq!(rise, Some(1), "each task counts once");
        assert!(streams as u64 <= hour + 1, "{streams} streams in window {offset}");
    }
    let again = ("m", cumulative(at(0), 2 * hour * 10_000 + 1_000, 1));
    assert_eq!(close(2 * hour, &[again]).0, Some(0), "a stream that was forgotten is not counted from zero");
}

#[test]
fn of_two_kinds_under_one_name_one_is_reported_and_one_is_counted_as_left_out() {
    let samples = [("m", cumulative(at(0), 1_000, 3)), ("m", level(2_000, 8))];
    for order in [[0, 1], [1, 0]] {
        let closed = &closed(&order.map(|place: usize| samples[place].clone()), 1)[0];
        assert_eq!(closed.left_out, 1);
        assert!(matches!(closed.summary.series.get(&series("m")), Some(SeriesSummary::Level { .. })));
    }
}

fn ended(time_ms: u64) -> Sample {
    Sample { measure: Measure::Ended, ..level(time_ms, 0) }
}

#[test]
fn a_level_that_ended_has_no_value_and_leaves_its_place_unless_it_comes_back() {
    let table: [(&[Sample], bool); 5] = [
        (&[level(1_000, 4)], true),
        (&[level(1_000, 4), ended(2_000)], false),
        (&[ended(2_000), level(1_000, 4)], false),
        (&[level(1_000, 4), ended(2_000), level(3_000, 5)], true),
        (&[ended(2_000)], false),
    ];
    for (samples, lives) in table {
        let mut monitor = Monitor::new(parameters(), STARTED_AT);
        let samples: Vec<_> = samples.iter().map(|sample| ("m", sample.clone())).collect();
        let ingested = monitor.ingest(&batch(&samples), STARTED_AT);
        assert_eq!((ingested.accepted, ingested.rejected.len()), (samples.len() as u64, 0));
        let closed = monitor.close(window(0)).expect("it is open");
        assert_eq!(closed.summary.series.len(), usize::from(lives), "{samples:?}");
        assert_eq!(monitor.series_count(), usize::from(lives), "{samples:?}");
    }
    // One that comes back in the next window keeps its place.
    let mut monitor = Monitor::new(parameters(), STARTED_AT);
    monitor.ingest(&batch(&[("m", ended(2_000)), ("m", level(12_000, 5))]), STARTED_AT);
    assert_eq!(monitor.close(window(0)).expect("it is open").summary.series.len(), 0);
    assert_eq!(monitor.close(window(1)).expect("it is open").summary.series.len(), 1);
}

fn histogram(time_ms: u64, scale: i64, offset: i64, counts: &[u64]) -> Sample {
    let buckets = Buckets::of_counts(scale, 0, (0, &[]), (offset, counts)).expect("they are buckets");
    let amount = amount(counts.iter().sum::<u64>().try_into().expect("a small number"));
    let amount = Amount { buckets: Some(Arc::new(buckets)), ..amount };
    Sample { kind: Kind::ExponentialHistogram, ..cumulative(at(0), time_ms, 0) }.with(amount)
}

impl Sample {
    fn with(self, amount: Amount) -> Self {
        Self { measure: Measure::Growth(Temporality::Cumulative, amount), ..self }
    }
}

/// SDKs halve the scale when the range of values grows; what came in between must not be seen at the old one.
#[test]
fn a_histogram_that_became_coarser_rises_by_the_values_that_came_and_where_they_lie() {
    let samples = [
        // Two values from 4 to 8 in quarters of an octave, then the same and one near 1,000 at scale 0.
        ("m", histogram(5_000, 2, 8, &[1, 0, 0, 1])),
        ("m", histogram(15_000, 0, 2, &[2, 0, 0, 0, 0, 0, 0, 1])),
    ];
    let quantiles = closed(&samples, 2).into_iter().map(|closed| {
        let Some(SeriesSummary::Distribution { count, buckets, .. }) =
            closed.summary.series.get(&series("m"))
        else {
            panic!("it is a distribution");
        };
        (*count, buckets.quantile(500).map(Quantity::to_f64), buckets.quantile(1_000).map(Quantity::to_f64))
    });
    let quantiles: Vec<_> = quantiles.collect();
    let fine = 4.0 * 2.0_f64.sqrt().sqrt();
    assert_eq!((quantiles[0].0, quantiles[0].2), (2, Some(8.0)));
    assert!(quantiles[0].1.is_some_and(|median| (median - fine).abs() < 1e-6));
    assert_eq!(quantiles[1], (1, Some(1_024.0), Some(1_024.0)));
}

fn expected_totals(name: &str) -> Vec<serde_json::Value> {
    let file = std::fs::File::open(project_file(&format!("tests/data/{name}"))).expect("the file is there");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("it is gzip");
    text.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

/// As the independent script writes them: everything is text.
fn plain_attributes(key: &SeriesKey) -> serde_json::Value {
    let plain = |value: &AttributeValue| match value {
        AttributeValue::Text(text) => serde_json::json!(text),
        AttributeValue::Bool(truth) => serde_json::json!(if *truth { "True" } else { "False" }),
        AttributeValue::Integer(number) => serde_json::json!(number.to_string()),
        AttributeValue::Other(json) => serde_json::json!(json),
    };
    key.attributes.iter().map(|(key, value)| (key.clone(), plain(value))).collect()
}

/// Recordings of real engines, and what each adds up to by an independent script.
const RECORDINGS: [(&str, &str); 3] = [
    ("examples/airflow-incident.otlp.gz", "airflow-expected-totals.jsonl.gz"),
    ("tests/data/temporal-cumulative.otlp.gz", "temporal-cumulative-expected-totals.jsonl.gz"),
    ("tests/data/temporal-delta.otlp.gz", "temporal-delta-expected-totals.jsonl.gz"),
];

#[test]
fn recorded_engines_add_up_to_what_they_counted() {
    for (recorded, expected) in RECORDINGS {
        let requests = recording::read(&project_file(recorded)).expect("the recording is there");
        let totals = totals::totals(&requests);
        let expected = expected_totals(expected);
        assert_eq!(totals.series.len(), expected.len(), "{recorded}");
        for ((key, kind), summary) in &totals.series {
            let attributes = plain_attributes(key);
            let line = expected
                .iter()
                .find(|line| line["name"] == key.name && line["attributes"] == attributes)
                .unwrap_or_else(|| panic!("{} {attributes} is not expected in {recorded}", key.name));
            assert_adds_up(line, *kind, summary, totals.rises.get(key));
        }
    }
}

fn assert_adds_up(line: &serde_json::Value, kind: Kind, summary: &SeriesSummary, rise: Option<&Quantity>) {
    let close = |value: Quantity, field: &str| {
        let expected = line[field].as_f64().unwrap_or_else(|| panic!("{line} has no {field}"));
        assert!((value.to_f64() - expected).abs() < 0.001, "{line}: {field} is {value}");
    };
    match summary {
        SeriesSummary::Level { .. } if kind == Kind::Sum => {
            close(*rise.expect("sums that may fall have a rise"), "increase");
        }
        SeriesSummary::Level { last, .. } => close(*last, "last"),
        SeriesSummary::Increase { increase, .. } => {
            assert_eq!(increase.to_i64(), line["increase"].as_i64(), "{line}");
        }
        SeriesSummary::Distribution { count, sum, buckets, .. } => {
            assert_eq!(Some(*count), line["increase"].as_u64(), "{line}");
            close(*sum, "sum_increase");
            assert_eq!(buckets.quantile(500).is_some(), *count > 0, "{line}: buckets without values");
        }
    }
    let type_name = match kind {
        Kind::Gauge => "gauge",
        Kind::Sum | Kind::RisingSum => "sum",
        Kind::Histogram => "histogram",
        Kind::ExponentialHistogram => "exponential_histogram",
        Kind::Summary => "summary",
    };
    assert_eq!(line["type"], type_name, "{line}");
}

/// Clients send a body again, byte by byte, when they did not see its answer.
#[test]
fn a_recording_with_every_request_sent_again_and_out_of_order_adds_up_to_the_same() {
    for (recorded, _) in RECORDINGS.into_iter().skip(1) {
        let requests = recording::read(&project_file(recorded)).expect("the recording is there");
        let once = totals::totals(&requests).series;
        let backward = requests.iter().rev().cloned();
        let twice: Vec<_> = requests.iter().cloned().chain(backward).collect();
        assert_eq!(totals::totals(&twice).series, once, "{recorded}");
        let interleaved: Vec<_> =
            requests.iter().flat_map(|request| [request.clone(), request.clone()]).collect();
        assert_eq!(totals::totals(&interleaved).series, once, "{recorded}");
    }
}

/// Samples of a few series and streams over five windows, some of them equal and some falling.
fn any_samples() -> impl Strategy<Value = Vec<(&'static str, Sample)>> {
    let name = prop_oneof![Just("m"), Just("other")];
    let start = prop_oneof![Just(UnixNanos::ZERO), Just(at(0)), Just(at(7_000))];
    let kind = prop_oneof![
        Just((Kind::Gauge, None)),
        Just((Kind::RisingSum, Some(Temporality::Cumulative))),
        Just((Kind::RisingSum, Some(Temporality::Delta))),
        Just((Kind::Histogram, Some(Temporality::Cumulative))),
    ];
    let sample = (name, start, kind, 7_000_u64..50_000, 0_i64..20).prop_map(
        |(name, start, (kind, temporality), time_ms, value)| {
            let amount = Amount::new(Quantity::from_i64(value), Quantity::from_i64(3 * value));
            let measure = match temporality {
                None => Measure::Level(amount.value),
                Some(temporality) => Measure::Growth(temporality, amount),
            };
            // Few distinct times, so that some samples meet.
            (name, Sample { kind, start, time: at(time_ms / 500 * 500), measure })
        },
    );
    prop::collection::vec(sample, 0..200)
}

/// Closes the windows in order while the batches come, as soon as nothing of a window is left.
fn closed_in_batches(batches: &[Vec<(&str, Sample)>], limit: usize) -> Vec<Closed> {
    let parameters = MonitorParameters { samples_per_stream: limit, ..parameters() };
    let mut monitor = Monitor::new(parameters, STARTED_AT);
    for samples in batches {
        let ingested = monitor.ingest(&batch(samples), STARTED_AT.plus(WINDOW.times(8)));
        assert_eq!(ingested.rejected, BTreeMap::new());
    }
    (0..5).map(|offset| monitor.close(window(offset)).expect("windows close in order")).collect()
}

proptest! {
    #[test]
    fn the_same_samples_in_any_order_and_batching_give_the_same_bytes(
        shuffled in any_samples().prop_flat_map(|samples| (Just(samples.clone()), Just(samples).prop_shuffle())),
        batch_size in 1_usize..20,
        limit in 1_usize..8,
        resends in 0_usize..20,
    ) {
        let (in_order, mut out_of_order) = shuffled;
        let again: Vec<_> = out_of_order.iter().take(resends).cloned().collect();
        out_of_order.extend(again);
        let batches: Vec<_> = out_of_order.chunks(batch_size).map(<[_]>::to_vec).collect();
        let bytes = |closed: &[Closed]| -> Vec<Vec<u8>> {
            closed.iter().map(|closed| borsh::to_vec(&closed.summary).expect("memory can be written")).collect()
        };
        let (once, twice) = (closed_in_batches(&[in_order], limit), closed_in_batches(&batches, limit));
        prop_assert_eq!(bytes(&once), bytes(&twice));
    }

    #[test]
    fn the_windows_of_a_rising_stream_add_up_to_its_last_value(
        steps in prop::collection::vec((1_u64..900, 0_i64..5), 1..60),
        limit in 1_usize..8,
    ) {
        let (mut time_ms, mut value) = (0, 0);
        let mut samples = Vec::new();
        for (pause, rise) in steps {
            time_ms += pause;
            value += rise;
            samples.push(("m", cumulative(at(0), time_ms, value)));
        }
        let total: Quantity = closed_in_batches(&[samples], limit)
            .iter()
            .filter_map(|closed| closed.summary.series.get(&series("m")))
            .map(|summary| match summary {
                SeriesSummary::Increase { increase, .. } => *increase,
                SeriesSummary::Level { .. } | SeriesSummary::Distribution { .. } => Quantity::ZERO,
            })
            .fold(Quantity::ZERO, Quantity::plus);
        prop_assert_eq!(total, Quantity::from_i64(value));
    }
}

#[test]
fn a_report_is_signed_over_the_summary_and_what_is_its_replicas_own() {
    let closed = &closed(&[("m", level(1_000, 1))], 1)[0];
    let key = crate::types::SecretKey::from_seed(&[7; 32]);
    let domain = crate::types::Domain {
        cluster: crate::types::Digest::of(b"cluster"),
        epoch: crate::types::Epoch::new(1),
        protocol: 0,
    };
    let replica = crate::types::ReplicaIndex::new(2);
    let report = closed.report(replica, STARTED_AT, &domain, &key);
    let statement = report.header.statement(&domain);
    assert!(key.public().verify(&statement, &report.signature).is_ok());
    assert_eq!(report.header.body, crate::types::Digest::of_value(&closed.summary));
    assert_eq!(
        (report.header.window, report.header.replica, report.header.partial),
        (window(0), replica, false)
    );
}
