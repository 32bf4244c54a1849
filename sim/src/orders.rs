//! The rules of operators' requests and agents' receipts, restated from their documentation: which request counts,
//! which target is stopped, whose receipts are taken, and that nothing is logged for a stopped target.
//!
//! It reads what the fold says it did, in the order of heights, and judges it by books of its own. It verifies no signature:
//! what takes effect must be among what operators and agents handed in. Invariant: each height is read once.

use quorate::{
    cycle::Folded,
    knowledge::{
        change::{Change, Turn},
        operator_request::{OperatorRequest, Request, Selection},
        plan::Plan,
        receipt::Receipt,
    },
    types::{Digest, Envelope, KeyId, TargetId, UnixMillis},
};
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    requests::{OPERATORS, acts_for, agent_key, is_admissible, operator_key, operator_name, target},
    telemetry::{TARGETS, owner},
};

/// How much of what operators, agents and replicas handed in took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operators' requests that took effect.
    pub requests: u64,
    /// Operators' requests that were refused.
    pub refused_requests: u64,
    /// Plans that were logged.
    pub plans: u64,
    /// Certified plans that were refused.
    pub refused_plans: u64,
    /// Receipts that were logged.
    pub receipts: u64,
    /// Receipts that were refused.
    pub refused_receipts: u64,
}

impl Counts {
    /// Adds another run's.
    pub const fn add(&mut self, other: Self) {
        let Self { requests, refused_requests, plans, refused_plans, receipts, refused_receipts } = other;
        self.requests += requests;
        self.refused_requests += refused_requests;
        self.plans += plans;
        self.refused_plans += refused_plans;
        self.receipts += receipts;
        self.refused_receipts += refused_receipts;
    }
}

/// A plan that became logged, for its agent.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Its target's place in the genesis.
    pub place: usize,
    /// The plan.
    pub plan: Plan,
    /// SHA-256 of its body.
    pub digest: Digest,
}

#[derive(Debug, Default)]
struct Book {
    owner: String,
    /// Whose stops hold, each with the counter of the newest request for it.
    stopped_by: BTreeMap<KeyId, u64>,
    /// The newest control cycle when the last stop was lifted.
    lifted: u64,
    /// The newest logged plan's sequence number.
    newest: u64,
    logged: BTreeMap<u64, Digest>,
    bound: BTreeSet<KeyId>,
}

/// The books.
#[derive(Debug)]
pub struct Orders {
    height: u64,
    now: Option<UnixMillis>,
    cycle: u64,
    counters: BTreeMap<KeyId, u64>,
    /// The counters of logged receipts, by their keys.
    receipts: BTreeMap<KeyId, BTreeSet<u64>>,
    /// What was told of each target, by the bodies.
    accounts: BTreeSet<(TargetId, Digest)>,
    books: BTreeMap<TargetId, Book>,
    /// What operators signed, by the digest of its body and the operator: two may sign the same words.
    asked: BTreeMap<(Digest, u8), OperatorRequest>,
    /// The digests of the envelopes that agents signed.
    answered: BTreeSet<Digest>,
    counts: Counts,
}

impl Default for Orders {
    fn default() -> Self {
        let book = |place| {
            let bound = BTreeSet::from([agent_key(place, 0).public().id()]);
            (target(place), Book { owner: owner(place), bound, ..Book::default() })
        };
        Self {
            height: 0,
            now: None,
            cycle: 0,
            counters: BTreeMap::new(),
            receipts: BTreeMap::new(),
            accounts: BTreeSet::new(),
            books: (0..TARGETS.len()).map(book).collect(),
            asked: BTreeMap::new(),
            answered: BTreeSet::new(),
            counts: Counts::default(),
        }
    }
}

impl Orders {
    /// An operator signed a request.
    pub fn asked(&mut self, by: u8, request: &OperatorRequest) {
        self.asked.insert((Digest::of(&request.to_bytes()), by), request.clone());
    }

    /// An agent signed a receipt.
    pub fn answered(&mut self, envelope: &[u8]) {
        self.answered.insert(Digest::of(envelope));
    }

