//! Steps through closed windows and what each detector finds in them.

use proptest::prelude::*;
use std::collections::BTreeMap;

use super::Analyzer;
use crate::knowledge::{
    change::ClosedWindow,
    finding::{Finding, Interval, Symptom},
    genesis::{Genesis, Parameters},
    observation::{Attributes, SeriesKey},
    policy::{Combine, Condition, Indicator, Policy, Selector, Side, Statistic},
    snapshot::{Finality, Reading},
};
use crate::types::{Cycle, Digest, Millis, Quantity, SourceId, UnixMillis, WindowIndex};

const WINDOW: Millis = Millis::from_secs(10);

fn policy(name: &str, condition: Condition) -> Policy {
    Policy {
        name: name.to_owned(),
        indicator: Indicator {
            selector: Selector { source: None, name: "series".to_owned(), attributes: Attributes::new() },
            statistic: Statistic::Last,
            combine: Combine::Sum,
        },
        condition,
        action: None,
    }
}

fn genesis(conditions: &[Condition]) -> Genesis {
    let policies = conditions.iter().enumerate();
    Genesis {
        parameters: Parameters::for_window(WINDOW),
        targets: Vec::new(),
        policies: policies
            .map(|(index, condition)| policy(&format!("p{index}"), condition.clone()))
            .collect(),
    }
}

fn threshold(side: Side, enter: i64, leave: i64, hold_secs: u64) -> Condition {
    Condition::Threshold {
        side,
        enter: Quantity::from_i64(enter),
        leave: Quantity::from_i64(leave),
        hold: Millis::from_secs(hold_secs),
    }
}

/// Window `index` closes, in event time, at `(index + 1) * 10 s`; agreed time is always 3 s later.
fn agreed(index: u64) -> UnixMillis {
    WindowIndex::new(index).close(WINDOW).plus(Millis::from_secs(3))
}

fn closed(index: u64, finality: Finality, readings: Vec<Reading>) -> ClosedWindow {
    ClosedWindow {
        window: WindowIndex::new(index),
        cycle: Cycle::new(index),
        closed_at: agreed(index),
        finality,
        reporters: Vec::new(),
        readings,
        series: BTreeMap::new(),
    }
}

fn interval(low: i64, median: i64, high: i64) -> Interval {
    Interval {
        low: Quantity::from_i64(low),
        median: Quantity::from_i64(median),
        high: Quantity::from_i64(high),
    }
}

fn exactly(value: i64) -> Reading {
    Reading::Fresh(interval(value, value, value))
}

fn between(low: i64, median: i64, high: i64) -> Reading {
    Reading::Fresh(interval(low, median, high))
}

fn silent(since_window: Option<u64>, learned_interval_ms: u64) -> Reading {
    Reading::NoSamples {
        since: since_window.map(|index| WindowIndex::new(index).close(WINDOW)),
        learned_interval_ms,
    }
}

/// What one policy finds in each of consecutive windows, with the window since which it lasts.
fn findings(condition: Condition, steps: &[(Finality, Reading)]) -> Vec<Option<(Symptom, UnixMillis)>> {
    let mut analyzer = Analyzer::new(&genesis(&[condition]));
    let mut seen = Vec::new();
    for (index, (finality, reading)) in (100..).zip(steps) {
        let found = analyzer.advance(&closed(index, *finality, vec![*reading]), agreed(index));
        let about_policy: Vec<&Finding> = found.iter().filter(|finding| finding.policy.is_some()).collect();
        assert!(about_policy.len() <= 1, "one policy finds one thing a window");
        assert_eq!(found.len() - about_policy.len(), usize::from(*finality == Finality::Unconfirmed));
        seen.push(about_policy.first().map(|finding| (finding.symptom, finding.since)));
    }
    seen
}

fn confirmed(readings: &[Reading]) -> Vec<(Finality, Reading)> {
    readings.iter().map(|reading| (Finality::Confirmed, *reading)).collect()
}

