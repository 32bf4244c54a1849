//! The rules O1 to O12: what operators may ask for, and what stops, resumes and bindings do to heads, plans
//! and receipts.

use super::*;
use crate::{
    knowledge::{
        fixtures::{operator_keys, owner_keys},
        fold::{MAX_COUNTER_JUMP, OperatorRefusal},
        operator_request::{All, OperatorRequest, Request, Selection, StopMode},
    },
    types::{KeyId, PublicKey, Shard, UnixMillis},
};

const ANA: usize = 0;
const BEA: usize = 1;
const BOB: usize = 2;

fn these(names: &[&str]) -> Selection {
    Selection::These(names.iter().map(|name| target_id(name)).collect())
}

pub(super) fn stop(names: &[&str]) -> Request {
    Request::Stop { targets: these(names), mode: StopMode::Hold }
}

pub(super) fn revoke(names: &[&str]) -> Request {
    Request::Stop { targets: these(names), mode: StopMode::Revoked }
}

/// It has seen whatever was ordered before it.
pub(super) fn resume(names: &[&str]) -> Request {
    Request::Resume {
        targets: these(names),
        seen: seen(&[(ANA, u64::MAX), (BEA, u64::MAX), (BOB, u64::MAX)]),
    }
}

fn seen(stops: &[(usize, u64)]) -> BTreeMap<KeyId, u64> {
    stops.iter().map(|(operator, counter)| (operator_keys()[*operator].public().id(), *counter)).collect()
}

fn resume_all() -> Request {
    let Request::Resume { seen, .. } = resume(&[]) else { unreachable!("it is a resume") };
    Request::Resume { targets: Selection::All(All::All), seen }
}

fn raw(key: &SecretKey) -> Digest {
    Digest::from_bytes(key.public().to_bytes())
}

pub(super) fn bind(target: &str, key: &SecretKey) -> Request {
    Request::BindAgent { target: target_id(target), ed25519: raw(key), replaces: None }
}

pub(super) fn unbind(target: &str, key: &SecretKey) -> Request {
    Request::UnbindAgent { target: target_id(target), keyid: key.public().id() }
}

pub(super) fn agent_number(number: u64) -> SecretKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_seed(&seed)
}

impl Replicas {
    fn signed(&self, request: Request, counter: u64) -> OperatorRequest {
        let committee = self.state.committee();
        let expires_at = UnixMillis::new(4_000_000_000_000);
        OperatorRequest {
            v: 1,
            cluster: committee.cluster(),
            epoch: committee.epoch(),
            counter,
            expires_at,
            request,
        }
    }

    pub(super) fn ask(&mut self, operator: usize, counter: u64, request: Request) -> Applied {
        let envelope = self.signed(request, counter).sign(&operator_keys()[operator]).to_json();
        self.apply(Command::OperatorRequest { envelope })
    }

    /// The request takes effect.
    fn order(&mut self, operator: usize, counter: u64, request: Request) -> Applied {
        let applied = self.ask(operator, counter, request);
        assert_eq!(refused(&applied), None);
        applied
    }

    fn modes(&self) -> [Mode; 2] {
        [0, 1].map(|place| self.state.operations().target(place).expect("it is in the genesis").mode())
    }

    /// Windows close until the cycle has this number.
    fn cycles_until(&mut self, cycle: u64) {
        while self.state.cycle().number() < cycle {
            let window = 100 + self.state.cycle().number();
            self.full_window(window, &summary(&[("queue", 1)]));
        }
    }
}

fn refused(applied: &Applied) -> Option<OperatorRefusal> {
    applied.changes.iter().find_map(|change| {
        let Change::OperatorRequestRefused { why, .. } = change else { return None };
        Some(why.clone())
    })
}

fn plan_refusal(applied: &Applied) -> Option<PlanRefusal> {
    applied.changes.iter().find_map(|change| {
        let Change::PlanRefused { why, .. } = change else { return None };
        Some(why.clone())
    })
}

fn receipt_refusal(applied: &Applied) -> Option<ReceiptRefusal> {
    applied.changes.iter().find_map(|change| {
        let Change::ReceiptRefused { why, .. } = change else { return None };
        Some(why.clone())
    })
}

