//! The running agent: it pulls from the replicas, lets the pure rules of [`crate::execute::agent`] decide,
//! keeps its state on disk, acts through an actuator and sends receipts.
//!
//! It has no opinion of its own: nothing here looks into a plan to decide anything. Invariant: what the
//! agent is about to do is on disk before it does it, and a receipt before it is sent.

pub mod actuator;
mod event;
mod fault;
mod pull;
mod run;
mod state_file;
mod trace;

pub use event::Event;
pub use fault::FaultKind;
pub use pull::{Replicas, ReplicasError};
pub use run::{Agent, AgentError, AgentSettings};
pub use state_file::{StateFile, StateFileError};
pub use trace::AgentTrace;
