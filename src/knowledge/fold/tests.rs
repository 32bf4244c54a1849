//! Tables of steps for the fold's numbered rules, and properties over generated logs.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

use super::{Applied, State};
use crate::{
    knowledge::{
        change::{Change, ClosedWindow, Effect, PlanRefusal, ReceiptRefusal, ReportRefusal, Turn},
        command::Command,
        fixtures::verified_root,
        genesis::{Genesis, Parameters},
        head::{Head, Mode},
        merge::{CountedReports, Weighted},
        observation::{ReportHeader, SeriesKey, SeriesSummary, Tick, WindowSummary},
        plan::{
            DesiredState, Limits, Measure, OnStale, PLAN_TYPE, Plan, Preconditions, Reason, RiskClass,
            Verify, VerifyElse, VerifyOp,
        },
        policy::{
            Action, Change as Doing, Combine, Condition, Controls, Indicator, Policy, Risk, Selector, Side,
            Statistic, Target, TargetKind,
        },
        receipt::{Outcome, RECEIPT_TYPE, Receipt, Refusal},
        root::Operators,
        snapshot::{Finality, Reading},
    },
    types::{
        Committee, Cycle, Digest, Envelope, Epoch, HeadNumber, Millis, Quantity, ReplicaIndex, SecretKey,
        SourceId, TargetId, UnixMillis, WindowIndex, pae,
    },
};

mod evidence;
mod operators;
mod properties;
mod restore;

const WINDOW: Millis = Millis::from_secs(10);
/// Where most tests begin: the first agreed time, which opens window 100.
const BEGIN: u64 = 1000;

/// A committee with its keys, one state, and shorthands for commands.
#[derive(Clone)]
struct Replicas {
    keys: Vec<SecretKey>,
    state: State,
}

impl Replicas {
    fn new(n: u8) -> Self {
        Self::with(n, genesis())
    }

    fn with(n: u8, genesis: Genesis) -> Self {
        let keys: Vec<SecretKey> = (0..n).map(|seed| SecretKey::from_seed(&[seed + 1; 32])).collect();
        let members = keys.iter().map(SecretKey::public).collect();
        let committee = Committee::new(Digest::of(b"cluster"), Epoch::new(1), members).expect("keys differ");
        Self { keys, state: State::new(genesis, committee, operators()).expect("the genesis is checked") }
    }

    /// All replicas tick at [`BEGIN`].
    fn begun(n: u8) -> Self {
        let mut replicas = Self::new(n);
        replicas.all_tick(BEGIN);
        replicas
    }

    fn all_tick(&mut self, seconds: u64) -> Vec<Applied> {
        (0..self.keys.len()).map(|replica| self.tick(replica, seconds)).collect()
    }

    fn apply(&mut self, command: Command) -> Applied {
        let encoded = command.encode();
        self.state.apply(&encoded.head, &encoded.body)
    }

    fn tick_command(&self, replica: usize, time: UnixMillis) -> Command {
        let tick = Tick { replica: place(replica), signed_at: time };
        Command::Tick(tick.sign(&self.state.committee().domain(0), &self.keys[replica]))
    }

    fn tick(&mut self, replica: usize, seconds: u64) -> Applied {
        self.apply(self.tick_command(replica, at(seconds)))
    }

    fn report_command(&self, replica: usize, window: u64, seconds: u64, summary: &WindowSummary) -> Command {
        self.signed_report(header(replica, window, seconds, summary), summary)
    }

    fn signed_report(&self, header: ReportHeader, summary: &WindowSummary) -> Command {
        let key = &self.keys[header.replica.as_usize()];
        let report = header.sign(&self.state.committee().domain(0), key);
        Command::Report { report, summary: summary.clone() }
    }

    fn report(&mut self, replica: usize, window: u64, seconds: u64, summary: &WindowSummary) -> Applied {
        self.apply(self.report_command(replica, window, seconds, summary))
    }

    /// Every replica reports the window two seconds after its close; the closed window.
    fn full_window(&mut self, window: u64, summary: &WindowSummary) -> ClosedWindow {
        let seconds = (window + 1) * 10 + 2;
        let applied = (0..self.keys.len()).map(|replica| self.report(replica, window, seconds, summary));
        let last = applied.last().expect("there is a replica");
        last.newest_closed().expect("all reports close the window").clone()
    }

    fn certify(&self, plan: &Plan, signers: usize) -> Vec<u8> {
        let body = plan.to_bytes();
        let bytes = pae(PLAN_TYPE, &body);
        let sign = |key: &SecretKey| (key.public().id(), key.sign(&bytes));
        Envelope::new(PLAN_TYPE, body, self.keys.iter().take(signers).map(sign).collect()).to_json()
    }

    fn log(&mut self, plan: &Plan) -> Applied {
        let envelope = self.certify(plan, self.state.committee().size().quorum());
        self.apply(Command::Certified { envelope })
    }

    fn answer(&mut self, receipt: &Receipt) -> Applied {
        self.apply(Command::Receipt { envelope: signed_receipt(receipt, &agent()) })
    }
}

/// The operators of the fixture's root: ana acts for owner-0, bea and bob for owner-1.
fn operators() -> Operators {
    verified_root().operators().clone()
}

fn agent() -> SecretKey {
    SecretKey::from_seed(&[99; 32])
}

fn place(replica: usize) -> ReplicaIndex {
    ReplicaIndex::new(u16::try_from(replica).expect("a small number"))
}

const fn at(seconds: u64) -> UnixMillis {
    UnixMillis::new(seconds * 1000)
}

fn header(replica: usize, window: u64, seconds: u64, summary: &WindowSummary) -> ReportHeader {
    ReportHeader {
        replica: place(replica),
        window: WindowIndex::new(window),
        partial: false,
        signed_at: at(seconds),
        body: Digest::of_value(summary),
    }
}

fn target_id(name: &str) -> TargetId {
    TargetId::new(name).expect("a valid name")
}

