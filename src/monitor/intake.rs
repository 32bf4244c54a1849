//! [`Monitor`]: samples in, closed windows out. It owns the series, the streams and the open windows of one
//! replica; it reads no clock and sends nothing.
//!
//! Invariant: windows close in order, and the same accepted samples give a byte-identical summary, in
//! whatever order and batches they came.

use std::collections::BTreeMap;

use super::{
    point::{Batch, Kind, Point, Refused, UnixNanos},
    reason::Reason,
    series::{Entry, SERIES_IDLE, SeriesId, SeriesIndex},
    streams::{MAX_STREAMS, Streams},
    tally::Tally,
    windows::{ClosedWindow, MAX_OPEN_WINDOWS, Windows},
};
use crate::{
    knowledge::{
        genesis::Parameters,
        observation::{ReportHeader, SeriesKey, SeriesSummary, SignedReport, WindowSummary},
    },
    types::{Digest, Domain, Millis, ReplicaIndex, SecretKey, UnixMillis, WindowIndex},
};

/// How many samples of a level or of a cumulative stream are kept in a window: the newest ones. An engine
/// that exports every second fills a sixth of it in ten seconds; of a stream that only rises, the newest
/// sample alone tells the whole rise.
pub const SAMPLES_PER_STREAM: usize = 64;

/// The most bytes of a summary: three quarters of the largest message between replicas.
pub const MAX_SUMMARY_BYTES: usize = 12 * 1024 * 1024;

/// How many gaps are remembered; more of them within one deadline are one long gap.
const MAX_GAPS: usize = 64;

/// What a monitor is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitorParameters {
    /// A window's length.
    pub window: Millis,
    /// How far ahead of the monitor's clock a sample's time may lie.
    pub ahead: Millis,
    /// The most series that a summary may carry.
    pub series_limit: usize,
    /// How many samples of a level or of a cumulative stream are kept in a window.
    pub samples_per_stream: usize,
}

impl MonitorParameters {
    /// The monitor's part of the cluster's parameters. A clock may be two windows fast: agreed time does not
    /// move further in one step either.
    #[must_use]
    pub const fn of(parameters: &Parameters) -> Self {
        Self {
            window: parameters.window,
            ahead: parameters.window.times(2),
            series_limit: parameters.series_limit as usize,
            samples_per_stream: SAMPLES_PER_STREAM,
        }
    }
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// How many points count, resends among them.
    pub accepted: u64,
    /// How many were refused, in decoding and here, and why.
    pub rejected: Refused,
}

/// A window that takes no more samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which one.
    pub window: WindowIndex,
    /// What was seen in it.
    pub summary: WindowSummary,
    /// Whether the monitor may have missed some of its samples.
    pub partial: bool,
    /// How many series are not in the summary: those past its limit in the order of their keys, and those
    /// whose identity also came with another kind.
    pub left_out: u64,
}

impl Closed {
    /// The signed report on this window; its body is the summary.
    #[must_use]
    pub fn report(
        &self,
        replica: ReplicaIndex,
        signed_at: UnixMillis,
        domain: &Domain,
        key: &SecretKey,
    ) -> SignedReport {
        let header = ReportHeader {
            replica,
            window: self.window,
            partial: self.partial,
            signed_at,
            body: Digest::of_value(&self.summary),
        };
        header.sign(domain, key)
    }
}

/// A window that was closed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("window {window} is closed already; the oldest open one is {oldest_open}")]
pub struct AlreadyClosed {
    /// The window that was asked for.
    pub window: WindowIndex,
    /// The oldest window that may be closed.
    pub oldest_open: WindowIndex,
}

/// One replica's monitor.
#[derive(Clone, Debug)]
pub struct Monitor {
    parameters: MonitorParameters,
    started_at: UnixMillis,
    oldest_open: WindowIndex,
    index: SeriesIndex,
    streams: Streams,
    windows: Windows,
    tally: Tally,
    gaps: Vec<(UnixMillis, UnixMillis)>,
}

impl Monitor {
    /// A monitor that begins to listen at `started_at`.
    ///
    /// # Panics
    /// When the window's length is zero; parameters are checked before they reach a monitor.
    #[must_use]
    pub const fn new(parameters: MonitorParameters, started_at: UnixMillis) -> Self {
        Self {
            parameters,
            started_at,
            oldest_open: WindowIndex::containing(started_at, parameters.window),
            index: SeriesIndex::new(),
            streams: Streams::new(UnixNanos::from_millis(started_at)),
            windows: Windows::new(),
            tally: Tally::new(),
            gaps: Vec::new(),
        }
    }

    /// Takes the points of a batch into their windows. A refused point never stops another. A data point of
    /// several parts counts when all of them do.
    pub fn ingest(&mut self, batch: &Batch, now: UnixMillis) -> Ingested {
        let mut ingested = Ingested { accepted: 0, rejected: batch.refused().clone() };
        for (source, refused) in batch.refused_by_source() {
            for (reason, points) in refused {
                self.tally.refuse(source.as_ref(), *reason, *points);
            }
        }
        let mut points = batch.points().peekable();
        while let Some(point) = points.next() {
            let mut taken = self.take(&point, now);
            while let Some(part) = points.next_if(|next| next.continues) {
                taken = taken.and(self.take(&part, now));
            }
            match taken {
                Ok(series) => {
                    ingested.accepted += 1;
                    if let Some(entry) = self.index.entry(series) {
                        self.tally.accept(&entry.key.source);
                    }
                }
                Err(reason) => {
                    *ingested.rejected.entry(reason).or_default() += 1;
                    self.tally.refuse(Some(&point.series_key().source), reason, 1);
                }
            }
        }
        ingested
    }

