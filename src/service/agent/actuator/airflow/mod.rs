//! The actuator for Apache Airflow 3: a pool's slots, whether a DAG is paused, and retries of a DAG's failed tasks,
//! by its public REST API.
//!
//! It decides nothing and knows no other engine. The calls are those that were run against Airflow 3.3.2, with
//! their traps:
//!
//! 1. A pool's PATCH needs `pool` and `include_deferred`, though the OpenAPI document calls them optional; the
//!    pool's own value is read first and written back. Only `default_pool` takes `slots` alone.
//! 2. `update_mask` names the one field that changes, so nothing else of the pool or the DAG does.
//! 3. -1 slots means no limit, which is no number that a plan can compare with.
//! 4. `~` stands for every DAG in a path, so it is no name.
//! 5. Pausing a DAG freezes its running work: tasks that run go on, but nothing that follows them starts, and
//!    what waits for a retry waits on. Fewer failures after that are no recovery.
//! 6. Clearing tasks has `dry_run` true unless the request says otherwise, and then answers 200 and does nothing.
//! 7. Clearing by a window of dates passes runs by that were started by hand: they have no logical date. So failed
//!    tasks are looked up by when they ended, and cleared run by run.
//! 8. Clearing a run clears all its failed tasks, whenever they failed, so tasks are named: by id, or by id and index
//!    where they are mapped. A dry run tells what waits for them.
//! 9. Each run is cleared by a request of its own, so a retry can fail in the middle; what was cleared runs again.
//!
//! Invariant: a request that the engine did not authenticate is repeated once with a new token, never more.

mod api;

use std::{collections::BTreeMap, fmt, time::Duration};

use axum::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use self::api::Api;
use super::{Actuator, ActuatorError, SecretSource, http::percent_encoded, kind};
use crate::{
    execute::agent::{Aim, Attempt},
    knowledge::{
        certified::Certified,
        genesis::MOST_RETRIES,
        plan::{DesiredState, Limits, Plan},
    },
    service::{
        http_client::{HttpClient, HttpError, is_confidential},
        utc::Utc,
    },
    types::UnixMillis,
};

/// Its PATCH takes `slots` alone.
const DEFAULT_POOL: &str = "default_pool";
/// Airflow's columns for names have 250 (DAGs) and 256 (pools) characters.
const LONGEST_NAME: usize = 256;

/// What an agent of Airflow is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AirflowSettings {
    /// Where its API server is, such as `http://127.0.0.1:8080`, with the path below which it is served.
    pub url: String,
    /// Whether the password or token may go over http:// to another machine.
    pub in_clear: bool,
    /// How it lets the agent in.
    pub login: AirflowLogin,
    /// What the agent is for.
    pub target: AirflowTarget,
    /// How long one request may take.
    pub timeout: Duration,
}

/// How Airflow lets an agent in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AirflowLogin {
    /// A user and a password, for which `POST /auth/token` gives a token.
    Password {
        /// The user.
        user: String,
        /// Where the password is.
        password: SecretSource,
    },
    /// A token that something else renews.
    Token(SecretSource),
}

/// What of an Airflow is the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AirflowTarget {
    /// The slots of the pool with this name.
    Pool(String),
    /// Whether the DAG with this id is paused.
    Dag(String),
    /// The failed tasks of the DAG with this id.
    FailedTasks(String),
}

impl fmt::Display for AirflowTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(name) => write!(f, "pool {name}"),
            Self::Dag(id) => write!(f, "DAG {id}"),
            Self::FailedTasks(id) => write!(f, "failed tasks of DAG {id}"),
        }
    }
}