#[test]
fn o1_what_no_operator_signed_for_this_cluster_and_epoch_changes_nothing() {
    let mut replicas = Replicas::begun(4);
    let root = replicas.state.root();
    let sealed = |request: &OperatorRequest, key: &SecretKey| request.sign(key).to_json();
    let good = replicas.signed(stop(&["pool"]), 1);
    let ana = &operator_keys()[ANA];
    let cases = [
        ("a stranger's", sealed(&good, &agent())),
        ("a replica's", sealed(&good, &replicas.keys[0])),
        ("another cluster's", sealed(&OperatorRequest { cluster: Digest::of(b"x"), ..good.clone() }, ana)),
        ("another epoch's", sealed(&OperatorRequest { epoch: Epoch::new(2), ..good.clone() }, ana)),
        ("another version", sealed(&OperatorRequest { v: 2, ..good }, ana)),
        ("no JSON", b"{".to_vec()),
    ];
    for (what, envelope) in cases {
        let applied = replicas.apply(Command::OperatorRequest { envelope });
        assert!(matches!(refused(&applied), Some(OperatorRefusal::NotVerified(_))), "{what}: {applied:?}");
        assert_eq!(applied.changes.len(), 1, "{what}");
        assert_eq!(replicas.state.root(), root, "{what}");
    }
}

#[test]
fn o2_a_counter_that_is_not_above_the_last_one_is_refused_and_a_failed_request_is_never_played_again() {
    let mut replicas = Replicas::begun(4);
    replicas.order(ANA, 5, stop(&["pool"]));
    let replayed = |got, last| Some(OperatorRefusal::OldCounter { got, last });
    assert_eq!(refused(&replicas.ask(ANA, 5, resume(&["pool"]))), replayed(5, 5));
    assert_eq!(refused(&replicas.ask(ANA, 4, resume(&["pool"]))), replayed(4, 5));
    let duplicate = |took_effect| Some(OperatorRefusal::Duplicate { took_effect });
    assert_eq!(refused(&replicas.ask(ANA, 5, stop(&["pool"]))), duplicate(true));
    replicas.order(ANA, 6, resume(&["pool"]));
    // A resume that fails because nothing is stopped counts: it does not wait for the next stop.
    let not_stopped = Some(OperatorRefusal::NotStopped(target_id("pool")));
    assert_eq!(refused(&replicas.ask(ANA, 7, resume(&["pool"]))), not_stopped);
    replicas.order(BEA, 1, stop(&["pool"]));
    assert_eq!(refused(&replicas.ask(ANA, 7, resume(&["pool"]))), duplicate(false));
    assert_eq!(replicas.modes()[1], Mode::Hold, "each key has a counter of its own");
    assert_eq!(refused(&replicas.ask(BOB, 0, stop(&["pool"]))), replayed(0, 0));
}

#[test]
fn o2_no_counter_leaves_its_key_without_a_larger_one() {
    let mut replicas = Replicas::begun(4);
    let ahead = |got, most| Some(OperatorRefusal::CounterAhead { got, most });
    assert_eq!(refused(&replicas.ask(ANA, u64::MAX, stop(&["pool"]))), ahead(u64::MAX, MAX_COUNTER_JUMP));
    let far = MAX_COUNTER_JUMP + 1;
    assert_eq!(refused(&replicas.ask(ANA, far, stop(&["pool"]))), ahead(far, MAX_COUNTER_JUMP));
    assert_eq!(replicas.modes()[1], Mode::Act, "neither its counter nor its effect was taken");
    replicas.order(ANA, MAX_COUNTER_JUMP, stop(&["pool"]));
    replicas.order(ANA, 2 * MAX_COUNTER_JUMP, revoke(&["pool"]));
    let most = 3 * MAX_COUNTER_JUMP;
    assert_eq!(refused(&replicas.ask(ANA, most + 1, stop(&["pool"]))), ahead(most + 1, most));
}

