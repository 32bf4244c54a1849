//! Which window is to be reported next, by the replica's own clock.
//!
//! Invariant: windows are given in order, each once, none before its close + grace, none past its deadline.

use crate::{
    knowledge::genesis::Parameters,
    types::{UnixMillis, WindowIndex},
};

#[derive(Debug)]
pub(super) struct Reporting {
    parameters: Parameters,
    next: WindowIndex,
}

impl Reporting {
    pub(super) const fn new(parameters: Parameters) -> Self {
        Self { parameters, next: WindowIndex::new(0) }
    }

    /// Begins with the window after the newest reported one, but never before the present one.
    pub(super) fn resume_after(&mut self, newest: Option<WindowIndex>, now: UnixMillis) {
        let present = WindowIndex::containing(now, self.parameters.window);
        self.next = newest.map_or(present, |newest| newest.next().max(present));
    }

    /// The next window whose grace is over.
    pub(super) fn due(&mut self, now: UnixMillis) -> Option<WindowIndex> {
        let Parameters { window, grace, deadline, .. } = self.parameters;
        // A machine that slept has missed windows; nobody waits for their reports any more.
        while now >= self.next.close(window).plus(deadline) {
            self.next = self.next.next();
        }
        if now < self.next.close(window).plus(grace) {
            return None;
        }
        let due = self.next;
        self.next = due.next();
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::Reporting;
    use crate::{
        knowledge::genesis::Parameters,
        types::{Millis, UnixMillis, WindowIndex},
    };

    #[test]
    fn windows_are_due_in_order_after_their_grace_and_not_past_their_deadline() {
        let mut reporting = Reporting::new(Parameters::for_window(Millis::from_secs(10)));
        let at = |seconds| UnixMillis::ZERO.plus(Millis::from_secs(seconds));
        reporting.resume_after(None, at(105));
        // Second, the window that is due then.
        let steps =
            [(111, None), (112, Some(10)), (112, None), (122, Some(11)), (300, Some(27)), (300, Some(28))];
        for (second, window) in steps {
            assert_eq!(reporting.due(at(second)), window.map(WindowIndex::new), "at {second} s");
        }
    }

    #[test]
    fn a_window_that_was_reported_before_a_restart_is_not_due_again() {
        let mut reporting = Reporting::new(Parameters::for_window(Millis::from_secs(10)));
        let at = |seconds| UnixMillis::ZERO.plus(Millis::from_secs(seconds));
        reporting.resume_after(Some(WindowIndex::new(10)), at(113));
        assert_eq!(reporting.due(at(115)), None);
        assert_eq!(reporting.due(at(122)), Some(WindowIndex::new(11)));
    }
}
