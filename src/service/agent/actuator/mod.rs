//! What changes the target: a command of the operator's, or the built-in worker pool.
//!
//! An actuator decides nothing. Invariant: it is given a plan only as [`Certified`], and a state only out of
//! that plan.

mod exec;
mod worker_pool;

pub use exec::Exec;
pub use worker_pool::{WorkerPool, WorkerPoolError, WorkerPoolSettings};

use std::future::Future;

use crate::{
    execute::agent::Aim,
    knowledge::{
        certified::Certified,
        plan::{DesiredState, Plan},
    },
};

/// Reads and sets the target of one agent.
pub trait Actuator: Send + Sync {
    /// The state that the target is in now, in the kind that the plan speaks of.
    fn read(&self, plan: &Plan) -> impl Future<Output = Result<DesiredState, ActuatorError>> + Send;

    /// Gives the target the state that the plan has for this aim. Doing it twice is doing it once. Whether it
    /// worked is told by reading, not by this answer.
    fn set(&self, plan: &Certified<Plan>, aim: Aim)
    -> impl Future<Output = Result<(), ActuatorError>> + Send;
}

/// Why the target could not be read or set.
#[derive(Debug, thiserror::Error)]
pub enum ActuatorError {
    /// The command could not be started or talked to.
    #[error("cannot run {command}")]
    Command {
        /// Which.
        command: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It did not end in time and was killed.
    #[error("{command} did not end within {seconds} s and was killed")]
    Timeout {
        /// Which.
        command: String,
        /// The limit.
        seconds: u64,
    },
    /// It ended with a failure.
    #[error("{command} failed ({status}): {complaint}")]
    Failed {
        /// Which.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it wrote to standard error.
        complaint: String,
    },
    /// What it said is no state.
    #[error("{command} said no state: {error}")]
    NoState {
        /// Which.
        command: String,
        /// What is wrong with it.
        error: String,
    },
    /// The worker pool has ended or cannot keep its state.
    #[error("the worker pool: {0}")]
    Pool(String),
}