#[test]
fn o2_a_request_that_was_withheld_until_after_its_end_lifts_no_later_stop() {
    let mut replicas = Replicas::begun(4);
    let now = replicas.state.now().expect("four replicas have said what time it is");
    let ends = |at| OperatorRequest { expires_at: at, ..replicas.signed(resume(&["pool"]), 5) };
    let [withheld, in_time] = [ends(UnixMillis::new(now.as_millis() - 1)), ends(now)];
    let seal = |request: &OperatorRequest| request.sign(&operator_keys()[ANA]).to_json();
    replicas.order(BEA, 1, stop(&["pool"]));
    let applied = replicas.apply(Command::OperatorRequest { envelope: seal(&withheld) });
    assert_eq!(refused(&applied), Some(OperatorRefusal::Expired(withheld.expires_at)));
    assert_eq!(replicas.modes()[1], Mode::Hold);
    let applied = replicas.apply(Command::OperatorRequest { envelope: seal(&in_time) });
    assert_eq!(refused(&applied), None, "the refused one did not take the counter");
}

#[test]
fn o3_a_request_takes_effect_for_all_its_targets_or_for_none() {
    let mut replicas = Replicas::begun(4);
    let unknown = Some(OperatorRefusal::UnknownTarget(target_id("none")));
    assert_eq!(refused(&replicas.ask(ANA, 1, stop(&["none", "pool"]))), unknown);
    assert_eq!(replicas.modes(), [Mode::Act, Mode::Act]);
    replicas.order(BEA, 1, Request::Stop { targets: Selection::All(All::All), mode: StopMode::Hold });
    assert_eq!(replicas.modes(), [Mode::Hold, Mode::Hold]);
    // Ana may resume the pool of her owner, not the dag: the one that is named holds up the other.
    let both = refused(&replicas.ask(ANA, 2, resume(&["dag", "pool"])));
    assert!(matches!(both, Some(OperatorRefusal::NotPermitted { .. })), "{both:?}");
    assert_eq!(replicas.modes(), [Mode::Hold, Mode::Hold]);
    replicas.order(ANA, 3, resume_all());
    assert_eq!(replicas.modes(), [Mode::Hold, Mode::Act], "all that she may");
    let nothing = refused(&replicas.ask(ANA, 4, resume_all()));
    assert_eq!(nothing, Some(OperatorRefusal::NothingToResume("ana".to_owned())));
}

#[test]
fn o4_and_o5_each_operators_stop_stands_until_it_or_the_owner_lifts_it() {
    // Whose stops, who resumes, whether that passes, and whether the pool of owner-0 is stopped after it.
    let cases: [(&[usize], usize, bool, bool); 8] = [
        (&[ANA], ANA, true, false),
        (&[BEA], BEA, true, false),
        (&[BEA], ANA, true, false),
        (&[ANA], BEA, false, true),
        (&[BEA], BOB, false, true),
        (&[ANA, BEA], ANA, true, false),
        (&[ANA, BEA], BEA, true, true),
        (&[BEA, BOB], BEA, true, true),
    ];
    for (stoppers, resumes, passes, stopped) in cases {
        let mut replicas = Replicas::begun(4);
        for operator in stoppers {
            replicas.order(*operator, 1, stop(&["pool"]));
        }
        let why = refused(&replicas.ask(resumes, 2, resume(&["pool"])));
        let what = format!("{stoppers:?} stop, {resumes} resumes: {why:?}");
        assert_eq!(why.is_none(), passes, "{what}");
        assert!(why.is_none_or(|why| matches!(why, OperatorRefusal::NotPermitted { .. })), "{what}");
        let pool = replicas.state.operations().target(1).expect("it is there");
        assert_eq!(pool.is_stopped(), stopped, "{what}");
        assert_eq!(pool.mode() == Mode::Hold, stopped, "{what}");
    }
}

