//! Votes on their way to a quorum certificate: one per voter, for the current and the next view only.
//!
//! Invariant: a certificate is made of signatures over one statement, so a vote that names another height for
//! the same block spoils none.

use std::collections::BTreeMap;

use super::{
    block::BlockId,
    certificate::{QuorumCertificate, Verified},
    message::Vote,
};
use crate::types::{CommitteeSize, Height, ReplicaIndex, View};

#[derive(Clone, Debug)]
pub(super) struct Votes {
    size: CommitteeSize,
    by_view: BTreeMap<View, BTreeMap<ReplicaIndex, Verified<Vote>>>,
}

/// What became of a vote.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// It was counted.
    Yes,
    /// The voter's vote for this view was counted before.
    Again,
    /// The voter voted for another block, or another height, in this view.
    Contradiction,
}

impl Votes {
    pub(super) const fn new(size: CommitteeSize) -> Self {
        Self { size, by_view: BTreeMap::new() }
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.by_view.values().map(BTreeMap::len).sum()
    }

    /// Forgets the votes of views before this one.
    pub(super) fn enter(&mut self, view: View) {
        self.by_view.retain(|of, _| *of >= view);
    }

    /// Counts a vote. The caller lets only votes of the current and the next view in.
    pub(super) fn count(&mut self, vote: Verified<Vote>) -> Counted {
        let votes = self.by_view.entry(vote.get().view).or_default();
        match votes.get(&vote.get().voter) {
            Some(known) if statement_of(known.get()) == statement_of(vote.get()) => Counted::Again,
            Some(_) => Counted::Contradiction,
            None => {
                votes.insert(vote.get().voter, vote);
                Counted::Yes
            }
        }
    }

    /// Whether this voter's vote for the view is counted already, so that its copy need not be verified.
    pub(super) fn has(&self, vote: &Vote) -> bool {
        self.by_view
            .get(&vote.view)
            .and_then(|votes| votes.get(&vote.voter))
            .is_some_and(|known| known.get() == vote)
    }

    /// The QC of a view once a quorum voted for one block in it (rule V3).
    pub(super) fn certificate(&self, view: View) -> Option<Verified<QuorumCertificate>> {
        let votes = self.by_view.get(&view)?;
        let mut by_statement: BTreeMap<(BlockId, Height), Vec<&Vote>> = BTreeMap::new();
        for vote in votes.values() {
            by_statement.entry(statement_of(vote.get())).or_default().push(vote.get());
        }
        let quorum = self.size.quorum();
        let winners = by_statement.into_values().find(|votes| votes.len() >= quorum)?;
        let first = winners.first()?;
        Some(Verified::vouch(QuorumCertificate {
            view,
            height: first.height,
            block: first.block,
            signatures: winners.iter().take(quorum).map(|vote| (vote.voter, vote.signature)).collect(),
        }))
    }
}

/// What a vote says about its view.
const fn statement_of(vote: &Vote) -> (BlockId, Height) {
    (vote.block, vote.height)
}
