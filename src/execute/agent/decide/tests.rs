//! One row for every rule and what follows when it is broken, then the order of the rules.

use super::{
    DocumentRefusal, Freshness, HeadRefusal, Idle, Situation, Step, Trust, admit_head, judge, newest_head,
};
use crate::{
    execute::agent::state::{Account, AgentState, Aim, Equivocation, HeadMark, Progress},
    knowledge::{
        certified::{CertificateError, Certified},
        fixtures::{
            agent_key, certified_head, certified_plan, head, head_of, plan, replica_keys, seal, target,
            verified_root,
        },
        head::{HEAD_TYPE, Head, Mode},
        plan::{DesiredState, Limits, OnStale, PLAN_TYPE, Plan, Preconditions},
        receipt::{Outcome, Refusal},
    },
    types::{Cycle, Digest, EnvelopeError, Epoch, HeadNumber, Millis, Shard, TargetId, UnixMillis},
};

const DAY: u64 = 86_400_000;
const WALL: UnixMillis = UnixMillis::new(1_002_000);

fn slots(slots: u32) -> DesiredState {
    DesiredState::Slots { slots }
}

fn trust() -> Trust {
    Trust {
        root: verified_root(),
        target: target(),
        shard: Shard::new(0),
        stale_after: Millis::from_secs(30),
        clock_tolerance: Millis::from_secs(30),
    }
}

fn fresh_state() -> AgentState {
    AgentState::new(trust().root.committee().cluster(), target())
}

/// A state in which this plan was taken up and is so far.
fn state_with(plan: &Plan, progress: Progress) -> AgentState {
    let mut state = fresh_state();
    state.raise_head(&certified_head(&head_of(6, Mode::Act, plan)));
    let account =
        Account { outcome: Outcome::Applied {}, before: slots(3), after: slots(6), at: UnixMillis::ZERO };
    state.conclude(certified_plan(plan), progress, account, &agent_key());
    state
}

fn applied() -> Progress {
    Progress::Done { outcome: Outcome::Applied {} }
}

fn envelope_of(plan: &Plan) -> Vec<u8> {
    certified_plan(plan).envelope().to_json()
}

struct Case {
    state: AgentState,
    head: Option<Head>,
    plan: Option<Vec<u8>>,
    observed: Option<DesiredState>,
    monotonic: Millis,
    wall: UnixMillis,
    trust: Trust,
}

/// Everything in order: plan 37 raises the pool from 3 slots to 6.
fn case() -> Case {
    Case {
        state: fresh_state(),
        head: Some(head(7, Mode::Act)),
        plan: Some(envelope_of(&plan())),
        observed: Some(slots(3)),
        monotonic: Millis::from_secs(30),
        wall: WALL,
        trust: trust(),
    }
}

/// The same for another plan, which the head names.
fn case_of(plan: &Plan) -> Case {
    Case { head: Some(head_of(7, Mode::Act, plan)), plan: Some(envelope_of(plan)), ..case() }
}

impl Case {
    fn step(self) -> Step {
        let head = self.head.map(|head| certified_head(&head));
        let freshness = Freshness { newest: None, risen_at: Millis::ZERO };
        let now = Situation {
            head: head.as_ref(),
            plan: self.plan.as_deref(),
            observed: self.observed,
            freshness,
            monotonic: self.monotonic,
            wall: self.wall,
        };
        judge(&self.trust, &self.state, &now)
    }
}

fn refused(plan: &Plan, why: Refusal) -> Step {
    Step::Refuse { plan: Box::new(certified_plan(plan)), why }
}

#[test]
fn a_plan_that_passes_every_rule_is_applied() {
    let expected =
        Step::Apply { plan: Box::new(certified_plan(&plan())), before: slots(3), aim: Aim::Desired };
    assert_eq!(case().step(), expected);
}

#[test]
fn what_is_missing_is_asked_for_one_by_one() {
    let fetch = Step::Fetch { seq: Cycle::new(37), digest: Digest::of(&plan().to_bytes()) };
    assert_eq!(Case { plan: None, observed: None, ..case() }.step(), fetch);
    let read = Step::Read(Box::new(certified_plan(&plan())));
    assert_eq!(Case { observed: None, ..case() }.step(), read);
}

