//! An adversary that withholds its votes and timeouts: for ever, or from some, as it likes in each view.
//!
//! Else it behaves as an honest replica, also as a leader. Invariant: what it does send is honest.

use quorate::{
    consensus::Message,
    types::{ReplicaIndex, View},
};

use super::puppeteer::Behaviour;
use crate::rng::Stream;

/// Keeps its votes to itself.
#[derive(Debug)]
pub(super) struct VoteWithholder {
    stream: Stream,
    /// The newest view and how many in a thousand of its votes it sends.
    mood: (View, u64),
}

impl VoteWithholder {
    pub(super) const fn new(stream: Stream) -> Self {
        Self { stream, mood: (View::ZERO, 0) }
    }

    fn sends(&mut self, view: View) -> bool {
        if view != self.mood.0 {
            let per_mille = [0, 0, 300, 1000][self.stream.index(4)];
            self.mood = (view, per_mille);
        }
        self.stream.chance(self.mood.1)
    }
}

impl Behaviour for VoteWithholder {
    fn says(&mut self, _to: ReplicaIndex, message: Message) -> Vec<Message> {
        let sent = match &message {
            Message::Vote(vote) => self.sends(vote.view),
            Message::Timeout(timeout) => self.sends(timeout.view),
            Message::Proposal(_)
            | Message::Certificates(_)
            | Message::Commands(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_)
            | Message::CheckpointVote(_)
            | Message::Checkpoint(_)
            | Message::Gone(_)
            | Message::ChunkRequest(_)
            | Message::Chunks(_)
            | Message::Committed(_) => true,
        };
        if sent { vec![message] } else { Vec::new() }
    }
}
