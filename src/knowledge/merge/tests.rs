//! Tables for the merge's rules, and its properties against arbitrary wrong reports.

use proptest::prelude::*;
use std::collections::BTreeMap;

use super::{CountedReports, Merged, Weighted, indicator_in};
use crate::{
    knowledge::{
        buckets::Buckets,
        finding::Interval,
        observation::{AttributeValue, Attributes, SeriesKey, SeriesSummary, WindowSummary},
        policy::{Combine, Indicator, Selector, Statistic},
    },
    types::{CommitteeSize, Quantity, SourceId},
};

fn number(value: i64) -> Quantity {
    Quantity::from_i64(value)
}

fn key(source: &str, name: &str, task: &str) -> SeriesKey {
    let attributes = [("task".to_owned(), AttributeValue::Text(task.to_owned()))];
    let resource = [("zone".to_owned(), AttributeValue::Text("z1".to_owned()))];
    SeriesKey {
        source: SourceId::new(source).expect("a valid name"),
        name: name.to_owned(),
        attributes: attributes.into(),
        resource: resource.into(),
    }
}

fn level(values: &[i64]) -> SeriesSummary {
    SeriesSummary::Level {
        last: number(*values.last().expect("a level has a value")),
        min: number(*values.iter().min().expect("a level has a value")),
        max: number(*values.iter().max().expect("a level has a value")),
        sum: number(values.iter().sum()),
        samples: values.len() as u64,
    }
}

fn one(value: Option<i64>) -> WindowSummary {
    let series = value.map(|value| (key("airflow", "queue", "a"), level(&[value])));
    WindowSummary { series: series.into_iter().collect() }
}

fn indicator(statistic: Statistic, combine: Combine) -> Indicator {
    let selector = Selector { source: None, name: "queue".to_owned(), attributes: Attributes::new() };
    Indicator { selector, statistic, combine }
}

fn size(n: usize) -> CommitteeSize {
    CommitteeSize::new(n).expect("a possible size")
}

/// Merges one value per counted report (`None`: no samples), as an indicator and as a raw series.
fn merge(n: usize, values: &[Option<i64>]) -> Merged {
    let summaries: Vec<WindowSummary> = values.iter().map(|value| one(*value)).collect();
    let reports = CountedReports::new(
        size(n),
        summaries.iter().map(|summary| Weighted { summary, reports: 1 }).collect(),
    );
    let merged = reports.indicator(&indicator(Statistic::Last, Combine::Sum));
    let raw = reports.all_series();
    let raw = raw.get(&key("airflow", "queue", "a")).and_then(|statistics| statistics.get(&Statistic::Last));
    match merged {
        Merged::Value(interval) => assert_eq!(raw, Some(&interval), "both ways agree"),
        Merged::NoSamples | Merged::Unknown => assert_eq!(raw, None, "both ways agree"),
    }
    merged
}

fn value(low: i64, median: i64, high: i64) -> Merged {
    Merged::Value(Interval { low: number(low), median: number(median), high: number(high) })
}

#[test]
fn reports_merge_as_the_rules_say() {
    let (none, unknown) = (Merged::NoSamples, Merged::Unknown);
    let cases: [(&str, usize, &[Option<i64>], Merged); 21] = [
        ("M2 no report", 1, &[], unknown),
        ("n = 1", 1, &[Some(7)], value(7, 7, 7)),
        ("n = 1, no samples", 1, &[None], none),
        ("n = 2, one report", 2, &[Some(7)], value(7, 7, 7)),
        ("n = 3 trims nothing", 3, &[Some(1), Some(5), Some(9)], value(1, 5, 9)),
        ("M2 m = 2f", 4, &[Some(7), Some(7)], unknown),
        ("M5 of two middle values the lower", 4, &[Some(1), Some(2), Some(5), Some(9)], value(2, 2, 5)),
        ("M6 a missing reporter is a fault spent", 4, &[Some(9), Some(2), Some(1)], value(1, 2, 9)),
        ("M3 a majority without samples", 4, &[None, None, None, Some(1)], none),
        ("M3 of three", 4, &[None, None, Some(1)], none),
        ("M4 exactly half", 4, &[None, None, Some(1), Some(1)], unknown),
        ("M4 exactly half, with nothing to trim", 2, &[None, Some(1)], unknown),
        ("M4 two of three cannot be trimmed", 4, &[None, Some(1), Some(1)], unknown),
        ("M4 three of four can", 4, &[None, Some(1), Some(2), Some(9)], value(2, 2, 2)),
        ("n = 5, all", 5, &[Some(1), Some(2), Some(3), Some(4), Some(5)], value(2, 3, 4)),
        ("n = 5, a quorum", 5, &[Some(1), Some(2), Some(3), Some(4)], value(1, 2, 4)),
        ("n = 5, below a quorum", 5, &[Some(1), Some(2), Some(3)], value(1, 2, 3)),
        ("n = 7, all", 7, &[Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), Some(7)], value(3, 4, 5)),
        ("n = 7, one missing", 7, &[Some(1), Some(2), Some(3), Some(4), Some(5), Some(6)], value(2, 3, 5)),
        ("n = 7, two missing", 7, &[Some(1), Some(2), Some(3), Some(4), Some(5)], value(1, 3, 5)),
        ("n = 7, three missing", 7, &[Some(1), Some(2), Some(3), Some(4)], unknown),
    ];
    for (name, n, values, expected) in cases {
        assert_eq!(merge(n, values), expected, "{name}");
    }
}

