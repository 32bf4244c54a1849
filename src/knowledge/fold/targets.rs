//! Targets: their newest logged plans, their observed states and the heads that tell agents of them (rules
//! P2 to P5, H1, H2, A1, A2, A4, E1). It verifies no signature: what reaches it is verified by its type.

use borsh::{BorshDeserialize, BorshSerialize};
use std::{collections::VecDeque, io, sync::Arc};

use super::{
    effect::Pending,
    operations::{Operations, Permit},
    state::RestoreError,
};
use crate::{
    knowledge::{
        certified::Certified,
        change::{Change, ClosedWindow, Effect, PlanRefusal, ReceiptRefusal, Turn},
        genesis::{Genesis, MAX_PLANS_PER_HOUR, REMEMBERED},
        head::{Head, HeadEntry, Mode, SHARD_TARGETS},
        plan::{DesiredState, Plan},
        policy::{Target, TargetKind},
        receipt::{Outcome, Receipt},
        snapshot::TargetState,
    },
    types::{Committee, Cycle, Digest, HeadNumber, MerkleTree, Millis, Shard, TargetId, UnixMillis},
};

/// How many of a target's newest plans a receipt may be about (A2): an agent that was away answers for its
/// last few plans; older ones no longer tell what the target is.
const ANSWERABLE_PLANS: usize = 16;

/// How many receipts of a target are known by their bodies (A3): as many as an agent's outbox holds, which is what it may
/// sign anew with another key.
const RECEIPTS_HEARD: usize = 64;

/// What the fold knows of one target.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(super) struct TargetRecord {
    state: TargetState,
    /// The newest logged plan with the certificate that was ordered: what agents are served.
    #[borsh(skip)]
    newest: Option<Arc<Certified<Plan>>>,
    /// The newest logged plans, oldest first.
    answerable: VecDeque<(Cycle, Digest)>,
    pending: Option<Pending>,
    /// The newest plan that a receipt was logged for.
    reported: Cycle,
    /// Digests of the newest logged receipts' bodies, oldest first.
    heard: VecDeque<Digest>,
}

/// All targets, in the genesis' order, with the log of plans and the heads' numbers.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    records: Vec<TargetRecord>,
    log: MerkleTree,
    /// The newest head's number, by shard.
    numbers: Vec<HeadNumber>,
    /// The slot that agreed time was in when it last moved.
    slot: Option<u64>,
}

/// What a snapshot says of the targets; the newest plans' envelopes stand beside the records.
type Encoded = (Vec<TargetRecord>, Vec<Option<Vec<u8>>>, MerkleTree, Vec<HeadNumber>, Option<u64>);

impl TargetRecord {
    fn fits(&self, target: &Target, genesis: &Genesis) -> bool {
        let is_newest = match &self.newest {
            Some(newest) => {
                let plan = newest.document();
                plan.target == target.id
                    && (plan.seq, newest.digest()) == (self.state.newest_seq, self.state.newest_plan)
            }
            None => (self.state.newest_seq, self.state.newest_plan) == (Cycle::ZERO, Digest::ZERO),
        };
        let knows_policy =
            self.pending.as_ref().is_none_or(|pending| pending.policy < genesis.policies.len());
        is_newest
            && knows_policy
            && self.answerable.len() <= ANSWERABLE_PLANS
            && self.heard.len() <= RECEIPTS_HEARD
            && self.state.recent_plans.len() <= MAX_PLANS_PER_HOUR as usize
    }
}

impl BorshSerialize for Targets {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let envelope =
            |record: &TargetRecord| record.newest.as_ref().map(|newest| newest.envelope().to_json());
        let envelopes: Vec<Option<Vec<u8>>> = self.records.iter().map(envelope).collect();
        (&self.records, envelopes, &self.log, &self.numbers, self.slot).serialize(writer)
    }
}

impl Targets {
    pub(super) fn new(genesis: &Genesis) -> Self {
        let records: Vec<TargetRecord> = genesis.targets.iter().map(first_record).collect();
        let shards = records.len().div_ceil(SHARD_TARGETS);
        Self { records, log: MerkleTree::default(), numbers: vec![HeadNumber::ZERO; shards], slot: None }
    }

    /// Reads back what was written; checks it against genesis and committee.
    pub(super) fn restore<R: io::Read>(
        reader: &mut R,
        genesis: &Genesis,
        committee: &Committee,
    ) -> Result<Self, RestoreError> {
        let malformed = |error: io::Error| RestoreError::Malformed(error.to_string());
        let (mut records, envelopes, log, numbers, slot): Encoded =
            BorshDeserialize::deserialize_reader(reader).map_err(malformed)?;
        let shards = genesis.targets.len().div_ceil(SHARD_TARGETS);
        if records.len() != genesis.targets.len() || envelopes.len() != records.len() {
            return Err(RestoreError::Unsound("it does not have a line for each target"));
        }
        if numbers.len() != shards || !log.is_sound() {
            return Err(RestoreError::Unsound("it does not have a head's number for each shard, or no log"));
        }
        for ((record, envelope), target) in records.iter_mut().zip(envelopes).zip(&genesis.targets) {
            record.newest = match envelope {
                Some(envelope) => {
                    let certified = Certified::verify(&envelope, committee);
                    let certified = certified.map_err(|error| RestoreError::Malformed(error.to_string()))?;
                    Some(Arc::new(certified))
                }
                None => None,
            };
            if !record.fits(target, genesis) {
                return Err(RestoreError::Unsound("a target's plans are not its newest, or too many"));
            }
        }
        Ok(Self { records, log, numbers, slot })
    }

