//! What proves an offence, what does not, and the document.

use borsh::BorshSerialize;

use super::{EvidenceError, EvidenceKind, Slot, VerifiedEvidence};
use crate::{
    knowledge::{
        fixtures::{committee, double_report, replica_keys},
        observation::{ReportHeader, Tick},
    },
    types::{
        Committee, Digest, Domain, Epoch, Evidence, Height, ReplicaIndex, SignedStatement, StatementKind,
        UnixMillis, View, WindowIndex, statement_bytes,
    },
};

const OFFENDER: ReplicaIndex = ReplicaIndex::new(1);

/// A statement with a body, signed by the offender.
fn signed(kind: StatementKind, domain: &Domain, body: &impl BorshSerialize) -> SignedStatement {
    let body = borsh::to_vec(body).expect("writing to memory does not fail");
    let bytes = statement_bytes(kind, domain, &body);
    SignedStatement { signature: replica_keys()[OFFENDER.as_usize()].sign(&bytes), bytes }
}

fn vote(view: u64, height: u64, block: &[u8]) -> SignedStatement {
    signed(StatementKind::Vote, &committee().domain(1), &(view, height, Digest::of(block)))
}

fn timeout(view: u64, high_qc_view: u64) -> SignedStatement {
    signed(StatementKind::Timeout, &committee().domain(1), &(view, high_qc_view))
}

fn proposal(view: u64, block: &[u8], certificates: &[u8]) -> SignedStatement {
    let body = (view, Digest::of(block), Digest::of(certificates));
    signed(StatementKind::Proposal, &committee().domain(1), &body)
}

fn endorsement(kind: u8, number: u64, of: &str, digest: &[u8]) -> SignedStatement {
    let body = (kind, number, of.to_owned(), Digest::of(digest));
    signed(StatementKind::Endorsement, &committee().domain(0), &body)
}

fn checkpoint(height: u64, state: &[u8]) -> SignedStatement {
    let body = (height, 9_u64, Digest::ZERO, (Digest::of(state), 1_u32, 8_u64));
    signed(StatementKind::Checkpoint, &committee().domain(1), &body)
}

fn report(window: u64, signed_at: u64) -> SignedStatement {
    let header = ReportHeader {
        replica: OFFENDER,
        window: WindowIndex::new(window),
        partial: false,
        signed_at: UnixMillis::new(signed_at),
        body: Digest::ZERO,
    };
    signed(StatementKind::Report, &committee().domain(0), &header)
}

fn judged(one: SignedStatement, other: SignedStatement) -> Result<(EvidenceKind, Slot), EvidenceError> {
    let evidence = Evidence::contradiction(OFFENDER, one, other);
    VerifiedEvidence::verify(evidence, &committee())
        .map(|verified| (verified.kind(), verified.slot().clone()))
}

#[test]
fn two_statements_for_one_slot_prove_an_offence() {
    let view = Slot::View(View::new(7));
    let plan = Slot::Plan { cycle: 7, target: "pool".to_owned() };
    let head = Slot::Head { number: 7, shard: "0".to_owned() };
    let cases = [
        (vote(7, 3, b"a"), vote(7, 3, b"b"), EvidenceKind::DoubleVote, view.clone()),
        (vote(7, 3, b"a"), vote(7, 4, b"a"), EvidenceKind::DoubleVote, view.clone()),
        (proposal(7, b"a", b""), proposal(7, b"b", b""), EvidenceKind::DoubleProposal, view.clone()),
        (proposal(7, b"a", b""), proposal(7, b"a", b"c"), EvidenceKind::DoubleProposal, view.clone()),
        (timeout(7, 3), timeout(7, 4), EvidenceKind::DoubleTimeout, view),
        (
            checkpoint(256, b"a"),
            checkpoint(256, b"b"),
            EvidenceKind::DoubleCheckpoint,
            Slot::Height(Height::new(256)),
        ),
        (report(7, 1), report(7, 2), EvidenceKind::DoubleReport, Slot::Window(WindowIndex::new(7))),
        (
            endorsement(0, 7, "pool", b"a"),
            endorsement(0, 7, "pool", b"b"),
            EvidenceKind::DoubleEndorsement,
            plan,
        ),
        (endorsement(1, 7, "0", b"a"), endorsement(1, 7, "0", b"b"), EvidenceKind::DoubleEndorsement, head),
    ];
    for (one, other, kind, slot) in cases {
        assert_eq!(judged(other.clone(), one.clone()), Ok((kind, slot.clone())));
        assert_eq!(judged(one, other), Ok((kind, slot)), "in whatever order they were seen");
    }
}

#[test]
fn what_an_honest_replica_signs_proves_nothing() {
    let tick = |at| {
        let tick = Tick { replica: OFFENDER, signed_at: UnixMillis::new(at) };
        signed(StatementKind::Tick, &committee().domain(0), &tick)
    };
    let cases = [
        ("a copy", vote(7, 3, b"a"), vote(7, 3, b"a")),
        ("two views", vote(7, 3, b"a"), vote(8, 3, b"b")),
        ("a vote and a timeout", vote(7, 3, b"a"), timeout(7, 3)),
        ("a vote and a proposal", vote(7, 3, b"a"), proposal(7, b"a", b"")),
        ("two heights", checkpoint(256, b"a"), checkpoint(512, b"b")),
        ("two windows", report(7, 1), report(8, 1)),
        ("two ticks", tick(1), tick(2)),
        ("two cycles", endorsement(0, 7, "pool", b"a"), endorsement(0, 8, "pool", b"b")),
        ("two targets", endorsement(0, 7, "pool", b"a"), endorsement(0, 7, "other", b"b")),
        ("a plan and a head", endorsement(0, 7, "0", b"a"), endorsement(1, 7, "0", b"b")),
    ];
    for (what, one, other) in cases {
        assert_eq!(judged(one, other), Err(EvidenceError::NoContradiction), "{what}");
    }
}

