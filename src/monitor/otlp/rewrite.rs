//! Requests written anew with other times or other names: what a replay and the tests of it need. It keeps
//! everything else of a body, and its form; a compressed body comes out uncompressed.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{Metric, metric},
};
use prost::Message as _;

use super::{decode::Format, json};
use crate::monitor::body::{DecodeError, Encoding, MAX_DECOMPRESSED_BYTES, decompress};

/// How to name things: each function gets a name or a value and returns the one to write.
pub struct Rename<'a> {
    /// Metrics' names.
    pub metric: &'a dyn Fn(&str) -> String,
    /// Attributes' string values, by the attribute's name; of resources and of points.
    pub attribute: &'a dyn Fn(&str, &str) -> String,
}

impl std::fmt::Debug for Rename<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rename").finish_non_exhaustive()
    }
}

/// Why a body is not written anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// It cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The body with every start and sample time mapped; zero, which stands for "unknown", stays zero.
///
/// # Errors
/// [`RewriteError`] when the body cannot be read.
pub fn map_times(
    body: &[u8],
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    map: &dyn Fn(u64) -> u64,
) -> Result<Vec<u8>, RewriteError> {
    let keep = Rename { metric: &str::to_owned, attribute: &|_, value| value.to_owned() };
    rewrite(body, content_type, content_encoding, map, &keep)
}

/// The body with every time mapped and every name written anew.
///
/// # Errors
/// [`RewriteError`] when the body cannot be read.
pub fn rewrite(
    body: &[u8],
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    map: &dyn Fn(u64) -> u64,
    rename: &Rename<'_>,
) -> Result<Vec<u8>, RewriteError> {
    let format = Format::of_content_type(content_type)?;
    let plain = decompress(body, Encoding::of_header(content_encoding)?, MAX_DECOMPRESSED_BYTES)?;
    let malformed = |why: String| DecodeError::Malformed { expected: format.expected(), why };
    match format {
        Format::Protobuf => {
            let mut request =
                ExportMetricsServiceRequest::decode(&*plain).map_err(|error| malformed(error.to_string()))?;
            rewrite_request(&mut request, map, rename);
            Ok(request.encode_to_vec())
        }
        Format::Json => {
            // The reference structures drop what they cannot read, so the text's own tree is changed.
            let mut request: serde_json::Value = serde_json::from_slice(json::without_mark(&plain))
                .map_err(|error| malformed(error.to_string()))?;
            rewrite_json(&mut request, map, rename);
            Ok(request.to_string().into_bytes())
        }
    }
}

fn rewrite_request(request: &mut ExportMetricsServiceRequest, map: &dyn Fn(u64) -> u64, rename: &Rename<'_>) {
    for group in &mut request.resource_metrics {
        if let Some(resource) = &mut group.resource {
            rename_attributes(&mut resource.attributes, rename);
        }
        for metric in group.scope_metrics.iter_mut().flat_map(|scope| &mut scope.metrics) {
            rewrite_metric(metric, map, rename);
        }
    }
}

fn rewrite_metric(metric: &mut Metric, map: &dyn Fn(u64) -> u64, rename: &Rename<'_>) {
    metric.name = (rename.metric)(&metric.name);
    let shift = |start: &mut u64, time: &mut u64| {
        for point in [start, time] {
            if *point != 0 {
                *point = map(*point);
            }
        }
    };
    // The kinds of points have no trait in common.
    macro_rules! rewrite_points {
        ($data:expr) => {
            for point in &mut $data.data_points {
                shift(&mut point.start_time_unix_nano, &mut point.time_unix_nano);
                rename_attributes(&mut point.attributes, rename);
            }
        };
    }
    match &mut metric.data {
        Some(metric::Data::Gauge(data)) => rewrite_points!(data),
        Some(metric::Data::Sum(data)) => rewrite_points!(data),
        Some(metric::Data::Histogram(data)) => rewrite_points!(data),
        Some(metric::Data::ExponentialHistogram(data)) => rewrite_points!(data),
        Some(metric::Data::Summary(data)) => rewrite_points!(data),
        None => {}
    }
}

fn rename_attributes(attributes: &mut [KeyValue], rename: &Rename<'_>) {
    for attribute in attributes {
        if let Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) = &mut attribute.value {
            *text = (rename.attribute)(&attribute.key, text);
        }
    }
}

/// Walks the tree by OTLP's names: they mean the same wherever they stand. Its depth is bounded by the parser.
fn rewrite_json(value: &mut serde_json::Value, map: &dyn Fn(u64) -> u64, rename: &Rename<'_>) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), &mut *field) {
                    // Only the points' own times are mapped, as in protobuf.
                    ("exemplars", _) => continue,
                    ("startTimeUnixNano" | "timeUnixNano", time) => rewrite_json_time(time, map),
                    ("metrics", Value::Array(metrics)) => {
                        for name in metrics.iter_mut().filter_map(|metric| metric.get_mut("name")) {
                            rewrite_json_text(name, rename.metric);
                        }
                    }
                    ("attributes", Value::Array(attributes)) => {
                        for attribute in attributes {
                            let key = attribute["key"].as_str().unwrap_or_default().to_owned();
                            if let Some(text) = attribute.pointer_mut("/value/stringValue") {
                                rewrite_json_text(text, &|text| (rename.attribute)(&key, text));
                            }
                        }
                        continue;
                    }
                    _ => {}
                }
                rewrite_json(field, map, rename);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rewrite_json(value, map, rename)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn rewrite_json_text(value: &mut serde_json::Value, rename: &dyn Fn(&str) -> String) {
    if let Some(text) = value.as_str() {
        *value = rename(text).into();
    }
}

/// Numbers stay numbers and texts stay texts, as the client wrote them.
fn rewrite_json_time(value: &mut serde_json::Value, map: &dyn Fn(u64) -> u64) {
    let from_text = value.as_str().and_then(|text| text.parse().ok());
    match (value.as_u64(), from_text) {
        (Some(time), _) if time != 0 => *value = map(time).into(),
        (None, Some(time)) if time != 0 => *value = map(time).to_string().into(),
        (_, _) => {}
    }
}