#[test]
fn o5_a_resume_lifts_no_stop_that_its_signer_has_not_seen() {
    // The pool of owner-0 is stopped in this order. Who resumes it, having seen what; whose stops stand then, or none
    // when the resume is refused.
    type Stops<'a> = &'a [(usize, u64)];
    let cases: [(Stops<'_>, usize, Stops<'_>, Option<&[usize]>); 9] = [
        (&[(ANA, 3), (BEA, 5)], ANA, &[(ANA, 3), (BEA, 5)], Some(&[])),
        // Bea's stop came later than what was seen, or was given anew.
        (&[(ANA, 3), (BEA, 5)], ANA, &[(ANA, 3)], Some(&[BEA])),
        (&[(ANA, 3), (BEA, 5)], ANA, &[(ANA, 3), (BEA, 4)], Some(&[BEA])),
        (&[(BEA, 5), (ANA, 3), (BEA, 6)], ANA, &[(ANA, 3), (BEA, 5)], Some(&[BEA])),
        (&[(BEA, 5)], ANA, &[(BEA, 4)], None),
        (&[(BEA, 5)], ANA, &[(ANA, 9), (BOB, 9)], None),
        // Her own later stop, too: another machine with her key may have sent it.
        (&[(BEA, 5), (BEA, 7)], BEA, &[(BEA, 5)], None),
        (&[(BEA, 5), (BOB, 1)], BEA, &[(BEA, 5)], Some(&[BOB])),
        // To have seen a stop gives no right to lift it.
        (&[(BEA, 5), (BOB, 1)], BEA, &[(BEA, 5), (BOB, 1)], Some(&[BOB])),
    ];
    for (stops, operator, saw, expected) in cases {
        let what = format!("{stops:?}, {operator} resumes and saw {saw:?}");
        let mut replicas = Replicas::begun(4);
        for (stopper, counter) in stops {
            replicas.order(*stopper, *counter, stop(&["pool"]));
        }
        let stands = |replicas: &Replicas| -> BTreeSet<KeyId> {
            let pool = replicas.state.operations().target(1).expect("it is there");
            pool.stops().map(|(by, _)| by).collect()
        };
        let before = stands(&replicas);
        let request = Request::Resume { targets: these(&["pool"]), seen: seen(saw) };
        let why = refused(&replicas.ask(operator, 8, request));
        match expected {
            Some(left) => {
                assert_eq!(why, None, "{what}");
                let left = left.iter().map(|operator| operator_keys()[*operator].public().id());
                assert_eq!(stands(&replicas), left.collect(), "{what}");
            }
            None => {
                assert!(matches!(why, Some(OperatorRefusal::StoppedLater { .. })), "{what}: {why:?}");
                assert_eq!(stands(&replicas), before, "{what}");
            }
        }
    }
}

#[test]
fn o5_a_resume_of_all_targets_leaves_those_that_were_stopped_later() {
    let mut replicas = Replicas::begun(4);
    replicas.order(BEA, 1, stop(&["pool"]));
    let all = |counter| Request::Resume { targets: Selection::All(All::All), seen: seen(&[(BEA, counter)]) };
    replicas.order(BEA, 2, stop(&["dag"]));
    replicas.order(BEA, 3, all(1));
    assert_eq!(replicas.modes(), [Mode::Hold, Mode::Act], "the later stop holds");
    let later = refused(&replicas.ask(BEA, 4, all(1)));
    let expected = OperatorRefusal::StoppedLater { target: target_id("dag"), operator: "bea".to_owned() };
    assert_eq!(later, Some(expected));
    replicas.order(BEA, 5, all(2));
    assert_eq!(replicas.modes(), [Mode::Act, Mode::Act]);
}

#[test]
fn o4_stopping_again_never_lessens_a_stop() {
    let mut replicas = Replicas::begun(4);
    replicas.order(ANA, 1, stop(&["pool"]));
    assert_eq!(replicas.modes()[1], Mode::Hold);
    replicas.order(BEA, 1, revoke(&["pool"]));
    assert_eq!(replicas.modes()[1], Mode::Revoked);
    replicas.order(BEA, 2, stop(&["pool"]));
    replicas.order(ANA, 2, stop(&["pool"]));
    assert_eq!(replicas.modes()[1], Mode::Revoked);
    assert_eq!(replicas.state.operations().target(1).expect("it is there").stops().count(), 2);
}

