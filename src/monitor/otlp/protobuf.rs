//! Metrics requests in protobuf, read in place. Field numbers are those of
//! `opentelemetry/proto/metrics/v1/metrics.proto`; fields that are not counted are skipped unread.
//!
//! A message's fields may come in any order, so each message is walked once for what describes it and once
//! for what it holds.

use std::collections::BTreeMap;

use crate::{
    knowledge::buckets::{Buckets, MAX_COUNTS},
    monitor::{
        Kind, Temporality,
        body::{
            assemble::{Assembler, Attribute, Head, Histogram, Number, Quantile, Shape},
            nested,
            wire::{Field, Fields, WireError},
        },
    },
};

pub(super) fn read_request<'a>(body: &'a [u8], into: &mut Assembler<'a>) -> Result<(), WireError> {
    let mut fields = Fields(body);
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            read_resource_metrics(field.message()?, into)?;
        }
    }
    Ok(())
}

fn read_resource_metrics<'a>(message: Fields<'a>, into: &mut Assembler<'a>) -> Result<(), WireError> {
    into.begin_attributes();
    let mut fields = message;
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            let mut resource = field.message()?;
            while let Some(field) = resource.next()? {
                if field.number == 1 {
                    read_attribute(field.message()?, into)?;
                }
            }
        }
    }
    into.end_resource();
    let mut fields = message;
    while let Some(field) = fields.next()? {
        if field.number == 2 {
            let mut scope = field.message()?;
            while let Some(field) = scope.next()? {
                if field.number == 2 {
                    read_metric(field.message()?, into)?;
                }
            }
        }
    }
    Ok(())
}

fn read_metric<'a>(message: Fields<'a>, into: &mut Assembler<'a>) -> Result<(), WireError> {
    let (mut name, mut data) = ("", None);
    let mut fields = message;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = field.text()?,
            5 | 7 | 9 | 10 | 11 => data = Some(field),
            _ => {}
        }
    }
    into.metric(name);
    let Some(data) = data else {
        return Ok(());
    };
    let (temporality, monotonic) = read_shape(data.message()?)?;
    let mut points = data.message()?;
    while let Some(field) = points.next()? {
        if field.number != 1 {
            continue;
        }
        let point = field.message()?;
        match data.number {
            5 => read_number(point, Shape::GAUGE, into)?,
            7 => read_number(point, Shape::sum(temporality, monotonic), into)?,
            9 => read_histogram(point, Shape { kind: Kind::Histogram, temporality }, into)?,
            10 => {
                read_exponential_histogram(
                    point,
                    Shape { kind: Kind::ExponentialHistogram, temporality },
                    into,
                )?;
            }
            _ => read_summary(point, into)?,
        }
    }
    Ok(())
}

/// The temporality and whether a sum only rises: both have the same field numbers in all kinds of metrics.
fn read_shape(mut fields: Fields<'_>) -> Result<(Option<Temporality>, bool), WireError> {
    let (mut temporality, mut monotonic) = (None, false);
    while let Some(field) = fields.next()? {
        match field.number {
            2 => temporality = temporality_of(field.varint()?),
            3 => monotonic = field.varint()? != 0,
            _ => {}
        }
    }
    Ok((temporality, monotonic))
}

pub(super) const fn temporality_of(number: u64) -> Option<Temporality> {
    match number {
        1 => Some(Temporality::Delta),
        2 => Some(Temporality::Cumulative),
        _ => None,
    }
}

fn read_number<'a>(mut point: Fields<'a>, shape: Shape, into: &mut Assembler<'a>) -> Result<(), WireError> {
    into.begin_attributes();
    let (mut head, mut value) = (Head::default(), None);
    while let Some(field) = point.next()? {
        match field.number {
            2 => head.start = field.fixed64()?,
            3 => head.time = field.fixed64()?,
            4 => value = Some(Number::Double(field.double()?)),
            6 => value = Some(Number::Integer(field.fixed64()?.cast_signed())),
            7 => read_attribute(field.message()?, into)?,
            8 => head.flags = field.varint()?,
            _ => {}
        }
    }
    into.number(shape, head, value);
    Ok(())
}

fn read_histogram<'a>(
    mut point: Fields<'a>,
    shape: Shape,
    into: &mut Assembler<'a>,
) -> Result<(), WireError> {
    into.begin_attributes();
    let (mut head, mut count, mut sum) = (Head::default(), 0, None);
    let (mut counts, mut bounds) = (Vec::new(), Vec::new());
    while let Some(field) = point.next()? {
        match field.number {
            2 => head.start = field.fixed64()?,
            3 => head.time = field.fixed64()?,
            4 => count = field.fixed64()?,
            5 => sum = Some(field.double()?),
            6 => counts.extend(field.fixed64s()?),
            7 => bounds.extend(field.fixed64s()?.map(f64::from_bits)),
            9 => read_attribute(field.message()?, into)?,
            10 => head.flags = field.varint()?,
            _ => {}
        }
    }
    let buckets = Buckets::of_bounds(&bounds, &counts);
    into.histogram(shape, head, Histogram { count, sum, buckets });
    Ok(())
}

