//! The board: what a replica says of its state, put together from everything that is known of it.
//!
//! It decides one thing: whether this replica's clock is too far from the others' for its reports to help.
//! Invariant: a reason against being ready stands on the board exactly while it holds.

use std::collections::BTreeMap;

use super::{event::describe, storing::StoreProgress};
use crate::{
    consensus::{
        certify::{EndorsementError, SubjectKind},
        task::ConsensusStatus,
        transport::LinksStatus,
    },
    cycle::Alarm,
    knowledge::{
        certified::Certified, change::ClosedWindow, fold::State, genesis::Parameters, head::Head, plan::Plan,
    },
    service::{
        api::{DocumentKind, RefusedDocuments, Stage},
        status::{
            AlarmKind, CheckpointStatus, EvidenceStatus, GapStatus, HeadStatus, NotReady, NotReadyReason,
            PeerStatus, RefusedStatus, StatusSnapshot, StopStatus, StoreState, StoreStatus, TargetStatus,
            TransferStatus,
        },
    },
    types::{Committee, Height, KeyId, PublicKey, ReplicaIndex, UnixMillis, WindowIndex},
};

/// How many committed heights the store may lack before the replica calls itself not ready.
const STORE_LAG_HEIGHTS: u64 = 1_000;

pub(super) struct Board {
    snapshot: StatusSnapshot,
    parameters: Parameters,
    clock_off_ms: Option<i64>,
    /// Whether it has forgotten what it signed, or another process signs with its key.
    is_silent: bool,
    /// The identifier of this replica's key.
    key: KeyId,
    /// How often processes of each peer had come back when last looked.
    returned: BTreeMap<ReplicaIndex, u64>,
    /// The height of the certified state that is not this replica's own, until it is.
    diverged: Option<Height>,
}

impl Board {
    pub(super) const fn new(snapshot: StatusSnapshot, parameters: Parameters, key: KeyId) -> Self {
        Self {
            snapshot,
            parameters,
            clock_off_ms: None,
            is_silent: false,
            key,
            returned: BTreeMap::new(),
            diverged: None,
        }
    }

    pub(super) const fn snapshot(&self) -> &StatusSnapshot {
        &self.snapshot
    }

    /// Whether this replica's reports would harm: its clock is off, or it must sign nothing.
    pub(super) const fn must_not_report(&self) -> bool {
        self.clock_off_ms.is_some() || self.is_silent
    }

    /// Whether the journal was lost or is an older copy, or another process has the key: then nothing is signed.
    pub(super) const fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Whether a quorum certified another state than this replica's own: then nothing is derived from it.
    pub(super) const fn has_diverged(&self) -> bool {
        self.diverged.is_some()
    }

    /// A quorum certified another state at this height.
    pub(super) fn diverged(&mut self, height: Height, detail: String, me: ReplicaIndex, now: UnixMillis) {
        self.diverged = Some(height);
        self.snapshot.raise(AlarmKind::Diverged, &me.to_string(), detail, now);
    }

    /// The state is one that was read back: shows what it says of plans and windows.
    pub(super) fn restored(&mut self, state: &State) {
        self.diverged = None;
        for plan in state.newest_plans() {
            self.logged(plan);
        }
        self.snapshot.windows.closed = state.newest_closed();
        show_operations(&mut self.snapshot.targets, state);
    }

    /// The replicas whose keys these are, by name.
    pub(super) fn names(&self, committee: &Committee, signers: &[KeyId]) -> Vec<String> {
        let mut places: Vec<_> = signers.iter().filter_map(|key| committee.place_of_id(*key)).collect();
        places.sort_unstable();
        places.into_iter().map(|place| place.to_string()).collect()
    }