#[test]
fn a_target_that_is_there_already_needs_only_the_receipt() {
    let expected = Step::AlreadyThere { plan: Box::new(certified_plan(&plan())), state: slots(6) };
    assert_eq!(Case { observed: Some(slots(6)), ..case() }.step(), expected);
}

#[test]
fn rule_1_a_head_that_is_not_certified_for_here_is_not_admitted() {
    let admit = |envelope: &[u8]| admit_head(&trust(), None, envelope);
    let sealed = |head: &Head, signers: usize| seal(HEAD_TYPE, head.to_bytes(), &replica_keys()[..signers]);
    let good = head(7, Mode::Act);
    assert!(admit(&sealed(&good, 3)).is_ok());
    assert_eq!(
        admit(&sealed(&good, 2)),
        Err(CertificateError::from(EnvelopeError::TooFewSignatures { got: 2, needed: 3 }).into())
    );
    assert!(matches!(admit(b"{"), Err(HeadRefusal::NotCertified(_))));
    let as_plan = seal(PLAN_TYPE, good.to_bytes(), &replica_keys());
    assert!(matches!(admit(&as_plan), Err(HeadRefusal::NotCertified(_))));
    for other in
        [Head { cluster: Digest::ZERO, ..good.clone() }, Head { epoch: Epoch::new(2), ..good.clone() }]
    {
        assert!(matches!(admit(&sealed(&other, 3)), Err(HeadRefusal::NotCertified(_))));
    }
    let other = Head { shard: Shard::new(1), ..good.clone() };
    assert!(matches!(admit(&sealed(&other, 3)), Err(HeadRefusal::OtherShard { .. })));
    let twice = [good.targets.clone(), good.targets.clone()].concat();
    for targets in [Vec::new(), twice] {
        let other = Head { targets, ..good.clone() };
        assert_eq!(admit(&sealed(&other, 3)), Err(HeadRefusal::NotNamed(target())));
    }
}

#[test]
fn rule_2_heads_never_go_back_and_never_differ_under_one_number() {
    let newest = HeadMark::of(&certified_head(&head(7, Mode::Act)));
    let admit = |head: &Head| admit_head(&trust(), Some(&newest), &certified_head(head).envelope().to_json());
    assert!(admit(&head(8, Mode::Act)).is_ok());
    assert!(admit(&head(7, Mode::Act)).is_ok());
    let (got, known) = (HeadNumber::new(6), HeadNumber::new(7));
    assert_eq!(admit(&head(6, Mode::Act)), Err(HeadRefusal::GoneBack { got, newest: known }));
    let other = certified_head(&head(7, Mode::Hold)).envelope().clone();
    let proof = Box::new(Equivocation { kept: newest.envelope.clone(), other });
    assert_eq!(admit(&head(7, Mode::Hold)), Err(HeadRefusal::Equivocation { number: known, proof }));
}

#[test]
fn the_newest_of_several_replicas_heads_is_taken() {
    let heads = |numbers: &[(u64, Mode)]| {
        newest_head(numbers.iter().map(|(number, mode)| certified_head(&head(*number, *mode))).collect())
    };
    let number = |heads: Result<Option<Certified<Head>>, _>| {
        heads.map(|head| head.map(|head| head.document().number.number())).ok()
    };
    assert_eq!(number(heads(&[])), Some(None));
    assert_eq!(number(heads(&[(5, Mode::Act), (7, Mode::Act), (6, Mode::Hold)])), Some(Some(7)));
    assert_eq!(number(heads(&[(7, Mode::Act), (7, Mode::Act)])), Some(Some(7)));
    assert_eq!(number(heads(&[(7, Mode::Act), (7, Mode::Hold)])), None);
}

#[test]
fn rule_3_stale_heads_bring_nothing_new() {
    let late = Millis::new(30_001);
    assert_eq!(Case { monotonic: late, ..case() }.step(), Step::Wait(Idle::Stale));
    assert_eq!(Case { monotonic: late, head: None, ..case() }.step(), Step::Wait(Idle::Stale));
    assert_eq!(Case { head: None, ..case() }.step(), Step::Wait(Idle::NoHead));
}

