//! What a replica says of itself: [`StatusSnapshot`], and `GET /v1/status` that serves it as JSON.
//!
//! The snapshot is this replica's own word, unsigned: it is for operators, and no decision rests on it. The
//! wiring makes it and publishes it through a `watch` channel; `/metrics`, `/readyz` and the console read
//! the same one. Invariant: a snapshot's size is bounded by the committee and the targets.

use axum::{Json, Router, extract::State, routing::get};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    knowledge::{evidence::EvidenceKind, fold::Proven, head::Mode, store::StoreTrouble},
    types::{
        Cycle, Digest, Epoch, HeadNumber, Height, KeyId, Millis, TargetId, UnixMillis, View, WindowIndex,
    },
};

/// A replica's state at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusSnapshot {
    /// The product's version.
    pub version: String,
    /// The replica's name: its place in the committee, such as `r0`.
    pub replica: String,
    /// The cluster.
    pub cluster: Digest,
    /// The epoch.
    pub epoch: Epoch,
    /// How many replicas the committee has.
    pub replicas: usize,
    /// How many of them decide.
    pub quorum: usize,
    /// The consensus view.
    pub view: View,
    /// The newest committed height.
    pub height: Height,
    /// The newest checkpoint: the state that a quorum has certified and that this replica has as well.
    pub checkpoint: Option<CheckpointStatus>,
    /// How far the transfer of a certified state has come, while peers give it to this replica.
    pub transfer: Option<TransferStatus>,
    /// Agreed time; zero before the first report was ordered.
    pub agreed_time_ms: UnixMillis,
    /// The newest control cycle.
    pub cycle: Cycle,
    /// How far the windows are.
    pub windows: WindowStatus,
    /// The links to the other replicas.
    pub peers: Vec<PeerStatus>,
    /// The Postgres store.
    pub store: StoreStatus,
    /// The newest head of the first shard.
    pub head: Option<HeadStatus>,
    /// The newest logged plan of each target.
    pub targets: Vec<TargetStatus>,
    /// Documents that were refused.
    pub refused: Vec<RefusedStatus>,
    /// What is proven of replicas that broke a rule.
    #[serde(default)]
    pub evidence: Vec<EvidenceStatus>,
    /// Why the replica is not ready; empty when it is.
    pub not_ready: Vec<NotReady>,
    /// What operators should look at.
    pub alarms: Vec<Alarm>,
}

/// A certified state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// The height of the block after which it is the state.
    pub height: Height,
    /// Its root: equal at all replicas.
    pub state: Digest,
}

/// A certified state on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferStatus {
    /// The height of the block after which it is the state.
    pub height: Height,
    /// How many of its chunks are here.
    pub here: u32,
    /// How many it has.
    pub chunks: u32,
    /// Who was asked last.
    pub from: Option<String>,
}

/// How far the windows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowStatus {
    /// The newest window that this replica reported.
    pub reported: Option<WindowIndex>,
    /// The newest window that closed.
    pub closed: Option<WindowIndex>,
    /// How far that one's end lies behind agreed time.
    pub lag_ms: Millis,
}

/// A link to another replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The other replica.
    pub replica: String,
    /// Whether the link is up.
    pub connected: bool,
}

/// The Postgres store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// What it does, or what is wrong with it.
    pub state: StoreState,
    /// The newest height that it holds; until that is known, what the journal held at the start.
    pub applied_height: Height,
    /// How many committed heights it lacks.
    pub lag_heights: u64,
    /// How many it may lack before the replica signs no plans.
    pub lag_max_heights: u64,
    /// Whether the replica signs no plans, because the store lacks more than that.
    pub holds_plans: bool,
    /// The particulars of what is wrong, for people; none when nothing is.
    pub failure: Option<String>,
    /// The newest heights below the applied one that it does not hold; none when it holds all of them.
    pub gap: Option<GapStatus>,
    /// How often something was tried again since the start.
    pub retries: u64,
    /// How many tables of old days were dropped since the start.
    pub tables_dropped: u64,
    /// How often old days could not be dropped since the start.
    pub sweeps_failed: u64,
}

/// Heights that a store does not hold, because the replica went on from a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapStatus {
    /// The first of them.
    pub first: Height,
    /// The last of them.
    pub last: Height,
}

/// What a replica's store does, or what is wrong with it: by name in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum StoreState {
    /// The replica has no database.
    #[default]
    Absent,
    /// It was not reached yet.
    Connecting,
    /// It stores what is committed.
    Storing,
    /// It does not.
    Trouble(StoreTrouble),
}

impl StoreState {
    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Absent, Self::Connecting, Self::Storing]
            .into_iter()
            .chain(StoreTrouble::ALL.into_iter().map(Self::Trouble))
    }

    /// Its name in JSON and as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Connecting => "connecting",
            Self::Storing => "storing",
            Self::Trouble(trouble) => trouble.as_str(),
        }
    }
}

