//! A replica that is its own quorum, on a disk that crashes: what it writes, what is removed, and what it finds
//! again.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::{Answer, History, HistoryError, Kept, Recovered};
use crate::consensus::{
    ArchiveError, Asked, Base, Block, BlockId, BlockRequest, ChunkRequest, Command, Config, Core, Input,
    Message, Output, Record, Restated, Snapshot, SnapshotId, Standing, ViewTimes,
    journal::tests::{
        config as journal,
        memory::{MemoryDisk, Unsynced},
    },
    limits::{MAX_CHECKPOINTS_WHILE_SENT, MAX_KEPT_CHECKPOINTS},
};
use crate::types::{Committee, Digest, Epoch, Height, Millis, ReplicaIndex, SecretKey, View};

const INTERVAL: u64 = 4;

/// So small that a base spans several segments.
const SEGMENT_BYTES: u64 = 2_000;

/// How many of its newest notes the application restates at a checkpoint.
const RESTATED: usize = 3;

fn config() -> Config {
    let key = SecretKey::from_seed(&[1; 32]);
    let committee = Committee::new(Digest::of(b"test"), Epoch::new(1), vec![key.public()]).expect("one key");
    Config {
        committee: Arc::new(committee),
        me: ReplicaIndex::new(0),
        key,
        times: ViewTimes::default(),
        checkpoint_interval: INTERVAL,
    }
}

/// What anybody has seen of the replica, over all its restarts.
#[derive(Debug, Default)]
struct Seen {
    votes: BTreeMap<View, BlockId>,
    chain: BTreeMap<Height, BlockId>,
    states: BTreeMap<Height, SnapshotId>,
    /// Disk operations during which a base was written and older ones were removed.
    bases: Vec<Range<usize>>,
}

struct Replica {
    disk: MemoryDisk,
    core: Core,
    history: History<MemoryDisk>,
    height: Height,
    /// All commands so far.
    state: Vec<u8>,
    notes: Vec<Vec<u8>>,
    owes_sync: bool,
}

/// The disk failed.
#[derive(Debug)]
struct Failed;

impl Replica {
    fn open(disk: &MemoryDisk, seen: &mut Seen) -> Result<Self, HistoryError> {
        let (history, core, recovered) = History::open(disk.clone(), journal(SEGMENT_BYTES), config())?;
        let Recovered { notes, base, blocks, torn: _ } = recovered;
        let mut replica = Self {
            disk: disk.clone(),
            core,
            history,
            height: Height::ZERO,
            state: Vec::new(),
            notes,
            owes_sync: false,
        };
        if let Some(base) = base {
            let height = base.checkpoint.height();
            assert_eq!(base.snapshot.id(), seen.states[&height], "the state that was named at {height}");
            assert!(base.checkpoint.verify(&config().committee).is_ok());
            (replica.height, replica.state) = (height, base.snapshot.to_bytes());
        }
        for committed in blocks {
            assert_eq!(committed.certificate.block, committed.block.id());
            replica.apply(&committed.block, seen);
        }
        let newest = replica.height.number();
        for height in newest.saturating_sub(RESTATED as u64 - 1).max(1)..newest {
            assert!(replica.notes.contains(&note(height)), "the note of height {height} is needed");
        }
        Ok(replica)
    }

    fn apply(&mut self, block: &Block, seen: &mut Seen) {
        assert_eq!(block.height(), self.height.next(), "heights rise by one");
        let known = seen.chain.insert(block.height(), block.id());
        assert!(known.is_none_or(|known| known == block.id()), "height {}", block.height());
        self.height = block.height();
        for command in block.payload().commands() {
            self.state.extend_from_slice(command.head());
        }
    }

    fn submit(&mut self, number: u64, seen: &mut Seen) -> Result<(), Failed> {
        let command = Command::new(number.to_le_bytes().to_vec(), Vec::new()).expect("small");
        self.core.handle(Millis::ZERO, Input::Submit(command)).expect("room");
        self.carry_out(seen)
    }