#[test]
fn what_others_signed_or_what_belongs_elsewhere_is_refused() {
    let (one, other) = (vote(7, 3, b"a"), vote(7, 3, b"b"));
    let against = |offender: u16| {
        let evidence = Evidence::contradiction(ReplicaIndex::new(offender), one.clone(), other.clone());
        VerifiedEvidence::verify(evidence, &committee()).map(|verified| verified.offender())
    };
    assert_eq!(against(1), Ok(OFFENDER));
    assert_eq!(against(2), Err(EvidenceError::BadSignature(ReplicaIndex::new(2))));
    assert_eq!(against(4), Err(EvidenceError::Stranger(ReplicaIndex::new(4))));

    let home = committee().domain(1);
    let elsewhere = [
        Domain { cluster: Digest::of(b"other"), ..home },
        Domain { epoch: Epoch::new(2), ..home },
        Domain { protocol: 0, ..home },
        Domain { protocol: 2, ..home },
    ];
    for domain in elsewhere {
        let body = |block: &[u8]| (7_u64, 3_u64, Digest::of(block));
        let (one, other) = (
            signed(StatementKind::Vote, &domain, &body(b"a")),
            signed(StatementKind::Vote, &domain, &body(b"b")),
        );
        assert_eq!(judged(one, other), Err(EvidenceError::Elsewhere), "{domain:?}");
    }
    let longer = |block: &[u8]| signed(StatementKind::Vote, &home, &(7_u64, 3_u64, Digest::of(block), 0_u8));
    assert_eq!(judged(longer(b"a"), longer(b"b")), Err(EvidenceError::NoStatement));
    let huge = |byte: u8| signed(StatementKind::Vote, &home, &vec![byte; 1_000]);
    assert!(matches!(judged(huge(0), huge(1)), Err(EvidenceError::TooLarge { .. })));
    // Another's header that the offender signed is no report of its own.
    let foreign = |partial| {
        let header = ReportHeader {
            replica: ReplicaIndex::new(2),
            window: WindowIndex::new(7),
            partial,
            signed_at: UnixMillis::ZERO,
            body: Digest::ZERO,
        };
        signed(StatementKind::Report, &committee().domain(0), &header)
    };
    assert_eq!(judged(foreign(true), foreign(false)), Err(EvidenceError::NoContradiction));
}

#[test]
fn the_order_of_the_statements_is_one() {
    let Evidence::Contradiction { offender, statements: [first, second] } = double_report(1) else {
        panic!("two statements contradict each other")
    };
    let turned = Evidence::Contradiction { offender, statements: [second, first] };
    assert_eq!(VerifiedEvidence::verify(turned, &committee()), Err(EvidenceError::OutOfOrder));
}

#[test]
fn a_proposal_is_judged_by_the_certificates_that_it_signed() {
    let (no_quorum, genesis) = {
        let genesis_id = |committee: &Committee| {
            Digest::of_value(&("quorate genesis", committee.cluster(), committee.epoch()))
        };
        let certificate = |view: u64, block: Digest| {
            let signatures: Vec<(ReplicaIndex, [u8; 64])> = Vec::new();
            borsh::to_vec(&(view, 0_u64, block, signatures, None::<u8>)).expect("it is written to memory")
        };
        (certificate(3, Digest::ZERO), certificate(0, genesis_id(&committee())))
    };
    let judged = |signed: &[u8], shown: &[u8]| {
        let (proposal, certificates) = (proposal(7, b"a", signed), shown.to_vec());
        let evidence = Evidence::InvalidCertificate { offender: OFFENDER, proposal, certificates };
        VerifiedEvidence::verify(evidence, &committee()).map(|verified| verified.kind())
    };
    assert_eq!(judged(&no_quorum, &no_quorum), Ok(EvidenceKind::InvalidCertificate));
    assert_eq!(judged(&genesis, &genesis), Err(EvidenceError::CertificatesVerify));
    assert_eq!(judged(&genesis, &no_quorum), Err(EvidenceError::OtherCertificates));
    assert_eq!(judged(b"noise", b"noise"), Err(EvidenceError::NoStatement));
}

#[test]
fn a_document_reads_back_and_refuses_every_other_claim() {
    let verified = VerifiedEvidence::verify(double_report(1), &committee()).expect("it is evidence");
    let document = verified.to_json();
    assert_eq!(VerifiedEvidence::from_json(&document, &committee()), Ok(verified));
    let text = String::from_utf8(document).expect("JSON is text");
    let changes = [
        ("\"r1\"", "\"r2\""),
        ("\"r1\"", "\"r01\""),
        ("double_report", "double_vote"),
        ("window 7", "window 8"),
        ("\"epoch\":1", "\"epoch\":2"),
        ("evidence.v1", "evidence.v2"),
        ("\"certificates\":\"\"", "\"certificates\":\"AA==\""),
        ("{\"type\"", "{\"more\":1,\"type\""),
    ];
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in {text}");
        let changed = text.replacen(from, to, 1);
        let refused = VerifiedEvidence::from_json(changed.as_bytes(), &committee());
        assert!(refused.is_err(), "{to} was taken: {changed}");
    }
}
