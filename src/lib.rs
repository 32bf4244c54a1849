//! quorate: an autonomic control loop that no single machine, operator or bug can steer alone.
//!
//! Replicas owned by different parties agree on what was observed, each derives the plan alone, and a plan
//! takes effect only once a Byzantine quorum has signed the very same bytes. `ARCHITECTURE.md` tells the
//! way of the data; each module's first lines say what it is and what it is not.

pub mod analyze;
pub mod backtest;
pub mod consensus;
pub mod cycle;
pub mod execute;
pub mod knowledge;
pub mod monitor;
pub mod plan;
pub mod types;

#[cfg(feature = "service")]
pub mod cli;
#[cfg(feature = "service")]
pub mod service;
