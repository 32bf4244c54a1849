//! What the merge promises of whole reports, whatever f of them hold: means, quantiles and combinations too.
//!
//! The honest reports' own numbers are computed here from what the replicas saw, without the merge's helpers; a quantile
//! is held against the values themselves. Nothing here looks at single rules: the tables are in `tests`.

use proptest::prelude::*;
use std::collections::BTreeMap;

use super::{CountedReports, Merged, Weighted};
use crate::{
    knowledge::{
        buckets::Buckets,
        finding::Interval,
        observation::{Attributes, SeriesKey, SeriesSummary, WindowSummary},
        policy::{Combine, Indicator, Selector, Statistic},
    },
    types::{CommitteeSize, Quantity, SourceId},
};

/// Committees with their fault bound and quorum, written down.
const SIZES: [(usize, usize, usize); 3] = [(4, 1, 3), (5, 1, 4), (7, 2, 5)];

/// The bounds of the histograms that replicas see; values lie below the last.
const BOUNDS: [f64; 5] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0];

/// What a replica saw of one series.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    /// The values of a level, oldest first.
    Level(Vec<i64>),
    /// By how much a sum rose.
    Rise(i64),
    /// The values that a histogram gained.
    Values(Vec<u32>),
}

/// What a replica saw of the series `m`, by the name of its task.
type View = BTreeMap<u8, Seen>;

fn key(task: u8) -> SeriesKey {
    SeriesKey {
        source: SourceId::new("engine").expect("a valid name"),
        name: "m".to_owned(),
        attributes: Attributes::from([(
            "task".to_owned(),
            crate::knowledge::observation::AttributeValue::Integer(i64::from(task)),
        )]),
        resource: Attributes::new(),
    }
}

fn number(value: i64) -> Quantity {
    Quantity::from_i64(value)
}

fn report(view: &View) -> WindowSummary {
    let summary = |seen: &Seen| match seen {
        Seen::Level(values) => SeriesSummary::Level {
            last: number(*values.last().expect("a level has a value")),
            min: number(*values.iter().min().expect("a level has a value")),
            max: number(*values.iter().max().expect("a level has a value")),
            sum: number(values.iter().sum()),
            samples: values.len() as u64,
        },
        Seen::Rise(rise) => SeriesSummary::Increase { increase: number(*rise), samples: 1 },
        Seen::Values(values) => {
            let mut counts = [0_u64; BOUNDS.len() + 1];
            for value in values {
                counts[BOUNDS.iter().take_while(|bound| **bound < f64::from(*value)).count()] += 1;
            }
            SeriesSummary::Distribution {
                count: values.len() as u64,
                sum: number(values.iter().map(|value| i64::from(*value)).sum()),
                samples: 1,
                buckets: Buckets::of_bounds(&BOUNDS, &counts).expect("the bounds rise"),
            }
        }
    };
    WindowSummary { series: view.iter().map(|(task, seen)| (key(*task), summary(seen))).collect() }
}

/// The smallest and the largest that a replica's own number may be: one value, but for a quantile, which is an upper
/// bound of the true one. `None` where it saw nothing of the kind.
fn own(statistic: Statistic, combine: Combine, view: &View) -> Option<(Quantity, Quantity)> {
    let each: Vec<(Quantity, Quantity)> =
        view.values().filter_map(|seen| own_of(statistic, std::slice::from_ref(seen))).collect();
    let low = each.iter().map(|(low, _)| *low);
    let high = each.iter().map(|(_, high)| *high);
    match (combine, statistic) {
        (Combine::Min, _) => low.min().zip(high.min()),
        (Combine::Max, _) => low.max().zip(high.max()),
        (Combine::Sum, Statistic::Mean | Statistic::P50 | Statistic::P90 | Statistic::P99) => {
            let all: Vec<Seen> = view.values().cloned().collect();
            own_of(statistic, &all)
        }
        (Combine::Sum, Statistic::Last | Statistic::Min | Statistic::Max | Statistic::Increase) => {
            let total = |nanos: Vec<i128>| Quantity::from_nanos(nanos.iter().sum());
            let (low, high) = (low.map(Quantity::as_nanos), high.map(Quantity::as_nanos));
            (!each.is_empty()).then(|| (total(low.collect()), total(high.collect())))
        }
    }
}

