//! An adversary that hears everything and says nothing: a crashed replica, for ever.
//!
//! It holds no state. Invariant: no letter of it exists.

use quorate::{consensus::Command, types::ReplicaIndex};

use super::Adversary;
use crate::letter::Letter;

/// Says nothing.
#[derive(Debug)]
pub(super) struct Silent;

impl Adversary for Silent {
    fn receive(&mut self, _now_ms: u64, _letter: Letter) {}

    fn submit(&mut self, _now_ms: u64, _command: &Command) {}

    fn connected(&mut self, _now_ms: u64, _peer: ReplicaIndex) {}

    fn timer(&mut self, _now_ms: u64) {}

    fn next_wake_ms(&self) -> Option<u64> {
        None
    }

    fn letters(&mut self) -> Vec<Letter> {
        Vec::new()
    }
}
