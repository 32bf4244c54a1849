//! Which series there are: the identity of each, and the bounds on how many a source may have.
//!
//! A series is known by the canonical bytes of its [`SeriesKey`] and by its kind. What names a process or a
//! run is no part of it ([`names_a_process`]): an engine that starts a process for every task would make a
//! new series for every task. Invariant: two live entries never have the same identity and kind.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    point::{Kind, Point, UnixNanos},
    reason::Reason,
};
use crate::{
    knowledge::observation::SeriesKey,
    types::{Millis, SourceId, UnixMillis},
};

/// The most sources that one monitor keeps apart: a handful is usual, and each may hold ten thousand series.
pub const MAX_SOURCES: usize = 64;

/// The most series that a source may have: what one report can carry.
pub const MAX_SERIES_PER_SOURCE: usize = 10_000;

/// A series without samples for so long makes room for others: long enough for any export interval in use.
pub const SERIES_IDLE: Millis = Millis::from_secs(3600);

/// Resource attributes that name a process, a container or a run, and so are no part of a series' identity.
/// A name that ends with a dot stands for all names that begin with it.
pub const PROCESS_ATTRIBUTES: [&str; 14] = [
    "service.instance.id",
    "process.",
    "telemetry.sdk.",
    "telemetry.distro.",
    "telemetry.auto.",
    "container.id",
    "container.name",
    "k8s.pod.",
    "k8s.job.",
    "k8s.container.restart_count",
    "faas.instance",
    "prefect.flow-run.",
    "prefect.task-run.",
    "airflow.task_instance.",
];

/// Whether a resource attribute names a process, a container or a run.
#[must_use]
pub fn names_a_process(attribute: &str) -> bool {
    PROCESS_ATTRIBUTES
        .iter()
        .any(|name| if name.ends_with('.') { attribute.starts_with(name) } else { attribute == *name })
}

/// A series' place in the index. It says nothing outside the one monitor that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesId(u32);

/// What the index knows of a series.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Arc<SeriesKey>,
    pub(super) kind: Kind,
    identity: Box<[u8]>,
    fingerprint: u64,
    pub(super) last_sample: UnixMillis,
    /// Streams of the series that started no later than this may have been forgotten.
    pub(super) forgotten: UnixNanos,
}

#[derive(Clone, Debug, Default)]
struct Source {
    series: usize,
    /// Streams that started no later than this may belong to a series that was dropped.
    forgotten: UnixNanos,
}

/// All series with samples in the last hour.
#[derive(Clone, Debug)]
pub(super) struct SeriesIndex {
    by_fingerprint: BTreeMap<u64, Vec<SeriesId>>,
    entries: Vec<Option<Entry>>,
    free: Vec<SeriesId>,
    sources: BTreeMap<SourceId, Source>,
}

impl SeriesIndex {
    pub(super) const fn new() -> Self {
        Self {
            by_fingerprint: BTreeMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            sources: BTreeMap::new(),
        }
    }

    /// The place of the point's series, which is new when it was not known.
    pub(super) fn find_or_add(&mut self, point: &Point<'_>) -> Result<SeriesId, Reason> {
        let time = point.sample.time.to_millis();
        let candidates = self.by_fingerprint.get(&point.fingerprint).map_or(&[][..], Vec::as_slice);
        for id in candidates {
            if let Some(entry) = self.entries.get_mut(id.0 as usize).and_then(Option::as_mut)
                && *entry.identity == *point.identity
                && entry.kind == point.sample.kind
            {
                entry.last_sample = entry.last_sample.max(time);
                return Ok(*id);
            }
        }
        self.add(point, time)
    }

    fn add(&mut self, point: &Point<'_>, time: UnixMillis) -> Result<SeriesId, Reason> {
        let key = point.series_key();
        let sources = self.sources.len();
        match self.sources.get_mut(&key.source) {
            Some(source) if source.series >= MAX_SERIES_PER_SOURCE => return Err(Reason::TooManySeries),
            Some(source) => source.series += 1,
            None if sources >= MAX_SOURCES => return Err(Reason::TooManySources),
            None => {
                let source = Source { series: 1, forgotten: UnixNanos::ZERO };
                self.sources.insert(key.source.clone(), source);
            }
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            let place = u32::try_from(self.entries.len() - 1);
            SeriesId(place.expect("sources and their series are bounded far below 2^32"))
        });
        self.entries[id.0 as usize] = Some(Entry {
            key: Arc::new(key),
            kind: point.sample.kind,
            identity: point.identity.into(),
            fingerprint: point.fingerprint,
            last_sample: time,
            forgotten: UnixNanos::ZERO,
        });
        self.by_fingerprint.entry(point.fingerprint).or_default().push(id);
        Ok(id)
    }

    /// What is known of a series that a window or a stream holds.
    pub(super) fn entry(&self, id: SeriesId) -> Option<&Entry> {
        self.entries.get(id.0 as usize).and_then(Option::as_ref)
    }

    /// How many series a source has.
    pub(super) fn series_of(&self, source: &SourceId) -> usize {
        self.sources.get(source).map_or(0, |source| source.series)
    }

    /// The newest start of a stream of this series that may have been seen and forgotten.
    pub(super) fn forgotten(&self, id: SeriesId) -> UnixNanos {
        self.entry(id).map_or(UnixNanos::ZERO, |entry| {
            let source = self.sources.get(&entry.key.source).map_or(UnixNanos::ZERO, |s| s.forgotten);
            entry.forgotten.max(source)
        })
    }

    /// Notes that a stream of this series is no longer kept.
    pub(super) fn forget_stream(&mut self, id: SeriesId, start: UnixNanos) {
        if let Some(entry) = self.entries.get_mut(id.0 as usize).and_then(Option::as_mut) {
            entry.forgotten = entry.forgotten.max(start);
        }
    }

    /// The series without samples since `time`.
    pub(super) fn idle_since(&self, time: UnixMillis) -> Vec<SeriesId> {
        let places = (0..).map(SeriesId).zip(&self.entries);
        places.filter(|(_, e)| e.as_ref().is_some_and(|e| e.last_sample < time)).map(|(id, _)| id).collect()
    }

    /// Drops a series, of whose streams the newest started at `newest_start`.
    pub(super) fn drop_series(&mut self, id: SeriesId, newest_start: UnixNanos) {
        let Some(entry) = self.entries.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.free.push(id);
        if let Some(places) = self.by_fingerprint.get_mut(&entry.fingerprint) {
            places.retain(|place| *place != id);
            if places.is_empty() {
                self.by_fingerprint.remove(&entry.fingerprint);
            }
        }
        if let Some(source) = self.sources.get_mut(&entry.key.source) {
            source.series -= 1;
            source.forgotten = source.forgotten.max(entry.forgotten).max(newest_start);
            if source.series == 0 {
                self.sources.remove(&entry.key.source);
            }
        }
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}
