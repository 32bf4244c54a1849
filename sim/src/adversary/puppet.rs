//! An honest core without a journal, whose messages an adversary distorts.
//!
//! It never restarts and answers no fetch from a journal. Invariant: it says only what an honest replica would.

use quorate::{
    consensus::{CommittedBlock, Config, Core, Input, Message, Output, Recovery},
    types::{Millis, ReplicaIndex},
};

/// The core of an adversary.
#[derive(Debug)]
pub(super) struct Puppet {
    core: Core,
    peers: Vec<ReplicaIndex>,
    committed: Vec<CommittedBlock>,
}

impl Puppet {
    pub(super) fn new(config: Config) -> Self {
        let peers = config.committee.replicas().filter(|peer| *peer != config.me).collect();
        Self { core: Recovery::new(config).finish(), peers, committed: Vec::new() }
    }

    /// Gives it an input. What it refuses is no concern of an adversary.
    pub(super) fn handle(&mut self, now_ms: u64, input: Input) {
        let _refused = self.core.handle(Millis::new(now_ms), input).is_err();
    }

    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        self.core.next_timeout().map(Millis::as_millis)
    }

    /// The blocks that were committed since it was asked last.
    pub(super) fn committed(&mut self) -> Vec<CommittedBlock> {
        std::mem::take(&mut self.committed)
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
                Output::Commit(committed) => self.committed.push(committed),
                Output::Persist(_)
                | Output::Append(_)
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
