//! A running replica: its tasks, wired together, from its configuration to its end.
//!
//! ```text
//! door -> monitor task --closed windows--> control task <--events-- consensus task <--frames--> links
//!                                            |   |   \---requests-->      |
//!                                     store task  feed, status, metrics   journal
//! ```
//!
//! Each task owns what it changes; the others hold handles. Invariant: when one of them ends unasked, the
//! replica ends and says why.

mod board;
mod control;
mod event;
mod published;
mod reporting;
mod storing;
mod tracing_cycle;

use axum::Router;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use self::{
    control::{Control, Ended, Remembered, Surroundings},
    published::Published,
    storing::{Follows, JournalFound, StoreConfig, StoreEnds, StoreTask, connect_first},
};
use super::{
    api::{self, AgentApi},
    clock,
    config::{Completion, ConfigError, IncompleteTarget, PolicyFile, ReplicaConfig},
    entrance::{Entrance, EntranceError},
    health, http_server,
    key_file::{KeyFileError, read_secret_key},
    metrics::{self, Metrics},
    status::{self, StatusSnapshot, StoreStatus, TargetStatus, WindowStatus},
    telemetry::CycleTracer,
};
use crate::{
    consensus::{
        Base, Config, HistoryError, Recovered, ViewTimes,
        journal::{JournalError, SALT_BYTES, Salt},
        task::{self, Handles, Opened, StartError},
        transport::{Inbox, Links, LinksConfig, LinksError},
    },
    cycle::{Cycle, CycleConfig},
    execute::feed::Feed,
    knowledge::{
        fold::RestoreError,
        genesis::{Genesis, GenesisError, Parameters},
        head::Mode,
        root::{GenesisMismatch, RootError, VerifiedRoot},
        store::{StoreIdentity, Writer},
    },
    monitor::{self, Monitor, MonitorParameters, door::DoorCounters, task::MonitorHandle},
    types::{Committee, Cycle as CycleNumber, Digest, Height, ReplicaIndex, SecretKey, UnixMillis},
};

pub use event::ReplicaEvent;
pub use storing::StoreStartError;

/// How many events wait for whoever watches; more are missed.
const EVENT_QUEUE: usize = 1_024;

