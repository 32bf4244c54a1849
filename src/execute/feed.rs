//! The feed: what a replica serves — to agents roots, the newest certified head of each shard, and logged
//! plans; to people what the newest plans were derived from. It is data; the HTTP API reads it and waits for its changes
//! elsewhere.
//!
//! Invariant: only verified documents are in it, and what this replica derived plans from itself; neither a shard's head
//! nor a target's newest plan ever goes back.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    knowledge::{certified::Certified, head::Head, plan::Plan, root::VerifiedRoot},
    types::{Cycle, Digest, Epoch, HeadNumber, Shard, TargetId},
};

/// How many cycles' evidence bundles are kept. Older ones are in the knowledge base.
pub const BUNDLES_KEPT: usize = 64;

/// The most bytes of them, the newest one aside: a bundle of a hundred targets and policies has some 100 KiB.
pub const BUNDLE_BYTES_KEPT: usize = 8 * 1024 * 1024;

/// How many logged plans are kept for each target. An agent acts on the newest alone; the rest is for people
/// who look at what happened. At a typical 3 KiB a plan this is some 200 KiB a target.
pub const PLANS_KEPT_PER_TARGET: usize = 64;

/// How many plans one answer carries, so that an answer stays under 2 MiB even with the largest plans.
pub const PLANS_PER_ANSWER: usize = 16;

/// What a replica serves to agents. Copies share the documents.
#[derive(Clone, Debug)]
pub struct Feed {
    roots: BTreeMap<Epoch, Arc<VerifiedRoot>>,
    heads: BTreeMap<Shard, Arc<Certified<Head>>>,
    plans: BTreeMap<TargetId, VecDeque<Arc<Certified<Plan>>>>,
    /// The newest evidence bundles by their digests, oldest first.
    bundles: VecDeque<(Digest, Arc<[u8]>)>,
}

impl Feed {
    /// A feed with its first root, for these targets.
    #[must_use]
    pub fn new(root: VerifiedRoot, targets: impl IntoIterator<Item = TargetId>) -> Self {
        let plans = targets.into_iter().map(|target| (target, VecDeque::new())).collect();
        let roots = BTreeMap::from([(root.root().epoch, Arc::new(root))]);
        Self { roots, heads: BTreeMap::new(), plans, bundles: VecDeque::new() }
    }

    /// Takes up what the plans of a cycle were derived from, by the digest that they name.
    pub fn keep_bundle(&mut self, bundle: Arc<[u8]>) {
        let digest = Digest::of(&bundle);
        self.bundles.retain(|(kept, _)| *kept != digest);
        self.bundles.push_back((digest, bundle));
        let mut bytes: usize = self.bundles.iter().map(|(_, bundle)| bundle.len()).sum();
        while self.bundles.len() > 1 && (self.bundles.len() > BUNDLES_KEPT || bytes > BUNDLE_BYTES_KEPT) {
            bytes -= self.bundles.pop_front().map_or(0, |(_, oldest)| oldest.len());
        }
    }

    /// The evidence bundle with this digest, if it is one of the newest.
    #[must_use]
    pub fn bundle(&self, digest: Digest) -> Option<&Arc<[u8]>> {
        self.bundles.iter().rev().find(|(kept, _)| *kept == digest).map(|(_, bundle)| bundle)
    }

    /// Takes up a logged plan. Returns whether it changed anything: a plan for an unknown target, or one that
    /// is not newer than the target's newest, does not.
    pub fn log_plan(&mut self, plan: Certified<Plan>) -> bool {
        let Some(kept) = self.plans.get_mut(&plan.document().target) else { return false };
        if kept.back().is_some_and(|newest| newest.document().seq >= plan.document().seq) {
            return false;
        }
        if kept.len() == PLANS_KEPT_PER_TARGET {
            kept.pop_front();
        }
        kept.push_back(Arc::new(plan));
        true
    }

    /// Begins the plans anew with each target's newest one, as a checkpoint gave them: what was served before may
    /// not be what was logged.
    pub fn restart_plans(&mut self, newest: impl IntoIterator<Item = Arc<Certified<Plan>>>) {
        self.plans.values_mut().for_each(VecDeque::clear);
        for plan in newest {
            if let Some(kept) = self.plans.get_mut(&plan.document().target) {
                kept.push_back(plan);
            }
        }
    }

    /// Takes up a head. Returns whether it changed anything: one that is not newer than its shard's newest
    /// does not.
    pub fn publish_head(&mut self, head: Certified<Head>) -> bool {
        let rank = |head: &Head| (head.epoch, head.number);
        let shard = head.document().shard;
        if self.heads.get(&shard).is_some_and(|newest| rank(newest.document()) >= rank(head.document())) {
            return false;
        }
        self.heads.insert(shard, Arc::new(head));
        true
    }

    /// The root that began this epoch.
    #[must_use]
    pub fn root(&self, epoch: Epoch) -> Option<&Arc<VerifiedRoot>> {
        self.roots.get(&epoch)
    }

    /// The newest head of a shard.
    #[must_use]
    pub fn head(&self, shard: Shard) -> Option<&Arc<Certified<Head>>> {
        self.heads.get(&shard)
    }

    /// The newest heads above this number, of one shard or of all, in the order of shards.
    #[must_use]
    pub fn heads_after(&self, shard: Option<Shard>, after: HeadNumber) -> Vec<Arc<Certified<Head>>> {
        self.heads
            .iter()
            .filter(|(of, head)| shard.is_none_or(|shard| shard == **of) && head.document().number > after)
            .map(|(_, head)| Arc::clone(head))
            .collect()
    }