    /// Reads what the fold of a block changed, unless its height was read before. Gives the plans that became logged.
    ///
    /// # Errors
    /// What breaks a rule.
    pub fn read(&mut self, folded: &Folded) -> Result<Vec<Logged>, String> {
        let height = folded.block.height().number();
        if height != self.height + 1 {
            return Ok(Vec::new());
        }
        self.height = height;
        let mut logged = Vec::new();
        for change in &folded.changes {
            self.count(change);
            self.change(change, &mut logged).map_err(|what| format!("height {height}: {what}"))?;
        }
        Ok(logged)
    }

    /// Up to which height the log was read. It ends below a height that nobody folds, when all begin at a checkpoint above it.
    #[must_use]
    pub const fn height(&self) -> u64 {
        self.height
    }

    /// The counter of each operator's newest stop that holds.
    #[must_use]
    pub fn stops(&self) -> BTreeMap<KeyId, u64> {
        let mut stops = BTreeMap::new();
        for (key, counter) in self.books.values().flat_map(|book| &book.stopped_by) {
            let newest = stops.entry(*key).or_insert(*counter);
            *newest = (*newest).max(*counter);
        }
        stops
    }

    /// The newest logged plan of a target, and whether it is decided after the last stop, where none holds.
    #[must_use]
    pub fn newest_plan(&self, target: &TargetId) -> (u64, bool) {
        self.books.get(target).map_or((0, false), |book| {
            (book.newest, !book.stopped_by.is_empty() || book.newest > book.lifted)
        })
    }

