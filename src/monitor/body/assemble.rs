//! The assembler: resources, metrics and points, as a decoder meets them, become a [`Batch`].
//!
//! It holds the rules that do not depend on the form of the body: what makes a point's identity, and which
//! points cannot be counted. Invariant: what it writes as an identity is `borsh::to_vec` of a `SeriesKey`.

use std::{ops::Range, sync::Arc};

use super::nested;
use crate::{
    knowledge::buckets::{Buckets, BucketsError},
    monitor::{Amount, Batch, Kind, Measure, Reason, Sample, Temporality, UnixNanos, names_a_process},
    types::{Quantity, QuantityError, SourceId},
};

/// The most attributes that a data point or a resource may have.
pub const MAX_ATTRIBUTES: usize = 64;

/// The most bytes of a metric's name: four times what instruments may have.
pub const MAX_NAME_BYTES: usize = 1_024;

/// The most bytes of a series' identity. Ten thousand of them must fit the monitor's memory several times.
pub const MAX_IDENTITY_BYTES: usize = 4 * 1_024;

/// The resource attribute that names the source.
pub(in crate::monitor) const SERVICE_NAME: &str = "service.name";
/// What OpenTelemetry calls a service that does not say its name.
const UNKNOWN_SERVICE: &str = "unknown_service";
/// The attribute that tells a summary's quantiles apart, as in other systems.
const QUANTILE: &str = "quantile";
/// OTLP's data point flag for "the series ended".
pub(in crate::monitor) const NO_RECORDED_VALUE: u64 = 1;

/// An attribute's value.
#[derive(Clone, Debug)]
pub(in crate::monitor) enum Attribute<'a> {
    Text(&'a str),
    Bool(bool),
    Integer(i64),
    /// Canonical JSON of anything else.
    Other(String),
}

/// A number of a point.
#[derive(Clone, Copy, Debug)]
pub(in crate::monitor) enum Number {
    Integer(i64),
    Double(f64),
    Exact(Quantity),
}

/// What a metric says of all its points.
#[derive(Clone, Copy, Debug)]
pub(in crate::monitor) struct Shape {
    pub(in crate::monitor) kind: Kind,
    /// Of sums and histograms.
    pub(in crate::monitor) temporality: Option<Temporality>,
}

impl Shape {
    pub(in crate::monitor) const GAUGE: Self = Self { kind: Kind::Gauge, temporality: None };

    pub(in crate::monitor) const fn sum(temporality: Option<Temporality>, monotonic: bool) -> Self {
        Self { kind: if monotonic { Kind::RisingSum } else { Kind::Sum }, temporality }
    }
}

/// What all kinds of points have.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::monitor) struct Head {
    pub(in crate::monitor) start: u64,
    pub(in crate::monitor) time: u64,
    pub(in crate::monitor) flags: u64,
}

/// What both kinds of histograms have.
#[derive(Clone, Debug)]
pub(in crate::monitor) struct Histogram {
    pub(in crate::monitor) count: u64,
    pub(in crate::monitor) sum: Option<f64>,
    pub(in crate::monitor) buckets: Result<Buckets, BucketsError>,
}

/// A summary's quantile: which one, and its value.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::monitor) struct Quantile {
    pub(in crate::monitor) quantile: f64,
    pub(in crate::monitor) value: f64,
}

/// Builds a batch. The order of calls: a resource's attributes and [`Self::end_resource`]; for each of its
/// metrics [`Self::metric`]; for each of its points the attributes, then the point.
#[derive(Debug)]
pub(in crate::monitor) struct Assembler<'a> {
    batch: Batch,
    attributes: Vec<(&'a str, Range<usize>)>,
    values: Vec<u8>,
    /// The encoded source and resource, or why none of the resource's points counts.
    resource: Result<(Vec<u8>, Vec<u8>), Reason>,
    source: Option<SourceId>,
    name: Result<&'a str, Reason>,
    identity: Vec<u8>,
}

impl<'a> Assembler<'a> {
    /// An assembler for a body of so many bytes.
    pub(in crate::monitor) fn for_body(bytes: usize) -> Self {
        Self {
            batch: Batch::for_body(bytes),
            attributes: Vec::new(),
            values: Vec::new(),
            resource: Err(Reason::BadSource),
            source: None,
            name: Err(Reason::BadName),
            identity: Vec::new(),
        }
    }

    pub(in crate::monitor) fn finish(self) -> Batch {
        self.batch
    }

    /// Forgets the attributes given so far; those that follow belong to something else.
    pub(in crate::monitor) fn begin_attributes(&mut self) {
        self.attributes.clear();
        self.values.clear();
    }

