//! The journal on real files.

use std::fs;

use super::{config, entry, open};
use crate::consensus::journal::{Disk as _, FileDisk, FileDiskError, OpenError, SEGMENT_BYTES};

#[test]
fn a_journal_in_files_is_there_after_its_owner_was_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a").join("journal");
    let disk = FileDisk::open(&path).expect("the folder is created");
    let (mut journal, ..) = open(disk, config(1000)).expect("a new journal");
    for index in 1..=20 {
        journal.append(entry(index).0, &entry(index).1).expect("the disk works");
        if index == 15 {
            journal.sync().expect("the disk works");
        }
    }
    drop(journal);
    let last = fs::read_dir(&path)
        .expect("the folder is there")
        .map(|item| item.expect("it is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "journal"))
        .max()
        .expect("there are segments");
    let torn = fs::metadata(&last).expect("it is there").len() - 3;
    fs::OpenOptions::new().write(true).open(&last).and_then(|file| file.set_len(torn)).expect("it is cut");
    let disk = FileDisk::open(&path).expect("the lock is free again");
    let (mut journal, found, recovery) = open(disk, config(1000)).expect("a torn tail is cut off");
    assert_eq!(found, (1..=19).map(entry).collect::<Vec<_>>());
    assert!(recovery.torn.is_some());
    let location = journal.append(7, b"more").expect("the disk works");
    journal.sync().expect("the disk works");
    assert_eq!(journal.read(location), Ok((7, b"more".to_vec())));
    drop(journal);
    let (_, found, recovery) =
        open(FileDisk::open(&path).expect("the lock is free"), config(1000)).expect("the journal is sound");
    assert_eq!((found.len(), recovery.torn), (20, None));
}

#[test]
fn a_folder_is_not_opened_twice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = FileDisk::open(folder.path()).expect("nobody has it open");
    let error = FileDisk::open(folder.path()).expect_err("it is open");
    assert!(matches!(&error, FileDiskError::InUse { path } if path == folder.path()), "{error}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(first);
    FileDisk::open(folder.path()).expect("nobody has it open any more");
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().join("journal");
    let error = FileDisk::open(&path).expect_err("a file is no folder");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[test]
fn disk_operations_on_files_that_do_not_fit_are_errors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut disk = FileDisk::open(folder.path()).expect("nobody has it open");
    assert!(disk.append("absent", b"x").is_err());
    disk.create("present").expect("the name is free");
    assert!(disk.create("present").is_err());
    disk.append("present", b"12345").expect("the disk works");
    assert_eq!(disk.len("present"), Ok(5));
    assert_eq!(disk.read("present", 1, 3), Ok(b"234".to_vec()));
    assert!(disk.read("present", 3, 3).is_err());
    assert!(disk.truncate("present", 6).is_err());
    disk.truncate("present", 2).expect("the file is longer");
    disk.append("present", b"x").expect("the disk works");
    assert_eq!(disk.read("present", 0, 3), Ok(b"12x".to_vec()));
    disk.remove("present").expect("the file is there");
    assert!(disk.remove("present").is_err());
}

#[test]
fn a_file_longer_than_any_segment_is_refused_unread() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = fs::File::create(folder.path().join("0000000000000001.journal")).expect("it is created");
    file.set_len(SEGMENT_BYTES + 1).expect("a sparse file");
    let disk = FileDisk::open(folder.path()).expect("nobody has it open");
    let error = open(disk, config(SEGMENT_BYTES)).expect_err("no segment is that long");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}
