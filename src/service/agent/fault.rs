//! What is wrong with a replica's answers, by kind, and how often each replica was found so.
//!
//! It judges no document: the rules do. Invariant: what a replica said reaches nobody's terminal or log longer
//! than [`QUOTED_CHARS`] or with control characters in it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::service::http_client::HttpError;

/// As much of a replica's own words as a person reads.
const QUOTED_CHARS: usize = 200;

/// The kinds of faults, from silence to signed contradiction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It cannot be reached, is not trusted, broke the connection off, or does not speak HTTP.
    Unreachable,
    /// The whole answer was not there in time.
    Slow,
    /// The answer is larger than any honest one.
    TooLarge,
    /// It answers with another status than asked for; redirects are not followed.
    Status,
    /// The body is not the JSON that was asked for.
    Malformed,
    /// A document does not verify.
    Uncertified,
    /// A document verifies and is about something else: another shard, target or plan.
    Foreign,
    /// The head is older than what was seen before. Replicas that lag do this too.
    OldHead,
    /// It does not have the plan that the head names. Replicas that lag do this too.
    NoPlan,
    /// A certified document contradicts another one.
    Contradiction,
}

impl FaultKind {
    /// Whether no honest replica does this, however late or overloaded: it is told in receipts.
    #[must_use]
    pub const fn is_sign_of_attack(self) -> bool {
        match self {
            Self::Uncertified | Self::Foreign | Self::Contradiction => true,
            Self::Unreachable
            | Self::Slow
            | Self::TooLarge
            | Self::Status
            | Self::Malformed
            | Self::OldHead
            | Self::NoPlan => false,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "no answer",
            Self::Slow => "too slow",
            Self::TooLarge => "too large an answer",
            Self::Status => "wrong status",
            Self::Malformed => "malformed answer",
            Self::Uncertified => "document that does not verify",
            Self::Foreign => "document about something else",
            Self::OldHead => "old head",
            Self::NoPlan => "no plan",
            Self::Contradiction => "contradiction",
        })
    }
}

/// One fault with its explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) why: String,
}

impl Fault {
    pub(super) fn new(kind: FaultKind, why: impl fmt::Display) -> Self {
        Self { kind, why: quoted(&why.to_string()) }
    }

    pub(super) fn of_http(error: &HttpError) -> Self {
        let kind = match error {
            HttpError::Address(_)
            | HttpError::TokenInClear(_)
            | HttpError::Untrusted { .. }
            | HttpError::MediaType(_)
            | HttpError::Unreachable { .. } => FaultKind::Unreachable,
            HttpError::Timeout { .. } => FaultKind::Slow,
            HttpError::TooLarge { .. } => FaultKind::TooLarge,
        };
        Self::new(kind, error)
    }
}

/// How often each replica showed each kind of fault, in this run. It has one number a replica and kind.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<(Arc<str>, FaultKind), u64>);

impl Tally {
    /// Counts one. Returns the count when it is to be told: at 1, 2, 4, 8 and so on, so that a replica that
    /// lies with every answer fills no log and its count is known within a factor of two.
    pub(super) fn count(&mut self, replica: &Arc<str>, kind: FaultKind) -> Option<u64> {
        let count = self.0.entry((Arc::clone(replica), kind)).or_default();
        *count = count.saturating_add(1);
        Some(*count).filter(|count| count.is_power_of_two())
    }
}

/// A stranger's words, cut and without control characters.
fn quoted(words: &str) -> String {
    let plain = |char: char| if char.is_control() { ' ' } else { char };
    let mut quoted: String = words.chars().take(QUOTED_CHARS).map(plain).collect();
    if words.chars().nth(QUOTED_CHARS).is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::{Fault, FaultKind, QUOTED_CHARS, Tally};
    use std::sync::Arc;

    #[test]
    fn a_count_is_told_at_powers_of_two_for_each_replica_and_kind() {
        let (mut tally, a, b) = (Tally::default(), Arc::from("a"), Arc::from("b"));
        let told: Vec<u64> = (0..10).filter_map(|_| tally.count(&a, FaultKind::Slow)).collect();
        assert_eq!(told, [1, 2, 4, 8]);
        assert_eq!(tally.count(&a, FaultKind::Status), Some(1));
        assert_eq!(tally.count(&b, FaultKind::Slow), Some(1));
    }

    #[test]
    fn a_strangers_words_are_cut_and_move_no_cursor() {
        let fault = Fault::new(FaultKind::Malformed, format!("\u{1b}[2J\n{}", "x".repeat(10_000)));
        assert!(fault.why.starts_with(" [2J xxx"), "{}", fault.why);
        assert_eq!(fault.why.chars().count(), QUOTED_CHARS + 1);
        assert_eq!(Fault::new(FaultKind::Malformed, "short").why, "short");
    }
}