#[test]
fn equal_summaries_weigh_as_much_as_separate_ones() {
    let (seven, nine) = (one(Some(7)), one(Some(9)));
    let distinct = vec![Weighted { summary: &seven, reports: 3 }, Weighted { summary: &nine, reports: 1 }];
    let merged = CountedReports::new(size(4), distinct).indicator(&indicator(Statistic::Last, Combine::Sum));
    assert_eq!(merged, value(7, 7, 7));
}

#[test]
fn an_indicator_is_computed_within_each_report() {
    let distribution = |count, sum| SeriesSummary::Distribution {
        count,
        sum: number(sum),
        samples: 1,
        buckets: Buckets::default(),
    };
    let rise = |increase| SeriesSummary::Increase { increase: number(increase), samples: 1 };
    let summary = |series: Vec<(&str, SeriesSummary)>| WindowSummary {
        series: series.into_iter().map(|(task, series)| (key("airflow", "queue", task), series)).collect(),
    };
    let levels = summary(vec![("a", level(&[1, 9, 2])), ("b", level(&[4]))]);
    let mixed = summary(vec![("a", level(&[2])), ("b", rise(5)), ("c", distribution(3, 30))]);
    let empty = summary(vec![("a", distribution(0, 0))]);
    let buckets = |counts: &[u64; 4]| SeriesSummary::Distribution {
        count: counts.iter().sum(),
        sum: Quantity::ZERO,
        samples: 1,
        buckets: Buckets::of_bounds(&[16.0, 64.0, 1_024.0], counts).expect("the bounds rise"),
    };
    let waits = summary(vec![("a", buckets(&[9, 0, 1, 0])), ("b", buckets(&[0, 90, 0, 0]))]);
    let cases = [
        ("last values summed", &levels, Statistic::Last, Combine::Sum, Some(6)),
        ("smallest last", &levels, Statistic::Last, Combine::Min, Some(2)),
        ("largest of the largest", &levels, Statistic::Max, Combine::Max, Some(9)),
        ("smallest of the smallest", &levels, Statistic::Min, Combine::Min, Some(1)),
        ("the mean over all values", &levels, Statistic::Mean, Combine::Sum, Some(4)),
        ("the larger mean", &levels, Statistic::Mean, Combine::Max, Some(4)),
        ("a level does not rise", &levels, Statistic::Increase, Combine::Sum, None),
        ("rises and counts", &mixed, Statistic::Increase, Combine::Sum, Some(8)),
        ("a mean over levels and distributions", &mixed, Statistic::Mean, Combine::Sum, Some(8)),
        ("only the level has a last value", &mixed, Statistic::Last, Combine::Sum, Some(2)),
        ("no values came, so there is no mean", &empty, Statistic::Mean, Combine::Sum, None),
        ("a quantile over the values of all series", &waits, Statistic::P99, Combine::Sum, Some(64)),
        ("the largest of the series' quantiles", &waits, Statistic::P99, Combine::Max, Some(1_024)),
        ("the smallest of the series' medians", &waits, Statistic::P50, Combine::Min, Some(16)),
        ("where values lie is not known", &mixed, Statistic::P90, Combine::Sum, None),
        ("but a count of zero", &empty, Statistic::Increase, Combine::Sum, Some(0)),
    ];
    for (name, summary, statistic, combine, expected) in cases {
        assert_eq!(indicator_in(&indicator(statistic, combine), summary), expected.map(number), "{name}");
    }
}

