//! The reports that were ordered, by replica and window, so that a second, different one is seen.
//!
//! It looks at signed headers only and decides nothing. Invariant: a header is kept only when the fold found its
//! signature to verify, so nobody can put a false one before a replica's own; and none near the present goes for
//! one that is further away.

use std::collections::BTreeMap;

use crate::{
    knowledge::{
        change::{Change, ReportRefusal},
        command::Command,
        observation::SignedReport,
    },
    types::{Committee, Evidence, ReplicaIndex, SignedStatement, WindowIndex},
};

/// How many windows before the newest closed one are kept in any case: twice as many as can be open, so that a report
/// which is ordered late still meets the first.
const PAST_WINDOWS: u64 = 16;

/// How many windows of each replica are kept: those, the newest closed one, and as many to come.
const MAX_WINDOWS: usize = 33;

#[derive(Debug, Default)]
pub(super) struct HeardReports {
    by_replica: BTreeMap<ReplicaIndex, BTreeMap<WindowIndex, SignedReport>>,
}

impl HeardReports {
    /// Looks at an ordered command and what the fold made of it, `closed` being the newest closed window; gives the
    /// evidence of a second report on a window.
    pub(super) fn hear(
        &mut self,
        head: &[u8],
        changes: &[Change],
        closed: Option<WindowIndex>,
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
            let past = closed.map_or(0, |closed| closed.index().saturating_sub(PAST_WINDOWS));
            let is_past = heard.first_key_value().is_some_and(|(oldest, _)| oldest.index() < past);
            if is_past {
                heard.pop_first()
            } else {
                heard.pop_last()
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{HeardReports, MAX_WINDOWS};
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
        let mut hear = |closed: u64, head: &[u8], changes: &[Change]| {
            let evidence = heard.hear(head, changes, Some(WindowIndex::new(closed)), &committee())?;
            let verified = VerifiedEvidence::verify(evidence, &committee()).expect("it is evidence");
            Some((verified.offender().place(), verified.kind()))
        };
        assert_eq!(hear(6, &head(7, 1), &refused(ReportRefusal::BadSignature)), None);
        assert_eq!(hear(6, &head(7, 2), &[]), None);
        assert_eq!(hear(6, &head(7, 2), &refused(ReportRefusal::Duplicate)), None, "a copy");
        assert_eq!(hear(6, &head(8, 3), &[]), None, "another window");
        let late = refused(ReportRefusal::OutsideOpenWindows);
        assert_eq!(hear(6, &head(7, 3), &late), Some((2, EvidenceKind::DoubleReport)));
        for window in 9..80 {
            assert_eq!(hear(window, &head(window, 2), &[]), None);
        }
        assert_eq!(hear(80, &head(70, 4), &late), Some((2, EvidenceKind::DoubleReport)), "an open window");
        assert_eq!(heard.by_replica.values().map(BTreeMap::len).sum::<usize>(), MAX_WINDOWS);
    }

    #[test]
    fn reports_far_away_push_out_none_of_the_present() {
        let mut heard = HeardReports::default();
        let mut hear = |closed: u64, window: u64, signed_at: u64| {
            let closed = Some(WindowIndex::new(closed));
            heard.hear(&head(window, signed_at), &[], closed, &committee()).is_some()
        };
        assert!(!hear(1_000, 1_001, 1));
        for far in (5_000..5_100).chain(0..100) {
            assert!(!hear(1_000, far, 1));
        }
        assert!(hear(1_000, 1_001, 2), "the first one is known still");
        for window in 1_002..1_200 {
            let closed = window - 1;
            assert!(!hear(closed, window, 1));
            assert!(!hear(closed, 5_000 + window, 1));
            assert!(hear(closed, window, 2), "window {window}");
            if window > 1_008 {
                assert!(hear(closed, window - 8, 3), "one that is ordered late, on window {}", window - 8);
            }
        }
    }
}
