//! What an agent remembers: its high-water marks, the plan it took up and how far that is, and the receipts
//! that no replica has accepted yet. Where it is kept is not decided here.
//!
//! Invariant: marks only rise, and the plan in the state has been verified, also after it was read back.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::{
    knowledge::{
        certified::{CertificateError, Certified},
        head::Head,
        plan::{DesiredState, Plan},
        receipt::{Outcome, RECEIPT_TYPE, Receipt},
    },
    types::{
        Committee, Digest, Envelope, Epoch, HeadNumber, SecretKey, Shard, StrictJsonError, TargetId,
        UnixMillis, from_strict_json, pae,
    },
};

/// How many receipts wait for replicas at most. A plan comes at most every few seconds, so this is minutes
/// without any replica; then the oldest is given up, because the newest tells the target's state.
pub(super) const RECEIPTS_KEPT: usize = 64;

/// The newest head that was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadMark {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its shard.
    pub shard: Shard,
    /// Its number.
    pub number: HeadNumber,
    /// SHA-256 of its body.
    pub digest: Digest,
    /// Itself, as evidence should another with its number appear.
    pub envelope: Envelope,
}

impl HeadMark {
    /// The mark that a head sets.
    #[must_use]
    pub fn of(head: &Certified<Head>) -> Self {
        let document = head.document();
        Self {
            epoch: document.epoch,
            shard: document.shard,
            number: document.number,
            digest: head.digest(),
            envelope: head.envelope().clone(),
        }
    }
}

/// Which of a plan's two states the target is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// What the plan wants.
    Desired,
    /// What takes it back, while heads are stale.
    Rollback,
    /// What takes it back, because the target landed elsewhere.
    Revert,
}

impl Aim {
    /// The state in the plan.
    #[must_use]
    pub const fn of(self, plan: &Plan) -> DesiredState {
        match self {
            Self::Desired => plan.desired,
            Self::Rollback | Self::Revert => plan.rollback,
        }
    }
}

/// How far the plan is that was taken up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Progress {
    /// The target is being set; whether it was must be read from it.
    Applying {
        /// The target's state before.
        before: DesiredState,
        /// Where it is going.
        aim: Aim,
    },
    /// The target was not changed, and the plan is to be judged anew.
    Interrupted {},
    /// There is nothing left to do.
    Done {
        /// What became of it.
        outcome: Outcome,
    },
    /// It was applied and, while heads were stale, taken back.
    RolledBack {},
}

/// How often a plan was put in force: once, and once more each time that fresh heads put it in force again after
/// it had been taken back. What repeats one change has the same number as the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(u32);

impl Attempt {
    /// The first one.
    pub const FIRST: Self = Self(1);

    /// A file without a number is of the first one.
    const fn is_first(&self) -> bool {
        self.0 == Self::FIRST.0
    }

    /// The one after it; it saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Default for Attempt {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The plan with the highest sequence number that was taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanMark {
    /// The plan.
    pub plan: Certified<Plan>,
    /// How far it is.
    pub progress: Progress,
    /// How often it was put in force.
    pub attempt: Attempt,
}

/// Two certified documents that contradict each other: proof that more replicas than the committee bears
/// have signed falsely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivocation {
    /// The document that came first.
    pub kept: Envelope,
    /// The one that contradicts it.
    pub other: Envelope,
}

impl Equivocation {
    /// Names the pair: SHA-256 of the two bodies' digests.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let parts = [&self.kept, &self.other].map(|envelope| Digest::of(envelope.unverified_body()));
        Digest::of(&parts.map(|digest| *digest.as_bytes()).concat())
    }
}

/// What the target turned out to be in after it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is where it was to go.
    Reached,
    /// It is where it was before.
    Unchanged,
    /// It is somewhere else.
    Elsewhere,
}

impl Settlement {
    /// Compares what is read from the target with where it came from and where it was to go.
    #[must_use]
    pub fn of(before: DesiredState, wanted: DesiredState, observed: DesiredState) -> Self {
        if observed == wanted {
            Self::Reached
        } else if observed == before {
            Self::Unchanged
        } else {
            Self::Elsewhere
        }
    }
}

