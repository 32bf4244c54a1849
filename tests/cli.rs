//! The command line as scripts see it: exit codes, one clear line for a mistake, and a quiet end when the
//! reader of its output leaves. What the subcommands do is tested beside them.

use std::{
    fs::File,
    io,
    process::{Command, Output, Stdio},
};

fn quorate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    told(quorate(arguments).output().expect("the binary starts"))
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("it writes UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_and_version_are_no_mistakes() {
    for arguments in [["--help"].as_slice(), &["--version"], &["config", "--help"], &["help", "config"]] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(stdout.contains("quorate") || stdout.contains("config"), "{arguments:?}: {stdout}");
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error_that_names_the_mistake() {
    for (arguments, named) in [
        ([].as_slice(), "Usage"),
        (&["confgi"], "confgi"),
        (&["config", "check", "--frobnicate", "file"], "--frobnicate"),
        (&["config", "example", "-o", "xml"], "xml"),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr.contains(named), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_recorded_series_is_scored_row_by_row() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (input, out) = (folder.path().join("in.csv"), folder.path().join("out.csv"));
    let value = |row: u32| if row == 700 { 500 } else { row * 7 % 50 };
    let rows: String =
        (0..1000).map(|row| format!("{},{}\n", 1_700_000_000 + 300 * row, value(row))).collect();
    std::fs::write(&input, format!("timestamp,value\n{rows}")).expect("it is ours");
    let path = |path: &std::path::Path| path.to_str().expect("it is UTF-8").to_owned();
    let (code, stdout, stderr) = run(&["analyze", "--in", &path(&input), "--out", &path(&out)]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.ends_with("1000 rows, 1 findings by novelty\n"), "{stdout}");

    let scored = std::fs::read_to_string(&out).expect("it was written");
    let lines: Vec<&str> = scored.lines().collect();
    assert_eq!((lines[0], lines.len()), ("timestamp,anomaly_score,finding", 1001));
    assert!(lines.iter().all(|line| line.split(',').count() == 3));
    let found: Vec<&&str> = lines.iter().skip(1).filter(|line| !line.ends_with(',')).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("1700210000,0."), "{found:?}");
    assert!(
        found[0].contains("value 500.000000 with mean")
            && found[0].ends_with("since 2023-11-17 08:33:20.000 UTC")
    );
}

#[test]
fn a_broken_configuration_is_one_line_with_its_own_exit_code() {
    let (code, stdout, stderr) = run(&["config", "check", "no-such-file.toml"]);
    assert_eq!((code, stdout.as_str()), (Some(78), ""));
    assert!(stderr.starts_with("quorate: ") && stderr.contains("no-such-file.toml"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_reader_that_has_left_ends_the_command_quietly() {
    for arguments in [["config", "example"].as_slice(), &["--help"]] {
        let (reader, writer) = io::pipe().expect("a pipe can be made");
        drop(reader);
        let output = quorate(arguments).stdout(writer).output().expect("the binary starts");
        let (code, _, stderr) = told(output);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_a_failure_that_is_told() {
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let output = quorate(&["config", "example"]).stdout(full).output().expect("the binary starts");
    let (code, _, stderr) = told(output);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot write to standard output"), "{stderr}");
}
