//! Rules Y1 to Y4: what is evidence, and that nothing else is.

use super::{
    Cluster, Input, Rejected, certificate, certificates_bytes, command, committee, key, proposal_bytes,
};
use crate::{
    consensus::{
        Block, Certificates, Message, Payload, Proposal, QuorumCertificate, SignedTimeoutView, Timeout,
        TimeoutCertificate, Vote,
        certificate::{proposal_statement, timeout_statement, vote_statement},
    },
    knowledge::evidence::{EvidenceError, EvidenceKind, VerifiedEvidence},
    types::{Committee, Digest, Evidence, Height, ReplicaIndex, Signature, SignedStatement, View},
};
use std::sync::Arc;

fn vote(voter: u16, view: u64, height: u64, block: &[u8]) -> Vote {
    let (view, height, block) = (View::new(view), Height::new(height), Digest::of(block));
    let signature = key(voter).sign(&vote_statement(&committee(4), view, height, block));
    Vote { view, height, block, voter: ReplicaIndex::new(voter), signature }
}

fn proposal(text: &str, justify: QuorumCertificate, entry: Option<TimeoutCertificate>) -> Proposal {
    let payload = Payload::new(vec![command(text)]);
    let block = Arc::new(Block::new(View::new(1), ReplicaIndex::new(1), justify, payload));
    let certificates = Digest::of(&certificates_bytes(block.justify(), entry.as_ref()));
    let statement = proposal_statement(&committee(4), block.view(), block.id(), certificates);
    Proposal { signature: key(1).sign(&statement), block, entry }
}

fn timeout(sender: u16, view: u64, high_qc: &QuorumCertificate) -> Timeout {
    let statement = timeout_statement(&committee(4), View::new(view), high_qc.view);
    Timeout {
        view: View::new(view),
        high_qc: high_qc.clone(),
        entry: None,
        sender: ReplicaIndex::new(sender),
        signature: key(sender).sign(&statement),
    }
}

/// Gives replica 0 a message of a peer; whether it is taken is another matter.
fn hear(cluster: &mut Cluster, from: u16, message: Message) {
    let _ = cluster.give(0, Input::Message { from: ReplicaIndex::new(from), message });
}

/// What replica 0 put out, verified: against whom, and of what.
fn proven(cluster: &Cluster) -> Vec<(u16, EvidenceKind)> {
    let verified = cluster.evidence.iter().map(|(_, evidence)| {
        let verified = VerifiedEvidence::verify(evidence.clone(), &committee(4)).expect("it is evidence");
        (verified.offender().place(), verified.kind())
    });
    verified.collect()
}

#[test]
fn a_second_vote_in_a_view_is_evidence_once_and_a_copy_never() {
    let mut cluster = Cluster::new(4);
    let (first, second) = (vote(2, 1, 1, b"a"), vote(2, 1, 1, b"b"));
    for vote in [&first, &first] {
        hear(&mut cluster, 2, Message::Vote(vote.clone()));
    }
    assert_eq!(proven(&cluster), []);
    for vote in [second.clone(), second, vote(2, 1, 2, b"a")] {
        hear(&mut cluster, 2, Message::Vote(vote));
    }
    assert_eq!(proven(&cluster), [(2, EvidenceKind::DoubleVote)]);
}

#[test]
fn a_vote_that_was_not_signed_incriminates_nobody() {
    let mut cluster = Cluster::new(4);
    hear(&mut cluster, 2, Message::Vote(vote(2, 1, 1, b"a")));
    let forged = Vote { voter: ReplicaIndex::new(2), ..vote(3, 1, 1, b"b") };
    hear(&mut cluster, 3, Message::Vote(forged));
    assert_eq!(proven(&cluster), []);
}

#[test]
fn a_vote_meets_the_other_one_inside_a_certificate() {
    let mut cluster = Cluster::new(4);
    let block = proposal("a", QuorumCertificate::genesis(&committee(4)), None).block;
    hear(&mut cluster, 2, Message::Vote(vote(2, 1, 1, b"other")));
    let certificates = Certificates { high_qc: certificate(4, &block), high_tc: None };
    hear(&mut cluster, 3, Message::Certificates(certificates));
    assert_eq!(proven(&cluster), [(2, EvidenceKind::DoubleVote)]);
    // And when it comes after the certificate, for a view that is over.
    hear(&mut cluster, 1, Message::Vote(vote(1, 1, 1, b"late")));
    assert_eq!(proven(&cluster), [(2, EvidenceKind::DoubleVote), (1, EvidenceKind::DoubleVote)]);
}