    /// Of each target that has one, the newest logged plan.
    pub(super) fn newest_plans(&self) -> impl Iterator<Item = &Arc<Certified<Plan>>> {
        self.records.iter().filter_map(|record| record.newest.as_ref())
    }

    /// Each target with its limits and what is known of it at a point of agreed time (P5).
    pub(super) fn states(&self, now: UnixMillis) -> impl Iterator<Item = TargetState> {
        self.records.iter().map(move |record| {
            let mut state = record.state.clone();
            forget(&mut state.recent_plans, now);
            state
        })
    }

    pub(super) fn newest_seq(&self, place: usize) -> Option<Cycle> {
        self.records.get(place).map(|record| record.state.newest_seq)
    }

    /// H2: agreed time has moved.
    pub(super) fn enter_slot(
        &mut self,
        genesis: &Genesis,
        committee: &Committee,
        operations: &Operations,
        now: UnixMillis,
    ) -> Vec<Head> {
        let slot = slot_of(now, genesis.parameters.head_slot);
        if self.slot == Some(slot) {
            return Vec::new();
        }
        self.slot = Some(slot);
        (0..self.numbers.len())
            .filter_map(|shard| self.derive_head(shard, genesis, committee, operations, now))
            .collect()
    }

    /// H1 and H2: the next head of a shard.
    pub(super) fn derive_head(
        &mut self,
        shard: usize,
        genesis: &Genesis,
        committee: &Committee,
        operations: &Operations,
        now: UnixMillis,
    ) -> Option<Head> {
        let number = self.numbers.get_mut(shard)?;
        *number = number.next();
        let first = shard * SHARD_TARGETS;
        let lines = genesis.targets.iter().zip(&self.records).enumerate().skip(first).take(SHARD_TARGETS);
        let targets = lines.map(|(place, (target, record))| HeadEntry {
            target: target.id.clone(),
            seq: record.state.newest_seq,
            plan: record.state.newest_plan,
            // A target that nothing is known of is one that nothing may be done to.
            mode: operations.target(place).map_or(Mode::Hold, Permit::mode),
        });
        Some(Head {
            v: 1,
            cluster: committee.cluster(),
            epoch: committee.epoch(),
            shard: Shard::new(u16::try_from(shard).ok()?),
            number: *number,
            time: now,
            targets: targets.collect(),
            log_size: self.log.size(),
            log_root: self.log.root(),
        })
    }

    /// P2 to P5. The plan's target stands at `place`, its policy at `policy` in the genesis. Gives the effect
    /// of the plan that this one supersedes, when it was not settled (E1).
    pub(super) fn log_plan(
        &mut self,
        place: usize,
        policy: usize,
        certified: &Certified<Plan>,
        genesis: &Genesis,
        now: UnixMillis,
    ) -> Result<Option<Change>, PlanRefusal> {
        let record = self.records.get_mut(place).ok_or(PlanRefusal::UnknownTarget)?;
        let name = &genesis.policies.get(policy).ok_or(PlanRefusal::UnknownPolicy)?.name;
        let (plan, digest) = (certified.document(), certified.digest());
        if digest == record.state.newest_plan {
            return Err(PlanRefusal::Duplicate); // P2
        }
        if plan.prev != record.state.newest_plan || plan.seq <= record.state.newest_seq {
            return Err(PlanRefusal::Superseded); // P2
        }
        if now > plan.issued_at.plus(genesis.parameters.activation_limit) {
            return Err(PlanRefusal::Late); // P3
        }
        self.log.append(certified.envelope().unverified_body()); // P4
        let superseded =
            record.pending.take().map(|pending| settled(&plan.target, &pending, Effect::Inconclusive));
        record.newest = Some(Arc::new(certified.clone()));
        record.state.newest_plan = digest;
        record.state.newest_seq = plan.seq;
        record.pending =
            Some(Pending { seq: plan.seq, plan: digest, by: plan.verify.by, policy, applied: false });
        push_bounded(&mut record.answerable, (plan.seq, digest), ANSWERABLE_PLANS);
        forget(&mut record.state.recent_plans, now);
        record.state.recent_plans.push((now, name.clone())); // P5
        let surplus = record.state.recent_plans.len().saturating_sub(MAX_PLANS_PER_HOUR as usize);
        record.state.recent_plans.drain(..surplus);
        Ok(superseded)
    }

