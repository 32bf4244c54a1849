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
    sync::Arc,
};

use super::reason::Reason;
use crate::{
    knowledge::{buckets::Buckets, observation::SeriesKey},
    types::{Quantity, SourceId, UnixMillis},
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
    /// How many values a summary holds, and their sum; its quantiles are gauges.
    Summary = 5,
}

/// The most points of one request: ten times the series that a source may have.
pub const MAX_POINTS: usize = 100_000;

/// The most memory that the points of one request take. A request may repeat the attributes of its resource in
/// each of its points, so that a small body can describe a large one.
pub const MAX_BATCH_BYTES: usize = 32 * 1024 * 1024;

const BUCKET_BYTES: usize = 16;

/// The most sources that refusals in one request are told apart by.
const MAX_REFUSED_SOURCES: usize = 64;

/// How an increase is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Temporality {
    /// Since the previous point.
    Delta,
    /// Since the stream's start.
    Cumulative,
}

/// How much there is of what only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    /// A rising sum's value, or how many values a histogram holds.
    pub value: Quantity,
    /// The sum of a histogram's values; zero for a rising sum.
    pub sum: Quantity,
    /// Where a histogram's values lie, as far as it says.
    pub buckets: Option<Arc<Buckets>>,
}

impl Amount {
    /// An amount of what has no buckets.
    #[must_use]
    pub const fn new(value: Quantity, sum: Quantity) -> Self {
        Self { value, sum, buckets: None }
    }

    /// All parts added up.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let buckets = match (&self.buckets, &other.buckets) {
            (Some(one), Some(other)) => Some(Arc::new(one.plus(other))),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        Self { value: self.value.plus(other.value), sum: self.sum.plus(other.sum), buckets }
    }

    /// By how much each part rose since `earlier`; a part that fell did not rise. Where the new values lie is
    /// not known when their number fell, or when it was not said before.
    #[must_use]
    pub fn risen_since(&self, earlier: &Self) -> Self {
        let rise = |now: Quantity, then: Quantity| now.minus(then).max(Quantity::ZERO);
        let buckets = match (&self.buckets, &earlier.buckets) {
            (Some(now), Some(then)) if self.value >= earlier.value => Some(Arc::new(now.risen_since(then))),
            (Some(now), None) if earlier.value == Quantity::ZERO => Some(Arc::clone(now)),
            (Some(_) | None, Some(_) | None) => None,
        };
        Self { value: rise(self.value, earlier.value), sum: rise(self.sum, earlier.sum), buckets }
    }

    /// How many buckets it holds.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        self.buckets.as_ref().map_or(0, |buckets| buckets.bucket_count())
    }
}

/// What a point says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A value at a point in time.
    Level(Quantity),
    /// How much of something that only grows.
    Growth(Temporality, Amount),
    /// The series has no value any more.
    Ended,
}

/// A data point, without its series.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug)]
pub struct Point<'a> {
    /// The identity: canonical bytes of the [`SeriesKey`].
    pub identity: &'a [u8],
    /// A hash of the identity and the kind, the same in every process of one binary.
    pub fingerprint: u64,
    /// What was measured.
    pub sample: &'a Sample,
    /// Whether it is a further part of the data point before it: one of a summary's quantiles.
    pub continues: bool,
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

/// Refused points by the source that sent them; without a source where it has no valid name, or where there are
/// too many sources to tell them apart.
pub type RefusedBySource = BTreeMap<Option<SourceId>, Refused>;

#[derive(Clone, Debug)]
struct Entry {
    identity: Range<usize>,
    fingerprint: u64,
    sample: Sample,
    continues: bool,
}

/// The points of one request, and how many of its points were refused while it was decoded.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    identities: Vec<u8>,
    entries: Vec<Entry>,
    bucket_count: usize,
    refused: Refused,
    refused_by_source: RefusedBySource,
}

impl Batch {
    /// An empty batch with room for a body of so many bytes. An identity takes about as many bytes as its
    /// point; a point of a counter takes some 150.
    #[cfg(feature = "service")]
    pub(super) fn for_body(bytes: usize) -> Self {
        let points = bytes / 128;
        Self { identities: Vec::with_capacity(bytes), entries: Vec::with_capacity(points), ..Self::default() }
    }

    /// Whether another point would be one too many, or one too large.
    #[cfg(feature = "service")]
    pub(super) const fn is_full(&self) -> bool {
        self.entries.len() >= MAX_POINTS || self.used_bytes() >= MAX_BATCH_BYTES
    }

    /// Where it stands, to go back to.
    #[cfg(feature = "service")]
    pub(super) const fn mark(&self) -> usize {
        self.entries.len()
    }

    /// Takes out what was added since `mark`.
    #[cfg(feature = "service")]
    pub(super) fn go_back(&mut self, mark: usize) {
        self.entries.truncate(mark);
    }

    /// Adds a point of the series whose canonical bytes these are. The caller answers for the bytes.
    pub(super) fn push_encoded(&mut self, identity: &[u8], sample: Sample, continues: bool) {
        if let Measure::Growth(_, amount) = &sample.measure {
            self.bucket_count += amount.bucket_count();
        }
        let start = self.identities.len();
        self.identities.extend_from_slice(identity);
        let mut hasher = DefaultHasher::new();
        hasher.write(identity);
        hasher.write_u8(sample.kind as u8);
        let (identity, fingerprint) = (start..self.identities.len(), hasher.finish());
        self.entries.push(Entry { identity, fingerprint, sample, continues });
    }

    /// Adds a point.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    pub fn push(&mut self, series: &SeriesKey, sample: Sample) {
        let identity = borsh::to_vec(series).expect("writing to memory does not fail");
        self.push_encoded(&identity, sample, false);
    }

    /// Counts points that are not in the batch, whose they are, and why.
    pub fn refuse(&mut self, source: Option<&SourceId>, reason: Reason, points: u64) {
        *self.refused.entry(reason).or_default() += points;
        let source = source.cloned();
        let known = self.refused_by_source.contains_key(&source);
        let source = source.filter(|_| known || self.refused_by_source.len() < MAX_REFUSED_SOURCES);
        *self.refused_by_source.entry(source).or_default().entry(reason).or_default() += points;
    }

    /// Its points, in the order of the request.
    pub fn points(&self) -> impl Iterator<Item = Point<'_>> {
        self.entries.iter().map(|entry| Point {
            identity: &self.identities[entry.identity.clone()],
            fingerprint: entry.fingerprint,
            sample: &entry.sample,
            continues: entry.continues,
        })
    }

    /// How many points were refused while the request was decoded.
    #[must_use]
    pub const fn refused(&self) -> &Refused {
        &self.refused
    }

    /// The same, by source.
    #[must_use]
    pub const fn refused_by_source(&self) -> &RefusedBySource {
        &self.refused_by_source
    }

    /// How many data points it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.continues).count()
    }

    /// Whether it holds no point.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(feature = "service")]
    const fn used_bytes(&self) -> usize {
        self.identities.len() + self.entries.len() * size_of::<Entry>() + self.bucket_count * BUCKET_BYTES
    }

    /// How much memory it takes, in bytes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.identities.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.bucket_count * BUCKET_BYTES
    }
}
