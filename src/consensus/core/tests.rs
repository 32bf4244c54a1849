//! Step tables for the core's rules: four replicas in one process, messages carried by hand.

mod checkpoints;
mod evidence;
mod transfer;

use std::{collections::VecDeque, sync::Arc};

use super::{Config, Core, Input, Output, Recovery, Rejected};
use crate::consensus::{
    Asked, Block, BlockRequest, BlockResponse, Certificates, ChunkRequest, Chunks, Command, Gone, Message,
    Proposal, ProvenChunk, QuorumCertificate, Record, SignedTimeoutView, Snapshot, StableCheckpoint, Timeout,
    TimeoutCertificate, ViewTimes, Vote,
    certificate::{proposal_statement, timeout_statement, vote_statement},
    limits::MAX_GOSSIP_BYTES,
    message::certificates_bytes,
};
use crate::types::{
    Committee, Digest, Epoch, Evidence, Height, InclusionProof, Millis, ReplicaIndex, SecretKey, View,
    leaf_hash,
};

fn key(place: u16) -> SecretKey {
    SecretKey::from_seed(&[u8::try_from(place + 1).expect("a small committee"); 32])
}

fn committee(replicas: u16) -> Arc<Committee> {
    let members = (0..replicas).map(|place| key(place).public()).collect();
    Arc::new(Committee::new(Digest::of(b"test"), Epoch::new(1), members).expect("distinct keys"))
}

fn config(replicas: u16, place: u16) -> Config {
    Config {
        committee: committee(replicas),
        me: ReplicaIndex::new(place),
        key: key(place),
        times: ViewTimes::default(),
        checkpoint_interval: 2,
    }
}

/// What the proposal of a block without an entry certificate signs.
fn proposal_bytes(committee: &Committee, block: &Block) -> Vec<u8> {
    let certificates = Digest::of(&certificates_bytes(block.justify(), None));
    proposal_statement(committee, block.view(), block.id(), certificates)
}

fn command(text: &str) -> Command {
    Command::new(text.as_bytes().to_vec(), Vec::new()).expect("small")
}

/// Replicas whose messages are all delivered at once, in order, but for those to or from the cut-off ones.
struct Cluster {
    now: Millis,
    cores: Vec<Core>,
    journals: Vec<Vec<Record>>,
    /// Who put out what.
    evidence: Vec<(u16, Evidence)>,
    commits: Vec<Vec<Digest>>,
    stable: Vec<Vec<StableCheckpoint>>,
    diverged: Vec<Vec<StableCheckpoint>>,
    installed: Vec<Vec<Height>>,
    /// At which checkpoints each was asked to begin anew.
    reloads: Vec<Vec<Height>>,
    /// What all replicas give chunks of.
    served: Option<Snapshot>,
    cut: Vec<u16>,
    wires: VecDeque<(ReplicaIndex, ReplicaIndex, Message)>,
}

impl Cluster {
    fn new(replicas: u16) -> Self {
        Self {
            now: Millis::ZERO,
            cores: (0..replicas).map(|place| Recovery::new(config(replicas, place)).finish()).collect(),
            journals: vec![Vec::new(); usize::from(replicas)],
            commits: vec![Vec::new(); usize::from(replicas)],
            stable: vec![Vec::new(); usize::from(replicas)],
            diverged: vec![Vec::new(); usize::from(replicas)],
            installed: vec![Vec::new(); usize::from(replicas)],
            reloads: vec![Vec::new(); usize::from(replicas)],
            served: None,
            cut: Vec::new(),
            wires: VecDeque::new(),
            evidence: Vec::new(),
        }
    }

    fn give(&mut self, to: u16, input: Input) -> Result<(), Rejected> {
        let result = self.cores[usize::from(to)].handle(self.now, input);
        self.collect(to);
        result
    }

