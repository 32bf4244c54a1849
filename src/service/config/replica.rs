//! One replica's own configuration: flag before environment before file before default. It says nothing that
//! replicas must hold equally; that is why the door's limits are no part of it: replicas that refuse different
//! samples would report different windows. Invariant: a [`ReplicaConfig`] is complete; paths in a file are relative to the
//! file's folder, those in flags and environment to the working folder.

use serde::Deserialize;
use std::{
    fmt,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64},
    path::{Path, PathBuf},
};
use toml::Spanned;

use super::error::{ConfigError, Source};
use crate::service::{
    entrance::{EntranceConfig, EntranceFlags},
    http_server::TlsFiles,
};

/// How many days of windows a database keeps.
const KEEP_DAYS: NonZeroU32 = NonZeroU32::new(14).expect("it is not zero");

/// How many committed blocks a database may lack before the replica signs no plans.
const LAG_MAX_BLOCKS: NonZeroU64 = NonZeroU64::new(10_000).expect("it is not zero");

/// Everything that one replica needs to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// Where the journal lies.
    pub data_dir: PathBuf,
    /// The replica's secret key.
    pub key_file: PathBuf,
    /// The cluster's first root.
    pub root_file: PathBuf,
    /// The genesis, as the text of a policy file.
    pub genesis_file: PathBuf,
    /// Where other replicas connect.
    pub listen: SocketAddr,
    /// Where each replica of the root can be reached, in the root's order; its own entry is not used.
    pub peers: Vec<String>,
    /// Where the API and the door for telemetry listen.
    pub http: SocketAddr,
    /// Who may come there, and how.
    pub entrance: EntranceConfig,
    /// The replica's own database; without one, nothing is kept for queries.
    pub database: Option<DatabaseUrl>,
    /// How many days of windows the database keeps.
    pub database_keep_days: NonZeroU32,
    /// How many committed blocks the database may lack before this replica signs no plans.
    pub database_lag_max_blocks: NonZeroU64,
    /// Where the replica posts its own traces.
    pub otlp_traces: Option<String>,
    /// How it writes its log.
    pub log: LogFormat,
}

