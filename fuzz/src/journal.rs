//! What lies on a replica's own disk: records and the segments they lie in.
//!
//! Invariant: opening shows a run of the entries that were appended, from the first one unless the first segments are
//! gone, or refuses.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use quorate::{
    consensus::{
        Config, Record, Recovery, ViewTimes,
        journal::{Disk, DiskError, Identity, Journal, JournalConfig, SALT_BYTES, Salt},
    },
    cycle::Seal,
};

use crate::{
    script::Script,
    world::{WORLD, place},
};

/// Small enough that a few entries fill several.
const SEGMENT_BYTES: u64 = 512;

/// The most entries that a script appends.
const MOST_ENTRIES: usize = 32;

/// Consensus records and notes, one after the other, each with its length before it, as a replica reads them back.
pub fn records(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let config = Config {
        committee: Arc::new(WORLD.committee().clone()),
        me: place(0),
        key: WORLD.replicas[0].clone(),
        times: ViewTimes::default(),
        checkpoint_interval: WORLD.genesis.parameters.checkpoint_interval,
    };
    let mut recovery = Recovery::new(config);
    while !script.is_over() {
        let entry = script.bytes();
        if let Ok(seal) = borsh::from_slice::<Seal>(entry) {
            assert_eq!(borsh::to_vec(&seal).expect("memory takes all"), entry, "a note has one encoding");
        }
        let Ok(record) = borsh::from_slice::<Record>(entry) else { continue };
        assert_eq!(borsh::to_vec(&record).expect("memory takes all"), entry, "a record has one encoding");
        if recovery.record(record).is_err() {
            return;
        }
    }
    let mut core = recovery.finish();
    while core.poll_output().is_some() {}
}

/// Segments that were written in order and then changed by somebody else.
pub fn segments(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let files = Files::default();
    let config = JournalConfig {
        identity: Identity { cluster: WORLD.committee().cluster(), key: WORLD.replicas[0].public().id() },
        salt: Salt::new([7; SALT_BYTES]),
        segment_bytes: SEGMENT_BYTES,
    };
    let mut written = Vec::new();
    let (mut journal, _) =
        Journal::open(files.clone(), config, |_| {}).expect("an empty folder is a new journal");
    for _ in 0..script.pick(MOST_ENTRIES) {
        let (kind, length) = (script.byte(), usize::from(script.byte()));
        let payload = script.take(length).to_vec();
        let _ = journal.append(kind, &payload).expect("memory takes all");
        if script.flag() {
            journal.sync().expect("memory is durable");
        }
        written.push((kind, payload));
    }
    drop(journal);
    while !script.is_over() {
        files.change(&mut script);
    }
    let mut shown = Vec::new();
    let opened =
        Journal::open(files.clone(), config, |entry| shown.push((entry.kind, entry.payload.to_vec())));
    if let Ok((_, read)) = opened {
        // The first segments may be gone: whether a history may begin there is not the journal's to say.
        let is_run = if read.first_segment == 1 {
            written.starts_with(&shown)
        } else {
            shown.is_empty() || written.windows(shown.len()).any(|run| run == shown)
        };
        assert!(is_run, "what is shown was appended, in that order");
        let mut again = 0;
        let reopened = Journal::open(files, config, |_| again += 1);
        assert!(reopened.is_ok() && again == shown.len(), "what was opened once opens again");
    }
}

/// A folder in memory.
#[derive(Clone, Debug, Default)]
struct Files(Rc<RefCell<BTreeMap<String, Vec<u8>>>>);

impl Files {
    /// One change to one file, or to the folder.
    fn change(&self, script: &mut Script<'_>) {
        let mut files = self.0.borrow_mut();
        let names: BTreeSet<String> = files.keys().cloned().collect();
        let Some(name) = names.iter().nth(script.pick(names.len())).cloned() else {
            script.rest();
            return;
        };
        match script.pick(8) {
            0 => drop(files.remove(&name)),
            1 => drop(files.insert(format!("{:016}.journal", script.number()), script.bytes().to_vec())),
            2 => {
                let copied = files.get(&name).cloned().unwrap_or_default();
                files.insert(format!("{:016}.journal", script.number()), copied);
            }
            _ => script.mutate(files.entry(name).or_default()),
        }
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Vec<u8>) -> Option<T>) -> Result<T, DiskError> {
        let mut files = self.0.borrow_mut();
        files.get_mut(name).and_then(act).ok_or_else(|| missing(name))
    }
}

fn missing(name: &str) -> DiskError {
    DiskError::Io { name: name.to_owned(), error: "there are no such bytes".to_owned() }
}

impl Disk for Files {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.0.borrow().keys().cloned().collect())
    }

    fn create(&mut self, name: &str) -> Result<(), DiskError> {
        match self.0.borrow_mut().insert(name.to_owned(), Vec::new()) {
            None => Ok(()),
            Some(_) => Err(missing(name)),
        }
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.with(name, |file| {
            file.extend_from_slice(bytes);
            Some(())
        })
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        self.with(name, |_| Some(()))
    }

    fn sync_folder(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        self.with(name, |file| Some(file.len() as u64))
    }

    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, DiskError> {
        self.with(name, |file| {
            let from = usize::try_from(offset).ok()?;
            file.get(from..from.checked_add(bytes)?).map(<[u8]>::to_vec)
        })
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> Result<(), DiskError> {
        self.with(name, |file| {
            file.truncate(usize::try_from(bytes).ok()?);
            Some(())
        })
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.0.borrow_mut().remove(name).map(drop).ok_or_else(|| missing(name))
    }
}