#[test]
fn o6_a_resume_leaves_the_earlier_plan_on_hold_and_the_next_one_acts() {
    for (request, kept) in [(stop(&["pool"]), Mode::Hold), (revoke(&["pool"]), Mode::Revoked)] {
        let mut replicas = Replicas::begun(4);
        replicas.cycles_until(2);
        let first = plan(&replicas.state, 2, Digest::ZERO, 1020);
        assert_eq!(plan_refusal(&replicas.log(&first)), None);
        replicas.order(BEA, 1, request);
        assert_eq!(replicas.modes()[1], kept);
        let applied = replicas.order(ANA, 1, resume(&["pool"]));
        assert_eq!(replicas.modes()[1], kept, "its plan was logged before");
        assert_eq!(heads(&applied)[0].targets[1].mode, kept);
        replicas.cycles_until(3);
        let second = plan(&replicas.state, 3, digest(&first), 1030);
        let applied = replicas.log(&second);
        assert_eq!(plan_refusal(&applied), None);
        let line = &heads(&applied)[0].targets[1];
        assert_eq!((line.mode, line.plan), (Mode::Act, digest(&second)));
    }
    // Without a plan nothing is left to hold.
    let mut replicas = Replicas::begun(4);
    replicas.order(ANA, 1, revoke(&["pool"]));
    replicas.order(ANA, 2, resume(&["pool"]));
    assert_eq!(replicas.modes()[1], Mode::Act);
}

#[test]
fn o7_a_plan_for_a_stopped_target_and_one_that_was_decided_before_the_resume_are_refused() {
    let mut replicas = Replicas::begun(4);
    replicas.cycles_until(2);
    let decided = plan(&replicas.state, 2, Digest::ZERO, 1020);
    replicas.order(ANA, 1, stop(&["pool"]));
    assert_eq!(plan_refusal(&replicas.log(&decided)), Some(PlanRefusal::Stopped));
    replicas.order(ANA, 2, resume(&["pool"]));
    assert_eq!(plan_refusal(&replicas.log(&decided)), Some(PlanRefusal::BeforeResume));
    assert_eq!(replicas.state.newest_seq(&target_id("pool")), Some(Cycle::ZERO));
    replicas.cycles_until(3);
    assert_eq!(plan_refusal(&replicas.log(&plan(&replicas.state, 3, Digest::ZERO, 1030))), None);
}

#[test]
fn o8_the_snapshot_names_the_stopped_targets_and_who_stopped_them() {
    let mut replicas = Replicas::begun(4);
    replicas.order(BEA, 1, stop(&["pool"]));
    let closed = replicas.full_window(100, &summary(&[("queue", 1)]));
    let stopped = replicas.state.snapshot(&closed).stopped;
    assert_eq!(stopped, BTreeMap::from([(target_id("pool"), vec!["bea".to_owned()])]));
    replicas.order(BEA, 2, resume(&["pool"]));
    assert_eq!(replicas.state.snapshot(&closed).stopped, BTreeMap::new());
}

#[test]
fn o9_a_head_follows_an_accepted_stop_or_resume_at_once() {
    let mut replicas = Replicas::begun(4);
    let before = replicas.state.root();
    let numbers =
        |applied: &Applied| -> Vec<u64> { heads(applied).iter().map(|head| head.number.number()).collect() };
    let applied = replicas.order(ANA, 1, stop(&["pool"]));
    let Change::OperatorRequestLogged { heads: told, request } = &applied.changes[0] else {
        panic!("{applied:?}")
    };
    assert_eq!(request.operator().name, "ana");
    let first = numbers(&applied)[0];
    assert_eq!(told, &[(Shard::new(0), HeadNumber::new(first))]);
    let modes: Vec<Mode> = heads(&applied)[0].targets.iter().map(|line| line.mode).collect();
    assert_eq!(modes, [Mode::Act, Mode::Hold]);
    assert_ne!(replicas.state.root(), before);
    // Stopping again and resuming change no mode or not every one; the head comes all the same.
    assert_eq!(numbers(&replicas.order(BEA, 1, stop(&["pool"]))), [first + 1]);
    assert_eq!(numbers(&replicas.order(BEA, 2, resume(&["pool"]))), [first + 2]);
    assert_eq!(numbers(&replicas.order(ANA, 2, bind("pool", &agent_number(1)))), [0; 0]);
    assert_eq!(numbers(&replicas.ask(ANA, 3, resume(&["none"]))), [0; 0]);
}

