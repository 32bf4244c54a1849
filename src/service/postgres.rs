//! A private Postgres for `quorate dev` and for tests: the installed binaries over a folder of our own, on a
//! unix socket only.
//!
//! It is not how a replica in production gets its database: that one is given a URL. Invariant: the server
//! ends when the process that started it ends, however that ends. A helper process holds one end of a pipe;
//! when this process closes the other end, by [`PrivatePostgres::stop`], by dropping it or by dying, the
//! helper shuts the server down.
//!
//! The socket's folder belongs to the server's user and nobody else may enter it; whoever may (that user and
//! root) is trusted without a password.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::types::Digest;

/// What to run when the binaries are missing.
const INSTALL_COMMAND: &str = "apt-get install -y postgresql";

/// The server's superuser: the name in every URL.
const SUPERUSER: &str = "quorate";

/// A socket's path must fit `sockaddr_un` with its final NUL: 107 bytes, of which the file's name takes 14.
const SOCKET_FOLDER_BYTES_MAX: usize = 107 - "/.s.PGSQL.5432".len();

/// A store's pool has at most 8 connections: this serves some 20 replicas with dashboards beside them.
const MAX_CONNECTIONS: u16 = 200;

/// Starting waits so long for the first connection: recovery after a crash replays at most `max_wal_size`.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long between two attempts to connect while the server starts.
const START_POLL: Duration = Duration::from_millis(20);

/// How much of the server's log an error repeats.
const LOG_TAIL_LINES: usize = 8;

/// How long a start waits for what an earlier one left to end: longer than [`LIFELINE`] takes.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(40);

/// What a server says that finds processes of one that was killed still at work on the same data.
const PREDECESSOR_AT_WORK: &str = "pre-existing shared memory block";

/// Reads until the pipe ends, then stops the server, first politely, and removes the socket's empty folder and,
/// when `$4` names one, the whole data folder. `pg_ctl` finds the server by the process id in its folder, so a
/// server that has ended is left alone. Standard output is the lock that keeps a next server from being started,
/// and stopped in place of this one, before all this is done.
const LIFELINE: &str = r#"
read -r _
"$1" stop --pgdata "$2" --mode fast --timeout 20 --silent >/dev/null ||
    "$1" stop --pgdata "$2" --mode immediate --timeout 10 --silent >/dev/null
rmdir "$3"
[ -z "$4" ] || rm -rf "$4"
"#;

/// A running private server.
#[derive(Debug)]
pub struct PrivatePostgres {
    socket_folder: PathBuf,
    processes: Processes,
    _locks: Locks,
}

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Nothing is installed.
    #[error(
        "no Postgres server is installed (looked with pg_config, in PATH and in /usr/lib/postgresql); \
         install it with: {INSTALL_COMMAND}"
    )]
    NotInstalled,
    /// The server's user cannot reach the folder.
    #[error(
        "Postgres refuses to run as root, and the user it runs as instead (uid {uid}) may not enter {folder}; \
         choose a data directory elsewhere, or allow it with: chmod o+x {folder}"
    )]
    Unreachable {
        /// The folder that shuts it out.
        folder: PathBuf,
        /// The server's user.
        uid: u32,
    },
    /// Another process runs a server over this folder.
    #[error("another process is already running the Postgres in {0}")]
    InUse(PathBuf),
    /// A folder of the server belongs to somebody else.
    #[error("{folder} does not belong to the user that Postgres runs as (uid {uid})")]
    ForeignFolder {
        /// The folder.
        folder: PathBuf,
        /// The server's user.
        uid: u32,
    },
    /// A file or a process could not be made, read or removed.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program of Postgres failed.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// Which.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        output: String,
    },
    /// The server runs but does not answer.
    #[error("Postgres did not accept a connection within {} s; its log ends: {log}", START_TIMEOUT.as_secs())]
    NotReady {
        /// The end of its log.
        log: String,
        /// The last attempt's failure.
        source: sqlx::Error,
    },
}

/// Why a database could not be made sure of.
#[derive(Debug, thiserror::Error)]
pub enum EnsureDatabaseError {
    /// The name would need quoting.
    #[error("{0:?} is no database name: 1 to 63 characters of a-z 0-9 _ are allowed, a letter first")]
    Name(String),
    /// The server refused or did not answer.
    #[error("cannot create the database {name}")]
    Database {
        /// Which.
        name: String,
        /// Why.
        source: sqlx::Error,
    },
}

