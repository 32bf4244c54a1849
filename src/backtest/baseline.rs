//! What the loop is compared with: rules that look straight into the queue, without a committee, delays or agents.
//!
//! They are measured by the same queue in the same steps, and each gets what quorate does not have: its numbers at
//! once and exactly. Rules:
//!
//! - **B1** *Static*: always so many workers.
//! - **B2** *Target tracking*, after the Kubernetes horizontal pod autoscaler with its defaults: every 15 s, with the mean
//!   utilisation u of the ready workers since the last time and the target t, ceil(ready u / t) workers; nothing while u is
//!   within a tenth of t; workers that start count as unused when u is above t. At once at most twice as many or four
//!   more; fewer only when every recommendation of the last 300 s is lower.
//! - **B3** *Foresight*: knows all arrivals and sizes. It begins with greedy schedules and with the smallest static pool:
//!   jobs are given out in their order, to a worker that is still busy and free before the job has waited too long, or to the
//!   one that was idle for the shortest time, else to a new one, which is asked for the start-up time before; who would be
//!   idle for longer than a start takes is given back. Then workers are taken away from ever shorter parts of the schedule, as
//!   long as nothing is violated and it costs less. It is a schedule that can be had, not a proven optimum; the work alone is
//!   what no schedule can be below.
//!
//! Invariant: a rule never sees what happens after the moment it is asked at, except foresight.

use std::{collections::VecDeque, sync::Arc};

use super::{
    arrivals::Job,
    protocol::Account,
    queue::{Queue, QueueSettings, Totals},
};
use crate::types::{Millis, TargetId};

/// How many workers there shall be from now on.
pub trait Rule {
    /// Asked at the end of each step, so many milliseconds after the beginning.
    fn workers(&mut self, now_ms: u64, queue: &Queue) -> u32;
}

/// What a rule came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Cost and service.
    pub account: Account,
    /// What the pool did.
    pub totals: Totals,
    /// Whether every job was done when it ended.
    pub is_done: bool,
    /// When that was, in milliseconds after the beginning.
    pub ended_ms: u64,
}

/// The world of a comparison.
#[derive(Clone, Debug)]
pub struct World {
    /// What the queue is like.
    pub settings: QueueSettings,
    /// Its target.
    pub target: TargetId,
    /// All jobs.
    pub jobs: Arc<[Job]>,
    /// How often a rule is asked.
    pub step: Millis,
    /// When it ends at the latest.
    pub at_most: Millis,
}

impl World {
    /// Runs a rule from so many ready workers on.
    pub fn measure(&self, workers: u32, rule: &mut dyn Rule) -> Measured {
        let mut queue = Queue::new(self.settings, self.target.clone(), Arc::clone(&self.jobs), workers);
        let (step, mut now) = (self.step.as_millis().max(1), 0);
        while !queue.is_done() && now + step <= self.at_most.as_millis() {
            now += step;
            queue.advance(now);
            let workers = rule.workers(now, &queue);
            queue.order(workers);
        }
        Measured {
            account: queue.account(),
            totals: *queue.totals(),
            is_done: queue.is_done(),
            ended_ms: now,
        }
    }

    /// B1: so many workers.
    #[must_use]
    pub fn fixed(&self, workers: u32) -> Measured {
        self.measure(workers, &mut Fixed(workers))
    }

    /// B1: the fewest workers without a violation, found by halving; `None` when so many are not enough.
    #[must_use]
    pub fn smallest(&self, most: u32) -> Option<(u32, Measured)> {
        let serves = |workers| {
            let measured = self.fixed(workers);
            (measured.is_done && measured.account.violation_minutes == 0).then_some(measured)
        };
        let (mut low, mut high, mut best) = (1, most, (most, serves(most)?));
        while low < high {
            let middle = low + (high - low) / 2;
            match serves(middle) {
                Some(measured) => (high, best) = (middle, (middle, measured)),
                None => low = middle + 1,
            }
        }
        Some(best)
    }

    /// How many workers the jobs would keep busy on average until the last one arrives.
    #[must_use]
    pub fn mean_workers(&self) -> u32 {
        let work: u64 = self.jobs.iter().map(|job| job.work_ms).sum();
        let span = self.jobs.last().map_or(1, |job| job.at_ms.max(1));
        u32::try_from(work.div_ceil(span)).unwrap_or(u32::MAX)
    }

    /// The work alone, in worker-milliseconds: what no schedule can be below.
    #[must_use]
    pub fn work_ms(&self) -> u64 {
        self.jobs.iter().map(|job| job.work_ms).sum()
    }

