//! The samples of one stream in one window, as a set: the same samples in any order, any batching and any
//! number of resends give the same set. It holds the newest ones up to a limit, which is a function of the
//! set alone, so that the limit does not bring the order of arrival back.

use super::point::{Amount, UnixNanos};

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

/// What adding a sample did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is one more.
    New,
    /// It is in, and an older one is out; or it is older than all of a full set.
    Full,
    /// It was there before: a resend.
    Known,
}

impl<V: Copy + Ord> Samples<V> {
    pub(super) fn add(&mut self, time: UnixNanos, value: V, limit: usize) -> Added {
        let sample = (time, value);
        let place = match self.newest.last() {
            Some(last) if *last >= sample => match self.newest.binary_search(&sample) {
                Ok(_) => return Added::Known,
                Err(place) => place,
            },
            Some(_) | None => self.newest.len(),
        };
        if self.newest.len() < limit {
            self.newest.insert(place, sample);
            return Added::New;
        }
        if let Some(before) = place.checked_sub(1) {
            self.newest.copy_within(1..place, 0);
            self.newest[before] = sample;
        }
        Added::Full
    }

    pub(super) fn as_slice(&self) -> &[(UnixNanos, V)] {
        &self.newest
    }
}

impl Samples<Amount> {
    /// One value for each time, oldest first: of two with the same time the larger one.
    pub(super) fn by_time(&self) -> impl Iterator<Item = (UnixNanos, Amount)> {
        let next = self.newest.iter().skip(1).map(|(time, _)| Some(*time)).chain([None]);
        self.newest
            .iter()
            .zip(next)
            .filter(|((time, _), next)| Some(*time) != *next)
            .map(|(sample, _)| *sample)
    }
}

#[cfg(test)]
mod tests {
    use super::{Added, Samples, UnixNanos};

    #[test]
    fn a_full_set_holds_the_newest_whatever_the_order() {
        let orders = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 5, 1, 2, 4], [2, 4, 5, 3, 1]];
        for order in orders {
            let mut samples = Samples::default();
            for time in order.into_iter().chain(order) {
                samples.add(UnixNanos::new(time), time, 3);
            }
            let times: Vec<u64> = samples.as_slice().iter().map(|(_, value)| *value).collect();
            assert_eq!(times, [3, 4, 5], "{order:?}");
        }
    }

    #[test]
    fn a_resend_is_known() {
        let mut samples = Samples::default();
        assert_eq!(samples.add(UnixNanos::new(7), 1, 8), Added::New);
        assert_eq!(samples.add(UnixNanos::new(7), 1, 8), Added::Known);
        assert_eq!(samples.add(UnixNanos::new(7), 2, 8), Added::New);
    }
}
