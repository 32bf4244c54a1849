//! Fetching blocks below a verified certificate (rules F1, F2): whom to ask, and when to ask the next.

use super::{
    certificate::{QuorumCertificate, Verified},
    checkpoint::StableCheckpoint,
    limits::FETCH_DEADLINE,
    message::BlockRequest,
    named::Named,
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
    /// What was named by those who no longer have the blocks.
    named: Named,
}

/// A request. The next peer is asked at its deadline, answered or not: else peers whose answers do not help
/// would be asked again as fast as they answer.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    peer: ReplicaIndex,
    request: BlockRequest,
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
                    named: Named::default(),
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

    /// Whom to ask now for the blocks above what is committed: a signer of the certificate, each in turn, never oneself.
    pub(super) fn next_request(
        &mut self,
        me: ReplicaIndex,
        committed: Height,
        now: Millis,
    ) -> Option<(ReplicaIndex, BlockRequest)> {
        let wanted = self.wanted.as_mut()?;
        if wanted.awaited.is_some_and(|awaited| awaited.deadline > now) {
            return None;
        }
        let target = wanted.target.get();
        let signers: Vec<_> =
            target.signatures.iter().map(|(signer, _)| *signer).filter(|signer| *signer != me).collect();
        let peer = *signers.get(wanted.asked % signers.len().max(1))?;
        wanted.asked = wanted.asked.wrapping_add(1);
        // Nothing of what useful answers brought may be committed yet: a block is committed by its certified child,
        // which may not fit into the same answer.
        let above = wanted.reached.unwrap_or_default().max(committed);
        let request = BlockRequest { target: target.block, target_height: target.height, above };
        wanted.awaited = Some(Awaited { peer, request, answered: false, deadline: now.plus(FETCH_DEADLINE) });
        Some((peer, request))
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

    /// Whether this is what the peer was asked for, and its answer is still awaited.
    pub(super) fn awaits(&self, from: ReplicaIndex, request: &BlockRequest) -> bool {
        let awaited = self.wanted.as_ref().and_then(|wanted| wanted.awaited.as_ref());
        awaited
            .is_some_and(|awaited| awaited.peer == from && !awaited.answered && awaited.request == *request)
    }

    /// A peer's answer brought blocks that were missing, up to this height: the next peer is asked for the next
    /// part, at once. Every peer has its turn, so that a slow one cannot set the pace.
    pub(super) fn helped(&mut self, from: ReplicaIndex, reached: Height) {
        if let Some(wanted) = self.wanted.as_mut() {
            wanted.awaited = None;
            wanted.reached = Some(reached);
            wanted.named.helped(from);
        }
    }

    /// The answer was of no use: the next request starts at the newest committed block again.
    pub(super) fn did_not_help(&mut self) {
        if let Some(wanted) = self.wanted.as_mut() {
            wanted.reached = None;
        }
    }

    /// A peer's awaited answer was that it no longer has the blocks, and this checkpoint instead. Gives where to begin once
    /// an honest peer is among those who said so (rule K4).
    pub(super) fn gone(
        &mut self,
        from: ReplicaIndex,
        checkpoint: Verified<StableCheckpoint>,
        committed: Height,
        one_honest: usize,
    ) -> Option<Verified<StableCheckpoint>> {
        let named = &mut self.wanted.as_mut()?.named;
        named.name(from, checkpoint);
        named.sure(committed, one_honest).cloned()
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        let wanted = self.wanted.as_ref()?;
        wanted.awaited.map(|awaited| awaited.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::Fetch;
    use crate::{
        consensus::{
            Checkpoint, CheckpointCertificate, QuorumCertificate, Snapshot, StableCheckpoint, Verified,
            limits::FETCH_DEADLINE,
        },
        types::{Digest, Height, Millis, ReplicaIndex, SecretKey, View},
    };

    const ME: ReplicaIndex = ReplicaIndex::new(6);

    /// f + 1 of seven.
    const ONE_HONEST: usize = 3;

    fn qc(height: u64) -> QuorumCertificate {
        let signature = SecretKey::from_seed(&[1; 32]).sign(b"any");
        let signatures = (0..5).map(|place| (ReplicaIndex::new(place), signature)).collect();
        let (height, view) = (Height::new(height), View::new(height));
        QuorumCertificate { view, height, block: Digest::of(b"block"), signatures }
    }

    fn checkpoint(height: u64) -> Verified<StableCheckpoint> {
        let QuorumCertificate { view, height, block, .. } = qc(height);
        let state = Snapshot::of(b"state").expect("small").id();
        let checkpoint = Checkpoint { height, view, block, state };
        let certificate = CheckpointCertificate { checkpoint, signatures: Vec::new() };
        Verified::vouch(StableCheckpoint { certificate, qc: qc(height.number()) })
    }

    /// What a fetch far below a certificate begins at when the peers answer in turn as they are asked: with a checkpoint
    /// at the height that is given for a peer, or with the next block.
    fn begins_at(names: [Option<u64>; 5], asked: usize) -> Option<u64> {
        let mut fetch = Fetch::default();
        fetch.want(&Verified::vouch(qc(1_000)));
        let (mut now, mut committed) = (Millis::ZERO, Height::ZERO);
        for _ in 0..asked {
            let (peer, request) = fetch.next_request(ME, committed, now).expect("a request is due");
            assert!(fetch.awaits(peer, &request));
            assert!(fetch.answered(peer) && !fetch.awaits(peer, &request), "one answer each");
            match names[peer.as_usize()] {
                Some(height) => {
                    let target = fetch.gone(peer, checkpoint(height), committed, ONE_HONEST);
                    if let Some(target) = target {
                        return Some(target.get().height().number());
                    }
                    now = now.plus(FETCH_DEADLINE);
                }
                None => {
                    committed = committed.next();
                    fetch.helped(peer, committed);
                }
            }
        }
        None
    }

    #[test]
    fn f_peers_that_give_a_block_each_time_unsay_nothing_that_honest_ones_said() {
        // Between any two honest answers but two there is a block, for ever.
        assert_eq!(begins_at([Some(512), None, Some(512), None, Some(512)], 5), Some(512));
        assert_eq!(begins_at([None, Some(512), None, Some(512), Some(512)], 5), Some(512));
        assert_eq!(
            begins_at([Some(512), None, Some(512), None, None], 500),
            None,
            "f alone are not believed"
        );
    }

    #[test]
    fn a_peer_that_gives_blocks_again_takes_back_what_it_said() {
        let mut fetch = Fetch::default();
        fetch.want(&Verified::vouch(qc(1_000)));
        let mut gone = |place, helped: &[u16]| {
            for by in helped {
                fetch.helped(ReplicaIndex::new(*by), Height::new(1));
            }
            fetch.gone(ReplicaIndex::new(place), checkpoint(512), Height::ZERO, ONE_HONEST).is_some()
        };
        assert!(!gone(0, &[]) && !gone(1, &[]));
        assert!(!gone(2, &[1]), "two of three");
        assert!(gone(1, &[]));
    }

    #[test]
    fn the_place_to_begin_is_no_higher_than_what_an_honest_peer_named_and_above_what_is_committed() {
        assert_eq!(begins_at([Some(768), Some(256), Some(512), None, None], 5), Some(256));
        assert_eq!(begins_at([Some(768), Some(256), None, None, Some(512)], 5), Some(256));
        // What is at the committed height or below it helps nobody.
        assert_eq!(begins_at([Some(768), Some(1), None, None, Some(512)], 5), None);
    }
}