    /// B3, measured by the queue: the cheapest of the schedules that begin with none to `most` ready workers and of `most`
    /// workers all the time, and then with as little as serves. Nothing when none of them serves.
    #[must_use]
    pub fn foresight(&self, most: u32) -> Option<Measured> {
        let stride = most.div_ceil(FORESIGHT_BEGINNINGS).max(1) as usize;
        let beginnings = (0..=most).step_by(stride).chain([most]);
        let ways = beginnings.flat_map(|workers| [(workers, Thrift::Waits), (workers, Thrift::TakesIdle)]);
        let served = ways.filter_map(|(workers, thrift)| self.foresight_from(workers, thrift));
        let step_ms = self.step.as_millis().max(1);
        let steps = usize::try_from(self.fixed(most).ended_ms / step_ms + 1).unwrap_or(usize::MAX);
        let constant = Schedule { step_ms, workers: vec![most; steps] };
        let constant = self.follow(&constant).map(|measured| (constant, measured));
        let greedy = served.min_by_key(|(_, measured)| measured.account.worker_ms);
        let trimmed = [constant, greedy]
            .into_iter()
            .flatten()
            .map(|(schedule, measured)| self.trim(schedule, measured));
        trimmed.min_by_key(|measured| measured.account.worker_ms)
    }

    /// Takes workers away, one at a time, from ever shorter parts of a schedule, as long as it serves and costs less.
    fn trim(&self, mut schedule: Schedule, mut best: Measured) -> Measured {
        let steps = schedule.workers.len();
        let shortest = usize::try_from(SHORTEST_TRIM_MS / schedule.step_ms).unwrap_or(1).max(1);
        let mut length = steps.next_power_of_two();
        while length >= shortest {
            for from in (0..steps).step_by(length) {
                loop {
                    let mut less = schedule.clone();
                    let part = from..(from + length).min(steps);
                    less.workers[part].iter_mut().for_each(|workers| *workers = workers.saturating_sub(1));
                    match self.follow(&less) {
                        Some(measured) if measured.account.worker_ms < best.account.worker_ms => {
                            (schedule, best) = (less, measured);
                        }
                        Some(_) | None => break,
                    }
                }
            }
            length /= 2;
        }
        best
    }

    /// What a schedule comes to; nothing when it does not serve.
    fn follow(&self, schedule: &Schedule) -> Option<Measured> {
        let measured = self.measure(schedule.at(0), &mut schedule.clone());
        (measured.is_done && measured.account.violation_minutes == 0).then_some(measured)
    }

    /// Where the queue's own order of things leads to a violation, the schedule is made for a shorter wait, until there
    /// is none.
    fn foresight_from(&self, workers: u32, thrift: Thrift) -> Option<(Schedule, Measured)> {
        (1..=FORESIGHT_TRIES).rev().find_map(|tenths| {
            let bound = self.settings.wait_bound.as_millis() * tenths / FORESIGHT_TRIES;
            let settings = QueueSettings { wait_bound: Millis::new(bound), ..self.settings };
            let schedule = Schedule::new(&self.jobs, workers, settings, thrift, self.step);
            self.follow(&schedule).map(|measured| (schedule, measured))
        })
    }
}

/// No shorter part of a schedule is looked at: a worker that is away for less has hardly stopped and started.
const SHORTEST_TRIM_MS: u64 = 30_000;

/// In so many steps the wait that foresight plans for is made shorter.
const FORESIGHT_TRIES: u64 = 10;

/// How many numbers of workers at the beginning foresight tries.
const FORESIGHT_BEGINNINGS: u32 = 16;

struct Fixed(u32);

impl Rule for Fixed {
    fn workers(&mut self, _: u64, _: &Queue) -> u32 {
        self.0
    }
}

/// How often target tracking looks, and the period of its limits.
const SYNC_MS: u64 = 15_000;
/// How long the highest recommendation counts before there may be fewer workers.
const SCALE_DOWN_MS: u64 = 300_000;
/// Utilisation within this share of the target changes nothing.
const TOLERANCE_DIVISOR: u64 = 10;
/// At once at most so many more workers, or twice as many.
const UP_WORKERS: u32 = 4;

/// B2.
#[derive(Clone, Debug)]
pub struct TargetTracking {
    target_percent: u64,
    bounds: (u32, u32),
    current: u32,
    next_ms: u64,
    before: Totals,
    recommended: VecDeque<(u64, u32)>,
}

impl TargetTracking {
    /// A rule with this target utilisation, from so many workers on, within these bounds.
    #[must_use]
    pub fn new(target_percent: u64, current: u32, bounds: (u32, u32)) -> Self {
        let (next_ms, before, recommended) = (SYNC_MS, Totals::default(), VecDeque::new());
        Self { target_percent: target_percent.max(1), bounds, current, next_ms, before, recommended }
    }

    fn recommend(&self, busy_ms: u64, ready_ms: u64, queue: &Queue) -> u32 {
        let (ready, starting) = (queue.ready(), queue.starting());
        if ready_ms == 0 {
            return self.current;
        }
        let usage = |share_ms: u64, of: u64, all: u64| share_ms * 100 * of / (ready_ms * all.max(1));
        let is_near =
            |percent: u64| percent.abs_diff(self.target_percent) * TOLERANCE_DIVISOR <= self.target_percent;
        let wanted = |percent: u64, workers: u64| {
            u32::try_from((percent * workers).div_ceil(self.target_percent)).unwrap_or(u32::MAX)
        };
        let percent = usage(busy_ms, 1, 1);
        if percent <= self.target_percent || starting == 0 {
            return if is_near(percent) { self.current } else { wanted(percent, ready) };
        }
        // What starts counts as unused, so that what was asked for already is not asked for again.
        let all = ready + starting;
        let percent = usage(busy_ms, ready, all);
        if is_near(percent) || percent < self.target_percent {
            return self.current;
        }
        wanted(percent, all).max(self.current)
    }
}

