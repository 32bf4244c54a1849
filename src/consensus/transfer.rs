//! A state transfer: which chunks of a certified snapshot are here, and whom to ask for the next (rule K4).
//!
//! It verifies no certificate and sends nothing. Invariant: a chunk that is kept is the certified one of its place, so
//! no more is kept than the certificate's signers said there is.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    certificate::Verified,
    checkpoint::StableCheckpoint,
    limits::TRANSFER_DEADLINE,
    message::{ChunkRequest, Chunks},
    named::Named,
    snapshot::Snapshot,
};
use crate::types::{CommitteeSize, Height, Millis, ReplicaIndex};

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferProgress {
    /// The checkpoint's height.
    pub height: Height,
    /// How many chunks are here.
    pub here: u32,
    /// How many there are.
    pub chunks: u32,
    /// Who was asked last.
    pub from: Option<ReplicaIndex>,
}

#[derive(Clone, Debug)]
pub(super) struct Transfer {
    me: ReplicaIndex,
    size: CommitteeSize,
    target: Option<Target>,
}

#[derive(Clone, Debug)]
struct Target {
    checkpoint: Verified<StableCheckpoint>,
    /// Whether the own state at that height is another one: then it is wanted though the height is committed.
    replaces: bool,
    chunks: Vec<Option<Arc<[u8]>>>,
    peers: BTreeMap<ReplicaIndex, Peer>,
    /// The last request; `None` when the next one is due.
    awaited: Option<Awaited>,
    asked_last: Option<ReplicaIndex>,
    /// What was named by those who no longer hold it.
    named: Named,
}

/// A request, and when the next peer is asked.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    peer: ReplicaIndex,
    request: ChunkRequest,
    deadline: Millis,
}

/// What is known of a peer: who failed least, and among these who was asked least, is asked next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    failures: u32,
    asked: u32,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Some chunks were missing.
    Yes,
    /// Nothing was new.
    Again,
    /// Nobody asked this peer for them.
    Unsolicited,
    /// A chunk is not the certified one.
    False,
}

impl Transfer {
    pub(super) const fn new(me: ReplicaIndex, size: CommitteeSize) -> Self {
        Self { me, size, target: None }
    }

    /// Wants the state of this checkpoint, unless one is wanted already.
    pub(super) fn want(&mut self, checkpoint: Verified<StableCheckpoint>, replaces: bool) {
        if self.target.is_none() {
            self.target = Some(Target::new(checkpoint, replaces));
        }
    }

    /// Gives the target up when the replica came past it by other ways.
    pub(super) fn drop_overtaken(&mut self, committed: Height, stable: Height) {
        let overtaken = self.target.as_ref().is_some_and(|target| {
            let height = target.checkpoint.get().height();
            height <= stable || height <= committed && !target.replaces
        });
        if overtaken {
            self.target = None;
        }
    }

    pub(super) fn progress(&self) -> Option<TransferProgress> {
        let target = self.target.as_ref()?;
        let here = target.chunks.iter().flatten().count();
        Some(TransferProgress {
            height: target.checkpoint.get().height(),
            here: u32::try_from(here).unwrap_or(u32::MAX),
            chunks: target.checkpoint.get().checkpoint().state.chunks(),
            from: target.asked_last,
        })
    }

    /// Whom to ask now for what.
    pub(super) fn next_request(&mut self, now: Millis) -> Option<(ReplicaIndex, ChunkRequest)> {
        let (me, size) = (self.me, self.size);
        let target = self.target.as_mut()?;
        match target.awaited {
            Some(awaited) if awaited.deadline > now => return None,
            // It did not answer in time.
            Some(awaited) => target.peers.entry(awaited.peer).or_default().failures += 1,
            None => {}
        }
        let first = target.chunks.iter().position(Option::is_none)?;
        let others =
            (0..size.replicas()).filter_map(|place| u16::try_from(place).ok()).map(ReplicaIndex::new);
        let known = |peer: &ReplicaIndex| target.peers.get(peer).copied().unwrap_or_default();
        let peer = others.filter(|peer| *peer != me).min_by_key(|peer| (known(peer), *peer))?;
        target.peers.entry(peer).or_default().asked += 1;
        target.asked_last = Some(peer);
        let checkpoint = target.checkpoint.get().checkpoint();
        let first = u32::try_from(first).ok()?;
        let request = ChunkRequest { height: checkpoint.height, root: checkpoint.state.root(), first };
        target.awaited = Some(Awaited { peer, request, deadline: now.plus(TRANSFER_DEADLINE) });
        Some((peer, request))
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        self.target.as_ref()?.awaited.map(|awaited| awaited.deadline)
    }

