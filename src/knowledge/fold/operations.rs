//! What operators have ordered: which targets are stopped, and whose receipts count (rules O1 to O12). It verifies no
//! signature, knows no plan's content, and derives no head.
//!
//! Invariant: a refused request changes nothing but its key's counter.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    knowledge::{
        change::Turn,
        genesis::Genesis,
        head::Mode,
        operator_request::{All, Request, Selection, StopMode, VerifiedOperatorRequest},
        policy::Target,
        root::{Operator, Operators},
    },
    types::{Committee, Cycle, Digest, KeyError, KeyId, PublicKey, TargetId, UnixMillis},
};

/// The most keys that are bound to one target: an agent and its spare on each of several machines.
pub const MAX_BOUND_KEYS: usize = 8;

/// The most keys that are ever bound to one target in an epoch. Counters of unbound keys are kept, so that no old
/// receipt counts again after the key is bound once more; this bounds what is kept.
pub const MAX_KEYS_EVER_BOUND: usize = 256;

/// How far a request's counter may be above the key's newest one. Any clock's milliseconds since 1970 are a first
/// counter until the year 2527, and a million of the widest jumps by mistake still leave a larger counter.
pub const MAX_COUNTER_JUMP: u64 = 1 << 44;

/// Why an operator's request changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorRefusal {
    /// No operator of the root signed it for this cluster and epoch, or it is malformed.
    #[error("{0}")]
    NotVerified(String),
    /// Agreed time has passed its end.
    #[error("it expired at {0}; sign it again if it is still meant")]
    Expired(UnixMillis),
    /// The very same request was ordered before.
    #[error("this very request was ordered before{}", if *took_effect { ", and took effect" } else { ", and was refused" })]
    Duplicate {
        /// Whether it took effect then.
        took_effect: bool,
    },
    /// The key's counter did not rise.
    #[error(
        "its counter {got} is not above {last}, the newest of this operator's key: it is an old request, ordered before or \
         never to be; one that is meant anew is signed with a larger counter (--counter)"
    )]
    OldCounter {
        /// The request's counter.
        got: u64,
        /// The newest counter of the key.
        last: u64,
    },
    /// The key's counter would leave too few above it.
    #[error(
        "its counter {got} is above {most}, the largest that may follow the newest of this operator's key: sign it with a \
         smaller one (--counter)"
    )]
    CounterAhead {
        /// The request's counter.
        got: u64,
        /// The largest that is taken.
        most: u64,
    },
    /// A target is not in the genesis.
    #[error("there is no target {0}")]
    UnknownTarget(TargetId),
    /// The target is not stopped.
    #[error("target {0} is not stopped")]
    NotStopped(TargetId),
    /// What stops the target came after what the resume has seen.
    #[error(
        "target {target} was stopped by {operator} after the stops that this resume names; look again who stopped it"
    )]
    StoppedLater {
        /// Which.
        target: TargetId,
        /// Who stopped it.
        operator: String,
    },
    /// Nothing is stopped that the operator could resume.
    #[error("no target is stopped that operator {0} may resume")]
    NothingToResume(String),
    /// The operator may not do this to the target.
    #[error("operator {operator} acts for {acts_for}, but target {target} belongs to {owner}{also}")]
    NotPermitted {
        /// The operator's name.
        operator: String,
        /// The owner it acts for.
        acts_for: String,
        /// The target.
        target: TargetId,
        /// The target's owner.
        owner: String,
        /// What else would be permitted.
        also: &'static str,
    },
    /// The agent's key is not admissible.
    #[error("the agent's key: {0}")]
    BadKey(KeyError),
    /// The agent's key is a replica's, an operator's or an owner's.
    #[error("the agent's key belongs to a replica, an operator or an owner; give the agent its own")]
    KeyTaken,
    /// The key is bound to the target.
    #[error("the key with keyid {0} is bound to the target already")]
    AlreadyBound(KeyId),
    /// The key is not bound to the target.
    #[error("no key with keyid {0} is bound to the target")]
    NotBound(KeyId),
    /// The key is the only one.
    #[error("it is the only key of the target; bind another first, or replace it")]
    LastKey,
    /// The target has as many keys as it may have.
    #[error("{most} keys {when} to the target; no more are allowed")]
    TooManyKeys {
        /// How many there may be.
        most: usize,
        /// Whether that counts keys of now or of ever.
        when: &'static str,
    },
}

