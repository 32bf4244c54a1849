//! The journal itself: opening, appending, syncing, reading back one entry.
//!
//! It neither decides when to sync nor what an entry means. Invariant: after the first failed write nothing
//! is written any more, and no later operation succeeds.

use std::collections::BTreeMap;

use super::{
    disk::{Disk, DiskError},
    format::{
        Identity, MAX_ENTRY_BYTES, RECORD_HEAD_BYTES, Record, RecordHead, SEAL_BYTES, SEGMENT_BYTES,
        SEGMENT_HEADER_BYTES, Salt, Seal, SegmentHeader,
    },
    recovery::{OpenError, Recovery, file_name, read_all},
};

/// The empty file whose name says that records were durable here (rule 10).
pub const BEGUN_FILE: &str = "begun";

/// What a journal needs to know to be opened.
#[derive(Clone, Copy, Debug)]
pub struct JournalConfig {
    /// Whose journal it is.
    pub identity: Identity,
    /// For the segments that will be created.
    pub salt: Salt,
    /// When to begin a new segment: at most [`SEGMENT_BYTES`], which is what replicas use. A larger value
    /// counts as that; tests take less.
    pub segment_bytes: u64,
}

/// Where an entry lies: good for [`Journal::read`] until its segment is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryLocation {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) payload_bytes: u32,
}

impl EntryLocation {
    /// The segment that it lies in.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.segment
    }
}

/// An entry as it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where it lies.
    pub location: EntryLocation,
    /// What the caller said it is.
    pub kind: u8,
    /// The caller's bytes.
    pub payload: &'a [u8],
}

/// Why an operation on an open journal failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The entry is too large and was not written; the journal is as before.
    #[error("an entry of {bytes} bytes is over the journal's limit of {MAX_ENTRY_BYTES}")]
    TooLarge {
        /// The payload's size.
        bytes: usize,
    },
    /// A write or sync failed, now or earlier: the process must end and open the journal anew.
    #[error("the journal failed and takes nothing more: {0}")]
    Failed(DiskError),
    /// An old segment could not be removed; the journal works on, and the next call tries it again.
    #[error("an old segment cannot be removed from the journal, which keeps its room on the disk: {0}")]
    NotRemoved(DiskError),
    /// An old entry could not be read; the journal works on.
    #[error("an entry cannot be read from the journal: {0}")]
    Unreadable(DiskError),
    /// An old entry is not what was written; the journal works on.
    #[error("the entry at byte {offset} of {file} is damaged")]
    Damaged {
        /// The file.
        file: String,
        /// Where the entry begins.
        offset: u64,
    },
}

/// The local record of a replica. See the module for its rules.
#[derive(Debug)]
pub struct Journal<D> {
    disk: D,
    config: JournalConfig,
    salts: BTreeMap<u64, Salt>,
    /// The segment that is appended to; 0 before the first.
    segment: u64,
    salt: Salt,
    file: String,
    /// Bytes in it.
    offset: u64,
    /// The last appended record's number; 0 before the first.
    sequence: u64,
    /// The last durable record's number.
    durable: u64,
    seal: Seal,
    /// Whether [`BEGUN_FILE`] is there (rule 10).
    has_begun: bool,
    /// Whether the oldest segment's file is gone already, though perhaps not durably.
    oldest_is_gone: bool,
    failed: Option<DiskError>,
}