/// How long a task that is ending may take to say why.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a replica did not start, or ended unasked.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// Its configuration, or a file that it names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The root cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The root is refused.
    #[error("{}: {error}", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        error: RootError,
    },
    /// The genesis does not fit the root.
    #[error("{}: {error}", path.display())]
    WrongGenesis {
        /// The file.
        path: PathBuf,
        /// How.
        error: GenesisMismatch,
    },
    /// The genesis contradicts itself.
    #[error("{}: {error}", path.display())]
    Genesis {
        /// The file.
        path: PathBuf,
        /// Why.
        error: GenesisError,
    },
    /// The genesis names a target without an owner or an agent's key.
    #[error("{}: {error}", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// Which.
        error: IncompleteTarget,
    },
    /// The key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The key is not in the root's committee.
    #[error("{}: this key is not one of the root's replicas", path.display())]
    NotAReplica {
        /// The key's file.
        path: PathBuf,
    },
    /// No randomness for the journal.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// The journal is refused.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The links.
    #[error(transparent)]
    Links(#[from] LinksError),
    /// An address.
    #[error(transparent)]
    Listen(#[from] http_server::ListenError),
    /// The certificate or the tokens.
    #[error(transparent)]
    Entrance(#[from] EntranceError),
    /// The journal failed while running: nothing may be signed any more.
    #[error("the journal failed, so this replica stops: {0}")]
    Journal(#[from] JournalError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreStartError),
    /// A certified state is not one that this program reads.
    #[error(
        "the state that a quorum certified at height {height} cannot be read here: {error}; run the version of quorate \
         that the other replicas run"
    )]
    Snapshot {
        /// The checkpoint's height.
        height: Height,
        /// What is wrong with it.
        error: RestoreError,
    },
    /// A task ended unasked.
    #[error("the {0} task ended; see the log")]
    TaskEnded(&'static str),
}

/// What a replica holds equally with all others, and who it is among them.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The verified root.
    pub root: VerifiedRoot,
    /// The genesis that the root commits to.
    pub genesis: Genesis,
    /// This replica's place.
    pub me: ReplicaIndex,
    /// This replica's key.
    pub key: SecretKey,
}

impl Membership {
    /// Reads and checks the root, the genesis and the key.
    ///
    /// # Errors
    /// [`ReplicaError`] names the file and what is wrong with it.
    pub fn read(config: &ReplicaConfig) -> Result<Self, ReplicaError> {
        let path = config.root_file.clone();
        let bytes =
            std::fs::read(&path).map_err(|error| ReplicaError::Unreadable { path: path.clone(), error })?;
        let root = VerifiedRoot::first(&bytes).map_err(|error| ReplicaError::Root { path, error })?;
        let path = config.genesis_file.clone();
        let genesis = PolicyFile::read(&path)?
            .genesis(&Completion::default())
            .map_err(|error| ReplicaError::Incomplete { path: path.clone(), error })?;
        root.check_genesis(&genesis).map_err(|error| ReplicaError::WrongGenesis { path, error })?;
        let key = read_secret_key(&config.key_file)?;
        let me = root
            .committee()
            .place_of(&key.public())
            .ok_or_else(|| ReplicaError::NotAReplica { path: config.key_file.clone() })?;
        Ok(Self { root, genesis, me, key })
    }
}

/// A replica that runs.
#[derive(Debug)]
pub struct Replica {
    events: mpsc::Receiver<ReplicaEvent>,
    /// Where it stands.
    pub status: watch::Receiver<StatusSnapshot>,
    stop: watch::Sender<bool>,
    links: Links,
    consensus: JoinHandle<Result<(), JournalError>>,
    control: JoinHandle<Ended>,
    server: JoinHandle<()>,
    store: Option<JoinHandle<StoreEnded>>,
}

impl Replica {
    /// Starts a replica from its configuration.
    ///
    /// # Errors
    /// [`ReplicaError`] says what is wrong and what to do.
    pub async fn start(
        config: &ReplicaConfig,
        membership: Membership,
        tracer: CycleTracer,
    ) -> Result<Self, ReplicaError> {
        let Membership { root, genesis, me, key } = membership;
        let committee = Arc::new(root.committee().clone());
        let journal = config.data_dir.join("journal");
        let (opened, remembered) =
            open_journal(core_config(&committee, me, &key, &genesis.parameters), &journal)?;
        let operators = root.operators().clone();
        let cycle_config =
            CycleConfig { genesis, committee: Arc::clone(&committee), operators, me, key: key.clone() };
        // Before anything is signed: the database may know that the journal is not the one that signed.
        let found = JournalFound { signed: opened.signed_view(), height: remembered.height() };
        let database = reach_database(config, &cycle_config, found).await?;
        let genesis = &cycle_config.genesis;
        let peers_listener = http_server::listen(config.listen).await?;
        let entrance = Entrance::open(&config.entrance, config.http)?;
        let http_listener = http_server::listen(config.http).await?;
        let (links, inbox) = start_links(config, &committee, me, key, peers_listener)?;
        let (Handles { requests, events: consensus_events, status: consensus_status }, ends) =
            task::channels();
        let consensus = run_apart(task::run(opened, links.sender(), inbox, ends));

        let (monitor, door, door_counters) = start_monitor(&genesis.parameters);

        let targets = genesis.targets.iter().map(|target| target.id.clone());
        let feed = Feed::new(root.clone(), targets);
        let (feed_sender, feed_receiver) = watch::channel(Arc::new(feed.clone()));
        let lag_max_heights = config.database_lag_max_blocks.get();
        let (status_sender, status) = watch::channel(first_status(&committee, me, genesis, lag_max_heights));
        let (stop, stopping) = watch::channel(false);
        let (told, events) = mpsc::channel(EVENT_QUEUE);
        let metrics = Arc::new(Metrics::new());
        let journal = requests.downgrade();
        let follows = Follows { journal, consensus: consensus_status.clone(), stop: stopping.clone() };
        let store = start_store(database, &cycle_config, remembered.height(), follows);
        let (store, store_task) = store.map_err(|error| bad_genesis(config, error))?.unzip();
        let cycle = begin_cycle(config, cycle_config, remembered.base.as_ref())?;
        let (published, agent_api, submissions) = Published::new(cycle.state(), feed_receiver);
        let sources = metrics::Sources {
            status: status.clone(),
            consensus: consensus_status.clone(),
            monitor: Arc::clone(monitor.counters()),
            entrance: entrance.metrics(),
            door: door_counters,
            refused: published.refused().clone(),
        };
        let router = routes(door, agent_api, &metrics, sources);
        let server = tokio::spawn(entrance.serve(http_listener, router, stopping.clone()));

        let surroundings = Surroundings {
            committee,
            me,
            requests,
            events: consensus_events,
            consensus: consensus_status,
            links: links.sender(),
            monitor,
            submissions,
            store,
            feed: feed_sender,
            published,
            status: status_sender,
            metrics,
            tracer,
            told,
            stop: stopping,
        };
        let control = Control::new(cycle, feed, surroundings);
        let control = tokio::spawn(control.run(remembered, config.entrance.url(config.http)));
        Ok(Self { events, status, stop, links, consensus, control, server, store: store_task })
    }

    /// Hands every event on until `end` comes (`None`) or the replica ends by itself, which is an error.
    ///
    /// # Errors
    /// What `tell` fails with.
    pub async fn watch<E>(
        &mut self,
        mut tell: impl FnMut(ReplicaEvent) -> Result<(), E>,
        mut end: impl Future<Output = ()> + Unpin,
    ) -> Result<Option<ReplicaError>, E> {
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => tell(event)?,
                () = &mut end => return Ok(None),
                ended = &mut self.consensus => return Ok(Some(match ended {
                    Ok(Err(error)) => ReplicaError::Journal(error),
                    Ok(Ok(())) | Err(_) => ReplicaError::TaskEnded("consensus"),
                })),
                ended = &mut self.control => return Ok(Some(match ended {
                    Ok(Ended::Unreadable(height, error)) => ReplicaError::Snapshot { height, error },
                    Ok(Ended::Stopped | Ended::ConsensusGone) | Err(_) => self.why_ended("control").await,
                })),
                _ = &mut self.server => return Ok(Some(ReplicaError::TaskEnded("HTTP server"))),
                ended = ended(&mut self.store) => return Ok(Some(match ended {
                    Ok(Err(error)) => ReplicaError::Store(error),
                    Ok(Ok(())) | Err(_) => self.why_ended("store").await,
                })),
            }
        }
    }

    /// Control and the store both follow consensus and end by themselves when it is gone, in either order and before it
    /// was heard here; it then knows why.
    async fn why_ended(&mut self, task: &'static str) -> ReplicaError {
        match tokio::time::timeout(LAST_WORDS, &mut self.consensus).await {
            Ok(Ok(Err(error))) => ReplicaError::Journal(error),
            Ok(Ok(Ok(())) | Err(_)) | Err(_) => ReplicaError::TaskEnded(task),
        }
    }

    /// Ends all tasks in the order of the data's way, so that what was taken is finished.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        end(self.server).await;
        end(self.control).await;
        end(self.consensus).await;
        self.links.shutdown().await;
        if let Some(store) = self.store
            && tokio::time::timeout(std::time::Duration::from_secs(5), end(store)).await.is_err()
        {
            tracing::warn!("the store was not finished in time; the rest follows at the next start");
        }
    }
}