    /// Takes an answer. Only one that brings a missing chunk is followed by the next request before the deadline.
    pub(super) fn take(&mut self, from: ReplicaIndex, answer: Chunks) -> Taken {
        let Some(target) = self.target.as_mut() else { return Taken::Unsolicited };
        let checkpoint = *target.checkpoint.get().checkpoint();
        if (answer.height, answer.root) != (checkpoint.height, checkpoint.state.root())
            || !target.peers.contains_key(&from)
        {
            return Taken::Unsolicited;
        }
        let mut taken = Taken::Again;
        for (offset, chunk) in (0..).zip(answer.chunks) {
            let Some(place) = answer.first.checked_add(offset) else { break };
            let slot = usize::try_from(place).ok().and_then(|place| target.chunks.get_mut(place));
            let Some(slot) = slot.filter(|slot| slot.is_none()) else { continue };
            if !chunk.is_chunk_of(&checkpoint.state, place) {
                target.peers.entry(from).or_default().failures += 1;
                return Taken::False;
            }
            *slot = Some(chunk.bytes);
            taken = Taken::Yes;
        }
        if taken == Taken::Yes {
            target.awaited = None;
            target.named.helped(from);
        }
        taken
    }

    /// Whether this is what was asked for last, of this peer.
    pub(super) fn awaits(&self, from: ReplicaIndex, request: &ChunkRequest) -> bool {
        let awaited = self.target.as_ref().and_then(|target| target.awaited);
        awaited.is_some_and(|awaited| awaited.peer == from && awaited.request == *request)
    }

    /// A peer that was asked no longer holds the snapshot and names a newer checkpoint. Once an honest one is among those
    /// who do, a newer one is wanted instead, and what was named stays: it may turn out that that one is gone as well.
    pub(super) fn gone(&mut self, from: ReplicaIndex, newer: &Verified<StableCheckpoint>) {
        let Some(target) = self.target.as_mut() else { return };
        target.named.name(from, newer.clone());
        let height = target.checkpoint.get().height();
        if let Some(newer) = target.named.sure(height, self.size.one_honest()).cloned() {
            let named = std::mem::take(&mut target.named);
            *target = Target { named, ..Target::new(newer, target.replaces) };
        }
    }

    /// The whole snapshot, once all of it is here. Nothing is wanted any more then.
    pub(super) fn finished(&mut self) -> Option<(Verified<StableCheckpoint>, Snapshot)> {
        let target = self.target.as_ref()?;
        let chunks: Vec<_> = target.chunks.iter().flatten().cloned().collect();
        if chunks.len() < target.chunks.len() {
            return None;
        }
        let checkpoint = self.target.take()?.checkpoint;
        let snapshot = Snapshot::of_chunks(chunks).ok()?;
        // Every chunk is proven; only a quorum that signed another number of bytes could differ.
        (snapshot.id() == checkpoint.get().checkpoint().state).then_some((checkpoint, snapshot))
    }
}