#[test]
fn rule_3_a_stale_head_takes_an_applied_plan_back_only_when_the_plan_says_so() {
    let holding = Plan { on_stale: OnStale::Hold, ..plan() };
    let late = |state| Case { state, monotonic: Millis::new(30_001), observed: Some(slots(6)), ..case() };
    assert_eq!(late(state_with(&holding, applied())).step(), Step::Wait(Idle::Stale));
    let back = Step::Apply { plan: Box::new(certified_plan(&plan())), before: slots(6), aim: Aim::Rollback };
    let noop = Progress::Done { outcome: Outcome::Noop {} };
    for progress in [applied(), noop] {
        assert_eq!(late(state_with(&plan(), progress.clone())).step(), back);
        let unread = Case { observed: None, ..late(state_with(&plan(), progress)) };
        assert_eq!(unread.step(), Step::Read(Box::new(certified_plan(&plan()))));
    }
    let found = |state| Case { observed: Some(state), ..late(state_with(&plan(), applied())) }.step();
    let already = Step::AlreadyBack { plan: Box::new(certified_plan(&plan())), state: slots(3) };
    assert_eq!(found(slots(3)), already);
    assert_eq!(found(slots(9)), refused(&plan(), Refusal::Precondition), "somebody has moved the target on");
    let refused = Progress::Done { outcome: Outcome::Refused { why: Refusal::Expired } };
    let reverted = Progress::Done { outcome: Outcome::Reverted {} };
    for progress in [refused, reverted, Progress::Interrupted {}, Progress::RolledBack {}] {
        assert_eq!(late(state_with(&plan(), progress)).step(), Step::Wait(Idle::Stale));
    }
}

#[test]
fn rule_3_a_target_that_the_newest_head_holds_is_left_as_it_is_while_heads_are_stale() {
    let back = Step::Apply { plan: Box::new(certified_plan(&plan())), before: slots(6), aim: Aim::Rollback };
    for (mode, expected) in [
        (Mode::Hold, Step::Wait(Idle::StaleOnHold)),
        (Mode::Revoked, Step::Wait(Idle::StaleOnHold)),
        (Mode::Act, back),
    ] {
        let mut state = state_with(&plan(), applied());
        state.raise_head(&certified_head(&head(8, mode)));
        // The same after a restart, before any head has come.
        for head in [Some(head(8, mode)), None] {
            let (state, observed) = (state.clone(), Some(slots(6)));
            let late = Case { state, head, observed, monotonic: Millis::new(30_001), ..case() };
            assert_eq!(late.step(), expected, "{mode:?}");
        }
    }
}

#[test]
fn rule_3_a_fresh_head_puts_a_plan_in_force_again_that_was_taken_back() {
    let taken_back = || state_with(&plan(), Progress::RolledBack {});
    let again = Step::Apply { plan: Box::new(certified_plan(&plan())), before: slots(3), aim: Aim::Desired };
    assert_eq!(Case { state: taken_back(), plan: None, ..case() }.step(), again);
    let expired = Plan { expires_at: UnixMillis::new(1_001_000), ..plan() };
    let state = state_with(&expired, Progress::RolledBack {});
    assert_eq!(Case { state, ..case_of(&expired) }.step(), Step::Wait(Idle::ExpiredSince));
    for (mode, idle) in [(Mode::Hold, Idle::Hold), (Mode::Revoked, Idle::Revoked)] {
        let held = Case { state: taken_back(), head: Some(head(8, mode)), ..case() };
        assert_eq!(held.step(), Step::Wait(idle));
    }
    let there = Case { state: taken_back(), observed: Some(slots(6)), ..case() };
    assert_eq!(there.step(), Step::AlreadyThere { plan: Box::new(certified_plan(&plan())), state: slots(6) });
    let moved = Case { state: taken_back(), observed: Some(slots(9)), ..case() };
    assert_eq!(moved.step(), refused(&plan(), Refusal::Precondition));
    let newer = Plan { seq: Cycle::new(38), ..plan() };
    let superseded = Case { state: taken_back(), ..case_of(&newer) };
    let next = Step::Apply { plan: Box::new(certified_plan(&newer)), before: slots(3), aim: Aim::Desired };
    assert_eq!(superseded.step(), next);
}

