//! The committee of a backtest: production monitors and control cycles behind one log in memory, on virtual time
//! (rules L1 to L4 of the module).
//!
//! It runs no consensus protocol, no network and no disk: what these take is a delay here. Invariant: nothing
//! happens before its time, and things of one moment happen in the order in which they were begun.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::keys::Keys;
use crate::{
    consensus::{Block, Command, Payload, QuorumCertificate, certify::Endorsement},
    cycle::{Cycle, CycleConfig, Decided, Output},
    execute::feed::Feed,
    knowledge::{
        certified::Certified,
        change::Change,
        command::EncodedCommand,
        genesis::{Genesis, GenesisError},
        root::VerifiedRoot,
    },
    monitor::{Batch, Monitor, MonitorParameters},
    types::{Digest, HeadNumber, Millis, ReplicaIndex, Shard, UnixMillis, View, WindowIndex},
};

/// How long an endorsement travels between two replicas: a regional link.
const LINK: Millis = Millis::new(20);

/// How long a command waits until it is committed: two views of some round trips and flushes over such links.
const ORDERING: Millis = Millis::new(100);

/// How often in a window a replica looks at its clock, and the bounds of that, as the service does it.
const BEATS_A_WINDOW: u64 = 20;
const SHORTEST_BEAT_MS: u64 = 10;
const LONGEST_BEAT_MS: u64 = 200;

/// The most heads of which it is remembered who certified them: some per shard, until all replicas have.
const MAX_TOLD_HEADS: usize = 1_024;

/// Something that happens to the committee at its time.
#[derive(Debug)]
enum Event {
    /// All replicas look at their clocks.
    Beat,
    /// An endorsement reaches everybody but its sender.
    Endorsed(ReplicaIndex, Box<Endorsement>),
    /// What was submitted is committed as one block.
    Commit,
}

/// What the loop outside has to know, in order.
#[derive(Debug)]
pub(super) enum News {
    /// A control cycle ran at the first replica.
    Decided(Box<Decided>),
    /// A new head of a shard is certified at so many replicas that one is honest.
    Head(Shard),
    /// The first replica folded a change.
    Changed(Box<Change>),
}

#[derive(Debug)]
struct Replica {
    cycle: Cycle,
    monitor: Monitor,
    feed: Feed,
    next_window: WindowIndex,
}

/// All replicas, and the log between them.
#[derive(Debug)]
pub(super) struct Committee {
    replicas: Vec<Replica>,
    needed: usize,
    tip: QuorumCertificate,
    submitted: Vec<EncodedCommand>,
    events: BTreeMap<(UnixMillis, u64), Event>,
    begun: u64,
    beat: Millis,
    news: Vec<News>,
    told_heads: BTreeMap<(HeadNumber, Shard), BTreeSet<ReplicaIndex>>,
}

impl Committee {
    /// A committee that begins to listen at this moment, the start of a window.
    pub(super) fn new(
        genesis: &Genesis,
        keys: &Keys,
        root: &VerifiedRoot,
        begin: UnixMillis,
    ) -> Result<Self, GenesisError> {
        let committee = Arc::new(root.committee().clone());
        let parameters = &genesis.parameters;
        let replicas = committee.replicas().zip(&keys.replicas).map(|(me, key)| {
            let cycle = Cycle::new(CycleConfig {
                genesis: genesis.clone(),
                committee: Arc::clone(&committee),
                operators: root.operators().clone(),
                me,
                key: key.clone(),
            })?;
            Ok(Replica {
                cycle,
                monitor: Monitor::new(MonitorParameters::of(parameters), begin),
                feed: Feed::new(root.clone(), genesis.targets.iter().map(|target| target.id.clone())),
                next_window: WindowIndex::containing(begin, parameters.window),
            })
        });
        let beat_ms = parameters.window.as_millis() / BEATS_A_WINDOW;
        let mut this = Self {
            replicas: replicas.collect::<Result<_, GenesisError>>()?,
            needed: committee.size().one_honest(),
            tip: QuorumCertificate::genesis(&committee),
            submitted: Vec::new(),
            events: BTreeMap::new(),
            begun: 0,
            beat: Millis::new(beat_ms.clamp(SHORTEST_BEAT_MS, LONGEST_BEAT_MS)),
            news: Vec::new(),
            told_heads: BTreeMap::new(),
        };
        this.schedule(begin, Event::Beat);
        Ok(this)
    }

    /// L1: every replica's door takes the batch.
    pub(super) fn ingest(&mut self, batch: &Batch, now: UnixMillis) {
        for replica in &mut self.replicas {
            replica.monitor.ingest(batch, now);
        }
    }

    /// Has a command ordered.
    pub(super) fn submit(&mut self, command: EncodedCommand, now: UnixMillis) {
        if self.submitted.is_empty() {
            self.schedule(now.plus(ORDERING), Event::Commit);
        }
        self.submitted.push(command);
    }

