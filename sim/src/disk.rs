//! A disk in memory that crashes in every way that the rules of [`Disk`] allow, as its stream decides.
//!
//! Asked to, it fails operations, fills up, rots and goes back to an older copy of itself. Invariant: until it rots
//! or goes back, a crash keeps each file's synced bytes, if the file's name was synced.

use quorate::consensus::journal::{Disk, DiskError};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use crate::rng::Stream;

/// A handle to one disk; clones see the same one.
#[derive(Clone, Debug)]
pub struct SimDisk(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    files: BTreeMap<String, File>,
    durable_names: BTreeSet<String>,
    /// Files whose removal is not durable.
    removed: BTreeMap<String, File>,
    /// Whether the next sync fails.
    next_sync_fails: bool,
    /// Whether nothing more fits.
    full: bool,
    /// Whether an operation failed since the last crash, as it was asked to.
    has_failed: bool,
    /// The durable files of an earlier time.
    copy: Option<BTreeMap<String, File>>,
    /// How often it did what it was asked to, and what crashes left, by name.
    met: BTreeMap<&'static str, u64>,
    stream: Stream,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// How many of the bytes were there at the last sync.
    synced: usize,
    /// Synced bytes that an unsynced truncation cut off.
    cut: Vec<u8>,
    /// A sync failed: the system dropped what it could not write, and later syncs succeed without it.
    dropped: bool,
}

/// How a replica ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: the system still has what was appended.
    Process,
    /// The power goes: what was not synced is lost, or torn.
    Power,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self(Rc::new(RefCell::new(State {
            files: BTreeMap::new(),
            durable_names: BTreeSet::new(),
            removed: BTreeMap::new(),
            next_sync_fails: false,
            full: false,
            has_failed: false,
            copy: None,
            met: BTreeMap::new(),
            stream,
        })))
    }

    /// The next sync fails; those after it succeed and carry nothing.
    pub fn fail_next_sync(&self) {
        self.0.borrow_mut().next_sync_fails = true;
    }

    /// From now on nothing more fits, or it does again.
    pub fn set_full(&self, full: bool) {
        self.0.borrow_mut().full = full;
    }

    /// Everything works again from now on.
    pub fn heal(&self) {
        let mut state = self.0.borrow_mut();
        (state.full, state.next_sync_fails) = (false, false);
    }

    /// Whether an operation failed since the last crash because it was asked to.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.0.borrow().has_failed
    }

    /// How often it failed, was full, or lost or tore what was not synced.
    #[must_use]
    pub fn met(&self) -> BTreeMap<&'static str, u64> {
        self.0.borrow().met.clone()
    }

    /// Keeps a copy of what is durable now.
    pub fn copy(&self) {
        let mut state = self.0.borrow_mut();
        let durable = state.files.iter().filter(|(name, _)| state.durable_names.contains(*name));
        let copy = durable
            .map(|(name, file)| {
                let bytes = file.bytes[..file.synced].to_vec();
                (name.clone(), File { synced: bytes.len(), bytes, ..File::default() })
            })
            .collect();
        state.copy = Some(copy);
    }

    /// Goes back to the copy, if there is one. The replica must be down.
    pub fn go_back(&self) {
        let mut state = self.0.borrow_mut();
        if let Some(copy) = state.copy.clone() {
            state.durable_names = copy.keys().cloned().collect();
            state.files = copy;
            state.removed.clear();
        }
    }

    /// Flips one bit somewhere. The replica must be down.
    pub fn rot(&self) {
        let State { files, stream, .. } = &mut *self.0.borrow_mut();
        let bytes: usize = files.values().map(|file| file.bytes.len()).sum();
        if bytes == 0 {
            return;
        }
        let mut place = stream.index(bytes);
        for file in files.values_mut() {
            if let Some(byte) = file.bytes.get_mut(place) {
                *byte ^= 1 << stream.below(8);
                return;
            }
            place -= file.bytes.len();
        }
    }

    /// What remains after a crash. Says whether anything unsynced was lost or torn.
    pub fn crash(&self, crash: Crash) -> bool {
        let mut state = self.0.borrow_mut();
        state.has_failed = false;
        match crash {
            Crash::Process => state.forget_dropped(),
            Crash::Power => state.lose_power(),
        }
    }

    /// Whether the bytes stand somewhere in what a crash now would keep. New ones stand at the end.
    #[must_use]
    pub fn holds_durably(&self, bytes: &[u8]) -> bool {
        let state = self.0.borrow();
        let durable = state.files.iter().rev().filter(|(name, _)| state.durable_names.contains(*name));
        durable.map(|(_, file)| &file.bytes[..file.synced]).any(|synced| contains(synced, bytes))
    }

    fn with<T>(&self, name: &str, work: impl FnOnce(&mut State) -> Option<T>) -> Result<T, DiskError> {
        work(&mut self.0.borrow_mut())
            .ok_or_else(|| DiskError::Io { name: name.to_owned(), error: "no such file or range".to_owned() })
    }
}

