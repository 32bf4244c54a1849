//! The plant that is built in: a queue, a pool of workers that take time to start, and arrivals that are known.
//!
//! It knows nothing of policies; it is told how many workers there shall be. Rules:
//!
//! - **Q1** A job waits in order of arrival and is worked on by one worker without a break. Between two changes nothing
//!   happens; at one moment workers come to their ends first, then new ones are ready, then jobs arrive, then waiting
//!   jobs are taken up.
//! - **Q2** A worker that is asked for is ready after the start-up time. It costs from the moment in which it is asked for.
//! - **Q3** When fewer shall be there, those that are starting go at once, newest first, then idle ones, then busy ones
//!   each after its job. One that is to go after its job stays when more shall be there again before that.
//! - **Q4** The service level is violated while the oldest waiting job has waited longer than the bound. A minute of
//!   virtual time in which that is so at some moment is a violation minute.
//! - **Q5** It is done when the last job is.
//!
//! Invariant: every job that arrived is waiting, being worked on, or done.

use std::collections::{BTreeSet, VecDeque};

use super::{
    arrivals::Job,
    protocol::{Account, Answer, Order, Sample, SampleKind, Span, VERSION},
    run::{Plant, PlantFailure, slots_of},
};
use crate::types::{Millis, SourceId, TargetId, UnixMillis};

const MINUTE_MS: u64 = 60_000;

/// What the queue is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// How long a worker starts.
    pub start_up: Millis,
    /// How long a job may wait.
    pub wait_bound: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    Starting {
        ready_at: u64,
    },
    Idle,
    Busy {
        until: u64,
        work_ms: u64,
    },
    /// As busy, and gone after that.
    Leaving {
        until: u64,
        work_ms: u64,
    },
}

/// What the pool did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Jobs that arrived.
    pub arrived: u64,
    /// Jobs that are done.
    pub completed: u64,
    /// How long the done ones were worked on, in milliseconds.
    pub completed_work_ms: u64,
    /// Workers times milliseconds in which they were there, from being asked for.
    pub worker_ms: u64,
    /// Workers times milliseconds in which they were ready.
    pub ready_ms: u64,
    /// Workers times milliseconds in which they worked.
    pub busy_ms: u64,
    /// The longest wait of a job that was taken up, in milliseconds.
    pub longest_wait_ms: u64,
}

/// The queue and its pool. Times are milliseconds after its beginning.
#[derive(Clone, Debug)]
pub struct Queue {
    settings: QueueSettings,
    target: TargetId,
    jobs: std::sync::Arc<[Job]>,
    now: u64,
    begin: Option<UnixMillis>,
    waiting: VecDeque<Job>,
    workers: Vec<Worker>,
    totals: Totals,
    violated: BTreeSet<u64>,
}

impl Queue {
    /// A queue with so many workers that are ready, whose pool is this target.
    #[must_use]
    pub fn new(settings: QueueSettings, target: TargetId, jobs: std::sync::Arc<[Job]>, workers: u32) -> Self {
        Self {
            settings,
            target,
            jobs,
            now: 0,
            begin: None,
            waiting: VecDeque::new(),
            workers: vec![Worker::Idle; workers as usize],
            totals: Totals::default(),
            violated: BTreeSet::new(),
        }
    }

    /// Lets time pass up to this many milliseconds after the beginning.
    pub fn advance(&mut self, until: u64) {
        self.settle();
        while let Some(next) = self.next_change().filter(|next| *next <= until) {
            self.pass(next);
            self.settle();
        }
        self.pass(until);
    }

    /// Q3: from now on there shall be so many workers.
    pub fn order(&mut self, wanted: u32) {
        let wanted = wanted as usize;
        let staying = |workers: &[Worker]| {
            workers.iter().filter(|worker| !matches!(worker, Worker::Leaving { .. })).count()
        };
        let mut surplus = staying(&self.workers).saturating_sub(wanted);
        // Newest first: those that were asked for last stand last.
        for leaving in [Worker::is_starting as fn(&Worker) -> bool, Worker::is_idle] {
            for place in (0..self.workers.len()).rev() {
                if surplus > 0 && leaving(&self.workers[place]) {
                    self.workers.remove(place);
                    surplus -= 1;
                }
            }
        }
        for worker in self.workers.iter_mut().rev() {
            if let Worker::Busy { until, work_ms } = *worker
                && surplus > 0
            {
                *worker = Worker::Leaving { until, work_ms };
                surplus -= 1;
            }
        }
        let mut missing = wanted.saturating_sub(staying(&self.workers));
        for worker in &mut self.workers {
            if let Worker::Leaving { until, work_ms } = *worker
                && missing > 0
            {
                *worker = Worker::Busy { until, work_ms };
                missing -= 1;
            }
        }
        let ready_at = self.now + self.settings.start_up.as_millis();
        self.workers.extend(std::iter::repeat_n(Worker::Starting { ready_at }, missing));
        self.settle();
    }

