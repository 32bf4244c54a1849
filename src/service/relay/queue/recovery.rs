//! Reading a queue back: which bodies are there, how far each replica is, what is torn and what is damaged.
//! Rules 7 and 9 of the module.
//!
//! It changes nothing on the disk: [`super::Queue::open`] does, with what is reported here. Invariant: no
//! bytes in the folder make it panic, and only an unknown version or a failing disk make it stop.

use std::collections::BTreeMap;

use super::{
    format::{
        Cursor, Found, HeaderError, Kind, MAX_RECORD_BYTES, Record, SEGMENT_HEADER_BYTES, SegmentHeader, Walk,
    },
    pieces::read_pieces,
    store::{LONGEST_SEGMENT_BYTES, Segment},
};
use crate::{
    consensus::journal::{Disk, DiskError, Salt},
    types::UnixMillis,
};

/// What was found when a queue was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// How many bodies are in the queue's files, wanted or not.
    pub bodies: u64,
    /// How many bytes of an unfinished write were cut off.
    pub torn_bytes: u64,
    /// What cannot be read.
    pub damage: Vec<Damage>,
    /// How many bodies are lost with it that some replica still lacked.
    pub lost_bodies: u64,
    /// Replicas that the queue knows and that are named no more, with how many bodies waited for each.
    pub forgotten: Vec<(String, u64)>,
}

/// A place that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {bytes} bytes from byte {offset} on cannot be read")]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Why a queue cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The disk failed: try again once it works.
    #[error("the queue cannot be read: {0}")]
    Disk(#[from] DiskError),
    /// Another version of this program wrote it.
    #[error(
        "{file} has format version {version}, which this program does not know: start the version of quorate \
         that wrote it until the queue is empty, or give this one another folder with --queue"
    )]
    Version {
        /// The file.
        file: String,
        /// The version in it.
        version: u32,
    },
}

/// What the files hold.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// In order.
    pub(super) segments: Vec<Segment>,
    /// Each replica's first body that is not settled.
    pub(super) cursors: BTreeMap<String, u64>,
    /// The number of the next body.
    pub(super) next: u64,
    /// The newest body that is there or is known to have been.
    pub(super) durable: u64,
    /// Whether any number was read yet.
    begun: bool,
    /// The number of the newest file, readable or not.
    pub(super) newest: u64,
    /// Ranges of bodies that are lost: the first of each, and the first after it.
    lost: Vec<(u64, u64)>,
    /// The queue's salt, once some header says it.
    pub(super) salt: Option<Salt>,
    /// Where the newest segment is to be cut.
    pub(super) torn: Option<(String, u64)>,
    /// A newest file that has no header yet, to be removed.
    pub(super) unborn: Option<String>,
    pub(super) report: Recovery,
    reads: Reads,
}

/// Whether the disk can read anything, and why not.
#[derive(Debug, Default)]
struct Reads {
    any: bool,
    error: Option<DiskError>,
}

impl Reads {
    fn note(&mut self, any: bool, error: Option<DiskError>) {
        self.any |= any;
        self.error = self.error.take().or(error);
    }
}

/// A segment's file name.
pub(super) fn file_name(segment: u64) -> String {
    format!("{segment:016}.relay")
}

/// Reads all segments in order.
pub(super) fn read_all<D: Disk>(disk: &D) -> Result<Contents, OpenError> {
    let numbers = segment_numbers(disk)?;
    let mut contents = Contents { next: 1, ..Contents::default() };
    let mut headers = Vec::new();
    for number in numbers {
        let file = file_name(number);
        let header_bytes = disk.len(&file)?.min(SEGMENT_HEADER_BYTES as u64);
        let bytes = usize::try_from(header_bytes).expect("a header is short");
        let pieces = read_pieces(disk, &file, 0, bytes);
        contents.reads.note(pieces.is_any_read, pieces.error);
        let header = match SegmentHeader::decode(&pieces.bytes) {
            Ok(header) => Some(header),
            Err(HeaderError::Malformed) => None,
            Err(HeaderError::Version(version)) => return Err(OpenError::Version { file, version }),
        };
        contents.salt = header.map(|header| header.salt).or(contents.salt);
        headers.push((number, header));
    }
    let newest = headers.last().map(|(number, _)| *number);
    contents.newest = newest.unwrap_or(0);
    for (number, header) in headers {
        contents.read_segment(disk, number, header, Some(number) == newest)?;
    }
    if let Reads { any: false, error: Some(error) } = contents.reads {
        return Err(error.into());
    }
    contents.next = contents.cursors.values().copied().fold(contents.next, u64::max);
    Ok(contents)
}

