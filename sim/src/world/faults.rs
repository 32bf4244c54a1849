//! Faults as they happen, and how they end: links, crashes, restarts, disks, and the healing of all.
//!
//! It draws none: the scenario says which and when. Invariant: after the healing nothing is cut, late, full or down but
//! what was damaged for good.

use super::{Event, Seat, Submitted, World, liveness_bound_ms, number};
use crate::{
    disk::{Crash, SimDisk},
    scenario::{Damage, Fault},
};
use quorate::types::ReplicaIndex;

/// How long a replica that could not start waits, in milliseconds.
const RESTART_MS: u64 = 500;

/// How long a link needs to come up again, at most, in milliseconds.
const RECONNECT_MS: u64 = 20;

impl World<'_> {
    pub(super) fn fault(&mut self, index: usize) {
        let fault = self.scenario.faults[index].1.clone();
        self.trace.event(self.now_ms, &[14, index as u64], || format!("fault: {fault:?}"));
        self.count(&fault);
        match fault {
            Fault::Cut { from, to, for_ms } => self.cut(from, to, for_ms),
            Fault::Partition { part, for_ms } => {
                for one in self.everybody.clone() {
                    for other in self.everybody.clone() {
                        if part.contains(&one) != part.contains(&other) {
                            self.cut(one, other, for_ms);
                        }
                    }
                }
            }
            Fault::Crash { replica, after_outputs, crash, away_ms } => {
                self.away_ms.insert(replica, away_ms);
                if let Some(Seat::Honest(node)) = self.seats.get_mut(&replica) {
                    node.crash_after(after_outputs, crash);
                }
            }
            Fault::Clog { from, to, for_ms } => self.network.clog(from, to, self.now_ms + for_ms),
            Fault::Slow { replica, by_ms, for_ms } => {
                self.network.slow_down(replica, by_ms, self.now_ms + for_ms);
            }
            Fault::Leap { replica, by_ms } => {
                if let Some(Seat::Honest(node)) = self.seats.get_mut(&replica) {
                    node.leap(by_ms);
                }
                self.pump(replica);
            }
            Fault::SyncFails { .. } | Fault::Full { .. } | Fault::Copy { .. } | Fault::Damage { .. } => {
                self.disk_fault(&fault);
            }
        }
    }

    /// Counts a fault that happens as it is drawn; crashes are counted when they come, and disks count for themselves.
    fn count(&mut self, fault: &Fault) {
        let counts = match fault {
            Fault::Cut { from, to, .. } | Fault::Clog { from, to, .. } => from != to,
            Fault::Partition { part, .. } => !part.is_empty() && part.len() < self.everybody.len(),
            Fault::Slow { .. } => true,
            Fault::Leap { replica, .. } | Fault::Damage { replica, .. } => self.is_up(*replica),
            Fault::Crash { .. } | Fault::SyncFails { .. } | Fault::Full { .. } | Fault::Copy { .. } => false,
        };
        if counts {
            *self.faults.entry(fault.name()).or_default() += 1;
        }
    }

    fn is_up(&self, replica: ReplicaIndex) -> bool {
        matches!(self.seats.get(&replica), Some(Seat::Honest(node)) if node.core().is_some())
    }

    /// What disks did because they were asked to, and what crashes left of unsynced bytes.
    pub(super) fn count_what_disks_met(&mut self) {
        for seat in self.seats.values() {
            if let Seat::Honest(node) = seat {
                for (name, count) in node.disk().met() {
                    *self.faults.entry(name).or_default() += count;
                }
            }
        }
    }

    fn disk_fault(&mut self, fault: &Fault) {
        match *fault {
            Fault::SyncFails { replica } => self.on_disk(replica, SimDisk::fail_next_sync),
            Fault::Full { replica, for_ms } => {
                self.on_disk(replica, |disk| disk.set_full(true));
                self.push(self.now_ms + for_ms, Event::Room(replica));
            }
            Fault::Copy { replica } => self.on_disk(replica, SimDisk::copy),
            Fault::Damage { replica, damage, away_ms } => {
                if let Some(Seat::Honest(node)) = self.seats.get_mut(&replica) {
                    node.crash(Crash::Power);
                }
                match damage {
                    Damage::Rot => self.on_disk(replica, SimDisk::rot),
                    Damage::OlderCopy => self.on_disk(replica, SimDisk::go_back),
                    Damage::Gone => drop(self.gone.insert(replica)),
                }
                self.push(self.now_ms + away_ms, Event::Restart(replica));
            }
            Fault::Cut { .. }
            | Fault::Partition { .. }
            | Fault::Crash { .. }
            | Fault::Clog { .. }
            | Fault::Slow { .. }
            | Fault::Leap { .. } => {}
        }
    }

    pub(super) fn on_disk(&self, replica: ReplicaIndex, work: impl Fn(&SimDisk)) {
        if let Some(Seat::Honest(node)) = self.seats.get(&replica) {
            work(node.disk());
        }
    }

    pub(super) fn room(&mut self, replica: ReplicaIndex) {
        self.on_disk(replica, |disk| disk.set_full(false));
        self.restart(replica);
    }

    pub(super) fn cut(&mut self, from: ReplicaIndex, to: ReplicaIndex, for_ms: u64) {
        self.network.cut(from, to);
        self.push(self.now_ms + for_ms, Event::Mend { from, to });
    }

    pub(super) fn mend(&mut self, from: ReplicaIndex, to: ReplicaIndex) {
        if self.network.mend(from, to) {
            self.link(from, to);
        }
    }

    /// A link comes up, if it can.
    pub(super) fn link(&mut self, one: ReplicaIndex, other: ReplicaIndex) {
        if one != other && self.network.passes(one, other) && self.network.passes(other, one) {
            let spread = (number(one) * 7 + number(other) * 3) % RECONNECT_MS;
            self.push(self.now_ms + 1 + spread, Event::Connect { at: one, peer: other });
            self.push(self.now_ms + 1 + spread, Event::Connect { at: other, peer: one });
        }
    }

    pub(super) fn restart(&mut self, replica: ReplicaIndex) {
        let Some(Seat::Honest(node)) = self.seats.get_mut(&replica) else { return };
        let early = self.now_ms < self.scenario.first_start_ms(replica);
        if node.core().is_some() || self.gone.contains(&replica) || early {
            return;
        }
        self.trace.event(self.now_ms, &[15, number(replica)], || format!("{replica} starts"));
        self.invariants.started(replica);
        if self.scenario.joins.is_some_and(|(joins, _)| joins == replica) && node.incarnation() == 0 {
            *self.faults.entry("joined late").or_default() += 1;
        }
        match node.start(self.now_ms) {
            Ok(started) => {
                if let Some(begun) = &started.begun {
                    self.invariants.began(replica, begun);
                }
                for redelivered in &started.redelivered {
                    self.invariants.applied(replica, &redelivered.committed, redelivered.root);
                    redelivered.folded.iter().for_each(|folded| self.folded(replica, folded));
                }
            }
            Err(_) if node.disk().has_failed() => {
                // It is started again until its disk works.
                node.crash(Crash::Process);
                self.push(self.now_ms + RESTART_MS, Event::Restart(replica));
                return;
            }
            Err(error) => {
                let damaged = !self.scenario.is_sound(replica);
                self.invariants.claim(damaged, || format!("{replica} refused its own journal: {error}"));
                *self.faults.entry("journal refused").or_default() += u64::from(damaged);
                return;
            }
        }
        self.pump(replica);
        for peer in self.everybody.clone() {
            self.link(replica, peer);
        }
    }

    pub(super) fn crashed(&mut self, replica: ReplicaIndex, why: &'static str) {
        self.trace.event(self.now_ms, &[16, number(replica)], || format!("{replica} crashes: {why}"));
        *self.faults.entry(why).or_default() += 1;
        let away_ms = self.away_ms.remove(&replica);
        self.push(self.now_ms + away_ms.unwrap_or(1), Event::Restart(replica));
    }

    /// All faults are over: links work, everybody is up, and clients hand in again what a crash may have lost.
    pub(super) fn heal(&mut self) {
        self.trace.event(self.now_ms, &[17], || "all faults are over".to_owned());
        self.events_at_healing = Some(self.trace.events());
        self.network.calm();
        for replica in self.everybody.clone() {
            if let Some(Seat::Honest(node)) = self.seats.get_mut(&replica) {
                node.spare();
                node.disk().heal();
            }
            self.restart(replica);
        }
        self.note_healing();
        for (place, one) in self.everybody.clone().into_iter().enumerate() {
            for other in self.everybody.clone().into_iter().skip(place + 1) {
                self.link(one, other);
            }
        }
        for place in 0..self.submitted.len() {
            let Submitted { at, incarnation, .. } = &self.submitted[place];
            let alive = match self.seats.get(at) {
                Some(Seat::Honest(node)) => Some(node.incarnation()),
                Some(Seat::Adversary(_)) | None => None,
            };
            if *incarnation != alive {
                self.hand_in(place);
            }
        }
        // What only a replica knew that is gone for good is gone with it.
        let kept = self.submitted.iter().filter(|submitted| self.scenario.is_sound(submitted.at));
        self.waiting = Some(kept.map(|submitted| submitted.command.digest()).collect());
        self.strike_out();
        let bound_ms = liveness_bound_ms(self.scenario.replicas);
        self.push(self.now_ms + bound_ms, Event::Judge);
        self.push(self.now_ms + 2 * bound_ms, Event::Judge);
    }
}
