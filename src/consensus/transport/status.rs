//! What the links tell about themselves.
//!
//! Invariant: counters only rise while the links live; the rest is the newest known.

use std::{collections::VecDeque, time::Duration};

use crate::types::{ReplicaIndex, UnixMillis};

/// How many newest pings the round trip and the clocks' difference are taken from. The quickest of them was
/// delayed least, so its estimate is the best.
const SAMPLES: usize = 8;

/// All links of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinksStatus {
    /// One per other replica, by place.
    pub peers: Vec<LinkStatus>,
    /// How many accepted connections ended before they were known to be a peer's.
    pub refused: u64,
    /// Why the last of them did.
    pub last_refusal: Option<String>,
}

/// The link to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// The peer's place.
    pub peer: ReplicaIndex,
    /// Since when this replica can send to it.
    pub sending_since: Option<UnixMillis>,
    /// Since when it can send to this replica.
    pub receiving_since: Option<UnixMillis>,
    /// How often this replica has connected to it.
    pub connects: u64,
    /// Frames that wait to be sent.
    pub queued_frames: usize,
    /// Bytes that wait to be sent.
    pub queued_bytes: usize,
    /// Frames dropped from full queues.
    pub dropped_frames: u64,
    /// Frames written to a connection.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that arrived.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that have arrived and that nobody has taken yet.
    pub waiting_frames: usize,
    /// Connections closed because of a frame that was refused.
    pub bad_frames: u64,
    /// Why the last connection in either direction ended or did not come to be.
    pub last_error: Option<String>,
    /// How long a ping takes there and back.
    pub round_trip: Option<Duration>,
    /// How often a process of the peer connected again after another one with the same key had: two hold its key.
    pub returned_processes: u64,
    /// Whether the peer has said that another process with this replica's own key connected to it after this one had.
    pub says_key_in_use: bool,
    /// How many milliseconds the peer's clock is ahead of this replica's; negative when it is behind. Right to
    /// half a round trip.
    pub clock_ahead_ms: Option<i64>,
}

impl LinkStatus {
    /// A link of which nothing is known yet.
    #[must_use]
    pub const fn new(peer: ReplicaIndex) -> Self {
        Self {
            peer,
            sending_since: None,
            receiving_since: None,
            connects: 0,
            queued_frames: 0,
            queued_bytes: 0,
            dropped_frames: 0,
            sent_frames: 0,
            sent_bytes: 0,
            received_frames: 0,
            received_bytes: 0,
            waiting_frames: 0,
            bad_frames: 0,
            last_error: None,
            round_trip: None,
            returned_processes: 0,
            says_key_in_use: false,
            clock_ahead_ms: None,
        }
    }
}

/// The newest pings of a connection.
#[derive(Debug, Default)]
pub(super) struct Pings(VecDeque<Sample>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    round_trip: Duration,
    clock_ahead_ms: i64,
}

impl Pings {
    /// Adds an answered ping: sent at `sent` by the own clock, answered at `answered` by the peer's.
    pub(super) fn add(&mut self, sent: UnixMillis, answered: UnixMillis, round_trip: Duration) {
        let half = i128::try_from(round_trip.as_millis() / 2).unwrap_or(i128::MAX);
        let ahead = i128::from(answered.as_millis()) - i128::from(sent.as_millis());
        let bounded = ahead.saturating_sub(half).clamp(i64::MIN.into(), i64::MAX.into());
        let clock_ahead_ms = i64::try_from(bounded).expect("it was clamped");
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(Sample { round_trip, clock_ahead_ms });
    }

    /// The quickest ping's round trip and difference of clocks.
    pub(super) fn best(&self) -> Option<(Duration, i64)> {
        let best = self.0.iter().min_by_key(|sample| sample.round_trip)?;
        Some((best.round_trip, best.clock_ahead_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_clocks_comes_from_the_quickest_of_the_newest_pings() {
        let mut pings = Pings::default();
        assert_eq!(pings.best(), None);
        let (sent, peers) = (UnixMillis::new(10_000), UnixMillis::new(9_510));
        pings.add(sent, peers, Duration::from_millis(20));
        pings.add(sent, UnixMillis::new(9_900), Duration::from_millis(800));
        assert_eq!(pings.best(), Some((Duration::from_millis(20), -500)));
        for _ in 0..SAMPLES {
            pings.add(sent, UnixMillis::new(10_100), Duration::from_millis(100));
        }
        assert_eq!(pings.best(), Some((Duration::from_millis(100), 50)));
        pings.add(UnixMillis::ZERO, UnixMillis::new(u64::MAX), Duration::ZERO);
        assert_eq!(pings.best(), Some((Duration::ZERO, i64::MAX)));
    }
}