#[test]
fn rule_3_a_plan_that_holds_is_up_to_date_when_heads_are_fresh_again() {
    let holding = Plan { on_stale: OnStale::Hold, ..plan() };
    let kept =
        || Case { state: state_with(&holding, applied()), observed: Some(slots(6)), ..case_of(&holding) };
    assert_eq!(Case { monotonic: Millis::new(30_001), ..kept() }.step(), Step::Wait(Idle::Stale));
    assert_eq!(kept().step(), Step::Wait(Idle::UpToDate));
}

#[test]
fn rule_4_a_clock_far_from_the_quorums_applies_nothing_new() {
    for (wall, expected) in [
        (1_031_000, None),
        (1_031_001, Some(Idle::ClockFault)),
        (971_000, None),
        (970_999, Some(Idle::ClockFault)),
        (1_001_000 + DAY, Some(Idle::ClockFault)),
        (0, Some(Idle::ClockFault)),
        (u64::MAX, Some(Idle::ClockFault)),
    ] {
        let step = Case { wall: UnixMillis::new(wall), ..case() }.step();
        assert_eq!(step == Step::Wait(Idle::ClockFault), expected.is_some(), "{wall}: {step:?}");
    }
    let mut late = head(7, Mode::Act);
    late.time = UnixMillis::new(4_000_000_000_001);
    let expired = Case { head: Some(late), wall: UnixMillis::new(4_000_000_000_000), ..case() };
    assert_eq!(expired.step(), Step::Wait(Idle::RootExpired));
}

#[test]
fn rule_5_sequence_numbers_never_go_back_and_never_stand_for_two_plans() {
    let newer = Plan { seq: Cycle::new(40), ..plan() };
    let step = Case { state: state_with(&newer, applied()), ..case() }.step();
    let (got, newest) = (Cycle::new(37), Cycle::new(40));
    assert_eq!(step, Step::Discard(DocumentRefusal::SequenceGoneBack { got, newest }));

    let other = Plan { desired: slots(5), ..plan() };
    let proof = Equivocation {
        kept: certified_plan(&other).envelope().clone(),
        other: certified_head(&head(7, Mode::Act)).envelope().clone(),
    };
    let contradicted = Case { state: state_with(&other, applied()), ..case() };
    assert_eq!(contradicted.step(), Step::Stop(Box::new(proof)));
    let refused = Progress::Done { outcome: Outcome::Refused { why: Refusal::Precondition } };
    for progress in [applied(), refused] {
        let settled = Case { state: state_with(&plan(), progress), ..case() };
        assert_eq!(settled.step(), Step::Wait(Idle::UpToDate));
    }
    let older = Plan { seq: Cycle::new(36), desired: slots(4), ..plan() };
    let next = Case { state: state_with(&older, applied()), ..case() };
    assert!(matches!(next.step(), Step::Apply { .. }));
    let interrupted = Case { state: state_with(&plan(), Progress::Interrupted {}), ..case() };
    assert!(matches!(interrupted.step(), Step::Apply { .. }));
}

#[test]
fn rule_5_a_target_without_a_plan_needs_nothing() {
    let mut empty = head(7, Mode::Act);
    empty.targets[0].seq = Cycle::ZERO;
    empty.targets[0].plan = Digest::ZERO;
    assert_eq!(Case { head: Some(empty), ..case() }.step(), Step::Wait(Idle::NoPlan));
}

#[test]
fn rule_6_hold_and_revoked_apply_nothing_new() {
    assert_eq!(Case { head: Some(head(7, Mode::Hold)), ..case() }.step(), Step::Wait(Idle::Hold));
    assert_eq!(Case { head: Some(head(7, Mode::Revoked)), ..case() }.step(), Step::Wait(Idle::Revoked));
}

#[test]
fn rule_7_only_the_heads_own_plan_is_looked_at() {
    let other = Plan { desired: slots(5), ..plan() };
    let step = Case { plan: Some(envelope_of(&other)), ..case() }.step();
    assert!(matches!(step, Step::Discard(DocumentRefusal::OtherPlan { .. })), "{step:?}");
    let unsigned = seal(PLAN_TYPE, plan().to_bytes(), &replica_keys()[..2]);
    let step = Case { plan: Some(unsigned), ..case() }.step();
    assert!(matches!(step, Step::Discard(DocumentRefusal::NotCertified(_))), "{step:?}");
}