impl PrivatePostgres {
    /// Starts a server over `data_dir`, which is made when it is missing. What an earlier run left there is
    /// kept; a server that outlived its run is stopped first.
    ///
    /// # Errors
    /// [`PostgresError`] says what is missing and what to do.
    pub async fn start(data_dir: &Path) -> Result<Self, PostgresError> {
        Self::start_in(data_dir, Lifetime::Kept).await
    }

    /// Starts a server over a new folder in the system's temporary one. The folder goes when the server ends,
    /// and is not flushed to disk before.
    ///
    /// # Errors
    /// [`PostgresError`] says what is missing and what to do.
    pub async fn temporary() -> Result<Self, PostgresError> {
        let mut suffix = [0; 8];
        getrandom::fill(&mut suffix).map_err(|error| PostgresError::Io {
            doing: "draw a random name for",
            path: std::env::temp_dir(),
            source: io::Error::other(error),
        })?;
        let name = format!("quorate-postgres-{:016x}", u64::from_ne_bytes(suffix));
        Self::start_in(&std::env::temp_dir().join(name), Lifetime::Temporary).await
    }

    async fn start_in(data_dir: &Path, lifetime: Lifetime) -> Result<Self, PostgresError> {
        let binaries = Binaries::find()?;
        let user = ServerUser::choose();
        let folder = Folder::prepare(data_dir, user)?;
        let mut locks = folder.lock().await?;
        folder.end_orphan(&binaries).await?;
        folder.initialise(&binaries, lifetime, &locks).await?;
        let until = tokio::time::Instant::now() + PREDECESSOR_TIMEOUT;
        loop {
            private_folder(&folder.socket, user)?;
            let processes = Processes::spawn(&folder, &binaries, lifetime, &locks)?;
            let mut server = Self { socket_folder: folder.socket.clone(), processes, _locks: locks };
            match server.wait_until_ready(&folder).await {
                Ok(()) => return Ok(server),
                Err(PostgresError::Failed { output, .. })
                    if output.contains(PREDECESSOR_AT_WORK) && tokio::time::Instant::now() < until =>
                {
                    locks = server.stop_processes().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn wait_until_ready(&mut self, folder: &Folder) -> Result<(), PostgresError> {
        let url = self.url("postgres");
        let attempts = START_TIMEOUT.as_millis() / START_POLL.as_millis();
        let mut attempt = 0;
        loop {
            let refused = match PgConnection::connect(&url).await {
                Ok(connection) => {
                    // The server notices a closed socket by itself; a failure to say goodbye harms nothing.
                    let _ = connection.close().await;
                    return Ok(());
                }
                Err(refused) => refused,
            };
            if let Some(status) = self.processes.server_status() {
                return Err(PostgresError::Failed { program: "postgres", status, output: folder.log_tail() });
            }
            attempt += 1;
            if attempt >= attempts {
                return Err(PostgresError::NotReady { log: folder.log_tail(), source: refused });
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    /// The URL of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let folder = percent_encoded(self.socket_folder.as_os_str().as_bytes());
        format!("postgres:///{database}?host={folder}&port=5432&user={SUPERUSER}&sslmode=disable")
    }

    /// Creates the database unless it exists.
    ///
    /// # Errors
    /// [`EnsureDatabaseError`] for a name that would need quoting, and when the server refuses.
    pub async fn ensure_database(&self, name: &str) -> Result<(), EnsureDatabaseError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if !starts_well || name.len() > 63 || !name.bytes().all(allowed) {
            return Err(EnsureDatabaseError::Name(name.to_owned()));
        }
        self.create_database(name)
            .await
            .map_err(|source| EnsureDatabaseError::Database { name: name.to_owned(), source })
    }

    async fn create_database(&self, name: &str) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let known: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
            .bind(name)
            .fetch_optional(&mut connection)
            .await?;
        if known.is_none() {
            let statement =
                AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"));
            sqlx::raw_sql(statement).execute(&mut connection).await?;
        }
        connection.close().await
    }

    /// Whether the server has ended by itself, and how.
    pub fn has_ended(&mut self) -> Option<String> {
        self.processes.server_status().map(|status| status.to_string())
    }

    /// Shuts the server down and waits until its processes are gone.
    ///
    /// # Errors
    /// [`PostgresError::Io`] when a process cannot be waited for.
    pub async fn stop(self) -> Result<(), PostgresError> {
        self.stop_processes().await.map(drop)
    }

    /// The locks outlive the processes.
    async fn stop_processes(self) -> Result<Locks, PostgresError> {
        let Self { socket_folder, processes, _locks } = self;
        let waited = tokio::task::spawn_blocking(move || processes.stop()).await;
        waited.map_err(io::Error::from).flatten().map_err(|source| PostgresError::Io {
            doing: "wait for the Postgres at",
            path: socket_folder,
            source,
        })?;
        Ok(_locks)
    }
}

/// What keeps two servers of one folder apart.
#[derive(Debug)]
struct Locks {
    /// Held by the process that starts the server, and so let go when it dies.
    _owner: File,
    /// Held by every process that works on the folder for it, and so let go when the last of them has ended.
    workers: File,
}

impl Locks {
    /// The workers' lock, for a process to inherit.
    fn for_worker(&self) -> Result<Stdio, PostgresError> {
        let file = self.workers.try_clone().map_err(io_error("open", Path::new("workers.lock")))?;
        Ok(file.into())
    }
}

/// What becomes of the data when the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lifetime {
    Kept,
    /// It goes, so nothing is lost by not flushing it to disk.
    Temporary,
}

/// The server and the helper that ends it. Dropping this closes the pipe, and so ends both.
#[derive(Debug)]
struct Processes {
    lifeline: ChildStdin,
    helper: Child,
    server: Child,
}

impl Processes {
    fn spawn(
        folder: &Folder,
        binaries: &Binaries,
        lifetime: Lifetime,
        locks: &Locks,
    ) -> Result<Self, PostgresError> {
        let removed = match lifetime {
            Lifetime::Kept => Path::new(""),
            Lifetime::Temporary => &folder.data_dir,
        };
        // The helper comes first, so that no server is ever without one. It is the server's user, because
        // `pg_ctl` refuses root as the server does.
        let mut helper = folder
            .user
            .command_as(Path::new("/bin/sh"), &folder.data_dir)
            .args(["-c", LIFELINE, "quorate-postgres-lifeline"])
            .args([&binaries.program("pg_ctl"), &folder.cluster, &folder.socket])
            .arg(removed)
            .stdin(Stdio::piped())
            .stdout(locks.for_worker()?)
            .stderr(Stdio::null())
            .spawn()
            .map_err(io_error("run", Path::new("/bin/sh")))?;
        let lifeline = helper.stdin.take().expect("the helper was given a pipe");
        let server = folder.server_command(binaries, lifetime)?.spawn();
        let server = server.map_err(io_error("run", &binaries.program("postgres")))?;
        Ok(Self { lifeline, helper, server })
    }

    fn server_status(&mut self) -> Option<ExitStatus> {
        self.server.try_wait().ok().flatten()
    }

    fn stop(self) -> io::Result<()> {
        let Self { lifeline, mut helper, mut server } = self;
        drop(lifeline);
        helper.wait()?;
        server.wait()?;
        Ok(())
    }
}

/// Where the installed programs are.
#[derive(Debug)]
struct Binaries(PathBuf);

impl Binaries {
    fn find() -> Result<Self, PostgresError> {
        let candidates = [pg_config_folder(), path_folder()].into_iter().flatten().chain(debian_folders());
        let complete = |folder: &PathBuf| {
            ["postgres", "initdb", "pg_ctl"].iter().all(|program| folder.join(program).is_file())
        };
        candidates.into_iter().find(complete).map(Self).ok_or(PostgresError::NotInstalled)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn pg_config_folder() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(folder.trim_end()))
}

fn path_folder() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|folder| folder.join("postgres").is_file())
}

/// Debian keeps every major version in a folder of its own; the newest comes first.
fn debian_folders() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable();
    versions.into_iter().rev().map(|(_, folder)| folder).collect()
}