/// Where a database is. It may hold a password, so it does not print itself.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The address, with its password.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
impl From<&str> for DatabaseUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(..)")
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The flags of `quorate run`, each with its environment variable.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ReplicaFlags {
    /// The replica file; flags and environment variables go before what it says
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the journal lies
    #[arg(long, env = "QUORATE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The replica's secret key
    #[arg(long, env = "QUORATE_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The cluster's first root
    #[arg(long, env = "QUORATE_ROOT_FILE", value_name = "FILE")]
    pub root_file: Option<PathBuf>,
    /// The genesis, as the text of a policy file
    #[arg(long, env = "QUORATE_GENESIS_FILE", value_name = "FILE")]
    pub genesis_file: Option<PathBuf>,
    /// Where other replicas connect
    #[arg(long, env = "QUORATE_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Where each replica of the root can be reached, in the root's order
    #[arg(long, env = "QUORATE_PEERS", value_name = "HOST:PORT,...", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// Where the API and the door for telemetry listen
    #[arg(long, env = "QUORATE_HTTP", value_name = "ADDRESS")]
    pub http: Option<SocketAddr>,
    /// Who may come there, and how
    #[command(flatten)]
    pub entrance: EntranceFlags,
    /// The replica's own Postgres database; a password is better kept in a file
    #[arg(long, env = "QUORATE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// A file that holds the database's URL
    #[arg(long, env = "QUORATE_DATABASE_URL_FILE", value_name = "FILE", conflicts_with = "database_url")]
    pub database_url_file: Option<PathBuf>,
    /// How many days of windows the database keeps; at least 1
    #[arg(long, env = "QUORATE_DATABASE_KEEP_DAYS", value_name = "DAYS")]
    pub database_keep_days: Option<NonZeroU32>,
    /// How many committed blocks the database may lack before this replica signs no plans
    #[arg(long, env = "QUORATE_DATABASE_LAG_MAX_BLOCKS", value_name = "BLOCKS")]
    pub database_lag_max_blocks: Option<NonZeroU64>,
    /// Where the replica posts its own traces (OTLP over HTTP)
    #[arg(long, env = "QUORATE_OTLP_TRACES", value_name = "URL")]
    pub otlp_traces: Option<String>,
    /// How log lines are written
    #[arg(long, env = "QUORATE_LOG", value_enum, value_name = "FORMAT")]
    pub log: Option<LogFormat>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    data_dir: Option<PathBuf>,
    key_file: Option<PathBuf>,
    root_file: Option<PathBuf>,
    genesis_file: Option<PathBuf>,
    listen: Option<SocketAddr>,
    peers: Option<Spanned<Vec<String>>>,
    http: Option<Spanned<SocketAddr>>,
    tls: Option<TlsText>,
    tokens: Option<PathBuf>,
    database_url: Option<Spanned<String>>,
    database_url_file: Option<PathBuf>,
    database_keep_days: Option<NonZeroU32>,
    database_lag_max_blocks: Option<NonZeroU64>,
    otlp_traces: Option<String>,
    log: Option<LogFormat>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsText {
    certificate: PathBuf,
    key: PathBuf,
}

impl ReplicaConfig {
    /// The keys of which a replica file has at least one.
    pub(super) const KEYS: [&str; 15] = [
        "data_dir",
        "key_file",
        "root_file",
        "genesis_file",
        "listen",
        "peers",
        "http",
        "tls",
        "tokens",
        "database_url",
        "database_url_file",
        "database_keep_days",
        "database_lag_max_blocks",
        "otlp_traces",
        "log",
    ];

    /// The configuration that flags, environment and file give together. Reads the file and the database's
    /// secret, nothing else.
    ///
    /// # Errors
    /// [`ConfigError`] says what is missing or wrong, and where.
    pub fn resolve(flags: ReplicaFlags) -> Result<Self, ConfigError> {
        let Some(path) = flags.config.clone() else {
            let source = Source { file: "command line", text: "" };
            return Self::merge(flags, FileText::default(), Path::new(""), source);
        };
        let name = path.display().to_string();
        let (text, file) = read_file(&path, &name)?;
        let source = Source { file: &name, text: &text };
        check_file(&file, source)?;
        Self::merge(flags, file, path.parent().unwrap_or(Path::new("")), source)
    }

    /// Checks a replica file by itself: what it says must be right, and flags may still add what is missing.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong, and where.
    pub fn check_text(file: &str, text: &str) -> Result<(), ConfigError> {
        let source = Source { file, text };
        check_file(&source.parse()?, source)
    }

    fn merge(
        flags: ReplicaFlags,
        file: FileText,
        folder: &Path,
        source: Source<'_>,
    ) -> Result<Self, ConfigError> {
        let file_name = source.file;
        let in_folder = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        let missing = |key: &str| {
            let (flag, variable) = (key.replace('_', "-"), key.to_uppercase());
            let message =
                format!("{key} is not set: give --{flag}, QUORATE_{variable}, or {key} in the replica file");
            ConfigError::of_file(file_name, message)
        };
        let path = |flag: Option<PathBuf>, file: Option<PathBuf>, key| {
            flag.or_else(|| in_folder(file)).ok_or_else(|| missing(key))
        };
        let peers = if flags.peers.is_empty() {
            file.peers.map(Spanned::into_inner).ok_or_else(|| missing("peers"))?
        } else {
            flags.peers
        };
        check_peers(&peers).map_err(|message| ConfigError::of_file(file_name, message))?;
        let tls = file.tls.map(|TlsText { certificate, key }| TlsFiles {
            certificate: folder.join(certificate),
            key: folder.join(key),
        });
        let entrance = EntranceConfig {
            tls: flags.entrance.tls().or(tls),
            tokens: flags.entrance.tokens.or_else(|| in_folder(file.tokens)),
        };
        let from_flags = (flags.database_url, flags.database_url_file);
        let database = match from_flags {
            (None, None) => {
                read_database(file.database_url.map(Spanned::into_inner), in_folder(file.database_url_file))
            }
            (url, url_file) => read_database(url, url_file),
        }?;
        Ok(Self {
            data_dir: path(flags.data_dir, file.data_dir, "data_dir")?,
            key_file: path(flags.key_file, file.key_file, "key_file")?,
            root_file: path(flags.root_file, file.root_file, "root_file")?,
            genesis_file: path(flags.genesis_file, file.genesis_file, "genesis_file")?,
            listen: flags.listen.or(file.listen).ok_or_else(|| missing("listen"))?,
            peers,
            http: http_address(flags.http, file.http, &entrance, source)?.ok_or_else(|| missing("http"))?,
            entrance,
            database,
            database_keep_days: flags.database_keep_days.or(file.database_keep_days).unwrap_or(KEEP_DAYS),
            database_lag_max_blocks: flags
                .database_lag_max_blocks
                .or(file.database_lag_max_blocks)
                .unwrap_or(LAG_MAX_BLOCKS),
            otlp_traces: flags.otlp_traces.or(file.otlp_traces),
            log: flags.log.or(file.log).unwrap_or_default(),
        })
    }
}

/// The address where clients come, if it may be served so; an address of the file is refused in its place.
fn http_address(
    flag: Option<SocketAddr>,
    file: Option<Spanned<SocketAddr>>,
    entrance: &EntranceConfig,
    source: Source<'_>,
) -> Result<Option<SocketAddr>, ConfigError> {
    match (flag, file) {
        (None, None) => Ok(None),
        (Some(address), _) => {
            let allowed = entrance.allows(address);
            allowed.map_err(|error| ConfigError::of_file("--http", error.to_string()))?;
            Ok(Some(address))
        }
        (None, Some(spanned)) => {
            let (span, address) = (spanned.span(), spanned.into_inner());
            entrance.allows(address).map_err(|error| source.error(span, format!("http: {error}")))?;
            Ok(Some(address))
        }
    }
}

fn read_file(path: &Path, name: &str) -> Result<(String, FileText), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::of_file(name, format!("cannot be read: {error}")))?;
    let file = Source { file: name, text: &text }.parse()?;
    Ok((text, file))
}

