//! [`Queue`]: the segments, the lanes' places in them, and what is written. Reading is in `reading`.
//!
//! Invariant: the end of a [`Segment`] in memory never lies behind what a sync has reported as durable.

use std::collections::{BTreeMap, VecDeque};

use super::{
    format::{Cursor, Kept, Kind, SEGMENT_HEADER_BYTES, SegmentHeader, encode_record},
    recovery::{Contents, Damage, OpenError, Recovery, file_name, read_all},
    told::{Dropped, Lag, LaneStatus, Outcome, QueueStatus},
};
use crate::{
    consensus::journal::{Disk, DiskError, Salt},
    types::{Millis, UnixMillis},
};

/// The smallest bound of a queue: sixteen segments, any of which may hold one body of the largest size.
pub const LEAST_QUEUE_BYTES: u64 = 64 * 1024 * 1024;

/// A segment is a sixteenth of the bound, so that dropping the oldest one drops little, and no longer than
/// this, so that recovery holds little in memory.
pub(super) const LONGEST_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// How much room must be left at the start, and before bodies are taken again after a failed write: some ten
/// bodies of a busy engine. With less it would fail at once.
const ROOM_BYTES: usize = 256 * 1024;

/// What a queue is opened with.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// The replicas' names, each once; a lane is a place in this list.
    pub replicas: Vec<String>,
    /// How many bytes the files may have together.
    pub bytes: u64,
    /// How old a body may become.
    pub max_age: Millis,
    /// Random bytes for a new queue; one that exists keeps its own.
    pub salt: Salt,
}

/// A file of the queue.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// The number of the first body that may be in it.
    pub(super) first: u64,
    /// The number of the last body in it; one below the first when there is none.
    pub(super) last: u64,
    /// How much of the file counts.
    pub(super) end: u64,
    /// `None` when nothing in it can be read.
    pub(super) salt: Option<Salt>,
    pub(super) bodies: u64,
    /// The bytes of the bodies' records.
    pub(super) bytes: u64,
    pub(super) oldest_at: UnixMillis,
    pub(super) newest_at: UnixMillis,
    /// How often the disk could not read it.
    pub(super) read_failures: u32,
}

/// Where a lane reads next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Bodies below this number are passed over.
    pub(super) sequence: u64,
    /// How many of the segment's bodies, and bytes of them, it has passed.
    pub(super) bodies: u64,
    pub(super) bytes: u64,
}

impl Place {
    /// The beginning of a segment, for a lane that wants bodies from this number on.
    pub(super) fn start_of(segment: &Segment, sequence: u64) -> Self {
        let (offset, sequence) = (SEGMENT_HEADER_BYTES as u64, sequence.max(segment.first));
        Self { segment: segment.number, offset, sequence, bodies: 0, bytes: 0 }
    }
}

/// A body that a lane holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct InHand {
    pub(super) bytes: u64,
    pub(super) at: UnixMillis,
}

#[derive(Debug)]
pub(super) struct Lane {
    name: String,
    pub(super) place: Place,
    pub(super) in_hand: BTreeMap<u64, InHand>,
    pub(super) sent: u64,
    pub(super) refused: u64,
    pub(super) dropped: Dropped,
}

impl Lane {
    /// The first body that is not settled.
    fn cursor(&self) -> u64 {
        self.in_hand.first_key_value().map_or(self.place.sequence, |(sequence, _)| *sequence)
    }
}

/// The queue.
#[derive(Debug)]
pub struct Queue<D> {
    pub(super) disk: D,
    config: QueueConfig,
    salt: Salt,
    /// In order; the last one is appended to unless the queue is broken.
    pub(super) segments: VecDeque<Segment>,
    pub(super) lanes: Vec<Lane>,
    /// The number of the next body.
    next: u64,
    /// The newest body that is durable.
    durable: u64,
    /// The number of the newest file that was tried.
    newest: u64,
    cursors_moved: bool,
    broken: Option<DiskError>,
    committed: u64,
    failures: u64,
    pub(super) read_failures: u64,
    pub(super) unreadable: Option<Damage>,
}

