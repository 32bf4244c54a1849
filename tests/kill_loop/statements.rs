//! Everything that replicas signed, from all places where it was seen: the wire as a listener wrote it down, and the
//! journals. Whoever said two things in one place of its order has contradicted itself, and two blocks that the wire
//! shows committed at one height contradict each other.
//!
//! What is signed, what certifies and what commits is restated here, without the replicas' code for it; signatures are
//! checked, so that nobody is blamed for what another sent. Invariant: it stops at the first contradiction and names
//! both places where it was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use borsh::{BorshDeserialize as _, BorshSerialize};
use quorate::{
    consensus::{
        Block, BlockId, BlockResponse, Certificates, CheckpointCertificate, Gone, Message, Proposal,
        QuorumCertificate, StableCheckpoint, Timeout, TimeoutCertificate, Vote,
        certify::{Endorsement, Subject},
        task::Frame,
    },
    knowledge::command::Command,
    types::{Committee, Digest, Height, ReplicaIndex, Signature, View, WindowIndex},
};

use crate::harness::{
    cluster::REPLICAS,
    journal::{Rules, proposed},
};

/// More than two thirds of the replicas.
const QUORUM: usize = REPLICAS - (REPLICAS - 1) / 3;

/// Numbers of the kinds of statements, as docs/formats.md has them.
mod kind {
    pub(super) const PROPOSAL: u8 = 1;
    pub(super) const VOTE: u8 = 2;
    pub(super) const TIMEOUT: u8 = 3;
    pub(super) const REPORT: u8 = 4;
    pub(super) const CHECKPOINT: u8 = 6;
    pub(super) const ENDORSEMENT: u8 = 7;
}

/// The number of HotStuff-2.
const HOTSTUFF2: u8 = 1;

/// Statements that are no consensus messages belong to no protocol.
const NO_PROTOCOL: u8 = 0;

/// A place in a replica's order in which it may say one thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Vote(View),
    Proposal(View),
    Timeout(View),
    Endorsement(Subject),
    Report(WindowIndex),
    Checkpoint(Height),
}

impl Slot {
    /// Whether both are places in one order, so that the smaller one came first.
    fn is_in_the_order_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Endorsement(one), Self::Endorsement(two)) => one.kind == two.kind,
            (
                Self::Vote(_)
                | Self::Proposal(_)
                | Self::Timeout(_)
                | Self::Endorsement(_)
                | Self::Report(_)
                | Self::Checkpoint(_),
                _,
            ) => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// A block as the wire had it: what decides whether it commits its parent.
#[derive(Clone, Copy, Debug)]
struct Seen {
    view: View,
    parent: BlockId,
    justified: View,
    justified_block: BlockId,
    justified_height: Height,
}

/// What was said, by whom, and where it was seen first.
#[derive(Debug)]
pub(crate) struct Statements {
    committee: Committee,
    said: BTreeMap<(ReplicaIndex, Slot), (Digest, String)>,
    /// How often each kind was heard on the wire.
    pub(crate) heard: BTreeMap<&'static str, usize>,
    blocks: BTreeMap<BlockId, Seen>,
    /// The certified block of each view, with its height.
    certified: BTreeMap<View, (BlockId, Height)>,
    /// Digests of certificates that were looked at.
    certificates: BTreeSet<Digest>,
    /// The block of each height, and where it was first seen to be committed.
    committed: BTreeMap<Height, (BlockId, String)>,
    /// Where the statement comes from that is being looked at.
    source: String,
}

impl Statements {
    pub(crate) const fn new(committee: Committee) -> Self {
        Self {
            committee,
            said: BTreeMap::new(),
            heard: BTreeMap::new(),
            blocks: BTreeMap::new(),
            certified: BTreeMap::new(),
            certificates: BTreeSet::new(),
            committed: BTreeMap::new(),
            source: String::new(),
        }
    }

    /// How many different statements there are.
    pub(crate) fn count(&self) -> usize {
        self.said.len()
    }

