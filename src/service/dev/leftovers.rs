//! Processes that an earlier `quorate dev` of the same folder left: none, mostly, and for seconds after it was
//! killed some that are just ending.
//!
//! Invariant: only called by whoever holds the folder, so that every process that is found has lost its parent.

use rustix::process::{Pid, Signal, kill_process};
use std::{fs, os::unix::ffi::OsStrExt as _, path::Path, time::Duration};

/// Stands in the environment of every child with the folder as its value, by which a later start knows it.
pub(super) const FOLDER_VARIABLE: &str = "QUORATE_DEV_DATA_DIR";

/// How long processes without a parent may take to end by themselves: longer than they give themselves.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Waits until no process of the folder is left. One that does not end by itself, for example because it was
/// stopped, is killed; how many were.
pub(super) async fn await_end(folder: &Path) -> usize {
    await_end_within(folder, PATIENCE).await
}

async fn await_end_within(folder: &Path, patience: Duration) -> usize {
    let until = tokio::time::Instant::now() + patience;
    loop {
        let left = of_folder(folder);
        if left.is_empty() {
            return 0;
        }
        if tokio::time::Instant::now() >= until {
            return kill_all(folder).await;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn kill_all(folder: &Path) -> usize {
    let mut killed = 0;
    // A process that waits for a disk cannot be killed; the ports and locks that it holds are then told of.
    for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
        let left = of_folder(folder);
        if left.is_empty() {
            break;
        }
        killed = killed.max(left.len());
        for pid in left {
            // It may have ended since: then there is nothing left to do.
            let _ = kill_process(pid, Signal::KILL);
        }
        tokio::time::sleep(POLL).await;
    }
    killed
}

fn of_folder(folder: &Path) -> Vec<Pid> {
    let mark = [FOLDER_VARIABLE.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered =
        entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    numbered
        .filter(|(_, process)| {
            // Other users' processes do not show their environment, and are not ours.
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark) && is_alive(process)
        })
        .filter_map(|(number, _)| Pid::from_raw(number))
        .filter(|pid| pid.as_raw_nonzero().get().unsigned_abs() != std::process::id())
        .collect()
}

/// Whether a process is more than an entry that its parent has not looked at yet.
fn is_alive(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses and may hold any character.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::{FOLDER_VARIABLE, await_end, await_end_within, of_folder};
    use std::{
        path::Path,
        process::{Child, Command, Stdio},
        time::Duration,
    };

    fn sleeper(folder: &Path, seconds: &str) -> Child {
        let mut command = Command::new("sleep");
        command.arg(seconds).env(FOLDER_VARIABLE, folder).stdin(Stdio::null());
        command.spawn().expect("there is a sleep")
    }

    #[tokio::test]
    async fn only_processes_of_the_folder_are_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(await_end(folder.path()).await, 0);
        let mut child = sleeper(folder.path(), "1");
        let other = tempfile::tempdir().expect("a temporary folder");
        assert!(of_folder(other.path()).is_empty());
        assert_eq!(await_end(folder.path()).await, 0, "it ended by itself");
        assert!(child.wait().expect("it is ours").success());
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed_and_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut child = sleeper(folder.path(), "600");
        assert_eq!(await_end_within(folder.path(), Duration::ZERO).await, 1);
        assert_eq!(child.wait().expect("it is ours").code(), None);
    }
}
