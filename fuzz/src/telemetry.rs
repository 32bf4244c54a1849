//! What engines post: OTLP bodies in both forms, plain and compressed, recordings of them, bodies of remote write, and
//! plain samples.
//!
//! Invariant: a body counts the same however it is compressed.

use std::{io::Write as _, path::Path};

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use quorate::{
    monitor::{
        Batch, Monitor, MonitorParameters,
        body::DecodeError,
        form::Form,
        otlp::{decode_within, map_times},
        recording,
    },
    types::{UnixMillis, WindowIndex},
};

use crate::{script::Script, world::WORLD};

/// What the door's quick lane takes, after decompression.
const MOST_BYTES: usize = 256 * 1024;

/// When the monitor listens: the time of the seeds' samples.
pub const NOW: UnixMillis = UnixMillis::new(1_760_000_000_000);

/// A body of protobuf or JSON, as the first byte says, and the windows that follow from it.
pub fn otlp(bytes: &[u8]) {
    let Some((form, body)) = bytes.split_first() else { return };
    let content_type = content_type(*form);
    // Another reader of the same bytes, for replays.
    drop(map_times(body, Some(content_type), None, &|time| time.wrapping_add(1)));
    let Ok(batch) = decode_within(body, Some(content_type), None, MOST_BYTES) else { return };
    observe(&batch);
}

/// A compressed body as it comes, and a plain one that is compressed here: the first two bytes say how.
pub fn otlp_compressed(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (content_type, is_gzip, is_compressed) = (content_type(script.byte()), script.flag(), script.flag());
    let encoding = if is_gzip { "gzip" } else { "deflate" };
    let decode = |body: &[u8], encoding: Option<&str>| -> Result<Batch, DecodeError> {
        decode_within(body, Some(content_type), encoding, MOST_BYTES)
    };
    let body = script.rest();
    if is_compressed {
        if let Ok(batch) = decode(body, Some(encoding)) {
            observe(&batch);
        }
        return;
    }
    let compressed = if is_gzip {
        let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
        writer.write_all(body).and_then(|()| writer.finish())
    } else {
        let mut writer = ZlibEncoder::new(Vec::new(), Compression::fast());
        writer.write_all(body).and_then(|()| writer.finish())
    };
    let compressed = decode(&compressed.expect("memory takes all"), Some(encoding));
    assert_eq!(compressed.map(|batch| told(&batch)), decode(body, None).map(|batch| told(&batch)));
}

/// A body of remote write as it comes, or a plain one that is compressed here, as the first byte says.
pub fn remote_write(bytes: &[u8]) {
    let Some((how, body)) = bytes.split_first() else { return };
    let compressed;
    let body = if how & 1 == 0 {
        body
    } else {
        compressed = snap::raw::Encoder::new().compress_vec(body).expect("memory takes all");
        &compressed
    };
    if let Ok(batch) = Form::RemoteWrite.decode(body, Some("snappy"), MOST_BYTES) {
        observe(&batch);
    }
}

/// Plain samples in JSON.
pub fn samples(bytes: &[u8]) {
    if let Ok(batch) = Form::Samples.decode(bytes, None, MOST_BYTES) {
        observe(&batch);
    }
}

fn content_type(form: u8) -> &'static str {
    ["application/x-protobuf", "application/json"][usize::from(form & 1)]
}

fn told(batch: &Batch) -> (usize, String) {
    (
        batch.len(),
        format!("{:?}{:?}", batch.refused(), batch.points().map(|point| point.identity).collect::<Vec<_>>()),
    )
}

fn observe(batch: &Batch) {
    let parameters = &WORLD.genesis.parameters;
    let mut monitor = Monitor::new(MonitorParameters::of(parameters), NOW);
    let ingested = monitor.ingest(batch, NOW);
    let refused: u64 = ingested.rejected.values().sum();
    assert!(ingested.accepted + refused >= batch.len() as u64, "every point is taken or refused");
    drop(monitor.ingest(batch, NOW));
    let window = WindowIndex::containing(NOW, parameters.window);
    let closed = monitor.close(window).expect("it is open");
    assert_eq!(closed.window, window);
    let body = borsh::to_vec(&closed.summary).expect("memory takes all");
    assert_eq!(borsh::from_slice(&body).ok(), Some(closed.summary), "a report reads back as itself");
}

/// A packed recording.
pub fn recordings(bytes: &[u8]) {
    let Ok(requests) = recording::parse(Path::new("fuzz"), bytes) else { return };
    let mut packed = Vec::new();
    recording::pack(&requests, &mut packed).expect("memory takes all");
    let again =
        recording::parse(Path::new("fuzz"), packed.as_slice()).expect("what was packed is a recording");
    assert_eq!(again, requests, "a recording reads back as itself");
}
