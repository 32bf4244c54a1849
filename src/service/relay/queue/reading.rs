//! Giving bodies out to lanes, in order, past what is damaged or too old. Rules 7 and 10 of the module.
//!
//! Invariant: a lane is given a body once in a run of the program; what it does not settle is given out again
//! after a restart.

use super::{
    format::{Found, Kept, Kind, RECORD_HEAD_BYTES, RecordHead, SEGMENT_HEADER_BYTES, Walk},
    pieces::read_pieces,
    recovery::file_name,
    store::{InHand, Place, Queue, Segment},
};
use crate::{
    consensus::journal::{Disk, DiskError},
    types::UnixMillis,
};

/// How many bytes are read at once; a body that is longer is read alone.
const CHUNK_BYTES: u64 = 256 * 1024;

/// How often a file is not read before what cannot be read of it is given up: a lane asks again after seconds, and a
/// disk that is only busy or being reconnected has that long.
const READS_TRIED: u32 = 3;

/// A body that a lane holds until it settles it.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The body's number in the queue.
    pub sequence: u64,
    /// When it came.
    pub at: UnixMillis,
    /// The body.
    pub kept: Kept,
}

impl<D: Disk> Queue<D> {
    /// The next bodies for a lane, at most so many and about so many bytes; none when there are none yet.
    ///
    /// # Errors
    /// [`DiskError`] when the disk cannot be read; the lane may ask again.
    pub fn take(
        &mut self,
        lane: usize,
        most: usize,
        most_bytes: u64,
        now: UnixMillis,
    ) -> Result<Vec<Taken>, DiskError> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < most && bytes < most_bytes {
            let Some(segment) = self.readable(lane) else { break };
            let room = (most - taken.len(), most_bytes - bytes);
            let before = taken.len();
            match self.read_some(lane, &segment, room, now, &mut taken) {
                Ok(()) => {}
                // What was read before is in the lane's hands now.
                Err(_) if !taken.is_empty() => break,
                Err(error) => return Err(error),
            }
            bytes += taken[before..].iter().map(|taken| taken.kept.body.len() as u64).sum::<u64>();
        }
        Ok(taken)
    }

    /// The segment in which something is left for the lane; its place moves there.
    fn readable(&mut self, lane: usize) -> Option<Segment> {
        let lane = self.lanes.get_mut(lane)?;
        loop {
            let here = self.segments.iter().position(|segment| segment.number >= lane.place.segment)?;
            let segment = &self.segments[here];
            if segment.number > lane.place.segment {
                lane.place = Place::start_of(segment, lane.place.sequence);
            }
            if lane.place.offset < segment.end && segment.salt.is_some() {
                return Some(segment.clone());
            }
            let next = self.segments.get(here + 1)?;
            lane.place = Place::start_of(next, lane.place.sequence.max(segment.last + 1));
        }
    }

    fn read_some(
        &mut self,
        lane: usize,
        segment: &Segment,
        (most, most_bytes): (usize, u64),
        now: UnixMillis,
        taken: &mut Vec<Taken>,
    ) -> Result<(), DiskError> {
        let Some(salt) = segment.salt else { return Ok(()) };
        let place = self.lanes[lane].place;
        let (bytes, is_all) = self.read_records(segment, place.offset)?;
        let oldest = now.minus(self.max_age());
        let lane = &mut self.lanes[lane];
        let mut walk = Walk::new(&bytes, &salt);
        let (mut count, mut taken_bytes, mut moved) = (0, 0, false);
        while count < most && taken_bytes < most_bytes {
            let found = match walk.next() {
                Some(Found::Record(record)) => record,
                Some(Found::Damaged { .. }) => continue,
                Some(Found::Tail { .. }) if is_all => continue,
                // The rest of a record that the next read begins with.
                Some(Found::Tail { .. }) => return Ok(()),
                None => break,
            };
            lane.place.offset = place.offset + walk.at() as u64;
            let head = found.head;
            if head.kind != Kind::Body {
                continue;
            }
            lane.place.bodies += 1;
            lane.place.bytes += head.record_bytes() as u64;
            if head.sequence < lane.place.sequence {
                continue;
            }
            lane.place.sequence = head.sequence + 1;
            moved = true;
            let Ok(kept) = borsh::from_slice::<Kept>(found.payload) else {
                lane.dropped.damage += 1;
                continue;
            };
            if head.at < oldest {
                lane.dropped.age += 1;
                continue;
            }
            count += 1;
            taken_bytes += kept.body.len() as u64;
            lane.in_hand.insert(head.sequence, InHand { bytes: head.record_bytes() as u64, at: head.at });
            taken.push(Taken { sequence: head.sequence, at: head.at, kept });
        }
        if is_all && walk.at() == bytes.len() {
            lane.dropped.damage += segment.bodies.saturating_sub(lane.place.bodies);
            lane.place = Place {
                segment: segment.number,
                offset: segment.end,
                sequence: lane.place.sequence.max(segment.last + 1),
                bodies: segment.bodies,
                bytes: segment.bytes,
            };
        }
        if moved {
            self.note_moved_cursors();
        }
        Ok(())
    }

    /// Bytes of a segment from a place on that begin with a whole record, or else all that there are; and
    /// whether they are all.
    fn read_records(&mut self, segment: &Segment, offset: u64) -> Result<(Vec<u8>, bool), DiskError> {
        let rest = segment.end - offset;
        let mut read = |bytes: u64| {
            let bytes = usize::try_from(bytes).expect("a segment fits into memory");
            Ok((self.read_part(segment.number, offset, bytes)?, bytes as u64 == rest))
        };
        let Some(salt) = segment.salt.as_ref() else { return read(rest) };
        let begins_with_record =
            |bytes: &[u8]| matches!(Walk::new(bytes, salt).next(), Some(Found::Record(_)));
        let (bytes, is_all) = read(rest.min(CHUNK_BYTES))?;
        if is_all || begins_with_record(&bytes) {
            return Ok((bytes, is_all));
        }
        if let Some(head) = RecordHead::decode(&bytes, salt) {
            let (bytes, is_all) = read(rest.min(head.record_bytes() as u64))?;
            if is_all || begins_with_record(&bytes) {
                return Ok((bytes, is_all));
            }
        }
        read(rest)
    }

    /// Bytes of a segment. What cannot be read is an error at first, and zeros later (rule 7).
    fn read_part(&mut self, number: u64, offset: u64, bytes: usize) -> Result<Vec<u8>, DiskError> {
        let file = file_name(number);
        let error = match self.disk.read(&file, offset, bytes) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        self.read_failures += 1;
        let segment = self.segments.iter_mut().find(|segment| segment.number == number);
        let failures = segment.map_or(READS_TRIED, |segment| {
            segment.read_failures = segment.read_failures.saturating_add(1);
            segment.read_failures
        });
        if failures < READS_TRIED {
            return Err(error);
        }
        let pieces = read_pieces(&self.disk, &file, offset, bytes);
        if !pieces.is_any_read && !self.reads_any_header() {
            return Err(error);
        }
        self.unreadable = pieces.damage.last().cloned().or(self.unreadable.take());
        Ok(pieces.bytes)
    }

    /// Whether the disk can read anything: else it is away, and nothing is given up.
    fn reads_any_header(&self) -> bool {
        let reads = |segment: &Segment| self.disk.read(&file_name(segment.number), 0, SEGMENT_HEADER_BYTES);
        self.segments.iter().any(|segment| reads(segment).is_ok())
    }

    /// Moves a place over the bodies before its number, so that it counts what is left.
    pub(super) fn pass_to(&self, mut place: Place) -> Place {
        let segment = self.segments.iter().find(|segment| segment.number == place.segment);
        let Some((segment, salt)) = segment.and_then(|segment| Some((segment, segment.salt.as_ref()?)))
        else {
            return place;
        };
        let bytes = usize::try_from(segment.end).expect("a segment fits into memory");
        // What cannot be read is found again, and told, when it is to be sent.
        let Ok(bytes) = self.disk.read(&file_name(segment.number), 0, bytes) else { return place };
        let mut walk = Walk::new(bytes.get(SEGMENT_HEADER_BYTES..).unwrap_or_default(), salt);
        while let Some(found) = walk.next() {
            let Found::Record(record) = found else { continue };
            if record.head.kind == Kind::Body {
                if record.head.sequence >= place.sequence {
                    break;
                }
                place.bodies += 1;
                place.bytes += record.head.record_bytes() as u64;
            }
            place.offset = (SEGMENT_HEADER_BYTES + walk.at()) as u64;
        }
        place
    }
}

const _: () = assert!((RECORD_HEAD_BYTES as u64) < CHUNK_BYTES, "a chunk shows at least a head");
