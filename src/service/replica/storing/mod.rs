//! The store's side of a replica: committed blocks are brought into Postgres behind the loop and never in its way.
//!
//! Nothing waits in memory. The store's task follows the journal: it reads the committed blocks above the height
//! that Postgres holds, folds them once more in a control cycle of its own that endorses nothing, and stores what
//! they change. So a database that was away for a day, was emptied or was restored from a backup is caught up in
//! one and the same way, and a slow one costs no memory. Invariants: blocks are applied in the order of their
//! heights, each once; what is held is one piece of the log and one state, however far the store is behind.

mod first;
mod follower;
mod progress;
mod task;

pub use first::StoreStartError;
pub(super) use first::{JournalFound, StoreConfig, connect_first};
pub(super) use progress::StoreProgress;
pub(super) use task::{Follows, StoreEnds, StoreTask};
