//! Books that balance, books that do not, and intervals that leave it open.

use proptest::prelude::*;
use std::collections::BTreeMap;

use super::{Books, Conservation, Merged};
use crate::{
    analyze::analyzer::Moment,
    knowledge::{
        finding::{Interval, Symptom},
        observation::{AttributeValue, Attributes, SeriesKey},
        policy::{Selector, Statistic},
    },
    types::{Millis, Quantity, SourceId, UnixMillis, WindowIndex},
};

const WINDOW: Millis = Millis::from_secs(10);

fn number(value: i64) -> Quantity {
    Quantity::from_i64(value)
}

fn source() -> SourceId {
    SourceId::new("engine").expect("a valid name")
}

fn selector(name: &str) -> Selector {
    Selector { source: Some(source()), name: name.to_owned(), attributes: Attributes::new() }
}

/// Arrivals less completions are the change of the backlog, give or take five, over a minute.
fn detector() -> Conservation {
    Conservation::new(Books {
        inflow: selector("arrivals"),
        outflow: selector("completions"),
        stock: selector("backlog"),
        tolerance: number(5),
        over: Millis::from_secs(60),
    })
}

fn between(low: i64, high: i64) -> Interval {
    Interval { low: number(low), median: number(low), high: number(high) }
}

fn exactly(value: i64) -> Interval {
    between(value, value)
}

fn key(name: &str, queue: i64) -> SeriesKey {
    SeriesKey {
        source: source(),
        name: name.to_owned(),
        attributes: Attributes::from([("queue".to_owned(), AttributeValue::Integer(queue))]),
        resource: Attributes::new(),
    }
}

/// A window in which each of the three has one series, or none.
fn seen(inflow: Option<Interval>, outflow: Option<Interval>, stock: Option<Interval>) -> Merged {
    let terms = [
        ("arrivals", Statistic::Increase, inflow),
        ("completions", Statistic::Increase, outflow),
        ("backlog", Statistic::Last, stock),
    ];
    let series = terms
        .into_iter()
        .filter_map(|(name, statistic, value)| Some((key(name, 0), BTreeMap::from([(statistic, value?)]))));
    series.collect()
}

fn all(inflow: i64, outflow: i64, stock: i64) -> Merged {
    seen(Some(exactly(inflow)), Some(exactly(outflow)), Some(exactly(stock)))
}

fn moment(index: u64) -> Moment {
    let window = WindowIndex::new(index);
    Moment { window, length: WINDOW, now: agreed(index) }
}

fn agreed(index: u64) -> UnixMillis {
    WindowIndex::new(index).close(WINDOW).plus(Millis::from_secs(3))
}

/// What is found in windows from 100 on: the symptom, the window since which it lasts, and what is missing.
fn found(windows: &[Merged]) -> Vec<Option<(Symptom, u64, Interval)>> {
    let mut detector = detector();
    let steps = (100..).zip(windows);
    let look = |(index, merged): (u64, &Merged)| {
        let sighting = detector.look(moment(index), merged)?;
        let since = (100..=index).find(|index| agreed(*index) == sighting.since).expect("it is one of them");
        assert_eq!(sighting.against, number(5));
        Some((sighting.symptom, since, sighting.observed.expect("it says what is missing")))
    };
    steps.map(look).collect()
}

