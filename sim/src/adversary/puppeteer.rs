//! An adversary that is an honest replica but for one [`Behaviour`]: what it keeps from its own core, what it says
//! instead, what it adds and how long it waits.
//!
//! It judges nothing and knows no behaviour. Invariant: with a behaviour that changes nothing, it is an honest
//! replica without a journal.

use quorate::{
    consensus::{Config, Input, Message},
    types::ReplicaIndex,
};
use std::{collections::BTreeMap, fmt};

use super::{Adversary, Letter, puppet::Puppet};

/// A message and for whom.
pub(super) type Addressed = (ReplicaIndex, Message);

/// In what an adversary differs from an honest replica. All defaults are honest.
pub(super) trait Behaviour: fmt::Debug {
    /// Sees a letter first; says whether its core shall have it.
    fn hears(&mut self, _letter: &Letter) -> bool {
        true
    }

    /// What it sends instead of an honest message.
    fn says(&mut self, _to: ReplicaIndex, message: Message) -> Vec<Message> {
        vec![message]
    }

    /// What else it sends now.
    fn adds(&mut self) -> Vec<Addressed> {
        Vec::new()
    }

    /// How long it holds a message back, in milliseconds.
    fn holds_ms(&mut self, _message: &Message) -> u64 {
        0
    }
}

/// An honest core and the behaviour that leads it.
#[derive(Debug)]
pub(super) struct Puppeteer<B> {
    me: ReplicaIndex,
    puppet: Puppet,
    behaviour: B,
    now_ms: u64,
    /// Messages that are held back, by the time at which they leave and the order of their making.
    held: BTreeMap<(u64, u64), Addressed>,
    made: u64,
}

impl<B: Behaviour> Puppeteer<B> {
    pub(super) fn new(config: Config, behaviour: B) -> Self {
        let me = config.me;
        Self { me, puppet: Puppet::new(config), behaviour, now_ms: 0, held: BTreeMap::new(), made: 0 }
    }

    fn give(&mut self, now_ms: u64, input: Input) {
        self.now_ms = now_ms;
        self.puppet.handle(now_ms, input);
    }
}

impl<B: Behaviour> Adversary for Puppeteer<B> {
    fn receive(&mut self, now_ms: u64, letter: Letter) {
        self.now_ms = now_ms;
        if self.behaviour.hears(&letter) {
            self.give(now_ms, Input::Message { from: letter.from, message: letter.message });
        }
    }

    fn connected(&mut self, now_ms: u64, peer: ReplicaIndex) {
        self.give(now_ms, Input::PeerConnected(peer));
    }

    fn timer(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        if self.puppet.next_wake_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.give(now_ms, Input::Timer);
        }
    }

    fn next_wake_ms(&self) -> Option<u64> {
        let held_ms = self.held.first_key_value().map(|((due_ms, _), _)| *due_ms);
        [self.puppet.next_wake_ms(), held_ms].into_iter().flatten().min()
    }

    fn letters(&mut self) -> Vec<Letter> {
        let mut said = Vec::new();
        for (to, message) in self.puppet.messages() {
            said.extend(self.behaviour.says(to, message).into_iter().map(|message| (to, message)));
        }
        said.extend(self.behaviour.adds());
        for (to, message) in said {
            let due_ms = self.now_ms + self.behaviour.holds_ms(&message);
            self.made += 1;
            self.held.insert((due_ms, self.made), (to, message));
        }
        let mut letters = Vec::new();
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
            let (to, message) = entry.remove();
            letters.push(Letter { from: self.me, to, message, mark: None });
        }
        letters
    }
}