fn indicator(name: &str) -> Indicator {
    let selector = Selector { source: None, name: name.to_owned(), attributes: BTreeMap::new() };
    Indicator { selector, statistic: Statistic::Last, combine: Combine::Sum }
}

fn genesis() -> Genesis {
    let action = Action {
        target: target_id("pool"),
        change: Doing::AddSlots(4),
        cooldown: Millis::from_secs(60),
        expiry: Millis::from_secs(900),
        risk: Risk::Low,
        on_stale: OnStale::Hold,
        verify_within: Millis::from_secs(60),
        controls: Controls::ACTING,
    };
    let threshold = Condition::Threshold {
        side: Side::Above,
        enter: Quantity::from_i64(100),
        leave: Quantity::from_i64(50),
        hold: Millis::ZERO,
    };
    let policies = vec![
        Policy {
            name: "backlog".to_owned(),
            indicator: indicator("queue"),
            condition: threshold,
            action: Some(action),
        },
        Policy {
            name: "silence".to_owned(),
            indicator: indicator("heartbeat"),
            condition: Condition::Absence { after_milli_intervals: 1500 },
            action: None,
        },
    ];
    let target = |name, kind, owner: &str| Target {
        id: target_id(name),
        kind,
        cooldown: Millis::from_secs(60),
        plans_per_hour: 10,
        owner: owner.to_owned(),
        agent: agent().public(),
    };
    let pool = TargetKind::Pool { initial: 8, min: 1, max: 64, max_step: 16 };
    let switch = TargetKind::Switch { initially_paused: false };
    Genesis {
        parameters: Parameters::for_window(WINDOW),
        targets: vec![target("dag", switch, "owner-1"), target("pool", pool, "owner-0")],
        policies,
    }
}

fn summary(values: &[(&str, i64)]) -> WindowSummary {
    let series = values.iter().map(|(name, value)| {
        let key = SeriesKey {
            source: SourceId::new("airflow").expect("a valid name"),
            name: (*name).to_owned(),
            attributes: BTreeMap::new(),
            resource: BTreeMap::new(),
        };
        let value = Quantity::from_i64(*value);
        (key, SeriesSummary::Level { last: value, min: value, max: value, sum: value, samples: 1 })
    });
    WindowSummary { series: series.collect() }
}

fn plan(state: &State, seq: u64, prev: Digest, issued: u64) -> Plan {
    Plan {
        v: 1,
        cluster: state.committee().cluster(),
        epoch: Epoch::new(1),
        target: target_id("pool"),
        seq: Cycle::new(seq),
        prev,
        issued_at: at(issued),
        not_before: at(issued),
        expires_at: at(issued + 900),
        desired: DesiredState::Slots { slots: 12 },
        preconditions: Preconditions { state: DesiredState::Slots { slots: 8 } },
        limits: Limits::Slots { min: 1, max: 64, max_step: 16 },
        verify: Verify {
            series: "queue".to_owned(),
            op: VerifyOp::AtMost,
            value: Measure { value: 50, scale: 0, unit: String::new() },
            by: at(issued + 20),
            otherwise: VerifyElse::Finding,
        },
        rollback: DesiredState::Slots { slots: 8 },
        on_stale: OnStale::Hold,
        evidence: Digest::ZERO,
        policy: Digest::of_value(&state.genesis().policies[0]),
        risk: RiskClass::Low,
        reason: Reason::Threshold,
    }
}

fn receipt(plan: &Plan, counter: u64) -> Receipt {
    Receipt {
        v: 1,
        cluster: plan.cluster,
        target: plan.target.clone(),
        seq: plan.seq,
        plan: Digest::of(&plan.to_bytes()),
        outcome: Outcome::Applied {},
        before: DesiredState::Slots { slots: 8 },
        after: plan.desired,
        at: plan.issued_at,
        counter,
        refused_documents: 0,
        lost_receipts: 0,
    }
}

fn signed_receipt(receipt: &Receipt, key: &SecretKey) -> Vec<u8> {
    let body = receipt.to_bytes();
    let signature = (key.public().id(), key.sign(&pae(RECEIPT_TYPE, &body)));
    Envelope::new(RECEIPT_TYPE, body, vec![signature]).to_json()
}

fn digest(plan: &Plan) -> Digest {
    Digest::of(&plan.to_bytes())
}

fn heads(applied: &Applied) -> Vec<&Head> {
    let mut heads = Vec::new();
    for change in &applied.changes {
        if let Change::HeadDerived(head) = change {
            heads.push(&**head);
        }
    }
    heads
}

fn refusal(applied: &Applied) -> Option<ReportRefusal> {
    applied.changes.iter().find_map(|change| {
        let Change::ReportRefused { why, .. } = change else { return None };
        Some(*why)
    })
}

fn gaps(applied: &Applied) -> Vec<(u64, u64, u64)> {
    let gap = |change: &Change| {
        let Change::Gap { first, last, cycle } = change else { return None };
        Some((first.index(), last.index(), cycle.number()))
    };
    applied.changes.iter().filter_map(gap).collect()
}

fn closed(applied: &Applied) -> Vec<(u64, u64, Finality)> {
    applied.closed().map(|closed| (closed.window.index(), closed.cycle.number(), closed.finality)).collect()
}

// C: commands

#[test]
fn c1_bytes_that_are_no_command_change_nothing() {
    let mut replicas = Replicas::begun(4);
    let root = replicas.state.root();
    let tick = replicas.tick_command(0, at(BEGIN + 1)).encode();
    let cases: [(&[u8], &[u8]); 5] = [
        (b"", b""),
        (b"\xff", b""),
        (&tick.head[1..], b""),
        (&tick.head[..tick.head.len() - 1], b""),
        (&tick.head, b"a tick has no body"),
    ];
    for (head, body) in cases {
        assert_eq!(replicas.state.apply(head, body).changes, [Change::Malformed]);
        assert_eq!(replicas.state.root(), root);
    }
}

