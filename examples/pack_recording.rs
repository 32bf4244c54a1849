//! Packs the metrics requests of a recorded folder into one file: `pack_recording FOLDER FILE`.
//! It is how `airflow-incident.otlp.gz` was made; nothing else needs it.

use quorate::monitor::recording;
use std::{fs::File, path::PathBuf};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(file), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: pack_recording FOLDER FILE");
    };
    let mut requests = recording::read(&folder)?;
    requests.retain(recording::RecordedRequest::is_metrics);
    Ok(recording::pack(&requests, File::create(file)?)?)
}
