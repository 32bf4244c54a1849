//! Certify: signatures over documents that every replica derives alone become certificates.
//!
//! Replicas exchange [`Endorsement`]s: a signature with the digest of what was signed, never the bytes. A
//! signature counts here only for the very bytes that this replica derived itself, so nobody can make it
//! certify what it would not have said. It works the same whichever consensus protocol runs.
//!
//! - **E1** A replica endorses one digest per subject; the journal holds it before the signature leaves.
//! - **E2** An endorsement counts iff its digest is the own one and its signature verifies over the own bytes.
//! - **E3** One per peer and subject; early ones wait, of each peer those that are due next: numbers far ahead push none of
//!   them out. A head that is derived ends the wait of older ones of its shard.
//! - **E4** A quorum of equal endorsements is the certificate, made once.
//! - **E5** A verified member's endorsement of another digest is reported once per peer and subject; the rest goes on.
//! - **E6** Of old plans, and of those that were derived before this replica's state began as a checkpoint gave it,
//!   it is not known here what was derived: endorsements of them are neither kept nor reported. What was derived here before it
//!   began so counts no more, and what peers said of it waits to be derived again.
//! - **E7** An endorsement carries a pledge as well: a signature over subject and digest alone, and nothing counts
//!   without a valid one. The document's signature covers bytes that others do not have; two pledges of one
//!   replica with different digests for one subject are evidence that anybody can verify.

use borsh::{BorshDeserialize, BorshSerialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::types::{
    Committee, Digest, Envelope, Evidence, KeyId, PublicKey, ReplicaIndex, SecretKey, Signature,
    SignedStatement, StatementKind, pae, statement_bytes,
};

/// How many subjects of a kind are collected at once: heads of all shards, plans of several cycles. The oldest
/// goes.
const MAX_OPEN_PER_KIND: usize = 512;

/// How many of them may be of one target or shard: a plan lapses within two or three cycles, and a head is superseded
/// by the next one.
const MAX_OPEN_PER_NAME: usize = 16;

/// How many endorsements of subjects that are not derived here yet wait per peer and kind.
const MAX_EARLY_PER_KIND: usize = 128;

/// How many unfounded endorsements are remembered per peer, so that each is told once.
pub const MAX_UNFOUNDED_PER_PEER: usize = 256;

/// For how many subjects two pledges of one peer are told: the first proves all that the others would.
const MAX_PROVEN_PER_PEER: usize = 16;

/// The longest name that a subject may have: the longest that a target may have.
pub const MAX_SUBJECT_NAME_BYTES: usize = 128;

/// What a signature is about: a kind of document and its place in that kind's order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Subject {
    /// The document's kind.
    pub kind: SubjectKind,
    /// The place in the kind's order: a plan's control cycle, a head's number. Larger is newer.
    pub number: u64,
    /// Of what: a target or a shard.
    pub of: String,
}

/// The kinds of documents that a quorum certifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum SubjectKind {
    /// A plan.
    Plan,
    /// A head.
    Head,
}

/// One replica's signature over a document, by digest.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Endorsement {
    /// What it is about.
    pub subject: Subject,
    /// SHA-256 of the document's body.
    pub digest: Digest,
    /// Who signs.
    pub signer: ReplicaIndex,
    /// Its signature over the body's pre-authentication encoding.
    pub signature: Signature,
    /// Its signature over subject and digest (rule E7).
    pub pledge: Signature,
}

impl Endorsement {
    /// The endorsement of a document's body.
    #[must_use]
    pub fn sign(
        subject: Subject,
        document_type: &str,
        body: &[u8],
        committee: &Committee,
        (signer, key): (ReplicaIndex, &SecretKey),
    ) -> Self {
        let digest = Digest::of(body);
        let signature = key.sign(&pae(document_type, body));
        let pledge = key.sign(&pledge_bytes(committee, &subject, digest));
        Self { subject, digest, signer, signature, pledge }
    }

    /// The pledge with the bytes that it signs.
    fn pledged(&self, committee: &Committee) -> SignedStatement {
        let bytes = pledge_bytes(committee, &self.subject, self.digest);
        SignedStatement { bytes, signature: self.pledge }
    }
}

