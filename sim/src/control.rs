//! An honest replica's control cycle under a driver: when windows are reported, and what the cycle's outputs need.
//!
//! The driver restates the service's: it reports each window once after its grace, never one past its deadline, and
//! seals what it signs before that leaves. Invariant: an output is carried out by the node, in order.

use quorate::{
    consensus::{Block, Config},
    cycle::{Cycle, CycleConfig, Folded, Output, Seal},
    types::{Digest, Millis, ReplicaIndex, TargetId, UnixMillis, WindowIndex},
};
use std::sync::Arc;

use crate::{
    requests::operators,
    telemetry::{Telemetry, genesis, wall_clock},
};

/// How often in a window the driver looks at the clock.
const BEATS_A_WINDOW: u64 = 20;

/// The control cycle of one life of a replica.
#[derive(Debug)]
pub(crate) struct Control {
    cycle: Cycle,
    telemetry: Arc<Telemetry>,
    me: ReplicaIndex,
    skew_ms: u64,
    next_window: WindowIndex,
    next_beat_ms: u64,
}

impl Control {
    /// A control cycle that is read back from the journal: all seals, then the committed blocks.
    pub(crate) fn new(config: &Config, telemetry: Arc<Telemetry>, skew_ms: u64) -> Self {
        let cycle = Cycle::new(CycleConfig {
            genesis: genesis(telemetry.window()),
            committee: Arc::clone(&config.committee),
            me: config.me,
            key: config.key.clone(),
            operators: operators(),
        });
        Self {
            cycle: cycle.expect("the genesis is sound"),
            telemetry,
            me: config.me,
            skew_ms,
            next_window: WindowIndex::new(0),
            next_beat_ms: 0,
        }
    }

    pub(crate) fn restore(&mut self, seal: Seal) {
        self.cycle.restore(seal);
    }

    /// Applies a block of the journal again; what had left before the crash does not leave again.
    pub(crate) fn replay(&mut self, block: &Arc<Block>) -> (Vec<Seal>, Option<Folded>) {
        self.cycle.commit(block);
        let (mut seals, mut folded) = (Vec::new(), None);
        while let Some(output) = self.cycle.poll_output() {
            match output {
                Output::Seal(seal) => seals.push(seal),
                Output::Folded(of_block) => folded = Some(of_block),
                Output::Endorse(_)
                | Output::Submit(_)
                | Output::Decided(_)
                | Output::PlanCertified(_)
                | Output::HeadCertified(_)
                | Output::Alarm(_) => {}
            }
        }
        (seals, folded)
    }

    /// The journal is read: the newest report is submitted again.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        let present = WindowIndex::containing(self.clock(now_ms), self.telemetry.window());
        self.next_window = self.cycle.newest_report().map_or(present, |newest| newest.next().max(present));
        self.next_beat_ms = now_ms;
        self.cycle.resubmit();
    }

    /// Goes on from the state of a certified checkpoint.
    pub(crate) fn install(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.cycle.install(snapshot).map_err(|error| error.to_string())
    }

    /// The replicated state as bytes, and this replica's seals.
    pub(crate) fn snapshot(&self) -> (Vec<u8>, Vec<Seal>) {
        (self.cycle.snapshot(), self.cycle.seals())
    }

    pub(crate) const fn cycle(&mut self) -> &mut Cycle {
        &mut self.cycle
    }

    pub(crate) fn root(&self) -> Digest {
        self.cycle.root()
    }

    /// The newest logged plan's sequence number of a target.
    pub(crate) fn newest_plan(&self, target: &TargetId) -> u64 {
        self.cycle.state().newest_seq(target).map_or(0, quorate::types::Cycle::number)
    }

    /// The most endorsements that are kept of one peer.
    pub(crate) fn kept_endorsements(&self) -> usize {
        self.cycle.kept_of_one_peer()
    }

    fn clock(&self, now_ms: u64) -> UnixMillis {
        wall_clock(now_ms, self.skew_ms)
    }

    /// When the driver wants to look at its clock; never again once all windows are reported and settled.
    pub(crate) fn next_beat_ms(&self) -> Option<u64> {
        (self.clock(self.next_beat_ms) < self.telemetry.end()).then_some(self.next_beat_ms)
    }

    /// Looks at the clock, if it is time.
    pub(crate) fn beat(&mut self, now_ms: u64) {
        if now_ms < self.next_beat_ms {
            return;
        }
        self.next_beat_ms = now_ms + self.telemetry.window().as_millis() / BEATS_A_WINDOW;
        let now = self.clock(now_ms);
        let (grace, deadline) = self.times();
        let length = self.telemetry.window();
        while now >= self.next_window.close(length).plus(deadline) {
            self.next_window = self.next_window.next();
        }
        while self.next_window <= self.telemetry.last_window()
            && now >= self.next_window.close(length).plus(grace)
        {
            let window = self.next_window;
            self.next_window = window.next();
            let (summary, partial) = self.telemetry.seen(window, self.me);
            self.cycle.report(window, summary, partial, now);
        }
        self.cycle.tick(now);
    }

    fn times(&self) -> (Millis, Millis) {
        let parameters = self.cycle.state().genesis().parameters;
        (parameters.grace, parameters.deadline)
    }
}