/// Whose process the server is. Postgres refuses to be root's.
#[derive(Clone, Copy, Debug)]
enum ServerUser {
    /// The user of this process.
    Same { uid: u32 },
    /// This process is root's, and the server gives root up.
    Other { uid: u32, gid: u32 },
}

impl ServerUser {
    fn choose() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        if uid != 0 {
            return Self::Same { uid };
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let ids = ["postgres", "nobody"].iter().find_map(|name| passwd_ids(&users, name));
        // 65534 is nobody's number wherever there is one.
        let (uid, gid) = ids.unwrap_or((65534, 65534));
        Self::Other { uid, gid }
    }

    const fn uid(self) -> u32 {
        match self {
            Self::Same { uid } | Self::Other { uid, .. } => uid,
        }
    }

    /// A command that runs as this user, in a folder it may enter, outside the terminal's process group: an
    /// interrupt from the keyboard must reach the server only once its clients are done.
    fn command_as(self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).stdin(Stdio::null()).process_group(0);
        match self {
            Self::Same { .. } => {}
            Self::Other { uid, gid } => {
                command.uid(uid).gid(gid);
            }
        }
        command
    }

    fn may_enter(self, folder: &fs::Metadata) -> bool {
        match self {
            Self::Same { .. } => true,
            Self::Other { uid, .. } if folder.uid() == uid => folder.mode() & 0o100 != 0,
            Self::Other { gid, .. } if folder.gid() == gid => folder.mode() & 0o010 != 0,
            Self::Other { .. } => folder.mode() & 0o001 != 0,
        }
    }
}

