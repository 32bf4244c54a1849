//! The loop: steps of virtual time, between which the plant answers and the committee works (rules L1, L5 and L7).
//!
//! It knows no stream and no process; a [`Plant`] is one function. Invariant: the committee never sees a sample
//! before the end of the step in which it was measured.

use std::collections::BTreeMap;

use super::{
    agent::Agent,
    committee::{Committee, News},
    keys::{Keys, OWNER, agent_key},
    protocol::{Account, Answer, Desired, Order, Span, VERSION},
};
use crate::{
    cycle::Decided,
    knowledge::{
        change::Change,
        genesis::{Genesis, GenesisError},
        plan::Plan,
        root::RootError,
    },
    types::{CommitteeSizeError, Digest, Millis, Shard, TargetId, UnixMillis, WindowIndex},
};

/// What the virtual clock shows at the beginning, or the start of the window that holds it.
const BEGIN: UnixMillis = UnixMillis::new(1_800_000_000_000);

/// The longest rest of an agent between two questions without news.
const PULL: Millis = Millis::new(500);

/// Something that is driven: the queue that is built in, or a process that others wrote.
pub trait Plant {
    /// Advances to the order's moment under the orders before, then takes this one.
    ///
    /// # Errors
    /// [`PlantFailure`] ends the backtest.
    fn step(&mut self, order: &Order, span: Span) -> Result<Answer, PlantFailure>;
}

/// Why a plant cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlantFailure(pub String);

/// How a backtest is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many replicas there are.
    pub replicas: usize,
    /// How far time moves between two orders.
    pub step: Millis,
    /// When it ends at the latest.
    pub at_most: Millis,
}

/// Why a backtest does not begin.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The number of replicas.
    #[error(transparent)]
    Replicas(#[from] CommitteeSizeError),
    /// The genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The root that was made of it.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The step does not fit the window.
    #[error("a step of {step} does not divide the window of {window}: samples would straddle windows")]
    Step {
        /// The step.
        step: Millis,
        /// The window.
        window: Millis,
    },
}

/// Something that happened, for those who watch.
#[derive(Debug)]
pub enum Event<'a> {
    /// A control cycle ran, so long after the beginning.
    Decided(Millis, &'a Decided),
    /// A plan was logged, so long after the beginning.
    Logged(Millis, &'a Plan),
    /// The plant answered.
    Answered(Millis, &'a Answer),
}

/// Why a backtest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The plant is done.
    Done,
    /// The time is over.
    TimeOver,
    /// The plant failed.
    Failed(PlantFailure),
}

/// What a backtest came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Why it ended.
    pub ended: Ended,
    /// How long after the beginning the plant answered last.
    pub after: Millis,
    /// What the plant answered last; nothing when it never did.
    pub last: Option<Answer>,
    /// The plant's newest account.
    pub account: Option<Account>,
    /// What the agents had set at the end.
    pub desired: Vec<Desired>,
    /// How many plans were logged.
    pub plans: u64,
    /// Of everything: each order, each answer, each logged plan, and the root of the state at the end.
    pub digest: Digest,
}