/// Whether `part` stands in `whole`; looks at the end first.
fn contains(whole: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else { return true };
    let Some(last_start) = whole.len().checked_sub(part.len()) else { return false };
    (0..=last_start).rev().any(|at| whole[at] == *first && whole[at..].starts_with(part))
}

impl State {
    /// A process that starts anew reads what the disk has, not what a failed sync left in memory.
    fn forget_dropped(&mut self) -> bool {
        let Self { files, met, stream, .. } = self;
        let mut lost = false;
        for file in files.values_mut().filter(|file| file.dropped) {
            lost |= file.synced < file.bytes.len();
            file.tear(met, stream);
        }
        lost
    }

    /// Of what is appended to a full disk a part may fit.
    fn fill(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let fits = self.stream.index(bytes.len() + 1);
        if let Some(file) = self.files.get_mut(name) {
            file.bytes.extend_from_slice(&bytes[..fits]);
        }
        self.fail(name, true)
    }

    fn fail<T>(&mut self, name: &str, full: bool) -> Result<T, DiskError> {
        self.has_failed = true;
        *self.met.entry(if full { "disk full" } else { "sync failed" }).or_default() += 1;
        let name = name.to_owned();
        if full {
            Err(DiskError::Full { name })
        } else {
            Err(DiskError::Io { name, error: "failed".to_owned() })
        }
    }

    fn lose_power(&mut self) -> bool {
        let Self { files, durable_names, removed, met, stream, .. } = self;
        let mut lost = false;
        for (name, file) in std::mem::take(removed) {
            if durable_names.contains(&name) && stream.chance(500) {
                files.insert(name, file);
            }
        }
        files.retain(|name, _| {
            let kept = durable_names.contains(name) || stream.chance(300);
            lost |= !kept;
            kept
        });
        for file in files.values_mut() {
            lost |= file.synced < file.bytes.len() || !file.cut.is_empty();
            file.tear(met, stream);
        }
        *durable_names = files.keys().cloned().collect();
        lost
    }
}

impl File {
    /// Of the unsynced bytes some, all or none are kept, as they were or not.
    fn tear(&mut self, met: &mut BTreeMap<&'static str, u64>, stream: &mut Stream) {
        let cut = std::mem::take(&mut self.cut);
        if !cut.is_empty() && stream.chance(500) {
            self.bytes.truncate(self.synced);
            self.bytes.extend_from_slice(&cut);
        }
        let unsynced = self.bytes.len() - self.synced;
        if unsynced > 0 {
            let place = |stream: &mut Stream| self.synced + stream.index(unsynced + 1);
            let torn = stream.below(4);
            *met.entry(if torn == 0 { "unsynced write lost" } else { "unsynced write torn" }).or_default() +=
                1;
            match torn {
                0 => self.bytes.truncate(self.synced),
                1 | 2 => {
                    let kept = place(stream);
                    self.bytes.truncate(kept);
                }
                _ => {
                    let (one, other) = (place(stream), place(stream));
                    let filler = if stream.chance(500) { 0 } else { 0xa5 };
                    self.bytes[one.min(other)..one.max(other)].fill(filler);
                }
            }
        }
        self.synced = self.bytes.len();
        self.dropped = false;
    }
}

