//! The default detector over clean series, alone on one thread: time a sample, bytes of state, false alarms. It
//! measures no pipeline around it. Invariant: all series have the same length, so figures of kinds compare.

use std::fmt;

use serde::Serialize;

use crate::{
    analyze::series::{Novelty, Sample, clean::Clean},
    service::clock::Stopwatch,
};

pub use crate::analyze::series::clean::Kind;

const SERIES: u64 = 100;
const SAMPLES: u64 = 10_000;

/// What was measured over one kind of clean series.
#[derive(Debug, Serialize)]
pub struct Figures {
    #[serde(serialize_with = "as_debug")]
    kind: Kind,
    series: u64,
    samples_each: u64,
    nanoseconds_a_sample: u64,
    largest_state_bytes: usize,
    alarms: usize,
}

fn as_debug<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{kind:?}"))
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:9} {} series of {} samples: {} ns a sample, at most {} bytes of state, {} false alarms",
            format!("{:?}", self.kind),
            self.series,
            self.samples_each,
            self.nanoseconds_a_sample,
            self.largest_state_bytes,
            self.alarms
        )
    }
}

/// Runs it over the series of this kind with the seeds from 0 on.
#[must_use]
pub fn measure(kind: Kind) -> Figures {
    let length = usize::try_from(SAMPLES).expect("it is small");
    let (mut elapsed_ms, mut largest, mut alarms) = (0, 0, 0);
    for seed in 0..SERIES {
        let samples: Vec<Sample> = Clean::new(kind, seed).take(length).collect();
        let mut detector = Novelty::new();
        let clock = Stopwatch::start();
        alarms += samples.iter().filter(|sample| detector.look(**sample).finding.is_some()).count();
        elapsed_ms += clock.elapsed().as_millis();
        largest = largest.max(borsh::to_vec(&detector).expect("no number is none").len());
    }
    Figures {
        kind,
        series: SERIES,
        samples_each: SAMPLES,
        nanoseconds_a_sample: elapsed_ms * 1_000_000 / (SERIES * SAMPLES),
        largest_state_bytes: largest,
        alarms,
    }
}
