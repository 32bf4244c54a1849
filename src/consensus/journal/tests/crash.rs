//! The journal on a disk that crashes, rots and fills up.

use super::{
    Entries, config, entry,
    memory::{MemoryDisk, Unsynced},
    open,
};
use crate::{
    consensus::journal::{
        BEGUN_FILE, Damage, DiskError, Identity, Journal, JournalConfig, JournalError, MAX_ENTRY_BYTES,
        OpenError, SEGMENT_BYTES, Salt,
    },
    types::Digest,
};

const FIRST: &str = "0000000000000001.journal";
const SECOND: &str = "0000000000000002.journal";

/// A journal with these many entries; each `batch` of them is synced as one, the rest is not.
fn written(entries: usize, batch: usize, config: JournalConfig) -> (MemoryDisk, Entries) {
    let disk = MemoryDisk::default();
    let (mut journal, found, _) = open(disk.clone(), config).expect("an empty folder is a new journal");
    assert!(found.is_empty());
    for index in 1..=entries {
        let (kind, payload) = entry(index);
        journal.append(kind, &payload).expect("the disk works");
        if index % batch == 0 {
            journal.sync().expect("the disk works");
        }
    }
    (disk, (1..=entries).map(entry).collect())
}

#[test]
fn entries_come_back_in_order_over_many_segments() {
    let (disk, entries) = written(100, 3, config(1000));
    let segments = disk.segments().len();
    assert!(segments > 5, "{segments} segments");
    let (mut journal, found, recovery) = open(disk.clone(), config(1000)).expect("the journal is sound");
    assert_eq!(found, entries);
    assert_eq!((recovery.entries, recovery.segments, recovery.torn), (100, segments as u64, None));
    journal.append(9, b"more").expect("the disk works");
    journal.sync().expect("the disk works");
    drop(journal);
    let (_, found, _) = open(disk, config(1000)).expect("the journal is sound");
    assert_eq!(found.len(), 101);
}

#[test]
fn an_entry_is_read_back_from_where_it_lies() {
    let disk = MemoryDisk::default();
    let (mut journal, ..) = open(disk.clone(), config(1000)).expect("an empty folder is a new journal");
    let locations: Vec<_> = (1..=50)
        .map(|index| journal.append(entry(index).0, &entry(index).1).expect("the disk works"))
        .collect();
    for (index, location) in (1..=50).zip(&locations) {
        assert_eq!(journal.read(*location), Ok(entry(index)));
    }
    drop(journal);
    let mut found = Vec::new();
    let other_salt = JournalConfig { salt: Salt::new([8; 16]), ..config(1000) };
    let (mut journal, _) =
        Journal::open(disk.clone(), other_salt, |entry| found.push(entry.location)).expect("it is sound");
    assert_eq!(found, locations);
    let added = journal.append(1, &[1; 900]).expect("the disk works");
    assert_eq!(journal.read(locations[3]), Ok(entry(4)));
    assert_eq!(journal.read(added), Ok((1, vec![1; 900])));
    let mut bytes = disk.bytes(FIRST);
    bytes[400] ^= 1;
    disk.put(FIRST, bytes);
    let damaged = locations.iter().filter(|location| journal.read(**location).is_err()).count();
    assert_eq!(damaged, 1);
}

#[test]
fn what_was_synced_survives_every_torn_write() {
    for (entries, segment_bytes) in [(11, SEGMENT_BYTES), (11, 700), (1, SEGMENT_BYTES), (3, 200)] {
        let (disk, all) = written(entries, 4, config(segment_bytes));
        let last = disk.segments().pop().expect("there is a segment");
        let unsynced = disk.unsynced(&last);
        let prefixes = (0..=unsynced).map(Unsynced::Prefix);
        let zeroed = (0..unsynced).flat_map(|from| {
            (from..unsynced).step_by(13).map(move |to| Unsynced::Zeroed { from, to: to + 1 })
        });
        for torn in prefixes.chain(zeroed) {
            let disk = disk.copy();
            disk.crash(torn);
            let (mut journal, found, _) =
                open(disk.clone(), config(segment_bytes)).expect("a torn tail is cut off");
            assert!(found.len() >= entries / 4 * 4, "{torn:?}: {} of {entries}", found.len());
            assert_eq!(found, all[..found.len()], "{torn:?}");
            journal.append(200, b"after").expect("the disk works");
            journal.sync().expect("the disk works");
            disk.crash(Unsynced::Prefix(0));
            let (_, again, recovery) = open(disk, config(segment_bytes)).expect("the journal is sound");
            assert_eq!(again.len(), found.len() + 1);
            assert_eq!(recovery.torn, None);
        }
    }
}

