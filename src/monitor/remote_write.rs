//! Prometheus remote write 1.0: a snappy block that holds a protobuf `prometheus.WriteRequest`.
//!
//! The body is read in place, by the field numbers of `prompb/remote.proto` and `prompb/types.proto`. The rules:
//!
//! - **P1** The label `__name__` is the metric's name. The label `job` is the source, as `service.name` is OTLP's;
//!   without it the source is `unknown_service`. All other labels are attributes, `instance` among them: without it
//!   the counters of several targets would be one stream.
//! - **P2** Labels stand in the order of their names, none twice, and neither a name nor a value is empty. A body that
//!   breaks this is refused whole, as one that is no snappy or no protobuf.
//! - **P3** The protocol has no types. A series whose name ends with one of [`RISING`] only rises, and is cumulative
//!   without a known start; any other is a level. A classic histogram is so one rising series for each bound.
//! - **P4** A sample with the staleness marker, one certain NaN, ends its series. Any other value that is not finite is
//!   refused alone.
//! - **P5** Exemplars and metadata are skipped. A native histogram, which 1.0 does not have, is refused alone.
//!
//! Nothing here knows HTTP or keeps state. Invariant: a body counts whole, but for the points refused alone, or not
//! at all.

use super::{
    Batch, Kind, Reason, Temporality,
    body::{
        DecodeError,
        assemble::{Assembler, Attribute, Head, NO_RECORDED_VALUE, Number, SERVICE_NAME, Shape},
        unsnap,
        wire::{Field, Fields, WireError},
    },
};

/// How the names of series that only rise end.
const RISING: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];

const NAME: &str = "__name__";
const JOB: &str = "job";

/// The NaN by which Prometheus says that a series has ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;

const MEDIA_TYPE: &str = "application/x-protobuf";
/// The message of version 1, by the parameter that newer clients name it with.
const MESSAGE: &str = "prometheus.WriteRequest";
const EXPECTED: &str = "prometheus.WriteRequest of remote write 1.0";

/// A sample's time is in milliseconds, a point's in nanoseconds.
const NANOS_PER_MILLI: u64 = 1_000_000;

/// Whether a `Content-Type` names the one message of this version; letter case does not matter.
pub(super) fn check_type(content_type: Option<&str>) -> Result<(), DecodeError> {
    let given = content_type.unwrap_or_default();
    let mut parts = given.split(';').map(str::trim);
    let is_protobuf = parts.next().is_some_and(|media_type| media_type.eq_ignore_ascii_case(MEDIA_TYPE));
    let mut named = parts.filter_map(|parameter| parameter.split_once('='));
    let is_other =
        named.any(|(name, value)| name.eq_ignore_ascii_case("proto") && value.trim_matches('"') != MESSAGE);
    if is_protobuf && !is_other {
        Ok(())
    } else {
        Err(DecodeError::unsupported_type(given, "application/x-protobuf, remote write 1.0"))
    }
}

/// The points of a body of at most so many bytes after decompression.
pub(super) fn decode(body: &[u8], content_encoding: Option<&str>, most: usize) -> Result<Batch, DecodeError> {
    let given = content_encoding.unwrap_or_default().trim();
    if !given.eq_ignore_ascii_case("snappy") {
        return Err(DecodeError::unsupported_encoding(given, "snappy, the block format"));
    }
    let plain = unsnap(body, most)?;
    let mut assembler = Assembler::for_body(plain.len());
    let mut reader = Reader { into: &mut assembler, source: None };
    let read = reader.request(Message { fields: Fields(&plain), end: plain.len() });
    read.map_err(|error| DecodeError::Malformed { expected: EXPECTED, why: error.to_string() })?;
    Ok(assembler.finish())
}

/// What is wrong with a body, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}byte {byte} after decompression: {why}", series.map(|n| format!("series {n}, ")).unwrap_or_default())]
struct Malformed {
    /// The series, counted from 1.
    series: Option<usize>,
    /// Where what is wrong begins.
    byte: usize,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("{0}; an encoded protobuf message is expected")]
    Wire(#[from] WireError),
    #[error("label {0:?} stands twice; each name may stand once")]
    Twice(String),
    #[error("label {name:?} stands after {before:?}; labels must be sorted by name")]
    Unsorted { name: String, before: String },
    #[error("a label has no name; names have at least one byte")]
    NoName,
    #[error("label {0:?} has no value; a label without a value is left out")]
    NoValue(String),
}

/// A message in its place in the body.
#[derive(Clone, Copy)]
struct Message<'a> {
    fields: Fields<'a>,
    /// Where it ends.
    end: usize,
}

impl<'a> Message<'a> {
    /// Where its next field begins.
    const fn at(&self) -> usize {
        self.end - self.fields.0.len()
    }

    fn next(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        let byte = self.at();
        self.fields.next().map_err(|error| error_at(byte, error))
    }

