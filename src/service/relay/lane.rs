//! A lane: the task that sends a replica its bodies.
//!
//! While the replica answers, several bodies are on their way at once; their order makes no difference to it.
//! When it does not, the lane waits, longer each time, and then sends one body alone until that is answered.
//! What the OTLP specification calls retryable is sent again (no answer, 408, 429, 502, 503, 504); any other
//! answer settles the body. Invariant: a body leaves the lane only settled, or with the process.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    keeper::{KeepError, Keeper},
    pause::pause,
    queue::{Kept, Outcome, Taken},
    run::Replica,
    status::Reach,
};
use crate::{
    monitor::form::Protocol,
    service::{
        clock::{Stopwatch, wall_clock},
        http_client::{Answer, Bounds, HttpClient, HttpError},
    },
    types::{Millis, UnixMillis},
};

/// How many bodies are on their way to one replica at once.
const SENDERS: usize = 8;

/// How many bodies a lane asks for at once, and about how many bytes of them: enough to keep its senders busy while the
/// keeper syncs, and little enough for thirteen lanes.
const MAX_HELD: usize = 64;
const MAX_HELD_BYTES: u64 = 4 * 1024 * 1024;

/// How long an answer may take, and how large it may be: those of a door are a few bytes.
pub(super) const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(10), body_bytes: 64 * 1024 };

/// How often a lane looks at its clock: for bodies that became too old, and for what is to be logged.
const LOOK: Duration = Duration::from_millis(500);

/// How long before a queue that could not be read is read again.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(5);

/// How long between two lines of the log about one replica.
const QUIET: Millis = Millis::from_secs(10);

/// What others may know of a lane.
#[derive(Clone, Debug, Default)]
pub(super) struct LaneView {
    pub(super) reach: Reach,
    pub(super) trouble: Option<String>,
    pub(super) retries: u64,
}

/// Shared with whoever asks.
#[derive(Clone, Debug, Default)]
pub(super) struct LaneWindow(Arc<Mutex<LaneView>>);

