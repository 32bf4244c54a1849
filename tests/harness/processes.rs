//! Processes by their identifiers: signals, and whether they still run.
//!
//! Invariant: only identifiers that the cluster under test told of are ever signalled.

use std::{fs, path::Path};

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Sends a signal; a process that is gone already is left in peace.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The only failure between a user's own processes is that there is none any more.
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process runs; one that has ended and was not waited for does not. While any of its threads is still
/// ending, its files and locks are still held.
pub(crate) fn runs(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses and may hold any character.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    threads > 1 || state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// The command lines of all running processes that name the folder.
pub(crate) fn naming(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| runs(*pid))
        .filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&*folder))
        .collect()
}
