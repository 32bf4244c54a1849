//! The relay: one telemetry door for an engine, whose bodies go to every replica.
//!
//! It decodes a body only to refuse what no replica would take; what it forwards are the client's own bytes. It
//! waits for no replica: an answer of 200 says that the body is durable in the relay's queue, from which each
//! replica's lane sends it until the replica has answered, so that one that is down costs the others nothing.
//! It decides nothing about telemetry. Invariant: every body that was answered with 200 is, for each replica,
//! sent, refused, dropped and counted, or still in the queue, also after a crash.
//!
//! | part | is |
//! |---|---|
//! | `door` | the HTTP door: what is taken, and what is answered under overload |
//! | `queue` | the format on disk, recovery, bounds; pure over a disk |
//! | `keeper` | the one thread that owns the queue; group commit |
//! | `lane` | one task a replica: sending, pauses, whether it is there |
//! | `metrics`, `status` | what is told of all this |
//! | `run` | the parts together |

mod door;
mod keeper;
mod lane;
mod metrics;
mod pause;
pub mod queue;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub use run::{Relay, RelayConfig, RelayError, Replica};
pub use status::{DoorStatus, QueueHealth, Reach, RelayStatus, ReplicaStatus};
