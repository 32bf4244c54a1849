//! The threshold detector: a value past a bound, with hysteresis and a hold time (rules T1 to T4). It sees one
//! reading a window and does not judge whether the window itself can be trusted.

use borsh::{BorshDeserialize, BorshSerialize};

use super::analyzer::{Moment, Sighting};
use crate::knowledge::{
    finding::{Interval, Symptom},
    policy::Side,
    snapshot::Reading,
};
use crate::types::{Millis, Quantity, UnixMillis, WindowIndex};

/// The detector with its running state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Threshold {
    side: Side,
    enter: Quantity,
    leave: Quantity,
    hold: Millis,
    lasting: Option<Lasting>,
}

/// A symptom that has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Lasting {
    /// Agreed time when it began.
    since: UnixMillis,
    /// The window in which it began.
    from: WindowIndex,
    /// Whether it has lasted for the hold time.
    held: bool,
}

impl Threshold {
    pub(super) const fn new(side: Side, enter: Quantity, leave: Quantity, hold: Millis) -> Self {
        Self { side, enter, leave, hold, lasting: None }
    }

    pub(super) fn look(&mut self, moment: Moment, reading: Reading) -> Option<Sighting> {
        match reading {
            Reading::Fresh(value) | Reading::Held { value, .. } => self.look_at_value(moment, value),
            Reading::NoSamples { .. } => {
                // T4.
                self.lasting = None;
                None
            }
            Reading::Unknown => {
                self.lose_sight();
                None
            }
        }
    }

    /// As it was before the first window.
    pub(super) const fn begin_anew(&mut self) {
        self.lasting = None;
    }

    /// Forgets a symptom whose hold time has not been seen whole (W5).
    pub(super) fn lose_sight(&mut self) {
        self.lasting = self.lasting.filter(|lasting| lasting.held);
    }

    fn look_at_value(&mut self, moment: Moment, value: Interval) -> Option<Sighting> {
        let before = self.lasting;
        let shows = |point| self.shows(before.is_some(), point);
        let points = [value.low, value.median, value.high].map(shows);
        let mut lasting = before.unwrap_or(Lasting { since: moment.now, from: moment.window, held: false });
        // T2.
        let span = moment.window.close(moment.length).since(lasting.from.close(moment.length));
        lasting.held |= span >= self.hold;
        // T1.
        self.lasting = shows(value.median).then_some(lasting);
        // T3. The shown points lie on one side of a bound, so the interval's ends speak for all of it.
        let symptom = match points {
            [true, true, true] => Symptom::Threshold,
            [false, false, false] => return None,
            [_, _, _] => Symptom::Disputed,
        };
        lasting.held.then_some(Sighting {
            symptom,
            since: lasting.since,
            observed: Some(value),
            against: if before.is_some() { self.leave } else { self.enter },
        })
    }

    fn shows(&self, lasting: bool, point: Quantity) -> bool {
        match self.side {
            Side::Above => point >= self.enter || (lasting && point > self.leave),
            Side::Below => point <= self.enter || (lasting && point < self.leave),
        }
    }
}
