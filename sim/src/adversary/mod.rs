//! Byzantine replicas: one behaviour per file, each with its real key.
//!
//! They may do anything but forge others' signatures, and they hear of each other through a mark on their
//! letters. Invariant: every command that they invent begins with [`INVENTED`], so that the invariants can tell
//! it from one that no one submitted.

mod double_voter;
mod equivocating_leader;
mod puppet;
mod silent;
mod twin;

use quorate::{
    consensus::{Config, Message},
    types::ReplicaIndex,
};
use std::fmt;

use crate::rng::Stream;

pub use double_voter::DoubleVoter;
pub use equivocating_leader::EquivocatingLeader;
pub use silent::Silent;
pub use twin::{Side, Twin};

/// How the heads of invented commands begin.
pub const INVENTED: &[u8] = b"invented ";

/// A message between two replicas.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Who sends it.
    pub from: ReplicaIndex,
    /// To whom.
    pub to: ReplicaIndex,
    /// What it says.
    pub message: Message,
    /// What one adversary tells another with it. Honest replicas do not see it.
    pub mark: Option<Side>,
}

/// A Byzantine replica. Time is in milliseconds.
pub trait Adversary: fmt::Debug {
    /// A letter arrived.
    fn receive(&mut self, now_ms: u64, letter: Letter);
    /// A link came up.
    fn connected(&mut self, now_ms: u64, peer: ReplicaIndex);
    /// Its own time has come.
    fn timer(&mut self, now_ms: u64);
    /// When its own time comes.
    fn next_wake_ms(&self) -> Option<u64>;
    /// What it sends, in order.
    fn letters(&mut self) -> Vec<Letter>;
}

/// The kinds of adversaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Says nothing.
    Silent,
    /// Proposes two blocks for each view that it leads.
    EquivocatingLeader,
    /// Votes for everything and for nothing that exists.
    DoubleVoter,
    /// Is two honest replicas with one key, each talking to a part of the committee.
    Twin,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Silent, Self::EquivocatingLeader, Self::DoubleVoter, Self::Twin];
}

/// An adversary of this kind. `sides` says by place with which side of a twin each replica talks.
#[must_use]
pub fn adversary(kind: Kind, config: Config, sides: &[Option<Side>], stream: Stream) -> Box<dyn Adversary> {
    match kind {
        Kind::Silent => Box::new(Silent),
        Kind::EquivocatingLeader => Box::new(EquivocatingLeader::new(config, stream)),
        Kind::DoubleVoter => Box::new(DoubleVoter::new(config, stream)),
        Kind::Twin => Box::new(Twin::new(config, sides.to_vec())),
    }
}