/// Waits for a task. One that ended unasked was told of by [`Replica::watch`], and is not asked twice.
async fn end<T>(task: JoinHandle<T>) {
    if !task.is_finished() {
        let _ = task.await;
    }
}

/// Waits for the task, for ever when there is none.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// The monitor, its telemetry door, and what the door answers.
fn start_monitor(parameters: &Parameters) -> (MonitorHandle, Router, Arc<DoorCounters>) {
    let monitor = Monitor::new(MonitorParameters::of(parameters), clock::wall_clock());
    let (monitor, _) = monitor::task::spawn(monitor, clock::wall_clock);
    let (door, counters) = monitor::door::routes(monitor.clone());
    (monitor, door, counters)
}

/// Everything that the replica's HTTP address serves.
fn routes(door: Router, agents: AgentApi, metrics: &Metrics, sources: metrics::Sources) -> Router {
    let status = sources.status.clone();
    door.merge(api::router(agents))
        .merge(status::router(status.clone()))
        .merge(health::router(status))
        .merge(metrics::router(metrics, sources))
}

/// Runs consensus on a thread of its own: its syncs block, and nothing else should wait for them.
fn run_apart<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(task))
}

fn start_links(
    config: &ReplicaConfig,
    committee: &Committee,
    me: ReplicaIndex,
    secret: SecretKey,
    listener: TcpListener,
) -> Result<(Links, Inbox), LinksError> {
    let (committee, peers) = (committee.clone(), config.peers.clone());
    Links::start(LinksConfig { committee, me, secret, listener, peers, now: clock::wall_clock })
}

type StoreEnded = Result<(), StoreStartError>;

/// A replica's database, and the connection to it if it answered.
type Database = (StoreConfig, Option<Writer>);

