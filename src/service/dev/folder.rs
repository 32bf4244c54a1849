//! The folder of a development cluster: one `quorate dev` at a time, and logs that do not grow for ever.
//!
//! Invariant: whoever holds a [`DevFolder`] is the only one that starts processes for it.

use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

/// A log or list of events above this size is put aside by the next start: weeks of an idle cluster.
const MAX_LOG_BYTES: u64 = 64 * 1024 * 1024;

/// A folder that belongs to this process as long as this value lives.
#[derive(Debug)]
pub struct DevFolder {
    path: PathBuf,
    lock: File,
}

/// Why a folder cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum DevFolderError {
    /// It cannot be used.
    #[error("{}: {error}; choose a --data-dir that you may write to", path.display())]
    Unusable {
        /// The folder, or the file in it.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Another one runs in the folder.
    #[error("{}: another `quorate dev` runs there{holder}, or choose another --data-dir", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Which process it is, where it answers, and how to end it.
        holder: String,
    },
}

/// Who has the folder, for whoever comes second.
#[derive(Serialize, Deserialize)]
struct Holder {
    process: u32,
    status: Option<String>,
}

impl DevFolder {
    /// Takes a folder, which is made when it is missing.
    ///
    /// # Errors
    /// [`DevFolderError`].
    pub fn take(path: &Path) -> Result<Self, DevFolderError> {
        let failed = |error| DevFolderError::Unusable { path: path.to_owned(), error };
        fs::create_dir_all(path).map_err(failed)?;
        // Children are given absolute paths.
        let path = path.canonicalize().map_err(failed)?;
        let file = path.join("lock");
        let lock = File::options().create(true).truncate(false).read(true).write(true).open(&file);
        let mut lock = lock.map_err(|error| DevFolderError::Unusable { path: file.clone(), error })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let holder = holder(&mut lock);
                return Err(DevFolderError::InUse { path, holder });
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(DevFolderError::Unusable { path: file, error });
            }
        }
        let mut folder = Self { path, lock };
        folder.tell(None).map_err(|error| DevFolderError::Unusable { path: file, error })?;
        Ok(folder)
    }

    /// Where it is, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says in the lock file who has the folder and where the cluster answers.
    pub(super) fn tell(&mut self, status: Option<String>) -> io::Result<()> {
        let text = serde_json::to_vec(&Holder { process: std::process::id(), status })?;
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(&text)
    }

    /// Opens a file that only grows, and puts aside what an earlier start left when that is too large: one
    /// earlier file is kept, with `.previous` after its name.
    ///
    /// # Errors
    /// [`DevFolderError::Unusable`] names the file.
    pub fn open_log(&self, name: &str) -> Result<File, DevFolderError> {
        let path = self.path.join(name);
        open_log(&path).map_err(|error| DevFolderError::Unusable { path, error })
    }
}

/// See [`DevFolder::open_log`].
pub(super) fn open_log(path: &Path) -> io::Result<File> {
    if path.metadata().is_ok_and(|metadata| metadata.len() > MAX_LOG_BYTES) {
        let mut previous = path.as_os_str().to_owned();
        previous.push(".previous");
        fs::rename(path, previous)?;
    }
    File::options().create(true).append(true).open(path)
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    // What it says is for a message only: one that cannot be read is left out.
    let _ = lock.read_to_string(&mut text);
    match serde_json::from_str(&text) {
        Ok(Holder { process, status: Some(status) }) => {
            format!(" (process {process}, {status}); end it with: kill {process}")
        }
        Ok(Holder { process, status: None }) => format!(" (process {process}); end it with: kill {process}"),
        Err(_) => "; end it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{DevFolder, MAX_LOG_BYTES};
    use std::fs::{self, File};

    #[test]
    fn the_second_is_told_where_the_first_runs() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut first = DevFolder::take(folder.path()).expect("nobody has it");
        first.tell(Some("http://127.0.0.1:7101/v1/status".to_owned())).expect("the folder is writable");
        let told = DevFolder::take(folder.path()).expect_err("somebody has it").to_string();
        let me = std::process::id();
        let words = format!(
            "another `quorate dev` runs there (process {me}, http://127.0.0.1:7101/v1/status); end it with: kill {me}, or"
        );
        assert!(told.contains(&words), "{told}");
        drop(first);
        DevFolder::take(folder.path()).expect("a lock file that was left behind is no lock");
    }

    #[test]
    fn a_file_where_the_folder_should_be_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("the folder is writable");
        let told = DevFolder::take(&file).expect_err("it is a file").to_string();
        assert!(told.starts_with(&*file.to_string_lossy()) && told.contains("choose a --data-dir"), "{told}");
    }

    #[test]
    fn a_log_that_has_grown_too_large_is_put_aside() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let taken = DevFolder::take(folder.path()).expect("nobody has it");
        let path = folder.path().join("events.jsonl");
        for (bytes, kept) in [(7, 7), (MAX_LOG_BYTES + 1, 0)] {
            // The file is sparse.
            File::create(&path).and_then(|file| file.set_len(bytes)).expect("the folder is writable");
            let log = taken.open_log("events.jsonl").expect("the folder is writable");
            assert_eq!(log.metadata().expect("it is open").len(), kept);
        }
        assert!(folder.path().join("events.jsonl.previous").exists());
    }
}
