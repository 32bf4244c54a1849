//! The decision itself: what an agent does next, given what it holds, what it was shown and what it reads on
//! its clocks and at its target. The rules are numbered in the module above.
//!
//! It touches nothing and remembers nothing. Invariant: [`Step::Apply`] comes only after every rule passed.

use std::fmt;

use super::state::{AgentState, Aim, Equivocation, HeadMark, Progress};
use crate::{
    knowledge::{
        certified::{CertificateError, Certified},
        head::{Head, HeadEntry, Mode},
        plan::{DesiredState, Limits, OnStale, Plan},
        receipt::{Outcome, Refusal},
        root::VerifiedRoot,
    },
    types::{Cycle, Digest, Epoch, HeadNumber, Millis, Shard, TargetId, UnixMillis, from_strict_json},
};

/// What the agent was told by hand and trusts.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The pinned root.
    pub root: VerifiedRoot,
    /// The target it is responsible for.
    pub target: TargetId,
    /// The shard that the target is in.
    pub shard: Shard,
    /// How long the head's number may stand still.
    pub stale_after: Millis,
    /// How far the wall clock may be from the newest head's time.
    pub clock_tolerance: Millis,
}

/// Why a head is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadRefusal {
    /// Rule 1: it is not certified for this cluster and epoch.
    #[error("head: {0}")]
    NotCertified(#[from] CertificateError),
    /// Rule 1: it is for other targets.
    #[error("head: it is of shard {got}, not {expected}")]
    OtherShard {
        /// The shard in it.
        got: Shard,
        /// The agent's shard.
        expected: Shard,
    },
    /// Rule 1: it does not name the target, or names it twice.
    #[error("head: it does not name target {0} exactly once")]
    NotNamed(TargetId),
    /// Rule 2: a newer one was admitted before. This happens with every replica that lags and is no attack.
    #[error("head: number {got} is below {newest}, which was admitted before")]
    GoneBack {
        /// Its number.
        got: HeadNumber,
        /// The newest admitted.
        newest: HeadNumber,
    },
    /// Rule 2: it contradicts the newest that was admitted.
    #[error("head: two different heads have the number {number}")]
    Equivocation {
        /// The number of both.
        number: HeadNumber,
        /// Both.
        proof: Box<Equivocation>,
    },
}

/// Rules 1 and 2 for a head.
///
/// # Errors
/// [`HeadRefusal`] names the rule that it breaks.
pub fn admit_head(
    trust: &Trust,
    newest: Option<&HeadMark>,
    envelope: &[u8],
) -> Result<Certified<Head>, HeadRefusal> {
    let head = Certified::<Head>::verify(envelope, trust.root.committee())?;
    let document = head.document();
    if document.shard != trust.shard {
        return Err(HeadRefusal::OtherShard { got: document.shard, expected: trust.shard });
    }
    if entry_of(document, &trust.target).is_none() {
        return Err(HeadRefusal::NotNamed(trust.target.clone()));
    }
    let Some(newest) = newest else { return Ok(head) };
    let (got, known) = ((document.epoch, document.number), (newest.epoch, newest.number));
    if got < known {
        return Err(HeadRefusal::GoneBack { got: document.number, newest: newest.number });
    }
    if got == known && head.digest() != newest.digest {
        let proof = Equivocation { kept: newest.envelope.clone(), other: head.envelope().clone() };
        return Err(HeadRefusal::Equivocation { number: newest.number, proof: Box::new(proof) });
    }
    Ok(head)
}

/// The head with the highest (epoch, number) among admitted ones of different replicas.
///
/// # Errors
/// [`Equivocation`] when two with the same number differ.
pub fn newest_head(heads: Vec<Certified<Head>>) -> Result<Option<Certified<Head>>, Box<Equivocation>> {
    let rank = |head: &Certified<Head>| (head.document().epoch, head.document().number);
    let mut newest: Option<Certified<Head>> = None;
    for head in heads {
        match &newest {
            Some(known) if rank(known) == rank(&head) && known.digest() != head.digest() => {
                let (kept, other) = (known.envelope().clone(), head.envelope().clone());
                return Err(Box::new(Equivocation { kept, other }));
            }
            Some(known) if rank(known) >= rank(&head) => {}
            Some(_) | None => newest = Some(head),
        }
    }
    Ok(newest)
}

/// The target's line in a head that names it exactly once.
pub(crate) fn entry_of<'a>(head: &'a Head, target: &TargetId) -> Option<&'a HeadEntry> {
    let mut named = head.targets.iter().filter(|entry| entry.target == *target);
    named.next().filter(|_| named.next().is_none())
}

