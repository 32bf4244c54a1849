//! The samples of one stream in one window, as a set: the same samples in any order, any batching and any
//! number of resends give the same set. It holds the newest ones up to a limit, which is a function of the
//! set alone, so that the limit does not bring the order of arrival back.

use super::point::{Amount, UnixNanos};
use crate::types::Quantity;

/// How much memory a sample takes, in the size of one without buckets.
pub(super) trait Weigh {
    fn weight(&self) -> usize;
}

impl Weigh for Quantity {
    fn weight(&self) -> usize {
        1
    }
}

impl Weigh for Amount {
    fn weight(&self) -> usize {
        // A bucket takes 16 bytes, a sample without any takes 64.
        1 + self.bucket_count().div_ceil(4)
    }
}

impl Weigh for (UnixNanos, Amount) {
    fn weight(&self) -> usize {
        self.1.weight()
    }
}

/// Distinct samples in the order of their time, then of their value.
#[derive(Clone, Debug)]
pub(super) struct Samples<V> {
    newest: Vec<(UnixNanos, V)>,
}

impl<V> Default for Samples<V> {
    fn default() -> Self {
        Self { newest: Vec::new() }
    }
}

impl<V: Clone + Ord + Weigh> Samples<V> {
    /// Adds a sample, and says by how much the set's weight changed: by nothing when it was there before, or is
    /// older than all of a full set.
    pub(super) fn add(&mut self, time: UnixNanos, value: V, limit: usize) -> isize {
        let sample = (time, value);
        let place = match self.newest.last() {
            Some(last) if *last >= sample => match self.newest.binary_search(&sample) {
                Ok(_) => return 0,
                Err(place) => place,
            },
            Some(_) | None => self.newest.len(),
        };
        let gained = sample.1.weight().cast_signed();
        if self.newest.len() < limit {
            self.newest.insert(place, sample);
            return gained;
        }
        let Some(before) = place.checked_sub(1) else {
            return 0;
        };
        self.newest[..place].rotate_left(1);
        let oldest = std::mem::replace(&mut self.newest[before], sample);
        gained - oldest.1.weight().cast_signed()
    }

    pub(super) fn as_slice(&self) -> &[(UnixNanos, V)] {
        &self.newest
    }
}

impl Samples<Amount> {
    /// One value for each time, oldest first: of two with the same time the larger one.
    pub(super) fn by_time(&self) -> impl Iterator<Item = (UnixNanos, &Amount)> {
        let next = self.newest.iter().skip(1).map(|(time, _)| Some(*time)).chain([None]);
        self.newest
            .iter()
            .zip(next)
            .filter(|((time, _), next)| Some(*time) != *next)
            .map(|((time, amount), _)| (*time, amount))
    }
}

#[cfg(test)]
mod tests {
    use super::{Samples, UnixNanos, Weigh};

    impl Weigh for u64 {
        fn weight(&self) -> usize {
            usize::try_from(*self).expect("small numbers of a test")
        }
    }

    #[test]
    fn a_full_set_holds_the_newest_whatever_the_order_and_knows_its_weight() {
        let orders = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 5, 1, 2, 4], [2, 4, 5, 3, 1]];
        for order in orders {
            let (mut samples, mut weight) = (Samples::default(), 0);
            for time in order.into_iter().chain(order) {
                weight += samples.add(UnixNanos::new(time), time, 3);
            }
            let values: Vec<u64> = samples.as_slice().iter().map(|(_, value)| *value).collect();
            assert_eq!((values, weight), (vec![3, 4, 5], 12), "{order:?}");
        }
    }

    #[test]
    fn a_resend_changes_nothing() {
        let mut samples = Samples::default();
        assert_eq!(samples.add(UnixNanos::new(7), 1, 8), 1);
        assert_eq!(samples.add(UnixNanos::new(7), 1, 8), 0);
        assert_eq!(samples.add(UnixNanos::new(7), 2, 8), 2);
    }
}