    fn carry_out(&mut self, seen: &mut Seen) -> Result<(), Failed> {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Persist(record) => {
                    self.history.append(&record).map_err(|_| Failed)?;
                    self.owes_sync = true;
                }
                Output::Append(record) => self.history.append(&record).map_err(|_| Failed)?,
                Output::Send { message, .. } | Output::Broadcast(message) => {
                    self.sync()?;
                    if let Message::Vote(vote) = message {
                        let other = seen.votes.insert(vote.view, vote.block);
                        assert!(other.is_none_or(|other| other == vote.block), "two votes in {}", vote.view);
                    }
                }
                Output::Commit(committed) => {
                    self.sync()?;
                    self.apply(&committed.block, seen);
                    let note = note(self.height.number());
                    self.notes.push(note.clone());
                    self.history.note(&note).map_err(|_| Failed)?;
                    self.owes_sync = true;
                    self.sync()?;
                    if self.height.number().is_multiple_of(INTERVAL) {
                        self.name_state(seen);
                    }
                }
                Output::Stable { checkpoint, restated, reload } => {
                    assert!(!reload, "its state is the certified one");
                    let began = self.disk.operations();
                    self.history.stable(checkpoint, &restated).map_err(|_| Failed)?;
                    seen.bases.push(began..self.disk.operations());
                }
                Output::Evidence(_)
                | Output::Diverged { .. }
                | Output::Install { .. }
                | Output::ServeFromJournal { .. }
                | Output::ServeChunks { .. } => panic!("it has no peers"),
            }
        }
        Ok(())
    }

    fn name_state(&mut self, seen: &mut Seen) {
        let snapshot = Snapshot::cut(&self.state, 16).expect("small");
        seen.states.insert(self.height, snapshot.id());
        let first = self.notes.len().saturating_sub(RESTATED);
        self.notes.drain(..first);
        let installed = Height::ZERO;
        let state = Input::StateAt { height: self.height, snapshot: snapshot.id(), installed };
        self.history.name_state(self.height, snapshot, self.notes.clone());
        self.core.handle(Millis::ZERO, state).expect("no bad input");
    }

    fn sync(&mut self) -> Result<(), Failed> {
        if std::mem::take(&mut self.owes_sync) {
            self.history.sync().map_err(|_| Failed)?;
        }
        Ok(())
    }
}

fn note(height: u64) -> Vec<u8> {
    format!("note of {height}").into_bytes()
}

/// Runs a replica on the disk until it has committed so many commands more, or the disk fails.
fn run(disk: &MemoryDisk, seen: &mut Seen, commands: Range<u64>) -> Result<Replica, Failed> {
    let mut replica = Replica::open(disk, seen).map_err(|_| Failed)?;
    replica.carry_out(seen)?;
    for number in commands {
        replica.submit(number, seen)?;
    }
    Ok(replica)
}

#[test]
fn a_crash_at_any_point_of_writing_a_base_and_removing_older_ones_loses_nothing() {
    let mut whole = Seen::default();
    let replica = run(&MemoryDisk::default(), &mut whole, 0..24).expect("the disk works");
    assert!(replica.height >= Height::new(24) && whole.bases.len() >= 6, "{:?}", whole.bases);
    assert_eq!(replica.history.kept().bases, 2);
    // The first base has nothing to remove, the second removes the beginning, the third an older base.
    let points = whole.bases[..3].iter().flat_map(|base| base.start.saturating_sub(1)..base.end + 2);
    let mut refused_between = 0;
    for fails_after in points {
        for torn in [0, 70, usize::MAX] {
            let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
            disk.fail_after(fails_after);
            refused_between += usize::from(run(&disk, &mut seen, 0..24).is_err());
            disk.crash(Unsynced::Prefix(torn));
            let newest = seen.chain.last_key_value().map_or(Height::ZERO, |(height, _)| *height);
            let replica = run(&disk, &mut seen, 24..30)
                .unwrap_or_else(|_| panic!("after {fails_after} operations, {torn} kept"));
            assert!(replica.height >= newest.next(), "after {fails_after} operations");
            assert!(replica.history.kept().bases <= 2);
            drop(replica);
            disk.crash(Unsynced::Prefix(0));
            let again = Replica::open(&disk, &mut seen);
            assert!(again.is_ok(), "after {fails_after} operations: {:?}", again.err());
        }
    }
    assert!(refused_between > 100, "the disk failed where it should: {refused_between}");
}

