//! Every pair of the past, quantised: a bounded set of pairs such that each that was ever there is within the
//! set's grain of one in it. It judges no distance. Invariant: at most [`PLACES`] pairs.

use borsh::{BorshDeserialize, BorshSerialize};

/// How many pairs are kept: with them and the values of the long mean a state stays below its bound.
const PLACES: usize = 760;

/// By how much the grain grows when no place is left.
const COARSER: f64 = 1.3;

/// Two coordinates, as they are kept: single precision, relative to the series' first value.
#[derive(Clone, Copy, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub(super) struct Pair {
    pub(super) short: f32,
    pub(super) long: f32,
}

impl Pair {
    fn squared_distance(self, other: Self) -> f64 {
        let short = f64::from(self.short) - f64::from(other.short);
        let long = f64::from(self.long) - f64::from(other.long);
        short * short + long * long
    }
}

#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub(super) struct Past {
    pairs: Vec<Pair>,
    grain: f64,
}

impl Past {
    pub(super) const fn new() -> Self {
        Self { pairs: Vec::new(), grain: 0.0 }
    }

    /// How far the nearest pair of the past is; zero if there is none.
    pub(super) fn distance(&self, pair: Pair) -> f64 {
        nearest(&self.pairs, pair).map_or(0.0, f64::sqrt)
    }

    /// Adds a pair, unless one is within the grain or within `floor`.
    pub(super) fn add(&mut self, pair: Pair, floor: f64) {
        let grain = self.grain.max(floor);
        if is_near(&self.pairs, pair, grain) {
            return;
        }
        // Exactly: doubling would take more memory than the state's bound.
        self.pairs.reserve_exact(PLACES - self.pairs.len());
        self.pairs.push(pair);
        while self.pairs.len() >= PLACES {
            self.grain = (self.grain * COARSER).max(floor).max(f64::from(f32::MIN_POSITIVE));
            let mut kept: Vec<Pair> = Vec::with_capacity(PLACES);
            for pair in &self.pairs {
                if !is_near(&kept, *pair, self.grain) {
                    kept.push(*pair);
                }
            }
            self.pairs = kept;
        }
    }
}

fn is_near(pairs: &[Pair], pair: Pair, grain: f64) -> bool {
    nearest(pairs, pair).is_some_and(|squared| squared.sqrt() <= grain)
}

/// The smallest squared distance. A minimum does not depend on the order, so eight lanes take it at once.
fn nearest(pairs: &[Pair], pair: Pair) -> Option<f64> {
    const LANES: usize = 8;
    let mut least = [f64::INFINITY; LANES];
    let whole = pairs.chunks_exact(LANES);
    let rest = whole.remainder();
    for chunk in whole {
        for (least, other) in least.iter_mut().zip(chunk) {
            let squared = pair.squared_distance(*other);
            *least = if squared < *least { squared } else { *least };
        }
    }
    let rest = rest.iter().map(|other| pair.squared_distance(*other));
    let least = least.into_iter().chain(rest).fold(f64::INFINITY, f64::min);
    least.is_finite().then_some(least)
}

#[cfg(test)]
mod tests {
    use super::{PLACES, Pair, Past};

    #[test]
    fn whatever_was_there_is_within_the_grain_and_the_places_are_bounded() {
        let mut past = Past::new();
        let pair = |n: u16| Pair { short: f32::from(n % 211), long: f32::from(n % 199) };
        for n in 0..20_000 {
            past.add(pair(n), 0.5);
            assert!(past.pairs.len() < PLACES);
        }
        // A pair that left for a near one may lie a grain of each coarsening away: together less than the
        // geometric sum.
        let bound = past.grain / (1.0 - 1.0 / 1.3);
        assert!(past.grain > 1.0);
        for n in 0..20_000 {
            assert!(past.distance(pair(n)) <= bound);
        }
    }

    #[test]
    fn the_nearest_pair_is_found_wherever_it_lies() {
        let mut past = Past::new();
        for n in 0..19_u8 {
            past.add(Pair { short: f32::from(n) * 10.0, long: 0.0 }, 0.0);
        }
        for n in 0..19_u8 {
            let near = Pair { short: f32::from(n) * 10.0 + 3.0, long: 4.0 };
            assert!((past.distance(near) - 5.0).abs() < 1e-9, "{n}");
        }
    }
}
