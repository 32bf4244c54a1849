//! `quorate relay`: one telemetry door for an engine, whose bodies go to every replica.
//!
//! It decides nothing. Invariant: it ends with code 0 only when it was asked to end.

use serde::Serialize;
use std::{
    collections::BTreeSet,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use tokio::sync::watch;

use super::{ClientFlags, ExitCode, Failure, output::Output, replay_otlp::door_address};
use crate::{
    service::{
        entrance::{Entrance, EntranceFlags},
        http_server,
        lifecycle::asked_to_end,
        relay::{
            Relay, RelayConfig, RelayError, Replica, ReplicaStatus,
            queue::{LEAST_QUEUE_BYTES, OpenError, Recovery},
        },
        telemetry::{self, TelemetryConfig},
    },
    types::Millis,
};

const EXAMPLES: &str = "\
Examples:
  quorate relay --to http://127.0.0.1:8101 --to http://127.0.0.1:8102 --to http://127.0.0.1:8103
      OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 then reaches all three replicas
  quorate relay --queue /var/lib/quorate/relay --to r0=http://10.0.0.1:8101 --to r1=http://10.0.1.1:8101
      replicas by name: the queue knows them by it when an address changes
  curl http://127.0.0.1:4318/v1/status
      what waits for each replica, what became of the rest; /metrics, /readyz and /livez are there too

An answer of 200 says that a body is durable in the queue for every replica. It is sent until the replica has
answered, also after a crash of the relay; resends are counted once by replicas. What is dropped, because it
became too old or the queue is full, is counted for each replica.

What waits for a replica whose name is not given any more is given up at the next start.";

/// Forward telemetry to every replica, with a queue on disk for those that are away.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A replica's telemetry door; /v1/metrics is added when it has no path. Once for each replica. Without a
    /// name it is called by its host and port.
    #[arg(long = "to", value_name = "[NAME=]URL", required = true, value_parser = replica)]
    replicas: Vec<Replica>,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 4318)))]
    listen: SocketAddr,
    /// The folder of the queue, for one relay alone: on a disk that survives the machine's restart.
    #[arg(long, env = "QUORATE_RELAY_QUEUE", value_name = "DIR", default_value = "quorate-relay-queue")]
    queue: PathBuf,
    /// How many bytes the queue may take; when it is full the oldest bodies go, because their windows closed
    /// first. The default holds ten minutes of a thousand bodies a second, of a kilobyte each.
    #[arg(long, value_name = "BYTES", default_value_t = 640 * 1024 * 1024,
          value_parser = clap::value_parser!(u64).range(LEAST_QUEUE_BYTES..=MOST_QUEUE_BYTES))]
    queue_bytes: u64,
    /// Seconds after which a body is dropped. Replicas refuse samples of closed windows, so older bodies would
    /// only delay fresh ones; the default is longer than a replica's restart or upgrade.
    #[arg(long, value_name = "SECONDS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(1..=MOST_SECONDS))]
    max_age: u64,
    /// Which events are logged, such as `info` or `quorate=debug`.
    #[arg(long, env = "QUORATE_LOG_FILTER", value_name = "FILTER", default_value = "info")]
    log_filter: String,
    #[command(flatten)]
    entrance: EntranceFlags,
    #[command(flatten)]
    reach: ClientFlags,
}

/// A start reads the whole queue: with more it would take minutes.
const MOST_QUEUE_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// A week: no replica's monitor looks further back by far.
const MOST_SECONDS: u64 = 7 * 24 * 3_600;

fn replica(text: &str) -> Result<Replica, String> {
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !name.is_empty() && name.len() <= 64 && name.chars().all(allowed)
    };
    if let Some((name, url)) = text.split_once('=').filter(|(name, _)| !name.contains("://")) {
        if !is_name(name) {
            return Err(format!("{name:?} is no name: up to 64 letters, digits, dots, dashes, underscores"));
        }
        return Ok(Replica { name: name.to_owned(), address: door_address(url)? });
    }
    let address = door_address(text)?;
    let name = address.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or(&address);
    Ok(Replica { name: name.to_owned(), address })
}

