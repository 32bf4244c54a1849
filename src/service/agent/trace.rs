//! The agent's part in a control cycle's trace, put together from what it tells.
//!
//! The plan's sequence number is the cycle's number, so the stage joins the replicas' trace by itself.
//! Invariant: a plan's stage is recorded once, when its receipt has been sent.

use crate::{
    service::telemetry::{CycleTracer, Stage, system_time},
    types::{Cycle, Digest, UnixMillis},
};

use super::event::Event;

/// Follows one plan at a time from its verification to its receipt.
#[derive(Debug)]
pub struct AgentTrace {
    cluster: Digest,
    tracer: CycleTracer,
    acting: Option<Acting>,
}

#[derive(Debug)]
struct Acting {
    seq: Cycle,
    began: UnixMillis,
    last: UnixMillis,
    parts: Vec<Stage>,
}

impl AgentTrace {
    /// Follows an agent of this cluster.
    #[must_use]
    pub const fn new(cluster: Digest, tracer: CycleTracer) -> Self {
        Self { cluster, tracer, acting: None }
    }

    /// Takes note of an event that happened now.
    pub fn note(&mut self, event: &Event, now: UnixMillis) {
        match event {
            Event::Verified { seq, .. } => {
                self.acting = Some(Acting { seq: *seq, began: now, last: now, parts: Vec::new() });
            }
            Event::Applied { .. } => self.part("apply", now),
            Event::ReadBack { .. } => self.part("read back", now),
            Event::AlreadyThere { .. } => self.part("nothing to do", now),
            Event::PlanRefused { .. } => self.part("refuse", now),
            Event::TakenBack { .. } => self.part("take back", now),
            Event::ReceiptSent { .. } => {
                self.part("receipt", now);
                self.record(now);
            }
            Event::Started { .. }
            | Event::Answers { .. }
            | Event::ReplicaFault { .. }
            | Event::DocumentRefused { .. }
            | Event::TargetFailed { .. }
            | Event::ReceiptDelayed { .. }
            | Event::DoneInPart { .. }
            | Event::ReceiptLost { .. }
            | Event::Idle { .. }
            | Event::Equivocation { .. } => {}
        }
    }

    fn part(&mut self, name: &'static str, now: UnixMillis) {
        if let Some(acting) = &mut self.acting {
            acting.parts.push(Stage::new(name, system_time(acting.last), system_time(now)));
            acting.last = now;
        }
    }

    fn record(&mut self, now: UnixMillis) {
        let Some(Acting { seq, began, parts, .. }) = self.acting.take() else { return };
        let cycle = i64::try_from(seq.number()).unwrap_or(i64::MAX);
        let stage = Stage::new("act", system_time(began), system_time(now)).with("quorate.cycle", cycle);
        self.tracer.record(self.cluster, seq, parts.into_iter().fold(stage, Stage::part));
    }
}
