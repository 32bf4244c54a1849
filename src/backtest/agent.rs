//! An agent of a backtest: the production rules of [`crate::execute::agent`] over the feeds of the committee, with
//! the plant as its target (rules L5 and L6 of the module).
//!
//! It has no network and no state file. Invariant: the target's state changes only by a step that the rules gave.

use super::keys::agent_key;
use crate::{
    execute::{
        agent::{
            Account, AgentState, Aim, Freshness, Progress, Situation, Step, Trust, admit_head, judge,
            newest_head,
        },
        feed::Feed,
    },
    knowledge::{
        certified::Certified,
        command::{Command, EncodedCommand},
        genesis::Genesis,
        head::{Head, SHARD_TARGETS},
        plan::{DesiredState, Plan},
        policy::{Target, TargetKind},
        receipt::{Outcome, Refusal},
        root::VerifiedRoot,
    },
    types::{Cycle, Millis, SecretKey, Shard, TargetId, UnixMillis},
};

/// The agent's own bound for its clock, as `quorate agent run` has it.
const CLOCK_TOLERANCE: Millis = Millis::from_secs(30);

/// A fetch, a reading and a change, and one more round for what they show.
const STEPS_PER_PULL: usize = 6;

/// The agent of one target.
#[derive(Debug)]
pub(super) struct Agent {
    trust: Trust,
    key: SecretKey,
    memory: AgentState,
    freshness: Freshness,
    head: Option<Certified<Head>>,
    state: DesiredState,
}

impl Agent {
    /// The agents of all targets, each with its target as the genesis declares it.
    pub(super) fn of_all(genesis: &Genesis, root: &VerifiedRoot) -> Vec<Self> {
        let of_target = |(place, target): (usize, &Target)| {
            let shard = u16::try_from(place / SHARD_TARGETS).expect("a genesis has at most 2^16 shards");
            Self {
                trust: Trust {
                    root: root.clone(),
                    target: target.id.clone(),
                    shard: Shard::new(shard),
                    stale_after: genesis.parameters.stale_after,
                    clock_tolerance: CLOCK_TOLERANCE,
                },
                key: agent_key(&target.id),
                memory: AgentState::new(root.committee().cluster(), target.id.clone()),
                freshness: Freshness::start(None, Millis::ZERO),
                head: None,
                state: declared(target.kind),
            }
        };
        genesis.targets.iter().enumerate().map(of_target).collect()
    }

    /// Whose agent it is.
    pub(super) const fn target(&self) -> &TargetId {
        &self.trust.target
    }

    /// The shard whose heads it asks for.
    pub(super) const fn shard(&self) -> Shard {
        self.trust.shard
    }

    /// The state that it has set.
    pub(super) const fn state(&self) -> DesiredState {
        self.state
    }

    /// L5: asks the replicas for the newest head, follows the rules, and gives the receipts that are due.
    pub(super) fn pull<'a>(
        &mut self,
        feeds: &(impl Iterator<Item = &'a Feed> + Clone),
        since_begin: Millis,
        now: UnixMillis,
    ) -> Vec<EncodedCommand> {
        let heads = feeds.clone().filter_map(|feed| feed.head(self.trust.shard));
        let admitted = heads
            .filter_map(|head| admit_head(&self.trust, self.memory.head(), &head.envelope().to_json()).ok());
        if let Ok(Some(head)) = newest_head(admitted.collect()) {
            self.freshness.notice(&head, since_begin);
            self.memory.raise_head(&head);
            self.head = Some(head);
        }
        let (mut plan, mut observed) = (None, None);
        for _ in 0..STEPS_PER_PULL {
            let situation = Situation {
                head: self.head.as_ref(),
                plan: plan.as_deref(),
                observed,
                freshness: self.freshness,
                monotonic: since_begin,
                wall: now,
            };
            match judge(&self.trust, &self.memory, &situation) {
                Step::Fetch { seq, .. } => match self.fetch(feeds.clone(), seq) {
                    Some(envelope) => plan = Some(envelope),
                    None => break,
                },
                Step::Read(_) => observed = Some(self.state),
                Step::Apply { plan, before, aim } => {
                    self.apply(*plan, before, aim, now);
                    break;
                }
                Step::AlreadyThere { plan, .. } => {
                    self.conclude(*plan, Outcome::Noop {}, self.state, now);
                    break;
                }
                Step::Refuse { plan, why } => {
                    self.conclude(*plan, Outcome::Refused { why }, self.state, now);
                    break;
                }
                Step::AlreadyBack { plan, .. } => {
                    self.conclude_taken_back(*plan, self.state, now);
                    break;
                }
                Step::Wait(_) | Step::Discard(_) | Step::Stop(_) => break,
            }
        }
        self.receipts()
    }

    fn fetch<'a>(&self, mut feeds: impl Iterator<Item = &'a Feed>, seq: Cycle) -> Option<Vec<u8>> {
        let before = Cycle::new(seq.number().saturating_sub(1));
        feeds.find_map(|feed| {
            let plans = feed.plans_after(&self.trust.target, before)?;
            plans.first().filter(|plan| plan.document().seq == seq).map(|plan| plan.envelope().to_json())
        })
    }

    /// The plant takes what it is told, so the target is where it was to go as soon as it was set.
    fn apply(&mut self, plan: Certified<Plan>, before: DesiredState, aim: Aim, now: UnixMillis) {
        self.memory.begin(plan.clone(), before, aim);
        self.state = aim.of(plan.document());
        match aim {
            Aim::Desired => self.conclude(plan, Outcome::Applied {}, before, now),
            Aim::Rollback => self.conclude_taken_back(plan, before, now),
            Aim::Revert => {
                self.conclude(plan, Outcome::Refused { why: Refusal::TargetFailed }, before, now);
            }
        }
    }

    fn conclude_taken_back(&mut self, plan: Certified<Plan>, before: DesiredState, now: UnixMillis) {
        let account = Account { outcome: Outcome::Reverted {}, before, after: self.state, at: now };
        self.memory.conclude(plan, Progress::RolledBack {}, account, &self.key);
    }

    fn conclude(&mut self, plan: Certified<Plan>, outcome: Outcome, before: DesiredState, now: UnixMillis) {
        let account = Account { outcome: outcome.clone(), before, after: self.state, at: now };
        self.memory.conclude(plan, Progress::Done { outcome }, account, &self.key);
    }

    /// L6: what is in the outbox is ordered; the replicas are there.
    fn receipts(&mut self) -> Vec<EncodedCommand> {
        let mut receipts = Vec::new();
        while let Some(envelope) = self.memory.outbox().first() {
            receipts.push(Command::Receipt { envelope: envelope.to_json() }.encode());
            self.memory.receipt_accepted();
        }
        receipts
    }
}

const fn declared(kind: TargetKind) -> DesiredState {
    match kind {
        TargetKind::Pool { initial, .. } => DesiredState::Slots { slots: initial },
        TargetKind::Switch { initially_paused: true } => DesiredState::Paused {},
        TargetKind::Switch { initially_paused: false } => DesiredState::Running {},
        TargetKind::Tasks { .. } => {
            DesiredState::Retried { after: UnixMillis::ZERO, until: UnixMillis::ZERO }
        }
    }
}