#[test]
fn what_opening_showed_stays_even_if_its_writer_never_synced_it() {
    let (disk, all) = written(7, 100, config(SEGMENT_BYTES));
    let (journal, found, _) = open(disk.clone(), config(SEGMENT_BYTES)).expect("the journal is sound");
    assert_eq!(found, all);
    drop(journal);
    disk.crash(Unsynced::Prefix(0));
    let (_, found, _) = open(disk, config(SEGMENT_BYTES)).expect("the journal is sound");
    assert_eq!(found, all);
}

#[test]
fn a_crash_between_any_two_operations_loses_nothing_that_was_synced() {
    for fails_after in 0..60 {
        for torn in [0, 1, 60, 150, usize::MAX] {
            let disk = MemoryDisk::default();
            disk.fail_after(fails_after);
            let mut durable = 0;
            if let Ok((mut journal, ..)) = open(disk.clone(), config(500)) {
                for index in 1..20 {
                    let (kind, payload) = entry(index);
                    if journal.append(kind, &payload).and_then(|_| journal.sync()).is_err() {
                        break;
                    }
                    durable = index;
                }
            }
            disk.crash(Unsynced::Prefix(torn));
            let (_, found, _) = open(disk, config(500))
                .unwrap_or_else(|error| panic!("after {fails_after} operations, {torn} kept: {error}"));
            assert!(found.len() >= durable, "after {fails_after} operations");
            assert_eq!(found, (1..=found.len()).map(entry).collect::<Entries>());
        }
    }
}

#[test]
fn a_flipped_bit_is_refused_or_shortens_the_last_batch_only() {
    for segment_bytes in [700, SEGMENT_BYTES] {
        let (disk, all) = written(12, 4, config(segment_bytes));
        let names = disk.segments();
        for name in &names {
            let bytes = disk.bytes(name);
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let disk = disk.copy();
                disk.put(name, flipped);
                match open(disk, config(segment_bytes)) {
                    Ok((_, found, recovery)) => {
                        assert!(Some(name) == names.last() && recovery.torn.is_some(), "bit {bit} of {name}");
                        assert!(found.len() >= 8, "bit {bit} of {name}: {} left", found.len());
                        assert_eq!(found, all[..found.len()]);
                    }
                    Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "{error}"),
                }
            }
        }
    }
}

#[test]
fn a_shortened_file_is_refused_or_gives_an_equal_beginning() {
    let (disk, all) = written(12, 4, config(700));
    let names = disk.segments();
    for name in &names {
        let bytes = disk.bytes(name);
        for length in 0..bytes.len() {
            let disk = disk.copy();
            disk.put(name, bytes[..length].to_vec());
            let opened = open(disk, config(700));
            if Some(name) == names.last() {
                let (_, found, _) = opened.expect("the end of the last segment may be torn");
                assert_eq!(found, all[..found.len()]);
            } else {
                assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{length} bytes of {name}");
            }
        }
    }
}

#[test]
fn a_record_cut_out_of_the_middle_is_seen() {
    let (disk, _) = written(3, 1, config(SEGMENT_BYTES));
    let mut locations = Vec::new();
    Journal::open(disk.copy(), config(SEGMENT_BYTES), |entry| locations.push(entry.location))
        .expect("the journal is sound");
    let mut bytes = disk.bytes(FIRST);
    let at = |index: usize| usize::try_from(locations[index].offset).expect("it is small");
    bytes.drain(at(1)..at(2));
    disk.put(FIRST, bytes);
    let error = open(disk, config(SEGMENT_BYTES)).expect_err("record 3 proves that there was a record 2");
    let damage = Damage::Record { sequence: 2 };
    let offset = locations[1].offset;
    assert_eq!(error, OpenError::Damaged { file: FIRST.to_owned(), offset, damage });
}

