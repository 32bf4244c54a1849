//! What can go wrong between the program and its database: one enum per operation, its variants by what the
//! caller does next.

use sqlx::migrate::MigrateError;

use crate::types::{Digest, Epoch, Height, ReplicaIndex};

/// A statement that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The database is away, overloaded, restarting or out of space: try again later.
    #[error("Postgres cannot serve table {table} now")]
    Unavailable {
        /// Which table the statement was for.
        table: &'static str,
        /// What happened.
        source: sqlx::Error,
    },
    /// The database understood and refused: trying again does not help.
    #[error("Postgres refused a statement on table {table}")]
    Refused {
        /// Which table the statement was for.
        table: &'static str,
        /// Why.
        source: sqlx::Error,
    },
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is malformed.
    #[error("the database URL is malformed")]
    Url(#[source] sqlx::Error),
    /// The database is away: try again later.
    #[error("the database does not answer")]
    Unreachable(#[source] sqlx::Error),
    /// The server does not let this user into this database: correct the URL or the server.
    #[error("the database refuses the connection")]
    Refused(#[source] sqlx::Error),
    /// The server lacks what the store needs.
    #[error("the server is Postgres {version}; at least 14 is needed")]
    TooOld {
        /// The server's version.
        version: String,
    },
    /// The database cannot hold every text.
    #[error("the database's encoding is {0}; create it with ENCODING 'UTF8'")]
    Encoding(String),
    /// The tables could not be brought to this program's version.
    #[error("the tables could not be migrated")]
    Migrate(#[source] MigrateError),
    /// The database belongs to another replica, or to a later epoch of this one.
    #[error(
        "the database belongs to replica {replica} of cluster {cluster} since epoch {epoch}; \
         give this replica a database of its own"
    )]
    WrongReplica {
        /// The cluster in the database.
        cluster: Digest,
        /// The epoch in the database.
        epoch: Epoch,
        /// The replica in the database.
        replica: ReplicaIndex,
    },
    /// A statement failed.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A row is not what this program writes.
    #[error(transparent)]
    Corrupt(#[from] CorruptRow),
}

impl ConnectError {
    /// Whether a later attempt may succeed without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Statement(StatementError::Unavailable { .. }) => true,
            Self::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                is_transient(error)
            }
            Self::Migrate(_)
            | Self::Url(_)
            | Self::Refused(_)
            | Self::TooOld { .. }
            | Self::Encoding(_)
            | Self::WrongReplica { .. }
            | Self::Statement(StatementError::Refused { .. })
            | Self::Corrupt(_) => false,
        }
    }

    /// For `map_err` on the first words with the server.
    pub(super) fn connecting(error: sqlx::Error) -> Self {
        if is_transient(&error) { Self::Unreachable(error) } else { Self::Refused(error) }
    }
}

/// Why a block was not applied. Nothing of it was stored.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A statement failed. [`ApplyError::is_transient`] says whether to try again.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The transaction did not end in time: try again later. It may have been committed; then the next
    /// attempt says so.
    #[error("the block was not stored within {} s", super::apply::APPLY_TIMEOUT.as_secs())]
    TimedOut,
    /// Blocks before this one are missing: send them first.
    #[error("block {got} came where block {expected} is next")]
    OutOfOrder {
        /// The next height.
        expected: Height,
        /// The block's.
        got: Height,
    },
    /// The database followed another log: it must not be written to any more.
    #[error("{what} at height {height}: the database has {stored}, the log has {got}")]
    Diverged {
        /// What differs.
        what: &'static str,
        /// At which height.
        height: Height,
        /// The digest in the database.
        stored: Digest,
        /// The digest in the log.
        got: Digest,
    },
    /// A newer process of this replica has taken the database over: this one must stop writing.
    #[error("another process of this replica has taken the database over")]
    Superseded,
    /// A number does not fit its column.
    #[error("table {table}, column {column}: {value} does not fit")]
    OutOfRange {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The number.
        value: u64,
    },
    /// A row is not what this program writes.
    #[error(transparent)]
    Corrupt(#[from] CorruptRow),
}

impl ApplyError {
    /// Whether the same block may be stored at a later attempt.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Statement(StatementError::Unavailable { .. }) | Self::TimedOut => true,
            Self::Statement(StatementError::Refused { .. })
            | Self::OutOfOrder { .. }
            | Self::Diverged { .. }
            | Self::Superseded
            | Self::OutOfRange { .. }
            | Self::Corrupt(_) => false,
        }
    }
}

/// Why a certified head was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordHeadError {
    /// A statement failed.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// This replica derived another head of that number than a quorum did.
    #[error("the stored head of that number has another digest than the certified one, {certified}")]
    Diverged {
        /// The certified head's.
        certified: Digest,
    },
    /// A number does not fit its column.
    #[error("table heads, column {column}: {value} does not fit")]
    OutOfRange {
        /// The column.
        column: &'static str,
        /// The number.
        value: u64,
    },
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A statement failed.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A row is not what this program writes.
    #[error(transparent)]
    Corrupt(#[from] CorruptRow),
}

/// A row that this program cannot have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("table {table}, row {row}, column {column}: {problem}")]
pub struct CorruptRow {
    /// The table.
    pub table: &'static str,
    /// The row's key.
    pub row: String,
    /// The column.
    pub column: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl StatementError {
    /// For `map_err` on a statement for this table.
    pub(super) fn on(table: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            if is_transient(&source) {
                Self::Unavailable { table, source }
            } else {
                Self::Refused { table, source }
            }
        }
    }
}

fn is_transient(error: &sqlx::Error) -> bool {
    if let Some(refusal) = error.as_database_error() {
        // Classes of SQLSTATE: connection, rollback by a conflict, insufficient resources, operator's
        // intervention, and the read-only state of a standby that is not promoted yet.
        let code = refusal.code().unwrap_or_default();
        return ["08", "40", "53", "57", "25006"].iter().any(|class| code.starts_with(class));
    }
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
    )
}
