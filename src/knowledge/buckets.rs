//! Exponential buckets: how many values lay in which range, as integers that can be added up over processes,
//! windows and scales, and what quantiles they show.
//!
//! At scale s the bucket with index i holds the values above 2^(i/2^s) up to 2^((i+1)/2^s). Merging two buckets
//! into one lowers the scale by one and is exact, so the same values give the same buckets in whatever order
//! they are added up. A quantile is read as the upper bound of its bucket: never below the true one, and above
//! it by less than the bucket's width. This is arithmetic; it knows no telemetry format.
//!
//! Invariant: buckets are in the order of their indices, none is empty, and no index lies outside what its
//! scale can mean.

use borsh::{BorshDeserialize, BorshSerialize};
use std::{cmp::Ordering, io, sync::LazyLock};

use crate::types::Quantity;

/// The most buckets that are kept of one series in a monitor: as many as SDKs send by default.
pub const MAX_BUCKETS: usize = 160;

/// The most buckets of one series in a report: a factor of 1000 between the smallest and the largest value
/// leaves them 11 % wide, and ten thousand such series still fit a report.
pub const MAX_REPORTED_BUCKETS: usize = 64;

/// The scale of buckets that stand for bounds which are no powers of anything: 0.3 % wide.
const BOUNDS_SCALE: i8 = 8;

const SCALES: std::ops::RangeInclusive<i8> = -10..=20;

/// No double lies beyond 2^±1100.
const LARGEST_EXPONENT: i64 = 1_100;

/// The most counts that a client may send for one point: a hundred times what SDKs do.
pub const MAX_COUNTS: usize = 16_384;

/// An index and how many values lie there.
type Bucket = (i32, u64);

/// How many values lay in which range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize)]
pub struct Buckets {
    scale: i8,
    /// Values that are zero, or too close to it to be told apart.
    zero: u64,
    /// By the index of the value's size.
    negative: Vec<Bucket>,
    positive: Vec<Bucket>,
}

/// Buckets that mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketsError {
    /// The scale is none.
    #[error("a scale is a number from -10 to 20")]
    Scale,
    /// An index is outside what doubles can be, or out of order; or there are far too many.
    #[error("a bucket is out of range or out of order, or there are too many")]
    Index,
    /// The bounds are not finite, do not rise, or are not one fewer than the counts.
    #[error("the bounds do not rise, or do not fit the counts")]
    Bounds,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { scale: *SCALES.end(), zero: 0, negative: Vec::new(), positive: Vec::new() }
    }
}

impl Buckets {
    /// Buckets from a client: each side as an offset and the counts that follow it. No more than
    /// [`MAX_BUCKETS`] are kept; past that they become wider.
    ///
    /// # Errors
    /// [`BucketsError`] when they mean nothing.
    pub fn of_counts(
        scale: i64,
        zero: u64,
        negative: (i64, &[u64]),
        positive: (i64, &[u64]),
    ) -> Result<Self, BucketsError> {
        let scale =
            i8::try_from(scale).ok().filter(|scale| SCALES.contains(scale)).ok_or(BucketsError::Scale)?;
        let side = |(offset, counts): (i64, &[u64])| {
            if counts.len() > MAX_COUNTS {
                return Err(BucketsError::Index);
            }
            let mut buckets = Vec::new();
            for (place, count) in (0_i64..).zip(counts).filter(|(_, count)| **count > 0) {
                let index = offset.checked_add(place).and_then(|index| i32::try_from(index).ok());
                let index = index.filter(|index| is_possible(scale, *index)).ok_or(BucketsError::Index)?;
                buckets.push((index, *count));
            }
            Ok(buckets)
        };
        let (negative, positive) = (side(negative)?, side(positive)?);
        Ok(Self { scale, zero, negative, positive }.at_most(MAX_BUCKETS))
    }

