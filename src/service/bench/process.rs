//! What a process has used, as the kernel counts it in `/proc`.
//!
//! Invariant: a usage never goes back while the process lives.

use std::{fs, io, time::Duration};

/// The kernel shows processor time to programs in hundredths of a second on every architecture that this
/// program is built for.
const TICK: Duration = Duration::from_millis(10);

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a processor, in the program and in the kernel for it.
    pub processor: Duration,
    /// Memory that is resident now.
    pub resident_bytes: u64,
    /// The most memory that was resident at once.
    pub peak_bytes: u64,
}

/// Why a process's usage cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// It has ended, or this system has no `/proc`.
    #[error("{path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The kernel writes another form.
    #[error("{path}: {field} is not where it is expected")]
    Form {
        /// The file.
        path: String,
        /// What was looked for.
        field: &'static str,
    },
}

impl Usage {
    /// What the process with this identifier has used.
    ///
    /// # Errors
    /// [`UsageError`] when it has ended.
    pub fn of(process: u32) -> Result<Self, UsageError> {
        let stat = read(format!("/proc/{process}/stat"))?;
        let status = read(format!("/proc/{process}/status"))?;
        Self::parse(&stat.1, &status.1).map_err(|(is_stat, field)| UsageError::Form {
            path: if is_stat { stat.0 } else { status.0 },
            field,
        })
    }

    fn parse(stat: &str, status: &str) -> Result<Self, (bool, &'static str)> {
        // The name, in brackets, may hold anything; the fields after it are numbered from 3.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let field = |number: usize| fields.split_whitespace().nth(number - 3)?.parse::<u32>().ok();
        let user = field(14).ok_or((true, "the time in the program"))?;
        let kernel = field(15).ok_or((true, "the time in the kernel"))?;
        let kibibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        Ok(Self {
            processor: TICK * user + TICK * kernel,
            resident_bytes: 1024 * kibibytes("VmRSS:").ok_or((false, "VmRSS"))?,
            peak_bytes: 1024 * kibibytes("VmHWM:").ok_or((false, "VmHWM"))?,
        })
    }
}

fn read(path: String) -> Result<(String, String), UsageError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) => Err(UsageError::Unreadable { path, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::Usage;
    use std::time::Duration;

    #[test]
    fn a_name_with_brackets_and_spaces_moves_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 100 1 1";
        let status = "Name:\ta\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let expected =
            Usage { processor: Duration::from_secs(2), resident_bytes: 1 << 20, peak_bytes: 1 << 21 };
        assert_eq!(Usage::parse(stat, status), Ok(expected));
        assert!(Usage::parse("7 (a) S 1", status).is_err());
        assert!(Usage::parse(stat, "Name:\ta\n").is_err());
    }

    #[test]
    fn this_process_has_used_memory() {
        let usage = Usage::of(std::process::id()).expect("it runs");
        assert!(usage.resident_bytes > 0 && usage.peak_bytes >= usage.resident_bytes);
    }
}
