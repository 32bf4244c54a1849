//! What the journal asks of a disk: append-only files in one flat folder.
//!
//! It is no file system: no folders, no overwriting, no renaming. There are two implementations: files, in
//! the service, and the simulator's, which loses and tears what was not synced. Invariant: nothing counts as
//! durable that the rules of [`Disk`] do not promise.

/// Append-only files in one flat folder.
///
/// What survives a crash:
/// - a file's bytes, as of the last [`sync`](Self::sync) of it that returned `Ok`, if its name survives;
/// - a name's creation or removal, as of the last [`sync_folder`](Self::sync_folder) that returned `Ok`.
///
/// Everything later may survive or not, piece by piece: of unsynced appended bytes a crash may keep none, a
/// prefix, or the whole length with any part of it replaced by zeros or by other bytes; an unsynced
/// truncation or removal may have happened or not. A killed process loses nothing that was appended, but
/// what it did not sync is still not durable.
pub trait Disk {
    /// All names in the folder, in any order.
    ///
    /// # Errors
    /// [`DiskError`] when the folder cannot be read.
    fn list(&self) -> Result<Vec<String>, DiskError>;

    /// Creates an empty file. The name is durable after [`sync_folder`](Self::sync_folder).
    ///
    /// # Errors
    /// [`DiskError`], also when the name exists.
    fn create(&mut self, name: &str) -> Result<(), DiskError>;

    /// Appends bytes to a file. After an error any part of them may have been appended.
    ///
    /// # Errors
    /// [`DiskError`], also when there is no such file.
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes a file's length and bytes durable.
    ///
    /// # Errors
    /// [`DiskError`]; then nothing is known about any byte since the last successful sync, for ever.
    fn sync(&mut self, name: &str) -> Result<(), DiskError>;

    /// Makes the names durable.
    ///
    /// # Errors
    /// [`DiskError`]; then nothing is known about any name since the last successful sync.
    fn sync_folder(&mut self) -> Result<(), DiskError>;

    /// The length of a file in bytes.
    ///
    /// # Errors
    /// [`DiskError`], also when there is no such file.
    fn len(&self, name: &str) -> Result<u64, DiskError>;

    /// Exactly `bytes` bytes of a file, from `offset`.
    ///
    /// # Errors
    /// [`DiskError`], also when the file ends before.
    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, DiskError>;

    /// Cuts a file down to `bytes` bytes. Durable after [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`DiskError`], also when the file is shorter.
    fn truncate(&mut self, name: &str, bytes: u64) -> Result<(), DiskError>;

    /// Removes a file. Durable after [`sync_folder`](Self::sync_folder).
    ///
    /// # Errors
    /// [`DiskError`], also when there is no such file.
    fn remove(&mut self, name: &str) -> Result<(), DiskError>;
}

/// Why a disk did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// There is no space left, or a quota is used up.
    #[error("{name}: no space is left on the disk")]
    Full {
        /// The file's name.
        name: String,
    },
    /// Anything else that failed.
    #[error("{name}: {error}")]
    Io {
        /// The file's name; empty for the folder itself.
        name: String,
        /// What the system said.
        error: String,
    },
}
