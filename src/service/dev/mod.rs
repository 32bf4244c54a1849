//! A development cluster on one machine: replicas as processes of this program, a private Postgres, the
//! relay, and an agent with its target, all on loopback.
//!
//! Everything lies in one folder, so that a second start resumes. It is for trying and testing: one party holds all
//! keys. Invariant: no process is left when it ends, however it ends.

mod child;
mod plan;

use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::mpsc;

use self::child::{Child, Heard};
use super::{
    clock,
    config::{Completion, ConfigError, IncompleteTarget, PolicyFile, SpeedError},
    founding::{Founding, FoundingError, Layout, ReplicaPlace, found},
    postgres::{EnsureDatabaseError, PostgresError, PrivatePostgres},
};
use crate::{
    knowledge::{
        genesis::Genesis,
        policy::{Target, TargetKind},
    },
    types::TargetId,
};

pub use child::SpawnError;
pub use plan::{Asked, DevPlan, DevPlanError};

/// The policy file that a cluster gets when none is named: the one of the recorded incident.
const DEFAULT_POLICY: &str = include_str!("../../../examples/policies/airflow.toml");

/// How long the replicas may take to read their journals and say that they are ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How many lines of children wait to be looked at.
const HEARD_QUEUE: usize = 1_024;

/// What a development cluster is started with.
#[derive(Clone, Debug)]
pub struct DevConfig {
    /// Where everything lies.
    pub folder: PathBuf,
    /// What was asked for on the command line.
    pub asked: Asked,
    /// Where all processes post their traces.
    pub otlp_traces: Option<String>,
    /// Whether to start the agents with their targets.
    pub agents: bool,
}