    /// Looks at all that moves without telling.
    pub(super) fn look(
        &mut self,
        consensus: &ConsensusStatus,
        links: &LinksStatus,
        store: Option<StoreProgress>,
        state: &State,
        now: UnixMillis,
    ) {
        self.look_for_shared_keys(links, now);
        let snapshot = &mut self.snapshot;
        snapshot.view = consensus.view;
        snapshot.height = consensus.height;
        snapshot.checkpoint = consensus
            .checkpoint
            .map(|stable| CheckpointStatus { height: stable.height, state: stable.state.root() });
        snapshot.transfer = consensus.transfer.map(|transfer| TransferStatus {
            height: transfer.height,
            here: transfer.here,
            chunks: transfer.chunks,
            from: transfer.from.map(|peer| peer.to_string()),
        });
        snapshot.agreed_time_ms = state.now().unwrap_or_default();
        snapshot.cycle = state.cycle();
        snapshot.peers = links
            .peers
            .iter()
            .map(|link| PeerStatus {
                replica: link.peer.to_string(),
                connected: link.sending_since.is_some() && link.receiving_since.is_some(),
            })
            .collect();
        show_operations(&mut snapshot.targets, state);
        if let Some(store) = store {
            let lag_heights = consensus.height.number().saturating_sub(store.applied.number());
            let lag_max_heights = snapshot.store.lag_max_heights;
            snapshot.store = StoreStatus {
                state: store.state,
                applied_height: store.applied,
                lag_heights,
                lag_max_heights,
                holds_plans: lag_heights > lag_max_heights,
                failure: store.failure,
                gap: store.gap.map(|gap| GapStatus { first: gap.first, last: gap.last }),
                retries: store.retries,
                tables_dropped: store.tables_dropped,
                sweeps_failed: store.sweeps_failed,
            };
        }
        self.clock_off_ms = clock_off(links, snapshot.quorum, self.parameters);
        self.is_silent = consensus.forgotten.is_some() || !consensus.key_in_use.is_empty();
        self.snapshot.not_ready = self.reasons(consensus);
    }

    /// Names peers whose key two processes have.
    fn look_for_shared_keys(&mut self, links: &LinksStatus, now: UnixMillis) {
        for link in &links.peers {
            let seen = self.returned.entry(link.peer).or_default();
            if link.returned_processes > *seen {
                *seen = link.returned_processes;
                let detail = "two processes connect with its key in turn: one of them is a copy, or the key was stolen";
                let by = link.peer.to_string();
                self.snapshot.raise(AlarmKind::KeyInUse, &by, detail.to_owned(), now);
            }
        }
    }

