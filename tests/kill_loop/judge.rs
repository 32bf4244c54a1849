//! The judge of the kill loop before made-up statements: it names every contradiction, and blames nobody who kept to
//! the rules.
//!
//! Keys, signatures and encodings are the production code's; what is said with them is not. Invariant: each case
//! differs from the honest one in a single thing.

use std::{panic, sync::Arc};

use borsh::BorshSerialize;
use quorate::{
    consensus::{
        Block, Checkpoint, CheckpointVote, Message, Payload, Proposal, QuorumCertificate, SignedTimeoutView,
        Snapshot, Timeout, TimeoutCertificate, Vote,
        certify::{Endorsement, Subject, SubjectKind},
        task::Frame,
    },
    knowledge::{
        command::Command,
        observation::{ReportHeader, WindowSummary},
    },
    types::{
        Committee, Digest, Epoch, ReplicaIndex, SecretKey, Signature, StatementKind, UnixMillis, View,
        WindowIndex, statement_bytes,
    },
};

use crate::{harness::journal::Rules, statements::Statements};

const HOTSTUFF2: u8 = 1;
const NO_PROTOCOL: u8 = 0;

/// What a case shows the judge: frames with their senders, then journals with their owners.
#[derive(Default)]
struct Shown {
    frames: Vec<(u16, Frame)>,
    journals: Vec<(u16, Rules)>,
}

impl Shown {
    fn messages(messages: impl IntoIterator<Item = Message>) -> Self {
        let frames = messages.into_iter().map(|message| (0, Frame::Consensus(message))).collect();
        Self { frames, journals: Vec::new() }
    }

    fn journals(journals: impl IntoIterator<Item = (u16, Rules)>) -> Self {
        Self { frames: Vec::new(), journals: journals.into_iter().collect() }
    }

    fn and_journal(mut self, of: u16, journal: Rules) -> Self {
        self.journals.push((of, journal));
        self
    }
}

fn key(place: u16) -> SecretKey {
    SecretKey::from_seed(&[u8::try_from(place).expect("it is small") + 1; 32])
}

fn committee() -> Committee {
    let keys = (0..4).map(|place| key(place).public()).collect();
    Committee::new(Digest::of(b"judged"), Epoch::new(1), keys).expect("four distinct keys")
}

fn sign(place: u16, kind: StatementKind, protocol: u8, body: &impl BorshSerialize) -> Signature {
    let body = borsh::to_vec(body).expect("memory takes all");
    key(place).sign(&statement_bytes(kind, &committee().domain(protocol), &body))
}

/// A child of the first block's certificate, or of genesis; `mark` tells blocks of one view apart.
fn block(view: u64, justify: QuorumCertificate, mark: u8) -> Arc<Block> {
    let command = quorate::consensus::Command::new(vec![mark], Vec::new()).expect("it is small");
    let payload = Payload::new(vec![command]);
    Arc::new(Block::new(View::new(view), ReplicaIndex::new(1), justify, payload))
}

fn first(mark: u8) -> Arc<Block> {
    block(1, QuorumCertificate::genesis(&committee()), mark)
}

fn vote(voter: u16, block: &Block) -> Vote {
    let body = (block.view(), block.height(), block.id());
    let signature = sign(voter, StatementKind::Vote, HOTSTUFF2, &body);
    let voter = ReplicaIndex::new(voter);
    Vote { view: block.view(), height: block.height(), block: block.id(), voter, signature }
}

fn certificate(voters: &[u16], block: &Block) -> QuorumCertificate {
    let votes = voters.iter().map(|voter| vote(*voter, block));
    let signatures = votes.map(|vote| (vote.voter, vote.signature)).collect();
    QuorumCertificate { view: block.view(), height: block.height(), block: block.id(), signatures }
}

fn proposal(block: Arc<Block>) -> Message {
    let entry = None;
    let certificates = Digest::of_value(&(block.justify(), &entry));
    let body = (block.view(), block.id(), certificates);
    let signature = sign(1, StatementKind::Proposal, HOTSTUFF2, &body);
    Message::Proposal(Proposal { block, entry, signature })
}

fn timed_out(sender: u16, high_qc: QuorumCertificate, entry: Option<TimeoutCertificate>) -> Message {
    let view = View::new(5);
    let signature = sign(sender, StatementKind::Timeout, HOTSTUFF2, &(view, high_qc.view));
    Message::Timeout(Timeout { view, high_qc, entry, sender: ReplicaIndex::new(sender), signature })
}

