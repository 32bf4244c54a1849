//! Burn rate of an error budget, over several pairs of windows (Beyer et al., The Site Reliability Workbook,
//! 2018, chapter 5). A value is the share of errors in its sample's span, from 0 to 1. Invariant: a rate is found only if both
//! windows of a pair show it, so that a finding begins late and ends soon.
//!
//! - **B1** A window's burn rate is the mean share of errors in it, divided by the budget, which is 1 - objective.
//! - **B2** The pairs are [`PAIRS`]: a factor, a long and a short window. The strength is the largest, over the
//!   pairs, of the smaller of both rates divided by the factor.
//! - **B3** A window counts once samples cover all of it: of half an hour nothing is known about three days.
//! - **B4** Time is cut into slots, of which each window holds [`SLOTS`]; the newest is still filling. A window is thus
//!   right to a twelfth of its length. A slot without samples has no share in the mean.
//! - **B5** `since` is the time of the first of the findings in a row.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{Explanation, FOUND, Sample, Seen, Verdict, count};
use crate::types::{Millis, Quantity, UnixMillis};

const MINUTE: u64 = 60_000;
/// Factor, long window and short window in milliseconds.
const PAIRS: [(f64, u64, u64); 3] =
    [(14.4, 60 * MINUTE, 5 * MINUTE), (6.0, 360 * MINUTE, 30 * MINUTE), (1.0, 4320 * MINUTE, 360 * MINUTE)];
/// The slots of a window.
const SLOTS: u64 = 12;
/// Where slots are kept: those of a window, and the one that is filling.
const PLACES: usize = 13;

/// The detector with its running state.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub struct BurnRate {
    budget: f64,
    first: Option<UnixMillis>,
    windows: Vec<(Window, Window)>,
    found_since: Option<UnixMillis>,
}

/// The shares of errors in one window.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
struct Window {
    length: Millis,
    /// The number of the newest slot since the epoch.
    newest: u64,
    slots: [Slot; PLACES],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, BorshSerialize, BorshDeserialize)]
struct Slot {
    sum: f64,
    samples: u64,
}

/// Why an objective is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an objective is a share above 0 and below 1, such as 0.999")]
pub struct NoObjective;

impl BurnRate {
    /// The detector of an objective, the share of successes that is promised, before the first sample.
    ///
    /// # Errors
    /// [`NoObjective`] when there is no budget, or nothing but.
    pub fn new(objective: Quantity) -> Result<Self, NoObjective> {
        if objective <= Quantity::ZERO || objective >= Quantity::ONE {
            return Err(NoObjective);
        }
        let pair = |(_, long, short)| (Window::new(long), Window::new(short));
        Ok(Self {
            budget: Quantity::ONE.minus(objective).to_f64(),
            first: None,
            windows: PAIRS.into_iter().map(pair).collect(),
            found_since: None,
        })
    }

    /// Looks at the next sample.
    pub fn look(&mut self, sample: Sample) -> Verdict {
        let share = sample.value.to_f64().clamp(0.0, 1.0);
        let first = *self.first.get_or_insert(sample.at);
        let seen_for = sample.at.since(first);
        let mut worst: Option<(f64, Seen)> = None;
        for ((long, short), (allowed, ..)) in self.windows.iter_mut().zip(PAIRS) {
            long.push(sample.at, share);
            short.push(sample.at, share);
            // B3.
            if seen_for < long.length {
                continue;
            }
            // B1, B2.
            let (slow, fast) = (long.mean() / self.budget, short.mean() / self.budget);
            let strength = slow.min(fast) / allowed;
            if worst.is_none_or(|(before, _)| strength > before) {
                let hours = super::seconds(long.length) / 3600.0;
                worst = Some((strength, Seen::Burning { long: slow, short: fast, allowed, hours }));
            }
        }
        let Some((strength, seen)) = worst else {
            return Verdict::QUIET;
        };
        let since = self.found_since.unwrap_or(sample.at);
        let verdict = Verdict::new(strength, Explanation { seen, since });
        // B5.
        self.found_since = (verdict.score >= FOUND).then_some(since);
        verdict
    }
}

impl Window {
    fn new(length_ms: u64) -> Self {
        Self { length: Millis::new(length_ms), newest: 0, slots: [Slot::default(); PLACES] }
    }

    fn push(&mut self, at: UnixMillis, share: f64) {
        let places = self.slots.len() as u64;
        // B4.
        let slot = (at.as_millis() / (self.length.as_millis() / SLOTS)).max(self.newest);
        for passed in (self.newest + 1..=slot).rev().take(self.slots.len()) {
            self.slots[place(passed, places)] = Slot::default();
        }
        self.newest = slot;
        let slot = &mut self.slots[place(slot, places)];
        slot.sum += share;
        slot.samples += 1;
    }

    fn mean(&self) -> f64 {
        let sum: f64 = self.slots.iter().map(|slot| slot.sum).sum();
        let samples: u64 = self.slots.iter().map(|slot| slot.samples).sum();
        sum / count(samples.max(1))
    }
}

fn place(slot: u64, places: u64) -> usize {
    usize::try_from(slot % places).expect("there are thirteen places")
}