/// When the head's number last rose, on the monotonic clock (rule 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    newest: Option<(Epoch, HeadNumber)>,
    risen_at: Millis,
}

impl Freshness {
    /// Starts with the newest head known from before, which must rise within the time from now.
    #[must_use]
    pub fn start(newest: Option<&HeadMark>, monotonic: Millis) -> Self {
        Self { newest: newest.map(|mark| (mark.epoch, mark.number)), risen_at: monotonic }
    }

    /// Takes notice of an admitted head.
    pub fn notice(&mut self, head: &Certified<Head>, monotonic: Millis) {
        let rank = Some((head.document().epoch, head.document().number));
        if rank > self.newest {
            *self = Self { newest: rank, risen_at: monotonic };
        }
    }

    /// Whether the number has stood still for longer than it may.
    #[must_use]
    pub fn is_stale(&self, stale_after: Millis, monotonic: Millis) -> bool {
        monotonic.as_millis() > self.risen_at.plus(stale_after).as_millis()
    }
}

/// What the agent sees at one moment.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The newest admitted head of this run; none before the first.
    pub head: Option<&'a Certified<Head>>,
    /// The envelope that a replica sent for the head's plan, when it was asked for.
    pub plan: Option<&'a [u8]>,
    /// What was read from the target, when it was asked for.
    pub observed: Option<DesiredState>,
    /// When the head's number last rose.
    pub freshness: Freshness,
    /// The monotonic clock.
    pub monotonic: Millis,
    /// The wall clock.
    pub wall: UnixMillis,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something changes.
    Wait(Idle),
    /// Ask the replicas for the plan with this sequence number and judge again.
    Fetch {
        /// The plan's sequence number.
        seq: Cycle,
        /// Its digest.
        digest: Digest,
    },
    /// Read the target and judge again.
    Read(Box<Certified<Plan>>),
    /// What was fetched is not the head's plan: nothing is done with it.
    Discard(DocumentRefusal),
    /// Two certified documents contradict each other: keep both and stop.
    Stop(Box<Equivocation>),
    /// Make the intention durable, set the target, read it back.
    Apply {
        /// The plan.
        plan: Box<Certified<Plan>>,
        /// The target's state before.
        before: DesiredState,
        /// Which of the plan's states.
        aim: Aim,
    },
    /// The target is as the plan wants it: only the receipt is due.
    AlreadyThere {
        /// The plan.
        plan: Box<Certified<Plan>>,
        /// The target's state.
        state: DesiredState,
    },
    /// The plan is to be taken back and the target is there already: only the receipt is due.
    AlreadyBack {
        /// The plan.
        plan: Box<Certified<Plan>>,
        /// The target's state.
        state: DesiredState,
    },
    /// The plan is certified and may still not be carried out: the receipt says why.
    Refuse {
        /// The plan.
        plan: Box<Certified<Plan>>,
        /// Why.
        why: Refusal,
    },
}

/// Why there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The agent has stopped for good.
    Stopped,
    /// A change of the target is not settled: it must be read first.
    Unsettled,
    /// No head was admitted yet.
    NoHead,
    /// Heads are stale; what is applied stays.
    Stale,
    /// Heads are stale, and the newest one does not let anything be taken back; what is applied stays.
    StaleOnHold,
    /// The wall clock is too far from the head's time.
    ClockFault,
    /// The root is not to be trusted any longer.
    RootExpired,
    /// The target has no plan.
    NoPlan,
    /// The head's plan was dealt with.
    UpToDate,
    /// The quorum holds the target.
    Hold,
    /// The plan is withdrawn.
    Revoked,
    /// The plan's time has not come.
    TooEarly,
    /// The plan was taken back while heads were stale and has expired since.
    ExpiredSince,
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped: the quorum contradicted itself",
            Self::Unsettled => "the last change is not settled: the target cannot be read",
            Self::NoHead => "no head yet",
            Self::Stale => "heads are stale: applying nothing new",
            Self::StaleOnHold => "heads are stale and the newest one holds the target: leaving it as it is",
            Self::ClockFault => "the clock is too far from the quorum's: applying nothing new",
            Self::RootExpired => "the root has expired: applying nothing new",
            Self::NoPlan => "the target has no plan",
            Self::UpToDate => "up to date",
            Self::Hold => "on hold: applying nothing new",
            Self::Revoked => "the plan is withdrawn: applying nothing",
            Self::TooEarly => "the plan's time has not come",
            Self::ExpiredSince => "the plan was taken back and has expired since",
        })
    }
}

