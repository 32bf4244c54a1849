//! A real cluster for tests: the processes of `quorate dev`, killed, restarted and looked at from outside.
//!
//! It knows nothing that an operator could not know: addresses, process identifiers, files, the API. Invariant: no
//! process outlives a test, whether it passes, fails or is killed itself.

pub(crate) mod adversaries;
pub(crate) mod cluster;
pub(crate) mod http;
pub(crate) mod journal;
pub(crate) mod processes;
pub(crate) mod telemetry;
pub(crate) mod traces;

use std::time::Duration;

use quorate::{service::clock::Stopwatch, types::Millis};

/// How long a condition may take to come true. A loaded machine is slow and no failure.
const PATIENCE: Millis = Millis::from_secs(90);

/// How long between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);

/// Looks again and again until there is something; `None` when patience is at its end.
pub(crate) fn poll<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if watch.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(POLL);
    }
}
