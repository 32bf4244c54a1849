//! Rule K4: a replica that is too far behind for blocks, or whose state is wrong, begins at a certified checkpoint.

use super::{Cluster, command};
use crate::consensus::{
    Asked, BlockRequest, ChunkRequest, Gone, Input, Message, Record, Rejected, Snapshot, StableCheckpoint,
    limits::COMMITTED_BLOCKS_IN_MEMORY,
};
use crate::types::{Height, Millis, ReplicaIndex};

const LATE: u16 = 3;

fn snapshot() -> Snapshot {
    Snapshot::cut(b"the state of all who were there", 5).expect("small")
}

/// Four replicas, the last of which was never heard of. The others have a stable checkpoint, and none has the
/// blocks below it in memory.
fn cluster_without_the_last() -> (Cluster, Height) {
    let mut cluster = Cluster::new(4);
    cluster.cut = vec![LATE];
    let mut number = 0;
    while cluster.cores[0].committed_height().number() <= 2 * COMMITTED_BLOCKS_IN_MEMORY as u64 {
        commit(&mut cluster, number);
        number += 1;
    }
    let newest = cluster.cores[..3].iter().map(|core| core.committed_height().number()).min().expect("three");
    let height = Height::new(newest / 2 * 2);
    for place in 0..3 {
        let state = Input::StateAt { height, snapshot: snapshot().id(), installed: Height::ZERO };
        cluster.give(place, state).expect("no bad input");
    }
    cluster.settle();
    cluster.served = Some(snapshot());
    (cluster, height)
}

/// An application names its state that has taken in whatever was installed.
fn named(cluster: &Cluster, place: u16, height: Height, snapshot: &Snapshot) -> Input {
    let installed = cluster.cores[usize::from(place)].installed();
    Input::StateAt { height, snapshot: snapshot.id(), installed }
}

fn commit(cluster: &mut Cluster, number: u64) {
    cluster.give(0, Input::Submit(command(&format!("command {number}")))).expect("room");
    cluster.settle();
    while cluster.cores[0].is_awake() {
        cluster.run_timers();
    }
}

fn connect_and_wait(cluster: &mut Cluster) {
    cluster.cut.clear();
    for place in 0..3 {
        cluster.give(place, Input::PeerConnected(ReplicaIndex::new(LATE))).expect("no bad input");
    }
    cluster.settle();
    for _ in 0..40 {
        cluster.now = cluster.now.plus(Millis::new(500));
        for place in 0..4 {
            cluster.give(place, Input::Timer).expect("a timer is no bad input");
        }
        cluster.settle();
    }
}

#[test]
fn a_replica_that_joins_when_the_first_blocks_are_gone_begins_at_the_checkpoint_and_goes_on_from_there() {
    let (mut cluster, height) = cluster_without_the_last();
    connect_and_wait(&mut cluster);
    assert_eq!(cluster.installed[usize::from(LATE)], [height]);
    assert_eq!(cluster.cores[usize::from(LATE)].transfer(), None);
    commit(&mut cluster, 1_000_000);
    let tip = cluster.commits[0].last().copied();
    assert_eq!(cluster.commits[usize::from(LATE)].last().copied(), tip, "it commits with the others");
    assert!(cluster.commits[usize::from(LATE)].len() < cluster.commits[0].len(), "without the first blocks");
}

#[test]
fn one_peer_that_says_blocks_are_gone_starts_no_transfer() {
    let (mut cluster, _) = cluster_without_the_last();
    let stable = cluster.stable[0][0].clone();
    cluster.cut.clear();
    cluster.give(0, Input::PeerConnected(ReplicaIndex::new(LATE))).expect("no bad input");
    // Only what replica 0 says arrives, and it answers all that is asked of anybody.
    let mut asked = 0;
    for _ in 0..12 {
        while let Some((from, to, message)) = cluster.wires.pop_front() {
            if to.place() == LATE && from.place() == 0 {
                cluster.give(LATE, Input::Message { from, message }).expect("it is honest");
            } else if let (LATE, Message::BlockRequest(request)) = (from.place(), message) {
                asked += 1;
                let from = ReplicaIndex::new(0);
                let gone = gone(Asked::Blocks(request), &stable);
                let taken = cluster.give(LATE, Input::Message { from, message: gone });
                assert!(matches!(taken, Ok(()) | Err(Rejected::Unsolicited)), "{taken:?}");
            }
        }
        cluster.now = cluster.now.plus(Millis::new(500));
        cluster.give(LATE, Input::Timer).expect("a timer is no bad input");
    }
    assert!(asked > 6, "it asked {asked} times");
    assert_eq!(cluster.cores[usize::from(LATE)].transfer(), None);
}

