//! When what happened in each control cycle, for its trace.
//!
//! Every stage is recorded once it is over, as a root span of the cycle's trace with its parts inside, so no
//! span ever waits for another process. Invariant: at most a fixed number of cycles is remembered.

use std::collections::BTreeMap;

use super::control::Moment;
use crate::{
    cycle::Decided,
    knowledge::{change::ClosedWindow, snapshot::Finality},
    service::telemetry::{CycleTracer, Stage, system_time},
    types::{Cycle, Digest, Millis, WindowIndex},
};

/// How many windows and cycles are remembered: plans are logged within a few.
const REMEMBERED: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Reported {
    from: Moment,
    close: Moment,
    sent: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Closed {
    close: Moment,
    folded: Moment,
    decided: Option<Moment>,
    certified: Option<Moment>,
}

pub(super) struct CycleTimes {
    cluster: Digest,
    window: Millis,
    tracer: CycleTracer,
    reported: BTreeMap<WindowIndex, Reported>,
    closed: BTreeMap<Cycle, Closed>,
}

impl CycleTimes {
    pub(super) const fn new(cluster: Digest, window: Millis, tracer: CycleTracer) -> Self {
        Self { cluster, window, tracer, reported: BTreeMap::new(), closed: BTreeMap::new() }
    }

    pub(super) fn reported(&mut self, window: WindowIndex, from: Moment, close: Moment, sent: Moment) {
        self.reported.insert(window, Reported { from, close, sent });
        if self.reported.len() > REMEMBERED {
            self.reported.pop_first();
        }
    }

    pub(super) fn closed(&mut self, closed: &ClosedWindow, now: Moment) {
        let close = closed.window.close(self.window);
        let times = Closed { close, folded: now, decided: None, certified: None };
        self.closed.insert(closed.cycle, times);
        if self.closed.len() > REMEMBERED {
            self.closed.pop_first();
        }
        if !self.tracer.is_on() {
            return;
        }
        let observed = self.reported.get(&closed.window).copied();
        let began = observed.map_or(close, |observed| observed.from);
        let confirmed = closed.finality == Finality::Confirmed;
        let mut stage = Stage::new("observe", system_time(began), system_time(now))
            .with("quorate.cycle", integer(closed.cycle.number()))
            .with("quorate.window", integer(closed.window.index()))
            .with("quorate.reports", integer(closed.reporters.len() as u64))
            .with("quorate.series", integer(closed.series.len() as u64))
            .with("quorate.confirmed", confirmed);
        if let Some(Reported { from, close, sent }) = observed {
            stage = stage
                .part(Stage::new("window", system_time(from), system_time(close)))
                .part(Stage::new("report", system_time(close), system_time(sent)))
                .part(Stage::new("agree", system_time(sent), system_time(now)));
        }
        self.tracer.record(self.cluster, closed.cycle, stage);
    }

    pub(super) fn decided(&mut self, decided: &Decided, now: Moment) {
        let Some(times) = self.closed.get_mut(&decided.cycle) else { return };
        times.decided = Some(now);
        if !self.tracer.is_on() {
            return;
        }
        let stage = Stage::new("decide", system_time(times.folded), system_time(now))
            .with("quorate.cycle", integer(decided.cycle.number()))
            .with("quorate.findings", integer(decided.findings.len() as u64))
            .with("quorate.plans", integer(decided.plans.len() as u64));
        self.tracer.record(self.cluster, decided.cycle, stage);
    }

    pub(super) fn certified(&mut self, cycle: Cycle, now: Moment) {
        let Some(times) = self.closed.get_mut(&cycle) else { return };
        let derived = times.decided.unwrap_or(times.folded);
        times.certified = Some(now);
        if self.tracer.is_on() {
            let stage = Stage::new("certify", system_time(derived), system_time(now))
                .with("quorate.cycle", integer(cycle.number()));
            self.tracer.record(self.cluster, cycle, stage);
        }
    }

    /// How long after its window's close the plan of this cycle was logged; `None` for one long past.
    pub(super) fn logged(&mut self, cycle: Cycle, now: Moment) -> Option<Millis> {
        let times = self.closed.get(&cycle)?;
        if self.tracer.is_on() {
            let began = times.certified.or(times.decided).unwrap_or(times.folded);
            let stage = Stage::new("log", system_time(began), system_time(now))
                .with("quorate.cycle", integer(cycle.number()));
            self.tracer.record(self.cluster, cycle, stage);
        }
        Some(now.since(times.close))
    }
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
