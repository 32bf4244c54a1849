//! The trace: a running digest of every event, and its readable lines for who asked for them.
//!
//! It decides nothing. Invariant: two runs with equal digests had the same events in the same order.

use quorate::{
    consensus::{
        Asked, CheckpointVote, Chunks, Gone, Message, Proposal, TimeoutCertificate, certify::Endorsement,
    },
    types::Signature,
};
use std::fmt;

use crate::{letter::Words, rng::mixed};

/// Takes readable lines.
pub type Lines<'a> = &'a mut dyn FnMut(&str);

/// The trace of one run.
pub struct Trace<'a> {
    digest: u64,
    events: u64,
    lines: Option<Lines<'a>>,
}

impl fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("digest", &self.digest).field("events", &self.events).finish()
    }
}

impl<'a> Trace<'a> {
    /// An empty trace; lines go to `lines`.
    #[must_use]
    pub const fn new(lines: Option<Lines<'a>>) -> Self {
        Self { digest: 0, events: 0, lines }
    }

    /// Takes an event: its words into the digest, its line to who asked.
    pub fn event(&mut self, now_ms: u64, words: &[u64], line: impl FnOnce() -> String) {
        self.events += 1;
        self.digest = words.iter().fold(mixed(self.digest ^ now_ms), |digest, word| {
            mixed(digest.rotate_left(17) ^ mixed(word.wrapping_add(0x9e37_79b9_7f4a_7c15)))
        });
        if let Some(lines) = &mut self.lines {
            lines(&format!("{:>8}.{:03}  {}", now_ms / 1000, now_ms % 1000, line()));
        }
    }

    /// The digest of all events.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// How many events there were.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }
}

/// Words in a few numbers for the digest.
#[must_use]
pub fn fingerprint(words: &Words) -> [u64; 3] {
    match words {
        Words::Consensus(message) => fingerprint_of_message(message),
        Words::Endorsement(endorsement) => [8, endorsement.subject.number, first(endorsement.signature)],
    }
}

fn fingerprint_of_message(message: &Message) -> [u64; 3] {
    match message {
        Message::Proposal(proposal) => [1, proposal.block.view().number(), first(proposal.signature)],
        Message::Vote(vote) => [2, vote.view.number(), first(vote.signature)],
        Message::Timeout(timeout) => [3, timeout.view.number(), first(timeout.signature)],
        Message::Certificates(certificates) => {
            let high_tc = certificates.high_tc.as_ref().map_or(0, |tc| tc.view.number());
            [4, certificates.high_qc.view.number(), high_tc]
        }
        Message::Commands(commands) => [5, commands.len() as u64, 0],
        Message::BlockRequest(request) => [6, request.target_height.number(), request.above.number()],
        Message::BlockResponse(response) => [7, response.blocks.len() as u64, response.tip.view.number()],
        Message::CheckpointVote(vote) => [9, vote.checkpoint.height.number(), first(vote.signature)],
        Message::Checkpoint(stable) => [10, stable.height().number(), stable.qc.view.number()],
        Message::Gone(Gone { checkpoint, .. }) => {
            [11, checkpoint.height().number(), checkpoint.qc.view.number()]
        }
        Message::ChunkRequest(request) => [12, request.height.number(), u64::from(request.first)],
        Message::Chunks(chunks) => [13, chunks.height.number(), chunks.chunks.len() as u64],
        Message::Committed(digests) => [14, digests.len() as u64, 0],
    }
}

fn first(signature: Signature) -> u64 {
    signature.as_bytes().iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Words for people.
#[must_use]
pub fn describe(words: &Words) -> String {
    match words {
        Words::Consensus(message) => describe_message(message),
        Words::Endorsement(Endorsement { subject, digest, .. }) => {
            format!("endorses {:?} {} {}: {digest:?}", subject.kind, subject.of, subject.number)
        }
    }
}

fn describe_message(message: &Message) -> String {
    let entry = |tc: &Option<TimeoutCertificate>| match tc {
        Some(tc) => format!(" after TC({})", tc.view),
        None => String::new(),
    };
    match message {
        Message::Proposal(Proposal { block, entry: tc, .. }) => {
            let (view, height, id, commands) =
                (block.view(), block.height(), block.id(), block.payload().commands().len());
            let justify = block.justify().view;
            format!(
                "proposal v{view} h{height} {id:?} on QC({justify}){} with {commands} commands",
                entry(tc)
            )
        }
        Message::Vote(vote) => format!("vote v{} h{} {:?}", vote.view, vote.height, vote.block),
        Message::Timeout(timeout) => {
            format!("timeout v{} with QC({}){}", timeout.view, timeout.high_qc.view, entry(&timeout.entry))
        }
        Message::Certificates(certificates) => {
            format!("certificates QC({}){}", certificates.high_qc.view, entry(&certificates.high_tc))
        }
        Message::Commands(commands) => format!("{} commands", commands.len()),
        Message::BlockRequest(request) => {
            format!("asks for heights above {} up to {}", request.above, request.target_height)
        }
        Message::BlockResponse(response) => {
            let heights = response.blocks.first().zip(response.blocks.last());
            let heights = heights.map(|(first, last)| format!("{}..={}", first.height(), last.height()));
            format!("gives heights {}", heights.unwrap_or_default())
        }
        Message::CheckpointVote(CheckpointVote { checkpoint, .. }) => {
            format!("says of h{} {:?}", checkpoint.height, checkpoint.state.root())
        }
        Message::Committed(digests) => format!("has committed {} of these commands", digests.len()),
        Message::Gone(Gone { asked, checkpoint }) => {
            let what = match asked {
                Asked::Blocks(request) => format!("blocks above h{}", request.above),
                Asked::Chunks(request) => format!("the state at h{}", request.height),
            };
            format!("no longer has {what}, but checkpoint h{}", checkpoint.height())
        }
        Message::ChunkRequest(request) => {
            format!("asks for the state at h{} from chunk {}", request.height, request.first)
        }
        Message::Chunks(chunks) => {
            let Chunks { height, first, chunks, .. } = chunks;
            format!("gives {} chunks from {first} of the state at h{height}", chunks.len())
        }
        Message::Checkpoint(stable) => {
            format!("certified checkpoint h{} {:?}", stable.height(), stable.checkpoint().state.root())
        }
    }
}
