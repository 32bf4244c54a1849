//! What arrives over a link: frames, consensus messages, endorsements; and a replica that gets them.
//!
//! Invariant: bytes have one meaning and a meaning has one encoding; a replica's own journal reads back whatever
//! its peers sent.

use std::{collections::BTreeSet, sync::Arc};

use borsh::BorshSerialize;
use bytes::BytesMut;
use quorate::{
    consensus::{
        Asked, Block, BlockId, BlockRequest, BlockResponse, Certificates, Checkpoint, CheckpointCertificate,
        CheckpointVote, ChunkRequest, Chunks, Command, Config, Core, Gone, Input, Message, Output,
        PROTOCOL_HOTSTUFF2, Payload, Proposal, QuorumCertificate, Record, Recovery, SignedTimeoutView,
        Snapshot, StableCheckpoint, Timeout, TimeoutCertificate, ViewTimes, Vote,
        certify::{Certification, Collector, Endorsement, Subject, SubjectKind},
        task,
        transport::Frame,
    },
    knowledge::{evidence::VerifiedEvidence, plan::PLAN_TYPE},
    types::{
        Committee, Digest, Evidence, Height, Millis, ReplicaIndex, SecretKey, Signature, StatementKind, View,
        statement_bytes,
    },
};

use crate::{
    script::Script,
    world::{REPLICAS, WORLD, place},
};

/// The most steps of a script: a longer one finds nothing that a shorter one does not.
const MOST_STEPS: usize = 64;

/// Frames as they arrive on a connection.
pub fn frames(bytes: &[u8]) {
    let mut arrived = BytesMut::from(bytes);
    let mut again = Vec::new();
    while let Ok(Some(frame)) = Frame::take(&mut arrived) {
        again.extend(frame.to_bytes());
    }
    assert_eq!(bytes.get(..again.len()), Some(again.as_slice()), "frames are encoded as they came");
}

/// What one data frame holds.
pub fn messages(bytes: &[u8]) {
    let Ok(frame) = borsh::from_slice::<task::Frame>(bytes) else { return };
    assert_eq!(borsh::to_vec(&frame).expect("memory takes all"), bytes, "a message has one encoding");
    let committee = WORLD.committee();
    match frame {
        task::Frame::Consensus(message) => {
            verify(message.clone(), committee);
            let mut core = Recovery::new(config(0)).finish();
            deliver(&mut core, Millis::ZERO, place(1), message, &mut Vec::new());
        }
        task::Frame::Endorsement(endorsement) => {
            let mut collector = Collector::new(Arc::new(committee.clone()), place(0));
            // Whether it is taken is another target's business.
            let _ = collector.receive(place(1), endorsement);
        }
    }
}

fn verify(message: Message, committee: &Committee) {
    // Only that it ends counts here.
    match message {
        Message::Proposal(proposal) => drop(proposal.verify(committee)),
        Message::Vote(vote) => drop(vote.verify(committee)),
        Message::Timeout(timeout) => drop(timeout.verify(committee)),
        Message::Certificates(Certificates { high_qc, high_tc }) => {
            drop(high_qc.verify(committee));
            drop(high_tc.map(|tc| tc.verify(committee)));
        }
        Message::BlockResponse(BlockResponse { tip, .. }) => drop(tip.verify(committee)),
        Message::CheckpointVote(vote) => drop(vote.verify(committee)),
        Message::Checkpoint(stable) | Message::Gone(Gone { checkpoint: stable, .. }) => {
            drop(stable.verify(committee));
        }
        Message::Commands(_)
        | Message::BlockRequest(_)
        | Message::ChunkRequest(_)
        | Message::Chunks(_)
        | Message::Committed(_) => {}
    }
}

fn config(me: usize) -> Config {
    Config {
        committee: Arc::new(WORLD.committee().clone()),
        me: place(me),
        key: WORLD.replicas[me].clone(),
        times: ViewTimes::default(),
        checkpoint_interval: 2,
    }
}

fn deliver(core: &mut Core, now: Millis, from: ReplicaIndex, message: Message, records: &mut Vec<Record>) {
    // A refusal is an answer.
    let _ = core.handle(now, Input::Message { from, message });
    let _ = carry_out(core, records);
}

