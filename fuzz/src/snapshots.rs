//! Snapshots of a control cycle: as one gives them, and changed on the way.
//!
//! Invariant: a cycle that goes on from a snapshot is the one that gave it; bytes that are taken are exactly those that
//! it gives again.

use quorate::types::UnixMillis;

use crate::{
    commands::{Log, blocks_of, new_cycle, outputs},
    script::Script,
};

/// The most commands before a snapshot, and after it.
const MOST_COMMANDS: usize = 24;

/// A log through one cycle, its snapshot into another, and more of the log through both.
pub fn snapshots(bytes: &[u8]) {
    let (mut log, mut other, mut script) = (Log::new(), Log::new(), Script::new(bytes));
    let mut cycle = new_cycle(0);
    let commands = script.pick(MOST_COMMANDS);
    drop(blocks_of(&mut log, &mut script, &mut cycle, commands));
    let snapshot = cycle.snapshot();
    let mut restored = new_cycle(1);
    if script.flag() {
        let mut changed = snapshot.clone();
        script.mutate(&mut changed);
        if restored.install(&changed).is_ok() {
            assert_eq!(restored.snapshot(), changed, "a snapshot has one encoding");
        }
        if changed != snapshot {
            return;
        }
    }
    restored.install(&snapshot).expect("a cycle takes another's snapshot");
    assert_eq!(restored.root(), cycle.root(), "a snapshot is the whole state");
    for block in blocks_of(&mut log, &mut script, &mut cycle, MOST_COMMANDS) {
        restored.commit(&block);
        restored.tick(UnixMillis::new(log.now));
    }
    drop(outputs(&mut restored, &mut other));
    assert_eq!(restored.root(), cycle.root(), "what goes on from a snapshot is what gave it");
}

/// A snapshot's bytes, whoever made them.
pub fn bytes(bytes: &[u8]) {
    let mut cycle = new_cycle(0);
    let before = cycle.root();
    match cycle.install(bytes) {
        Ok(()) => assert_eq!(cycle.snapshot(), bytes, "a snapshot has one encoding"),
        Err(_) => assert_eq!(cycle.root(), before, "what is refused changes nothing"),
    }
}
