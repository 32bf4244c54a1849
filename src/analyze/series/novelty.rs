//! The novelty detector: on two scales at once, is this like anything that was there before? It compares the
//! pair (value, mean of the last 300) with every past pair. It knows no seasons and no shapes: a season is
//! what comes back. Invariant: an alarm is followed by a silence.
//!
//! - **N1** A pair is the value and half the mean of the last [`LONG`] values, relative to the series' first
//!   value. Its distance is that to the nearest pair of the past.
//! - **N2** Every pair joins the past [`LAG`] samples late, so that an anomaly's own beginning does not make its
//!   rest look familiar. The past is quantised: at first to a hundredth of the range so far, then coarser.
//! - **N3** The first [`WARM_UP`] samples are only learned from.
//! - **N4** The strength is what the distance exceeds the usual one by, in units of
//!   3 * usual distance + range / 100 + 0.3 * usual step, times n / (n + 100) after n samples: of a short past
//!   little is known. The usual distance is a mean that forgets in [`FORGETS`] samples; the usual step is the
//!   mean of the sizes of the differences between neighbours.
//! - **N5** After an alarm there is silence for [`SILENCE`] samples and 3 % of those seen so far, at most [`SILENCE_MOST`],
//!   broken only by an alarm [`LOUDER`] times as strong as the one before, which is forgotten by half a percent a sample.
//!   Whatever has any strength outside of a silence begins one.
//! - **N6** A series whose whole past is one straight line has new values all the time. Its strength is kept
//!   only if the value is far from that line, too: nothing of it at 4 times the usual distance from it and
//!   less, all of it at 6 times.
//!
//! The idea of comparing recent values with all past ones at two scales is common to nearest-neighbour
//! detectors such as KNN-CAD; the pair, the quantising and the calibration are this file's.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::VecDeque;

use super::{
    Explanation, Sample, Seen, Verdict, count,
    line::Line,
    past::{Pair, Past},
    ring::Ring,
};
use crate::types::UnixMillis;

/// The samples of the long mean: a day of five-minute samples has 288.
const LONG: u32 = 300;
/// The weight of the long mean beside the value.
const LONG_WEIGHT: f64 = 0.5;
/// How late a pair joins the past.
const LAG: usize = 40;
/// How many samples are only learned from.
const WARM_UP: u64 = 170;
/// The silence after an alarm, in samples, and its share of all samples so far.
const SILENCE: f64 = 80.0;
const SILENCE_SHARE: f64 = 0.03;
/// However much was seen: a series that runs for years is not left unwatched for hours after each alarm.
const SILENCE_MOST: f64 = 600.0;
/// How many times stronger an alarm must be to break the silence.
const LOUDER: f64 = 3.0;
/// What is left of the last alarm's strength from sample to sample.
const FADES: f64 = 0.995;
/// In how many samples the usual distance is forgotten, and what is left of it from one to the next.
const KEEPS: f64 = 1.0 - 1.0 / FORGETS;
const FORGETS: f64 = 5000.0;
/// The samples after which the usual step forgets.
const STEP_SPAN: f64 = 2000.0;
/// The samples after which the usual distance from the line forgets.
const LINE_SPAN: f64 = 1000.0;
/// The quantising of the past and the floor of the unit, as a share of the range.
const GRAIN: f64 = 0.01;
/// The strength that is a finding, in the unit of N4: chosen so that clean series give fewer than three
/// alarms in 10,000 samples.
const BOUND: f64 = 0.5;

/// The detector with its running state.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub struct Novelty {
    seen: Option<SoFar>,
    long: Ring,
    line: Line,
    line_error: Mean,
    past: Past,
    joining: VecDeque<Pair>,
    step: Mean,
    usual: Usual,
    alarm: Alarm,
}

/// The plain facts of the samples so far.
#[derive(Clone, Copy, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
struct SoFar {
    first: f64,
    last: f64,
    low: f64,
    high: f64,
    samples: u64,
}

/// A mean that is plain at first and forgets once it has as many values as its span.
#[derive(Clone, Copy, Debug, Default, PartialEq, BorshSerialize, BorshDeserialize)]
struct Mean {
    values: f64,
    mean: f64,
}

/// The usual distance.
#[derive(Clone, Copy, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
struct Usual {
    sum: f64,
    weight: f64,
}

/// The last alarm.
#[derive(Clone, Copy, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
struct Alarm {
    strength: f64,
    /// Samples since; nothing before the first.
    age: Option<u64>,
}

impl Default for Novelty {
    fn default() -> Self {
        Self::new()
    }
}