fn read_exponential_histogram<'a>(
    mut point: Fields<'a>,
    shape: Shape,
    into: &mut Assembler<'a>,
) -> Result<(), WireError> {
    into.begin_attributes();
    let (mut head, mut count, mut sum) = (Head::default(), 0, None);
    let (mut scale, mut zero) = (0, 0);
    let (mut negative, mut positive) = (Side::default(), Side::default());
    while let Some(field) = point.next()? {
        match field.number {
            1 => read_attribute(field.message()?, into)?,
            2 => head.start = field.fixed64()?,
            3 => head.time = field.fixed64()?,
            4 => count = field.fixed64()?,
            5 => sum = Some(field.double()?),
            6 => scale = zigzag(field.varint()?),
            7 => zero = field.fixed64()?,
            8 => positive.read(field.message()?)?,
            9 => negative.read(field.message()?)?,
            10 => head.flags = field.varint()?,
            _ => {}
        }
    }
    let buckets = Buckets::of_counts(scale, zero, negative.counted(), positive.counted());
    into.histogram(shape, head, Histogram { count, sum, buckets });
    Ok(())
}

/// The buckets on one side of zero.
#[derive(Default)]
struct Side {
    offset: i64,
    counts: Vec<u64>,
}

impl Side {
    fn read(&mut self, mut message: Fields<'_>) -> Result<(), WireError> {
        while let Some(field) = message.next()? {
            match field.number {
                1 => self.offset = zigzag(field.varint()?),
                2 => field.varints(&mut self.counts, MAX_COUNTS + 1)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn counted(&self) -> (i64, &[u64]) {
        (self.offset, &self.counts)
    }
}

/// Protobuf's form of numbers that may be below zero. Clients may send 64 bits where 32 would do.
const fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

fn read_summary<'a>(mut point: Fields<'a>, into: &mut Assembler<'a>) -> Result<(), WireError> {
    into.begin_attributes();
    let (mut head, mut count, mut sum, mut quantiles) = (Head::default(), 0, None, Vec::new());
    while let Some(field) = point.next()? {
        match field.number {
            2 => head.start = field.fixed64()?,
            3 => head.time = field.fixed64()?,
            4 => count = field.fixed64()?,
            5 => sum = Some(field.double()?),
            6 => quantiles.push(read_quantile(field.message()?)?),
            7 => read_attribute(field.message()?, into)?,
            8 => head.flags = field.varint()?,
            _ => {}
        }
    }
    into.summary(head, count, sum, &quantiles);
    Ok(())
}

fn read_quantile(mut message: Fields<'_>) -> Result<Quantile, WireError> {
    let mut read = Quantile::default();
    while let Some(field) = message.next()? {
        match field.number {
            1 => read.quantile = field.double()?,
            2 => read.value = field.double()?,
            _ => {}
        }
    }
    Ok(read)
}

fn read_attribute<'a>(message: Fields<'a>, into: &mut Assembler<'a>) -> Result<(), WireError> {
    let (key, value) = read_key_value(message)?;
    let value = match value {
        Some(value) => read_value(value)?,
        None => Attribute::Other(nested::NOTHING.to_owned()),
    };
    into.attribute(key, &value);
    Ok(())
}

fn read_key_value(mut message: Fields<'_>) -> Result<(&str, Option<Fields<'_>>), WireError> {
    let (mut key, mut value) = ("", None);
    while let Some(field) = message.next()? {
        match field.number {
            1 => key = field.text()?,
            2 => value = Some(field.message()?),
            _ => {}
        }
    }
    Ok((key, value))
}

fn read_value(value: Fields<'_>) -> Result<Attribute<'_>, WireError> {
    let Some(field) = last_value(value)? else {
        return Ok(Attribute::Other(nested::NOTHING.to_owned()));
    };
    Ok(match field.number {
        1 => Attribute::Text(field.text()?),
        2 => Attribute::Bool(field.varint()? != 0),
        3 => Attribute::Integer(field.varint()?.cast_signed()),
        _ => Attribute::Other(read_nested(field, nested::MAX_DEPTH)?),
    })
}

/// The value's field; the last one counts when there are several.
fn last_value(mut value: Fields<'_>) -> Result<Option<Field<'_>>, WireError> {
    let mut last = None;
    while let Some(field) = value.next()? {
        if (1..=7).contains(&field.number) {
            last = Some(field);
        }
    }
    Ok(last)
}

/// A value as JSON. What lies deeper than the limit is left out: nobody selects a series by it.
fn read_nested(field: Field<'_>, depth: usize) -> Result<String, WireError> {
    let nested_value = |value: Option<Fields<'_>>| match (value, depth.checked_sub(1)) {
        (Some(value), Some(depth)) => match last_value(value)? {
            Some(field) => read_nested(field, depth),
            None => Ok(nested::NOTHING.to_owned()),
        },
        (None, _) | (_, None) => Ok(nested::NOTHING.to_owned()),
    };
    Ok(match field.number {
        1 => nested::text(field.text()?),
        2 => (field.varint()? != 0).to_string(),
        3 => field.varint()?.cast_signed().to_string(),
        4 => nested::double(field.double()?),
        5 => {
            let (mut list, mut values) = (field.message()?, Vec::new());
            while let Some(field) = list.next()? {
                if field.number == 1 {
                    values.push(nested_value(Some(field.message()?))?);
                }
            }
            nested::list(&values)
        }
        6 => {
            let (mut map, mut entries) = (field.message()?, BTreeMap::new());
            while let Some(field) = map.next()? {
                if field.number == 1 {
                    let (key, value) = read_key_value(field.message()?)?;
                    entries.insert(key, nested_value(value)?);
                }
            }
            nested::map(&entries)
        }
        _ => nested::bytes(field.bytes()?),
    })
}