#[test]
fn o9_without_agreed_time_the_first_head_shows_the_stop() {
    let mut replicas = Replicas::new(4);
    let applied = replicas.order(ANA, 1, stop(&["pool"]));
    assert_eq!(heads(&applied).len(), 0);
    let ticked = replicas.all_tick(BEGIN);
    let first = ticked.iter().flat_map(heads).next().expect("agreed time gives the first head");
    assert_eq!(first.targets[1].mode, Mode::Hold);
}

#[test]
fn o10_to_o12_receipts_count_from_the_keys_that_are_bound_and_from_no_other() {
    let mut replicas = Replicas::begun(4);
    let plan = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
    replicas.log(&plan);
    let (first, second) = (agent(), agent_number(1));
    let answer = |replicas: &mut Replicas, key: &SecretKey, counter| {
        // Two agents never say the very same.
        let is_first = key.public() == first.public();
        let at = UnixMillis::new(BEGIN + u64::from(is_first));
        let envelope = signed_receipt(&Receipt { at, ..receipt(&plan, counter) }, key);
        receipt_refusal(&replicas.apply(Command::Receipt { envelope }))
    };
    let unbound = |key: &SecretKey| Some(ReceiptRefusal::UnboundKey(key.public().id()));
    assert_eq!(answer(&mut replicas, &second, 1), unbound(&second));
    replicas.order(ANA, 1, bind("pool", &second));
    assert_eq!(answer(&mut replicas, &second, 1), None);
    assert_eq!(answer(&mut replicas, &first, 1), None, "each key has a counter of its own");
    assert_eq!(answer(&mut replicas, &second, 1), Some(ReceiptRefusal::Replayed));
    replicas.order(ANA, 2, unbind("pool", &first));
    assert_eq!(answer(&mut replicas, &first, 2), unbound(&first));
    assert_eq!(answer(&mut replicas, &second, 2), None);
    // A key that is bound again does not bring its old receipts back.
    replicas.order(ANA, 3, bind("pool", &first));
    assert_eq!(answer(&mut replicas, &first, 1), Some(ReceiptRefusal::Replayed));
    assert_eq!(answer(&mut replicas, &first, 2), None);
    let both = seal_by(&receipt(&plan, 9), &[&first, &second]);
    let refusal = receipt_refusal(&replicas.apply(Command::Receipt { envelope: both }));
    assert!(matches!(refusal, Some(ReceiptRefusal::NotVerified(_))), "{refusal:?}");
}

fn seal_by(receipt: &Receipt, keys: &[&SecretKey]) -> Vec<u8> {
    let body = receipt.to_bytes();
    let bytes = pae(RECEIPT_TYPE, &body);
    let signatures = keys.iter().map(|key| (key.public().id(), key.sign(&bytes))).collect();
    Envelope::new(RECEIPT_TYPE, body, signatures).to_json()
}

#[test]
fn o10_and_o11_a_binding_needs_the_owners_operator_and_a_fitting_key() {
    let mut replicas = Replicas::begun(4);
    let keyid = |key: &SecretKey| key.public().id();
    let (spare, other) = (agent_number(1), agent_number(2));
    let replace = |key: &SecretKey, replaced: &SecretKey| Request::BindAgent {
        target: target_id("pool"),
        ed25519: raw(key),
        replaces: Some(keyid(replaced)),
    };
    let weak = Request::BindAgent { target: target_id("pool"), ed25519: Digest::ZERO, replaces: None };
    let replica = replicas.keys[2].clone();
    type Expected = fn(&OperatorRefusal) -> bool;
    let cases: [(usize, Request, Expected); 11] = [
        (BEA, bind("pool", &spare), |why| matches!(why, OperatorRefusal::NotPermitted { .. })),
        (BEA, unbind("pool", &agent()), |why| matches!(why, OperatorRefusal::NotPermitted { .. })),
        (ANA, bind("none", &spare), |why| matches!(why, OperatorRefusal::UnknownTarget(_))),
        (ANA, weak, |why| matches!(why, OperatorRefusal::BadKey(_))),
        (ANA, bind("pool", &replica), |why| *why == OperatorRefusal::KeyTaken),
        (ANA, bind("pool", &operator_keys()[BOB]), |why| *why == OperatorRefusal::KeyTaken),
        (ANA, bind("pool", &owner_keys()[3]), |why| *why == OperatorRefusal::KeyTaken),
        (ANA, bind("pool", &agent()), |why| matches!(why, OperatorRefusal::AlreadyBound(_))),
        (ANA, replace(&spare, &other), |why| matches!(why, OperatorRefusal::NotBound(_))),
        (ANA, unbind("pool", &other), |why| matches!(why, OperatorRefusal::NotBound(_))),
        (ANA, unbind("pool", &agent()), |why| *why == OperatorRefusal::LastKey),
    ];
    let before = replicas.state.operations().target(1).cloned();
    for (counter, (operator, request, expected)) in (1..).zip(cases) {
        let why = refused(&replicas.ask(operator, counter, request.clone()));
        assert!(why.as_ref().is_some_and(expected), "{request}: {why:?}");
        assert_eq!(replicas.state.operations().target(1).cloned(), before, "{request}");
    }
    replicas.order(ANA, 100, replace(&spare, &agent()));
    let pool = replicas.state.operations().target(1).expect("it is there");
    assert_eq!(pool.agents().map(PublicKey::id).collect::<Vec<_>>(), [keyid(&spare)]);
}

