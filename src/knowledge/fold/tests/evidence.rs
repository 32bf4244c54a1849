//! The rules V1 to V4: which evidence is logged, and what is refused before any signature is looked at.

use super::*;
use crate::{
    knowledge::{evidence::EvidenceKind, fold::EvidenceRefusal},
    types::{Evidence, Signature, SignedStatement, StatementKind, statement_bytes},
};

/// The numbers of the kinds of subjects in an endorsement's statement.
const PLAN: u8 = 0;
const HEAD: u8 = 1;

impl Replicas {
    /// Evidence that a replica signed two bodies of this kind.
    fn contradiction(
        &self,
        replica: usize,
        (kind, protocol): (StatementKind, u8),
        bodies: [Vec<u8>; 2],
    ) -> Evidence {
        let domain = self.state.committee().domain(protocol);
        let [one, other] = bodies.map(|body| {
            let bytes = statement_bytes(kind, &domain, &body);
            SignedStatement { signature: self.keys[replica].sign(&bytes), bytes }
        });
        Evidence::contradiction(place(replica), one, other)
    }

    /// Evidence of two votes in a view.
    pub(super) fn double_vote(&self, replica: usize, view: u64) -> Evidence {
        let bodies = [b"a", b"b"].map(|block| bytes_of(&(view, 7_u64, Digest::of(block))));
        self.contradiction(replica, (StatementKind::Vote, 1), bodies)
    }

    /// Evidence of two endorsements of one subject.
    pub(super) fn double_endorsement(&self, replica: usize, kind: u8, number: u64, of: &str) -> Evidence {
        let bodies = [b"a", b"b"].map(|digest| bytes_of(&(kind, number, of.to_owned(), Digest::of(digest))));
        self.contradiction(replica, (StatementKind::Endorsement, 0), bodies)
    }

    /// Has evidence ordered; why it was refused, if it was.
    fn accuse(&mut self, evidence: Evidence) -> Option<EvidenceRefusal> {
        let applied = self.apply(Command::Evidence(evidence));
        match applied.changes.as_slice() {
            [Change::EvidenceLogged(_)] => None,
            [Change::EvidenceRefused { why, .. }] => Some(why.clone()),
            other => panic!("evidence is logged or refused: {other:?}"),
        }
    }
}

fn bytes_of(value: &impl borsh::BorshSerialize) -> Vec<u8> {
    borsh::to_vec(value).expect("in memory")
}

/// The same without valid signatures.
fn unsigned(evidence: Evidence) -> Evidence {
    match evidence {
        Evidence::Contradiction { offender, statements } => {
            let statements = statements
                .map(|statement| SignedStatement { signature: Signature::from_bytes([0; 64]), ..statement });
            Evidence::Contradiction { offender, statements }
        }
        Evidence::InvalidCertificate { .. } => panic!("no test makes one"),
    }
}

#[test]
fn v1_to_v3_an_offence_is_logged_once_and_of_each_kind_a_few() {
    let mut replicas = Replicas::begun(4);
    for view in 1..=4 {
        let evidence = replicas.double_vote(2, view);
        let is_forged =
            matches!(replicas.accuse(unsigned(evidence.clone())), Some(EvidenceRefusal::NotVerified(_)));
        assert!(is_forged, "view {view}");
        assert_eq!(replicas.accuse(evidence.clone()), None, "view {view}");
        assert_eq!(replicas.accuse(evidence), Some(EvidenceRefusal::Duplicate), "view {view}");
    }
    assert_eq!(replicas.accuse(replicas.double_vote(2, 5)), Some(EvidenceRefusal::Enough));
    assert_eq!(replicas.accuse(replicas.double_vote(1, 5)), None, "another replica");
    assert_eq!(replicas.accuse(replicas.double_endorsement(2, PLAN, 3, "pool")), None, "another kind");
}

#[test]
fn evidence_that_would_prove_nothing_new_is_refused_before_its_signatures_are_looked_at() {
    let mut replicas = Replicas::begun(4);
    for view in 1..=4 {
        assert_eq!(replicas.accuse(replicas.double_vote(2, view)), None);
    }
    // Their signatures do not verify, and nobody came as far as that.
    for (view, why) in [(4, EvidenceRefusal::Duplicate), (5, EvidenceRefusal::Enough)] {
        assert_eq!(replicas.accuse(unsigned(replicas.double_vote(2, view))), Some(why));
    }
}

#[test]
fn v4_evidence_about_no_target_and_no_shard_takes_no_place() {
    let mut replicas = Replicas::begun(4);
    for (kind, of) in [
        (PLAN, "pond"),
        (PLAN, "0"),
        (PLAN, "pool\n"),
        (HEAD, "1"),
        (HEAD, "00"),
        (HEAD, "+0"),
        (HEAD, "pool"),
    ] {
        let refused = replicas.accuse(replicas.double_endorsement(3, kind, 9, of));
        assert!(matches!(refused, Some(EvidenceRefusal::UnknownSubject(_))), "{kind} of {of:?}: {refused:?}");
    }
    assert_eq!(replicas.accuse(replicas.double_endorsement(3, PLAN, 9, "pool")), None);
    assert_eq!(replicas.accuse(replicas.double_endorsement(3, HEAD, 9, "0")), None);
    let logged: Vec<_> = replicas.state.evidence().iter().map(|proven| proven.kind).collect();
    assert_eq!(logged, [EvidenceKind::DoubleEndorsement; 2]);
}
