//! The knowledge base in Postgres: what the fold changed, for the API, dashboards and people.
//!
//! It is not the safety record (that is the journal) and the fold never reads it. Invariants: a block's
//! changes appear in one transaction keyed by its height, exactly once, whoever crashes when; a database
//! belongs to one replica. `docs/knowledge.md` lists the tables.
//!
//! Text that telemetry or an agent chose never makes a block unstorable: columns for people hold it with
//! U+0000 replaced, and the exact bytes stand beside them.

mod apply;
mod connect;
mod decisions;
mod error;
mod gaps;
mod queries;
mod retention;
mod trouble;
mod values;
mod windows;

pub use apply::{AppliedBlock, ApplyOutcome, BlockHeader};
pub use connect::{Store, StoreIdentity, Writer};
pub use error::{ApplyError, ConnectError, CorruptRow, QueryError, RecordHeadError, StatementError};
pub use gaps::{LogGap, StoreBase};
pub use queries::{
    AppliedHeight, MAX_ROWS, PlanState, StoredFinding, StoredHead, StoredPlan, StoredReceipt, StoredWindow,
};
pub use retention::{AHEAD_DAYS, Swept};
pub use trouble::StoreTrouble;
