//! Metrics requests in OTLP's JSON, read leniently: integers as strings or numbers, enumerations as numbers
//! or names, null for what is absent, unknown fields ignored. A number of a wrong type refuses its point.
//!
//! One structure serves all kinds of metrics and one all kinds of points; their fields have one meaning.

mod loose;

use serde::{
    Deserialize,
    de::{Error as _, IgnoredAny},
};

use self::loose::{Loose, Numbers};

use super::protobuf::temporality_of;
use crate::{
    knowledge::buckets::{Buckets, BucketsError},
    monitor::{
        Kind, Reason, Temporality,
        body::{
            assemble::{Assembler, Attribute, Head, Histogram, Number, Quantile, Shape},
            nested,
        },
    },
};

/// A byte order mark, which some clients write before the text.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// The most objects in a body: those of ten thousand points with twenty attributes each. An object takes at least
/// two bytes of text and some three hundred of memory.
const MAX_OBJECTS: usize = 500_000;

pub(super) fn parse(body: &[u8]) -> Result<Request, serde_json::Error> {
    let body = without_mark(body);
    if body.is_empty() {
        return Ok(Request::default());
    }
    // A derived structure would also be read from a list of its fields.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(serde_json::Error::custom("an object with resourceMetrics is expected, not a list"));
    }
    if body.iter().filter(|byte| **byte == b'{').count() > MAX_OBJECTS {
        return Err(serde_json::Error::custom(format_args!("it has more than {MAX_OBJECTS} objects")));
    }
    let request: Request = serde_json::from_slice::<Option<_>>(body)?.unwrap_or_default();
    if request.snake_case.is_some() {
        return Err(serde_json::Error::custom("OTLP's JSON spells it resourceMetrics, not resource_metrics"));
    }
    Ok(request)
}

pub(super) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)
}

