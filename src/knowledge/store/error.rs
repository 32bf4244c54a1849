//! What can go wrong between the program and its database: one enum per operation, its variants by what the
//! caller does next.

use sqlx::migrate::MigrateError;
use std::time::Duration;

use super::trouble::StoreTrouble;
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
    /// The URL has a parameter that nobody reads. It is not repeated: a password with a `?` in it looks like one.
    #[error(
        "the database URL has a parameter that is not known; special characters in a password are written as \
         %XX; known are: {}",
        super::connect::URL_PARAMETERS.join(", ")
    )]
    UrlParameter,
    /// The database is away: try again later.
    #[error("the database does not answer")]
    Unreachable(#[source] sqlx::Error),
    /// The database is there and says nothing: try again later.
    #[error("the database did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
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
    /// The tables are those of a newer program: nothing was changed.
    #[error(
        "the database's tables are of version {stored}, and this program knows version {known}; run the newer \
         program that made them, or give this replica an empty database, which is filled from its journal"
    )]
    NewerTables {
        /// The tables' version.
        stored: i64,
        /// This program's.
        known: i64,
    },
    /// The tables were made by migrations that are not this program's: nothing was changed.
    #[error(
        "the database's tables were made by another build: its migration {0} is not this program's; give this \
         replica an empty database, which is filled from its journal"
    )]
    OtherTables(i64),
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
    /// Another process writes to the database.
    #[error(
        "the database is in use by {holder}; end that process, or give this replica a database of its own"
    )]
    InUse {
        /// Who, as far as the server tells.
        holder: String,
    },
    /// A statement failed.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A row is not what this program writes.
    #[error(transparent)]
    Corrupt(#[from] CorruptRow),
}

impl ConnectError {
    /// What is wrong with the database, by name.
    #[must_use]
    pub fn trouble(&self) -> StoreTrouble {
        match self {
            Self::TimedOut(_) => StoreTrouble::Timeout,
            Self::Unreachable(error) | Self::Refused(error) => StoreTrouble::of(error),
            Self::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                StoreTrouble::of(error)
            }
            Self::Statement(error) => error.trouble(),
            Self::Url(_) | Self::UrlParameter | Self::TooOld { .. } | Self::Encoding(_) => {
                StoreTrouble::Refused
            }
            Self::NewerTables { .. } | Self::OtherTables(_) | Self::Migrate(_) => StoreTrouble::RefusedTables,
            Self::WrongReplica { .. } => StoreTrouble::RefusedIdentity,
            Self::InUse { .. } => StoreTrouble::InUse,
            Self::Corrupt(_) => StoreTrouble::Faulty,
        }
    }

    /// Whether a later attempt may succeed without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.trouble().passes()
    }

    /// For `map_err` on the first words with the server.
    pub(super) fn connecting(error: sqlx::Error) -> Self {
        if StoreTrouble::of(&error).passes() { Self::Unreachable(error) } else { Self::Refused(error) }
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
    #[error("the database did not answer within {} s", super::apply::APPLY_TIMEOUT.as_secs())]
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
    /// What is wrong with the database, by name.
    #[must_use]
    pub fn trouble(&self) -> StoreTrouble {
        match self {
            Self::Statement(error) => error.trouble(),
            Self::TimedOut => StoreTrouble::Timeout,
            Self::Diverged { .. } => StoreTrouble::Diverged,
            Self::Superseded => StoreTrouble::InUse,
            Self::OutOfOrder { .. } | Self::OutOfRange { .. } | Self::Corrupt(_) => StoreTrouble::Faulty,
        }
    }

    /// Whether the same block may be stored at a later attempt without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.trouble().passes() && !matches!(self, Self::Superseded)
    }
}

/// Why a certified head was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordHeadError {
    /// A statement failed.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The database did not answer in time.
    #[error("the database did not answer within {} s", super::apply::APPLY_TIMEOUT.as_secs())]
    TimedOut,
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

impl RecordHeadError {
    /// What is wrong with the database, by name; `None` when it answers and only the head is refused.
    #[must_use]
    pub fn trouble(&self) -> Option<StoreTrouble> {
        match self {
            Self::Statement(error) => Some(error.trouble()).filter(|trouble| trouble.passes()),
            Self::TimedOut => Some(StoreTrouble::Timeout),
            Self::Diverged { .. } | Self::OutOfRange { .. } => None,
        }
    }
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
    /// What is wrong with the database, by name.
    #[must_use]
    pub fn trouble(&self) -> StoreTrouble {
        match self {
            Self::Unavailable { source, .. } | Self::Refused { source, .. } => StoreTrouble::of(source),
        }
    }

    /// For `map_err` on a statement for this table.
    pub(super) fn on(table: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            if StoreTrouble::of(&source).passes() {
                Self::Unavailable { table, source }
            } else {
                Self::Refused { table, source }
            }
        }
    }
}
