//! Clean series from a seed: what a detector must stay quiet on, for tests and measurements. They are data, not
//! detection. Invariant: equal kind and seed give equal values on every machine; only `+ - * /` make them.
//!
//! Samples are five minutes apart, so a day has 288. Noise is a sum of twelve uniform numbers, close to normal.

use crate::types::{Quantity, UnixMillis};

use super::Sample;

/// The samples of a day.
const DAY: u64 = 288;
const SPACING_MS: u64 = 300_000;

/// The kinds of clean series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One value.
    Constant,
    /// A level with noise.
    Noisy,
    /// A line with noise, of a slope that the seed chooses over two orders of size, upward or downward.
    Trending,
    /// A day's wave with noise.
    Daily,
    /// A day's wave with quieter weekends, with noise.
    Weekly,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Constant, Self::Noisy, Self::Trending, Self::Daily, Self::Weekly];
}

/// The samples of a clean series, without end.
#[derive(Clone, Debug)]
pub struct Clean {
    kind: Kind,
    state: u64,
    level: f64,
    noise: f64,
    slope: f64,
    phase: u64,
    next: u64,
}

impl Clean {
    /// The series of this kind and seed.
    #[must_use]
    pub fn new(kind: Kind, seed: u64) -> Self {
        let state = (seed.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut clean = Self { kind, state, level: 0.0, noise: 0.0, slope: 0.0, phase: 0, next: 0 };
        clean.level = 20.0 + 180.0 * clean.uniform();
        clean.noise = 0.5 + 4.0 * clean.uniform();
        let upward = if clean.uniform() < 0.5 { -1.0 } else { 1.0 };
        // In ten thousand samples from 2 to 200 times the noise.
        let steepness = clean.uniform();
        clean.slope = upward * clean.noise * 2.0 * (1.0 + 99.0 * steepness * steepness) / 10_000.0;
        clean.phase = clean.bits() % (7 * DAY);
        clean
    }

    fn value(&mut self) -> f64 {
        let noise = self.noise * self.normal();
        let place = self.next + self.phase;
        match self.kind {
            Kind::Constant => self.level,
            Kind::Noisy => self.level + noise,
            Kind::Trending => self.level + self.slope * to_f64(self.next) + noise,
            Kind::Daily => self.level + 20.0 * wave(place) + noise,
            Kind::Weekly if place / DAY % 7 < 5 => self.level + 20.0 * wave(place) + noise,
            Kind::Weekly => self.level - 15.0 + 8.0 * wave(place) + noise,
        }
    }

    /// Xorshift (Marsaglia 2003).
    const fn bits(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// From 0 to 1.
    fn uniform(&mut self) -> f64 {
        to_f64(self.bits() >> 11) / to_f64(1 << 53)
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

impl Iterator for Clean {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let value = self.value();
        let at = UnixMillis::new(1_700_000_000_000 + SPACING_MS * self.next);
        self.next += 1;
        Some(Sample { at, value: Quantity::from_f64(value).expect("clean values are small") })
    }
}

/// A day's wave from -1 to 1: two parabolas, which a sine is near to.
fn wave(place: u64) -> f64 {
    let half = 2.0 * to_f64(place % DAY) / to_f64(DAY);
    if half < 1.0 { 4.0 * half * (1.0 - half) } else { -4.0 * (half - 1.0) * (2.0 - half) }
}

#[expect(clippy::cast_precision_loss, reason = "all are below 2^53")]
const fn to_f64(number: u64) -> f64 {
    number as f64
}