impl Contents {
    fn read_segment<D: Disk>(
        &mut self,
        disk: &D,
        number: u64,
        header: Option<SegmentHeader>,
        is_newest: bool,
    ) -> Result<(), OpenError> {
        let file = file_name(number);
        let length = disk.len(&file)?;
        if header.is_none() && is_newest && length <= SEGMENT_HEADER_BYTES as u64 {
            // Rule 2: nothing was written to it before its header was durable.
            self.report.torn_bytes = length;
            self.unborn = Some(file);
            return Ok(());
        }
        // A file longer than any that this program writes is not read into memory beyond that length.
        let longest = LONGEST_SEGMENT_BYTES + MAX_RECORD_BYTES as u64;
        let whole = usize::try_from(length.min(longest)).expect("a segment fits into memory");
        let pieces = read_pieces(disk, &file, 0, whole);
        let is_damaged = pieces.error.is_some();
        self.reads.note(pieces.is_any_read, pieces.error);
        if length > longest {
            self.damaged(&file, longest, length - longest);
        }
        let salt = match header {
            Some(header) => {
                self.expect(header.durable + 1);
                self.durable = self.durable.max(header.durable);
                self.next = self.next.max(header.first);
                header.salt
            }
            None => {
                self.damaged(&file, 0, length.min(SEGMENT_HEADER_BYTES as u64));
                let Some(salt) = self.salt else {
                    self.segments.push(Segment::empty(number, self.next, whole as u64, None));
                    return Ok(());
                };
                salt
            }
        };
        let records = pieces.bytes.get(SEGMENT_HEADER_BYTES..).unwrap_or_default();
        // A write that the power cut off can be read: what cannot is damage.
        self.read_records(&file, number, records, salt, is_newest && !is_damaged);
        Ok(())
    }

    fn read_records(&mut self, file: &str, number: u64, bytes: &[u8], salt: Salt, is_newest: bool) {
        let mut walk = Walk::new(bytes, &salt);
        let mut segment = Segment::empty(number, self.next, SEGMENT_HEADER_BYTES as u64, Some(salt));
        // What is no record, and not known yet to be damage rather than a torn write.
        let mut open: Vec<(u64, u64)> = Vec::new();
        loop {
            let offset = (SEGMENT_HEADER_BYTES + walk.at()) as u64;
            match walk.next() {
                Some(Found::Record(record)) => {
                    for (offset, bytes) in open.drain(..) {
                        self.damaged(file, offset, bytes);
                    }
                    self.take(&record, &mut segment);
                    segment.end = (SEGMENT_HEADER_BYTES + walk.at()) as u64;
                }
                Some(Found::Damaged { bytes } | Found::Tail { bytes }) => open.push((offset, bytes as u64)),
                None => break,
            }
        }
        let remains: u64 = open.iter().map(|(_, bytes)| bytes).sum();
        if remains > 0 && is_newest {
            self.report.torn_bytes = remains;
            self.torn = Some((file.to_owned(), segment.end));
        } else {
            for (offset, bytes) in open {
                self.damaged(file, offset, bytes);
            }
        }
        self.report.bodies += segment.bodies;
        self.segments.push(segment);
    }

    fn take(&mut self, record: &Record<'_>, segment: &mut Segment) {
        let sequence = record.head.sequence;
        self.expect(sequence);
        match record.head.kind {
            Kind::Body => {
                segment.add(sequence, record.head.record_bytes() as u64, record.head.at);
                self.next = self.next.max(sequence + 1);
                self.durable = self.durable.max(sequence);
            }
            Kind::Cursors => {
                // Its check held, so it can be read; were it not so, an older one is as good (rule 9).
                if let Ok(cursors) = borsh::from_slice::<Vec<Cursor>>(record.payload) {
                    self.cursors = cursors.into_iter().map(|cursor| (cursor.replica, cursor.next)).collect();
                }
            }
        }
    }

    /// A body before this one that was not seen is lost. What came before the oldest file is not: it was
    /// settled or dropped.
    fn expect(&mut self, sequence: u64) {
        if self.begun && sequence > self.next {
            self.lost.push((self.next, sequence));
        }
        self.begun = true;
        self.next = self.next.max(sequence);
    }

    /// How many bodies from this number on are lost.
    pub(super) fn lost_from(&self, cursor: u64) -> u64 {
        self.lost.iter().map(|(from, to)| to.saturating_sub((*from).max(cursor))).sum()
    }

    fn damaged(&mut self, file: &str, offset: u64, bytes: u64) {
        self.report.damage.push(Damage { file: file.to_owned(), offset, bytes });
    }
}

/// The numbers of the segments in the folder, in order. Other files are not the queue's.
fn segment_numbers<D: Disk>(disk: &D) -> Result<Vec<u64>, DiskError> {
    let mut numbers: Vec<u64> = disk
        .list()?
        .iter()
        .filter_map(|name| {
            let number = name.strip_suffix(".relay")?.parse().ok()?;
            (file_name(number) == *name).then_some(number)
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl Segment {
    /// One without bodies.
    pub(super) const fn empty(number: u64, first: u64, end: u64, salt: Option<Salt>) -> Self {
        Self {
            number,
            first,
            last: first - 1,
            end,
            salt,
            bodies: 0,
            bytes: 0,
            oldest_at: UnixMillis::ZERO,
            newest_at: UnixMillis::ZERO,
            read_failures: 0,
        }
    }

    /// Counts a body of a record of so many bytes.
    pub(super) fn add(&mut self, sequence: u64, bytes: u64, at: UnixMillis) {
        if self.bodies == 0 {
            self.oldest_at = at;
        }
        self.last = self.last.max(sequence);
        self.bodies += 1;
        self.bytes += bytes;
        self.newest_at = self.newest_at.max(at);
    }
}
