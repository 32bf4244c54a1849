//! Bundles as they are read, and plans as they are computed from them.

use super::{BundleError, EvidenceBundle, MAX_BUNDLE_BYTES};
use crate::knowledge::{
    finding::Symptom,
    policy::{Change, Policy},
};
use crate::plan::{
    Planned, plan,
    testing::{POOL, backlog, finding, genesis, policy, snapshot, target},
};
use crate::types::Digest;

fn planned() -> Planned {
    plan(&snapshot(&backlog()), &[finding("backlog", Symptom::Threshold)])
}

#[test]
fn from_its_bundle_alone_a_plan_is_computed_again_to_the_byte() {
    let planned = planned();
    let bytes = planned.bundle.as_deref().expect("it planned");
    let bundle = EvidenceBundle::from_bytes(bytes).expect("it is one");
    assert_eq!(bundle.digest(), Digest::of(bytes), "one encoding");
    assert_eq!(bundle.digest(), planned.plans[0].evidence, "the plan names it");
    let again = bundle.replay();
    assert_eq!(again.plans[0].to_bytes(), planned.plans[0].to_bytes());
    assert_eq!(again, planned);
}

#[test]
fn a_cycle_without_a_plan_needs_no_bundle() {
    assert_eq!(plan(&snapshot(&backlog()), &[]).bundle, None);
}

#[test]
fn no_changed_byte_of_a_bundle_gives_a_plan_that_names_the_certified_evidence() {
    let planned = planned();
    let bytes = planned.bundle.as_deref().expect("it planned");
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        if let Ok(bundle) = EvidenceBundle::from_bytes(&changed) {
            assert_ne!(bundle.digest(), planned.plans[0].evidence, "byte {at}");
            assert!(bundle.replay().plans.iter().all(|plan| plan.evidence == bundle.digest()), "byte {at}");
        }
    }
}

#[test]
fn what_is_no_bundle_is_refused_with_the_reason() {
    let planned = planned();
    let bytes = planned.bundle.as_deref().expect("it planned");
    let cut = EvidenceBundle::from_bytes(&bytes[..bytes.len() - 1]);
    assert!(matches!(cut, Err(BundleError::Malformed(_))), "{cut:?}");
    let longer = EvidenceBundle::from_bytes(&[bytes, &[0]].concat());
    assert!(matches!(longer, Err(BundleError::Malformed(_))), "{longer:?}");
    let got = MAX_BUNDLE_BYTES + 1;
    assert_eq!(EvidenceBundle::from_bytes(&vec![0; got]), Err(BundleError::TooLong { got }));
    let twice: Vec<Policy> = vec![policy("same", "pool", Change::AddSlots(3)); 2];
    let genesis = genesis(vec![target("pool", POOL)], twice);
    let unsound = EvidenceBundle::encode(&snapshot(&genesis), &[]);
    assert!(matches!(EvidenceBundle::from_bytes(&unsound), Err(BundleError::Genesis(_))));
}
