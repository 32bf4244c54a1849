//! The store against a real Postgres: what is stored exactly once, what comes back, what is refused.
#![cfg(feature = "service")]

#[path = "support/postgres.rs"]
mod postgres;

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use postgres::fresh_database;
use quorate::{
    knowledge::{
        certified::Certified,
        change::{Change, ClosedWindow, Effect, PlanRefusal, ReceiptRefusal, ReportRefusal, Turn},
        finding::{Finding, Interval, Symptom},
        fold::OperatorRefusal,
        head::{HEAD_TYPE, Head, HeadEntry, Mode},
        observation::{AttributeValue, SeriesKey},
        operator_request::{All, OperatorRequest, Request, Selection, StopMode, VerifiedOperatorRequest},
        plan::{
            DesiredState, Limits, Measure, OnStale, PLAN_TYPE, Plan, Preconditions, Reason, RiskClass,
            Verify, VerifyElse, VerifyOp,
        },
        policy::Statistic,
        receipt::{Outcome, RECEIPT_TYPE, Receipt, Refusal},
        root::{Operator, Operators},
        snapshot::{Finality, Reading},
        store::{
            AppliedBlock, ApplyError, ApplyOutcome, BlockHeader, ConnectError, LogGap, PlanState,
            RecordHeadError, Store, StoreBase, StoreIdentity, StoreTrouble, StoredFinding, Writer,
        },
    },
    types::{
        Committee, Cycle, Digest, Envelope, Epoch, HeadNumber, Height, Millis, Quantity, ReplicaIndex,
        SecretKey, Shard, SourceId, TargetId, UnixMillis, View, WindowIndex, pae,
    },
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

const WINDOW: Millis = Millis::from_secs(10);
/// 2026-11-20 00:00:00 UTC.
const MIDNIGHT: UnixMillis = UnixMillis::new(1_795_132_800_000);

fn identity() -> StoreIdentity {
    StoreIdentity { cluster: Digest::of(b"cluster"), epoch: Epoch::new(2), replica: ReplicaIndex::new(1) }
}

/// The view in which the replica had signed when its blocks were stored.
const SIGNED: View = View::new(40);

async fn open(url: &str, identity: StoreIdentity) -> Result<Writer, ConnectError> {
    Writer::connect(url, identity, WINDOW, "quorate r1 (process 77)").await
}

async fn fresh_store() -> (Writer, Store, String) {
    let url = fresh_database().await;
    let writer = open(&url, identity()).await.expect("the store opens");
    (writer, Store::connect(&url, WINDOW).await.expect("the server answers"), url)
}

async fn count(url: &str, table: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(&mut connection)
        .await
        .expect("the table is there")
}

fn digest_at(height: u64) -> Digest {
    Digest::of(format!("block {height}").as_bytes())
}

fn block(height: u64, changes: Vec<Change>) -> AppliedBlock {
    let header = BlockHeader {
        height: Height::new(height),
        view: View::new(height + 3),
        digest: digest_at(height),
        parent: digest_at(height - 1),
        proposer: ReplicaIndex::new(2),
        commands: changes.len() as u64,
    };
    AppliedBlock { header, changes, bundles: Vec::new() }
}

#[tokio::test]
async fn what_plans_were_derived_from_is_stored_once_under_its_digest() {
    let (mut writer, store, url) = fresh_store().await;
    let bundle = b"what was seen".to_vec();
    for height in 1..=2 {
        let block = AppliedBlock { bundles: vec![bundle.clone().into()], ..block(height, Vec::new()) };
        writer.apply(&block, SIGNED).await.expect("nothing is wrong with it");
    }
    assert_eq!(count(&url, "evidence_bundles").await, 1);
    assert_eq!(store.bundle(Digest::of(&bundle)).await.expect("it is read"), Some(bundle));
    assert_eq!(store.bundle(Digest::ZERO).await.expect("it is read"), None);
}

fn replica_keys() -> Vec<SecretKey> {
    (1..=4).map(|seed| SecretKey::from_seed(&[seed; 32])).collect()
}

fn seal(document_type: &str, body: Vec<u8>, signers: &[SecretKey]) -> Envelope {
    let bytes = pae(document_type, &body);
    let signatures = signers.iter().map(|key| (key.public().id(), key.sign(&bytes))).collect();
    Envelope::new(document_type, body, signatures)
}

fn committee() -> Committee {
    let keys = replica_keys().iter().map(SecretKey::public).collect();
    Committee::new(identity().cluster, identity().epoch, keys).expect("four keys are a committee")
}

fn target() -> TargetId {
    TargetId::new("extract_pool").expect("a valid name")
}

fn plan(seq: u64) -> Plan {
    Plan {
        v: 1,
        cluster: identity().cluster,
        epoch: identity().epoch,
        target: target(),
        seq: Cycle::new(seq),
        prev: Digest::ZERO,
        issued_at: MIDNIGHT,
        not_before: MIDNIGHT,
        expires_at: MIDNIGHT.plus(Millis::from_secs(900)),
        desired: DesiredState::Slots { slots: 8 },
        preconditions: Preconditions { state: DesiredState::Slots { slots: 4 } },
        limits: Limits::Slots { min: 1, max: 16, max_step: 4 },
        verify: Verify {
            series: "queued".to_owned(),
            op: VerifyOp::AtMost,
            value: Measure { value: 20, scale: 0, unit: String::new() },
            by: MIDNIGHT,
            otherwise: VerifyElse::Finding,
        },
        rollback: DesiredState::Slots { slots: 4 },
        on_stale: OnStale::Hold,
        evidence: Digest::of(b"evidence"),
        policy: Digest::of(b"policy"),
        risk: RiskClass::Low,
        reason: Reason::Threshold,
    }
}

fn certified_plan(seq: u64) -> Certified<Plan> {
    let envelope = seal(PLAN_TYPE, plan(seq).to_bytes(), &replica_keys()[1..]);
    Certified::verify_envelope(envelope, &committee()).expect("three of four signed")
}

fn head(number: u64, mode: Mode) -> Head {
    Head {
        v: 1,
        cluster: identity().cluster,
        epoch: identity().epoch,
        shard: Shard::new(0),
        number: HeadNumber::new(number),
        time: MIDNIGHT.plus(Millis::from_secs(number)),
        targets: vec![HeadEntry { target: target(), seq: Cycle::new(7), plan: Digest::of(b"plan"), mode }],
        log_size: 1,
        log_root: Digest::of(b"log"),
    }
}

fn certified_head(number: u64, mode: Mode) -> Certified<Head> {
    let envelope = seal(HEAD_TYPE, head(number, mode).to_bytes(), &replica_keys()[..3]);
    Certified::verify_envelope(envelope, &committee()).expect("three of four signed")
}

fn receipt(plan: Digest, outcome: Outcome, counter: u64) -> (Receipt, Vec<u8>) {
    let receipt = Receipt {
        v: 1,
        cluster: identity().cluster,
        target: target(),
        seq: Cycle::new(7),
        plan,
        outcome,
        before: DesiredState::Slots { slots: 4 },
        after: DesiredState::Running {},
        at: MIDNIGHT,
        counter,
        refused_documents: 0,
        lost_receipts: 0,
    };
    let envelope = seal(RECEIPT_TYPE, receipt.to_bytes(), &[SecretKey::from_seed(&[9; 32])]).to_json();
    (receipt, envelope)
}

fn logged((receipt, envelope): (Receipt, Vec<u8>)) -> Change {
    Change::ReceiptLogged { receipt: Box::new(receipt), envelope, turn: Turn::Newest }
}

fn interval(low: i128, median: i128, high: i128) -> Interval {
    Interval {
        low: Quantity::from_nanos(low),
        median: Quantity::from_nanos(median),
        high: Quantity::from_nanos(high),
    }
}

fn series(name: &str) -> SeriesKey {
    let attributes = [
        ("pool", AttributeValue::Text("extract".to_owned())),
        ("nul\0", AttributeValue::Text("a\0b".to_owned())),
        ("deep", AttributeValue::Other(r#"{"x":"\u0000","y":1e999999}"#.to_owned())),
        ("ok", AttributeValue::Bool(true)),
        ("n", AttributeValue::Integer(i64::MIN)),
    ];
    SeriesKey {
        source: SourceId::new("airflow").expect("a valid name"),
        name: name.to_owned(),
        attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        resource: BTreeMap::new(),
    }
}

/// A window in which every reading, every statistic and the ends of the range of values occur.
fn closed_window(start: UnixMillis, cycle: u64) -> ClosedWindow {
    let value = interval(-1, 0, 1_500_000_000);
    let widest = interval(i128::MIN, -1_000_000_001, i128::MAX);
    ClosedWindow {
        window: WindowIndex::containing(start, WINDOW),
        cycle: Cycle::new(cycle),
        closed_at: start.plus(Millis::from_secs(15)),
        finality: Finality::Confirmed,
        reporters: vec![
            (ReplicaIndex::new(0), false),
            (ReplicaIndex::new(1), true),
            (ReplicaIndex::new(3), false),
        ],
        readings: vec![
            Reading::Fresh(value),
            Reading::Held { value, since: start },
            Reading::NoSamples { since: None, learned_interval_ms: 0 },
            Reading::NoSamples { since: Some(start), learned_interval_ms: 10_000 },
            Reading::Unknown,
        ],
        series: BTreeMap::from([
            (series("queued"), BTreeMap::from([(Statistic::Last, value), (Statistic::Mean, widest)])),
            (series(&"long".repeat(10_000)), BTreeMap::from([(Statistic::Increase, value)])),
            (series("nul\0name"), BTreeMap::from([(Statistic::Min, value), (Statistic::Max, widest)])),
        ]),
    }
}

#[tokio::test]
async fn a_block_is_stored_once_however_often_it_comes() {
    let (mut writer, store, url) = fresh_store().await;
    let first = block(1, vec![Change::TimeMoved(MIDNIGHT), Change::WindowClosed(closed_window(MIDNIGHT, 1))]);
    assert_eq!(writer.apply(&first, SIGNED).await.expect("it is next"), ApplyOutcome::Applied);
    assert_eq!(writer.apply(&first, SIGNED).await.expect("it is known"), ApplyOutcome::AlreadyApplied);
    assert_eq!(writer.apply(&block(2, vec![]), SIGNED).await.expect("it is next"), ApplyOutcome::Applied);
    assert_eq!(writer.apply(&first, SIGNED).await.expect("it is known"), ApplyOutcome::AlreadyApplied);
    let applied = store.applied_height().await.expect("it is there");
    assert_eq!((applied.height, applied.digest), (Height::new(2), digest_at(2)));
    assert_eq!(applied.agreed_time, MIDNIGHT);
    assert_eq!(count(&url, "block_headers").await, 2);
    assert_eq!(count(&url, "merged_windows").await, 1);
    assert_eq!(count(&url, "window_values").await, 5);
}

#[tokio::test]
async fn a_block_above_the_next_height_is_out_of_order() {
    let (mut writer, _, url) = fresh_store().await;
    for (height, parent) in [(2, 1), (7, 6)] {
        let refused = writer.apply(&block(height, vec![]), SIGNED).await.expect_err("block 1 is missing");
        let ApplyError::OutOfOrder { expected, got } = refused else { panic!("{refused:?} for {parent}") };
        assert_eq!((expected, got), (Height::new(1), Height::new(height)));
    }
    assert_eq!(count(&url, "block_headers").await, 0);
}

#[tokio::test]
async fn a_store_goes_on_from_a_checkpoint_and_says_what_it_lacks() {
    let (mut writer, store, url) = fresh_store().await;
    let (known, newest) = (certified_plan(4), certified_plan(9));
    let changes = vec![Change::PlanLogged(Box::new(known.clone()))];
    writer.apply(&block(1, changes), SIGNED).await.expect("it is stored");
    let base = StoreBase {
        height: Height::new(8),
        block: digest_at(8),
        state: Digest::of(b"state"),
        agreed_time: MIDNIGHT,
        plans: vec![Arc::new(known), Arc::new(newest.clone())],
    };
    for outcome in [ApplyOutcome::Applied, ApplyOutcome::AlreadyApplied] {
        assert_eq!(writer.begin_at(&base, SIGNED).await.expect("it is taken"), outcome);
    }
    let applied = store.applied_height().await.expect("it is there");
    assert_eq!((applied.height, applied.digest, applied.agreed_time), (base.height, base.block, MIDNIGHT));
    let plans = store.plans(&target(), Cycle::ZERO, 10).await.expect("they are there");
    assert_eq!(plans.iter().map(|plan| plan.seq.number()).collect::<Vec<_>>(), [4, 9]);
    assert_eq!(plans[1].envelope, newest.envelope().to_json());

    let inside = writer.apply(&block(5, Vec::new()), SIGNED).await.expect("nothing is wrong with it");
    assert_eq!(inside, ApplyOutcome::AlreadyApplied, "what is missing is not filled in");
    let other = BlockHeader { parent: digest_at(70), ..block(9, Vec::new()).header };
    let other = AppliedBlock { header: other, ..block(9, Vec::new()) };
    let refused = writer.apply(&other, SIGNED).await;
    assert!(matches!(refused, Err(ApplyError::Diverged { .. })), "{refused:?}");
    writer.apply(&block(9, Vec::new()), SIGNED).await.expect("it goes on above the checkpoint");

    writer.close().await;
    let again = open(&url, identity()).await.expect("nobody else has it");
    assert_eq!(again.gap(), Some(LogGap { first: Height::new(2), last: Height::new(8) }));
}

#[tokio::test]
async fn another_block_of_an_applied_height_and_a_block_on_another_parent_diverge() {
    let (mut writer, _, url) = fresh_store().await;
    writer.apply(&block(1, vec![]), SIGNED).await.expect("it is next");
    writer.apply(&block(2, vec![]), SIGNED).await.expect("it is next");
    for height in [1, 2] {
        let mut other = block(height, vec![]);
        other.header.digest = Digest::of(b"another");
        let refused = writer.apply(&other, SIGNED).await.expect_err("the stored digest differs");
        let ApplyError::Diverged { stored, got, .. } = refused else { panic!("{refused:?}") };
        assert_eq!((stored, got), (digest_at(height), Digest::of(b"another")));
    }
    let mut orphan = block(3, vec![]);
    orphan.header.parent = Digest::of(b"another");
    let refused = writer.apply(&orphan, SIGNED).await.expect_err("the parent is not the newest block");
    assert!(matches!(refused, ApplyError::Diverged { .. }), "{refused:?}");
    assert!(!refused.is_transient());
    assert_eq!(count(&url, "block_headers").await, 2);
}

#[tokio::test]
async fn a_block_that_fails_halfway_leaves_nothing() {
    let (mut writer, _, url) = fresh_store().await;
    let window = Change::WindowClosed(closed_window(MIDNIGHT, 1));
    let plan = || Change::PlanLogged(Box::new(certified_plan(7)));
    let refused = writer.apply(&block(1, vec![window.clone(), plan(), plan()]), SIGNED).await;
    let refused = refused.expect_err("one plan is logged twice");
    assert!(refused.to_string().contains("plans"), "{refused}");
    assert!(!refused.is_transient());
    for table in
        ["block_headers", "merged_windows", "window_values", "readings", "series", "plans", "certificates"]
    {
        assert_eq!(count(&url, table).await, 0, "{table}");
    }
    assert_eq!(partitions(&url).await, Vec::<String>::new());
    assert_eq!(
        writer.apply(&block(1, vec![window, plan()]), SIGNED).await.expect("it is next"),
        ApplyOutcome::Applied
    );
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_leaves_nothing_and_the_block_can_be_stored_again() {
    let (mut writer, _, url) = fresh_store().await;
    let mut other = PgConnection::connect(&url).await.expect("the server answers");
    let mut blocking = other.begin().await.expect("the server answers");
    sqlx::query("LOCK TABLE series IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *blocking)
        .await
        .expect("it is free");
    let first = block(1, vec![Change::WindowClosed(closed_window(MIDNIGHT, 1))]);
    let attempt = tokio::spawn({
        let first = first.clone();
        async move { writer.apply(&first, SIGNED).await }
    });
    terminate_waiting_backend(&url).await;
    let refused = attempt.await.expect("the task ends").expect_err("its connection was cut");
    assert!(refused.is_transient(), "{refused:?}");
    blocking.rollback().await.expect("the server answers");
    for table in ["block_headers", "merged_windows", "series"] {
        assert_eq!(count(&url, table).await, 0, "{table}");
    }
    assert_eq!(partitions(&url).await, Vec::<String>::new());
    let mut writer = open(&url, identity()).await.expect("the server answers");
    assert_eq!(writer.apply(&first, SIGNED).await.expect("it is next"), ApplyOutcome::Applied);
}

/// Waits until a session of this database waits for a lock, then cuts its connection.
async fn terminate_waiting_backend(url: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    for _ in 0..1_000 {
        let cut: Option<bool> = sqlx::query_scalar(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_optional(&mut connection)
        .await
        .expect("the server answers");
        if cut == Some(true) {
            return;
        }
        // Between two looks: nothing tells when a session begins to wait.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no session came to wait for the lock");
}

async fn partitions(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    sqlx::query_scalar("SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE c.relkind = 'r' ORDER BY 1")
        .fetch_all(&mut connection)
        .await
        .expect("the catalogue answers")
}

#[tokio::test]
async fn windows_come_back_exactly_from_their_days_partitions() {
    let (mut writer, store, url) = fresh_store().await;
    let evening = closed_window(MIDNIGHT.minus(WINDOW), 1);
    let morning = closed_window(MIDNIGHT, 2);
    let changes = vec![
        Change::WindowClosed(evening.clone()),
        Change::WindowClosed(morning.clone()),
        Change::Gap { first: WindowIndex::new(5), last: WindowIndex::new(9), cycle: Cycle::new(3) },
    ];
    writer.apply(&block(1, changes), SIGNED).await.expect("it is next");
    assert_eq!(
        partitions(&url).await,
        [
            "findings_20261119",
            "findings_20261120",
            "merged_windows_20261119",
            "merged_windows_20261120",
            "readings_20261119",
            "readings_20261120",
            "window_values_20261119",
            "window_values_20261120",
        ]
    );
    assert_eq!(count(&url, "ONLY merged_windows_20261119").await, 1);
    assert_eq!(count(&url, "series").await, 3);
    assert_eq!(count(&url, "window_gaps").await, 1);
    assert_eq!(count(&url, "dashboard_values").await, 10);
    for window in [&evening, &morning] {
        let start = window.window.start(WINDOW);
        let stored = store.windows(start, start.plus(WINDOW)).await.expect("it is there");
        let [stored] = stored.as_slice() else { panic!("{stored:?}") };
        assert_eq!((stored.window, stored.start, stored.cycle), (window.window, start, window.cycle));
        assert_eq!((stored.closed_at, stored.finality), (window.closed_at, window.finality));
        assert_eq!(stored.reporters, window.reporters);
        assert_eq!(stored.readings, window.readings);
        assert_eq!(store.window_values(window.window).await.expect("it is there"), window.series);
    }
    let both = store.windows(MIDNIGHT.minus(WINDOW), MIDNIGHT.plus(WINDOW)).await.expect("they are there");
    assert_eq!(both.len(), 2);
}

#[tokio::test]
async fn plans_come_back_byte_for_byte_and_their_state_follows_the_receipts() {
    let (mut writer, store, url) = fresh_store().await;
    let (first, second) = (certified_plan(7), certified_plan(9));
    let logged_plan = |plan: &Certified<Plan>| Change::PlanLogged(Box::new(plan.clone()));
    let changes = vec![Change::TimeMoved(MIDNIGHT), logged_plan(&first), logged_plan(&second)];
    writer.apply(&block(1, changes), SIGNED).await.expect("it is next");
    let stored = store.plan(first.digest()).await.expect("it answers").expect("it is there");
    assert_eq!(stored.body, first.envelope().unverified_body());
    assert_eq!(stored.envelope, first.envelope().to_json());
    assert_eq!((stored.state, stored.logged_at), (PlanState::Logged, MIDNIGHT));
    assert_eq!(count(&url, "certificate_signatures").await, 6);

    let applied = receipt(first.digest(), Outcome::Applied {}, 1);
    let refused = receipt(second.digest(), Outcome::Refused { why: Refusal::Precondition }, 2);
    let settled = Change::EffectSettled {
        target: target(),
        seq: Cycle::new(7),
        plan: first.digest(),
        effect: Effect::Better,
    };
    let changes = vec![logged(applied.clone()), logged(refused.clone()), settled];
    writer.apply(&block(2, changes), SIGNED).await.expect("it is next");
    let plans = store.plans(&target(), Cycle::ZERO, 10).await.expect("it answers");
    let states: Vec<_> = plans.iter().map(|plan| (plan.seq.number(), plan.state, plan.effect)).collect();
    assert_eq!(states, [(7, PlanState::Applied, Some(Effect::Better)), (9, PlanState::Refused, None)]);
    assert_eq!(store.plans(&target(), Cycle::new(7), 10).await.expect("it answers"), plans[1..]);
    assert_eq!(store.plans(&target(), Cycle::ZERO, 1).await.expect("it answers"), plans[..1]);
    let receipts = store.receipts(second.digest()).await.expect("it answers");
    let [stored] = receipts.as_slice() else { panic!("{receipts:?}") };
    assert_eq!((&stored.outcome, &stored.envelope), (&refused.0.outcome, &refused.1));
    assert_eq!((stored.before, stored.after, stored.at), (refused.0.before, refused.0.after, MIDNIGHT));
    assert_eq!(store.plan(Digest::of(b"none")).await.expect("it answers"), None);
}

#[tokio::test]
async fn a_refusal_takes_no_plan_back_that_another_agent_has_put_in_force() {
    let (applied, noop, reverted) = (Outcome::Applied {}, Outcome::Noop {}, Outcome::Reverted {});
    let refused = || Outcome::Refused { why: Refusal::Precondition };
    let rows = [
        (vec![applied.clone(), refused()], PlanState::Applied),
        (vec![noop.clone(), refused()], PlanState::Noop),
        (vec![applied.clone(), reverted.clone(), refused()], PlanState::Reverted),
        (vec![refused(), applied.clone()], PlanState::Applied),
        (vec![refused(), refused()], PlanState::Refused),
        (vec![applied, reverted, noop], PlanState::Noop),
    ];
    for (outcomes, expected) in rows {
        let (mut writer, store, _) = fresh_store().await;
        let plan = certified_plan(7);
        let logged_plan = Change::PlanLogged(Box::new(plan.clone()));
        writer.apply(&block(1, vec![logged_plan]), SIGNED).await.expect("it is next");
        for (height, outcome) in (2..).zip(&outcomes) {
            let change = logged(receipt(plan.digest(), outcome.clone(), height));
            writer.apply(&block(height, vec![change]), SIGNED).await.expect("it is next");
        }
        let stored = store.plan(plan.digest()).await.expect("it answers").expect("it is there");
        assert_eq!(stored.state, expected, "{outcomes:?}");
        let receipts = store.receipts(plan.digest()).await.expect("it answers");
        assert_eq!(receipts.len(), outcomes.len(), "each is kept");
    }
}

/// An operator's stop of all targets, as the fold tells of it.
fn logged_request(counter: u64) -> Change {
    let key = SecretKey::from_seed(&[31; 32]);
    let (cluster, epoch) = (identity().cluster, identity().epoch);
    let operator = Operator { name: "ana".to_owned(), key: key.public(), owner: "owner-0".to_owned() };
    let operators = Operators::new([operator], &[]);
    let request = Request::Stop { targets: Selection::All(All::All), mode: StopMode::Hold };
    let expires_at = UnixMillis::new(4_000_000_000_000);
    let envelope =
        OperatorRequest { v: 1, cluster, epoch, counter, expires_at, request }.sign(&key).to_json();
    let request = VerifiedOperatorRequest::verify(&envelope, &operators, cluster, epoch);
    let request = Box::new(request.expect("it is signed"));
    Change::OperatorRequestLogged { request, heads: Vec::new() }
}

#[tokio::test]
async fn what_an_agent_or_a_stranger_claims_never_makes_a_block_unstorable() {
    let (mut writer, store, url) = fresh_store().await;
    let plan = certified_plan(7);
    let (mut wild, envelope) = receipt(plan.digest(), Outcome::Noop {}, u64::MAX);
    wild.at = UnixMillis::new(u64::MAX);
    wild.refused_documents = u64::MAX;
    let detail = "\0".repeat(100_000);
    let changes = vec![
        Change::PlanLogged(Box::new(plan.clone())),
        logged((wild, envelope.clone())),
        Change::PlanRefused { plan: None, why: PlanRefusal::NotCertified(detail.clone()) },
        Change::PlanRefused { plan: Some(Digest::of(b"late")), why: PlanRefusal::Late },
        Change::ReceiptRefused { target: Some(target()), why: ReceiptRefusal::NotVerified(detail.clone()) },
        Change::ReceiptRefused { target: None, why: ReceiptRefusal::UnboundKey(Digest::ZERO) },
        Change::OperatorRequestRefused { request: None, why: OperatorRefusal::NotVerified(detail) },
        logged_request(u64::MAX),
        Change::ReportRefused { replica: ReplicaIndex::new(u16::MAX), why: ReportRefusal::BadBody },
        Change::Malformed,
    ];
    writer.apply(&block(1, changes), SIGNED).await.expect("it is next");
    assert_eq!(count(&url, "refusals").await, 7);
    assert_eq!(count(&url, "operator_requests").await, 1);
    let receipts = store.receipts(plan.digest()).await.expect("it answers");
    assert_eq!(receipts.first().map(|receipt| &receipt.envelope), Some(&envelope));
}

#[tokio::test]
async fn findings_come_back_newest_first() {
    let (mut writer, store, _) = fresh_store().await;
    let loud = Finding {
        policy: Some("backlog".to_owned()),
        symptom: Symptom::Threshold,
        window: WindowIndex::containing(MIDNIGHT, WINDOW),
        since: MIDNIGHT,
        observed: Some(interval(-1_500_000_000, 0, i128::MAX)),
        against: Some(Quantity::from_nanos(i128::MIN)),
    };
    let silent =
        Finding { policy: None, symptom: Symptom::Gap, observed: None, against: None, ..loud.clone() };
    let found =
        |cycle, finding: &Finding| Change::Found { cycle: Cycle::new(cycle), finding: finding.clone() };
    let stored =
        |cycle, finding: &Finding| StoredFinding { cycle: Cycle::new(cycle), finding: finding.clone() };
    writer.apply(&block(1, vec![found(1, &loud), found(1, &silent)]), SIGNED).await.expect("it is next");
    writer.apply(&block(2, vec![found(2, &loud)]), SIGNED).await.expect("it is next");
    let newest = store.findings(2).await.expect("it answers");
    assert_eq!(newest, [stored(2, &loud), stored(1, &silent)]);
    assert_eq!(store.findings(u32::MAX).await.expect("it answers").len(), 3);
}

#[tokio::test]
async fn a_head_and_its_certificate_meet_in_either_order() {
    let (mut writer, store, url) = fresh_store().await;
    let derived = |number| Change::HeadDerived(Box::new(head(number, Mode::Act)));
    let certified = |number| certified_head(number, Mode::Act);
    assert_eq!(store.head(Shard::new(0)).await.expect("it answers"), None);
    writer.apply(&block(1, vec![derived(1)]), SIGNED).await.expect("it is next");
    assert_eq!(store.head(Shard::new(0)).await.expect("it answers"), None);
    for number in [1, 1, 2] {
        writer.record_certified_head(&certified(number)).await.expect("the state agrees");
    }
    writer.apply(&block(2, vec![derived(2), derived(3)]), SIGNED).await.expect("it is next");
    let newest = store.head(Shard::new(0)).await.expect("it answers").expect("number 2 is certified");
    assert_eq!((newest.number, newest.epoch), (HeadNumber::new(2), identity().epoch));
    assert_eq!(newest.body, head(2, Mode::Act).to_bytes());
    assert_eq!(newest.envelope, certified(2).envelope().to_json());
    assert_eq!(count(&url, "heads").await, 3);
}

#[tokio::test]
async fn a_head_that_differs_from_the_certified_one_is_a_divergence_in_either_order() {
    let (mut writer, _, url) = fresh_store().await;
    writer
        .apply(&block(1, vec![Change::HeadDerived(Box::new(head(1, Mode::Act)))]), SIGNED)
        .await
        .expect("it is next");
    let refused = writer.record_certified_head(&certified_head(1, Mode::Hold)).await;
    assert!(matches!(refused, Err(RecordHeadError::Diverged { .. })), "{refused:?}");
    writer.record_certified_head(&certified_head(2, Mode::Hold)).await.expect("nothing is derived yet");
    let refused =
        writer.apply(&block(2, vec![Change::HeadDerived(Box::new(head(2, Mode::Act)))]), SIGNED).await;
    assert!(matches!(refused, Err(ApplyError::Diverged { .. })), "{refused:?}");
    assert_eq!(count(&url, "block_headers").await, 1);
}

#[tokio::test]
async fn a_database_serves_one_replica_of_one_cluster_and_never_an_earlier_epoch() {
    let (mut writer, _, url) = fresh_store().await;
    let others = [
        StoreIdentity { replica: ReplicaIndex::new(0), ..identity() },
        StoreIdentity { cluster: Digest::of(b"other"), ..identity() },
        StoreIdentity { epoch: Epoch::new(1), ..identity() },
    ];
    for other in others {
        let refused = open(&url, other).await.expect_err("it belongs to another");
        assert_eq!((refused.trouble(), refused.is_transient()), (StoreTrouble::RefusedIdentity, false));
        let ConnectError::WrongReplica { cluster, epoch, replica } = refused else { panic!("{refused:?}") };
        assert_eq!(StoreIdentity { cluster, epoch, replica }, identity());
    }
    assert_eq!(writer.apply(&block(1, vec![]), SIGNED).await.expect("it is next"), ApplyOutcome::Applied);
}

#[tokio::test]
async fn what_keeps_a_replica_from_its_database_says_whether_to_wait_and_never_repeats_a_password() {
    let (_, _, url) = fresh_store().await;
    let (server, _) = url.split_once("&user=").expect("the URL names the user");
    let cases = [
        (url.replace("%2Fsocket", "%2Felsewhere"), StoreTrouble::Unreachable),
        ("postgres://bob:hunter2@127.0.0.1:1/none".to_owned(), StoreTrouble::Unreachable),
        (url.replace("test_", "missing_"), StoreTrouble::Refused),
        (format!("{server}&user=stranger&password=hunter2&sslmode=disable"), StoreTrouble::Refused),
        ("postgres://bob:hunter2@:port/".to_owned(), StoreTrouble::Refused),
        ("postgres://bob:hunter2@host:hunter2/".to_owned(), StoreTrouble::Refused),
        ("postgres://bob@host/db?sslmode=disable&pasword=hunter2".to_owned(), StoreTrouble::Refused),
        ("postgres://bob:hun?ter2@host/db".to_owned(), StoreTrouble::Refused),
    ];
    for (url, trouble) in cases {
        let refused = open(&url, identity()).await.expect_err("nobody is there");
        let is_transient = trouble == StoreTrouble::Unreachable;
        assert_eq!(
            (refused.trouble(), refused.is_transient()),
            (trouble, is_transient),
            "{url}: {refused:?}"
        );
        let told = format!("{refused} {refused:?} {}", causes(&refused));
        assert!(!told.contains("hunter2") && !told.contains("ter2@"), "{told}");
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    error.source().map(|cause| format!("{cause} {}", causes(cause))).unwrap_or_default()
}

#[tokio::test]
async fn a_second_writer_is_refused_by_name_until_the_first_is_gone() {
    let (mut first, _, url) = fresh_store().await;
    first.apply(&block(1, vec![]), SIGNED).await.expect("it is next");
    let refused = open(&url, identity()).await.expect_err("the first one writes");
    assert_eq!(refused.trouble(), StoreTrouble::InUse);
    let told = refused.to_string();
    assert!(told.contains("in use by quorate r1 (process 77) (session "), "{told}");
    assert_eq!(first.apply(&block(2, vec![]), SIGNED).await.expect("it still writes"), ApplyOutcome::Applied);
    // Without a goodbye, as when its process is killed.
    drop(first);
    let mut second = loop {
        match open(&url, identity()).await {
            Ok(second) => break second,
            Err(ConnectError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!((second.applied().height, second.applied().signed_view), (Height::new(2), SIGNED));
    assert_eq!(second.apply(&block(3, vec![]), SIGNED).await.expect("it is next"), ApplyOutcome::Applied);
}

#[tokio::test]
async fn a_writer_that_lost_its_lock_is_shut_out_by_the_next_one() {
    let (mut first, _, url) = fresh_store().await;
    // What a pooler that hands sessions on between transactions does.
    sqlx::raw_sql("UPDATE replica_meta SET generation = generation + 1")
        .execute(&mut PgConnection::connect(&url).await.expect("the server answers"))
        .await
        .expect("it is one row");
    let refused = first.apply(&block(1, vec![]), SIGNED).await.expect_err("a newer process has the database");
    assert!(matches!(refused, ApplyError::Superseded), "{refused:?}");
}

#[tokio::test]
async fn tables_of_a_newer_or_another_program_are_refused_and_left_alone() {
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9000, 'later', true, '\\x00', 0)";
    let other = "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 7";
    for (change, told) in [(newer, "are of version 9000"), (other, "its migration 7 is not this program's")] {
        let (writer, _, url) = fresh_store().await;
        writer.close().await;
        let mut connection = PgConnection::connect(&url).await.expect("the server answers");
        sqlx::raw_sql(AssertSqlSafe(change.to_owned())).execute(&mut connection).await.expect("it is a row");
        let refused = open(&url, identity()).await.expect_err("they are not this program's");
        assert_eq!(refused.trouble(), StoreTrouble::RefusedTables);
        assert!(refused.to_string().contains(told), "{refused}");
        let generation: i64 = sqlx::query_scalar("SELECT generation FROM replica_meta")
            .fetch_one(&mut connection)
            .await
            .expect("it is there");
        assert_eq!(generation, 1, "nothing was claimed");
    }
}

#[tokio::test]
async fn a_table_that_somebody_locks_is_told_as_locked_and_nothing_of_the_block_is_stored() {
    let (mut writer, _, url) = fresh_store().await;
    let mut other = PgConnection::connect(&url).await.expect("the server answers");
    let mut blocking = other.begin().await.expect("the server answers");
    sqlx::query("LOCK TABLE series IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *blocking)
        .await
        .expect("it is free");
    let first = block(1, vec![Change::WindowClosed(closed_window(MIDNIGHT, 1))]);
    let refused = writer.apply(&first, SIGNED).await.expect_err("the table is locked");
    assert_eq!((refused.trouble(), refused.is_transient()), (StoreTrouble::Locked, true), "{refused:?}");
    blocking.rollback().await.expect("the server answers");
    assert_eq!(count(&url, "block_headers").await, 0);
    assert_eq!(writer.apply(&first, SIGNED).await.expect("it is next"), ApplyOutcome::Applied);
}

#[tokio::test]
async fn days_are_made_ahead_and_dropped_when_they_are_too_old_while_others_are_read() {
    let (mut writer, store, url) = fresh_store().await;
    let day = Millis::from_secs(86_400);
    let mut changes = vec![Change::TimeMoved(MIDNIGHT)];
    for days in (0..5).rev() {
        changes.push(Change::WindowClosed(closed_window(MIDNIGHT.minus(day.times(days)), 5 - days)));
    }
    writer.apply(&block(1, changes), SIGNED).await.expect("it is next");
    let mut reader = PgConnection::connect(&url).await.expect("the server answers");
    let keep = NonZeroU32::new(2).expect("two");
    let mut dropped = 0;
    loop {
        let swept = writer.sweep(keep, MIDNIGHT).await.expect("nobody is in the way");
        dropped += swept.dropped;
        sqlx::query("SELECT * FROM dashboard_values")
            .fetch_all(&mut reader)
            .await
            .expect("it is not in the way");
        if !swept.has_more {
            break;
        }
    }
    assert_eq!(dropped, 8, "two days of four tables");
    let left: Vec<String> =
        partitions(&url).await.into_iter().filter(|name| name.starts_with("read")).collect();
    assert_eq!(left, ["readings_20261118", "readings_20261119", "readings_20261120", "readings_20261121"]);
    let all = store.windows(UnixMillis::ZERO, MIDNIGHT.plus(day)).await.expect("it answers");
    assert_eq!(all.iter().map(|window| window.cycle.number()).collect::<Vec<_>>(), [3, 4, 5]);
    writer
        .apply(&block(2, vec![Change::WindowClosed(closed_window(MIDNIGHT.plus(day), 6))]), SIGNED)
        .await
        .expect("its day was made ahead");
}

#[tokio::test]
async fn a_day_that_somebody_reads_for_long_is_dropped_by_a_later_sweep() {
    let (mut writer, _, url) = fresh_store().await;
    let old = MIDNIGHT.minus(Millis::from_secs(86_400 * 9));
    let window = Change::WindowClosed(closed_window(old, 1));
    writer.apply(&block(1, vec![Change::TimeMoved(MIDNIGHT), window]), SIGNED).await.expect("it is next");
    let mut other = PgConnection::connect(&url).await.expect("the server answers");
    let mut reading = other.begin().await.expect("the server answers");
    sqlx::query("SELECT count(*) FROM merged_windows").execute(&mut *reading).await.expect("it answers");
    let keep = NonZeroU32::new(3).expect("three");
    let refused = writer.sweep(keep, MIDNIGHT).await.expect_err("the day is being read");
    assert_eq!(refused.trouble(), StoreTrouble::Locked, "{refused:?}");
    let next = block(2, vec![Change::WindowClosed(closed_window(MIDNIGHT, 2))]);
    assert_eq!(writer.apply(&next, SIGNED).await.expect("it is next"), ApplyOutcome::Applied);
    reading.rollback().await.expect("the server answers");
    let swept = writer.sweep(keep, MIDNIGHT).await.expect("nobody is in the way");
    assert_eq!((swept.dropped, swept.has_more), (3, false));
    assert!(partitions(&url).await.iter().all(|name| !name.ends_with("20261111")));
}

#[tokio::test]
async fn a_days_table_that_was_detached_and_not_dropped_goes_and_its_day_takes_rows_again() {
    let (mut writer, _, url) = fresh_store().await;
    let keep = NonZeroU32::new(30).expect("thirty");
    writer.apply(&block(1, vec![Change::TimeMoved(MIDNIGHT)]), SIGNED).await.expect("it is next");
    writer.sweep(keep, MIDNIGHT).await.expect("nobody is in the way");
    assert_eq!(writer.drop_leftovers().await.expect("nobody is in the way").dropped, 0);
    let mut other = PgConnection::connect(&url).await.expect("the server answers");
    sqlx::raw_sql("ALTER TABLE readings DETACH PARTITION readings_20261120")
        .execute(&mut other)
        .await
        .expect("nobody is in the way");
    let next = block(2, vec![Change::WindowClosed(closed_window(MIDNIGHT, 1))]);
    writer.apply(&next, SIGNED).await.expect_err("the day has no table that takes its rows");

    writer.close().await;
    let mut writer = open(&url, identity()).await.expect("the other connection is gone");
    // Somebody looks at the table itself: it is left for the next time.
    let mut reading = other.begin().await.expect("the server answers");
    sqlx::query("SELECT * FROM readings_20261120").execute(&mut *reading).await.expect("it answers");
    let refused = writer.drop_leftovers().await.expect_err("the table is being read");
    assert_eq!(refused.trouble(), StoreTrouble::Locked, "{refused:?}");
    reading.rollback().await.expect("the server answers");
    assert_eq!(writer.sweep(keep, MIDNIGHT).await.expect("nobody is in the way").dropped, 1);
    assert_eq!(writer.apply(&next, SIGNED).await.expect("it is next"), ApplyOutcome::Applied);
    assert!(partitions(&url).await.contains(&"readings_20261120".to_owned()));
}

#[tokio::test]
async fn rows_of_the_earlier_tables_are_still_there_after_the_upgrade() {
    let url = fresh_database().await;
    let mut connection = PgConnection::connect(&url).await.expect("the server answers");
    sqlx::migrate!().run_to(18, &mut connection).await.expect("the earlier tables");
    let rows = include_str!("data/store_rows_of_version_18.sql");
    sqlx::raw_sql(rows).execute(&mut connection).await.expect("rows of that version");
    let tables = [
        "block_headers",
        "series",
        "merged_windows",
        "window_values",
        "readings",
        "window_gaps",
        "findings",
        "plans",
        "certificates",
        "certificate_signatures",
        "heads",
        "receipts",
        "refusals",
    ];
    let mut before = Vec::new();
    for table in tables {
        before.push(rows_of(&url, table).await);
    }
    let mut writer = open(&url, identity()).await.expect("it is upgraded");
    for (table, before) in tables.iter().zip(before) {
        assert!(!before.is_empty(), "{table} has rows to lose");
        assert_eq!(rows_of(&url, table).await, before, "{table}");
    }
    let applied = writer.applied();
    assert_eq!(
        (applied.height, applied.digest, applied.signed_view),
        (Height::new(2), digest_at(2), View::ZERO)
    );
    let store = Store::connect(&url, WINDOW).await.expect("the server answers");
    let findings = store.findings(10).await.expect("it answers");
    assert_eq!(findings.iter().map(|found| found.cycle.number()).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(
        store.plan(certified_plan(7).digest()).await.expect("it answers").map(|plan| plan.state),
        Some(PlanState::Applied)
    );
    let mut window = closed_window(MIDNIGHT.plus(WINDOW), 3);
    // A statistic that the earlier tables did not know, in a partition that was made then.
    window.series.insert(series("later"), BTreeMap::from([(Statistic::P50, interval(1, 2, 3))]));
    let next = block(3, vec![Change::WindowClosed(window)]);
    assert_eq!(writer.apply(&next, SIGNED).await.expect("it is next"), ApplyOutcome::Applied);
    // A second start finds nothing to upgrade.
    writer.close().await;
    assert_eq!(open(&url, identity()).await.expect("it opens").applied().height, Height::new(3));
}

/// All rows of a table as text, in order.
async fn rows_of(url: &str, table: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT t::text FROM {table} t ORDER BY 1")))
        .fetch_all(&mut connection)
        .await
        .expect("the table is there")
}

#[tokio::test]
async fn a_row_that_the_store_cannot_have_written_is_named() {
    let (mut writer, store, url) = fresh_store().await;
    writer
        .apply(&block(1, vec![Change::PlanLogged(Box::new(certified_plan(7)))]), SIGNED)
        .await
        .expect("it is next");
    let mut connection = PgConnection::connect(&url).await.expect("the server answers");
    sqlx::raw_sql("UPDATE plans SET target = 'not a name'")
        .execute(&mut connection)
        .await
        .expect("it is text");
    let target = certified_plan(7).digest();
    let refused = store.plan(target).await.expect_err("the name is not valid").to_string();
    assert!(refused.starts_with("table plans, row not a name seq 7, column target: "), "{refused}");
}