    /// Whether every job is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.totals.completed == self.jobs.len() as u64
    }

    /// What it did so far.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// How many jobs wait.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// How many workers are ready, idle or busy.
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.workers.iter().filter(|worker| !worker.is_starting()).count() as u64
    }

    /// How many workers are starting.
    #[must_use]
    pub fn starting(&self) -> u64 {
        self.workers.len() as u64 - self.ready()
    }

    /// How many jobs are being worked on.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.workers.iter().filter(|worker| worker.end().is_some()).count() as u64
    }

    /// What it cost so far, and how well it served.
    #[must_use]
    pub fn account(&self) -> Account {
        Account { violation_minutes: self.violated.len() as u64, worker_ms: self.totals.worker_ms }
    }

    fn oldest_wait_ms(&self) -> u64 {
        self.waiting.front().map_or(0, |job| self.now - job.at_ms)
    }

    /// The next moment in which something changes by itself.
    fn next_change(&self) -> Option<u64> {
        let arrival = self.next_job().map(|job| job.at_ms);
        self.workers.iter().filter_map(Worker::changes_at).chain(arrival).min()
    }

    fn next_job(&self) -> Option<&Job> {
        self.jobs.get(usize::try_from(self.totals.arrived).unwrap_or(usize::MAX))
    }

    /// Time passes in which nothing changes.
    fn pass(&mut self, until: u64) {
        let span = until - self.now;
        let (there, ready, busy) = (self.workers.len() as u64, self.ready(), self.running());
        self.totals.worker_ms += there * span;
        self.totals.ready_ms += ready * span;
        self.totals.busy_ms += busy * span;
        // Q4.
        if let Some(oldest) = self.waiting.front() {
            let from = (oldest.at_ms + self.settings.wait_bound.as_millis()).max(self.now);
            if from < until {
                self.violated.extend(from / MINUTE_MS..=(until - 1) / MINUTE_MS);
            }
        }
        self.now = until;
    }

    /// Q1: everything that is due at this moment.
    fn settle(&mut self) {
        let (now, totals) = (self.now, &mut self.totals);
        self.workers.retain_mut(|worker| {
            let Some((_, work_ms)) = worker.end().filter(|(until, _)| *until <= now) else {
                if worker.changes_at().is_some_and(|at| at <= now) {
                    *worker = Worker::Idle;
                }
                return true;
            };
            totals.completed += 1;
            totals.completed_work_ms += work_ms;
            let stays = matches!(worker, Worker::Busy { .. });
            *worker = Worker::Idle;
            stays
        });
        while let Some(job) = self.next_job().copied().filter(|job| job.at_ms <= now) {
            self.waiting.push_back(job);
            self.totals.arrived += 1;
        }
        for worker in self.workers.iter_mut().filter(|worker| worker.is_idle()) {
            let Some(job) = self.waiting.pop_front() else { break };
            self.totals.longest_wait_ms = self.totals.longest_wait_ms.max(now - job.at_ms);
            *worker = Worker::Busy { until: now + job.work_ms, work_ms: job.work_ms };
        }
    }

    fn samples(&self) -> Vec<Sample> {
        let source = SourceId::new(SOURCE).expect("a valid name");
        let of = |(name, kind, value): (&str, SampleKind, f64)| Sample {
            source: source.clone(),
            name: name.to_owned(),
            kind,
            value,
            attributes: std::collections::BTreeMap::new(),
            at_ms: None,
        };
        let (gauge, counter) = (SampleKind::Gauge, SampleKind::Counter);
        [
            ("queue.arrivals", counter, count(self.totals.arrived)),
            ("queue.completions", counter, count(self.totals.completed)),
            ("queue.work_seconds", counter, seconds(self.totals.completed_work_ms)),
            ("queue.busy_seconds", counter, seconds(self.totals.busy_ms)),
            ("queue.depth", gauge, count(self.depth())),
            ("queue.running", gauge, count(self.running())),
            ("queue.workers", gauge, count(self.ready())),
            ("queue.oldest_wait_seconds", gauge, seconds(self.oldest_wait_ms())),
        ]
        .into_iter()
        .map(of)
        .collect()
    }
}

/// The engine that the queue's samples come from.
const SOURCE: &str = "queue";

#[expect(clippy::cast_precision_loss, reason = "a queue counts far below 2^53")]
const fn count(number: u64) -> f64 {
    number as f64
}

fn seconds(millis: u64) -> f64 {
    count(millis) / 1000.0
}

impl Worker {
    const fn is_starting(&self) -> bool {
        matches!(self, Self::Starting { .. })
    }

    const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// When it comes to the end of its job, and how long that took.
    const fn end(&self) -> Option<(u64, u64)> {
        match self {
            Self::Busy { until, work_ms } | Self::Leaving { until, work_ms } => Some((*until, *work_ms)),
            Self::Starting { .. } | Self::Idle => None,
        }
    }

    const fn changes_at(&self) -> Option<u64> {
        match self {
            Self::Starting { ready_at } => Some(*ready_at),
            Self::Busy { until, .. } | Self::Leaving { until, .. } => Some(*until),
            Self::Idle => None,
        }
    }
}

impl Plant for Queue {
    fn step(&mut self, order: &Order, span: Span) -> Result<Answer, PlantFailure> {
        let Some(wanted) = slots_of(order, &self.target) else {
            let target = &self.target;
            return Err(PlantFailure(format!("the queue's target {target} has no slots in the order")));
        };
        let begin = *self.begin.get_or_insert(span.from);
        self.advance(span.now.since(begin).as_millis());
        let answer = Answer {
            v: VERSION,
            now_ms: span.now,
            samples: self.samples(),
            done: self.is_done(),
            account: Some(self.account()),
        };
        self.order(wanted);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;
