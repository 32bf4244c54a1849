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

/// How many subjects are remembered of each target and each shard. A plan lapses within two or three cycles, and a head
/// is superseded by the next one. What is older is never signed again, whatever it says.
const MAX_SUBJECTS_PER_NAME: usize = 16;

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
    /// Everything of this kind and name up to this number may have been signed: none of it is signed again.
    Forgotten(Subject),
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
    /// By kind, and by the target's or the shard's name. Names are the genesis'.
    endorsed: BTreeMap<(SubjectKind, String), Numbers>,
    newest_report: Option<(WindowIndex, EncodedCommand)>,
}

/// What was signed for one target or shard.
#[derive(Debug, Default)]
struct Numbers {
    endorsed: BTreeMap<u64, Digest>,
    /// Up to this number everything may have been signed and forgotten.
    forgotten: Option<u64>,
}

impl Numbers {
    fn keep(&mut self, number: u64, digest: Digest) {
        self.endorsed.insert(number, digest);
        if self.endorsed.len() > MAX_SUBJECTS_PER_NAME
            && let Some((oldest, _)) = self.endorsed.pop_first()
        {
            self.forgotten = self.forgotten.max(Some(oldest));
        }
    }

    fn known(&self, number: u64) -> Known {
        match self.endorsed.get(&number) {
            Some(digest) => Known::Endorsed(*digest),
            None if self.forgotten.is_some_and(|forgotten| number <= forgotten) => Known::Forgotten,
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
                let Subject { kind, number, of } = subject;
                self.endorsed.entry((kind, of)).or_default().keep(number, digest);
            }
            Seal::Forgotten(Subject { kind, number, of }) => {
                let numbers = self.endorsed.entry((kind, of)).or_default();
                numbers.forgotten = numbers.forgotten.max(Some(number));
            }
        }
    }

    pub(super) fn endorsed(&self, subject: &Subject) -> Known {
        let of_name = self.endorsed.get(&(subject.kind, subject.of.clone()));
        of_name.map_or(Known::New, |numbers| numbers.known(subject.number))
    }

    /// Everything that must be known again after a restart, in an order in which it can be kept.
    pub(super) fn all(&self) -> Vec<Seal> {
        let endorsed = self.endorsed.iter().flat_map(|((kind, of), numbers)| {
            let subject = move |number| Subject { kind: *kind, number, of: of.clone() };
            let forgotten = numbers.forgotten.map(move |number| Seal::Forgotten(subject(number)));
            let kept = numbers.endorsed.iter();
            let kept = kept.map(move |(number, digest)| Seal::Endorsed {
                subject: Subject { kind: *kind, number: *number, of: of.clone() },
                digest: *digest,
            });
            forgotten.into_iter().chain(kept)
        });
        let report = self.newest_report.iter().map(|(window, EncodedCommand { head, body })| Seal::Report {
            window: *window,
            head: head.clone(),
            body: body.clone(),
        });
        report.chain(endorsed).collect()
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
    use super::{Known, MAX_SUBJECTS_PER_NAME, Seal, Seals};
    use crate::{
        consensus::certify::{Subject, SubjectKind},
        types::{Digest, WindowIndex},
    };

    fn subject(of: &str, number: u64) -> Subject {
        Subject { kind: SubjectKind::Plan, number, of: of.to_owned() }
    }

    fn signed(of: &str, number: u64) -> Seal {
        Seal::Endorsed { subject: subject(of, number), digest: Digest::of(&number.to_le_bytes()) }
    }

    #[test]
    fn what_was_signed_and_forgotten_is_never_taken_for_new_also_after_all_is_written_down_again() {
        let most = MAX_SUBJECTS_PER_NAME as u64;
        let mut seals = Seals::default();
        seals.keep(Seal::Report { window: WindowIndex::new(7), head: vec![1], body: vec![2] });
        for number in 1..=most + 1 {
            seals.keep(signed("pool", 10 * number));
        }
        seals.keep(signed("dag", 5));
        let mut again = Seals::default();
        for seal in seals.all() {
            again.keep(seal);
        }
        for seals in [&seals, &again] {
            assert_eq!(seals.newest_report(), Some(WindowIndex::new(7)));
            let known = |of, number| seals.endorsed(&subject(of, number));
            let endorsed = |number: u64| Known::Endorsed(Digest::of(&number.to_le_bytes()));
            let newest = 10 * (most + 1);
            // What is signed often forgets nothing of what is signed rarely.
            let cases = [
                ("pool", 10, Known::Forgotten),
                ("pool", 3, Known::Forgotten),
                ("pool", 15, Known::New),
                ("pool", 20, endorsed(20)),
                ("pool", newest, endorsed(newest)),
                ("pool", newest + 1, Known::New),
                ("dag", 5, endorsed(5)),
                ("dag", 4, Known::New),
                ("other", 1, Known::New),
            ];
            for (of, number, expected) in cases {
                assert_eq!(known(of, number), expected, "{of} {number}");
            }
        }
    }

    #[test]
    fn many_subjects_of_one_name_take_no_more_room_than_a_few() {
        let mut seals = Seals::default();
        for number in 0..10_000 {
            seals.keep(signed("pool", number));
        }
        assert_eq!(seals.all().len(), MAX_SUBJECTS_PER_NAME + 1);
    }
}
