//! The conservation detector: what flowed into a stock, less what flowed out of it, is by how much the stock changed
//! (rules B1 to B5). One source posts all three, so if they do not add up, it loses or invents something.
//!
//! It works on merged intervals, by interval arithmetic, and cannot say which of the three is wrong. Invariant: it
//! remembers no more windows than its span holds, and two.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;

use super::analyzer::{Moment, Sighting};
use crate::knowledge::{
    finding::{Interval, Symptom},
    merge::selects,
    observation::SeriesKey,
    policy::{Selector, Statistic},
};
use crate::types::{Millis, Quantity, UnixMillis, WindowIndex};

/// Every series of a closed window, each statistic merged by itself.
pub(super) type Merged = BTreeMap<SeriesKey, BTreeMap<Statistic, Interval>>;

/// Which series must add up, and how exactly.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Books {
    pub(super) inflow: Selector,
    pub(super) outflow: Selector,
    pub(super) stock: Selector,
    pub(super) tolerance: Quantity,
    pub(super) over: Millis,
}

/// The detector with its running state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Conservation {
    books: Books,
    /// The windows of the span, oldest first; of the first, only the stock counts.
    points: Vec<Point>,
    /// Since when, in agreed time, it does not add up.
    since: Option<UnixMillis>,
}

/// What a window says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Point {
    window: WindowIndex,
    /// What flowed in less what flowed out.
    net: Interval,
    stock: Interval,
    /// How many series each of the three terms had.
    series: [u32; 3],
}

impl Conservation {
    pub(super) const fn new(books: Books) -> Self {
        Self { books, points: Vec::new(), since: None }
    }

    pub(super) fn look(&mut self, moment: Moment, merged: &Merged) -> Option<Sighting> {
        let Books { inflow, outflow, stock, .. } = &self.books;
        let flows = [inflow, outflow].map(|selector| total(selector, Statistic::Increase, merged));
        let stock = total(stock, Statistic::Last, merged);
        let ([Some(inflow), Some(outflow)], Some(stock)) = (flows, stock) else {
            if flows.iter().chain([&stock]).any(Option::is_some) {
                self.begin_anew(); // B3
            }
            return None; // B2
        };
        let series = [inflow.series, outflow.series, stock.series];
        if self.points.last().is_some_and(|last| last.series != series) {
            self.begin_anew(); // B3
        }
        let net = less(inflow.sum, outflow.sum);
        self.points.push(Point { window: moment.window, net, stock: stock.sum, series });
        self.forget_before_the_span(moment);
        self.judge(moment)
    }

    /// As it was before the first window, and after one of which nothing is known (B3).
    pub(super) fn begin_anew(&mut self) {
        self.points.clear();
        self.since = None;
    }

    /// B4: the span begins at the newest window that is old enough, or at the oldest there is.
    fn forget_before_the_span(&mut self, moment: Moment) {
        let now = moment.window.close(moment.length);
        let over = self.books.over;
        let is_old = |point: &Point| now.since(point.window.close(moment.length)) >= over;
        let old = self.points.iter().take_while(|point| is_old(point)).count();
        self.points.drain(..old.saturating_sub(1));
    }

    /// B5.
    fn judge(&mut self, moment: Moment) -> Option<Sighting> {
        let (first, rest) = self.points.split_first()?;
        let last = rest.last()?;
        let flowed = rest.iter().fold(NOTHING, |sum, point| plus(sum, point.net));
        let missing = less(flowed, less(last.stock, first.stock));
        let tolerance = self.books.tolerance;
        let below = Quantity::ZERO.minus(tolerance);
        let symptom = if missing.low > tolerance || missing.high < below {
            Symptom::Threshold
        } else if missing.high > tolerance || missing.low < below {
            Symptom::Disputed
        } else {
            self.since = None;
            return None;
        };
        let since = *self.since.get_or_insert(moment.now);
        Some(Sighting { symptom, since, observed: Some(missing), against: tolerance })
    }
}

const NOTHING: Interval = Interval { low: Quantity::ZERO, median: Quantity::ZERO, high: Quantity::ZERO };

/// A term of the balance: how many series it has, and their sum.
#[derive(Clone, Copy)]
struct Term {
    series: u32,
    sum: Interval,
}

/// B1: `None` when no series has the statistic.
fn total(selector: &Selector, statistic: Statistic, merged: &Merged) -> Option<Term> {
    let values = merged.iter().filter(|(key, _)| selects(selector, key));
    let values = values.filter_map(|(_, statistics)| statistics.get(&statistic));
    let nothing = Term { series: 0, sum: NOTHING };
    let term = values.fold(nothing, |term, value| Term {
        series: term.series.saturating_add(1),
        sum: plus(term.sum, *value),
    });
    (term.series > 0).then_some(term)
}

/// All sums of a point of each.
const fn plus(one: Interval, other: Interval) -> Interval {
    Interval {
        low: one.low.plus(other.low),
        median: one.median.plus(other.median),
        high: one.high.plus(other.high),
    }
}

/// All differences of a point of each.
const fn less(one: Interval, other: Interval) -> Interval {
    Interval {
        low: one.low.minus(other.high),
        median: one.median.minus(other.median),
        high: one.high.minus(other.low),
    }
}

#[cfg(test)]
mod tests;
