//! A control cycle as bytes, and back: everything that equal logs make equal, and nothing of this replica's own.
//!
//! It is what a quorum signs by its digest at a checkpoint, and what a replica that is far behind goes on from.
//! Invariant: a cycle that was restored does with every later command what the one does that gave the bytes.

use super::{Cycle, Submission};
use crate::{
    analyze::Analyzer,
    consensus::{Snapshot, certify::Subject},
    knowledge::fold::{RestoreError, State},
    types::{Cycle as CycleNumber, Digest, TargetId},
};

impl Cycle {
    /// The replicated state and the running state of analysis, as canonical bytes.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        borsh::to_vec(&(&self.state, &self.analyzer)).expect("writing to memory does not fail")
    }

    /// The root of the snapshot: what a checkpoint certifies of it, and equal where equal logs were folded.
    #[must_use]
    pub fn root(&self) -> Digest {
        let bytes = self.snapshot();
        let snapshot = Snapshot::of(&bytes);
        snapshot.map_or_else(|_| Digest::of(&bytes), |snapshot| snapshot.id().root())
    }

    /// Goes on from another replica's [`Self::snapshot`], which a quorum has signed, as if this one had folded the
    /// blocks up to there. What this replica itself signed stays known; what was derived meanwhile is not.
    ///
    /// # Errors
    /// [`RestoreError`] when the bytes are no snapshot of this cluster's state; nothing changes then.
    pub fn install(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let mut rest = snapshot;
        let genesis = self.state.genesis();
        let (committee, operators) = (self.state.committee(), self.state.operators());
        let state = State::restore(&mut rest, genesis.clone(), committee.clone(), operators.clone())?;
        let analyzer: Analyzer =
            borsh::from_slice(rest).map_err(|error| RestoreError::Malformed(error.to_string()))?;
        if !analyzer.fits(genesis) {
            return Err(RestoreError::Unsound("its analysis is not by the genesis' policies"));
        }
        (self.state, self.analyzer) = (state, analyzer);
        self.collector.begin_after(self.state.cycle().number());
        let state = &self.state;
        self.submissions.retain(|subject, _: &mut Submission| !is_superseded(state, subject));
        Ok(())
    }
}

/// Whether a plan of this subject, or a newer one of its target, is logged.
fn is_superseded(state: &State, subject: &Subject) -> bool {
    let target = TargetId::new(&subject.of).ok();
    let newest = target.and_then(|target| state.newest_seq(&target));
    newest.is_some_and(|newest| newest >= CycleNumber::new(subject.number))
}
