//! The flags that say what changes the target, and the actuator that they describe.
//!
//! It asks no replica. Invariant: a secret is named by its file or its variable, and is never an argument, which
//! everybody on the machine could read.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    cli::Failure,
    execute::agent::{Aim, Attempt},
    knowledge::{
        certified::Certified,
        plan::{DesiredState, Plan},
    },
    service::{
        agent::actuator::{
            Actuator, ActuatorError, Airflow, AirflowLogin, AirflowSettings, AirflowSettingsError,
            AirflowTarget, Exec, Http, HttpFile, SecretSource, WorkerPool, WorkerPoolSettings,
        },
        http_client::{ClientSettings, HttpClient},
    },
    types::TargetId,
};

/// What holds the password when no file does.
const PASSWORD_VARIABLE: &str = "QUORATE_AIRFLOW_PASSWORD";

/// What changes the target
#[derive(Debug, clap::Args)]
pub(super) struct ActuatorArguments {
    /// What changes the target
    #[arg(long = "actuator", value_enum, value_name = "KIND")]
    kind: Kind,
    #[command(flatten)]
    exec: ExecArguments,
    #[command(flatten)]
    engine: EngineArguments,
    #[command(flatten)]
    http: HttpArguments,
    #[command(flatten)]
    airflow: AirflowArguments,
    #[command(flatten)]
    pool: PoolArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A command of yours
    Exec,
    /// Requests to an engine, which a file describes
    Http,
    /// A pool or a DAG of an Apache Airflow 3
    Airflow,
    /// A pool of workers inside this process
    WorkerPool,
}

/// Flags of the exec actuator
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --actuator exec")]
struct ExecArguments {
    /// The command
    #[arg(long, value_name = "PROGRAM", required_if_eq("kind", "exec"))]
    command: Option<String>,
    /// An argument of the command, before the verb; once for each
    #[arg(long = "command-arg", value_name = "TEXT", allow_hyphen_values = true)]
    command_args: Vec<String>,
    /// How long the command may take, in seconds, before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    command_timeout: u64,
}

/// Flags of actuators that talk to an engine
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --actuator http or airflow")]
struct EngineArguments {
    /// Certificates (PEM) that sign the engine's certificate [default: the system's authorities]
    #[arg(long, value_name = "FILE")]
    engine_ca: Option<PathBuf>,
}

/// Flags of the http actuator
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --actuator http")]
struct HttpArguments {
    /// The requests that read and set the target; docs/actuators.md states the format
    #[arg(long, value_name = "FILE", required_if_eq("kind", "http"))]
    http_file: Option<PathBuf>,
}

/// Flags of the airflow actuator
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --actuator airflow")]
struct AirflowArguments {
    /// Where Airflow's API server is, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL", required_if_eq("kind", "airflow"))]
    airflow: Option<String>,
    /// The target is this pool's slots
    #[arg(long, value_name = "NAME", group = "airflow_target")]
    airflow_pool: Option<String>,
    /// The target is whether this DAG is paused, which freezes its running work too
    #[arg(long, value_name = "ID", group = "airflow_target")]
    airflow_dag: Option<String>,
    /// The target is this DAG's failed tasks, which are told to run again
    #[arg(long, value_name = "ID", group = "airflow_target")]
    airflow_failed_tasks: Option<String>,
    /// The user that changes pools and DAGs
    #[arg(long, value_name = "NAME", conflicts_with = "airflow_token_file")]
    airflow_user: Option<String>,
    /// The user's password [default: the variable QUORATE_AIRFLOW_PASSWORD]
    #[arg(long, value_name = "FILE", requires = "airflow_user")]
    airflow_password_file: Option<PathBuf>,
    /// A token instead of a user; read again whenever Airflow does not take it any more
    #[arg(long, value_name = "FILE")]
    airflow_token_file: Option<PathBuf>,
    /// Let the password or token go over http:// to another machine
    #[arg(long)]
    airflow_in_clear: bool,
    /// How long one request may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    airflow_timeout: u64,
}

/// Flags of the worker pool
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --actuator worker-pool")]
struct PoolArguments {
    /// Slots before the first plan; the target's `initial`
    #[arg(long, value_name = "COUNT", required_if_eq("kind", "worker-pool"))]
    slots: Option<u32>,
    /// A job arrives every so many milliseconds; none when absent
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    job_every: Option<u64>,
    /// How long a job runs, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    job_takes: u64,
    /// Where the pool posts its metrics over OTLP/HTTP; nowhere when absent
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// How often it posts them, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    metrics_every: u64,
}

