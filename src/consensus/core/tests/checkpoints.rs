//! Rules K1 and K2: what is signed at a checkpoint, when it is stable, and when a replica has diverged.

use super::{Cluster, command, committee, key};
use crate::consensus::{
    Checkpoint, CheckpointVote, Input, Message, Output, Record, Rejected, Snapshot, SnapshotId,
    certificate::checkpoint_statement,
    limits::{CHECKPOINT_RESEND_INTERVAL, MAX_CHECKPOINT_RESENDS},
};
use crate::types::{Height, Millis, ReplicaIndex, View};

/// The interval of the tests' replicas.
const HEIGHT: Height = Height::new(2);

fn state(text: &str) -> SnapshotId {
    Snapshot::of(text.as_bytes()).expect("small").id()
}

/// The application names a state; it was never told to begin at another.
fn state_at(height: Height, text: &str) -> Input {
    Input::StateAt { height, snapshot: state(text), installed: Height::ZERO }
}

/// Four replicas that have committed some blocks past the first checkpoint's height.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(4);
    for number in 0..4 {
        cluster.give(number, Input::Submit(command(&number.to_string()))).expect("room");
        cluster.settle();
    }
    assert!(cluster.cores.iter().all(|core| core.committed_height() >= HEIGHT));
    cluster
}

fn name_state(cluster: &mut Cluster, place: u16, text: &str) {
    cluster.give(place, state_at(HEIGHT, text)).expect("no bad input");
}

fn statements<'a>(cluster: &'a Cluster, place: usize) -> Vec<&'a CheckpointVote> {
    let own = |record: &'a Record| match record {
        Record::CheckpointVote(vote) => Some(vote),
        Record::Block(_)
        | Record::Proposal { .. }
        | Record::Vote { .. }
        | Record::Timeout(_)
        | Record::Forgotten(_)
        | Record::Committed { .. } => None,
    };
    cluster.journals[place].iter().filter_map(own).collect()
}

#[test]
fn a_state_that_a_quorum_names_is_a_stable_checkpoint_at_each_of_them() {
    let mut cluster = cluster();
    for place in 0..3 {
        assert!(cluster.stable.iter().all(Vec::is_empty), "no quorum has named it");
        name_state(&mut cluster, place, "state");
        cluster.settle();
    }
    for place in 0..3 {
        let [stable] = cluster.stable[place].as_slice() else { panic!("replica {place}") };
        assert_eq!((stable.height(), stable.checkpoint().state), (HEIGHT, state("state")));
        assert_eq!(stable.checkpoint().block, cluster.commits[place][1]);
        assert!(stable.clone().verify(&committee(4)).is_ok());
    }
    assert!(cluster.stable[3].is_empty(), "the last one has not said what its state is");
    name_state(&mut cluster, 3, "state");
    assert_eq!(cluster.stable[3].len(), 1, "the certificate was here before");
}

#[test]
fn a_replica_with_another_state_than_the_certified_one_has_diverged() {
    let mut cluster = cluster();
    for place in 0..4 {
        name_state(&mut cluster, place, if place == 2 { "other" } else { "state" });
    }
    cluster.settle();
    assert!(cluster.stable[2].is_empty());
    let [certified] = cluster.diverged[2].as_slice() else { panic!("{:?}", cluster.diverged) };
    assert_eq!(certified.checkpoint().state, state("state"));
    assert!([0, 1, 3].iter().all(|place| cluster.diverged[*place].is_empty()));
    cluster.give(2, Input::Submit(command("after"))).expect("room");
    cluster.settle();
    assert!(cluster.commits.iter().all(|commits| *commits == cluster.commits[0]), "it goes on voting");
}

#[test]
fn no_state_is_certified_that_only_f_replicas_and_an_equal_number_of_others_name() {
    let mut cluster = cluster();
    for (place, text) in [(0, "state"), (1, "state"), (2, "other"), (3, "other")] {
        name_state(&mut cluster, place, text);
    }
    cluster.settle();
    assert!(cluster.stable.iter().chain(&cluster.diverged).all(Vec::is_empty));
}

#[test]
fn a_statement_is_durable_before_it_leaves_and_is_made_once_whatever_the_application_says_later() {
    let mut cluster = cluster();
    let input = |text| state_at(HEIGHT, text);
    cluster.cores[0].handle(Millis::ZERO, input("state")).expect("no bad input");
    let first = cluster.cores[0].poll_output();
    let Some(Output::Persist(Record::CheckpointVote(vote))) = first.clone() else { panic!("{first:?}") };
    let then = cluster.cores[0].poll_output();
    assert_eq!(then, Some(Output::Broadcast(Message::CheckpointVote(vote.clone()))));
    cluster.give(0, input("other")).expect("no bad input");
    assert!(statements(&cluster, 0).is_empty(), "nothing more is signed");
    cluster.journals[0].push(Record::CheckpointVote(vote.clone()));
    cluster.restart(0);
    cluster.give(0, input("other")).expect("no bad input");
    assert_eq!(statements(&cluster, 0), [&vote], "nor after a restart");
}

