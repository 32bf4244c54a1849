//! Buckets against values that are known one by one.

use proptest::prelude::*;

use super::{Buckets, BucketsError, MAX_BUCKETS, MAX_REPORTED_BUCKETS};
use crate::types::Quantity;

fn positive(scale: i64, offset: i64, counts: &[u64]) -> Result<Buckets, BucketsError> {
    Buckets::of_counts(scale, 0, (0, &[]), (offset, counts))
}

fn near(value: Option<Quantity>, expected: f64, share: f64) {
    let value = value.expect("there are values").to_f64();
    assert!((value - expected).abs() <= expected.abs() * share + 1e-9, "{value} is not about {expected}");
}

/// The buckets of these values, as a client of this scale would count them.
fn of_values(scale: i8, values: &[f64]) -> Buckets {
    let one = |value: &f64| {
        let size = if *value == 0.0 { 1.0 } else { value.abs() };
        let index = size.log2() * f64::from(1 << scale);
        #[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
        let index = index.ceil() as i64 - 1;
        let side = |is: bool| (index, if is { &[1][..] } else { &[] });
        Buckets::of_counts(scale.into(), u64::from(*value == 0.0), side(*value < 0.0), side(*value > 0.0))
            .expect("it is a bucket")
    };
    values.iter().map(one).fold(Buckets::default(), |all, one| all.plus(&one))
}

#[test]
fn one_value_at_the_finest_scale_reads_as_itself() {
    let buckets = positive(20, 5_654_254, &[1]).expect("SDKs send this for one value of 42");
    near(buckets.quantile(500), 42.0, 1e-5);
    near(buckets.at_most(0).quantile(1_000), 2.0_f64.powi(97), 0.5);
}

#[test]
fn what_no_double_can_be_is_refused_and_nothing_overflows() {
    let table = [
        (positive(20, i64::MAX, &[1, 1]), BucketsError::Index),
        (positive(-10, i64::MIN, &[0, 1]), BucketsError::Index),
        (positive(0, 2_000, &[1]), BucketsError::Index),
        (positive(20, i64::from(i32::MAX), &[1]), BucketsError::Index),
        (positive(21, 0, &[1]), BucketsError::Scale),
        (positive(i64::MAX, 0, &[1]), BucketsError::Scale),
        (positive(-11, 0, &[1]), BucketsError::Scale),
        (positive(0, 0, &[1; 20_000]), BucketsError::Index),
        (Buckets::of_bounds(&[1.0, 1.0], &[1, 1, 1]), BucketsError::Bounds),
        (Buckets::of_bounds(&[1.0, f64::NAN], &[1, 1, 1]), BucketsError::Bounds),
    ];
    for (place, (buckets, error)) in table.into_iter().enumerate() {
        assert_eq!(buckets, Err(error), "{place}");
    }
    // An empty bucket lies nowhere, wherever a client says it is.
    assert_eq!(positive(20, i64::MAX, &[0, 0]), Ok(Buckets::default()));
    let full = positive(-10, 0, &[u64::MAX]).expect("it is a bucket");
    near(full.plus(&full).quantile(999), 1e29, 1e-9);
    let tiny = positive(20, -1_100 << 20, &[3]).expect("it is a bucket");
    assert_eq!(tiny.quantile(500), Some(Quantity::ZERO));
}

#[test]
fn explicit_bounds_read_as_the_bound_above_and_past_the_last_as_that() {
    let bounds = [-4.0, 0.0, 0.1, 50.0, 1_000.0];
    let counts = [1, 1, 2, 4, 1, 1];
    let buckets = Buckets::of_bounds(&bounds, &counts).expect("the bounds rise");
    let width = 0.003;
    for (thousandths, expected) in
        [(100, -4.0), (200, 0.0), (400, 0.1), (500, 50.0), (800, 50.0), (900, 1_000.0), (1_000, 1_000.0)]
    {
        near(buckets.quantile(thousandths), expected, width);
    }
    // A power of two is the end of a bucket, not the beginning of the next.
    let exact = Buckets::of_bounds(&[64.0], &[1, 0]).expect("the bounds rise");
    assert_eq!(exact.quantile(500), Some(Quantity::from_i64(64)));
    let huge = Buckets::of_bounds(&[1e30, 1.5e300], &[1, 1, 1]).expect("the bounds rise");
    near(huge.quantile(500), 1e29, 1e-9);
    assert!(Buckets::of_bounds(&[], &[5]).is_ok_and(|buckets| buckets.is_empty()));
    assert_eq!(Buckets::default().quantile(500), None);
}

