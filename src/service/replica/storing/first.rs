//! The first connection: what is wrong with a database that is wrong for good is said before anything is signed.
//!
//! A database that is merely away does not keep a replica from starting: it is not the record of votes.
//! Invariant: a journal that holds less than the database proves is never signed with.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use crate::{
    knowledge::store::{ConnectError, StoreIdentity, StoreTrouble, Writer},
    service::{clock::Stopwatch, config::DatabaseUrl},
    types::{Height, Millis, View},
};

/// How long a start waits for the database in all: one that hangs, or whose tables take long to be upgraded, is left
/// to the store's task.
const START_WAIT: Duration = Duration::from_secs(20);

/// How long a start waits for another process to let go of the database: one that was killed is gone from the
/// server at once, one whose machine vanished half a minute later.
const IN_USE_WAIT: Millis = Millis::from_secs(10);

/// How long between two attempts meanwhile.
const IN_USE_POLL: Duration = Duration::from_millis(250);

/// What the store's task needs.
#[derive(Clone, Debug)]
pub(in crate::service::replica) struct StoreConfig {
    /// Where the database is.
    pub(in crate::service::replica) url: DatabaseUrl,
    /// Whose database it is.
    pub(in crate::service::replica) identity: StoreIdentity,
    /// The windows' length.
    pub(in crate::service::replica) window: Millis,
    /// How many days of windows are kept.
    pub(in crate::service::replica) keep_days: NonZeroU32,
    /// Where the journal lies, for messages.
    pub(in crate::service::replica) journal: PathBuf,
    /// The newest view in which the journal, as it was found at the start, holds a signature.
    pub(in crate::service::replica) journal_signed: View,
}

/// Why a replica does not start with its database, or ends because of it.
#[derive(Debug, thiserror::Error)]
pub enum StoreStartError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(ConnectError),
    /// The database is not this replica's.
    #[error(transparent)]
    Refused(ConnectError),
    /// The database proves more than the journal holds.
    #[error(
        "the journal in {} was lost or is an older copy, so this replica does not vote: its database knows of \
         signatures up to view {database} and of blocks up to height {height}, the journal of signatures up to \
         view {journal}", folder.display()
    )]
    JournalLost {
        /// The journal's folder.
        folder: PathBuf,
        /// The newest signed view that the database knows of.
        database: View,
        /// The newest height that it holds.
        height: Height,
        /// The newest view in which the journal holds a signature.
        journal: View,
    },
}

impl StoreConfig {
    pub(super) async fn connect(&self) -> Result<Writer, ConnectError> {
        // It is what a second process is told: whose process has the database.
        let process = format!("quorate {} (process {})", self.identity.replica, std::process::id());
        Writer::connect(self.url.reveal(), self.identity, self.window, &process).await
    }

    /// Compares what was signed before this process began. A database that was made before it kept the view
    /// tells only that something was signed.
    pub(super) fn check_journal(&self, writer: &Writer) -> Result<(), StoreStartError> {
        let (applied, journal) = (writer.applied(), self.journal_signed);
        let has_no_view = applied.signed_view == View::ZERO && applied.height > Height::ZERO;
        if applied.signed_view > journal || (has_no_view && journal == View::ZERO) {
            return Err(StoreStartError::JournalLost {
                folder: self.journal.clone(),
                database: applied.signed_view,
                height: applied.height,
                journal,
            });
        }
        Ok(())
    }
}

/// Connects once, before anything is signed; `None` when the database is away and may come back.
///
/// # Errors
/// [`StoreStartError`] when waiting would not help.
pub(in crate::service::replica) async fn connect_first(
    config: &StoreConfig,
) -> Result<Option<Writer>, StoreStartError> {
    tokio::time::timeout(START_WAIT, connect_unless_refused(config)).await.unwrap_or(Ok(None))
}

async fn connect_unless_refused(config: &StoreConfig) -> Result<Option<Writer>, StoreStartError> {
    let watch = Stopwatch::start();
    loop {
        let error = match config.connect().await {
            Ok(writer) => return config.check_journal(&writer).map(|()| Some(writer)),
            Err(error @ (ConnectError::Url(_) | ConnectError::UrlParameter)) => {
                return Err(StoreStartError::Url(error));
            }
            Err(error) => error,
        };
        match error.trouble() {
            StoreTrouble::InUse if watch.elapsed() < IN_USE_WAIT => tokio::time::sleep(IN_USE_POLL).await,
            // Two processes with one key would contradict each other, whatever becomes of the database.
            StoreTrouble::InUse | StoreTrouble::RefusedIdentity | StoreTrouble::RefusedTables => {
                return Err(StoreStartError::Refused(error));
            }
            StoreTrouble::Unreachable
            | StoreTrouble::Timeout
            | StoreTrouble::Locked
            | StoreTrouble::DiskFull
            | StoreTrouble::Overloaded
            | StoreTrouble::NotWriting
            | StoreTrouble::Refused
            | StoreTrouble::Diverged
            | StoreTrouble::Faulty => return Ok(None),
        }
    }
}