#[test]
fn of_a_known_certificate_no_more_signatures_are_looked_at_than_a_certificate_has() {
    let mut cluster = Cluster::new(4);
    let block = proposal("a", QuorumCertificate::genesis(&committee(4)), None).block;
    let known = certificate(4, &block);
    let says = |high_qc: QuorumCertificate| Message::Timeout(timeout(2, 2, &high_qc));
    hear(&mut cluster, 3, Message::Vote(vote(3, 1, 1, b"other")));
    hear(&mut cluster, 2, says(known.clone()));
    let statement = vote_statement(&committee(4), known.view, known.height, known.block);
    let offender = (ReplicaIndex::new(3), key(3).sign(&statement));
    for signatures in [vec![offender], vec![offender; 1_000]] {
        hear(&mut cluster, 2, says(QuorumCertificate { signatures, ..known.clone() }));
        assert!(proven(&cluster).is_empty());
    }
    let mut signatures: Vec<_> = known.signatures.iter().copied().filter(|(by, _)| by.place() != 3).collect();
    signatures.push(offender);
    hear(&mut cluster, 2, says(QuorumCertificate { signatures, ..known }));
    assert_eq!(proven(&cluster), [(3, EvidenceKind::DoubleVote)]);
}

#[test]
fn a_second_proposal_for_a_view_is_evidence() {
    let mut cluster = Cluster::new(4);
    let genesis = QuorumCertificate::genesis(&committee(4));
    for text in ["a", "a", "b", "c"] {
        hear(&mut cluster, 1, Message::Proposal(proposal(text, genesis.clone(), None)));
    }
    assert_eq!(proven(&cluster), [(1, EvidenceKind::DoubleProposal)]);
}

#[test]
fn a_second_timeout_with_another_certificate_is_evidence() {
    let mut cluster = Cluster::new(4);
    let committee = committee(4);
    let genesis = QuorumCertificate::genesis(&committee);
    let block = proposal("a", genesis.clone(), None).block;
    let high_qc = certificate(4, &block);
    for high_qc in [&genesis, &genesis, &high_qc] {
        hear(&mut cluster, 3, Message::Timeout(timeout(3, 2, high_qc)));
    }
    // Replica 0 was in view 1 when the first ones came, and view 2 is the next one.
    assert_eq!(proven(&cluster), [(3, EvidenceKind::DoubleTimeout)]);
}

#[test]
fn one_replicas_offences_are_told_a_few_times() {
    let mut cluster = Cluster::new(4);
    let mut block = proposal("a", QuorumCertificate::genesis(&committee(4)), None).block;
    for view in 1..20 {
        hear(&mut cluster, 2, Message::Vote(vote(2, view, 1, b"a")));
        hear(&mut cluster, 2, Message::Vote(vote(2, view, 1, b"b")));
        let certificates = Certificates { high_qc: certificate(4, &block), high_tc: None };
        hear(&mut cluster, 3, Message::Certificates(certificates));
        let justify = certificate(4, &block);
        block = Arc::new(Block::new(View::new(view + 1), ReplicaIndex::new(1), justify, Payload::default()));
    }
    assert_eq!(cluster.evidence.len(), super::super::super::evidence::MAX_TOLD);
    assert!(cluster.cores[0].buffered().statements <= 10 * 3 * 4);
}

#[test]
fn honest_replicas_that_restart_and_say_everything_again_give_no_evidence() {
    let mut cluster = Cluster::new(4);
    for number in 0..4 {
        cluster.give(number, Input::Submit(command(&number.to_string()))).expect("room");
        cluster.settle();
        cluster.cut = vec![number];
        cluster.give((number + 1) % 4, Input::Submit(command("more"))).expect("room");
        cluster.settle();
        let waits = |peer: &u16| cluster.cores[usize::from(*peer)].next_timeout().is_some();
        if (0..4).filter(|peer| *peer != number).any(|peer| waits(&peer)) {
            cluster.run_timers();
            cluster.settle();
        }
        cluster.restart(number);
        cluster.cut = Vec::new();
        for peer in (0..4).filter(|peer| *peer != number) {
            let connected = Input::PeerConnected(ReplicaIndex::new(number));
            cluster.give(peer, connected).expect("it is no bad input");
            let connected = Input::PeerConnected(ReplicaIndex::new(peer));
            cluster.give(number, connected).expect("it is no bad input");
        }
        cluster.settle();
    }
    assert!(cluster.commits.iter().all(|commits| commits.len() > 4), "they agreed on something");
    assert_eq!(proven(&cluster), []);
}

#[test]
fn a_leader_that_proposes_on_a_false_certificate_has_signed_it_and_who_swaps_one_proves_nothing() {
    let mut cluster = Cluster::new(4);
    let genesis = QuorumCertificate::genesis(&committee(4));
    let honest = proposal("a", genesis.clone(), None);
    let false_entry = TimeoutCertificate { view: View::ZERO, timeouts: Vec::new(), high_qc: genesis.clone() };
    let swapped = Proposal { entry: Some(false_entry), ..honest };
    let refused =
        cluster.give(0, Input::Message { from: ReplicaIndex::new(2), message: Message::Proposal(swapped) });
    assert!(matches!(refused, Err(Rejected::Certificate(_))), "{refused:?}");
    assert_eq!(proven(&cluster), []);

    let mut few = certificate(4, &proposal("a", genesis, None).block);
    few.signatures.pop();
    let justified = proposal("b", few, None);
    hear(&mut cluster, 2, Message::Proposal(justified.clone()));
    hear(&mut cluster, 1, Message::Proposal(justified));
    assert_eq!(proven(&cluster), [(1, EvidenceKind::InvalidCertificate)]);
}