/// Everything an agent remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentState {
    cluster: Digest,
    target: TargetId,
    head: Option<HeadMark>,
    plan: Option<PlanMark>,
    receipts: u64,
    lost_receipts: u64,
    refused_documents: u64,
    outbox: Vec<Envelope>,
    equivocation: Option<Equivocation>,
}

/// Why bytes are not this agent's state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// They are no state at all.
    #[error("the state is malformed: {0}")]
    Malformed(#[from] StrictJsonError),
    /// It is the state of another agent.
    #[error("the state belongs to target {target:?} of cluster {cluster}")]
    Foreign {
        /// Whose it is.
        target: String,
        /// Of which cluster.
        cluster: Digest,
    },
    /// The plan in it does not verify.
    #[error("the plan in the state does not verify: {0}")]
    Plan(#[from] CertificateError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateRecord {
    v: u32,
    cluster: Digest,
    target: TargetId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<HeadMark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<PlanRecord>,
    receipts: u64,
    /// Files of earlier versions have none.
    #[serde(default)]
    lost_receipts: u64,
    refused_documents: u64,
    outbox: Vec<Envelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    equivocation: Option<Equivocation>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanRecord {
    envelope: Envelope,
    progress: Progress,
    #[serde(default, skip_serializing_if = "Attempt::is_first")]
    attempt: Attempt,
}

impl AgentState {
    /// The memory of an agent that has done nothing yet.
    #[must_use]
    pub const fn new(cluster: Digest, target: TargetId) -> Self {
        Self {
            cluster,
            target,
            head: None,
            plan: None,
            receipts: 0,
            lost_receipts: 0,
            refused_documents: 0,
            outbox: Vec::new(),
            equivocation: None,
        }
    }

    /// Reads what [`Self::to_bytes`] wrote for this target, and verifies the plan in it again.
    ///
    /// # Errors
    /// [`StateError`] when the bytes are malformed, another agent's, or hold a plan that does not verify.
    pub fn from_bytes(bytes: &[u8], committee: &Committee, target: &TargetId) -> Result<Self, StateError> {
        let record: StateRecord = from_strict_json(bytes)?;
        if record.cluster != committee.cluster() || record.target != *target {
            return Err(StateError::Foreign { target: record.target.into(), cluster: record.cluster });
        }
        let verified = |plan: PlanRecord| {
            let verified = Certified::verify_envelope(plan.envelope, committee)?;
            Ok::<_, StateError>(PlanMark { plan: verified, progress: plan.progress, attempt: plan.attempt })
        };
        Ok(Self {
            cluster: record.cluster,
            target: record.target,
            head: record.head,
            plan: record.plan.map(verified).transpose()?,
            receipts: record.receipts,
            lost_receipts: record.lost_receipts,
            refused_documents: record.refused_documents,
            outbox: record.outbox,
            equivocation: record.equivocation,
        })
    }

    /// The bytes to keep.
    ///
    /// # Panics
    /// Never: the fields are integers and strings.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let record = StateRecord {
            v: 1,
            cluster: self.cluster,
            target: self.target.clone(),
            head: self.head.clone(),
            plan: self.plan.as_ref().map(|mark| PlanRecord {
                envelope: mark.plan.envelope().clone(),
                progress: mark.progress.clone(),
                attempt: mark.attempt,
            }),
            receipts: self.receipts,
            lost_receipts: self.lost_receipts,
            refused_documents: self.refused_documents,
            outbox: self.outbox.clone(),
            equivocation: self.equivocation.clone(),
        };
        serde_json::to_vec(&record).expect("integers and strings are valid JSON")
    }

    /// The newest head that was admitted.
    #[must_use]
    pub const fn head(&self) -> Option<&HeadMark> {
        self.head.as_ref()
    }

    /// The newest plan that was taken up.
    #[must_use]
    pub const fn plan(&self) -> Option<&PlanMark> {
        self.plan.as_ref()
    }

    /// Why the agent has stopped for good, when it has.
    #[must_use]
    pub const fn equivocation(&self) -> Option<&Equivocation> {
        self.equivocation.as_ref()
    }

    /// Receipts that are to be sent, oldest first.
    #[must_use]
    pub fn outbox(&self) -> &[Envelope] {
        &self.outbox
    }

    /// How many receipts were ever given up because too many waited.
    #[must_use]
    pub const fn lost_receipts(&self) -> u64 {
        self.lost_receipts
    }

    /// Raises the high-water mark of heads. Returns whether it rose.
    pub fn raise_head(&mut self, head: &Certified<Head>) -> bool {
        let rank = (head.document().epoch, head.document().number);
        if self.head.as_ref().is_some_and(|mark| (mark.epoch, mark.number) >= rank) {
            return false;
        }
        self.head = Some(HeadMark::of(head));
        true
    }

    /// Counts a document that failed verification, for the next receipt.
    pub const fn count_refused_document(&mut self) {
        self.refused_documents = self.refused_documents.saturating_add(1);
    }

    /// Stops, until [`Self::clear`].
    pub fn stop(&mut self, equivocation: Equivocation) {
        self.equivocation = Some(equivocation);
    }

    /// Takes back a stop, because a person has looked into the contradiction with this digest. All marks stay,
    /// so the agent goes on only once the quorum has gone past the number that it contradicted itself under.
    /// Returns whether that was the contradiction.
    pub fn clear(&mut self, contradiction: Digest) -> bool {
        self.equivocation.take_if(|kept| kept.digest() == contradiction).is_some()
    }

    /// Takes a plan up: the target is about to be set. To be durable before it is.
    pub fn begin(&mut self, plan: Certified<Plan>, before: DesiredState, aim: Aim) {
        self.mark_plan(plan, Progress::Applying { before, aim });
    }

    fn mark_plan(&mut self, plan: Certified<Plan>, progress: Progress) {
        let known = self.plan.as_ref().filter(|mark| mark.plan.digest() == plan.digest());
        let attempt = match known {
            None => Attempt::FIRST,
            Some(PlanMark { progress: Progress::RolledBack {}, attempt, .. }) => attempt.next(),
            Some(PlanMark { attempt, .. }) => *attempt,
        };
        self.plan = Some(PlanMark { plan, progress, attempt });
    }

    /// Notes that the target was left as it was: a plan that was being applied is judged anew, and one that
    /// was being taken back is still in force.
    pub fn left_unchanged(&mut self) {
        if let Some(mark) = &mut self.plan
            && let Progress::Applying { aim, .. } = mark.progress
        {
            mark.progress = match aim {
                Aim::Desired => Progress::Interrupted {},
                Aim::Rollback | Aim::Revert => Progress::Done { outcome: Outcome::Applied {} },
            };
        }
    }

    /// Notes what became of a plan and puts the signed receipt into the outbox. To be durable before it is
    /// sent.
    pub fn conclude(
        &mut self,
        plan: Certified<Plan>,
        progress: Progress,
        account: Account,
        key: &SecretKey,
    ) -> &Envelope {
        self.receipts = self.receipts.saturating_add(1);
        if self.outbox.len() == RECEIPTS_KEPT {
            self.outbox.remove(0);
            self.lost_receipts = self.lost_receipts.saturating_add(1);
        }
        let receipt = Receipt {
            v: 1,
            cluster: self.cluster,
            target: self.target.clone(),
            seq: plan.document().seq,
            plan: plan.digest(),
            outcome: account.outcome,
            before: account.before,
            after: account.after,
            at: account.at,
            counter: self.receipts,
            refused_documents: self.refused_documents,
            lost_receipts: self.lost_receipts,
        };
        self.refused_documents = 0;
        self.mark_plan(plan, progress);
        self.outbox.push(signed(receipt.to_bytes(), key));
        self.outbox.last().expect("one was just put in")
    }

    /// Signs the receipts that wait with this key, where another one has signed: after a rotation replicas refuse
    /// the old key, and one refused receipt holds up all newer ones. Returns whether there were any.
    pub fn sign_outbox(&mut self, key: &SecretKey) -> bool {
        let id = key.public().id();
        let mut changed = false;
        for envelope in &mut self.outbox {
            if !matches!(envelope.signatures(), [(signer, _)] if *signer == id) {
                *envelope = signed(envelope.unverified_body().to_vec(), key);
                changed = true;
            }
        }
        changed
    }

    /// Notes that replicas have accepted the oldest receipt.
    pub fn receipt_accepted(&mut self) {
        if !self.outbox.is_empty() {
            self.outbox.remove(0);
        }
    }
}

