//! Wrong input as people give it: each row is a command line or a file that is wrong in one way, the exit code, and
//! words of the message that say what is wrong, where, and mostly what to do.
//!
//! What needs a running cluster is tested beside it. Invariant: nothing here starts a replica.
#![cfg(feature = "service")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

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
        ],
    );
    assert!(
        fs::read_dir(folder.path())
            .expect("it is there")
            .all(|entry| { entry.is_ok_and(|entry| entry.file_name() == "x") })
    );
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
            ("inspect-otlp empty", 1, &["cannot read empty: unexpected end of file"]),
            ("inspect-otlp cut.gz", 1, &["cut.gz: request 29: "]),
            ("inspect-otlp folder", 1, &["index.jsonl: line 2: EOF"]),
            ("inspect-otlp zeros", 1, &["zeros: it is neither a packed recording nor a folder"]),
            ("replay-otlp cut.gz --to http://127.0.0.1:1", 1, &["cut.gz: request 29: "]),
        ],
    );
}
