//! The agent's decisions, without the world: what it remembers and what it does next.
//!
//! The rules, in the order in which they are checked. What fails an earlier one never reaches a later one.
//!
//! 1. *Documents.* Size, envelope, type, a quorum of distinct keys of the pinned root, then the body. A head
//!    is for this cluster, epoch and shard, and names the target.
//! 2. *High water.* A head's (epoch, number) never falls below the newest that was admitted; the same number
//!    with other bytes is equivocation: both are kept and the agent stops for good.
//! 3. *Staleness.* When the number has not risen for `stale_after` on the monotonic clock, nothing new is
//!    applied and the applied plan's `on_stale` mode holds: `hold` keeps what is applied; `rollback` gives the
//!    target the certified rollback, but only while the newest admitted head says `act`, because a stopped target
//!    is changed by nobody, and only out of the plan's desired state (compare-and-set), so that an agent that is
//!    cut off never undoes what came later. Fresh heads put a plan in force again that was taken back.
//! 4. *Clock.* A wall clock further than the tolerance from the head's time is a fault: nothing new.
//! 5. *Sequence.* The head's entry against the newest plan that was taken up: lower is refused, equal with
//!    another digest is equivocation, equal and settled needs nothing.
//! 6. *Mode.* Hold and revoked apply nothing new.
//! 7. *Plan.* Its digest is the head's; its own fields agree with the head and with each other; its states
//!    keep its limits; the head's time has reached `not_before`, and neither clock has passed `expires_at`.
//! 8. *Preconditions.* The target is in the state that the plan was decided on.
//!
//! Then, in this order: the intention is made durable, the target is set, read back, and the receipt is made
//! durable before it is sent.

mod decide;
mod state;

pub use decide::{
    DocumentRefusal, Freshness, HeadRefusal, Idle, Situation, Step, Trust, admit_head, judge, newest_head,
};
pub(super) use decide::{entry_of, keeps_limits, times_in_order};
pub use state::{
    Account, AgentState, Aim, Attempt, Equivocation, HeadMark, PlanMark, Progress, Settlement, StateError,
};
