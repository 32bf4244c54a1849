//! The bytes of a segment and their checks. Rules 1 to 4 of the module.
//!
//! No reading or writing of files here, and no judgement about what a failed check means. Invariant: nothing
//! that these functions return comes from bytes whose check did not hold.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::{
    consensus::journal::Salt,
    monitor::{body::MAX_BODY_BYTES, form::Protocol},
    types::{Digest, Hasher, UnixMillis},
};

/// The longest value of a header that is kept with a body.
pub(crate) const MAX_HEADER_BYTES: usize = 256;

/// The most bytes of a record's payload: the largest body, two headers, the lengths of all three, and the protocol.
const MAX_PAYLOAD_BYTES: usize = MAX_BODY_BYTES + 2 * MAX_HEADER_BYTES + 16;

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 16 + 4 + 8 + 8 + 8 + 16 + 16;

/// Bytes of a record's head.
pub(super) const RECORD_HEAD_BYTES: usize = 4 + 1 + 4 + 8 + 8 + 16 + 8;

/// The most bytes of a record.
pub(super) const MAX_RECORD_BYTES: usize = RECORD_HEAD_BYTES + MAX_PAYLOAD_BYTES;

const SEGMENT_MAGIC: [u8; 16] = *b"quorate relay q\n";
const RECORD_MAGIC: [u8; 4] = *b"QrR\x01";
/// Version 1 held no protocol beside a body.
const VERSION: u32 = 2;

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct SegmentHeader {
    /// The file's own number.
    pub(super) segment: u64,
    /// The number of the first body in it.
    pub(super) first: u64,
    /// The newest body that was durable when the segment was begun; 0 for none.
    pub(super) durable: u64,
    pub(super) salt: Salt,
}

/// Why bytes are no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// It is too short, or its check does not hold.
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

    /// The header at the beginning of these bytes, which may go on. The version is looked at first: another
    /// one may have its check elsewhere. Zero is no version but what a torn write leaves.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if let Some(version) = bytes.strip_prefix(&SEGMENT_MAGIC).and_then(<[u8]>::first_chunk::<4>) {
            match u32::from_le_bytes(*version) {
                0 | VERSION => {}
                other => return Err(HeaderError::Version(other)),
            }
        }
        let header = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(HeaderError::Malformed)?;
        let (covered, check) = header.split_at(SEGMENT_HEADER_BYTES - 16);
        if Digest::of(covered).as_bytes()[..16] != *check {
            return Err(HeaderError::Malformed);
        }
        let decoded: Result<([u8; 16], u32, Self), _> = borsh::from_slice(covered);
        match decoded {
            Ok((SEGMENT_MAGIC, VERSION, header)) => Ok(header),
            Ok(_) | Err(_) => Err(HeaderError::Malformed),
        }
    }
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) enum Kind {
    /// One body: a [`Kept`].
    Body,
    /// How far each replica is: a list of [`Cursor`].
    Cursors,
}

/// A body with the headers that say how to read it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Kept {
    /// Which of a replica's paths it goes to.
    pub protocol: Protocol,
    /// Its `Content-Type`.
    pub content_type: String,
    /// Its `Content-Encoding`, if it has one.
    pub content_encoding: Option<String>,
    /// The client's own bytes.
    pub body: Vec<u8>,
}

/// How far one replica is.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Cursor {
    /// Its name.
    pub(super) replica: String,
    /// The first body that is not settled for it; all before are.
    pub(super) next: u64,
}

/// A record's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct RecordHead {
    pub(super) kind: Kind,
    pub(super) payload_bytes: u32,
    /// A body's own number; of cursors, the number of the next body.
    pub(super) sequence: u64,
    /// When it came, on the relay's wall clock.
    pub(super) at: UnixMillis,
    payload_check: [u8; 16],
}

impl RecordHead {
    /// Bytes of the whole record.
    pub(super) const fn record_bytes(&self) -> usize {
        RECORD_HEAD_BYTES + self.payload_bytes as usize
    }