    fn take(&mut self, point: &Point<'_>, now: UnixMillis) -> Result<SeriesId, Reason> {
        let time = point.sample.time.to_millis();
        let window = WindowIndex::containing(time, self.parameters.window);
        if window < self.oldest_open {
            return Err(Reason::Late);
        }
        if time > self.newest_taken(now) {
            return Err(Reason::Future);
        }
        if window.index() - self.oldest_open.index() >= MAX_OPEN_WINDOWS {
            // Windows were not closed in time, so other replicas have what is refused here.
            self.note_gap(time, time);
            return Err(Reason::NotOpenYet);
        }
        let series = self.index.find_or_add(point)?;
        self.windows.add(window, series, point.sample, self.parameters.samples_per_stream)?;
        Ok(series)
    }

    /// The newest time that a sample may have now.
    #[must_use]
    pub const fn newest_taken(&self, now: UnixMillis) -> UnixMillis {
        now.plus(self.parameters.ahead)
    }

    /// Notes that samples with times from `from` to `to` may have been missed: the windows there are partial.
    pub fn note_gap(&mut self, from: UnixMillis, to: UnixMillis) {
        let full = self.gaps.len() >= MAX_GAPS;
        match self.gaps.last_mut() {
            Some((start, end)) if full || (*start <= from && from <= *end) => {
                *start = (*start).min(from);
                *end = (*end).max(to);
            }
            Some(_) | None => self.gaps.push((from, to)),
        }
    }

    /// Closes a window, and those before it that are still open.
    ///
    /// # Errors
    /// [`AlreadyClosed`] when it was closed before, or passed before the monitor began.
    pub fn close(&mut self, window: WindowIndex) -> Result<Closed, AlreadyClosed> {
        let kinds = self.close_by_kind(window)?;
        let seen = kinds.len();
        let mut series = BTreeMap::new();
        let mut bytes = 0;
        for ((key, _), summary) in kinds {
            bytes += borsh::object_length(&(&key, &summary)).unwrap_or(MAX_SUMMARY_BYTES);
            if series.len() < self.parameters.series_limit && bytes <= MAX_SUMMARY_BYTES {
                series.entry(key).or_insert(summary);
            }
        }
        let left_out = (seen - series.len()) as u64;
        let partial = self.missed_part_of(window);
        let close = window.close(self.parameters.window);
        self.gaps.retain(|(_, to)| *to >= close);
        Ok(Closed { window, summary: WindowSummary { series }, partial, left_out })
    }

    /// As [`Self::close`], with each series' kind, for those who look at a recording.
    ///
    /// # Errors
    /// [`AlreadyClosed`] when it was closed before, or passed before the monitor began.
    pub fn close_by_kind(
        &mut self,
        window: WindowIndex,
    ) -> Result<BTreeMap<(SeriesKey, Kind), SeriesSummary>, AlreadyClosed> {
        if window < self.oldest_open {
            return Err(AlreadyClosed { window, oldest_open: self.oldest_open });
        }
        while let Some(oldest) = self.windows.oldest().filter(|oldest| *oldest < window) {
            let ClosedWindow { ended, .. } = self.windows.close(oldest, &mut self.streams, &self.index);
            self.drop_ended(&ended);
        }
        let ClosedWindow { summaries, ended } = self.windows.close(window, &mut self.streams, &self.index);
        self.oldest_open = window.next();
        let named = summaries.into_iter().filter_map(|(id, summary)| {
            let entry = self.index.entry(id)?;
            Some((((*entry.key).clone(), entry.kind), summary))
        });
        let named = named.collect();
        self.drop_ended(&ended);
        self.make_room(window);
        self.tally.settle(|source| self.index.series_of(source));
        Ok(named)
    }

    /// Levels that ended and did not come back make room at once. What counts up keeps its place, because its
    /// streams may go on.
    fn drop_ended(&mut self, ended: &BTreeMap<SeriesId, UnixNanos>) {
        for (series, time) in ended {
            let gone = |entry: &Entry| {
                matches!(entry.kind, Kind::Gauge | Kind::Sum) && entry.last_sample <= time.to_millis()
            };
            if self.index.entry(*series).is_some_and(gone) {
                self.index.drop_series(*series, UnixNanos::ZERO);
            }
        }
    }

    fn missed_part_of(&self, window: WindowIndex) -> bool {
        let (start, close) = (window.start(self.parameters.window), window.close(self.parameters.window));
        self.started_at > start || self.gaps.iter().any(|(from, to)| *from < close && *to >= start)
    }

    fn make_room(&mut self, closed: WindowIndex) {
        let idle_since = closed.start(self.parameters.window).minus(SERIES_IDLE);
        for series in self.index.idle_since(idle_since) {
            let newest_start = self.streams.drop_series(series);
            self.index.drop_series(series, newest_start);
        }
        self.streams.forget_idle(&mut self.index, idle_since);
        self.streams.evict(&mut self.index, MAX_STREAMS);
    }

    /// The oldest window that may be closed.
    #[must_use]
    pub const fn oldest_open(&self) -> WindowIndex {
        self.oldest_open
    }

    /// What each source sent, as of the newest closed window in the number of its series.
    #[must_use]
    pub const fn sources(&self) -> &Tally {
        &self.tally
    }

    /// How many series it knows.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.index.len()
    }

    /// How many cumulative streams it knows the last value of.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }
}
