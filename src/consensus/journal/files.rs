//! [I/O] The journal's disk as files in one folder of the operating system.
//!
//! It knows nothing of what the files hold. Invariant: while a [`FileDisk`] lives, no other one, in this
//! process or another, is open on its folder.

use rustix::{
    fs::{Advice, FlockOperation, fadvise, fdatasync, flock, fsync},
    io::Errno,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::disk::{Disk, DiskError};

/// The file whose lock says that the folder is in use. It stays when the process ends; its lock does not.
pub const LOCK_FILE: &str = "lock";

/// Files in one folder, locked against a second opening.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    folder: File,
    /// Held for its lock, which the system gives back however the process ends.
    _lock: File,
    /// The file that was appended to last, kept open.
    appending: Option<(String, File)>,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileDiskError {
    /// Another process, or this one, has it open.
    #[error("{} is in use by another process: stop it, or give this replica its own data folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be created, opened or locked.
    #[error("{}: the journal's folder cannot be {action}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl FileDisk {
    /// Opens the folder for this process alone. It is created when it is missing, readable by its owner only.
    ///
    /// # Errors
    /// [`FileDiskError`].
    pub fn open(path: &Path) -> Result<Self, FileDiskError> {
        let failed = |action| move |error| FileDiskError::Io { path: path.to_owned(), action, error };
        create_folder(path).map_err(failed("created"))?;
        let folder = File::open(path).map_err(failed("opened"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .map_err(failed("locked"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(FileDiskError::InUse { path: path.to_owned() }),
            Err(error) => return Err(failed("locked")(error.into())),
        }
        let disk = Self { path: path.to_owned(), folder, _lock: lock, appending: None };
        disk.forget_cached_pages().map_err(failed("read"))?;
        Ok(disk)
    }

    /// After a sync that failed, the system may still show bytes from memory that are not on the disk. A
    /// process that starts anew reads what the disk has.
    fn forget_cached_pages(&self) -> io::Result<()> {
        for item in fs::read_dir(&self.path)? {
            let item = item?;
            if !item.file_type()?.is_file() {
                continue;
            }
            let file = File::open(item.path())?;
            fdatasync(&file)?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }

    fn appendable(&mut self, name: &str) -> Result<&mut File, DiskError> {
        let kept = self.appending.take().filter(|(kept, _)| kept == name);
        let file = match kept {
            Some((_, file)) => file,
            None => OpenOptions::new().append(true).open(self.path.join(name)).map_err(failed(name))?,
        };
        Ok(&mut self.appending.insert((name.to_owned(), file)).1)
    }
}

impl Disk for FileDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        let mut names = Vec::new();
        for item in fs::read_dir(&self.path).map_err(failed(""))? {
            // A name that is not UTF-8 is none of the journal's.
            if let Ok(name) = item.map_err(failed(""))?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&mut self, name: &str) -> Result<(), DiskError> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create_new(true).mode(0o600).open(self.path.join(name));
        self.appending = Some((name.to_owned(), file.map_err(failed(name))?));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.appendable(name)?.write_all(bytes).map_err(failed(name))
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        let file = self.appendable(name)?;
        fdatasync(file).map_err(|error| failed(name)(error.into()))
    }

    fn sync_folder(&mut self) -> Result<(), DiskError> {
        fsync(&self.folder).map_err(|error| failed("")(error.into()))
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        Ok(fs::metadata(self.path.join(name)).map_err(failed(name))?.len())
    }

    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, DiskError> {
        let mut buffer = vec![0; bytes];
        let file = File::open(self.path.join(name)).map_err(failed(name))?;
        file.read_exact_at(&mut buffer, offset).map_err(failed(name))?;
        Ok(buffer)
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> Result<(), DiskError> {
        let file = self.appendable(name)?;
        let length = file.metadata().map_err(failed(name))?.len();
        if bytes > length {
            let error = format!("cannot be cut to {bytes} bytes, it has {length}");
            return Err(DiskError::Io { name: name.to_owned(), error });
        }
        file.set_len(bytes).map_err(failed(name))
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.appending = None;
        fs::remove_file(self.path.join(name)).map_err(failed(name))
    }
}

/// Creates the folder and makes its name durable.
fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn failed(name: &str) -> impl Fn(io::Error) -> DiskError + '_ {
    move |error| {
        let name = name.to_owned();
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            DiskError::Full { name }
        } else {
            DiskError::Io { name, error: error.to_string() }
        }
    }
}