    /// What operators and agents achieved.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    fn change(&mut self, change: &Change, logged: &mut Vec<Logged>) -> Result<(), String> {
        match change {
            Change::TimeMoved(now) => {
                let rises = self.now.is_none_or(|before| before < *now);
                self.now = Some(*now);
                if rises { Ok(()) } else { Err(format!("agreed time moved back to {now}")) }
            }
            Change::WindowClosed(closed) => self.enter_cycle(closed.cycle.number()),
            Change::Gap { cycle, .. } => self.enter_cycle(cycle.number()),
            Change::PlanLogged(certified) => {
                let (plan, digest) = (certified.document().clone(), certified.digest());
                let place = TARGETS.iter().position(|name| *name == plan.target.as_str());
                self.log(&plan, digest)?;
                logged.extend(place.map(|place| Logged { place, plan, digest }));
                Ok(())
            }
            Change::OperatorRequestLogged { request, .. } => {
                let (by, request) = self.request(request.digest(), &request.operator().name)?;
                match self.judge(by, &request) {
                    Verdict::Accepted => {
                        self.take(by, &request);
                        Ok(())
                    }
                    refused @ (Verdict::Stale | Verdict::NotPermitted) => {
                        Err(format!("{request:?} of operator {by} took effect, but is {refused:?}"))
                    }
                }
            }
            // One that no operator signed has no digest.
            Change::OperatorRequestRefused { request: None, .. } => Ok(()),
            Change::OperatorRequestRefused { request: Some((digest, name)), why } => {
                let (by, request) = self.request(*digest, name)?;
                match self.judge(by, &request) {
                    Verdict::Stale => {}
                    Verdict::NotPermitted => {
                        self.counters.insert(operator_key(by).public().id(), request.counter);
                    }
                    Verdict::Accepted => {
                        return Err(format!("{request:?} of operator {by} was refused: {why}"));
                    }
                }
                Ok(())
            }
            Change::ReceiptLogged { receipt, envelope, turn } => self.receipt(receipt, envelope, *turn),
            Change::Found { .. }
            | Change::PlanRefused { .. }
            | Change::HeadDerived(_)
            | Change::ReceiptRefused { .. }
            | Change::EffectSettled { .. }
            | Change::ReportRefused { .. }
            | Change::EvidenceLogged(_)
            | Change::EvidenceRefused { .. }
            | Change::Malformed => Ok(()),
        }
    }

    const fn count(&mut self, change: &Change) {
        let counts = &mut self.counts;
        match change {
            Change::OperatorRequestLogged { .. } => counts.requests += 1,
            Change::OperatorRequestRefused { .. } => counts.refused_requests += 1,
            Change::PlanLogged(_) => counts.plans += 1,
            Change::PlanRefused { .. } => counts.refused_plans += 1,
            Change::ReceiptLogged { .. } => counts.receipts += 1,
            Change::ReceiptRefused { .. } => counts.refused_receipts += 1,
            Change::TimeMoved(_)
            | Change::WindowClosed(_)
            | Change::Gap { .. }
            | Change::Found { .. }
            | Change::HeadDerived(_)
            | Change::EffectSettled { .. }
            | Change::ReportRefused { .. }
            | Change::EvidenceLogged(_)
            | Change::EvidenceRefused { .. }
            | Change::Malformed => {}
        }
    }

    fn enter_cycle(&mut self, cycle: u64) -> Result<(), String> {
        let before = std::mem::replace(&mut self.cycle, cycle);
        if cycle == before + 1 { Ok(()) } else { Err(format!("control cycle {cycle} after {before}")) }
    }

    /// Nothing is logged for a stopped target, nor what was decided before it was resumed; each target's sequence rises,
    /// and each plan names the one before.
    fn log(&mut self, plan: &Plan, digest: Digest) -> Result<(), String> {
        let seq = plan.seq.number();
        let Some(book) = self.books.get_mut(&plan.target) else {
            return Err(format!("a plan was logged for {}, which is no target", plan.target));
        };
        let before = book.logged.get(&book.newest).copied().unwrap_or(Digest::ZERO);
        let what = if !book.stopped_by.is_empty() {
            "while the target is stopped"
        } else if seq <= book.lifted {
            "though it was decided before the target was resumed"
        } else if seq <= book.newest {
            "after a newer one"
        } else if plan.prev != before {
            "though it does not follow the newest one"
        } else {
            book.newest = seq;
            book.logged.insert(seq, digest);
            return Ok(());
        };
        Err(format!("plan {seq} of {} was logged {what}", plan.target))
    }

    fn request(&self, digest: Digest, name: &str) -> Result<(u8, OperatorRequest), String> {
        let by = (0..OPERATORS).find(|by| operator_name(*by) == name);
        by.and_then(|by| Some((by, self.asked.get(&(digest, by)).cloned()?)))
            .ok_or_else(|| format!("a request was ordered that {name} did not sign: {digest:?}"))
    }

    /// Whether a request may take effect now.
    fn judge(&self, by: u8, signed: &OperatorRequest) -> Verdict {
        let key = operator_key(by).public().id();
        let expired = self.now.is_some_and(|now| now > signed.expires_at);
        if expired || self.counters.get(&key).is_some_and(|last| signed.counter <= *last) {
            return Verdict::Stale;
        }
        let owns = |book: &Book| book.owner == acts_for(by);
        let may = match &signed.request {
            Request::Stop { .. } => true,
            Request::Resume { targets, seen } => {
                let lifts = |book: &Book| !book.lifted_by(by, seen).is_empty();
                match targets {
                    Selection::All(_) => self.selected(targets).any(lifts),
                    Selection::These(_) => self.selected(targets).all(lifts),
                }
            }
            Request::BindAgent { target, ed25519, replaces } => {
                let new = Digest::of(ed25519.as_bytes());
                self.books.get(target).is_some_and(|book| {
                    let replaceable = replaces.is_none_or(|replaced| book.bound.contains(&replaced));
                    owns(book) && is_admissible(*ed25519) && !book.bound.contains(&new) && replaceable
                })
            }
            Request::UnbindAgent { target, keyid } => self
                .books
                .get(target)
                .is_some_and(|book| owns(book) && book.bound.contains(keyid) && book.bound.len() > 1),
        };
        if may { Verdict::Accepted } else { Verdict::NotPermitted }
    }

    fn selected<'a>(&'a self, targets: &'a Selection) -> impl Iterator<Item = &'a Book> {
        self.books.iter().filter(|(target, _)| names(targets, target)).map(|(_, book)| book)
    }

    fn take(&mut self, by: u8, signed: &OperatorRequest) {
        let (key, cycle) = (operator_key(by).public().id(), self.cycle);
        self.counters.insert(key, signed.counter);
        for (target, book) in &mut self.books {
            match &signed.request {
                Request::Stop { targets, .. } if names(targets, target) => {
                    book.stopped_by.insert(key, signed.counter);
                }
                Request::Resume { targets, seen } if names(targets, target) => book.resume(by, seen, cycle),
                Request::BindAgent { target: of, ed25519, replaces } if of == target => {
                    if let Some(replaced) = replaces {
                        book.bound.remove(replaced);
                    }
                    book.bound.insert(Digest::of(ed25519.as_bytes()));
                }
                Request::UnbindAgent { target: of, keyid } if of == target => {
                    book.bound.remove(keyid);
                }
                Request::Stop { .. }
                | Request::Resume { .. }
                | Request::BindAgent { .. }
                | Request::UnbindAgent { .. } => {}
            }
        }
    }

    /// Receipts count for logged plans, by keys that are bound, each key's with rising counters.
    fn receipt(&mut self, receipt: &Receipt, envelope: &[u8], turn: Turn) -> Result<(), String> {
        let refused = |what: &str| Err(format!("a receipt of {} was logged {what}", receipt.target));
        if !self.answered.contains(&Digest::of(envelope)) {
            return refused("that no agent signed");
        }
        let Some(book) = self.books.get(&receipt.target) else { return refused("for no target") };
        let envelope = Envelope::from_json(envelope).map_err(|error| error.to_string())?;
        let Some((key, _)) = envelope.signatures().first() else { return refused("without a signature") };
        if !book.bound.contains(key) {
            return refused("by a key that is not bound");
        }
        if book.logged.get(&receipt.seq.number()) != Some(&receipt.plan) {
            return refused("for a plan that was not logged");
        }
        if !self.accounts.insert((receipt.target.clone(), Digest::of(&receipt.to_bytes()))) {
            return refused("under two keys");
        }
        let counters = self.receipts.entry(*key).or_default();
        let newest = counters.last().copied().unwrap_or(0);
        let is_new = counters.insert(receipt.counter);
        if !is_new {
            return refused("twice");
        }
        match (turn, newest.saturating_sub(receipt.counter)) {
            (Turn::Newest, 0) | (Turn::Late, 1..=64) => Ok(()),
            (Turn::Newest, _) => refused("as the newest after a newer one"),
            (Turn::Late, 0) => refused("as a late one though it is the newest"),
            (Turn::Late, _) => refused("long after a newer one"),
        }
    }
}

