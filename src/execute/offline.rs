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
mod tests;