#[test]
fn what_is_kept_does_not_grow_with_the_number_of_blocks() {
    let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
    let mut replica = run(&disk, &mut seen, 0..40).expect("the disk works");
    let early = replica.history.kept();
    for number in 40..400 {
        replica.submit(number, &mut seen).expect("the disk works");
    }
    let Kept { blocks, bases, held: _, notes, segments } = replica.history.kept();
    let interval = usize::try_from(INTERVAL).expect("small");
    assert!(blocks <= 3 * interval && bases == 2, "{blocks} blocks, {bases} bases");
    assert!(notes <= RESTATED + 2 * interval, "{notes} notes");
    // The state itself grows: some segments more for its chunks.
    assert!(segments <= early.segments + 400 * 8 * 8 / 2_000 * 2, "{segments} after {}", early.segments);
    drop(replica);
    let mut replica = Replica::open(&disk, &mut seen).expect("the journal is sound");
    let (_, _, recovered) = {
        replica.sync().expect("the disk works");
        drop(replica);
        History::open(disk, journal(SEGMENT_BYTES), config()).expect("the journal is sound")
    };
    assert!(recovered.blocks.len() <= 2 * interval, "{} blocks are read back", recovered.blocks.len());
}

#[test]
fn blocks_that_the_application_needs_stay_within_the_bound() {
    let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
    let mut replica = run(&disk, &mut seen, 0..1).expect("the disk works");
    replica.history.keep_above(Height::new(5));
    let readable = |replica: &Replica, above| match replica.history.blocks_above(Height::new(above)) {
        Ok(blocks) => Ok(blocks.first().map(|block| block.height().number())),
        Err(ArchiveError::Pruned { through }) => Err(through.number()),
        Err(error) => panic!("{error}"),
    };
    for number in 1..=16 {
        replica.submit(number, &mut seen).expect("the disk works");
    }
    assert_eq!(readable(&replica, 5), Ok(Some(6)), "it is needed");
    assert_eq!(readable(&replica, 0), Err(INTERVAL), "nobody needs the beginning");
    let past = 17 + INTERVAL * (MAX_KEPT_CHECKPOINTS as u64 + 2);
    for number in 17..past {
        replica.submit(number, &mut seen).expect("the disk works");
        assert!(replica.history.kept().bases <= MAX_KEPT_CHECKPOINTS);
    }
    assert!(readable(&replica, 5).is_err(), "past the bound it goes");
    assert_eq!(replica.history.kept().bases, MAX_KEPT_CHECKPOINTS);
    for number in past..past + 10 {
        replica.history.keep_above(replica.height);
        replica.submit(number, &mut seen).expect("the disk works");
    }
    assert_eq!(replica.history.kept().bases, 2, "what was applied is let go");
}

#[test]
fn who_asks_for_what_is_gone_is_told_where_to_begin() {
    let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
    let replica = run(&disk, &mut seen, 0..30).expect("the disk works");
    let newest = *seen.states.keys().next_back().expect("a checkpoint");
    let older = Height::new(newest.number() - INTERVAL);
    let request = |above: Height| BlockRequest { target: Digest::ZERO, target_height: replica.height, above };
    let Ok(Answer::Gone(gone)) = replica.history.answer(&request(Height::ZERO)) else {
        panic!("the beginning is gone")
    };
    assert_eq!(gone.checkpoint.height(), newest);
    assert_eq!(gone.asked, Asked::Blocks(request(Height::ZERO)));
    assert!(matches!(replica.history.answer(&request(older)), Ok(Answer::Blocks(_))));
    for (asked, given) in [(newest, newest), (replica.height, newest), (older, older), (Height::ZERO, older)]
    {
        let base = replica.history.base_for(asked).expect("the disk works").expect("there is one");
        assert_eq!(base.checkpoint.height(), given, "asked for {asked}");
        assert_eq!(base.snapshot.id(), seen.states[&given]);
    }
}