#[test]
fn a_state_at_a_height_without_a_checkpoint_is_not_signed() {
    let mut cluster = cluster();
    let committed = cluster.cores[0].committed_height();
    for height in [Height::ZERO, Height::new(1), Height::new(3), Height::new(committed.number() + 2)] {
        cluster.give(0, state_at(height, "state")).expect("no bad input");
    }
    assert!(statements(&cluster, 0).is_empty());
}

#[test]
fn a_peer_that_connects_later_gets_the_newest_checkpoint_and_the_own_statements() {
    let mut cluster = cluster();
    cluster.cut = vec![3];
    for place in 0..3 {
        name_state(&mut cluster, place, "state");
    }
    cluster.settle();
    cluster.restart(1);
    cluster.cut.clear();
    name_state(&mut cluster, 3, "state");
    cluster.wires.clear();
    cluster.give(1, Input::PeerConnected(ReplicaIndex::new(3))).expect("no bad input");
    cluster.settle();
    assert!(cluster.stable[3].is_empty(), "a replica that was restarted has its own statement only");
    cluster.give(0, Input::PeerConnected(ReplicaIndex::new(3))).expect("no bad input");
    cluster.settle();
    assert_eq!(cluster.stable[3].len(), 1);
}

fn vote_of(place: u16, text: &str) -> CheckpointVote {
    let checkpoint = Checkpoint {
        height: HEIGHT,
        view: View::new(2),
        block: crate::types::Digest::of(b"block"),
        state: state(text),
    };
    let signature = key(place).sign(&checkpoint_statement(&committee(4), &checkpoint));
    CheckpointVote { checkpoint, voter: ReplicaIndex::new(place), signature }
}

#[test]
fn a_second_statement_for_one_height_and_a_forged_one_are_refused() {
    let mut cluster = cluster();
    let from = ReplicaIndex::new(1);
    let mut give = |vote| cluster.give(0, Input::Message { from, message: Message::CheckpointVote(vote) });
    let forged = CheckpointVote { voter: ReplicaIndex::new(2), ..vote_of(1, "state") };
    assert!(matches!(give(forged), Err(Rejected::Certificate(_))));
    give(vote_of(1, "state")).expect("it is the first");
    give(vote_of(1, "state")).expect("it is the same");
    assert_eq!(give(vote_of(1, "other")), Err(Rejected::SecondCheckpoint));
}

#[test]
fn an_own_statement_that_the_journal_does_not_hold_silences_the_replica() {
    let mut cluster = cluster();
    let message = Message::CheckpointVote(vote_of(0, "state"));
    cluster.give(0, Input::Message { from: ReplicaIndex::new(1), message }).expect("it verifies");
    assert!(cluster.cores[0].forgotten().is_some());
    name_state(&mut cluster, 0, "state");
    assert!(statements(&cluster, 0).is_empty());
}

#[test]
fn statements_and_certificates_that_wait_are_bounded() {
    use crate::consensus::{
        Verified,
        checkpoints::Checkpoints,
        limits::{KEPT_CHECKPOINT_VOTES, MAX_OPEN_CHECKPOINTS},
    };
    let mut checkpoints = Checkpoints::new(committee(4).size(), 2);
    for number in 1..1_000 {
        for place in 0..4 {
            let mut vote = vote_of(place, "state");
            vote.checkpoint.height = Height::new(2 * number);
            if checkpoints.wants(&vote) {
                checkpoints.count(Verified::vouch(vote));
            }
        }
    }
    let (due, votes, certificates) = checkpoints.kept();
    assert_eq!((due, votes, certificates), (0, 4 * KEPT_CHECKPOINT_VOTES, MAX_OPEN_CHECKPOINTS));
}

/// Lets the time pass after which statements are sent again.
fn pass_time(cluster: &mut Cluster) {
    cluster.now = cluster.now.plus(CHECKPOINT_RESEND_INTERVAL);
    for place in 0..4 {
        cluster.give(place, Input::Timer).expect("a timer is no bad input");
    }
    cluster.settle();
}

