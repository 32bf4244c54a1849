//! What must hold after every event, restated without the production code's rules: own bookkeeping of what
//! left each honest replica, own quorum arithmetic, own signed bytes.
//!
//! It changes nothing in the run. Invariant: the first broken invariant is kept, with its time and place.

use quorate::{
    consensus::{
        Block, BlockId, Buffered, Checkpoint, CheckpointVote, Command, CommittedBlock, Gone, Message,
        Proposal, QuorumCertificate, StableCheckpoint, Timeout, Vote,
        certify::{Endorsement, Subject},
    },
    cycle::{Decided, Folded},
    knowledge::{
        self,
        evidence::{EvidenceKind, VerifiedEvidence},
        operator_request::OperatorRequest,
    },
    types::{
        Committee, Digest, Evidence, Height, KeyId, PublicKey, ReplicaIndex, TargetId, View, WindowIndex,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use crate::{
    application::Application,
    disk::SimDisk,
    letter::Words,
    node::Begun,
    orders::{Counts, Logged, Orders},
    statements,
};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The virtual time in milliseconds.
    pub at_ms: u64,
    /// What was seen, where.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}.{:03} s: {}", self.at_ms / 1000, self.at_ms % 1000, self.what)
    }
}

/// What left one honest replica, over all its restarts.
#[derive(Debug, Default)]
struct Said {
    votes: BTreeMap<View, (Height, BlockId)>,
    proposals: BTreeMap<View, BlockId>,
    /// By view, the view of the highest certificate in it.
    timeouts: BTreeMap<View, View>,
    endorsed: BTreeMap<Subject, Digest>,
    reports: BTreeMap<WindowIndex, Digest>,
    checkpoints: BTreeMap<Height, Checkpoint>,
}

/// A height that some honest replica has committed.
#[derive(Debug)]
struct DecidedHeight {
    block: BlockId,
    /// The application's state after it.
    state: Digest,
    /// The control cycle's root after it, where there is a cycle.
    root: Option<Digest>,
    commands: Vec<Digest>,
}

/// The invariants with what they remember.
#[derive(Debug)]
pub struct Invariants {
    committee: Arc<Committee>,
    replicas: usize,
    /// The fewest votes that decide.
    quorum: usize,
    /// How many of any quorum keep to the rules and have a disk that keeps what it synced, at the least.
    sound_in_a_quorum: usize,
    now_ms: u64,
    said: BTreeMap<ReplicaIndex, Said>,
    /// The newest height that reached the application since the last start, and the application, restated.
    applied: BTreeMap<ReplicaIndex, (u64, Application)>,
    decided: BTreeMap<u64, DecidedHeight>,
    blocks: BTreeMap<BlockId, Arc<Block>>,
    submitted: BTreeSet<Digest>,
    committed: BTreeMap<ReplicaIndex, BTreeSet<Digest>>,
    /// Derived plans by target and sequence number, and those with a certificate.
    derived: BTreeMap<(String, u64), Digest>,
    certificates: BTreeMap<(String, u64), Digest>,
    /// Certified checkpoints.
    checkpoints: BTreeMap<Height, Checkpoint>,
    orders: Orders,
    /// How many heights have commands.
    busy: u64,
    witnessed: BTreeSet<(ReplicaIndex, EvidenceKind)>,
    proven: BTreeSet<(ReplicaIndex, EvidenceKind)>,
    broken: Option<Violation>,
}

