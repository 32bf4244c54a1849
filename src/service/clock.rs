//! The one file that reads a clock. Everything else takes time as an argument.
//!
//! Invariant: [`Stopwatch`] never goes back, whatever happens to the wall clock.

use crate::types::{Millis, UnixMillis};

/// The machine's wall clock; 0 when it stands before 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub fn wall_clock() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Measures time on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// How long ago it was started.
    #[must_use]
    pub fn elapsed(&self) -> Millis {
        Millis::new(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