    fn reasons(&self, consensus: &ConsensusStatus) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        let mut reason = |reason, detail| reasons.push(NotReady { reason, detail });
        let linked = 1 + self.snapshot.peers.iter().filter(|peer| peer.connected).count();
        if linked < self.snapshot.quorum {
            let detail = format!("{linked} of at least {} replicas are linked", self.snapshot.quorum);
            reason(NotReadyReason::NoQuorum, detail);
        }
        if let Some(view) = consensus.forgotten {
            let detail = format!(
                "this replica signed in view {view}, which its journal does not hold: the journal was lost or is an \
                 older copy; nothing is signed, and the key must be rotated in at the next epoch"
            );
            reason(NotReadyReason::JournalRefused, detail);
        }
        if !consensus.key_in_use.is_empty() {
            let tellers: Vec<_> = consensus.key_in_use.iter().map(ToString::to_string).collect();
            let detail = format!(
                "another process has this replica's key {}: {} were connected to by it after this one; nothing is signed \
                 until a restart. End the other process, and start this one with the data folder that signed last; if no \
                 other is yours, the key is stolen and must be rotated at the next epoch",
                self.key,
                tellers.join(", ")
            );
            reason(NotReadyReason::KeyInUse, detail);
        }
        if let Some(height) = self.diverged {
            let detail = format!(
                "a quorum certified another state at height {height} than this replica's own; nothing is endorsed until \
                 the certified state is here"
            );
            reason(NotReadyReason::Diverged, detail);
        }
        if let Some(transfer) = &self.snapshot.transfer {
            let from = transfer.from.as_deref().unwrap_or("nobody yet");
            let detail = format!(
                "taking the certified state at height {} from its peers: {} of {} chunks, asked {from}",
                transfer.height, transfer.here, transfer.chunks
            );
            reason(NotReadyReason::CatchingUp, detail);
        } else if let Some(target) = consensus.fetching {
            let detail = format!("fetching up to height {target}, at {}", consensus.height);
            reason(NotReadyReason::CatchingUp, detail);
        }
        if let Some((kind, detail)) = store_reason(&self.snapshot.store) {
            reason(kind, detail);
        }
        if let Some(off) = self.clock_off_ms {
            let detail = format!("{off} ms from the quorum's median: correct this machine's clock");
            reason(NotReadyReason::ClockOff, detail);
        }
        reasons
    }

    /// Shows what operators have ordered, at once.
    pub(super) fn operations(&mut self, state: &State) {
        show_operations(&mut self.snapshot.targets, state);
    }

    /// Shows what is proven of replicas.
    pub(super) fn evidence(&mut self, state: &State) {
        self.snapshot.evidence = state.evidence().iter().map(EvidenceStatus::of).collect();
    }

    /// Shows how many documents were refused.
    pub(super) fn refused(&mut self, refused: &RefusedDocuments) {
        let line = |(kind, stage, reason, count): (DocumentKind, Stage, &str, u64)| RefusedStatus {
            document: kind.as_str().to_owned(),
            stage: stage.as_str().to_owned(),
            reason: reason.to_owned(),
            count,
        };
        self.snapshot.refused = refused.counts().into_iter().map(line).collect();
    }

    pub(super) const fn set_reported(&mut self, window: Option<WindowIndex>) {
        self.snapshot.windows.reported = window;
    }

    pub(super) fn closed(&mut self, closed: &ClosedWindow) {
        self.snapshot.windows.closed = Some(closed.window);
        self.snapshot.windows.lag_ms = closed.closed_at.since(closed.window.close(self.parameters.window));
    }

    pub(super) const fn head(&mut self, head: &Head) {
        if head.shard.number() == 0 {
            self.snapshot.head = Some(HeadStatus { number: head.number, time_ms: head.time });
        }
    }

    pub(super) fn logged(&mut self, plan: &Certified<Plan>) {
        let (document, digest) = (plan.document(), plan.digest());
        let line = self.snapshot.targets.iter_mut().find(|line| line.target == document.target);
        if let Some(line) = line {
            (line.seq, line.plan) = (document.seq, digest);
        }
    }

    /// Puts an alarm on the board; gives the name of the replica that it is about.
    pub(super) fn alarm(&mut self, alarm: &Alarm, me: ReplicaIndex, now: UnixMillis) -> String {
        let (kind, by) = match alarm {
            Alarm::Disagreement { subject, by, .. } => match subject.kind {
                SubjectKind::Plan => (AlarmKind::OtherPlan, *by),
                SubjectKind::Head => (AlarmKind::OtherHead, *by),
            },
            Alarm::OwnContradiction { .. } => (AlarmKind::OwnContradiction, me),
        };
        let by = by.to_string();
        self.snapshot.raise(kind, &by, describe(alarm), now);
        by
    }

    pub(super) fn bad_signature(&mut self, from: ReplicaIndex, error: &EndorsementError, now: UnixMillis) {
        self.snapshot.raise(AlarmKind::BadSignature, &from.to_string(), error.to_string(), now);
    }
}

fn store_reason(store: &StoreStatus) -> Option<(NotReadyReason, String)> {
    let held = if store.holds_plans { "; no plans are signed until it is caught up" } else { "" };
    let behind = format!("behind by {} blocks{held}", store.lag_heights);
    match store.state {
        StoreState::Trouble(trouble) => {
            let failure = store.failure.as_deref().unwrap_or_default();
            Some((NotReadyReason::StoreFailing, format!("{}: {failure}; {behind}", trouble.as_str())))
        }
        StoreState::Absent | StoreState::Connecting | StoreState::Storing => {
            let is_far = store.holds_plans || store.lag_heights > STORE_LAG_HEIGHTS;
            is_far.then_some((NotReadyReason::StoreBehind, behind))
        }
    }
}

