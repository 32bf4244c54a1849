//! Writing a small file so that it is there after a power cut, whole or not at all.
//!
//! It is no log and no database. Invariant: at every moment the path holds either the old bytes or the new.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Replaces the file's content: a temporary file beside it is written and flushed, renamed over it, and the
/// folder is flushed.
///
/// # Errors
/// The error of the operating system; the old content is then still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, 0o666)
}

/// The same for a file that its owner alone may read and write.
///
/// # Errors
/// The error of the operating system; the old content is then still there.
pub fn replace_private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, 0o600)
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::replace_file;

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
}
