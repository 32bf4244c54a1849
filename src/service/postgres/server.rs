//! The server as others use it: started, asked for URLs and databases, stopped.
//!
//! Invariant: whoever holds one can connect to it.

use std::{
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{
    error::{EnsureDatabaseError, PostgresError},
    folder::{Folder, Locks, private_folder},
    processes::{Lifetime, Processes},
    programs::Binaries,
    user::ServerUser,
};

/// The server's superuser: the name in every URL.
pub(super) const SUPERUSER: &str = "quorate";

/// Starting waits so long for the first connection: recovery after a crash replays at most `max_wal_size`.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long between two attempts to connect while the server starts.
pub(super) const START_POLL: Duration = Duration::from_millis(20);

/// How long a start waits for what an earlier one left to end: longer than [`LIFELINE`] takes.
pub(super) const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(40);

/// What a server says that finds processes of one that was killed still at work on the same data.
const PREDECESSOR_AT_WORK: &str = "pre-existing shared memory block";

/// A running private server.
#[derive(Debug)]
pub struct PrivatePostgres {
    socket_folder: PathBuf,
    processes: Processes,
    _locks: Locks,
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
    use super::percent_encoded;

    #[test]
    fn bytes_with_a_meaning_in_a_url_are_encoded() {
        assert_eq!(percent_encoded("/a b&c?é".as_bytes()), "%2Fa%20b%26c%3F%C3%A9");
    }
}
