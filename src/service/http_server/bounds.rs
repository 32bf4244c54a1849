//! What a client may cost the server: every bound has its reason beside it. Tests use shorter ones; nothing
//! else does.
//!
//! Invariant: whatever a client does or leaves undone, at least one of these ends it.

use std::time::Duration;

/// How many connections are held at once. Each costs a task and up to [`MAX_HEAD_BYTES`] of buffer, and a
/// system gives a process 1,024 files before anybody asks for more: journal, Postgres and links need theirs.
pub const MAX_CONNECTIONS: usize = 768;

/// How many of them one address may hold, so that one machine cannot keep all others out. An engine's host or
/// a proxy that stands for many clients fits; a /64 counts as one address in IPv6, because one host has it all.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 256;

/// How long a TLS handshake may take: two round trips and a signature, over a poor link.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request's head may take, from the connection's begin or the head's first byte. A head fits in a
/// few packets.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may rest between two requests. Exporters come once a minute and should find theirs.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a body may stand still, counted while the server waits for it.
pub const BODY_STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a whole body may take. Exporters give up after ten seconds; one that trickles holds no place longer.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a request may take from its head to the begin of its answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The same for a request that asks to wait for news: the API's longest wait and the time for the rest.
pub const LONG_POLL_TIMEOUT: Duration = Duration::from_secs(50);

/// How long a client may take no byte of an answer that waits for it.
pub const ANSWER_STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take for a whole answer. The largest are four megabytes of plans.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest request target. Ours have at most some hundred bytes.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// The largest head, request line included. Browsers and proxies send at most a few thousand bytes.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;

/// How many header fields a request may have.
pub const MAX_HEADERS: usize = 64;

/// The largest body. The telemetry door and the documents' routes have smaller ones of their own and say so
/// in the client's format; this holds for whatever route forgets to.
pub const MAX_BODY_BYTES: usize = 5 * 1024 * 1024;

/// How long the server reads on, after an answer that came before the request's end: a client that still writes
/// would else lose the answer to a reset connection.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How much it reads on.
pub const LINGER_BYTES: usize = 8 * 1024 * 1024;

/// How long a shutdown waits for requests under way.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The bounds of one server.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// [`MAX_CONNECTIONS_PER_ADDRESS`].
    pub connections_per_address: usize,
    /// [`HANDSHAKE_TIMEOUT`].
    pub handshake: Duration,
    /// [`HEADER_TIMEOUT`].
    pub header: Duration,
    /// [`IDLE_TIMEOUT`].
    pub idle: Duration,
    /// [`BODY_STALL_TIMEOUT`].
    pub body_stall: Duration,
    /// [`BODY_TIMEOUT`].
    pub body: Duration,
    /// [`REQUEST_TIMEOUT`].
    pub request: Duration,
    /// [`LONG_POLL_TIMEOUT`].
    pub long_poll: Duration,
    /// [`ANSWER_STALL_TIMEOUT`].
    pub answer_stall: Duration,
    /// [`ANSWER_TIMEOUT`].
    pub answer: Duration,
    /// [`DRAIN_TIMEOUT`].
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            connections_per_address: MAX_CONNECTIONS_PER_ADDRESS,
            handshake: HANDSHAKE_TIMEOUT,
            header: HEADER_TIMEOUT,
            idle: IDLE_TIMEOUT,
            body_stall: BODY_STALL_TIMEOUT,
            body: BODY_TIMEOUT,
            request: REQUEST_TIMEOUT,
            long_poll: LONG_POLL_TIMEOUT,
            answer_stall: ANSWER_STALL_TIMEOUT,
            answer: ANSWER_TIMEOUT,
            drain: DRAIN_TIMEOUT,
        }
    }
}
