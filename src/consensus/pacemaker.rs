//! The pacemaker: which view this replica is in, when it gives it up, and who else did (rules P1 to P5).
//!
//! It signs nothing and sends nothing. Invariant: the view only rises, and only by a verified certificate.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    certificate::{SignedTimeoutView, TimeoutCertificate, Verified},
    message::Timeout,
};
use crate::types::{CommitteeSize, Millis, ReplicaIndex, View};

/// How long views may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewTimes {
    /// The timer of a view right after a commit.
    pub base: Millis,
    /// The cap of its growth.
    pub most: Millis,
}

impl Default for ViewTimes {
    fn default() -> Self {
        Self { base: Millis::from_secs(1), most: Millis::from_secs(8) }
    }
}

/// A silent leader's view gets this fraction of the timer: enough for a leader that is back to be heard.
const SILENT_LEADER_FRACTION: u64 = 8;

/// In the steady state the newest committed block is two views behind the current one.
const PIPELINE_VIEWS: u64 = 2;

#[derive(Clone, Debug)]
pub(super) struct Pacemaker {
    size: CommitteeSize,
    times: ViewTimes,
    view: View,
    /// The TC with the highest view; the entry certificate of the current view when no QC is.
    high_tc: Option<Verified<TimeoutCertificate>>,
    last_commit_view: View,
    deadline: Option<Millis>,
    timeouts: BTreeMap<ReplicaIndex, Verified<Timeout>>,
    silent: BTreeSet<ReplicaIndex>,
}

impl Pacemaker {
    pub(super) fn new(size: CommitteeSize, times: ViewTimes) -> Self {
        Self {
            size,
            times,
            view: View::new(1),
            high_tc: None,
            last_commit_view: View::ZERO,
            deadline: None,
            timeouts: BTreeMap::new(),
            silent: BTreeSet::new(),
        }
    }

    pub(super) const fn view(&self) -> View {
        self.view
    }

    pub(super) const fn high_tc(&self) -> Option<&Verified<TimeoutCertificate>> {
        self.high_tc.as_ref()
    }

    /// The TC by which the current view was entered; `None` when it was a QC.
    pub(super) fn entry_tc(&self) -> Option<&Verified<TimeoutCertificate>> {
        self.high_tc.as_ref().filter(|tc| tc.get().view.next() == self.view)
    }

    /// Who leads a view: each in turn, whatever happened. The schedule never changes inside an epoch.
    pub(super) fn leader(&self, view: View) -> ReplicaIndex {
        leader(self.size, view)
    }

    /// Enters the view after a verified certificate's (rule P1); says whether the view rose.
    pub(super) fn enter(&mut self, certified: View) -> bool {
        let next = certified.next();
        let rises = next > self.view;
        if rises {
            self.view = next;
            self.deadline = None;
            self.timeouts.retain(|_, timeout| timeout.get().view >= next);
        }
        rises
    }

    pub(super) fn keep_tc(&mut self, tc: &Verified<TimeoutCertificate>) {
        if self.high_tc.as_ref().is_none_or(|known| known.get().view < tc.get().view) {
            self.high_tc = Some(tc.clone());
        }
    }

    pub(super) fn committed(&mut self, view: View) {
        self.last_commit_view = self.last_commit_view.max(view);
    }

    /// Starts the view's timer if none runs.
    pub(super) fn start_timer(&mut self, now: Millis) {
        if self.deadline.is_none() {
            self.deadline = Some(now.plus(self.duration()));
        }
    }

    pub(super) const fn stop_timer(&mut self) {
        self.deadline = None;
    }

    pub(super) const fn deadline(&self) -> Option<Millis> {
        self.deadline
    }

    /// Whether the timer has ended; if so it starts again, so that the timeout is sent again.
    pub(super) fn timer_ended(&mut self, now: Millis) -> bool {
        let ended = self.deadline.is_some_and(|deadline| deadline <= now);
        if ended {
            self.deadline = Some(now.plus(self.duration()));
        }
        ended
    }

    /// The view's time (rule P5): half as long again for each view since the last commit.
    pub(super) fn duration(&self) -> Millis {
        let usual = self.last_commit_view.number().saturating_add(PIPELINE_VIEWS);
        let failed_views = self.view.number().saturating_sub(usual);
        let mut millis = self.times.base.as_millis();
        for _ in 0..failed_views {
            if millis >= self.times.most.as_millis() {
                break;
            }
            millis = millis.saturating_mul(3) / 2;
        }
        let millis = millis.min(self.times.most.as_millis());
        let fraction = if self.silent.contains(&self.leader(self.view)) { SILENT_LEADER_FRACTION } else { 1 };
        Millis::new((millis / fraction).max(1))
    }

    /// The current leader said nothing in its view.
    pub(super) fn mark_silent(&mut self) {
        self.silent.insert(self.leader(self.view));
    }

    /// A leader's proposal arrived, however late.
    pub(super) fn heard(&mut self, leader: ReplicaIndex) {
        self.silent.remove(&leader);
    }

    /// Keeps a peer's timeout when it is of a higher view than the one that is kept (rule P4).
    pub(super) fn record_timeout(&mut self, timeout: Verified<Timeout>) {
        let sender = timeout.get().sender;
        let newer = self.timeouts.get(&sender).is_none_or(|known| known.get().view < timeout.get().view);
        if newer && timeout.get().view >= self.view {
            self.timeouts.insert(sender, timeout);
        }
    }

    pub(super) fn kept_timeouts(&self) -> usize {
        self.timeouts.len()
    }

    fn current_timeouts(&self) -> impl Iterator<Item = &Timeout> {
        self.timeouts.values().map(Verified::get).filter(|timeout| timeout.view == self.view)
    }

    /// Whether an honest replica gave the current view up: f + 1 timeouts (rule P4).
    pub(super) fn others_timed_out(&self) -> bool {
        self.current_timeouts().count() >= self.size.one_honest()
    }

    /// The current view's TC once a quorum of timeouts is here. Every timeout's QC was verified before.
    pub(super) fn timeout_certificate(&self) -> Option<Verified<TimeoutCertificate>> {
        if self.current_timeouts().count() < self.size.quorum() {
            return None;
        }
        let quorum = || self.current_timeouts().take(self.size.quorum());
        let high_qc = quorum().map(|timeout| &timeout.high_qc).max_by_key(|qc| qc.view)?;
        let timeouts = quorum()
            .map(|timeout| SignedTimeoutView {
                signer: timeout.sender,
                high_qc_view: timeout.high_qc.view,
                signature: timeout.signature,
            })
            .collect();
        Some(Verified::vouch(TimeoutCertificate { view: self.view, timeouts, high_qc: high_qc.clone() }))
    }
}

/// Who leads a view in a committee of this size.
pub(super) fn leader(size: CommitteeSize, view: View) -> ReplicaIndex {
    let place = view.number() % size.replicas() as u64;
    ReplicaIndex::new(u16::try_from(place).expect("a committee has at most a hundred places"))
}
