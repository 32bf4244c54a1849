//! An adversary that is two honest replicas with one key, each of which talks to a part of the committee
//! (Bano et al., "Twins: BFT Systems Made Robust", 2021).
//!
//! It makes no message that an honest replica would not make. Invariant: no replica hears both sides.

use quorate::{
    consensus::{Config, Input},
    types::ReplicaIndex,
};

use super::{Adversary, puppet::Puppet};
use crate::letter::{Letter, Words};

/// One of a twin's two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one.
    Left,
    /// The other.
    Right,
}

/// Two honest replicas with one key.
#[derive(Debug)]
pub(super) struct Twin {
    config: Config,
    left: Puppet,
    right: Puppet,
    /// With which side each replica talks, by place; none: with both, as fellow twins do.
    sides: Vec<Option<Side>>,
}

impl Twin {
    /// With this place and key; `sides` says by place who talks with which side.
    #[must_use]
    pub(super) fn new(config: Config, sides: Vec<Option<Side>>) -> Self {
        Self { left: Puppet::new(config.clone()), right: Puppet::new(config.clone()), config, sides }
    }

    fn side_of(&self, peer: ReplicaIndex) -> Option<Side> {
        self.sides.get(peer.as_usize()).copied().flatten()
    }

    const fn puppet(&mut self, side: Side) -> &mut Puppet {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }
}

impl Adversary for Twin {
    fn receive(&mut self, now_ms: u64, letter: Letter) {
        // Another twin says which side of it speaks.
        let side = letter.mark.or_else(|| self.side_of(letter.from)).unwrap_or(Side::Left);
        if let Words::Consensus(message) = letter.words {
            self.puppet(side).handle(now_ms, Input::Message { from: letter.from, message });
        }
    }

    fn connected(&mut self, now_ms: u64, peer: ReplicaIndex) {
        self.left.handle(now_ms, Input::PeerConnected(peer));
        self.right.handle(now_ms, Input::PeerConnected(peer));
    }

    fn timer(&mut self, now_ms: u64) {
        for puppet in [&mut self.left, &mut self.right] {
            if puppet.next_wake_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                puppet.handle(now_ms, Input::Timer);
            }
        }
    }

    fn next_wake_ms(&self) -> Option<u64> {
        [self.left.next_wake_ms(), self.right.next_wake_ms()].into_iter().flatten().min()
    }

    fn letters(&mut self) -> Vec<Letter> {
        let from = self.config.me;
        let mut letters = Vec::new();
        for side in [Side::Left, Side::Right] {
            for (to, message) in self.puppet(side).messages() {
                if self.side_of(to).is_some_and(|other| other != side) {
                    continue;
                }
                letters.push(Letter { from, to, words: message.into(), mark: Some(side) });
            }
        }
        letters
    }
}
