//! [`DevError`]: why a development cluster does not start. Invariant: each names what, where, and what to do next.

use std::{io, path::PathBuf};

use super::{
    child::SpawnError, cluster::READY_TIMEOUT, database::DevDatabaseError, folder::DevFolderError,
    plan::DevPlanError, ports::PortsTaken,
};
use crate::service::{
    config::{ConfigError, IncompleteTarget, SpeedError},
    founding::FoundingError,
    postgres::{EnsureDatabaseError, PostgresError},
};

/// Why a development cluster does not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] DevFolderError),
    /// The folder was made otherwise, or flags contradict each other.
    #[error(transparent)]
    Plan(#[from] DevPlanError),
    /// A file of the founded cluster is not what was founded.
    #[error("{}: {why}; restore it from a copy, or choose another --data-dir", path.display())]
    NotAsFounded {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The speed is no speed.
    #[error("--speed: {0}")]
    Speed(#[from] SpeedError),
    /// The policy file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder's genesis lacks an agent or an owner.
    #[error(transparent)]
    Incomplete(#[from] IncompleteTarget),
    /// Addresses are taken.
    #[error(transparent)]
    Ports(#[from] PortsTaken),
    /// Postgres.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A database of the private Postgres.
    #[error(transparent)]
    EnsureDatabase(#[from] EnsureDatabaseError),
    /// A replica's database.
    #[error(transparent)]
    Database(#[from] DevDatabaseError),
    /// The cluster cannot be founded.
    #[error(transparent)]
    Founding(#[from] FoundingError),
    /// A file cannot be written.
    #[error("{}: {error}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A process.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A process ended before it was ready.
    #[error("{name} ended before it was ready ({how}); its log, {}, ends with:\n{last_words}", log.display())]
    Ended {
        /// Which.
        name: String,
        /// How.
        how: String,
        /// Where its log is.
        log: PathBuf,
        /// The end of the log.
        last_words: String,
    },
    /// It took too long.
    #[error(
        "{} not ready, and nothing came from any process for {} s; the logs are in {}",
        match missing.as_slice() { [one] => format!("{one} is"), many => format!("{} are", many.join(", ")) },
        READY_TIMEOUT.as_secs(), logs.display()
    )]
    NotReady {
        /// Which processes.
        missing: Vec<String>,
        /// Where the logs are.
        logs: PathBuf,
    },
    /// It was asked to end before it was ready.
    #[error("ended before it was ready")]
    Interrupted,
}