    fn collect(&mut self, from: u16) {
        let me = ReplicaIndex::new(from);
        while let Some(output) = self.cores[usize::from(from)].poll_output() {
            match output {
                Output::Persist(record) | Output::Append(record) => {
                    self.journals[usize::from(from)].push(record);
                }
                Output::Send { to, message } => self.wires.push_back((me, to, message)),
                Output::Broadcast(message) => {
                    let replicas = u16::try_from(self.cores.len()).expect("a small committee");
                    for to in (0..replicas).filter(|to| *to != from) {
                        self.wires.push_back((me, ReplicaIndex::new(to), message.clone()));
                    }
                }
                Output::Commit(committed) => {
                    self.commits[usize::from(from)].push(committed.block.id());
                }
                Output::Stable { checkpoint, reload, .. } => {
                    let height = checkpoint.height();
                    self.reloads[usize::from(from)].extend(reload.then_some(height));
                    self.stable[usize::from(from)].push(checkpoint);
                }
                Output::Diverged { certified, .. } => self.diverged[usize::from(from)].push(certified),
                Output::Install { checkpoint, snapshot, .. } => {
                    assert_eq!(snapshot.id(), checkpoint.checkpoint().state);
                    self.installed[usize::from(from)].push(checkpoint.height());
                }
                Output::ServeFromJournal { to, request } => {
                    // Below a stable checkpoint the journal's blocks are gone.
                    let said = match self.stable[usize::from(from)].last().cloned() {
                        Some(checkpoint) => {
                            Some(Message::Gone(Gone { asked: Asked::Blocks(request), checkpoint }))
                        }
                        None => served_from(&self.journals[usize::from(from)], &request),
                    };
                    self.wires.extend(said.map(|said| (me, to, said)));
                }
                Output::ServeChunks { to, request } => {
                    let chunks = self.served.as_ref().map(|snapshot| chunks_of(snapshot, request));
                    self.wires.extend(chunks.map(|chunks| (me, to, Message::Chunks(chunks))));
                }
                Output::Evidence(evidence) => self.evidence.push((from, *evidence)),
            }
        }
    }

    fn settle(&mut self) {
        while let Some((from, to, message)) = self.wires.pop_front() {
            if !self.cut.contains(&from.place()) && !self.cut.contains(&to.place()) {
                self.give(to.place(), Input::Message { from, message }).expect("honest messages are taken");
            }
        }
    }

    fn run_timers(&mut self) {
        let is_cut = |place: usize| self.cut.iter().any(|cut| usize::from(*cut) == place);
        let up = self.cores.iter().enumerate().filter(|(place, _)| !is_cut(*place));
        let due = up.filter_map(|(_, core)| core.next_timeout()).min().expect("some replica is awake");
        self.now = self.now.max(due);
        for place in 0..u16::try_from(self.cores.len()).expect("a small committee") {
            if !self.cut.contains(&place) {
                self.give(place, Input::Timer).expect("a timer is no bad input");
            }
        }
        self.settle();
    }

    fn restart(&mut self, place: u16) {
        let replicas = u16::try_from(self.cores.len()).expect("a small committee");
        let mut recovery = Recovery::new(config(replicas, place));
        let mut commits = Vec::new();
        for record in self.journals[usize::from(place)].clone() {
            let committed = recovery.record(record).expect("an own journal is consistent");
            commits.extend(committed.map(|committed| committed.block.id()));
        }
        self.commits[usize::from(place)] = commits;
        self.cores[usize::from(place)] = recovery.finish();
        self.collect(place);
    }
}

/// Two chunks of a snapshot, from the one that is asked for on.
fn chunks_of(snapshot: &Snapshot, request: ChunkRequest) -> Chunks {
    let ChunkRequest { height, root, first } = request;
    let leaves: Vec<_> = snapshot.chunks().iter().map(|chunk| leaf_hash(chunk)).collect();
    let chunks = snapshot.chunks().iter().enumerate().skip(first as usize).take(2);
    let chunks = chunks.map(|(place, bytes)| ProvenChunk {
        bytes: Arc::clone(bytes),
        proof: InclusionProof::of(&leaves, place).expect("inside"),
    });
    Chunks { height, root, first, chunks: chunks.collect() }
}

/// The first committed block above the one that a peer has, certified by the next one's justification.
fn served_from(journal: &[Record], request: &BlockRequest) -> Option<Message> {
    let committed = |height: Height| {
        let id = journal.iter().find_map(|record| {
            let Record::Committed { height: of, block, .. } = record else { return None };
            (*of == height).then_some(*block)
        })?;
        journal.iter().find_map(|record| {
            let Record::Block(block) = record else { return None };
            (block.id() == id).then(|| Arc::clone(block))
        })
    };
    let block = committed(request.above.next())?;
    let tip = committed(request.above.next().next())?.justify().clone();
    Some(Message::BlockResponse(BlockResponse { blocks: vec![block], tip }))
}

