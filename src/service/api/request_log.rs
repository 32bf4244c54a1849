//! What became of operators' requests, as this replica's committed blocks say. It is kept in memory, and a start makes it
//! anew from the journal: from its base, which tells of each operator's newest request, and the blocks above.
//!
//! Invariant: a request has one outcome, the first one; its copies change nothing.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

use crate::{
    knowledge::{
        change::Change,
        fold::{Newest, Operations, OperatorRefusal},
        operator_request::Request,
        root::Operators,
    },
    types::{Digest, HeadNumber, Height, Shard},
};

/// How many outcomes are kept, the newest ones: an operator asks within minutes, and all operators together send far
/// fewer in an hour.
pub(super) const OUTCOMES_KEPT: usize = 1_024;

/// What became of a request that was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestOutcome {
    /// SHA-256 of the request's body.
    pub digest: Digest,
    /// The operator's name.
    pub operator: String,
    /// The height of the block that it stands in; `None` when this replica never saw the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<Height>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Whether a request took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// It took effect: it stands in a committed block, and the fold accepted it.
    Committed {
        /// What was asked for.
        request: Request,
        /// The first heads that tell of it, one a shard; none when it changes no head.
        heads: Vec<HeadMark>,
    },
    /// It stands in a committed block and changed nothing.
    Refused {
        /// The reason's name.
        reason: String,
        /// The reason, for people.
        why: String,
    },
    /// It was ordered before what this replica remembers of requests, whose state tells only this of it.
    OrderedBefore {
        /// Whether it took effect.
        took_effect: bool,
    },
}

impl Outcome {
    /// Whether the request took effect.
    #[must_use]
    pub const fn took_effect(&self) -> bool {
        match self {
            Self::Committed { .. } => true,
            Self::Refused { .. } => false,
            Self::OrderedBefore { took_effect } => *took_effect,
        }
    }
}

/// A head by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadMark {
    /// Its shard.
    pub shard: Shard,
    /// Its number.
    pub number: HeadNumber,
}

/// The newest outcomes by the requests' digests.
#[derive(Clone, Debug, Default)]
pub struct RequestLog {
    outcomes: BTreeMap<Digest, RequestOutcome>,
    /// Oldest first.
    order: VecDeque<Digest>,
}

impl RequestLog {
    /// What became of the request with this digest.
    #[must_use]
    pub fn outcome(&self, digest: Digest) -> Option<&RequestOutcome> {
        self.outcomes.get(&digest)
    }

    /// Takes up a committed change; whether it told of a request that was not known.
    pub fn note(&mut self, change: &Change, height: Height) -> bool {
        outcome_of(change, height).is_some_and(|outcome| self.keep(outcome))
    }

    /// Takes up a state whose blocks were not all folded here: of each operator it tells what became of the newest request.
    /// Returns whether one was not known.
    pub fn restore(&mut self, operations: &Operations, operators: &Operators) -> bool {
        let mut is_news = false;
        for (key, Newest { digest, took_effect, .. }) in operations.newest() {
            let Some(operator) = operators.by_key(key).map(|operator| operator.name.clone()) else {
                continue;
            };
            let outcome = Outcome::OrderedBefore { took_effect };
            is_news |= self.keep(RequestOutcome { digest, operator, height: None, outcome });
        }
        is_news
    }

    fn keep(&mut self, outcome: RequestOutcome) -> bool {
        if self.outcomes.contains_key(&outcome.digest) {
            return false;
        }
        if self.order.len() == OUTCOMES_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
        self.order.push_back(outcome.digest);
        self.outcomes.insert(outcome.digest, outcome);
        true
    }
}

fn outcome_of(change: &Change, height: Height) -> Option<RequestOutcome> {
    if let Change::OperatorRequestLogged { request, heads } = change {
        let heads = heads.iter().map(|(shard, number)| HeadMark { shard: *shard, number: *number });
        let outcome =
            Outcome::Committed { request: request.request().request.clone(), heads: heads.collect() };
        let operator = request.operator().name.clone();
        return Some(RequestOutcome { digest: request.digest(), operator, height: Some(height), outcome });
    }
    // Without a digest there is nobody who could ask for it, and a copy says nothing of the first.
    let Change::OperatorRequestRefused { request: Some((digest, operator)), why } = change else {
        return None;
    };
    if let OperatorRefusal::Duplicate { .. } = why {
        return None;
    }
    let outcome = Outcome::Refused { reason: why.as_str().to_owned(), why: why.to_string() };
    Some(RequestOutcome { digest: *digest, operator: operator.clone(), height: Some(height), outcome })
}

#[cfg(test)]
mod tests {
    use super::{OUTCOMES_KEPT, Outcome, RequestLog};
    use crate::{
        knowledge::{change::Change, fold::OperatorRefusal},
        types::{Digest, Height},
    };

    fn refused(number: usize, why: OperatorRefusal) -> Change {
        let digest = Digest::of(&number.to_le_bytes());
        Change::OperatorRequestRefused { request: Some((digest, "ana".to_owned())), why }
    }

    #[test]
    fn the_first_outcome_stays_and_old_ones_leave() {
        let mut log = RequestLog::default();
        let digest = |number: usize| Digest::of(&number.to_le_bytes());
        assert!(!log.note(&refused(0, OperatorRefusal::Duplicate { took_effect: false }), Height::new(1)));
        assert!(log.note(&refused(0, OperatorRefusal::LastKey), Height::new(2)));
        assert!(!log.note(&refused(0, OperatorRefusal::KeyTaken), Height::new(3)));
        let first = log.outcome(digest(0)).expect("it is kept");
        assert_eq!(first.height, Some(Height::new(2)));
        assert!(matches!(&first.outcome, Outcome::Refused { reason, .. } if reason == "last_key"));
        for number in 1..=OUTCOMES_KEPT {
            assert!(log.note(&refused(number, OperatorRefusal::LastKey), Height::new(4)));
        }
        assert!(log.outcome(digest(0)).is_none());
        assert!(log.outcome(digest(OUTCOMES_KEPT)).is_some());
    }
}