impl OperatorRefusal {
    /// Its name in JSON, in the store and as a label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotVerified(_) => "not_verified",
            Self::Expired(_) => "expired",
            Self::Duplicate { .. } => "duplicate",
            Self::OldCounter { .. } => "old_counter",
            Self::CounterAhead { .. } => "counter_ahead",
            Self::UnknownTarget(_) => "unknown_target",
            Self::NotStopped(_) => "not_stopped",
            Self::StoppedLater { .. } => "stopped_later",
            Self::NothingToResume(_) => "nothing_to_resume",
            Self::NotPermitted { .. } => "not_permitted",
            Self::BadKey(_) => "bad_key",
            Self::KeyTaken => "key_taken",
            Self::AlreadyBound(_) => "already_bound",
            Self::NotBound(_) => "not_bound",
            Self::LastKey => "last_key",
            Self::TooManyKeys { .. } => "too_many_keys",
        }
    }
}

/// What operators have ordered, of all targets.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Operations {
    /// Of each operator's key the request with the newest counter.
    newest: BTreeMap<KeyId, Newest>,
    /// In the genesis' order.
    targets: Vec<Permit>,
}

/// The newest request of an operator's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Newest {
    /// Its counter.
    pub counter: u64,
    /// SHA-256 of its body.
    pub digest: Digest,
    /// Whether it was accepted.
    pub took_effect: bool,
}

/// What may be done to one target, and whose receipts count for it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Permit {
    mode: Mode,
    stops: BTreeMap<KeyId, Stop>,
    /// The control cycle in which the last stop was lifted; zero when none was.
    lifted: Cycle,
    agents: BTreeMap<KeyId, AgentKey>,
}

/// One operator's stop of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Stop {
    /// What it makes of the newest plan.
    pub mode: Mode,
    /// Agreed time of the operator's first request; `None` when there was no agreed time yet.
    pub since: Option<UnixMillis>,
    /// The counter of the operator's newest request to stop the target.
    pub counter: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct AgentKey {
    key: PublicKey,
    bound: bool,
    /// The counter of the key's newest logged receipt.
    counter: u64,
    /// Which of the 64 counters below it were logged: the lowest bit is the one just below.
    before: u64,
}

impl AgentKey {
    const fn of(key: PublicKey) -> Self {
        Self { key, bound: true, counter: 0, before: 0 }
    }

    /// A3: where a counter stands, when it was not logged yet.
    fn turn(&self, counter: u64) -> Option<Turn> {
        if counter > self.counter {
            return Some(Turn::Newest);
        }
        let bit = bit_below(self.counter - counter)?;
        (counter > 0 && self.before & bit == 0).then_some(Turn::Late)
    }

    fn take(&mut self, counter: u64) -> Option<Turn> {
        let turn = self.turn(counter)?;
        match turn {
            Turn::Newest => {
                let step = counter - self.counter;
                let kept = u32::try_from(step).ok().and_then(|step| self.before.checked_shl(step));
                self.before = kept.unwrap_or(0) | bit_below(step).unwrap_or(0);
                self.counter = counter;
            }
            Turn::Late => self.before |= bit_below(self.counter - counter).unwrap_or(0),
        }
        Some(turn)
    }
}

/// The bit of the counter that lies so far below the newest; `None` for the newest itself and those too far below.
const fn bit_below(distance: u64) -> Option<u64> {
    match distance {
        1..=64 => Some(1 << (distance - 1)),
        _ => None,
    }
}

/// Whose request it is, and everything it is judged against.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// Targets and their owners.
    pub genesis: &'a Genesis,
    /// The operators of the root.
    pub operators: &'a Operators,
    /// The replicas.
    pub committee: &'a Committee,
}

impl Permit {
    fn first(target: &Target) -> Self {
        Self {
            mode: Mode::Act,
            stops: BTreeMap::new(),
            lifted: Cycle::ZERO,
            agents: BTreeMap::from([(target.agent.id(), AgentKey::of(target.agent))]), // O12
        }
    }

    /// What agents may do with the newest plan.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whose stops hold, by operators' keys; empty when the target is not stopped.
    pub fn stops(&self) -> impl Iterator<Item = (KeyId, Stop)> {
        self.stops.iter().map(|(key, stop)| (*key, *stop))
    }