impl From<StoreState> for String {
    fn from(state: StoreState) -> Self {
        state.as_str().to_owned()
    }
}

impl TryFrom<String> for StoreState {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::all()
            .find(|state| state.as_str() == name)
            .ok_or_else(|| format!("no state of a store: {name:?}"))
    }
}

/// The newest certified head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadStatus {
    /// Its number.
    pub number: HeadNumber,
    /// Its agreed time.
    pub time_ms: UnixMillis,
}

/// A target's newest logged plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The target.
    pub target: TargetId,
    /// The plan's sequence number; zero when there is none.
    pub seq: Cycle,
    /// SHA-256 of its body; zeros when there is none.
    pub plan: Digest,
    /// What agents may do with it.
    pub mode: Mode,
    /// The owner that the target belongs to.
    pub owner: String,
    /// Whose stops hold; empty when the target is not stopped.
    pub stopped_by: Vec<StopStatus>,
    /// The identifiers of the agents' keys that are bound to the target.
    pub agents: Vec<KeyId>,
}

/// One operator's stop of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopStatus {
    /// The operator.
    pub operator: String,
    /// What it makes of the newest plan.
    pub mode: Mode,
    /// The identifier of the operator's key.
    pub keyid: KeyId,
    /// The counter of the operator's newest request to stop the target: a resume names it.
    pub counter: u64,
    /// Since when, in agreed time; absent when it came before the first agreed time.
    pub since_ms: Option<UnixMillis>,
}

/// How many documents of a kind were refused for one reason since the replica's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// `receipt` or `operator_request`.
    pub document: String,
    /// `api` when it was not queued, `fold` when it was ordered and changed nothing.
    pub stage: String,
    /// The reason's name.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// An offence that is proven: `GET /v1/evidence/{digest}` serves the proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// The replica whose key signed.
    pub replica: String,
    /// What it did.
    pub kind: EvidenceKind,
    /// What the statements are about, for people.
    pub about: String,
    /// SHA-256 of the evidence.
    pub digest: Digest,
    /// Agreed time of its logging; absent when it came before the first agreed time.
    pub at_ms: Option<UnixMillis>,
}

impl EvidenceStatus {
    /// A logged proof.
    #[must_use]
    pub fn of(proven: Proven<'_>) -> Self {
        Self {
            replica: proven.offender.to_string(),
            kind: proven.kind,
            about: proven.slot.to_string(),
            digest: proven.proof.digest,
            at_ms: proven.proof.at,
        }
    }
}

/// Why a replica does not take part fully.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    /// The kind of reason.
    pub reason: NotReadyReason,
    /// The particulars, for people.
    pub detail: String,
}

/// The kinds of reasons for which a replica is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotReadyReason {
    /// It recovers its journal.
    Starting,
    /// It fetches blocks that a quorum has committed.
    CatchingUp,
    /// Fewer than a quorum of replicas, itself counted, are linked.
    NoQuorum,
    /// Its journal is refused: it does not vote.
    JournalRefused,
    /// Another process has its key: it does not vote until it is started again.
    KeyInUse,
    /// A quorum certified another state than its own: it endorses nothing and takes the certified one.
    Diverged,
    /// The store does not store: the status says in which state it is.
    StoreFailing,
    /// The store works and is far behind.
    StoreBehind,
    /// Its clock differs from the others' by more than the grace: it does not report.
    ClockOff,
    /// It is stopping.
    Stopping,
}

/// Something that operators should look at. Equal alarms are counted, not repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What kind.
    pub kind: AlarmKind,
    /// The replica that it names.
    pub replica: String,
    /// The newest occurrence, for people.
    pub detail: String,
    /// When it was first seen, by this replica's clock.
    pub first_ms: UnixMillis,
    /// When it was last seen.
    pub last_ms: UnixMillis,
    /// How often it was seen.
    pub count: u64,
}

/// The kinds of alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// The replica signed another plan than this one derived.
    OtherPlan,
    /// The replica signed another head than this one derived.
    OtherHead,
    /// The replica sent something whose signature does not verify.
    BadSignature,
    /// This replica derived something else than it had signed before: it signs nothing for it.
    OwnContradiction,
    /// A quorum certified another state than this replica's own.
    Diverged,
    /// Two processes connect with the replica's key.
    KeyInUse,
}

impl AlarmKind {
    /// Its name in JSON and as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherPlan => "other_plan",
            Self::OtherHead => "other_head",
            Self::BadSignature => "bad_signature",
            Self::OwnContradiction => "own_contradiction",
            Self::Diverged => "diverged",
            Self::KeyInUse => "key_in_use",
        }
    }
}

