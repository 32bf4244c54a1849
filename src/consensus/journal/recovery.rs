//! Reading a journal back: which records are there, where they end, and whether the end is a torn write or
//! damage. Rules 5 and 6 of the module.
//!
//! It changes nothing on the disk: [`super::Journal::open`] does, with what is reported here. Invariant: a
//! record that was once reported as durable is read back or the answer is an error.

use std::collections::BTreeMap;

use super::{
    disk::{Disk, DiskError},
    format::{
        HeaderError, Identity, RECORD_MAGIC, Record, RecordHead, SEGMENT_BYTES, SEGMENT_HEADER_BYTES, Salt,
        Seal, SegmentHeader,
    },
    log::{Entry, EntryLocation},
};

/// What was found when a journal was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// How many entries were read.
    pub entries: u64,
    /// How many segments there were; 0 for a new journal.
    pub segments: u64,
    /// The number of the first of them: 1 unless older ones were removed (rule 9).
    pub first_segment: u64,
    /// What was cut off at the end, if anything.
    pub torn: Option<TornTail>,
}

/// The remains of a write that was never reported as durable. They have been cut off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes of an unfinished write were cut off at byte {offset} of {file}")]
pub struct TornTail {
    /// The file.
    pub file: String,
    /// Where the remains began.
    pub offset: u64,
    /// How many bytes they were.
    pub bytes: u64,
}

/// Why a journal cannot be used. In each case the replica must not sign anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The disk failed: try again once it works.
    #[error("the journal cannot be read: {0}")]
    Disk(#[from] DiskError),
    /// The journal is another replica's, or of another cluster: point to the right folder or key.
    #[error(
        "{file} belongs to the replica with key {} of cluster {}, not to key {} of cluster {}: \
         give each replica its own data folder",
        found.key, found.cluster, expected.key, expected.cluster
    )]
    Foreign {
        /// The file.
        file: String,
        /// Whose it is.
        found: Box<Identity>,
        /// Whose it should be.
        expected: Box<Identity>,
    },
    /// A newer program wrote it: use that.
    #[error("{file} has format version {version}, which this program does not know: use a newer one")]
    Version {
        /// The file.
        file: String,
        /// The version in it.
        version: u32,
    },
    /// Durable records are lost: this replica's key must not sign again.
    #[error(
        "{file} is damaged at byte {offset}: {damage}. Votes may be missing, so this replica must not sign \
         with its key again: keep the folder as it is, restore it only from a copy made after this replica \
         stopped, or start with an empty folder under a new key in the next epoch"
    )]
    Damaged {
        /// The file.
        file: String,
        /// The first byte that is not as it was written.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// The folder was used, and no record is in it: this replica's key must not sign again.
    #[error(
        "the folder was used and holds no record any more. Votes may be missing, so this replica must not sign with \
         its key again: restore the folder only from a copy made after this replica stopped, or start with an empty \
         folder under a new key in the next epoch"
    )]
    Lost,
}

/// What is wrong at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file is not there.
    #[error("segment {segment} is missing")]
    MissingSegment {
        /// Its number.
        segment: u64,
    },
    /// The header's check does not hold.
    #[error("the segment's header is not readable")]
    Header,
    /// The header is intact and does not continue the segment before it.
    #[error("the segment does not continue the one before it")]
    Discontinuous,
    /// The file is longer than any segment.
    #[error("the file is longer than any segment")]
    TooLong,
    /// The record that belongs there is not, and a later one or a later segment proves that it was.
    #[error("record {sequence} is not there, and what follows proves that it had been made durable")]
    Record {
        /// Its sequence number.
        sequence: u64,
    },
}

/// Where a journal ends.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    /// The salts of all segments, by number.
    pub(super) salts: BTreeMap<u64, Salt>,
    /// The last record's sequence number.
    pub(super) sequence: u64,
    /// The last record's seal.
    pub(super) seal: Seal,
    /// Bytes of the last segment that are whole records.
    pub(super) offset: u64,
    /// A last segment that has no header yet, to be removed.
    pub(super) unborn: Option<u64>,
    /// What lies behind the end of the last segment, to be cut off.
    pub(super) torn: Option<TornTail>,
}

/// A segment's file name.
pub(super) fn file_name(segment: u64) -> String {
    format!("{segment:016}.journal")
}