/// The actuator that was asked for.
#[derive(Debug)]
pub(super) enum Chosen {
    Exec(Exec),
    Http(Box<Http>),
    Airflow(Airflow),
    WorkerPool(WorkerPool),
}

impl ActuatorArguments {
    /// Makes the actuator. An engine that is away is waited for; one that refuses is told at once.
    pub(super) async fn start(self, target: &TargetId, state_dir: &Path) -> Result<Chosen, Failure> {
        let ca = self.engine.engine_ca.clone();
        let client =
            || HttpClient::with(&ClientSettings { ca, token_file: None }).map_err(Failure::configuration);
        match self.kind {
            Kind::Exec => {
                let ExecArguments { command, command_args, command_timeout } = self.exec;
                let program = command.unwrap_or_default();
                Ok(Chosen::Exec(Exec::new(program, command_args, Duration::from_secs(command_timeout))))
            }
            Kind::Http => {
                let file = HttpFile::read(&self.http.http_file.unwrap_or_default());
                Ok(Chosen::Http(Box::new(Http::new(file.map_err(Failure::configuration)?, client()?))))
            }
            Kind::Airflow => {
                let airflow = Airflow::new(self.airflow.settings()?, client()?).map_err(unusable)?;
                check(&airflow).await?;
                Ok(Chosen::Airflow(airflow))
            }
            Kind::WorkerPool => self.pool.start(target, state_dir).map(Chosen::WorkerPool),
        }
    }
}

impl AirflowArguments {
    fn settings(self) -> Result<AirflowSettings, Failure> {
        let usage = |text: &'static str| Failure::usage(anyhow::anyhow!(text));
        let pool = self.airflow_pool.map(AirflowTarget::Pool);
        let dag = || self.airflow_dag.map(AirflowTarget::Dag);
        let tasks = || self.airflow_failed_tasks.map(AirflowTarget::FailedTasks);
        let target = pool.or_else(dag).or_else(tasks).ok_or_else(|| {
            usage(
                "what of Airflow is the target? give --airflow-pool, --airflow-dag or --airflow-failed-tasks",
            )
        })?;
        let login = match (self.airflow_user, self.airflow_token_file) {
            (Some(user), _) => {
                let password = self.airflow_password_file.map_or_else(
                    || SecretSource::Environment(PASSWORD_VARIABLE.to_owned()),
                    SecretSource::File,
                );
                AirflowLogin::Password { user, password }
            }
            (None, Some(file)) => AirflowLogin::Token(SecretSource::File(file)),
            (None, None) => {
                return Err(usage(
                    "who changes Airflow? give --airflow-user with --airflow-password-file, or \
                     --airflow-token-file",
                ));
            }
        };
        Ok(AirflowSettings {
            url: self.airflow.unwrap_or_default(),
            in_clear: self.airflow_in_clear,
            login,
            target,
            timeout: Duration::from_secs(self.airflow_timeout),
        })
    }
}

impl PoolArguments {
    fn start(self, target: &TargetId, state_dir: &Path) -> Result<WorkerPool, Failure> {
        let Self { slots, job_every, job_takes, otlp, metrics_every } = self;
        fs::create_dir_all(state_dir).map_err(|error| {
            Failure::failed(anyhow::Error::new(error).context(format!("cannot use {}", state_dir.display())))
        })?;
        WorkerPool::start(WorkerPoolSettings {
            target: target.clone(),
            state_file: state_dir.join("worker-pool.json"),
            initial_slots: slots.unwrap_or_default(),
            job_every: job_every.map(Duration::from_millis),
            job_takes: Duration::from_millis(job_takes),
            metrics: otlp.map(|address| (address, Duration::from_millis(metrics_every))),
        })
        .map_err(Failure::failed)
    }
}

fn unusable(error: AirflowSettingsError) -> Failure {
    match &error {
        AirflowSettingsError::Address(_) | AirflowSettingsError::Name(_) => Failure::usage(error),
        AirflowSettingsError::InClear(_) => Failure::usage(error)
            .next("use https://, or say --airflow-in-clear when the network between is trusted"),
        AirflowSettingsError::Secret(_) => Failure::configuration(error),
    }
}

/// Whether Airflow lets the agent read its target. One that is away may come back, so that is only a warning.
async fn check(airflow: &Airflow) -> Result<(), Failure> {
    match airflow.check().await {
        Ok(()) => Ok(()),
        Err(error @ (ActuatorError::EngineRefused { .. } | ActuatorError::WrongAnswer { .. })) => {
            Err(Failure::failed(error))
        }
        Err(error) => {
            let error = anyhow::Error::new(error);
            tracing::warn!("{error:#}; the agent starts all the same and tries again with each plan");
            Ok(())
        }
    }
}