/// The lines stand in the order of the genesis, as the state's targets do.
fn show_operations(lines: &mut [TargetStatus], state: &State) {
    for (line, place) in lines.iter_mut().zip(0..) {
        let Some(permit) = state.operations().target(place) else { continue };
        let name = |key| {
            let operator = state.operators().by_key(key);
            operator.map_or_else(|| format!("{key}"), |operator| operator.name.clone())
        };
        line.mode = permit.mode();
        line.stopped_by = permit
            .stops()
            .map(|(key, stop)| StopStatus {
                operator: name(key),
                mode: stop.mode,
                keyid: key,
                counter: stop.counter,
                since_ms: stop.since,
            })
            .collect();
        line.agents = permit.agents().map(PublicKey::id).collect();
    }
}

/// How many milliseconds this clock is from the median of a quorum's, itself counted, when that is more than
/// the grace; `None` while fewer than a quorum's clocks are known.
fn clock_off(links: &LinksStatus, quorum: usize, parameters: Parameters) -> Option<i64> {
    let mut ahead: Vec<i64> = links.peers.iter().filter_map(|link| link.clock_ahead_ms).collect();
    ahead.push(0);
    if ahead.len() < quorum || ahead.len() < 2 {
        return None;
    }
    ahead.sort_unstable();
    let median = ahead[(ahead.len() - 1) / 2];
    (median.unsigned_abs() > parameters.grace.as_millis()).then_some(-median)
}

#[cfg(test)]
mod tests {
    use super::{clock_off, store_reason};
    use crate::{
        consensus::transport::{LinkStatus, LinksStatus},
        knowledge::{genesis::Parameters, store::StoreTrouble},
        service::status::{NotReadyReason, StoreState, StoreStatus},
        types::{Millis, ReplicaIndex},
    };

    #[test]
    fn a_store_that_fails_or_is_far_behind_is_a_reason_with_its_name_and_how_far() {
        let trouble = StoreState::Trouble(StoreTrouble::DiskFull);
        let at = |state, lag_heights, holds_plans| StoreStatus {
            state,
            lag_heights,
            holds_plans,
            failure: Some("no room".to_owned()),
            ..StoreStatus::default()
        };
        let held = "; no plans are signed until it is caught up";
        let cases = [
            (
                at(StoreState::Absent, 5_000_000, false),
                Some((NotReadyReason::StoreBehind, "behind by 5000000 blocks".to_owned())),
            ),
            (at(StoreState::Storing, 1_000, false), None),
            (at(StoreState::Connecting, 3, false), None),
            (
                at(StoreState::Storing, 21, true),
                Some((NotReadyReason::StoreBehind, format!("behind by 21 blocks{held}"))),
            ),
            (
                at(trouble, 7, false),
                Some((NotReadyReason::StoreFailing, "disk_full: no room; behind by 7 blocks".to_owned())),
            ),
            (
                at(trouble, 70, true),
                Some((
                    NotReadyReason::StoreFailing,
                    format!("disk_full: no room; behind by 70 blocks{held}"),
                )),
            ),
        ];
        for (store, expected) in cases {
            assert_eq!(store_reason(&store), expected, "{store:?}");
        }
    }

    fn links(ahead: &[Option<i64>]) -> LinksStatus {
        let peers = (1u16..).zip(ahead).map(|(place, ahead)| LinkStatus {
            clock_ahead_ms: *ahead,
            ..LinkStatus::new(ReplicaIndex::new(place))
        });
        LinksStatus { peers: peers.collect(), ..LinksStatus::default() }
    }

    #[test]
    fn a_clock_is_off_when_a_quorums_median_is_further_than_the_grace() {
        let parameters = Parameters::for_window(Millis::from_secs(10));
        // The peers' clocks, ahead of this one, and how far this one is from their median.
        let cases: [(&[Option<i64>], Option<i64>); 5] = [
            (&[Some(5), Some(-5), Some(0)], None),
            (&[Some(90_000), Some(0), Some(1)], None),
            (&[Some(2_500), Some(2_600), Some(2_400)], Some(-2_400)),
            (&[Some(-9_000), Some(-9_000), Some(-9_000)], Some(9_000)),
            (&[Some(90_000), None, None], None),
        ];
        for (ahead, expected) in cases {
            assert_eq!(clock_off(&links(ahead), 3, parameters), expected, "{ahead:?}");
        }
    }
}
