//! Metrics requests in OTLP's JSON, read leniently: integers as strings or numbers, enumerations as numbers
//! or names, null for what is absent, unknown fields ignored. A number of a wrong type refuses its point.
//!
//! One structure serves all kinds of metrics and one all kinds of points; their fields have one meaning.

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{collections::BTreeMap, fmt};

use super::{
    assemble::{Assembler, Attribute, Head, Histogram, Number, Quantile, Shape},
    nested,
    protobuf::temporality_of,
};
use crate::{
    knowledge::buckets::{Buckets, BucketsError},
    monitor::{Kind, Reason, Temporality},
};

/// A byte order mark, which some clients write before the text.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

pub(super) fn parse(body: &[u8]) -> Result<Request, serde_json::Error> {
    let body = without_mark(body);
    if body.is_empty() {
        return Ok(Request::default());
    }
    // A derived structure would also be read from a list of its fields.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(serde_json::Error::custom("an object with resourceMetrics is expected, not a list"));
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

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metric {
    name: Option<String>,
    description: Option<IgnoredAny>,
    unit: Option<IgnoredAny>,
    metadata: Option<IgnoredAny>,
    gauge: Option<Data>,
    sum: Option<Data>,
    histogram: Option<Data>,
    exponential_histogram: Option<Data>,
    summary: Option<Data>,
    /// Kinds of metrics that are not known, to count their points.
    #[serde(flatten)]
    unknown: BTreeMap<String, serde_json::Value>,
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
    bucket_counts: List<Loose>,
    explicit_bounds: List<Loose>,
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
    bucket_counts: List<Loose>,
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
    values: List<Option<AnyValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeyValueList {
    values: List<KeyValue>,
}

/// A number, or what stands in its place.
#[derive(Clone, Debug, Default, PartialEq)]
enum Loose {
    #[default]
    Absent,
    Unsigned(u64),
    Signed(i64),
    Double(f64),
    Text(String),
    Wrong,
}

impl Loose {
    /// A count; zero when it is absent.
    fn or_zero(&self) -> Option<u64> {
        if *self == Self::Absent { Some(0) } else { self.to_u64() }
    }

    fn to_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::Double(number) => whole(*number).and_then(|number| u64::try_from(number).ok()),
            Self::Absent | Self::Signed(_) | Self::Wrong => None,
        }
    }

    fn to_i64(&self) -> Option<i64> {
        match self {
            Self::Unsigned(number) => i64::try_from(*number).ok(),
            Self::Signed(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::Double(number) => whole(*number),
            Self::Absent | Self::Wrong => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a client wrote an integer where a double belongs")]
    fn to_f64(&self) -> Option<f64> {
        match self {
            Self::Unsigned(number) => Some(*number as f64),
            Self::Signed(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            // Also "NaN", "Infinity" and "-Infinity", the names of those values in OTLP.
            Self::Text(text) => text.parse().ok(),
            Self::Absent | Self::Wrong => None,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the value is whole and below 2^53 in size")]
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract().abs() < f64::EPSILON && number.abs() < EXACT).then_some(number as i64)
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or its text")
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Loose, E> {
        Ok(Loose::Unsigned(number))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Loose, E> {
        Ok(Loose::Signed(number))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Loose, E> {
        Ok(Loose::Double(number))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(text.to_owned()))
    }
    fn visit_unit<E: Error>(self) -> Result<Loose, E> {
        Ok(Loose::Absent)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Loose, E> {
        Ok(Loose::Wrong)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose::Wrong)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose::Wrong)
    }
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
        for data in self.unknown.values() {
            let points = data.get("dataPoints").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
            if points > 0 {
                into.refuse(Reason::UnknownKind, points as u64);
            }
        }
    }
}

impl Data {
    fn points(&self) -> impl Iterator<Item = &DataPoint> {
        self.data_points.iter().flatten()
    }

    fn temporality(&self) -> Option<Temporality> {
        match &self.aggregation_temporality {
            Loose::Text(name) if name == "AGGREGATION_TEMPORALITY_DELTA" => Some(Temporality::Delta),
            Loose::Text(name) if name == "AGGREGATION_TEMPORALITY_CUMULATIVE" => {
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
        let bounds = self.explicit_bounds.iter().flatten().map(Loose::to_f64);
        let bounds: Option<Vec<f64>> = bounds.collect();
        let counts = whole_numbers(&self.bucket_counts);
        bounds
            .zip(counts)
            .map_or(Err(BucketsError::Bounds), |(bounds, counts)| Buckets::of_bounds(&bounds, &counts))
    }

    fn exponential_buckets(&self) -> Result<Buckets, BucketsError> {
        let scale = if self.scale == Loose::Absent { Some(0) } else { self.scale.to_i64() };
        let zero = self.zero_count.or_zero().ok_or(BucketsError::Index)?;
        let side = |side: &Option<Side>| match side {
            None => Ok((0, Vec::new())),
            Some(Side { offset, bucket_counts }) => {
                let offset = if *offset == Loose::Absent { Some(0) } else { offset.to_i64() };
                offset.zip(whole_numbers(bucket_counts)).ok_or(BucketsError::Index)
            }
        };
        let ((below, negative), (above, positive)) = (side(&self.negative)?, side(&self.positive)?);
        Buckets::of_counts(scale.ok_or(BucketsError::Scale)?, zero, (below, &negative), (above, &positive))
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

/// All numbers of a list; `None` when one is none.
fn whole_numbers(list: &List<Loose>) -> Option<Vec<u64>> {
    list.iter().flatten().map(Loose::to_u64).collect()
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
            let values = list.values.iter().flatten().map(|value| nested_value(value.as_ref()));
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
