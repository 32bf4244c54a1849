//! [I/O] The links between the replicas of a committee: TCP, mutual TLS 1.3 with raw public keys, bounded
//! queues, reconnection.
//!
//! It carries opaque frames and knows no consensus message. It promises nothing: a frame may be lost with its
//! connection or dropped from a full queue; consensus sends again what matters. Frames of one class from one
//! peer arrive in order, none twice. Invariant: an [`Inbound`]'s `from` held, in a TLS handshake of this
//! connection, the key that the committee lists at that place.
//!
//! 1. *Two connections per pair.* A replica sends on the connection that it dials itself and receives on those
//!    that it accepts; only pongs go the other way. Nobody has to agree on who dials. A newer accepted
//!    connection of a peer replaces the older.
//! 2. *Who is there.* Each side shows its Ed25519 key (RFC 7250) and signs the handshake. The dialler accepts
//!    only the key of the place it dials, the other side only keys of the committee. Nothing is resumed.
//! 3. *Hello.* Both sides then say protocol version, cluster and epoch; on a difference both close. Each also says which
//!    process it is, by a random number, and whoever accepts says which process with the dialler's key it met last before.
//!    A process that comes back after another one with its key came shows that two hold the key at once: a restart never
//!    comes back. Both sides see it; the dialler has only the other's word for it.
//! 4. *Frames* have a length and a kind, see `frame`. A claimed length is checked and then believed only as far
//!    as bytes arrive. A malformed frame closes the connection and is counted.
//! 5. *Outgoing.* Per peer and [`Class`] a queue bounded in frames and bytes. When it is full, the oldest frame
//!    is dropped and counted: of consensus messages the newest matter most.
//! 6. *Incoming.* Per peer a queue bounded in frames and bytes. When it is full, that peer's connection is not
//!    read any more. [`Inbox::recv`] takes from the peers in turn: a flooding peer delays only itself.
//! 7. *Silence.* The dialler pings; the answer gives round-trip time and the difference of the clocks. Who
//!    does not answer, or does not take what is written, for [`SILENCE`] is dialled anew, after a jittered delay
//!    that doubles.

mod accept;
mod dial;
mod error;
mod frame;
mod inbox;
mod links;
mod outbox;
mod status;
#[cfg(test)]
mod tests;
mod tls;

pub use frame::{Frame, FrameError, Greeting, Hello, MAX_FRAME_BYTES, Process};
pub use inbox::{INCOMING_BYTES, INCOMING_FRAMES, Inbound, Inbox};
pub use links::{LinkSender, Links, LinksConfig, LinksError, SendError};
pub use outbox::{Class, OUTGOING_BYTES, OUTGOING_FRAMES};
pub use status::{LinkStatus, LinksStatus};

use std::time::Duration;

/// How long a peer may leave a ping unanswered, a write untaken or a connection unused. Longer than a pause of
/// a loaded machine, shorter than an operator's patience.
pub const SILENCE: Duration = Duration::from_secs(10);

/// How often the dialler pings. Often enough for a fresh difference of clocks in each window of 10 s.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How long a peer's next failure is kept from the log: a flapping or hostile peer does not fill it.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How long connecting, TLS handshake and hello may take together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a shutdown waits for what is queued.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The times that tests change: they neither wait for a silence of real length nor lose on a slow machine.
#[derive(Clone, Copy, Debug)]
struct Times {
    ping: Duration,
    silence: Duration,
    flush: Duration,
}

impl Times {
    const USUAL: Self = Self { ping: PING_INTERVAL, silence: SILENCE, flush: FLUSH_TIMEOUT };
}

/// Bytes that are read, and small frames that are written, at once: four TLS records.
const BUFFER_BYTES: usize = 64 * 1024;