#[test]
fn c1_a_body_in_a_second_encoding_is_no_command() {
    let mut replicas = Replicas::begun(1);
    let seen = summary(&[("heartbeat", 1), ("queue", 1)]);
    let reversed: Vec<_> = seen.series.iter().rev().collect();
    let body = borsh::to_vec(&reversed).expect("writing to memory does not fail");
    let header = ReportHeader { body: Digest::of(&body), ..header(0, 100, 1012, &seen) };
    let encoded = replicas.signed_report(header, &seen).encode();
    assert_eq!(encoded.body.len(), body.len());
    assert_eq!(replicas.state.apply(&encoded.head, &body).changes, [Change::Malformed]);
    assert_eq!(replicas.report(0, 100, 1012, &seen).closed().count(), 1);
}

#[test]
fn c2_a_wrong_signature_changes_nothing_not_even_time() {
    let mut replicas = Replicas::begun(4);
    let root = replicas.state.root();
    let seen = summary(&[]);
    let other_protocol = replicas.state.committee().domain(1);
    let tick = Tick { replica: place(0), signed_at: at(2000) };
    let stranger = Tick { replica: place(4), signed_at: at(2000) };
    let commands = [
        Command::Tick(tick.clone().sign(&other_protocol, &replicas.keys[0])),
        Command::Tick(tick.sign(&replicas.state.committee().domain(0), &replicas.keys[1])),
        Command::Tick(stranger.sign(&replicas.state.committee().domain(0), &replicas.keys[1])),
        Command::Report {
            report: header(0, 100, 1012, &seen).sign(&other_protocol, &replicas.keys[0]),
            summary: seen,
        },
    ];
    for command in commands {
        assert_eq!(refusal(&replicas.apply(command)), Some(ReportRefusal::BadSignature));
        assert_eq!(replicas.state.root(), root);
    }
}

#[test]
fn c3_a_body_that_is_not_the_headers_is_refused_and_the_time_counts() {
    let mut replicas = Replicas::begun(1);
    let header = header(0, 100, 1012, &summary(&[("queue", 1)]));
    let forged = replicas.signed_report(header.clone(), &summary(&[("queue", 2)]));
    assert_eq!(refusal(&replicas.apply(forged)), Some(ReportRefusal::BadBody));
    assert_eq!(replicas.state.now(), Some(at(1012)));
    let true_body = replicas.signed_report(header, &summary(&[("queue", 1)]));
    assert_eq!(refusal(&replicas.apply(true_body)), None, "the slot is still free");
}

#[test]
fn c3_a_report_with_too_many_series_is_refused() {
    let mut genesis = genesis();
    genesis.parameters.series_limit = 1;
    let mut replicas = Replicas::with(1, genesis);
    replicas.all_tick(BEGIN);
    let two = summary(&[("queue", 1), ("heartbeat", 1)]);
    assert_eq!(refusal(&replicas.report(0, 100, 1012, &two)), Some(ReportRefusal::BadBody));
    assert_eq!(refusal(&replicas.report(0, 100, 1012, &summary(&[("queue", 1)]))), None);
}

// T: agreed time