    /// How many heights were seen to be committed.
    pub(crate) fn commits(&self) -> usize {
        self.committed.len()
    }

    fn say(&mut self, who: ReplicaIndex, slot: Slot, what: Digest) {
        let source = &self.source;
        let key = (who, slot);
        if let Some((earlier, seen)) = self.said.get(&key) {
            assert_eq!(*earlier, what, "{key:?}: {seen} and {source} say different things");
        } else {
            self.said.insert(key, (what, source.clone()));
        }
    }

    fn commit(&mut self, height: Height, block: BlockId) {
        let source = &self.source;
        let (earlier, seen) = self.committed.entry(height).or_insert_with(|| (block, source.clone()));
        assert_eq!(*earlier, block, "{seen} and {source} have different blocks committed at height {height}");
    }

    /// Asserts that the member signed this: product and version, kind, cluster, epoch, protocol, length, body.
    fn signed(
        &self,
        who: ReplicaIndex,
        (kind, protocol): (u8, u8),
        body: &impl BorshSerialize,
        signature: &Signature,
    ) {
        let body = borsh::to_vec(body).expect("memory takes all");
        let domain = (self.committee.cluster(), self.committee.epoch(), protocol);
        let domain = borsh::to_vec(&domain).expect("memory takes all");
        let length = (body.len() as u64).to_le_bytes();
        let bytes = [b"quorate/1\0".as_slice(), &[kind], &domain, &length, &body].concat();
        let key = self.committee.key(who).expect("replicas name members only");
        let verified = key.verify(&bytes, signature);
        assert!(verified.is_ok(), "{}: a statement of kind {kind} that {who} did not sign", self.source);
    }

    /// Takes what a listener wrote down.
    pub(crate) fn wire(&mut self, file: &Path) {
        self.heard_on_the_wire(&fs::read(file).expect("the listener wrote it"));
    }

