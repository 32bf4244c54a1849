//! The mean of the last values. It holds them, so that the oldest can leave, and no more than them.
//! Invariant: its sum is taken anew, in the values' order, whenever the ring has turned once, so that rounding
//! never adds up.

use borsh::{BorshDeserialize, BorshSerialize};

/// The last values, at most a fixed number.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub(super) struct Ring {
    places: u32,
    /// The place of the next value, once all are taken.
    next: u32,
    values: Vec<f64>,
    sum: f64,
}

impl Ring {
    pub(super) const fn new(places: u32) -> Self {
        Self { places, next: 0, values: Vec::new(), sum: 0.0 }
    }

    pub(super) fn push(&mut self, value: f64) {
        let places = self.places as usize;
        if self.values.len() < places {
            // Exactly: doubling would take more memory than the state's bound.
            self.values.reserve_exact(places - self.values.len());
            self.values.push(value);
            self.sum += value;
            return;
        }
        let place = &mut self.values[self.next as usize];
        self.sum += value - *place;
        *place = value;
        self.next += 1;
        if self.next == self.places {
            self.next = 0;
            self.sum = self.values.iter().sum();
        }
    }

    /// The mean of what it holds; zero if that is nothing.
    pub(super) fn mean(&self) -> f64 {
        let held = u32::try_from(self.values.len()).expect("no more than its places");
        self.sum / f64::from(held.max(1))
    }
}
