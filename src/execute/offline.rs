//! Verifying documents without a cluster: a root that was handed over, a plan, and perhaps the head that
//! names it. It reads no clock, so whether a plan's time has come is not judged here.
//!
//! Invariant: what passes here is what an agent's rules 1 and 7 would pass, but for time.

use super::agent::{entry_of, keeps_limits, times_in_order};
use crate::{
    knowledge::{
        certified::{CertificateError, Certified},
        head::Head,
        plan::Plan,
        root::{RootError, VerifiedRoot},
    },
    types::TargetId,
};

/// Documents that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedDocuments {
    /// The root.
    pub root: VerifiedRoot,
    /// The plan.
    pub plan: Certified<Plan>,
    /// The head that names it.
    pub head: Option<Certified<Head>>,
}

/// Why documents are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentsRefusal {
    /// The root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The plan.
    #[error("plan: {0}")]
    Plan(CertificateError),
    /// The plan contradicts itself or the head.
    #[error("plan: {0}")]
    PlanFields(&'static str),
    /// The plan breaks the limits it carries.
    #[error("plan: it breaks the limits it carries")]
    Limits,
    /// The head.
    #[error("head: {0}")]
    Head(CertificateError),
    /// The head is about other targets.
    #[error("head: it does not name target {0} exactly once")]
    NotNamed(TargetId),
    /// The head names another plan.
    #[error("head: it names another plan for target {0}")]
    OtherPlan(TargetId),
}

/// Verifies envelopes' JSON against each other, from the root down.
///
/// # Errors
/// [`DocumentsRefusal`] says which document is refused and why.
pub fn verify_documents(
    root: &[u8],
    plan: &[u8],
    head: Option<&[u8]>,
) -> Result<VerifiedDocuments, DocumentsRefusal> {
    let root = VerifiedRoot::first(root)?;
    let plan = Certified::<Plan>::verify(plan, root.committee()).map_err(DocumentsRefusal::Plan)?;
    let document = plan.document();
    times_in_order(document).map_err(DocumentsRefusal::PlanFields)?;
    if !keeps_limits(document) {
        return Err(DocumentsRefusal::Limits);
    }
    let head = head
        .map(|head| Certified::<Head>::verify(head, root.committee()))
        .transpose()
        .map_err(DocumentsRefusal::Head)?;
    if let Some(head) = &head {
        let target = &document.target;
        let entry =
            entry_of(head.document(), target).ok_or_else(|| DocumentsRefusal::NotNamed(target.clone()))?;
        if entry.seq != document.seq || entry.plan != plan.digest() {
            return Err(DocumentsRefusal::OtherPlan(target.clone()));
        }
    }
    Ok(VerifiedDocuments { root, plan, head })
}

#[cfg(test)]
mod tests {
    use super::{DocumentsRefusal, verify_documents};
    use crate::knowledge::{
        fixtures::{certified_head, certified_plan, head, head_of, plan, replica_keys, seal, verified_root},
        head::{Head, Mode},
        plan::{DesiredState, PLAN_TYPE, Plan},
    };

    fn verdict(plan: &Plan, head: Option<&Head>) -> Result<usize, DocumentsRefusal> {
        let (root, head) = (verified_root().envelope().to_json(), head.map(certified_head));
        let head = head.map(|head| head.envelope().to_json());
        verify_documents(&root, &certified_plan(plan).envelope().to_json(), head.as_deref())
            .map(|verified| verified.plan.signers().len())
    }

    #[test]
    fn documents_that_belong_together_pass_whatever_the_mode() {
        assert_eq!(verdict(&plan(), None), Ok(3));
        for mode in [Mode::Act, Mode::Hold, Mode::Revoked] {
            assert_eq!(verdict(&plan(), Some(&head(7, mode))), Ok(3));
        }
    }

    #[test]
    fn documents_that_contradict_each_other_are_refused() {
        let newer = Plan { desired: DesiredState::Slots { slots: 5 }, ..plan() };
        let other = head_of(7, Mode::Act, &newer);
        assert!(matches!(verdict(&plan(), Some(&other)), Err(DocumentsRefusal::OtherPlan(_))));
        let empty = Head { targets: Vec::new(), ..head(7, Mode::Act) };
        assert!(matches!(verdict(&plan(), Some(&empty)), Err(DocumentsRefusal::NotNamed(_))));
        let greedy = Plan { desired: DesiredState::Slots { slots: 13 }, ..plan() };
        assert_eq!(verdict(&greedy, None), Err(DocumentsRefusal::Limits));
        let backwards = Plan { expires_at: crate::types::UnixMillis::ZERO, ..plan() };
        assert!(matches!(verdict(&backwards, None), Err(DocumentsRefusal::PlanFields(_))));
    }

    #[test]
    fn too_few_signatures_are_refused() {
        let root = verified_root().envelope().to_json();
        let unsigned = seal(PLAN_TYPE, plan().to_bytes(), &replica_keys()[..2]);
        assert!(matches!(verify_documents(&root, &unsigned, None), Err(DocumentsRefusal::Plan(_))));
    }
}
