//! Fetching blocks below a verified certificate (rules F1, F2): whom to ask, and when to ask the next.

use super::{
    certificate::{QuorumCertificate, Verified},
    limits::FETCH_DEADLINE,
};
use crate::types::{Millis, ReplicaIndex};

#[derive(Debug, Default)]
pub(super) struct Fetch {
    wanted: Option<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    target: Verified<QuorumCertificate>,
    /// How many peers were asked, to ask the signers in turn.
    asked: usize,
    /// Whose answer is awaited, and until when; `None` when a request is due.
    awaited: Option<(ReplicaIndex, Millis)>,
}

impl Fetch {
    /// Wants the chain up to this certified block, when it is higher than what is wanted already.
    pub(super) fn want(&mut self, target: &Verified<QuorumCertificate>) {
        let higher =
            self.wanted.as_ref().is_none_or(|wanted| wanted.target.get().height < target.get().height);
        if higher {
            let awaited = self.wanted.as_ref().and_then(|wanted| wanted.awaited);
            self.wanted = Some(Wanted { target: target.clone(), asked: 0, awaited });
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
        if wanted.awaited.is_some_and(|(_, deadline)| deadline > now) {
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
        wanted.awaited = Some((peer, now.plus(FETCH_DEADLINE)));
        Some((peer, wanted.target.get().clone()))
    }

    /// Takes an answer: whether this peer's was awaited.
    pub(super) fn answered(&mut self, from: ReplicaIndex) -> bool {
        let Some(wanted) = self.wanted.as_mut() else { return false };
        let awaited = wanted.awaited.is_some_and(|(peer, _)| peer == from);
        if awaited {
            wanted.awaited = None;
        }
        awaited
    }

    /// The answer helped: the same peer is asked for the next part.
    pub(super) fn helped(&mut self) {
        if let Some(wanted) = self.wanted.as_mut() {
            wanted.asked = wanted.asked.saturating_sub(1);
        }
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        let wanted = self.wanted.as_ref()?;
        wanted.awaited.map(|(_, deadline)| deadline)
    }
}
