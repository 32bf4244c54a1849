//! Byzantine replicas: one behaviour per file, each with its real key.
//!
//! They may do anything but forge others' signatures, and they hear of each other through a mark on their
//! letters. Invariant: an adversary sends a bounded number of messages that no honest replica would, and invents a
//! bounded number of commands, so that the cluster can come to rest.

mod delaying_leader;
mod double_voter;
mod dripping_sync_peer;
mod equivocating_leader;
mod flooder;
mod forger;
mod hidden_lock;
mod invented;
mod lying_reporter;
mod lying_sync_peer;
mod memory;
mod mutator;
mod puppet;
mod puppeteer;
mod replayer;
mod selective_sender;
mod signer;
mod silent;
mod stale_proposer;
mod twin;
mod vote_withholder;

use quorate::{
    consensus::{Command, Config},
    types::ReplicaIndex,
};
use std::fmt;

use self::{
    delaying_leader::DelayingLeader, double_voter::DoubleVoter, dripping_sync_peer::DrippingSyncPeer,
    equivocating_leader::EquivocatingLeader, flooder::Flooder, forger::Forger, hidden_lock::HiddenLock,
    lying_reporter::LyingReporter, lying_sync_peer::LyingSyncPeer, mutator::Mutator, puppeteer::Puppeteer,
    replayer::Replayer, selective_sender::SelectiveSender, signer::Signer, silent::Silent,
    stale_proposer::StaleProposer, twin::Twin, vote_withholder::VoteWithholder,
};
use crate::{letter::Letter, rng::Stream};

pub use twin::{Side, Sides};

/// A Byzantine replica. Time is in milliseconds.
pub trait Adversary: fmt::Debug {
    /// A letter arrived.
    fn receive(&mut self, now_ms: u64, letter: Letter);
    /// Somebody hands a command in, who takes it for an honest replica.
    fn submit(&mut self, now_ms: u64, command: &Command);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// Says nothing
    Silent,
    /// Proposes two blocks for each view that it leads
    EquivocatingLeader,
    /// Votes for everything and for nothing that exists
    DoubleVoter,
    /// Proposes as late as it can
    DelayingLeader,
    /// Keeps its votes to itself
    VoteWithholder,
    /// Talks to whom it likes
    SelectiveSender,
    /// Says again what it heard, elsewhere and otherwise
    Replayer,
    /// Forges signatures and certificates
    Forger,
    /// Makes one honest replica lock alone
    HiddenLock,
    /// Floods its peers with views and heights far ahead
    Flooder,
    /// Lies about blocks to who fetches
    LyingSyncPeer,
    /// Gives who fetches one block at a time
    DrippingSyncPeer,
    /// Reports what nobody saw, twice and differently, and endorses what nobody derived
    LyingReporter,
    /// Changes single bytes of what it says
    Mutator,
    /// Proposes on old certificates
    StaleProposer,
    /// Is two honest replicas with one key, each talking to a part of the committee
    Twin,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Silent,
        Self::EquivocatingLeader,
        Self::DoubleVoter,
        Self::DelayingLeader,
        Self::VoteWithholder,
        Self::SelectiveSender,
        Self::Replayer,
        Self::Forger,
        Self::HiddenLock,
        Self::Flooder,
        Self::LyingSyncPeer,
        Self::DrippingSyncPeer,
        Self::LyingReporter,
        Self::Mutator,
        Self::StaleProposer,
        Self::Twin,
    ];
}

/// An adversary of this kind. `sides` says with which side of a twin each replica talks when.
#[must_use]
pub fn adversary(kind: Kind, config: Config, sides: &Sides, stream: Stream) -> Box<dyn Adversary> {
    let signer = Signer::new(config.clone());
    match kind {
        Kind::Silent => Box::new(Silent),
        Kind::EquivocatingLeader => Box::new(Puppeteer::new(config, EquivocatingLeader::new(signer, stream))),
        Kind::DoubleVoter => Box::new(Puppeteer::new(config, DoubleVoter::new(signer, stream))),
        Kind::DelayingLeader => Box::new(Puppeteer::new(config, DelayingLeader::new(stream))),
        Kind::VoteWithholder => Box::new(Puppeteer::new(config, VoteWithholder::new(stream))),
        Kind::SelectiveSender => Box::new(Puppeteer::new(config, SelectiveSender::new(signer, stream))),
        Kind::Replayer => Box::new(Puppeteer::new(config, Replayer::new(signer, stream))),
        Kind::Forger => Box::new(Puppeteer::new(config, Forger::new(signer, stream))),
        Kind::HiddenLock => Box::new(Puppeteer::new(config, HiddenLock::new(signer, stream))),
        Kind::Flooder => Box::new(Puppeteer::new(config, Flooder::new(signer, stream))),
        Kind::LyingSyncPeer => Box::new(Puppeteer::new(config, LyingSyncPeer::new(signer, stream))),
        Kind::DrippingSyncPeer => Box::new(Puppeteer::new(config, DrippingSyncPeer::new(signer))),
        Kind::LyingReporter => Box::new(Puppeteer::new(config, LyingReporter::new(signer, stream))),
        Kind::Mutator => Box::new(Puppeteer::new(config, Mutator::new(signer, stream))),
        Kind::StaleProposer => Box::new(Puppeteer::new(config, StaleProposer::new(signer, stream))),
        Kind::Twin => Box::new(Twin::new(config, sides.clone())),
    }
}