/// What is shown, the policy, the readings from window 100 on, and for each of them what is found and since which
/// window.
type Row = (&'static str, Condition, Vec<Reading>, Vec<Option<(Symptom, u64)>>);

const fn at(symptom: Symptom, window: u64) -> Option<(Symptom, u64)> {
    Some((symptom, window))
}

fn finds(rows: Vec<Row>) {
    for (what, condition, readings, expected) in rows {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|step| step.map(|(symptom, window)| (symptom, agreed(window))))
            .collect();
        assert_eq!(findings(condition, &confirmed(&readings)), expected, "{what}");
    }
}

#[test]
fn a_threshold_enters_lasts_and_leaves() {
    finds(vec![
        (
            "at the threshold it begins, between the bounds it lasts, at `leave` it ends",
            threshold(Side::Above, 20, 5, 0),
            [19, 20, 6, 5, 19, 21].map(exactly).to_vec(),
            vec![
                None,
                at(Symptom::Threshold, 101),
                at(Symptom::Threshold, 101),
                None,
                None,
                at(Symptom::Threshold, 105),
            ],
        ),
        (
            "below works the other way round",
            threshold(Side::Below, 5, 20, 0),
            [6, 5, 19, 20, 6].map(exactly).to_vec(),
            vec![None, at(Symptom::Threshold, 101), at(Symptom::Threshold, 101), None, None],
        ),
        (
            "without hysteresis a value at the threshold lasts",
            threshold(Side::Above, 20, 20, 0),
            [20, 20, 19].map(exactly).to_vec(),
            vec![at(Symptom::Threshold, 100), at(Symptom::Threshold, 100), None],
        ),
        (
            "the hold time runs from the close of the first window",
            threshold(Side::Above, 20, 5, 20),
            [25, 25, 25, 25].map(exactly).to_vec(),
            vec![None, None, at(Symptom::Threshold, 100), at(Symptom::Threshold, 100)],
        ),
        (
            "a break starts the hold time anew",
            threshold(Side::Above, 20, 5, 20),
            [25, 25, 4, 25, 25, 25].map(exactly).to_vec(),
            vec![None, None, None, None, None, at(Symptom::Threshold, 103)],
        ),
    ]);
}

#[test]
fn an_interval_across_a_bound_is_disputed() {
    finds(vec![
        (
            "an interval across the threshold is disputed, whichever way its median leans",
            threshold(Side::Above, 20, 5, 0),
            vec![between(19, 19, 20), between(19, 20, 20), exactly(4)],
            vec![at(Symptom::Disputed, 100), at(Symptom::Disputed, 101), None],
        ),
        (
            "an interval across `leave` is disputed while the symptom lasts",
            threshold(Side::Above, 20, 5, 0),
            vec![exactly(30), between(4, 10, 30), between(4, 5, 30), exactly(10)],
            vec![at(Symptom::Threshold, 100), at(Symptom::Disputed, 100), at(Symptom::Disputed, 100), None],
        ),
        (
            "an interval that is past the threshold as a whole is no dispute",
            threshold(Side::Above, 20, 5, 0),
            vec![between(20, 30, 400)],
            vec![at(Symptom::Threshold, 100)],
        ),
        (
            "nothing is disputed before its hold time has passed",
            threshold(Side::Above, 20, 5, 10),
            vec![between(3, 3, 90), between(3, 3, 90)],
            vec![None, None],
        ),
    ]);
}

#[test]
fn a_threshold_needs_a_value_but_not_a_new_one() {
    finds(vec![
        (
            "silence ends a symptom",
            threshold(Side::Above, 20, 5, 10),
            vec![exactly(25), exactly(25), silent(Some(101), 10_000), exactly(25), exactly(25)],
            vec![None, at(Symptom::Threshold, 100), None, None, at(Symptom::Threshold, 103)],
        ),
        (
            "a held value counts",
            threshold(Side::Above, 20, 5, 10),
            vec![exactly(25), Reading::Held { value: interval(25, 25, 25), since: agreed(100) }],
            vec![None, at(Symptom::Threshold, 100)],
        ),
        (
            "a series that was never seen shows nothing",
            threshold(Side::Below, 5, 20, 0),
            vec![silent(None, 0)],
            vec![None],
        ),
    ]);
}