/// Whether the replica went on from a checkpoint.
fn carry_out(core: &mut Core, records: &mut Vec<Record>) -> bool {
    let mut installed = false;
    while let Some(output) = core.poll_output() {
        match output {
            Output::Persist(record) | Output::Append(record) => records.push(record),
            Output::Commit(committed) => {
                let (height, snapshot) = (committed.block.height(), state(0).id());
                let installed = core.installed();
                let _ = core.handle(Millis::ZERO, Input::StateAt { height, snapshot, installed });
            }
            Output::Install { .. } => installed = true,
            Output::Evidence(evidence) => proves(*evidence),
            Output::Send { .. }
            | Output::Broadcast(_)
            | Output::ServeFromJournal { .. }
            | Output::ServeChunks { .. }
            | Output::Stable { .. }
            | Output::Diverged { .. } => {}
        }
    }
    installed
}

/// Whoever is shown what a replica tells of another finds it proven.
fn proves(evidence: Evidence) {
    let verified = VerifiedEvidence::verify(evidence, WORLD.committee());
    assert!(verified.is_ok(), "{verified:?}");
}

/// An application's state: the replica's own is the first.
fn state(which: u8) -> Snapshot {
    Snapshot::of(&[which]).expect("it is small")
}

/// Three peers who sign whatever the script says, against one replica.
#[derive(Debug)]
struct Peers {
    committee: Committee,
    blocks: Vec<Arc<Block>>,
    certificates: Vec<QuorumCertificate>,
    timeouts: Vec<TimeoutCertificate>,
}

/// A replica among peers who may sign anything.
pub fn replica(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let committee = WORLD.committee().clone();
    let genesis = QuorumCertificate::genesis(&committee);
    let mut peers =
        Peers { committee, blocks: Vec::new(), certificates: vec![genesis], timeouts: Vec::new() };
    let (mut core, mut records, mut now) = (Recovery::new(config(0)).finish(), Vec::new(), Millis::ZERO);
    let mut is_installed = false;
    for _ in 0..MOST_STEPS {
        if script.is_over() {
            break;
        }
        match script.pick(8) {
            0 => {
                now = now.plus(Millis::new(script.number().min(60_000)));
                let _ = core.handle(now, Input::Timer);
            }
            1 => {
                let _ = core.handle(now, Input::PeerConnected(place(script.pick(REPLICAS))));
            }
            2 => {
                let command = Command::new(script.take(8).to_vec(), script.take(4).to_vec());
                let _ = core.handle(now, Input::Submit(command.expect("it is small")));
            }
            _ => {
                let (from, message) = peers.message(&mut script, core.view());
                if let Some(message) = message {
                    let _ = core.handle(now, Input::Message { from, message });
                }
            }
        }
        is_installed |= carry_out(&mut core, &mut records);
    }
    votes_once_a_view(&records);
    if is_installed {
        // Its journal now begins with a base, which the driver writes.
        return;
    }
    let mut recovery = Recovery::new(config(0));
    for record in records {
        recovery.record(record).expect("a replica reads its own journal back");
    }
    let (read, committed) = (recovery.finish().committed_height(), core.committed_height());
    assert_eq!(read, committed, "what was committed is read back");
}

fn votes_once_a_view(records: &[Record]) {
    let mut last = View::ZERO;
    for record in records {
        if let Record::Vote { vote, .. } = record {
            assert!(vote.view > last, "a second vote in view {}", vote.view);
            last = vote.view;
        }
    }
}

impl Peers {
    /// The next message, in whose name it comes, and sometimes changed on the way.
    fn message(&mut self, script: &mut Script<'_>, view: View) -> (ReplicaIndex, Option<Message>) {
        let from = place(1 + script.pick(REPLICAS - 1));
        let message = match script.pick(16) {
            0 => return (from, borsh::from_slice(script.bytes()).ok()),
            1 | 2 => self.proposal(script, view),
            3 => Message::Vote(self.vote(script, from, view)),
            4 => Message::Timeout(self.timeout(script, from, view)),
            5 => {
                let (high_qc, high_tc) = (self.certificate(script), self.entry(script, view));
                Message::Certificates(Certificates { high_qc, high_tc })
            }
            6 => Message::Commands(commands(script)),
            9 => {
                let checkpoint = self.checkpoint(script);
                let signature = self.sign(from, StatementKind::Checkpoint, &checkpoint);
                Message::CheckpointVote(CheckpointVote { checkpoint, voter: from, signature })
            }
            10 => Message::Checkpoint(self.stable(script)),
            11 => {
                let asked = if script.flag() {
                    Asked::Blocks(self.block_request(script))
                } else {
                    Asked::Chunks(self.chunk_request(script))
                };
                Message::Gone(Gone { asked, checkpoint: self.stable(script) })
            }
            12 => Message::ChunkRequest(self.chunk_request(script)),
            13 => {
                let (height, which) = (self.certificate(script).height, script.byte() % 2);
                let chunk = borsh::to_vec(&(vec![script.byte() % 2], Vec::<Digest>::new()));
                let chunk = borsh::from_slice(&chunk.expect("memory takes all"));
                let root = state(which).id().root();
                Message::Chunks(Chunks { height, root, first: 0, chunks: chunk.into_iter().collect() })
            }
            7 => Message::BlockRequest(self.block_request(script)),
            8 => Message::BlockResponse(BlockResponse {
                blocks: self.blocks.iter().rev().take(script.pick(8)).rev().map(Arc::clone).collect(),
                tip: self.certificate(script),
            }),
            14 => {
                let some = commands(script).into_iter().map(|command| command.digest());
                Message::Committed(some.collect())
            }
            _ => {
                let message = self.proposal(script, view);
                let mut bytes = borsh::to_vec(&message).expect("memory takes all");
                script.mutate(&mut bytes);
                return (from, borsh::from_slice(&bytes).ok());
            }
        };
        (from, Some(message))
    }