/// Runs the relay until it is asked to end.
///
/// # Errors
/// [`Failure`] when the address is taken or the queue cannot be used.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let mut names = BTreeSet::new();
    if let Some(twice) = arguments.replicas.iter().find(|replica| !names.insert(&replica.name)) {
        let error = anyhow::anyhow!("--to names the replica {} twice", twice.name);
        return Err(Failure::usage(error).next("give each replica once, or each a NAME= of its own"));
    }
    let addresses: Vec<String> = arguments.replicas.iter().map(|replica| replica.address.clone()).collect();
    let client = arguments.reach.client(&addresses)?;
    let telemetry =
        TelemetryConfig { log_filter: arguments.log_filter.clone(), ..TelemetryConfig::default() };
    let telemetry = telemetry::init(&telemetry).map_err(Failure::configuration)?;
    let entrance = Entrance::open(&arguments.entrance.config(), arguments.listen);
    let entrance = entrance.map_err(Failure::configuration)?;
    let listener = http_server::listen(arguments.listen).await.map_err(Failure::failed)?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    let config = RelayConfig {
        replicas: arguments.replicas,
        folder: arguments.queue.clone(),
        queue_bytes: arguments.queue_bytes,
        max_age: Millis::from_secs(arguments.max_age),
    };
    let relay = Relay::start(config, &client).map_err(failure)?;
    warn_of(relay.recovery());
    let (stop, stopped) = watch::channel(false);
    let (scheme, routes) = (entrance.scheme(), relay.routes(entrance.metrics()));
    let server = tokio::spawn(entrance.serve(listener, routes, stopped));
    let replicas = relay.status().replicas;
    let waiting = replicas.iter().map(|replica| replica.lag.bodies).max().unwrap_or(0);
    output.event(&Listening {
        address,
        scheme,
        replicas: replicas.len(),
        queue: arguments.queue,
        waiting,
    })?;
    asked_to_end().await;
    stop.send_replace(true);
    server.await.map_err(Failure::failed)?;
    for replica in relay.stop().await.replicas {
        output.event(&Ended { replica })?;
    }
    telemetry.shutdown().await;
    Ok(ExitCode::Done)
}

fn warn_of(recovery: &Recovery) {
    if recovery.torn_bytes > 0 {
        let bytes = recovery.torn_bytes;
        tracing::info!(
            bytes,
            "an unfinished write at the queue's end was cut off; nothing in it was acknowledged"
        );
    }
    for damage in &recovery.damage {
        tracing::warn!(%damage, "the queue is damaged; what can be read is sent");
    }
    if !recovery.damage.is_empty() {
        tracing::warn!(bodies = recovery.lost_bodies, "bodies are lost to damage");
    }
    for (replica, bodies) in &recovery.forgotten {
        tracing::warn!(replica, bodies, "the replica is not named any more; what waited for it is given up");
    }
}

fn failure(error: RelayError) -> Failure {
    match &error {
        RelayError::InUse { .. }
        | RelayError::Folder { .. }
        | RelayError::Random(_)
        | RelayError::Thread(_)
        | RelayError::Queue { error: OpenError::Disk(_), .. } => Failure::failed(error),
        RelayError::Queue { error: OpenError::Version { .. }, .. } => Failure::refused(error),
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "relay_listening")]
struct Listening {
    address: SocketAddr,
    scheme: &'static str,
    replicas: usize,
    queue: PathBuf,
    /// Bodies from before that wait for the replica that lacks most.
    waiting: u64,
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, scheme, replicas, queue, waiting } = self;
        write!(
            f,
            "relay: {scheme}://{address} forwards to {replicas} replicas, its queue in {}",
            queue.display()
        )?;
        if *waiting > 0 {
            write!(f, "; {waiting} bodies from before are sent now")?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "relay_ended")]
struct Ended {
    #[serde(flatten)]
    replica: ReplicaStatus,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReplicaStatus { name, sent, refused, dropped, lag, .. } = &self.replica;
        write!(f, "relay: {name} took {sent}, refused {refused}, never got {}", dropped.total())?;
        match lag.bodies {
            0 => Ok(()),
            1 => write!(f, "; 1 body waits for {name}; it is sent at the next start"),
            bodies => write!(f, "; {bodies} bodies wait for {name}; they are sent at the next start"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::replica;

    #[test]
    fn a_replica_is_called_by_its_name_or_else_by_its_host_and_port() {
        let parsed = |text| replica(text).map(|replica| (replica.name, replica.address));
        let is = |name: &str, address: &str| Ok((name.to_owned(), address.to_owned()));
        for (text, name, address) in [
            ("http://127.0.0.1:8101", "127.0.0.1:8101", "http://127.0.0.1:8101/v1/metrics"),
            ("r0=http://10.0.0.1:8101/", "r0", "http://10.0.0.1:8101/v1/metrics"),
            ("http://[::1]:1/x?tenant=a", "[::1]:1", "http://[::1]:1/x?tenant=a"),
            ("eu-1.a=https://quorate.example/otlp", "eu-1.a", "https://quorate.example/otlp"),
        ] {
            assert_eq!(parsed(text), is(name, address), "{text}");
        }
        for (text, told) in [
            ("a b=http://127.0.0.1:8101", "\"a b\" is no name"),
            ("=http://127.0.0.1:8101", "\"\" is no name"),
            ("r0=127.0.0.1:8101", "an address of a door looks like"),
            ("ftp://127.0.0.1", "an address of a door looks like"),
        ] {
            let refused = replica(text).expect_err("it is none");
            assert!(refused.contains(told), "{text}: {refused}");
        }
    }
}