impl Rule for TargetTracking {
    fn workers(&mut self, now_ms: u64, queue: &Queue) -> u32 {
        if now_ms < self.next_ms {
            return self.current;
        }
        self.next_ms = now_ms + SYNC_MS;
        let totals = *queue.totals();
        let (busy, ready) = (totals.busy_ms - self.before.busy_ms, totals.ready_ms - self.before.ready_ms);
        self.before = totals;
        let now = self.recommend(busy, ready, queue);
        self.recommended.push_back((now_ms, now));
        while self.recommended.front().is_some_and(|(at, _)| *at + SCALE_DOWN_MS < now_ms) {
            self.recommended.pop_front();
        }
        let highest = self.recommended.iter().map(|(_, workers)| *workers).max().unwrap_or(now);
        let most = self.current.saturating_mul(2).max(self.current.saturating_add(UP_WORKERS));
        let wanted = if now > self.current { now.min(most) } else { highest.min(self.current) };
        self.current = wanted.clamp(self.bounds.0, self.bounds.1);
        self.current
    }
}

/// Whom a schedule prefers for a job.
#[derive(Clone, Copy, Debug)]
enum Thrift {
    /// A busy worker that is free soon enough: idle ones may be given back.
    Waits,
    /// An idle worker: fewer are needed at once later.
    TakesIdle,
}

/// B3: how many workers there are in each step; after the last, as many as then.
#[derive(Clone, Debug)]
struct Schedule {
    step_ms: u64,
    workers: Vec<u32>,
}

/// A worker of the schedule, from when it was asked for until it was given back.
#[derive(Clone, Copy)]
struct Stay {
    asked_at: u64,
    free_at: u64,
}

impl Stay {
    const fn first_free(&self) -> u64 {
        u64::MAX - self.free_at
    }

    const fn last_free(&self) -> u64 {
        self.free_at
    }
}

/// The place of the worker among these with the largest rank; the first of equals.
fn place_of(stays: &[Stay], among: impl Fn(&Stay) -> bool, rank: impl Fn(&Stay) -> u64) -> Option<usize> {
    let chosen = stays.iter().enumerate().filter(|(_, stay)| among(stay)).rev();
    chosen.max_by_key(|(_, stay)| rank(stay)).map(|(place, _)| place)
}

impl Schedule {
    fn new(jobs: &[Job], ready: u32, settings: QueueSettings, thrift: Thrift, step: Millis) -> Self {
        let (start_up, bound) = (settings.start_up.as_millis(), settings.wait_bound.as_millis());
        let mut stays = vec![Stay { asked_at: 0, free_at: 0 }; ready as usize];
        let mut gone: Vec<Stay> = Vec::new();
        for job in jobs {
            // Who would be idle for longer than a start takes is given back.
            let (kept, back) = stays.into_iter().partition(|stay| stay.free_at + start_up > job.at_ms);
            stays = kept;
            gone.extend::<Vec<Stay>>(back);
            let latest = job.at_ms + bound;
            let busy =
                place_of(&stays, |stay| (job.at_ms..=latest).contains(&stay.free_at), Stay::first_free);
            let idle = place_of(&stays, |stay| stay.free_at < job.at_ms, Stay::last_free);
            let taken = match thrift {
                Thrift::Waits => busy.or(idle),
                Thrift::TakesIdle => idle.or(busy),
            };
            if let Some(place) = taken {
                stays[place].free_at = stays[place].free_at.max(job.at_ms) + job.work_ms;
                continue;
            }
            // One that waits as long as it may, so that those after it can be given to the same worker.
            let begins_at = latest.max(start_up);
            stays.push(Stay { asked_at: begins_at - start_up, free_at: begins_at + job.work_ms });
        }
        gone.extend(stays);
        let step_ms = step.as_millis().max(1);
        let steps = gone.iter().map(|stay| stay.free_at / step_ms + 2).max().unwrap_or(1);
        let mut changes = vec![0_i64; usize::try_from(steps + 1).unwrap_or(usize::MAX)];
        let place = |ms: u64| usize::try_from(ms / step_ms).unwrap_or(usize::MAX);
        for stay in &gone {
            changes[place(stay.asked_at)] += 1;
            changes[place(stay.free_at) + 1] -= 1;
        }
        let mut there = 0;
        let count = |change: i64| {
            there += change;
            u32::try_from(there).unwrap_or(0)
        };
        Self { step_ms, workers: changes.into_iter().map(count).collect() }
    }

    fn at(&self, now_ms: u64) -> u32 {
        let place = usize::try_from(now_ms / self.step_ms).unwrap_or(usize::MAX);
        // Past the schedule's end one worker does what is left.
        self.workers.get(place).copied().unwrap_or(1)
    }
}

impl Rule for Schedule {
    fn workers(&mut self, now_ms: u64, _: &Queue) -> u32 {
        self.at(now_ms)
    }
}
