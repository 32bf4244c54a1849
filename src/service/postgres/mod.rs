//! A private Postgres for `quorate dev` and for tests: the installed binaries over a folder of our own, on a
//! unix socket only.
//!
//! It is not how a replica in production gets its database: that one is given a URL. Invariant: the server
//! ends when the process that started it ends, however that ends. A helper process holds one end of a pipe;
//! when this process closes the other end, by [`PrivatePostgres::stop`], by dropping it or by dying, the
//! helper shuts the server down.
//!
//! The socket's folder belongs to the server's user and nobody else may enter it; whoever may (that user and
//! root) is trusted without a password.

mod error;
mod folder;
mod processes;
mod programs;
mod server;
mod user;

pub use error::{EnsureDatabaseError, PostgresError};
pub use server::PrivatePostgres;
