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
mod reporting;
mod storing;
mod tracing_cycle;

use axum::Router;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use self::{
    control::{Control, Ended, Remembered, Surroundings},
    storing::{StoreConfig, StoreProgress},
};
use super::{
    api::{self, AgentApi},
    clock,
    config::{ConfigError, PolicyFile, ReplicaConfig},
    health, http_server,
    key_file::{KeyFileError, read_secret_key},
    metrics::{self, Metrics},
    status::{self, StatusSnapshot, StoreStatus, TargetStatus, WindowStatus},
    telemetry::CycleTracer,
};
use crate::{
    consensus::{
        Config, ViewTimes,
        journal::{JournalError, SALT_BYTES, Salt},
        task::{self, Handles, Opened, Recovered, StartError},
        transport::{Links, LinksConfig, LinksError},
    },
    cycle::{Cycle, CycleConfig},
    execute::feed::Feed,
    knowledge::{
        genesis::{Genesis, GenesisError},
        head::Mode,
        root::{RootError, VerifiedRoot},
        store::StoreIdentity,
    },
    monitor::{self, Monitor, MonitorParameters},
    types::{
        Committee, Cycle as CycleNumber, Digest, PublicKey, ReplicaIndex, SecretKey, TargetId, UnixMillis,
    },
};

pub use event::ReplicaEvent;

/// How many receipts wait to be ordered before agents are asked to come later.
const RECEIPT_QUEUE: usize = 256;

/// How many events wait for whoever watches; more are missed.
const EVENT_QUEUE: usize = 1_024;

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
    /// The genesis is not the one that the root commits to.
    #[error("{}: its digest is {got}, but the root commits to {expected}; use the file that was signed", path.display())]
    WrongGenesis {
        /// The file.
        path: PathBuf,
        /// Its digest.
        got: Digest,
        /// The root's.
        expected: Digest,
    },
    /// The genesis contradicts itself.
    #[error("{}: {error}", path.display())]
    Genesis {
        /// The file.
        path: PathBuf,
        /// Why.
        error: GenesisError,
    },
    /// The genesis names a target without an agent's key.
    #[error("{}: {error}", path.display())]
    MissingAgent {
        /// The file.
        path: PathBuf,
        /// Which.
        error: super::config::MissingAgent,
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
    /// The journal failed while running: nothing may be signed any more.
    #[error("the journal failed, so this replica stops: {0}")]
    Journal(#[from] JournalError),
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
            .genesis(&BTreeMap::new())
            .map_err(|error| ReplicaError::MissingAgent { path: path.clone(), error })?;
        let (got, expected) = (genesis.digest(), root.root().genesis);
        if got != expected {
            return Err(ReplicaError::WrongGenesis { path, got, expected });
        }
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
    store: Option<JoinHandle<()>>,
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
        let core =
            Config { committee: Arc::clone(&committee), me, key: key.clone(), times: ViewTimes::default() };
        let journal = config.data_dir.join("journal");
        let (opened, remembered) = open_journal(core, &journal)?;
        let peers_listener = http_server::listen(config.listen).await?;
        let http_listener = http_server::listen(config.http).await?;
        let (links, inbox) = Links::start(LinksConfig {
            committee: Committee::clone(&committee),
            me,
            secret: key.clone(),
            listener: peers_listener,
            peers: config.peers.clone(),
            now: clock::wall_clock,
        })?;
        let (Handles { requests, events: consensus_events, status: consensus_status }, ends) =
            task::channels();
        let consensus = run_apart(task::run(opened, links.sender(), inbox, ends));

        let monitor = Monitor::new(MonitorParameters::of(&genesis.parameters), clock::wall_clock());
        let (monitor, _) = monitor::task::spawn(monitor, clock::wall_clock);
        let (door, _) = monitor::door::routes(monitor.clone());

        let targets = genesis.targets.iter().map(|target| target.id.clone());
        let feed = Feed::new(root.clone(), targets);
        let (feed_sender, feed_receiver) = watch::channel(Arc::new(feed.clone()));
        let (status_sender, status) = watch::channel(first_status(&committee, me, &genesis));
        let (stop, stopping) = watch::channel(false);
        let (told, events) = mpsc::channel(EVENT_QUEUE);
        let (commands, receipts) = mpsc::channel(RECEIPT_QUEUE);
        let metrics = Arc::new(Metrics::new());
        let (store, store_task) = start_store(config, &committee, me, &genesis);

        let sources = metrics::Sources {
            status: status.clone(),
            consensus: consensus_status.clone(),
            monitor: Arc::clone(monitor.counters()),
        };
        let agents: BTreeMap<TargetId, PublicKey> =
            genesis.targets.iter().map(|target| (target.id.clone(), target.agent)).collect();
        let agent_api = AgentApi {
            feed: feed_receiver,
            cluster: committee.cluster(),
            agents: Arc::new(agents),
            commands,
        };
        let router = routes(door, agent_api, &metrics, sources);
        let server = tokio::spawn(http_server::serve(http_listener, router, stopping.clone()));

        let cycle = Cycle::new(CycleConfig { genesis, committee: Arc::clone(&committee), me, key })
            .map_err(|error| ReplicaError::Genesis { path: config.genesis_file.clone(), error })?;
        let surroundings = Surroundings {
            committee,
            me,
            requests,
            events: consensus_events,
            consensus: consensus_status,
            links: links.sender(),
            monitor,
            receipts,
            store,
            feed: feed_sender,
            status: status_sender,
            metrics,
            tracer,
            told,
            stop: stopping,
        };
        let control = Control::new(cycle, feed, surroundings);
        let control = tokio::spawn(control.run(remembered, config.http.to_string()));
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
                _ = &mut self.control => return Ok(Some(ReplicaError::TaskEnded("control"))),
                _ = &mut self.server => return Ok(Some(ReplicaError::TaskEnded("HTTP server"))),
            }
        }
    }

    /// Ends all tasks in the order of the data's way, so that what was taken is finished.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // A task that failed was told of by `failed`; here all only have to end.
        let _ = self.server.await;
        let _ = self.control.await;
        let _ = self.consensus.await;
        self.links.shutdown().await;
        if let Some(store) = self.store
            && tokio::time::timeout(std::time::Duration::from_secs(5), store).await.is_err()
        {
            tracing::warn!("the store was not finished in time; the rest follows at the next start");
        }
    }
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