fn signed(receipt: Vec<u8>, key: &SecretKey) -> Envelope {
    let signature = key.sign(&pae(RECEIPT_TYPE, &receipt));
    Envelope::new(RECEIPT_TYPE, receipt, vec![(key.public().id(), signature)])
}

/// What a receipt tells of a plan beyond the plan itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What became of the plan.
    pub outcome: Outcome,
    /// The target's state before.
    pub before: DesiredState,
    /// The target's state after.
    pub after: DesiredState,
    /// The agent's wall clock.
    pub at: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::{
        Account, AgentState, Aim, Attempt, Equivocation, Progress, RECEIPTS_KEPT, Settlement, StateError,
    };
    use crate::{
        knowledge::{
            fixtures::{agent_key, certified_head, certified_plan, committee, head, plan, target},
            head::Mode,
            plan::DesiredState,
            receipt::{Outcome, VerifiedReceipt},
        },
        types::{Digest, SecretKey, TargetId, UnixMillis},
    };

    const SLOTS: fn(u32) -> DesiredState = |slots| DesiredState::Slots { slots };

    fn new() -> AgentState {
        AgentState::new(committee().cluster(), target())
    }

    fn account() -> Account {
        Account {
            outcome: Outcome::Applied {},
            before: SLOTS(3),
            after: SLOTS(6),
            at: UnixMillis::new(1_002_000),
        }
    }

    fn conclude(state: &mut AgentState) -> VerifiedReceipt {
        let progress = Progress::Done { outcome: Outcome::Applied {} };
        let envelope = state.conclude(certified_plan(&plan()), progress, account(), &agent_key()).to_json();
        VerifiedReceipt::verify(&envelope, &agent_key().public(), committee().cluster())
            .expect("the receipt is signed")
    }

    #[test]
    fn everything_that_is_remembered_reads_back() {
        let mut state = new();
        let read = |state: &AgentState| AgentState::from_bytes(&state.to_bytes(), &committee(), &target());
        assert_eq!(read(&state), Ok(state.clone()));
        assert!(state.raise_head(&certified_head(&head(7, Mode::Act))));
        state.count_refused_document();
        state.begin(certified_plan(&plan()), SLOTS(3), Aim::Desired);
        assert_eq!(read(&state), Ok(state.clone()));
        state.left_unchanged();
        assert_eq!(read(&state), Ok(state.clone()));
        conclude(&mut state);
        assert_eq!(read(&state), Ok(state.clone()));
        let envelope = certified_plan(&plan()).envelope().clone();
        state.stop(Equivocation { kept: envelope.clone(), other: envelope });
        assert_eq!(read(&state), Ok(state.clone()));
    }

    #[test]
    fn a_stop_is_taken_back_only_for_the_contradiction_it_was_for_and_keeps_the_marks() {
        let mut state = new();
        assert!(state.raise_head(&certified_head(&head(7, Mode::Act))));
        conclude(&mut state);
        let before = state.clone();
        let proof = Equivocation {
            kept: certified_head(&head(7, Mode::Act)).envelope().clone(),
            other: certified_head(&head(7, Mode::Hold)).envelope().clone(),
        };
        state.stop(proof.clone());
        assert!(!state.clear(Digest::ZERO));
        assert_eq!(state.equivocation(), Some(&proof));
        assert!(state.clear(proof.digest()));
        assert_eq!(state, before);
        assert!(!state.clear(proof.digest()));
    }

    #[test]
    fn another_agents_state_and_a_damaged_plan_are_refused() {
        let mut state = new();
        state.begin(certified_plan(&plan()), SLOTS(3), Aim::Desired);
        let other = TargetId::new("other").expect("a valid name");
        let read = AgentState::from_bytes(&state.to_bytes(), &committee(), &other);
        assert!(matches!(read, Err(StateError::Foreign { .. })));
        let text = String::from_utf8(state.to_bytes()).expect("JSON is UTF-8");
        let id = committee().iter().next().expect("it has replicas").1.id().to_string();
        let unknown = text.replace(&id, &Digest::ZERO.to_string());
        assert!(AgentState::from_bytes(unknown.as_bytes(), &committee(), &target()).is_err());
        assert!(AgentState::from_bytes(b"{}", &committee(), &target()).is_err());
    }

    #[test]
    fn the_mark_of_heads_only_rises() {
        let mut state = new();
        assert!(state.raise_head(&certified_head(&head(7, Mode::Act))));
        assert!(!state.raise_head(&certified_head(&head(7, Mode::Hold))));
        assert!(!state.raise_head(&certified_head(&head(6, Mode::Act))));
        assert_eq!(state.head().map(|mark| mark.number.number()), Some(7));
    }

    #[test]
    fn receipts_are_counted_and_tell_the_refused_documents_once() {
        let mut state = new();
        state.count_refused_document();
        state.count_refused_document();
        let first = conclude(&mut state).receipt().clone();
        let second = conclude(&mut state).receipt().clone();
        assert_eq!((first.counter, first.refused_documents), (1, 2));
        assert_eq!((second.counter, second.refused_documents), (2, 0));
        assert_eq!(state.outbox().len(), 2);
        state.receipt_accepted();
        assert_eq!(state.outbox().len(), 1);
    }

    #[test]
    fn the_outbox_has_a_bound_keeps_the_newest_and_tells_how_many_it_lost() {
        let mut state = new();
        for number in 0..RECEIPTS_KEPT + 3 {
            let told = conclude(&mut state).receipt().lost_receipts;
            assert_eq!(told, (number + 1).saturating_sub(RECEIPTS_KEPT) as u64);
        }
        assert_eq!((state.outbox().len(), state.lost_receipts()), (RECEIPTS_KEPT, 3));
        let read = AgentState::from_bytes(&state.to_bytes(), &committee(), &target());
        assert_eq!(read.as_ref().map(AgentState::lost_receipts), Ok(3));
        let newest = state.outbox().last().expect("it is full").to_json();
        let newest = VerifiedReceipt::verify(&newest, &agent_key().public(), committee().cluster());
        assert_eq!(newest.map(|newest| newest.receipt().counter), Ok(RECEIPTS_KEPT as u64 + 3));
    }

    #[test]
    fn receipts_that_wait_are_signed_anew_when_the_key_has_changed() {
        let mut state = new();
        let receipts = [conclude(&mut state), conclude(&mut state)].map(|signed| signed.receipt().clone());
        let before = state.clone();
        assert!(!state.sign_outbox(&agent_key()));
        assert_eq!(state, before);
        let rotated = SecretKey::from_seed(&[77; 32]);
        assert!(state.sign_outbox(&rotated));
        let waiting = state.outbox().iter().map(|envelope| {
            let verified =
                VerifiedReceipt::verify(&envelope.to_json(), &rotated.public(), committee().cluster());
            verified.expect("the new key has signed").receipt().clone()
        });
        assert_eq!(waiting.collect::<Vec<_>>(), receipts);
    }

    #[test]
    fn an_attempt_lasts_until_a_plan_that_was_taken_back_is_in_force_again() {
        let done = || Progress::Done { outcome: Outcome::Applied {} };
        let settle = |state: &mut AgentState, progress| {
            state.conclude(certified_plan(&plan()), progress, account(), &agent_key());
        };
        let attempt = |state: &AgentState| state.plan().map(|mark| mark.attempt);
        let (first, second) = (Some(Attempt::FIRST), Some(Attempt::FIRST.next()));
        let again: [fn(&mut AgentState); 2] = [
            |state| state.begin(certified_plan(&plan()), SLOTS(3), Aim::Desired),
            // The target was there already, so that nothing is to be set before the next rollback.
            |state| drop(conclude(state)),
        ];
        for again in again {
            let mut state = new();
            for _ in 0..2 {
                state.begin(certified_plan(&plan()), SLOTS(3), Aim::Desired);
                assert_eq!(attempt(&state), first);
                state.left_unchanged();
            }
            settle(&mut state, done());
            state.begin(certified_plan(&plan()), SLOTS(6), Aim::Rollback);
            settle(&mut state, Progress::RolledBack {});
            assert_eq!(attempt(&state), first);
            again(&mut state);
            assert_eq!(attempt(&state), second);
            let read = AgentState::from_bytes(&state.to_bytes(), &committee(), &target());
            assert_eq!(read.as_ref().map(attempt), Ok(second));
        }
    }

    #[test]
    fn where_the_target_landed_is_told_by_reading_it() {
        for (observed, expected) in
            [(6, Settlement::Reached), (3, Settlement::Unchanged), (5, Settlement::Elsewhere)]
        {
            assert_eq!(Settlement::of(SLOTS(3), SLOTS(6), SLOTS(observed)), expected);
        }
    }
}
