//! Domain separation: the exact bytes that a replica signs for consensus and for reports.
//!
//! The bytes are `"quorate/1" 0x00`, the kind, the cluster, the epoch, the protocol, and the body with its
//! length. Nothing that a receiver uses stays outside. Documents use [`super::pae`] instead, whose bytes
//! begin with `DSSEv1` and so can never be equal to these.

use borsh::BorshSerialize;

use super::{digest::Digest, ids::Epoch};

/// What kind of statement is signed. The numbers are part of the signed bytes and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StatementKind {
    /// A consensus proposal.
    Proposal = 1,
    /// A consensus vote.
    Vote = 2,
    /// A view timeout, with the highest quorum certificate's view.
    Timeout = 3,
    /// A monitor's report on one window.
    Report = 4,
    /// A signed time without a report.
    Tick = 5,
    /// A checkpoint: the state after a committed block.
    Checkpoint = 6,
}

/// Where a statement belongs: a signature made for one cluster, epoch or protocol is void in any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Domain {
    /// SHA-256 of the first root's body.
    pub cluster: Digest,
    /// The epoch.
    pub epoch: Epoch,
    /// The consensus protocol's number; 0 where the statement is no consensus message.
    pub protocol: u8,
}

/// The bytes to sign for a statement.
#[must_use]
pub fn statement_bytes(kind: StatementKind, domain: &Domain, body: &[u8]) -> Vec<u8> {
    const PREFIX: &[u8] = b"quorate/1\0";
    let mut bytes = Vec::with_capacity(PREFIX.len() + 1 + 32 + 8 + 1 + 8 + body.len());
    bytes.extend_from_slice(PREFIX);
    bytes.push(kind as u8);
    bytes.extend_from_slice(domain.cluster.as_bytes());
    bytes.extend_from_slice(&domain.epoch.number().to_le_bytes());
    bytes.push(domain.protocol);
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}