    /// A target's logged plans above this sequence number, oldest first, at most [`PLANS_PER_ANSWER`];
    /// `None` when there is no such target.
    #[must_use]
    pub fn plans_after(&self, target: &TargetId, after: Cycle) -> Option<Vec<Arc<Certified<Plan>>>> {
        let newer = self.plans.get(target)?.iter().filter(|plan| plan.document().seq > after);
        Some(newer.take(PLANS_PER_ANSWER).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{BUNDLE_BYTES_KEPT, BUNDLES_KEPT, Feed, PLANS_KEPT_PER_TARGET, PLANS_PER_ANSWER};
    use crate::{
        knowledge::{
            fixtures::{certified_head, certified_plan, head, plan, target, verified_root},
            head::Mode,
            plan::Plan,
        },
        types::{Cycle, Digest, Epoch, HeadNumber, Shard, TargetId},
    };

    fn feed() -> Feed {
        Feed::new(verified_root(), [target()])
    }

    fn numbers(feed: &Feed, after: u64) -> Vec<u64> {
        let plans = feed.plans_after(&target(), Cycle::new(after)).expect("the target is known");
        plans.iter().map(|plan| plan.document().seq.number()).collect()
    }

    #[test]
    fn plans_are_served_in_order_and_only_those_above_a_number() {
        let mut feed = feed();
        for seq in [3, 7, 9] {
            assert!(feed.log_plan(certified_plan(&Plan { seq: Cycle::new(seq), ..plan() })));
        }
        assert_eq!(numbers(&feed, 0), [3, 7, 9]);
        assert_eq!(numbers(&feed, 3), [7, 9]);
        assert_eq!(numbers(&feed, 9), [0; 0]);
    }

    #[test]
    fn the_newest_bundles_are_kept_within_their_number_and_bytes() {
        let bundle = |number: usize, bytes: usize| {
            let mut bundle = number.to_le_bytes().to_vec();
            bundle.resize(bytes, 0);
            bundle
        };
        let cases = [(3, 100, 3), (BUNDLES_KEPT + 9, 100, BUNDLES_KEPT), (9, BUNDLE_BYTES_KEPT / 2, 2)];
        for (count, bytes, expected) in cases.into_iter().chain([(3, BUNDLE_BYTES_KEPT + 1, 1)]) {
            let mut feed = feed();
            for number in (0..count).chain([count - 1]) {
                feed.keep_bundle(bundle(number, bytes).into());
            }
            let kept = (0..count).filter(|number| {
                let bundle = bundle(*number, bytes);
                feed.bundle(Digest::of(&bundle)).is_some_and(|kept| **kept == *bundle)
            });
            let newest: Vec<usize> = (count - expected..count).collect();
            assert_eq!(kept.collect::<Vec<_>>(), newest, "{count} of {bytes} bytes");
        }
    }

    #[test]
    fn the_newest_plan_never_goes_back() {
        let mut feed = feed();
        assert!(feed.log_plan(certified_plan(&plan())));
        assert!(!feed.log_plan(certified_plan(&plan())));
        assert!(!feed.log_plan(certified_plan(&Plan { seq: Cycle::new(1), ..plan() })));
        assert_eq!(numbers(&feed, 0), [37]);
    }

    #[test]
    fn old_plans_leave_and_an_answer_has_a_bound() {
        let mut feed = feed();
        let last = PLANS_KEPT_PER_TARGET as u64 + 5;
        for seq in 1..=last {
            assert!(feed.log_plan(certified_plan(&Plan { seq: Cycle::new(seq), ..plan() })));
        }
        let served = numbers(&feed, 0);
        assert_eq!(served.len(), PLANS_PER_ANSWER);
        assert_eq!(served[0], 6);
        assert_eq!(numbers(&feed, last - 1), [last]);
    }

    #[test]
    fn a_state_that_was_read_back_leaves_no_other_plan_than_its_own() {
        let mut feed = feed();
        let logged = |seq| certified_plan(&Plan { seq: Cycle::new(seq), ..plan() });
        for seq in [3, 9] {
            assert!(feed.log_plan(logged(seq)));
        }
        feed.restart_plans([Arc::new(logged(7))]);
        assert_eq!(numbers(&feed, 0), [7]);
        assert!(feed.log_plan(logged(8)), "and it goes on from there");
        assert_eq!(numbers(&feed, 0), [7, 8]);
    }

    #[test]
    fn what_is_unknown_is_told_apart_from_what_is_empty() {
        let mut feed = feed();
        let other = TargetId::new("other").expect("a valid name");
        assert!(feed.plans_after(&other, Cycle::ZERO).is_none());
        assert!(!feed.log_plan(certified_plan(&Plan { target: other, ..plan() })));
        assert_eq!(numbers(&feed, 0), [0; 0]);
        assert!(feed.root(Epoch::new(1)).is_some());
        assert!(feed.root(Epoch::new(2)).is_none());
    }

    #[test]
    fn a_shards_head_never_goes_back() {
        let mut feed = feed();
        assert!(feed.publish_head(certified_head(&head(5, Mode::Act))));
        assert!(!feed.publish_head(certified_head(&head(5, Mode::Hold))));
        assert!(!feed.publish_head(certified_head(&head(4, Mode::Act))));
        assert!(feed.publish_head(certified_head(&head(6, Mode::Hold))));
        let newest = feed.head(Shard::new(0)).expect("it has one");
        assert_eq!(newest.document().number, HeadNumber::new(6));
        assert_eq!(feed.heads_after(None, HeadNumber::new(5)).len(), 1);
        assert_eq!(feed.heads_after(None, HeadNumber::new(6)).len(), 0);
        assert_eq!(feed.heads_after(Some(Shard::new(1)), HeadNumber::ZERO).len(), 0);
    }
}
