//! A map by digest for the commands in flight and those just committed: small next to the work on a command.
//!
//! Digests are spread evenly, so their first bits choose one of many small ordered maps. Whoever grinds digests into
//! one of them makes it as slow as a single large one would be, and no slower. Invariant: nothing depends
//! on the order of the whole, which is why it cannot be iterated.

use std::{collections::BTreeMap, fmt};

use crate::types::Digest;

/// `SHARDS` is how many small maps there are: best some dozen entries for each, since an empty one gives its
/// memory back and takes it again.
#[derive(Clone)]
pub(super) struct DigestMap<V, const SHARDS: usize> {
    shards: Vec<BTreeMap<Digest, V>>,
    len: usize,
}

impl<V: fmt::Debug, const SHARDS: usize> fmt::Debug for DigestMap<V, SHARDS> {
    /// As one map: thousands of empty ones would hide what is in the others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shards.iter().flatten()).finish()
    }
}

impl<V, const SHARDS: usize> Default for DigestMap<V, SHARDS> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| BTreeMap::new()).collect(), len: 0 }
    }
}

impl<V, const SHARDS: usize> DigestMap<V, SHARDS> {
    fn shard(digest: &Digest) -> usize {
        let [first, second, ..] = *digest.as_bytes();
        usize::from(u16::from_be_bytes([first, second])) % SHARDS
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.get(digest).is_some()
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&V> {
        self.shards[Self::shard(digest)].get(digest)
    }

    /// Says whether it was not there before.
    pub(super) fn insert(&mut self, digest: Digest, value: V) -> bool {
        let new = self.shards[Self::shard(&digest)].insert(digest, value).is_none();
        self.len += usize::from(new);
        new
    }

    pub(super) fn remove(&mut self, digest: &Digest) -> Option<V> {
        let removed = self.shards[Self::shard(digest)].remove(digest);
        self.len -= usize::from(removed.is_some());
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::DigestMap;
    use crate::types::Digest;

    #[test]
    fn what_goes_in_is_there_until_it_is_taken_out() {
        let digests = || (0..20_000_u32).map(|number| Digest::of_value(&number));
        let mut map = DigestMap::<_, 512>::default();
        for (place, digest) in digests().enumerate() {
            assert!(map.insert(digest, place) && !map.insert(digest, place));
        }
        assert_eq!(map.len(), 20_000);
        for (place, digest) in digests().enumerate() {
            assert_eq!((map.get(&digest).copied(), map.remove(&digest)), (Some(place), Some(place)));
            assert!(!map.contains(&digest) && map.remove(&digest).is_none());
        }
        assert!(map.is_empty());
    }
}