impl Disk for SimDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.0.borrow().files.keys().cloned().collect())
    }

    fn create(&mut self, name: &str) -> Result<(), DiskError> {
        if self.0.borrow().full {
            return self.0.borrow_mut().fail(name, true);
        }
        self.with(name, |state| {
            let new = !state.files.contains_key(name);
            state.files.entry(name.to_owned()).or_default();
            new.then_some(())
        })
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        if self.0.borrow().full {
            return self.0.borrow_mut().fill(name, bytes);
        }
        self.with(name, |state| {
            state.files.get_mut(name)?.bytes.extend_from_slice(bytes);
            Some(())
        })
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        let fails = std::mem::take(&mut self.0.borrow_mut().next_sync_fails);
        self.with(name, |state| {
            let file = state.files.get_mut(name)?;
            file.dropped |= fails;
            if !file.dropped {
                file.synced = file.bytes.len();
                file.cut.clear();
            }
            Some(())
        })?;
        if fails { self.0.borrow_mut().fail(name, false) } else { Ok(()) }
    }

    fn sync_folder(&mut self) -> Result<(), DiskError> {
        self.with("", |state| {
            state.durable_names = state.files.keys().cloned().collect();
            state.removed.clear();
            Some(())
        })
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        self.with(name, |state| Some(state.files.get(name)?.bytes.len() as u64))
    }

    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, DiskError> {
        self.with(name, |state| {
            let from = usize::try_from(offset).ok()?;
            state.files.get(name)?.bytes.get(from..from.checked_add(bytes)?).map(<[u8]>::to_vec)
        })
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> Result<(), DiskError> {
        self.with(name, |state| {
            let file = state.files.get_mut(name)?;
            let length = usize::try_from(bytes).ok().filter(|length| *length <= file.bytes.len())?;
            if length < file.synced {
                let cut = file.bytes[length..file.synced].to_vec();
                file.cut.splice(0..0, cut);
                file.synced = length;
            }
            file.bytes.truncate(length);
            Some(())
        })
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.with(name, |state| {
            let file = state.files.remove(name)?;
            state.removed.insert(name.to_owned(), file);
            Some(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Crash, SimDisk};
    use crate::rng::{Cause, Stream};
    use quorate::consensus::journal::Disk as _;

    #[test]
    fn a_crash_keeps_what_was_synced_and_sometimes_loses_or_tears_the_rest() {
        let (mut lost, mut kept, mut changed) = (0, 0, 0);
        for seed in 0..200 {
            let mut disk = SimDisk::new(Stream::new(seed, Cause::Disk, 0));
            disk.create("a").expect("new");
            disk.append("a", b"synced").expect("there");
            disk.sync("a").expect("there");
            disk.sync_folder().expect("there");
            disk.append("a", b"unsynced").expect("there");
            assert!(disk.holds_durably(b"synced"));
            assert!(!disk.holds_durably(b"dun"), "seed {seed}");
            disk.crash(Crash::Power);
            let length = usize::try_from(disk.len("a").expect("its name was synced")).expect("short");
            let bytes = disk.read("a", 0, length).expect("whole");
            assert!(bytes.starts_with(b"synced"), "seed {seed}");
            lost += usize::from(bytes.len() < 14);
            kept += usize::from(bytes == b"syncedunsynced");
            changed += usize::from(bytes.len() == 14 && bytes != b"syncedunsynced");
        }
        assert!(lost > 20 && kept > 5 && changed > 10, "{lost} lost, {kept} kept, {changed} changed");
    }
}
