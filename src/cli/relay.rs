//! `quorate relay`: one telemetry door for an engine, whose bodies go to every replica.
//!
//! It decides nothing. Invariant: it ends with code 0 only when it was asked to end.

use serde::Serialize;
use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
};
use tokio::sync::watch;

use super::{ExitCode, Failure, output::Output, replay_otlp::door_address};
use crate::service::{
    http_server,
    lifecycle::asked_to_end,
    relay::{Relay, ReplicaCounts},
};

const EXAMPLES: &str = "\
Examples:
  quorate relay --to http://127.0.0.1:8101 --to http://127.0.0.1:8102 --to http://127.0.0.1:8103
      OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 then reaches all three replicas
  curl http://127.0.0.1:4318/v1/status
      what became of the bodies, for each replica

An answer of 200 says that a body is queued for every replica. The queues are in memory: what waits for a
replica that is down is dropped after a minute, or when the relay ends.";

/// Forward telemetry to every replica.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A replica's telemetry door; /v1/metrics is added when it has no path. Once for each replica.
    #[arg(long = "to", value_name = "URL", required = true, value_parser = door_address)]
    replicas: Vec<String>,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 4318)))]
    listen: SocketAddr,
}

/// Runs the relay until it is asked to end.
///
/// # Errors
/// [`Failure`] when the address is taken.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let listener = http_server::listen(arguments.listen).await.map_err(Failure::failed)?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    let relay = Relay::start(arguments.replicas);
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(http_server::serve(listener, relay.routes(), stopped));
    output.event(&Listening { address, replicas: relay.counts().len() })?;
    asked_to_end().await;
    stop.send_replace(true);
    server.await.map_err(Failure::failed)?;
    for counts in relay.stop().await {
        output.event(&Ended { counts })?;
    }
    Ok(ExitCode::Done)
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "relay_listening")]
struct Listening {
    address: SocketAddr,
    replicas: usize,
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "relay: http://{} forwards to {} replicas", self.address, self.replicas)
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "relay_ended")]
struct Ended {
    #[serde(flatten)]
    counts: ReplicaCounts,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReplicaCounts { address, sent, refused, dropped, queued: _ } = &self.counts;
        write!(f, "relay: {address} took {sent}, refused {refused}, never got {dropped}")
    }
}
