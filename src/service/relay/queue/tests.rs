//! The queue on a disk that is cut off at any byte, fails at any operation, rots and fills up.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    rc::Rc,
};

use super::{Damage, Kept, OpenError, Outcome, Queue, QueueConfig, Recovery, Taken};
use crate::{
    consensus::journal::{
        Disk, DiskError, Salt,
        tests::memory::{MemoryDisk, Unsynced},
    },
    monitor::form::Protocol,
    types::{Millis, UnixMillis},
};

const NOW: UnixMillis = UnixMillis::new(1_000_000);

/// Segments of a few bodies.
const SMALL: u64 = 16 * 900;

/// Never full.
const LARGE: u64 = 1 << 40;

fn config(bytes: u64) -> QueueConfig {
    QueueConfig {
        replicas: ["r0", "r1"].map(str::to_owned).to_vec(),
        bytes,
        max_age: Millis::from_secs(600),
        salt: Salt::new([7; 16]),
    }
}

fn open(disk: &MemoryDisk, bytes: u64) -> (Queue<MemoryDisk>, Recovery) {
    Queue::open(disk.clone(), config(bytes)).expect("the queue is sound")
}

/// The body with this number: from none to some hundred bytes.
fn protocol(number: usize) -> Protocol {
    Protocol::ALL[number % Protocol::ALL.len()]
}

fn body(number: usize) -> Kept {
    let content_encoding = number.is_multiple_of(3).then(|| "gzip".to_owned());
    let body = number.to_string().repeat(number * 37 % 60).into_bytes();
    Kept { protocol: protocol(number), content_type: "application/json".to_owned(), content_encoding, body }
}

/// Some bodies that a lane would be given, all that there are if `most` allows.
fn take<D: Disk>(queue: &mut Queue<D>, lane: usize, most: usize) -> Vec<Taken> {
    queue.take(lane, most, u64::MAX, NOW).expect("the disk works")
}

fn bodies(taken: Vec<Taken>) -> Vec<Kept> {
    taken.into_iter().map(|taken| taken.kept).collect()
}

fn settle<D: Disk>(queue: &mut Queue<D>, lane: usize, taken: &[Taken]) {
    for body in taken {
        queue.settle(lane, body.sequence, Outcome::Sent);
    }
}

/// Commits the bodies from `from` on, so many at a time.
fn fill(queue: &mut Queue<MemoryDisk>, range: Range<usize>, batch: usize) {
    let all: Vec<Kept> = range.map(body).collect();
    for bodies in all.chunks(batch) {
        queue.commit(bodies, NOW).expect("the disk works");
    }
}

#[test]
fn each_lane_gets_every_body_in_order_and_what_all_have_is_removed() {
    let disk = MemoryDisk::default();
    let (mut queue, _) = open(&disk, LARGE.min(16 * 1_000));
    fill(&mut queue, 0..40, 3);
    let all: Vec<Kept> = (0..40).map(body).collect();
    assert!(disk.names().len() > 5, "{:?}", disk.names());
    assert_eq!(queue.status().lanes[0].lag.bodies, 40);

    let mut first = Vec::new();
    while let [taken] = &take(&mut queue, 0, 1)[..] {
        queue.settle(0, taken.sequence, Outcome::Sent);
        first.push(taken.kept.clone());
    }
    assert_eq!(first, all);
    assert!(disk.names().len() > 5, "the other lane needs them all");
    let second = take(&mut queue, 1, usize::MAX);
    assert_eq!(bodies(second.clone()), all);
    assert_eq!(queue.status().lanes[1].lag.bodies, 40, "what is held and not settled still waits");
    settle(&mut queue, 1, &second);
    queue.tick(NOW);
    assert_eq!(disk.names().len(), 1);
    let status = queue.status();
    for lane in &status.lanes {
        assert_eq!((lane.sent, lane.lag.bodies, lane.lag.bytes, lane.lag.oldest_at), (40, 0, 0, None));
    }
    assert_eq!(status.committed, 40);
}

