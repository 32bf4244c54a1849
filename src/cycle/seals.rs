//! Seals: what this replica has signed outside consensus, so that it never signs anything else for it.
//!
//! Invariant: for each window one report, for each subject one digest, across restarts.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;

use crate::{
    consensus::certify::{Subject, SubjectKind},
    knowledge::command::EncodedCommand,
    types::{Digest, WindowIndex},
};

/// How many subjects are remembered of each kind. Whatever is older is never signed again: its control cycle is
/// long past.
const MAX_SUBJECTS_PER_KIND: usize = 65_536;

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

/// What is known of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was never signed.
    New,
    /// This digest was signed for it.
    Endorsed(Digest),
    /// It is so old that what was signed for it is forgotten: nothing may be signed.
    Forgotten,
}

#[derive(Debug, Default)]
pub(super) struct Seals {
    plans: Subjects,
    heads: Subjects,
    newest_report: Option<(WindowIndex, EncodedCommand)>,
}

#[derive(Debug, Default)]
struct Subjects {
    endorsed: BTreeMap<Subject, Digest>,
    /// Up to this number everything may have been signed and forgotten.
    forgotten: Option<u64>,
}

impl Subjects {
    fn keep(&mut self, subject: Subject, digest: Digest, most: usize) {
        self.endorsed.insert(subject, digest);
        if self.endorsed.len() > most
            && let Some((oldest, _)) = self.endorsed.pop_first()
        {
            self.forgotten = self.forgotten.max(Some(oldest.number));
        }
    }

    fn known(&self, subject: &Subject) -> Known {
        match self.endorsed.get(subject) {
            Some(digest) => Known::Endorsed(*digest),
            None if self.forgotten.is_some_and(|forgotten| subject.number <= forgotten) => Known::Forgotten,
            None => Known::New,
        }
    }
}

impl Seals {
    pub(super) fn keep(&mut self, seal: Seal) {
        match seal {
            Seal::Report { window, head, body } => {
                self.newest_report = Some((window, EncodedCommand { head, body }));
            }
            Seal::Endorsed { subject, digest } => {
                let subjects = match subject.kind {
                    SubjectKind::Plan => &mut self.plans,
                    SubjectKind::Head => &mut self.heads,
                };
                subjects.keep(subject, digest, MAX_SUBJECTS_PER_KIND);
            }
        }
    }

    pub(super) fn endorsed(&self, subject: &Subject) -> Known {
        match subject.kind {
            SubjectKind::Plan => self.plans.known(subject),
            SubjectKind::Head => self.heads.known(subject),
        }
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

#[cfg(test)]
mod tests {
    use super::{Known, Subjects};
    use crate::{
        consensus::certify::{Subject, SubjectKind},
        types::Digest,
    };

    #[test]
    fn what_was_signed_and_forgotten_is_never_taken_for_new() {
        let subject = |number| Subject { kind: SubjectKind::Plan, number, of: "pool".to_owned() };
        let mut subjects = Subjects::default();
        for number in 1..=4 {
            subjects.keep(subject(number), Digest::of(b"plan"), 3);
        }
        let known = |number| subjects.known(&subject(number));
        assert_eq!(known(1), Known::Forgotten);
        assert_eq!(known(2), Known::Endorsed(Digest::of(b"plan")));
        assert_eq!(known(5), Known::New);
    }
}