/// Why a plan's envelope is not what the head names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentRefusal {
    /// Rule 5: the head names an older plan than the one taken up.
    #[error("head: it names plan {got} after plan {newest} was taken up")]
    SequenceGoneBack {
        /// The head's.
        got: Cycle,
        /// The newest taken up.
        newest: Cycle,
    },
    /// Rule 1: it is not certified for this cluster and epoch.
    #[error("plan: {0}")]
    NotCertified(#[from] CertificateError),
    /// Rule 7: it is another plan than the head's.
    #[error("plan: its digest is {got}, the head names {expected}")]
    OtherPlan {
        /// Its digest.
        got: Digest,
        /// The head's.
        expected: Digest,
    },
    /// Rule 7: its own fields contradict the head or each other.
    #[error("plan: {0}")]
    Fields(&'static str),
}

/// Rules 3 to 8, and what follows from them.
#[must_use]
pub fn judge(trust: &Trust, state: &AgentState, now: &Situation<'_>) -> Step {
    if state.equivocation().is_some() {
        return Step::Wait(Idle::Stopped);
    }
    let progress = state.plan().map(|mark| &mark.progress);
    if let Some(Progress::Applying { .. }) = progress {
        return Step::Wait(Idle::Unsettled);
    }
    if now.freshness.is_stale(trust.stale_after, now.monotonic) {
        return when_stale(trust, state, now.observed);
    }
    let Some(head) = now.head else { return Step::Wait(Idle::NoHead) };
    if let Some(fault) = clock_fault(trust, head.document(), now.wall) {
        return Step::Wait(fault);
    }
    match sequence(trust, state, head) {
        Ok(entry) => judge_plan(trust, state, now, head, entry),
        Err(step) => step,
    }
}

/// Rule 3: the applied plan's `on_stale` mode.
fn when_stale(trust: &Trust, state: &AgentState, observed: Option<DesiredState>) -> Step {
    let Some(mark) = state.plan() else { return Step::Wait(Idle::Stale) };
    let in_force = match &mark.progress {
        Progress::Done { outcome: Outcome::Applied {} | Outcome::Noop {} } => true,
        Progress::Done { outcome: Outcome::Refused { .. } | Outcome::Reverted {} | Outcome::Partial {} }
        | Progress::Applying { .. }
        | Progress::Interrupted {}
        | Progress::RolledBack {} => false,
    };
    let document = mark.plan.document();
    match (document.on_stale, in_force) {
        (OnStale::Hold, _) | (OnStale::Rollback, false) => return Step::Wait(Idle::Stale),
        (OnStale::Rollback, true) => {}
    }
    // A stop outlasts the silence after it: who stopped the target wants nobody to change it.
    match newest_mode(trust, state) {
        Some(Mode::Act) => {}
        Some(Mode::Hold | Mode::Revoked) | None => return Step::Wait(Idle::StaleOnHold),
    }
    let plan = Box::new(mark.plan.clone());
    match observed {
        None => Step::Read(plan),
        Some(state) if state == document.rollback => Step::AlreadyBack { plan, state },
        Some(before) if before == document.desired => Step::Apply { plan, before, aim: Aim::Rollback },
        // Somebody who is not cut off has moved the target on since: another agent by a newer plan, or a person.
        Some(_) => Step::Refuse { plan, why: Refusal::Precondition },
    }
}

/// What the newest admitted head lets an agent do, also after a restart. It was verified when it was admitted.
fn newest_mode(trust: &Trust, state: &AgentState) -> Option<Mode> {
    let head: Head = from_strict_json(state.head()?.envelope.unverified_body()).ok()?;
    entry_of(&head, &trust.target).map(|entry| entry.mode)
}

/// Rule 4, and the root's own end.
fn clock_fault(trust: &Trust, head: &Head, wall: UnixMillis) -> Option<Idle> {
    let apart = wall.since(head.time).max(head.time.since(wall));
    if apart > trust.clock_tolerance {
        Some(Idle::ClockFault)
    } else if wall.max(head.time) > trust.root.root().not_after {
        Some(Idle::RootExpired)
    } else {
        None
    }
}

/// Rules 5 and 6: the entry, when its plan is to be looked at.
fn sequence<'a>(trust: &Trust, state: &AgentState, head: &'a Certified<Head>) -> Result<&'a HeadEntry, Step> {
    let wait = |idle| Err(Step::Wait(idle));
    let Some(entry) = entry_of(head.document(), &trust.target) else { return wait(Idle::NoPlan) };
    if let Some(mark) = state.plan() {
        let taken = mark.plan.document().seq;
        if entry.seq < taken {
            return Err(Step::Discard(DocumentRefusal::SequenceGoneBack { got: entry.seq, newest: taken }));
        }
        if entry.seq == taken && entry.plan != mark.plan.digest() {
            let (kept, other) = (mark.plan.envelope().clone(), head.envelope().clone());
            return Err(Step::Stop(Box::new(Equivocation { kept, other })));
        }
        if entry.seq == taken && matches!(mark.progress, Progress::Done { .. }) {
            return wait(Idle::UpToDate);
        }
    }
    if entry.seq == Cycle::ZERO {
        return wait(Idle::NoPlan);
    }
    match entry.mode {
        Mode::Act => Ok(entry),
        Mode::Hold => wait(Idle::Hold),
        Mode::Revoked => wait(Idle::Revoked),
    }
}

