//! Fetching blocks below a verified certificate (rules F1, F2): whom to ask, and when to ask the next.

use std::collections::BTreeSet;

use super::{
    certificate::{QuorumCertificate, Verified},
    checkpoint::StableCheckpoint,
    limits::FETCH_DEADLINE,
};
use crate::types::{Height, Millis, ReplicaIndex};

#[derive(Clone, Debug, Default)]
pub(super) struct Fetch {
    wanted: Option<Wanted>,
}

#[derive(Clone, Debug)]
struct Wanted {
    target: Verified<QuorumCertificate>,
    /// How many peers were asked, to ask the signers in turn.
    asked: usize,
    /// The last request; `None` when the next one is due.
    awaited: Option<Awaited>,
    /// Up to which height useful answers have brought blocks.
    reached: Option<Height>,
    /// Who no longer has the blocks, and the lowest checkpoint that they named instead.
    gone: BTreeSet<ReplicaIndex>,
    lowest: Option<Verified<StableCheckpoint>>,
}

/// A request. The next peer is asked at its deadline, answered or not: else peers whose answers do not help
/// would be asked again as fast as they answer.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    peer: ReplicaIndex,
    answered: bool,
    deadline: Millis,
}

impl Fetch {
    /// Wants the chain up to this certified block, when it is higher than what is wanted already.
    pub(super) fn want(&mut self, target: &Verified<QuorumCertificate>) {
        match &mut self.wanted {
            // Who was asked, and until when, stays: else a peer that never answers would be asked for ever while
            // certificates keep coming.
            Some(wanted) if wanted.target.get().view < target.get().view => wanted.target = target.clone(),
            Some(_) => {}
            None => {
                self.wanted = Some(Wanted {
                    target: target.clone(),
                    asked: 0,
                    awaited: None,
                    reached: None,
                    gone: BTreeSet::new(),
                    lowest: None,
                });
            }
        }
    }

    /// The wanted certificate.
    pub(super) fn target(&self) -> Option<&Verified<QuorumCertificate>> {
        self.wanted.as_ref().map(|wanted| &wanted.target)
    }

    pub(super) fn done(&mut self) {
        self.wanted = None;
    }

    /// Whom to ask now: a signer of the certificate, each in turn, never oneself.
    pub(super) fn next_request(
        &mut self,
        me: ReplicaIndex,
        now: Millis,
    ) -> Option<(ReplicaIndex, QuorumCertificate)> {
        let wanted = self.wanted.as_mut()?;
        if wanted.awaited.is_some_and(|awaited| awaited.deadline > now) {
            return None;
        }
        let signers: Vec<_> = wanted
            .target
            .get()
            .signatures
            .iter()
            .map(|(signer, _)| *signer)
            .filter(|signer| *signer != me)
            .collect();
        let peer = *signers.get(wanted.asked % signers.len().max(1))?;
        wanted.asked = wanted.asked.wrapping_add(1);
        wanted.awaited = Some(Awaited { peer, answered: false, deadline: now.plus(FETCH_DEADLINE) });
        Some((peer, wanted.target.get().clone()))
    }

    /// Takes an answer: whether this peer's was awaited. Only one is taken for each request.
    pub(super) fn answered(&mut self, from: ReplicaIndex) -> bool {
        let awaited = self.wanted.as_mut().and_then(|wanted| wanted.awaited.as_mut());
        let Some(awaited) = awaited.filter(|awaited| awaited.peer == from && !awaited.answered) else {
            return false;
        };
        awaited.answered = true;
        true
    }

    /// The answer brought blocks that were missing, up to this height: the next peer is asked for the next
    /// part, at once. Every peer has its turn, so that a slow one cannot set the pace.
    pub(super) fn helped(&mut self, reached: Height) {
        if let Some(wanted) = self.wanted.as_mut() {
            wanted.awaited = None;
            wanted.reached = Some(reached);
            wanted.gone.clear();
        }
    }

    /// The answer was of no use: the next request starts at the newest committed block again.
    pub(super) fn did_not_help(&mut self) {
        if let Some(wanted) = self.wanted.as_mut() {
            wanted.reached = None;
        }
    }

    /// A peer's awaited answer was that it no longer has the blocks, and this checkpoint instead. Gives the lowest of
    /// them once an honest peer is among those who said so (rule K4): it is no higher than one that an honest peer
    /// named, so that nobody makes this replica wait for a state that only he has.
    pub(super) fn gone(
        &mut self,
        from: ReplicaIndex,
        checkpoint: Verified<StableCheckpoint>,
        one_honest: usize,
    ) -> Option<Verified<StableCheckpoint>> {
        let wanted = self.wanted.as_mut()?;
        wanted.gone.insert(from);
        if wanted.lowest.as_ref().is_none_or(|known| known.get().height() > checkpoint.get().height()) {
            wanted.lowest = Some(checkpoint);
        }
        wanted.lowest.clone().filter(|_| wanted.gone.len() >= one_honest)
    }

    /// How far useful answers have come. Nothing of it may be committed yet: a block is committed by its
    /// certified child, which may not fit into the same answer.
    pub(super) fn reached(&self) -> Option<Height> {
        self.wanted.as_ref().and_then(|wanted| wanted.reached)
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        let wanted = self.wanted.as_ref()?;
        wanted.awaited.map(|awaited| awaited.deadline)
    }
}
