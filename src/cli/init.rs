//! `quorate init`: founds a cluster on paper: keys, a signed root, a genesis and a folder for each replica.
//!
//! It starts nothing. Invariant: it never overwrites a file.

use serde::Serialize;
use std::{fmt, net::SocketAddr, path::PathBuf};

use super::{ExitCode, Failure, output::Output};
use crate::{
    service::{
        clock,
        config::{PolicyFile, Speed},
        founding::{Founding, FoundingError, ReplicaPlace, found},
    },
    types::Digest,
};

const EXAMPLES: &str = "\
Examples:
  quorate init --dir cluster --policy examples/policies/airflow.toml
  quorate init --dir cluster --policy policy.toml \\
      --replica 10.0.0.1:7100=10.0.0.1:8100 --replica 10.0.0.2:7100=10.0.0.2:8100 \\
      --replica 10.0.0.3:7100=10.0.0.3:8100 --replica 10.0.0.4:7100=10.0.0.4:8100

Hand each party its own folder below DIR/replicas, and every agent DIR/root.json. The owners' keys in
DIR/owners sign the next root: keep them offline.";

/// Found a cluster: keys, a signed root, a genesis and a folder for each replica
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Times, targets and policies; `quorate config example` prints one
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// How many replicas, all on this machine
    #[arg(long, value_name = "COUNT", default_value_t = 4, conflicts_with = "replica")]
    replicas: u16,
    /// The first port of replicas on this machine; each takes two
    #[arg(long, value_name = "PORT", default_value_t = 7100, conflicts_with = "replica")]
    base_port: u16,
    /// One replica: where others reach it, and where its API listens; once for each
    #[arg(long, value_name = "PEER=HTTP", value_parser = parse_place)]
    replica: Vec<(SocketAddr, SocketAddr)>,
}

fn parse_place(text: &str) -> Result<(SocketAddr, SocketAddr), String> {
    let (peer, http) =
        text.split_once('=').ok_or("expected PEER=HTTP, such as 10.0.0.1:7100=10.0.0.1:8100")?;
    let address = |text: &str| text.parse().map_err(|error| format!("{text:?}: {error}"));
    Ok((address(peer)?, address(http)?))
}

/// Founds the cluster.
///
/// # Errors
/// [`Failure`] when a file is wrong or exists.
pub fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let policies = PolicyFile::read(&arguments.policy).map_err(Failure::configuration)?;
    let places = if arguments.replica.is_empty() {
        local_places(arguments.replicas, arguments.base_port)
            .ok_or_else(|| Failure::usage(anyhow::anyhow!("--base-port: not enough ports above it")))?
    } else {
        arguments.replica.clone()
    };
    let founding = Founding {
        folder: arguments.dir.clone(),
        policies,
        speed: Speed::REAL_TIME,
        replicas: places
            .into_iter()
            .map(|(peer, http)| ReplicaPlace { peer, http, database_url_file: None })
            .collect(),
        now: clock::wall_clock(),
    };
    let (layout, root, _) = found(&founding).map_err(failure)?;
    output.event(&Founded {
        root: layout.root(),
        cluster: root.committee().cluster(),
        replicas: founding.replicas.len(),
        quorum: root.committee().size().quorum(),
    })?;
    Ok(ExitCode::Done)
}

/// Two ports for each replica, from a first one on.
pub(super) fn local_places(replicas: u16, base_port: u16) -> Option<Vec<(SocketAddr, SocketAddr)>> {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let ports = |place: u16| {
        let peer = base_port.checked_add(place.checked_mul(2)?)?;
        Some((address(peer), address(peer.checked_add(1)?)))
    };
    (0..replicas).map(ports).collect()
}

pub(super) fn failure(error: FoundingError) -> Failure {
    match &error {
        FoundingError::Config(_) | FoundingError::Incomplete(_) | FoundingError::NoSuchOwner { .. } => {
            Failure::configuration(error)
        }
        FoundingError::Size(_) => Failure::usage(error),
        FoundingError::Exists { .. }
        | FoundingError::Io { .. }
        | FoundingError::Key(_)
        | FoundingError::Root(_) => Failure::failed(error),
    }
}

#[derive(Debug, Serialize)]
struct Founded {
    root: PathBuf,
    cluster: Digest,
    replicas: usize,
    quorum: usize,
}

impl fmt::Display for Founded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cluster {} of {} replicas, {} decide: {}",
            self.cluster,
            self.replicas,
            self.quorum,
            self.root.display()
        )
    }
}
