//! An honest core without a journal, whose messages an adversary distorts.
//!
//! It never restarts and answers no fetch from a journal. Invariant: it says only what an honest replica would.

use quorate::{
    consensus::{Config, Core, Input, Message, Output, Recovery},
    types::{Millis, ReplicaIndex},
};

/// The core of an adversary.
#[derive(Debug)]
pub(super) struct Puppet {
    core: Core,
    peers: Vec<ReplicaIndex>,
}

impl Puppet {
    pub(super) fn new(config: Config) -> Self {
        let peers = config.committee.replicas().filter(|peer| *peer != config.me).collect();
        Self { core: Recovery::new(config).finish(), peers }
    }

    /// Gives it an input. What it refuses is no concern of an adversary.
    pub(super) fn handle(&mut self, now_ms: u64, input: Input) {
        let _refused = self.core.handle(Millis::new(now_ms), input).is_err();
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        self.core.next_timeout().map(Millis::as_millis)
    }

    /// What an honest replica would send now, to whom.
    pub(super) fn messages(&mut self) -> Vec<(ReplicaIndex, Message)> {
        let mut messages = Vec::new();
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send { to, message } => messages.push((to, message)),
                Output::Broadcast(message) => {
                    messages.extend(self.peers.iter().map(|to| (*to, message.clone())));
                }
                Output::Persist(_)
                | Output::Append(_)
                | Output::Commit(_)
                | Output::Stable { .. }
                | Output::Diverged { .. }
                | Output::Install { .. }
                | Output::Evidence(_)
                | Output::ServeFromJournal { .. }
                | Output::ServeChunks { .. } => {}
            }
        }
        messages
    }
}
