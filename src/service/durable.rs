//! Writing a small file so that it is there after a power cut, whole or not at all.
//!
//! It is no log and no database. Invariant: at every moment the path holds either the old bytes or the new.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Whom the process's umask lets.
    All,
    /// Its owner alone.
    Owner,
}

/// Replaces the file's content: a temporary file beside it is written and flushed, renamed over it, and the
/// folder is flushed.
///
/// # Errors
/// The error of the operating system; the old content is then still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, bytes, Readers::All)?;
    std::fs::rename(&temporary, path)?;
    flush_folder_of(path)
}

/// As [`replace_file`], for what only the file's owner may read.
///
/// # Errors
/// The error of the operating system; the old content is then still there.
pub fn replace_private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, bytes, Readers::Owner)?;
    std::fs::rename(&temporary, path)?;
    flush_folder_of(path)
}

/// Makes a file, whole or not at all.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is one already, which is left as it is; else the error of the
/// operating system.
pub fn create_file(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let temporary = write_beside(path, bytes, readers)?;
    // A link, unlike a rename, never replaces what is there.
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    linked?;
    flush_folder_of(path)
}

/// Writes and flushes a temporary file beside the path; its name.
fn write_beside(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<PathBuf> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mode = match readers {
        Readers::All => 0o666,
        Readers::Owner => 0o600,
    };
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    if readers == Readers::Owner {
        // One that an earlier attempt left may have other permissions.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

fn flush_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{Readers, create_file, replace_file, replace_private_file};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_made_replaced_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("state");
        for bytes in [b"first".as_slice(), b"second, longer", b""] {
            replace_file(&path, bytes).expect("the folder is writable");
            assert_eq!(std::fs::read(&path).expect("it was written"), bytes);
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is a folder").count(), 1);
    }

    #[test]
    fn the_old_content_stays_when_the_new_cannot_be_written() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("state");
        replace_file(&path, b"old").expect("the folder is writable");
        std::fs::create_dir(folder.path().join("state.new")).expect("the folder is writable");
        assert!(replace_file(&path, b"new").is_err());
        assert_eq!(std::fs::read(&path).expect("it was written"), b"old");
    }

    #[test]
    fn a_private_file_is_its_owners_alone_and_is_never_made_twice() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("secret");
        let mode = || path.metadata().expect("it is there").permissions().mode() & 0o777;
        std::fs::write(folder.path().join("secret.new"), "cut off").expect("the folder is writable");
        create_file(&path, b"first", Readers::Owner).expect("there is none");
        assert_eq!(mode(), 0o600);
        let again = create_file(&path, b"second", Readers::Owner).expect_err("there is one");
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).expect("it was written"), b"first");
        replace_private_file(&path, b"third").expect("the folder is writable");
        assert_eq!(
            (std::fs::read(&path).expect("it was written").as_slice(), mode()),
            (&b"third"[..], 0o600)
        );
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is a folder").count(), 1);
    }
}
