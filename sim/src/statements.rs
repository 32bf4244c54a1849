//! The signed bytes of consensus, restated from `docs/formats.md` and the rules: adversaries sign with them and
//! the invariants check with them.
//!
//! It shares no code with the replica's signing. Invariant: the bytes are those that honest replicas sign.

use quorate::{
    consensus::BlockId,
    types::{Committee, Height, View},
};

const PREFIX: &[u8] = b"quorate/1\0";
const PROPOSAL: u8 = 1;
const VOTE: u8 = 2;
const HOTSTUFF2: u8 = 1;

/// What a vote signs.
#[must_use]
pub fn vote(committee: &Committee, view: View, height: Height, block: BlockId) -> Vec<u8> {
    let mut body = Vec::with_capacity(48);
    body.extend_from_slice(&view.number().to_le_bytes());
    body.extend_from_slice(&height.number().to_le_bytes());
    body.extend_from_slice(block.as_bytes());
    signed(committee, VOTE, &body)
}

/// What a proposal signs.
#[must_use]
pub fn proposal(committee: &Committee, view: View, block: BlockId) -> Vec<u8> {
    let mut body = Vec::with_capacity(40);
    body.extend_from_slice(&view.number().to_le_bytes());
    body.extend_from_slice(block.as_bytes());
    signed(committee, PROPOSAL, &body)
}

fn signed(committee: &Committee, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = PREFIX.to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(committee.cluster().as_bytes());
    bytes.extend_from_slice(&committee.epoch().number().to_le_bytes());
    bytes.push(HOTSTUFF2);
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}
