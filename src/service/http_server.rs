//! The HTTP server under the API and the telemetry door: its own accept loop, with the bounds that a server
//! for strangers needs.
//!
//! HTTP/1.0 and HTTP/1.1, over TLS where it is told to. It knows no route and no right; [`bounds`] names what a
//! client may cost, and [`HttpCounters`] counts what was ended. Invariant: a client that is slow or silent holds a
//! connection for a bounded time, and clients together, and each of them, hold a bounded number of them.

pub mod bounds;
mod counters;
mod exchange;
mod places;
mod tls;
mod watch;

use std::{net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch as channel,
    task::JoinSet,
};

pub use self::{
    bounds::Bounds,
    counters::{Cut, HttpCounters, HttpMetrics},
    tls::{Tls, TlsError, TlsFiles},
};
use self::{
    bounds::{LINGER_BYTES, LINGER_TIMEOUT, MAX_HEAD_BYTES, MAX_HEADERS},
    exchange::Exchange,
    places::{Place, Places},
    watch::{Transport, Watch, Watched},
};

/// How long to wait when a connection cannot be accepted: too many open files, mostly, and some will end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a client without a place gets, if it still reads: the connection is closed at once.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 30\r\ncontent-length: 0\r\n\
    connection: close\r\n\r\n";

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

/// Serves without TLS and with the usual bounds until `stop` is true, then drains for a bounded time.
pub async fn serve(listener: TcpListener, router: Router, stop: channel::Receiver<bool>) {
    Server::default().serve(listener, router, stop).await;
}

/// How to serve.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// What clients may cost.
    pub bounds: Bounds,
    /// The certificate to show; without one, nothing is encrypted.
    pub tls: Option<Tls>,
    /// What is counted.
    pub counters: Arc<HttpCounters>,
}

impl Server {
    /// Serves until `stop` is true, then drains for a bounded time.
    pub async fn serve(self, listener: TcpListener, router: Router, mut stop: channel::Receiver<bool>) {
        let Self { bounds, tls, counters } = self;
        let places = Places::new(&bounds, Arc::clone(&counters));
        let drain = bounds.drain;
        let serving = Serving { router, tls, bounds: Arc::new(bounds), counters, stop: stop.clone() };
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Ok((stream, address)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            serving.counters.accepted();
            match places.take(address.ip()) {
                Ok(place) => {
                    connections.spawn(serving.clone().connection(stream, place));
                }
                Err(cut) => {
                    serving.counters.cut(cut);
                    if serving.tls.is_none() {
                        // A client whose system does not take this at once learns it from the closed connection.
                        let _ = stream.try_write(NO_PLACE);
                    }
                }
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(drain, drained).await.is_err() {
            (0..connections.len()).for_each(|_| serving.counters.cut(Cut::Stopped));
            connections.shutdown().await;
        }
    }
}

/// What every connection needs.
#[derive(Clone, Debug)]
struct Serving {
    router: Router,
    tls: Option<Tls>,
    bounds: Arc<Bounds>,
    counters: Arc<HttpCounters>,
    stop: channel::Receiver<bool>,
}

impl Serving {
    async fn connection(mut self, stream: TcpStream, _place: Place) {
        // Answers are small; waiting for more bytes to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let Some(transport) = self.encrypt(stream).await else { return };
        let watch = Watch::new(Arc::clone(&self.bounds));
        let exchange = Exchange {
            router: self.router.clone(),
            watch: Arc::clone(&watch),
            bounds: Arc::clone(&self.bounds),
            counters: Arc::clone(&self.counters),
        };
        let io = TokioIo::new(Watched { transport, watch: Arc::clone(&watch) });
        let mut connection = builder().serve_connection(io, exchange);
        let mut stopping = false;
        let ended = loop {
            let work = std::future::poll_fn(|context| match connection.poll_without_shutdown(context) {
                Poll::Ready(ended) => Poll::Ready(ended),
                Poll::Pending => Poll::Pending,
            });
            tokio::select! {
                ended = work => break ended,
                cut = watch.overdue() => {
                    self.counters.cut(cut);
                    if cut == Cut::AnswerNotTaken {
                        connection.into_parts().io.into_inner().transport.forget_unsent();
                    }
                    return;
                }
                _ = self.stop.wait_for(|stop| *stop), if !stopping => {
                    Pin::new(&mut connection).graceful_shutdown();
                    stopping = true;
                }
            }
        };
        let refused = ended.as_ref().err().and_then(refused_head);
        if let Some(cut) = refused {
            self.counters.cut(cut);
        }
        let transport = connection.into_parts().io.into_inner().transport;
        close(transport, refused.is_some() || watch.answered_early()).await;
    }

    async fn encrypt(&self, stream: TcpStream) -> Option<Transport> {
        let Some(tls) = &self.tls else { return Some(Transport::Plain(stream)) };
        match tokio::time::timeout(self.bounds.handshake, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => return Some(Transport::Encrypted(Box::new(stream))),
            Ok(Err(_)) => self.counters.cut(Cut::HandshakeFailed),
            Err(_) => self.counters.cut(Cut::HandshakeTimeout),
        }
        None
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The watch's bounds hold instead: they tell an idle connection from a slow head.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES * 2);
    builder
}

/// What was wrong with a head; none when the client broke off, which is its own business.
fn refused_head(error: &hyper::Error) -> Option<Cut> {
    if error.is_parse_too_large() {
        Some(Cut::HeadTooLarge)
    } else if error.is_parse() {
        Some(Cut::Malformed)
    } else {
        None
    }
}

/// Ends a connection so that the client gets its answer: after an early one, what it still sends is read for a
/// bounded time, because closing at once would reset the connection and take the answer back.
async fn close(mut transport: Transport, early: bool) {
    let closing = async {
        // Whoever is gone needs no farewell.
        if transport.shutdown().await.is_ok() && early {
            let mut buffer = vec![0; 16 * 1024];
            let mut left = LINGER_BYTES;
            while let Ok(read @ 1..) = transport.read(&mut buffer).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, closing).await;
}