/// The bytes that a pledge signs: the statement of an endorsement, in the domain of no protocol.
#[must_use]
pub fn pledge_bytes(committee: &Committee, subject: &Subject, digest: Digest) -> Vec<u8> {
    let body = borsh::to_vec(&(subject, digest)).expect("writing to memory does not fail");
    statement_bytes(StatementKind::Endorsement, &committee.domain(0), &body)
}

/// What the collector has to say after an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certification {
    /// A quorum has endorsed the own bytes.
    Certified {
        /// What it is about.
        subject: Subject,
        /// The document with its certificate.
        envelope: Envelope,
    },
    /// A replica endorses something else than this one.
    Contradicted {
        /// What it is about.
        subject: Subject,
        /// Who.
        by: ReplicaIndex,
        /// The digest that it names.
        theirs: Digest,
        /// The digest of what was derived here; `None` when nothing was derived for the subject.
        ours: Option<Digest>,
    },
    /// A replica pledged two digests for one subject (rule E7).
    Proven(Evidence),
}

/// Why a peer's endorsement is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndorsementError {
    /// The signer is not the peer whose link it came over.
    #[error("{from} sent an endorsement in the name of {signer}")]
    InAnothersName {
        /// Whose link.
        from: ReplicaIndex,
        /// The signer it names.
        signer: ReplicaIndex,
    },
    /// It names something longer than any name.
    #[error("{0} sent an endorsement with a name of more than {MAX_SUBJECT_NAME_BYTES} bytes")]
    NameTooLong(ReplicaIndex),
    /// It names a target or shard that the cluster does not have.
    #[error("{0} sent an endorsement about a target or shard that this cluster does not have")]
    UnknownSubject(ReplicaIndex),
    /// The pledge does not verify, or the signature over the own bytes although the digest is the same.
    #[error("the endorsement of {0} does not verify")]
    BadSignature(ReplicaIndex),
}

#[derive(Debug)]
struct Open {
    document_type: String,
    body: Vec<u8>,
    digest: Digest,
    signatures: BTreeMap<ReplicaIndex, Signature>,
    contradicted_by: BTreeMap<ReplicaIndex, Digest>,
    /// The first endorsement of each peer, with its valid pledge.
    pledged: BTreeMap<ReplicaIndex, Endorsement>,
    certified: bool,
}

impl Open {
    /// Takes this replica's own endorsement.
    fn endorse(&mut self, own: Endorsement) {
        self.signatures.insert(own.signer, own.signature);
        self.pledged.insert(own.signer, own);
    }
}

/// Collects endorsements of what this replica derived.
#[derive(Debug)]
pub struct Collector {
    committee: Arc<Committee>,
    me: ReplicaIndex,
    open: BTreeMap<Subject, Open>,
    early: BTreeMap<ReplicaIndex, BTreeMap<Subject, Endorsement>>,
    /// Up to which control cycle this replica has derived all its plans.
    settled_cycle: u64,
    /// Up to which control cycle it is not known what was derived.
    passed_cycle: u64,
    /// Endorsements of what was not derived here that were told already.
    told: BTreeMap<ReplicaIndex, BTreeMap<Subject, Endorsement>>,
    /// For which subjects a peer's two pledges were told.
    proven: BTreeMap<ReplicaIndex, BTreeSet<Subject>>,
}

impl Collector {
    /// An empty collector of this replica.
    #[must_use]
    pub const fn new(committee: Arc<Committee>, me: ReplicaIndex) -> Self {
        Self {
            committee,
            me,
            open: BTreeMap::new(),
            early: BTreeMap::new(),
            settled_cycle: 0,
            passed_cycle: 0,
            told: BTreeMap::new(),
            proven: BTreeMap::new(),
        }
    }