impl Novelty {
    /// The detector before the first sample.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            seen: None,
            long: Ring::new(LONG),
            line: Line::new(),
            line_error: Mean { values: 0.0, mean: 0.0 },
            past: Past::new(),
            joining: VecDeque::new(),
            step: Mean { values: 0.0, mean: 0.0 },
            usual: Usual { sum: 0.0, weight: 0.0 },
            alarm: Alarm { strength: 0.0, age: None },
        }
    }

    /// Looks at the next sample.
    pub fn look(&mut self, sample: Sample) -> Verdict {
        let absolute = sample.value.to_f64();
        let first = self.seen.map_or(absolute, |seen| seen.first);
        let value = absolute - first;
        let before = self.seen;
        let seen =
            before.map_or(SoFar { first, last: value, low: value, high: value, samples: 1 }, |seen| SoFar {
                first,
                last: value,
                low: seen.low.min(value),
                high: seen.high.max(value),
                samples: seen.samples + 1,
            });
        self.seen = Some(seen);
        self.step.push(before.map_or(0.0, |before| (value - before.last).abs()), STEP_SPAN);
        self.long.push(value);
        self.alarm.grow_older();
        let off_line = self.distance_from_line(value);
        let Some(before) = before else {
            return Verdict::QUIET;
        };

        // N1.
        let mean = self.long.mean();
        let pair = pair(value, mean);
        let distance = self.past.distance(pair);
        let range = (seen.high - seen.low).max(1e-12);
        // N3.
        let verdict = if before.samples >= WARM_UP {
            self.judge(sample.at, before.samples, distance, range, off_line, absolute, mean + first)
        } else {
            Verdict::QUIET
        };
        self.usual.push(distance);
        // N2.
        self.joining.push_back(pair);
        if self.joining.len() > LAG {
            let joins = self.joining.pop_front().expect("it is longer than the lag");
            self.past.add(joins, GRAIN * range);
        }
        verdict
    }

    #[expect(clippy::too_many_arguments, reason = "each is one number of rule N4 or of the explanation")]
    fn judge(
        &mut self,
        at: UnixMillis,
        samples: u64,
        distance: f64,
        range: f64,
        off_line: f64,
        value: f64,
        mean: f64,
    ) -> Verdict {
        // N4.
        let usual = self.usual.mean();
        let unit = (3.0 * usual + GRAIN * range + 0.3 * self.step.mean).max(1e-12);
        let known = count(samples) / (count(samples) + 100.0);
        // N6.
        let strength = (distance - usual).max(0.0) / unit * known * off_line;
        // N5.
        if strength <= 0.0 || !self.alarm.may_follow(strength, samples) {
            return Verdict::QUIET;
        }
        self.alarm = Alarm { strength, age: Some(0) };
        let seen = Seen::Novel { value, mean, distance, usual };
        Verdict::new(strength / BOUND, Explanation { seen, since: at })
    }

    /// What is kept of the strength by N6: from 0 to 1.
    fn distance_from_line(&mut self, value: f64) -> f64 {
        let kept = match self.line.prediction() {
            Some(predicted) => {
                let error = (value - predicted).abs();
                let usual = self.line_error.mean;
                let kept = if usual > 0.0 { ((error / usual - 4.0) / 2.0).clamp(0.0, 1.0) } else { 1.0 };
                self.line_error.push(error, LINE_SPAN);
                kept
            }
            None => {
                self.line_error = Mean::default();
                1.0
            }
        };
        self.line.push(value);
        kept
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is meant; a quantity is far from the range's ends"
)]
fn pair(value: f64, mean: f64) -> Pair {
    Pair { short: value as f32, long: (mean * LONG_WEIGHT) as f32 }
}

impl Mean {
    fn push(&mut self, value: f64, span: f64) {
        self.values = (self.values + 1.0).min(span);
        self.mean += (value - self.mean) / self.values;
    }
}

impl Usual {
    fn push(&mut self, distance: f64) {
        self.sum = self.sum * KEEPS + distance;
        self.weight = self.weight * KEEPS + 1.0;
    }

    fn mean(self) -> f64 {
        self.sum / self.weight.max(1.0)
    }
}

impl Alarm {
    fn grow_older(&mut self) {
        self.strength *= FADES;
        self.age = self.age.map(|age| age + 1);
    }

    fn may_follow(self, strength: f64, samples: u64) -> bool {
        let silence = (SILENCE + (SILENCE_SHARE * count(samples)).trunc()).min(SILENCE_MOST);
        self.age.is_none_or(|age| count(age) >= silence) || strength > self.strength * LOUDER
    }
}
