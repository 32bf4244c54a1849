//! Planning: what to do about findings.
//!
//! It is a pure function of a snapshot and the findings in it, computed by every replica alone: equal inputs
//! give equal plan bytes. It signs nothing and certifies nothing, and its plans mean nothing until a quorum
//! has signed the very same bytes. Invariant: every plan that leaves this module has passed [`check`], which
//! shares no code with the planner.
//!
//! # The rules
//!
//! - **P1** Policies are tried in the genesis' order, and a target gets at most one plan a cycle: the first.
//! - **P2** Only a `Threshold`, `Absence` or `Capacity` finding of the snapshot's own, confirmed window is acted on.
//!   `Disputed` and `Unconfirmed` ones are shown and left to operators.
//! - **P3** A policy without an action only finds. One above low risk is held: it would need sources
//!   of two owners, and no source is bound to an owner.
//! - **P4** A policy rests for its cooldown after its own last plan, a target for its cooldown after any plan
//!   for it, and a target gets only so many plans in 60 minutes of agreed time. Logged plans count. What stands when
//!   the rest ends is acted on in the next confirmed window: symptoms are found again in each window in which they last
//!   (W2 in [`crate::analyze`]), and failures by P10.
//! - **P5** The desired state is absolute, computed from the present state; slots move by at most the
//!   target's largest step and stay within its bounds. A target that lies outside its bounds already is left
//!   to operators: any plan for it would need a rollback that breaks them.
//! - **P6** A desired state that is the present one is no plan.
//! - **P7** The plan's precondition and its rollback are the present state: the agent changes only what it
//!   was decided on, and takes back exactly what it changed.
//! - **P8** A plan that the checker refuses is not planned, and the report says which invariants it breaks.
//! - **P9** Nothing is planned for a target that operators have stopped; the report names them.
//! - **P10** A policy that retries acts on its newest remembered finding too (W6 in [`crate::analyze`]), in every window
//!   after its own, while the target's retried span ends before that window's close and the window is not out of the
//!   target's reach: tasks that failed are there until they are told to run again, whether or not more of them fail. So a
//!   failure in a rest, under a stop, or of which the plan was not applied, is retried by the first plan that may be.
//! - **P11** A policy that scales gives its target the present slots, raised to the lower end of what its capacity model
//!   found, or lowered to the upper end: only what every choice of points asks for is done.
//! - **P12** A policy in shadow is derived and checked like any other, up to the plan that it would make; the report tells
//!   that plan as advice. It makes none and takes no target, so an acting policy after it is not held back by it.
//! - **P13** A policy's own largest step bounds its plans where it is less than the target's, and a policy that is paused
//!   in one direction makes no plan in that direction.
//!
//! The report has one line for each policy, in the genesis' order, whether it acted or not.

mod bundle;
mod check;
mod planner;
mod report;
#[cfg(test)]
mod testing;

pub use bundle::{BundleError, EvidenceBundle, MAX_BUNDLE_BYTES};
pub use check::{LONGEST_EXPIRY, Violation, check};
pub use planner::{Planned, plan};
pub use report::{Decision, Hold, PlanningReport, PolicyReport, Quiet};