    /// Buckets from explicit bounds: the values of each count as if they were at its upper bound, those above
    /// the last bound as if they were there. Without bounds or counts nothing is known.
    ///
    /// # Errors
    /// [`BucketsError::Bounds`].
    pub fn of_bounds(bounds: &[f64], counts: &[u64]) -> Result<Self, BucketsError> {
        let fits = counts.is_empty() || counts.len() == bounds.len() + 1;
        let rising =
            bounds.iter().all(|bound| bound.is_finite()) && bounds.is_sorted_by(|one, next| one < next);
        if !fits || !rising || counts.len() > MAX_COUNTS {
            return Err(BucketsError::Bounds);
        }
        let Some(last) = bounds.last() else {
            return Ok(Self::default());
        };
        let mut all = Self { scale: BOUNDS_SCALE, ..Self::default() };
        for (place, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let bound = *bounds.get(place).unwrap_or(last);
            match index_of(bound.abs(), bound < 0.0) {
                None => all.zero = all.zero.saturating_add(*count),
                Some(index) if bound < 0.0 => all.negative.push((index, *count)),
                Some(index) => all.positive.push((index, *count)),
            }
        }
        all.negative.reverse();
        Ok(Self { negative: coarser(&all.negative, 0), positive: coarser(&all.positive, 0), ..all }
            .at_most(MAX_BUCKETS))
    }

    /// Whether no value lies in any.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.zero == 0 && self.negative.is_empty() && self.positive.is_empty()
    }

    /// How many buckets hold values, zero's aside.
    #[must_use]
    pub const fn bucket_count(&self) -> usize {
        self.negative.len() + self.positive.len()
    }

    /// All values of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    /// The values that came since `earlier`. A bucket that lost values gained none.
    #[must_use]
    pub fn risen_since(&self, earlier: &Self) -> Self {
        self.combine(earlier, u64::saturating_sub)
    }

    fn combine(&self, other: &Self, join: fn(u64, u64) -> u64) -> Self {
        let scale = self.scale.min(other.scale);
        let (left, right) = (self.at_scale(scale), other.at_scale(scale));
        Self {
            scale,
            zero: join(left.zero, right.zero),
            negative: joined(&left.negative, &right.negative, join),
            positive: joined(&left.positive, &right.positive, join),
        }
        .at_most(MAX_BUCKETS)
    }

    /// The same values in at most so many buckets, which become wider as far as that takes.
    #[must_use]
    pub fn at_most(mut self, most: usize) -> Self {
        while self.bucket_count() > most && self.scale > *SCALES.start() {
            self = self.at_scale(self.scale - 1);
        }
        // Without buckets a scale says nothing, and equal contents must be equal.
        if self.bucket_count() == 0 { Self { zero: self.zero, ..Self::default() } } else { self }
    }

    fn at_scale(&self, scale: i8) -> Self {
        let shift = u32::from(self.scale.abs_diff(scale));
        Self {
            scale,
            zero: self.zero,
            negative: coarser(&self.negative, shift),
            positive: coarser(&self.positive, shift),
        }
    }

    /// The value that so many thousandths of the values do not exceed; `None` when there are no values.
    #[must_use]
    pub fn quantile(&self, thousandths: u64) -> Option<Quantity> {
        let sides = self.negative.iter().chain(&self.positive).map(|(_, count)| u128::from(*count));
        let total = sides.sum::<u128>() + u128::from(self.zero);
        let rank = (total * u128::from(thousandths)).div_ceil(1_000).clamp(1, total.max(1));
        let mut passed = 0;
        let mut reaches = |count: u64| {
            passed += u128::from(count);
            passed >= rank
        };
        if let Some((index, _)) = self.negative.iter().rev().find(|(_, count)| reaches(*count)) {
            return Some(Quantity::ZERO.minus(power(i64::from(*index), self.scale)));
        }
        if reaches(self.zero) {
            return (total > 0).then_some(Quantity::ZERO);
        }
        let (index, _) = self.positive.iter().find(|(_, count)| reaches(*count))?;
        Some(power(i64::from(*index) + 1, self.scale))
    }

    fn check(&self) -> Result<(), BucketsError> {
        if !SCALES.contains(&self.scale) {
            return Err(BucketsError::Scale);
        }
        for side in [&self.negative, &self.positive] {
            let possible = side.iter().all(|(index, count)| *count > 0 && is_possible(self.scale, *index));
            if !possible || !side.is_sorted_by(|one, next| one.0 < next.0) {
                return Err(BucketsError::Index);
            }
        }
        if self.bucket_count() > MAX_BUCKETS { Err(BucketsError::Index) } else { Ok(()) }
    }
}

impl BorshDeserialize for Buckets {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let read = Self {
            scale: BorshDeserialize::deserialize_reader(reader)?,
            zero: BorshDeserialize::deserialize_reader(reader)?,
            negative: BorshDeserialize::deserialize_reader(reader)?,
            positive: BorshDeserialize::deserialize_reader(reader)?,
        };
        read.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(read)
    }
}

