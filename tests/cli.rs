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