/// The states of a disk from one to a later one, as a kill at each byte written in between leaves them.
fn cut_at_every_byte(before: &MemoryDisk, after: &MemoryDisk) -> Vec<MemoryDisk> {
    let mut states = vec![before.copy()];
    let written = before.copy();
    for name in after.names() {
        let old = if before.names().contains(&name) { before.bytes(&name).len() } else { 0 };
        let new = after.bytes(&name);
        for end in old..=new.len() {
            let state = written.copy();
            state.put(&name, new[..end].to_vec());
            states.push(state);
        }
        written.put(&name, new);
    }
    states
}

#[test]
fn what_was_acknowledged_is_given_out_after_a_kill_at_any_byte() {
    let disk = MemoryDisk::default();
    let (mut queue, _) = open(&disk, SMALL);
    for (number, batch) in [(0, 4), (4, 1), (5, 3), (8, 5)] {
        let before = disk.copy();
        fill(&mut queue, number..number + batch, batch);
        for (cut, state) in cut_at_every_byte(&before, &disk).into_iter().enumerate() {
            let (mut again, recovery) = open(&state, SMALL);
            assert_eq!((&recovery.damage, recovery.lost_bodies), (&vec![], 0), "cut {cut} of {number}");
            for lane in 0..2 {
                let found = bodies(take(&mut again, lane, usize::MAX));
                assert!(found.len() >= number, "cut {cut}: {} of {number}", found.len());
                assert_eq!(found, (0..found.len()).map(body).collect::<Vec<_>>(), "cut {cut} of {number}");
            }
            again.commit(&[body(99)], NOW).expect("the disk works");
            drop(again);
            let (mut again, recovery) = open(&state, SMALL);
            assert_eq!((recovery.torn_bytes, recovery.lost_bodies), (0, 0));
            assert_eq!(bodies(take(&mut again, 1, usize::MAX)).last(), Some(&body(99)));
        }
    }
}

#[test]
fn a_disk_that_fails_at_any_operation_and_a_crash_lose_nothing_that_was_acknowledged() {
    for fails_after in 0..40 {
        for torn in [Unsynced::Prefix(0), Unsynced::Prefix(77), Unsynced::Zeroed { from: 3, to: 90 }] {
            let disk = MemoryDisk::default();
            let (mut queue, _) = open(&disk, SMALL);
            disk.fail_after(fails_after);
            let mut acknowledged = Vec::new();
            let mut refused = 0;
            for number in 0..12 {
                match queue.commit(&[body(number)], NOW) {
                    Ok(()) => acknowledged.push(body(number)),
                    Err(_) => refused += 1,
                }
                assert_eq!(queue.is_broken(), queue.status().broken.is_some());
                if number % 3 == 2 {
                    queue.tick(NOW);
                    assert!(!queue.is_broken(), "there is room again");
                }
            }
            assert!(refused <= 3, "a failure ends at the next tick");
            let copy = disk.copy();
            copy.crash(torn);
            let (mut again, recovery) = open(&copy, SMALL);
            assert_eq!(recovery.lost_bodies, 0);
            let found = bodies(take(&mut again, 0, usize::MAX));
            let kept: Vec<Kept> = found.iter().filter(|body| acknowledged.contains(body)).cloned().collect();
            assert_eq!(kept, acknowledged, "fails after {fails_after}, {torn:?}");
            disk.fail_after(usize::MAX);
            let live = bodies(take(&mut queue, 1, usize::MAX));
            assert_eq!(live, acknowledged, "fails after {fails_after}");
        }
    }
}

#[test]
fn damage_to_any_byte_costs_at_most_the_body_that_it_is_in_and_is_counted() {
    let disk = MemoryDisk::default();
    let (mut queue, _) = open(&disk, SMALL);
    fill(&mut queue, 0..9, 2);
    let newest = disk.names().pop().expect("there are files");
    for name in disk.names() {
        let sound = disk.bytes(&name);
        for at in 0..sound.len() {
            let rotten = disk.copy();
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            rotten.put(&name, bytes);
            let (mut again, recovery) = match Queue::open(rotten, config(SMALL)) {
                Ok(opened) => opened,
                Err(OpenError::Version { .. }) if (16..20).contains(&at) => continue,
                Err(error) => panic!("byte {at} of {name}: {error}"),
            };
            let found = bodies(take(&mut again, 0, usize::MAX));
            assert!(found.len() >= 8, "byte {at} of {name}: {} bodies", found.len());
            let missing = 9 - found.len() as u64;
            let is_torn = recovery.torn_bytes > 0;
            assert!(is_torn || recovery.lost_bodies == missing, "byte {at} of {name}: {recovery:?}");
            assert!(!is_torn || name == newest, "byte {at} of {name}: only the end can be torn");
            assert!(is_torn || !recovery.damage.is_empty(), "byte {at} of {name} was not noticed");
            let dropped = again.status().lanes[0].dropped;
            assert_eq!(dropped.damage, recovery.lost_bodies, "byte {at} of {name}");
        }
    }
}

