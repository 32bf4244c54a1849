//! Files whose newest content is in use without a restart: certificates and tokens.
//!
//! It looks at them once a second: a signal would have to be sent, and file systems tell of changes in too many
//! ways. Invariant: what cannot be read or understood changes nothing and is said in the log; the last good
//! content stays in use.

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::watch;

/// How soon a change is in use.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// No certificate chain and no list of tokens is larger.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Loads what the files say, and again whenever one of them changes, for as long as somebody holds the
/// receiver. It must be called on a runtime.
///
/// # Errors
/// What `load` fails with, the first time.
pub(super) fn follow<T, E>(
    what: &'static str,
    files: Vec<PathBuf>,
    load: impl Fn() -> Result<T, E> + Send + 'static,
) -> Result<watch::Receiver<T>, E>
where
    T: Send + Sync + 'static,
    E: Display + Send,
{
    // The stamps are older than the content: a change between the two is seen as one.
    let mut known: Vec<Stamp> = files.iter().map(|file| stamp(file)).collect();
    let (sender, receiver) = watch::channel(load()?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let seen: Vec<Stamp> = files.iter().map(|file| stamp(file)).collect();
            if seen == known {
                continue;
            }
            known = seen;
            match load() {
                Ok(newest) => {
                    tracing::info!("the new {what} is in use");
                    sender.send_replace(newest);
                }
                Err(error) => tracing::error!("the last good {what} stays in use: {error}"),
            }
        }
    });
    Ok(receiver)
}

/// What differs when a file was written or replaced: device, number, length, change time.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamp(file: &Path) -> Stamp {
    let seen = fs::metadata(file).ok()?;
    Some((seen.dev(), seen.ino(), seen.len(), seen.ctime(), seen.ctime_nsec()))
}

/// Reads a file of a bounded size.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than a megabyte"));
    }
    Ok(bytes)
}

/// Whether somebody else than a file's owner can read it.
pub(super) fn others_can_read(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.mode() & 0o077 != 0)
}
