//! Cumulative streams: how much each rose from window to window.
//!
//! The counting rule:
//!
//! 1. A stream is a series and a start time. Clients of one series that started at different times are
//!    different streams, whose rises add up: a process that lives for one task posts its counters once.
//! 2. A stream that is seen for the first time rose by its whole value, if it started no earlier than the
//!    monitor did; else, or when its start is unknown, the first value is only where counting begins.
//! 3. From then on it rises by max(0, value - last value), in the order of the points' own times; of points
//!    with equal times the largest counts, so a resend adds nothing.
//! 4. A rise belongs to the window of the later point.
//!
//! The rule is evaluated when a window closes, over the set of its samples, so it does not depend on the
//! order in which they came. Invariant: a stream that was forgotten is never counted from zero again.

use std::collections::BTreeMap;

use super::{
    point::{Amount, UnixNanos},
    samples::Samples,
    series::{SeriesId, SeriesIndex},
};
use crate::types::UnixMillis;

/// The most cumulative streams whose last value is kept. Past it the ones that were silent for longest are
/// forgotten; those that were for [`super::SERIES_IDLE`] are in any case. A process for every task, ten streams each and twenty tasks a second fill it in eight minutes.
pub const MAX_STREAMS: usize = 100_000;

/// The most buckets of histograms in those last values: 32 MB. Past it they are forgotten likewise.
const MAX_STREAM_BUCKETS: usize = 2_000_000;

/// A series and the start of one of its streams.
pub(super) type StreamKey = (SeriesId, UnixNanos);

#[derive(Clone, Debug)]
struct Position {
    last: Amount,
    time: UnixNanos,
}

/// The last value of every cumulative stream, as of the newest closed window.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    positions: BTreeMap<StreamKey, Position>,
    /// How many buckets all positions hold.
    buckets: usize,
    started_at: UnixNanos,
}

impl Streams {
    pub(super) const fn new(started_at: UnixNanos) -> Self {
        Self { positions: BTreeMap::new(), buckets: 0, started_at }
    }

    /// How much the stream rose in the window of these samples, which is the next one to close.
    pub(super) fn advance(
        &mut self,
        key: StreamKey,
        samples: &Samples<Amount>,
        index: &SeriesIndex,
    ) -> Amount {
        let (series, start) = key;
        let mut samples = samples.by_time();
        let mut position = match self.positions.get(&key) {
            Some(position) => position.clone(),
            None if start >= self.started_at && start > index.forgotten(series) => {
                Position { last: Amount::default(), time: start }
            }
            None => match samples.next() {
                Some((time, last)) => Position { last: last.clone(), time },
                None => return Amount::default(),
            },
        };
        let mut risen = Amount::default();
        for (time, amount) in samples {
            risen = risen.plus(&amount.risen_since(&position.last));
            position = Position { last: amount.clone(), time };
        }
        self.buckets += position.last.bucket_count();
        if let Some(before) = self.positions.insert(key, position) {
            self.buckets -= before.last.bucket_count();
        }
        risen
    }

    /// Forgets the streams that were silent since before a time: tasks come and go while their series stays.
    pub(super) fn forget_idle(&mut self, index: &mut SeriesIndex, since: UnixMillis) {
        let buckets = &mut self.buckets;
        self.positions.retain(|(series, start), position| {
            let stays = position.time.to_millis() >= since;
            if !stays {
                *buckets -= position.last.bucket_count();
                index.forget_stream(*series, *start);
            }
            stays
        });
    }

    /// Forgets the streams that were silent for longest, down to the limit.
    pub(super) fn evict(&mut self, index: &mut SeriesIndex, limit: usize) {
        if self.positions.len() <= limit && self.buckets <= MAX_STREAM_BUCKETS {
            return;
        }
        // Series are told apart by their keys here: their places in the index depend on who came first.
        let mut oldest: Vec<(UnixNanos, StreamKey)> =
            self.positions.iter().map(|(key, position)| (position.time, *key)).collect();
        oldest.sort_unstable_by(|(time, (series, start)), (other_time, (other_series, other_start))| {
            let key = |id| index.entry(id).map(|entry| (&*entry.key, entry.kind));
            (time, start).cmp(&(other_time, other_start)).then_with(|| key(*series).cmp(&key(*other_series)))
        });
        for (_, (series, start)) in oldest {
            if self.positions.len() <= limit && self.buckets <= MAX_STREAM_BUCKETS {
                return;
            }
            self.remove(&(series, start));
            index.forget_stream(series, start);
        }
    }

    fn remove(&mut self, key: &StreamKey) {
        if let Some(position) = self.positions.remove(key) {
            self.buckets -= position.last.bucket_count();
        }
    }

    /// Forgets all streams of a series; the newest start among them, or zero when there is none.
    pub(super) fn drop_series(&mut self, series: SeriesId) -> UnixNanos {
        let range = (series, UnixNanos::ZERO)..=(series, UnixNanos::new(u64::MAX));
        let starts: Vec<UnixNanos> = self.positions.range(range).map(|((_, start), _)| *start).collect();
        for start in &starts {
            self.remove(&(series, *start));
        }
        starts.last().copied().unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }
}
