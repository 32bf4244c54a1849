//! The bytes of a segment's header and of a record, and their checks. Rules 1, 3 and 4 of the module.
//!
//! No reading or writing of files here, and no judgement about what a failed check means. Invariant: nothing
//! that these functions return comes from bytes whose check did not hold.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

use crate::types::{Digest, Hasher, KeyId};

/// The most bytes of a segment: recovery holds one segment in memory, and an old one is freed as a whole.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The most bytes of an entry's payload: the links' largest frame and room for what is kept beside it.
pub const MAX_ENTRY_BYTES: usize = 17 * 1024 * 1024;

/// Bytes of the salt: as many as nobody guesses.
pub const SALT_BYTES: usize = 16;

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 16 + 4 + 32 + 32 + 8 + 8 + 16 + SALT_BYTES + 16;

/// Bytes of a record's head, its check included.
pub(super) const RECORD_HEAD_BYTES: usize = 4 + 4 + 1 + 8 + 8 + 16 + 8;

/// Bytes of a seal.
pub(super) const SEAL_BYTES: usize = 16;

/// The first bytes of each record, which a search for later records looks for.
pub(super) const RECORD_MAGIC: [u8; 4] = *b"QrJ\x01";

const SEGMENT_MAGIC: [u8; 16] = *b"quorate journal\n";
const VERSION: u32 = 1;

/// A record's seal: 16 bytes of SHA-256 over salt, head and payload. It stands in the next record.
pub(super) type Seal = [u8; SEAL_BYTES];

/// Random bytes that nobody else knows, so that nobody can make bytes that pass for a record (rule 4).
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Salt([u8; SALT_BYTES]);

impl Salt {
    /// Wraps bytes from a secure source of randomness, or from the simulator's seed.
    #[must_use]
    pub const fn new(random: [u8; SALT_BYTES]) -> Self {
        Self(random)
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Identity {
    /// SHA-256 of the cluster's first root.
    pub cluster: Digest,
    /// The replica's key.
    pub key: KeyId,
}

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct SegmentHeader {
    pub(super) identity: Identity,
    /// Counts from 1.
    pub(super) segment: u64,
    /// The sequence number of the first record.
    pub(super) first_sequence: u64,
    /// The seal of the last record of the segment before; zeros in the first.
    pub(super) previous: Seal,
    pub(super) salt: Salt,
}

/// Why bytes are no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// It is too short, or a check does not hold.
    Malformed,
    /// It is of a version that this code does not know.
    Version(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes =
            borsh::to_vec(&(SEGMENT_MAGIC, VERSION, self)).expect("writing to memory does not fail");
        let check = Digest::of(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..16]);
        bytes
    }

    /// The header at the beginning of these bytes, which may go on.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some((header, _)) = bytes.split_at_checked(SEGMENT_HEADER_BYTES) else {
            return Err(HeaderError::Malformed);
        };
        let (covered, check) = header.split_at(SEGMENT_HEADER_BYTES - 16);
        if Digest::of(covered).as_bytes()[..16] != *check {
            return Err(HeaderError::Malformed);
        }
        let (magic, version, decoded): ([u8; 16], u32, Self) =
            borsh::from_slice(covered).map_err(|_| HeaderError::Malformed)?;
        match (magic == SEGMENT_MAGIC, version) {
            (false, _) => Err(HeaderError::Malformed),
            (true, VERSION) => Ok(decoded),
            (true, other) => Err(HeaderError::Version(other)),
        }
    }
}

/// A record's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct RecordHead {
    pub(super) payload_bytes: u32,
    pub(super) kind: u8,
    /// Counts from 1, over all segments.
    pub(super) sequence: u64,
    /// The newest record that was durable when this one was appended; 0 for none.
    pub(super) durable: u64,
    /// The seal of the record before; zeros in the very first.
    pub(super) previous: Seal,
}

impl RecordHead {
    /// Bytes of the whole record.
    pub(super) const fn record_bytes(&self) -> usize {
        RECORD_HEAD_BYTES + self.payload_bytes as usize + SEAL_BYTES
    }

    /// The head at the beginning of these bytes; `None` when it is none or its check does not hold.
    pub(super) fn decode(bytes: &[u8], salt: &Salt) -> Option<Self> {
        let (head, _) = bytes.split_at_checked(RECORD_HEAD_BYTES)?;
        let (covered, check) = head.split_at(RECORD_HEAD_BYTES - 8);
        if covered[..4] != RECORD_MAGIC || head_check(salt, covered) != *check {
            return None;
        }
        let head: Self = borsh::from_slice(&covered[4..]).ok()?;
        (head.payload_bytes as usize <= MAX_ENTRY_BYTES).then_some(head)
    }

    /// The whole record, and its seal.
    pub(super) fn encode(&self, payload: &[u8], salt: &Salt) -> (Vec<u8>, Seal) {
        let mut bytes = Vec::with_capacity(self.record_bytes());
        bytes.extend_from_slice(&RECORD_MAGIC);
        self.serialize(&mut bytes).expect("writing to memory does not fail");
        let check = head_check(salt, &bytes);
        bytes.extend_from_slice(&check);
        bytes.extend_from_slice(payload);
        let seal = seal(salt, &bytes);
        bytes.extend_from_slice(&seal);
        (bytes, seal)
    }
}

/// A record whose head and seal hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) head: RecordHead,
    pub(super) payload: &'a [u8],
    pub(super) seal: Seal,
}

impl<'a> Record<'a> {
    /// The record at the beginning of these bytes, which may go on; `None` when there is no whole record
    /// whose checks hold.
    pub(super) fn decode(bytes: &'a [u8], salt: &Salt) -> Option<Self> {
        let head = RecordHead::decode(bytes, salt)?;
        let (record, _) = bytes.split_at_checked(head.record_bytes())?;
        let (covered, stored) = record.split_at(head.record_bytes() - SEAL_BYTES);
        let seal = seal(salt, covered);
        (seal == *stored).then(|| Self { head, payload: &covered[RECORD_HEAD_BYTES..], seal })
    }
}

fn head_check(salt: &Salt, covered: &[u8]) -> [u8; 8] {
    let digest = salted(b'h', salt, covered);
    std::array::from_fn(|index| digest.as_bytes()[index])
}

fn seal(salt: &Salt, covered: &[u8]) -> Seal {
    let digest = salted(b's', salt, covered);
    std::array::from_fn(|index| digest.as_bytes()[index])
}

fn salted(what: u8, salt: &Salt, covered: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(&salt.0);
    hasher.update(&[what]);
    hasher.update(covered);
    hasher.finish()
}