    /// Endorses a document that was derived here (rule E1): gives the signature to broadcast, once the journal
    /// holds subject and digest, and what the endorsements that waited for it add up to.
    ///
    /// The same subject again gives the same endorsement when the bytes are the same, and `None` when they
    /// are not: one replica never endorses two digests for one subject.
    pub fn endorse(
        &mut self,
        subject: &Subject,
        document_type: &str,
        body: Vec<u8>,
        key: &SecretKey,
    ) -> Option<(Endorsement, Vec<Certification>)> {
        let digest = Digest::of(&body);
        if self.open.get(subject).is_some_and(|open| open.digest != digest) {
            return None;
        }
        let me = self.me;
        let endorsement =
            Endorsement::sign(subject.clone(), document_type, &body, &self.committee, (me, key));
        self.begin(subject, document_type, body).endorse(endorsement.clone());
        Some((endorsement, self.take_early(subject)))
    }

    /// Collects endorsements of a document that was derived here, without endorsing it.
    pub fn collect(&mut self, subject: &Subject, document_type: &str, body: Vec<u8>) -> Vec<Certification> {
        self.begin(subject, document_type, body);
        self.take_early(subject)
    }

    fn begin(&mut self, subject: &Subject, document_type: &str, body: Vec<u8>) -> &mut Open {
        self.make_room(subject);
        self.open.entry(subject.clone()).or_insert_with(|| Open {
            document_type: document_type.to_owned(),
            digest: Digest::of(&body),
            body,
            signatures: BTreeMap::new(),
            contradicted_by: BTreeMap::new(),
            pledged: BTreeMap::new(),
            certified: false,
        })
    }

    /// Counts the endorsements that were here before the document.
    fn take_early(&mut self, subject: &Subject) -> Vec<Certification> {
        let waiting: Vec<Endorsement> =
            self.early.values_mut().filter_map(|of_peer| of_peer.remove(subject)).collect();
        if subject.kind == SubjectKind::Head {
            let is_older = |early: &Subject| {
                early.kind == subject.kind && early.of == subject.of && early.number < subject.number
            };
            self.early.values_mut().for_each(|of_peer| of_peer.retain(|early, _| !is_older(early)));
        }
        let mut said = Vec::new();
        for early in waiting {
            // A bad signature that came early is dropped like one that comes late; its peer is known by it.
            said.extend(self.count(early).unwrap_or_default());
        }
        said.extend(self.certify(subject));
        said
    }

    /// Takes a peer's endorsement (rules E2, E3, E7).
    ///
    /// # Errors
    /// [`EndorsementError`] when it is in another's name or does not verify.
    pub fn receive(
        &mut self,
        from: ReplicaIndex,
        endorsement: Endorsement,
    ) -> Result<Vec<Certification>, EndorsementError> {
        if endorsement.signer != from {
            return Err(EndorsementError::InAnothersName { from, signer: endorsement.signer });
        }
        if endorsement.subject.of.len() > MAX_SUBJECT_NAME_BYTES {
            return Err(EndorsementError::NameTooLong(from));
        }
        let known = self.known(&endorsement);
        if known == Some(&endorsement) {
            return Ok(Vec::new());
        }
        let pledged = endorsement.pledged(&self.committee);
        let key = self.committee.key(from);
        if key.is_none_or(|key| key.verify(&pledged.bytes, &pledged.signature).is_err()) {
            return Err(EndorsementError::BadSignature(from));
        }
        if let Some(known) = known
            && known.digest != endorsement.digest
        {
            let evidence = Evidence::contradiction(from, known.pledged(&self.committee), pledged);
            let proven = self.proven.entry(from).or_default();
            let is_new = proven.len() < MAX_PROVEN_PER_PEER && proven.insert(endorsement.subject.clone());
            let mut said: Vec<_> = is_new.then_some(Certification::Proven(evidence)).into_iter().collect();
            // The first one stays where it is; the other is told of like any that was not derived here.
            if self.open.contains_key(&endorsement.subject) {
                said.extend(self.count(endorsement)?);
            }
            return Ok(said);
        }
        if self.open.contains_key(&endorsement.subject) {
            let subject = endorsement.subject.clone();
            let mut said = self.count(endorsement)?;
            said.extend(self.certify(&subject));
            return Ok(said);
        }
        if self.is_passed(&endorsement.subject) {
            return Ok(Vec::new()); // E6
        }
        if self.is_unfounded(&endorsement.subject) {
            return Ok(self.unfounded(endorsement).into_iter().collect());
        }
        let early = self.early.entry(from).or_default();
        early.insert(endorsement.subject.clone(), endorsement);
        keep_nearest_of_each_kind(early);
        Ok(Vec::new())
    }