#[test]
fn what_cannot_be_seen_is_unconfirmed_and_breaks_a_hold_time_that_is_still_running() {
    use Finality::{Confirmed, Unconfirmed};
    let past = exactly(25);
    let steps = [
        (Confirmed, past),
        (Confirmed, Reading::Unknown),
        (Confirmed, past),
        (Confirmed, past),
        (Unconfirmed, past),
        (Unconfirmed, exactly(4)),
        (Confirmed, Reading::Unknown),
        (Confirmed, past),
    ];
    let expected = [
        None,
        Some((Symptom::Unconfirmed, agreed(101))),
        None,
        Some((Symptom::Threshold, agreed(102))),
        Some((Symptom::Unconfirmed, agreed(102))),
        None,
        Some((Symptom::Unconfirmed, agreed(106))),
        Some((Symptom::Threshold, agreed(102))),
    ];
    assert_eq!(findings(threshold(Side::Above, 20, 5, 10), &steps), expected);
}

#[test]
fn a_gap_is_one_finding_and_breaks_a_hold_time_that_is_still_running() {
    let mut analyzer = Analyzer::new(&genesis(&[threshold(Side::Above, 20, 5, 20)]));
    let advance = |analyzer: &mut Analyzer, index| {
        let window = closed(index, Finality::Confirmed, vec![exactly(25)]);
        analyzer.advance(&window, agreed(index)).len()
    };
    assert_eq!(advance(&mut analyzer, 100), 0);
    let gap = analyzer.pass_gap(WindowIndex::new(109), agreed(109));
    assert_eq!((gap.policy, gap.symptom, gap.window), (None, Symptom::Gap, WindowIndex::new(109)));
    let found: Vec<usize> = (110..114).map(|index| advance(&mut analyzer, index)).collect();
    assert_eq!(found, [0, 0, 1, 1]);
}

#[test]
fn silence_is_absence_after_the_allowed_number_of_learned_intervals() {
    let condition = Condition::Absence { after_milli_intervals: 1500 };
    let since = |window| WindowIndex::new(window).close(WINDOW);
    // Each row: the last window with samples, the learned interval, and what window 100 finds.
    let rows = [
        ("one empty window of 10 s is shorter than 1.5 intervals", silent(Some(99), 10_000), None),
        ("two are longer", silent(Some(98), 10_000), Some((Symptom::Absence, since(98)))),
        ("a minute's series may be silent for 80 s", silent(Some(92), 60_000), None),
        ("and not for 90 s", silent(Some(91), 60_000), Some((Symptom::Absence, since(91)))),
        ("a series that was never seen is not absent", silent(None, 10_000), None),
        ("without a learned interval nothing is absent", silent(Some(1), 0), None),
        ("a held value is not absent", Reading::Held { value: interval(1, 1, 1), since: since(98) }, None),
        ("zero is a value", exactly(0), None),
    ];
    for (what, reading, expected) in rows {
        assert_eq!(findings(condition.clone(), &confirmed(&[reading])), [expected], "{what}");
    }
}

#[test]
fn an_absence_says_how_long_the_silence_may_be() {
    let mut analyzer = Analyzer::new(&genesis(&[Condition::Absence { after_milli_intervals: 1500 }]));
    let found =
        analyzer.advance(&closed(100, Finality::Confirmed, vec![silent(Some(90), 10_000)]), agreed(100));
    let against: Vec<_> = found.iter().map(|finding| (finding.observed, finding.against)).collect();
    assert_eq!(against, [(None, Some(Quantity::from_i64(15)))]);
}

