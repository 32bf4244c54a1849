//! What a replica signed, read back from its journal once it has ended, and the rules that it must keep.
//!
//! The rules are restated here from the protocol's text, without its code. Invariant: a journal is only read
//! while its replica does not run; the journal's own lock sees to that.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate::{
    consensus::{
        BASE, Block, BlockId, NOTE, Proposal, RECORD, Record,
        certify::Subject,
        journal::{FileDisk, Identity, Journal, JournalConfig, SALT_BYTES, SEGMENT_BYTES, Salt},
    },
    cycle::Seal,
    service::{
        config::{ReplicaConfig, ReplicaFlags},
        replica::Membership,
    },
    types::{Digest, Height, View, WindowIndex},
};

/// What was counted while a journal was checked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) votes: usize,
    pub(crate) timeouts: usize,
    pub(crate) proposals: usize,
    pub(crate) endorsements: usize,
    pub(crate) reports: usize,
}

/// Everything that was signed, in the order of signing, and what was committed.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) votes: BTreeMap<View, BlockId>,
    /// Block and certificates, by digest.
    pub(crate) proposals: BTreeMap<View, Digest>,
    /// The views of highest certificates that were signed with the views that timed out.
    pub(crate) timeouts: BTreeMap<View, View>,
    pub(crate) endorsed: BTreeMap<Subject, Digest>,
    /// The commands' heads.
    pub(crate) reports: BTreeMap<WindowIndex, Vec<u8>>,
    /// What was said of the states after these heights.
    pub(crate) checkpoints: BTreeMap<Height, Digest>,
    pub(crate) committed: BTreeMap<Height, BlockId>,
    last_timeout: Option<View>,
    last_checkpoint: Option<Height>,
    blocks: BTreeMap<BlockId, Arc<Block>>,
    last_report: Option<WindowIndex>,
    signed: Signed,
}

/// Where a replica's journal lies.
pub(crate) fn folder(replica_file: &Path) -> PathBuf {
    config(replica_file).data_dir.join("journal")
}

/// What a replica runs with.
pub(crate) fn config(replica_file: &Path) -> ReplicaConfig {
    let flags = ReplicaFlags { config: Some(replica_file.to_owned()), ..ReplicaFlags::default() };
    ReplicaConfig::resolve(flags).expect("the replica ran with this file")
}

/// Reads a replica's journal and checks that nothing in it contradicts anything else in it.
///
/// # Panics
/// With the contradiction.
pub(crate) fn check(replica_file: &Path) -> Signed {
    read(replica_file).signed
}

/// The same; what was signed.
///
/// # Panics
/// With the contradiction.
pub(crate) fn read(replica_file: &Path) -> Rules {
    let config = config(replica_file);
    let member = Membership::read(&config).expect("the replica ran with these keys");
    let identity = Identity { cluster: member.root.committee().cluster(), key: member.key.public().id() };
    let salt = Salt::new([7; SALT_BYTES]);
    let journal_config = JournalConfig { identity, salt, segment_bytes: SEGMENT_BYTES };
    let disk = FileDisk::open(&config.data_dir.join("journal")).expect("the replica has ended");
    let mut rules = Rules::default();
    let opened = Journal::open(disk, journal_config, |entry| match entry.kind {
        RECORD => rules.record(borsh::from_slice(entry.payload).expect("a record decodes")),
        NOTE => rules.note(borsh::from_slice(entry.payload).expect("a note decodes")),
        // It restates what other entries said.
        BASE => {}
        other => panic!("an entry of the unknown kind {other}"),
    });
    opened.expect("the journal is sound");
    rules
}

/// What a proposal's signature says of its view: the block, and the certificates that come with it.
pub(crate) fn proposed(proposal: &Proposal) -> Digest {
    let Proposal { block, entry, .. } = proposal;
    Digest::of_value(&(block.id(), Digest::of_value(&(block.justify(), entry))))
}

impl Rules {
    fn record(&mut self, record: Record) {
        match record {
            Record::Block(block) => {
                self.blocks.insert(block.id(), block);
            }
            Record::Proposal { block, proposal } => {
                self.signed.proposals += 1;
                // The block of the very first proposal may stand in a base.
                if let Some(block) = self.blocks.get(&block) {
                    let view = block.view();
                    let said = proposed(&proposal.with_block(Arc::clone(block)));
                    let earlier = self.proposals.insert(view, said);
                    assert_eq!(earlier, None, "two proposals in view {view}");
                }
            }
            Record::Vote { vote, .. } => {
                self.signed.votes += 1;
                let newest = self.votes.last_key_value().map(|(view, _)| *view);
                assert!(newest < Some(vote.view), "a vote in view {} after one in {newest:?}", vote.view);
                assert!(
                    self.last_timeout < Some(vote.view),
                    "a vote in view {} after a timeout of {:?}",
                    vote.view,
                    self.last_timeout
                );
                self.votes.insert(vote.view, vote.block);
            }
            Record::Timeout(timeout) => {
                self.signed.timeouts += 1;
                self.timeouts.insert(timeout.view, timeout.high_qc.view);
                let earlier = self.last_timeout.replace(timeout.view);
                assert!(earlier < Some(timeout.view), "a timeout of {} after {earlier:?}", timeout.view);
            }
            Record::CheckpointVote(vote) => {
                let height = vote.checkpoint.height;
                self.checkpoints.insert(height, Digest::of_value(&vote.checkpoint));
                let earlier = self.last_checkpoint.replace(height);
                assert!(earlier < Some(height), "a checkpoint at {height} after one at {earlier:?}");
            }
            Record::Committed { height, block, .. } => {
                let earlier = self.committed.insert(height, block);
                assert!(earlier.is_none_or(|earlier| earlier == block), "two blocks at height {height}");
            }
            Record::Forgotten(_) => {}
        }
    }

    fn note(&mut self, seal: Seal) {
        match seal {
            Seal::Report { window, head, .. } => {
                self.signed.reports += 1;
                self.reports.insert(window, head);
                let earlier = self.last_report.replace(window);
                assert!(earlier < Some(window), "a report on {window} after one on {earlier:?}");
            }
            Seal::Endorsed { subject, digest } => {
                self.signed.endorsements += 1;
                let earlier = self.endorsed.insert(subject.clone(), digest);
                assert!(earlier.is_none_or(|earlier| earlier == digest), "two digests for {subject:?}");
            }
            // It takes nothing back: what it names is not signed again.
            Seal::Forgotten(_) => {}
        }
    }
}