impl Invariants {
    /// Before anything has happened, where so many replicas are adversaries or have a disk that will be damaged.
    #[must_use]
    pub fn new(committee: Arc<Committee>, unsound: usize) -> Self {
        let replicas = committee.iter().count();
        let faulty = (0..replicas).take_while(|faulty| 3 * faulty < replicas).last().unwrap_or(0);
        let quorum = (1..=replicas).find(|quorum| 2 * quorum > replicas + faulty).unwrap_or(replicas);
        Self {
            committee,
            replicas,
            quorum,
            sound_in_a_quorum: quorum.saturating_sub(faulty.max(unsound)),
            now_ms: 0,
            said: BTreeMap::new(),
            applied: BTreeMap::new(),
            decided: BTreeMap::new(),
            blocks: BTreeMap::new(),
            submitted: BTreeSet::new(),
            committed: BTreeMap::new(),
            derived: BTreeMap::new(),
            certificates: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            orders: Orders::default(),
            busy: 0,
            witnessed: BTreeSet::new(),
            proven: BTreeSet::new(),
            broken: None,
        }
    }

    /// The time of what follows.
    pub const fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The first broken invariant.
    #[must_use]
    pub const fn broken(&self) -> Option<&Violation> {
        self.broken.as_ref()
    }

    /// What consensus at some honest replica saw of replicas that broke a rule.
    #[must_use]
    pub const fn offences_witnessed(&self) -> &BTreeSet<(ReplicaIndex, EvidenceKind)> {
        &self.witnessed
    }

    /// What is logged of replicas that broke a rule.
    #[must_use]
    pub const fn offences_proven(&self) -> &BTreeSet<(ReplicaIndex, EvidenceKind)> {
        &self.proven
    }

    /// A replica's consensus put evidence out. It is against nobody who keeps to the rules and whose disk keeps what it
    /// synced, and it verifies.
    pub fn witnessed(&mut self, replica: ReplicaIndex, evidence: &Evidence, offender_is_sound: bool) {
        self.claim(!offender_is_sound, || format!("{replica} incriminates a sound replica: {evidence:?}"));
        match VerifiedEvidence::verify(evidence.clone(), &self.committee) {
            Ok(verified) => {
                self.witnessed.insert((verified.offender(), verified.kind()));
            }
            Err(error) => self.claim(false, || format!("{replica} puts out no evidence: {error}")),
        }
    }

    /// A replica logged evidence.
    pub fn proven(
        &mut self,
        replica: ReplicaIndex,
        offender: ReplicaIndex,
        kind: EvidenceKind,
        is_sound: bool,
    ) {
        self.claim(!is_sound, || format!("{replica} logged {kind:?} against {offender}, which is sound"));
        self.proven.insert((offender, kind));
    }

    /// How many heights have been committed by somebody.
    #[must_use]
    pub fn heights(&self) -> u64 {
        self.decided.len() as u64
    }

    /// How many of them have commands.
    #[must_use]
    pub const fn busy_heights(&self) -> u64 {
        self.busy
    }

    /// The committee.
    #[must_use]
    pub fn committee(&self) -> &Committee {
        &self.committee
    }

    /// An operator signed a request.
    pub fn asked(&mut self, by: u8, request: &OperatorRequest) {
        self.orders.asked(by, request);
    }

    /// An agent signed a receipt.
    pub fn answered(&mut self, envelope: &[u8]) {
        self.orders.answered(envelope);
    }

    /// A replica folded a block. Gives the plans that became logged, when it is the first to fold that height.
    pub fn folded(&mut self, folded: &Folded) -> Vec<Logged> {
        match self.orders.read(folded) {
            Ok(logged) => logged,
            Err(what) => {
                self.claim(false, || what);
                Vec::new()
            }
        }
    }

    /// Up to which height what operators and agents did was read.
    #[must_use]
    pub const fn read_to(&self) -> u64 {
        self.orders.height()
    }

    /// The counter of each operator's newest stop that holds.
    #[must_use]
    pub fn stops(&self) -> BTreeMap<KeyId, u64> {
        self.orders.stops()
    }

    /// The newest logged plan of a target, and whether it is decided after the last stop, where none holds.
    #[must_use]
    pub fn newest_plan(&self, target: &TargetId) -> (u64, bool) {
        self.orders.newest_plan(target)
    }