    /// The message in the field that was read last, which began at this byte.
    fn inner(&self, field: Field<'a>, byte: usize) -> Result<Self, Malformed> {
        let fields = field.message().map_err(|error| error_at(byte, error))?;
        Ok(Self { fields, end: self.at() })
    }
}

fn error_at(byte: usize, why: impl Into<Why>) -> Malformed {
    Malformed { series: None, byte, why: why.into() }
}

struct Reader<'r, 'a> {
    into: &'r mut Assembler<'a>,
    /// The source of the series before, or that it named none.
    source: Option<Option<&'a str>>,
}

impl<'a> Reader<'_, 'a> {
    fn request(&mut self, mut message: Message<'a>) -> Result<(), Malformed> {
        let mut series = 0;
        loop {
            let byte = message.at();
            let Some(field) = message.next()? else { return Ok(()) };
            if field.number == 1 {
                series += 1;
                let read = message.inner(field, byte).and_then(|inner| self.series(inner));
                read.map_err(|error| Malformed { series: Some(series), ..error })?;
            }
        }
    }

    fn series(&mut self, message: Message<'a>) -> Result<(), Malformed> {
        let (name, job) = named(message)?; // P1
        if self.source != Some(job) {
            self.into.begin_attributes();
            if let Some(job) = job {
                self.into.attribute(SERVICE_NAME, &Attribute::Text(job));
            }
            self.into.end_resource();
            self.source = Some(job);
        }
        self.into.metric(name);
        self.into.begin_attributes();
        let shape = shape_of(name);
        // Labels may stand after samples; they are read first.
        each(message, 1, |label, byte| {
            let (name, value) = read_label(label, byte)?;
            if name != NAME && name != JOB {
                self.into.attribute(name, &Attribute::Text(value));
            }
            Ok(())
        })?;
        each(message, 2, |sample, byte| self.sample(shape, sample, byte))?;
        each(message, 4, |_, _| {
            self.into.refuse(Reason::UnknownKind, 1); // P5
            Ok(())
        })
    }

    fn sample(&mut self, shape: Shape, mut sample: Message<'a>, byte: usize) -> Result<(), Malformed> {
        let (mut value, mut time_ms) = (0.0_f64, 0_i64);
        while let Some(field) = sample.next()? {
            match field.number {
                1 => value = field.double().map_err(|error| error_at(byte, error))?,
                2 => time_ms = field.varint().map_err(|error| error_at(byte, error))?.cast_signed(),
                _ => {}
            }
        }
        let flags = if value.to_bits() == STALE { NO_RECORDED_VALUE } else { 0 }; // P4
        // A time before 1970 is none.
        let time = u64::try_from(time_ms).unwrap_or(0).saturating_mul(NANOS_PER_MILLI);
        self.into.number(shape, Head { start: 0, time, flags }, Some(Number::Double(value)));
        Ok(())
    }
}

/// P1 and P2: a series' name, empty when it has none, and its job.
fn named(series: Message<'_>) -> Result<(&str, Option<&str>), Malformed> {
    let (mut metric, mut job, mut before) = ("", None, None);
    each(series, 1, |label, byte| {
        let (name, value) = read_label(label, byte)?;
        if name.is_empty() {
            return Err(error_at(byte, Why::NoName));
        }
        if value.is_empty() {
            return Err(error_at(byte, Why::NoValue(shortened(name))));
        }
        match before {
            Some(before) if before == name => return Err(error_at(byte, Why::Twice(shortened(name)))),
            Some(before) if before > name => {
                let why = Why::Unsorted { name: shortened(name), before: shortened(before) };
                return Err(error_at(byte, why));
            }
            Some(_) | None => before = Some(name),
        }
        match name {
            NAME => metric = value,
            JOB => job = Some(value),
            _ => {}
        }
        Ok(())
    })?;
    Ok((metric, job))
}

/// P3.
fn shape_of(name: &str) -> Shape {
    if RISING.iter().any(|end| name.ends_with(end)) {
        Shape { kind: Kind::RisingSum, temporality: Some(Temporality::Cumulative) }
    } else {
        Shape::GAUGE
    }
}

/// Each message in the fields of this number, with the byte where its field begins.
fn each<'a>(
    mut message: Message<'a>,
    number: u32,
    mut read: impl FnMut(Message<'a>, usize) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    loop {
        let byte = message.at();
        let Some(field) = message.next()? else { return Ok(()) };
        if field.number == number {
            read(message.inner(field, byte)?, byte)?;
        }
    }
}

fn read_label<'a>(mut label: Message<'a>, byte: usize) -> Result<(&'a str, &'a str), Malformed> {
    let (mut name, mut value) = ("", "");
    while let Some(field) = label.next()? {
        match field.number {
            1 => name = field.text().map_err(|error| error_at(byte, error))?,
            2 => value = field.text().map_err(|error| error_at(byte, error))?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// The beginning of a label's name, for a message.
fn shortened(name: &str) -> String {
    name.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