    /// Takes senders with their frames, one after the other.
    pub(crate) fn heard_on_the_wire(&mut self, bytes: &[u8]) {
        self.source = "the wire".to_owned();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (from, frame): (ReplicaIndex, Vec<u8>) =
                <_>::deserialize(&mut rest).expect("the listener ended in order");
            let frame: Frame = borsh::from_slice(&frame).expect("replicas send nothing malformed");
            self.frame(from, frame);
        }
        self.committed_by_the_wire();
    }

    /// A block is committed by a certificate for a child of the very next view that rests on its own certificate.
    fn committed_by_the_wire(&mut self) {
        let mut committed = Vec::new();
        for (view, (block, _)) in &self.certified {
            let Some(child) = self.blocks.get(block) else { continue };
            assert_eq!(child.view, *view, "a certificate of another view than its block's");
            let is_next = child.justified.number() + 1 == child.view.number();
            if is_next && child.parent == child.justified_block && child.justified_height > Height::ZERO {
                committed.push((child.justified_height, child.parent));
            }
        }
        committed.into_iter().for_each(|(height, block)| self.commit(height, block));
    }

    fn frame(&mut self, from: ReplicaIndex, frame: Frame) {
        let kind = match frame {
            Frame::Endorsement(endorsement) => {
                self.endorsement(from, endorsement);
                "endorsement"
            }
            Frame::Consensus(Message::Proposal(proposal)) => {
                self.proposal(proposal);
                "proposal"
            }
            Frame::Consensus(Message::Vote(vote)) => {
                let Vote { view, height, block, voter, signature } = vote;
                self.signed(voter, (kind::VOTE, HOTSTUFF2), &(view, height, block), &signature);
                self.say(voter, Slot::Vote(view), block);
                "vote"
            }
            Frame::Consensus(Message::Timeout(timeout)) => {
                let Timeout { view, high_qc, entry, sender, signature } = timeout;
                self.timeout(sender, view, high_qc.view, &signature);
                self.votes(high_qc);
                self.timeouts(entry);
                "timeout"
            }
            Frame::Consensus(Message::Certificates(Certificates { high_qc, high_tc })) => {
                self.votes(high_qc);
                self.timeouts(high_tc);
                "certificates"
            }
            Frame::Consensus(Message::Commands(commands)) => {
                commands.iter().for_each(|command| self.command(command.head(), command.body()));
                "commands"
            }
            Frame::Consensus(Message::CheckpointVote(vote)) => {
                self.checkpoint(vote.voter, &vote.checkpoint, vote.checkpoint.height, &vote.signature);
                "checkpoint vote"
            }
            Frame::Consensus(
                Message::Checkpoint(stable) | Message::Gone(Gone { checkpoint: stable, asked: _ }),
            ) => {
                let StableCheckpoint { certificate, qc } = stable;
                let CheckpointCertificate { checkpoint, signatures } = certificate;
                self.commit(checkpoint.height, checkpoint.block);
                for (voter, signature) in signatures {
                    self.checkpoint(voter, &checkpoint, checkpoint.height, &signature);
                }
                self.votes(qc);
                "checkpoint"
            }
            Frame::Consensus(Message::BlockRequest(_)) => "block request",
            Frame::Consensus(Message::ChunkRequest(_)) => "chunk request",
            Frame::Consensus(Message::Chunks(_)) => "chunks",
            Frame::Consensus(Message::Committed(_)) => "committed commands",
            Frame::Consensus(Message::BlockResponse(BlockResponse { blocks, tip })) => {
                blocks.iter().for_each(|block| self.block(block));
                self.votes(tip);
                "block response"
            }
        };
        *self.heard.entry(kind).or_default() += 1;
    }

    fn endorsement(&mut self, from: ReplicaIndex, endorsement: Endorsement) {
        // The document that its other signature covers is not here.
        let Endorsement { subject, digest, signer, signature: _, pledge } = endorsement;
        assert_eq!(signer, from, "an endorsement in another's name");
        self.signed(signer, (kind::ENDORSEMENT, NO_PROTOCOL), &(&subject, digest), &pledge);
        self.say(signer, Slot::Endorsement(subject), digest);
    }

    fn proposal(&mut self, proposal: Proposal) {
        let said = proposed(&proposal);
        let Proposal { block, entry, signature } = proposal;
        let certificates = Digest::of_value(&(block.justify(), &entry));
        let body = (block.view(), block.id(), certificates);
        self.signed(block.proposer(), (kind::PROPOSAL, HOTSTUFF2), &body, &signature);
        self.say(block.proposer(), Slot::Proposal(block.view()), said);
        self.block(&block);
        self.timeouts(entry);
    }

    fn timeout(&mut self, who: ReplicaIndex, view: View, high_qc: View, signature: &Signature) {
        self.signed(who, (kind::TIMEOUT, HOTSTUFF2), &(view, high_qc), signature);
        self.say(who, Slot::Timeout(view), of_view(high_qc));
    }

    fn checkpoint(
        &mut self,
        who: ReplicaIndex,
        checkpoint: &impl BorshSerialize,
        height: Height,
        signature: &Signature,
    ) {
        self.signed(who, (kind::CHECKPOINT, HOTSTUFF2), checkpoint, signature);
        self.say(who, Slot::Checkpoint(height), Digest::of_value(checkpoint));
    }

    fn block(&mut self, block: &Block) {
        let justify = block.justify();
        let seen = Seen {
            view: block.view(),
            parent: block.parent(),
            justified: justify.view,
            justified_block: justify.block,
            justified_height: justify.height,
        };
        self.blocks.insert(block.id(), seen);
        self.votes(justify.clone());
        for command in block.payload().commands() {
            self.command(command.head(), command.body());
        }
    }

    /// The votes in a certificate, a quorum of distinct ones. Each certificate is looked at once.
    fn votes(&mut self, certificate: QuorumCertificate) {
        if certificate.height == Height::ZERO || !self.certificates.insert(Digest::of_value(&certificate)) {
            return;
        }
        let QuorumCertificate { view, height, block, signatures } = certificate;
        let signers: BTreeSet<ReplicaIndex> = signatures.iter().map(|(signer, _)| *signer).collect();
        assert!(signers.len() >= QUORUM, "a certificate of {} in view {view}", signers.len());
        for (voter, signature) in signatures {
            self.signed(voter, (kind::VOTE, HOTSTUFF2), &(view, height, block), &signature);
            self.say(voter, Slot::Vote(view), block);
        }
        let earlier = self.certified.insert(view, (block, height));
        assert!(
            earlier.is_none_or(|earlier| earlier == (block, height)),
            "two certified blocks in view {view}"
        );
    }

    fn timeouts(&mut self, certificate: Option<TimeoutCertificate>) {
        let Some(certificate) = certificate else { return };
        if !self.certificates.insert(Digest::of_value(&certificate)) {
            return;
        }
        let TimeoutCertificate { view, timeouts, high_qc } = certificate;
        let signers: BTreeSet<ReplicaIndex> = timeouts.iter().map(|part| part.signer).collect();
        assert!(signers.len() >= QUORUM, "a timeout certificate of {} in view {view}", signers.len());
        let highest = timeouts.iter().map(|part| part.high_qc_view).max();
        assert_eq!(highest, Some(high_qc.view), "a timeout certificate proves its highest certificate");
        for part in timeouts {
            self.timeout(part.signer, view, part.high_qc_view, &part.signature);
        }
        self.votes(high_qc);
    }

    fn command(&mut self, head: &[u8], body: &[u8]) {
        let Ok(Command::Report { report, .. }) = Command::decode(head, body) else { return };
        let header = &report.header;
        self.signed(header.replica, (kind::REPORT, NO_PROTOCOL), header, &report.signature);
        *self.heard.entry("report").or_default() += 1;
        // The whole head is signed, its time as well.
        self.say(header.replica, Slot::Report(header.window), Digest::of(head));
    }

    /// Takes what stands in a replica's journal. What the wire has of that replica must stand there too, unless it is
    /// older than everything of its kind in the journal.
    pub(crate) fn journal(&mut self, who: ReplicaIndex, journal: &Rules) {
        self.source = format!("the journal of {who}");
        let mut own: BTreeMap<Slot, Digest> = BTreeMap::new();
        own.extend(journal.votes.iter().map(|(view, block)| (Slot::Vote(*view), *block)));
        own.extend(journal.proposals.iter().map(|(view, said)| (Slot::Proposal(*view), *said)));
        own.extend(journal.timeouts.iter().map(|(view, high)| (Slot::Timeout(*view), of_view(*high))));
        own.extend(journal.reports.iter().map(|(window, head)| (Slot::Report(*window), Digest::of(head))));
        own.extend(
            journal.endorsed.iter().map(|(subject, digest)| (Slot::Endorsement(subject.clone()), *digest)),
        );
        own.extend(journal.checkpoints.iter().map(|(height, said)| (Slot::Checkpoint(*height), *said)));
        let mut oldest: Vec<&Slot> = Vec::new();
        for slot in own.keys() {
            if !oldest.iter().any(|other| other.is_in_the_order_of(slot)) {
                oldest.push(slot);
            }
        }
        for (_, slot) in self.said.keys().filter(|(signer, _)| *signer == who) {
            let oldest = oldest.iter().find(|other| other.is_in_the_order_of(slot));
            let is_forgotten = oldest.is_none_or(|oldest| slot < *oldest);
            assert!(
                is_forgotten || own.contains_key(slot),
                "{who} said {slot:?}, which its journal does not hold"
            );
        }
        for (slot, digest) in own {
            self.say(who, slot, digest);
        }
        for (height, block) in &journal.committed {
            self.commit(*height, *block);
        }
    }
}

fn of_view(view: View) -> Digest {
    Digest::of(&view.number().to_le_bytes())
}
