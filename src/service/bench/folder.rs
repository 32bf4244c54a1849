//! A folder for the time of a measurement.
//!
//! Invariant: it is new when it is given, and it goes when it is dropped.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A folder that goes, with all that is in it, when it is dropped.
#[derive(Debug)]
pub struct TemporaryFolder(PathBuf);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct FolderError {
    path: PathBuf,
    #[source]
    error: io::Error,
}

impl TemporaryFolder {
    /// A new folder below this one, named after this process.
    ///
    /// # Errors
    /// [`FolderError`] when it cannot be created, or is there already.
    pub fn new(below: &Path) -> Result<Self, FolderError> {
        let path = below.join(format!("quorate-bench-{}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(FolderError { path, error }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the bench's folder is left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TemporaryFolder;

    #[test]
    fn it_goes_with_all_that_is_in_it_and_is_never_shared() {
        let below = tempfile::tempdir().expect("a folder for the test");
        let folder = TemporaryFolder::new(below.path()).expect("it can be created");
        std::fs::write(folder.path().join("file"), "x").expect("it is writable");
        assert!(TemporaryFolder::new(below.path()).is_err());
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
