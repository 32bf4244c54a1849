//! Consensus under load: n processes of this program on loopback with TLS and journals, a client in one.
//!
//! `driver` starts them and counts what they use; `replica` is what each of them does; `protocol` is what
//! they say to each other. Only consensus runs: no windows, no plans, no Postgres.

mod client;
mod driver;
mod protocol;
mod replica;

pub use driver::{BenchError, Figures, Setting, measure};
pub use protocol::Said;
pub use replica::{ReplicaError, Seat, run};