    fn block_request(&self, script: &mut Script<'_>) -> BlockRequest {
        let (target, target_height) = self.block(script);
        BlockRequest { target, target_height, above: Height::new(script.number()) }
    }

    fn chunk_request(&self, script: &mut Script<'_>) -> ChunkRequest {
        let (height, which) = (self.certificate(script).height, script.byte() % 2);
        ChunkRequest { height, root: state(which).id().root(), first: u32::from(which) }
    }

    fn proposal(&mut self, script: &mut Script<'_>, view: View) -> Message {
        let view = near(script, view);
        let leader = if script.pick(4) == 0 { place(script.pick(REPLICAS)) } else { self.leader(view) };
        let justify = self.certificate(script);
        let block = Arc::new(Block::new(view, leader, justify, Payload::new(commands(script))));
        self.blocks.push(Arc::clone(&block));
        // Everything is voted for by a quorum, sooner or later.
        let certificate = self.certify(script, view, block.height(), block.id());
        self.certificates.push(certificate);
        let entry = self.entry(script, view);
        let certificates = borsh::to_vec(&(block.justify(), &entry)).expect("memory takes all");
        let said = (view, block.id(), Digest::of(&certificates));
        let signature = self.sign(leader, StatementKind::Proposal, &said);
        Message::Proposal(Proposal { block, entry, signature })
    }

    fn vote(&self, script: &mut Script<'_>, voter: ReplicaIndex, view: View) -> Vote {
        let (block, height) = self.block(script);
        let view = near(script, view);
        let signature = self.sign(voter, StatementKind::Vote, &(view, height, block));
        Vote { view, height, block, voter, signature }
    }

    fn timeout(&self, script: &mut Script<'_>, sender: ReplicaIndex, view: View) -> Timeout {
        let (view, high_qc) = (near(script, view), self.certificate(script));
        let signature = self.sign(sender, StatementKind::Timeout, &(view, high_qc.view));
        Timeout { view, high_qc, entry: self.timeouts.last().cloned(), sender, signature }
    }

    /// A timeout certificate of the view before, or none.
    fn entry(&mut self, script: &mut Script<'_>, view: View) -> Option<TimeoutCertificate> {
        if script.flag() {
            return None;
        }
        let (view, high_qc) = (view.previous()?, self.certificate(script));
        let part = |signer: ReplicaIndex| SignedTimeoutView {
            signer,
            high_qc_view: high_qc.view,
            signature: self.sign(signer, StatementKind::Timeout, &(view, high_qc.view)),
        };
        let timeouts = (1..REPLICAS).map(|signer| part(place(signer))).collect();
        let certificate = TimeoutCertificate { view, timeouts, high_qc };
        self.timeouts.push(certificate.clone());
        Some(certificate)
    }

    fn certify(
        &self,
        script: &mut Script<'_>,
        view: View,
        height: Height,
        block: BlockId,
    ) -> QuorumCertificate {
        let signers = if script.pick(8) == 0 { 2 } else { 1 }..REPLICAS;
        let sign = |signer: usize| {
            let signer = place(signer);
            (signer, self.sign(signer, StatementKind::Vote, &(view, height, block)))
        };
        QuorumCertificate { view, height, block, signatures: signers.map(sign).collect() }
    }

    fn certificate(&self, script: &mut Script<'_>) -> QuorumCertificate {
        let back = script.pick(self.certificates.len());
        let certificate = self.certificates.iter().rev().nth(back);
        certificate.cloned().unwrap_or_else(|| QuorumCertificate::genesis(&self.committee))
    }

    fn checkpoint(&self, script: &mut Script<'_>) -> Checkpoint {
        let of = self.certificate(script);
        let state = state(script.byte() % 2).id();
        Checkpoint { height: of.height, view: of.view, block: of.block, state }
    }