    /// Whether some operator's stop holds.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        !self.stops.is_empty()
    }

    /// The keys whose receipts count.
    pub fn agents(&self) -> impl Iterator<Item = &PublicKey> {
        self.agents.values().filter(|agent| agent.bound).map(|agent| &agent.key)
    }

    /// The counter of the newest logged receipt of a key; zero before its first.
    #[must_use]
    pub fn receipt_counter(&self, key: KeyId) -> u64 {
        self.agents.get(&key).map_or(0, |agent| agent.counter)
    }

    /// Where a receipt's counter stands among those of its key; `None` when it counts no more (A3).
    #[must_use]
    pub fn receipt_turn(&self, key: KeyId, counter: u64) -> Option<Turn> {
        self.agents.get(&key).filter(|agent| agent.bound)?.turn(counter)
    }

    /// The control cycle in which the last stop was lifted: what was decided until then is not logged (O7).
    #[must_use]
    pub const fn lifted(&self) -> Cycle {
        self.lifted
    }

    fn is_bound(&self, key: KeyId) -> bool {
        self.agents.get(&key).is_some_and(|agent| agent.bound)
    }

    /// O5: the stops that this operator may lift.
    fn liftable(&self, operator: &Operator, owner: &str) -> impl Iterator<Item = (KeyId, Stop)> {
        let (own, may_all) = (operator.key.id(), operator.owner == owner);
        self.stops().filter(move |(by, _)| may_all || *by == own)
    }
}

impl Operations {
    pub(super) fn new(genesis: &Genesis) -> Self {
        Self { newest: BTreeMap::new(), targets: genesis.targets.iter().map(Permit::first).collect() }
    }

    /// Whether it can be of this genesis: a line for each target, and keys within their bounds.
    pub(super) fn fits(&self, genesis: &Genesis) -> bool {
        let is_sound = |permit: &Permit| {
            let ids_hold = permit.agents.iter().all(|(id, agent)| *id == agent.key.id());
            let bound = permit.agents().count();
            ids_hold && (1..=MAX_BOUND_KEYS).contains(&bound) && permit.agents.len() <= MAX_KEYS_EVER_BOUND
        };
        self.targets.len() == genesis.targets.len() && self.targets.iter().all(is_sound)
    }

    /// What is known of the target at this place of the genesis.
    #[must_use]
    pub fn target(&self, place: usize) -> Option<&Permit> {
        self.targets.get(place)
    }

    /// The newest counter of an operator's key; zero before its first request.
    #[must_use]
    pub fn counter(&self, key: KeyId) -> u64 {
        self.newest.get(&key).map_or(0, |newest| newest.counter)
    }

    /// The newest request of each operator's key.
    pub fn newest(&self) -> impl Iterator<Item = (KeyId, Newest)> {
        self.newest.iter().map(|(key, newest)| (*key, *newest))
    }

    /// Whether the request would be accepted now, its expiry aside, without taking it.
    ///
    /// # Errors
    /// [`OperatorRefusal`] names the first rule that it breaks.
    pub fn judge(
        &self,
        request: &VerifiedOperatorRequest,
        parties: Parties<'_>,
    ) -> Result<(), OperatorRefusal> {
        self.judge_counter(request)?;
        let operator = request.operator();
        match &request.request().request {
            Request::Stop { targets, .. } => places(targets, parties.genesis).map(drop),
            Request::Resume { targets, seen } => self.resumable(targets, seen, operator, parties).map(drop),
            Request::BindAgent { target, ed25519, replaces } => {
                self.bindable(target, *ed25519, *replaces, operator, parties).map(drop)
            }
            Request::UnbindAgent { target, keyid } => {
                self.unbindable(target, *keyid, operator, parties.genesis).map(drop)
            }
        }
    }

    /// O2 to O12: takes a verified request. Gives the places of the targets that a head must tell of.
    pub(super) fn take(
        &mut self,
        request: &VerifiedOperatorRequest,
        parties: Parties<'_>,
        now: Option<UnixMillis>,
        cycle: Cycle,
        has_plan: impl Fn(usize) -> bool,
    ) -> Result<BTreeSet<usize>, OperatorRefusal> {
        self.judge_counter(request)?;
        let signed = request.request();
        if now.is_some_and(|now| now > signed.expires_at) {
            return Err(OperatorRefusal::Expired(signed.expires_at)); // O2
        }
        let taken = self.carry_out(request, parties, now, cycle, has_plan);
        let (counter, digest, took_effect) = (signed.counter, request.digest(), taken.is_ok());
        self.newest.insert(request.operator().key.id(), Newest { counter, digest, took_effect }); // O2
        taken
    }

