//! Adversaries as real processes on the real transport, for tests only: each takes a replica's place with its key
//! and its configuration. One behaviour a file.
//!
//! Nothing of this is in `quorate` itself. Invariant: an adversary breaks no cryptography: it signs with the key
//! of the replica whose place it takes, and with no other.

mod double_voter;
mod forger;
mod listener;
mod member;

use std::path::PathBuf;

use clap::Parser;
use quorate::service::{
    config::{ReplicaConfig, ReplicaFlags},
    replica::Membership,
};

/// Run an adversary in a replica's place
#[derive(Debug, Parser)]
struct Arguments {
    /// What it does
    #[arg(value_enum)]
    behaviour: Behaviour,
    /// The configuration of the replica whose place it takes
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where a listener writes what it hears
    #[arg(long, value_name = "FILE", required_if_eq("behaviour", "listener"))]
    wire: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Behaviour {
    /// Votes for a second block in each view
    DoubleVoter,
    /// Reports samples that nobody posted, and endorses plans that nobody else derives
    Forger,
    /// Votes, and writes down every frame that arrives
    Listener,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { behaviour, config, wire } = Arguments::parse();
    let flags = ReplicaFlags { config: Some(config), ..ReplicaFlags::default() };
    let config = ReplicaConfig::resolve(flags)?;
    let membership = Membership::read(&config)?;
    match behaviour {
        Behaviour::DoubleVoter => double_voter::run(&config, membership).await,
        Behaviour::Forger => forger::run(&config, membership).await,
        Behaviour::Listener => listener::run(&config, membership, &wire.unwrap_or_default()).await,
    }
}
