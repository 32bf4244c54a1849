//! The detectors' tests: each as a table of what it is shown and when it finds something; then what holds for
//! all of them.

use super::{
    Backlog, BurnRate, Detector, FOUND, Holt, LevelShift, Limit, MAX_STATE_BYTES, Method, Novelty, Range,
    Sample, Seen, Stall, Verdict,
    clean::{Clean, Kind},
};
use crate::types::{Digest, Hasher, Quantity, UnixMillis};

const SEEDS: u64 = 8;
const LENGTH: usize = 10_000;
const FIVE_MINUTES: u64 = 300_000;

fn number(value: f64) -> Quantity {
    Quantity::from_f64(value).expect("it is small")
}

fn at(index: u64, value: f64) -> Sample {
    Sample { at: UnixMillis::new(1_700_000_000_000 + FIVE_MINUTES * index), value: number(value) }
}

fn detector(method: Method) -> Detector {
    match method {
        Method::Novelty => Detector::Novelty(Novelty::new()),
        Method::Holt => Detector::Holt(Holt::new()),
        Method::Range => Detector::Range(Range::new()),
        Method::LevelShift => Detector::LevelShift(LevelShift::new()),
        Method::BurnRate => Detector::BurnRate(BurnRate::new(number(0.999)).expect("it is a share")),
        Method::Limit => Detector::Limit(Limit::new(number(1e6))),
        Method::Stall => Detector::Stall(Stall::new()),
    }
}

/// The indexes at which something is found.
fn found(method: Method, samples: impl IntoIterator<Item = Sample>) -> Vec<usize> {
    let mut detector = detector(method);
    let verdicts = samples.into_iter().map(|sample| detector.look(sample));
    verdicts.enumerate().filter(|(_, verdict)| verdict.finding.is_some()).map(|(index, _)| index).collect()
}

/// A clean series to which something is added from an index on.
fn disturbed(kind: Kind, seed: u64, from: u64, until: u64, by: f64) -> impl Iterator<Item = Sample> {
    Clean::new(kind, seed).take(LENGTH).zip(0..).map(move |(sample, index)| {
        let by = if (from..until).contains(&index) { number(by) } else { Quantity::ZERO };
        Sample { value: sample.value.plus(by), ..sample }
    })
}

#[test]
fn clean_series_give_fewer_than_three_alarms_in_ten_thousand_samples() {
    for method in [Method::Novelty, Method::Holt, Method::Range, Method::LevelShift] {
        for kind in Kind::ALL {
            let alarms = |seed| found(method, Clean::new(kind, seed).take(LENGTH)).len();
            let alarms: Vec<usize> = (0..SEEDS).map(alarms).collect();
            let sum: usize = alarms.iter().sum();
            assert!(
                sum < 3 * usize::try_from(SEEDS).expect("a few"),
                "{method:?} on {kind:?}: {alarms:?} alarms by seed"
            );
        }
    }
}

#[test]
fn a_value_that_never_was_is_novel_at_once_and_then_there_is_silence() {
    for kind in [Kind::Noisy, Kind::Trending, Kind::Daily, Kind::Weekly] {
        let alarms = found(Method::Novelty, disturbed(kind, 1, 6000, 6040, 150.0));
        let near: Vec<_> = alarms.iter().filter(|index| (6000..6400).contains(*index)).collect();
        assert_eq!(near, [&6000], "{kind:?}: {alarms:?}");
    }
}

#[test]
fn a_value_of_the_night_is_novel_by_day() {
    // Flat at the level of the night's trough for a day: no value is new, the pair with the mean is.
    let samples = Clean::new(Kind::Daily, 3).take(LENGTH).zip(0_u64..);
    let level = Clean::new(Kind::Constant, 3).next().expect("it has no end").value;
    let flat = samples.map(|(sample, index)| {
        let stuck = Sample { value: level.minus(number(18.0)), ..sample };
        if (6000..6400).contains(&index) { stuck } else { sample }
    });
    let alarms = found(Method::Novelty, flat);
    assert!(alarms.iter().any(|index| (6000..6400).contains(index)), "{alarms:?}");
}

#[test]
fn the_novelty_of_a_series_depends_neither_on_its_origin_nor_on_its_unit() {
    let score = |factor: i64, origin: i64| -> Vec<f64> {
        let mut novelty = Novelty::new();
        disturbed(Kind::Daily, 2, 5000, 5010, 90.0)
            .map(|sample| {
                let value = sample.value.times(factor).plus(Quantity::from_i64(origin));
                novelty.look(Sample { value, ..sample }).score
            })
            .collect()
    };
    let plain = score(1, 0);
    for (factor, origin) in [(1, 1_000_000), (1024, 0), (1024, -5_000_000)] {
        let other = score(factor, origin);
        let same = plain.iter().zip(&other).filter(|(one, other)| (*one - *other).abs() < 1e-3).count();
        assert!(same * 1000 >= plain.len() * 995, "{same} of {} at {factor}, {origin}", plain.len());
        assert!(other[5000] >= FOUND);
    }
}