    /// All plans up to this control cycle were derived: whoever endorses another one has derived something else.
    pub fn settle_plans(&mut self, cycle: u64) -> Vec<Certification> {
        self.settled_cycle = self.settled_cycle.max(cycle);
        let mut unfounded = Vec::new();
        for of_peer in self.early.values_mut() {
            let (settled, waiting): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(of_peer)
                .into_iter()
                .partition(|(subject, _)| subject.kind == SubjectKind::Plan && subject.number <= cycle);
            *of_peer = waiting;
            unfounded.extend(settled.into_values());
        }
        unfounded.into_iter().filter_map(|endorsement| self.unfounded(endorsement)).collect()
    }

    /// The state begins anew after this control cycle, whatever it was (rule E6).
    pub fn begin_after(&mut self, cycle: u64) {
        // Heads of the past are not derived again, and those to come are superseded within a slot.
        let plans = |(subject, _): &(Subject, Open)| subject.kind == SubjectKind::Plan;
        for (subject, open) in std::mem::take(&mut self.open).into_iter().filter(plans) {
            for (signer, endorsement) in open.pledged.into_iter().filter(|(signer, _)| *signer != self.me) {
                self.early.entry(signer).or_default().insert(subject.clone(), endorsement);
            }
        }
        for (signer, told) in std::mem::take(&mut self.told) {
            self.early.entry(signer).or_default().extend(told);
        }
        self.settled_cycle = cycle;
        self.pass_plans(cycle);
        self.early.values_mut().for_each(keep_nearest_of_each_kind);
    }

    /// What was derived until this control cycle is not known here (rule E6).
    fn pass_plans(&mut self, cycle: u64) {
        self.passed_cycle = self.passed_cycle.max(cycle);
        let passed = self.passed_cycle;
        for of_peer in self.early.values_mut() {
            of_peer.retain(|subject, _| subject.kind != SubjectKind::Plan || subject.number > passed);
        }
    }

    fn is_passed(&self, subject: &Subject) -> bool {
        subject.kind == SubjectKind::Plan && subject.number <= self.passed_cycle
    }

    /// The signer's first endorsement for the subject that is still known.
    fn known(&self, endorsement: &Endorsement) -> Option<&Endorsement> {
        let Endorsement { subject, signer, .. } = endorsement;
        let open = self.open.get(subject).and_then(|open| open.pledged.get(signer));
        let early = || self.early.get(signer).and_then(|early| early.get(subject));
        let told = || self.told.get(signer).and_then(|told| told.get(subject));
        open.or_else(early).or_else(told)
    }

    fn is_unfounded(&self, subject: &Subject) -> bool {
        subject.kind == SubjectKind::Plan && subject.number <= self.settled_cycle
    }

    /// The open subjects of a kind, oldest first.
    fn of_kind(&self, kind: SubjectKind) -> impl Iterator<Item = &Subject> {
        self.open.keys().filter(move |subject| subject.kind == kind)
    }

    /// Closes the oldest subject of the name or of the kind when another one needs its place. Plans that were derived
    /// and are no longer open cannot be told from those that never were (rule E6).
    fn make_room(&mut self, subject: &Subject) {
        if self.open.contains_key(subject) {
            return;
        }
        let of_name = || self.of_kind(subject.kind).filter(|open| open.of == subject.of);
        let oldest = if of_name().count() >= MAX_OPEN_PER_NAME {
            of_name().next().cloned()
        } else if self.of_kind(subject.kind).count() >= MAX_OPEN_PER_KIND {
            self.of_kind(subject.kind).next().cloned()
        } else {
            None
        };
        let Some(oldest) = oldest else { return };
        self.open.remove(&oldest);
        if oldest.kind == SubjectKind::Plan {
            self.pass_plans(oldest.number);
        }
    }

