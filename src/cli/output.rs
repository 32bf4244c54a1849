//! The one place that writes to standard output and standard error. Commands say *what*; the format says
//! how: a line for people, or one JSON object a line for programs.
//!
//! Invariant: writing never panics. A closed pipe is an [`OutputError::Closed`], which ends the command
//! quietly; a message to a closed standard error is dropped, because nobody is left to read it.

use std::{
    fmt::Display,
    io::{self, Write},
};

use serde::Serialize;

/// For whom a command writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON object a line, for programs.
    Jsonl,
}

/// Why a line could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader has gone: stop quietly.
    #[error("standard output is closed")]
    Closed,
    /// It could not be written, for example because the disk is full.
    #[error("cannot write to standard output")]
    Failed(#[source] io::Error),
    /// The record has no JSON form.
    #[error("cannot write the record as JSON")]
    Unencodable(#[source] serde_json::Error),
}

/// A handle to standard output in one format. It is a copy of a choice, so every task may hold one; each
/// call writes whole lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Output in this format.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { format }
    }

    /// The format, for commands whose two forms differ by more than a line.
    #[must_use]
    pub const fn format(self) -> Format {
        self.format
    }

    /// Something that happened: its `Display` for people, its JSON for programs.
    ///
    /// # Errors
    /// [`OutputError`] when it could not be written.
    pub fn event<T: Display + Serialize>(self, event: &T) -> Result<(), OutputError> {
        match self.format {
            Format::Human => line(&mut io::stdout().lock(), event),
            Format::Jsonl => record(&mut io::stdout().lock(), event),
        }
    }

    /// A line that only people need: a heading, a hint, progress. Programs do not see it.
    ///
    /// # Errors
    /// [`OutputError`] when it could not be written.
    pub fn say(self, text: impl Display) -> Result<(), OutputError> {
        match self.format {
            Format::Human => line(&mut io::stdout().lock(), &text),
            Format::Jsonl => Ok(()),
        }
    }

    /// A record that only programs need.
    ///
    /// # Errors
    /// [`OutputError`] when it could not be written.
    pub fn record<T: Serialize>(self, value: &T) -> Result<(), OutputError> {
        match self.format {
            Format::Human => Ok(()),
            Format::Jsonl => record(&mut io::stdout().lock(), value),
        }
    }

    /// A document that is the command's result, the same in both formats: an example, an envelope.
    ///
    /// # Errors
    /// [`OutputError`] when it could not be written.
    pub fn document(self, text: &str) -> Result<(), OutputError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(classify)
    }
}

/// How many characters fit in a line where standard output is a terminal that says so; `None` elsewhere.
pub(super) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    // Some terminals know of no size and say 0.
    Some(usize::from(size.ws_col)).filter(|columns| *columns >= 20)
}

/// A message for people on standard error, in either format.
pub fn complain(text: impl Display) {
    // A failure here has nowhere to be told.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// What the argument parser has to say: help and versions to standard output, mistakes to standard error.
pub(super) fn parser_message(error: &clap::Error) {
    // As above; a closed pipe after `--help | head` is no failure either.
    let _ = error.print();
}

fn line(writer: &mut impl Write, text: &impl Display) -> Result<(), OutputError> {
    writeln!(writer, "{text}").and_then(|()| writer.flush()).map_err(classify)
}

fn record(writer: &mut impl Write, value: &impl Serialize) -> Result<(), OutputError> {
    let mut bytes = serde_json::to_vec(value).map_err(OutputError::Unencodable)?;
    bytes.push(b'\n');
    writer.write_all(&bytes).and_then(|()| writer.flush()).map_err(classify)
}

fn classify(error: io::Error) -> OutputError {
    if error.kind() == io::ErrorKind::BrokenPipe { OutputError::Closed } else { OutputError::Failed(error) }
}

#[cfg(test)]
mod tests {
    use super::{OutputError, line, record};
    use std::io::{self, Write};

    struct Refusing(io::ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_is_one_line_of_json() {
        let mut written = Vec::new();
        record(&mut written, &serde_json::json!({"text": "two\nlines"})).expect("memory takes it");
        assert_eq!(written, b"{\"text\":\"two\\nlines\"}\n");
    }

    #[test]
    fn a_closed_pipe_is_told_apart_from_a_full_disk() {
        let write = |kind| line(&mut Refusing(kind), &"text");
        assert!(matches!(write(io::ErrorKind::BrokenPipe), Err(OutputError::Closed)));
        assert!(matches!(write(io::ErrorKind::StorageFull), Err(OutputError::Failed(_))));
    }
}
