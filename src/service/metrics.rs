//! `GET /metrics`: the replica's figures for Prometheus, all named `quorate_*`.
//!
//! What the fold changed is counted here, since the process started and with what it replayed. Everything
//! else is read, at the moment of the scrape, from where the status has it too, so that the two cannot
//! disagree. Invariant: labels come from closed sets and the committee, never from telemetry or clients.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use tokio::sync::watch;

use super::{
    api::RefusedDocuments,
    entrance::EntranceMetrics,
    status::{StatusSnapshot, StoreState},
};
use crate::{
    consensus::task::ConsensusStatus,
    knowledge::{
        change::{Change, Effect, PlanRefusal, ReceiptRefusal, ReportRefusal},
        head::Mode,
        receipt::Outcome,
        snapshot::Finality,
    },
    monitor::{door::DoorCounters, task::MonitorCounters},
    types::Millis,
};

/// From a fast replay's cycle to one that waited for its deadline, in seconds.
const SECONDS: [f64; 11] = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    target: String,
}

/// The replica's counters; tasks share one behind an [`Arc`].
#[derive(Debug)]
pub struct Metrics {
    windows_closed: Family<By, Counter>,
    window_gaps: Counter,
    findings: Family<By, Counter>,
    plans_logged: Counter,
    plans_refused: Family<By, Counter>,
    heads_derived: Counter,
    receipts_logged: Family<By, Counter>,
    receipts_refused: Family<By, Counter>,
    receipts_lost: Family<Of, Gauge>,
    plan_effects: Family<By, Counter>,
    reports_refused: Family<By, Counter>,
    operator_requests_logged: Family<By, Counter>,
    operator_requests_refused: Family<By, Counter>,
    evidence: Family<By, Counter>,
    evidence_refused: Family<By, Counter>,
    malformed_commands: Counter,
    plan_seconds: Histogram,
}