    /// Rule E5 for what was not derived here. Its signature cannot be checked without the bytes, but the link that
    /// it came over is the signer's own.
    fn unfounded(&mut self, endorsement: Endorsement) -> Option<Certification> {
        let Endorsement { subject, signer, digest, .. } = endorsement.clone();
        let told = self.told.entry(signer).or_default();
        if told.contains_key(&subject) {
            return None;
        }
        told.insert(subject.clone(), endorsement);
        if told.len() > MAX_UNFOUNDED_PER_PEER {
            told.pop_first();
        }
        Some(Certification::Contradicted { subject, by: signer, theirs: digest, ours: None })
    }

    /// How many bytes of documents, names and signatures are held.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        let open = self.open.iter().map(|(subject, open)| {
            let signatures = open.signatures.len() * size_of::<Signature>();
            size_of::<Open>() + subject.of.len() + open.body.len() + signatures
        });
        let early = self.early.values().map(|of_peer| of_peer.len() * size_of::<Endorsement>());
        let told = self.told.values().map(|told| told.len() * size_of::<Subject>());
        open.chain(early).chain(told).sum()
    }

    /// The most endorsements that are kept of one peer's: those that wait for what they are about, and unfounded ones
    /// that were told.
    #[must_use]
    pub fn most_of_one_peer(&self) -> usize {
        let waiting = self.early.values().map(BTreeMap::len).max().unwrap_or(0);
        waiting.max(self.told.values().map(BTreeMap::len).max().unwrap_or(0))
    }

    /// This replica's own endorsements of subjects that are not certified here yet, and of the newest that are:
    /// what a peer that comes back may lack.
    #[must_use]
    pub fn own(&self) -> Vec<Endorsement> {
        const NEWEST_PER_KIND: usize = 32;
        let newest = |kind| {
            let of_kind = self.open.iter().rev().filter(move |(subject, _)| subject.kind == kind);
            of_kind.take(NEWEST_PER_KIND)
        };
        newest(SubjectKind::Plan)
            .chain(newest(SubjectKind::Head))
            .filter_map(|(_, open)| open.pledged.get(&self.me).cloned())
            .collect()
    }

    fn count(&mut self, endorsement: Endorsement) -> Result<Vec<Certification>, EndorsementError> {
        let Some(open) = self.open.get_mut(&endorsement.subject) else { return Ok(Vec::new()) };
        let signer = endorsement.signer;
        open.pledged.entry(signer).or_insert_with(|| endorsement.clone());
        if endorsement.digest != open.digest {
            if open.contradicted_by.insert(signer, endorsement.digest).is_some() {
                return Ok(Vec::new());
            }
            return Ok(vec![Certification::Contradicted {
                subject: endorsement.subject,
                by: signer,
                theirs: endorsement.digest,
                ours: Some(open.digest),
            }]);
        }
        if open.certified || open.signatures.contains_key(&signer) {
            return Ok(Vec::new());
        }
        let bytes = pae(&open.document_type, &open.body);
        let verified = self
            .committee
            .key(signer)
            .is_some_and(|key: &PublicKey| key.verify(&bytes, &endorsement.signature).is_ok());
        if !verified {
            return Err(EndorsementError::BadSignature(signer));
        }
        open.signatures.insert(signer, endorsement.signature);
        Ok(Vec::new())
    }

    /// Makes the certificate once a quorum is here (rule E4).
    fn certify(&mut self, subject: &Subject) -> Option<Certification> {
        let open = self.open.get_mut(subject)?;
        if open.certified || open.signatures.len() < self.committee.size().quorum() {
            return None;
        }
        open.certified = true;
        // What is certified is certified once: only the own signature is ever needed again, for a peer that comes back.
        let own = open.signatures.get(&self.me).copied();
        let signatures: Vec<(KeyId, Signature)> = std::mem::take(&mut open.signatures)
            .into_iter()
            .filter_map(|(signer, signature)| self.committee.key(signer).map(|key| (key.id(), signature)))
            .collect();
        open.signatures.extend(own.map(|signature| (self.me, signature)));
        let envelope = Envelope::new(&open.document_type, std::mem::take(&mut open.body), signatures);
        Some(Certification::Certified { subject: subject.clone(), envelope })
    }
}