/// Rules 7 and 8.
fn judge_plan(
    trust: &Trust,
    state: &AgentState,
    now: &Situation<'_>,
    head: &Certified<Head>,
    entry: &HeadEntry,
) -> Step {
    let mark = state.plan().filter(|mark| mark.plan.digest() == entry.plan);
    let plan = match (mark, now.plan) {
        (Some(mark), _) => mark.plan.clone(),
        (None, None) => return Step::Fetch { seq: entry.seq, digest: entry.plan },
        (None, Some(envelope)) => match Certified::<Plan>::verify(envelope, trust.root.committee()) {
            Ok(plan) => plan,
            Err(error) => return Step::Discard(error.into()),
        },
    };
    if plan.digest() != entry.plan {
        let (got, expected) = (plan.digest(), entry.plan);
        return Step::Discard(DocumentRefusal::OtherPlan { got, expected });
    }
    let document = plan.document();
    if let Err(what) = own_fields(document, entry) {
        return Step::Discard(DocumentRefusal::Fields(what));
    }
    let taken_back = mark.is_some_and(|mark| mark.progress == Progress::RolledBack {});
    let refuse = |why| Step::Refuse { plan: Box::new(plan.clone()), why };
    if !keeps_limits(document) {
        return refuse(Refusal::Limits);
    }
    if head.document().time < document.not_before {
        return Step::Wait(Idle::TooEarly);
    }
    if now.wall.max(head.document().time) > document.expires_at {
        // A plan that was in force already has had its receipt.
        return if taken_back { Step::Wait(Idle::ExpiredSince) } else { refuse(Refusal::Expired) };
    }
    let expected = if taken_back { document.rollback } else { document.preconditions.state };
    match now.observed {
        None => Step::Read(Box::new(plan)),
        Some(state) if state == document.desired => Step::AlreadyThere { plan: Box::new(plan), state },
        Some(before) if before == expected => Step::Apply { plan: Box::new(plan), before, aim: Aim::Desired },
        Some(_) => refuse(Refusal::Precondition),
    }
}

fn own_fields(plan: &Plan, entry: &HeadEntry) -> Result<(), &'static str> {
    if plan.target != entry.target {
        Err("it is for another target")
    } else if plan.seq != entry.seq {
        Err("its sequence number is not the head's")
    } else {
        times_in_order(plan)
    }
}

/// Whether the plan's times follow each other; the error says which do not.
pub(crate) fn times_in_order(plan: &Plan) -> Result<(), &'static str> {
    if plan.not_before < plan.issued_at {
        Err("it may be applied before it was issued")
    } else if plan.expires_at < plan.not_before {
        Err("it expires before it may be applied")
    } else {
        Ok(())
    }
}

/// Whether the plan's states are of one kind, and within the bounds it carries. Its rollback may also be the
/// very state it was decided on, wherever that lay.
pub(crate) fn keeps_limits(plan: &Plan) -> bool {
    let (from, to, back) = (plan.preconditions.state, plan.desired, plan.rollback);
    match plan.limits {
        Limits::Slots { min, max, max_step } => {
            let inside = |slots| (min..=max).contains(&slots);
            if let DesiredState::Slots { slots: from } = from
                && let DesiredState::Slots { slots: to } = to
                && let DesiredState::Slots { slots: back } = back
            {
                inside(to) && from.abs_diff(to) <= max_step && (back == from || inside(back))
            } else {
                false
            }
        }
        Limits::Switch {} => [from, to, back].iter().all(|state| match state {
            DesiredState::Paused {} | DesiredState::Running {} => true,
            DesiredState::Slots { .. } | DesiredState::Retried { .. } => false,
        }),
        Limits::Tasks { within, .. } => {
            if let DesiredState::Retried { until: before, .. } = from
                && let DesiredState::Retried { after, until } = to
            {
                before <= after && after < until && until.since(after) <= within && back == from
            } else {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