#[test]
fn rule_7_a_plan_that_contradicts_the_head_or_itself_is_discarded() {
    let other = TargetId::new("other").expect("a valid name");
    let elsewhere = Plan { target: other, ..plan() };
    let mut misled = head_of(7, Mode::Act, &elsewhere);
    misled.targets[0].target = target();
    let step = Case { head: Some(misled), plan: Some(envelope_of(&elsewhere)), ..case() }.step();
    assert_eq!(step, Step::Discard(DocumentRefusal::Fields("it is for another target")));

    let mut misled = head(7, Mode::Act);
    misled.targets[0].seq = Cycle::new(38);
    let step = Case { head: Some(misled), ..case() }.step();
    assert_eq!(step, Step::Discard(DocumentRefusal::Fields("its sequence number is not the head's")));

    let early = Plan { not_before: UnixMillis::new(999_999), ..plan() };
    let backwards = Plan { expires_at: UnixMillis::new(999_999), ..plan() };
    for plan in [early, backwards] {
        let step = case_of(&plan).step();
        assert!(matches!(step, Step::Discard(DocumentRefusal::Fields(_))), "{step:?}");
    }
}

#[test]
fn rule_7_a_plan_keeps_the_limits_it_carries() {
    let bounded = |min, max, max_step| Limits::Slots { min, max, max_step };
    let broken = [
        Plan { limits: bounded(1, 5, 4), ..plan() },
        Plan { limits: bounded(7, 12, 4), ..plan() },
        Plan { limits: bounded(1, 12, 2), ..plan() },
        Plan { limits: bounded(1, 12, 4), rollback: slots(13), ..plan() },
        Plan { limits: Limits::Switch {}, ..plan() },
        Plan { desired: DesiredState::Paused {}, ..plan() },
        Plan { rollback: DesiredState::Running {}, ..plan() },
        Plan { preconditions: Preconditions { state: DesiredState::Running {} }, ..plan() },
    ];
    for plan in broken {
        assert_eq!(case_of(&plan).step(), refused(&plan, Refusal::Limits), "{plan:?}");
    }
    let switch = Plan {
        limits: Limits::Switch {},
        preconditions: Preconditions { state: DesiredState::Running {} },
        desired: DesiredState::Paused {},
        rollback: DesiredState::Running {},
        ..plan()
    };
    let step = Case { observed: Some(DesiredState::Running {}), ..case_of(&switch) }.step();
    assert!(matches!(step, Step::Apply { .. }), "{step:?}");
    let span =
        |after, until| DesiredState::Retried { after: UnixMillis::new(after), until: UnixMillis::new(until) };
    let retry = |from, to| Plan {
        limits: Limits::Tasks { most: 20, within: Millis::new(100) },
        preconditions: Preconditions { state: from },
        desired: to,
        rollback: from,
        ..plan()
    };
    let step = Case { observed: Some(span(0, 10)), ..case_of(&retry(span(0, 10), span(10, 110))) }.step();
    assert!(matches!(step, Step::Apply { .. }), "{step:?}");
    let broken = [
        retry(span(0, 10), span(9, 100)),
        retry(span(0, 10), span(10, 111)),
        retry(span(0, 10), span(20, 20)),
        retry(slots(3), span(10, 110)),
        retry(span(0, 10), slots(3)),
        Plan { rollback: span(0, 9), ..retry(span(0, 10), span(10, 110)) },
    ];
    for plan in broken {
        assert_eq!(case_of(&plan).step(), refused(&plan, Refusal::Limits), "{plan:?}");
    }
    // A pool that was outside its bounds before may be put back there.
    let from_outside = Plan { limits: bounded(4, 12, 4), ..plan() };
    assert!(matches!(case_of(&from_outside).step(), Step::Apply { .. }));
}