impl<D: Disk> Journal<D> {
    /// Opens the journal in a disk's folder, or begins one in an empty folder, and shows every entry in the
    /// order of appending. What was shown counts only if the answer is `Ok`; it is durable then.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong, where, and what to do. The replica must not sign.
    pub fn open(
        disk: D,
        config: JournalConfig,
        mut visit: impl FnMut(Entry<'_>),
    ) -> Result<(Self, Recovery), OpenError> {
        let mut recovery = Recovery::default();
        let end = read_all(&disk, config.identity, &mut |entry| {
            recovery.entries += 1;
            visit(entry);
        })?;
        let (segment, salt) =
            end.salts.last_key_value().map_or((0, config.salt), |(segment, salt)| (*segment, *salt));
        recovery.first_segment = end.salts.first_key_value().map_or(1, |(first, _)| *first);
        recovery.segments = end.salts.len() as u64;
        let has_begun = disk.list()?.iter().any(|name| name == BEGUN_FILE);
        if recovery.entries == 0 && (has_begun || recovery.first_segment > 1) {
            return Err(OpenError::Lost);
        }
        let mut journal = Self {
            disk,
            config,
            salts: end.salts,
            segment,
            salt,
            file: file_name(segment),
            offset: end.offset,
            sequence: end.sequence,
            durable: end.sequence,
            seal: end.seal,
            has_begun,
            oldest_is_gone: false,
            failed: None,
        };
        match (end.unborn, &end.torn) {
            (Some(unborn), _) => {
                journal.disk.remove(&file_name(unborn))?;
                journal.disk.sync_folder()?;
            }
            (None, Some(_)) => journal.disk.truncate(&journal.file, journal.offset)?,
            (None, None) => {}
        }
        recovery.torn = end.torn;
        if segment == 0 {
            journal.begin_segment()?;
        } else {
            // Rule 7.
            journal.disk.sync(&journal.file)?;
            journal.disk.sync_folder()?;
        }
        if recovery.entries > 0 {
            journal.mark_begun()?;
        }
        Ok((journal, recovery))
    }

    /// Appends an entry. It is durable after the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`JournalError::TooLarge`], or [`JournalError::Failed`] now and ever after.
    pub fn append(&mut self, kind: u8, payload: &[u8]) -> Result<EntryLocation, JournalError> {
        self.check()?;
        let too_large = JournalError::TooLarge { bytes: payload.len() };
        let payload_bytes = match u32::try_from(payload.len()) {
            Ok(bytes) if payload.len() <= MAX_ENTRY_BYTES => bytes,
            Ok(_) | Err(_) => return Err(too_large),
        };
        let record_bytes = (RECORD_HEAD_BYTES + payload.len() + SEAL_BYTES) as u64;
        let full = self.offset + record_bytes > self.config.segment_bytes.min(SEGMENT_BYTES);
        if full && self.offset > SEGMENT_HEADER_BYTES as u64 {
            self.sync()?;
            self.begin_segment().map_err(|error| self.fail(error))?;
        }
        let location = EntryLocation { segment: self.segment, offset: self.offset, payload_bytes };
        let head = RecordHead {
            payload_bytes,
            kind,
            sequence: self.sequence + 1,
            durable: self.durable,
            previous: self.seal,
        };
        let (bytes, seal) = head.encode(payload, &self.salt);
        self.disk.append(&self.file, &bytes).map_err(|error| self.fail(error))?;
        self.offset += bytes.len() as u64;
        self.sequence = head.sequence;
        self.seal = seal;
        Ok(location)
    }

    /// Makes all that was appended durable. It costs nothing when there is nothing new.
    ///
    /// # Errors
    /// [`JournalError::Failed`] now and ever after: nothing since the last sync may be relied upon.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.check()?;
        if self.durable < self.sequence {
            let synced = self.disk.sync(&self.file).and_then(|()| self.mark_begun());
            synced.map_err(|error| self.fail(error))?;
            self.durable = self.sequence;
        }
        Ok(())
    }

