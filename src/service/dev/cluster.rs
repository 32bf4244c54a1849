//! A running development cluster: started in order, listened to, ended in order.
//!
//! Invariant: nothing is started before everything that can be checked was.

use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

use super::{
    child::{Child, Heard},
    database::{DatabaseTemplate, ReplicaDatabase},
    error::DevError,
    folder::DevFolder,
    leftovers,
    plan::{Asked, DatabaseKind, DevPlan, Resolved},
    ports,
};
use crate::{
    knowledge::{
        genesis::Genesis,
        policy::{Target, TargetKind},
        root::VerifiedRoot,
    },
    service::{
        clock,
        config::{Completion, ConfigError, PolicyFile},
        durable::replace_private_file,
        founding::{Founding, Layout, ReplicaPlace, found, write_replica_files},
        key_file::read_secret_key,
        postgres::PrivatePostgres,
    },
    types::{Digest, ReplicaIndex, TargetId},
};

/// The policy file that a cluster gets when none is named: the one of the recorded incident.
const DEFAULT_POLICY: &str = include_str!("../../../examples/policies/airflow.toml");

/// How long all processes may be silent before they are ready: a replica reads its whole journal first.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// How many lines of children wait to be looked at.
const HEARD_QUEUE: usize = 1_024;

/// How often the private Postgres is looked at.
const POSTGRES_POLL: Duration = Duration::from_secs(1);

/// Where a replica's folder keeps the URL of its database.
const DATABASE_URL_FILE: &str = "database.url";

/// What a development cluster is started with, beside its folder.
#[derive(Clone, Debug, Default)]
pub struct DevConfig {
    /// What was asked for on the command line.
    pub asked: Asked,
    /// Where all processes post their traces.
    pub otlp_traces: Option<String>,
    /// Whether to start the agents with their targets.
    pub agents: bool,
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
    /// The URL of each replica's database, for a private Postgres; those of another may hold passwords.
    pub databases: Vec<String>,
}

/// A running development cluster.
#[derive(Debug)]
pub struct DevCluster {
    folder: DevFolder,
    layout: Layout,
    plan: DevPlan,
    config: DevConfig,
    postgres: Option<PrivatePostgres>,
    children: Vec<Child>,
    heard: mpsc::Receiver<Heard>,
    hear: mpsc::Sender<Heard>,
}

impl DevCluster {
    /// Starts everything and waits until all is ready, or until `interrupted` is true.
    ///
    /// # Errors
    /// [`DevError`]; what was started is ended again.
    pub async fn start(
        folder: DevFolder,
        config: DevConfig,
        interrupted: watch::Receiver<bool>,
        show: &mut impl FnMut(Shown),
    ) -> Result<Self, DevError> {
        let layout = Layout::of(folder.path().to_owned());
        let Resolved { plan, founded } = DevPlan::resolve(folder.path(), &config.asked)?;
        let policies = if founded { None } else { Some(read_policies(plan.policy.as_deref())?) };
        let cluster = if founded { Some(check_founded(&layout, &plan)?) } else { None };
        let killed = leftovers::await_end(folder.path()).await;
        if killed > 0 {
            show(Shown::Step(format!("{killed} processes of an earlier start did not end and were killed")));
        }
        ports::check_free(plan.addresses(), plan.base_port, plan.otlp_port)?;
        let (hear, heard) = mpsc::channel(HEARD_QUEUE);
        let mut started =
            Self { folder, layout, plan, config, postgres: None, children: Vec::new(), heard, hear };
        match started.start_all(policies, cluster, interrupted, show).await {
            Ok(info) => {
                show(Shown::Ready(Box::new(info)));
                Ok(started)
            }
            Err(error) => {
                started.end(show).await;
                Err(error)
            }
        }
    }