/// Reads all segments in order and shows every entry.
pub(super) fn read_all<D: Disk>(
    disk: &D,
    identity: Identity,
    visit: &mut impl FnMut(Entry<'_>),
) -> Result<End, OpenError> {
    let mut end = End::default();
    let segments = segments(disk)?;
    let (Some(first), Some(last)) = (segments.first().copied(), segments.last().copied()) else {
        return Ok(end);
    };
    for (place, segment) in (0..).zip(segments) {
        // A file may bear the largest number there is.
        let (expected, file) = (first.saturating_add(place), file_name(segment));
        if segment != expected {
            let damage = Damage::MissingSegment { segment: expected };
            return Err(OpenError::Damaged { file: file_name(expected), offset: 0, damage });
        }
        let bytes = read_whole(disk, &file)?;
        let is_last = segment == last;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => header,
            // Rule 2: no record was appended before the header was durable. Rule 9: older segments are removed
            // only when a later one has records.
            Err(HeaderError::Malformed)
                if is_last && bytes.len() <= SEGMENT_HEADER_BYTES && (segment > first || segment == 1) =>
            {
                end.unborn = Some(segment);
                end.torn = Some(TornTail { file, offset: 0, bytes: bytes.len() as u64 });
                break;
            }
            Err(HeaderError::Malformed) => {
                return Err(OpenError::Damaged { file, offset: 0, damage: Damage::Header });
            }
            Err(HeaderError::Version(version)) => return Err(OpenError::Version { file, version }),
        };
        if header.identity != identity {
            return Err(OpenError::Foreign {
                file,
                found: Box::new(header.identity),
                expected: Box::new(identity),
            });
        }
        if segment == first && segment > 1 {
            // Rule 9: the records before it were removed with their segments.
            (end.sequence, end.seal) = (header.first_sequence.saturating_sub(1), header.previous);
        }
        if (header.segment, header.first_sequence, header.previous) != (segment, end.sequence + 1, end.seal) {
            return Err(OpenError::Damaged { file, offset: 0, damage: Damage::Discontinuous });
        }
        end.salts.insert(segment, header.salt);
        read_records(&mut end, &bytes, segment, &header.salt, visit);
        settle_end(&mut end, &bytes, file, &header.salt, is_last)?;
    }
    Ok(end)
}

/// Rule 5: reads records until something else stands there.
fn read_records(end: &mut End, bytes: &[u8], segment: u64, salt: &Salt, visit: &mut impl FnMut(Entry<'_>)) {
    let mut at = SEGMENT_HEADER_BYTES;
    while let Some(record) = Record::decode(&bytes[at..], salt) {
        if (record.head.sequence, record.head.previous) != (end.sequence + 1, end.seal) {
            break;
        }
        let offset = at as u64;
        (end.sequence, end.seal) = (record.head.sequence, record.seal);
        let location = EntryLocation { segment, offset, payload_bytes: record.head.payload_bytes };
        visit(Entry { location, kind: record.head.kind, payload: record.payload });
        at += record.head.record_bytes();
    }
    end.offset = at as u64;
}

/// Rule 6: is what follows the last record nothing, a torn write, or damage?
fn settle_end(
    end: &mut End,
    bytes: &[u8],
    file: String,
    salt: &Salt,
    is_last: bool,
) -> Result<(), OpenError> {
    let at = usize::try_from(end.offset).expect("the offset is inside a segment that is in memory");
    if at == bytes.len() {
        return Ok(());
    }
    let missing = end.sequence + 1;
    if !is_last || was_durable(&bytes[at..], salt, missing) {
        let damage = Damage::Record { sequence: missing };
        return Err(OpenError::Damaged { file, offset: end.offset, damage });
    }
    end.torn = Some(TornTail { file, offset: end.offset, bytes: (bytes.len() - at) as u64 });
    Ok(())
}

/// Whether any record's head in these bytes says that the record `sequence` had been durable.
fn was_durable(bytes: &[u8], salt: &Salt, sequence: u64) -> bool {
    (0..bytes.len()).any(|at| {
        bytes[at..].starts_with(&RECORD_MAGIC)
            && RecordHead::decode(&bytes[at..], salt).is_some_and(|head| head.durable >= sequence)
    })
}

fn read_whole<D: Disk>(disk: &D, file: &str) -> Result<Vec<u8>, OpenError> {
    let bytes = disk.len(file)?;
    match usize::try_from(bytes) {
        Ok(whole) if bytes <= SEGMENT_BYTES => Ok(disk.read(file, 0, whole)?),
        Ok(_) | Err(_) => {
            Err(OpenError::Damaged { file: file.to_owned(), offset: SEGMENT_BYTES, damage: Damage::TooLong })
        }
    }
}

/// The numbers of the segments in the folder, in order. Other files are not the journal's.
fn segments<D: Disk>(disk: &D) -> Result<Vec<u64>, OpenError> {
    let mut numbers: Vec<u64> = disk
        .list()?
        .iter()
        .filter_map(|name| {
            let number = name.strip_suffix(".journal")?.parse().ok()?;
            (file_name(number) == *name).then_some(number)
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}
