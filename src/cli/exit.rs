//! How a command ends: the exit codes that scripts rely on, and the one form in which a failure is told.
//!
//! Invariant: a failure is one line that says what is wrong, and where that helps a second one that says
//! what to do next.

use std::fmt;

use super::output::OutputError;

/// What the process tells its caller. The numbers are part of the interface and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// It works, but not as well as it should.
    Degraded = 3,
    /// Refused: a verification or a permission.
    Refused = 4,
    /// The configuration is wrong.
    Configuration = 78,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command ends without having done its work.
#[derive(Debug)]
pub enum Failure {
    /// The reader of its output has gone: end quietly.
    OutputClosed,
    /// Something to tell.
    Told {
        /// The exit code.
        code: ExitCode,
        /// What is wrong.
        error: anyhow::Error,
        /// What to do next.
        next: Option<String>,
    },
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(code: ExitCode, error: impl Into<anyhow::Error>) -> Self {
        Self::Told { code, error: error.into(), next: None }
    }

    /// It was tried and failed.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::new(ExitCode::Failed, error)
    }

    /// The command line is wrong.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(ExitCode::Usage, error)
    }

    /// A verification or a permission refused it.
    pub fn refused(error: impl Into<anyhow::Error>) -> Self {
        Self::new(ExitCode::Refused, error)
    }

    /// The configuration is wrong.
    pub fn configuration(error: impl Into<anyhow::Error>) -> Self {
        Self::new(ExitCode::Configuration, error)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn next(self, advice: impl Into<String>) -> Self {
        match self {
            Self::OutputClosed => Self::OutputClosed,
            Self::Told { code, error, next: _ } => Self::Told { code, error, next: Some(advice.into()) },
        }
    }

    /// The exit code.
    #[must_use]
    pub const fn code(&self) -> ExitCode {
        match self {
            Self::OutputClosed => ExitCode::Done,
            Self::Told { code, .. } => *code,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutputClosed => f.write_str("standard output is closed"),
            Self::Told { error, next, .. } => {
                write_causes(f, error)?;
                next.as_ref().map_or(Ok(()), |next| write!(f, "\n  next: {next}"))
            }
        }
    }
}

/// The error and its causes in one line. Many errors tell their cause themselves; it is not told again.
fn write_causes(f: &mut fmt::Formatter<'_>, error: &anyhow::Error) -> fmt::Result {
    let mut last = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if last.is_empty() {
            f.write_str(&cause)?;
        } else if !last.contains(&cause) {
            write!(f, ": {cause}")?;
        } else {
            continue;
        }
        last = cause;
    }
    Ok(())
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Closed => Self::OutputClosed,
            OutputError::Failed(_) | OutputError::Unencodable(_) => Self::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ExitCode, Failure};
    use crate::cli::output::OutputError;

    #[test]
    fn a_failure_names_its_causes_and_what_to_do_next() {
        let cause = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let error = anyhow::Error::new(cause).context("cannot listen on 127.0.0.1:4318");
        let failure = Failure::failed(error).next("choose another port with --otlp-port");
        assert_eq!(
            failure.to_string(),
            "cannot listen on 127.0.0.1:4318: address in use\n  next: choose another port with --otlp-port"
        );
        assert_eq!(failure.code(), ExitCode::Failed);
    }

    #[test]
    fn a_cause_that_an_error_tells_itself_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("root: {0}")]
        struct Told(#[from] std::io::Error);
        let told = || Told(std::io::Error::other("it is cut"));
        assert_eq!(Failure::failed(told()).to_string(), "root: it is cut");
        let wrapped = anyhow::Error::new(told()).context("cannot verify root.json");
        assert_eq!(Failure::failed(wrapped).to_string(), "cannot verify root.json: root: it is cut");
    }

    #[test]
    fn a_reader_that_leaves_early_is_no_failure() {
        assert_eq!(Failure::from(OutputError::Closed).code(), ExitCode::Done);
    }
}