#[test]
fn rule_7_a_plan_has_its_time_by_both_clocks() {
    let at = |not_before, expires_at| Plan {
        not_before: UnixMillis::new(not_before),
        expires_at: UnixMillis::new(expires_at),
        ..plan()
    };
    let early = at(1_001_001, 1_900_000);
    assert_eq!(case_of(&early).step(), Step::Wait(Idle::TooEarly));
    assert!(matches!(case_of(&at(1_001_000, 1_002_000)).step(), Step::Apply { .. }));
    let by_the_wall = at(1_000_000, 1_001_999);
    assert_eq!(case_of(&by_the_wall).step(), refused(&by_the_wall, Refusal::Expired));
    let by_the_head = at(1_000_000, 1_000_999);
    let slow = Case { wall: UnixMillis::new(1_000_000), ..case_of(&by_the_head) };
    assert_eq!(slow.step(), refused(&by_the_head, Refusal::Expired));
}

#[test]
fn rule_8_a_target_in_another_state_than_the_plan_was_decided_on_is_left_alone() {
    let step = Case { observed: Some(slots(4)), ..case() }.step();
    assert_eq!(step, refused(&plan(), Refusal::Precondition));
}

#[test]
fn an_unsettled_change_and_a_proven_contradiction_come_before_everything() {
    let mut state = fresh_state();
    state.begin(certified_plan(&plan()), slots(3), Aim::Desired);
    assert_eq!(Case { state, ..case() }.step(), Step::Wait(Idle::Unsettled));
    let mut state = fresh_state();
    let envelope = certified_plan(&plan()).envelope().clone();
    state.stop(Equivocation { kept: envelope.clone(), other: envelope });
    assert_eq!(Case { state, ..case() }.step(), Step::Wait(Idle::Stopped));
}

#[test]
fn the_rules_are_checked_in_their_order() {
    // Everything is wrong; each row mends what the row before found.
    let expired = Plan {
        not_before: UnixMillis::new(2_000_000),
        expires_at: UnixMillis::new(2_000_001),
        limits: Limits::Switch {},
        ..plan()
    };
    let sane = Plan { limits: plan().limits, ..expired.clone() };
    let wrong = || Case {
        head: Some(head_of(7, Mode::Hold, &expired)),
        plan: Some(envelope_of(&plan())),
        observed: Some(slots(9)),
        monotonic: Millis::new(30_001),
        wall: UnixMillis::new(5_000_000),
        ..case()
    };
    let fresh = || Case { monotonic: Millis::ZERO, ..wrong() };
    let on_time = || Case { wall: WALL, ..fresh() };
    let acting = || Case { head: Some(head_of(7, Mode::Act, &expired)), ..on_time() };
    let right_plan = || Case { plan: Some(envelope_of(&expired)), ..acting() };
    let within_limits = || Case { head: None, ..right_plan() };
    assert_eq!(wrong().step(), Step::Wait(Idle::Stale));
    assert_eq!(fresh().step(), Step::Wait(Idle::ClockFault));
    assert_eq!(on_time().step(), Step::Wait(Idle::Hold));
    assert!(matches!(acting().step(), Step::Discard(DocumentRefusal::OtherPlan { .. })));
    assert_eq!(right_plan().step(), refused(&expired, Refusal::Limits));
    let named =
        Case { head: Some(head_of(7, Mode::Act, &sane)), plan: Some(envelope_of(&sane)), ..within_limits() };
    assert_eq!(named.step(), Step::Wait(Idle::TooEarly));
}

#[test]
fn freshness_follows_the_number_and_not_the_arrival() {
    let mut freshness = Freshness::start(None, Millis::ZERO);
    let limit = Millis::from_secs(30);
    freshness.notice(&certified_head(&head(7, Mode::Act)), Millis::from_secs(10));
    freshness.notice(&certified_head(&head(7, Mode::Act)), Millis::from_secs(39));
    assert!(!freshness.is_stale(limit, Millis::from_secs(40)));
    assert!(freshness.is_stale(limit, Millis::new(40_001)));
    freshness.notice(&certified_head(&head(8, Mode::Act)), Millis::from_secs(50));
    assert!(!freshness.is_stale(limit, Millis::from_secs(80)));
    let mark = HeadMark::of(&certified_head(&head(9, Mode::Act)));
    let mut restarted = Freshness::start(Some(&mark), Millis::ZERO);
    restarted.notice(&certified_head(&head(9, Mode::Act)), Millis::from_secs(29));
    assert!(restarted.is_stale(limit, Millis::new(30_001)), "a known head is no news after a restart");
}
