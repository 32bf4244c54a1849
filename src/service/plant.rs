//! A plant that others wrote, as a process: orders to its standard input, answers from its standard output.
//!
//! What the lines mean is read in [`crate::backtest::protocol`]. Invariant: no answer is waited for longer than the time-out,
//! and no process that it started is left behind.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    backtest::{
        Plant, PlantFailure,
        protocol::{Answer, MAX_LINE_BYTES, Order, Span},
    },
    types::Millis,
};

/// How long a plant that was told that all is over may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often that is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// A running plant.
#[derive(Debug)]
pub struct ProcessPlant {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<io::Result<Vec<u8>>>,
    time_out: Duration,
    line: u64,
}

impl ProcessPlant {
    /// Starts a command line in a shell. Its standard error is this process's own.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub fn start(command: &str, time_out: Millis) -> io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let orders = child.stdin.take();
        // One line waits at most: a plant that says more than it was asked is held up by its own pipe.
        let (lines, answers) = mpsc::sync_channel(1);
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                let mut reader = BufReader::new(stdout);
                loop {
                    let line = read_line(&mut reader);
                    let is_last = !matches!(&line, Ok(line) if line.ends_with(b"\n"));
                    if lines.send(line).is_err() || is_last {
                        return;
                    }
                }
            });
        }
        let time_out = Duration::from_millis(time_out.as_millis());
        Ok(Self { child, orders, answers, time_out, line: 0 })
    }

    fn answer(&self) -> Result<Vec<u8>, Silence> {
        match self.answers.recv_timeout(self.time_out) {
            Ok(Ok(mut line)) if line.ends_with(b"\n") => {
                line.truncate(line.len() - 1);
                Ok(line)
            }
            Ok(Ok(rest)) if rest.len() > MAX_LINE_BYTES => Err(Silence::TooLong),
            Ok(Ok(_) | Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(Silence::Ended),
            Err(RecvTimeoutError::Timeout) => Err(Silence::Stalled),
        }
    }

    /// How it ended, if it does within the farewell.
    fn wait(&mut self) -> Option<ExitStatus> {
        let mut waited = Duration::ZERO;
        while waited < FAREWELL {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(GLANCE);
            waited += GLANCE;
        }
        None
    }
}

/// Why there is no line.
enum Silence {
    Ended,
    Stalled,
    TooLong,
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
    Ok(line)
}

impl Plant for ProcessPlant {
    fn step(&mut self, order: &Order, span: Span) -> Result<Answer, PlantFailure> {
        self.line += 1;
        let (number, time_out) = (self.line, self.time_out.as_millis());
        // A plant that has ended says so below, whether or not its pipe took the order.
        if let Some(orders) = &mut self.orders {
            let _ = orders.write_all(&order.to_line()).and_then(|()| orders.flush());
        }
        match self.answer() {
            Ok(line) => Answer::read(number, &line, span).map_err(|error| PlantFailure(error.to_string())),
            Err(Silence::TooLong) => Err(PlantFailure(format!(
                "the plant's line {number} is longer than {MAX_LINE_BYTES} bytes; a line is one answer"
            ))),
            Err(Silence::Stalled) => Err(PlantFailure(format!(
                "the plant gave no line {number} within {time_out} ms (--time-out); each order is answered by one line"
            ))),
            Err(Silence::Ended) => {
                self.orders = None;
                let how = self.wait().map_or_else(|| "its output is closed".to_owned(), |s| s.to_string());
                Err(PlantFailure(format!("the plant ended before its line {number} ({how})")))
            }
        }
    }
}

impl Drop for ProcessPlant {
    fn drop(&mut self) {
        // The end of its input tells a plant that all is over.
        self.orders = None;
        if self.wait().is_some() {
            return;
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
