//! Counts of the documents that were refused, at the API or after they were ordered, for metrics and status.
//!
//! Invariant: kinds, stages and reasons are words of this program, so the counts are bounded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What kind of document was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DocumentKind {
    /// An agent's receipt.
    Receipt,
    /// An operator's request.
    OperatorRequest,
}

impl DocumentKind {
    /// Its name as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::OperatorRequest => "operator_request",
        }
    }
}

/// Who refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The API: it was not queued.
    Api,
    /// The fold: it was ordered and changed nothing.
    Fold,
}

impl Stage {
    /// Its name as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Fold => "fold",
        }
    }
}

type Counts = BTreeMap<(DocumentKind, Stage, &'static str), u64>;

/// The counts. Copies share them.
#[derive(Clone, Debug, Default)]
pub struct RefusedDocuments(Arc<Mutex<Counts>>);

impl RefusedDocuments {
    /// Counts one.
    pub fn count(&self, kind: DocumentKind, stage: Stage, reason: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((kind, stage, reason)).or_default();
        *count = count.saturating_add(1);
    }

    /// All counts so far, in the order of kinds, stages and reasons.
    #[must_use]
    pub fn counts(&self) -> Vec<(DocumentKind, Stage, &'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|((kind, stage, reason), count)| (*kind, *stage, *reason, *count)).collect()
    }
}