fn check_file(file: &FileText, source: Source<'_>) -> Result<(), ConfigError> {
    if let (Some(url), Some(_)) = (&file.database_url, &file.database_url_file) {
        return Err(source.error(url.span(), "either database_url or database_url_file, not both"));
    }
    match &file.peers {
        Some(peers) => check_peers(peers.get_ref()).map_err(|message| source.error(peers.span(), message)),
        None => Ok(()),
    }
}

fn check_peers(peers: &[String]) -> Result<(), String> {
    for peer in peers {
        let is_address = peer
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
        if !is_address {
            return Err(format!("peers: {peer:?} is not HOST:PORT"));
        }
    }
    if peers.is_empty() { Err("peers: one address for each replica of the root".to_owned()) } else { Ok(()) }
}

fn read_database(url: Option<String>, file: Option<PathBuf>) -> Result<Option<DatabaseUrl>, ConfigError> {
    let url = match (url, file) {
        (None, None) => return Ok(None),
        (Some(url), _) => url,
        (None, Some(path)) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(&path)
                .map_err(|error| ConfigError::of_file(&name, format!("cannot be read: {error}")))?;
            text.trim().to_owned()
        }
    };
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Ok(Some(DatabaseUrl(url)))
    } else {
        // The value may hold a password: it is not repeated.
        Err(ConfigError::of_file("database_url", "must begin with postgres:// or postgresql://"))
    }
}

#[cfg(test)]
mod tests;
