//! Packs a recorded folder into one file: `pack_recording [--all] FOLDER FILE`; without `--all` only its
//! metrics requests. It is how `airflow-incident.otlp.gz` and those in `tests/data` were made; nothing else
//! needs it.

use quorate::monitor::recording;
use std::{fs::File, path::PathBuf};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let all = arguments.next_if(|argument| argument == "--all").is_some();
    let mut paths = arguments.map(PathBuf::from);
    let (Some(folder), Some(file), None) = (paths.next(), paths.next(), paths.next()) else {
        anyhow::bail!("usage: pack_recording [--all] FOLDER FILE");
    };
    let mut requests = recording::read(&folder)?;
    requests.retain(|request| all || request.is_metrics());
    Ok(recording::pack(&requests, File::create(file)?)?)
}
