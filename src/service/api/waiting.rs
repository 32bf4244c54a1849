//! Which documents wait to be ordered through this door, by who signed them. It judges no document.
//!
//! Invariant: at most [`MOST_OF_ONE_SIGNER`] documents of one signer and kind wait.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::DocumentKind;
use crate::types::{Digest, KeyId};

/// How many documents of a kind may wait of one signer. An agent sends its receipts one after the other and an operator's
/// command sends one request, so this is some seconds of either; and sixteen keys together do not fill a queue of 256.
pub(super) const MOST_OF_ONE_SIGNER: usize = 16;

/// How many ordered commands are remembered, the newest ones: a copy comes within seconds of the order, from a client that
/// sends to all replicas, and a replica orders far fewer in a minute.
const ORDERED_KEPT: usize = 4_096;

/// Whose document it is, and what kind of one.
type Signer = (DocumentKind, KeyId);

/// What waits. Copies share it.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// By the commands' digests.
    waiting: BTreeMap<Digest, Signer>,
    of: BTreeMap<Signer, usize>,
    ordered: BTreeSet<Digest>,
    /// Oldest first.
    order: VecDeque<Digest>,
}

/// What became of a document that would wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It has a place now.
    Entered,
    /// It waits already.
    Waits,
    /// It was ordered before.
    Ordered,
    /// Its signer has as many places as one may.
    Full,
}

impl Waiting {
    /// Takes a place for the command with this digest.
    pub(super) fn enter(&self, signer: Signer, digest: Digest) -> Admission {
        let mut table = self.table();
        if table.waiting.contains_key(&digest) {
            return Admission::Waits;
        }
        if table.ordered.contains(&digest) {
            return Admission::Ordered;
        }
        let count = table.of.entry(signer).or_default();
        if *count >= MOST_OF_ONE_SIGNER {
            return Admission::Full;
        }
        *count += 1;
        table.waiting.insert(digest, signer);
        Admission::Entered
    }

    /// Gives the place of this command back, when it has one.
    pub(super) fn leave(&self, digest: &Digest) {
        self.table().leave(digest);
    }

    /// These commands were ordered, through whichever door they came.
    pub fn ordered(&self, digests: impl IntoIterator<Item = Digest>) {
        let mut table = self.table();
        for digest in digests {
            table.leave(&digest);
            if table.ordered.insert(digest) {
                table.order.push_back(digest);
            }
            if table.order.len() > ORDERED_KEPT
                && let Some(oldest) = table.order.pop_front()
            {
                table.ordered.remove(&oldest);
            }
        }
    }

    /// Gives every place back: blocks were passed over, and nobody here knows what stands in them.
    pub fn clear(&self) {
        let mut table = self.table();
        table.waiting.clear();
        table.of.clear();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn leave(&mut self, digest: &Digest) {
        let Some(signer) = self.waiting.remove(digest) else { return };
        if let Some(count) = self.of.get_mut(&signer) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&signer);
            }
        }
    }
}
