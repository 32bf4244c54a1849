//! Readings: what each policy's indicator says after a window, remembered from one window to the next
//! (rules R1 to R4). It merges nothing and judges nothing.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::VecDeque;

use crate::{
    knowledge::{
        finding::Interval,
        genesis::Parameters,
        merge::Merged,
        snapshot::{Finality, Reading},
    },
    types::{Millis, WindowIndex},
};

/// How many distances between windows with samples are remembered: enough that single late exports do not
/// move their median, few enough that a changed cadence is learned within five exports.
const LEARNED_DISTANCES: usize = 8;

/// What is remembered of one indicator.
#[derive(Clone, Debug, Default, BorshSerialize, BorshDeserialize)]
pub(super) struct IndicatorMemory {
    /// The newest confirmed window with samples, and its value.
    last: Option<(WindowIndex, Interval)>,
    /// Distances between successive windows with samples, in milliseconds, oldest first.
    distances: VecDeque<u64>,
    /// Whether a window about which nothing is sure lies between the last value and now.
    interrupted: bool,
}

impl IndicatorMemory {
    /// Whether it remembers no more than it may.
    pub(super) fn is_sound(&self) -> bool {
        self.distances.len() <= LEARNED_DISTANCES
    }

    /// R4: windows passed that nobody reported.
    pub(super) const fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// The reading of a closed window, which is then remembered.
    pub(super) fn read(
        &mut self,
        window: WindowIndex,
        finality: Finality,
        merged: Merged,
        parameters: &Parameters,
    ) -> Reading {
        let reading = match merged {
            Merged::Value(value) => Reading::Fresh(value), // R1
            Merged::Unknown => Reading::Unknown,           // R1
            Merged::NoSamples => self.without_samples(window, parameters),
        };
        match (finality, merged) {
            (Finality::Confirmed, Merged::Value(value)) => self.remember(window, value, parameters),
            (Finality::Confirmed, Merged::NoSamples) => {}
            (Finality::Confirmed, Merged::Unknown)
            | (Finality::Unconfirmed, Merged::Value(_) | Merged::NoSamples | Merged::Unknown) => {
                self.interrupt(); // R4
            }
        }
        reading
    }

    /// R2.
    fn without_samples(&self, window: WindowIndex, parameters: &Parameters) -> Reading {
        let learned = self.learned();
        let learned_interval_ms = learned.as_millis();
        let Some((last, value)) = self.last else {
            return Reading::NoSamples { since: None, learned_interval_ms };
        };
        let since = last.close(parameters.window);
        let age = window.close(parameters.window).since(since);
        if age.times(2) <= learned.times(3) && age <= parameters.longest_hold {
            Reading::Held { value, since }
        } else {
            Reading::NoSamples { since: Some(since), learned_interval_ms }
        }
    }

    /// R3 and R4.
    fn remember(&mut self, window: WindowIndex, value: Interval, parameters: &Parameters) {
        let length = parameters.window;
        if let Some((last, _)) = self.last
            && !self.interrupted
        {
            let distance = window.close(length).since(last.close(length));
            if distance <= parameters.longest_hold {
                self.distances.push_back(distance.as_millis());
                if self.distances.len() > LEARNED_DISTANCES {
                    self.distances.pop_front();
                }
            }
        }
        self.last = Some((window, value));
        self.interrupted = false;
    }

    /// R3.
    fn learned(&self) -> Millis {
        let mut sorted: Vec<u64> = self.distances.iter().copied().collect();
        sorted.sort_unstable();
        let middle = sorted.len().checked_sub(1).and_then(|last| sorted.get(last / 2));
        Millis::new(middle.copied().unwrap_or(0))
    }
}