#[test]
fn a_lone_command_commits_at_every_replica_and_then_all_rest() {
    for replicas in [1, 2, 3, 4, 5, 6, 7] {
        let mut cluster = Cluster::new(replicas);
        cluster.give(0, Input::Submit(command("one"))).expect("room");
        cluster.settle();
        for core in &cluster.cores {
            assert_eq!(core.committed_height().number(), 1, "n={replicas}");
            assert_eq!(core.next_timeout(), None, "an idle replica rests, n={replicas}");
        }
        assert!(cluster.commits.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn commands_that_are_submitted_together_travel_together() {
    // Replica 0 does not lead view 1, so it only spreads what it is given.
    let mut core = Recovery::new(config(4, 0)).finish();
    let large = Command::new(vec![7; MAX_GOSSIP_BYTES], Vec::new()).expect("below the limit");
    for command in [command("one"), command("two"), large, command("three")] {
        core.handle(Millis::ZERO, Input::Submit(command)).expect("room");
    }
    let together = std::iter::from_fn(|| core.poll_output()).map(|output| {
        let Output::Broadcast(Message::Commands(commands)) = output else { panic!("{output:?}") };
        commands.len()
    });
    assert_eq!(together.collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn commands_commit_one_after_the_other_in_the_same_order_everywhere() {
    let mut cluster = Cluster::new(4);
    for number in 0..20u16 {
        cluster.give(number % 4, Input::Submit(command(&number.to_string()))).expect("room");
        cluster.settle();
    }
    assert!(cluster.commits.iter().all(|commits| *commits == cluster.commits[0] && commits.len() >= 20));
}

#[test]
fn a_dead_leader_is_passed_by_a_timeout_certificate() {
    for dead in 0..4 {
        let mut cluster = Cluster::new(4);
        cluster.cut = vec![dead];
        let submitter = (dead + 1) % 4;
        for number in 0..4 {
            cluster.give(submitter, Input::Submit(command(&number.to_string()))).expect("room");
            cluster.settle();
            let mut rounds = 0;
            while cluster.cores[usize::from(submitter)].is_awake() {
                cluster.run_timers();
                rounds += 1;
                assert!(rounds < 8, "dead={dead}");
            }
        }
        let heights: Vec<_> = cluster.cores.iter().map(|core| core.committed_height().number()).collect();
        assert!(heights.iter().filter(|height| **height >= 4).count() == 3, "dead={dead} {heights:?}");
    }
}

#[test]
fn a_replica_that_was_away_fetches_what_it_missed() {
    let mut cluster = Cluster::new(4);
    cluster.cut = vec![3];
    for number in 0..10 {
        cluster.give(0, Input::Submit(command(&number.to_string()))).expect("room");
        cluster.settle();
        while cluster.cores[0].is_awake() {
            cluster.run_timers();
        }
    }
    cluster.cut.clear();
    cluster.give(0, Input::PeerConnected(ReplicaIndex::new(3))).expect("no bad input");
    cluster.settle();
    assert_eq!(cluster.commits[3], cluster.commits[0]);
}

#[test]
fn blocks_too_large_for_one_answer_together_are_fetched_one_by_one() {
    let mut cluster = Cluster::new(4);
    cluster.cut = vec![3];
    // Consecutive blocks of 2.5 MiB: an answer has room for two, and some of these need three to be committed.
    for number in 0..6u8 {
        let large = Command::new(vec![number], vec![number; 5 << 19]).expect("within the limit");
        cluster.give(0, Input::Submit(large)).expect("room");
        cluster.settle();
        while cluster.cores[0].is_awake() {
            cluster.run_timers();
        }
    }
    cluster.cut.clear();
    cluster.give(0, Input::PeerConnected(ReplicaIndex::new(3))).expect("no bad input");
    cluster.settle();
    for _ in 0..20 {
        cluster.now = cluster.now.plus(Millis::from_secs(1));
        for place in 0..4 {
            cluster.give(place, Input::Timer).expect("a timer is no bad input");
        }
        cluster.settle();
    }
    assert_eq!(cluster.commits[3], cluster.commits[0]);
}

#[test]
fn a_replica_that_sees_its_own_vote_and_has_no_record_of_it_signs_nothing_any_more() {
    let mut cluster = Cluster::new(4);
    for number in 0..4 {
        cluster.give(number, Input::Submit(command(&number.to_string()))).expect("room");
        cluster.settle();
    }
    // The journal is gone: the replica starts with an empty one, and its peers know better.
    cluster.journals[0].clear();
    cluster.restart(0);
    for peer in 1..4 {
        cluster.give(peer, Input::PeerConnected(ReplicaIndex::new(0))).expect("no bad input");
    }
    cluster.settle();
    assert!(cluster.cores[0].forgotten().is_some(), "a certificate holds a vote that it does not remember");
    cluster.give(1, Input::Submit(command("after"))).expect("room");
    cluster.settle();
    while cluster.cores[1].is_awake() {
        cluster.run_timers();
    }
    let signed = |record: &Record| matches!(record, Record::Vote { .. } | Record::Timeout(_));
    assert!(!cluster.journals[0].iter().any(signed), "it signs nothing, and the others go on");
    assert_eq!(cluster.commits[1], cluster.commits[2]);
}

#[test]
fn a_replica_whose_key_another_process_has_signs_nothing_until_it_is_started_again() {
    let mut cluster = Cluster::new(4);
    cluster.give(0, Input::Submit(command("before"))).expect("room");
    cluster.settle();
    let written = cluster.journals[0].len();
    cluster.give(0, Input::KeyInUse).expect("no bad input");
    for number in 1..6_u16 {
        cluster.give(number % 4, Input::Submit(command(&number.to_string()))).expect("room");
        cluster.settle();
        while cluster.cores[1].is_awake() {
            cluster.run_timers();
        }
    }
    let signed = |record: &Record| match record {
        Record::Vote { .. } | Record::Timeout(_) | Record::Proposal { .. } | Record::CheckpointVote(_) => {
            true
        }
        Record::Block(_) | Record::Committed { .. } | Record::Forgotten(_) => false,
    };
    assert!(!cluster.journals[0][written..].iter().any(signed), "it signs nothing");
    assert!(cluster.commits[1].len() > 5 && cluster.commits[0].len() > 5, "the others go on, and it follows");
    assert!(cluster.commits[1].starts_with(&cluster.commits[0]));
    cluster.restart(0);
    cluster.give(0, Input::Submit(command("after"))).expect("room");
    cluster.settle();
    assert!(cluster.journals[0][written..].iter().any(signed), "nobody has the key any more");
}

#[test]
fn a_replica_that_restarts_says_nothing_new_about_views_it_has_spoken_on() {
    let mut cluster = Cluster::new(4);
    cluster.cut = vec![2, 3];
    cluster.give(1, Input::Submit(command("one"))).expect("room");
    cluster.settle();
    cluster.run_timers();
    let before = cluster.journals.clone();
    for place in [0, 1] {
        cluster.restart(place);
        cluster.run_timers();
    }
    // Nobody can have left the view: two of four are no quorum.
    for place in [0, 1] {
        let votes = |records: &[Record]| {
            records.iter().filter(|record| matches!(record, Record::Vote { .. } | Record::Timeout(_))).count()
        };
        assert_eq!(votes(&cluster.journals[place]), votes(&before[place]), "replica {place}");
    }
    cluster.cut.clear();
    cluster.run_timers();
    while cluster.cores[0].is_awake() {
        cluster.run_timers();
    }
    assert!(cluster.commits.iter().all(|commits| *commits == cluster.commits[0] && !commits.is_empty()));
}

#[test]
fn all_replicas_restart_from_their_journals_and_go_on() {
    let mut cluster = Cluster::new(4);
    for number in 0..3 {
        cluster.give(number, Input::Submit(command(&number.to_string()))).expect("room");
        cluster.settle();
    }
    let before = cluster.commits.clone();
    for place in 0..4 {
        cluster.restart(place);
    }
    assert_eq!(cluster.commits, before, "the journal gives every commit again");
    cluster.give(0, Input::Submit(command("after"))).expect("room");
    cluster.settle();
    assert!(cluster.commits.iter().all(|commits| commits.len() > before[0].len()));
}

#[test]
fn a_second_proposal_for_one_view_gets_no_vote() {
    let mut cluster = Cluster::new(4);
    let committee = committee(4);
    let proposal = |text: &str| {
        let payload = crate::consensus::Payload::new(vec![command(text)]);
        let justify = QuorumCertificate::genesis(&committee);
        let leader = ReplicaIndex::new(1);
        let block = Arc::new(Block::new(View::new(1), leader, justify, payload));
        let signature = key(1).sign(&proposal_bytes(&committee, &block));
        Message::Proposal(Proposal { block, entry: None, signature })
    };
    let from = ReplicaIndex::new(1);
    cluster.give(0, Input::Message { from, message: proposal("a") }).expect("the first is valid");
    let second = cluster.give(0, Input::Message { from, message: proposal("b") });
    assert_eq!(second, Err(Rejected::SecondProposal));
    let votes = cluster.journals[0].iter().filter(|record| matches!(record, Record::Vote { .. }));
    assert_eq!(votes.count(), 1);
}

#[test]
fn a_proposal_by_another_than_the_leader_is_refused() {
    let mut cluster = Cluster::new(4);
    let committee = committee(4);
    let me = ReplicaIndex::new(2);
    let justify = QuorumCertificate::genesis(&committee);
    let block = Arc::new(Block::new(View::new(1), me, justify, crate::consensus::Payload::default()));
    let signature = key(2).sign(&proposal_bytes(&committee, &block));
    let message = Message::Proposal(Proposal { block, entry: None, signature });
    let refused = cluster.give(0, Input::Message { from: me, message });
    assert!(matches!(refused, Err(Rejected::Proposal(_))), "{refused:?}");
}

#[test]
fn a_vote_that_names_another_height_for_the_block_spoils_no_certificate() {
    let mut cluster = Cluster::new(4);
    let committee = committee(4);
    let payload = crate::consensus::Payload::new(vec![command("a")]);
    let leader = ReplicaIndex::new(1);
    let justify = QuorumCertificate::genesis(&committee);
    let block = Arc::new(Block::new(View::new(1), leader, justify, payload));
    let vote = |voter: u16, height: Height| {
        let statement = vote_statement(&committee, block.view(), height, block.id());
        let signature = key(voter).sign(&statement);
        let voter = ReplicaIndex::new(voter);
        Message::Vote(Vote { view: block.view(), height, block: block.id(), voter, signature })
    };
    let signature = key(1).sign(&proposal_bytes(&committee, &block));
    let proposal = Message::Proposal(Proposal { block: Arc::clone(&block), entry: None, signature });
    // The garbage is of the first voter in order, and so would stand first in the certificate.
    cluster
        .give(3, Input::Message { from: ReplicaIndex::new(0), message: vote(0, Height::new(9)) })
        .expect("it is signed by a member");
    cluster.give(3, Input::Message { from: leader, message: proposal }).expect("valid");
    for voter in [1, 2] {
        let message = vote(voter, block.height());
        cluster.give(3, Input::Message { from: ReplicaIndex::new(voter), message }).expect("valid");
    }
    let high_qc = cluster.cores[3].high_qc().get().clone();
    assert_eq!(high_qc.block, block.id());
    assert!(high_qc.verify(&committee).is_ok(), "every other replica takes the certificate");
}

#[test]
fn an_answer_that_brings_nothing_new_is_not_followed_by_another_request_at_once() {
    let mut cluster = Cluster::new(4);
    let asked = |cluster: &mut Cluster| {
        std::mem::take(&mut cluster.wires)
            .into_iter()
            .filter_map(|(_, to, message)| matches!(message, Message::BlockRequest(_)).then_some(to))
            .collect::<Vec<_>>()
    };
    let block_in = |view: u64, justify: QuorumCertificate| {
        let payload = crate::consensus::Payload::new(vec![command(&view.to_string())]);
        let leader = ReplicaIndex::new(u16::try_from(view % 4).expect("below four"));
        Arc::new(Block::new(View::new(view), leader, justify, payload))
    };
    let first = block_in(1, QuorumCertificate::genesis(&committee(4)));
    let first_qc = certificate(4, &first);
    let second = block_in(2, first_qc.clone());
    let certificates = Certificates { high_qc: certificate(4, &second), high_tc: None };
    let from = ReplicaIndex::new(1);
    cluster.give(3, Input::Message { from, message: Message::Certificates(certificates) }).expect("valid");
    let peer = *asked(&mut cluster).first().expect("the certified block is missing");
    let answer = |cluster: &mut Cluster, peer: ReplicaIndex| {
        let response = BlockResponse { blocks: vec![Arc::clone(&first)], tip: first_qc.clone() };
        cluster.give(3, Input::Message { from: peer, message: Message::BlockResponse(response) })
    };
    answer(&mut cluster, peer).expect("it is a part of the chain");
    let second_peer = *asked(&mut cluster).first().expect("a useful answer is followed by the next request");
    assert_ne!(second_peer, peer, "every signer has its turn");
    answer(&mut cluster, second_peer).expect("it is still a part of the chain");
    assert_eq!(asked(&mut cluster), [], "nothing was new");
    assert_eq!(answer(&mut cluster, second_peer), Err(Rejected::Unsolicited), "one answer for a request");
    cluster.now = cluster.cores[3].next_timeout().expect("a fetch goes on");
    cluster.give(3, Input::Timer).expect("a timer is no bad input");
    let next = asked(&mut cluster);
    assert!(next.len() == 1 && next[0] != second_peer, "the next signer is asked: {next:?}");
}

/// A block's certificate by the first quorum of replicas.
fn certificate(replicas: u16, block: &Block) -> QuorumCertificate {
    let committee = committee(replicas);
    let statement = vote_statement(&committee, block.view(), block.height(), block.id());
    let signatures = (0..replicas)
        .take(committee.size().quorum())
        .map(|voter| (ReplicaIndex::new(voter), key(voter).sign(&statement)))
        .collect();
    QuorumCertificate { view: block.view(), height: block.height(), block: block.id(), signatures }
}

#[test]
fn a_leader_that_crashes_right_after_its_proposal_sends_the_same_one_again() {
    // The leader of view 2 enters it by a timeout certificate, for the leader of view 1 is away.
    let mut cluster = Cluster::new(4);
    cluster.cut = vec![1];
    cluster.give(2, Input::Submit(command("one"))).expect("room");
    cluster.settle();
    cluster.run_timers();
    let is_own = |record: &Record| matches!(record, Record::Proposal { .. });
    let written = cluster.journals[2].iter().position(is_own).expect("it led a view");
    cluster.journals[2].truncate(written + 1);
    cluster.wires.clear();
    cluster.restart(2);
    let again = cluster.wires.iter().find_map(|(from, _, message)| match message {
        Message::Proposal(proposal) => Some((*from, proposal.block.view())),
        Message::Vote(_)
        | Message::Timeout(_)
        | Message::Certificates(_)
        | Message::Commands(_)
        | Message::BlockRequest(_)
        | Message::BlockResponse(_)
        | Message::CheckpointVote(_)
        | Message::Checkpoint(_)
        | Message::Gone(_)
        | Message::ChunkRequest(_)
        | Message::Chunks(_)
        | Message::Committed(_) => None,
    });
    assert_eq!(again, Some((ReplicaIndex::new(2), View::new(2))));
}

#[test]
fn replicas_at_rest_help_one_that_is_awake_to_a_commit_and_rest_again() {
    let mut cluster = Cluster::new(4);
    let committee = committee(4);
    let view = View::new(1);
    for sender in [0, 3] {
        let timeout = Timeout {
            view,
            high_qc: QuorumCertificate::genesis(&committee),
            entry: None,
            sender: ReplicaIndex::new(sender),
            signature: key(sender).sign(&timeout_statement(&committee, view, View::ZERO)),
        };
        // They gave the view up before they crashed, and remember it.
        cluster.journals[usize::from(sender)].push(Record::Timeout(timeout));
        cluster.restart(sender);
    }
    cluster.settle();
    for core in &cluster.cores {
        assert!(core.committed_height() > Height::ZERO, "no command, but a timeout certificate");
        assert_eq!(core.next_timeout(), None, "they rest again");
    }
}

#[test]
fn a_replica_that_restarts_with_unfinished_work_asks_for_its_timer_though_no_peer_speaks() {
    let mut cluster = Cluster::new(4);
    cluster.cut = vec![0, 2, 3];
    cluster.give(1, Input::Submit(command("one"))).expect("room");
    cluster.settle();
    cluster.restart(1);
    cluster.now = cluster.cores[1].next_timeout().expect("its block is not committed").max(cluster.now);
    cluster.give(1, Input::Timer).expect("a timer is no bad input");
    assert!(cluster.cores[1].next_timeout() > Some(cluster.now), "now the view's timer runs");
}

#[test]
fn a_timeout_of_the_current_view_counts_whatever_old_certificate_comes_with_it() {
    let mut cluster = Cluster::new(4);
    let committee = committee(4);
    let genesis = QuorumCertificate::genesis(&committee);
    let view = View::new(1);
    for sender in [0, 1, 3] {
        // Nobody signed this certificate; it leads nowhere, so nobody looks.
        let entry = TimeoutCertificate { view: View::ZERO, timeouts: Vec::new(), high_qc: genesis.clone() };
        let timeout = Timeout {
            view,
            high_qc: genesis.clone(),
            entry: Some(entry),
            sender: ReplicaIndex::new(sender),
            signature: key(sender).sign(&timeout_statement(&committee, view, View::ZERO)),
        };
        let from = ReplicaIndex::new(sender);
        cluster.give(2, Input::Message { from, message: Message::Timeout(timeout) }).expect("valid");
    }
    assert!(cluster.cores[2].view() > view, "three timeouts end the view");
}

#[test]
fn a_timeout_of_a_later_view_needs_its_certificate() {
    let mut cluster = Cluster::new(4);
    let committee = committee(4);
    let genesis = QuorumCertificate::genesis(&committee);
    let forged = TimeoutCertificate { view: View::new(7), timeouts: Vec::new(), high_qc: genesis.clone() };
    for (entry, is_forged) in [(None, false), (Some(forged), true)] {
        let view = View::new(8);
        let timeout = Timeout {
            view,
            high_qc: genesis.clone(),
            entry,
            sender: ReplicaIndex::new(0),
            signature: key(0).sign(&timeout_statement(&committee, view, View::ZERO)),
        };
        let from = ReplicaIndex::new(0);
        let refused = cluster.give(2, Input::Message { from, message: Message::Timeout(timeout) });
        match refused {
            Err(Rejected::Certificate(_)) => assert!(is_forged),
            other => assert_eq!((other, is_forged), (Err(Rejected::ViewAhead), false)),
        }
        assert_eq!(cluster.cores[2].view(), View::new(1));
    }
}

#[test]
fn commands_of_a_proposal_that_got_no_vote_are_known_to_all_in_the_end() {
    let mut cluster = Cluster::new(4);
    let block_in = |view: u64, justify: QuorumCertificate| {
        let payload = crate::consensus::Payload::new(vec![command(&view.to_string())]);
        let leader = ReplicaIndex::new(u16::try_from(view % 4).expect("below four"));
        Arc::new(Block::new(View::new(view), leader, justify, payload))
    };
    // Only replica 3 hears of the second block, and the first one, its parent, nobody sends it.
    let parent = block_in(1, QuorumCertificate::genesis(&committee(4)));
    let block = block_in(2, certificate(4, &parent));
    let signature = key(2).sign(&proposal_bytes(&committee(4), &block));
    let message = Message::Proposal(Proposal { block: Arc::clone(&block), entry: None, signature });
    cluster.give(3, Input::Message { from: ReplicaIndex::new(2), message }).expect("valid");
    cluster.wires.clear();
    cluster.now = Millis::from_secs(20);
    cluster.give(3, Input::Timer).expect("a timer is no bad input");
    let told = cluster.wires.iter().any(|(_, _, message)| match message {
        Message::Commands(commands) => *commands == block.payload().commands(),
        Message::Proposal(_)
        | Message::Vote(_)
        | Message::Timeout(_)
        | Message::Certificates(_)
        | Message::BlockRequest(_)
        | Message::BlockResponse(_)
        | Message::CheckpointVote(_)
        | Message::Checkpoint(_)
        | Message::Gone(_)
        | Message::ChunkRequest(_)
        | Message::Chunks(_)
        | Message::Committed(_) => false,
    });
    assert!(told, "else this replica stays awake alone");
}

#[test]
fn a_replica_with_both_certificates_of_a_view_rests_without_waiting_for_anybody() {
    let committee = committee(4);
    let view = View::new(1);
    let block = Arc::new(Block::new(
        view,
        ReplicaIndex::new(1),
        QuorumCertificate::genesis(&committee),
        crate::consensus::Payload::default(),
    ));
    let signature = key(1).sign(&proposal_bytes(&committee, &block));
    let high_qc = certificate(4, &block);
    // All voted in view 1, and three of them gave it up as well before they heard of each other's votes.
    let timeouts = [0, 1, 3].map(|sender| SignedTimeoutView {
        signer: ReplicaIndex::new(sender),
        high_qc_view: View::ZERO,
        signature: key(sender).sign(&timeout_statement(&committee, view, View::ZERO)),
    });
    let genesis = QuorumCertificate::genesis(&committee);
    let tc = TimeoutCertificate { view, timeouts: timeouts.to_vec(), high_qc: genesis.clone() };
    let both = [
        Message::Certificates(Certificates { high_qc: genesis, high_tc: Some(tc) }),
        Message::Certificates(Certificates { high_qc, high_tc: None }),
    ];
    for order in [[0, 1], [1, 0]] {
        let mut core = Recovery::new(config(4, 0)).finish();
        let proposal = Proposal { block: Arc::clone(&block), entry: None, signature };
        let messages =
            [Message::Proposal(proposal)].into_iter().chain(order.map(|which| both[which].clone()));
        for message in messages {
            let from = ReplicaIndex::new(1);
            core.handle(Millis::ZERO, Input::Message { from, message }).expect("valid");
        }
        assert_eq!(core.view(), view.next());
        assert!(
            !core.is_awake(),
            "its peers have the certificate of the view before as well, and rest: {order:?}"
        );
        assert_eq!(core.next_timeout(), None, "{order:?}");
    }
}

#[test]
fn a_replica_that_came_into_the_view_without_the_newest_certificate_gets_it() {
    let mut cluster = Cluster::new(4);
    // In view 1 all vote, but replica 0 hears of no vote and takes the timeout certificate instead.
    let committee = committee(4);
    let genesis = QuorumCertificate::genesis(&committee);
    let payload = crate::consensus::Payload::new(vec![command("one")]);
    let block = Arc::new(Block::new(View::new(1), ReplicaIndex::new(1), genesis.clone(), payload));
    let high_qc = certificate(4, &block);
    let certificates = Message::Certificates(Certificates { high_qc: high_qc.clone(), high_tc: None });
    cluster.give(3, Input::Message { from: ReplicaIndex::new(1), message: certificates }).expect("valid");
    let signed = |sender: u16, view: View, high_qc: &QuorumCertificate| Timeout {
        view,
        high_qc: high_qc.clone(),
        entry: None,
        sender: ReplicaIndex::new(sender),
        signature: key(sender).sign(&timeout_statement(&committee, view, high_qc.view)),
    };
    let timeouts = [0, 1, 2].map(|sender| {
        let timeout = signed(sender, View::new(1), &genesis);
        SignedTimeoutView { signer: timeout.sender, high_qc_view: View::ZERO, signature: timeout.signature }
    });
    let entry =
        TimeoutCertificate { view: View::new(1), timeouts: timeouts.to_vec(), high_qc: genesis.clone() };
    let behind = Timeout { entry: Some(entry), ..signed(0, View::new(2), &genesis) };
    cluster.wires.clear();
    let from = ReplicaIndex::new(0);
    cluster.give(3, Input::Message { from, message: Message::Timeout(behind) }).expect("valid");
    let answer = Message::Certificates(Certificates { high_qc, high_tc: None });
    assert!(cluster.wires.contains(&(ReplicaIndex::new(3), from, answer)), "{:?}", cluster.wires);
}
