//! Why there is no private server, or not the database that was asked of it.
//!
//! The words say what to do next. Invariant: no error hides the system's own.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use super::server::START_TIMEOUT;

/// What to run when the binaries are missing.
const INSTALL_COMMAND: &str = "apt-get install -y postgresql";

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

pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PostgresError + use<> {
    let path = path.to_owned();
    move |source| PostgresError::Io { doing, path, source }
}