impl Metrics {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            windows_closed: Family::default(),
            window_gaps: Counter::default(),
            findings: Family::default(),
            plans_logged: Counter::default(),
            plans_refused: Family::default(),
            heads_derived: Counter::default(),
            receipts_logged: Family::default(),
            receipts_refused: Family::default(),
            receipts_lost: Family::default(),
            plan_effects: Family::default(),
            reports_refused: Family::default(),
            operator_requests_logged: Family::default(),
            operator_requests_refused: Family::default(),
            evidence: Family::default(),
            evidence_refused: Family::default(),
            malformed_commands: Counter::default(),
            plan_seconds: Histogram::new(SECONDS),
        }
    }

    /// Counts what a committed command changed.
    pub fn changed(&self, change: &Change) {
        let count = |family: &Family<By, Counter>, kind| {
            family.get_or_create(&By { kind }).inc();
        };
        match change {
            Change::TimeMoved(_) => {}
            Change::WindowClosed(window) => count(&self.windows_closed, finality(window.finality)),
            Change::Gap { .. } => {
                self.window_gaps.inc();
            }
            Change::Found { finding, .. } => count(&self.findings, finding.symptom.as_str()),
            Change::PlanLogged(_) => {
                self.plans_logged.inc();
            }
            Change::PlanRefused { why, .. } => count(&self.plans_refused, plan_refusal(why)),
            Change::HeadDerived(_) => {
                self.heads_derived.inc();
            }
            Change::ReceiptLogged { receipt, .. } => {
                count(&self.receipts_logged, outcome(&receipt.outcome));
                let target = Of { target: receipt.target.as_str().to_owned() };
                let lost = i64::try_from(receipt.lost_receipts).unwrap_or(i64::MAX);
                self.receipts_lost.get_or_create(&target).set(lost);
            }
            Change::ReceiptRefused { why, .. } => count(&self.receipts_refused, receipt_refusal(why)),
            Change::EffectSettled { effect: settled, .. } => count(&self.plan_effects, effect(*settled)),
            Change::ReportRefused { why, .. } => count(&self.reports_refused, report_refusal(*why)),
            Change::OperatorRequestLogged { request, .. } => {
                count(&self.operator_requests_logged, request.request().request.kind());
            }
            Change::OperatorRequestRefused { why, .. } => {
                count(&self.operator_requests_refused, why.as_str());
            }
            Change::EvidenceLogged(evidence) => count(&self.evidence, evidence.kind().as_str()),
            Change::EvidenceRefused { why, .. } => count(&self.evidence_refused, why.as_str()),
            Change::Malformed => {
                self.malformed_commands.inc();
            }
        }
    }

    /// How long after its window's end a plan was logged.
    pub fn plan_took(&self, took: Millis) {
        self.plan_seconds.observe(seconds(took));
    }

    fn register(&self, registry: &mut Registry) {
        let mut family =
            |name, help, family: &Family<By, Counter>| registry.register(name, help, family.clone());
        family("windows_closed", "Windows closed, by finality", &self.windows_closed);
        family("findings", "Findings, by symptom", &self.findings);
        family("plans_refused", "Certified plans that took no effect, by reason", &self.plans_refused);
        family("receipts_logged", "Receipts of agents, by outcome", &self.receipts_logged);
        family("plan_effects", "Logged plans by their settled effect", &self.plan_effects);
        family("receipts_refused", "Receipts that took no effect, by reason", &self.receipts_refused);
        family("reports_refused", "Reports and ticks that took no effect, by reason", &self.reports_refused);
        family(
            "operator_requests_logged",
            "Operators' requests that took effect, by kind",
            &self.operator_requests_logged,
        );
        family(
            "operator_requests_refused",
            "Operators' requests that were ordered and took no effect, by reason",
            &self.operator_requests_refused,
        );
        family("evidence", "Offences that are proven of replicas, by kind", &self.evidence);
        family("evidence_refused", "Evidence that proved nothing new, by reason", &self.evidence_refused);
        let mut counter = |name, help, counter: &Counter| registry.register(name, help, counter.clone());
        counter("window_gaps", "Ranges of windows that nobody reported", &self.window_gaps);
        counter("plans_logged", "Plans that took effect", &self.plans_logged);
        counter("heads_derived", "Heads derived", &self.heads_derived);
        counter("malformed_commands", "Committed bytes that are no command", &self.malformed_commands);
        let help = "Receipts that a target's agent gave up because replicas did not take them, as its newest one says";
        registry.register("receipts_lost", help, self.receipts_lost.clone());
        let help = "From a window's end to its plan being logged";
        registry.register("plan_seconds", help, self.plan_seconds.clone());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a display value; durations lie far below 2^53 ms")]
fn seconds(took: Millis) -> f64 {
    took.as_millis() as f64 / 1000.0
}

const fn finality(finality: Finality) -> &'static str {
    match finality {
        Finality::Confirmed => "confirmed",
        Finality::Unconfirmed => "unconfirmed",
    }
}

const fn plan_refusal(why: &PlanRefusal) -> &'static str {
    match why {
        PlanRefusal::NotCertified(_) => "not_certified",
        PlanRefusal::UnknownTarget => "unknown_target",
        PlanRefusal::UnknownPolicy => "unknown_policy",
        PlanRefusal::Superseded => "superseded",
        PlanRefusal::Late => "late",
        PlanRefusal::Duplicate => "duplicate",
        PlanRefusal::Stopped => "stopped",
        PlanRefusal::BeforeResume => "before_resume",
    }
}

const fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Better => "better",
        Effect::Worse => "worse",
        Effect::Inconclusive => "inconclusive",
    }
}

const fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied {} => "applied",
        Outcome::Noop {} => "noop",
        Outcome::Refused { .. } => "refused",
        Outcome::Reverted {} => "reverted",
        Outcome::Partial {} => "partial",
    }
}