    /// Adds an attribute. One past the limit is kept, so that the limit is seen to be broken.
    pub(in crate::monitor) fn attribute(&mut self, key: &'a str, value: &Attribute<'_>) {
        if self.attributes.len() > MAX_ATTRIBUTES {
            return;
        }
        let start = self.values.len();
        // The tags are those of `AttributeValue`'s canonical bytes.
        match value {
            Attribute::Text(text) => {
                self.values.push(0);
                push_text(&mut self.values, text);
            }
            Attribute::Bool(truth) => self.values.extend([1, u8::from(*truth)]),
            Attribute::Integer(number) => {
                self.values.push(2);
                self.values.extend_from_slice(&number.to_le_bytes());
            }
            Attribute::Other(json) => {
                self.values.push(3);
                push_text(&mut self.values, json);
            }
        }
        self.attributes.push((key, start..self.values.len()));
    }

    /// The attributes given since [`Self::begin_attributes`] are a resource's.
    pub(in crate::monitor) fn end_resource(&mut self) {
        self.source = None;
        self.resource = self.encode_resource();
    }

    fn encode_resource(&mut self) -> Result<(Vec<u8>, Vec<u8>), Reason> {
        self.sort_attributes()?;
        let service = self.attributes.iter().find(|(key, _)| *key == SERVICE_NAME);
        let service = service.map_or(Ok(UNKNOWN_SERVICE), |(_, value)| {
            let encoded = &self.values[value.clone()];
            let text = encoded.strip_prefix(&[0]).and_then(|text| text.get(4..));
            text.and_then(|text| std::str::from_utf8(text).ok()).ok_or(Reason::BadSource)
        })?;
        self.source = Some(SourceId::new(service).map_err(|_| Reason::BadSource)?);
        let mut source = Vec::new();
        push_text(&mut source, service);
        self.attributes.retain(|(key, _)| *key != SERVICE_NAME && !names_a_process(key));
        let mut resource = Vec::new();
        self.encode_attributes(&mut resource);
        if resource.len() > MAX_IDENTITY_BYTES {
            Err(Reason::IdentityTooLarge)
        } else {
            Ok((source, resource))
        }
    }

    /// The points that follow belong to this metric.
    pub(in crate::monitor) fn metric(&mut self, name: &'a str) {
        self.name = if (1..=MAX_NAME_BYTES).contains(&name.len()) { Ok(name) } else { Err(Reason::BadName) };
    }

    /// Counts points that cannot even be looked at.
    pub(in crate::monitor) fn refuse(&mut self, reason: Reason, points: u64) {
        self.batch.refuse(self.source.as_ref(), reason, points);
    }

    /// A point of a gauge or a sum.
    pub(in crate::monitor) fn number(&mut self, shape: Shape, head: Head, value: Option<Number>) {
        self.point(shape.kind, head, || {
            let value = match value.ok_or(Reason::NoValue)? {
                Number::Integer(number) => Quantity::from_i64(number),
                Number::Double(number) => quantity(number)?,
                Number::Exact(number) => number,
            };
            match (shape.kind, shape.temporality) {
                (Kind::Gauge, _) | (Kind::Sum, Some(Temporality::Cumulative)) => Ok(Measure::Level(value)),
                (Kind::Sum, Some(Temporality::Delta)) => Err(Reason::ChangeOfLevel),
                (_, None) => Err(Reason::NoTemporality),
                (_, Some(_)) if value < Quantity::ZERO => Err(Reason::Negative),
                (_, Some(temporality)) => {
                    Ok(Measure::Growth(temporality, Amount::new(value, Quantity::ZERO)))
                }
            }
        });
    }

    /// A point of a histogram of either kind.
    pub(in crate::monitor) fn histogram(&mut self, shape: Shape, head: Head, histogram: Histogram) {
        self.point(shape.kind, head, || {
            let temporality = shape.temporality.ok_or(Reason::NoTemporality)?;
            let Histogram { count, sum, buckets } = histogram;
            let buckets = buckets.map_err(|_| Reason::BadBuckets)?;
            let buckets = (!buckets.is_empty()).then(|| Arc::new(buckets));
            Ok(Measure::Growth(temporality, Amount { buckets, ..distribution(count, sum)? }))
        });
    }