    /// What operators and agents achieved.
    #[must_use]
    pub const fn orders(&self) -> Counts {
        self.orders.counts()
    }

    /// Whether this replica has applied the command since it was first started.
    #[must_use]
    pub fn has_committed(&self, replica: ReplicaIndex, command: Digest) -> bool {
        self.committed.get(&replica).is_some_and(|commands| commands.contains(&command))
    }

    /// Breaks, unless the claim holds.
    pub fn claim(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(Violation { at_ms: self.now_ms, what: what() });
        }
    }

    /// A client submitted a command.
    pub fn submitted(&mut self, command: &Command) {
        self.submitted.insert(command.digest());
    }

    /// An adversary sent something: its commands count as submitted, its blocks are known.
    pub fn adversary_sent(&mut self, words: &Words) {
        let Words::Consensus(message) = words else { return };
        match message {
            Message::Proposal(proposal) => {
                self.blocks.entry(proposal.block.id()).or_insert_with(|| Arc::clone(&proposal.block));
                self.submitted.extend(proposal.block.payload().commands().iter().map(Command::digest));
            }
            Message::Commands(commands) => self.submitted.extend(commands.iter().map(Command::digest)),
            Message::Vote(_)
            | Message::Timeout(_)
            | Message::Certificates(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_)
            | Message::CheckpointVote(_)
            | Message::Checkpoint(_)
            | Message::Gone(_)
            | Message::ChunkRequest(_)
            | Message::Chunks(_)
            | Message::Committed(_) => {}
        }
    }

    /// Words left an honest replica. One whose disk was damaged, and is not given, may contradict itself.
    pub fn honest_sent(&mut self, replica: ReplicaIndex, words: &Words, disk: Option<&SimDisk>) {
        let Some(disk) = disk else {
            if let Words::Consensus(Message::Proposal(proposal)) = words {
                self.blocks.entry(proposal.block.id()).or_insert_with(|| Arc::clone(&proposal.block));
            }
            return;
        };
        let message = match words {
            Words::Consensus(message) => message,
            Words::Endorsement(endorsement) => {
                return self.invariant_one_durable_endorsement_a_subject(replica, endorsement, disk);
            }
        };
        match message {
            Message::Proposal(proposal) => {
                self.invariant_one_durable_proposal_a_view(replica, proposal, disk);
            }
            Message::Vote(vote) => self.invariant_one_durable_vote_a_view(replica, vote, disk),
            Message::Timeout(timeout) => self.invariant_one_durable_timeout_a_view(replica, timeout, disk),
            Message::Commands(commands) => {
                for command in commands {
                    self.invariant_one_durable_report_a_window(replica, command, disk);
                }
            }
            Message::CheckpointVote(vote) => {
                self.invariant_one_durable_checkpoint_a_height(replica, vote, disk);
            }
            Message::Checkpoint(checkpoint) | Message::Gone(Gone { checkpoint, .. }) => {
                self.certified_state(replica, checkpoint);
            }
            Message::Certificates(_)
            | Message::BlockRequest(_)
            | Message::BlockResponse(_)
            | Message::ChunkRequest(_)
            | Message::Chunks(_)
            | Message::Committed(_) => {}
        }
    }

    fn invariant_one_durable_checkpoint_a_height(
        &mut self,
        replica: ReplicaIndex,
        vote: &CheckpointVote,
        disk: &SimDisk,
    ) {
        let height = vote.checkpoint.height;
        let said = self.said.entry(replica).or_default();
        let before = said.checkpoints.insert(height, vote.checkpoint);
        let newest = said.checkpoints.last_key_value().map(|(newest, _)| *newest);
        self.claim(before.is_none_or(|before| before == vote.checkpoint), || {
            format!("{replica} signed two checkpoints for height {height}")
        });
        self.claim(vote.voter == replica, || format!("{replica} sent a checkpoint that is not its own"));
        if before.is_some() {
            return;
        }
        self.claim(newest == Some(height), || {
            format!("{replica} signed a checkpoint for height {height} after a higher one")
        });
        let decided = self.decided.get(&height.number()).map(|decided| decided.block);
        self.claim(decided == Some(vote.checkpoint.block), || {
            format!(
                "{replica} signed a checkpoint for height {height} and a block that nobody committed there"
            )
        });
        self.claim(disk.holds_durably(vote.signature.as_bytes()), || {
            format!("{replica}'s checkpoint for height {height} left before it was durable")
        });
    }

    /// A replica holds a certified checkpoint: of one height all are equal, and a quorum signed each.
    pub fn certified_state(&mut self, replica: ReplicaIndex, stable: &StableCheckpoint) {
        let checkpoint = *stable.checkpoint();
        let height = checkpoint.height;
        if let Some(known) = self.checkpoints.get(&height) {
            let same = *known == checkpoint;
            return self
                .claim(same, || format!("{replica} holds another certified state for height {height}"));
        }
        let statement = statements::checkpoint(&self.committee, &checkpoint);
        let signatures = stable.certificate.signatures.iter();
        let signers: BTreeSet<ReplicaIndex> = signatures
            .filter(|(signer, signature)| {
                self.committee.key(*signer).is_some_and(|key| key.verify(&statement, signature).is_ok())
            })
            .map(|(signer, _)| *signer)
            .collect();
        let (quorum, signed) = (self.quorum, signers.len());
        self.claim(signed >= quorum, || {
            format!("{replica} holds a checkpoint for height {height} that only {signed} signed")
        });
        let decided = self.decided.get(&height.number()).map(|decided| decided.block);
        self.claim(decided == Some(checkpoint.block), || {
            format!(
                "{replica} holds a checkpoint for height {height} and a block that nobody committed there"
            )
        });
        self.checkpoints.insert(height, checkpoint);
    }

    /// A running replica's application goes on from a checkpoint above all that it had applied.
    pub fn jumped(&mut self, replica: ReplicaIndex, begun: &Begun) {
        let newest = self.applied.get(&replica).map_or(0, |(newest, _)| *newest);
        let height = begun.checkpoint.height().number();
        self.claim(height > newest, || format!("{replica} went back from height {newest} to {height}"));
        self.began(replica, begun);
    }

    /// A replica's application begins at a checkpoint: with the state that the others had there.
    pub fn began(&mut self, replica: ReplicaIndex, begun: &Begun) {
        self.certified_state(replica, &begun.checkpoint);
        let height = begun.checkpoint.height().number();
        let decided = self.decided.get(&height).map(|decided| (decided.state, decided.root));
        self.claim(decided == Some((begun.application.digest(), begun.root)), || {
            format!("{replica} begins at height {height} with a state that nobody had there")
        });
        self.applied.insert(replica, (height, begun.application));
        let below = self.decided.range(..=height).flat_map(|(_, decided)| decided.commands.iter().copied());
        self.committed.entry(replica).or_default().extend(below);
    }

    fn invariant_one_durable_endorsement_a_subject(
        &mut self,
        replica: ReplicaIndex,
        endorsement: &Endorsement,
        disk: &SimDisk,
    ) {
        let Endorsement { subject, digest, signer, .. } = endorsement;
        let before = self.said.entry(replica).or_default().endorsed.insert(subject.clone(), *digest);
        self.claim(before.is_none_or(|before| before == *digest), || {
            format!("{replica} endorsed two digests for {subject:?}")
        });
        self.claim(*signer == replica, || format!("{replica} sent an endorsement that is not its own"));
        if before.is_none() {
            let durable = borsh::to_vec(&(subject, digest)).is_ok_and(|seal| disk.holds_durably(&seal));
            self.claim(durable, || {
                format!("{replica}'s endorsement of {subject:?} left before it was durable")
            });
        }
    }

    fn invariant_one_durable_report_a_window(
        &mut self,
        replica: ReplicaIndex,
        command: &Command,
        disk: &SimDisk,
    ) {
        let decoded = knowledge::command::Command::decode(command.head(), command.body());
        let Ok(knowledge::command::Command::Report { report, .. }) = decoded else { return };
        // It spreads others' commands too, also those that an adversary changed in its name.
        let statement = report.header.statement(&self.committee.domain(0));
        let signed = |key: &PublicKey| key.verify(&statement, &report.signature).is_ok();
        if report.header.replica != replica || !self.committee.key(replica).is_some_and(signed) {
            return;
        }
        let (window, digest) = (report.header.window, Digest::of(&statement));
        let before = self.said.entry(replica).or_default().reports.insert(window, digest);
        self.claim(before.is_none_or(|before| before == digest), || {
            format!("{replica} signed two reports on window {window}")
        });
        if before.is_none() {
            self.claim(disk.holds_durably(command.head()), || {
                format!("{replica}'s report on window {window} left before it was durable")
            });
        }
    }

    /// A replica's control cycle ran: what it planned, all others plan.
    pub fn decided(&mut self, replica: ReplicaIndex, decided: &Decided) {
        for (digest, plan) in &decided.plans {
            let key = (plan.target.to_string(), plan.seq.number());
            let known = *self.derived.entry(key.clone()).or_insert(*digest);
            self.claim(known == *digest, || format!("{replica} derived another plan for {key:?}"));
        }
    }

    /// A replica holds a quorum's endorsements of a plan.
    pub fn certified(&mut self, replica: ReplicaIndex, target: String, seq: u64, digest: Digest) {
        let key = (target, seq);
        let known = *self.certificates.entry(key.clone()).or_insert(digest);
        self.claim(known == digest, || format!("{replica} holds a second certificate for {key:?}"));
        let derived = self.derived.get(&key) == Some(&digest);
        self.claim(derived, || format!("{replica} holds a certificate for {key:?}, which nobody derived"));
    }

    fn invariant_one_durable_proposal_a_view(
        &mut self,
        replica: ReplicaIndex,
        proposal: &Proposal,
        disk: &SimDisk,
    ) {
        let block = &proposal.block;
        let said = self.said.entry(replica).or_default();
        let before = said.proposals.insert(block.view(), block.id());
        self.blocks.entry(block.id()).or_insert_with(|| Arc::clone(block));
        self.claim(before.is_none_or(|before| before == block.id()), || {
            format!("{replica} signed two proposals for view {}", block.view())
        });
        self.claim(block.proposer() == replica, || format!("{replica} sent a proposal that is not its own"));
        if before.is_none() {
            let durable = disk.holds_durably(proposal.signature.as_bytes()) && holds_payload(disk, block);
            self.claim(durable, || {
                format!("{replica}'s proposal for view {} left before it was durable", block.view())
            });
        }
    }

    fn invariant_one_durable_vote_a_view(&mut self, replica: ReplicaIndex, vote: &Vote, disk: &SimDisk) {
        let view = vote.view;
        let statement = (vote.height, vote.block);
        let said = self.said.entry(replica).or_default();
        let before = said.votes.insert(view, statement);
        let newest_vote = said.votes.last_key_value().map(|(newest, _)| *newest);
        let newest_timeout = said.timeouts.last_key_value().map(|(newest, _)| *newest);
        self.claim(before.is_none_or(|before| before == statement), || {
            format!("{replica} signed two votes for view {view}")
        });
        self.claim(vote.voter == replica, || format!("{replica} sent a vote that is not its own"));
        if before.is_some() {
            return;
        }
        self.claim(newest_timeout.is_none_or(|newest| newest < view), || {
            format!("{replica} voted in view {view} after it had given that or a later view up")
        });
        self.claim(newest_vote == Some(view), || {
            format!("{replica} voted in view {view} after it had voted in a later one")
        });
        let block = self.blocks.get(&vote.block).cloned();
        self.claim(block.is_some(), || {
            format!("{replica} voted in view {view} for a block that nobody sent")
        });
        if let Some(block) = &block {
            self.invariant_a_vote_rests_on_a_quorum(replica, view, block);
        }
        let durable = disk.holds_durably(vote.signature.as_bytes())
            && block.is_none_or(|block| holds_payload(disk, &block));
        self.claim(durable, || format!("{replica}'s vote in view {view} left before it was durable"));
    }

    /// The justification of a block that a sound replica votes for is genesis's or rests on a quorum's votes. Where
    /// views were left out, it also rests on a quorum that gave the view before up and knew no later certificate.
    /// Counted by what left sound replicas, so that no certificate is believed.
    fn invariant_a_vote_rests_on_a_quorum(&mut self, replica: ReplicaIndex, view: View, block: &Block) {
        let justify = block.justify();
        self.invariant_certified(replica, justify);
        let before = View::new(view.number().saturating_sub(1));
        let gave_up =
            |said: &Said| said.timeouts.get(&before).is_some_and(|highest| *highest <= justify.view);
        let enters = justify.view == before || self.is_said_by_a_quorum(gave_up);
        self.claim(enters, || {
            format!(
                "{replica} voted in view {view} on a certificate of view {}, and no quorum gave the view before up \
                 knowing no later one",
                justify.view
            )
        });
    }

    /// A certificate that a sound replica goes by is genesis's, or so many voted for its block as a quorum needs.
    fn invariant_certified(&mut self, replica: ReplicaIndex, certificate: &QuorumCertificate) {
        let QuorumCertificate { view, height, block, .. } = certificate;
        let is_certified = if *view == View::ZERO {
            certificate.same_statement(&QuorumCertificate::genesis(&self.committee))
        } else {
            self.is_said_by_a_quorum(|said| said.votes.get(view) == Some(&(*height, *block)))
        };
        self.claim(is_certified, || {
            format!(
                "{replica} goes by a certificate of view {view} for height {height}, which no quorum gave"
            )
        });
    }

    /// Whether so many sound replicas said it that a quorum can have.
    fn is_said_by_a_quorum(&self, said: impl Fn(&Said) -> bool) -> bool {
        self.said.values().filter(|by| said(by)).count() >= self.sound_in_a_quorum
    }

    fn invariant_one_durable_timeout_a_view(
        &mut self,
        replica: ReplicaIndex,
        timeout: &Timeout,
        disk: &SimDisk,
    ) {
        let (view, high_qc_view) = (timeout.view, timeout.high_qc.view);
        let before = self.said.entry(replica).or_default().timeouts.insert(view, high_qc_view);
        self.claim(before.is_none_or(|before| before == high_qc_view), || {
            format!("{replica} signed two timeouts for view {view}")
        });
        self.claim(timeout.sender == replica, || format!("{replica} sent a timeout that is not its own"));
        if before.is_none() {
            self.claim(disk.holds_durably(timeout.signature.as_bytes()), || {
                format!("{replica}'s timeout for view {view} left before it was durable")
            });
            self.invariant_certified(replica, &timeout.high_qc);
        }
    }

    /// A replica starts: its application is empty again.
    pub fn started(&mut self, replica: ReplicaIndex) {
        self.applied.remove(&replica);
    }

    /// A block reached a replica's application, for the first time or again after a restart.
    pub fn applied(&mut self, replica: ReplicaIndex, committed: &CommittedBlock, root: Option<Digest>) {
        let block = &committed.block;
        let height = block.height().number();
        let (newest, mut application) = self.applied.remove(&replica).unwrap_or_default();
        self.claim(height == newest + 1, || format!("{replica} committed height {height} after {newest}"));
        application.apply(block);
        self.applied.insert(replica, (height, application));
        let commands: Vec<Digest> = block.payload().commands().iter().map(Command::digest).collect();
        let stranger = commands.iter().find(|command| !self.submitted.contains(*command)).copied();
        self.claim(stranger.is_none(), || {
            format!("{replica} committed command {stranger:?} at height {height}, which nobody submitted")
        });
        self.committed.entry(replica).or_default().extend(commands.iter().copied());
        self.invariant_one_block_a_height(replica, committed, (application.digest(), root), commands);
    }

    fn invariant_one_block_a_height(
        &mut self,
        replica: ReplicaIndex,
        committed: &CommittedBlock,
        (state, root): (Digest, Option<Digest>),
        commands: Vec<Digest>,
    ) {
        let block = &committed.block;
        let height = block.height().number();
        if let Some(decided) = self.decided.get(&height) {
            let (same, equal) = (decided.block == block.id(), (decided.state, decided.root) == (state, root));
            self.claim(same, || format!("{replica} committed another block at height {height}"));
            self.claim(equal, || format!("{replica} has another state after height {height}"));
            return;
        }
        let parent = match height.checked_sub(1) {
            Some(0) => Some(QuorumCertificate::genesis(&self.committee).block),
            Some(below) => self.decided.get(&below).map(|decided| decided.block),
            None => None,
        };
        self.claim(parent == Some(block.parent()), || {
            format!("{replica} committed a block at height {height} that is no child of the one below")
        });
        self.decided.insert(height, DecidedHeight { block: block.id(), state, root, commands });
        self.busy += u64::from(!block.payload().is_empty());
        self.invariant_a_quorum_voted(replica, committed);
    }

    fn invariant_a_quorum_voted(&mut self, replica: ReplicaIndex, committed: &CommittedBlock) {
        let CommittedBlock { block, certificate } = committed;
        let names_it = (certificate.view, certificate.height, certificate.block)
            == (block.view(), block.height(), block.id());
        let statement = statements::vote(&self.committee, block.view(), block.height(), block.id());
        let voters: BTreeSet<ReplicaIndex> = certificate
            .signatures
            .iter()
            .filter(|(voter, signature)| {
                self.committee.key(*voter).is_some_and(|key| key.verify(&statement, signature).is_ok())
            })
            .map(|(voter, _)| *voter)
            .collect();
        let quorum = self.quorum;
        self.claim(names_it && voters.len() >= quorum, || {
            let (height, voters) = (block.height(), voters.len());
            format!("{replica} committed height {height} with {voters} votes; {quorum} decide")
        });
    }

    /// What a running replica keeps of its peers' and submitters' words is bounded, whatever they send: a vote of each in
    /// two views, a timeout of each, three statements of each in ten views, a thousand blocks, three shares of at most sixteen thousand commands of one submitter,
    /// two hundred and fifty-six endorsements of one peer.
    pub fn invariant_bounded_memory(
        &mut self,
        replica: ReplicaIndex,
        buffered: Buffered,
        endorsements: usize,
    ) {
        let Buffered {
            votes,
            timeouts,
            uncommitted_blocks,
            committed_blocks,
            commands_of_one,
            answers_noted,
            statements,
        } = buffered;
        let replicas = self.replicas;
        let holds = votes <= 2 * replicas
            && timeouts <= replicas
            && answers_noted <= replicas
            && uncommitted_blocks <= 1_024
            && committed_blocks <= 64
            && statements <= 10 * 3 * replicas
            && commands_of_one <= 3 * 16_384
            && endorsements <= 256;
        self.claim(holds, || {
            format!("{replica} keeps {buffered:?} and {endorsements} endorsements of one peer")
        });
    }
}

/// Whether the disk durably holds the commands of a block.
fn holds_payload(disk: &SimDisk, block: &Block) -> bool {
    block.payload().is_empty()
        || borsh::to_vec(block.payload()).is_ok_and(|payload| disk.holds_durably(&payload))
}
