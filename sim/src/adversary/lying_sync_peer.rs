//! An adversary that answers fetches with lies: heights that it has not, chains with holes, wrong certificates, answers
//! without end; and that claims what nobody asked. Of states it lies too: it signs others than its own, gives false
//! chunks, and says that blocks or states are gone, those that it was asked for or others, with old checkpoints and
//! with forged ones.
//!
//! In voting for blocks it is honest. Invariant: nothing of its own making has a certificate.

use quorate::{
    consensus::{
        Asked, Block, BlockRequest, BlockResponse, Checkpoint, ChunkRequest, Chunks, Gone, Message, Payload,
        ProvenChunk, QuorumCertificate, Snapshot, StableCheckpoint,
    },
    types::{Digest, InclusionProof, ReplicaIndex, View},
};
use std::{collections::VecDeque, sync::Arc};

use super::{
    invented::Inventor,
    memory::Memory,
    puppeteer::{Addressed, Behaviour},
    signer::Signer,
};
use crate::rng::Stream;

/// The longest chain that it makes up: more than an answer may have.
const LONG: usize = 200;

/// How many certified checkpoints it remembers, to name old ones.
const REMEMBERED_CHECKPOINTS: usize = 8;

/// Lies about blocks.
#[derive(Debug)]
pub(super) struct LyingSyncPeer {
    signer: Signer,
    stream: Stream,
    memory: Memory,
    inventor: Inventor,
    /// The newest answer that its core gave: the truth to distort.
    truth: Option<BlockResponse>,
    checkpoints: VecDeque<StableCheckpoint>,
    /// What it was asked for before.
    asked: Option<Asked>,
    extra: Vec<Addressed>,
}

impl LyingSyncPeer {
    pub(super) fn new(signer: Signer, stream: Stream) -> Self {
        let (memory, inventor) = (Memory::default(), Inventor::default());
        let (checkpoints, extra) = (VecDeque::new(), Vec::new());
        Self { signer, stream, memory, inventor, truth: None, checkpoints, asked: None, extra }
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

impl LyingSyncPeer {
    fn remember(&mut self, checkpoint: &StableCheckpoint) {
        self.checkpoints.push_back(checkpoint.clone());
        if self.checkpoints.len() > REMEMBERED_CHECKPOINTS {
            self.checkpoints.pop_front();
        }
    }

    /// A checkpoint that was certified some time, as it is or with something changed.
    fn checkpoint(&mut self) -> Option<StableCheckpoint> {
        let known = self.checkpoints.len();
        let mut checkpoint = self.checkpoints.get(self.stream.index(known.max(1)))?.clone();
        let claimed = &mut checkpoint.certificate.checkpoint;
        match self.stream.below(6) {
            0 => claimed.state = false_state().id(),
            1 => claimed.height = claimed.height.next(),
            2 => checkpoint.certificate.signatures.truncate(1),
            3 => checkpoint.qc.signatures.clear(),
            _ => {}
        }
        Some(checkpoint)
    }

    /// Says that this is gone, or what it was asked for before.
    fn gone(&mut self, from: ReplicaIndex, asked: Asked) {
        let before = self.asked.replace(asked).filter(|_| self.stream.chance(300));
        if let Some(checkpoint) = self.checkpoint() {
            let gone = Gone { asked: before.unwrap_or(asked), checkpoint };
            self.extra.push((from, Message::Gone(gone).into()));
        }
    }

    /// Another state than the one that a peer names, in its own name.
    fn contradict(&mut self, checkpoint: &Checkpoint) {
        let other = Checkpoint { state: false_state().id(), ..*checkpoint };
        let vote = self.signer.checkpoint(other);
        if self.memory.may_add(&mut self.stream, 200) {
            self.extra.extend(self.signer.to_all(Message::CheckpointVote(vote)));
        }
    }

    /// Chunks of another state, with a proof of another place or of a tree of its own.
    fn false_chunks(&mut self, request: &ChunkRequest) -> Message {
        let ChunkRequest { height, root, first } = *request;
        let bytes: Arc<[u8]> = vec![7; self.stream.index(300)].into();
        let leaves = vec![Digest::of(&bytes); 1 + self.stream.index(9)];
        let proof = InclusionProof::of(&leaves, 0).expect("there is a leaf");
        let chunks = vec![ProvenChunk { bytes, proof }; 1 + self.stream.index(4)];
        Message::Chunks(Chunks { height, root, first, chunks })
    }

    fn lie_of_chunks(&mut self, from: ReplicaIndex, request: &ChunkRequest) {
        match self.stream.below(4) {
            0 => {}
            1 => self.gone(from, Asked::Chunks(*request)),
            many => {
                for _ in 0..many {
                    let lie = self.false_chunks(request);
                    self.extra.push((from, lie.into()));
                }
            }
        }
    }
}

fn false_state() -> Snapshot {
    Snapshot::cut(&[1; 1_000], 100).expect("it is small")
}

impl Behaviour for LyingSyncPeer {
    fn hears(&mut self, from: ReplicaIndex, message: &Message) -> bool {
        if let Message::Checkpoint(checkpoint) | Message::Gone(Gone { checkpoint, .. }) = message {
            self.remember(checkpoint);
        }
        if let Message::CheckpointVote(vote) = message {
            self.contradict(&vote.checkpoint);
        }
        if let Message::ChunkRequest(request) = message {
            self.lie_of_chunks(from, request);
        }
        let Message::BlockRequest(request) = message else {
            if self.memory.may_add(&mut self.stream, 20)
                && let Some(truth) = self.truth.clone()
            {
                self.extra.push((from, Message::BlockResponse(truth).into()));
            }
            return true;
        };
        match self.stream.below(5) {
            0 => false,
            2 if !self.checkpoints.is_empty() => {
                self.gone(from, Asked::Blocks(*request));
                false
            }
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
