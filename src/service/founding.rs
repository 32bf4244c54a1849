//! Founding a cluster: keys, the genesis, the signed first root, and a folder for each party.
//!
//! It writes files and starts nothing. In production every owner makes its own keys; this is for one party
//! that plays all of them, or that prepares folders to hand out. Invariant: no key and no root is ever overwritten,
//! every secret is readable by its user alone, and a founding that was cut off anywhere can be done again.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    config::{Completion, ConfigError, IncompleteTarget, PolicyFile, Speed, policy_text, scaled},
    durable::replace_file,
    key_file::{KeyFileError, generate_secret_key, read_secret_key},
};
use crate::{
    knowledge::{
        genesis::Genesis,
        root::{
            GenesisMismatch, ROOT_TYPE, Root, RootError, RootOperator, RootOwner, RootReplica, VerifiedRoot,
        },
    },
    types::{CommitteeSize, Digest, Envelope, Epoch, Millis, SecretKey, TargetId, UnixMillis, pae},
};

/// How long the first root is trusted.
const ROOT_LIFETIME: Millis = Millis::from_secs(10 * 365 * 24 * 3600);

/// What a cluster is founded with.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The folder to write.
    pub folder: PathBuf,
    /// Times, targets and policies.
    pub policies: PolicyFile,
    /// How many times faster than real time the cluster's telemetry comes.
    pub speed: Speed,
    /// One entry a replica.
    pub replicas: Vec<ReplicaPlace>,
    /// The present time.
    pub now: UnixMillis,
}

/// Where one replica will run.
#[derive(Clone, Debug)]
pub struct ReplicaPlace {
    /// Where other replicas reach it.
    pub peer: SocketAddr,
    /// Where its API and door listen.
    pub http: SocketAddr,
    /// The file that holds its database's URL, below the replica's own folder; `None` without a database.
    pub database_url_file: Option<PathBuf>,
}

/// Where everything of a founded cluster lies.
#[derive(Clone, Debug)]
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// The layout below a folder.
    #[must_use]
    pub const fn of(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The first root.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.json")
    }

    /// The genesis, as a policy file.
    #[must_use]
    pub fn genesis(&self) -> PathBuf {
        self.folder.join("genesis.toml")
    }

    /// A replica's folder.
    #[must_use]
    pub fn replica(&self, place: usize) -> PathBuf {
        self.folder.join("replicas").join(format!("r{place}"))
    }

    /// A replica's configuration.
    #[must_use]
    pub fn replica_config(&self, place: usize) -> PathBuf {
        self.replica(place).join("replica.toml")
    }

    /// The folder of a target's agent.
    #[must_use]
    pub fn agent(&self, target: &TargetId) -> PathBuf {
        self.folder.join("agents").join(target.as_str().replace(['/', ':'], "_"))
    }

    /// The key of a target's agent.
    #[must_use]
    pub fn agent_key(&self, target: &TargetId) -> PathBuf {
        self.agent(target).join("agent.key")
    }

    /// The key of the operator who acts for the owner of the same number.
    #[must_use]
    pub fn operator_key(&self, place: usize) -> PathBuf {
        self.folder.join("operators").join(format!("operator-{place}.key"))
    }

    /// An owner's key, which belongs offline.
    #[must_use]
    pub fn owner_key(&self, place: usize) -> PathBuf {
        self.folder.join("owners").join(format!("owner-{place}.key"))
    }
}

