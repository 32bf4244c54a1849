//! Keys in files: one line with the secret key's 32-byte seed, or the raw public key, as 64 lower-case
//! hexadecimal characters.
//!
//! Invariant: a secret key that others on the machine can read is refused, and a key is never overwritten.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::durable::{Readers, create_file};
use crate::types::{Digest, KeyError, PublicKey, SecretKey};

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("cannot use the key file {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not hold a key.
    #[error("{} holds no key: 64 lower-case hexadecimal characters are expected", .0.display())]
    Malformed(PathBuf),
    /// Others than its owner may read it.
    #[error("others can read the key file {0}: chmod 600 {0}", path.display())]
    Readable {
        /// Which.
        path: PathBuf,
    },
    /// It holds 32 bytes that are no admissible public key.
    #[error("{}: {error}", path.display())]
    NotAdmissible {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: KeyError,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// Makes a secret key from the system's randomness and writes it to a new file, as [`write_secret_key`] does.
///
/// # Errors
/// [`KeyFileError`] when there is no randomness, or the file exists or cannot be written.
pub fn generate_secret_key(path: &Path) -> Result<SecretKey, KeyFileError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| KeyFileError::Random(error.to_string()))?;
    let key = SecretKey::from_seed(&seed);
    write_secret_key(path, &key)?;
    Ok(key)
}

/// Reads a secret key.
///
/// # Errors
/// [`KeyFileError`] when the file is missing, malformed or readable by others.
pub fn read_secret_key(path: &Path) -> Result<SecretKey, KeyFileError> {
    let failed = |source| KeyFileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(KeyFileError::Readable { path: path.to_owned() });
    }
    Ok(SecretKey::from_seed(line_of(file, path)?.as_bytes()))
}

/// Reads a public key.
///
/// # Errors
/// [`KeyFileError`] when the file is missing or malformed, or the key is not admissible.
pub fn read_public_key(path: &Path) -> Result<PublicKey, KeyFileError> {
    let file = File::open(path).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    PublicKey::from_bytes(line_of(file, path)?.as_bytes())
        .map_err(|error| KeyFileError::NotAdmissible { path: path.to_owned(), error })
}

fn line_of(file: File, path: &Path) -> Result<Digest, KeyFileError> {
    let mut text = String::new();
    // A key is 65 bytes with its line end; anything longer is none and need not be read.
    let read = file.take(100).read_to_string(&mut text);
    read.map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    text.trim_end_matches('\n').parse().map_err(|_| KeyFileError::Malformed(path.to_owned()))
}

/// Writes a secret key to a new file that only its owner can read, whole or not at all.
///
/// # Errors
/// [`KeyFileError::Io`] when the file exists already or cannot be written.
pub fn write_secret_key(path: &Path, key: &SecretKey) -> Result<(), KeyFileError> {
    write_line(path, Readers::Owner, Digest::from_bytes(key.to_seed()))
}

/// Writes a public key to a new file that everybody can read, whole or not at all.
///
/// # Errors
/// [`KeyFileError::Io`] when the file exists already or cannot be written.
pub fn write_public_key(path: &Path, key: &PublicKey) -> Result<(), KeyFileError> {
    write_line(path, Readers::All, Digest::from_bytes(key.to_bytes()))
}

fn write_line(path: &Path, readers: Readers, line: Digest) -> Result<(), KeyFileError> {
    create_file(path, format!("{line}\n").as_bytes(), readers)
        .map_err(|source| KeyFileError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::{KeyFileError, read_secret_key, write_secret_key};
    use crate::types::SecretKey;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn a_key_reads_back_and_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("key");
        let key = SecretKey::from_seed(&[7; 32]);
        write_secret_key(&path, &key).expect("the folder is writable");
        assert_eq!(read_secret_key(&path).expect("it was written").public(), key.public());
        assert!(matches!(write_secret_key(&path, &key), Err(KeyFileError::Io { .. })));
    }

    #[test]
    fn what_is_no_key_and_what_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("key");
        assert!(matches!(read_secret_key(&path), Err(KeyFileError::Io { .. })));
        let private = fs::Permissions::from_mode(0o600);
        let hex = "07".repeat(32);
        for text in
            [String::new(), hex[1..].to_owned(), format!("{hex}0"), hex.replace('7', "G"), "x".repeat(200)]
        {
            fs::write(&path, &text).expect("the folder is writable");
            fs::set_permissions(&path, private.clone()).expect("it is ours");
            assert!(matches!(read_secret_key(&path), Err(KeyFileError::Malformed(_))), "{text:?}");
        }
        fs::write(&path, hex).expect("the folder is writable");
        assert!(read_secret_key(&path).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
        assert!(matches!(read_secret_key(&path), Err(KeyFileError::Readable { .. })));
    }
}
