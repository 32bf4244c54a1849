//! Why a connection ended or did not come to be. It is shown in the status, and the link goes on.

use std::io;

use super::frame::{FrameError, Hello};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot connect to {address}: {error}")]
    Connect { address: String, error: io::Error },
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("connecting and handshake took too long")]
    HandshakeTimeout,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer sent a frame that is refused: {0}")]
    Frame(#[from] FrameError),
    #[error("the peer says {theirs}, this replica is {ours}")]
    Hello { ours: Hello, theirs: Hello },
    #[error("the peer was silent")]
    Silent,
    #[error("the peer opened a newer connection")]
    Replaced,
    #[error("the links are shut down")]
    ShutDown,
}