#[test]
fn the_state_of_a_base_is_given_again_and_what_was_named_above_it_is_forgotten() {
    let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
    let mut replica = run(&disk, &mut seen, 0..20).expect("the disk works");
    let (height, state) =
        seen.states.last_key_value().map(|(height, state)| (*height, *state)).expect("some");
    // A checkpoint above it, whose certificate is not here yet.
    let above = Height::new(height.number() + INTERVAL);
    let named = Snapshot::of(b"named before").expect("small");
    replica.history.name_state(above, named, Vec::new());
    assert_eq!(replica.history.reload(above).expect("the disk works"), None, "there is no base");
    assert_eq!(replica.history.named.len(), 1);
    let again = replica.history.reload(height).expect("the disk works").expect("there is a base");
    assert_eq!((again.id(), replica.history.named.len()), (state, 0));
}

#[test]
fn no_base_holds_another_state_than_the_certified_one() {
    let (base, restated) = given();
    let disk = MemoryDisk::default();
    let (mut history, ..) = History::open(disk, journal(SEGMENT_BYTES), config()).expect("a new journal");
    let height = base.checkpoint.height();
    history.name_state(height, Snapshot::of(b"another").expect("small"), Vec::new());
    assert!(!history.stable(base.checkpoint.clone(), &restated).expect("the disk works"));
    history.name_state(height, base.snapshot.clone(), Vec::new());
    assert!(history.stable(base.checkpoint, &restated).expect("the disk works"));
}

#[test]
fn a_state_that_a_peer_takes_stays_while_it_takes_it_up_to_the_bound() {
    let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
    let mut replica = run(&disk, &mut seen, 0..20).expect("the disk works");
    let taken = replica.history.base_for(Height::ZERO).expect("the disk works").expect("there is one");
    let (height, root) = (taken.checkpoint.height(), taken.checkpoint.checkpoint().state.root());
    let ask = |replica: &mut Replica| {
        replica.history.chunks(&ChunkRequest { height, root, first: 0 }).expect("the disk works")
    };
    let mut number = 20;
    let mut next_checkpoint = |replica: &mut Replica| {
        let checkpoints = seen.states.len();
        while seen.states.len() == checkpoints {
            replica.submit(number, &mut seen).expect("the disk works");
            number += 1;
        }
        replica.history.kept()
    };
    for held in 1..=MAX_CHECKPOINTS_WHILE_SENT - 2 {
        assert!(matches!(ask(&mut replica), Answer::Chunks(_)), "{held} checkpoints later");
        let kept = next_checkpoint(&mut replica);
        assert_eq!((kept.bases, kept.held), (2 + held, held));
    }
    assert!(matches!(ask(&mut replica), Answer::Chunks(_)));
    let kept = next_checkpoint(&mut replica);
    assert_eq!((kept.bases, kept.held), (2, 0), "past the bound it goes, and nobody asked for the next ones");
    let Answer::Gone(gone) = ask(&mut replica) else { panic!("it is gone") };
    assert_eq!(gone.asked, Asked::Chunks(ChunkRequest { height, root, first: 0 }));
    assert!(gone.checkpoint.height() > height);
    next_checkpoint(&mut replica);
    assert_eq!(replica.history.kept().bases, 2, "what nobody takes goes at once");
}

