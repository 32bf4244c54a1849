//! How long a lane waits before it asks a replica again that did not answer.
//!
//! It reads no clock and draws nothing itself. Invariant: no pause is shorter than a replica asked for, up to
//! [`LONGEST_ASKED`], and pauses of lanes that failed together differ.

use std::time::Duration;

/// The first pause, and the longest: a replica that is back is noticed within it.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The longest `Retry-After` that is heeded: a mistaken one must not silence a lane for an hour.
const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// The pause after so many failures in a row (from 1), somewhere between half and the whole of what doubling
/// gives; `random` is any number.
pub(super) fn pause(failures: u32, asked: Option<Duration>, random: u64) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST);
    let half = doubled / 2;
    let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
    let jittered = half + Duration::from_millis(random % spread);
    jittered.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, LONGEST_ASKED, pause};
    use std::time::Duration;

    #[test]
    fn pauses_double_up_to_a_bound_and_differ() {
        let millis = |failures, random| pause(failures, None, random).as_millis();
        assert_eq!([millis(1, 0), millis(1, 49), millis(2, 0), millis(2, 99)], [50, 99, 100, 199]);
        for failures in [7, 40, u32::MAX] {
            for random in [0, 1, u64::MAX] {
                let pause = pause(failures, None, random);
                assert!(pause >= LONGEST / 2 && pause <= LONGEST, "{pause:?}");
            }
        }
    }

    #[test]
    fn a_replica_that_asks_for_time_gets_it_within_reason() {
        for (asked, least) in [(0, 0), (3, 3), (30, 30), (86_400, LONGEST_ASKED.as_secs())] {
            let pause = pause(1, Some(Duration::from_secs(asked)), 7);
            assert_eq!(pause.as_secs(), least, "{asked}");
        }
    }
}
