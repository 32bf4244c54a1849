//! The first connection: what is wrong with a database that is wrong for good is said before anything is signed.
//!
//! A database that is merely away does not keep a replica from starting: it is not the record of votes.
//! Invariant: a journal that holds less than the database proves is never signed with.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use crate::{
    knowledge::store::{AppliedHeight, ConnectError, StoreIdentity, StoreTrouble, Writer},
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
    /// What the journal held at the start.
    pub(in crate::service::replica) found: JournalFound,
}

/// What the journal held at the start, before this process signed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service::replica) struct JournalFound {
    /// The newest view in which it holds a signature.
    pub(in crate::service::replica) signed: View,
    /// The height of its newest committed block.
    pub(in crate::service::replica) height: Height,
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
         view {journal} and of blocks up to height {journal_height}", folder.display()
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
        /// The newest height that it holds.
        journal_height: Height,
    },
}

impl StoreConfig {
    pub(super) async fn connect(&self) -> Result<Writer, ConnectError> {
        // It is what a second process is told: whose process has the database.
        let process = format!("quorate {} (process {})", self.identity.replica, std::process::id());
        Writer::connect(self.url.reveal(), self.identity, self.window, &process).await
    }

    /// Compares the journal with what the database knows of this replica.
    pub(super) fn check_journal(&self, writer: &Writer) -> Result<(), StoreStartError> {
        let applied = writer.applied();
        if !self.found.is_lost(&applied) {
            return Ok(());
        }
        Err(StoreStartError::JournalLost {
            folder: self.journal.clone(),
            database: applied.signed_view,
            height: applied.height,
            journal: self.found.signed,
            journal_height: self.found.height,
        })
    }
}

impl JournalFound {
    /// Whether the database proves that there was a journal with more signatures. It does when it knows of a later
    /// one. When it knows of none, it was made before it kept the view, or nothing was signed until its newest
    /// block: then only a journal without anything, where there were blocks, is a lost one. Blocks alone prove
    /// nothing: the newest ones may be lost with a machine, unflushed, and no signature with them.
    fn is_lost(self, applied: &AppliedHeight) -> bool {
        let is_empty = self.signed == View::ZERO && self.height == Height::ZERO;
        applied.signed_view > self.signed || (is_empty && applied.height > Height::ZERO)
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

#[cfg(test)]
mod tests {
    use super::JournalFound;
    use crate::{
        knowledge::store::AppliedHeight,
        types::{Digest, Height, UnixMillis, View},
    };

    #[test]
    fn a_journal_is_lost_when_a_signature_is_missing_or_nothing_is_there_at_all() {
        // What the journal holds, what the database does: view and height.
        let rows = [
            ((0, 0), (0, 0), false, "both are new"),
            ((0, 0), (0, 5), true, "there were blocks, and the journal is as new"),
            ((0, 0), (7, 5), true, "there were signatures"),
            ((0, 5), (0, 5), false, "blocks were stored before the first signature"),
            ((0, 3), (0, 5), false, "the newest blocks were not flushed"),
            ((0, 5), (7, 5), true, "the signatures are gone"),
            ((6, 5), (7, 5), true, "an older copy"),
            ((7, 3), (7, 5), false, "the newest blocks were not flushed"),
            ((9, 8), (7, 5), false, "the database lags"),
            ((9, 0), (0, 5), false, "signed before any block was committed here"),
        ];
        for ((signed, height), (signed_view, stored), expected, why) in rows {
            let found = JournalFound { signed: View::new(signed), height: Height::new(height) };
            let applied = AppliedHeight {
                height: Height::new(stored),
                digest: Digest::ZERO,
                agreed_time: UnixMillis::ZERO,
                signed_view: View::new(signed_view),
            };
            assert_eq!(found.is_lost(&applied), expected, "{why}: {found:?}, {applied:?}");
        }
    }
}
