//! The installed programs: where they are, and running one to its end.
//!
//! Invariant: a folder counts only if it has all three.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::error::{PostgresError, io_error};

/// How much of the server's log an error repeats.
const LOG_TAIL_LINES: usize = 8;

/// Where the installed programs are.
#[derive(Debug)]
pub(super) struct Binaries(PathBuf);

impl Binaries {
    pub(super) fn find() -> Result<Self, PostgresError> {
        let candidates = [pg_config_folder(), path_folder()].into_iter().flatten().chain(debian_folders());
        let complete = |folder: &PathBuf| {
            ["postgres", "initdb", "pg_ctl"].iter().all(|program| folder.join(program).is_file())
        };
        candidates.into_iter().find(complete).map(Self).ok_or(PostgresError::NotInstalled)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn pg_config_folder() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(folder.trim_end()))
}

fn path_folder() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|folder| folder.join("postgres").is_file())
}

/// Debian keeps every major version in a folder of its own; the newest comes first.
fn debian_folders() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable();
    versions.into_iter().rev().map(|(_, folder)| folder).collect()
}

pub(super) async fn run(program: &'static str, command: Command) -> Result<(), PostgresError> {
    let path = PathBuf::from(command.get_program());
    let output = tokio::process::Command::from(command).output().await.map_err(io_error("run", &path))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(PostgresError::Failed { program, status: output.status, output: tail(&said) })
}

pub(super) fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn an_error_repeats_the_end_of_what_was_said() {
        let said: String = (1..=20).map(|line| format!("line {line}\n\n")).collect();
        assert_eq!(tail(said.as_bytes()).split("; ").count(), 8);
        assert!(tail(said.as_bytes()).ends_with("line 20"));
        assert_eq!(tail(b""), "");
    }
}