fn timeout(sender: u16, high_qc: QuorumCertificate) -> Message {
    timed_out(sender, high_qc, None)
}

/// A timeout whose entry is a certificate of these members for the view before.
fn timeout_after(signers: &[u16]) -> Message {
    let genesis = QuorumCertificate::genesis(&committee());
    let view = View::new(4);
    let parts = signers.iter().map(|signer| SignedTimeoutView {
        signer: ReplicaIndex::new(*signer),
        high_qc_view: genesis.view,
        signature: sign(*signer, StatementKind::Timeout, HOTSTUFF2, &(view, genesis.view)),
    });
    let entry = TimeoutCertificate { view, timeouts: parts.collect(), high_qc: genesis.clone() };
    timed_out(0, genesis, Some(entry))
}

fn report(signed_at: u64) -> Message {
    let summary = WindowSummary::default();
    let header = ReportHeader {
        replica: ReplicaIndex::new(2),
        window: WindowIndex::new(7),
        partial: false,
        signed_at: UnixMillis::new(signed_at),
        body: Digest::of_value(&summary),
    };
    let report = header.sign(&committee().domain(NO_PROTOCOL), &key(2));
    let command = Command::Report { report, summary }.encode();
    let command = quorate::consensus::Command::new(command.head, command.body).expect("it is small");
    Message::Commands(vec![command])
}

fn subject() -> Subject {
    Subject { kind: SubjectKind::Plan, number: 3, of: "airflow/extract_pool".to_owned() }
}

fn endorsement(digest: &[u8]) -> Frame {
    let digest = Digest::of(digest);
    let pledge = sign(2, StatementKind::Endorsement, NO_PROTOCOL, &(subject(), digest));
    let signature = key(2).sign(b"the document");
    let signer = ReplicaIndex::new(2);
    Frame::Endorsement(Endorsement { subject: subject(), digest, signer, signature, pledge })
}

fn checkpoint(state: &[u8]) -> Message {
    let block = first(0);
    let state = Snapshot::of(state).expect("it is small").id();
    let checkpoint = Checkpoint { height: block.height(), view: block.view(), block: block.id(), state };
    let signature = sign(0, StatementKind::Checkpoint, HOTSTUFF2, &checkpoint);
    Message::CheckpointVote(CheckpointVote { checkpoint, voter: ReplicaIndex::new(0), signature })
}

/// The first block's certificate and that of its child, which commits it.
fn committed_by_certificates(mark: u8) -> Vec<Message> {
    let parent = first(mark);
    let child = block(2, certificate(&[0, 1, 2], &parent), mark);
    let grandchild = block(3, certificate(&[0, 1, 2], &child), mark);
    [parent, child, grandchild].map(proposal).into()
}

fn voted(blocks: &[&Block]) -> Rules {
    let mut rules = Rules::default();
    rules.votes = blocks.iter().map(|block| (block.view(), block.id())).collect();
    rules
}

fn committing(block: &Block) -> Rules {
    let mut rules = Rules::default();
    rules.committed = [(block.height(), block.id())].into();
    rules
}

/// What the judge says: nothing, or how it names the first contradiction.
fn judged(shown: &Shown) -> Option<String> {
    let mut wire = Vec::new();
    for (from, frame) in &shown.frames {
        let frame = borsh::to_vec(frame).expect("memory takes all");
        (ReplicaIndex::new(*from), frame).serialize(&mut wire).expect("memory takes all");
    }
    let judge = || {
        let mut statements = Statements::new(committee());
        statements.heard_on_the_wire(&wire);
        for (of, journal) in &shown.journals {
            statements.journal(ReplicaIndex::new(*of), journal);
        }
    };
    let said = panic::catch_unwind(panic::AssertUnwindSafe(judge)).err()?;
    Some(said.downcast_ref::<String>().expect("an assertion with values").clone())
}