#[test]
fn what_does_not_add_up_is_found_in_each_window_in_which_it_lasts() {
    let (threshold, disputed) = (Symptom::Threshold, Symptom::Disputed);
    let missing = |symptom, since, low, high| Some((symptom, since, between(low, high)));
    let wide = seen(Some(between(10, 20)), Some(exactly(0)), Some(exactly(17)));
    let none = seen(None, None, None);
    let no_stock = seen(Some(exactly(9)), Some(exactly(0)), None);
    let mut two_queues = all(5, 0, 12);
    two_queues.insert(key("arrivals", 1), BTreeMap::from([(Statistic::Increase, exactly(70))]));
    let leak = |stock| all(10, 0, stock);
    let table = [
        ("books that balance", vec![all(9, 0, 7), all(5, 2, 10), all(0, 10, 0)], vec![None, None, None]),
        (
            "B4 flows of the first window lie before the span",
            vec![all(900, 0, 7), all(0, 0, 7)],
            vec![None, None],
        ),
        ("within the tolerance", vec![all(0, 0, 7), all(5, 0, 7), all(0, 0, 7)], vec![None, None, None]),
        (
            "B5 more came than is there",
            vec![all(0, 0, 7), all(6, 0, 7), all(0, 0, 7), all(0, 6, 7)],
            vec![None, missing(threshold, 101, 6, 6), missing(threshold, 101, 6, 6), None],
        ),
        (
            "B5 more is there than came",
            vec![all(0, 0, 7), all(0, 0, 40)],
            vec![None, missing(threshold, 101, -33, -33)],
        ),
        (
            "small losses add up, and leave with the span",
            [0, 8, 16, 24, 34, 44, 54, 64, 74, 84].map(leak).to_vec(),
            [vec![None; 3], vec![missing(threshold, 103, 6, 6); 4], vec![None; 3]].concat(),
        ),
        (
            "B5 only for some points",
            vec![all(0, 0, 7), wide, all(0, 0, 17)],
            vec![None, missing(disputed, 101, 0, 10), missing(disputed, 101, 0, 10)],
        ),
        (
            "B2 windows without samples say nothing and interrupt nothing",
            vec![all(0, 0, 7), none.clone(), all(9, 0, 7), none, all(0, 0, 7)],
            vec![None, None, missing(threshold, 102, 9, 9), None, missing(threshold, 102, 9, 9)],
        ),
        ("B3 a term is missing", vec![all(0, 0, 7), no_stock, all(0, 0, 7)], vec![None, None, None]),
        (
            "B3 a series came",
            vec![all(0, 0, 7), two_queues.clone(), two_queues],
            vec![None, None, missing(threshold, 102, 75, 75)],
        ),
    ];
    for (name, windows, expected) in table {
        assert_eq!(found(&windows), expected, "{name}");
    }
}

#[test]
fn it_remembers_its_span_and_no_more() {
    let mut detector = detector();
    for index in 0..1_000 {
        assert_eq!(detector.look(moment(100 + index), &all(1, 1, 7)), None);
        assert!(detector.points.len() <= 7, "six windows, and the stock before them");
    }
    detector.begin_anew();
    assert_eq!(detector, super::tests::detector());
}

proptest! {
    /// Interval arithmetic, said again with points: a finding holds for every choice, a dispute for some and not for all,
    /// silence for none.
    #[test]
    fn a_finding_holds_for_every_choice_of_points_and_a_dispute_only_for_some(
        windows in proptest::collection::vec(((-20_i64..20, 0_i64..4), (-20_i64..20, 0_i64..4), (-20_i64..20, 0_i64..4)), 2..6),
        choices in proptest::collection::vec(proptest::collection::vec(0.0_f64..1.0, 18), 40),
    ) {
        let interval = |(low, width): (i64, i64)| Some(between(low, low + width));
        let merged: Vec<Merged> = windows
            .iter()
            .map(|(inflow, outflow, stock)| seen(interval(*inflow), interval(*outflow), interval(*stock)))
            .collect();
        let verdict = found(&merged).pop().flatten().map(|(symptom, ..)| symptom);
        // Both extremes, and points between them.
        let least = |place: usize| if place.is_multiple_of(3) { 0.0 } else { 1.0 };
        let extremes = [false, true].map(|most| {
            (0..18).map(|place| {
                // The stock of the first window counts the other way round.
                let at = if place == 2 { 0.0 } else { least(place) };
                if most { 1.0 - at } else { at }
            }).collect::<Vec<f64>>()
        });
        let mut missing = Vec::new();
        for choice in choices.iter().chain(&extremes) {
            let mut place = 0;
            let mut point = |(low, width): (i64, i64)| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers of a test")]
                let chosen = low + (choice[place] * width as f64).round() as i64;
                place += 1;
                chosen
            };
            let points: Vec<[i64; 3]> = windows
                .iter()
                .map(|(inflow, outflow, stock)| [point(*inflow), point(*outflow), point(*stock)])
                .collect();
            let flowed: i64 = points[1..].iter().map(|[inflow, outflow, _]| inflow - outflow).sum();
            missing.push(flowed - (points[points.len() - 1][2] - points[0][2]));
        }
        let wrong = missing.iter().filter(|missing| missing.abs() > 5).count();
        match verdict {
            Some(Symptom::Threshold) => prop_assert_eq!(wrong, missing.len()),
            // Points on both sides of the tolerance are all wrong, but not for one reason.
            Some(Symptom::Disputed) => prop_assert!(wrong > 0),
            Some(_) => prop_assert!(false, "no other symptom"),
            None => prop_assert_eq!(wrong, 0),
        }
    }
}
