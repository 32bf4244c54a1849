//! What one connection is doing, and since when: the phases of a request, seen from the bytes that pass and
//! from the exchange that answers it.
//!
//! It reads and writes nothing itself. Invariant: outside an exchange, which has bounds of its own, a
//! connection always has a deadline.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_rustls::server::TlsStream;

use super::{Bounds, Cut};

/// A phase that ends late is noticed within this time; looking is cheap.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a connection stands between two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The head of a request is awaited or arrives: the first of the connection, or one whose first byte came.
    Head,
    /// A request is read and answered.
    Exchange,
    /// Its answer is being written.
    Answer,
    /// Nothing is under way.
    Idle,
}

/// An answer that the client has not taken yet.
#[derive(Clone, Copy, Debug)]
struct Unsent {
    since: Instant,
    progress: Instant,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    unsent: Option<Unsent>,
    /// The answer came before the request's end.
    early: bool,
}

/// What one connection is doing.
#[derive(Debug)]
pub(super) struct Watch {
    bounds: Arc<Bounds>,
    state: Mutex<State>,
}

impl Watch {
    pub(super) fn new(bounds: Arc<Bounds>) -> Arc<Self> {
        let state = State { phase: Phase::Head, since: Instant::now(), unsent: None, early: false };
        Arc::new(Self { bounds, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        (state.phase, state.since) = (phase, Instant::now());
    }

    /// A request's head is complete.
    pub(super) fn exchange_begins(&self) {
        self.enter(Phase::Exchange);
    }

    /// The answer is made; `early` when the request's body has not been read to its end.
    pub(super) fn exchange_ends(&self, early: bool) {
        self.enter(Phase::Answer);
        self.state().early |= early;
    }

    /// Whether an answer came before its request's end.
    pub(super) fn answered_early(&self) -> bool {
        self.state().early
    }

    fn has_read(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, Instant::now());
        }
    }

    fn has_written(&self) {
        if let Some(unsent) = &mut self.state().unsent {
            unsent.progress = Instant::now();
        }
    }

    fn waits_to_write(&self) {
        let now = Instant::now();
        self.state().unsent.get_or_insert(Unsent { since: now, progress: now });
    }

    fn has_flushed(&self) {
        let mut state = self.state();
        state.unsent = None;
        if state.phase == Phase::Answer {
            (state.phase, state.since) = (Phase::Idle, Instant::now());
        }
    }

    fn deadline(&self) -> Option<(Instant, Cut)> {
        let state = self.state();
        let bounds = &self.bounds;
        let reading = match state.phase {
            Phase::Head => Some((state.since + bounds.header, Cut::HeaderTimeout)),
            Phase::Idle => Some((state.since + bounds.idle, Cut::IdleTimeout)),
            Phase::Answer => Some((state.since + bounds.answer, Cut::AnswerNotTaken)),
            Phase::Exchange => None,
        };
        let writing = state.unsent.map(|unsent| {
            let at = (unsent.since + bounds.answer).min(unsent.progress + bounds.answer_stall);
            (at, Cut::AnswerNotTaken)
        });
        reading.into_iter().chain(writing).min_by_key(|(at, _)| *at)
    }

    /// Ends when the connection has outstayed a bound.
    pub(super) async fn overdue(&self) -> Cut {
        loop {
            let now = Instant::now();
            let mut next = now + LOOK_EVERY;
            if let Some((at, cut)) = self.deadline() {
                if at <= now {
                    return cut;
                }
                next = next.min(at);
            }
            sleep_until(next).await;
        }
    }
}

/// The bytes of a connection, encrypted or not.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Transport {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Encrypted(tls) => tls.get_ref().0,
        }
    }

    /// Gives up what the client has not taken: the system would keep it for minutes else.
    pub(super) fn forget_unsent(&self) {
        // Without it the connection ends all the same, only later.
        let _ = self.tcp().set_zero_linger();
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Encrypted(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Self::Encrypted(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Encrypted(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Encrypted(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}

/// A transport that tells the watch of the bytes that pass.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) transport: Transport,
    pub(super) watch: Arc<Watch>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.transport).poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.watch.has_read();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.transport).poll_write(context, bytes);
        match &written {
            Poll::Ready(_) => self.watch.has_written(),
            Poll::Pending => self.watch.waits_to_write(),
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let flushed = Pin::new(&mut self.transport).poll_flush(context);
        match &flushed {
            Poll::Ready(_) => self.watch.has_flushed(),
            Poll::Pending => self.watch.waits_to_write(),
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}