/// Runs the loop until it ends.
///
/// # Errors
/// [`SettingsError`] when it cannot begin. A plant that fails is no error: it is how the backtest ended.
pub fn run(
    genesis: &Genesis,
    settings: Settings,
    plant: &mut impl Plant,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Finished, SettingsError> {
    let window = genesis.parameters.window;
    let step = settings.step;
    if step == Millis::ZERO || !window.as_millis().is_multiple_of(step.as_millis()) {
        return Err(SettingsError::Step { step, window });
    }
    let mut world = World::new(&own(genesis), settings.replicas)?;
    let begin = world.begin;
    let (mut span, mut ended) = (Span { from: begin, now: begin }, Ended::TimeOver);
    let (mut last, mut account): (Option<Answer>, Option<Account>) = (None, None);
    while span.now.since(begin).plus(step) <= settings.at_most {
        span = Span { from: span.now, now: span.now.plus(step) };
        world.advance(span.now, watch);
        let order = Order { v: VERSION, now_ms: span.now, desired: world.desired() };
        let answer = match plant.step(&order, span) {
            Ok(answer) => answer,
            Err(failure) => {
                ended = Ended::Failed(failure);
                break;
            }
        };
        world.note(&order.to_line());
        world.note(&serde_json::to_vec(&answer).expect("an answer is valid JSON"));
        world.committee.ingest(&answer.batch(begin), span.now);
        watch(Event::Answered(span.now.since(begin), &answer));
        account = answer.account.or(account);
        let is_done = answer.done;
        last = Some(answer);
        if is_done {
            ended = Ended::Done;
            break;
        }
    }
    let root = world.committee.state_root();
    world.note(root.as_bytes());
    let after = last.as_ref().map_or(Millis::ZERO, |answer| answer.now_ms.since(begin));
    let desired = world.desired();
    Ok(Finished { ended, after, last, account, desired, plans: world.plans, digest: world.digest })
}

/// The genesis with the agents of the backtest in the place of the real ones, whose keys nobody here has.
fn own(genesis: &Genesis) -> Genesis {
    let mut own = genesis.clone();
    for target in &mut own.targets {
        target.agent = agent_key(&target.id).public();
        OWNER.clone_into(&mut target.owner);
    }
    own
}

/// The committee and the agents, at one moment.
struct World {
    begin: UnixMillis,
    committee: Committee,
    agents: Vec<Agent>,
    /// When the agents of a shard ask next.
    pulls: BTreeMap<(UnixMillis, Shard), ()>,
    plans: u64,
    digest: Digest,
}

impl World {
    fn new(genesis: &Genesis, replicas: usize) -> Result<Self, SettingsError> {
        let keys = Keys::new(replicas)?;
        let root = keys.root(genesis)?;
        let window = genesis.parameters.window;
        let begin = WindowIndex::containing(BEGIN, window).start(window);
        Ok(Self {
            begin,
            committee: Committee::new(genesis, &keys, &root, begin)?,
            agents: Agent::of_all(genesis, &root),
            pulls: BTreeMap::new(),
            plans: 0,
            digest: genesis.digest(),
        })
    }

    fn desired(&self) -> Vec<Desired> {
        let of_agent = |agent: &Agent| Desired { target: agent.target().clone(), state: agent.state() };
        self.agents.iter().map(of_agent).collect()
    }

    /// Lets everything happen that is due until this moment, in the order of time.
    fn advance(&mut self, until: UnixMillis, watch: &mut dyn FnMut(Event<'_>)) {
        loop {
            let event = self.committee.next();
            let pull = self.pulls.first_key_value().map(|((at, shard), ())| (*at, *shard));
            match pull {
                Some((at, shard)) if at <= event && at <= until => {
                    self.pulls.remove(&(at, shard));
                    self.pull(at, shard);
                }
                Some(_) | None if event <= until => {
                    for news in self.committee.advance() {
                        self.take(&news, event, watch);
                    }
                }
                Some(_) | None => return,
            }
        }
    }

    fn pull(&mut self, now: UnixMillis, shard: Shard) {
        let since_begin = now.since(self.begin);
        let mut receipts = Vec::new();
        for agent in self.agents.iter_mut().filter(|agent| agent.shard() == shard) {
            receipts.extend(agent.pull(&self.committee.feeds(), since_begin, now));
        }
        for receipt in receipts {
            self.committee.submit(receipt, now);
        }
    }

    fn take(&mut self, news: &News, now: UnixMillis, watch: &mut dyn FnMut(Event<'_>)) {
        let since = now.since(self.begin);
        match news {
            News::Decided(decided) => watch(Event::Decided(since, decided)),
            News::Head(shard) => {
                self.pulls.insert((now.plus(PULL), *shard), ());
            }
            News::Changed(change) => {
                if let Change::PlanLogged(certified) = change.as_ref() {
                    self.plans += 1;
                    self.note(&certified.document().to_bytes());
                    watch(Event::Logged(since, certified.document()));
                }
            }
        }
    }

    /// Takes bytes into the digest of everything.
    fn note(&mut self, bytes: &[u8]) {
        self.digest = Digest::of_value(&(self.digest, bytes));
    }
}

/// The slots of a pool in an order; `None` when it does not name the target, or gives it another state.
#[must_use]
pub(super) fn slots_of(order: &Order, target: &TargetId) -> Option<u32> {
    use crate::knowledge::plan::DesiredState;
    let desired = order.desired.iter().find(|desired| desired.target == *target)?;
    match desired.state {
        DesiredState::Slots { slots } => Some(slots),
        DesiredState::Paused {} | DesiredState::Running {} | DesiredState::Retried { .. } => None,
    }
}
