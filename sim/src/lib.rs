//! The simulator: production consensus, journal and control cycle on virtual time, under seeded networks, disks, crashes and
//! adversaries, with invariants restated independently and checked after every event.
//!
//! It reads no clock and no entropy: a seed is a run. Invariant: equal seeds have equal traces.

pub mod adversary;
pub mod application;
mod control;
pub mod disk;
pub mod invariants;
pub mod letter;
pub mod liveness;
pub mod models;
pub mod net;
pub mod node;
pub mod orders;
pub mod report;
pub mod requests;
pub mod rng;
pub mod scenario;
pub mod statements;
pub mod telemetry;
pub mod trace;
pub mod world;

pub use report::{Outcome, Report};
pub use scenario::Scenario;
pub use world::{run, run_traced};
