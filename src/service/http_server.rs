//! The HTTP server under the API and the telemetry door: its own accept loop, with the bounds that a server
//! for strangers needs.
//!
//! Invariant: a client that is slow or silent holds a connection for a bounded time, and clients together hold
//! a bounded number of them.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

/// How many connections are held at once; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 1_024;

/// How long a client may take to send a request's header, also on a connection that was kept alive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a shutdown waits for requests under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}; choose another port or stop what uses it")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    error: std::io::Error,
}

/// Binds an address.
///
/// # Errors
/// [`ListenError`] when it is taken or not this machine's.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|error| ListenError { address, error })
}

/// Serves until `stop` is true, then drains for a bounded time.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            accepted = async { (place.await, listener.accept().await) } => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (Ok(place), Ok((stream, _))) = accepted else {
            // Too many open files, mostly: a pause gives connections time to end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Answers are small; waiting for more bytes to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A client that breaks off is its own business.
            let _ = connection.await;
            drop(place);
        });
    }
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
}
