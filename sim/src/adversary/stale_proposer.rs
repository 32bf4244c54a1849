//! An adversary that proposes on old certificates: the one of genesis, or one that it saw a while ago, with whatever
//! timeout certificate it has.
//!
//! Else it behaves as an honest replica. Invariant: the certificates that it builds on are valid, only old.

use quorate::{
    consensus::{Block, Message, Payload, Proposal, QuorumCertificate, TimeoutCertificate},
    types::ReplicaIndex,
};
use std::{collections::VecDeque, sync::Arc};

use super::{invented::Inventor, puppeteer::Behaviour, signer::Signer};
use crate::rng::Stream;

/// How many old certificates it keeps.
const MOST_KEPT: usize = 16;

/// Proposes on old certificates.
#[derive(Debug)]
pub(super) struct StaleProposer {
    signer: Signer,
    stream: Stream,
    inventor: Inventor,
    certificates: VecDeque<QuorumCertificate>,
    entries: VecDeque<TimeoutCertificate>,
    /// The newest proposal of its core and what it made of it.
    made: Option<(Proposal, Proposal)>,
}

impl StaleProposer {
    pub(super) fn new(signer: Signer, stream: Stream) -> Self {
        let certificates = VecDeque::from([QuorumCertificate::genesis(&signer.config.committee)]);
        Self {
            signer,
            stream,
            inventor: Inventor::default(),
            certificates,
            entries: VecDeque::new(),
            made: None,
        }
    }

    fn stale(&mut self, honest: &Proposal) -> Proposal {
        if let Some((known, made)) = &self.made
            && known == honest
        {
            return made.clone();
        }
        let justify = self.certificates[self.stream.index(self.certificates.len())].clone();
        let entry = match self.stream.below(3) {
            0 => None,
            1 => honest.entry.clone(),
            _ => self.entries.back().cloned(),
        };
        let payload = Payload::new(vec![self.inventor.command(&mut self.stream)]);
        let block = Arc::new(Block::new(honest.block.view(), self.signer.config.me, justify, payload));
        let made = self.signer.proposal(block, entry);
        self.made = Some((honest.clone(), made.clone()));
        made
    }
}

impl Behaviour for StaleProposer {
    fn hears(&mut self, _from: ReplicaIndex, message: &Message) -> bool {
        if let Message::Proposal(proposal) = message {
            self.certificates.push_back(proposal.block.justify().clone());
            if self.certificates.len() > MOST_KEPT {
                self.certificates.pop_front();
            }
            self.entries.extend(proposal.entry.clone());
            if self.entries.len() > MOST_KEPT {
                self.entries.pop_front();
            }
        }
        true
    }

    fn says(&mut self, _to: ReplicaIndex, message: Message) -> Vec<Message> {
        match message {
            Message::Proposal(honest) if self.stream.chance(700) => {
                vec![Message::Proposal(self.stale(&honest))]
            }
            Message::Proposal(_)
            | Message::Vote(_)
            | Message::Timeout(_)
            | Message::Certificates(_)
            | Message::Commands(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_)
            | Message::CheckpointVote(_)
            | Message::Checkpoint(_)
            | Message::Gone(_)
            | Message::ChunkRequest(_)
            | Message::Chunks(_)
            | Message::Committed(_) => vec![message],
        }
    }
}