#[test]
fn damage_after_the_start_is_skipped_and_counted_for_each_lane() {
    let disk = MemoryDisk::default();
    let (mut queue, _) = open(&disk, LARGE);
    let large = Kept { body: vec![b'x'; 400_000], ..body(1) };
    queue.commit(&[body(1), large, body(2), body(4)], NOW).expect("the disk works");
    let name = disk.names().pop().expect("there is a file");
    let mut bytes = disk.bytes(&name);
    bytes[200_000] ^= 1;
    disk.put(&name, bytes);
    assert_eq!(bodies(take(&mut queue, 0, 2)), [body(1), body(2)]);
    assert_eq!(bodies(take(&mut queue, 0, 2)), [body(4)]);
    let status = queue.status();
    assert_eq!((status.lanes[0].dropped.damage, status.lanes[1].dropped.damage), (1, 0));
    assert_eq!(status.lanes[0].lag.bodies, 3);
}

/// Bytes of a file that cannot be read.
type Scratch = (String, Range<u64>);

/// A disk that cannot read some bytes of some files, or nothing at all.
#[derive(Clone, Debug, Default)]
struct ScratchedDisk {
    disk: MemoryDisk,
    scratches: Rc<RefCell<Vec<Scratch>>>,
    is_away: Rc<Cell<bool>>,
}

impl Disk for ScratchedDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.disk.list()
    }
    fn create(&mut self, name: &str) -> Result<(), DiskError> {
        self.disk.create(name)
    }
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.append(name, bytes)
    }
    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        self.disk.sync(name)
    }
    fn sync_folder(&mut self) -> Result<(), DiskError> {
        self.disk.sync_folder()
    }
    fn len(&self, name: &str) -> Result<u64, DiskError> {
        self.disk.len(name)
    }
    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, DiskError> {
        let end = offset + bytes as u64;
        let hits = |(file, scratch): &Scratch| file == name && offset < scratch.end && scratch.start < end;
        if self.is_away.get() || self.scratches.borrow().iter().any(hits) {
            let error = "Input/output error (os error 5)".to_owned();
            return Err(DiskError::Io { name: name.to_owned(), error });
        }
        self.disk.read(name, offset, bytes)
    }
    fn truncate(&mut self, name: &str, bytes: u64) -> Result<(), DiskError> {
        self.disk.truncate(name, bytes)
    }
    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.disk.remove(name)
    }
}

/// A kilobyte.
fn long_body(number: usize) -> Kept {
    Kept {
        protocol: protocol(number),
        content_type: "application/json".to_owned(),
        content_encoding: None,
        body: vec![b'0'; 1_000 + number],
    }
}

/// A queue of sixty bodies of a kilobyte in one file, and the file.
fn scratchable() -> (ScratchedDisk, Queue<ScratchedDisk>, String) {
    let disk = ScratchedDisk::default();
    let (mut queue, _) = Queue::open(disk.clone(), config(LARGE)).expect("it is new");
    let all: Vec<Kept> = (0..60).map(long_body).collect();
    queue.commit(&all, NOW).expect("the disk works");
    let file = disk.disk.names().pop().expect("there is one");
    (disk, queue, file)
}