/// Why a receipt took no effect, as a label.
pub(super) const fn receipt_refusal(why: &ReceiptRefusal) -> &'static str {
    match why {
        ReceiptRefusal::NotVerified(_) => "not_verified",
        ReceiptRefusal::UnboundKey(_) => "unbound_key",
        ReceiptRefusal::UnknownTarget => "unknown_target",
        ReceiptRefusal::UnknownPlan => "unknown_plan",
        ReceiptRefusal::Replayed => "replayed",
    }
}

const fn report_refusal(why: ReportRefusal) -> &'static str {
    match why {
        ReportRefusal::BadSignature => "bad_signature",
        ReportRefusal::BadBody => "bad_body",
        ReportRefusal::OutsideOpenWindows => "outside_open_windows",
        ReportRefusal::Duplicate => "duplicate",
    }
}

/// Where the rest is read from, at the moment of the scrape.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The replica's status.
    pub status: watch::Receiver<StatusSnapshot>,
    /// Where consensus stands.
    pub consensus: watch::Receiver<ConsensusStatus>,
    /// What the monitor counted.
    pub monitor: Arc<MonitorCounters>,
    /// What the HTTP server counted.
    pub entrance: EntranceMetrics,
    /// What the telemetry door answered.
    pub door: Arc<DoorCounters>,
    /// The documents that were refused.
    pub refused: RefusedDocuments,
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.encode_counters(&mut encoder)?;
        self.encode_gauges(&mut encoder)
    }
}