#[test]
fn holt_finds_a_spike_and_follows_a_slope() {
    assert_eq!(found(Method::Holt, disturbed(Kind::Noisy, 4, 7000, 7001, 200.0)), [7000]);
    let slope = (0..2000).map(|n| at(n, 3.0 * f64::from(u32::try_from(n).expect("small"))));
    assert_eq!(found(Method::Holt, slope), [0_usize; 0]);
}

#[test]
fn a_value_past_the_range_is_found_once_for_as_long_as_it_stays() {
    let alarms = found(Method::Range, disturbed(Kind::Daily, 5, 4000, 4500, 500.0));
    assert_eq!(alarms.first(), Some(&4000));
    let inside = found(Method::Range, disturbed(Kind::Daily, 5, 4000, 4500, 0.0));
    assert_eq!(inside, [0_usize; 0]);
}

#[test]
fn a_level_that_moves_is_found_with_the_time_when_it_did_and_a_spike_is_not() {
    for (kind, by) in [(Kind::Constant, 5.0), (Kind::Noisy, 25.0), (Kind::Daily, -80.0)] {
        let mut shift = LevelShift::new();
        let verdicts: Vec<Verdict> =
            disturbed(kind, 6, 5000, u64::MAX, by).map(|sample| shift.look(sample)).collect();
        let (index, finding) = verdicts
            .iter()
            .enumerate()
            .find_map(|(index, verdict)| verdict.finding.map(|finding| (index, finding)))
            .expect("the shift is found");
        assert!((5000..5100).contains(&index), "{kind:?} at {index}");
        // Noise may have begun the sum a little earlier.
        assert!((4990..=5000).any(|index| finding.since == at(index, 0.0).at), "{kind:?} {finding:?}");
        let Seen::Shift { from, to } = finding.seen else { panic!("{finding:?}") };
        assert!((to - from - by).abs() < 30.0, "{kind:?} {from} {to}");
    }
    assert_eq!(found(Method::LevelShift, disturbed(Kind::Noisy, 6, 5000, 5010, 500.0)), [0_usize; 0]);
}

/// Until which minute, and the share of errors until then.
type Steps = &'static [(u64, f64)];

/// One sample a minute; the factor and the hours of what is found at the end.
fn burn(steps: Steps) -> Option<(f64, f64)> {
    let mut detector = BurnRate::new(number(0.999)).expect("it is a share");
    let (mut minute, mut last) = (0, Verdict::QUIET);
    for (until, share) in steps {
        while minute < *until {
            last = detector.look(Sample {
                at: UnixMillis::new(1_700_000_000_000 + 60_000 * minute),
                value: number(*share),
            });
            minute += 1;
        }
    }
    last.finding.map(|finding| match finding.seen {
        Seen::Burning { allowed, hours, .. } => (allowed, hours),
        Seen::Novel { .. }
        | Seen::Surprise { .. }
        | Seen::Outside { .. }
        | Seen::Shift { .. }
        | Seen::Near { .. }
        | Seen::Stalled { .. } => panic!("{finding:?}"),
    })
}

#[test]
fn a_budget_burns_by_the_pair_of_windows_that_both_show_it() {
    const DAY: u64 = 24 * 60;
    let table: [(Steps, Option<(f64, f64)>); 7] = [
        (&[(DAY, 0.0)], None),
        // Twenty times the budget for an hour and a quarter.
        (&[(DAY, 0.0), (DAY + 75, 0.020)], Some((14.4, 1.0))),
        // The same, and then ten quiet minutes: the short window has seen nothing since.
        (&[(DAY, 0.0), (DAY + 75, 0.020), (DAY + 85, 0.0)], None),
        // A spike of five minutes fills the short window only.
        (&[(DAY, 0.0), (DAY + 5, 0.020)], None),
        // Eight times for seven hours.
        (&[(DAY, 0.0), (DAY + 420, 0.008)], Some((6.0, 6.0))),
        // One and a half times: only the three days show it, and only once they have been seen.
        (&[(2 * DAY, 0.0015)], None),
        (&[(4 * DAY, 0.0015)], Some((1.0, 72.0))),
    ];
    for (steps, expected) in table {
        assert_eq!(burn(steps), expected, "{steps:?}");
    }
    for objective in [-0.5, 0.0, 1.0, 1.5] {
        assert!(BurnRate::new(number(objective)).is_err(), "{objective}");
    }
}