#[test]
fn t2_agreed_time_is_bounded_by_an_honest_clock_and_by_the_quorum() {
    /// (replica, its time, agreed time after it; 0 for none), in seconds.
    type Steps<'a> = &'a [(usize, u64, u64)];
    let tables: [(u8, Steps<'_>); 8] = [
        (1, &[(0, 50, 50), (0, 40, 50), (0, 70, 70)]),
        (2, &[(0, 50, 0), (1, 90, 70), (0, 80, 90)]),
        (4, &[(0, 100, 0), (0, 200, 0), (1, 100, 0), (2, 100, 100), (3, 150, 120), (1, 160, 160)]),
        (4, &[(0, 100, 0), (1, 200, 0), (2, 300, 120), (3, 400, 220), (0, 300, 300)]),
        // T1: an older time that is logged later does not hold its replica back.
        (4, &[(0, 200, 0), (1, 200, 0), (2, 200, 200), (0, 100, 200), (1, 300, 200), (2, 250, 220)]),
        // One clock that is far ahead or far behind moves nothing.
        (4, &[(0, 9_999_999, 0), (1, 100, 0), (2, 101, 101), (3, 102, 102), (1, 103, 103)]),
        // n = 5: f = 1, quorum 4. n = 7: f = 2 and the third largest counts.
        (
            5,
            &[
                (0, 100, 0),
                (1, 100, 0),
                (2, 130, 0),
                (3, 131, 120),
                (4, 90, 120),
                (4, 125, 120),
                (0, 124, 130),
            ],
        ),
        (7, &[(0, 500, 0), (1, 400, 0), (2, 300, 0), (3, 290, 0), (4, 295, 300)]),
    ];
    for (n, steps) in tables {
        let mut replicas = Replicas::new(n);
        for &(replica, time, agreed) in steps {
            replicas.tick(replica, time);
            let now = replicas.state.now().map_or(0, |now| now.as_millis() / 1000);
            assert_eq!(now, agreed, "n={n}, replica {replica} at {time}");
        }
    }
}

#[test]
fn t3_moved_time_is_told_once() {
    let mut replicas = Replicas::begun(4);
    assert_eq!(replicas.tick(0, 1001).changes, []);
    assert_eq!(replicas.tick(1, 1001).changes, [Change::TimeMoved(at(1001))]);
    assert_eq!(replicas.tick(2, 1001).changes, []);
}

// W: windows

#[test]
fn w1_the_first_window_contains_the_first_agreed_time() {
    let mut replicas = Replicas::new(4);
    let seen = summary(&[("queue", 1)]);
    for replica in 0..4 {
        let refused = refusal(&replicas.report(replica, 99, 1002, &seen));
        assert_eq!(refused, Some(ReportRefusal::OutsideOpenWindows), "window 99 is before the first");
    }
    assert_eq!(replicas.state.now(), Some(at(1002)), "their times count");
    assert_eq!(replicas.full_window(100, &seen).cycle, Cycle::new(1));
}

#[test]
fn w2_closed_and_due_windows_take_no_reports() {
    let mut replicas = Replicas::begun(4);
    let seen = summary(&[]);
    replicas.full_window(100, &seen);
    assert_eq!(refusal(&replicas.report(0, 100, 1013, &seen)), Some(ReportRefusal::OutsideOpenWindows));
    replicas.all_tick(1049);
    assert_eq!(refusal(&replicas.report(0, 101, 1049, &seen)), None);
    replicas.all_tick(1060);
    assert_eq!(refusal(&replicas.report(0, 102, 1060, &seen)), Some(ReportRefusal::OutsideOpenWindows));
    assert_eq!(refusal(&replicas.report(0, 103, 1060, &seen)), None);
}

#[test]
fn w3_a_window_is_not_reported_before_its_close() {
    let mut replicas = Replicas::begun(4);
    let seen = summary(&[]);
    assert_eq!(refusal(&replicas.report(0, 100, 1009, &seen)), Some(ReportRefusal::OutsideOpenWindows));
    assert_eq!(refusal(&replicas.report(0, 100, 1010, &seen)), None);
}

#[test]
fn w4_the_first_report_of_a_replica_stands() {
    let mut replicas = Replicas::begun(4);
    replicas.report(0, 100, 1012, &summary(&[("queue", 1)]));
    let second = replicas.report(0, 100, 1012, &summary(&[("queue", 2)]));
    assert_eq!(refusal(&second), Some(ReportRefusal::Duplicate));
    for replica in 1..3 {
        replicas.report(replica, 100, 1012, &summary(&[("queue", 1)]));
    }
    let last = replicas.report(3, 100, 1012, &summary(&[("queue", 9)]));
    let readings = &last.newest_closed().expect("all have reported").readings;
    let one = Quantity::from_i64(1);
    assert!(matches!(readings[0], Reading::Fresh(value) if value.median == one && value.high == one));
}

#[test]
fn w5_of_each_replica_the_newest_eight_open_windows_are_kept() {
    let mut replicas = Replicas::begun(4);
    let seen = summary(&[]);
    for window in 101..109 {
        assert_eq!(refusal(&replicas.report(0, window, (window + 1) * 10, &seen)), None);
    }
    let older = replicas.report(0, 100, 1090, &seen);
    assert_eq!(refusal(&older), Some(ReportRefusal::OutsideOpenWindows), "older than all eight");
    assert_eq!(refusal(&replicas.report(0, 109, 1100, &seen)), None, "a newer one displaces the oldest");
    let again = replicas.report(0, 101, 1100, &seen);
    assert_eq!(refusal(&again), Some(ReportRefusal::OutsideOpenWindows), "which is forgotten");
    assert_eq!(refusal(&replicas.report(1, 101, 1100, &seen)), None, "another replica has its own eight");
}

#[test]
fn w6_windows_become_final_by_all_by_a_settled_quorum_or_by_the_deadline() {
    let seen = summary(&[("queue", 1)]);
    let confirmed = vec![(100, 1, Finality::Confirmed)];
    let mut all = Replicas::begun(4);
    for replica in 0..3 {
        assert_eq!(closed(&all.report(replica, 100, 1012, &seen)), []);
    }
    assert_eq!(closed(&all.report(3, 100, 1012, &seen)), confirmed, "(a) all, before the settled point");

    let mut quorum = Replicas::begun(4);
    for replica in 0..3 {
        quorum.report(replica, 100, 1012, &seen);
    }
    quorum.tick(0, 1015);
    assert_eq!(closed(&quorum.tick(1, 1014)), [], "agreed time is 1014, one second before");
    assert_eq!(closed(&quorum.tick(1, 1015)), confirmed, "(b) a quorum, and close + grace + settle");

    let mut deadline = Replicas::begun(4);
    deadline.report(0, 100, 1012, &seen);
    deadline.report(1, 100, 1012, &seen);
    deadline.all_tick(1039);
    deadline.tick(0, 1040);
    assert_eq!(closed(&deadline.tick(1, 1040)), [(100, 1, Finality::Unconfirmed)], "(c) the deadline");
}

#[test]
fn w7_a_final_window_first_closes_older_ones() {
    let mut replicas = Replicas::begun(4);
    let seen = summary(&[]);
    replicas.report(0, 100, 1012, &seen);
    for replica in 0..3 {
        replicas.report(replica, 101, 1022, &seen);
    }
    let mut quick = replicas.clone();
    let late = quick.report(3, 101, 1022, &seen);
    assert_eq!(closed(&late), [(100, 1, Finality::Unconfirmed), (101, 2, Finality::Confirmed)]);
    assert_eq!(late.newest_closed().map(|closed| closed.window), Some(WindowIndex::new(101)));
}

#[test]
fn w8_a_range_without_reports_closes_as_one_gap() {
    let mut replicas = Replicas::begun(4);
    let seen = summary(&[]);
    replicas.full_window(100, &seen);
    let outage = replicas.all_tick(5000);
    assert!(outage.iter().all(|applied| gaps(applied).is_empty()), "a gap waits for the next report");
    for replica in 0..3 {
        replicas.report(replica, 500, 5012, &seen);
    }
    let last = replicas.report(3, 500, 5012, &seen);
    assert_eq!(gaps(&last), [(101, 499, 2)]);
    assert_eq!(closed(&last), [(500, 3, Finality::Confirmed)], "W9: the gap took a cycle number");
    assert!(matches!(last.changes[0], Change::Gap { .. }), "the gap comes before the window");
    for replica in 0..3 {
        replicas.report(replica, 502, 5032, &seen);
    }
    assert_eq!(gaps(&replicas.report(3, 502, 5032, &seen)), [(501, 501, 4)], "one window is a range too");
}

#[test]
fn w9_a_partial_report_counts_for_finality_but_not_for_the_merge() {
    let mut replicas = Replicas::begun(4);
    for replica in 0..3 {
        replicas.report(replica, 100, 1012, &summary(&[("queue", 7)]));
    }
    let missed = summary(&[("queue", 1)]);
    let partial = ReportHeader { partial: true, ..header(3, 100, 1012, &missed) };
    let last = replicas.apply(replicas.signed_report(partial, &missed));
    let window = last.newest_closed().expect("all have reported");
    assert_eq!(window.reporters.iter().filter(|(_, partial)| *partial).count(), 1);
    let seven = Quantity::from_i64(7);
    assert!(matches!(window.readings[0], Reading::Fresh(value) if value.low == seven && value.high == seven));
}

#[test]
fn w10_a_tick_is_wanted_when_only_time_is_missing() {
    let seen = summary(&[]);
    let mut replicas = Replicas::begun(4);
    let wants = |replicas: &Replicas, seconds| replicas.state.wants_tick(place(0), at(seconds));
    replicas.report(0, 100, 1012, &seen);
    replicas.report(1, 100, 1012, &seen);
    assert!(!wants(&replicas, 1015), "no quorum yet");
    replicas.report(2, 100, 1012, &seen);
    assert!(!wants(&replicas, 1014), "not settled by its clock");
    assert!(wants(&replicas, 1015));
    replicas.tick(0, 1015);
    assert!(!wants(&replicas, 1016), "its own time is logged");
    assert!(replicas.state.wants_tick(place(1), at(1016)));
    assert_eq!(closed(&replicas.tick(1, 1016)), [(100, 1, Finality::Confirmed)]);
    assert!(!replicas.state.wants_tick(place(2), at(1016)), "the window is closed");
}

// R: readings

/// What the second policy's indicator reads in windows 100.. : `Some` with samples, `None` without.
fn heartbeat_readings(samples: &[Option<i64>]) -> Vec<Reading> {
    let mut replicas = Replicas::begun(1);
    let windows = samples.iter().enumerate().map(|(offset, sample)| {
        let seen = sample.map_or_else(WindowSummary::default, |value| summary(&[("heartbeat", value)]));
        replicas.full_window(100 + offset as u64, &seen).readings[1]
    });
    windows.collect()
}

/// A reading as one word: the value when fresh, `h` and the age of a held one, `n` and the learned interval.
fn word(offset: usize, reading: &Reading) -> String {
    let close = at((100 + offset as u64 + 1) * 10);
    match reading {
        Reading::Fresh(value) => value.median.to_string(),
        Reading::Held { since, .. } => format!("h{}", close.since(*since).as_millis() / 1000),
        Reading::NoSamples { since: None, .. } => "never".to_owned(),
        Reading::NoSamples { since: Some(_), learned_interval_ms } => {
            format!("n{}", learned_interval_ms / 1000)
        }
        Reading::Unknown => "unknown".to_owned(),
    }
}

#[test]
fn r2_r3_values_hold_for_one_and_a_half_learned_intervals() {
    let every = |windows: usize, count: usize| {
        (0..count * windows).map(|offset| (offset % windows == 0).then_some(1)).collect::<Vec<_>>()
    };
    let silent = |count: usize| vec![None; count];
    let cases = [
        ("nothing ever", silent(2), "never never"),
        ("one value teaches nothing", [every(1, 1), silent(2)].concat(), "1 n0 n0"),
        ("10 s", [every(1, 3), silent(3)].concat(), "1 1 1 h10 n10 n10"),
        ("20 s", [every(2, 3), silent(3)].concat(), "1 n0 1 h10 1 h10 h20 h30 n20"),
        (
            "60 s holds for 90 s",
            [every(6, 2), every(6, 1), silent(5)].concat(),
            "1 n0 n0 n0 n0 n0 1 h10 h20 h30 h40 h50 1 h10 h20 h30 h40 h50 h60 h70 h80 h90 n60",
        ),
        (
            "80 s holds for 90 s too",
            [every(8, 1), every(8, 1), every(1, 1), silent(10)].concat(),
            "1 n0 n0 n0 n0 n0 n0 n0 1 h10 h20 h30 h40 h50 h60 h70 1 h10 h20 h30 h40 h50 h60 h70 h80 h90 n80",
        ),
        (
            "an outage is the only distance",
            [every(1, 1), silent(10), every(1, 1), silent(1)].concat(),
            "1 n0 n0 n0 n0 n0 n0 n0 n0 n0 n0 1 n0",
        ),
        (
            "a distance longer than the longest hold is an outage",
            [every(1, 2), silent(10), every(1, 1), silent(2)].concat(),
            "1 1 h10 n10 n10 n10 n10 n10 n10 n10 n10 n10 1 h10 n10",
        ),
        (
            "one late export does not move the median",
            [every(1, 3), silent(1), every(1, 2), silent(2)].concat(),
            "1 1 1 h10 1 1 h10 n10",
        ),
    ];
    for (name, samples, expected) in cases {
        let readings = heartbeat_readings(&samples);
        let words: Vec<String> =
            readings.iter().enumerate().map(|(offset, reading)| word(offset, reading)).collect();
        assert_eq!(words.join(" "), expected, "{name}");
    }
}

#[test]
fn r3_only_the_newest_eight_distances_count() {
    let slow: Vec<Option<i64>> = (0..48).map(|offset| (offset % 6 == 0).then_some(1)).collect();
    let fast = vec![Some(1); 8];
    let readings = heartbeat_readings(&[slow, fast, vec![None; 2]].concat());
    assert!(matches!(readings[56], Reading::Held { .. }));
    assert!(matches!(readings[57], Reading::NoSamples { learned_interval_ms: 10_000, .. }));
}

#[test]
fn r4_unconfirmed_windows_and_gaps_teach_nothing() {
    let beat = summary(&[("heartbeat", 1)]);
    // n = 5: quorum 4, and 3 of 5 reports have a value although the window is unconfirmed.
    let mut replicas = Replicas::begun(5);
    replicas.full_window(100, &beat);
    for replica in 0..3 {
        replicas.report(replica, 101, 1022, &beat);
    }
    let unconfirmed = replicas.all_tick(1050);
    let window = unconfirmed.iter().find_map(Applied::newest_closed).expect("the deadline closes it");
    assert_eq!(window.finality, Finality::Unconfirmed);
    assert!(matches!(window.readings[1], Reading::Fresh(_)), "it is told all the same");
    replicas.full_window(105, &beat);
    let after = replicas.full_window(106, &summary(&[]));
    let since = Some(at(1060));
    assert_eq!(after.readings[1], Reading::NoSamples { since, learned_interval_ms: 0 });

    let mut replicas = Replicas::begun(1);
    replicas.full_window(100, &beat);
    replicas.full_window(104, &beat);
    let after = replicas.full_window(105, &summary(&[]));
    let since = Some(at(1050));
    assert_eq!(after.readings[1], Reading::NoSamples { since, learned_interval_ms: 0 }, "after a gap");
}

#[test]
fn r1_too_few_counted_reports_say_nothing() {
    let mut replicas = Replicas::begun(4);
    replicas.report(0, 100, 1012, &summary(&[("queue", 1)]));
    replicas.report(1, 100, 1012, &summary(&[("queue", 1)]));
    let applied = replicas.all_tick(1050);
    let window = applied.iter().find_map(Applied::newest_closed).expect("the deadline closes it");
    assert_eq!(window.readings, [Reading::Unknown, Reading::Unknown]);
    assert!(window.series.is_empty());
}

// P and H: plans and heads

fn plan_refusal(applied: &Applied) -> Option<&PlanRefusal> {
    applied.changes.iter().find_map(|change| {
        let Change::PlanRefused { why, .. } = change else { return None };
        Some(why)
    })
}

#[test]
fn p4_a_certified_plan_is_logged_and_a_head_follows_at_once() {
    let mut replicas = Replicas::begun(4);
    replicas.full_window(100, &summary(&[("queue", 200)]));
    let plan = plan(&replicas.state, 1, Digest::ZERO, 1012);
    let applied = replicas.log(&plan);
    assert!(matches!(&applied.changes[0], Change::PlanLogged(logged) if logged.digest() == digest(&plan)));
    let [head] = heads(&applied)[..] else { panic!("one head follows") };
    assert_eq!((head.log_size, head.time), (1, at(1012)));
    assert_eq!(head.log_root, Digest::of(&[&[0], plan.to_bytes().as_slice()].concat()), "a leaf is the root");
    assert_eq!((head.targets[1].seq, head.targets[1].plan), (plan.seq, digest(&plan)));
    assert_eq!((head.targets[0].seq, head.targets[0].mode), (Cycle::ZERO, Mode::Act));
    let window = replicas.full_window(101, &summary(&[]));
    let snapshot = replicas.state.snapshot(&window);
    let known = &snapshot.targets[&target_id("pool")];
    assert_eq!(known.newest_plan, digest(&plan));
    assert_eq!(known.recent_plans, [(at(1012), "backlog".to_owned())], "P5");
    assert_eq!(known.state, DesiredState::Slots { slots: 8 }, "only a receipt tells the state");
}

#[test]
fn p4_nothing_but_the_kept_certificate_depends_on_who_signed() {
    let mut replicas = Replicas::begun(4);
    let plan = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
    let mut other = replicas.clone();
    let applied = replicas.apply(Command::Certified { envelope: replicas.certify(&plan, 3) });
    let others = other.apply(Command::Certified { envelope: other.certify(&plan, 4) });
    assert_eq!(heads(&applied), heads(&others));
    let signers = |replicas: &Replicas| {
        let newest: Vec<usize> = replicas.state.newest_plans().map(|newest| newest.signers().len()).collect();
        newest
    };
    assert_eq!((signers(&replicas), signers(&other)), (vec![3], vec![4]));
    let (closed, others) = (replicas.full_window(101, &summary(&[])), other.full_window(101, &summary(&[])));
    assert_eq!(replicas.state.snapshot(&closed), other.state.snapshot(&others));
}

#[test]
fn p1_p2_p3_refused_plans_change_nothing() {
    let mut replicas = Replicas::begun(4);
    let first = plan(&replicas.state, 5, Digest::ZERO, BEGIN);
    replicas.log(&first);
    let next = Plan { prev: digest(&first), seq: Cycle::new(6), ..first.clone() };
    let too_few = replicas.certify(&next, 2);
    let issued = |seconds| Plan { issued_at: at(seconds), ..next.clone() };
    let cases = [
        (first.clone(), PlanRefusal::Duplicate),
        (Plan { prev: Digest::ZERO, ..next.clone() }, PlanRefusal::Superseded),
        (Plan { seq: Cycle::new(5), ..next.clone() }, PlanRefusal::Superseded),
        (Plan { target: target_id("nowhere"), ..next.clone() }, PlanRefusal::UnknownTarget),
        (Plan { policy: Digest::ZERO, ..next.clone() }, PlanRefusal::UnknownPolicy),
        (issued(BEGIN - 21), PlanRefusal::Late),
    ];
    let root = replicas.state.root();
    for (plan, expected) in cases {
        let applied = replicas.log(&plan);
        assert_eq!(plan_refusal(&applied), Some(&expected));
        assert_eq!(applied.changes.len(), 1);
    }
    let uncertified = replicas.apply(Command::Certified { envelope: too_few });
    assert!(matches!(plan_refusal(&uncertified), Some(PlanRefusal::NotCertified(_))));
    let other_epoch = replicas.log(&Plan { epoch: Epoch::new(2), ..next.clone() });
    assert!(matches!(plan_refusal(&other_epoch), Some(PlanRefusal::NotCertified(_))));
    assert_eq!(replicas.state.root(), root);
    assert_eq!(plan_refusal(&replicas.log(&issued(BEGIN - 20))), None, "the limit itself is in time");
}

#[test]
fn p5_plans_are_remembered_for_an_hour() {
    let mut replicas = Replicas::begun(1);
    let plan = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
    replicas.log(&plan);
    let recent = |replicas: &mut Replicas, window| {
        let closed = replicas.full_window(window, &summary(&[]));
        replicas.state.snapshot(&closed).targets[&target_id("pool")].recent_plans.len()
    };
    assert_eq!(recent(&mut replicas, 458), 1, "closed at 4592");
    assert_eq!(recent(&mut replicas, 459), 0, "closed at 4602");
}

#[test]
fn h2_heads_follow_each_slot_and_each_plan_with_rising_numbers() {
    let mut replicas = Replicas::new(1);
    let mut numbers = |seconds| {
        let applied = replicas.tick(0, seconds);
        heads(&applied).iter().map(|head| (head.number, head.time)).collect::<Vec<_>>()
    };
    let head = |number, seconds| vec![(HeadNumber::new(number), at(seconds))];
    assert_eq!(numbers(1003), head(1, 1003), "the first agreed time enters a slot");
    assert_eq!(numbers(1009), []);
    assert_eq!(numbers(1010), head(2, 1010));
    assert_eq!(numbers(1055), head(3, 1055), "one head however many slots have passed");
    let plan = plan(&replicas.state, 1, Digest::ZERO, 1055);
    let logged = replicas.log(&plan);
    assert_eq!(heads(&logged)[0].number, HeadNumber::new(4));
}

#[test]
fn h1_shards_hold_256_targets_in_order() {
    let mut genesis = genesis();
    let model = genesis.targets[1].clone();
    let named = |number| Target { id: target_id(&format!("t{number:04}")), ..model.clone() };
    genesis.policies.clear();
    genesis.targets = (0..600).map(named).collect();
    let mut replicas = Replicas::with(1, genesis);
    let applied = replicas.tick(0, BEGIN);
    let sizes: Vec<_> =
        heads(&applied).iter().map(|head| (head.shard.number(), head.targets.len())).collect();
    assert_eq!(sizes, [(0, 256), (1, 256), (2, 88)]);
    assert_eq!(heads(&applied)[1].targets[0].target, target_id("t0256"));
}

// A: receipts

#[test]
fn a4_a_receipt_tells_the_state_of_its_target_only() {
    let mut replicas = Replicas::begun(4);
    let plan = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
    replicas.log(&plan);
    let applied = replicas.answer(&receipt(&plan, 1));
    assert!(matches!(&applied.changes[..], [Change::ReceiptLogged { .. }]));
    let window = replicas.full_window(100, &summary(&[]));
    let snapshot = replicas.state.snapshot(&window);
    assert_eq!(snapshot.targets[&target_id("pool")].state, DesiredState::Slots { slots: 12 });
    assert_eq!(snapshot.targets[&target_id("dag")].state, DesiredState::Running {});
}

#[test]
fn a4_a_late_receipt_for_an_older_plan_changes_no_newer_state() {
    let mut replicas = Replicas::begun(4);
    let second_agent = operators::agent_number(2);
    replicas.ask(0, 1, operators::bind("pool", &second_agent));
    let first = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
    let slots = |slots| DesiredState::Slots { slots };
    let second = Plan { prev: digest(&first), seq: Cycle::new(2), desired: slots(16), ..first.clone() };
    replicas.log(&first);
    replicas.log(&second);
    let pool = |replicas: &mut Replicas, window| {
        let closed = replicas.full_window(window, &summary(&[]));
        replicas.state.snapshot(&closed).targets[&target_id("pool")].state
    };
    // The newer plan's receipt, the older one's by an agent that was away, and one more of the newer one.
    let rows = [
        (receipt(&second, 1), agent(), slots(16)),
        (receipt(&first, 1), second_agent.clone(), slots(16)),
        (Receipt { after: slots(8), ..receipt(&second, 2) }, second_agent, slots(8)),
    ];
    for (window, (receipt, key, expected)) in (100..).zip(rows) {
        let applied = replicas.apply(Command::Receipt { envelope: signed_receipt(&receipt, &key) });
        assert!(matches!(&applied.changes[..], [Change::ReceiptLogged { .. }]), "{applied:?}");
        assert_eq!(pool(&mut replicas, window), expected, "plan {}", receipt.seq);
    }
}

#[test]
fn a1_a2_a3_refused_receipts_change_nothing() {
    let mut replicas = Replicas::begun(4);
    let plan = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
    replicas.log(&plan);
    let good = receipt(&plan, 7);
    replicas.answer(&good);
    let next = Receipt { counter: 8, ..good.clone() };
    let root = replicas.state.root();
    let why = |applied: &Applied| match &applied.changes[..] {
        [Change::ReceiptRefused { why, .. }] => why.clone(),
        changes => panic!("{changes:?}"),
    };
    let stranger = replicas.keys[0].clone();
    let strangers = Command::Receipt { envelope: signed_receipt(&next, &stranger) };
    assert_eq!(why(&replicas.apply(strangers)), ReceiptRefusal::UnboundKey(stranger.public().id()));
    let nonsense = Command::Receipt { envelope: b"{}".to_vec() };
    assert!(matches!(why(&replicas.apply(nonsense)), ReceiptRefusal::NotVerified(_)));
    let paused = Receipt { after: DesiredState::Paused {}, ..next.clone() };
    assert!(matches!(why(&replicas.answer(&paused)), ReceiptRefusal::NotVerified(_)));
    let cases = [
        (Receipt { target: target_id("nowhere"), ..next.clone() }, ReceiptRefusal::UnknownTarget),
        (
            Receipt { target: target_id("dag"), after: DesiredState::Paused {}, ..next.clone() },
            ReceiptRefusal::UnknownPlan,
        ),
        (Receipt { plan: Digest::ZERO, ..next.clone() }, ReceiptRefusal::UnknownPlan),
        (Receipt { seq: Cycle::new(2), ..next.clone() }, ReceiptRefusal::UnknownPlan),
        (good, ReceiptRefusal::Replayed),
        (Receipt { counter: 0, ..next.clone() }, ReceiptRefusal::Replayed),
    ];
    for (receipt, expected) in cases {
        assert_eq!(why(&replicas.answer(&receipt)), expected);
        assert_eq!(replicas.state.root(), root);
    }
}

#[test]
fn a3_a4_receipts_in_any_order_are_each_logged_once_and_the_newest_tells_the_state() {
    let slots = |slots| DesiredState::Slots { slots };
    let mut replicas = Replicas::begun(4);
    let plan = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
    replicas.log(&plan);
    let numbered = |counter: u64| Receipt {
        after: slots(u32::try_from(counter).expect("it is small")),
        ..receipt(&plan, counter)
    };
    let turn = |applied: &Applied| match &applied.changes[..] {
        [Change::ReceiptLogged { turn, .. }] => Some(*turn),
        [Change::ReceiptRefused { why: ReceiptRefusal::Replayed, .. }] => None,
        changes => panic!("{changes:?}"),
    };
    let (newest, late) = (Some(Turn::Newest), Some(Turn::Late));
    let rows = [
        (7, newest),
        (5, late),
        (5, None),
        (7, None),
        (9, newest),
        (8, late),
        (7, None),
        (6, late),
        (70, newest),
        (6, None),
        (5, None),
        (9, None),
        (10, late),
        (100, newest),
        (36, late),
        (35, None),
        (70, None),
        (300, newest),
        (100, None),
        (299, late),
    ];
    let mut state = 0;
    for (window, (counter, expected)) in (100..).zip(rows) {
        assert_eq!(turn(&replicas.answer(&numbered(counter))), expected, "{counter} in window {window}");
        if expected == newest {
            state = u32::try_from(counter).expect("it is small");
        }
        let closed = replicas.full_window(window, &summary(&[]));
        let known = replicas.state.snapshot(&closed).targets[&target_id("pool")].state;
        assert_eq!(known, slots(state), "after {counter}");
    }
}

#[test]
fn a3_a_receipt_that_two_keys_signed_is_logged_once_whichever_comes_last() {
    let mut replicas = Replicas::begun(4);
    let key = operators::agent_number(2);
    replicas.ask(0, 1, operators::bind("pool", &key));
    let plan = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
    replicas.log(&plan);
    let slots = |slots| DesiredState::Slots { slots };
    let (applied, reverted) =
        (receipt(&plan, 1), Receipt { after: slots(3), outcome: Outcome::Reverted {}, ..receipt(&plan, 2) });
    let ordered = [(&applied, &key), (&reverted, &key), (&applied, &agent()), (&reverted, &agent())];
    let logged: Vec<bool> = ordered
        .into_iter()
        .map(|(receipt, key)| {
            let changes = replicas.apply(Command::Receipt { envelope: signed_receipt(receipt, key) }).changes;
            matches!(changes[..], [Change::ReceiptLogged { .. }])
        })
        .collect();
    assert_eq!(logged, [true, true, false, false]);
    let closed = replicas.full_window(100, &summary(&[]));
    assert_eq!(replicas.state.snapshot(&closed).targets[&target_id("pool")].state, slots(3));
    // The older key's next one counts as before.
    let envelope = signed_receipt(&receipt(&plan, 3), &agent());
    let changes = replicas.apply(Command::Receipt { envelope }).changes;
    assert!(matches!(changes[..], [Change::ReceiptLogged { .. }]), "{changes:?}");
}

// E: effect

#[test]
fn e2_e3_an_effect_is_judged_from_merged_readings_of_an_applied_plan() {
    // Values that the four replicas report, what the agents say, the judgement; leave is 50.
    let (applied, noop, reverted) = (Outcome::Applied {}, Outcome::Noop {}, Outcome::Reverted {});
    let refused = Outcome::Refused { why: Refusal::Precondition };
    let cases: [(_, _, &[&Outcome], _); 12] = [
        ("past leave", [49, 49, 49, 49], &[&applied], Effect::Better),
        ("one liar", [49, 49, 49, 900], &[&applied], Effect::Better),
        ("at leave, where the symptom ends", [50, 50, 50, 50], &[&applied], Effect::Better),
        ("above leave", [51, 51, 51, 51], &[&applied], Effect::Worse),
        ("on both sides", [40, 49, 60, 60], &[&applied], Effect::Inconclusive),
        ("not applied", [49, 49, 49, 49], &[], Effect::Inconclusive),
        ("refused", [49, 49, 49, 49], &[&refused], Effect::Inconclusive),
        ("there already", [49, 49, 49, 49], &[&noop], Effect::Better),
        ("applied, and refused by another look", [49, 49, 49, 49], &[&applied, &refused], Effect::Better),
        ("refused, and applied after all", [49, 49, 49, 49], &[&refused, &applied], Effect::Better),
        ("taken back", [49, 49, 49, 49], &[&applied, &reverted], Effect::Inconclusive),
        ("in force again", [49, 49, 49, 49], &[&applied, &reverted, &noop], Effect::Better),
    ];
    for (name, values, outcomes, expected) in cases {
        let mut replicas = Replicas::begun(4);
        let plan = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
        replicas.log(&plan);
        for (counter, outcome) in (1..).zip(outcomes) {
            replicas.answer(&Receipt { outcome: (*outcome).clone(), ..receipt(&plan, counter) });
        }
        replicas.full_window(100, &summary(&[("queue", 200)]));
        let mut changes = Vec::new();
        for (replica, value) in values.into_iter().enumerate() {
            changes = replicas.report(replica, 101, 1022, &summary(&[("queue", value)])).changes;
        }
        let settled = changes.iter().find_map(|change| {
            let Change::EffectSettled { effect, seq, .. } = change else { return None };
            Some((*seq, *effect))
        });
        assert_eq!(settled, Some((plan.seq, expected)), "{name}");
        let again = replicas.full_window(102, &summary(&[("queue", 200)]));
        assert_eq!(again.cycle, Cycle::new(3));
    }
}

#[test]
fn e1_a_newer_plan_leaves_the_older_ones_effect_inconclusive() {
    let mut replicas = Replicas::begun(4);
    let first = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
    replicas.log(&first);
    replicas.answer(&receipt(&first, 1));
    let second = Plan { prev: digest(&first), seq: Cycle::new(2), ..first.clone() };
    let applied = replicas.log(&second);
    let expected = Change::EffectSettled {
        target: first.target.clone(),
        seq: first.seq,
        plan: digest(&first),
        effect: Effect::Inconclusive,
    };
    assert_eq!(applied.changes[1], expected);
}