impl LaneWindow {
    pub(super) fn view(&self) -> LaneView {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut LaneView)) {
        // Nothing panics while it holds the lock.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What a lane is started with.
#[derive(Debug)]
pub(super) struct LaneParts {
    /// Its place in the queue's list.
    pub(super) lane: usize,
    pub(super) replica: Replica,
    pub(super) keeper: Keeper,
    pub(super) client: HttpClient,
    pub(super) window: LaneWindow,
    pub(super) max_age: Millis,
    /// True once the relay ends: what can be sent is sent, and nothing is waited for.
    pub(super) ending: watch::Receiver<bool>,
}

/// Runs a lane until the relay ends or the lane is dropped.
pub(super) async fn run(parts: LaneParts) {
    let durable = parts.keeper.durable();
    let ending = parts.ending.clone();
    let lane = Lane {
        parts,
        held: VecDeque::new(),
        sends: JoinSet::new(),
        failures: 0,
        next_try: Instant::now(),
        next_read: Instant::now(),
        announced: Announced { reach: Reach::Untried, at: None },
    };
    lane.run(durable, ending).await;
}

#[derive(Debug)]
enum Attempt {
    Settled(Outcome, StatusCode),
    Again { why: String, asked: Option<Duration> },
}

#[derive(Debug)]
struct Lane {
    parts: LaneParts,
    held: VecDeque<Taken>,
    /// Each with whether it was sent while the replica was away.
    sends: JoinSet<(Taken, Attempt, bool)>,
    /// In a row; 0 while the replica answers.
    failures: u32,
    next_try: Instant,
    next_read: Instant,
    announced: Announced,
}

/// What the log last said of the replica.
#[derive(Debug)]
struct Announced {
    reach: Reach,
    at: Option<Stopwatch>,
}

impl Lane {
    async fn run(mut self, mut durable: watch::Receiver<u64>, mut ending: watch::Receiver<bool>) {
        let mut look = tokio::time::interval(LOOK);
        let mut may_have_more = true;
        loop {
            self.settle_too_old().await;
            // Seen before the queue is asked, so that what comes in between is asked for again.
            if durable.has_changed().unwrap_or(false) {
                durable.mark_unchanged();
                may_have_more = true;
            }
            if may_have_more && self.held.len() < MAX_HELD / 2 && Instant::now() >= self.next_read {
                match self.parts.keeper.take(self.parts.lane, MAX_HELD, MAX_HELD_BYTES).await {
                    Ok(taken) => {
                        may_have_more = !taken.is_empty();
                        self.held.extend(taken);
                    }
                    Err(KeepError::Ended) => return,
                    Err(error) => {
                        let replica = &self.parts.replica.name;
                        tracing::warn!(replica, %error, "the queue cannot be read");
                        self.next_read = Instant::now() + UNREADABLE_PAUSE;
                    }
                }
            }
            self.launch();
            let is_ending = *ending.borrow_and_update();
            let is_idle = self.sends.is_empty() && self.held.is_empty() && !may_have_more;
            if is_ending && (is_idle || self.is_away()) {
                return;
            }
            let waits = self.is_away() && self.sends.is_empty() && !self.held.is_empty();
            tokio::select! {
                Some(done) = self.sends.join_next() => self.done(done).await,
                changed = durable.changed() => if changed.is_err() { return } else { may_have_more = true },
                () = tokio::time::sleep_until(self.next_try), if waits => {}
                changed = ending.changed(), if !is_ending => if changed.is_err() { return },
                _ = look.tick() => self.announce(),
            }
        }
    }

    const fn is_away(&self) -> bool {
        self.failures > 0
    }

    async fn settle_too_old(&mut self) {
        let oldest = wall_clock().minus(self.parts.max_age);
        while let Some(body) = self.held.pop_front_if(|body| is_older(body, oldest)) {
            self.settle(&body, Outcome::TooOld).await;
        }
    }

    async fn settle(&self, body: &Taken, outcome: Outcome) {
        self.parts.keeper.settle(self.parts.lane, body.sequence, outcome).await;
    }

    fn launch(&mut self) {
        let most = if !self.is_away() {
            SENDERS
        } else if Instant::now() >= self.next_try {
            1
        } else {
            0
        };
        while self.sends.len() < most
            && let Some(body) = self.held.pop_front()
        {
            let (client, address, probe) =
                (self.parts.client.clone(), self.parts.replica.address.clone(), self.is_away());
            self.sends.spawn(async move {
                let attempt = attempt(&client, &address, &body.kept).await;
                (body, attempt, probe)
            });
        }
    }

    async fn done(&mut self, done: Result<(Taken, Attempt, bool), tokio::task::JoinError>) {
        // A send neither panics nor is aborted while its lane runs.
        let Ok((body, attempt, probe)) = done else { return };
        match attempt {
            Attempt::Settled(outcome, status) => {
                self.failures = 0;
                self.parts.window.change(|view| view.reach = Reach::Up);
                if outcome == Outcome::Refused {
                    self.parts.window.change(|view| view.trouble = Some(format!("it answered {status}")));
                }
                self.settle(&body, outcome).await;
            }
            Attempt::Again { why, asked } => {
                self.parts.window.change(|view| {
                    view.reach = Reach::Away;
                    view.trouble = Some(why);
                    view.retries += 1;
                });
                // Bodies that were on their way together fail together: that is one failure.
                if probe || !self.is_away() {
                    self.failures = self.failures.saturating_add(1);
                    // Without randomness lanes only pause alike.
                    let pause = pause(self.failures, asked, getrandom::u64().unwrap_or_default());
                    self.next_try = Instant::now() + pause;
                }
                self.held.push_front(body);
            }
        }
        self.announce();
    }

    /// Logs that the replica went away or returned, once in a while.
    fn announce(&mut self) {
        let view = self.parts.window.view();
        let is_news = view.reach != self.announced.reach;
        let is_quiet = self.announced.at.is_none_or(|at| at.elapsed() >= QUIET);
        if !is_news || !is_quiet {
            return;
        }
        let (replica, address) = (&self.parts.replica.name, &self.parts.replica.address);
        match view.reach {
            Reach::Untried => return,
            Reach::Up if self.announced.reach == Reach::Untried => {
                // Nobody needs to be told what is expected.
                self.announced.reach = Reach::Up;
                return;
            }
            Reach::Up => tracing::info!(replica, address, "the replica answers again"),
            Reach::Away => {
                let why = view.trouble.unwrap_or_default();
                tracing::warn!(replica, address, why, "the replica is away; its bodies wait in the queue");
            }
        }
        self.announced = Announced { reach: view.reach, at: Some(Stopwatch::start()) };
    }
}

fn is_older(body: &Taken, oldest: UnixMillis) -> bool {
    body.at < oldest
}

async fn attempt(client: &HttpClient, address: &str, kept: &Kept) -> Attempt {
    let again = |why: String, asked| Attempt::Again { why, asked };
    let body = Bytes::copy_from_slice(&kept.body);
    let address = address_for(address, kept.protocol);
    match client.forward(&address, headers(kept), body, BOUNDS).await {
        Ok(Answer { status, .. }) if status.is_success() => Attempt::Settled(Outcome::Sent, status),
        Ok(Answer { status, retry_after, .. }) if is_retryable(status) => {
            again(format!("it answered {status}"), retry_after)
        }
        Ok(Answer { status, .. }) => Attempt::Settled(Outcome::Refused, status),
        Err(error) => again(told(&error), None),
    }
}

/// Where a replica takes what speaks this protocol, given its address for OTLP: the other paths lie beside that one.
fn address_for(door: &str, protocol: Protocol) -> String {
    let [own, ..] = Protocol::Otlp.paths() else { return door.to_owned() };
    match protocol {
        Protocol::Otlp => door.to_owned(),
        Protocol::RemoteWrite | Protocol::Samples => {
            let base = door.trim_end_matches('/');
            let base = base.strip_suffix(own).unwrap_or(base);
            protocol.paths().first().map_or_else(|| base.to_owned(), |path| format!("{base}{path}"))
        }
    }
}

/// What the OTLP specification names, the client's own timeout as a server sees it, and a missing right: that is the
/// token's fault and not the body's, and a new token mends it.
fn is_retryable(status: StatusCode) -> bool {
    [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ]
    .contains(&status)
}

fn headers(kept: &Kept) -> HeaderMap {
    let named = [
        (header::CONTENT_TYPE, Some(kept.content_type.as_str())),
        (header::CONTENT_ENCODING, kept.content_encoding.as_deref()),
    ];
    // A value that is none was never taken by the door; without it the replica says what it lacks.
    named.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::from_str(value?).ok()?))).collect()
}

fn told(error: &HttpError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

#[cfg(test)]
mod tests {
    use super::address_for;
    use crate::monitor::form::Protocol;

    #[test]
    fn the_paths_of_a_replica_lie_beside_each_other() {
        for (door, base) in [
            ("http://a:1/v1/metrics", "http://a:1"),
            ("https://gate/r0/v1/metrics/", "https://gate/r0"),
            ("https://gate/r0", "https://gate/r0"),
        ] {
            assert_eq!(address_for(door, Protocol::Otlp), door);
            assert_eq!(address_for(door, Protocol::RemoteWrite), format!("{base}/api/v1/write"));
            assert_eq!(address_for(door, Protocol::Samples), format!("{base}/v1/samples"));
        }
    }
}