#[test]
fn the_judge_blames_nobody_who_kept_to_the_rules() {
    let (one, other) = (first(0), first(1));
    let votes = [0, 1, 2].map(|voter| Message::Vote(vote(voter, &one)));
    let later = block(2, certificate(&[0, 1, 2], &one), 0);
    let cases = [
        ("nothing", Shown::default()),
        ("a vote that is sent again", Shown::messages([votes[0].clone(), votes[0].clone()])),
        (
            "votes and their certificate",
            Shown::messages(votes.into_iter().chain([proposal(Arc::clone(&later))])),
        ),
        (
            "two members vote differently",
            Shown::messages([Message::Vote(vote(0, &one)), Message::Vote(vote(1, &other))]),
        ),
        (
            "two certificates of one block",
            Shown::messages([
                timeout(0, certificate(&[0, 1, 2], &one)),
                timeout(1, certificate(&[1, 2, 3], &one)),
            ]),
        ),
        (
            "a report and an endorsement twice",
            Shown {
                frames: vec![
                    (2, Frame::Consensus(report(1))),
                    (2, Frame::Consensus(report(1))),
                    (2, endorsement(b"plan")),
                    (2, endorsement(b"plan")),
                ],
                journals: Vec::new(),
            },
        ),
        (
            "what the wire has stands in the journal",
            Shown::messages([Message::Vote(vote(0, &one))]).and_journal(0, voted(&[&one, &later])),
        ),
        (
            "what the wire has is older than the journal",
            Shown::messages([Message::Vote(vote(0, &one))]).and_journal(0, voted(&[&later])),
        ),
        (
            "commits by certificates and in journals agree",
            Shown::messages(committed_by_certificates(0)).and_journal(3, committing(&one)),
        ),
        ("a timeout certificate of a quorum", Shown::messages([timeout_after(&[0, 1, 2])])),
    ];
    for (name, shown) in cases {
        assert_eq!(judged(&shown), None, "{name}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases, each a few lines")]
fn the_judge_names_every_contradiction() {
    let (one, other) = (first(0), first(1));
    let later = block(2, certificate(&[0, 1, 2], &one), 0);
    let another_key = Vote { signature: vote(1, &one).signature, ..vote(0, &one) };
    let differ = "say different things";
    let cases = [
        (
            "two votes in a view",
            differ,
            Shown::messages([Message::Vote(vote(0, &one)), Message::Vote(vote(0, &other))]),
        ),
        (
            "a vote and another one in a certificate",
            differ,
            Shown::messages([Message::Vote(vote(0, &other)), timeout(1, certificate(&[0, 1, 2], &one))]),
        ),
        (
            "two proposals in a view",
            differ,
            Shown::messages([proposal(Arc::clone(&one)), proposal(Arc::clone(&other))]),
        ),
        (
            "two timeouts in a view",
            differ,
            Shown::messages([
                timeout(0, QuorumCertificate::genesis(&committee())),
                timeout(0, certificate(&[0, 1, 2], &one)),
            ]),
        ),
        ("two reports on a window", differ, Shown::messages([report(1), report(2)])),
        (
            "two endorsements of a subject",
            differ,
            Shown {
                frames: vec![(2, endorsement(b"plan")), (2, endorsement(b"another"))],
                journals: Vec::new(),
            },
        ),
        (
            "two checkpoints at a height",
            differ,
            Shown::messages([checkpoint(b"state"), checkpoint(b"another")]),
        ),
        (
            "another vote in the journal",
            differ,
            Shown::messages([Message::Vote(vote(0, &one))]).and_journal(0, voted(&[&other])),
        ),
        (
            "a vote that the journal does not hold",
            "which its journal does not hold",
            Shown::messages([Message::Vote(vote(0, &later))]).and_journal(0, voted(&[&one])),
        ),
        (
            "a vote that its member did not sign",
            "did not sign",
            Shown::messages([Message::Vote(another_key)]),
        ),
        (
            "a certificate of less than a quorum",
            "a certificate of 2",
            Shown::messages([timeout(0, certificate(&[0, 1], &one))]),
        ),
        (
            "a certificate of one member twice",
            "a certificate of 2",
            Shown::messages([timeout(0, certificate(&[0, 1, 1], &one))]),
        ),
        (
            "a timeout certificate of less than a quorum",
            "a timeout certificate of 2",
            Shown::messages([timeout_after(&[0, 1])]),
        ),
        (
            "two blocks committed at a height",
            "have different blocks committed",
            Shown::journals([(0, committing(&one)), (1, committing(&other))]),
        ),
        (
            "another block than the certificates commit",
            "have different blocks committed",
            Shown::messages(committed_by_certificates(0)).and_journal(3, committing(&other)),
        ),
    ];
    for (name, expected, shown) in cases {
        let said = judged(&shown).unwrap_or_default();
        assert!(said.contains(expected), "{name}: {said:?}");
    }
}