    /// When the next thing happens.
    pub(super) fn next(&self) -> UnixMillis {
        // There always is a next beat.
        self.events.first_key_value().map_or(UnixMillis::new(u64::MAX), |((at, _), _)| *at)
    }

    /// Lets the next thing happen and gives what is to be known of it.
    pub(super) fn advance(&mut self) -> Vec<News> {
        let Some(((now, _), event)) = self.events.pop_first() else { return Vec::new() };
        match event {
            Event::Beat => {
                for place in 0..self.replicas.len() {
                    self.beat(place, now);
                }
                self.schedule(now.plus(self.beat), Event::Beat);
            }
            Event::Endorsed(from, endorsement) => {
                for (_, replica) in (0..).zip(&mut self.replicas).filter(|(place, _)| *place != from.place())
                {
                    // Replicas are honest here; one that was refused would only be missing.
                    let _ = replica.cycle.receive(from, Endorsement::clone(&endorsement));
                }
            }
            Event::Commit => self.commit(),
        }
        self.collect(now);
        std::mem::take(&mut self.news)
    }

    /// What an agent asks the replicas for.
    pub(super) fn feeds(&self) -> impl Iterator<Item = &Feed> + Clone {
        self.replicas.iter().map(|replica| &replica.feed)
    }

    /// The root of the first replica's state.
    pub(super) fn state_root(&self) -> Digest {
        self.replicas.first().map_or(Digest::ZERO, |replica| replica.cycle.root())
    }

    fn schedule(&mut self, at: UnixMillis, event: Event) {
        self.events.insert((at, self.begun), event);
        self.begun += 1;
    }

    /// L2: reports windows whose grace is over, then lets the cycle's own timers pass.
    fn beat(&mut self, place: usize, now: UnixMillis) {
        let replica = &mut self.replicas[place];
        let parameters = replica.cycle.state().genesis().parameters;
        while now >= replica.next_window.close(parameters.window).plus(parameters.grace) {
            let window = replica.next_window;
            replica.next_window = window.next();
            let closed = replica.monitor.close(window).expect("windows are closed once, in order");
            replica.cycle.report(window, closed.summary, closed.partial, now);
        }
        replica.cycle.tick(now);
    }

    /// L3: everything that was submitted is one block, in the order of submission.
    fn commit(&mut self) {
        let commands = std::mem::take(&mut self.submitted).into_iter().map(|command| {
            Command::new(command.head, command.body).expect("a cycle's own commands are small enough")
        });
        let view = View::new(self.tip.view.number() + 1);
        let payload = Payload::new(commands.collect());
        let block = Arc::new(Block::new(view, ReplicaIndex::new(0), self.tip.clone(), payload));
        self.tip =
            QuorumCertificate { view, height: block.height(), block: block.id(), signatures: Vec::new() };
        for replica in &mut self.replicas {
            replica.cycle.commit(&block);
        }
    }

    fn collect(&mut self, now: UnixMillis) {
        for place in 0..self.replicas.len() {
            let me = ReplicaIndex::new(u16::try_from(place).expect("a committee has at most 100 replicas"));
            while let Some(output) = self.replicas[place].cycle.poll_output() {
                self.carry_out(me, output, now);
            }
        }
    }

    fn carry_out(&mut self, me: ReplicaIndex, output: Output, now: UnixMillis) {
        let is_first = me.place() == 0;
        match output {
            Output::Submit(command) => self.submit(command, now),
            Output::Endorse(endorsement) => {
                self.schedule(now.plus(LINK), Event::Endorsed(me, Box::new(endorsement)));
            }
            Output::Folded(folded) => {
                for change in folded.changes {
                    if let Change::PlanLogged(certified) = &change {
                        self.replicas[me.as_usize()].feed.log_plan(Certified::clone(certified));
                    }
                    if is_first {
                        self.news.push(News::Changed(Box::new(change)));
                    }
                }
            }
            Output::Decided(decided) if is_first => self.news.push(News::Decided(Box::new(decided))),
            Output::HeadCertified(head) => {
                let (number, shard) = (head.document().number, head.document().shard);
                self.replicas[me.as_usize()].feed.publish_head(*head);
                let at = self.told_heads.entry((number, shard)).or_default();
                if at.insert(me) && at.len() == self.needed {
                    self.news.push(News::Head(shard));
                }
                // A head that is so much older has reached everybody.
                while self.told_heads.len() > MAX_TOLD_HEADS {
                    self.told_heads.pop_first();
                }
            }
            // Nothing is lost here, and replicas that fold one log in one order do not disagree.
            Output::Seal(_) | Output::PlanCertified(_) | Output::Alarm(_) | Output::Decided(_) => {}
        }
    }
}
