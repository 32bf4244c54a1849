//! Whether a series' whole past is one straight line, and which: a least-squares line through the means of
//! equal blocks. It judges no value. Invariant: at most [`BLOCKS`] blocks; when all are taken, neighbours are
//! joined, so the blocks always cover the whole past.

use borsh::{BorshDeserialize, BorshSerialize};

use super::count;

/// How many blocks there are at most.
const BLOCKS: usize = 32;
/// From this many on a line is told from chance.
const ENOUGH: usize = 8;
/// How many values a block has at first.
const FIRST_BLOCK: u64 = 16;
/// The share of the blocks' variance that a line must explain, to begin and to last.
const BEGINS: f64 = 0.7;
const LASTS: f64 = 0.6;

#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub(super) struct Line {
    block: u64,
    means: Vec<f64>,
    sum: f64,
    summed: u64,
    values: u64,
    fit: Option<Fit>,
}

#[derive(Clone, Copy, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
struct Fit {
    start: f64,
    slope: f64,
}

impl Line {
    pub(super) const fn new() -> Self {
        Self { block: FIRST_BLOCK, means: Vec::new(), sum: 0.0, summed: 0, values: 0, fit: None }
    }

    /// What the line says of the next value, if the past is one.
    pub(super) fn prediction(&self) -> Option<f64> {
        self.fit.map(|fit| fit.start + fit.slope * count(self.values))
    }

    pub(super) fn push(&mut self, value: f64) {
        self.values += 1;
        self.sum += value;
        self.summed += 1;
        if self.summed < self.block {
            return;
        }
        self.means.push(self.sum / count(self.block));
        (self.sum, self.summed) = (0.0, 0);
        if self.means.len() == BLOCKS {
            self.means = self.means.chunks_exact(2).map(|pair| 0.5 * (pair[0] + pair[1])).collect();
            self.block *= 2;
        }
        if self.means.len() >= ENOUGH {
            self.fit = self.fitted();
        }
    }

    fn fitted(&self) -> Option<Fit> {
        let blocks = count(self.means.len() as u64);
        let middle = (blocks - 1.0) / 2.0;
        let mean = self.means.iter().sum::<f64>() / blocks;
        let (mut both, mut places, mut heights) = (0.0, 0.0, 0.0);
        for (place, height) in (0_u64..).zip(&self.means) {
            let (place, height) = (count(place) - middle, height - mean);
            both += place * height;
            places += place * place;
            heights += height * height;
        }
        let needed = if self.fit.is_some() { LASTS } else { BEGINS };
        if heights <= 0.0 || both * both < needed * places * heights {
            return None;
        }
        let block = count(self.block);
        let slope = both / places / block;
        Some(Fit { start: mean - slope * (middle * block + (block - 1.0) / 2.0), slope })
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn a_straight_past_predicts_the_next_value_and_a_bent_one_nothing() {
        let mut straight = Line::new();
        let mut bent = Line::new();
        for n in 0..5000_u32 {
            straight.push(7.0 + 0.25 * f64::from(n));
            bent.push(f64::from(n % 288));
        }
        let predicted = straight.prediction().expect("it is a line");
        assert!((predicted - (7.0 + 0.25 * 5000.0)).abs() < 1e-6, "{predicted}");
        assert_eq!(bent.prediction(), None);
    }
}
