//! Clients, operators and agents: who hands what in where, and again.
//!
//! It signs nothing; the desk does. Invariant: a command is known to the invariants before any replica has it.

use quorate::{
    consensus::{Command, Input, Share},
    cycle::Folded,
    types::ReplicaIndex,
};

use super::{Event, Seat, Submitted, World, number};
use crate::{
    requests::{Asked, operator_key},
    telemetry::wall_clock,
};

impl World<'_> {
    pub(super) fn submit(&mut self, index: usize) {
        let submission = &self.scenario.submissions[index];
        let at = submission.at;
        let command = Command::new(format!("command {index}").into_bytes(), submission.body.clone());
        let command = command.expect("it is small");
        self.trace.event(self.now_ms, &[13, number(at), index as u64], || format!("{at}: command {index}"));
        self.invariants.submitted(&command);
        self.submitted.push(Submitted { command: command.clone(), at, incarnation: None });
        self.hand_in(self.submitted.len() - 1);
    }

    /// A client hands its command to its replica, if that is up.
    pub(super) fn hand_in(&mut self, place: usize) {
        let submitted = &mut self.submitted[place];
        let at = submitted.at;
        if let Some(Seat::Honest(node)) = self.seats.get_mut(&at)
            && node.core().is_some()
        {
            submitted.incarnation = Some(node.incarnation());
            let taken = node.handle(self.now_ms, Input::Submit(submitted.command.clone()));
            self.invariants.claim(taken.is_ok(), || format!("{at} has no room for a command"));
        }
        self.pump(at);
    }

    /// An operator signs something, or hands something in that was signed before.
    pub(super) fn errand(&mut self, index: usize) {
        let errand = self.scenario.errands[index].clone();
        let command = match errand.what {
            Asked::Again(number) => self.desk.again(number),
            Asked::Request { by, request, lasts, overlooks } => {
                let expires_at = wall_clock(self.now_ms, 0).plus(lasts);
                let mut stops = self.invariants.stops();
                if let Some(overlooked) = overlooks {
                    stops.remove(&operator_key(overlooked).public().id());
                }
                let (signed, command) =
                    self.desk.request(self.invariants.committee(), by, request, stops, expires_at);
                self.trace.event(self.now_ms, &[26, by.into()], || {
                    format!("operator {by} signs {} (counter {})", signed.request, signed.counter)
                });
                self.invariants.asked(by, &signed);
                Some(command)
            }
        };
        if let Some(command) = command {
            self.hand_in_at(Share::Urgent, &command, &errand.at);
        }
    }

    /// Somebody hands a command in, the same bytes at each of these replicas.
    pub(super) fn hand_in_at(&mut self, share: Share, command: &Command, at: &[ReplicaIndex]) {
        self.invariants.submitted(command);
        for replica in at.iter().copied() {
            let words = [27, number(replica), u64::from(command.digest().as_bytes()[0])];
            self.trace.event(self.now_ms, &words, || format!("{replica}: {:?}", command.digest()));
            match self.seats.get_mut(&replica) {
                Some(Seat::Honest(node)) => {
                    let taken = node.handle(self.now_ms, Input::SubmitFor(share, command.clone()));
                    self.invariants.claim(taken.is_ok(), || format!("{replica} has no room for a command"));
                }
                Some(Seat::Adversary(adversary)) => adversary.submit(self.now_ms, command),
                None => {}
            }
            self.pump(replica);
        }
    }

    /// A replica folded a block; agents answer to the plans that became logged.
    pub(super) fn folded(&mut self, replica: ReplicaIndex, folded: &Folded) {
        self.proven(replica, folded);
        for logged in self.invariants.folded(folded) {
            let now = wall_clock(self.now_ms, 0);
            let answer = self.desk.receipt(logged.place, &logged.plan, logged.digest, now, &self.everybody);
            if let Some(answer) = answer {
                self.invariants.answered(&answer.envelope);
                let event = Event::HandIn { command: answer.command, at: answer.at };
                self.push(self.now_ms + answer.after_ms, event);
            }
        }
    }
}