    /// O3 to O12: a request whose counter is new.
    fn carry_out(
        &mut self,
        request: &VerifiedOperatorRequest,
        parties: Parties<'_>,
        now: Option<UnixMillis>,
        cycle: Cycle,
        has_plan: impl Fn(usize) -> bool,
    ) -> Result<BTreeSet<usize>, OperatorRefusal> {
        let (operator, signed) = (request.operator(), request.request());
        match &signed.request {
            Request::Stop { targets, mode } => {
                let places = places(targets, parties.genesis)?;
                for place in &places {
                    if let Some(permit) = self.targets.get_mut(*place) {
                        stop(permit, operator.key.id(), *mode, signed.counter, now);
                    }
                }
                Ok(places)
            }
            Request::Resume { targets, seen } => {
                let lifted = self.resumable(targets, seen, operator, parties)?;
                for (place, stops) in &lifted {
                    if let Some(permit) = self.targets.get_mut(*place) {
                        lift(permit, stops, cycle, has_plan(*place));
                    }
                }
                Ok(lifted.into_keys().collect())
            }
            Request::BindAgent { target, ed25519, replaces } => {
                let (place, key) = self.bindable(target, *ed25519, *replaces, operator, parties)?;
                if let Some(permit) = self.targets.get_mut(place) {
                    bind(permit, key, *replaces);
                }
                Ok(BTreeSet::new())
            }
            Request::UnbindAgent { target, keyid } => {
                let place = self.unbindable(target, *keyid, operator, parties.genesis)?;
                if let Some(agent) =
                    self.targets.get_mut(place).and_then(|permit| permit.agents.get_mut(keyid))
                {
                    agent.bound = false;
                }
                Ok(BTreeSet::new())
            }
        }
    }

    /// O6: the next logged plan of the target may be applied.
    pub(super) fn plan_logged(&mut self, place: usize) {
        if let Some(permit) = self.targets.get_mut(place) {
            permit.mode = Mode::Act;
        }
    }

    /// A3: takes the counter of a receipt by this key; `None` when it counts no more.
    pub(crate) fn take_receipt_counter(&mut self, place: usize, key: KeyId, counter: u64) -> Option<Turn> {
        let agent = self.targets.get_mut(place).and_then(|permit| permit.agents.get_mut(&key));
        agent.filter(|agent| agent.bound)?.take(counter)
    }

    /// O2.
    fn judge_counter(&self, request: &VerifiedOperatorRequest) -> Result<(), OperatorRefusal> {
        let got = request.request().counter;
        let newest = self.newest.get(&request.operator().key.id());
        let last = newest.map_or(0, |newest| newest.counter);
        let most = last.saturating_add(MAX_COUNTER_JUMP);
        if let Some(Newest { took_effect, .. }) = newest.filter(|newest| newest.digest == request.digest()) {
            Err(OperatorRefusal::Duplicate { took_effect: *took_effect })
        } else if got <= last {
            Err(OperatorRefusal::OldCounter { got, last })
        } else if got > most {
            Err(OperatorRefusal::CounterAhead { got, most })
        } else {
            Ok(())
        }
    }

    /// O3 and O5: which stops of which targets end.
    fn resumable(
        &self,
        targets: &Selection,
        seen: &BTreeMap<KeyId, u64>,
        operator: &Operator,
        parties: Parties<'_>,
    ) -> Result<BTreeMap<usize, BTreeSet<KeyId>>, OperatorRefusal> {
        let genesis = parties.genesis;
        let (mut lifted, mut later) = (BTreeMap::new(), None);
        for place in places(targets, genesis)? {
            let Some((target, permit)) = genesis.targets.get(place).zip(self.targets.get(place)) else {
                continue;
            };
            let mut stops = BTreeSet::new();
            let mut unseen = None;
            for (by, stop) in permit.liftable(operator, &target.owner) {
                if seen.get(&by).is_some_and(|seen| *seen >= stop.counter) {
                    stops.insert(by);
                } else {
                    unseen = Some(later_stop(target, by, parties.operators));
                }
            }
            if !stops.is_empty() {
                lifted.insert(place, stops);
            } else if matches!(targets, Selection::These(_)) {
                return Err(unseen.unwrap_or_else(|| nothing_to_lift(permit, operator, target)));
            }
            later = later.or(unseen);
        }
        if lifted.is_empty() {
            let nothing = || OperatorRefusal::NothingToResume(operator.name.clone());
            return Err(later.unwrap_or_else(nothing));
        }
        Ok(lifted)
    }

