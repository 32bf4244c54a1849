//! The actuator that talks to an engine by requests which a file describes. docs/actuators.md states the file's
//! format.
//!
//! It knows no engine, and judges no answer beyond its status and the one value that the file points at.
//! Invariant: a URL that it tells or logs has no secret in it.

mod file;
mod template;

pub use file::HttpFile;
pub(super) use template::percent_encoded;

use std::collections::BTreeMap;

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue},
};
use serde_json::Value;

use self::{
    file::{Described, Request},
    template::{Form, Values, Word},
};
use super::{Actuator, ActuatorError, advice, kind, said};
use crate::{
    execute::agent::{Aim, Attempt},
    knowledge::{
        certified::Certified,
        plan::{DesiredState, Plan},
    },
    service::http_client::{Answer, Bounds, HttpClient},
    types::Digest,
};

/// Reads and sets a target by the requests of a file.
#[derive(Clone, Debug)]
pub struct Http {
    client: HttpClient,
    file: HttpFile,
}

impl Http {
    /// The actuator that the file describes.
    #[must_use]
    pub const fn new(file: HttpFile, client: HttpClient) -> Self {
        Self { client, file }
    }

    /// Sends a request and returns its answer, whose status is one of those that the file calls success.
    async fn send(
        &self,
        verb: &'static str,
        request: &Request,
        words: BTreeMap<Word, String>,
    ) -> Result<Answer, ActuatorError> {
        let mut values = Values { words, secrets: BTreeMap::new() };
        for (name, source) in &self.file.secrets {
            values.secrets.insert(name.clone(), source.read()?);
        }
        let url = request.url.render(&values, Form::Url);
        let doing = || format!("{verb} the target at {url}");
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let mut value = HeaderValue::from_str(&value.render(&values, Form::Plain))
                .map_err(|_| ActuatorError::Header { doing: doing(), header: name.to_string() })?;
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
        let body =
            request.body.as_ref().map_or_else(Bytes::new, |(body, form)| body.render(&values, *form).into());
        let bounds = Bounds { timeout: self.file.timeout, body_bytes: self.file.answer_bytes };
        let answer = self
            .client
            .send(request.method.clone(), &url, headers, body, bounds)
            .await
            .map_err(|source| ActuatorError::NoAnswer { doing: doing(), source })?;
        if request.was_done_before(answer.status) {
            tracing::info!(%url, status = %answer.status, "the engine says that this was done before");
        }
        if request.is_success(answer.status) {
            Ok(answer)
        } else {
            Err(ActuatorError::EngineRefused {
                doing: doing(),
                status: answer.status,
                said: said(&answer, values.secrets.values()),
                next: advice(answer.status),
            })
        }
    }
}

impl Actuator for Http {
    async fn read(&self, plan: &Plan) -> Result<DesiredState, ActuatorError> {
        let digest = Digest::of(&plan.to_bytes());
        let answer = self.send("read", &self.file.read, words(plan, digest)).await?;
        let wrong =
            |problem| ActuatorError::WrongAnswer { doing: "read the target's state".to_owned(), problem };
        let json: Value = serde_json::from_slice(&answer.body)
            .map_err(|error| wrong(format!("the answer is no JSON ({error}): {}", said(&answer, []))))?;
        let at = |pointer: &str| {
            json.pointer(pointer).ok_or_else(|| {
                wrong(format!(
                    "the answer has nothing at {pointer:?}: compare [state] with {}",
                    said(&answer, [])
                ))
            })
        };
        match (plan.desired, &self.file.target) {
            (DesiredState::Slots { .. }, Described::Pool { slots, .. }) => {
                let value = at(slots)?;
                let number = value.as_u64().and_then(|slots| u32::try_from(slots).ok());
                let slots = number.ok_or_else(|| {
                    wrong(format!(
                        "{value} at {slots:?} is no number of slots, which is from 0 to 4294967295"
                    ))
                })?;
                Ok(DesiredState::Slots { slots })
            }
            (DesiredState::Paused {} | DesiredState::Running {}, Described::Switch { paused, .. }) => {
                let value = at(paused)?;
                match value.as_bool() {
                    Some(true) => Ok(DesiredState::Paused {}),
                    Some(false) => Ok(DesiredState::Running {}),
                    None => Err(wrong(format!("{value} at {paused:?} is neither true nor false"))),
                }
            }
            (_, described) => Err(other_kind(plan, described)),
        }
    }

    async fn set(&self, plan: &Certified<Plan>, aim: Aim, attempt: Attempt) -> Result<(), ActuatorError> {
        let state = aim.of(plan.document());
        let mut words = words(plan.document(), plan.digest());
        let way = match aim {
            Aim::Desired => "desired",
            Aim::Rollback | Aim::Revert => "rollback",
        };
        words.insert(Word::Key, format!("{}-{attempt}-{way}", plan.digest()));
        let request = match (state, &self.file.target) {
            (DesiredState::Slots { slots }, Described::Pool { set, .. }) => {
                words.insert(Word::Slots, slots.to_string());
                set
            }
            (DesiredState::Paused {}, Described::Switch { pause, .. }) => {
                words.extend([(Word::Paused, "true".to_owned()), (Word::State, "paused".to_owned())]);
                pause
            }
            (DesiredState::Running {}, Described::Switch { resume, .. }) => {
                words.extend([(Word::Paused, "false".to_owned()), (Word::State, "running".to_owned())]);
                resume
            }
            (_, described) => return Err(other_kind(plan.document(), described)),
        };
        self.send("set", request, words).await.map(drop)
    }
}

fn other_kind(plan: &Plan, described: &Described) -> ActuatorError {
    let actuator = match described {
        Described::Pool { .. } => "a pool's slots ([state] slots)",
        Described::Switch { .. } => "a switch ([state] paused)",
    };
    ActuatorError::OtherKind { plan: kind(plan), actuator: actuator.to_owned() }
}

/// What every request may name.
fn words(plan: &Plan, digest: Digest) -> BTreeMap<Word, String> {
    [
        (Word::Target, plan.target.to_string()),
        (Word::Seq, plan.seq.to_string()),
        (Word::Plan, digest.to_string()),
    ]
    .into()
}

#[cfg(test)]
mod tests;