#[test]
fn the_newest_new_events_are_remembered_and_nothing_else_is() {
    let mut genesis = genesis(&[threshold(Side::Above, 1, 0, 0), threshold(Side::Above, 1, 0, 0)]);
    genesis.policies[1].indicator.statistic = Statistic::Increase;
    let mut analyzer = Analyzer::new(&genesis);
    let held = Reading::Held { value: interval(2, 2, 2), since: agreed(103) };
    let unconfirmed = Finality::Unconfirmed;
    let steps = [
        ("nothing yet", Finality::Confirmed, exactly(0), None),
        ("events", Finality::Confirmed, exactly(3), Some(101)),
        ("no more of them", Finality::Confirmed, exactly(0), Some(101)),
        ("newer ones", Finality::Confirmed, exactly(2), Some(103)),
        ("the same, repeated", Finality::Confirmed, held, Some(103)),
        ("perhaps some", Finality::Confirmed, between(0, 1, 1), Some(103)),
        ("unconfirmed ones", unconfirmed, exactly(5), Some(103)),
        ("nobody knows", Finality::Confirmed, Reading::Unknown, Some(103)),
        ("silence", Finality::Confirmed, silent(Some(103), 10_000), Some(103)),
    ];
    for ((what, finality, reading, expected), index) in steps.into_iter().zip(100..) {
        let _ = analyzer.advance(&closed(index, finality, vec![reading, reading]), agreed(index));
        let remembered: Vec<_> = analyzer
            .remembered()
            .map(|finding| (finding.policy.clone(), finding.symptom, finding.window.index()))
            .collect();
        let expected = expected.map(|window| (Some("p1".to_owned()), Symptom::Threshold, window));
        assert_eq!(remembered, Vec::from_iter(expected), "{what}");
    }
    assert!(analyzer.fits(&genesis));
    genesis.policies[1].indicator.statistic = Statistic::Last;
    assert!(!analyzer.fits(&genesis));
}

#[test]
fn the_state_survives_its_encoding() {
    let conditions = [threshold(Side::Above, 20, 5, 30), Condition::Absence { after_milli_intervals: 1500 }];
    let mut analyzer = Analyzer::new(&genesis(&conditions));
    let window = closed(100, Finality::Confirmed, vec![exactly(25), exactly(1)]);
    let before = Digest::of_value(&analyzer);
    let _ = analyzer.advance(&window, agreed(100));
    assert_ne!(before, Digest::of_value(&analyzer), "a symptom that has begun is part of the state");
    let bytes = borsh::to_vec(&analyzer).expect("writing to memory does not fail");
    assert_eq!(borsh::from_slice::<Analyzer>(&bytes).expect("own bytes"), analyzer);
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let point = -5i64..40;
    let value = (point.clone(), point.clone(), point)
        .prop_map(|(a, b, c)| {
            let mut points = [a, b, c];
            points.sort_unstable();
            interval(points[0], points[1], points[2])
        })
        .boxed();
    prop_oneof![
        value.clone().prop_map(Reading::Fresh),
        (value, any::<u64>())
            .prop_map(|(value, since)| Reading::Held { value, since: UnixMillis::new(since) }),
        (any::<Option<u64>>(), any::<u64>()).prop_map(|(since, learned_interval_ms)| Reading::NoSamples {
            since: since.map(UnixMillis::new),
            learned_interval_ms
        }),
        Just(Reading::Unknown),
    ]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let side = prop_oneof![Just(Side::Above), Just(Side::Below)];
    prop_oneof![
        (side, -5i64..40, -5i64..40, 0u64..40).prop_map(|(side, a, b, hold)| match side {
            Side::Above => threshold(side, a.max(b), a.min(b), hold),
            Side::Below => threshold(side, a.min(b), a.max(b), hold),
        }),
        any::<u32>().prop_map(|after_milli_intervals| Condition::Absence { after_milli_intervals }),
    ]
}