#[test]
fn a_sector_that_cannot_be_read_costs_the_bodies_in_it_is_told_and_stops_no_lane() {
    let (disk, mut queue, file) = scratchable();
    disk.scratches.borrow_mut().push((file.clone(), 20_500..20_501));
    for _ in 0..2 {
        let error = queue.take(0, usize::MAX, u64::MAX, NOW).expect_err("it is tried again first");
        assert!(error.to_string().contains(&file), "{error}");
    }
    let mut given = Vec::new();
    for lane in 0..2 {
        let taken = take(&mut queue, lane, usize::MAX);
        let lost = 60 - taken.len() as u64;
        assert!((1..=6).contains(&lost), "{lost}");
        assert_eq!(queue.status().lanes[lane].dropped.damage, lost);
        assert_eq!(queue.status().lanes[lane].lag.bodies, taken.len() as u64);
        settle(&mut queue, lane, &taken);
        given.push(bodies(taken));
    }
    assert_eq!(given[0], given[1], "the second lane did not wait again");
    assert_eq!((given[0].first(), given[0].last()), (Some(&long_body(0)), Some(&long_body(59))));
    let status = queue.status();
    assert!(status.read_failures >= 3, "{status:?}");
    assert_eq!(status.unreadable, Some(Damage { file, offset: 20_480, bytes: 4_096 }));
    queue.commit(&[body(1)], NOW).expect("the disk works");
    assert_eq!(bodies(take(&mut queue, 0, usize::MAX)), [body(1)]);
    assert_eq!(queue.status().lanes[0].lag.bodies, 1);
}

#[test]
fn a_disk_that_can_read_nothing_for_a_while_loses_nothing() {
    let (disk, mut queue, _) = scratchable();
    disk.is_away.set(true);
    for _ in 0..10 {
        queue.take(0, usize::MAX, u64::MAX, NOW).expect_err("it is away");
    }
    assert!(matches!(Queue::open(disk.clone(), config(LARGE)), Err(OpenError::Disk(_))));
    disk.is_away.set(false);
    assert_eq!(take(&mut queue, 0, usize::MAX).len(), 60);
    let status = queue.status();
    assert_eq!((status.lanes[0].dropped.total(), status.unreadable), (0, None));
}

#[test]
fn a_sector_that_cannot_be_read_stops_no_start() {
    // In the only header: nothing in the file can be told from anything else.
    for (at, left) in [(10, 0..=0), (20_500, 54..=59), (61_000, 54..=59)] {
        let (disk, queue, file) = scratchable();
        drop(queue);
        disk.scratches.borrow_mut().push((file.clone(), at..at + 1));
        let (mut queue, recovery) = Queue::open(disk.clone(), config(LARGE)).expect("damage stops no start");
        let tries = (0..3).find_map(|_| queue.take(0, usize::MAX, u64::MAX, NOW).ok());
        let taken = tries.expect("the third one gives up what cannot be read");
        assert!(left.contains(&taken.len()), "{at}: {}", taken.len());
        assert!(recovery.damage.iter().all(|damage| damage.file == file), "{at}: {recovery:?}");
        assert_eq!((recovery.damage.is_empty(), recovery.torn_bytes), (false, 0), "{at}: {recovery:?}");
    }
}

#[test]
fn bytes_of_a_client_never_pass_for_records() {
    let other = MemoryDisk::default();
    let salt = Salt::new([8; 16]);
    let (mut theirs, _) =
        Queue::open(other.clone(), QueueConfig { salt, ..config(LARGE) }).expect("it is new");
    fill(&mut theirs, 0..5, 5);
    let forged = other.bytes(&other.names()[0]);

    let disk = MemoryDisk::default();
    let (mut queue, _) = open(&disk, LARGE);
    queue.commit(&[Kept { body: forged, ..body(0) }, body(2)], NOW).expect("the disk works");
    let name = disk.names().pop().expect("there is a file");
    let mut bytes = disk.bytes(&name);
    // The head of the first body is destroyed, so that the search goes through its bytes.
    let start = bytes.windows(4).skip(200).position(|run| run == b"QrR\x01").expect("records follow") + 200;
    bytes[start..start + 20].fill(0);
    disk.put(&name, bytes);
    let (mut again, recovery) = open(&disk, LARGE);
    assert_eq!(recovery.lost_bodies, 1);
    assert_eq!(bodies(take(&mut again, 0, usize::MAX)), [body(2)]);
}