#[test]
fn a_journal_that_lost_its_first_segments_is_taken_only_with_a_whole_base() {
    let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
    drop(run(&disk, &mut seen, 0..30).expect("the disk works"));
    let names = disk.segments();
    let mut is_whole = true;
    for name in &names[..names.len() - 1] {
        disk.delete(name);
        match Replica::open(&disk.copy(), &mut seen) {
            Ok(_) => assert!(is_whole, "the newest base was cut before"),
            Err(HistoryError::NoBeginning) => is_whole = false,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!is_whole, "the newest base spans several segments");
    let disk = MemoryDisk::default();
    let (mut history, ..) = History::open(disk.clone(), journal(300), config()).expect("a new journal");
    for height in 1..20 {
        history.note(&note(height)).expect("the disk works");
    }
    drop(history);
    disk.delete(&disk.segments()[0]);
    let opened = History::open(disk, journal(300), config());
    assert!(matches!(opened, Err(HistoryError::NoBeginning)));
}

#[test]
fn a_replica_whose_old_segments_cannot_be_removed_goes_on_and_removes_them_later() {
    let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
    disk.keep_all(true);
    let mut replica = run(&disk, &mut seen, 0..30).expect("the disk works but for removals");
    let (times, error) = replica.history.failed_removals().expect("there was something to remove");
    assert!(*times > 3, "each base tries it again: {times}");
    assert!(error.to_string().contains("0000000000000001.journal"), "{error}");
    let kept = replica.history.kept();
    assert_eq!(kept.bases, 2);
    disk.keep_all(false);
    for number in 30..40 {
        replica.submit(number, &mut seen).expect("the disk works");
    }
    assert!(replica.history.kept().segments < kept.segments, "{:?} after {kept:?}", replica.history.kept());
    assert!(!disk.names().contains(&"0000000000000001.journal".to_owned()));
    drop(replica);
    assert!(Replica::open(&disk, &mut seen).is_ok());
}

/// A checkpoint with its state that another replica gave, and what one that has signed nothing restates.
fn given() -> (Base, Restated) {
    let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
    let replica = run(&disk, &mut seen, 0..30).expect("the disk works");
    let base = replica.history.base_for(replica.height).expect("the disk works").expect("there is one");
    let standing = Standing {
        vote: None,
        timeout: None,
        proposal: None,
        proposed: View::ZERO,
        checkpoints: Vec::new(),
        high_qc: base.checkpoint.qc.clone(),
        high_tc: None,
        forgotten: None,
    };
    (base, Restated { standing, tip: None, uncommitted: Vec::new() })
}

#[test]
fn a_crash_while_a_state_from_peers_is_written_leaves_the_old_beginning_or_the_new_one_and_all_notes() {
    let (base, restated) = given();
    let height = base.checkpoint.height();
    let (mut before, mut after) = (0, 0);
    for fails_after in 0..80 {
        for torn in [0, 50, usize::MAX] {
            let disk = MemoryDisk::default();
            let (mut history, ..) =
                History::open(disk.clone(), journal(SEGMENT_BYTES), config()).expect("a new journal");
            for height in 1..=3 {
                history.note(&note(height)).expect("the disk works");
            }
            history.sync().expect("the disk works");
            disk.fail_after(fails_after);
            let installed = history.install(base.checkpoint.clone(), &base.snapshot, &restated);
            drop(history);
            disk.crash(Unsynced::Prefix(torn));
            let (history, core, recovered) = History::open(disk, journal(SEGMENT_BYTES), config())
                .unwrap_or_else(|error| panic!("after {fails_after} operations: {error}"));
            assert_eq!(recovered.notes, (1..=3).map(note).collect::<Vec<_>>());
            match recovered.base {
                Some(found) => {
                    after += 1;
                    assert_eq!((&found, core.committed_height()), (&base, height));
                    assert_eq!(core.high_qc().get(), &base.checkpoint.qc);
                    assert!(matches!(history.blocks_above(Height::ZERO), Err(ArchiveError::Pruned { .. })));
                }
                None => {
                    before += 1;
                    assert!(installed.is_err(), "after {fails_after} operations");
                    assert_eq!(core.committed_height(), Height::ZERO);
                }
            }
        }
    }
    assert!(before > 20 && after > 20, "{before} {after}");
}

#[test]
fn a_base_lowers_nothing_that_was_signed_and_a_later_record_stands_above_it() {
    let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
    let mut replica = run(&disk, &mut seen, 0..10).expect("the disk works");
    let (signed, locked) = (replica.core.signed_view(), replica.core.high_qc().get().view);
    let (base, restated) = given();
    assert!(base.checkpoint.height() > replica.height);
    replica.history.install(base.checkpoint.clone(), &base.snapshot, &restated).expect("the disk works");
    drop(replica);
    let (mut history, core, _) =
        History::open(disk.clone(), journal(SEGMENT_BYTES), config()).expect("sound");
    assert_eq!(core.signed_view(), signed, "the base names no vote");
    assert!(core.high_qc().get().view >= locked.max(base.checkpoint.qc.view));
    let later = View::new(1_000_000);
    history.append(&Record::Forgotten(later)).expect("the disk works");
    history.sync().expect("the disk works");
    drop(history);
    let (_, core, _) = History::open(disk, journal(SEGMENT_BYTES), config()).expect("sound");
    assert_eq!(core.forgotten(), Some(later), "silence outlives a restart");
}

#[test]
fn after_a_gap_the_log_is_followed_from_a_base_whose_blocks_go_on_without_one() {
    let (disk, mut seen) = (MemoryDisk::default(), Seen::default());
    let mut replica = run(&disk, &mut seen, 0..10).expect("the disk works");
    let (base, restated) = given();
    replica.history.install(base.checkpoint.clone(), &base.snapshot, &restated).expect("the disk works");
    let height = base.checkpoint.height();
    let follow = |history: &History<MemoryDisk>| {
        for stored in [Height::ZERO, Height::new(5), replica.height, height] {
            let begun =
                history.base_for(stored).expect("the disk works").expect("the beginning is below the gap");
            assert_eq!(begun.checkpoint.height(), height, "stored {stored}");
            assert!(history.blocks_above(height).is_ok());
        }
    };
    follow(&replica.history);
    drop(replica.history);
    let (history, ..) = History::open(disk, journal(SEGMENT_BYTES), config()).expect("sound");
    follow(&history);
}

#[test]
fn a_note_that_came_after_two_states_were_named_stands_in_the_base_of_either() {
    let (given, restated) = given();
    for second_follows in [false, true] {
        let disk = MemoryDisk::default();
        let (mut history, ..) = History::open(disk.clone(), journal(SEGMENT_BYTES), config()).expect("new");
        history.install(given.checkpoint.clone(), &given.snapshot, &restated).expect("the disk works");
        let (first, second) = (given.checkpoint.height(), given.checkpoint.height().next());
        history.note(&note(1)).expect("the disk works");
        history.name_state(first, given.snapshot.clone(), vec![note(0), note(1)]);
        history.note(&note(2)).expect("the disk works");
        history.name_state(second, given.snapshot.clone(), vec![note(2)]);
        history.note(&note(3)).expect("the disk works");
        assert_eq!(history.stable(given.checkpoint.clone(), &restated), Ok(true));
        history.note(&note(4)).expect("the disk works");
        let mut expected: Vec<_> = (0..=4).map(note).collect();
        if second_follows {
            // As `stable` does for a certificate at that height.
            let named = history.named.pop_front().expect("it still waits");
            assert_eq!(history.write_base(given.checkpoint.clone(), &named, &restated), Ok(true));
            expected.drain(..2);
        }
        drop(history);
        let (_, _, recovered) = History::open(disk, journal(SEGMENT_BYTES), config()).expect("sound");
        assert_eq!(recovered.notes, expected);
    }
}
