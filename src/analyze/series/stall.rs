//! Stall: work waits and nothing is completed. It tells a stalled queue from an idle one: without a backlog
//! silence means nothing. Invariant: silence is counted only while work waits.
//!
//! - **S1** A value is the number of completions so far; one that is another than before is a completion (a smaller
//!   one, of a counter that began anew, too).
//! - **S2** The usual span between completions is the longest of those seen, fading by a hundredth with each
//!   completion. Spans without a backlog are not learned from.
//! - **S3** The strength is the span since the last completion, or since work began to wait, in units of [`TIMES`] times
//!   the usual one. `since` is that time.
//! - **S4** The first [`WARM_UP`] completions are only learned from.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{Explanation, Sample, Seen, Verdict, seconds};
use crate::types::{Quantity, UnixMillis};

/// How many usual spans of silence are just a finding.
const TIMES: f64 = 3.0;
/// What is left of the usual span with each completion.
const FADES: f64 = 0.99;
/// How many completions are only learned from.
const WARM_UP: u64 = 20;

/// Whether work waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// It does.
    Waiting,
    /// There is none.
    Empty,
}

/// The detector with its running state.
#[derive(Clone, Debug, Default, PartialEq, BorshSerialize, BorshDeserialize)]
pub struct Stall {
    completed: Option<Quantity>,
    completions: u64,
    /// Since when work waits for its next completion.
    waits_since: Option<UnixMillis>,
    usual_s: f64,
}

impl Stall {
    /// The detector before the first sample.
    #[must_use]
    pub const fn new() -> Self {
        Self { completed: None, completions: 0, waits_since: None, usual_s: 0.0 }
    }

    /// Looks at the next sample of the completions, and at whether work waits.
    pub fn look(&mut self, sample: Sample, backlog: Backlog) -> Verdict {
        let before = self.completed.replace(sample.value);
        let waited = self.waits_since;
        match backlog {
            Backlog::Empty => {
                self.waits_since = None;
                return Verdict::QUIET;
            }
            Backlog::Waiting => self.waits_since = waited.or(Some(sample.at)),
        }
        let since = waited.unwrap_or(sample.at);
        let silent = seconds(sample.at.since(since));
        // S1.
        if before.is_some_and(|before| before != sample.value) {
            self.completions = self.completions.saturating_add(1);
            self.waits_since = Some(sample.at);
            // S2.
            if waited.is_some() {
                self.usual_s = (self.usual_s * FADES).max(silent);
            }
            return Verdict::QUIET;
        }
        // S4.
        if self.completions < WARM_UP || self.usual_s <= 0.0 {
            return Verdict::QUIET;
        }
        // S3.
        let seen = Seen::Stalled { silent, usual: self.usual_s };
        Verdict::new(silent / (TIMES * self.usual_s), Explanation { seen, since })
    }
}