#[test]
fn o10_bindings_of_a_target_are_bounded_at_a_time_and_ever() {
    let mut replicas = Replicas::begun(1);
    for number in 1..8 {
        replicas.order(ANA, number, bind("pool", &agent_number(number)));
    }
    let full = refused(&replicas.ask(ANA, 8, bind("pool", &agent_number(8))));
    assert!(matches!(full, Some(OperatorRefusal::TooManyKeys { most: 8, .. })), "{full:?}");
    for number in 8..256 {
        let replaces = Some(agent_number(number - 1).public().id());
        let ed25519 = raw(&agent_number(number));
        let target = target_id("pool");
        replicas.order(ANA, 100 + number, Request::BindAgent { target, ed25519, replaces });
    }
    let replaces = Some(agent_number(255).public().id());
    let target = target_id("pool");
    let one_more = Request::BindAgent { target, ed25519: raw(&agent_number(256)), replaces };
    let full = refused(&replicas.ask(ANA, 1000, one_more));
    assert!(matches!(full, Some(OperatorRefusal::TooManyKeys { most: 256, .. })), "{full:?}");
    // One that was bound before may come back.
    let replaces = Some(agent_number(255).public().id());
    let back = Request::BindAgent { target: target_id("pool"), ed25519: raw(&agent_number(20)), replaces };
    replicas.order(ANA, 1001, back);
}

#[test]
fn what_is_judged_is_what_is_taken() {
    use crate::knowledge::{fold::Parties, operator_request::VerifiedOperatorRequest};
    let mut replicas = Replicas::begun(4);
    let requests = [
        (BEA, 1, stop(&["pool"])),
        (BOB, 1, resume(&["pool"])),
        (BEA, 1, resume(&["pool"])),
        (BEA, 2, resume(&["pool"])),
        (BEA, 3, resume(&["pool"])),
        (BEA, 4, Request::Resume { targets: these(&["pool"]), seen: seen(&[(BEA, 1)]) }),
        (BEA, 5, bind("pool", &agent_number(1))),
        (ANA, 4, bind("pool", &agent_number(1))),
        (ANA, 5, bind("pool", &agent_number(1))),
        (ANA, 6, unbind("pool", &agent_number(1))),
        (ANA, 7, unbind("pool", &agent())),
    ];
    for (operator, counter, request) in requests {
        let envelope = replicas.signed(request.clone(), counter).sign(&operator_keys()[operator]).to_json();
        let state = &replicas.state;
        let (cluster, epoch) = (state.committee().cluster(), state.committee().epoch());
        let verified = VerifiedOperatorRequest::verify(&envelope, state.operators(), cluster, epoch);
        let parties =
            Parties { genesis: state.genesis(), operators: state.operators(), committee: state.committee() };
        let judged = state.operations().judge(&verified.expect("it is signed"), parties);
        let taken = refused(&replicas.apply(Command::OperatorRequest { envelope }));
        assert_eq!(judged.err(), taken, "{request}");
    }
}
