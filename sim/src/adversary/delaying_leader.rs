//! An adversary that delays its proposals to just under the view's timeout, and sometimes to just above it.
//!
//! Else it behaves as an honest replica. Invariant: it sends every message in the end.

use quorate::consensus::Message;

use super::puppeteer::Behaviour;
use crate::rng::Stream;

/// The base timeout of a view, in milliseconds.
const VIEW_TIMEOUT_MS: u64 = 1_000;

/// Proposes as late as it can.
#[derive(Debug)]
pub(super) struct DelayingLeader {
    stream: Stream,
}

impl DelayingLeader {
    pub(super) const fn new(stream: Stream) -> Self {
        Self { stream }
    }
}

impl Behaviour for DelayingLeader {
    fn holds_ms(&mut self, message: &Message) -> u64 {
        match message {
            Message::Proposal(_) => self.stream.between(VIEW_TIMEOUT_MS * 7 / 10, VIEW_TIMEOUT_MS * 11 / 10),
            Message::Vote(_)
            | Message::Timeout(_)
            | Message::Certificates(_)
            | Message::Commands(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_) => 0,
        }
    }
}