#[test]
fn too_many_buckets_become_wider_and_lose_no_value() {
    let buckets = positive(5, -2_000, &[1; 4_000]).expect("they are buckets");
    assert!(buckets.bucket_count() <= MAX_BUCKETS);
    near(buckets.quantile(1_000), 2.0_f64.powi(2_000 / 32), 1.0);
    let reported = buckets.at_most(MAX_REPORTED_BUCKETS);
    assert!(reported.bucket_count() <= MAX_REPORTED_BUCKETS);
    let count: u64 = reported.positive.iter().map(|(_, count)| count).sum();
    assert_eq!(count, 4_000);
}

#[test]
fn buckets_that_break_the_invariant_cannot_be_read() {
    let good = positive(3, 10, &[1, 2]).expect("they are buckets");
    let bytes = borsh::to_vec(&good).expect("memory can be written");
    assert_eq!(borsh::from_slice::<Buckets>(&bytes).expect("it was written so"), good);
    for buckets in [
        Buckets { scale: 30, ..good.clone() },
        Buckets { positive: vec![(2, 1), (1, 1)], ..good.clone() },
        Buckets { positive: vec![(2, 1), (2, 1)], ..good.clone() },
        Buckets { positive: vec![(2, 0)], ..good.clone() },
        Buckets { negative: vec![(i32::MAX, 1)], ..good.clone() },
        Buckets { positive: (0..161).map(|index| (index, 1)).collect(), ..good },
    ] {
        let bytes = borsh::to_vec(&buckets).expect("memory can be written");
        assert!(borsh::from_slice::<Buckets>(&bytes).is_err(), "{buckets:?}");
    }
}

fn any_values() -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![Just(0.0), 1e-6..1e9, 1.0..2.0, -1e5..-1e-3, Just(1.0), Just(1_024.0)];
    prop::collection::vec(value, 1..120)
}

proptest! {
    #[test]
    fn a_quantile_is_never_below_the_true_one_and_above_it_by_less_than_a_bucket(
        mut values in any_values(),
        thousandths in 1_u64..=1_000,
        scale in 0_i8..=6,
    ) {
        let quantile = of_values(scale, &values).at_most(usize::MAX).quantile(thousandths);
        values.sort_by(f64::total_cmp);
        let rank = (values.len() * usize::try_from(thousandths).expect("small")).div_ceil(1_000);
        let truth = values[rank - 1];
        let found = quantile.expect("there are values").to_f64();
        let factor = (0..scale).fold(2.0_f64, |root, _| root.sqrt());
        let width = truth.abs() * (factor - 1.0);
        prop_assert!(found >= truth - truth.abs() * 1e-9 - 1e-8, "{found} is below {truth}");
        prop_assert!(found <= truth + width * 1.000_001 + 1e-8, "{found} is far above {truth}");
    }

    #[test]
    fn buckets_add_up_to_the_same_in_any_order_and_grouping(
        groups in prop::collection::vec((0_i8..=12, any_values()), 1..6),
        most in 2_usize..40,
    ) {
        let parts: Vec<Buckets> = groups.iter().map(|(scale, values)| of_values(*scale, values)).collect();
        let add = |all: Buckets, part: &Buckets| all.plus(part).at_most(most);
        let forward = parts.iter().fold(Buckets::default(), add);
        let backward = parts.iter().rev().fold(Buckets::default(), add);
        prop_assert_eq!(&forward, &backward);
        let at_once = parts.iter().fold(Buckets::default(), |all, part| all.plus(part)).at_most(most);
        prop_assert_eq!(forward, at_once);
    }

    #[test]
    fn what_came_since_is_what_was_added(
        before in any_values(),
        after in any_values(),
        scales in (0_i8..=6, 0_i8..=6),
    ) {
        let (before, after) = (of_values(scales.0, &before), of_values(scales.1, &after));
        let all = before.plus(&after);
        let since = all.risen_since(&before);
        prop_assert_eq!(since.quantile(1_000).is_some(), true);
        let count = |buckets: &Buckets| {
            let sides = buckets.negative.iter().chain(&buckets.positive);
            sides.map(|(_, count)| count).sum::<u64>() + buckets.zero
        };
        prop_assert_eq!(count(&since), count(&after));
    }
}