impl Book {
    /// Whose stops end when this operator resumes the target: its own, or all if it acts for the owner, but none that is
    /// newer than what it has seen.
    fn lifted_by(&self, by: u8, seen: &BTreeMap<KeyId, u64>) -> BTreeSet<KeyId> {
        let own = operator_key(by).public().id();
        let may_all = self.owner == acts_for(by);
        let stops = self.stopped_by.iter().filter(|(of, _)| may_all || **of == own);
        stops.filter(|(of, counter)| seen.get(of) >= Some(counter)).map(|(of, _)| *of).collect()
    }

    fn resume(&mut self, by: u8, seen: &BTreeMap<KeyId, u64>, cycle: u64) {
        let was_stopped = !self.stopped_by.is_empty();
        let lifted = self.lifted_by(by, seen);
        self.stopped_by.retain(|of, _| !lifted.contains(of));
        if self.stopped_by.is_empty() && was_stopped {
            self.lifted = cycle;
        }
    }
}

/// What is to become of a request.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// It takes effect.
    Accepted,
    /// It has expired, or its counter did not rise.
    Stale,
    /// Its counter is taken, and nothing else.
    NotPermitted,
}

fn names(targets: &Selection, target: &TargetId) -> bool {
    match targets {
        Selection::All(_) => true,
        Selection::These(names) => names.contains(target),
    }
}