impl StatusSnapshot {
    /// Whether the replica takes part fully.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.not_ready.is_empty()
    }

    /// Raises an alarm, or counts it once more.
    pub fn raise(&mut self, kind: AlarmKind, replica: &str, detail: String, now: UnixMillis) {
        match self.alarms.iter_mut().find(|alarm| alarm.kind == kind && alarm.replica == replica) {
            Some(alarm) => {
                alarm.detail = detail;
                alarm.last_ms = now;
                alarm.count = alarm.count.saturating_add(1);
            }
            None => self.alarms.push(Alarm {
                kind,
                replica: replica.to_owned(),
                detail,
                first_ms: now,
                last_ms: now,
                count: 1,
            }),
        }
    }
}

/// `GET /v1/status`.
pub fn router(status: watch::Receiver<StatusSnapshot>) -> Router {
    Router::new().route("/v1/status", get(answer)).with_state(status)
}

async fn answer(State(status): State<watch::Receiver<StatusSnapshot>>) -> Json<StatusSnapshot> {
    Json(status.borrow().clone())
}

#[cfg(test)]
pub(crate) mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tokio::sync::watch;
    use tower::ServiceExt as _;

    use super::{
        AlarmKind, HeadStatus, PeerStatus, StatusSnapshot, StoreState, StoreStatus, TargetStatus,
        WindowStatus, router,
    };
    use crate::{
        knowledge::head::Mode,
        types::{Cycle, Digest, Epoch, HeadNumber, Height, Millis, TargetId, UnixMillis, View, WindowIndex},
    };

    pub(crate) fn snapshot() -> StatusSnapshot {
        let peer = |replica: &str, connected| PeerStatus { replica: replica.to_owned(), connected };
        StatusSnapshot {
            version: "0.1.0".to_owned(),
            replica: "r0".to_owned(),
            cluster: Digest::ZERO,
            epoch: Epoch::new(1),
            replicas: 4,
            quorum: 3,
            view: View::new(9),
            height: Height::new(7),
            checkpoint: None,
            transfer: None,
            agreed_time_ms: UnixMillis::new(1_000_500),
            cycle: Cycle::new(5),
            windows: WindowStatus {
                reported: Some(WindowIndex::new(100)),
                closed: Some(WindowIndex::new(99)),
                lag_ms: Millis::new(500),
            },
            peers: vec![peer("r1", true), peer("r2", true), peer("r3", false)],
            store: StoreStatus {
                state: StoreState::Storing,
                applied_height: Height::new(6),
                lag_heights: 1,
                lag_max_heights: 10_000,
                ..StoreStatus::default()
            },
            head: Some(HeadStatus { number: HeadNumber::new(3), time_ms: UnixMillis::new(1_000_000) }),
            targets: vec![TargetStatus {
                target: TargetId::new("pool").expect("it is a valid name"),
                seq: Cycle::new(4),
                plan: Digest::ZERO,
                mode: Mode::Act,
                owner: "owner-0".to_owned(),
                stopped_by: Vec::new(),
                agents: Vec::new(),
            }],
            refused: Vec::new(),
            evidence: Vec::new(),
            not_ready: Vec::new(),
            alarms: Vec::new(),
        }
    }

    #[tokio::test]
    async fn the_status_is_the_newest_snapshot() {
        let (sender, receiver) = watch::channel(snapshot());
        let app = router(receiver);
        sender.send_modify(|status| status.height = Height::new(8));
        let request = Request::get("/v1/status").body(Body::empty()).expect("a valid request");
        let response = app.oneshot(request).await.expect("a router does not fail");
        let body = response.into_body().collect().await.expect("the body is in memory").to_bytes();
        let status: StatusSnapshot = serde_json::from_slice(&body).expect("it reads its own form");
        assert_eq!(status, StatusSnapshot { height: Height::new(8), ..snapshot() });
    }

    #[test]
    fn every_state_of_a_store_is_read_back_by_its_name() {
        for state in StoreState::all() {
            let text = serde_json::to_string(&state).expect("a name is JSON");
            assert_eq!(text, format!("{:?}", state.as_str()));
            assert_eq!(serde_json::from_str::<StoreState>(&text).expect("it reads its own form"), state);
        }
        assert!(serde_json::from_str::<StoreState>("\"none\"").is_err());
    }

    #[test]
    fn an_alarm_that_comes_again_is_counted() {
        let mut status = snapshot();
        for (kind, replica, at) in [
            (AlarmKind::OtherPlan, "r3", 10),
            (AlarmKind::OtherPlan, "r3", 20),
            (AlarmKind::OtherPlan, "r2", 30),
            (AlarmKind::BadSignature, "r3", 40),
        ] {
            status.raise(kind, replica, format!("at {at}"), UnixMillis::new(at));
        }
        assert_eq!(status.alarms.len(), 3);
        let first = &status.alarms[0];
        assert_eq!(
            (first.count, first.first_ms, first.last_ms),
            (2, UnixMillis::new(10), UnixMillis::new(20))
        );
        assert_eq!(first.detail, "at 20");
    }
}
