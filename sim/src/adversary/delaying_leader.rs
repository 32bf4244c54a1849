//! An adversary that delays its proposals to just under the view's timeout, and sometimes to just above it.
//!
//! Else it behaves as an honest replica. Invariant: it sends every message in the end.

use quorate::consensus::Message;

use super::puppeteer::Behaviour;
use crate::{letter::Words, rng::Stream};

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
    fn holds_ms(&mut self, words: &Words) -> u64 {
        match words {
            Words::Consensus(Message::Proposal(_)) => {
                self.stream.between(VIEW_TIMEOUT_MS * 7 / 10, VIEW_TIMEOUT_MS * 11 / 10)
            }
            Words::Consensus(_) | Words::Endorsement(_) => 0,
        }
    }
}
