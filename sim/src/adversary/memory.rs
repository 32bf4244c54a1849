//! What an adversary remembers of what it heard, and how much it may still add.
//!
//! It makes no message. Invariant: it keeps a bounded number of messages, and an adversary that adds to a run adds
//! a bounded number, so that the cluster can come to rest.

use quorate::{
    consensus::{Message, QuorumCertificate, SignedTimeoutView, Timeout, Vote},
    types::View,
};
use std::collections::VecDeque;

use crate::rng::Stream;

/// How many messages are remembered.
const MOST_REMEMBERED: usize = 256;

/// How many messages one adversary adds in a run.
const MOST_ADDED: u64 = 600;

/// The newest messages that an adversary heard.
#[derive(Debug)]
pub(super) struct Memory {
    heard: VecDeque<Message>,
    left: u64,
}

/// The timeouts of one view, as they were heard.
#[derive(Clone, Debug)]
pub(super) struct HeardTimeouts {
    /// The view.
    pub(super) view: View,
    /// One a sender, in their order.
    pub(super) signed: Vec<SignedTimeoutView>,
    /// The highest certificate in them.
    pub(super) highest: QuorumCertificate,
}

impl Default for Memory {
    fn default() -> Self {
        Self { heard: VecDeque::new(), left: MOST_ADDED }
    }
}

impl Memory {
    pub(super) fn hear(&mut self, message: &Message) {
        self.heard.push_back(message.clone());
        if self.heard.len() > MOST_REMEMBERED {
            self.heard.pop_front();
        }
    }

    /// Whether it may add a message now: seldom, and not for ever.
    pub(super) const fn may_add(&mut self, stream: &mut Stream, per_mille: u64) -> bool {
        let yes = self.left > 0 && stream.chance(per_mille);
        if yes {
            self.left -= 1;
        }
        yes
    }

    pub(super) fn any(&self, stream: &mut Stream) -> Option<Message> {
        (!self.heard.is_empty()).then(|| self.heard[stream.index(self.heard.len())].clone())
    }

    fn votes(&self) -> impl Iterator<Item = &Vote> {
        self.heard
            .iter()
            .filter_map(|message| if let Message::Vote(vote) = message { Some(vote) } else { None })
    }

    fn timeouts(&self) -> impl Iterator<Item = &Timeout> {
        self.heard
            .iter()
            .filter_map(|message| if let Message::Timeout(timeout) = message { Some(timeout) } else { None })
    }

    /// Any vote that it heard.
    pub(super) fn any_vote(&self, stream: &mut Stream) -> Option<Vote> {
        let votes = self.votes().count();
        (votes > 0).then(|| stream.index(votes)).and_then(|place| self.votes().nth(place)).cloned()
    }

    /// The votes that it heard for the same block in the same view, one a voter, in the order of voters.
    pub(super) fn votes_like(&self, like: &Vote) -> QuorumCertificate {
        let same =
            |vote: &&Vote| (vote.view, vote.height, vote.block) == (like.view, like.height, like.block);
        let mut signatures: Vec<_> =
            self.votes().filter(same).map(|vote| (vote.voter, vote.signature)).collect();
        signatures.sort_by_key(|(voter, _)| *voter);
        signatures.dedup_by_key(|(voter, _)| *voter);
        QuorumCertificate { view: like.view, height: like.height, block: like.block, signatures }
    }

    /// The timeouts of the newest view of which it heard any.
    pub(super) fn newest_timeouts(&self) -> Option<HeardTimeouts> {
        let view = self.timeouts().map(|timeout| timeout.view).max()?;
        let newest = || self.timeouts().filter(|timeout| timeout.view == view);
        let highest = newest().max_by_key(|timeout| timeout.high_qc.view)?.high_qc.clone();
        let mut signed: Vec<_> = newest()
            .map(|timeout| SignedTimeoutView {
                signer: timeout.sender,
                high_qc_view: timeout.high_qc.view,
                signature: timeout.signature,
            })
            .collect();
        signed.sort_by_key(|timeout| timeout.signer);
        signed.dedup_by_key(|timeout| timeout.signer);
        Some(HeardTimeouts { view, signed, highest })
    }
}
