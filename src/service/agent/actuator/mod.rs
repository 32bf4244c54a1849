//! What changes the target: a command of the operator's, requests to an engine, or the built-in worker pool.
//!
//! An actuator decides nothing. Invariant: it is given a plan only as [`Certified`], and a state only out of
//! that plan.

mod airflow;
mod exec;
mod http;
mod secret;
mod worker_pool;

pub use airflow::{Airflow, AirflowLogin, AirflowSettings, AirflowSettingsError, AirflowTarget};
pub use exec::Exec;
pub use http::{Http, HttpFile};
pub use secret::{SecretError, SecretSource};
pub use worker_pool::{WorkerPool, WorkerPoolError, WorkerPoolSettings};

use std::future::Future;

use axum::http::StatusCode;

use crate::{
    execute::agent::{Aim, Attempt},
    knowledge::{
        certified::Certified,
        plan::{DesiredState, Limits, Plan},
    },
    service::http_client::{Answer, HttpError},
};
use secret::Secret;

/// Reads and sets the target of one agent.
pub trait Actuator: Send + Sync {
    /// The state that the target is in now, in the kind that the plan speaks of.
    fn read(&self, plan: &Plan) -> impl Future<Output = Result<DesiredState, ActuatorError>> + Send;

    /// Gives the target the state that the plan has for this aim. Doing it twice is doing it once, and the attempt
    /// tells a repetition from the same change made anew. Whether it worked is told by reading, not by this answer.
    fn set(
        &self,
        plan: &Certified<Plan>,
        aim: Aim,
        attempt: Attempt,
    ) -> impl Future<Output = Result<(), ActuatorError>> + Send;
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
    /// The engine gave no answer.
    #[error("cannot {doing}")]
    NoAnswer {
        /// What was being done, and where.
        doing: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// The engine answered with a status that means no.
    #[error("cannot {doing}: it answered {status}: {said}; {next}")]
    EngineRefused {
        /// What was being done, and where.
        doing: String,
        /// The status.
        status: StatusCode,
        /// The beginning of what it said, on one line and without secrets.
        said: String,
        /// What a person can do.
        next: &'static str,
    },
    /// The engine's answer does not say what it must.
    #[error("cannot {doing}: {problem}")]
    WrongAnswer {
        /// What was being done, and where.
        doing: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The plan speaks of another kind of target.
    #[error(
        "the plan is for {plan}, but this agent was started for {actuator}: compare the target in the policy \
         file with the agent's flags"
    )]
    OtherKind {
        /// What the plan is for.
        plan: &'static str,
        /// What the agent was started for.
        actuator: String,
    },
    /// More would be changed than the plan allows.
    #[error(
        "cannot {doing}: {found} is more than the {most} that the plan allows; next: retry them by hand, or raise `most`"
    )]
    TooMany {
        /// What was being done, and where.
        doing: String,
        /// How many there are.
        found: u64,
        /// How many there may be.
        most: u32,
    },
    /// A change of several steps failed when some of them were done.
    #[error("{done} of {of} failed tasks run again, then: {source}")]
    Halfway {
        /// How many tasks were told to run again.
        done: u64,
        /// How many were to be.
        of: u64,
        /// What then failed.
        #[source]
        source: Box<ActuatorError>,
    },
    /// A secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A secret or value has characters that no header can carry.
    #[error("cannot {doing}: the value of the header {header} has characters that no header can carry")]
    Header {
        /// What was being done, and where.
        doing: String,
        /// Which header.
        header: String,
    },
    /// The worker pool has ended or cannot keep its state.
    #[error("the worker pool: {0}")]
    Pool(String),
}

/// What a plan is for, in words.
const fn kind(plan: &Plan) -> &'static str {
    match plan.limits {
        Limits::Slots { .. } => "a pool's slots",
        Limits::Switch {} => "a switch that is paused or running",
        Limits::Tasks { .. } => "tasks that are told to run again",
    }
}

/// As much of an answer as a person reads.
const SAID_CHARACTERS: usize = 200;

/// The beginning of an engine's answer, on one line and without secrets.
fn said<'a>(answer: &Answer, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let hidden = secrets.into_iter().fold(text, |text, secret| secret.hide_in(&text));
    let line = hidden.trim().chars().map(|character| if character.is_control() { ' ' } else { character });
    let said: String = line.take(SAID_CHARACTERS).collect();
    if said.is_empty() { "nothing".to_owned() } else { said }
}

/// What a person can do about a status.
const fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "next: are the user, the password or the token right, and may they do this?"
        }
        StatusCode::NOT_FOUND => "next: compare the name and the address with the engine's",
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => "next: wait, it is tried again while the plan is valid",
        _ => "next: compare the request with the engine's version",
    }
}

#[cfg(test)]
#[path = "../../../../tests/support/airflow.rs"]
mod recorded;
