//! A decoded data point and a batch of them: what a telemetry format is turned into before it is counted.
//!
//! A batch is flat: the identities of its points' series stand one after another in one buffer, as the
//! canonical bytes of their [`SeriesKey`], so that counting a point of a known series allocates nothing.
//! Nothing here knows a wire format. Invariant: every identity in a batch decodes to its series key.

use borsh::BorshDeserialize;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher},
    ops::Range,
};

use super::reason::Reason;
use crate::{
    knowledge::observation::SeriesKey,
    types::{Quantity, UnixMillis},
};

/// A point in time as OTLP writes it: nanoseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixNanos(u64);

impl UnixNanos {
    /// 1970-01-01 UTC; OTLP's word for "unknown".
    pub const ZERO: Self = Self(0);

    /// Wraps nanoseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn new(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The millisecond that holds this point.
    #[must_use]
    pub const fn to_millis(self) -> UnixMillis {
        UnixMillis::new(self.0 / 1_000_000)
    }

    /// The first nanosecond of a millisecond; saturates in the year 2554.
    #[must_use]
    pub const fn from_millis(time: UnixMillis) -> Self {
        Self(time.as_millis().saturating_mul(1_000_000))
    }
}

/// What kind of metric a point belongs to. Points of one identity and different kinds are different series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A value at a point in time.
    Gauge = 0,
    /// A sum that may fall: a level, like a gauge.
    Sum = 1,
    /// A sum that only rises.
    RisingSum = 2,
    /// A histogram with explicit bounds.
    Histogram = 3,
    /// A histogram with exponential buckets.
    ExponentialHistogram = 4,
}

/// How an increase is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Temporality {
    /// Since the previous point.
    Delta,
    /// Since the stream's start.
    Cumulative,
}

/// How much there is of what only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    /// A rising sum's value, or how many values a histogram holds.
    pub value: Quantity,
    /// The sum of a histogram's values; zero for a rising sum.
    pub sum: Quantity,
}

impl Amount {
    /// Both parts added up.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { value: self.value.plus(other.value), sum: self.sum.plus(other.sum) }
    }

    /// By how much each part rose since `earlier`; a part that fell did not rise.
    #[must_use]
    pub fn risen_since(self, earlier: Self) -> Self {
        let rise = |now: Quantity, then: Quantity| now.minus(then).max(Quantity::ZERO);
        Self { value: rise(self.value, earlier.value), sum: rise(self.sum, earlier.sum) }
    }
}

/// What a point says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A value at a point in time.
    Level(Quantity),
    /// How much of something that only grows.
    Growth(Temporality, Amount),
}

/// A data point, without its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What kind of metric it belongs to.
    pub kind: Kind,
    /// Where its stream or its interval began; zero when the client does not say.
    pub start: UnixNanos,
    /// When it was measured.
    pub time: UnixNanos,
    /// What it says.
    pub measure: Measure,
}

/// A data point of a batch, with its series' identity.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// The identity: canonical bytes of the [`SeriesKey`].
    pub identity: &'a [u8],
    /// A hash of the identity and the kind, the same in every process of one binary.
    pub fingerprint: u64,
    /// What was measured.
    pub sample: Sample,
}

impl Point<'_> {
    /// The series that the identity stands for.
    ///
    /// # Panics
    /// Never: a batch holds only identities that were encoded from a series key.
    #[must_use]
    pub fn series_key(&self) -> SeriesKey {
        SeriesKey::try_from_slice(self.identity).expect("a batch holds the canonical bytes of series keys")
    }
}

/// How many points were refused, by reason.
pub type Refused = BTreeMap<Reason, u64>;

/// The points of one request, and how many of its points were refused while it was decoded.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    identities: Vec<u8>,
    points: Vec<(Range<usize>, u64, Sample)>,
    refused: Refused,
}

impl Batch {
    /// An empty batch with room for a body of so many bytes. An identity takes about as many bytes as its
    /// point; a point of a counter takes some 150.
    #[cfg(feature = "service")]
    pub(super) fn for_body(bytes: usize) -> Self {
        let points = bytes / 128;
        Self { identities: Vec::with_capacity(bytes), points: Vec::with_capacity(points), ..Self::default() }
    }

    /// Adds a point of the series whose canonical bytes these are. The caller answers for the bytes.
    pub(super) fn push_encoded(&mut self, identity: &[u8], sample: Sample) {
        let start = self.identities.len();
        self.identities.extend_from_slice(identity);
        let mut hasher = DefaultHasher::new();
        hasher.write(identity);
        hasher.write_u8(sample.kind as u8);
        self.points.push((start..self.identities.len(), hasher.finish(), sample));
    }

    /// Adds a point.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    pub fn push(&mut self, series: &SeriesKey, sample: Sample) {
        let identity = borsh::to_vec(series).expect("writing to memory does not fail");
        self.push_encoded(&identity, sample);
    }

    /// Counts points that are not in the batch, and why.
    pub fn refuse(&mut self, reason: Reason, points: u64) {
        *self.refused.entry(reason).or_default() += points;
    }

    /// Its points, in the order of the request.
    pub fn points(&self) -> impl Iterator<Item = Point<'_>> {
        self.points.iter().map(|(identity, fingerprint, sample)| Point {
            identity: &self.identities[identity.clone()],
            fingerprint: *fingerprint,
            sample: *sample,
        })
    }

    /// How many points were refused while the request was decoded.
    #[must_use]
    pub const fn refused(&self) -> &Refused {
        &self.refused
    }

    /// How many points it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether it holds no point.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// How much memory it takes, in bytes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.identities.capacity() + self.points.capacity() * size_of::<(Range<usize>, u64, Sample)>()
    }
}
