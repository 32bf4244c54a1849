//! An adversary that is two honest replicas with one key, each of which talks to a part of the committee; who is in which
//! part changes over time (Bano et al., "Twins: BFT Systems Made Robust", 2021).
//!
//! It makes no message that an honest replica would not make. Invariant: no replica hears both sides at a time.

use quorate::{
    consensus::{Command, Config, Input},
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

/// From when on who is in which part: by place, none for those that talk with both, as fellow twins do.
pub type Sides = Vec<(u64, Vec<Option<Side>>)>;

/// Two honest replicas with one key.
#[derive(Debug)]
pub(super) struct Twin {
    config: Config,
    left: Puppet,
    right: Puppet,
    sides: Sides,
    /// Which of the partitions holds.
    current: usize,
}

impl Twin {
    /// With this place and key; `sides` says who talks with which side when.
    #[must_use]
    pub(super) fn new(config: Config, sides: Sides) -> Self {
        let (left, right) = (Puppet::new(config.clone()), Puppet::new(config.clone()));
        Self { left, right, config, sides, current: 0 }
    }

    fn side_of(&self, peer: ReplicaIndex) -> Option<Side> {
        let (_, sides) = self.sides.get(self.current)?;
        sides.get(peer.as_usize()).copied().flatten()
    }

    fn next_partition_ms(&self) -> Option<u64> {
        self.sides.get(self.current + 1).map(|(from_ms, _)| *from_ms)
    }

    /// Enters the next partition when its time has come: whoever changes sides gets a link to the other one.
    fn move_on(&mut self, now_ms: u64) {
        while self.next_partition_ms().is_some_and(|from_ms| from_ms <= now_ms) {
            let peers: Vec<_> = self.config.committee.replicas().collect();
            let before: Vec<_> = peers.iter().map(|peer| self.side_of(*peer)).collect();
            self.current += 1;
            for (peer, before) in peers.into_iter().zip(before) {
                if let Some(side) = self.side_of(peer).filter(|side| before != Some(*side)) {
                    self.puppet(side).handle(now_ms, Input::PeerConnected(peer));
                }
            }
        }
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
        self.move_on(now_ms);
        // Another twin says which side of it speaks.
        let side = letter.mark.or_else(|| self.side_of(letter.from)).unwrap_or(Side::Left);
        if let Words::Consensus(message) = letter.words {
            self.puppet(side).handle(now_ms, Input::Message { from: letter.from, message });
        }
    }

    fn submit(&mut self, now_ms: u64, command: &Command) {
        self.left.handle(now_ms, Input::Submit(command.clone()));
        self.right.handle(now_ms, Input::Submit(command.clone()));
    }

    fn connected(&mut self, now_ms: u64, peer: ReplicaIndex) {
        self.left.handle(now_ms, Input::PeerConnected(peer));
        self.right.handle(now_ms, Input::PeerConnected(peer));
    }

    fn timer(&mut self, now_ms: u64) {
        self.move_on(now_ms);
        for puppet in [&mut self.left, &mut self.right] {
            if puppet.next_wake_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                puppet.handle(now_ms, Input::Timer);
            }
        }
    }

    fn next_wake_ms(&self) -> Option<u64> {
        let wakes = [self.left.next_wake_ms(), self.right.next_wake_ms(), self.next_partition_ms()];
        wakes.into_iter().flatten().min()
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