fn is_possible(scale: i8, index: i32) -> bool {
    let exponent = if scale >= 0 { i64::from(index) >> scale } else { i64::from(index) << -scale };
    (-LARGEST_EXPONENT..=LARGEST_EXPONENT).contains(&exponent)
}

/// Buckets in order whose indices lose so many bits; those that fall together become one.
fn coarser(buckets: &[Bucket], shift: u32) -> Vec<Bucket> {
    let mut coarse: Vec<Bucket> = Vec::with_capacity(buckets.len());
    for (index, count) in buckets {
        let index = index.checked_shr(shift).unwrap_or(if *index < 0 { -1 } else { 0 });
        match coarse.last_mut() {
            Some((last, sum)) if *last == index => *sum = sum.saturating_add(*count),
            Some(_) | None => coarse.push((index, *count)),
        }
    }
    coarse
}

/// Two sides of one scale, bucket by bucket; buckets that end up empty are left out.
fn joined(left: &[Bucket], right: &[Bucket], join: fn(u64, u64) -> u64) -> Vec<Bucket> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut all = Vec::with_capacity(left.len().max(right.len()));
    loop {
        let order = match (left.peek(), right.peek()) {
            (Some((one, _)), Some((other, _))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return all,
        };
        let one = if order.is_le() { left.next() } else { None };
        let other = if order.is_ge() { right.next() } else { None };
        let count = join(one.map_or(0, |(_, count)| *count), other.map_or(0, |(_, count)| *count));
        if let Some((index, _)) = one.or(other).filter(|_| count > 0) {
            all.push((*index, count));
        }
    }
}

/// Past these exponents a quantity is zero or as large as one can be.
const EXPONENTS: std::ops::RangeInclusive<i64> = -64..=97;
const LARGEST: f64 = 1e29;

/// 2^(index / 2^scale) as a quantity, within a quantity's range. Roots and products of doubles are the same on
/// every machine; the system's `exp2` is not.
fn power(index: i64, scale: i8) -> Quantity {
    let (exponent, fraction) =
        if scale >= 0 { (index >> scale, index & ((1 << scale) - 1)) } else { (index << -scale, 0) };
    let mut value = power_of_two(exponent);
    let mut root = 2.0_f64;
    for bit in (0..scale).rev() {
        root = root.sqrt();
        if fraction >> bit & 1 == 1 {
            value *= root;
        }
    }
    Quantity::from_f64(value.min(LARGEST)).unwrap_or(Quantity::ZERO)
}

fn power_of_two(exponent: i64) -> f64 {
    const BIAS: i64 = 1_023;
    let exponent = exponent.clamp(*EXPONENTS.start(), *EXPONENTS.end());
    f64::from_bits((exponent + BIAS).unsigned_abs() << 52)
}

/// The fractions between 1 and 2 at which the buckets of [`BOUNDS_SCALE`] end.
static STEPS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let step = |fraction: u32| {
        (0..BOUNDS_SCALE).rev().fold((1.0, 2.0_f64), |(value, root), bit| {
            let root = root.sqrt();
            (if fraction >> bit & 1 == 1 { value * root } else { value }, root)
        })
    };
    (0..1 << BOUNDS_SCALE).map(|fraction| step(fraction).0).collect()
});

/// The bucket of [`BOUNDS_SCALE`] whose upper bound is the smallest that is not below a size; of sizes of values
/// below zero the one whose lower bound is the largest that is not above it. `None` for what is as good as zero.
fn index_of(size: f64, negative: bool) -> Option<i32> {
    const FRACTION: u64 = (1 << 52) - 1;
    let bits = size.to_bits();
    let exponent = i64::try_from(bits >> 52).unwrap_or(0) - 1_023;
    if exponent < *EXPONENTS.start() {
        return None;
    }
    if exponent > *EXPONENTS.end() {
        return i32::try_from((EXPONENTS.end() + 1) << BOUNDS_SCALE).ok();
    }
    let mantissa = f64::from_bits(bits & FRACTION | 1_023 << 52);
    // How many steps lie below the mantissa, or at it.
    let steps = if negative {
        STEPS.partition_point(|step| *step <= mantissa)
    } else {
        STEPS.partition_point(|step| *step < mantissa)
    };
    i32::try_from((exponent << BOUNDS_SCALE) + i64::try_from(steps).ok()? - 1).ok()
}

#[cfg(test)]
mod tests;