/// Why a development cluster does not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Its folder cannot be used.
    #[error("{}: {error}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Another one runs in the folder.
    #[error("{}: another `quorate dev` runs there; end it, or choose another --data-dir", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was made otherwise.
    #[error(transparent)]
    Plan(#[from] DevPlanError),
    /// The speed is no speed.
    #[error("--speed: {0}")]
    Speed(#[from] SpeedError),
    /// The policy file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder's genesis lacks an agent.
    #[error(transparent)]
    Incomplete(#[from] IncompleteTarget),
    /// A port is taken.
    #[error("{address} is taken: end what uses it, or choose another {flag}")]
    PortTaken {
        /// The address.
        address: SocketAddr,
        /// The flag that moves it.
        flag: &'static str,
    },
    /// Postgres.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A database.
    #[error(transparent)]
    Database(#[from] EnsureDatabaseError),
    /// The cluster cannot be founded.
    #[error(transparent)]
    Founding(#[from] FoundingError),
    /// A process.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A process ended before it was ready.
    #[error("{name} ended before it was ready ({how}); its log, {}, ends with:\n{last_words}", log.display())]
    Ended {
        /// Which.
        name: String,
        /// How.
        how: String,
        /// Where its log is.
        log: PathBuf,
        /// The end of the log.
        last_words: String,
    },
    /// It took too long.
    #[error("not all replicas were ready within {} s; their logs are in {}", READY_TIMEOUT.as_secs(), logs.display())]
    NotReady {
        /// Where the logs are.
        logs: PathBuf,
    },
}

/// Something to show.
#[derive(Clone, Debug)]
pub enum Shown {
    /// A step of the start or the end.
    Step(String),
    /// An event of a child, as it wrote it: one JSON object.
    Event {
        /// The child.
        name: String,
        /// The object.
        json: String,
    },
    /// All runs; what a script needs to go on.
    Ready(Box<ReadyInfo>),
}

/// Where everything of a running cluster is.
#[derive(Clone, Debug, Serialize)]
pub struct ReadyInfo {
    /// Where engines post.
    pub otlp: String,
    /// Each replica's API.
    pub replicas: Vec<String>,
    /// Each process's identifier, by name.
    pub processes: BTreeMap<String, u32>,
    /// The first root.
    pub root: PathBuf,
    /// Each target's documents, as its agent saw them.
    pub envelopes: BTreeMap<TargetId, PathBuf>,
    /// The folder of each process's log.
    pub logs: PathBuf,
    /// The database of each replica.
    pub databases: Vec<String>,
}

/// A running development cluster.
#[derive(Debug)]
pub struct DevCluster {
    postgres: PrivatePostgres,
    children: Vec<Child>,
    heard: mpsc::Receiver<Heard>,
    _lock: File,
}

impl DevCluster {
    /// Starts everything and waits until the replicas are ready.
    ///
    /// # Errors
    /// [`DevError`]; what was started is ended again.
    pub async fn start(config: DevConfig, show: &mut impl FnMut(Shown)) -> Result<Self, DevError> {
        let folder = prepare_folder(&config.folder)?;
        let lock = lock(&folder)?;
        let (plan, fresh) = DevPlan::resolve(&folder, &config.asked)?;
        for (address, flag) in plan.addresses() {
            TcpListener::bind(address).map_err(|_| DevError::PortTaken { address, flag })?;
        }
        // Before anything is started: what is wrong with a file is told at once.
        let policies = if fresh { Some(read_policies(config.asked.policy.as_deref())?) } else { None };
        show(Shown::Step("starting a private Postgres".to_owned()));
        let postgres = PrivatePostgres::start(&folder.join("postgres")).await?;
        let prepared = prepare_cluster(&folder, &plan, policies, &postgres, show).await;
        let (databases, genesis) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                stop(postgres).await;
                return Err(error);
            }
        };
        let (hear, heard) = mpsc::channel(HEARD_QUEUE);
        let mut cluster = Self { postgres, children: Vec::new(), heard, _lock: lock };
        let info = cluster.start_children(&folder, &plan, &config, &genesis, &hear, databases, show).await;
        match info {
            Ok(info) => {
                show(Shown::Ready(Box::new(info)));
                Ok(cluster)
            }
            Err(error) => {
                cluster.end().await;
                Err(error)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one start, used once")]
    async fn start_children(
        &mut self,
        folder: &Path,
        plan: &DevPlan,
        config: &DevConfig,
        genesis: &Genesis,
        hear: &mpsc::Sender<Heard>,
        databases: Vec<String>,
        show: &mut impl FnMut(Shown),
    ) -> Result<ReadyInfo, DevError> {
        let layout = Layout::of(folder.to_owned());
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs).map_err(|error| DevError::Folder { path: logs.clone(), error })?;
        let program = std::env::current_exe()
            .map_err(|error| DevError::Folder { path: PathBuf::from("this program"), error })?;
        let start = |name: &str, arguments: Vec<String>| {
            Child::start(name, &program, &arguments, logs.join(format!("{name}.log")), hear.clone())
        };
        show(Shown::Step(format!("starting {} replicas", plan.replicas)));
        for place in 0..plan.replicas {
            let path = layout.replica_config(usize::from(place));
            let mut arguments = words(["-o", "jsonl", "run", "--config"]);
            arguments.push(path.display().to_string());
            arguments.extend(traces(config));
            self.children.push(start(&format!("r{place}"), arguments)?);
        }
        self.await_ready(usize::from(plan.replicas), &logs, show).await?;
        let apis: Vec<String> =
            (0..plan.replicas).map(|place| format!("http://{}", plan.replica(place).1)).collect();
        show(Shown::Step("starting the relay".to_owned()));
        let mut arguments = words(["relay", "--listen"]);
        arguments.push(plan.otlp().to_string());
        arguments.extend(["--queue".to_owned(), folder.join("relay").display().to_string()]);
        let named = apis.iter().enumerate().map(|(place, api)| format!("r{place}={api}"));
        arguments.extend(named.flat_map(|replica| ["--to".to_owned(), replica]));
        self.children.push(start("relay", arguments)?);
        let mut envelopes = BTreeMap::new();
        let stale_after = genesis.parameters.stale_after.as_millis().div_ceil(1000);
        for target in genesis.targets.iter().filter(|_| config.agents) {
            let (id, own) = (&target.id, layout.agent(&target.id));
            if !layout.agent_key(id).exists() {
                show(Shown::Step(format!(
                    "{id} has an agent of its own, by the policy file: not started here"
                )));
                continue;
            }
            show(Shown::Step(format!("starting the agent of {id} with a worker pool")));
            envelopes.insert(id.clone(), own.join("envelopes"));
            let mut arguments = words(["-o", "jsonl", "agent", "run", "--actuator", "worker-pool", "--root"]);
            arguments.push(layout.root().display().to_string());
            arguments.extend(apis.iter().flat_map(|api| ["--replica".to_owned(), api.clone()]));
            let slots = initial_slots(target);
            let pairs = [
                ("--target", id.to_string()),
                ("--key", layout.agent_key(id).display().to_string()),
                ("--state-dir", own.join("state").display().to_string()),
                ("--envelopes", own.join("envelopes").display().to_string()),
                ("--slots", slots.to_string()),
                ("--stale-after", stale_after.to_string()),
                ("--otlp", format!("http://{}", plan.otlp())),
            ];
            arguments.extend(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
            arguments.extend(traces(config));
            let name = format!("agent-{}", id.as_str().replace(['/', ':'], "_"));
            self.children.push(start(&name, arguments)?);
        }
        let processes =
            self.children.iter().filter_map(|child| child.id().map(|id| (child.name.clone(), id))).collect();
        let (otlp, root) = (format!("http://{}", plan.otlp()), layout.root());
        Ok(ReadyInfo { otlp, replicas: apis, processes, root, envelopes, logs, databases })
    }

    /// Waits until so many replicas have said that they are ready.
    async fn await_ready(
        &mut self,
        replicas: usize,
        logs: &Path,
        show: &mut impl FnMut(Shown),
    ) -> Result<(), DevError> {
        let until = tokio::time::Instant::now() + READY_TIMEOUT;
        let mut ready = 0;
        while ready < replicas {
            let heard = tokio::time::timeout_at(until, self.heard.recv()).await;
            match heard {
                Ok(Some(Heard::Line { name, line })) => {
                    ready += usize::from(line.contains(r#""event":"ready""#));
                    show(Shown::Event { name, json: line });
                }
                Ok(Some(Heard::Ended { name })) => return Err(self.ended(&name)),
                Ok(None) | Err(_) => return Err(DevError::NotReady { logs: logs.to_owned() }),
            }
        }
        Ok(())
    }

    fn ended(&mut self, name: &str) -> DevError {
        let child = self.children.iter_mut().find(|child| child.name == name);
        let (how, log, last_words) = child.map_or_else(Default::default, |child| {
            let how = child.has_ended().unwrap_or_else(|| "it closed its output".to_owned());
            (how, child.log.clone(), child.last_words())
        });
        DevError::Ended { name: name.to_owned(), how, log, last_words }
    }

    /// The next thing to show; it can be cancelled without losing one.
    pub async fn next(&mut self) -> Shown {
        match self.heard.recv().await {
            Some(Heard::Line { name, line }) => Shown::Event { name, json: line },
            Some(Heard::Ended { name }) => {
                let child = self.children.iter_mut().find(|child| child.name == name);
                let how =
                    child.and_then(Child::has_ended).unwrap_or_else(|| "its output is closed".to_owned());
                Shown::Step(format!("{name} ended ({how}); the others go on"))
            }
            None => std::future::pending().await,
        }
    }

    /// Ends everything: agents and relay first, then the replicas, then Postgres.
    pub async fn end(mut self) {
        self.heard.close();
        while let Some(child) = self.children.pop() {
            let replica = child.name.starts_with('r') && child.name != "relay";
            child.end().await;
            if replica {
                break;
            }
        }
        let rest = std::mem::take(&mut self.children).into_iter().map(Child::end).map(tokio::spawn);
        for ending in rest.collect::<Vec<_>>() {
            // A task that only ends a child does not panic; and the child is killed on drop.
            let _ = ending.await;
        }
        stop(self.postgres).await;
    }
}

async fn stop(postgres: PrivatePostgres) {
    if let Err(error) = postgres.stop().await {
        tracing::warn!(%error, "Postgres did not stop in order");
    }
}

/// How many slots a target's worker pool begins with.
const fn initial_slots(target: &Target) -> u32 {
    match target.kind {
        TargetKind::Pool { initial, .. } => initial,
        TargetKind::Switch { .. } | TargetKind::Tasks { .. } => 1,
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn traces(config: &DevConfig) -> Vec<String> {
    config.otlp_traces.iter().flat_map(|url| ["--otlp-traces".to_owned(), url.clone()]).collect()
}

fn prepare_folder(folder: &Path) -> Result<PathBuf, DevError> {
    let failed = |error| DevError::Folder { path: folder.to_owned(), error };
    std::fs::create_dir_all(folder).map_err(failed)?;
    // Children are given absolute paths.
    folder.canonicalize().map_err(failed)
}

fn lock(folder: &Path) -> Result<File, DevError> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| DevError::Folder { path, error })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(DevError::InUse { path: folder.to_owned() }),
    }
}

/// Makes sure of the databases and of the cluster's files; what both lead to.
async fn prepare_cluster(
    folder: &Path,
    plan: &DevPlan,
    policies: Option<PolicyFile>,
    postgres: &PrivatePostgres,
    show: &mut impl FnMut(Shown),
) -> Result<(Vec<String>, Genesis), DevError> {
    let mut databases = Vec::new();
    for place in 0..plan.replicas {
        let name = format!("quorate_r{place}");
        postgres.ensure_database(&name).await?;
        databases.push(postgres.url(&name));
    }
    if let Some(policies) = policies {
        show(Shown::Step(format!("founding a cluster of {} replicas", plan.replicas)));
        found_cluster(folder, plan, policies, &databases)?;
        plan.keep(folder)?;
    }
    let genesis =
        PolicyFile::read(&Layout::of(folder.to_owned()).genesis())?.genesis(&Completion::default())?;
    Ok((databases, genesis))
}

fn read_policies(path: Option<&Path>) -> Result<PolicyFile, ConfigError> {
    match path {
        Some(path) => PolicyFile::read(path),
        None => PolicyFile::parse("the default policies", DEFAULT_POLICY),
    }
}

fn found_cluster(
    folder: &Path,
    plan: &DevPlan,
    policies: PolicyFile,
    databases: &[String],
) -> Result<(), DevError> {
    let place = |(place, database): (u16, &String)| {
        let (peer, http) = plan.replica(place);
        ReplicaPlace { peer, http, database_url: Some(database.clone()) }
    };
    found(&Founding {
        folder: folder.to_owned(),
        policies,
        speed: plan.speed.parse()?,
        replicas: (0..plan.replicas).zip(databases).map(place).collect(),
        now: clock::wall_clock(),
    })?;
    Ok(())
}
