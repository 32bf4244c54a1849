//! A disk in memory that crashes in every way that the rules of [`Disk`] allow.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use crate::consensus::journal::{Disk, DiskError};

/// A handle to one disk; clones see the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, File>,
    durable_names: BTreeSet<String>,
    /// Files whose removal is not durable.
    removed: BTreeMap<String, File>,
    /// Operations until one fails; `None`: none does.
    fails_after: Option<usize>,
    /// Whether no file can be removed.
    keeps_all: bool,
    /// Operations so far.
    operations: usize,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// As of the last sync.
    durable: Vec<u8>,
}

/// What becomes of the bytes that were appended and not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unsynced {
    /// So many of them are kept.
    Prefix(usize),
    /// The length is kept, the bytes in this range (of the unsynced ones) are zeros.
    Zeroed { from: usize, to: usize },
}

impl MemoryDisk {
    /// The power goes: what is not durable is lost, as `unsynced` says.
    pub(crate) fn crash(&self, unsynced: Unsynced) {
        let mut state = self.0.borrow_mut();
        state.fails_after = None;
        let State { files, durable_names, removed, .. } = &mut *state;
        files.retain(|name, _| durable_names.contains(name));
        // A removal that was not synced may not have happened.
        files.append(removed);
        for file in files.values_mut() {
            let synced = file.durable.len().min(file.bytes.len());
            match unsynced {
                Unsynced::Prefix(kept) => file.bytes.truncate(synced.saturating_add(kept)),
                Unsynced::Zeroed { from, to } => {
                    let end = file.bytes.len();
                    file.bytes[(synced + from).min(end)..(synced + to).min(end)].fill(0);
                }
            }
            assert!(file.bytes.starts_with(&file.durable), "a crash keeps what is durable");
            file.durable.clone_from(&file.bytes);
        }
    }

    pub(crate) fn fail_after(&self, operations: usize) {
        self.0.borrow_mut().fails_after = Some(operations);
    }

    /// From now on no file can be removed, or it can again.
    pub(crate) fn keep_all(&self, keeps_all: bool) {
        self.0.borrow_mut().keeps_all = keeps_all;
    }

    /// How many operations there were.
    pub(crate) fn operations(&self) -> usize {
        self.0.borrow().operations
    }

    pub(crate) fn unsynced(&self, name: &str) -> usize {
        let state = self.0.borrow();
        state.files[name].bytes.len() - state.files[name].durable.len()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.borrow().files.keys().cloned().collect()
    }

    /// The names of the journal's segments, in order.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.ends_with(".journal")).collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.borrow().files[name].bytes.clone()
    }

    /// Writes over a file behind the journal's back.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.0.borrow_mut();
        state.durable_names.insert(name.to_owned());
        state.files.insert(name.to_owned(), File { durable: bytes.clone(), bytes });
    }

    pub(crate) fn delete(&self, name: &str) {
        self.0.borrow_mut().files.remove(name);
    }

    /// Another disk with the same content.
    pub(crate) fn copy(&self) -> Self {
        let state = self.0.borrow();
        Self(Rc::new(RefCell::new(State {
            files: state.files.clone(),
            durable_names: state.durable_names.clone(),
            removed: state.removed.clone(),
            fails_after: None,
            keeps_all: false,
            operations: state.operations,
        })))
    }

    fn change<T>(&self, name: &str, change: impl FnOnce(&mut State) -> Option<T>) -> Result<T, DiskError> {
        let mut state = self.0.borrow_mut();
        state.operations += 1;
        if let Some(left) = &mut state.fails_after {
            if *left == 0 {
                // One failure only: what comes after works, and must not be trusted all the same.
                state.fails_after = None;
                return Err(DiskError::Full { name: name.to_owned() });
            }
            *left -= 1;
        }
        change(&mut state)
            .ok_or_else(|| DiskError::Io { name: name.to_owned(), error: "impossible".to_owned() })
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.names())
    }

    fn create(&mut self, name: &str) -> Result<(), DiskError> {
        self.change(name, |state| {
            let new = !state.files.contains_key(name);
            state.files.entry(name.to_owned()).or_default();
            new.then_some(())
        })
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.change(name, |state| {
            state.files.get_mut(name)?.bytes.extend_from_slice(bytes);
            Some(())
        })
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        self.change(name, |state| {
            let file = state.files.get_mut(name)?;
            file.durable.clone_from(&file.bytes);
            Some(())
        })
    }

    fn sync_folder(&mut self) -> Result<(), DiskError> {
        self.change("", |state| {
            state.durable_names = state.files.keys().cloned().collect();
            state.removed.clear();
            Some(())
        })
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        self.change(name, |state| Some(state.files.get(name)?.bytes.len() as u64))
    }

    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, DiskError> {
        self.change(name, |state| {
            let from = usize::try_from(offset).ok()?;
            state.files.get(name)?.bytes.get(from..from.checked_add(bytes)?).map(<[u8]>::to_vec)
        })
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> Result<(), DiskError> {
        self.change(name, |state| {
            let file = state.files.get_mut(name)?;
            let length = usize::try_from(bytes).ok().filter(|length| *length <= file.bytes.len())?;
            file.bytes.truncate(length);
            file.durable.truncate(length);
            Some(())
        })
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.change(name, |state| {
            let removed = if state.keeps_all { None } else { state.files.remove(name) }?;
            if state.durable_names.contains(name) {
                state.removed.insert(name.to_owned(), removed);
            }
            Some(())
        })
    }
}