#[test]
fn another_version_is_refused_with_what_to_do() {
    let disk = MemoryDisk::default();
    let (mut queue, _) = open(&disk, LARGE);
    fill(&mut queue, 0..2, 1);
    let name = disk.names()[0].clone();
    let mut bytes = disk.bytes(&name);
    bytes[16] = 1;
    disk.put(&name, bytes);
    let refused = Queue::open(disk.clone(), config(LARGE)).map(drop).expect_err("it is of version 1");
    let told = refused.to_string();
    assert!(told.starts_with(&format!("{name} has format version 1")), "{told}");
    assert!(told.contains("start the version of quorate that wrote it"), "{told}");
    assert_eq!(disk.names(), [name], "nothing was touched");
}

#[test]
fn a_full_queue_drops_the_oldest_and_counts_it_for_those_who_lack_it() {
    let disk = MemoryDisk::default();
    let (mut queue, _) = open(&disk, SMALL);
    let mut sent = 0;
    for number in 0..400 {
        fill(&mut queue, number..number + 1, 1);
        let taken = take(&mut queue, 0, usize::MAX);
        sent += taken.len() as u64;
        settle(&mut queue, 0, &taken);
        assert!(queue.status().bytes <= SMALL, "{:?}", queue.status());
    }
    let status = queue.status();
    let [keen, away] = &status.lanes[..] else { panic!("two lanes") };
    assert_eq!((sent, keen.sent, keen.dropped.total(), keen.lag.bodies), (400, 400, 0, 0));
    assert!(away.dropped.bytes > 100, "{away:?}");
    assert_eq!(away.dropped.bytes + away.lag.bodies, 400);
    let rest = bodies(take(&mut queue, 1, usize::MAX));
    let first = 400 - rest.len();
    assert_eq!(rest, (first..400).map(body).collect::<Vec<_>>(), "the newest are there");
    assert_eq!(queue.status().lanes[1].lag.bodies, rest.len() as u64);
}

#[test]
fn what_is_too_old_is_dropped_and_counted_whether_or_not_anybody_asks() {
    let disk = MemoryDisk::default();
    let (mut queue, _) = open(&disk, SMALL);
    fill(&mut queue, 0..10, 2);
    let later = NOW.plus(Millis::from_secs(500));
    queue.commit(&[body(50)], later).expect("the disk works");
    let files = disk.names().len();
    let too_late = NOW.plus(Millis::from_secs(601));
    queue.tick(too_late);
    assert!(disk.names().len() < files, "whole segments went");
    let dropped = queue.status().lanes[0].dropped.age;
    assert!(dropped > 0);
    let taken = queue.take(0, usize::MAX, u64::MAX, too_late).expect("the disk works");
    assert_eq!(bodies(taken), [body(50)]);
    let status = queue.status();
    assert_eq!(status.lanes[0].dropped.age, 10);
    assert_eq!(status.lanes[1].dropped.age + status.lanes[1].lag.bodies, 11);
    assert_eq!(status.lanes[0].lag.oldest_at, Some(later));
}

#[test]
fn a_lane_goes_on_where_its_durable_cursor_stands() {
    let disk = MemoryDisk::default();
    let (mut queue, _) = open(&disk, SMALL);
    fill(&mut queue, 0..12, 4);
    let taken = take(&mut queue, 0, 8);
    settle(&mut queue, 0, &taken[..5]);
    settle(&mut queue, 0, &taken[6..]);
    queue.tick(NOW);
    let (mut again, recovery) = open(&disk.copy(), SMALL);
    assert_eq!(recovery.bodies, 12);
    assert_eq!(again.status().lanes[0].lag.bodies, 7);
    let rest = bodies(take(&mut again, 0, usize::MAX));
    assert_eq!(rest, (5..12).map(body).collect::<Vec<_>>(), "from the first body that was not settled");
    assert_eq!(take(&mut again, 1, usize::MAX).len(), 12);

    settle(&mut queue, 0, &taken[5..6]);
    let rest = take(&mut queue, 0, usize::MAX);
    settle(&mut queue, 0, &rest);
    let (mut again, _) = open(&disk.copy(), SMALL);
    assert_eq!(
        take(&mut again, 0, usize::MAX).len(),
        7,
        "what was settled since the last tick is sent again"
    );
}