proptest! {
    #[test]
    fn a_threshold_finding_is_past_leave_at_every_point_and_only_confirmed_windows_make_one(
        condition in any_condition(),
        steps in proptest::collection::vec((any::<bool>(), any_reading(), any::<u64>()), 1..30),
    ) {
        let mut analyzer = Analyzer::new(&genesis(std::slice::from_ref(&condition)));
        for (index, (is_confirmed, reading, now)) in steps.into_iter().enumerate() {
            let finality = if is_confirmed { Finality::Confirmed } else { Finality::Unconfirmed };
            let window = closed(index as u64, finality, vec![reading]);
            for finding in analyzer.advance(&window, UnixMillis::new(now)) {
                let actionable = matches!(finding.symptom, Symptom::Threshold | Symptom::Absence);
                prop_assert!(is_confirmed || !actionable);
                if finding.symptom != Symptom::Threshold {
                    continue;
                }
                let Condition::Threshold { side, enter, leave, .. } = condition else {
                    return Err(TestCaseError::fail("an absence policy found a threshold"));
                };
                let seen = finding.observed.expect("a threshold finding has a value");
                for point in [seen.low, seen.median, seen.high] {
                    let past = match side {
                        Side::Above => point > leave || point >= enter,
                        Side::Below => point < leave || point <= enter,
                    };
                    prop_assert!(past);
                }
            }
        }
    }

    #[test]
    fn windows_of_any_number_and_length_never_panic(
        window in any::<u64>(), now in any::<u64>(), length in any::<u64>(), reading in any_reading(),
    ) {
        let mut genesis = genesis(&[threshold(Side::Above, 3, 1, 5), Condition::Absence { after_milli_intervals: u32::MAX }]);
        genesis.parameters.window = Millis::new(length);
        let mut analyzer = Analyzer::new(&genesis);
        let _ = analyzer.advance(&closed_at(window, vec![reading, reading]), UnixMillis::new(now));
        let _ = analyzer.pass_gap(WindowIndex::new(window), UnixMillis::new(now));
        let _ = analyzer.advance(&closed_at(window, vec![reading]), UnixMillis::new(now));
    }
}

fn closed_at(window: u64, readings: Vec<Reading>) -> ClosedWindow {
    ClosedWindow {
        window: WindowIndex::new(window),
        closed_at: UnixMillis::ZERO,
        ..closed(0, Finality::Confirmed, readings)
    }
}

#[test]
fn a_source_that_does_not_add_up_is_found_by_its_checks_name_and_nothing_is_learned_of_what_was_not_seen() {
    let selector =
        |name: &str| Selector { source: None, name: name.to_owned(), attributes: Attributes::new() };
    let mut genesis = genesis(&[Condition::Conservation {
        outflow: selector("out"),
        stock: selector("stock"),
        tolerance: Quantity::from_i64(1),
        over: Millis::from_secs(60),
    }]);
    genesis.policies[0].indicator.statistic = Statistic::Increase;
    let window = |index, finality, inflow, stock| {
        let terms = [
            ("series", Statistic::Increase, inflow),
            ("out", Statistic::Increase, 0),
            ("stock", Statistic::Last, stock),
        ];
        let series = terms.map(|(name, statistic, value)| {
            let key = SeriesKey {
                source: SourceId::new("engine").expect("a valid name"),
                name: name.to_owned(),
                attributes: Attributes::new(),
                resource: Attributes::new(),
            };
            (key, BTreeMap::from([(statistic, interval(value, value, value))]))
        });
        ClosedWindow { series: series.into(), ..closed(index, finality, vec![exactly(inflow)]) }
    };
    let mut analyzer = Analyzer::new(&genesis);
    let (yes, no) = (Finality::Confirmed, Finality::Unconfirmed);
    let steps = [
        (yes, 0, 7, None),
        (yes, 4, 7, Some(Symptom::Threshold)),
        (no, 0, 7, Some(Symptom::Unconfirmed)),
        (yes, 9, 7, None),
        (yes, 0, 7, None),
    ];
    for (index, (finality, inflow, stock, expected)) in (100..).zip(steps) {
        let found = analyzer.advance(&window(index, finality, inflow, stock), agreed(index));
        let found: Vec<&Finding> =
            found.iter().filter(|found| found.policy.as_deref() == Some("p0")).collect();
        assert_eq!(found.first().map(|found| found.symptom), expected, "{index}");
        assert!(analyzer.fits(&genesis), "what it remembers is of its genesis");
    }
    assert_eq!(analyzer.advance(&window(106, yes, 4, 7), agreed(106)).len(), 1);
    drop(analyzer.pass_gap(WindowIndex::new(107), agreed(107)));
    assert_eq!(analyzer.advance(&window(108, yes, 0, 7), agreed(108)), []);
    assert_eq!(analyzer.remembered().count(), 0, "it is no event");
    let bytes = borsh::to_vec(&analyzer).expect("memory takes all");
    assert_eq!(borsh::from_slice::<Analyzer>(&bytes).ok(), Some(analyzer));
}