    /// Whether something was appended and not yet made durable.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.durable < self.sequence
    }

    /// Makes all durable and begins a new segment, unless the current one is still empty (rule 9). Gives the number
    /// of the segment that the next entry begins.
    ///
    /// # Errors
    /// [`JournalError::Failed`] now and ever after.
    pub fn rotate(&mut self) -> Result<u64, JournalError> {
        self.sync()?;
        if self.offset > SEGMENT_HEADER_BYTES as u64 {
            self.begin_segment().map_err(|error| self.fail(error))?;
        }
        Ok(self.segment)
    }

    /// Removes all segments before this one, oldest first; the last one with records stays in any case, and those are
    /// synced before (rule 9). What is removed can no longer be read.
    ///
    /// # Errors
    /// [`JournalError::Failed`] as of [`Self::sync`]; [`JournalError::NotRemoved`] when it got only so far; the next call goes on from there.
    pub fn remove_before(&mut self, segment: u64) -> Result<(), JournalError> {
        self.sync()?;
        let is_empty = self.offset <= SEGMENT_HEADER_BYTES as u64;
        let last = self.segment.saturating_sub(u64::from(is_empty));
        while let Some((oldest, _)) = self.salts.first_key_value()
            && *oldest < segment.min(last)
        {
            let oldest = *oldest;
            if !self.oldest_is_gone {
                self.disk.remove(&file_name(oldest)).map_err(JournalError::NotRemoved)?;
                self.oldest_is_gone = true;
            }
            self.disk.sync_folder().map_err(JournalError::NotRemoved)?;
            self.oldest_is_gone = false;
            self.salts.remove(&oldest);
        }
        Ok(())
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.salts.len()
    }

    /// Reads one entry back: its kind and its bytes.
    ///
    /// # Errors
    /// [`JournalError`]; only [`JournalError::Failed`] concerns the journal as a whole.
    pub fn read(&self, location: EntryLocation) -> Result<(u8, Vec<u8>), JournalError> {
        self.check()?;
        let file = file_name(location.segment);
        let damaged = Self::damaged(location);
        let Some(salt) = self.salts.get(&location.segment) else {
            return Err(damaged);
        };
        let record_bytes = RECORD_HEAD_BYTES + location.payload_bytes as usize + SEAL_BYTES;
        let mut bytes =
            self.disk.read(&file, location.offset, record_bytes).map_err(JournalError::Unreadable)?;
        let kind = match Record::decode(&bytes, salt) {
            Some(record) if record.head.payload_bytes == location.payload_bytes => record.head.kind,
            Some(_) | None => return Err(damaged),
        };
        bytes.truncate(record_bytes - SEAL_BYTES);
        bytes.drain(..RECORD_HEAD_BYTES);
        Ok((kind, bytes))
    }

    /// The error for an entry that is not what was written there.
    pub(in crate::consensus) fn damaged(location: EntryLocation) -> JournalError {
        JournalError::Damaged { file: file_name(location.segment), offset: location.offset }
    }

    /// Rule 10: records are durable.
    fn mark_begun(&mut self) -> Result<(), DiskError> {
        if !self.has_begun {
            self.disk.create(BEGUN_FILE)?;
            self.disk.sync_folder()?;
            self.has_begun = true;
        }
        Ok(())
    }

    /// Rule 2, from the point where the segment before is durable.
    fn begin_segment(&mut self) -> Result<(), DiskError> {
        let segment = self.segment + 1;
        let file = file_name(segment);
        let header = SegmentHeader {
            identity: self.config.identity,
            segment,
            first_sequence: self.sequence + 1,
            previous: self.seal,
            salt: self.config.salt,
        };
        self.disk.create(&file)?;
        self.disk.append(&file, &header.encode())?;
        self.disk.sync(&file)?;
        self.disk.sync_folder()?;
        self.salts.insert(segment, self.config.salt);
        self.salt = self.config.salt;
        (self.segment, self.file, self.offset) = (segment, file, SEGMENT_HEADER_BYTES as u64);
        Ok(())
    }

    /// Rule 8.
    fn check(&self) -> Result<(), JournalError> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(JournalError::Failed(error.clone())))
    }

    fn fail(&mut self, error: DiskError) -> JournalError {
        self.failed = Some(error.clone());
        JournalError::Failed(error)
    }
}
