//! [`Analyzer`]: the detectors of all policies and what they find in each closed window. It decides what a
//! window is worth (rules W1 to W6); what a value means is left to the detectors.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{
    absence::Absence,
    capacity::{Capacity, Side as CapacitySide},
    conservation::{Books, Conservation, Merged},
    threshold::Threshold,
};
use crate::knowledge::{
    change::ClosedWindow,
    finding::{Finding, Interval, Symptom},
    genesis::Genesis,
    policy::{Condition, Policy, Statistic},
    snapshot::{Finality, Reading},
};
use crate::types::{Millis, Quantity, UnixMillis, WindowIndex};

/// The running state of analysis: part of the replicated state, so its canonical bytes are equal wherever the
/// closed windows were.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Analyzer {
    window: Millis,
    watches: Vec<Watch>,
}

/// One policy's detector.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Watch {
    policy: String,
    detector: Detector,
    events: Events,
}

/// What is remembered of a policy's indicator (W6).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
enum Events {
    /// It counts none: what it shows now is all that it says.
    NotCounted,
    /// It counts events.
    Counted {
        /// The newest finding of new ones.
        newest: Option<Finding>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
enum Detector {
    Threshold(Threshold),
    Absence(Absence),
    Conservation(Box<Conservation>),
    Capacity(Capacity),
}

impl Detector {
    /// How many readings it looks at beside the policy's own.
    const fn further_readings(&self) -> usize {
        match self {
            Self::Threshold(_) | Self::Absence(_) | Self::Conservation(_) => 0,
            Self::Capacity(_) => 3,
        }
    }
}

/// What one policy's detector looks at.
#[derive(Clone, Copy, Debug)]
struct Sight<'a> {
    own: Reading,
    further: [Reading; 3],
    merged: &'a Merged,
}

/// Which window a detector looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// The window.
    pub(super) window: WindowIndex,
    /// The length of all windows.
    pub(super) length: Millis,
    /// Agreed time of its closing.
    pub(super) now: UnixMillis,
}

/// What a detector sees in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    /// What it is.
    pub(super) symptom: Symptom,
    /// Since when.
    pub(super) since: UnixMillis,
    /// What was seen.
    pub(super) observed: Option<Interval>,
    /// Against what.
    pub(super) against: Quantity,
}

impl Analyzer {
    /// Analysis before the first window.
    #[must_use]
    pub fn new(genesis: &Genesis) -> Self {
        Self { window: genesis.parameters.window, watches: genesis.policies.iter().map(Watch::new).collect() }
    }

    /// Whether it is analysis by this genesis, whatever it has seen.
    #[must_use]
    pub fn fits(&self, genesis: &Genesis) -> bool {
        let mut fresh = self.clone();
        fresh.watches.iter_mut().for_each(Watch::begin_anew);
        fresh == Self::new(genesis) && self.watches.iter().all(Watch::remembers_its_own)
    }

    /// The newest finding of each policy that counts events, in the policies' order (W6).
    pub fn remembered(&self) -> impl Iterator<Item = &Finding> {
        self.watches.iter().filter_map(Watch::remembered)
    }

    /// Looks at the next closed window, at agreed time `now`.
    ///
    /// At most one finding is about the loop itself; it comes first. The others come in the policies' order,
    /// at most one for each.
    pub fn advance(&mut self, closed: &ClosedWindow, now: UnixMillis) -> Vec<Finding> {
        let moment = Moment { window: closed.window, length: self.window, now };
        let sights = self.sights(closed);
        match closed.finality {
            Finality::Confirmed => self
                .watches
                .iter_mut()
                .zip(sights)
                .filter_map(|(watch, sight)| watch.look(moment, sight))
                .collect(),
            // W3.
            Finality::Unconfirmed => std::iter::once(about_the_loop(Symptom::Unconfirmed, moment))
                .chain(
                    self.watches
                        .iter_mut()
                        .zip(sights)
                        .filter_map(|(watch, sight)| watch.glance(moment, sight)),
                )
                .collect(),
        }
    }

    /// What each detector looks at: the policies' own readings come first, then what some read besides, in the same order.
    fn sights<'a>(&self, closed: &'a ClosedWindow) -> Vec<Sight<'a>> {
        // W4: a window that lacks a reading says nothing of it.
        let reading = |place: usize| closed.readings.get(place).copied().unwrap_or(Reading::Unknown);
        let mut further = self.watches.len();
        let sight = |(place, watch): (usize, &Watch)| {
            let first = further;
            further += watch.detector.further_readings();
            let further = [first, first + 1, first + 2].map(reading);
            Sight { own: reading(place), further, merged: &closed.series }
        };
        self.watches.iter().enumerate().map(sight).collect()
    }

    /// Passes over windows that nobody reported, the last of which is `last`, at agreed time `now`.
    #[must_use = "the gap is a finding"]
    pub fn pass_gap(&mut self, last: WindowIndex, now: UnixMillis) -> Finding {
        // W5.
        for watch in &mut self.watches {
            watch.detector.lose_sight();
        }
        about_the_loop(Symptom::Gap, Moment { window: last, length: self.window, now })
    }
}