fn start_store(
    database: Option<Database>,
    cycle: &CycleConfig,
    height: Height,
    follows: Follows,
) -> Result<Option<(StoreEnds, JoinHandle<StoreEnded>)>, GenesisError> {
    let Some((store, first)) = database else { return Ok(None) };
    let (task, ends) = StoreTask::new(store, cycle.clone(), height, follows)?;
    Ok(Some((ends, tokio::spawn(task.run(first)))))
}

fn core_config(
    committee: &Arc<Committee>,
    me: ReplicaIndex,
    key: &SecretKey,
    parameters: &Parameters,
) -> Config {
    Config {
        committee: Arc::clone(committee),
        me,
        key: key.clone(),
        times: ViewTimes::default(),
        checkpoint_interval: parameters.checkpoint_interval,
    }
}

/// Opens the journal and reads the application's notes in it. A replica that cannot read what it signed must not
/// sign anything else.
fn open_journal(core: Config, folder: &Path) -> Result<(Opened, Remembered), ReplicaError> {
    let (opened, Recovered { notes, base, blocks, torn }) = task::open(core, folder, random_salt()?)?;
    let seals = notes.iter().map(|note| borsh::from_slice(note)).collect::<Result<_, _>>();
    let unknown = |_| StartError::Journal { folder: folder.to_owned(), error: HistoryError::UnknownEntry };
    let seals = seals.map_err(unknown)?;
    Ok((opened, Remembered { base, seals, blocks, torn }))
}

/// The control cycle as the journal's newest checkpoint has it.
fn begin_cycle(
    config: &ReplicaConfig,
    cycle: CycleConfig,
    base: Option<&Base>,
) -> Result<Cycle, ReplicaError> {
    let mut cycle = Cycle::new(cycle).map_err(|error| bad_genesis(config, error))?;
    if let Some(Base { checkpoint, snapshot }) = base {
        let unreadable = |error| ReplicaError::Snapshot { height: checkpoint.height(), error };
        cycle.install(&snapshot.to_bytes()).map_err(unreadable)?;
    }
    Ok(cycle)
}

fn random_salt() -> Result<Salt, ReplicaError> {
    let mut bytes = [0; SALT_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| ReplicaError::Random(error.to_string()))?;
    Ok(Salt::new(bytes))
}

fn bad_genesis(config: &ReplicaConfig, error: GenesisError) -> ReplicaError {
    ReplicaError::Genesis { path: config.genesis_file.clone(), error }
}

/// Looks at the replica's database, if it has one; there is a connection if the database answers.
async fn reach_database(
    config: &ReplicaConfig,
    cycle: &CycleConfig,
    found: JournalFound,
) -> Result<Option<Database>, StoreStartError> {
    let Some(url) = config.database.clone() else { return Ok(None) };
    let (cluster, epoch) = (cycle.committee.cluster(), cycle.committee.epoch());
    let store = StoreConfig {
        url,
        identity: StoreIdentity { cluster, epoch, replica: cycle.me },
        window: cycle.genesis.parameters.window,
        keep_days: config.database_keep_days,
        journal: config.data_dir.join("journal"),
        found,
    };
    let first = connect_first(&store).await?;
    Ok(Some((store, first)))
}

fn first_status(
    committee: &Committee,
    me: ReplicaIndex,
    genesis: &Genesis,
    lag_max_heights: u64,
) -> StatusSnapshot {
    let others = committee.replicas().filter(|place| *place != me);
    let targets = genesis.targets.iter().map(|target| TargetStatus {
        target: target.id.clone(),
        seq: CycleNumber::ZERO,
        plan: Digest::ZERO,
        mode: Mode::Act,
        owner: target.owner.clone(),
        stopped_by: Vec::new(),
        agents: vec![target.agent.id()],
    });
    StatusSnapshot {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        replica: me.to_string(),
        cluster: committee.cluster(),
        epoch: committee.epoch(),
        replicas: committee.size().replicas(),
        quorum: committee.size().quorum(),
        view: Default::default(),
        height: Default::default(),
        checkpoint: None,
        transfer: None,
        agreed_time_ms: UnixMillis::ZERO,
        cycle: CycleNumber::ZERO,
        windows: WindowStatus::default(),
        peers: others
            .map(|place| status::PeerStatus { replica: place.to_string(), connected: false })
            .collect(),
        store: StoreStatus { lag_max_heights, ..StoreStatus::default() },
        head: None,
        targets: targets.collect(),
        refused: Vec::new(),
        evidence: Vec::new(),
        not_ready: vec![status::NotReady {
            reason: status::NotReadyReason::Starting,
            detail: "reading the journal".to_owned(),
        }],
        alarms: Vec::new(),
    }
}
