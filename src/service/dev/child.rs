//! A process of the development cluster: started, listened to, ended.
//!
//! Invariant: a child ends when this process does, however this process ends: its standard input closes then.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child as Process, Command},
    sync::mpsc,
};

use super::{folder::open_log, leftovers::FOLDER_VARIABLE};
use crate::service::lifecycle::END_WITH_PARENT;

/// What the names of this program's variables begin with. They are for one process, never for every child of a
/// cluster: one data folder for all replicas would be the end of all but one.
const OWN_VARIABLES: &str = "QUORATE_";

/// But for this one: which events are logged may be the same for all.
const SHARED_VARIABLE: &str = "QUORATE_LOG_FILTER";

/// How long a child may take to end once it is asked to.
const END_TIMEOUT: Duration = Duration::from_secs(8);

/// The longest line that is listened to; events are far shorter.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Something that a child said or did.
#[derive(Debug)]
pub(super) enum Heard {
    /// A line on its standard output.
    Line {
        /// The child.
        name: String,
        /// Without the line's end.
        line: String,
    },
    /// It ended.
    Ended {
        /// The child.
        name: String,
    },
}

/// A running child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) name: String,
    pub(super) log: PathBuf,
    process: Process,
}

/// Why a child cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("{name} cannot be started: {error}")]
pub struct SpawnError {
    name: String,
    #[source]
    error: io::Error,
}

impl Child {
    /// Starts this program again with other arguments; its log goes to a file.
    pub(super) fn start(
        name: &str,
        folder: &Path,
        arguments: &[String],
        log: PathBuf,
        heard: mpsc::Sender<Heard>,
    ) -> Result<Self, SpawnError> {
        let failed = |error| SpawnError { name: name.to_owned(), error };
        let program = std::env::current_exe().map_err(failed)?;
        let errors = open_log(&log).map_err(failed)?;
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with(OWN_VARIABLES) && text != SHARED_VARIABLE {
                command.env_remove(&variable);
            }
        }
        let mut process = command
            .args(arguments)
            .env(END_WITH_PARENT, "1")
            .env(FOLDER_VARIABLE, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            // The terminal's Ctrl-C reaches this process alone, which then ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(output) = process.stdout.take() {
            let name = name.to_owned();
            tokio::spawn(async move {
                let mut lines = BufReader::with_capacity(MAX_LINE_BYTES, output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    // Nobody listens any more while the cluster ends.
                    let _ = heard.send(Heard::Line { name: name.clone(), line }).await;
                }
                let _ = heard.send(Heard::Ended { name }).await;
            });
        }
        Ok(Self { name: name.to_owned(), log, process })
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Whether it has ended, and how.
    pub(super) fn has_ended(&mut self) -> Option<String> {
        match self.process.try_wait() {
            Ok(Some(status)) => Some(status.to_string()),
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    /// The end of its log, for a message.
    pub(super) fn last_words(&self) -> String {
        const LINES: usize = 3;
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(MAX_LINE_BYTES)..]);
        let lines: Vec<&str> = text.lines().rev().take(LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Asks it to end and waits for it; one that does not is killed.
    pub(super) async fn end(mut self) {
        drop(self.process.stdin.take());
        if tokio::time::timeout(END_TIMEOUT, self.process.wait()).await.is_err() {
            tracing::warn!(child = self.name, "does not end and is killed");
            // Only a child that has just ended cannot be killed.
            let _ = self.process.kill().await;
        }
    }
}