/// A statistic over the values of some series together.
fn own_of(statistic: Statistic, seen: &[Seen]) -> Option<(Quantity, Quantity)> {
    let levels = seen.iter().filter_map(|seen| match seen {
        Seen::Level(values) => Some(values),
        Seen::Rise(_) | Seen::Values(_) => None,
    });
    let levels: Vec<i64> = levels.flatten().copied().collect();
    let gained = seen.iter().filter_map(|seen| match seen {
        Seen::Values(values) => Some(values),
        Seen::Level(_) | Seen::Rise(_) => None,
    });
    let gained: Vec<&Vec<u32>> = gained.collect();
    let mut values: Vec<u32> = gained.iter().copied().flatten().copied().collect();
    values.sort_unstable();
    let exact = |value: Option<i64>| value.map(|value| (number(value), number(value)));
    let quantile = |hundredths: usize| {
        // The smallest value that so many hundredths of the values do not exceed.
        let rank = (values.len() * hundredths).div_ceil(100).max(1);
        let value = values.get(rank - 1).copied()?;
        let bound =
            BOUNDS.into_iter().find(|bound| f64::from(value) <= *bound).expect("values lie below the last");
        // Never below the true value, and no more than 0.3 % above the bound over it.
        let most = Quantity::from_f64(bound * 1.003).expect("it is small");
        Some((number(i64::from(value)), most))
    };
    match statistic {
        Statistic::Last => exact(levels.last().copied()),
        Statistic::Min => exact(levels.iter().min().copied()),
        Statistic::Max => exact(levels.iter().max().copied()),
        Statistic::Mean => {
            let sum: i128 = levels.iter().map(|value| i128::from(*value)).sum::<i128>()
                + values.iter().map(|value| i128::from(*value)).sum::<i128>();
            let count = i128::try_from(levels.len() + values.len()).expect("there are few");
            let mean = Quantity::from_nanos((sum * 1_000_000_000).checked_div(count)?);
            Some((mean, mean))
        }
        Statistic::Increase => match seen {
            [Seen::Rise(rise)] => exact(Some(*rise)),
            [Seen::Values(values)] => exact(i64::try_from(values.len()).ok()),
            _ => None,
        },
        Statistic::P50 => quantile(50),
        Statistic::P90 => quantile(90),
        Statistic::P99 => quantile(99),
    }
}

fn indicators() -> impl Iterator<Item = Indicator> {
    let combines = [Combine::Sum, Combine::Min, Combine::Max];
    Statistic::ALL.into_iter().flat_map(move |statistic| {
        let selector = Selector { source: None, name: "m".to_owned(), attributes: Attributes::new() };
        combines.map(move |combine| Indicator { selector: selector.clone(), statistic, combine })
    })
}

fn merge<'a>(n: usize, reports: &'a [WindowSummary]) -> CountedReports<'a> {
    let size = CommitteeSize::new(n).expect("a possible size");
    CountedReports::new(size, reports.iter().map(|summary| Weighted { summary, reports: 1 }).collect())
}

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        proptest::collection::vec(-50_i64..50, 1..5).prop_map(Seen::Level),
        (0_i64..100).prop_map(Seen::Rise),
        proptest::collection::vec(0_u32..10_000, 0..8).prop_map(Seen::Values),
    ]
}

fn view() -> impl Strategy<Value = View> {
    proptest::collection::btree_map(0_u8..3, seen(), 0..3)
}

/// What any process with a key can sign: numbers of any size, that need not even fit together.
fn arbitrary_report() -> impl Strategy<Value = WindowSummary> {
    let quantity =
        || prop_oneof![any::<i128>(), -100_000_000_000_i128..100_000_000_000].prop_map(Quantity::from_nanos);
    let level = (quantity(), quantity(), quantity(), quantity(), 0_u64..3)
        .prop_map(|(last, min, max, sum, samples)| SeriesSummary::Level { last, min, max, sum, samples });
    let increase = (quantity(), any::<u64>())
        .prop_map(|(increase, samples)| SeriesSummary::Increase { increase, samples });
    let counts = proptest::collection::vec(prop_oneof![0_u64..9, any::<u64>()], BOUNDS.len() + 1);
    let distribution =
        (prop_oneof![0_u64..9, any::<u64>()], quantity(), counts).prop_map(|(count, sum, counts)| {
            let buckets = Buckets::of_bounds(&BOUNDS, &counts).unwrap_or_default();
            SeriesSummary::Distribution { count, sum, samples: 1, buckets }
        });
    let series = prop_oneof![level, increase, distribution];
    proptest::collection::btree_map((0_u8..4).prop_map(key), series, 0..4)
        .prop_map(|series| WindowSummary { series })
}

