//! Small exhaustive models: the production core in committees of four, over every schedule within a bound.
//!
//! They are no proof beyond their bounds, and they know neither disks nor clocks: those are the simulator's. Both
//! walk an [`automaton`], which asks the core itself for each step and remembers the answer. Invariant: a model
//! takes nothing from the core's rules but its answers; what must hold is restated here.

pub mod automaton;
pub mod breadth;
pub mod twins;

use quorate::{
    consensus::{Config, ViewTimes},
    types::{Committee, Digest, Epoch, ReplicaIndex, SecretKey, View},
};
use std::sync::Arc;

/// How many replicas a model has: the fewest of which one may be Byzantine.
pub const REPLICAS: u8 = 4;

/// How many votes decide among four of which one may lie.
const QUORUM: usize = 3;

/// The secret key of a place.
fn key(place: u8) -> SecretKey {
    SecretKey::from_seed(&[place + 1; 32])
}

fn committee() -> Arc<Committee> {
    let members = (0..REPLICAS).map(|place| key(place).public()).collect();
    let committee = Committee::new(Digest::of(b"model"), Epoch::new(1), members);
    Arc::new(committee.expect("the keys are distinct"))
}

fn config(committee: &Arc<Committee>, place: u8) -> Config {
    Config {
        committee: Arc::clone(committee),
        me: replica(place),
        key: key(place),
        times: ViewTimes::default(),
        checkpoint_interval: 0,
    }
}

fn replica(place: u8) -> ReplicaIndex {
    ReplicaIndex::new(u16::from(place))
}

fn place(replica: ReplicaIndex) -> u8 {
    u8::try_from(replica.place()).expect("a model has four replicas")
}

/// Who leads a view, restated from the rules: each in turn.
fn leader(view: View) -> u8 {
    u8::try_from(view.number() % u64::from(REPLICAS)).expect("it is below four")
}