#[test]
fn a_filling_disk_is_found_four_hours_before_it_is_full() {
    // 0.1 a sample of five minutes: 1.2 an hour, full at sample 1000.
    let mut limit = Limit::new(number(100.0));
    let fill = |n: u64| at(n, 0.1 * f64::from(u32::try_from(n).expect("small")));
    let first = (0..1000).find_map(|n| limit.look(fill(n)).finding.map(|finding| (n, finding)));
    let (index, finding) = first.expect("it fills");
    assert_eq!(index, 1000 - 48);
    let Seen::Near { hours, .. } = finding.seen else { panic!("{finding:?}") };
    assert!((hours - 4.0).abs() < 0.01, "{hours}");
    assert!(finding.to_string().ends_with("reaches 100.000000 in 4.0 h"), "{finding}");

    let mut limit = Limit::new(number(100.0));
    let draining = (0..990).map(|n| at(n, 99.0 - 0.1 * f64::from(u32::try_from(n).expect("small"))));
    assert!(draining.map(|sample| limit.look(sample)).all(|verdict| verdict.finding.is_none()));
}

#[test]
fn a_queue_is_stalled_when_work_waits_and_nothing_is_completed() {
    let mut stall = Stall::new();
    let minute =
        |n: u64, done: i64| Sample { at: UnixMillis::new(60_000 * n), value: Quantity::from_i64(done) };
    for n in 0..100 {
        let done = i64::try_from(n / 2).expect("small");
        assert_eq!(stall.look(minute(n, done), Backlog::Waiting).finding, None);
    }
    let idle = stall.clone();
    // The last completion was at minute 98, the usual span is two minutes: six of silence are a finding.
    let finds = |stall: &mut Stall, backlog| -> Vec<u64> {
        let found = |n: &u64| stall.look(minute(*n, 49), backlog).finding.is_some();
        (100..110).filter(found).collect()
    };
    assert_eq!(finds(&mut stall, Backlog::Waiting), [104, 105, 106, 107, 108, 109]);
    assert_eq!(finds(&mut idle.clone(), Backlog::Empty), [0_u64; 0]);
}

#[test]
fn no_state_exceeds_its_bound_and_every_score_is_a_share() {
    for method in Method::ALL {
        let mut detector = detector(method);
        let hard = Clean::new(Kind::Noisy, 9).take(3000).zip(0..).map(|(sample, index): (Sample, i64)| {
            // Values that leap over many orders of size, to the ends of what a quantity may hold.
            let factor = 10_i64.pow(u32::try_from(index % 18).expect("small"));
            Sample { value: sample.value.times(if index % 2 == 0 { factor } else { -factor }), ..sample }
        });
        let wide = Clean::new(Kind::Trending, 9).take(2000);
        for sample in hard.chain(wide) {
            let score = detector.look(sample).score;
            assert!((0.0..=1.0).contains(&score), "{method:?} {score}");
        }
        let bytes = borsh::to_vec(&detector).expect("no number is none").len();
        assert!(bytes <= MAX_STATE_BYTES, "{method:?} has {bytes} bytes");
    }
}

#[test]
fn a_state_that_is_stored_goes_on_as_if_it_had_not_been() {
    for method in Method::ALL {
        let mut whole = detector(method);
        let mut resumed = detector(method);
        for (sample, index) in disturbed(Kind::Daily, 7, 900, 950, 70.0).take(1500).zip(0..) {
            if index % 100 == 0 {
                let bytes = borsh::to_vec(&resumed).expect("no number is none");
                resumed = borsh::from_slice(&bytes).expect("it was written by the same code");
            }
            assert_eq!(whole.look(sample), resumed.look(sample), "{method:?} at {index}");
        }
    }
}

/// All verdicts' and the last state's bytes over every kind of series.
fn digest(method: Method) -> Digest {
    let mut hasher = Hasher::default();
    for kind in Kind::ALL {
        let mut detector = detector(method);
        for sample in disturbed(kind, 11, 6000, 6100, 60.0) {
            hasher.update(&detector.look(sample).score.to_bits().to_le_bytes());
        }
        hasher.update(&borsh::to_vec(&detector).expect("no number is none"));
    }
    hasher.finish()
}

#[test]
fn every_machine_gives_the_same_bytes() {
    let digests: Vec<String> = Method::ALL
        .into_iter()
        .map(|method| format!("{} {}", method.name(), &digest(method).to_string()[..23]))
        .collect();
    assert_eq!(digests, GOLDEN);
}

/// The digests' first characters: they change when a detector's rules or its state's form do.
const GOLDEN: [&str; 7] = [
    "novelty 858c8b731ba21d012d3413b",
    "holt 9a2bad8b7efd3535b30f750",
    "range 9971a46d86b6e09aa392535",
    "level-shift b10a5b6de49b07a690c1ae2",
    "burn-rate 364d1b61aea1dbe22db811d",
    "limit 71e8308166f6e401713259f",
    "stall e4788429e380ee5ef4b9c34",
];