    async fn start_all(
        &mut self,
        policies: Option<PolicyFile>,
        cluster: Option<Digest>,
        mut interrupted: watch::Receiver<bool>,
        show: &mut impl FnMut(Shown),
    ) -> Result<ReadyInfo, DevError> {
        if self.plan.database == DatabaseKind::Private {
            show(Shown::Step("starting a private Postgres".to_owned()));
            self.postgres = Some(PrivatePostgres::start(&self.folder.path().join("postgres")).await?);
        }
        let urls = self.database_urls().await?;
        for (place, url) in (0..self.plan.replicas).zip(&urls) {
            ReplicaDatabase::of(place, url)?.make_sure(cluster).await?;
        }
        if *interrupted.borrow() {
            return Err(DevError::Interrupted);
        }
        let genesis = self.write_files(policies, &urls, show)?;
        let replicas = counted(self.plan.replicas.into(), "replica");
        show(Shown::Step(format!("starting {replicas}")));
        let names = self.start_replicas()?;
        self.await_said("ready", names, &mut interrupted, show).await?;
        let apis: Vec<String> =
            (0..self.plan.replicas).map(|place| format!("http://{}", self.plan.replica(place).1)).collect();
        show(Shown::Step("starting the relay".to_owned()));
        self.start_relay(&apis)?;
        let envelopes = self.start_agents(&apis, &genesis, show)?;
        let agents = self.children.iter().map(|child| child.name.clone());
        let agents = agents.filter(|name| name.starts_with(AGENT)).collect();
        self.await_said("started", agents, &mut interrupted, show).await?;
        let status = apis.first().map(|api| format!("{api}/v1/status"));
        let path = self.folder.path().to_owned();
        self.folder.tell(status).map_err(|error| DevError::Write { path, error })?;
        let processes =
            self.children.iter().filter_map(|child| child.id().map(|id| (child.name.clone(), id))).collect();
        Ok(ReadyInfo {
            otlp: format!("http://{}", self.plan.otlp()),
            replicas: apis,
            processes,
            root: self.layout.root(),
            envelopes,
            logs: self.logs(),
            databases: if self.postgres.is_some() { urls } else { Vec::new() },
        })
    }

    fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    /// The URL of each replica's database: by the flag, the private server, or what an earlier start kept.
    async fn database_urls(&self) -> Result<Vec<String>, DevError> {
        let mut urls = Vec::new();
        for place in 0..self.plan.replicas {
            urls.push(match (&self.postgres, &self.config.asked.database) {
                (Some(postgres), _) => {
                    let name = format!("quorate_r{place}");
                    postgres.ensure_database(&name).await?;
                    postgres.url(&name)
                }
                (None, Some(template)) => DatabaseTemplate::url(template, place),
                (None, None) => {
                    let path = self.layout.replica(place.into()).join(DATABASE_URL_FILE);
                    std::fs::read_to_string(&path).map(|text| text.trim_end().to_owned()).map_err(
                        |error| DevError::NotAsFounded {
                            path,
                            why: format!("{error}; it held the database's URL: give --database-url again"),
                        },
                    )?
                }
            });
        }
        Ok(urls)
    }

    /// Founds the cluster unless it is, and writes what a start may change.
    fn write_files(
        &self,
        policies: Option<PolicyFile>,
        urls: &[String],
        show: &mut impl FnMut(Shown),
    ) -> Result<Genesis, DevError> {
        let Self { plan, layout, .. } = self;
        plan.keep(self.folder.path())?;
        for (place, url) in urls.iter().enumerate() {
            let path = layout.replica(place).join(DATABASE_URL_FILE);
            std::fs::create_dir_all(layout.replica(place))
                .and_then(|()| replace_private_file(&path, format!("{url}\n").as_bytes()))
                .map_err(|error| DevError::Write { path, error })?;
        }
        let replicas: Vec<_> = (0..plan.replicas)
            .map(|place| {
                let (peer, http) = plan.replica(place);
                ReplicaPlace { peer, http, database_url_file: Some(DATABASE_URL_FILE.into()) }
            })
            .collect();
        let Some(policies) = policies else {
            write_replica_files(layout, &replicas)?;
            return Ok(PolicyFile::read(&layout.genesis())?.genesis(&Completion::default())?);
        };
        let (folder, now) = (self.folder.path().to_owned(), clock::wall_clock());
        let founding = Founding { folder, policies, speed: plan.speed.parse()?, replicas, now };
        let (_, root, genesis) = found(&founding)?;
        let size = root.committee().size();
        show(Shown::Step(format!(
            "founded a cluster of {}: {} decide, {} may fail",
            counted(size.replicas(), "replica"),
            size.quorum(),
            match size.faults() {
                0 => "none".to_owned(),
                faults => faults.to_string(),
            }
        )));
        Ok(genesis)
    }

    fn start_child(&mut self, name: &str, arguments: &[String]) -> Result<(), DevError> {
        let logs = self.logs();
        std::fs::create_dir_all(&logs).map_err(|error| DevError::Write { path: logs.clone(), error })?;
        let log = logs.join(format!("{name}.log"));
        self.children.push(Child::start(name, self.folder.path(), arguments, log, self.hear.clone())?);
        Ok(())
    }