/// User and group of a name in the text of `/etc/passwd`.
fn passwd_ids(users: &str, name: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        found.then_some((uid, gid))
    })
}

/// The folder of one private server. It, `cluster/` and, where the path is short enough, `socket/` belong to
/// the server's user; `lock` and `postgres.log` to this process's.
#[derive(Debug)]
struct Folder {
    data_dir: PathBuf,
    cluster: PathBuf,
    socket: PathBuf,
    user: ServerUser,
}

impl Folder {
    fn prepare(data_dir: &Path, user: ServerUser) -> Result<Self, PostgresError> {
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
    async fn lock(&self) -> Result<Locks, PostgresError> {
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

    fn open_lock(&self, name: &str) -> Result<File, PostgresError> {
        let path = self.data_dir.join(name);
        OpenOptions::new().create(true).append(true).open(&path).map_err(io_error("open", &path))
    }

    /// Ends a server that outlived the process that started it, and removes the traces of one that was killed: its
    /// process number may now belong to something else, which Postgres would take for a living server. Both are
    /// safe because this process holds the folder's locks.
    async fn end_orphan(&self, binaries: &Binaries) -> Result<(), PostgresError> {
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
    async fn initialise(
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

    fn server_command(&self, binaries: &Binaries, lifetime: Lifetime) -> Result<Command, PostgresError> {
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

    fn log_path(&self) -> PathBuf {
        self.data_dir.join("postgres.log")
    }

    fn log_tail(&self) -> String {
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
fn private_folder(folder: &Path, user: ServerUser) -> Result<(), PostgresError> {
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

async fn run(program: &'static str, command: Command) -> Result<(), PostgresError> {
    let path = PathBuf::from(command.get_program());
    let output = tokio::process::Command::from(command).output().await.map_err(io_error("run", &path))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(PostgresError::Failed { program, status: output.status, output: tail(&said) })
}

fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("; ")
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PostgresError + use<> {
    let path = path.to_owned();
    move |source| PostgresError::Io { doing, path, source }
}

fn percent_encoded(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{SOCKET_FOLDER_BYTES_MAX, passwd_ids, percent_encoded, socket_folder, tail};
    use std::path::Path;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\nbroken\npostgresql:x:7:8::/:\npostgres:x:101:104:,,,:/v:/b\n";
        assert_eq!(passwd_ids(users, "postgres"), Some((101, 104)));
        assert_eq!(passwd_ids(users, "nobody"), None);
        assert_eq!(passwd_ids("postgres:x:many:104::/:", "postgres"), None);
    }

    #[test]
    fn a_sockets_folder_stands_beside_the_data_where_its_path_fits() {
        let longest = format!("/{}", "d".repeat(SOCKET_FOLDER_BYTES_MAX - "/socket".len() - 1));
        assert_eq!(socket_folder(Path::new(&longest)), Path::new(&longest).join("socket"));
        let longer = format!("{longest}d");
        let elsewhere = socket_folder(Path::new(&longer));
        assert!(elsewhere.as_os_str().len() <= SOCKET_FOLDER_BYTES_MAX, "{elsewhere:?}");
        assert_ne!(elsewhere, socket_folder(Path::new(&format!("{longer}d"))));
    }

    #[test]
    fn bytes_with_a_meaning_in_a_url_are_encoded() {
        assert_eq!(percent_encoded("/a b&c?é".as_bytes()), "%2Fa%20b%26c%3F%C3%A9");
    }

    #[test]
    fn an_error_repeats_the_end_of_what_was_said() {
        let said: String = (1..=20).map(|line| format!("line {line}\n\n")).collect();
        assert_eq!(tail(said.as_bytes()).split("; ").count(), 8);
        assert!(tail(said.as_bytes()).ends_with("line 20"));
        assert_eq!(tail(b""), "");
    }
}
