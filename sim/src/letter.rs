//! What travels between replicas: consensus' messages and endorsements, with sender and receiver.
//!
//! It carries nothing anywhere. Invariant: what arrives is what a link would decode from the words' bytes.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate::{
    consensus::{Message, certify::Endorsement},
    types::ReplicaIndex,
};

use crate::adversary::Side;

/// What one replica says to another.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Words {
    /// Consensus.
    Consensus(Message),
    /// A signature over a document that the sender derived.
    Endorsement(Endorsement),
}

impl From<Message> for Words {
    fn from(message: Message) -> Self {
        Self::Consensus(message)
    }
}

impl From<Endorsement> for Words {
    fn from(endorsement: Endorsement) -> Self {
        Self::Endorsement(endorsement)
    }
}

impl Words {
    /// What a link would decode from their bytes, if anything.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    #[must_use]
    pub fn through_the_codec(&self) -> Option<Self> {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        borsh::from_slice(&bytes).ok()
    }
}

/// Words between two replicas.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Who sends it.
    pub from: ReplicaIndex,
    /// To whom.
    pub to: ReplicaIndex,
    /// What it says.
    pub words: Words,
    /// What one adversary tells another with it. Honest replicas do not see it.
    pub mark: Option<Side>,
}