type List<T> = Option<Vec<T>>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object with resourceMetrics")]
pub(super) struct Request {
    resource_metrics: List<ResourceMetrics>,
    /// The name as protobuf spells it. Unknown names are ignored; but who writes this one writes all of them
    /// so, and would lose everything without a word.
    #[serde(rename = "resource_metrics")]
    snake_case: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceMetrics {
    resource: Option<Resource>,
    scope_metrics: List<ScopeMetrics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    attributes: List<KeyValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ScopeMetrics {
    metrics: List<Metric>,
}

#[derive(Debug, Default)]
struct Metric {
    name: Option<String>,
    gauge: Option<Data>,
    sum: Option<Data>,
    histogram: Option<Data>,
    exponential_histogram: Option<Data>,
    summary: Option<Data>,
    /// How many points came of kinds that are not known.
    unknown_points: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Data {
    data_points: List<DataPoint>,
    aggregation_temporality: Loose,
    is_monotonic: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DataPoint {
    attributes: List<KeyValue>,
    start_time_unix_nano: Loose,
    time_unix_nano: Loose,
    flags: Loose,
    as_int: Loose,
    as_double: Loose,
    count: Loose,
    sum: Loose,
    bucket_counts: Numbers<u64>,
    explicit_bounds: Numbers<f64>,
    scale: Loose,
    zero_count: Loose,
    positive: Option<Side>,
    negative: Option<Side>,
    quantile_values: List<QuantileValue>,
}

/// The buckets on one side of zero.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Side {
    offset: Loose,
    bucket_counts: Numbers<u64>,
}

impl Side {
    /// The offset and the counts that follow it; an absent side has none.
    fn counted(side: Option<&Self>) -> Result<(i64, &[u64]), BucketsError> {
        let Some(Self { offset, bucket_counts }) = side else {
            return Ok((0, &[]));
        };
        let offset = if *offset == Loose::Absent { Some(0) } else { offset.to_i64() };
        offset.zip(bucket_counts.0.as_deref()).ok_or(BucketsError::Index)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct QuantileValue {
    quantile: Loose,
    value: Loose,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    key: Option<String>,
    value: Option<AnyValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AnyValue {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Loose,
    double_value: Loose,
    array_value: Option<ArrayValue>,
    kvlist_value: Option<KeyValueList>,
    bytes_value: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ArrayValue {
    values: List<Option<Box<AnyValue>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeyValueList {
    values: List<KeyValue>,
}

impl Request {
    pub(super) fn read<'a>(&'a self, into: &mut Assembler<'a>) {
        for group in self.resource_metrics.iter().flatten() {
            into.begin_attributes();
            if let Some(resource) = &group.resource {
                read_attributes(&resource.attributes, into);
            }
            into.end_resource();
            for scope in group.scope_metrics.iter().flatten() {
                scope.metrics.iter().flatten().for_each(|metric| metric.read(into));
            }
        }
    }
}

impl Metric {
    fn read<'a>(&'a self, into: &mut Assembler<'a>) {
        into.metric(self.name.as_deref().unwrap_or_default());
        if let Some(data) = &self.gauge {
            data.points().for_each(|point| point.read_number(Shape::GAUGE, into));
        }
        if let Some(data) = &self.sum {
            let shape = Shape::sum(data.temporality(), data.is_monotonic.unwrap_or_default());
            data.points().for_each(|point| point.read_number(shape, into));
        }
        for (data, kind) in
            [(&self.histogram, Kind::Histogram), (&self.exponential_histogram, Kind::ExponentialHistogram)]
        {
            if let Some(data) = data {
                let shape = Shape { kind, temporality: data.temporality() };
                data.points().for_each(|point| point.read_histogram(shape, into));
            }
        }
        if let Some(data) = &self.summary {
            data.points().for_each(|point| point.read_summary(into));
        }
        if self.unknown_points > 0 {
            into.refuse(Reason::UnknownKind, self.unknown_points);
        }
    }
}

impl Data {
    fn points(&self) -> impl Iterator<Item = &DataPoint> {
        self.data_points.iter().flatten()
    }

    fn temporality(&self) -> Option<Temporality> {
        match &self.aggregation_temporality {
            Loose::Text(name) if **name == *"AGGREGATION_TEMPORALITY_DELTA" => Some(Temporality::Delta),
            Loose::Text(name) if **name == *"AGGREGATION_TEMPORALITY_CUMULATIVE" => {
                Some(Temporality::Cumulative)
            }
            other @ (Loose::Absent
            | Loose::Unsigned(_)
            | Loose::Signed(_)
            | Loose::Double(_)
            | Loose::Text(_)
            | Loose::Wrong) => other.to_u64().and_then(temporality_of),
        }
    }
}

impl DataPoint {
    /// A time of a wrong type counts as none, which the assembler refuses; a start that cannot be read is
    /// unknown.
    fn head(&self) -> Head {
        Head {
            start: self.start_time_unix_nano.to_u64().unwrap_or_default(),
            time: self.time_unix_nano.to_u64().unwrap_or_default(),
            flags: self.flags.to_u64().unwrap_or_default(),
        }
    }

    fn read_number<'a>(&'a self, shape: Shape, into: &mut Assembler<'a>) {
        into.begin_attributes();
        read_attributes(&self.attributes, into);
        let integer = self.as_int.to_i64().map(Number::Integer);
        let value = integer.or_else(|| self.as_double.to_f64().map(Number::Double));
        into.number(shape, self.head(), value);
    }

    fn read_histogram<'a>(&'a self, shape: Shape, into: &mut Assembler<'a>) {
        into.begin_attributes();
        read_attributes(&self.attributes, into);
        let Some(count) = self.count.or_zero() else {
            return into.refuse(Reason::NoValue, 1);
        };
        let buckets = match shape.kind {
            Kind::ExponentialHistogram => self.exponential_buckets(),
            Kind::Gauge | Kind::Sum | Kind::RisingSum | Kind::Histogram | Kind::Summary => {
                self.explicit_buckets()
            }
        };
        into.histogram(shape, self.head(), Histogram { count, sum: self.sum.to_f64(), buckets });
    }

    fn explicit_buckets(&self) -> Result<Buckets, BucketsError> {
        match (&self.explicit_bounds.0, &self.bucket_counts.0) {
            (Some(bounds), Some(counts)) => Buckets::of_bounds(bounds, counts),
            (Some(_) | None, Some(_) | None) => Err(BucketsError::Bounds),
        }
    }

    fn exponential_buckets(&self) -> Result<Buckets, BucketsError> {
        let scale = if self.scale == Loose::Absent { Some(0) } else { self.scale.to_i64() };
        let zero = self.zero_count.or_zero().ok_or(BucketsError::Index)?;
        let ((below, negative), (above, positive)) =
            (Side::counted(self.negative.as_ref())?, Side::counted(self.positive.as_ref())?);
        Buckets::of_counts(scale.ok_or(BucketsError::Scale)?, zero, (below, negative), (above, positive))
    }

    fn read_summary<'a>(&'a self, into: &mut Assembler<'a>) {
        into.begin_attributes();
        read_attributes(&self.attributes, into);
        let quantiles = self.quantile_values.iter().flatten().map(|one| {
            // Zero is what absent numbers mean, also here.
            let number = |loose: &Loose| if *loose == Loose::Absent { Some(0.0) } else { loose.to_f64() };
            Some(Quantile { quantile: number(&one.quantile)?, value: number(&one.value)? })
        });
        match (self.count.or_zero(), quantiles.collect::<Option<Vec<_>>>()) {
            (Some(count), Some(quantiles)) => {
                into.summary(self.head(), count, self.sum.to_f64(), &quantiles);
            }
            (Some(_) | None, Some(_) | None) => into.refuse(Reason::NoValue, 1),
        }
    }
}

fn read_attributes<'a>(attributes: &'a List<KeyValue>, into: &mut Assembler<'a>) {
    for attribute in attributes.iter().flatten() {
        let value = match &attribute.value {
            Some(value) => value.read(),
            None => Attribute::Other(nested::NOTHING.to_owned()),
        };
        into.attribute(attribute.key.as_deref().unwrap_or_default(), &value);
    }
}

impl AnyValue {
    fn read(&self) -> Attribute<'_> {
        if let Some(text) = &self.string_value {
            Attribute::Text(text)
        } else if let Some(truth) = self.bool_value {
            Attribute::Bool(truth)
        } else if let Some(number) = self.int_value.to_i64() {
            Attribute::Integer(number)
        } else {
            Attribute::Other(self.to_json(nested::MAX_DEPTH))
        }
    }

    fn to_json(&self, depth: usize) -> String {
        let nested_value = |value: Option<&Self>| match (value, depth.checked_sub(1)) {
            (Some(value), Some(depth)) => value.to_json(depth),
            (None, _) | (_, None) => nested::NOTHING.to_owned(),
        };
        if let Some(text) = &self.string_value {
            nested::text(text)
        } else if let Some(truth) = self.bool_value {
            truth.to_string()
        } else if let Some(number) = self.int_value.to_i64() {
            number.to_string()
        } else if let Some(number) = self.double_value.to_f64() {
            nested::double(number)
        } else if let Some(list) = &self.array_value {
            let values = list.values.iter().flatten().map(|value| nested_value(value.as_deref()));
            nested::list(&values.collect::<Vec<_>>())
        } else if let Some(map) = &self.kvlist_value {
            let entries = map.values.iter().flatten();
            let entries = entries
                .map(|entry| (entry.key.as_deref().unwrap_or_default(), nested_value(entry.value.as_ref())));
            nested::map(&entries.collect())
        } else if let Some(base64) = &self.bytes_value {
            nested::text(base64)
        } else {
            nested::NOTHING.to_owned()
        }
    }
}