    /// A point of a summary: a distribution without buckets, and each quantile as a gauge of its own. Quantiles
    /// of several processes cannot be merged; as gauges nobody tries to.
    pub(in crate::monitor) fn summary(
        &mut self,
        head: Head,
        count: u64,
        sum: Option<f64>,
        quantiles: &[Quantile],
    ) {
        // Where no value came lately there is no quantile, and clients write NaN.
        let known = quantiles.iter().filter(|quantile| !quantile.value.is_nan());
        let levels = known.map(|Quantile { quantile: which, value }| {
            Ok((nested::double(*which), Measure::Level(quantity(*value)?)))
        });
        let levels = match levels.collect::<Result<Vec<_>, _>>() {
            Ok(levels) => levels,
            Err(reason) => return self.refuse(reason, 1),
        };
        let before = self.batch.mark();
        let taken = self.try_summary(head, levels, || {
            Ok(Measure::Growth(Temporality::Cumulative, distribution(count, sum)?))
        });
        if let Err(reason) = taken {
            self.batch.go_back(before);
            self.refuse(reason, 1);
        }
    }

    fn try_summary(
        &mut self,
        head: Head,
        levels: Vec<(String, Measure)>,
        growth: impl FnOnce() -> Result<Measure, Reason>,
    ) -> Result<(), Reason> {
        self.try_point(Kind::Summary, head, growth, false)?;
        for (which, measure) in levels {
            self.attributes.retain(|(key, _)| *key != QUANTILE);
            self.attribute(QUANTILE, &Attribute::Text(&which));
            self.try_point(Kind::Gauge, head, || Ok(measure), true)?;
        }
        Ok(())
    }

    fn point(&mut self, kind: Kind, head: Head, measure: impl FnOnce() -> Result<Measure, Reason>) {
        if let Err(reason) = self.try_point(kind, head, measure, false) {
            self.refuse(reason, 1);
        }
    }

    fn try_point(
        &mut self,
        kind: Kind,
        head: Head,
        measure: impl FnOnce() -> Result<Measure, Reason>,
        continues: bool,
    ) -> Result<(), Reason> {
        if self.batch.is_full() {
            return Err(Reason::TooManyPoints);
        }
        if head.time == 0 {
            return Err(Reason::NoTime);
        }
        if head.start > head.time {
            return Err(Reason::StartAfterTime);
        }
        let (start, time) = (UnixNanos::new(head.start), UnixNanos::new(head.time));
        let ended = head.flags & NO_RECORDED_VALUE != 0;
        let measure = if ended { Measure::Ended } else { measure()? };
        let sample = Sample { kind, start, time, measure };
        let name = self.name?;
        self.sort_attributes()?;
        let mut identity = std::mem::take(&mut self.identity);
        identity.clear();
        let (source, resource) = self.resource.as_ref().map_err(|reason| *reason)?;
        identity.extend_from_slice(source);
        push_text(&mut identity, name);
        self.encode_attributes(&mut identity);
        identity.extend_from_slice(resource);
        self.identity = identity;
        if self.identity.len() > MAX_IDENTITY_BYTES {
            return Err(Reason::IdentityTooLarge);
        }
        self.batch.push_encoded(&self.identity, sample, continues);
        Ok(())
    }

    /// Puts the attributes in the order of their keys; of equal keys the smallest value stays, because
    /// clients change the order from one export to the next.
    fn sort_attributes(&mut self) -> Result<(), Reason> {
        if self.attributes.len() > MAX_ATTRIBUTES {
            return Err(Reason::TooManyAttributes);
        }
        let values = &self.values;
        let order = |(key, value): &(&str, Range<usize>), (other, other_value): &(&str, Range<usize>)| {
            key.cmp(other).then_with(|| values[value.clone()].cmp(&values[other_value.clone()]))
        };
        if !self.attributes.is_sorted_by(|left, right| order(left, right).is_lt()) {
            self.attributes.sort_unstable_by(order);
        }
        self.attributes.dedup_by_key(|(key, _)| *key);
        Ok(())
    }

    fn encode_attributes(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&length(self.attributes.len()));
        for (key, value) in &self.attributes {
            push_text(bytes, key);
            bytes.extend_from_slice(&self.values[value.clone()]);
        }
    }
}

/// How many values there are, and their sum.
fn distribution(count: u64, sum: Option<f64>) -> Result<Amount, Reason> {
    if i64::try_from(count).is_err() {
        return Err(Reason::OutOfRange);
    }
    let sum = match sum {
        Some(sum) => quantity(sum)?,
        None if count == 0 => Quantity::ZERO,
        None => return Err(Reason::NoSum),
    };
    Ok(Amount::new(Quantity::from_u64(count), sum))
}

fn quantity(number: f64) -> Result<Quantity, Reason> {
    Quantity::from_f64(number).map_err(|error| match error {
        QuantityError::NotFinite => Reason::NotFinite,
        QuantityError::OutOfRange | QuantityError::NotDecimal(_) => Reason::OutOfRange,
    })
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&length(text.len()));
    bytes.extend_from_slice(text.as_bytes());
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a body is far smaller than 4 GiB").to_le_bytes()
}
