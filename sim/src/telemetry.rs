//! What the simulated monitors see: one series of a queue's length, its incident, and what some replica misses of it.
//!
//! It cuts no windows from samples; that is the monitor's own code, which reads no clock here. Invariant: what a
//! replica saw in a window depends on the seed, the window and the replica alone.

use quorate::{
    knowledge::{
        genesis::{Genesis, Parameters},
        observation::{SeriesKey, SeriesSummary, WindowSummary},
        plan::OnStale,
        policy::{
            Action, Change, Combine, Condition, Indicator, Policy, Risk, Selector, Side, Statistic, Target,
            TargetKind,
        },
    },
    types::{Millis, Quantity, ReplicaIndex, SecretKey, SourceId, TargetId, UnixMillis, WindowIndex},
};
use std::collections::BTreeMap;

use crate::rng::{Cause, Stream};

/// The length of a window.
pub const WINDOW: Millis = Millis::new(2_000);

/// What wall clocks show when a run begins.
const BEGIN: UnixMillis = UnixMillis::new(1_800_000_000_000);

/// How many windows are still reported once all faults are over.
const WINDOWS_AFTER_HEALING: u64 = 6;

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
    /// The first window in which the queue is long; it stays so.
    incident: WindowIndex,
}

impl Telemetry {
    /// The telemetry of a seed whose faults are over then.
    #[must_use]
    pub fn of_seed(seed: u64, heal_ms: u64) -> Self {
        let mut stream = Stream::new(seed, Cause::Telemetry, 0);
        let incident_ms = stream.below(heal_ms + WINDOW.as_millis());
        Self { seed, heal_ms, incident: WindowIndex::containing(wall_clock(incident_ms, 0), WINDOW) }
    }

    /// The last window that is reported.
    #[must_use]
    pub fn last_window(&self) -> WindowIndex {
        let last_ms = self.heal_ms + WINDOWS_AFTER_HEALING * WINDOW.as_millis();
        WindowIndex::containing(wall_clock(last_ms, 0), WINDOW)
    }

    /// When the control cycle needs its clock no more.
    #[must_use]
    pub fn end(&self) -> UnixMillis {
        self.last_window().close(WINDOW).plus(WINDOW.times(WINDOWS_TO_SETTLE))
    }

    /// What this replica saw in this window, and whether it missed a part. Once the faults are over all see the same.
    #[must_use]
    pub fn seen(&self, window: WindowIndex, by: ReplicaIndex) -> (WindowSummary, bool) {
        let place = (window.index() % 1_000_000) * 64 + u64::from(by.place());
        let mut stream = Stream::new(self.seed, Cause::Telemetry, 1 + place);
        let healed = window.start(WINDOW) >= wall_clock(self.heal_ms, 0);
        let value = if window >= self.incident { CROWDED } else { QUIET };
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

/// One pool and one policy that widens it when the queue is long.
#[must_use]
pub fn genesis() -> Genesis {
    let pool = TargetId::new("pool").expect("a valid name");
    let minute = Millis::from_secs(60);
    Genesis {
        parameters: Parameters::for_window(WINDOW),
        targets: vec![Target {
            id: pool.clone(),
            kind: TargetKind::Pool { initial: 3, min: 1, max: 12, max_step: 4 },
            cooldown: Millis::from_secs(5),
            plans_per_hour: 4,
            agent: SecretKey::from_seed(&[77; 32]).public(),
            owner: "owner-0".to_owned(),
        }],
        policies: vec![Policy {
            name: "long queue".to_owned(),
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
                target: pool,
                change: Change::AddSlots(3),
                cooldown: Millis::from_secs(5),
                expiry: Millis::from_secs(900),
                risk: Risk::Low,
                on_stale: OnStale::Hold,
                verify_within: minute,
            }),
        }],
    }
}