/// Opens the journal and reads the application's notes in it. A replica that cannot read what it signed must not
/// sign anything else.
fn open_journal(core: Config, folder: &Path) -> Result<(Opened, Remembered), ReplicaError> {
    let (opened, Recovered { notes, blocks, torn }) = task::open(core, folder, random_salt()?)?;
    let seals = notes.iter().map(|note| borsh::from_slice(note)).collect::<Result<_, _>>();
    let seals = seals.map_err(|_| StartError::UnknownRecord { folder: folder.to_owned() })?;
    Ok((opened, Remembered { seals, blocks, torn }))
}

fn random_salt() -> Result<Salt, ReplicaError> {
    let mut bytes = [0; SALT_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| ReplicaError::Random(error.to_string()))?;
    Ok(Salt::new(bytes))
}

type StoreEnds = (mpsc::UnboundedSender<storing::StoreWork>, watch::Receiver<StoreProgress>);

fn start_store(
    config: &ReplicaConfig,
    committee: &Committee,
    me: ReplicaIndex,
    genesis: &Genesis,
) -> (Option<StoreEnds>, Option<JoinHandle<()>>) {
    let Some(database) = &config.database else {
        return (None, None);
    };
    let (work, waiting) = mpsc::unbounded_channel();
    let (progress, seen) = watch::channel(StoreProgress::default());
    let config = StoreConfig {
        url: database.reveal().to_owned(),
        identity: StoreIdentity { cluster: committee.cluster(), epoch: committee.epoch(), replica: me },
        window: genesis.parameters.window,
    };
    let task = tokio::spawn(storing::run(config, waiting, progress));
    (Some((work, seen)), Some(task))
}

fn first_status(committee: &Committee, me: ReplicaIndex, genesis: &Genesis) -> StatusSnapshot {
    let others = committee.replicas().filter(|place| *place != me);
    let targets = genesis.targets.iter().map(|target| TargetStatus {
        target: target.id.clone(),
        seq: CycleNumber::ZERO,
        plan: Digest::ZERO,
        mode: Mode::Act,
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
        agreed_time_ms: UnixMillis::ZERO,
        cycle: CycleNumber::ZERO,
        windows: WindowStatus::default(),
        peers: others
            .map(|place| status::PeerStatus { replica: place.to_string(), connected: false })
            .collect(),
        store: StoreStatus::default(),
        head: None,
        targets: targets.collect(),
        not_ready: vec![status::NotReady {
            reason: status::NotReadyReason::Starting,
            detail: "reading the journal".to_owned(),
        }],
        alarms: Vec::new(),
    }
}