#[test]
fn statements_that_were_lost_are_sent_again_until_there_is_a_certificate() {
    // What is lost: all of them, or those to one replica, which the others then give the certificate.
    for everybody in [true, false] {
        let mut cluster = cluster();
        cluster.cut = if everybody { vec![0, 1, 2, 3] } else { vec![3] };
        for place in 0..4 {
            name_state(&mut cluster, place, "state");
        }
        cluster.settle();
        cluster.cut.clear();
        assert!(cluster.stable[3].is_empty());
        assert!(cluster.cores[3].next_timeout().is_some(), "it waits for the certificate");
        for _ in 0..2 {
            pass_time(&mut cluster);
        }
        for (place, stable) in cluster.stable.iter().enumerate() {
            assert_eq!(stable.len(), 1, "replica {place}");
        }
        assert!(cluster.cores.iter().all(|core| core.next_timeout().is_none()), "then they rest");
        assert!((0..4).all(|place| statements(&cluster, place).len() == 1), "it is the same statement");
    }
}

#[test]
fn a_statement_that_never_left_before_a_crash_leaves_before_any_higher_one() {
    let mut cluster = cluster();
    name_state(&mut cluster, 0, "state");
    cluster.wires.clear();
    cluster.restart(0);
    cluster.give(0, state_at(Height::new(4), "later")).expect("no bad input");
    let said = cluster.wires.iter().filter(|(_, to, _)| to.place() == 1).filter_map(|(_, _, message)| {
        let Message::CheckpointVote(vote) = message else { return None };
        Some(vote.checkpoint.height.number())
    });
    assert_eq!(said.collect::<Vec<_>>(), [2, 4]);
}

#[test]
fn a_statement_is_sent_again_so_often_and_not_for_ever() {
    let mut cluster = cluster();
    name_state(&mut cluster, 3, "state");
    cluster.settle();
    let mut sent = 0;
    for _ in 0..MAX_CHECKPOINT_RESENDS + 3 {
        cluster.now = cluster.now.plus(CHECKPOINT_RESEND_INTERVAL);
        cluster.give(3, Input::Timer).expect("a timer is no bad input");
        let says = |message: &Message| matches!(message, Message::CheckpointVote(_));
        sent += cluster.wires.iter().filter(|(_, _, message)| says(message)).count();
        cluster.wires.clear();
    }
    assert_eq!(sent, 3 * MAX_CHECKPOINT_RESENDS as usize, "to each of three");
    assert_eq!(cluster.cores[3].next_timeout(), None);
}

#[test]
fn who_says_something_of_a_settled_checkpoint_for_the_first_time_is_not_answered() {
    let mut cluster = cluster();
    for place in 0..3 {
        name_state(&mut cluster, place, "state");
    }
    cluster.settle();
    name_state(&mut cluster, 3, "state");
    let said = |message: &Message| matches!(message, Message::CheckpointVote(_));
    let message = cluster.wires.drain(..).map(|(_, _, message)| message).find(said).expect("it says so");
    let answers = |cluster: &mut Cluster| {
        let from = ReplicaIndex::new(3);
        cluster.give(0, Input::Message { from, message: message.clone() }).expect("valid");
        cluster.wires.drain(..).filter(|(_, _, message)| matches!(message, Message::Checkpoint(_))).count()
    };
    assert_eq!(answers(&mut cluster), 0, "the usual surplus");
    assert_eq!(answers(&mut cluster), 1, "it did not get the others' statements");
    assert_eq!(answers(&mut cluster), 0, "at most so often");
}

#[test]
fn a_replica_that_agrees_again_after_it_had_diverged_must_begin_at_that_checkpoint() {
    let mut cluster = cluster();
    for number in 4..12 {
        cluster.give(number % 4, Input::Submit(command(&number.to_string()))).expect("room");
        cluster.settle();
    }
    let name = |cluster: &mut Cluster, height: u64, text: &dyn Fn(u16) -> &'static str, installed: u64| {
        for place in 0..4 {
            let installed = Height::new(if place == 2 { installed } else { 0 });
            let snapshot = state(text(place));
            let input = Input::StateAt { height: Height::new(height), snapshot, installed };
            cluster.give(place, input).expect("no bad input");
        }
        cluster.settle();
    };
    name(&mut cluster, 2, &|place| if place == 2 { "other" } else { "state" }, 0);
    assert_eq!((cluster.diverged[2].len(), cluster.reloads[2].len()), (1, 0));
    name(&mut cluster, 4, &|_| "later", 0);
    assert_eq!(cluster.reloads[2], [Height::new(4)]);
    assert_eq!(cluster.cores[2].transfer(), None, "its own journal has that state");
    // The driver could not: it is asked again at the next one.
    name(&mut cluster, 6, &|_| "later still", 0);
    assert_eq!(cluster.reloads[2], [4, 6].map(Height::new));
    cluster.give(2, Input::Reloaded(Height::new(6))).expect("no bad input");
    name(&mut cluster, 8, &|_| "newest", 6);
    assert_eq!(cluster.reloads[2].len(), 2, "once it has begun there, no more");
    assert_eq!(cluster.stable[2].len(), 3);
    assert!([0, 1, 3].iter().all(|place| cluster.reloads[*place].is_empty()));
}
