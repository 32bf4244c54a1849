//! The reports that were ordered, by replica and window, so that a second, different one is seen.
//!
//! It looks at signed headers only and decides nothing. Invariant: a header is kept only when the fold found its
//! signature to verify, so nobody can put a false one before a replica's own.

use std::collections::BTreeMap;

use crate::{
    knowledge::{
        change::{Change, ReportRefusal},
        command::Command,
        observation::SignedReport,
    },
    types::{Committee, Evidence, ReplicaIndex, SignedStatement, WindowIndex},
};

/// How many windows of each replica are kept: twice as many as can be open, so that a report which is ordered late
/// still meets the first.
const MAX_WINDOWS: usize = 16;

#[derive(Debug, Default)]
pub(super) struct HeardReports {
    by_replica: BTreeMap<ReplicaIndex, BTreeMap<WindowIndex, SignedReport>>,
}

impl HeardReports {
    /// Looks at an ordered command and what the fold made of it; gives the evidence of a second report on a window.
    pub(super) fn hear(
        &mut self,
        head: &[u8],
        changes: &[Change],
        committee: &Committee,
    ) -> Option<Evidence> {
        let report = Command::report_in(head)?;
        let is_void = |change: &Change| {
            let bad = ReportRefusal::BadSignature;
            matches!(change, Change::Malformed)
                || matches!(change, Change::ReportRefused { why, .. } if *why == bad)
        };
        if changes.iter().any(is_void) {
            return None;
        }
        let (replica, window) = (report.header.replica, report.header.window);
        let heard = self.by_replica.entry(replica).or_default();
        if let Some(first) = heard.get(&window) {
            let signed = |report: &SignedReport| SignedStatement {
                bytes: report.header.statement(&committee.domain(0)),
                signature: report.signature,
            };
            let contradicts = first.header != report.header;
            return contradicts.then(|| Evidence::contradiction(replica, signed(first), signed(&report)));
        }
        heard.insert(window, report);
        if heard.len() > MAX_WINDOWS {
            heard.pop_first();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::HeardReports;
    use crate::{
        knowledge::{
            change::{Change, ReportRefusal},
            command::Command,
            evidence::{EvidenceKind, VerifiedEvidence},
            fixtures::{committee, replica_keys},
            observation::{ReportHeader, WindowSummary},
        },
        types::{Digest, ReplicaIndex, UnixMillis, WindowIndex},
    };

    fn head(window: u64, signed_at: u64) -> Vec<u8> {
        let header = ReportHeader {
            replica: ReplicaIndex::new(2),
            window: WindowIndex::new(window),
            partial: false,
            signed_at: UnixMillis::new(signed_at),
            body: Digest::ZERO,
        };
        let report = header.sign(&committee().domain(0), &replica_keys()[2]);
        Command::Report { report, summary: WindowSummary::default() }.encode().head
    }

    #[test]
    fn a_second_report_on_a_window_is_evidence_and_a_copy_or_a_false_one_is_not() {
        let mut heard = HeardReports::default();
        let refused = |why| [Change::ReportRefused { replica: ReplicaIndex::new(2), why }];
        let mut hear = |head: &[u8], changes: &[Change]| {
            let evidence = heard.hear(head, changes, &committee())?;
            let verified = VerifiedEvidence::verify(evidence, &committee()).expect("it is evidence");
            Some((verified.offender().place(), verified.kind()))
        };
        assert_eq!(hear(&head(7, 1), &refused(ReportRefusal::BadSignature)), None);
        assert_eq!(hear(&head(7, 2), &[]), None);
        assert_eq!(hear(&head(7, 2), &refused(ReportRefusal::Duplicate)), None, "a copy");
        assert_eq!(hear(&head(8, 3), &[]), None, "another window");
        let late = refused(ReportRefusal::OutsideOpenWindows);
        assert_eq!(hear(&head(7, 3), &late), Some((2, EvidenceKind::DoubleReport)));
        for window in 9..40 {
            assert_eq!(hear(&head(window, 2), &[]), None);
        }
        assert_eq!(heard.by_replica.values().map(std::collections::BTreeMap::len).sum::<usize>(), 16);
    }
}