/// Why a cluster is not founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    /// There is one already.
    #[error("{} exists: a cluster is founded there already; choose another folder", path.display())]
    Exists {
        /// Its root.
        path: PathBuf,
    },
    /// A folder or file cannot be written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A key cannot be written or read.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The policy file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A target has no agent.
    #[error(transparent)]
    Incomplete(#[from] IncompleteTarget),
    /// A target belongs to nobody who founds the cluster.
    #[error("the policy file: {0}")]
    NoSuchOwner(#[from] GenesisMismatch),
    /// The number of replicas.
    #[error(transparent)]
    Size(#[from] crate::types::CommitteeSizeError),
    /// The root that was made is not valid.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// Founds a cluster and writes its folders.
///
/// # Errors
/// [`FoundingError`]; then what was written so far stays, without a root.
pub fn found(founding: &Founding) -> Result<(Layout, VerifiedRoot, Genesis), FoundingError> {
    let layout = Layout::of(founding.folder.clone());
    if layout.root().exists() {
        return Err(FoundingError::Exists { path: layout.root() });
    }
    let size = CommitteeSize::new(founding.replicas.len())?;
    let places = 0..founding.replicas.len();
    let replicas: Vec<SecretKey> = places
        .clone()
        .map(|place| make_key(&layout.replica(place).join("replica.key")))
        .collect::<Result<_, _>>()?;
    let owners: Vec<SecretKey> =
        places.clone().map(|place| make_key(&layout.owner_key(place))).collect::<Result<_, _>>()?;
    let operators: Vec<SecretKey> =
        places.map(|place| make_key(&layout.operator_key(place))).collect::<Result<_, _>>()?;
    let mut agents = BTreeMap::new();
    for target in founding.policies.targets_without_agent() {
        agents.insert(target.clone(), make_key(&layout.agent_key(target))?.public());
    }
    let completion = Completion { agents, owner: Some(owner_name(0)) };
    let genesis = scaled(&founding.policies.genesis(&completion)?, founding.speed);
    write(&layout.genesis(), &policy_text(&genesis))?;
    write_replica_files(&layout, &founding.replicas)?;
    let keys = FoundingKeys { replicas: &replicas, owners: &owners, operators: &operators };
    let body = first_root(keys, &genesis, size, founding.now).to_bytes();
    let bytes = pae(ROOT_TYPE, &body);
    let signatures = owners.iter().map(|owner| (owner.public().id(), owner.sign(&bytes))).collect();
    let envelope = Envelope::new(ROOT_TYPE, body, signatures).to_json();
    let root = VerifiedRoot::first(&envelope)?;
    root.check_genesis(&genesis)?;
    // Last: a folder with a root is founded, one without can be founded again.
    write(&layout.root(), &String::from_utf8_lossy(&envelope))?;
    Ok((layout, root, genesis))
}

/// Writes each replica's configuration file, also over an earlier one: where replicas are may change.
///
/// # Errors
/// [`FoundingError::Io`] names the file.
pub fn write_replica_files(layout: &Layout, replicas: &[ReplicaPlace]) -> Result<(), FoundingError> {
    for (place, replica) in replicas.iter().enumerate() {
        write(&layout.replica_config(place), &replica_file(replicas, replica))?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct FoundingKeys<'a> {
    replicas: &'a [SecretKey],
    owners: &'a [SecretKey],
    operators: &'a [SecretKey],
}

fn owner_name(place: usize) -> String {
    format!("owner-{place}")
}

fn first_root(keys: FoundingKeys<'_>, genesis: &Genesis, size: CommitteeSize, now: UnixMillis) -> Root {
    let FoundingKeys { replicas, owners, operators } = keys;
    let raw = |key: &SecretKey| Digest::from_bytes(key.public().to_bytes());
    Root {
        v: 1,
        cluster: Digest::ZERO,
        epoch: Epoch::new(1),
        replicas: replicas
            .iter()
            .enumerate()
            .map(|(place, key)| RootReplica {
                keyid: key.public().id(),
                ed25519: raw(key),
                owner: owner_name(place),
            })
            .collect(),
        owners: owners
            .iter()
            .enumerate()
            .map(|(place, key)| RootOwner { name: owner_name(place), ed25519: raw(key) })
            .collect(),
        operators: operators
            .iter()
            .enumerate()
            .map(|(place, key)| RootOperator {
                name: format!("operator-{place}"),
                ed25519: raw(key),
                owner: owner_name(place),
            })
            .collect(),
        owner_threshold: u32::try_from(size.quorum()).unwrap_or(u32::MAX),
        genesis: genesis.digest(),
        not_after: now.plus(ROOT_LIFETIME),
        prev: Digest::ZERO,
    }
}

fn replica_file(all: &[ReplicaPlace], replica: &ReplicaPlace) -> String {
    let peers: Vec<String> = all.iter().map(|place| format!("\"{}\"", place.peer)).collect();
    let mut text = String::from("# One replica. `quorate config example --replica` explains every key.\n");
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").unwrap_or_default();
    line(format_args!("data_dir = \".\""));
    line(format_args!("key_file = \"replica.key\""));
    line(format_args!("root_file = \"../../root.json\""));
    line(format_args!("genesis_file = \"../../genesis.toml\""));
    line(format_args!("listen = \"{}\"", replica.peer));
    line(format_args!("peers = [{}]", peers.join(", ")));
    line(format_args!("http = \"{}\"", replica.http));
    if let Some(path) = &replica.database_url_file {
        line(format_args!("database_url_file = \"{}\"", path.display()));
    }
    text
}

fn make_key(path: &Path) -> Result<SecretKey, FoundingError> {
    if path.exists() {
        // An earlier attempt that did not come to its end.
        return Ok(read_secret_key(path)?);
    }
    make_folder_of(path)?;
    Ok(generate_secret_key(path)?)
}

fn write(path: &Path, text: &str) -> Result<(), FoundingError> {
    make_folder_of(path)?;
    replace_file(path, text.as_bytes()).map_err(|error| FoundingError::Io { path: path.to_owned(), error })
}

fn make_folder_of(path: &Path) -> Result<(), FoundingError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|error| FoundingError::Io { path: folder.to_owned(), error })
}
