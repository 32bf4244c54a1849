//! The judgement once all faults are over: what must be committed, planned and at rest, and by when.
//!
//! Invariant: it is passed once, when nothing can happen any more or when the bound has passed.

use quorate::types::ReplicaIndex;

use super::{Event, Seat, World, liveness_bound_ms};
use crate::{liveness::Bounds, requests::target, telemetry::TARGETS};

/// How many beginnings a journal may hold for peers that take a state, beyond two.
const MOST_HELD: usize = 4;

impl World<'_> {
    /// Notes where everybody is when all faults are over.
    pub(super) fn note_healing(&mut self) {
        let core = |replica: &ReplicaIndex| match self.seats.get(replica) {
            Some(Seat::Honest(node)) => node.core(),
            Some(Seat::Adversary(_)) | None => None,
        };
        let newest = self.everybody.iter().filter_map(core).map(|core| core.view().number()).max();
        self.healed_at = Some((newest.unwrap_or(0), self.invariants.heights()));
        let signed = |replica| core(replica).map_or(0, |core| core.signed_view().number());
        self.signed_views = self.everybody.iter().map(signed).collect();
    }

    /// Notes the first height that somebody commits once all faults are over.
    pub(super) fn note_recovery(&mut self, by: ReplicaIndex) {
        let Some((view, height)) = self.healed_at else { return };
        if self.recovered.is_none()
            && self.invariants.heights() > height
            && let Some(Seat::Honest(node)) = self.seats.get(&by)
            && let Some(core) = node.core()
        {
            let views = core.view().number().saturating_sub(view);
            self.recovered = Some(Bounds { views, ms: self.now_ms - self.scenario.heal_ms });
        }
    }

    /// Strikes out the waiting commands that every honest replica has committed.
    pub(super) fn strike_out(&mut self) {
        let Some(waiting) = &mut self.waiting else { return };
        let (scenario, everybody, invariants) = (&self.scenario, &self.everybody, &self.invariants);
        let sound = || everybody.iter().copied().filter(|replica| scenario.is_sound(*replica));
        waiting.retain(|command| sound().any(|replica| !invariants.has_committed(replica, *command)));
        if waiting.is_empty() && self.settled_after_ms.is_none() {
            self.settled_after_ms = Some(self.now_ms - self.scenario.heal_ms);
        }
    }

    /// Ends the run once nothing can happen any more.
    pub(super) fn finish_at_rest(&mut self) {
        let only_judges = |event: &Event| matches!(event, Event::Judge);
        if self.waiting.is_none() || self.events.len() > 2 || !self.events.values().all(only_judges) {
            return;
        }
        self.strike_out();
        self.invariant_every_command_is_committed("at rest");
        self.invariant_all_rest_in_one_state();
        self.finished = true;
    }

    pub(super) fn judge(&mut self) {
        let healed_ms = self.now_ms - self.scenario.heal_ms;
        self.strike_out();
        self.invariant_every_command_is_committed("within the bound");
        if healed_ms > liveness_bound_ms(self.scenario.replicas) {
            self.invariant_all_rest_in_one_state();
            self.finished = true;
        }
    }

    fn invariant_every_command_is_committed(&mut self, when: &str) {
        let left = self.waiting.as_ref().map_or(0, Vec::len);
        self.invariants.claim(left == 0, || format!("{left} commands are not committed everywhere {when}"));
    }

    fn invariant_all_rest_in_one_state(&mut self) {
        self.invariant_there_is_a_plan_unless_stopped();
        let nodes = self.seats.iter().filter_map(|(replica, seat)| match seat {
            Seat::Honest(node) => self.scenario.is_sound(*replica).then_some((*replica, node)),
            Seat::Adversary(_) => None,
        });
        let mut first = None;
        for (replica, node) in nodes {
            let Some(core) = node.core() else { continue };
            let (rests, height) =
                (core.next_timeout().is_none() && !core.is_awake(), core.committed_height());
            self.invariants.claim(rests, || format!("{replica} does not come to rest"));
            // Two beginnings stay, and some more while a peer took the oldest; between them there may be more than an
            // interval when votes were lost.
            let bounded = node.kept().is_none_or(|kept| {
                kept.bases <= 2 + kept.held
                    && kept.held <= MOST_HELD
                    && (kept.bases < 2 || (kept.blocks as u64) < height.number())
            });
            self.invariants.claim(bounded, || format!("{replica} keeps too much: {:?}", node.kept()));
            let state = (height, node.state(), node.root());
            let (other, expected) = *first.get_or_insert((replica, state));
            self.invariants.claim(state == expected, || {
                format!("{replica} rests at height {height}, {other} at {} or in another state", expected.0)
            });
        }
    }

    /// The queue is long, so each target that is not stopped has a plan that was decided after its last stop.
    fn invariant_there_is_a_plan_unless_stopped(&mut self) {
        if self.scenario.telemetry.is_none() {
            return;
        }
        if self.invariants.read_to() < self.invariants.heights() {
            *self.faults.entry("log not read to its end").or_default() += 1;
            return;
        }
        for place in 0..TARGETS.len() {
            let target = target(place);
            let (newest, planned) = self.invariants.newest_plan(&target);
            self.invariants.claim(planned, || format!("{target} is not stopped and has no new plan"));
            for (replica, seat) in &self.seats {
                let Seat::Honest(node) = seat else { continue };
                if node.core().is_some() && self.scenario.is_sound(*replica) {
                    let known = node.newest_plan(&target);
                    self.invariants.claim(known == newest, || {
                        format!("{replica} knows plan {known} of {target} as the newest, not {newest}")
                    });
                }
            }
        }
    }
}
