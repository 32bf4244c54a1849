//! Open windows: which reports are kept until a window closes, and when it does (rules W1 to W10).
//!
//! It merges nothing. Invariant: no replica has more than [`MAX_OPEN_WINDOWS`] reports here, and every kept
//! report's window is open.

use std::{collections::BTreeMap, io, sync::Arc};

use borsh::{BorshDeserialize, BorshSerialize};

use super::agreed_time::AgreedTime;
use crate::{
    knowledge::{
        change::ReportRefusal,
        genesis::Parameters,
        merge::Weighted,
        observation::{ReportHeader, WindowSummary},
    },
    types::{CommitteeSize, Digest, ReplicaIndex, UnixMillis, WindowIndex},
};

/// How many open windows of one replica are kept (W5): two more than the default deadline spans, so that
/// a short disorder loses nothing, and few enough that a replica cannot fill the memory of the others.
pub(super) const MAX_OPEN_WINDOWS: usize = 8;

/// A logged report, until its window closes.
#[derive(Clone, Debug)]
pub(super) struct HeldReport {
    pub(super) header: ReportHeader,
    /// Shared by the reports with equal bodies.
    pub(super) summary: Arc<WindowSummary>,
}

/// The reports on one window, by replica.
pub(super) type Reports = BTreeMap<ReplicaIndex, HeldReport>;

/// A window that has closed, with the gap before it.
#[derive(Debug)]
pub(super) struct Closing {
    /// The first and the last of the windows without reports just before it.
    pub(super) gap: Option<(WindowIndex, WindowIndex)>,
    pub(super) window: WindowIndex,
    pub(super) reports: Reports,
}

/// All windows that are not closed.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenWindows {
    /// The oldest open window; `None` before the first agreed time.
    next: Option<WindowIndex>,
    /// Windows with reports; never an empty map for a window.
    reported: BTreeMap<WindowIndex, Reports>,
}

impl OpenWindows {
    /// W1: opens the first window.
    pub(super) fn begin(&mut self, first: WindowIndex) {
        self.next.get_or_insert(first);
    }

    /// Keeps a report whose signature and body have been checked.
    pub(super) fn keep(
        &mut self,
        mut report: HeldReport,
        agreed: &AgreedTime,
        parameters: &Parameters,
    ) -> Result<(), ReportRefusal> {
        let (replica, window) = (report.header.replica, report.header.window);
        let closed = self.next.is_none_or(|next| window < next);
        if closed || agreed.has_passed(due(window, parameters)) {
            return Err(ReportRefusal::OutsideOpenWindows); // W2
        }
        if report.header.signed_at < window.close(parameters.window) {
            return Err(ReportRefusal::OutsideOpenWindows); // W3
        }
        let mut held = self.reported.iter().filter(|(_, reports)| reports.contains_key(&replica));
        if held.clone().any(|(held, _)| *held == window) {
            return Err(ReportRefusal::Duplicate); // W4
        }
        let count = held.clone().count();
        if let Some((&oldest, _)) = held.next()
            && count >= MAX_OPEN_WINDOWS
        {
            if window < oldest {
                return Err(ReportRefusal::OutsideOpenWindows); // W5
            }
            self.displace(replica, oldest); // W5
        }
        let reports = self.reported.entry(window).or_default();
        if let Some(equal) = reports.values().find(|held| held.header.body == report.header.body) {
            report.summary = Arc::clone(&equal.summary);
        }
        reports.insert(replica, report);
        Ok(())
    }

    fn displace(&mut self, replica: ReplicaIndex, window: WindowIndex) {
        if let Some(reports) = self.reported.get_mut(&window) {
            reports.remove(&replica);
            if reports.is_empty() {
                self.reported.remove(&window);
            }
        }
    }

