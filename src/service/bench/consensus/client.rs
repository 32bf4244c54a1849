//! The client: keeps a number of commands under way and takes the time of each.
//!
//! It lives in a replica's process and hands commands over as the control task does. Invariant: a command's
//! time runs from before it is handed over to its commit being seen here.

use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::mpsc, time::Instant};

use super::protocol::Load;
use crate::{
    consensus::{Command, CommandError, Payload, Share, task::Request},
    service::bench::{Quantiles, quantiles::Durations, random::Random},
};

/// A command's head is its number.
const HEAD_BYTES: usize = 8;

pub(super) struct Client {
    load: Load,
    requests: mpsc::Sender<Request>,
    random: Random,
    next: u64,
    under_way: BTreeMap<u64, Instant>,
    measured: Durations,
    began: Instant,
    measuring: bool,
}

/// What the client came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Measuring,
    Measured(Quantiles),
}

/// The consensus task has ended.
#[derive(Debug)]
pub(super) struct TaskEnded;

impl Client {
    pub(super) fn new(load: Load, requests: mpsc::Sender<Request>) -> Self {
        Self {
            load,
            requests,
            random: Random::new(0),
            next: 0,
            under_way: BTreeMap::new(),
            measured: Durations::default(),
            began: Instant::now(),
            measuring: false,
        }
    }

    /// Hands commands over until enough are under way.
    pub(super) async fn refill(&mut self) -> Result<(), TaskEnded> {
        while self.under_way.len() < self.load.outstanding {
            let command = self.command().expect("the load's commands are far below the limit");
            self.under_way.insert(self.next, Instant::now());
            self.next += 1;
            let request = Request::Submit { share: Share::Own, command, answer: None };
            self.requests.send(request).await.map_err(|_| TaskEnded)?;
        }
        Ok(())
    }

    fn command(&mut self) -> Result<Command, CommandError> {
        let body = self.random.bytes(self.load.command_bytes.saturating_sub(HEAD_BYTES));
        Command::new(self.next.to_le_bytes().to_vec(), body)
    }

    /// Sees a committed block.
    pub(super) fn committed(&mut self, payload: &Payload) {
        let now = Instant::now();
        for command in payload.commands() {
            let number = command.head().try_into().map(u64::from_le_bytes);
            let handed_over = number.ok().and_then(|number| self.under_way.remove(&number));
            if let Some(handed_over) = handed_over
                && self.measuring
            {
                self.measured.add(now - handed_over);
            }
        }
    }

    /// When [`Self::turn`] is due.
    pub(super) fn due(&self) -> Instant {
        let warm_up = Duration::from_millis(self.load.warm_up_ms);
        let measure = Duration::from_millis(if self.measuring { self.load.measure_ms } else { 0 });
        self.began + warm_up + measure
    }

    /// Begins or ends measuring.
    pub(super) fn turn(&mut self) -> Phase {
        if self.measuring {
            return Phase::Measured(std::mem::take(&mut self.measured).quantiles());
        }
        self.measuring = true;
        Phase::Measuring
    }
}