impl Actuator for Chosen {
    async fn read(&self, plan: &Plan) -> Result<DesiredState, ActuatorError> {
        match self {
            Self::Exec(exec) => exec.read(plan).await,
            Self::Http(http) => http.read(plan).await,
            Self::Airflow(airflow) => airflow.read(plan).await,
            Self::WorkerPool(pool) => pool.read(plan).await,
        }
    }

    async fn set(&self, plan: &Certified<Plan>, aim: Aim, attempt: Attempt) -> Result<(), ActuatorError> {
        match self {
            Self::Exec(exec) => exec.set(plan, aim, attempt).await,
            Self::Http(http) => http.set(plan, aim, attempt).await,
            Self::Airflow(airflow) => airflow.set(plan, aim, attempt).await,
            Self::WorkerPool(pool) => pool.set(plan, aim, attempt).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{ActuatorArguments, Kind};
    use crate::{cli::ExitCode, types::TargetId};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ActuatorArguments,
    }

    fn parse(more: &[&str]) -> Result<ActuatorArguments, clap::Error> {
        Line::try_parse_from(["agent"].iter().chain(more)).map(|line| line.arguments)
    }

    #[test]
    fn each_actuator_asks_for_what_it_needs() {
        let exec = parse(&["--actuator", "exec", "--command", "set", "--command-arg", "--dry-run"]);
        let exec = exec.expect("it is complete");
        assert_eq!((exec.kind, exec.exec.command_args), (Kind::Exec, vec!["--dry-run".to_owned()]));
        assert!(parse(&["--actuator", "worker-pool", "--slots", "3"]).is_ok());
        assert!(parse(&["--actuator", "http", "--http-file", "engine.toml"]).is_ok());
        for incomplete in ["exec", "worker-pool", "http", "airflow"] {
            assert!(parse(&["--actuator", incomplete]).is_err(), "{incomplete}");
        }
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for wrong in [
            "--actuator magic --slots 3",
            "--actuator worker-pool --slots -1",
            "--actuator worker-pool --slots many",
            "--actuator airflow --airflow http://a --airflow-pool p --airflow-dag d --airflow-user u",
            "--actuator airflow --airflow http://a --airflow-pool p --airflow-user u --airflow-token-file t",
            "--actuator airflow --airflow http://a --airflow-pool p --airflow-password-file f",
            "--actuator airflow --airflow http://a --airflow-pool p --airflow-user u --airflow-timeout 61",
        ] {
            assert!(parse(&wrong.split(' ').collect::<Vec<_>>()).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_an_engine_needs_and_is_not_there_is_told_at_the_start() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let missing = folder.path().join("missing").display().to_string();
        let target = TargetId::new("airflow/extract_pool").expect("a valid name");
        let rows = [
            ("airflow --airflow http://localhost:1", ExitCode::Usage, "give --airflow-pool, --airflow-dag"),
            (
                "airflow --airflow http://localhost:1 --airflow-pool p",
                ExitCode::Usage,
                "who changes Airflow?",
            ),
            (
                "airflow --airflow localhost:1 --airflow-pool p --airflow-token-file MISSING",
                ExitCode::Usage,
                "is no http",
            ),
            (
                "airflow --airflow http://localhost:1 --airflow-dag ~ --airflow-token-file MISSING",
                ExitCode::Usage,
                "all of them",
            ),
            (
                "airflow --airflow http://a --airflow-dag d --airflow-token-file MISSING",
                ExitCode::Usage,
                "--airflow-in-clear",
            ),
            (
                "airflow --airflow http://localhost:1 --airflow-dag d --airflow-token-file MISSING",
                ExitCode::Configuration,
                "cannot read the secret in",
            ),
            (
                "airflow --airflow http://localhost:1 --airflow-pool p --airflow-user u",
                ExitCode::Configuration,
                "QUORATE_AIRFLOW_PASSWORD",
            ),
            (
                "airflow --airflow https://a --airflow-pool p --airflow-user u --engine-ca MISSING",
                ExitCode::Configuration,
                "cannot read",
            ),
            ("http --http-file MISSING", ExitCode::Configuration, "missing: cannot be read"),
        ];
        for (line, code, message) in rows {
            let line = format!("--actuator {}", line.replace("MISSING", &missing));
            let arguments = parse(&line.split(' ').collect::<Vec<_>>()).expect(&line);
            let failure = arguments.start(&target, folder.path()).await.expect_err(&line);
            assert_eq!(failure.code(), code, "{line}: {failure}");
            assert!(failure.to_string().contains(message), "{line}: {failure}");
        }
    }
}