impl<D: Disk> Queue<D> {
    /// Reads a queue back, or begins a new one. A disk that can be read and not written leaves it broken, as
    /// [`QueueStatus::broken`] says, and is tried again at each tick.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(mut disk: D, config: QueueConfig) -> Result<(Self, Recovery), OpenError> {
        let contents = read_all(&disk)?;
        make_durable(&mut disk, &contents)?;
        let mut recovery = contents.report.clone();
        let forgotten = contents.cursors.iter().filter(|(name, _)| !config.replicas.contains(name));
        recovery.forgotten = forgotten
            .map(|(name, next)| (name.clone(), bodies_from(&contents.segments, *next)))
            .filter(|(_, bodies)| *bodies > 0)
            .collect();
        let mut queue = Self {
            salt: contents.salt.unwrap_or(config.salt),
            next: contents.next,
            durable: contents.durable,
            newest: contents.newest,
            segments: contents.segments.iter().cloned().collect(),
            lanes: Vec::new(),
            disk,
            config,
            cursors_moved: false,
            broken: None,
            committed: 0,
            failures: 0,
            read_failures: 0,
            unreadable: None,
        };
        for name in queue.config.replicas.clone() {
            let lane = queue.resume(name, &contents);
            queue.lanes.push(lane);
        }
        recovery.lost_bodies = queue.passed().map_or(0, |passed| contents.lost_from(passed));
        if let Err(error) = queue.begin_segment(ROOM_BYTES) {
            queue.fail(error);
        }
        Ok((queue, recovery))
    }

    /// Makes bodies durable, all of them or, after an error, perhaps some (rule 5). Nothing but an `Ok` is an
    /// acknowledgement. The bodies are within the bounds of `format`.
    ///
    /// # Errors
    /// [`DiskError`]; nothing is taken until a [`tick`](Self::tick) has found room again (rule 6).
    pub fn commit(&mut self, bodies: &[Kept], now: UnixMillis) -> Result<(), DiskError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.write(bodies, now).map_err(|error| self.fail(error))
    }

    /// Whether a commit would fail because an earlier write did.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Says what became of a body that a lane took.
    pub fn settle(&mut self, lane: usize, sequence: u64, outcome: Outcome) {
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        if lane.in_hand.remove(&sequence).is_none() {
            return;
        }
        match outcome {
            Outcome::Sent => lane.sent += 1,
            Outcome::Refused => lane.refused += 1,
            Outcome::TooOld => lane.dropped.age += 1,
        }
        self.cursors_moved = true;
    }

    /// What time brings: old segments go, cursors that moved become durable, and a broken queue is tried.
    pub fn tick(&mut self, now: UnixMillis) {
        let oldest = now.minus(self.config.max_age);
        while self.segments.len() > 1 && self.segments[0].newest_at < oldest {
            self.drop_oldest(|dropped| &mut dropped.age);
        }
        if self.broken.is_some() {
            // Cursors cannot be made durable, and room is wanted: a resend is the smaller evil.
            self.remove_passed();
            match self.begin_segment(ROOM_BYTES) {
                Ok(()) => self.broken = None,
                Err(error) => self.broken = Some(error),
            }
        } else if self.cursors_moved {
            // The failure is kept and shown; cursors that are not durable cost a resend.
            let _ = self.commit(&[], now);
        }
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> QueueStatus {
        let lane = |lane: &Lane| LaneStatus {
            lag: self.lag(lane),
            sent: lane.sent,
            refused: lane.refused,
            dropped: lane.dropped,
        };
        QueueStatus {
            lanes: self.lanes.iter().map(lane).collect(),
            bytes: self.bytes(),
            segments: self.segments.len() as u64,
            broken: self.broken.clone(),
            committed: self.committed,
            failures: self.failures,
            read_failures: self.read_failures,
            unreadable: self.unreadable.clone(),
        }
    }

    /// The newest body that is durable; lanes wait for it to grow.
    #[must_use]
    pub const fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) const fn max_age(&self) -> Millis {
        self.config.max_age
    }

    pub(super) fn note_moved_cursors(&mut self) {
        self.cursors_moved = true;
    }

    fn lag(&self, lane: &Lane) -> Lag {
        let ahead = self.segments.iter().filter(|segment| segment.number >= lane.place.segment);
        let mut lag = Lag {
            bodies: lane.in_hand.len() as u64,
            bytes: lane.in_hand.values().map(|body| body.bytes).sum(),
            oldest_at: lane.in_hand.values().next().map(|body| body.at),
        };
        for segment in ahead {
            let is_here = segment.number == lane.place.segment;
            let (bodies, bytes) = if is_here { (lane.place.bodies, lane.place.bytes) } else { (0, 0) };
            let waiting = segment.bodies.saturating_sub(bodies);
            lag.bodies += waiting;
            lag.bytes += segment.bytes.saturating_sub(bytes);
            if waiting > 0 && lag.oldest_at.is_none() {
                lag.oldest_at = Some(segment.oldest_at);
            }
        }
        lag
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    fn segment_bytes(&self) -> u64 {
        (self.config.bytes / 16).min(LONGEST_SEGMENT_BYTES)
    }

    fn write(&mut self, bodies: &[Kept], now: UnixMillis) -> Result<(), DiskError> {
        let mut bytes = Vec::new();
        let mut staged = self.current().clone();
        for body in bodies {
            let start = bytes.len();
            encode_record(&mut bytes, Kind::Body, self.next, now, body, &self.salt);
            let record_bytes = (bytes.len() - start) as u64;
            let is_full = staged.end + record_bytes > self.segment_bytes() && staged.bodies > 0;
            if is_full {
                let record = bytes.split_off(start);
                self.append(&bytes, staged)?;
                self.begin_segment(0)?;
                (bytes, staged) = (record, self.current().clone());
            }
            staged.add(self.next, record_bytes, now);
            staged.end += record_bytes;
            self.next += 1;
        }
        if self.cursors_moved {
            let start = bytes.len();
            encode_record(&mut bytes, Kind::Cursors, self.next, now, &self.cursors(), &self.salt);
            staged.end += (bytes.len() - start) as u64;
        }
        self.append(&bytes, staged)?;
        if std::mem::take(&mut self.cursors_moved) {
            self.remove_passed();
        }
        Ok(())
    }

    fn current(&self) -> &Segment {
        self.segments.back().expect("a queue that is not broken has begun a segment")
    }

    /// Appends to the newest segment and makes it durable; then it is what `staged` says.
    fn append(&mut self, bytes: &[u8], staged: Segment) -> Result<(), DiskError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.make_room(bytes.len() as u64);
        let file = file_name(staged.number);
        self.disk.append(&file, bytes)?;
        self.disk.sync(&file)?;
        let bodies = staged.bodies - self.current().bodies;
        if bodies > 0 {
            self.durable = staged.last;
        }
        self.committed += bodies;
        *self.segments.back_mut().expect("it was cloned from there") = staged;
        Ok(())
    }

    /// Rule 2. So many bytes more must fit for it to succeed.
    fn begin_segment(&mut self, room: usize) -> Result<(), DiskError> {
        self.newest = self.newest.saturating_add(1);
        let number = self.newest;
        let header =
            SegmentHeader { segment: number, first: self.next, durable: self.durable, salt: self.salt };
        let mut bytes = header.encode();
        encode_record(&mut bytes, Kind::Cursors, self.next, UnixMillis::ZERO, &self.cursors(), &self.salt);
        let end = bytes.len() as u64;
        bytes.resize(bytes.len() + room, 0);
        let file = file_name(number);
        self.disk.create(&file)?;
        let written = self.write_new(&file, &bytes, end);
        if written.is_err() {
            // It holds nothing; where it stays, the next start finds nothing in it.
            let _ = self.disk.remove(&file);
        }
        written?;
        if let Some(empty) = self.segments.pop_back_if(|newest| newest.bodies == 0) {
            // Lanes that stand in it go on to the next; a file that stays is as empty at the next start.
            let _ = self.disk.remove(&file_name(empty.number));
        }
        self.segments.push_back(Segment::empty(number, self.next, end, Some(self.salt)));
        self.remove_passed();
        Ok(())
    }

    fn write_new(&mut self, file: &str, bytes: &[u8], end: u64) -> Result<(), DiskError> {
        self.disk.append(file, bytes)?;
        self.disk.sync(file)?;
        if end < bytes.len() as u64 {
            self.disk.truncate(file, end)?;
            self.disk.sync(file)?;
        }
        self.disk.sync_folder()
    }

    fn cursors(&self) -> Vec<Cursor> {
        let cursor = |lane: &Lane| Cursor { replica: lane.name.clone(), next: lane.cursor() };
        self.lanes.iter().map(cursor).collect()
    }

    /// Rule 6.
    fn fail(&mut self, error: DiskError) -> DiskError {
        self.failures += 1;
        if let Some(current) = self.segments.back() {
            // If it cannot be cut, its remains are whole records of bodies that were not acknowledged, or
            // none: recovery takes the former and skips the latter.
            let _ = self.disk.truncate(&file_name(current.number), current.end);
        }
        self.broken = Some(error.clone());
        error
    }

    /// Rule 10, before so many bytes are added.
    fn make_room(&mut self, bytes: u64) {
        while self.segments.len() > 1 && self.bytes() + bytes > self.config.bytes {
            self.drop_oldest(|dropped| &mut dropped.bytes);
        }
    }

    fn drop_oldest(&mut self, counter: impl Fn(&mut Dropped) -> &mut u64) {
        let Some(oldest) = self.segments.front().cloned() else { return };
        for lane in self.lanes.iter_mut().filter(|lane| lane.place.segment <= oldest.number) {
            *counter(&mut lane.dropped) += oldest.bodies.saturating_sub(lane.place.bodies);
        }
        self.cursors_moved = true;
        self.remove_oldest();
    }

    /// The first body that some replica still lacks.
    fn passed(&self) -> Option<u64> {
        self.lanes.iter().map(Lane::cursor).min()
    }

    /// Removes segments that every replica has passed. The cursors that say so are durable, so that recovery
    /// does not take for damage that they are gone.
    fn remove_passed(&mut self) {
        let Some(passed) = self.passed() else { return };
        while self.segments.len() > 1 && self.segments[0].last < passed {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        let Some(oldest) = self.segments.pop_front() else { return };
        // A file that stays is found, and found to be passed, at the next start.
        let _ = self.disk.remove(&file_name(oldest.number));
        let Some(next) = self.segments.front() else { return };
        for lane in self.lanes.iter_mut().filter(|lane| lane.place.segment <= oldest.number) {
            lane.place = Place::start_of(next, lane.place.sequence.max(oldest.last + 1));
        }
    }

    /// Rule 9: a lane at the place where its cursor stands.
    fn resume(&self, name: String, contents: &Contents) -> Lane {
        let first = self.segments.front().map_or(self.next, |segment| segment.first);
        let cursor = contents.cursors.get(&name).copied().unwrap_or(first).max(first);
        let here = self.segments.iter().find(|segment| segment.last >= cursor).or(self.segments.back());
        let start = Place { segment: 0, offset: 0, sequence: cursor, bodies: 0, bytes: 0 };
        let place = here.map_or(start, |segment| self.pass_to(Place::start_of(segment, cursor)));
        let dropped = Dropped { damage: contents.lost_from(cursor), ..Dropped::default() };
        Lane { name, place, in_hand: BTreeMap::new(), sent: 0, refused: 0, dropped }
    }
}

/// Rule 8, and the cut of rule 7.
fn make_durable<D: Disk>(disk: &mut D, contents: &Contents) -> Result<(), DiskError> {
    if let Some(unborn) = &contents.unborn {
        disk.remove(unborn)?;
    }
    if let Some((file, end)) = &contents.torn {
        disk.truncate(file, *end)?;
    }
    for segment in &contents.segments {
        disk.sync(&file_name(segment.number))?;
    }
    disk.sync_folder()
}

fn bodies_from(segments: &[Segment], cursor: u64) -> u64 {
    let waiting = |segment: &Segment| {
        let passed = cursor.saturating_sub(segment.first);
        segment.bodies.saturating_sub(passed)
    };
    segments.iter().filter(|segment| segment.last >= cursor).map(waiting).sum()
}