    /// W6 to W8: takes out what closes now, in order.
    pub(super) fn close(
        &mut self,
        size: CommitteeSize,
        agreed: &AgreedTime,
        parameters: &Parameters,
    ) -> Vec<Closing> {
        let is_final = |window: WindowIndex, reports: &Reports| {
            reports.len() == size.replicas() // W6a
                || (reports.len() >= size.quorum() && agreed.has_passed(settled(window, parameters))) // W6b
                || agreed.has_passed(due(window, parameters)) // W6c
        };
        let newest_final = self.reported.iter().rev().find(|(window, reports)| is_final(**window, reports));
        let (Some((&last, _)), Some(mut next)) = (newest_final, self.next) else {
            return Vec::new();
        };
        let still_open = self.reported.split_off(&last.next());
        let closing = std::mem::replace(&mut self.reported, still_open);
        let closings = closing.into_iter().map(|(window, reports)| {
            // W8: the range before a window with reports, if it is not empty.
            let before = window.index().checked_sub(1).map(WindowIndex::new);
            let gap = before.filter(|before| next <= *before).map(|before| (next, before));
            next = window.next();
            Closing { gap, window, reports }
        });
        let closings = closings.collect();
        self.next = Some(last.next());
        closings
    }

    /// W10.
    pub(super) fn wants_tick(
        &self,
        replica: ReplicaIndex,
        clock: UnixMillis,
        size: CommitteeSize,
        agreed: &AgreedTime,
        parameters: &Parameters,
    ) -> bool {
        self.reported.iter().any(|(window, reports)| {
            let point = settled(*window, parameters);
            let waits = (size.quorum()..size.replicas()).contains(&reports.len());
            waits && clock >= point && !agreed.has_passed(point) && agreed.of(replica) < Some(point)
        })
    }

    /// Whether it can be of a committee of this size.
    pub(super) fn fits(&self, size: CommitteeSize) -> bool {
        let mut held: BTreeMap<ReplicaIndex, usize> = BTreeMap::new();
        let opens = |window: &WindowIndex| self.next.is_some_and(|next| next <= *window);
        for (window, reports) in &self.reported {
            let is_of_it = |report: &HeldReport| report.header.window == *window;
            if !opens(window) || reports.is_empty() || !reports.values().all(is_of_it) {
                return false;
            }
            for replica in reports.keys() {
                *held.entry(*replica).or_default() += 1;
            }
        }
        held.iter().all(|(replica, count)| replica.as_usize() < size.replicas() && *count <= MAX_OPEN_WINDOWS)
    }

    /// The window before the oldest open one; `None` before the first agreed time.
    pub(super) fn newest_closed(&self) -> Option<WindowIndex> {
        self.next?.index().checked_sub(1).map(WindowIndex::new)
    }
}

/// The oldest open window, each body once by its digest, then the headers that name them.
impl BorshSerialize for OpenWindows {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let held = self.reported.values().flat_map(Reports::values);
        let bodies: BTreeMap<Digest, &WindowSummary> =
            held.map(|held| (held.header.body, &*held.summary)).collect();
        let headers: Vec<&ReportHeader> =
            self.reported.values().flat_map(Reports::values).map(|held| &held.header).collect();
        (self.next, bodies, headers).serialize(writer)
    }
}

impl BorshDeserialize for OpenWindows {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let refused = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let (next, bodies, headers): (_, BTreeMap<Digest, Arc<WindowSummary>>, Vec<ReportHeader>) =
            BorshDeserialize::deserialize_reader(reader)?;
        if bodies.iter().any(|(digest, body)| *digest != Digest::of_value(body)) {
            return Err(refused("a report's body is not the one that its digest names"));
        }
        let mut reported: BTreeMap<WindowIndex, Reports> = BTreeMap::new();
        for header in headers {
            let summary =
                bodies.get(&header.body).cloned().ok_or_else(|| refused("a report lacks its body"))?;
            let reports = reported.entry(header.window).or_default();
            reports.insert(header.replica, HeldReport { header, summary });
        }
        Ok(Self { next, reported })
    }
}

/// When a quorum of reports is enough.
fn settled(window: WindowIndex, parameters: &Parameters) -> UnixMillis {
    window.close(parameters.window).plus(parameters.grace).plus(parameters.settle)
}

/// When the window closes with whatever reports there are.
fn due(window: WindowIndex, parameters: &Parameters) -> UnixMillis {
    window.close(parameters.window).plus(parameters.deadline)
}

/// The distinct summaries of the reports that are not partial (M1), with how many carry each.
pub(super) fn counted(reports: &Reports) -> Vec<Weighted<'_>> {
    let mut distinct: BTreeMap<Digest, Weighted<'_>> = BTreeMap::new();
    for held in reports.values().filter(|held| !held.header.partial) {
        let weighted = distinct.entry(held.header.body);
        weighted.or_insert(Weighted { summary: &held.summary, reports: 0 }).reports += 1;
    }
    distinct.into_values().collect()
}
