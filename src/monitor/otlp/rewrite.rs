//! Requests written anew with other times or other names: what a replay and the tests of it need. It keeps
//! everything else of a body, and its form; a compressed body comes out uncompressed.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{Metric, metric},
};
use prost::Message as _;

use super::{
    compression::{self, Encoding},
    decode::{DecodeError, Format},
};

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
    /// The JSON form cannot be written.
    #[error("the request cannot be written as JSON: {0}")]
    Encode(String),
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
    let plain = compression::decompress(body, Encoding::of_header(content_encoding)?)?;
    let malformed = |why: String| DecodeError::Malformed { format, why };
    let mut request: ExportMetricsServiceRequest = match format {
        Format::Protobuf => {
            ExportMetricsServiceRequest::decode(&*plain).map_err(|error| malformed(error.to_string()))?
        }
        Format::Json => serde_json::from_slice(&plain).map_err(|error| malformed(error.to_string()))?,
    };
    for group in &mut request.resource_metrics {
        if let Some(resource) = &mut group.resource {
            rename_attributes(&mut resource.attributes, rename);
        }
        for metric in group.scope_metrics.iter_mut().flat_map(|scope| &mut scope.metrics) {
            rewrite_metric(metric, map, rename);
        }
    }
    match format {
        Format::Protobuf => Ok(request.encode_to_vec()),
        Format::Json => serde_json::to_vec(&request).map_err(|error| RewriteError::Encode(error.to_string())),
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