/// Evidence against replica 1 for its proposal on these certificates, whatever they are.
fn accusation(justify: &QuorumCertificate, entry: Option<&TimeoutCertificate>) -> Evidence {
    let proposal = proposal("a", justify.clone(), entry.cloned());
    let certificates = certificates_bytes(justify, entry);
    let (view, block) = (proposal.block.view(), proposal.block.id());
    let bytes = proposal_statement(&committee(4), view, block, Digest::of(&certificates));
    let proposal = SignedStatement { bytes, signature: proposal.signature };
    Evidence::InvalidCertificate { offender: ReplicaIndex::new(1), proposal, certificates }
}

/// The two judgements on certificates, which share no code.
fn judgements(
    committee: &Committee,
    justify: &QuorumCertificate,
    entry: Option<&TimeoutCertificate>,
) -> (bool, bool) {
    let verifies = justify.clone().verify(committee).is_ok()
        && entry.is_none_or(|entry| entry.clone().verify(committee).is_ok());
    let evidence = VerifiedEvidence::verify(accusation(justify, entry), committee);
    let is_cleared = match evidence {
        Ok(_) => false,
        Err(EvidenceError::CertificatesVerify) => true,
        Err(other) => panic!("the proposal is signed: {other}"),
    };
    (verifies, is_cleared)
}

#[test]
fn what_consensus_takes_is_never_evidence_and_what_it_refuses_always_is() {
    let committee = committee(4);
    let genesis = QuorumCertificate::genesis(&committee);
    let block = proposal("a", genesis.clone(), None).block;
    let sound = certificate(4, &block);
    let timeouts = [0, 2, 3].map(|sender| {
        let timeout = timeout(sender, 3, &sound);
        SignedTimeoutView { signer: timeout.sender, high_qc_view: sound.view, signature: timeout.signature }
    });
    let entry =
        TimeoutCertificate { view: View::new(3), timeouts: timeouts.to_vec(), high_qc: sound.clone() };
    let changed = |change: &dyn Fn(&mut QuorumCertificate)| {
        let mut certificate = sound.clone();
        change(&mut certificate);
        certificate
    };
    let fifth = (ReplicaIndex::new(4), Signature::from_bytes([0; 64]));
    let quorums = [
        genesis.clone(),
        sound.clone(),
        QuorumCertificate { height: Height::new(1), ..genesis.clone() },
        QuorumCertificate { block: block.id(), ..genesis.clone() },
        QuorumCertificate { signatures: sound.signatures.clone(), ..genesis.clone() },
        changed(&|certificate| certificate.signatures.clear()),
        changed(&|certificate| certificate.signatures.truncate(2)),
        changed(&|certificate| certificate.signatures.swap(0, 1)),
        changed(&|certificate| certificate.signatures[1] = certificate.signatures[0]),
        changed(&|certificate| certificate.signatures.push(fifth)),
        changed(&|certificate| certificate.signatures[2].1 = certificate.signatures[0].1),
        changed(&|certificate| certificate.height = Height::new(2)),
        changed(&|certificate| certificate.view = View::new(2)),
        changed(&|certificate| certificate.block = Digest::ZERO),
    ];
    for justify in &quorums {
        let (verifies, is_cleared) = judgements(&committee, justify, None);
        assert_eq!(verifies, is_cleared, "{justify:?}");
    }
    let entries: [&dyn Fn(&mut TimeoutCertificate); 9] = [
        &|_| {},
        &|entry| entry.timeouts.truncate(2),
        &|entry| entry.timeouts.swap(0, 1),
        &|entry| entry.timeouts[1] = entry.timeouts[0],
        &|entry| entry.timeouts[2].high_qc_view = View::ZERO,
        &|entry| entry.view = View::new(4),
        &|entry| entry.high_qc = QuorumCertificate::genesis(&super::committee(4)),
        &|entry| entry.high_qc.signatures.truncate(2),
        &|entry| entry.timeouts.clear(),
    ];
    for (number, change) in entries.iter().enumerate() {
        let mut entry = entry.clone();
        change(&mut entry);
        let (verifies, is_cleared) = judgements(&committee, &sound, Some(&entry));
        assert_eq!((verifies, is_cleared), (number == 0, number == 0), "entry {number}");
    }
    // The proposal's own bytes of the fixture are those that replicas sign.
    let statement = proposal_bytes(&committee, &block);
    let signed = proposal("a", genesis, None).signature;
    assert!(key(1).public().verify(&statement, &signed).is_ok());
}
