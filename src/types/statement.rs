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
    /// What a replica endorses for one subject, by digest: two of them contradict each other without any document.
    Endorsement = 7,
}

impl StatementKind {
    /// The kind with this number.
    #[must_use]
    pub const fn numbered(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Proposal),
            2 => Some(Self::Vote),
            3 => Some(Self::Timeout),
            4 => Some(Self::Report),
            5 => Some(Self::Tick),
            6 => Some(Self::Checkpoint),
            7 => Some(Self::Endorsement),
            _ => None,
        }
    }
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

/// What every statement begins with: the product and the version of this encoding.
const PREFIX: &[u8] = b"quorate/1\0";

/// The bytes to sign for a statement.
#[must_use]
pub fn statement_bytes(kind: StatementKind, domain: &Domain, body: &[u8]) -> Vec<u8> {
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

/// A statement that was read back from the bytes that were signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// What kind.
    pub kind: StatementKind,
    /// Where it belongs.
    pub domain: Domain,
    /// What it says.
    pub body: &'a [u8],
}

impl<'a> Statement<'a> {
    /// Reads what [`statement_bytes`] wrote; `None` for any other bytes.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.strip_prefix(PREFIX)?.split_first()?;
        let (cluster, rest) = rest.split_first_chunk::<32>()?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let (protocol, rest) = rest.split_first()?;
        let (length, body) = rest.split_first_chunk::<8>()?;
        let domain = Domain {
            cluster: Digest::from_bytes(*cluster),
            epoch: Epoch::new(u64::from_le_bytes(*epoch)),
            protocol: *protocol,
        };
        let kind = StatementKind::numbered(*kind)?;
        (u64::from_le_bytes(*length) == body.len() as u64).then_some(Self { kind, domain, body })
    }
}

#[cfg(test)]
mod tests {
    use super::{Domain, Statement, StatementKind, statement_bytes};
    use crate::types::{Digest, Epoch};

    #[test]
    fn a_statement_reads_back_and_no_other_bytes_do() {
        let domain = Domain { cluster: Digest::of(b"cluster"), epoch: Epoch::new(3), protocol: 1 };
        let bytes = statement_bytes(StatementKind::Vote, &domain, b"body");
        let read = Statement::read(&bytes).expect("it is a statement");
        assert_eq!((read.kind, read.domain, read.body), (StatementKind::Vote, domain, &b"body"[..]));
        for length in 0..bytes.len() {
            assert_eq!(Statement::read(&bytes[..length]), None, "cut after {length} bytes");
        }
        let longer = [&bytes[..], b"."].concat();
        assert_eq!(Statement::read(&longer), None, "bytes after the body");
        for number in 0..=u8::MAX {
            let kind = StatementKind::numbered(number);
            assert!(kind.is_none_or(|kind| kind as u8 == number), "kind {number}");
        }
    }
}
