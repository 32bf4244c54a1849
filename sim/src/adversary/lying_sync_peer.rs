//! An adversary that answers fetches with lies: heights that it has not, chains with holes, wrong certificates, answers
//! without end; and that claims what nobody asked.
//!
//! In voting it is honest. Invariant: no block of its own making has a certificate.

use quorate::{
    consensus::{Block, BlockRequest, BlockResponse, Message, Payload, QuorumCertificate},
    types::{ReplicaIndex, View},
};
use std::sync::Arc;

use super::{
    invented::Inventor,
    memory::Memory,
    puppeteer::{Addressed, Behaviour},
    signer::Signer,
};
use crate::rng::Stream;

/// The longest chain that it makes up: more than an answer may have.
const LONG: usize = 200;

/// Lies about blocks.
#[derive(Debug)]
pub(super) struct LyingSyncPeer {
    signer: Signer,
    stream: Stream,
    memory: Memory,
    inventor: Inventor,
    /// The newest answer that its core gave: the truth to distort.
    truth: Option<BlockResponse>,
    extra: Vec<Addressed>,
}

impl LyingSyncPeer {
    pub(super) fn new(signer: Signer, stream: Stream) -> Self {
        let (memory, inventor) = (Memory::default(), Inventor::default());
        Self { signer, stream, memory, inventor, truth: None, extra: Vec::new() }
    }

    fn distorted(&mut self, truth: BlockResponse) -> Vec<BlockResponse> {
        let BlockResponse { mut blocks, mut tip } = truth.clone();
        match self.stream.below(8) {
            0 => return Vec::new(),
            1 => return vec![truth; 3],
            2 => return vec![truth],
            3 if blocks.len() > 1 => {
                blocks.remove(self.stream.index(blocks.len() - 1));
            }
            4 => blocks.reverse(),
            5 => tip.height = tip.height.next(),
            6 => {
                tip.signatures.pop();
            }
            _ => {
                blocks.pop();
            }
        }
        vec![BlockResponse { blocks, tip }]
    }

    /// A chain of its own blocks from genesis or from where the asker is, each on a certificate without a quorum.
    fn invented(&mut self, request: &BlockRequest) -> BlockResponse {
        let mut justify = QuorumCertificate::genesis(&self.signer.config.committee);
        if self.stream.chance(500) {
            justify.height = request.above;
        }
        let length = if self.stream.chance(300) { LONG } else { 1 + self.stream.index(5) };
        let mut blocks: Vec<Arc<Block>> = Vec::new();
        for _ in 0..length {
            let payload = Payload::new(vec![self.inventor.command(&mut self.stream)]);
            let view = View::new(justify.view.number() + 1);
            let block = Arc::new(Block::new(view, self.signer.config.me, justify, payload));
            let vote = self.signer.vote(view, block.height(), block.id());
            justify = QuorumCertificate {
                view,
                height: block.height(),
                block: block.id(),
                signatures: vec![(vote.voter, vote.signature)],
            };
            blocks.push(block);
        }
        BlockResponse { blocks, tip: justify }
    }
}

impl Behaviour for LyingSyncPeer {
    fn hears(&mut self, from: ReplicaIndex, message: &Message) -> bool {
        let Message::BlockRequest(request) = message else {
            if self.memory.may_add(&mut self.stream, 20)
                && let Some(truth) = self.truth.clone()
            {
                self.extra.push((from, Message::BlockResponse(truth).into()));
            }
            return true;
        };
        match self.stream.below(4) {
            0 => false,
            1 => {
                let lie = self.invented(request);
                self.extra.push((from, Message::BlockResponse(lie).into()));
                false
            }
            _ => true,
        }
    }

    fn says(&mut self, _to: ReplicaIndex, message: Message) -> Vec<Message> {
        let Message::BlockResponse(truth) = message else { return vec![message] };
        self.truth = Some(truth.clone());
        self.distorted(truth).into_iter().map(Message::BlockResponse).collect()
    }

    fn adds(&mut self) -> Vec<Addressed> {
        std::mem::take(&mut self.extra)
    }
}
