//! The witness: of what replicas sign about views it keeps the newest few statements, and sees when two of one
//! replica contradict each other, or a proposal's signature covers a certificate that does not verify.
//!
//! It judges no more than that: whoever is shown the evidence verifies it. Invariants: evidence holds only what its
//! offender's own signatures cover, so nobody can be incriminated by bytes that others put beside them; an honest
//! replica signs at most one statement of a kind for a view (V1, B3, P3) and sends the stored bytes again (R1), so
//! equal statements are never evidence; what is kept is bounded, and so is what one replica's offences give.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{
    block::BlockId,
    certificate::{
        QuorumCertificate, TimeoutCertificate, check_signature, checkpoint_statement, proposal_statement,
        timeout_statement, vote_statement,
    },
    checkpoint::CheckpointVote,
    message::{Proposal, Timeout, Vote},
};
use crate::types::{
    Committee, Digest, Evidence, Height, MAX_CERTIFICATES_BYTES, ReplicaIndex, Signature, SignedStatement,
    View,
};

/// Of how many views before the current one statements are kept: what contradicts them comes with the certificates
/// of the next views, within some round trips.
const WITNESSED_VIEWS: u64 = 8;

/// How many offences of one kind by one replica are told: the first proves all that the others would.
pub(super) const MAX_TOLD: usize = 4;

/// What is signed about a view, each kind at most once by an honest replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Vote { height: Height, block: BlockId },
    Proposal { block: BlockId, certificates: Digest },
    Timeout { high_qc_view: View },
}

/// The kinds of statements, and of offences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Vote,
    Proposal,
    Timeout,
    Certificate,
    Checkpoint,
}

/// One replica's statement about a view.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spoken {
    view: View,
    signer: ReplicaIndex,
    said: Said,
    signature: Signature,
}

/// Whether a statement's signature was checked already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// It verifies.
    Yes,
    /// It is checked when it would be evidence.
    No,
}

impl Spoken {
    pub(super) const fn vote(vote: &Vote) -> Self {
        let said = Said::Vote { height: vote.height, block: vote.block };
        Self { view: vote.view, signer: vote.voter, said, signature: vote.signature }
    }

    pub(super) fn proposal(proposal: &Proposal) -> Self {
        let block = &proposal.block;
        let said = Said::Proposal { block: block.id(), certificates: proposal.certificates_digest() };
        Self { view: block.view(), signer: block.proposer(), said, signature: proposal.signature }
    }

    pub(super) const fn timeout(timeout: &Timeout) -> Self {
        let said = Said::Timeout { high_qc_view: timeout.high_qc.view };
        Self { view: timeout.view, signer: timeout.sender, said, signature: timeout.signature }
    }

    /// The votes in a certificate.
    pub(super) fn votes(qc: &QuorumCertificate) -> impl Iterator<Item = Self> {
        let (view, said) = (qc.view, Said::Vote { height: qc.height, block: qc.block });
        qc.signatures.iter().map(move |(signer, signature)| Self {
            view,
            signer: *signer,
            said,
            signature: *signature,
        })
    }

    /// The timeouts in a certificate.
    pub(super) fn timeouts(tc: &TimeoutCertificate) -> impl Iterator<Item = Self> {
        tc.timeouts.iter().map(|timeout| Self {
            view: tc.view,
            signer: timeout.signer,
            said: Said::Timeout { high_qc_view: timeout.high_qc_view },
            signature: timeout.signature,
        })
    }

    const fn kind(&self) -> Kind {
        match self.said {
            Said::Vote { .. } => Kind::Vote,
            Said::Proposal { .. } => Kind::Proposal,
            Said::Timeout { .. } => Kind::Timeout,
        }
    }

    fn statement(&self, committee: &Committee) -> SignedStatement {
        let bytes = match self.said {
            Said::Vote { height, block } => vote_statement(committee, self.view, height, block),
            Said::Proposal { block, certificates } => {
                proposal_statement(committee, self.view, block, certificates)
            }
            Said::Timeout { high_qc_view } => timeout_statement(committee, self.view, high_qc_view),
        };
        SignedStatement { bytes, signature: self.signature }
    }
}