fn gone(asked: Asked, checkpoint: &StableCheckpoint) -> Message {
    Message::Gone(Gone { asked, checkpoint: checkpoint.clone() })
}

#[test]
fn that_something_is_gone_counts_only_for_what_was_asked_for() {
    let (mut cluster, height) = cluster_without_the_last();
    let stable = cluster.stable[0][0].clone();
    cluster.cut.clear();
    cluster.give(0, Input::PeerConnected(ReplicaIndex::new(LATE))).expect("no bad input");
    let chunks = ChunkRequest { height, root: stable.checkpoint().state.root(), first: 0 };
    let mut asked = 0;
    for _ in 0..12 {
        while let Some((from, to, message)) = cluster.wires.pop_front() {
            if let (LATE, Message::Certificates(_)) = (to.place(), &message) {
                cluster.give(LATE, Input::Message { from, message }).expect("it is honest");
            } else if let (LATE, Message::BlockRequest(request)) = (from.place(), message) {
                asked += 1;
                let other = BlockRequest { above: request.above.next(), ..request };
                for wrong in [Asked::Chunks(chunks), Asked::Blocks(other)] {
                    let taken =
                        cluster.give(LATE, Input::Message { from: to, message: gone(wrong, &stable) });
                    assert_eq!(taken, Err(Rejected::Unsolicited), "{wrong:?}");
                }
            }
        }
        cluster.now = cluster.now.plus(Millis::new(500));
        cluster.give(LATE, Input::Timer).expect("a timer is no bad input");
    }
    assert!(asked > 6, "it asked {asked} times");
    assert_eq!(cluster.cores[usize::from(LATE)].transfer(), None);
}

#[test]
fn a_checkpoint_that_less_than_a_quorum_signed_is_no_place_to_begin() {
    let (mut cluster, _) = cluster_without_the_last();
    let mut forged = cluster.stable[0][0].clone();
    forged.certificate.signatures.truncate(2);
    cluster.cut.clear();
    cluster.give(0, Input::PeerConnected(ReplicaIndex::new(LATE))).expect("no bad input");
    let mut refused = 0;
    for _ in 0..12 {
        while let Some((from, to, message)) = cluster.wires.pop_front() {
            if let (LATE, Message::Certificates(_)) = (to.place(), &message) {
                cluster.give(LATE, Input::Message { from, message }).expect("it is honest");
            } else if let (LATE, Message::BlockRequest(request)) = (from.place(), message) {
                let gone = gone(Asked::Blocks(request), &forged);
                let taken = cluster.give(LATE, Input::Message { from: to, message: gone });
                assert!(matches!(taken, Err(Rejected::Certificate(_))), "{taken:?}");
                refused += 1;
            }
        }
        cluster.now = cluster.now.plus(Millis::new(500));
        cluster.give(LATE, Input::Timer).expect("a timer is no bad input");
    }
    assert!(refused > 3);
    let late = &cluster.cores[usize::from(LATE)];
    assert_eq!((late.transfer(), late.committed_height()), (None, Height::ZERO));
}

