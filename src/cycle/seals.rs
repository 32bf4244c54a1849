//! Seals: what this replica has signed outside consensus, so that it never signs anything else for it.
//!
//! Invariant: for each window one report, for each subject one digest, across restarts.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;

use crate::{
    consensus::certify::Subject,
    knowledge::command::EncodedCommand,
    types::{Digest, WindowIndex},
};

/// How many subjects are remembered. The oldest go: their control cycles are long past, and the fold
/// derives none of them again but in a replay from the first block, which gives the same bytes.
const MAX_SUBJECTS: usize = 65_536;

/// One thing that was signed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Seal {
    /// A report: the exact bytes, so that only those are ever sent again.
    Report {
        /// On which window.
        window: WindowIndex,
        /// The command's head, with the signature.
        head: Vec<u8>,
        /// The command's body.
        body: Vec<u8>,
    },
    /// An endorsement.
    Endorsed {
        /// What it is about.
        subject: Subject,
        /// SHA-256 of the document's body.
        digest: Digest,
    },
}

#[derive(Debug, Default)]
pub(super) struct Seals {
    endorsed: BTreeMap<Subject, Digest>,
    newest_report: Option<(WindowIndex, EncodedCommand)>,
}

impl Seals {
    pub(super) fn keep(&mut self, seal: Seal) {
        match seal {
            Seal::Report { window, head, body } => {
                self.newest_report = Some((window, EncodedCommand { head, body }));
            }
            Seal::Endorsed { subject, digest } => {
                self.endorsed.insert(subject, digest);
                if self.endorsed.len() > MAX_SUBJECTS {
                    self.endorsed.pop_first();
                }
            }
        }
    }

    pub(super) fn endorsed(&self, subject: &Subject) -> Option<Digest> {
        self.endorsed.get(subject).copied()
    }

    pub(super) const fn newest_report(&self) -> Option<WindowIndex> {
        match &self.newest_report {
            Some((window, _)) => Some(*window),
            None => None,
        }
    }

    pub(super) fn newest_report_command(&self) -> Option<EncodedCommand> {
        self.newest_report.as_ref().map(|(_, command)| command.clone())
    }
}