impl Sources {
    fn encode_counters(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let consensus = self.consensus.borrow().clone();
        let mut counter = |name: &str, help: &str, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
        };
        counter("journal_syncs", "Syncs of the journal", consensus.syncs)?;
        let failed = consensus.failed_removals;
        counter(
            "journal_removals_failed",
            "Times that old segments of the journal could not be removed",
            failed,
        )?;
        counter("commands_without_room", "Submitted commands that found no room", consensus.without_room)?;
        counter("consensus_rejected", "Messages and commands that consensus refused", consensus.rejected)?;
        counter("points_accepted", "Data points that count", self.monitor.accepted_points())?;
        counter(
            "monitor_overloads",
            "Batches that found the monitor's queue full",
            self.monitor.overloads(),
        )?;
        let store = self.status.borrow().store.clone();
        counter("store_retries", "Times that storing was tried again", store.retries)?;
        counter("store_tables_dropped", "Tables of old days that were dropped", store.tables_dropped)?;
        counter("store_sweeps_failed", "Times that old days could not be dropped", store.sweeps_failed)?;
        counter("otlp_requests_taken", "Metrics requests that were taken", self.door.taken())?;
        counter("otlp_requests_dropped", "Traces and logs, which are not looked at", self.door.dropped())?;
        counter("otlp_requests_refused", "Requests that are no OTLP, or too large", self.door.refused())?;
        counter("otlp_requests_turned_away", "Requests for which there was no room", self.door.overloaded())?;
        let help = "Documents that were refused, by kind, by whom and why";
        let mut refused = encoder.encode_descriptor("documents_refused", help, None, MetricType::Counter)?;
        for (kind, stage, reason, count) in self.refused.counts() {
            let labels = [("document", kind.as_str()), ("stage", stage.as_str()), ("reason", reason)];
            ConstCounter::new(count).encode(refused.encode_family(&labels)?)?;
        }
        let help = "Data points that do not count, by reason";
        let mut rejected = encoder.encode_descriptor("points_rejected", help, None, MetricType::Counter)?;
        for (reason, points) in self.monitor.rejected_points() {
            let labels = [("reason", reason.as_str())];
            ConstCounter::new(points).encode(rejected.encode_family(&labels)?)?;
        }
        self.encode_sources(encoder)
    }

    /// Each source by name; what has no series of its own stands under an empty name.
    fn encode_sources(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let tally = self.monitor.sources();
        let named = tally.by_source.iter().map(|(source, counts)| (source.as_str(), counts));
        let all = || named.clone().chain([("", &tally.others)]);
        let help = "Data points that count, by source";
        let mut accepted =
            encoder.encode_descriptor("source_points_accepted", help, None, MetricType::Counter)?;
        for (source, counts) in all() {
            let labels = [("source", source)];
            ConstCounter::new(counts.accepted).encode(accepted.encode_family(&labels)?)?;
        }
        let help = "Data points that do not count, by source and reason";
        let mut rejected =
            encoder.encode_descriptor("source_points_rejected", help, None, MetricType::Counter)?;
        for (source, counts) in all() {
            for (reason, points) in &counts.refused {
                let labels = [("source", source), ("reason", reason.as_str())];
                ConstCounter::new(*points).encode(rejected.encode_family(&labels)?)?;
            }
        }
        let help = "Series in the monitor, by source";
        let mut series = encoder.encode_descriptor("source_series", help, None, MetricType::Gauge)?;
        for (source, counts) in all() {
            let labels = [("source", source)];
            ConstGauge::new(counts.series as u64).encode(series.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (status, pending) = (self.status.borrow().clone(), self.consensus.borrow().pending);
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge("ready", "1 when the replica takes part fully", u64::from(status.is_ready()))?;
        gauge("pending_commands", "Commands that wait for their commit", pending as u64)?;
        gauge("series", "Series in the monitor", self.monitor.series())?;
        gauge("epoch", "The epoch", status.epoch.number())?;
        gauge("view", "The consensus view", status.view.number())?;
        gauge("height", "The newest committed height", status.height.number())?;
        let checkpoint = status.checkpoint.map_or(0, |checkpoint| checkpoint.height.number());
        gauge("checkpoint_height", "The newest checkpoint that this replica shares", checkpoint)?;
        let (here, chunks) =
            status.transfer.as_ref().map_or((0, 0), |transfer| (transfer.here, transfer.chunks));
        gauge("transfer_chunks", "Chunks of the state that peers give to this replica", u64::from(chunks))?;
        gauge("transfer_chunks_here", "How many of them are here", u64::from(here))?;
        let missing = status.store.gap.map_or(0, |gap| gap.last.number());
        gauge("store_gap_height", "The newest height that Postgres lacks for good", missing)?;
        gauge("cycle", "The newest control cycle", status.cycle.number())?;
        gauge("agreed_time_milliseconds", "Agreed time since 1970", status.agreed_time_ms.as_millis())?;
        gauge(
            "window_lag_milliseconds",
            "Age of the newest closed window",
            status.windows.lag_ms.as_millis(),
        )?;
        gauge("store_lag_heights", "Committed heights that Postgres lacks", status.store.lag_heights)?;
        gauge("store_up", "1 when Postgres stores", u64::from(status.store.state == StoreState::Storing))?;
        let help = "1 when no plans are signed, because Postgres lacks too much";
        gauge("store_holds_plans", help, u64::from(status.store.holds_plans))?;
        if let Some(head) = status.head {
            gauge("head_number", "The newest certified head", head.number.number())?;
            gauge("head_time_milliseconds", "Its agreed time since 1970", head.time_ms.as_millis())?;
        }
        let help = "1 for what the store does, or for what is wrong with it";
        let mut states = encoder.encode_descriptor("store_state", help, None, MetricType::Gauge)?;
        for state in StoreState::all() {
            let labels = [("state", state.as_str())];
            ConstGauge::new(u64::from(status.store.state == state)).encode(states.encode_family(&labels)?)?;
        }
        let help = "1 when the newest plan of a target may be applied, 0 when it is on hold or revoked";
        let mut acting = encoder.encode_descriptor("target_acts", help, None, MetricType::Gauge)?;
        for target in &status.targets {
            let labels = [("target", target.target.as_str())];
            ConstGauge::new(u64::from(target.mode == Mode::Act)).encode(acting.encode_family(&labels)?)?;
        }
        let mut links = encoder.encode_descriptor(
            "link_up",
            "1 when the link to a replica is up",
            None,
            MetricType::Gauge,
        )?;
        for peer in &status.peers {
            let labels = [("replica", peer.replica.as_str())];
            ConstGauge::new(u64::from(peer.connected)).encode(links.encode_family(&labels)?)?;
        }
        let mut alarms = encoder.encode_descriptor(
            "alarms",
            "How often a replica gave cause for alarm",
            None,
            MetricType::Gauge,
        )?;
        for alarm in &status.alarms {
            let labels = [("replica", alarm.replica.as_str()), ("kind", alarm.kind.as_str())];
            ConstGauge::new(alarm.count).encode(alarms.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// `GET /metrics`.
pub fn router(metrics: &Metrics, sources: Sources) -> Router {
    let mut registry = Registry::with_prefix("quorate");
    metrics.register(&mut registry);
    registry.register_collector(Box::new(sources.entrance.clone()));
    registry.register_collector(Box::new(sources));
    Router::new().route("/metrics", get(answer)).with_state(Arc::new(registry))
}

async fn answer(State(registry): State<Arc<Registry>>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tokio::sync::watch;
    use tower::ServiceExt as _;

    use super::{Metrics, Sources, router};
    use crate::{
        consensus::task::ConsensusStatus,
        knowledge::change::{Change, PlanRefusal, ReportRefusal},
        service::{
            api::RefusedDocuments,
            entrance::EntranceMetrics,
            status::{AlarmKind, tests::snapshot},
        },
        types::{Height, Millis, ReplicaIndex, UnixMillis},
    };

    #[tokio::test]
    async fn counters_count_changes_and_gauges_show_the_status_of_the_moment() {
        let metrics = Metrics::new();
        let (sender, status) = watch::channel(snapshot());
        let consensus = ConsensusStatus { syncs: 7, ..ConsensusStatus::default() };
        let (_consensus, consensus) = watch::channel(consensus);
        let sources = Sources {
            status,
            consensus,
            monitor: Arc::default(),
            door: Arc::default(),
            entrance: EntranceMetrics::default(),
            refused: RefusedDocuments::default(),
        };
        let app = router(&metrics, sources);
        metrics.changed(&Change::PlanRefused { plan: None, why: PlanRefusal::Late });
        let replica = ReplicaIndex::new(1);
        let refused = Change::ReportRefused { replica, why: ReportRefusal::BadSignature };
        metrics.changed(&refused);
        metrics.changed(&refused);
        metrics.plan_took(Millis::new(40));
        sender.send_modify(|status| {
            status.height = Height::new(42);
            status.raise(AlarmKind::OtherPlan, "r3", String::new(), UnixMillis::ZERO);
        });

        let request = Request::get("/metrics").body(Body::empty()).expect("a valid request");
        let response = app.oneshot(request).await.expect("a router does not fail");
        let body = response.into_body().collect().await.expect("the body is in memory").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("it is text");
        for line in [
            "quorate_plans_refused_total{kind=\"late\"} 1",
            "quorate_reports_refused_total{kind=\"bad_signature\"} 2",
            "quorate_plan_seconds_bucket{le=\"0.05\"} 1",
            "quorate_plan_seconds_bucket{le=\"0.02\"} 0",
            "quorate_journal_syncs_total 7",
            "quorate_points_accepted_total 0",
            "quorate_points_rejected_total{reason=\"late\"} 0",
            "quorate_source_points_accepted_total{source=\"\"} 0",
            "quorate_otlp_requests_turned_away_total 0",
            "quorate_height 42",
            "quorate_checkpoint_height 0",
            "quorate_store_gap_height 0",
            "quorate_ready 1",
            "quorate_http_connections 0",
            "quorate_http_cut_total{kind=\"body_stalled\"} 0",
            "quorate_http_denied_total{reason=\"wrong_scope\"} 0",
            "quorate_target_acts{target=\"pool\"} 1",
            "quorate_link_up{replica=\"r1\"} 1",
            "quorate_link_up{replica=\"r3\"} 0",
            "quorate_alarms{replica=\"r3\",kind=\"other_plan\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