/// Drops the furthest of one peer's waiting endorsements past the bound. Subjects are in the order of kinds, then of numbers.
fn keep_nearest_of_each_kind(early: &mut BTreeMap<Subject, Endorsement>) {
    for kind in [SubjectKind::Plan, SubjectKind::Head] {
        let of_kind = early.keys().filter(|waiting| waiting.kind == kind);
        let furthest: Vec<_> = of_kind.skip(MAX_EARLY_PER_KIND).cloned().collect();
        furthest.iter().for_each(|subject| drop(early.remove(subject)));
    }
}

#[cfg(test)]
mod tests {
    use super::{Certification, Collector, Endorsement, EndorsementError, Subject, SubjectKind};
    use crate::knowledge::evidence::{EvidenceKind, VerifiedEvidence};
    use crate::types::{Committee, Digest, Epoch, ReplicaIndex, SecretKey};
    use std::sync::Arc;

    const TYPE: &str = "application/vnd.quorate.plan.v1+json";

    fn keys() -> Vec<SecretKey> {
        (1..=4).map(|seed| SecretKey::from_seed(&[seed; 32])).collect()
    }

    fn committee() -> Arc<Committee> {
        let members = keys().iter().map(SecretKey::public).collect();
        Arc::new(Committee::new(Digest::of(b"cluster"), Epoch::new(1), members).expect("four keys"))
    }

    fn subject() -> Subject {
        Subject { number: 7, kind: SubjectKind::Plan, of: "pool".to_owned() }
    }

    fn endorsement_of(place: u16, body: &[u8]) -> Endorsement {
        let me = ReplicaIndex::new(place);
        let mut collector = Collector::new(committee(), me);
        let key = &keys()[usize::from(place)];
        collector.endorse(&subject(), TYPE, body.to_vec(), key).expect("the first of its subject").0
    }

    fn certified(said: &[Certification]) -> bool {
        said.iter().any(|one| matches!(one, Certification::Certified { .. }))
    }

    #[test]
    fn a_quorum_of_equal_bytes_is_a_certificate_whoever_comes_first() {
        let mut collector = Collector::new(committee(), ReplicaIndex::new(0));
        let early = collector.receive(ReplicaIndex::new(1), endorsement_of(1, b"plan")).expect("taken");
        assert!(early.is_empty());
        let (_, said) = collector.endorse(&subject(), TYPE, b"plan".to_vec(), &keys()[0]).expect("the first");
        assert!(!certified(&said), "two of three");
        let said = collector.receive(ReplicaIndex::new(2), endorsement_of(2, b"plan")).expect("taken");
        let [Certification::Certified { envelope, .. }] = said.as_slice() else {
            panic!("expected a certificate, got {said:?}")
        };
        let committee = committee();
        assert!(envelope.verify(TYPE, committee.iter().map(|(_, key)| key), 3).is_ok());
        let again = collector.receive(ReplicaIndex::new(3), endorsement_of(3, b"plan")).expect("taken");
        assert!(again.is_empty(), "a certificate is made once");
    }

    #[test]
    fn another_digest_is_named_and_does_not_count() {
        let mut collector = Collector::new(committee(), ReplicaIndex::new(0));
        let endorsed = collector.endorse(&subject(), TYPE, b"plan".to_vec(), &keys()[0]);
        assert!(endorsed.is_some());
        let said = collector.receive(ReplicaIndex::new(1), endorsement_of(1, b"forged")).expect("taken");
        assert!(matches!(said.as_slice(), [Certification::Contradicted { by, .. }] if by.place() == 1));
        let said = collector.receive(ReplicaIndex::new(1), endorsement_of(1, b"forged")).expect("taken");
        assert!(said.is_empty(), "named once");
        let said = collector.receive(ReplicaIndex::new(2), endorsement_of(2, b"plan")).expect("taken");
        assert!(said.is_empty(), "two of three");
        let said = collector.receive(ReplicaIndex::new(3), endorsement_of(3, b"plan")).expect("taken");
        assert!(certified(&said));
    }