    /// A1 and A2. The receipt's target stands at `place` in the genesis and is this one.
    pub(super) fn check_receipt(
        &self,
        place: usize,
        target: &Target,
        receipt: &Receipt,
    ) -> Result<(), ReceiptRefusal> {
        let record = self.records.get(place).ok_or(ReceiptRefusal::UnknownTarget)?;
        let fits = match (target.kind, receipt.after) {
            (TargetKind::Pool { .. }, DesiredState::Slots { .. })
            | (TargetKind::Switch { .. }, DesiredState::Paused {} | DesiredState::Running {})
            | (TargetKind::Tasks { .. }, DesiredState::Retried { .. }) => true,
            (
                TargetKind::Pool { .. } | TargetKind::Switch { .. } | TargetKind::Tasks { .. },
                DesiredState::Slots { .. }
                | DesiredState::Paused {}
                | DesiredState::Running {}
                | DesiredState::Retried { .. },
            ) => false,
        };
        if !fits {
            let why = "the state after is not one of the target's kind".to_owned();
            return Err(ReceiptRefusal::NotVerified(why)); // A1
        }
        if !record.answerable.contains(&(receipt.seq, receipt.plan)) {
            return Err(ReceiptRefusal::UnknownPlan); // A2
        }
        Ok(())
    }

    /// A3: whether a receipt with this body was logged a short while ago, under whichever key.
    pub(super) fn has_heard(&self, place: usize, body: Digest) -> bool {
        self.records.get(place).is_some_and(|record| record.heard.contains(&body))
    }

    /// A4. The receipt has passed A1 to A3; its body has this digest.
    pub(super) fn log_receipt(&mut self, place: usize, receipt: &Receipt, body: Digest, turn: Turn) {
        let Some(record) = self.records.get_mut(place) else { return };
        push_bounded(&mut record.heard, body, RECEIPTS_HEARD);
        match turn {
            Turn::Newest => {}
            // The newer one told what the target is and what became of the plan.
            Turn::Late => return,
        }
        if receipt.seq >= record.reported {
            record.reported = receipt.seq;
            record.state.state = receipt.after; // A4
        }
        if let Some(pending) = record.pending.as_mut().filter(|pending| pending.plan == receipt.plan) {
            match receipt.outcome {
                Outcome::Applied {} | Outcome::Noop {} => pending.applied = true,
                Outcome::Reverted {} => pending.applied = false,
                // Another agent, or a later look, refused what one has applied: it is in force.
                Outcome::Refused { .. } | Outcome::Partial {} => {}
            }
        }
    }

    /// E1: the plans whose effect this window settles.
    pub(super) fn settle_effects(&mut self, closed: &ClosedWindow, genesis: &Genesis) -> Vec<Change> {
        let end = closed.window.close(genesis.parameters.window);
        let mut changes = Vec::new();
        for (record, target) in self.records.iter_mut().zip(&genesis.targets) {
            let Some(pending) = record.pending.take_if(|pending| end >= pending.by) else { continue };
            let effect = genesis
                .policies
                .get(pending.policy)
                .map_or(Effect::Inconclusive, |policy| pending.judge(closed, &policy.condition));
            changes.push(settled(&target.id, &pending, effect));
        }
        changes
    }
}

fn first_record(target: &Target) -> TargetRecord {
    let state = match target.kind {
        TargetKind::Pool { initial, .. } => DesiredState::Slots { slots: initial },
        TargetKind::Switch { initially_paused: true } => DesiredState::Paused {},
        TargetKind::Switch { initially_paused: false } => DesiredState::Running {},
        TargetKind::Tasks { .. } => {
            DesiredState::Retried { after: UnixMillis::ZERO, until: UnixMillis::ZERO }
        }
    };
    let state =
        TargetState { state, newest_plan: Digest::ZERO, newest_seq: Cycle::ZERO, recent_plans: Vec::new() };
    TargetRecord {
        state,
        newest: None,
        answerable: VecDeque::new(),
        pending: None,
        reported: Cycle::ZERO,
        heard: VecDeque::new(),
    }
}

fn settled(target: &TargetId, pending: &Pending, effect: Effect) -> Change {
    Change::EffectSettled { target: target.clone(), seq: pending.seq, plan: pending.plan, effect }
}

/// The slot of agreed time; slots are counted from 1970 so that all replicas enter them together.
const fn slot_of(now: UnixMillis, slot: Millis) -> u64 {
    match now.as_millis().checked_div(slot.as_millis()) {
        Some(number) => number,
        None => 0,
    }
}

/// P5: what was logged an hour ago or longer is not remembered.
fn forget(plans: &mut Vec<(UnixMillis, String)>, now: UnixMillis) {
    plans.retain(|(logged_at, _)| now.since(*logged_at) < REMEMBERED);
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    queue.push_back(item);
    if queue.len() > most {
        queue.pop_front();
    }
}