    /// O10.
    fn bindable(
        &self,
        target: &TargetId,
        ed25519: Digest,
        replaces: Option<KeyId>,
        operator: &Operator,
        parties: Parties<'_>,
    ) -> Result<(usize, PublicKey), OperatorRefusal> {
        let (place, permit) = self.owned(target, operator, parties.genesis)?;
        let key = PublicKey::from_bytes(ed25519.as_bytes()).map_err(OperatorRefusal::BadKey)?;
        let operators = parties.operators;
        let has_role = parties.committee.place_of(&key).is_some()
            || operators.by_key(key.id()).is_some()
            || operators.is_owner(key.id());
        if has_role {
            return Err(OperatorRefusal::KeyTaken);
        }
        if permit.is_bound(key.id()) {
            return Err(OperatorRefusal::AlreadyBound(key.id()));
        }
        if let Some(replaced) = replaces.filter(|replaced| !permit.is_bound(*replaced)) {
            return Err(OperatorRefusal::NotBound(replaced));
        }
        if replaces.is_none() && permit.agents().count() >= MAX_BOUND_KEYS {
            return Err(OperatorRefusal::TooManyKeys { most: MAX_BOUND_KEYS, when: "are bound" });
        }
        if !permit.agents.contains_key(&key.id()) && permit.agents.len() >= MAX_KEYS_EVER_BOUND {
            return Err(OperatorRefusal::TooManyKeys { most: MAX_KEYS_EVER_BOUND, when: "were ever bound" });
        }
        Ok((place, key))
    }

    /// O11.
    fn unbindable(
        &self,
        target: &TargetId,
        keyid: KeyId,
        operator: &Operator,
        genesis: &Genesis,
    ) -> Result<usize, OperatorRefusal> {
        let (place, permit) = self.owned(target, operator, genesis)?;
        if !permit.is_bound(keyid) {
            return Err(OperatorRefusal::NotBound(keyid));
        }
        if permit.agents().count() == 1 {
            return Err(OperatorRefusal::LastKey);
        }
        Ok(place)
    }

    /// The target's place, when the operator acts for its owner.
    fn owned(
        &self,
        id: &TargetId,
        operator: &Operator,
        genesis: &Genesis,
    ) -> Result<(usize, &Permit), OperatorRefusal> {
        let unknown = || OperatorRefusal::UnknownTarget(id.clone());
        let place = genesis.place(id).ok_or_else(unknown)?;
        let (target, permit) = genesis.targets.get(place).zip(self.targets.get(place)).ok_or_else(unknown)?;
        if target.owner == operator.owner {
            Ok((place, permit))
        } else {
            Err(not_permitted(operator, target, ""))
        }
    }
}

/// O4.
fn stop(permit: &mut Permit, by: KeyId, mode: StopMode, counter: u64, now: Option<UnixMillis>) {
    permit.mode = permit.mode.max(mode.mode());
    let stop = permit.stops.entry(by).or_insert(Stop { mode: mode.mode(), since: now, counter });
    stop.mode = stop.mode.max(mode.mode());
    stop.counter = counter;
}

/// O5 and O6.
fn lift(permit: &mut Permit, stops: &BTreeSet<KeyId>, cycle: Cycle, has_plan: bool) {
    permit.stops.retain(|by, _| !stops.contains(by));
    if permit.is_stopped() {
        return;
    }
    permit.lifted = cycle;
    if !has_plan {
        permit.mode = Mode::Act;
    }
}

/// O10 and O12.
fn bind(permit: &mut Permit, key: PublicKey, replaces: Option<KeyId>) {
    if let Some(replaced) = replaces.and_then(|replaced| permit.agents.get_mut(&replaced)) {
        replaced.bound = false;
    }
    let agent = permit.agents.entry(key.id()).or_insert(AgentKey::of(key));
    agent.bound = true;
}

/// O3: the places of the targets.
fn places(targets: &Selection, genesis: &Genesis) -> Result<BTreeSet<usize>, OperatorRefusal> {
    match targets {
        Selection::All(All::All) => Ok((0..genesis.targets.len()).collect()),
        Selection::These(names) => names
            .iter()
            .map(|name| genesis.place(name).ok_or_else(|| OperatorRefusal::UnknownTarget(name.clone())))
            .collect(),
    }
}

fn later_stop(target: &Target, by: KeyId, operators: &Operators) -> OperatorRefusal {
    let name = operators.by_key(by).map_or_else(|| by.to_string(), |operator| operator.name.clone());
    OperatorRefusal::StoppedLater { target: target.id.clone(), operator: name }
}

fn nothing_to_lift(permit: &Permit, operator: &Operator, target: &Target) -> OperatorRefusal {
    if permit.is_stopped() {
        let also = "; an operator of the owner, or who stopped it, may resume it";
        not_permitted(operator, target, also)
    } else {
        OperatorRefusal::NotStopped(target.id.clone())
    }
}

fn not_permitted(operator: &Operator, target: &Target, also: &'static str) -> OperatorRefusal {
    OperatorRefusal::NotPermitted {
        operator: operator.name.clone(),
        acts_for: operator.owner.clone(),
        target: target.id.clone(),
        owner: target.owner.clone(),
        also,
    }
}