#[test]
fn damage_before_a_later_batch_names_file_place_and_remedy() {
    let (disk, _) = written(3, 1, config(SEGMENT_BYTES));
    let mut bytes = disk.bytes(FIRST);
    bytes[150] ^= 0x80;
    disk.put(FIRST, bytes);
    let error = open(disk, config(SEGMENT_BYTES)).expect_err("record 1 is damaged, 2 and 3 follow");
    assert_eq!(
        error,
        OpenError::Damaged { file: FIRST.to_owned(), offset: 148, damage: Damage::Record { sequence: 1 } }
    );
    let text = error.to_string();
    for part in [FIRST, "byte 148", "must not sign", "new key"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let (disk, _) = written(30, 1, config(500));
    let gone = disk.copy();
    gone.delete(SECOND);
    let damage = Damage::MissingSegment { segment: 2 };
    let error = open(gone, config(500)).expect_err("a segment is missing");
    assert_eq!(error, OpenError::Damaged { file: SECOND.to_owned(), offset: 0, damage });
    let swapped = disk.copy();
    swapped.put(SECOND, disk.bytes(FIRST));
    let error = open(swapped, config(500)).expect_err("a segment is in another's place");
    let damage = Damage::Discontinuous;
    assert_eq!(error, OpenError::Damaged { file: SECOND.to_owned(), offset: 0, damage });
}

/// Appends entries with a removal of old segments before every eighth; gives how many were durable and the lowest
/// one that must still be there.
fn appended_and_removed(disk: &MemoryDisk) -> (usize, usize) {
    let (mut durable, mut kept) = (0, 1);
    let Ok((mut journal, ..)) = open(disk.clone(), config(400)) else { return (durable, kept) };
    let mut began = Vec::new();
    for index in 1..60 {
        let (kind, payload) = entry(index);
        if index % 8 == 0 {
            let Ok(segment) = journal.rotate() else { break };
            began.push((segment, index));
            if let [.., (segment, from), _] = began.as_slice() {
                kept = *from;
                match journal.remove_before(*segment) {
                    Ok(()) | Err(JournalError::NotRemoved(_)) => {}
                    Err(_) => break,
                }
            }
        }
        if journal.append(kind, &payload).and_then(|_| journal.sync()).is_err() {
            break;
        }
        durable = index;
    }
    (durable, kept)
}

#[test]
fn a_crash_at_any_point_of_rotation_and_removal_leaves_a_journal_without_a_gap() {
    for fails_after in 0..500 {
        for torn in [0, 60, usize::MAX] {
            let disk = MemoryDisk::default();
            disk.fail_after(fails_after);
            let (durable, kept) = appended_and_removed(&disk);
            disk.crash(Unsynced::Prefix(torn));
            let (journal, found, recovery) = open(disk.clone(), config(400))
                .unwrap_or_else(|error| panic!("after {fails_after} operations, {torn} kept: {error}"));
            let all: Vec<_> = (1..60).map(entry).collect();
            let from = (0..kept).rev().find(|from| all[*from..].starts_with(&found));
            let from = from.unwrap_or_else(|| panic!("after {fails_after} operations: no part of the log"));
            assert!(from + found.len() >= durable, "after {fails_after} operations");
            assert!(from < kept, "after {fails_after} operations");
            assert_eq!(recovery.segments.max(1), journal.segments() as u64, "a new journal has one now");
            drop(journal);
            disk.crash(Unsynced::Prefix(0));
            let (_, again, _) = open(disk, config(400)).expect("the journal is sound");
            assert_eq!(again, found, "after {fails_after} operations");
        }
    }
}

#[test]
fn removal_keeps_the_current_segment_and_the_entries_that_are_left() {
    let (disk, entries) = written(30, 1, config(500));
    let (mut journal, ..) = open(disk.clone(), config(500)).expect("the journal is sound");
    let kept = journal.append(9, b"kept").expect("the disk works");
    let segments = journal.segments();
    journal.remove_before(4).expect("the disk works");
    assert_eq!(journal.segments(), segments - 3);
    journal.remove_before(u64::MAX).expect("the disk works");
    assert_eq!(journal.segments(), 1);
    assert_eq!(journal.read(kept), Ok((9, b"kept".to_vec())));
    journal.sync().expect("the disk works");
    let (_, found, recovery) = open(disk.clone(), config(500)).expect("the journal is sound");
    assert_eq!(recovery.first_segment, segments as u64);
    assert_eq!(found.last(), Some(&(9, b"kept".to_vec())));
    assert_eq!(found[..found.len() - 1], entries[entries.len() + 1 - found.len()..]);
}

#[test]
fn a_removal_that_fails_is_tried_again_and_the_journal_works_on() {
    // The file cannot be removed, or its removal cannot be made durable.
    for fails_after in [0, 1] {
        let (disk, _) = written(30, 1, config(500));
        let (mut journal, ..) = open(disk.clone(), config(500)).expect("the journal is sound");
        let segments = journal.segments();
        disk.fail_after(fails_after);
        let failed = journal.remove_before(4);
        assert!(matches!(failed, Err(JournalError::NotRemoved(_))), "{failed:?}");
        assert_eq!(journal.segments(), segments, "none is taken for removed");
        journal.append(9, b"after").expect("the disk works");
        journal.sync().expect("the disk works");
        let interrupted = disk.copy();
        interrupted.crash(Unsynced::Prefix(0));
        let (_, found, _) = open(interrupted, config(500)).expect("there is no gap");
        assert_eq!(found.last(), Some(&(9, b"after".to_vec())));
        journal.remove_before(4).expect("the disk works again");
        assert_eq!(journal.segments(), segments - 3);
        drop(journal);
        disk.crash(Unsynced::Prefix(0));
        let (_, _, recovery) = open(disk, config(500)).expect("the journal is sound");
        assert_eq!(recovery.first_segment, 4);
    }
}

#[test]
fn a_folder_that_was_used_and_holds_no_record_is_not_taken_for_a_first_start() {
    let (disk, entries) = written(3, 3, config(SEGMENT_BYTES));
    let whole = disk.bytes(FIRST);
    let mut flipped = whole.clone();
    flipped[150] ^= 1;
    for (what, bytes) in [
        ("nothing", None),
        ("an empty file", Some(Vec::new())),
        ("a header", Some(whole[..148].to_vec())),
        ("a damaged first record", Some(flipped)),
    ] {
        let disk = disk.copy();
        match bytes {
            Some(bytes) => disk.put(FIRST, bytes),
            None => disk.delete(FIRST),
        }
        let before = disk.segments().iter().map(|name| disk.bytes(name)).collect::<Vec<_>>();
        let refused = open(disk.clone(), config(SEGMENT_BYTES)).expect_err(what);
        assert_eq!(refused, OpenError::Lost, "{what}");
        assert!(refused.to_string().contains("new key"), "{refused}");
        let after = disk.segments().iter().map(|name| disk.bytes(name)).collect::<Vec<_>>();
        assert_eq!(before, after, "{what}: the folder stays as it is");
    }
    // A journal of an older program has no such mark, and gets one.
    disk.delete(BEGUN_FILE);
    let (_, found, _) = open(disk.clone(), config(SEGMENT_BYTES)).expect("the journal is sound");
    assert_eq!(found, entries);
    disk.crash(Unsynced::Prefix(0));
    assert!(disk.names().contains(&BEGUN_FILE.to_owned()));
}

#[test]
fn a_lone_late_segment_without_records_is_refused_and_no_removal_leaves_one() {
    let (disk, _) = written(30, 1, config(500));
    let (mut journal, ..) = open(disk.clone(), config(500)).expect("the journal is sound");
    let newest = journal.rotate().expect("the disk works");
    journal.remove_before(newest).expect("the disk works");
    assert_eq!(journal.segments(), 2, "the last one with records stays");
    drop(journal);
    let (_, found, _) = open(disk.copy(), config(500)).expect("the journal is sound");
    assert!(!found.is_empty());
    disk.delete(&disk.segments()[0]);
    disk.delete(BEGUN_FILE);
    assert_eq!(open(disk, config(500)).expect_err("older ones are gone"), OpenError::Lost);
}

#[test]
fn a_journal_that_begins_late_is_refused_without_its_first_header_or_with_a_hole() {
    let (disk, _) = written(30, 1, config(500));
    let (mut journal, ..) = open(disk.clone(), config(500)).expect("the journal is sound");
    journal.remove_before(3).expect("the disk works");
    let third = "0000000000000003.journal";
    let hole = disk.copy();
    hole.delete("0000000000000004.journal");
    let error = open(hole, config(500)).expect_err("a segment is missing");
    assert!(matches!(error, OpenError::Damaged { damage: Damage::MissingSegment { segment: 4 }, .. }));
    for bytes in [disk.bytes(third)[..100].to_vec(), Vec::new()] {
        let cut = disk.copy();
        cut.put(third, bytes.clone());
        assert!(matches!(open(cut, config(500)), Err(OpenError::Damaged { .. })));
        let alone = MemoryDisk::default();
        alone.put(third, bytes);
        assert!(matches!(open(alone, config(500)), Err(OpenError::Damaged { .. })), "older ones are gone");
    }
}

#[test]
fn another_replicas_journal_is_refused() {
    let (disk, _) = written(2, 1, config(SEGMENT_BYTES));
    let own = config(SEGMENT_BYTES);
    for identity in [
        Identity { key: Digest::of(b"other"), ..own.identity },
        Identity { cluster: Digest::of(b"other"), ..own.identity },
    ] {
        let error = open(disk.copy(), JournalConfig { identity, ..own }).expect_err("it is not ours");
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    }
}

#[test]
fn an_unknown_version_is_refused_by_its_number() {
    let (disk, _) = written(2, 1, config(SEGMENT_BYTES));
    let mut bytes = disk.bytes(FIRST);
    bytes[16] = 2;
    let check = Digest::of(&bytes[..132]);
    bytes[132..148].copy_from_slice(&check.as_bytes()[..16]);
    disk.put(FIRST, bytes);
    let error = open(disk, config(SEGMENT_BYTES)).expect_err("version 2 is unknown");
    assert_eq!(error, OpenError::Version { file: FIRST.to_owned(), version: 2 });
}

#[test]
fn after_a_failed_write_or_sync_nothing_succeeds() {
    for fails_after in [0, 1] {
        let disk = MemoryDisk::default();
        let (mut journal, ..) = open(disk.clone(), config(SEGMENT_BYTES)).expect("a new journal");
        let location = journal.append(1, b"first").expect("the disk works");
        disk.fail_after(fails_after);
        let failed = journal.append(2, b"second").and_then(|_| journal.sync());
        let full = JournalError::Failed(DiskError::Full { name: FIRST.to_owned() });
        assert_eq!(failed, Err(full.clone()), "the operation that fails");
        assert_eq!(journal.sync(), Err(full.clone()), "a sync that the disk would do");
        assert_eq!(journal.append(3, b"third").err(), Some(full.clone()));
        assert_eq!(journal.read(location).err(), Some(full));
        assert!(journal.is_dirty());
    }
}

#[test]
fn an_entry_over_the_limit_is_refused_and_harms_nothing() {
    let (mut journal, ..) = open(MemoryDisk::default(), config(SEGMENT_BYTES)).expect("a new journal");
    let bytes = MAX_ENTRY_BYTES + 1;
    let refused = journal.append(1, &vec![0; bytes]);
    assert_eq!(refused, Err(JournalError::TooLarge { bytes }));
    journal.append(1, &vec![0; bytes - 1]).expect("the limit itself is allowed");
    journal.sync().expect("the disk works");
}

#[test]
fn stored_bytes_that_look_like_records_prove_nothing() {
    // A peer knows all but the salt. It has us store a later record of a journal like ours, with a head
    // that says everything was durable, and then our write is torn.
    let forger = JournalConfig { salt: Salt::new([0; 16]), ..config(SEGMENT_BYTES) };
    let (forged, _) = written(9, 1, forger);
    let forged = forged.bytes(FIRST);
    let disk = MemoryDisk::default();
    let (mut journal, ..) = open(disk.clone(), config(SEGMENT_BYTES)).expect("a new journal");
    journal.append(1, b"before").expect("the disk works");
    journal.sync().expect("the disk works");
    journal.append(2, &forged).expect("the disk works");
    drop(journal);
    disk.crash(Unsynced::Zeroed { from: 0, to: 20 });
    let (_, found, recovery) = open(disk, config(SEGMENT_BYTES)).expect("the tail is torn, not damaged");
    assert_eq!(found.len(), 1);
    assert!(recovery.torn.is_some());
}

#[test]
fn files_that_are_not_the_journals_are_left_alone() {
    let disk = MemoryDisk::default();
    for name in ["lock", "notes.txt", "1.journal", "x.journal"] {
        disk.put(name, b"anything".to_vec());
    }
    let (_, found, _) = open(disk.clone(), config(SEGMENT_BYTES)).expect("no segment is there");
    assert!(found.is_empty());
    assert_eq!(disk.names().len(), 5);
}