    fn stable(&self, script: &mut Script<'_>) -> StableCheckpoint {
        let qc = self.certificate(script);
        let state = state(script.byte() % 2).id();
        let checkpoint = Checkpoint { height: qc.height, view: qc.view, block: qc.block, state };
        let sign =
            |signer: usize| (place(signer), self.sign(place(signer), StatementKind::Checkpoint, &checkpoint));
        let signatures = (1..REPLICAS).map(sign).collect();
        StableCheckpoint { certificate: CheckpointCertificate { checkpoint, signatures }, qc }
    }

    fn block(&self, script: &mut Script<'_>) -> (BlockId, Height) {
        let back = script.pick(self.blocks.len() + 1);
        let block = self.blocks.iter().rev().nth(back);
        block.map_or((Block::genesis_id(&self.committee), Height::ZERO), |block| (block.id(), block.height()))
    }

    fn leader(&self, view: View) -> ReplicaIndex {
        self.committee
            .replicas()
            .nth(usize::try_from(view.number() % REPLICAS as u64).unwrap_or(0))
            .expect("it is below n")
    }

    fn sign(&self, signer: ReplicaIndex, kind: StatementKind, body: &impl BorshSerialize) -> Signature {
        let body = borsh::to_vec(body).expect("memory takes all");
        let key = &WORLD.replicas[signer.as_usize()];
        key.sign(&statement_bytes(kind, &self.committee.domain(PROTOCOL_HOTSTUFF2), &body))
    }
}

fn near(script: &mut Script<'_>, view: View) -> View {
    match script.pick(8) {
        0 => View::new(script.number()),
        1 => view.next(),
        2 => view.previous().unwrap_or(view),
        _ => view,
    }
}

fn commands(script: &mut Script<'_>) -> Vec<Command> {
    let count = usize::from(b"\0\0\0\x01\x01\x02\x03"[script.pick(7)]);
    let one = |_| {
        let (head, body) = (script.take(4).to_vec(), script.take(2).to_vec());
        Command::new(head, body).expect("it is small")
    };
    (0..count).map(one).collect()
}

/// A collector of endorsements among peers who may endorse anything.
pub fn endorsements(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let committee = Arc::new(WORLD.committee().clone());
    let mut collector = Collector::new(Arc::clone(&committee), place(0));
    let mut certified = BTreeSet::new();
    for _ in 0..4 * MOST_STEPS {
        if script.is_over() {
            break;
        }
        let subject = subject(&mut script);
        let body = vec![b'0' + script.byte() % 2];
        let said = match script.pick(6) {
            0 => collector
                .endorse(&subject, PLAN_TYPE, body, &WORLD.replicas[0])
                .map_or_else(Vec::new, |(_, said)| said),
            1 => collector.collect(&subject, PLAN_TYPE, body),
            2 => collector.settle_plans(script.number()),
            3 => {
                let decoded = borsh::from_slice::<Endorsement>(script.bytes());
                decoded
                    .ok()
                    .and_then(|endorsement| collector.receive(place(1), endorsement).ok())
                    .unwrap_or_default()
            }
            _ => {
                let from = 1 + script.pick(REPLICAS - 1);
                let endorsement = endorsement(subject, &body, from, &WORLD.replicas[from]);
                collector.receive(place(from), endorsement).unwrap_or_default()
            }
        };
        for said in said {
            match said {
                Certification::Certified { subject, envelope } => {
                    let keys = committee.iter().map(|(_, key)| key);
                    envelope
                        .verify(PLAN_TYPE, keys, committee.size().quorum())
                        .expect("a certificate verifies");
                    certified.insert(subject);
                }
                Certification::Proven(evidence) => {
                    assert_ne!(evidence.offender(), place(0), "nobody contradicts himself");
                    proves(evidence);
                }
                Certification::Contradicted { by, .. } => {
                    assert_ne!(by, place(0), "nobody contradicts himself");
                }
            }
        }
    }
    assert!(collector.own().iter().all(|own| own.signer == place(0)), "only own endorsements are sent again");
}

fn subject(script: &mut Script<'_>) -> Subject {
    let kind = if script.flag() { SubjectKind::Plan } else { SubjectKind::Head };
    Subject { kind, number: script.number(), of: ["pool", "dag", ""][script.pick(3)].to_owned() }
}

/// A peer's endorsement of a body.
#[must_use]
pub fn endorsement(subject: Subject, body: &[u8], from: usize, key: &SecretKey) -> Endorsement {
    Endorsement::sign(subject, PLAN_TYPE, body, WORLD.committee(), (place(from), key))
}
