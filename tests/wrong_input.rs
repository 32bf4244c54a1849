//! Wrong input as people give it: each row is a command line or a file that is wrong in one way, the exit code, and
//! words of the message that say what is wrong, where, and mostly what to do.
//!
//! What needs a running cluster is tested beside it; what a full disk does to the relay and to Postgres too.
//! Invariant: every row reads the message, and none leaves a process.
#![cfg(feature = "service")]

use rustix::{fs::Mode, process::geteuid};
use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// Runs the command in a folder; its exit code and what it says on standard error.
fn told(folder: &Path, line: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Every row: the command line, the exit code, and all words that its message must hold.
fn assert_told(folder: &Path, rows: &[(&str, i32, &[&str])]) {
    let mut wrong = Vec::new();
    for (line, code, words) in rows {
        let (got, message) = told(folder, line);
        if got != Some(*code) || words.iter().any(|part| !message.contains(part)) {
            wrong.push(format!("{line}: {got:?}: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_flags_are_named_with_the_nearest_and_the_range() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    assert_told(
        folder.path(),
        &[
            ("dev --replicas 14", 2, &["--replicas", "14 is not in 1..=13"]),
            ("dev --replicas 0", 2, &["0 is not in 1..=13"]),
            ("dev --replica 3", 2, &["'--replica'", "a similar argument exists: '--replicas'"]),
            ("dev --base-port 0", 2, &["--base-port", "0 is not in 1..=65535"]),
            ("dev --data-dir x --base-port 65535", 2, &["need the 8 ports", "choose at most 65528"]),
            (
                "dev --data-dir x --base-port 7100 --otlp-port 7101",
                2,
                &["--otlp-port 7101", "take the ports 7100 to 7107; choose one outside"],
            ),
            ("init --dir i", 2, &["were not provided", "--policy <FILE>"]),
            ("init --dir i --policy p --replica 1=2 --replicas 4", 2, &["--replica"]),
            ("run --lisen x", 2, &["a similar argument exists: '--listen'"]),
            ("plans --limit 0", 2, &["--limit", "0 is not in 1..=65535"]),
            ("status --replica ftp://x", 2, &["\"ftp://x\" is no http:// or https:// address"]),
            ("replay-otlp r --to x", 2, &["--to", "looks like http://127.0.0.1:4318"]),
            ("replay-otlp r --to http://h:1 --speed 0", 2, &["a speed is a number from 0.01 to 10000"]),
            ("replay-otlp r --to h:1", 2, &["--to", "looks like http://127.0.0.1:4318"]),
            ("relay", 2, &["were not provided", "--to <[NAME=]URL>"]),
            ("relay --to nowhere", 2, &["--to", "looks like http://127.0.0.1:4318"]),
            ("relay --to http://h:1 --queue-byte 1", 2, &["a similar argument exists: '--queue-bytes'"]),
            (
                "relay --to http://h:1 --listen 0.0.0.0:1",
                78,
                &["can be reached from other machines", "--tokens"],
            ),
            (
                "token create --tokens t --name a --scope all",
                2,
                &["possible values: ingest, agent, operator"],
            ),
            (
                "token list --tokens t",
                78,
                &["there is no file of tokens t", "`quorate token create` makes it"],
            ),
            ("stop --operator-key k", 2, &["were not provided", "<--target <NAME>|--all>"]),
            ("stop --all --target x --operator-key k --replica http://h:1", 2, &["cannot be used with"]),
            (
                "resume --target x --operator-key k --replica http://h:1",
                4,
                &["the key file k", "No such file"],
            ),
            ("agent", 2, &["Usage: quorate agent", "enroll"]),
            ("agent keygen", 2, &["were not provided", "--out <FILE>"]),
            ("agent run --target x", 2, &["were not provided", "--root <FILE>", "--actuator <KIND>"]),
            ("agnt", 2, &["a similar subcommand exists: 'agent'"]),
        ],
    );
    assert!(
        fs::read_dir(folder.path())
            .expect("it is there")
            .all(|entry| { entry.is_ok_and(|entry| entry.file_name() == "x") })
    );
}

#[test]
fn a_wrong_recording_is_told_with_file_line_column_and_what_is_allowed() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it is ours");
    write("right.csv", "timestamp,value\n2026-12-01 14:30:00,1\n");
    write("header.csv", "time;value\n");
    write("value.csv", "timestamp,value\n2026-12-01 14:30:00,1\n2026-12-01 14:35:00,high\n");
    write("time.csv", "timestamp,value\n01.12.2026,1\n");
    assert_told(
        folder.path(),
        &[
            ("analyze --in right.csv", 2, &["were not provided", "--out <FILE.csv>"]),
            (
                "analyze --in right.csv --out o --detector novlty",
                2,
                &["possible values: novelty, holt, range", "a similar value exists: 'novelty'"],
            ),
            ("analyze --in right.csv --out o --detector limit", 2, &["--limit <VALUE>"]),
            ("analyze --in right.csv --out o --detector limit --limit x", 2, &["such as 0.5 or 2e9"]),
            (
                "analyze --in right.csv --out o --detector burn-rate --objective 1",
                2,
                &["--objective 1", "above 0 and below 1"],
            ),
            ("analyze --in none.csv --out o", 1, &["cannot read none.csv", "No such file"]),
            (
                "analyze --in header.csv --out o",
                1,
                &["header.csv", "line 1, column 1", "\"timestamp,value\""],
            ),
            (
                "analyze --in value.csv --out o",
                1,
                &["value.csv", "line 3, column 21", "\"high\"", "finite decimal"],
            ),
            (
                "analyze --in time.csv --out o",
                1,
                &["time.csv", "line 2, column 1", "\"01.12.2026\"", "in UTC"],
            ),
            ("analyze --in right.csv --out no/o", 1, &["cannot write no/o", "No such file"]),
        ],
    );
    assert!(!folder.path().join("o").exists(), "nothing is written when anything is wrong");
}

#[test]
fn wrong_configuration_is_told_with_file_line_and_column() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it is ours");
    write("replica.toml", "data_dir = \"a\"\npeer = []\n");
    write("policy.toml", "[cycle]\nwindow = \"10\"\n");
    write("twice.toml", "[cycle]\nwindow = \"10s\"\nwindow = \"10s\"\n");
    assert_told(
        folder.path(),
        &[
            ("config check replica.toml", 78, &["replica.toml:2:1: `peer` is not known", "mean `peers`?"]),
            ("run --config replica.toml", 78, &["replica.toml:2:1: `peer` is not known", "mean `peers`?"]),
            ("config check policy.toml", 78, &["policy.toml:2:10: ", "a span of time with its unit"]),
            ("config check twice.toml", 78, &["twice.toml:3:1: duplicate key"]),
            ("init --dir i --policy policy.toml", 78, &["policy.toml:2:10: "]),
            ("init --dir i --policy none.toml", 78, &["none.toml: cannot be read: No such file"]),
            ("config check .", 78, &[".: cannot be read: Is a directory"]),
            ("run", 78, &["peers is not set: give --peers, QUORATE_PEERS, or peers in the replica file"]),
        ],
    );
}

#[test]
fn broken_documents_and_recordings_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = |name: &str| folder.path().join(name);
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/airflow-incident.otlp.gz");
    let recording = fs::read(recording).expect("it is there");
    fs::write(path("cut.gz"), &recording[..3_000]).expect("it is ours");
    fs::write(path("empty"), "").expect("it is ours");
    fs::write(path("object"), "{}").expect("it is ours");
    fs::write(path("zeros"), [0; 300_000]).expect("it is ours");
    fs::create_dir(path("folder")).expect("it is ours");
    fs::write(path("folder/index.jsonl"), "\n{\"n\":1,\n").expect("it is ours");
    assert_told(
        folder.path(),
        &[
            ("verify --root none --plan none", 1, &["cannot read none: No such file"]),
            ("verify --root . --plan object", 1, &["cannot read .: Is a directory"]),
            ("verify --root empty --plan empty", 4, &["root: the envelope is malformed: EOF"]),
            ("verify --root object --plan object", 4, &["root: ", "missing field `payload`"]),
            ("verify --root zeros --plan object", 4, &["root: "]),
            ("inspect-otlp none", 1, &["cannot read none: No such file"]),
            ("inspect-otlp empty", 1, &["empty: the file is empty"]),
            ("inspect-otlp cut.gz", 1, &["cut.gz: request 29: "]),
            ("inspect-otlp folder", 1, &["index.jsonl: line 2: EOF"]),
            ("inspect-otlp zeros", 1, &["zeros: it is neither a packed recording nor a folder"]),
            ("replay-otlp cut.gz --to http://127.0.0.1:1", 1, &["cut.gz: request 29: "]),
        ],
    );
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests should see what was not tested")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Runs the command as a user who owns nothing; `None` where that is not possible here.
fn told_to_nobody(folder: &Path, line: &str) -> Option<(Option<i32>, String)> {
    if !geteuid().is_root() {
        skipped("only root can become another user");
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(line.split_whitespace()).current_dir(folder).stdin(Stdio::null()).uid(NOBODY);
    match command.output() {
        Ok(output) => Some((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) => {
            skipped(&format!("another user cannot run the program from where it lies: {error}"));
            None
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).expect("it is ours");
}

/// Founds a cluster of one replica with short windows; gives its replica file, and the address of its API.
fn found_one(folder: &Path) -> (PathBuf, String) {
    let ports = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).expect("there are free ports"));
    let [peer, http] = ports.map(|port| port.local_addr().expect("it is bound").to_string());
    let policy = "[cycle]\nwindow = \"1s\"\n\n[[target]]\nid = \"pool\"\n\
        pool = { initial = 3, min = 2, max = 12, max_step = 3 }\ncooldown = \"2m\"\nplans_per_hour = 6\n";
    fs::write(folder.join("policy.toml"), policy).expect("it is ours");
    let line = format!("init --dir cluster --policy policy.toml --replica {peer}={http}");
    let (code, message) = told(folder, &line);
    assert_eq!(code, Some(0), "{message}");
    (folder.join("cluster/replicas/r0/replica.toml"), http)
}

#[test]
fn files_with_the_wrong_permissions_are_named() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (file, _) = found_one(folder.path());
    let key = file.with_file_name("replica.key");
    let run = format!("run --config {}", file.display());
    set_mode(&key, 0o644);
    assert_told(folder.path(), &[(&run, 78, &["replica.key", "chmod 600"])]);
    set_mode(&key, 0o600);
    set_mode(folder.path(), 0o755);
    for part in ["cluster", "cluster/replicas", "cluster/replicas/r0"] {
        set_mode(&folder.path().join(part), 0o755);
    }
    if let Some((code, message)) = told_to_nobody(folder.path(), &run) {
        assert_eq!(code, Some(78), "{message}");
        assert!(message.contains("replica.key") && message.contains("Permission denied"), "{message}");
    }
    // The key is readable, and the folder of its data is not this user's to write.
    if geteuid().is_root() {
        std::os::unix::fs::chown(&key, Some(NOBODY), None).expect("we are root");
    }
    if let Some((code, message)) = told_to_nobody(folder.path(), &run) {
        assert_eq!(code, Some(4), "{message}");
        assert!(message.contains("journal's folder cannot be created"), "{message}");
    }
}

/// A disk of its own, unmounted with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&folder).expect("the folder is ours");
        let options = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(folder));
        }
        skipped("no disk can be mounted here");
        None
    }

    /// Fills it, but for so many bytes.
    fn fill(&self, left: u64) {
        let free = rustix::fs::statvfs(&self.0).expect("it is mounted");
        let bytes = (free.f_bavail * free.f_frsize).saturating_sub(left);
        let zeros = vec![0; usize::try_from(bytes).expect("it is small")];
        fs::write(self.0.join("filling"), zeros).expect("there is room");
    }

    fn clear(&self) {
        fs::remove_file(self.0.join("filling")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is still mounted is seen in the next run; there is nothing better to do here.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_replica_whose_disk_is_full_says_so_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let Some(disk) = SmallDisk::mount(folder.path().join("disk"), "512k") else { return };
    let (file, _) = found_one(&disk.0);
    let run = format!("run --config {}", file.display());
    let full = ["no space is left on the disk", "make room on the disk, or repair it, and start again"];

    disk.fill(0);
    assert_told(&disk.0, &[(&run, 1, &full)]);

    // It works until the disk is full, ends by itself, and tells why.
    disk.clear();
    disk.fill(24 * 1024);
    assert_told(&disk.0, &[(&run, 1, &full)]);
    let before = committed(&disk, &run);

    // With room it goes on from what it had.
    disk.clear();
    disk.fill(48 * 1024);
    assert!(committed(&disk, &run) >= before, "nothing that was committed is lost");
}

/// The height at which a replica that runs until its disk is full began.
fn committed(disk: &SmallDisk, run: &str) -> u64 {
    disk.clear();
    disk.fill(12 * 1024);
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(run.split_whitespace())
        .args(["-o", "jsonl"])
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let ready = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut heights = ready.filter_map(|event| event["height"].as_u64());
    heights
        .next()
        .unwrap_or_else(|| panic!("it is ready: {lines}{}", String::from_utf8_lossy(&output.stderr)))
}