#[test]
fn a_replica_that_is_new_begins_at_the_oldest_body_and_one_that_is_gone_is_named() {
    let disk = MemoryDisk::default();
    let (mut queue, _) = open(&disk, SMALL);
    fill(&mut queue, 0..12, 4);
    let taken = take(&mut queue, 0, 9);
    settle(&mut queue, 0, &taken);
    queue.tick(NOW);
    drop(queue);
    let other = QueueConfig { replicas: vec!["r0".to_owned(), "r2".to_owned()], ..config(SMALL) };
    let (mut queue, recovery) = Queue::open(disk.clone(), other.clone()).expect("the queue is sound");
    assert_eq!(recovery.forgotten, [("r1".to_owned(), 12)]);
    assert_eq!(bodies(take(&mut queue, 0, usize::MAX)), (9..12).map(body).collect::<Vec<_>>());
    assert_eq!(take(&mut queue, 1, usize::MAX).len(), 12);
    drop(queue);
    let (_, recovery) = Queue::open(disk, other).expect("the queue is sound");
    assert_eq!(recovery.forgotten, []);
}

#[test]
fn many_starts_leave_no_empty_files_behind() {
    let disk = MemoryDisk::default();
    for _ in 0..5 {
        let (mut queue, _) = open(&disk, SMALL);
        let taken = take(&mut queue, 0, usize::MAX);
        assert!(taken.is_empty());
    }
    assert_eq!(disk.names().len(), 1);
    let (mut queue, _) = open(&disk, SMALL);
    fill(&mut queue, 0..1, 1);
    for _ in 0..5 {
        drop(open(&disk, SMALL));
    }
    assert_eq!(disk.names().len(), 2, "the one with the body and the newest");
}

/// A sequence that depends on nothing but its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }
}

#[test]
fn through_any_history_of_failures_and_crashes_every_lane_is_given_what_was_acknowledged_until_it_is_settled()
{
    for seed in 0..150 {
        let (mut dice, disk) = (Dice(seed), MemoryDisk::default());
        let bytes = 16 * 2_000;
        let (mut queue, _) = open(&disk, bytes);
        let mut acknowledged = Vec::new();
        let mut held: [Vec<Taken>; 2] = Default::default();
        let mut settled: [Vec<Kept>; 2] = Default::default();
        for step in 0..150 {
            let lane = dice.roll(2);
            match dice.roll(12) {
                0..=2 => {
                    let filling = "x".repeat(dice.roll(90));
                    let body = |number| Kept {
                        body: format!("{step}.{number}{filling}").into_bytes(),
                        ..body(step)
                    };
                    let bodies: Vec<Kept> = (0..dice.roll(4)).map(body).collect();
                    if queue.commit(&bodies, NOW).is_ok() {
                        acknowledged.extend(bodies);
                    }
                }
                3..=5 => held[lane].extend(queue.take(lane, 4, 300, NOW).unwrap_or_default()),
                6..=8 if !held[lane].is_empty() => {
                    let chosen = dice.roll(held[lane].len());
                    let body = held[lane].swap_remove(chosen);
                    queue.settle(lane, body.sequence, Outcome::Sent);
                    settled[lane].push(body.kept);
                }
                9 => queue.tick(NOW),
                10 => disk.fail_after(dice.roll(9)),
                11 if dice.roll(3) == 0 => {
                    let torn = match dice.roll(3) {
                        0 => Unsynced::Prefix(dice.roll(400)),
                        1 => Unsynced::Zeroed { from: dice.roll(50), to: dice.roll(400) + 50 },
                        _ => Unsynced::Prefix(usize::MAX),
                    };
                    disk.crash(torn);
                    held = Default::default();
                    queue = open(&disk, bytes).0;
                }
                _ => {}
            }
        }
        disk.crash(Unsynced::Prefix(0));
        let (mut queue, recovery) = open(&disk, bytes);
        assert_eq!(recovery.lost_bodies, 0, "seed {seed}: {recovery:?} {:?}", disk.names());
        for (lane, settled) in settled.iter().enumerate() {
            let given = bodies(take(&mut queue, lane, usize::MAX));
            let lost: Vec<&Kept> =
                acknowledged.iter().filter(|body| !settled.contains(body) && !given.contains(body)).collect();
            assert!(lost.is_empty(), "seed {seed}, lane {lane}: {lost:?}");
            let dropped = queue.status().lanes[lane].dropped;
            assert_eq!(dropped.total(), 0, "seed {seed}, lane {lane}: {dropped:?} {recovery:?}");
        }
    }
}
