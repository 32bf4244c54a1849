//! The folder of one private server: whose it is, who may work on it, and what the server is started with.
//!
//! Invariant: two servers never work on one folder.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    error::{PostgresError, io_error},
    processes::Lifetime,
    programs::{Binaries, run, tail},
    server::{PREDECESSOR_TIMEOUT, START_POLL, SUPERUSER},
    user::ServerUser,
};
use crate::types::Digest;

/// A socket's path must fit `sockaddr_un` with its final NUL: 107 bytes, of which the file's name takes 14.
const SOCKET_FOLDER_BYTES_MAX: usize = 107 - "/.s.PGSQL.5432".len();

/// A store's pool has at most 8 connections: this serves some 20 replicas with dashboards beside them.
const MAX_CONNECTIONS: u16 = 200;

/// What keeps two servers of one folder apart.
#[derive(Debug)]
pub(super) struct Locks {
    /// Held by the process that starts the server, and so let go when it dies.
    _owner: File,
    /// Held by every process that works on the folder for it, and so let go when the last of them has ended.
    workers: File,
}

impl Locks {
    /// The workers' lock, for a process to inherit.
    pub(super) fn for_worker(&self) -> Result<Stdio, PostgresError> {
        let file = self.workers.try_clone().map_err(io_error("open", Path::new("workers.lock")))?;
        Ok(file.into())
    }
}

/// The folder of one private server. It, `cluster/` and, where the path is short enough, `socket/` belong to
/// the server's user; `lock` and `postgres.log` to this process's.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) data_dir: PathBuf,
    pub(super) cluster: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) user: ServerUser,
}

impl Folder {
    pub(super) fn prepare(data_dir: &Path, user: ServerUser) -> Result<Self, PostgresError> {
        if !data_dir.exists() {
            fs::create_dir_all(data_dir).map_err(io_error("create", data_dir))?;
            hand_over(data_dir, user, 0o711)?;
        }
        let data_dir = data_dir.canonicalize().map_err(io_error("resolve", data_dir))?;
        for folder in data_dir.ancestors() {
            let metadata = folder.metadata().map_err(io_error("look at", folder))?;
            if !user.may_enter(&metadata) {
                return Err(PostgresError::Unreachable { folder: folder.to_owned(), uid: user.uid() });
            }
        }
        let socket = socket_folder(&data_dir);
        private_folder(&socket, user)?;
        Ok(Self { cluster: data_dir.join("cluster"), data_dir, socket, user })
    }

    /// Takes the folder. Another owner is refused; what a dead owner's processes still do is waited for.
    pub(super) async fn lock(&self) -> Result<Locks, PostgresError> {
        let owner = self.open_lock("lock")?;
        if !try_lock(&owner, &self.data_dir)? {
            return Err(PostgresError::InUse(self.data_dir.clone()));
        }
        let workers = self.open_lock("workers.lock")?;
        let until = tokio::time::Instant::now() + PREDECESSOR_TIMEOUT;
        while !try_lock(&workers, &self.data_dir)? {
            if tokio::time::Instant::now() >= until {
                return Err(PostgresError::InUse(self.data_dir.clone()));
            }
            tokio::time::sleep(START_POLL).await;
        }
        Ok(Locks { _owner: owner, workers })
    }

    pub(super) fn open_lock(&self, name: &str) -> Result<File, PostgresError> {
        let path = self.data_dir.join(name);
        OpenOptions::new().create(true).append(true).open(&path).map_err(io_error("open", &path))
    }