impl Target {
    fn new(checkpoint: Verified<StableCheckpoint>, replaces: bool) -> Self {
        let chunks = checkpoint.get().checkpoint().state.chunks();
        Self {
            checkpoint,
            replaces,
            chunks: (0..chunks).map(|_| None).collect(),
            peers: BTreeMap::new(),
            awaited: None,
            asked_last: None,
            named: Named::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Taken, Transfer};
    use crate::{
        consensus::{
            Checkpoint, CheckpointCertificate, ChunkRequest, Chunks, ProvenChunk, QuorumCertificate,
            Snapshot, StableCheckpoint, Verified, limits::TRANSFER_DEADLINE,
        },
        types::{CommitteeSize, Digest, Height, InclusionProof, Millis, ReplicaIndex, View, leaf_hash},
    };

    const ME: ReplicaIndex = ReplicaIndex::new(0);

    fn snapshot() -> Snapshot {
        Snapshot::cut(&(0..250).collect::<Vec<u8>>(), 40).expect("small")
    }

    fn checkpoint(height: u64) -> Verified<StableCheckpoint> {
        let (height, view, block) = (Height::new(height), View::new(height), Digest::of(b"block"));
        let checkpoint = Checkpoint { height, view, block, state: snapshot().id() };
        Verified::vouch(StableCheckpoint {
            certificate: CheckpointCertificate { checkpoint, signatures: Vec::new() },
            qc: QuorumCertificate { view, height, block, signatures: Vec::new() },
        })
    }

    fn transfer() -> Transfer {
        let mut transfer = Transfer::new(ME, CommitteeSize::new(4).expect("a committee"));
        transfer.want(checkpoint(8), false);
        transfer
    }

    /// The honest answer with so many chunks.
    fn honest(request: &ChunkRequest, chunks: usize) -> Chunks {
        let snapshot = snapshot();
        let leaves: Vec<_> = snapshot.chunks().iter().map(|chunk| leaf_hash(chunk)).collect();
        let first = usize::try_from(request.first).expect("small");
        let chunks = (first..snapshot.chunks().len()).take(chunks).map(|place| ProvenChunk {
            bytes: std::sync::Arc::clone(&snapshot.chunks()[place]),
            proof: InclusionProof::of(&leaves, place).expect("inside"),
        });
        Chunks { height: request.height, root: request.root, first: request.first, chunks: chunks.collect() }
    }

    fn false_answer(request: &ChunkRequest) -> Chunks {
        let mut answer = honest(request, 2);
        answer.chunks.swap(0, 1);
        answer
    }

    #[test]
    fn all_chunks_come_from_peers_in_turn_and_make_the_certified_snapshot() {
        let mut transfer = transfer();
        let mut asked = Vec::new();
        while transfer.progress().is_some_and(|progress| progress.here < progress.chunks) {
            let (peer, request) = transfer.next_request(Millis::ZERO).expect("a chunk is missing");
            assert!(transfer.next_request(Millis::ZERO).is_none(), "one request at a time");
            assert_eq!(transfer.take(peer, honest(&request, 2)), Taken::Yes);
            asked.push(peer.place());
        }
        assert_eq!(asked, [1, 2, 3, 1]);
        let (of, whole) = transfer.finished().expect("all of it is here");
        assert_eq!((of, whole), (checkpoint(8), snapshot()));
        assert!(transfer.progress().is_none() && transfer.next_request(Millis::ZERO).is_none());
    }

    #[test]
    fn who_sends_a_false_chunk_or_none_in_time_is_asked_last_and_the_transfer_goes_on() {
        let mut transfer = transfer();
        let mut now = Millis::ZERO;
        let (mut asked, mut honest_answers) = (Vec::new(), 0);
        while transfer.finished().is_none() {
            assert!(asked.len() < 20, "{asked:?}");
            let Some((peer, request)) = transfer.next_request(now) else {
                now = transfer.deadline().expect("an answer is awaited");
                continue;
            };
            asked.push(peer.place());
            match peer.place() {
                1 => assert_eq!(transfer.take(peer, false_answer(&request)), Taken::False),
                2 => {}
                _ => {
                    honest_answers += 1;
                    assert_eq!(transfer.take(peer, honest(&request, 1)), Taken::Yes);
                }
            }
        }
        assert_eq!(honest_answers, snapshot().chunks().len());
        assert!(asked.iter().filter(|peer| **peer == 1).count() <= 2, "{asked:?}");
        assert!(asked.iter().filter(|peer| **peer == 2).count() <= 2, "{asked:?}");
        assert!(now <= Millis::new(4 * TRANSFER_DEADLINE.as_millis()));
    }

    #[test]
    fn answers_that_nobody_asked_for_or_of_another_snapshot_change_nothing() {
        let mut transfer = transfer();
        let (peer, request) = transfer.next_request(Millis::ZERO).expect("a chunk is missing");
        let stranger = ReplicaIndex::new(3);
        assert_ne!(peer, stranger);
        assert_eq!(transfer.take(stranger, honest(&request, 1)), Taken::Unsolicited);
        for other in [
            ChunkRequest { height: Height::new(9), ..request },
            ChunkRequest { root: Digest::ZERO, ..request },
        ] {
            assert_eq!(transfer.take(peer, honest(&other, 1)), Taken::Unsolicited);
        }
        let beyond = ChunkRequest { first: u32::MAX, ..request };
        let beyond = Chunks { first: u32::MAX, ..honest(&ChunkRequest { first: 0, ..beyond }, 2) };
        assert_eq!(transfer.take(peer, beyond), Taken::Again);
        assert_eq!(transfer.progress().expect("a target").here, 0);
        assert_eq!(transfer.take(peer, honest(&request, 3)), Taken::Yes);
        assert_eq!(transfer.take(peer, honest(&request, 3)), Taken::Again, "a late copy");
        assert_eq!(transfer.progress().expect("a target").here, 3);
    }

    #[test]
    fn one_peer_alone_does_not_change_the_target_and_a_newer_one_takes_its_place_when_an_honest_peer_says_so()
    {
        let mut transfer = transfer();
        let target = |transfer: &Transfer| transfer.progress().expect("a target").height.number();
        transfer.gone(ReplicaIndex::new(1), &checkpoint(4));
        transfer.gone(ReplicaIndex::new(1), &checkpoint(12));
        transfer.gone(ReplicaIndex::new(1), &checkpoint(16));
        assert_eq!(target(&transfer), 8);
        transfer.gone(ReplicaIndex::new(2), &checkpoint(12));
        assert_eq!(target(&transfer), 12, "the lowest: no higher than what an honest peer holds");
        transfer.want(checkpoint(20), false);
        assert_eq!(target(&transfer), 12, "one at a time");
    }

    #[test]
    fn what_was_named_before_counts_for_the_next_target_until_its_peer_gives_a_chunk() {
        let mut transfer = transfer();
        let target = |transfer: &Transfer| transfer.progress().expect("a target").height.number();
        transfer.gone(ReplicaIndex::new(1), &checkpoint(24));
        transfer.gone(ReplicaIndex::new(2), &checkpoint(12));
        assert_eq!(target(&transfer), 12);
        // Nobody but its liar has that one any more.
        transfer.gone(ReplicaIndex::new(3), &checkpoint(20));
        assert_eq!(target(&transfer), 20, "what replica 1 said stands");
        let (peer, request) = transfer.next_request(Millis::ZERO).expect("a chunk is missing");
        assert_eq!((peer, transfer.awaits(peer, &request)), (ReplicaIndex::new(1), true));
        assert!(!transfer.awaits(peer, &ChunkRequest { first: 1, ..request }));
        assert!(!transfer.awaits(ReplicaIndex::new(2), &request));
        assert_eq!(transfer.take(peer, honest(&request, 1)), Taken::Yes);
        transfer.gone(ReplicaIndex::new(2), &checkpoint(28));
        assert_eq!(target(&transfer), 20, "replica 1 has it after all");
    }

    #[test]
    fn who_came_past_the_target_gives_it_up_unless_its_own_state_there_is_wrong() {
        let overtaken = |replaces, committed, stable| {
            let mut transfer = Transfer::new(ME, CommitteeSize::new(4).expect("a committee"));
            transfer.want(checkpoint(8), replaces);
            transfer.drop_overtaken(Height::new(committed), Height::new(stable));
            transfer.progress().is_none()
        };
        assert!(!overtaken(false, 7, 4));
        assert!(overtaken(false, 8, 4));
        assert!(!overtaken(true, 9, 4));
        assert!(overtaken(true, 14, 12), "a later checkpoint is sound again");
    }
}