    /// The head at the beginning of these bytes; `None` when it is none or its check does not hold.
    pub(super) fn decode(bytes: &[u8], salt: &Salt) -> Option<Self> {
        let head = bytes.get(..RECORD_HEAD_BYTES)?;
        if !head.starts_with(&RECORD_MAGIC) {
            return None;
        }
        let (covered, check) = head.split_at(RECORD_HEAD_BYTES - 8);
        if digest(b'h', salt, covered).as_bytes()[..8] != *check {
            return None;
        }
        let head: Self = borsh::from_slice(&covered[4..]).ok()?;
        (head.payload_bytes as usize <= MAX_PAYLOAD_BYTES).then_some(head)
    }
}

/// A whole record, appended to `bytes`.
pub(super) fn encode_record<T: BorshSerialize>(
    bytes: &mut Vec<u8>,
    kind: Kind,
    sequence: u64,
    at: UnixMillis,
    payload: &T,
    salt: &Salt,
) {
    let start = bytes.len();
    bytes.resize(start + RECORD_HEAD_BYTES, 0);
    payload.serialize(bytes).expect("writing to memory does not fail");
    let payload = &bytes[start + RECORD_HEAD_BYTES..];
    let payload_bytes = u32::try_from(payload.len()).expect("whoever appends keeps to the bounds");
    let payload_check = digest(b'p', salt, payload).as_bytes()[..16].try_into().expect("16 are 16");
    let head = RecordHead { kind, payload_bytes, sequence, at, payload_check };
    let mut covered = RECORD_MAGIC.to_vec();
    head.serialize(&mut covered).expect("writing to memory does not fail");
    let check = digest(b'h', salt, &covered);
    covered.extend_from_slice(&check.as_bytes()[..8]);
    bytes[start..start + RECORD_HEAD_BYTES].copy_from_slice(&covered);
}

/// A record whose checks hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) head: RecordHead,
    pub(super) payload: &'a [u8],
}

/// What stands at a place of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// A whole record.
    Record(Record<'a>),
    /// So many bytes that are none, and a record's head after them.
    Damaged { bytes: usize },
    /// So many bytes that are none, up to the end.
    Tail { bytes: usize },
}

/// Goes through the records of a segment, or of a part of one that begins with a record.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    salt: &'a Salt,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(bytes: &'a [u8], salt: &'a Salt) -> Self {
        Self { bytes, at: 0, salt }
    }

    /// Where the next thing begins.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    fn record(&self) -> Option<Record<'a>> {
        let rest = &self.bytes[self.at..];
        let head = RecordHead::decode(rest, self.salt)?;
        let payload = rest.get(RECORD_HEAD_BYTES..head.record_bytes())?;
        let check = digest(b'p', self.salt, payload);
        (check.as_bytes()[..16] == head.payload_check).then_some(Record { head, payload })
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.bytes.len() {
            return None;
        }
        if let Some(record) = self.record() {
            self.at += record.head.record_bytes();
            return Some(Found::Record(record));
        }
        // A length whose check holds is believed; else the next head is looked for byte by byte.
        let rest = &self.bytes[self.at..];
        let skip = RecordHead::decode(rest, self.salt).map(|head| head.record_bytes());
        let is_head = |at: &usize| RecordHead::decode(&rest[*at..], self.salt).is_some();
        let next = match skip.filter(|skip| *skip < rest.len()) {
            Some(skip) => Some(skip),
            None => (1..rest.len()).find(is_head),
        };
        self.at = next.map_or(self.bytes.len(), |bytes| self.at + bytes);
        Some(next.map_or(Found::Tail { bytes: rest.len() }, |bytes| Found::Damaged { bytes }))
    }
}

fn digest(what: u8, salt: &Salt, covered: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    salt.serialize(&mut hasher).expect("a hash takes everything");
    hasher.update(&[what]);
    hasher.update(covered);
    hasher.finish()
}
