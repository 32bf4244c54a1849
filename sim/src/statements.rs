//! The signed bytes of consensus, restated from `docs/formats.md` and the rules: adversaries sign with them and
//! the invariants check with them.
//!
//! It shares no code with the replica's signing. Invariant: the bytes are those that honest replicas sign.

use quorate::{
    consensus::{BlockId, Checkpoint, QuorumCertificate, TimeoutCertificate, certify::Subject},
    types::{Committee, Digest, Height, View},
};

const PREFIX: &[u8] = b"quorate/1\0";
const PROPOSAL: u8 = 1;
const VOTE: u8 = 2;
const TIMEOUT: u8 = 3;
const CHECKPOINT: u8 = 6;
const ENDORSEMENT: u8 = 7;
const HOTSTUFF2: u8 = 1;
const NO_PROTOCOL: u8 = 0;

/// Where in the signed bytes the kind stands.
pub const KIND_AT: usize = PREFIX.len();
/// Where the cluster begins.
pub const CLUSTER_AT: usize = KIND_AT + 1;
/// Where the epoch begins.
pub const EPOCH_AT: usize = CLUSTER_AT + 32;
/// Where the protocol stands.
pub const PROTOCOL_AT: usize = EPOCH_AT + 8;

/// What a vote signs.
#[must_use]
pub fn vote(committee: &Committee, view: View, height: Height, block: BlockId) -> Vec<u8> {
    let mut body = Vec::with_capacity(48);
    body.extend_from_slice(&view.number().to_le_bytes());
    body.extend_from_slice(&height.number().to_le_bytes());
    body.extend_from_slice(block.as_bytes());
    signed(committee, VOTE, HOTSTUFF2, &body)
}

/// What a proposal signs: view, block, and the digest of its certificates.
#[must_use]
pub fn proposal(
    committee: &Committee,
    view: View,
    block: BlockId,
    justify: &QuorumCertificate,
    entry: Option<&TimeoutCertificate>,
) -> Vec<u8> {
    let certificates = borsh::to_vec(&(justify, entry)).expect("writing to memory does not fail");
    let mut body = Vec::with_capacity(72);
    body.extend_from_slice(&view.number().to_le_bytes());
    body.extend_from_slice(block.as_bytes());
    body.extend_from_slice(Digest::of(&certificates).as_bytes());
    signed(committee, PROPOSAL, HOTSTUFF2, &body)
}

/// What an endorsement pledges.
#[must_use]
pub fn pledge(committee: &Committee, subject: &Subject, digest: Digest) -> Vec<u8> {
    let mut body = borsh::to_vec(subject).expect("writing to memory does not fail");
    body.extend_from_slice(digest.as_bytes());
    signed(committee, ENDORSEMENT, NO_PROTOCOL, &body)
}

/// What a timeout signs.
#[must_use]
pub fn timeout(committee: &Committee, view: View, high_qc_view: View) -> Vec<u8> {
    let mut body = Vec::with_capacity(16);
    body.extend_from_slice(&view.number().to_le_bytes());
    body.extend_from_slice(&high_qc_view.number().to_le_bytes());
    signed(committee, TIMEOUT, HOTSTUFF2, &body)
}

/// What a checkpoint statement signs.
#[must_use]
pub fn checkpoint(committee: &Committee, checkpoint: &Checkpoint) -> Vec<u8> {
    let Checkpoint { height, view, block, state } = checkpoint;
    let mut body = Vec::with_capacity(92);
    body.extend_from_slice(&height.number().to_le_bytes());
    body.extend_from_slice(&view.number().to_le_bytes());
    body.extend_from_slice(block.as_bytes());
    body.extend_from_slice(state.root().as_bytes());
    body.extend_from_slice(&state.chunks().to_le_bytes());
    body.extend_from_slice(&state.bytes().to_le_bytes());
    signed(committee, CHECKPOINT, HOTSTUFF2, &body)
}

fn signed(committee: &Committee, kind: u8, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = PREFIX.to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(committee.cluster().as_bytes());
    bytes.extend_from_slice(&committee.epoch().number().to_le_bytes());
    bytes.push(protocol);
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}