fn about_the_loop(symptom: Symptom, moment: Moment) -> Finding {
    Finding { policy: None, symptom, window: moment.window, since: moment.now, observed: None, against: None }
}

impl Watch {
    fn new(policy: &Policy) -> Self {
        let detector = match &policy.condition {
            Condition::Threshold { side, enter, leave, hold } => {
                Detector::Threshold(Threshold::new(*side, *enter, *leave, *hold))
            }
            Condition::Absence { after_milli_intervals } => {
                Detector::Absence(Absence::new(*after_milli_intervals))
            }
            Condition::Conservation { outflow, stock, tolerance, over } => {
                Detector::Conservation(Box::new(Conservation::new(Books {
                    inflow: policy.indicator.selector.clone(),
                    outflow: outflow.clone(),
                    stock: stock.clone(),
                    tolerance: *tolerance,
                    over: *over,
                })))
            }
            Condition::Capacity(model) => Detector::Capacity(Capacity::new(model)),
        };
        let events = match (policy.indicator.statistic, &policy.condition) {
            (Statistic::Increase, Condition::Threshold { .. } | Condition::Absence { .. }) => {
                Events::Counted { newest: None }
            }
            // What does not add up is no event: it is so or not.
            // A load is judged in each window by itself.
            (Statistic::Increase, Condition::Conservation { .. } | Condition::Capacity(_))
            | (
                Statistic::Last
                | Statistic::Min
                | Statistic::Max
                | Statistic::Mean
                | Statistic::P50
                | Statistic::P90
                | Statistic::P99,
                _,
            ) => Events::NotCounted,
        };
        Self { policy: policy.name.clone(), detector, events }
    }

    fn begin_anew(&mut self) {
        self.detector.begin_anew();
        match &mut self.events {
            Events::Counted { newest } => *newest = None,
            Events::NotCounted => {}
        }
    }

    const fn remembered(&self) -> Option<&Finding> {
        match &self.events {
            Events::Counted { newest } => newest.as_ref(),
            Events::NotCounted => None,
        }
    }

    fn remembers_its_own(&self) -> bool {
        self.remembered().is_none_or(|finding| {
            finding.policy.as_ref() == Some(&self.policy) && finding.symptom == Symptom::Threshold
        })
    }

    /// Looks at a confirmed window's reading and learns from it.
    fn look(&mut self, moment: Moment, sight: Sight<'_>) -> Option<Finding> {
        let reading = sight.own;
        if reading == Reading::Unknown {
            // W4, W5.
            self.detector.lose_sight();
            return Some(Finding {
                policy: Some(self.policy.clone()),
                ..about_the_loop(Symptom::Unconfirmed, moment)
            });
        }
        let sighting = self.detector.look(moment, sight);
        let finding = sighting.map(|sighting| self.finding(moment, sighting));
        // W6. A held value repeats events that were found before.
        if let (Events::Counted { newest }, Reading::Fresh(_), Some(found)) =
            (&mut self.events, reading, &finding)
            && found.symptom == Symptom::Threshold
        {
            *newest = Some(found.clone());
        }
        finding
    }

    /// Looks at an unconfirmed window's reading without learning from it (W3).
    fn glance(&mut self, moment: Moment, sight: Sight<'_>) -> Option<Finding> {
        let sighting = self.detector.clone().look(moment, sight);
        // W5.
        self.detector.lose_sight();
        sighting.map(|sighting| self.finding(moment, Sighting { symptom: Symptom::Unconfirmed, ..sighting }))
    }

    fn finding(&self, moment: Moment, sighting: Sighting) -> Finding {
        Finding {
            policy: Some(self.policy.clone()),
            symptom: sighting.symptom,
            window: moment.window,
            since: sighting.since,
            observed: sighting.observed,
            against: Some(sighting.against),
        }
    }
}

impl Detector {
    fn look(&mut self, moment: Moment, sight: Sight<'_>) -> Option<Sighting> {
        match self {
            Self::Threshold(threshold) => threshold.look(moment, sight.own),
            Self::Absence(absence) => absence.look(moment, sight.own),
            Self::Conservation(conservation) => conservation.look(moment, sight.merged),
            Self::Capacity(capacity) => {
                let [work, completions, backlog] = sight.further;
                capacity.look(moment, sight.own, CapacitySide { work, completions, backlog })
            }
        }
    }

    fn begin_anew(&mut self) {
        match self {
            Self::Threshold(threshold) => threshold.begin_anew(),
            Self::Capacity(capacity) => capacity.begin_anew(),
            Self::Absence(_) => {}
            Self::Conservation(conservation) => conservation.begin_anew(),
        }
    }

    fn lose_sight(&mut self) {
        match self {
            Self::Threshold(threshold) => threshold.lose_sight(),
            Self::Capacity(capacity) => capacity.lose_sight(),
            // Silence is counted by the reading itself: there is nothing to forget.
            Self::Absence(_) => {}
            // What was not seen may have flowed.
            Self::Conservation(conservation) => conservation.begin_anew(),
        }
    }
}

#[cfg(test)]
mod tests;