#[test]
fn a_selector_needs_all_that_it_names() {
    let text = |text: &str| AttributeValue::Text(text.to_owned());
    let with = |source: Option<&str>, attributes: &[(&str, AttributeValue)]| Selector {
        source: source.map(|source| SourceId::new(source).expect("a valid name")),
        name: "queue".to_owned(),
        attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    };
    let cases = [
        ("the name alone", with(None, &[]), true),
        ("the source", with(Some("airflow"), &[]), true),
        ("another source", with(Some("argo"), &[]), false),
        ("its attribute", with(None, &[("task", text("a"))]), true),
        ("its resource's attribute", with(None, &[("zone", text("z1"))]), true),
        ("both", with(Some("airflow"), &[("task", text("a")), ("zone", text("z1"))]), true),
        ("another value", with(None, &[("task", text("b"))]), false),
        ("one it has and one it has not", with(None, &[("task", text("a")), ("dag", text("a"))]), false),
    ];
    for (name, selector, expected) in cases {
        assert_eq!(super::selects(&selector, &key("airflow", "queue", "a")), expected, "{name}");
    }
    assert!(!super::selects(&with(None, &[]), &key("airflow", "queues", "a")));
}

#[test]
fn series_of_different_reports_are_joined_by_key() {
    let series = |names: &[(&str, i64)]| WindowSummary {
        series: names.iter().map(|(name, value)| (key("airflow", name, "a"), level(&[*value]))).collect(),
    };
    let reports = [
        series(&[("a", 1), ("c", 3)]),
        series(&[("a", 2), ("b", 5), ("c", 3)]),
        series(&[("a", 3), ("b", 5), ("d", 9)]),
        series(&[("b", 5), ("c", 4)]),
    ];
    let distinct = reports.iter().map(|summary| Weighted { summary, reports: 1 }).collect();
    let merged = CountedReports::new(size(4), distinct).all_series();
    let medians: BTreeMap<&str, Quantity> = merged
        .iter()
        .map(|(key, statistics)| (key.name.as_str(), statistics[&Statistic::Last].median))
        .collect();
    assert_eq!(medians, [("a", number(2)), ("b", number(5)), ("c", number(3))].into());
    assert_eq!(merged[&key("airflow", "a", "a")].len(), 4, "a level has four statistics");
}

/// n, how many reports count (a quorum at least), how many of those are wrong, and all values: honest ones
/// that differ a little, wrong ones without bound, both perhaps without samples.
fn cases() -> impl Strategy<Value = (usize, Vec<Option<i64>>, Vec<Option<i64>>)> {
    (4_usize..=7)
        .prop_flat_map(|n| {
            let (quorum, faults) = (size(n).quorum(), size(n).faults());
            (Just(n), quorum..=n, 0..=faults)
        })
        .prop_flat_map(|(n, counted, wrong)| {
            let honest = proptest::option::weighted(0.9, 0_i64..20);
            let arbitrary = proptest::option::weighted(0.9, prop_oneof![any::<i64>(), -5_i64..25]);
            (
                Just(n),
                proptest::collection::vec(honest, counted - wrong),
                proptest::collection::vec(arbitrary, wrong),
            )
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn wrong_reports_cannot_move_a_merged_value_out_of_the_honest_range((n, honest, wrong) in cases()) {
        let values = [honest.clone(), wrong.clone()].concat();
        let range = honest.iter().flatten();
        let merged = merge(n, &values);
        if let Merged::Value(interval) = merged {
            let (least, most) = (range.clone().min(), range.max());
            let (Some(least), Some(most)) = (least, most) else {
                return Err(TestCaseError::fail("a value that no honest replica has seen"));
            };
            let (least, most) = (number(*least), number(*most));
            prop_assert!(least <= interval.median && interval.median <= most);
            prop_assert!(interval.low <= interval.median && interval.median <= interval.high);
            // Wrong and missing replicas together within the fault bound: the whole interval is honest.
            if n - values.len() + wrong.len() <= size(n).faults() {
                prop_assert!(least <= interval.low && interval.high <= most);
            }
        }
        if honest.iter().all(Option::is_none) {
            prop_assert_ne!(merged, Merged::Unknown);
        }
    }

    #[test]
    fn equal_honest_reports_give_exactly_them((n, honest, wrong) in cases(), seen in -5_i64..25) {
        let honest = vec![Some(seen); honest.len()];
        let missing = n - honest.len() - wrong.len();
        let within = missing + wrong.len() <= size(n).faults();
        match merge(n, &[honest, wrong].concat()) {
            Merged::Value(interval) if within => prop_assert_eq!(Merged::Value(interval), value(seen, seen, seen)),
            Merged::Value(interval) => prop_assert_eq!(interval.median, number(seen)),
            // Only when more than f replicas are missing, wrong or without samples.
            Merged::NoSamples | Merged::Unknown => prop_assert!(!within),
        }
    }

    #[test]
    fn the_order_of_reports_does_not_matter(
        (n, values, shuffled) in cases().prop_flat_map(|(n, honest, wrong)| {
            let values = [honest, wrong].concat();
            (Just(n), Just(values.clone()), Just(values).prop_shuffle())
        })
    ) {
        prop_assert_eq!(merge(n, &values), merge(n, &shuffled));
    }
}
