//! Where the store stands, as the board shows it.
//!
//! It decides nothing. Invariant: there is a failure exactly while the state is a trouble.

use crate::{knowledge::store::LogGap, service::status::StoreState, types::Height};

/// Where the store stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::service::replica) struct StoreProgress {
    /// The newest height in Postgres; until that is known, what the journal held at the start.
    pub(in crate::service::replica) applied: Height,
    /// The newest heights below that it lacks.
    pub(in crate::service::replica) gap: Option<LogGap>,
    /// What it does, or what is wrong.
    pub(in crate::service::replica) state: StoreState,
    /// The particulars of what is wrong.
    pub(in crate::service::replica) failure: Option<String>,
    /// How often something was tried again.
    pub(in crate::service::replica) retries: u64,
    /// How many days' tables were dropped for their age.
    pub(in crate::service::replica) tables_dropped: u64,
    /// How often old days could not be dropped.
    pub(in crate::service::replica) sweeps_failed: u64,
}

impl StoreProgress {
    pub(super) const fn new(height: Height) -> Self {
        Self {
            applied: height,
            gap: None,
            state: StoreState::Connecting,
            failure: None,
            retries: 0,
            tables_dropped: 0,
            sweeps_failed: 0,
        }
    }
}
