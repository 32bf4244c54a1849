//! The capacity model: how many slots a load asks for (rules C1 to C7). It knows no target and does not know how many
//! slots there are; what follows from its answer is planning's business.
//!
//! Invariant: the answer's ends are computed from the ends of the readings, so that every choice of points in them
//! asks for a number of slots between the two; only the forecast adds to it, and never takes away.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::VecDeque;

use super::analyzer::{Moment, Sighting};
use crate::knowledge::{
    finding::{Interval, Symptom},
    policy::Capacity as Model,
    snapshot::Reading,
};
use crate::types::{Millis, Quantity, UnixMillis};

/// Calculations are in whole millionths, so that products of two values of up to 10^12 fit in 128 bits.
const MICROS: i128 = 1_000_000;
/// The largest value that is told apart: 10^12.
const MOST: i128 = 1_000_000_000_000 * MICROS;
/// No recommendation asks for more slots.
const MOST_SLOTS: i128 = 1_000_000;
/// How much of the older jobs' time counts still in each window: 15 sixteenths, so that some sixteen windows tell how
/// long a job takes.
const OLD_SHARE: (i128, i128) = (15, 16);
/// A trend takes up a quarter of each new change.
const TREND_SHARE: i128 = 4;

/// The lowest, the middle and the highest of what may be true.
type Ends = [i128; 3];

/// The detector with its running state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Capacity {
    utilization_milli: u32,
    drain: Millis,
    lead: Millis,
    smooth: Millis,
    keep: Millis,
    memory: Memory,
}

/// What it remembers, in millionths.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Memory {
    /// Jobs that arrive in a second; nothing before the first window.
    rate: Option<Ends>,
    /// By how much the middle rate rises in a second.
    trend: i128,
    /// The close of the last window with samples.
    last: Option<UnixMillis>,
    /// How long finished jobs were worked on, older ones counted less, in seconds.
    work: Ends,
    /// How many they were.
    completions: Ends,
    /// When each recommendation that still counts was made, and its highest number of slots.
    recommended: VecDeque<(UnixMillis, i128)>,
}

/// The readings of one window beside the arrivals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    /// How long the jobs that were finished in it were worked on.
    pub(super) work: Reading,
    /// How many these were.
    pub(super) completions: Reading,
    /// How many jobs wait at its end.
    pub(super) backlog: Reading,
}

impl Capacity {
    pub(super) fn new(model: &Model) -> Self {
        let Model { utilization_milli, drain, lead, smooth, keep, .. } = *model;
        Self { utilization_milli, drain, lead, smooth, keep, memory: Memory::default() }
    }

    pub(super) fn begin_anew(&mut self) {
        self.memory = Memory::default();
    }

    /// C7: what was recommended before a window about which nothing is known may be too low for it.
    pub(super) fn lose_sight(&mut self) {
        self.memory.trend = 0;
    }

    pub(super) fn look(&mut self, moment: Moment, arrivals: Reading, side: Side) -> Option<Sighting> {
        let (Some(arrivals), Some(backlog)) = (ends(arrivals), ends(side.backlog)) else {
            self.lose_sight();
            return None;
        };
        if let (Some(work), Some(completions)) = (ends(side.work), ends(side.completions)) {
            self.learn_work(work, completions);
        }
        let now = moment.window.close(moment.length);
        let since = self.memory.last.replace(now).unwrap_or_else(|| moment.window.start(moment.length));
        self.learn_rate(arrivals, now.since(since));
        let wanted = self.wanted(backlog)?;
        let recommended = &mut self.memory.recommended;
        recommended.push_back((now, wanted[2]));
        // C6.
        while recommended.front().is_some_and(|(at, _)| at.plus(self.keep) <= now) {
            recommended.pop_front();
        }
        let highest = recommended.iter().map(|(_, slots)| *slots).max().unwrap_or(wanted[2]);
        let slots = |number: i128| Quantity::from_nanos(number * Quantity::ONE.as_nanos());
        let observed = Interval { low: slots(wanted[0]), median: slots(wanted[1]), high: slots(highest) };
        Some(Sighting {
            symptom: Symptom::Capacity,
            since: moment.now,
            observed: Some(observed),
            against: Quantity::ZERO,
        })
    }

    /// C1.
    fn learn_work(&mut self, work: Ends, completions: Ends) {
        let aged = |old: i128, new: i128| old * OLD_SHARE.0 / OLD_SHARE.1 + new;
        for end in 0..3 {
            self.memory.work[end] = aged(self.memory.work[end], work[end]);
            self.memory.completions[end] = aged(self.memory.completions[end], completions[end]);
        }
    }

    /// C2 and C3.
    fn learn_rate(&mut self, arrivals: Ends, passed: Millis) {
        let passed_ms = i128::from(passed.as_millis().max(1));
        let new = arrivals.map(|number| number * 1000 / passed_ms);
        let Some(old) = self.memory.rate else {
            self.memory.rate = Some(new);
            return;
        };
        let smooth_ms = i128::from(self.smooth.as_millis());
        let moved = |old: i128, new: i128| old + (new - old) * passed_ms / (passed_ms + smooth_ms);
        let rate = [moved(old[0], new[0]), moved(old[1], new[1]), moved(old[2], new[2])];
        let risen = (rate[1] - old[1]) * 1000 / passed_ms;
        self.memory.trend += (risen - self.memory.trend) / TREND_SHARE;
        self.memory.rate = Some(rate);
    }

    /// C3 to C5.
    fn wanted(&self, backlog: Ends) -> Option<Ends> {
        let rate = self.memory.rate?;
        let lead_ms = i128::from(self.lead.as_millis());
        let forecast = rate[1] + self.memory.trend.max(0) * lead_ms / 1000;
        let mut wanted = [0; 3];
        for end in 0..3 {
            let completions = self.memory.completions[2 - end];
            if completions <= 0 {
                // Nobody knows yet how long a job takes.
                return None;
            }
            let job = (self.memory.work[end] * MICROS / completions).min(MOST);
            let load =
                product(rate[end].max(forecast), job) * 1000 / i128::from(self.utilization_milli.max(1));
            let drain_ms = i128::from(self.drain.as_millis().max(1));
            let waiting = product(backlog[end], job) * 1000 / drain_ms;
            wanted[end] = ((load + waiting + MICROS - 1) / MICROS).clamp(0, MOST_SLOTS);
        }
        Some(wanted)
    }
}

/// The product of two values in millionths; it is at most 10^12.
const fn product(one: i128, other: i128) -> i128 {
    let product = one * other / MICROS;
    if product > MOST { MOST } else { product }
}

/// The ends of a reading in millionths; `None` where it has no value.
fn ends(reading: Reading) -> Option<Ends> {
    let nanos_per_micro = Quantity::ONE.as_nanos() / MICROS;
    let micros = |value: Quantity| (value.as_nanos() / nanos_per_micro).clamp(0, MOST);
    match reading {
        Reading::Fresh(Interval { low, median, high }) => Some([low, median, high].map(micros)),
        Reading::Held { .. } | Reading::NoSamples { .. } | Reading::Unknown => None,
    }
}

#[cfg(test)]
mod tests;
