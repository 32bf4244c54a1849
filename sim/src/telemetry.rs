//! What the simulated monitors see: one series of a queue's length, its incident, and what some replica misses of it.
//!
//! It cuts no windows from samples; that is the monitor's own code, which reads no clock here. Invariant: what a
//! replica saw in a window depends on the seed, the window and the replica alone.

use quorate::{
    knowledge::{
        genesis::{Genesis, MAX_PLANS_PER_HOUR, Parameters},
        observation::{SeriesKey, SeriesSummary, WindowSummary},
        plan::OnStale,
        policy::{
            Action, Change, Combine, Condition, Controls, Indicator, Policy, Risk, Selector, Side, Statistic,
            Target, TargetKind,
        },
    },
    types::{Millis, Quantity, ReplicaIndex, SourceId, UnixMillis, WindowIndex},
};
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    requests::{agent_key, target},
    rng::{Cause, Stream},
};

/// The length of a window in a short run.
pub const SHORT_WINDOW: Millis = Millis::new(2_000);

/// The length of a window in a long run: the default of real clusters.
pub const LONG_WINDOW: Millis = Millis::new(10_000);

/// The targets of the simulated genesis.
pub const TARGETS: [&str; 2] = ["other-pool", "pool"];

/// What wall clocks show when a run begins.
const BEGIN: UnixMillis = UnixMillis::new(1_800_000_000_000);

/// How many windows are still reported once all faults are over.
const WINDOWS_AFTER_HEALING: u64 = 10;

/// How much later than the last report the control cycle's own timers matter, in windows.
const WINDOWS_TO_SETTLE: u64 = 6;

const SERIES: &str = "queue.length";
const QUIET: i64 = 2;
const CROWDED: i64 = 37;

/// The telemetry of one run.
#[derive(Clone, Debug)]
pub struct Telemetry {
    seed: u64,
    heal_ms: u64,
    window: Millis,
    /// The windows in which the queue's length changes between short and long. It is long once all faults are over.
    turns: BTreeSet<WindowIndex>,
}

impl Telemetry {
    /// The telemetry of a seed whose faults are over then.
    #[must_use]
    pub fn of_seed(seed: u64, heal_ms: u64, is_long: bool) -> Self {
        let mut stream = Stream::new(seed, Cause::Telemetry, 0);
        let window = if is_long { LONG_WINDOW } else { SHORT_WINDOW };
        let windows = heal_ms / window.as_millis();
        let turns = (0..1 + stream.below(1 + windows / 8)).map(|_| {
            let turn_ms = stream.below(heal_ms + window.as_millis());
            WindowIndex::containing(wall_clock(turn_ms, 0), window)
        });
        Self { seed, heal_ms, window, turns: turns.collect() }
    }

    /// The length of a window.
    #[must_use]
    pub const fn window(&self) -> Millis {
        self.window
    }

    /// The last window that is reported.
    #[must_use]
    pub fn last_window(&self) -> WindowIndex {
        let last_ms = self.heal_ms + WINDOWS_AFTER_HEALING * self.window.as_millis();
        WindowIndex::containing(wall_clock(last_ms, 0), self.window)
    }

    /// When the control cycle needs its clock no more.
    #[must_use]
    pub fn end(&self) -> UnixMillis {
        self.last_window().close(self.window).plus(self.window.times(WINDOWS_TO_SETTLE))
    }

    /// What this replica saw in this window, and whether it missed a part. Once the faults are over all see the same.
    #[must_use]
    pub fn seen(&self, window: WindowIndex, by: ReplicaIndex) -> (WindowSummary, bool) {
        let place = (window.index() % 1_000_000) * 64 + u64::from(by.place());
        let mut stream = Stream::new(self.seed, Cause::Telemetry, 1 + place);
        let healed = window.start(self.window) >= wall_clock(self.heal_ms, 0);
        let crowded = healed || self.turns.range(..=window).count() % 2 == 1;
        let value = if crowded { CROWDED } else { QUIET };
        if healed {
            return (summary(value), false);
        }
        match stream.below(20) {
            0 => (WindowSummary::default(), true),
            1 => (WindowSummary::default(), false),
            2 => (summary(QUIET), true),
            3 => (summary(value + 1), false),
            _ => (summary(value), false),
        }
    }
}

/// What a replica's wall clock shows, `skew_ms` ahead of the true time.
#[must_use]
pub const fn wall_clock(now_ms: u64, skew_ms: u64) -> UnixMillis {
    BEGIN.plus(Millis::new(now_ms + skew_ms))
}

/// One window with this queue length.
#[must_use]
pub fn summary(length: i64) -> WindowSummary {
    let key = SeriesKey {
        source: SourceId::new("engine").expect("a valid name"),
        name: SERIES.to_owned(),
        attributes: BTreeMap::new(),
        resource: BTreeMap::new(),
    };
    let value = Quantity::from_i64(length);
    let level = SeriesSummary::Level { last: value, min: value, max: value, sum: value, samples: 1 };
    WindowSummary { series: BTreeMap::from([(key, level)]) }
}

/// The owner with this number.
#[must_use]
pub fn owner(number: usize) -> String {
    format!("owner-{number}")
}

/// Two pools of two owners, each with a policy that widens it while the queue is long.
#[must_use]
pub fn genesis(window: Millis) -> Genesis {
    Genesis {
        parameters: Parameters::for_window(window),
        targets: (0..TARGETS.len()).map(|place| pool(place, window)).collect(),
        policies: (0..TARGETS.len()).map(|place| policy(place, window)).collect(),
    }
}

/// So wide that no run reaches its limits.
fn pool(place: usize, window: Millis) -> Target {
    Target {
        id: target(place),
        kind: TargetKind::Pool { initial: 3, min: 1, max: 1_000_000, max_step: 4 },
        cooldown: rest(window),
        plans_per_hour: MAX_PLANS_PER_HOUR,
        agent: agent_key(place, 0).public(),
        owner: owner(place),
    }
}

fn policy(place: usize, window: Millis) -> Policy {
    Policy {
        name: format!("long queue of {}", TARGETS[place]),
        indicator: Indicator {
            selector: Selector { source: None, name: SERIES.to_owned(), attributes: BTreeMap::new() },
            statistic: Statistic::Last,
            combine: Combine::Sum,
        },
        condition: Condition::Threshold {
            side: Side::Above,
            enter: Quantity::from_i64(20),
            leave: Quantity::from_i64(5),
            hold: Millis::ZERO,
        },
        action: Some(Action {
            target: target(place),
            change: Change::AddSlots(3),
            cooldown: rest(window),
            expiry: Millis::from_secs(900),
            risk: Risk::Low,
            on_stale: OnStale::Hold,
            verify_within: Millis::from_secs(60),
            controls: Controls::ACTING,
        }),
    }
}

/// How long a target and a policy rest after a plan: two windows and a half.
const fn rest(window: Millis) -> Millis {
    Millis::new(window.as_millis() * 5 / 2)
}