/// Why these settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AirflowSettingsError {
    /// The address is none.
    #[error(transparent)]
    Address(#[from] HttpError),
    /// Whoever is on the way could read the secret.
    #[error("{0} is not on this machine: a password or token is sent there only over https://")]
    InClear(String),
    /// Nothing can have this name.
    #[error("{0:?} is no name of a pool or a DAG: 1 to 256 characters, and not `~`, which means all of them")]
    Name(String),
    /// The secret cannot be had.
    #[error(transparent)]
    Secret(#[from] super::SecretError),
}

/// Reads and sets one pool or DAG of an Airflow.
#[derive(Debug)]
pub struct Airflow {
    api: Api,
    target: AirflowTarget,
}

impl Airflow {
    /// Checks the settings, and reads the secret once to see that it is there. Nothing is sent.
    ///
    /// # Errors
    /// [`AirflowSettingsError`] says which of them cannot be used.
    pub fn new(settings: AirflowSettings, client: HttpClient) -> Result<Self, AirflowSettingsError> {
        let AirflowSettings { url, in_clear, login, target, timeout } = settings;
        let url = url.trim_end_matches('/').to_owned();
        client.check(&format!("{url}/"))?;
        if !in_clear && !is_confidential(&url) {
            return Err(AirflowSettingsError::InClear(url));
        }
        let (AirflowTarget::Pool(name) | AirflowTarget::Dag(name) | AirflowTarget::FailedTasks(name)) =
            &target;
        if name.is_empty() || name == "~" || name.chars().count() > LONGEST_NAME {
            return Err(AirflowSettingsError::Name(name.clone()));
        }
        let (AirflowLogin::Password { password: secret, .. } | AirflowLogin::Token(secret)) = &login;
        secret.read()?;
        if let AirflowTarget::Dag(id) = &target {
            tracing::warn!(
                dag = %id,
                "pausing this DAG freezes its running work too: tasks that run go on, nothing after them starts"
            );
        }
        Ok(Self { api: Api::new(client, url, login, timeout), target })
    }

    /// Reads the target once, to see at the start whether the address, the login and the name are right.
    ///
    /// # Errors
    /// [`ActuatorError`] as for reading.
    pub async fn check(&self) -> Result<(), ActuatorError> {
        match &self.target {
            AirflowTarget::Pool(name) => self.pool(name).await.map(drop),
            AirflowTarget::Dag(id) | AirflowTarget::FailedTasks(id) => self.dag(id).await.map(drop),
        }
    }

    async fn pool(&self, name: &str) -> Result<(PoolAnswer, u32), ActuatorError> {
        let doing = format!("read pool {name} of Airflow");
        let path = format!("/api/v2/pools/{}", percent_encoded(name));
        let pool: PoolAnswer = self.api.call(&doing, Method::GET, &path, None).await?;
        match u32::try_from(pool.slots) {
            Ok(slots) => Ok((pool, slots)),
            Err(_) => {
                let problem = format!(
                    "it has {} slots, which means no limit; next: give it a number of slots in Airflow, the \
                     policy file's `initial`",
                    pool.slots
                );
                Err(ActuatorError::WrongAnswer { doing, problem })
            }
        }
    }

    async fn dag(&self, id: &str) -> Result<DagAnswer, ActuatorError> {
        let path = format!("/api/v2/dags/{}", percent_encoded(id));
        self.api.call(&format!("read DAG {id} of Airflow"), Method::GET, &path, None).await
    }

    async fn set_slots(&self, name: &str, slots: u32) -> Result<(), ActuatorError> {
        let body = if name == DEFAULT_POOL {
            json!({ "slots": slots })
        } else {
            let (PoolAnswer { include_deferred, .. }, _) = self.pool(name).await?;
            json!({ "pool": name, "slots": slots, "include_deferred": include_deferred })
        };
        let path = format!("/api/v2/pools/{}?update_mask=slots", percent_encoded(name));
        let doing = format!("set pool {name} of Airflow to {slots} slots");
        self.api.call::<PoolAnswer>(&doing, Method::PATCH, &path, Some(&body)).await.map(drop)
    }

    async fn set_paused(&self, id: &str, is_paused: bool) -> Result<(), ActuatorError> {
        let path = format!("/api/v2/dags/{}?update_mask=is_paused", percent_encoded(id));
        let doing = format!("{} DAG {id} of Airflow", if is_paused { "pause" } else { "unpause" });
        let body = json!({ "is_paused": is_paused });
        self.api.call::<DagAnswer>(&doing, Method::PATCH, &path, Some(&body)).await.map(drop)
    }

    /// Tasks that failed in the span, oldest first: one page of them, and how many there are.
    async fn failed(&self, id: &str, span: Span) -> Result<TasksAnswer, ActuatorError> {
        let path = format!(
            "/api/v2/dags/{}/dagRuns/~/taskInstances?state=failed&end_date_gt={}&end_date_lte={}\
             &order_by=end_date&limit={MOST_RETRIES}",
            percent_encoded(id),
            Utc(span.after).rfc_3339(),
            Utc(span.until).rfc_3339(),
        );
        self.api
            .call(&format!("read the failed tasks of DAG {id} of Airflow"), Method::GET, &path, None)
            .await
    }

    /// Clears the tasks that failed in the span and what waits for them, at most so many together, or none. Only what
    /// a dry run has named is cleared: a run may hold older failures, which are no business of this plan.
    async fn retry(&self, id: &str, span: Span, most: u32) -> Result<(), ActuatorError> {
        let doing = format!("retry the failed tasks of DAG {id} of Airflow");
        let failed = self.failed(id, span).await?.complete(&doing, most)?;
        let mut runs: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for task in &failed {
            runs.entry(&task.dag_run_id).or_default().push(task.marker());
        }
        let (mut found, mut planned) = (0, Vec::new());
        for (run, tasks) in runs {
            let mut body = clearing(run, &tasks);
            body["dry_run"] = true.into();
            body["include_downstream"] = true.into();
            let tasks = self.clear(id, run, &body).await?.complete(&doing, most)?;
            found += tasks.len() as u64;
            planned.push((run, tasks.iter().map(FailedTask::marker).collect::<Vec<_>>()));
        }
        if found > u64::from(most) {
            return Err(ActuatorError::TooMany { doing, found, most });
        }
        for (run, tasks) in planned {
            // Somebody else may have cleared them since; without a task Airflow would refuse the request.
            if tasks.is_empty() {
                continue;
            }
            if let Err(error) = self.clear(id, run, &clearing(run, &tasks)).await {
                return Err(self.halfway(id, span, &failed, run, error).await);
            }
        }
        Ok(())
    }

    /// Why clearing the tasks of one run failed, with what became of the others. A request without an answer may have been
    /// carried out, so the engine is asked; when it does not say, what it answered before counts.
    async fn halfway(
        &self,
        id: &str,
        span: Span,
        failed: &[FailedTask],
        run: &str,
        error: ActuatorError,
    ) -> ActuatorError {
        let of = failed.len() as u64;
        let done = match self.failed(id, span).await {
            Ok(left) => of.saturating_sub(left.total_entries),
            // Runs are cleared in the order of their names.
            Err(_) => failed.iter().filter(|task| task.dag_run_id.as_str() < run).count() as u64,
        };
        if done == 0 { error } else { ActuatorError::Halfway { done, of, source: Box::new(error) } }
    }

    async fn clear(&self, id: &str, run: &str, body: &Value) -> Result<TasksAnswer, ActuatorError> {
        let path = format!("/api/v2/dags/{}/clearTaskInstances", percent_encoded(id));
        let doing = format!("clear failed tasks of run {run} of DAG {id} of Airflow");
        self.api.call(&doing, Method::POST, &path, Some(body)).await
    }

    fn other_kind(&self, plan: &Plan) -> ActuatorError {
        ActuatorError::OtherKind { plan: kind(plan), actuator: format!("{} of Airflow", self.target) }
    }
}

/// A span of time: after the one and up to the other.
#[derive(Clone, Copy, Debug)]
struct Span {
    after: UnixMillis,
    until: UnixMillis,
}

/// The request that clears these tasks of a run, where they failed or wait for one that did.
fn clearing(run: &str, tasks: &[Value]) -> Value {
    json!({
        "dry_run": false, "only_failed": true, "dag_run_id": run, "reset_dag_runs": true, "task_ids": tasks
    })
}

/// What is used of a list of task instances.
#[derive(Debug, Deserialize)]
struct TasksAnswer {
    task_instances: Vec<FailedTask>,
    total_entries: u64,
}

impl TasksAnswer {
    /// All of them, when there are at most so many.
    fn complete(self, doing: &str, most: u32) -> Result<Vec<FailedTask>, ActuatorError> {
        let Self { task_instances, total_entries: found } = self;
        let doing = || doing.to_owned();
        if found > u64::from(most) {
            Err(ActuatorError::TooMany { doing: doing(), found, most })
        } else if found == task_instances.len() as u64 {
            Ok(task_instances)
        } else {
            let problem = format!("of {found} tasks it names {}", task_instances.len());
            Err(ActuatorError::WrongAnswer { doing: doing(), problem })
        }
    }
}

#[derive(Debug, Deserialize)]
struct FailedTask {
    dag_run_id: String,
    task_id: String,
    map_index: i64,
}

impl FailedTask {
    /// How a request names it. A task that is not mapped has the index -1 and is named by its id alone.
    fn marker(&self) -> Value {
        if self.map_index < 0 { json!(self.task_id) } else { json!([self.task_id, self.map_index]) }
    }
}

/// What is used of a pool.
#[derive(Debug, Deserialize)]
struct PoolAnswer {
    slots: i64,
    include_deferred: bool,
}

/// What is used of a DAG.
#[derive(Debug, Deserialize)]
struct DagAnswer {
    is_paused: bool,
}

impl Actuator for Airflow {
    async fn read(&self, plan: &Plan) -> Result<DesiredState, ActuatorError> {
        match (plan.desired, &self.target) {
            (DesiredState::Slots { .. }, AirflowTarget::Pool(name)) => {
                let (_, slots) = self.pool(name).await?;
                Ok(DesiredState::Slots { slots })
            }
            (DesiredState::Paused {} | DesiredState::Running {}, AirflowTarget::Dag(id)) => {
                let DagAnswer { is_paused } = self.dag(id).await?;
                Ok(if is_paused { DesiredState::Paused {} } else { DesiredState::Running {} })
            }
            (DesiredState::Retried { after, until }, AirflowTarget::FailedTasks(id)) => {
                let failed = self.failed(id, Span { after, until }).await?;
                // What failed before the span is not this plan's business, so there are only two states to tell.
                Ok(if failed.total_entries == 0 { plan.desired } else { plan.preconditions.state })
            }
            (
                DesiredState::Slots { .. }
                | DesiredState::Paused {}
                | DesiredState::Running {}
                | DesiredState::Retried { .. },
                AirflowTarget::Pool(_) | AirflowTarget::Dag(_) | AirflowTarget::FailedTasks(_),
            ) => Err(self.other_kind(plan)),
        }
    }

    async fn set(&self, plan: &Certified<Plan>, aim: Aim, _: Attempt) -> Result<(), ActuatorError> {
        let document = plan.document();
        match (aim.of(document), &self.target) {
            (DesiredState::Slots { slots }, AirflowTarget::Pool(name)) => self.set_slots(name, slots).await,
            (DesiredState::Paused {}, AirflowTarget::Dag(id)) => self.set_paused(id, true).await,
            (DesiredState::Running {}, AirflowTarget::Dag(id)) => self.set_paused(id, false).await,
            (DesiredState::Retried { after, until }, AirflowTarget::FailedTasks(id)) => {
                match (aim, document.limits) {
                    (Aim::Desired, Limits::Tasks { most, .. }) => {
                        self.retry(id, Span { after, until }, most).await
                    }
                    // What runs again cannot be taken back.
                    (Aim::Rollback | Aim::Revert, Limits::Tasks { .. }) => Ok(()),
                    (_, Limits::Slots { .. } | Limits::Switch {}) => Err(self.other_kind(document)),
                }
            }
            (
                DesiredState::Slots { .. }
                | DesiredState::Paused {}
                | DesiredState::Running {}
                | DesiredState::Retried { .. },
                AirflowTarget::Pool(_) | AirflowTarget::Dag(_) | AirflowTarget::FailedTasks(_),
            ) => Err(self.other_kind(document)),
        }
    }
}

#[cfg(test)]
mod tests;