    #[test]
    fn a_signature_in_anothers_name_or_over_other_bytes_is_refused() {
        let mut collector = Collector::new(committee(), ReplicaIndex::new(0));
        let _ = collector.endorse(&subject(), TYPE, b"plan".to_vec(), &keys()[0]);
        let stolen = endorsement_of(2, b"plan");
        let refused = collector.receive(ReplicaIndex::new(1), stolen.clone());
        assert!(matches!(refused, Err(EndorsementError::InAnothersName { .. })));
        let claimed = Endorsement { signer: ReplicaIndex::new(1), ..stolen };
        let refused = collector.receive(ReplicaIndex::new(1), claimed);
        assert_eq!(refused, Err(EndorsementError::BadSignature(ReplicaIndex::new(1))));
    }

    #[test]
    fn one_replica_never_endorses_two_digests_for_one_subject() {
        let mut collector = Collector::new(committee(), ReplicaIndex::new(0));
        assert!(collector.endorse(&subject(), TYPE, b"plan".to_vec(), &keys()[0]).is_some());
        assert!(collector.endorse(&subject(), TYPE, b"plan".to_vec(), &keys()[0]).is_some());
        assert!(collector.endorse(&subject(), TYPE, b"other".to_vec(), &keys()[0]).is_none());
    }

    #[test]
    fn endorsements_of_numbers_far_ahead_push_out_none_that_is_due_next() {
        let mut collector = Collector::new(committee(), ReplicaIndex::new(0));
        let of = |number: u64, body: &[u8]| {
            let subject = Subject { number, ..subject() };
            let (committee, signer) = (committee(), ReplicaIndex::new(1));
            Endorsement::sign(subject, TYPE, body, &committee, (signer, &keys()[1]))
        };
        let next = subject().number + 1;
        for number in std::iter::once(next).chain(next + 1_000..next + 1_300) {
            assert!(collector.receive(ReplicaIndex::new(1), of(number, b"plan")).expect("taken").is_empty());
        }
        let said = collector.receive(ReplicaIndex::new(1), of(next, b"forged")).expect("taken");
        assert!(matches!(said.as_slice(), [Certification::Proven(_)]), "the first one waits still: {said:?}");
    }

    /// What a collector of replica 0 that knows the subject says of these endorsements of replica 1, in order.
    fn proven(knows: bool, bodies: &[&[u8]]) -> Vec<ReplicaIndex> {
        let mut collector = Collector::new(committee(), ReplicaIndex::new(0));
        if knows {
            let _ = collector.endorse(&subject(), TYPE, b"plan".to_vec(), &keys()[0]);
        }
        let mut said = Vec::new();
        for body in bodies {
            let endorsement = endorsement_of(1, body);
            said.extend(collector.receive(ReplicaIndex::new(1), endorsement).expect("it is its own"));
        }
        let proven = said.into_iter().filter_map(|one| match one {
            Certification::Proven(evidence) => {
                let verified = VerifiedEvidence::verify(evidence, &committee()).expect("it is evidence");
                assert_eq!(verified.kind(), EvidenceKind::DoubleEndorsement);
                Some(verified.offender())
            }
            Certification::Certified { .. } | Certification::Contradicted { .. } => None,
        });
        proven.collect()
    }

    #[test]
    fn two_pledges_for_one_subject_are_evidence_whether_it_is_derived_here_or_not() {
        let offender = vec![ReplicaIndex::new(1)];
        for knows in [true, false] {
            assert_eq!(proven(knows, &[b"plan", b"plan"]), [], "a copy");
            assert_eq!(proven(knows, &[b"forged"]), [], "another opinion");
            assert_eq!(proven(knows, &[b"plan", b"forged"]), offender);
            assert_eq!(proven(knows, &[b"forged", b"plan", b"plan", b"third"]), offender, "told once");
        }
    }

    #[test]
    fn an_endorsement_without_its_pledge_counts_nowhere() {
        let mut collector = Collector::new(committee(), ReplicaIndex::new(0));
        let _ = collector.endorse(&subject(), TYPE, b"plan".to_vec(), &keys()[0]);
        let endorsement = endorsement_of(1, b"plan");
        let without = Endorsement { pledge: endorsement.signature, ..endorsement };
        let refused = collector.receive(ReplicaIndex::new(1), without);
        assert_eq!(refused, Err(EndorsementError::BadSignature(ReplicaIndex::new(1))));
        assert_eq!(collector.receive(ReplicaIndex::new(2), endorsement_of(2, b"plan")), Ok(Vec::new()));
    }
}
