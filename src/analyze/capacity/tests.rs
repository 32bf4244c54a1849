//! The capacity model by hand-counted windows of ten seconds.

use super::{Capacity, Side};
use crate::analyze::analyzer::Moment;
use crate::knowledge::{
    finding::Interval,
    observation::Attributes,
    policy::{Capacity as Model, Combine, Indicator, Selector, Statistic},
    snapshot::Reading,
};
use crate::types::{Millis, Quantity, WindowIndex};

fn indicator(name: &str, statistic: Statistic) -> Indicator {
    let selector = Selector { source: None, name: name.to_owned(), attributes: Attributes::new() };
    Indicator { selector, statistic, combine: Combine::Sum }
}

/// Half of the slots' time is to be work; a backlog is to be gone in 20 s.
fn model() -> Model {
    Model {
        work: indicator("work", Statistic::Increase),
        completions: indicator("done", Statistic::Increase),
        backlog: indicator("depth", Statistic::Last),
        utilization_milli: 500,
        drain: Millis::from_secs(20),
        lead: Millis::from_secs(60),
        smooth: Millis::ZERO,
        keep: Millis::from_secs(30),
    }
}

fn moment(window: u64) -> Moment {
    let (window, length) = (WindowIndex::new(window), Millis::from_secs(10));
    Moment { window, length, now: window.close(length).plus(Millis::from_secs(2)) }
}

fn exactly(value: i64) -> Reading {
    between(value, value, value)
}

fn between(low: i64, median: i64, high: i64) -> Reading {
    let [low, median, high] = [low, median, high].map(Quantity::from_i64);
    Reading::Fresh(Interval { low, median, high })
}

/// Jobs of three seconds: six were finished in the window.
fn side(backlog: Reading) -> Side {
    Side { work: exactly(18), completions: exactly(6), backlog }
}

fn wanted(capacity: &mut Capacity, window: u64, arrivals: Reading, side: Side) -> Option<[i64; 3]> {
    let sighting = capacity.look(moment(window), arrivals, side)?;
    let interval = sighting.observed.expect("it always says what it saw");
    Some([interval.low, interval.median, interval.high].map(|slots| slots.to_i64().expect("whole slots")))
}

#[test]
fn the_load_asks_for_its_work_over_the_utilization_and_for_what_drains_the_backlog() {
    // Two jobs a second of three seconds are six slots' work, of which each is to do half a slot's.
    let mut capacity = Capacity::new(&model());
    assert_eq!(wanted(&mut capacity, 1, exactly(20), side(exactly(0))), Some([12, 12, 12]));
    // Forty more jobs of three seconds within twenty seconds: six more.
    assert_eq!(wanted(&mut capacity, 2, exactly(20), side(exactly(40))), Some([18, 18, 18]));
    // A part of a slot is a slot.
    let mut capacity = Capacity::new(&model());
    assert_eq!(wanted(&mut capacity, 1, exactly(20), side(exactly(1))), Some([13, 13, 13]));
}

#[test]
fn the_ends_of_the_readings_are_the_ends_of_the_answer() {
    let mut capacity = Capacity::new(&model());
    let side = Side { work: between(12, 18, 24), completions: between(4, 6, 8), backlog: between(0, 20, 40) };
    // Jobs take 12/8 to 24/4 s; 1 to 3 arrive in a second.
    assert_eq!(wanted(&mut capacity, 1, between(10, 20, 30), side), Some([6, 15, 48]));
}

#[test]
fn the_highest_recommendation_holds_for_a_while_at_the_upper_end_only() {
    let mut capacity = Capacity::new(&model());
    assert_eq!(wanted(&mut capacity, 1, exactly(20), side(exactly(0))), Some([12, 12, 12]));
    assert_eq!(wanted(&mut capacity, 2, exactly(10), side(exactly(0))), Some([6, 6, 12]));
    assert_eq!(wanted(&mut capacity, 3, exactly(10), side(exactly(0))), Some([6, 6, 12]));
    assert_eq!(wanted(&mut capacity, 4, exactly(10), side(exactly(0))), Some([6, 6, 6]));
}

#[test]
fn a_forecast_raises_and_never_lowers() {
    let mut capacity = Capacity::new(&model());
    for (window, arrivals) in (1..).zip([10, 20, 30]) {
        wanted(&mut capacity, window, exactly(arrivals), side(exactly(0)));
    }
    let rising = wanted(&mut capacity, 4, exactly(40), side(exactly(0))).expect("all is known");
    assert!(rising[0] > 24, "four a second ask for 24, and more come in a minute: {rising:?}");
    assert_eq!(rising[0], rising[1], "it is one forecast for all");
    let mut falling = Capacity::new(&model());
    for (window, arrivals) in (1..).zip([40, 30, 20]) {
        wanted(&mut falling, window, exactly(arrivals), side(exactly(0)));
    }
    let now = wanted(&mut falling, 4, exactly(10), side(exactly(0))).expect("all is known");
    assert_eq!(now[..2], [6, 6], "one a second asks for six, however fast it fell");
}

#[test]
fn an_increase_is_over_the_time_since_the_last_samples() {
    let mut capacity = Capacity::new(&model());
    let none = Reading::NoSamples { since: None, learned_interval_ms: 60_000 };
    assert_eq!(wanted(&mut capacity, 1, exactly(20), side(exactly(0))), Some([12, 12, 12]));
    for window in 2..7 {
        assert_eq!(wanted(&mut capacity, window, none, side(exactly(0))), None);
    }
    // A minute's jobs come at once from an engine that exports every minute.
    assert_eq!(wanted(&mut capacity, 7, exactly(120), side(exactly(0))), Some([12, 12, 12]));
}

#[test]
fn nothing_is_recommended_while_nobody_knows_how_long_a_job_takes() {
    let mut capacity = Capacity::new(&model());
    let unknown = Side { work: exactly(0), completions: exactly(0), backlog: exactly(50) };
    assert_eq!(wanted(&mut capacity, 1, exactly(20), unknown), None);
    assert_eq!(wanted(&mut capacity, 2, Reading::Unknown, side(exactly(0))), None);
    assert!(wanted(&mut capacity, 3, exactly(20), side(exactly(0))).is_some());
}

#[test]
fn the_largest_readings_overflow_nothing() {
    let mut capacity = Capacity::new(&Model { utilization_milli: 1, drain: Millis::new(1), ..model() });
    let huge = Reading::Fresh(Interval {
        low: Quantity::ZERO,
        median: Quantity::from_nanos(i128::MAX),
        high: Quantity::from_nanos(i128::MAX),
    });
    let side = Side { work: huge, completions: exactly(1), backlog: huge };
    for window in 1..100 {
        let seen = wanted(&mut capacity, window, huge, side).expect("all is known");
        assert_eq!(seen[1..], [1_000_000, 1_000_000]);
    }
}