#[test]
fn a_replica_whose_state_went_wrong_gets_the_certified_one_and_its_tree_stays() {
    let (mut cluster, height) = cluster_without_the_last();
    let wrong = named(&cluster, 2, Height::new(2), &snapshot());
    cluster.give(2, wrong).expect("no bad input");
    assert!(cluster.installed.iter().all(Vec::is_empty), "an old height is open no more");
    let next = Height::new(height.number() + 2);
    connect_and_wait(&mut cluster);
    assert_eq!(cluster.installed[usize::from(LATE)], [height]);
    for number in 0..4 {
        commit(&mut cluster, 1_000_000 + number);
    }
    let (before, commits) = (cluster.cores[2].committed_height(), cluster.commits[2].len());
    let right = Snapshot::cut(b"a later state of all", 5).expect("small");
    cluster.served = Some(right.clone());
    for place in [0, 1, 2, LATE] {
        let state = if place == 2 { &snapshot() } else { &right };
        let state = named(&cluster, place, next, state);
        cluster.give(place, state).expect("no bad input");
        cluster.settle();
    }
    connect_and_wait(&mut cluster);
    assert_eq!((cluster.diverged[2].len(), &cluster.installed[2]), (1, &vec![next]));
    assert_eq!((cluster.cores[2].committed_height(), cluster.commits[2].len()), (before, commits));
    let stable = cluster.cores[2].stable_checkpoint().map(StableCheckpoint::height);
    assert_eq!(stable, Some(next));
}

#[test]
fn after_a_reload_the_application_may_name_the_later_states_again() {
    use crate::consensus::{CommittedBlock, QuorumCertificate, checkpoints::Checkpoints};
    use std::sync::Arc;
    let committee = super::committee(4);
    let mut checkpoints = Checkpoints::new(committee.size(), 1);
    let justify = QuorumCertificate::genesis(&committee);
    let payload = crate::consensus::Payload::default();
    let view = crate::types::View::new(1);
    let block = Arc::new(crate::consensus::Block::new(view, ReplicaIndex::new(1), justify, payload));
    let certificate = super::certificate(4, &block);
    checkpoints.committed(&CommittedBlock { block, certificate });
    let named = |checkpoints: &mut Checkpoints| {
        checkpoints.state_at(Height::new(1), snapshot().id(), checkpoints.installed())
    };
    assert!(named(&mut checkpoints).is_some());
    assert!(named(&mut checkpoints).is_none(), "once");
    let before = checkpoints.installed();
    checkpoints.begin_at(Height::new(1));
    assert!(checkpoints.state_at(Height::new(1), snapshot().id(), before).is_none(), "it does not know yet");
    assert!(named(&mut checkpoints).is_some(), "the first one was of a state that is gone");
}

#[test]
fn a_state_that_was_named_before_an_installed_one_was_taken_in_is_not_signed() {
    let (mut cluster, height) = cluster_without_the_last();
    connect_and_wait(&mut cluster);
    assert_eq!(cluster.installed[usize::from(LATE)], [height]);
    for number in 0..4 {
        commit(&mut cluster, 1_000_000 + number);
    }
    let next = Height::new(height.number() + 2);
    let signed = |cluster: &Cluster| {
        let own = |record: &&Record| matches!(record, Record::CheckpointVote(_));
        cluster.journals[usize::from(LATE)].iter().filter(own).count()
    };
    // What was on its way when consensus installed the state.
    let stale = Input::StateAt { height: next, snapshot: snapshot().id(), installed: Height::ZERO };
    cluster.give(LATE, stale).expect("no bad input");
    assert_eq!(signed(&cluster), 0);
    let right = Snapshot::cut(b"the state above", 5).expect("small");
    let right = named(&cluster, LATE, next, &right);
    cluster.give(LATE, right).expect("no bad input");
    assert_eq!(signed(&cluster), 1);
}

#[test]
fn a_command_that_others_committed_below_the_own_beginning_keeps_nobody_awake_alone() {
    let (mut cluster, _) = cluster_without_the_last();
    connect_and_wait(&mut cluster);
    // A late copy of what was ordered long ago: only this replica does not know that.
    cluster.give(LATE, Input::Submit(command("command 0"))).expect("room");
    assert_eq!(cluster.cores[usize::from(LATE)].pending_commands(), 1);
    let from = ReplicaIndex::new(0);
    let said = Message::Committed(vec![command("command 0").digest()]);
    for _ in 0..3 {
        cluster.give(LATE, Input::Message { from, message: said.clone() }).expect("taken");
    }
    assert_eq!(cluster.cores[usize::from(LATE)].pending_commands(), 1, "one peer may lie");
    cluster.settle();
    assert_eq!(cluster.cores[usize::from(LATE)].pending_commands(), 0, "two do not both");
    assert!(!cluster.cores[usize::from(LATE)].is_awake());
}