    /// Ends a server that outlived the process that started it, and removes the traces of one that was killed: its
    /// process number may now belong to something else, which Postgres would take for a living server. Both are
    /// safe because this process holds the folder's locks.
    pub(super) async fn end_orphan(&self, binaries: &Binaries) -> Result<(), PostgresError> {
        let pid_file = self.cluster.join("postmaster.pid");
        let text = fs::read_to_string(&pid_file).unwrap_or_default();
        let pid = text.lines().next().unwrap_or_default().trim().to_owned();
        // A server works inside its data folder, and a process of another user does not show where it works.
        let works_in = fs::read_link(Path::new("/proc").join(&pid).join("cwd"));
        if !pid.is_empty() && works_in.is_ok_and(|folder| folder == self.cluster) {
            let mut command = self.user.command_as(&binaries.program("pg_ctl"), &self.data_dir);
            command.args(["stop", "--mode", "fast", "--silent", "--pgdata"]).arg(&self.cluster);
            return run("pg_ctl", command).await;
        }
        for path in [pid_file, self.socket.join(".s.PGSQL.5432.lock")] {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(PostgresError::Io { doing: "remove", path, source }),
            }
        }
        Ok(())
    }

    /// Makes a new database cluster unless there is one. It gets its name only when it is complete.
    pub(super) async fn initialise(
        &self,
        binaries: &Binaries,
        lifetime: Lifetime,
        locks: &Locks,
    ) -> Result<(), PostgresError> {
        if self.cluster.exists() {
            return private_folder(&self.cluster, self.user);
        }
        let unfinished = self.data_dir.join("cluster.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(io_error("remove", &unfinished))?;
        }
        private_folder(&unfinished, self.user)?;
        let mut command = self.user.command_as(&binaries.program("initdb"), &self.data_dir);
        command
            .args(["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"])
            .args(["--data-checksums", "--no-instructions", "--pgdata"])
            .arg(&unfinished)
            // It reads nothing there, and holds the lock when this process dies before it.
            .stdin(locks.for_worker()?);
        if lifetime == Lifetime::Temporary {
            command.arg("--no-sync");
        }
        run("initdb", command).await?;
        fs::rename(&unfinished, &self.cluster).map_err(io_error("rename", &unfinished))
    }

    pub(super) fn server_command(
        &self,
        binaries: &Binaries,
        lifetime: Lifetime,
    ) -> Result<Command, PostgresError> {
        let log = self.log_path();
        if log.exists() {
            // Two runs' logs are kept: enough to see why the last one ended.
            fs::rename(&log, self.data_dir.join("postgres.log.previous"))
                .map_err(io_error("rename", &log))?;
        }
        let output = File::create(&log).map_err(io_error("create", &log))?;
        let errors = output.try_clone().map_err(io_error("open", &log))?;
        let mut command = self.user.command_as(&binaries.program("postgres"), &self.data_dir);
        command.arg("-D").arg(&self.cluster).arg("-k").arg(&self.socket).args(["-p", "5432"]);
        let max_connections = format!("max_connections={MAX_CONNECTIONS}");
        let fsync = match lifetime {
            Lifetime::Kept => "fsync=on",
            Lifetime::Temporary => "fsync=off",
        };
        let settings = [
            fsync,
            "listen_addresses=",
            "unix_socket_permissions=0700",
            &max_connections,
            "shared_buffers=32MB",
            "max_wal_size=256MB",
            "wal_level=minimal",
            "max_wal_senders=0",
            "log_checkpoints=off",
            "timezone=UTC",
            "log_timezone=UTC",
        ];
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.stdout(output).stderr(errors);
        Ok(command)
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.data_dir.join("postgres.log")
    }

    pub(super) fn log_tail(&self) -> String {
        tail(&fs::read(self.log_path()).unwrap_or_default())
    }
}

/// Whether the lock could be taken.
fn try_lock(file: &File, data_dir: &Path) -> Result<bool, PostgresError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => {
            Err(PostgresError::Io { doing: "lock", path: data_dir.to_owned(), source })
        }
    }
}

/// A short folder for the socket: beside the data, or in the temporary folder where that path is too long.
fn socket_folder(data_dir: &Path) -> PathBuf {
    let beside = data_dir.join("socket");
    if beside.as_os_str().len() <= SOCKET_FOLDER_BYTES_MAX {
        return beside;
    }
    let digest = Digest::of(data_dir.as_os_str().as_bytes()).to_string();
    PathBuf::from("/tmp").join(format!("quorate-{}", &digest[..16]))
}

/// Makes a folder that only the server's user may enter, and refuses one that is somebody else's: in the
/// temporary folder anybody may have made it first.
pub(super) fn private_folder(folder: &Path, user: ServerUser) -> Result<(), PostgresError> {
    match fs::create_dir(folder) {
        Ok(()) => hand_over(folder, user, 0o700)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(PostgresError::Io { doing: "create", path: folder.to_owned(), source }),
    }
    let metadata = folder.symlink_metadata().map_err(io_error("look at", folder))?;
    if metadata.is_dir() && metadata.uid() == user.uid() {
        Ok(())
    } else {
        Err(PostgresError::ForeignFolder { folder: folder.to_owned(), uid: user.uid() })
    }
}

fn hand_over(folder: &Path, user: ServerUser, mode: u32) -> Result<(), PostgresError> {
    match user {
        ServerUser::Same { .. } => {}
        ServerUser::Other { uid, gid } => {
            chown(folder, Some(uid), Some(gid)).map_err(io_error("change the owner of", folder))?;
        }
    }
    fs::set_permissions(folder, Permissions::from_mode(mode))
        .map_err(io_error("set the permissions of", folder))
}

#[cfg(test)]
mod tests {
    use super::{SOCKET_FOLDER_BYTES_MAX, socket_folder};
    use std::path::Path;

    #[test]
    fn a_sockets_folder_stands_beside_the_data_where_its_path_fits() {
        let longest = format!("/{}", "d".repeat(SOCKET_FOLDER_BYTES_MAX - "/socket".len() - 1));
        assert_eq!(socket_folder(Path::new(&longest)), Path::new(&longest).join("socket"));
        let longer = format!("{longest}d");
        let elsewhere = socket_folder(Path::new(&longer));
        assert!(elsewhere.as_os_str().len() <= SOCKET_FOLDER_BYTES_MAX, "{elsewhere:?}");
        assert_ne!(elsewhere, socket_folder(Path::new(&format!("{longer}d"))));
    }
}