/// What this replica has heard others sign.
#[derive(Clone)]
pub(super) struct Witness {
    committee: Arc<Committee>,
    /// The first statement of each replica and kind that was heard for a view.
    heard: BTreeMap<View, BTreeMap<(ReplicaIndex, Kind), Spoken>>,
    /// For which views, or heights, an offence was told.
    told: BTreeMap<(ReplicaIndex, Kind), BTreeSet<u64>>,
}

/// Without what it has heard: that decides nothing a replica signs or commits.
impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

impl Witness {
    pub(super) const fn new(committee: Arc<Committee>) -> Self {
        Self { committee, heard: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// How many statements are kept: for each of some ten views at most three a replica.
    pub(super) fn len(&self) -> usize {
        self.heard.values().map(BTreeMap::len).sum()
    }

    /// Forgets the views long before this one.
    pub(super) fn enter(&mut self, current: View) {
        self.heard.retain(|view, _| is_near(*view, current));
    }

    /// Hears a statement, and says what it proves together with an earlier one of the same replica. One that was not
    /// checked is kept by nobody.
    pub(super) fn hear(&mut self, current: View, spoken: Spoken, checked: Checked) -> Option<Evidence> {
        if !is_near(spoken.view, current) {
            return None;
        }
        let key = (spoken.signer, spoken.kind());
        let Some(known) = self.heard.get(&spoken.view).and_then(|heard| heard.get(&key)).copied() else {
            if checked == Checked::Yes {
                self.heard.entry(spoken.view).or_default().insert(key, spoken);
            }
            return None;
        };
        if known.said == spoken.said || self.is_told(key, spoken.view.number()) {
            return None;
        }
        let second = spoken.statement(&self.committee);
        if checked == Checked::No
            && check_signature(&self.committee, spoken.signer, &second.bytes, &second.signature).is_err()
        {
            return None;
        }
        self.told.entry(key).or_default().insert(spoken.view.number());
        Some(Evidence::contradiction(spoken.signer, known.statement(&self.committee), second))
    }

    /// A proposal whose own signature verifies, and one of whose certificates does not.
    pub(super) fn invalid_certificate(&mut self, proposal: &Proposal) -> Option<Evidence> {
        let spoken = Spoken::proposal(proposal);
        let key = (spoken.signer, Kind::Certificate);
        if self.is_told(key, spoken.view.number()) {
            return None;
        }
        let certificates = proposal.certificates_bytes();
        if certificates.len() > MAX_CERTIFICATES_BYTES {
            // No evidence holds as much, and what is not told must not stand in the way of what can be.
            return None;
        }
        self.told.entry(key).or_default().insert(spoken.view.number());
        let proposal = spoken.statement(&self.committee);
        Some(Evidence::InvalidCertificate { offender: spoken.signer, proposal, certificates })
    }

    /// Two checkpoints of one replica for one height, each of which verifies.
    pub(super) fn second_checkpoint(
        &mut self,
        first: &CheckpointVote,
        second: &CheckpointVote,
    ) -> Option<Evidence> {
        let (key, height) = ((first.voter, Kind::Checkpoint), first.checkpoint.height.number());
        if self.is_told(key, height) {
            return None;
        }
        self.told.entry(key).or_default().insert(height);
        let [first_said, second_said] = [first, second].map(|vote| SignedStatement {
            bytes: checkpoint_statement(&self.committee, &vote.checkpoint),
            signature: vote.signature,
        });
        Some(Evidence::contradiction(first.voter, first_said, second_said))
    }

    fn is_told(&self, key: (ReplicaIndex, Kind), about: u64) -> bool {
        self.told.get(&key).is_some_and(|told| told.len() >= MAX_TOLD || told.contains(&about))
    }
}

/// Whether statements about the view are kept in the current one.
fn is_near(view: View, current: View) -> bool {
    view <= current.next() && current.number() <= view.number().saturating_add(WITNESSED_VIEWS)
}