/// A committee, and reports of a quorum or more: what the honest ones saw, and what at most f others made up. Honest
/// replicas mostly saw the same.
#[derive(Clone, Debug)]
struct Case {
    n: usize,
    faults: usize,
    honest: Vec<View>,
    wrong: Vec<WindowSummary>,
}

impl Case {
    fn reports(&self) -> Vec<WindowSummary> {
        self.honest.iter().map(report).chain(self.wrong.iter().cloned()).collect()
    }

    /// Whether those who are wrong and those who are missing are together no more than may be.
    fn is_within_the_fault_bound(&self) -> bool {
        self.n - self.honest.len() <= self.faults
    }

    fn range(&self, indicator: &Indicator) -> Option<(Quantity, Quantity)> {
        let own = self.honest.iter().filter_map(|view| own(indicator.statistic, indicator.combine, view));
        own.reduce(|(low, high), (other_low, other_high)| (low.min(other_low), high.max(other_high)))
    }
}

fn cases() -> impl Strategy<Value = Case> {
    (0..SIZES.len())
        .prop_flat_map(|place| {
            let (n, faults, quorum) = SIZES[place];
            (Just((n, faults)), quorum..=n, 0..=faults)
        })
        .prop_flat_map(|((n, faults), counted, wrong)| {
            let views =
                (view(), proptest::collection::vec(proptest::option::weighted(0.4, view()), counted - wrong));
            let honest = views.prop_map(|(shared, own)| {
                own.into_iter().map(|own| own.unwrap_or_else(|| shared.clone())).collect()
            });
            (Just((n, faults)), honest, proptest::collection::vec(arbitrary_report(), wrong))
        })
        .prop_map(|((n, faults), honest, wrong)| Case { n, faults, honest, wrong })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_f_reports_move_any_statistic_out_of_the_range_of_the_honest_ones(case in cases()) {
        let reports = case.reports();
        let merged = merge(case.n, &reports);
        for indicator in indicators() {
            let Merged::Value(Interval { low, median, high }) = merged.indicator(&indicator) else { continue };
            let range = case.range(&indicator);
            prop_assert!(range.is_some(), "{indicator:?}: a value that no honest replica has");
            let (least, most) = range.expect("it was looked at");
            prop_assert!(low <= median && median <= high, "{indicator:?}");
            prop_assert!(least <= median && median <= most, "{indicator:?}: {median} is not in {least}..{most}");
            if case.is_within_the_fault_bound() {
                prop_assert!(least <= low && high <= most, "{indicator:?}: {low}..{high} is not in {least}..{most}");
            }
        }
        // The series that dashboards show, each by itself.
        for (shown, statistics) in merged.all_series() {
            let of_one = |view: &View| -> View {
                view.iter().filter(|(task, _)| key(**task) == shown).map(|(task, seen)| (*task, seen.clone())).collect()
            };
            let alone = Case { honest: case.honest.iter().map(of_one).collect(), ..case.clone() };
            for (statistic, Interval { low, median, high }) in statistics {
                let indicator = indicators().find(|one| one.statistic == statistic && one.combine == Combine::Min);
                let range = alone.range(&indicator.expect("it is one of all"));
                prop_assert!(range.is_some(), "{statistic:?} of a series that no honest replica has");
                let (least, most) = range.expect("it was looked at");
                prop_assert!(least <= median && median <= most);
                prop_assert!(!case.is_within_the_fault_bound() || (least <= low && high <= most));
            }
        }
    }

    #[test]
    fn equal_honest_reports_are_what_is_merged(case in cases(), shared in view()) {
        let case = Case { honest: vec![shared.clone(); case.honest.len()], ..case };
        let reports = case.reports();
        let (merged, alone) = (merge(case.n, &reports), [report(&shared)]);
        for indicator in indicators() {
            let own = own(indicator.statistic, indicator.combine, &shared);
            // A committee of one says what its one report does.
            let expected = merge(1, &alone).indicator(&indicator);
            match (expected, own) {
                (Merged::NoSamples, None) => {}
                (Merged::Value(Interval { low, median, high }), Some((least, most))) => {
                    prop_assert!(low == median && median == high && least <= median && median <= most);
                }
                (Merged::Value(_) | Merged::NoSamples | Merged::Unknown, _) => {
                    return Err(TestCaseError::fail(format!("{indicator:?}: {expected:?}, and {own:?} was seen")));
                }
            }
            match (merged.indicator(&indicator), expected) {
                (got, expected) if case.is_within_the_fault_bound() => prop_assert_eq!(got, expected),
                (Merged::Value(got), Merged::Value(expected)) => prop_assert_eq!(got.median, expected.median),
                // More than f are missing or wrong: it may be that nothing can be said, but nothing false is.
                (Merged::Unknown, _) => {}
                (got, expected) => prop_assert_eq!(got, expected),
            }
        }
    }

    /// At n = 4 with three reports no threshold between two honest values has all of the interval on one side, whatever
    /// the third report says: analysis calls that disputed.
    #[test]
    fn three_of_four_reports_hide_no_disagreement(
        honest in proptest::collection::vec(-50_i64..50, 2..=3),
        wrong in any::<i64>(),
    ) {
        let values: Vec<i64> = honest.iter().copied().chain([wrong]).take(3).collect();
        let reports: Vec<WindowSummary> =
            values.iter().map(|value| report(&View::from([(0, Seen::Level(vec![*value]))]))).collect();
        let indicator = indicators().next().expect("the first is of the last value");
        let Merged::Value(Interval { low, high, .. }) = merge(4, &reports).indicator(&indicator) else {
            return Err(TestCaseError::fail("three of four say something"));
        };
        for value in honest {
            prop_assert!(low <= number(value) && number(value) <= high);
        }
    }

    #[test]
    fn absence_is_agreed_on(case in cases(), shared in view()) {
        // Nobody honest has samples: that is what is said, or nothing.
        let silent = Case { honest: vec![View::new(); case.honest.len()], ..case.clone() };
        let reports = silent.reports();
        for indicator in indicators() {
            let merged = merge(silent.n, &reports).indicator(&indicator);
            let said = merged == Merged::NoSamples || (!silent.is_within_the_fault_bound() && merged == Merged::Unknown);
            prop_assert!(said, "{indicator:?}: {merged:?}");
        }
        prop_assert!(merge(silent.n, &reports).all_series().is_empty());
        // All honest ones have samples: f others cannot say that there are none.
        let heard = Case { honest: vec![shared.clone(); case.honest.len()], ..case };
        let reports = heard.reports();
        for indicator in indicators().filter(|one| own(one.statistic, one.combine, &shared).is_some()) {
            prop_assert_ne!(merge(heard.n, &reports).indicator(&indicator), Merged::NoSamples);
        }
    }

    #[test]
    fn neither_the_order_of_reports_nor_how_they_are_grouped_matters(
        (case, order) in cases().prop_flat_map(|case| {
            let places: Vec<usize> = (0..case.honest.len() + case.wrong.len()).collect();
            (Just(case), Just(places).prop_shuffle())
        }),
    ) {
        let reports = case.reports();
        let shuffled: Vec<WindowSummary> = order.iter().map(|place| reports[*place].clone()).collect();
        let mut grouped: Vec<Weighted<'_>> = Vec::new();
        for summary in &shuffled {
            match grouped.iter_mut().find(|weighted| weighted.summary == summary) {
                Some(weighted) => weighted.reports += 1,
                None => grouped.push(Weighted { summary, reports: 1 }),
            }
        }
        let size = CommitteeSize::new(case.n).expect("a possible size");
        let (first, second, third) =
            (merge(case.n, &reports), merge(case.n, &shuffled), CountedReports::new(size, grouped));
        for indicator in indicators() {
            let expected = first.indicator(&indicator);
            prop_assert_eq!(second.indicator(&indicator), expected);
            prop_assert_eq!(third.indicator(&indicator), expected);
        }
        prop_assert_eq!(second.all_series(), first.all_series());
        prop_assert_eq!(third.all_series(), first.all_series());
    }
}