    fn start_replicas(&mut self) -> Result<BTreeSet<String>, DevError> {
        let mut names = BTreeSet::new();
        for place in 0..self.plan.replicas {
            let name = ReplicaIndex::new(place).to_string();
            let mut arguments = words(["-o", "jsonl", "run", "--config"]);
            arguments.push(self.layout.replica_config(place.into()).display().to_string());
            arguments.extend(self.traces());
            self.start_child(&name, &arguments)?;
            names.insert(name);
        }
        Ok(names)
    }

    fn start_relay(&mut self, apis: &[String]) -> Result<(), DevError> {
        let mut arguments = words(["relay", "--listen"]);
        arguments.push(self.plan.otlp().to_string());
        arguments.extend(["--queue".to_owned(), self.folder.path().join("relay").display().to_string()]);
        let named = apis.iter().enumerate().map(|(place, api)| format!("r{place}={api}"));
        arguments.extend(named.flat_map(|replica| ["--to".to_owned(), replica]));
        self.start_child(RELAY, &arguments)
    }

    /// Starts an agent with a worker pool for each target; where each keeps its documents.
    fn start_agents(
        &mut self,
        apis: &[String],
        genesis: &Genesis,
        show: &mut impl FnMut(Shown),
    ) -> Result<BTreeMap<TargetId, PathBuf>, DevError> {
        let mut envelopes = BTreeMap::new();
        let stale_after = genesis.parameters.stale_after.as_millis().div_ceil(1000);
        let targets = if self.config.agents { genesis.targets.as_slice() } else { &[] };
        for target in targets {
            let id = &target.id;
            if !self.layout.agent_key(id).exists() {
                show(Shown::Step(format!(
                    "{id} has an agent of its own, by the policy file: not started here"
                )));
                continue;
            }
            show(Shown::Step(format!("starting the agent of {id} with a worker pool")));
            let own = self.layout.agent(id);
            envelopes.insert(id.clone(), own.join("envelopes"));
            let mut arguments = words(["-o", "jsonl", "agent", "run", "--actuator", "worker-pool", "--root"]);
            arguments.push(self.layout.root().display().to_string());
            arguments.extend(apis.iter().flat_map(|api| ["--replica".to_owned(), api.clone()]));
            let pairs = [
                ("--target", id.to_string()),
                ("--key", self.layout.agent_key(id).display().to_string()),
                ("--state-dir", own.join("state").display().to_string()),
                ("--envelopes", own.join("envelopes").display().to_string()),
                ("--slots", initial_slots(target).to_string()),
                ("--stale-after", stale_after.to_string()),
                ("--otlp", format!("http://{}", self.plan.otlp())),
            ];
            arguments.extend(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
            arguments.extend(self.traces());
            let name = format!("{AGENT}{}", id.as_str().replace(['/', ':'], "_"));
            self.start_child(&name, &arguments)?;
        }
        Ok(envelopes)
    }

    fn traces(&self) -> Vec<String> {
        self.config.otlp_traces.iter().flat_map(|url| ["--otlp-traces".to_owned(), url.clone()]).collect()
    }

    /// Waits until each of these children has told an event of this name.
    async fn await_said(
        &mut self,
        event: &str,
        mut missing: BTreeSet<String>,
        interrupted: &mut watch::Receiver<bool>,
        show: &mut impl FnMut(Shown),
    ) -> Result<(), DevError> {
        let said = format!(r#""event":"{event}""#);
        while !missing.is_empty() {
            let heard = tokio::select! {
                heard = tokio::time::timeout(READY_TIMEOUT, self.heard.recv()) => heard,
                Ok(_) = interrupted.wait_for(|interrupted| *interrupted) => return Err(DevError::Interrupted),
            };
            match heard {
                Ok(Some(Heard::Line { name, line })) => {
                    if line.contains(&said) {
                        missing.remove(&name);
                    }
                    show(Shown::Event { name, json: line });
                }
                Ok(Some(Heard::Ended { name })) => return Err(self.ended(&name)),
                Ok(None) | Err(_) => {
                    let missing = missing.into_iter().collect();
                    return Err(DevError::NotReady { missing, logs: self.logs() });
                }
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
        loop {
            // First, because children that have much to say would keep it from ever being looked at.
            if let Some(how) = self.postgres.as_mut().and_then(PrivatePostgres::has_ended) {
                // Told once; what is left of it is ended by dropping it.
                self.postgres = None;
                return Shown::Step(format!(
                    "Postgres ended ({how}): replicas order and sign on, and keep what it misses; to have it back, \
                     end this and start it again"
                ));
            }
            let heard = tokio::time::timeout(POSTGRES_POLL, self.heard.recv()).await;
            match heard {
                Ok(Some(Heard::Line { name, line })) => return Shown::Event { name, json: line },
                Ok(Some(Heard::Ended { name })) => return Shown::Step(self.told_end(&name)),
                Ok(None) | Err(_) => {}
            }
        }
    }

    fn told_end(&mut self, name: &str) -> String {
        let config = (0..self.plan.replicas)
            .find(|place| ReplicaIndex::new(*place).to_string() == name)
            .map(|place| self.layout.replica_config(place.into()));
        let child = self.children.iter_mut().find(|child| child.name == name);
        let how = child.and_then(Child::has_ended).unwrap_or_else(|| "its output is closed".to_owned());
        match config {
            Some(config) => format!(
                "{name} ended ({how}); the others go on. To have it back: quorate run --config {}",
                config.display()
            ),
            None => format!(
                "{name} ended ({how}); the others go on. To have it back: end this and start it again"
            ),
        }
    }

    /// Ends everything: agents first, then the relay, the replicas, and Postgres. Each step takes a bounded time.
    pub async fn end(mut self, show: &mut impl FnMut(Shown)) {
        self.heard.close();
        let (agents, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.children).into_iter().partition(|child| child.name.starts_with(AGENT));
        let (relay, replicas): (Vec<_>, Vec<_>) = rest.into_iter().partition(|child| child.name == RELAY);
        for (what, children) in [("agents", agents), ("the relay", relay), ("replicas", replicas)] {
            if children.is_empty() {
                continue;
            }
            show(Shown::Step(format!("ending {what}")));
            let ending: Vec<_> = children.into_iter().map(Child::end).map(tokio::spawn).collect();
            for ended in ending {
                // A task that only ends a child does not panic; and the child is killed on drop.
                let _ = ended.await;
            }
        }
        if let Some(postgres) = self.postgres.take() {
            show(Shown::Step("ending Postgres".to_owned()));
            if let Err(error) = postgres.stop().await {
                tracing::warn!(%error, "Postgres did not stop in order");
            }
        }
    }
}

/// The relay's name.
const RELAY: &str = "relay";

/// What the names of agents begin with.
const AGENT: &str = "agent-";

/// How many slots a target's worker pool begins with.
const fn initial_slots(target: &Target) -> u32 {
    match target.kind {
        TargetKind::Pool { initial, .. } => initial,
        TargetKind::Switch { .. } | TargetKind::Tasks { .. } => 1,
    }
}

/// "1 replica", "4 replicas".
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn read_policies(path: Option<&Path>) -> Result<PolicyFile, ConfigError> {
    match path {
        Some(path) => PolicyFile::read(path),
        None => PolicyFile::parse("the default policies", DEFAULT_POLICY),
    }
}

/// Reads what a founded cluster consists of, before anything is started on it; the cluster.
fn check_founded(layout: &Layout, plan: &DevPlan) -> Result<Digest, DevError> {
    let refused = |path: PathBuf, why: String| DevError::NotAsFounded { path, why };
    let path = layout.root();
    let bytes = std::fs::read(&path).map_err(|error: io::Error| refused(path.clone(), error.to_string()))?;
    let root = VerifiedRoot::first(&bytes).map_err(|error| refused(path.clone(), error.to_string()))?;
    let committee = root.committee();
    if committee.size().replicas() != usize::from(plan.replicas) {
        let why = format!("names {} replicas, and dev.json {}", committee.size().replicas(), plan.replicas);
        return Err(refused(path, why));
    }
    let path = layout.genesis();
    let genesis = PolicyFile::read(&path)?.genesis(&Completion::default())?;
    if genesis.digest() != root.root().genesis {
        return Err(refused(path, "not the genesis that root.json commits to".to_owned()));
    }
    for place in 0..plan.replicas {
        let path = layout.replica(place.into()).join("replica.key");
        let key = read_secret_key(&path).map_err(|error| refused(path.clone(), with_cause(&error)))?;
        match committee.place_of(&key.public()) {
            Some(found) if found.place() == place => {}
            Some(found) => return Err(refused(path, format!("the key of {found}, not of r{place}"))),
            None => return Err(refused(path, "the key of no replica of root.json".to_owned())),
        }
    }
    Ok(committee.cluster())
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
