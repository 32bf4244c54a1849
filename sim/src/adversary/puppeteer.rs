//! An adversary that is an honest replica but for one [`Behaviour`]: what it keeps from its own core, what it says
//! instead, what it adds and how long it waits.
//!
//! It judges nothing and knows no behaviour. Invariant: with a behaviour that changes nothing, it is an honest
//! replica without a journal.

use quorate::{
    consensus::{Command, CommittedBlock, Config, Input, Message, certify::Endorsement},
    types::ReplicaIndex,
};
use std::{collections::BTreeMap, fmt};

use super::{Adversary, puppet::Puppet};
use crate::letter::{Letter, Words};

/// Words and for whom.
pub(super) type Addressed = (ReplicaIndex, Words);

/// In what an adversary differs from an honest replica. All defaults are honest.
pub(super) trait Behaviour: fmt::Debug {
    /// Sees a letter first; says whether its core shall have it.
    fn hears(&mut self, _from: ReplicaIndex, _message: &Message) -> bool {
        true
    }

    /// Hears an endorsement. Without a control cycle of its own it endorses nothing.
    fn hears_endorsement(&mut self, _endorsement: &Endorsement) {}

    /// Its core committed a block.
    fn commits(&mut self, _committed: CommittedBlock) {}

    /// What it sends instead of an honest message.
    fn says(&mut self, _to: ReplicaIndex, message: Message) -> Vec<Message> {
        vec![message]
    }

    /// What else it sends now.
    fn adds(&mut self) -> Vec<Addressed> {
        Vec::new()
    }

    /// How long it holds words back, in milliseconds.
    fn holds_ms(&mut self, _words: &Words) -> u64 {
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
        let from = letter.from;
        match letter.words {
            Words::Consensus(message) => {
                if self.behaviour.hears(from, &message) {
                    self.give(now_ms, Input::Message { from, message });
                }
            }
            Words::Endorsement(endorsement) => self.behaviour.hears_endorsement(&endorsement),
        }
    }

    fn submit(&mut self, now_ms: u64, command: &Command) {
        self.give(now_ms, Input::Submit(command.clone()));
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
        let honest = self.puppet.messages();
        self.puppet.committed().into_iter().for_each(|committed| self.behaviour.commits(committed));
        for (to, message) in honest {
            let instead = self.behaviour.says(to, message).into_iter();
            said.extend(instead.map(|message| (to, Words::Consensus(message))));
        }
        said.extend(self.behaviour.adds());
        for (to, words) in said {
            let due_ms = self.now_ms + self.behaviour.holds_ms(&words);
            self.made += 1;
            self.held.insert((due_ms, self.made), (to, words));
        }
        let mut letters = Vec::new();
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
            let (to, words) = entry.remove();
            letters.push(Letter { from: self.me, to, words, mark: None });
        }
        letters
    }
}
