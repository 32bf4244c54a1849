//! OTLP metrics as bytes: what came in a request's body becomes a [`Batch`](super::Batch) of points.
//!
//! Protobuf is read in place, since most of a body (histograms' buckets, descriptions, exemplars) is not
//! counted; JSON is read leniently, since clients write numbers as strings and enumerations as names. Both
//! feed one assembler (`monitor::body`), so that a body counts the same in either form. Nothing here keeps state
//! or knows HTTP. Invariant: a body that is malformed anywhere is refused whole; a point that cannot be counted is refused
//! alone, with a reason.

mod decode;
mod json;
mod protobuf;
mod rewrite;

#[cfg(test)]
mod tests;

/// Where clients post metrics. `/v1/metrics` is OTLP's; the others are what clients make of an endpoint
/// that was configured with a slash too many, or, per signal, without a path.
pub const METRICS_PATHS: [&str; 4] = ["/v1/metrics", "/v1/metrics/", "//v1/metrics", "/"];

/// Where the same clients post what is taken and dropped.
pub const DROPPED_PATHS: [&str; 6] =
    ["/v1/traces", "/v1/traces/", "//v1/traces", "/v1/logs", "/v1/logs/", "//v1/logs"];

pub use decode::{Format, decode, decode_within};
pub use rewrite::{Rename, RewriteError, map_times, rewrite};
