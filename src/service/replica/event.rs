//! What a replica tells as it happens: one line an event, for people who watch and for programs.
//!
//! It is an account, not an interface of the loop: nothing is decided from it, and an event may be missed when
//! nobody reads fast enough.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::{
    consensus::certify::{Subject, SubjectKind},
    cycle::Alarm,
    knowledge::{
        change::{ClosedWindow, Effect},
        evidence::{EvidenceKind, VerifiedEvidence},
        finding::Finding,
        operator_request::VerifiedOperatorRequest,
        plan::{DesiredState, Plan},
        receipt::{Outcome, Receipt},
        snapshot::Finality,
    },
    types::{Cycle, Digest, Height, TargetId, UnixMillis, WindowIndex},
};

/// Something that happened at a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ReplicaEvent {
    /// It takes part.
    Ready {
        /// The replica.
        replica: String,
        /// Where its API and its door for telemetry listen, as a URL.
        http: String,
        /// The newest committed height, read back from its journal.
        height: Height,
    },
    /// A window is final.
    WindowFinal {
        /// The replica.
        replica: String,
        /// The control cycle.
        cycle: Cycle,
        /// The window.
        window: WindowIndex,
        /// Its close.
        close_ms: UnixMillis,
        /// Agreed time of its closing.
        agreed_ms: UnixMillis,
        /// Whether a quorum's reports were there.
        confirmed: bool,
        /// How many reports were logged.
        reports: usize,
        /// How many series they hold together.
        series: usize,
    },
    /// Analysis saw something.
    Found {
        /// The replica.
        replica: String,
        /// The control cycle.
        cycle: Cycle,
        /// The policy; absent for findings about the loop itself.
        policy: Option<String>,
        /// The symptom.
        symptom: String,
        /// What was seen: `low..high`, or one number when they are equal.
        observed: Option<String>,
        /// Against what.
        against: Option<String>,
        /// The window's close.
        close_ms: UnixMillis,
    },
    /// This replica derived a plan.
    PlanDerived {
        /// The replica.
        replica: String,
        /// The control cycle.
        cycle: Cycle,
        /// The target.
        target: TargetId,
        /// From which state.
        from: DesiredState,
        /// To which state.
        to: DesiredState,
        /// SHA-256 of the plan's body.
        digest: Digest,
    },
    /// A quorum endorsed the plan that this replica derived.
    PlanCertified {
        /// The replica.
        replica: String,
        /// The control cycle.
        cycle: Cycle,
        /// SHA-256 of the plan's body.
        digest: Digest,
        /// Whose signatures the certificate holds.
        signers: Vec<String>,
    },
    /// A plan takes effect.
    PlanLogged {
        /// The replica.
        replica: String,
        /// The control cycle.
        cycle: Cycle,
        /// The target.
        target: TargetId,
        /// SHA-256 of the plan's body.
        digest: Digest,
        /// Whose signatures the certificate holds.
        signers: Vec<String>,
        /// Milliseconds from the window's close to the logging, by this replica's clock.
        since_close_ms: u64,
    },
    /// A receipt was logged.
    ReceiptLogged {
        /// The replica.
        replica: String,
        /// The target.
        target: TargetId,
        /// The plan's sequence number.
        seq: Cycle,
        /// What became of the plan.
        outcome: Outcome,
        /// The target's state after.
        after: DesiredState,
    },
    /// The quorum judged a plan.
    EffectSettled {
        /// The replica.
        replica: String,
        /// The target.
        target: TargetId,
        /// The plan's sequence number.
        seq: Cycle,
        /// `better`, `worse` or `inconclusive`.
        effect: String,
    },
    /// An operator's request takes effect.
    OperatorRequest {
        /// The replica.
        replica: String,
        /// The operator.
        operator: String,
        /// SHA-256 of the request's body.
        digest: Digest,
        /// What was asked for, in words.
        request: String,
    },
    /// An operator's request was ordered and changed nothing.
    OperatorRequestRefused {
        /// The replica.
        replica: String,
        /// The operator.
        operator: String,
        /// SHA-256 of the request's body.
        digest: Digest,
        /// Why, in words.
        why: String,
    },
    /// A quorum certified this replica's state.
    Checkpoint {
        /// The replica.
        replica: String,
        /// The height of the block after which it is the state.
        height: Height,
        /// The state's root: equal at all replicas.
        state: Digest,
    },
    /// The replica goes on from a state that a quorum certified, which its peers gave it.
    Installed {
        /// The replica.
        replica: String,
        /// The height of the block after which it is the state.
        height: Height,
        /// The state's root.
        state: Digest,
    },
    /// A replica is proven to have broken a rule.
    Evidence {
        /// The replica that tells.
        replica: String,
        /// The replica whose key signed.
        offender: String,
        /// What it did.
        kind: EvidenceKind,
        /// What the statements are about.
        about: String,
        /// SHA-256 of the evidence.
        digest: Digest,
    },
    /// Operators should know.
    Alarm {
        /// The replica.
        replica: String,
        /// The replica that it names.
        by: String,
        /// What it is.
        detail: String,
    },
}

impl ReplicaEvent {
    /// A window became final.
    #[must_use]
    pub fn window_final(replica: &str, closed: &ClosedWindow, close_ms: UnixMillis) -> Self {
        Self::WindowFinal {
            replica: replica.to_owned(),
            cycle: closed.cycle,
            window: closed.window,
            close_ms,
            agreed_ms: closed.closed_at,
            confirmed: closed.finality == Finality::Confirmed,
            reports: closed.reporters.len(),
            series: closed.series.len(),
        }
    }

    /// Analysis saw something.
    #[must_use]
    pub fn found(replica: &str, cycle: Cycle, finding: &Finding, close_ms: UnixMillis) -> Self {
        Self::Found {
            replica: replica.to_owned(),
            cycle,
            policy: finding.policy.clone(),
            symptom: finding.symptom.as_str().to_owned(),
            observed: finding.observed.map(|seen| seen.to_string()),
            against: finding.against.map(|against| against.to_string()),
            close_ms,
        }
    }

    /// A plan was derived.
    #[must_use]
    pub fn plan_derived(replica: &str, digest: Digest, plan: &Plan) -> Self {
        Self::PlanDerived {
            replica: replica.to_owned(),
            cycle: plan.seq,
            target: plan.target.clone(),
            from: plan.preconditions.state,
            to: plan.desired,
            digest,
        }
    }

    /// A receipt was logged.
    #[must_use]
    pub fn receipt_logged(replica: &str, receipt: &Receipt) -> Self {
        Self::ReceiptLogged {
            replica: replica.to_owned(),
            target: receipt.target.clone(),
            seq: receipt.seq,
            outcome: receipt.outcome.clone(),
            after: receipt.after,
        }
    }

    /// A plan was judged.
    #[must_use]
    pub fn effect_settled(replica: &str, target: &TargetId, seq: Cycle, effect: Effect) -> Self {
        let effect = match effect {
            Effect::Better => "better",
            Effect::Worse => "worse",
            Effect::Inconclusive => "inconclusive",
        };
        Self::EffectSettled {
            replica: replica.to_owned(),
            target: target.clone(),
            seq,
            effect: effect.to_owned(),
        }
    }

    /// An operator's request took effect.
    #[must_use]
    pub fn operator_request(replica: &str, request: &VerifiedOperatorRequest) -> Self {
        Self::OperatorRequest {
            replica: replica.to_owned(),
            operator: request.operator().name.clone(),
            digest: request.digest(),
            request: request.request().request.to_string(),
        }
    }

    /// Evidence was logged.
    #[must_use]
    pub fn evidence(replica: &str, evidence: &VerifiedEvidence) -> Self {
        Self::Evidence {
            replica: replica.to_owned(),
            offender: evidence.offender().to_string(),
            kind: evidence.kind(),
            about: evidence.slot().to_string(),
            digest: evidence.digest(),
        }
    }

    /// An alarm was raised.
    #[must_use]
    pub fn alarm(replica: &str, by: &str, alarm: &Alarm) -> Self {
        Self::Alarm { replica: replica.to_owned(), by: by.to_owned(), detail: describe(alarm) }
    }
}

/// An alarm in words.
#[must_use]
pub(super) fn describe(alarm: &Alarm) -> String {
    let name = |subject: &Subject| match subject.kind {
        SubjectKind::Plan => format!("plan {} for {}", subject.number, subject.of),
        SubjectKind::Head => format!("head {} of shard {}", subject.number, subject.of),
    };
    match alarm {
        Alarm::Disagreement { subject, by, theirs, ours: Some(ours) } => {
            format!("{by} endorses {theirs} as {}; derived here was {ours}", name(subject))
        }
        Alarm::Disagreement { subject, by, theirs, ours: None } => {
            format!("{by} endorses {theirs} as {}; nothing was derived here", name(subject))
        }
        Alarm::OwnContradiction { subject, endorsed, derived } => format!(
            "{} was endorsed as {endorsed} before and is {derived} now: it is not signed again",
            name(subject)
        ),
    }
}

const fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied {} => "applied",
        Outcome::Noop {} => "nothing to do",
        Outcome::Refused { .. } => "refused",
        Outcome::Reverted {} => "reverted",
        Outcome::Partial {} => "done in part",
    }
}

impl fmt::Display for ReplicaEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { replica, http, height } => {
                write!(f, "{replica} ready: {http}, height {height}")
            }
            Self::WindowFinal { replica, cycle, window, confirmed, reports, series, .. } => {
                let how = if *confirmed { "final" } else { "closed unconfirmed" };
                write!(
                    f,
                    "{replica} cycle {cycle}: window {window} {how}, {reports} reports, {series} series"
                )
            }
            Self::Found { replica, cycle, policy, symptom, observed, against, .. } => {
                let policy = policy.as_deref().unwrap_or("the loop");
                write!(f, "{replica} cycle {cycle}: finding {symptom} ({policy})")?;
                if let Some(observed) = observed {
                    write!(f, ", seen {observed}")?;
                }
                if let Some(against) = against {
                    write!(f, ", against {against}")?;
                }
                Ok(())
            }
            Self::PlanDerived { replica, cycle, target, from, to, digest } => {
                write!(f, "{replica} cycle {cycle}: derived {target} {from} -> {to}, plan {digest:?}")
            }
            Self::PlanCertified { replica, cycle, digest, signers } => {
                write!(f, "{replica} cycle {cycle}: plan {digest:?} certified by {}", signers.join(" "))
            }
            Self::PlanLogged { replica, cycle, target, digest, signers, since_close_ms } => write!(
                f,
                "{replica} cycle {cycle}: plan {digest:?} for {target} logged {since_close_ms} ms after its \
                 window, signed by {}",
                signers.join(" ")
            ),
            Self::ReceiptLogged { replica, target, seq, outcome, after } => {
                write!(
                    f,
                    "{replica} receipt for plan {seq} of {target}: {}, now {after}",
                    outcome_name(outcome)
                )
            }
            Self::EffectSettled { replica, target, seq, effect } => {
                write!(f, "{replica} plan {seq} of {target} judged {effect}")
            }
            Self::OperatorRequest { replica, operator, request, .. } => {
                write!(f, "{replica} operator {operator}: {request}")
            }
            Self::OperatorRequestRefused { replica, operator, why, .. } => {
                write!(f, "{replica} refused a request of operator {operator}: {why}")
            }
            Self::Checkpoint { replica, height, state } => {
                write!(f, "{replica} checkpoint at height {height}, state {state:?}")
            }
            Self::Installed { replica, height, state } => {
                write!(f, "{replica} goes on from height {height}, state {state:?}, which its peers gave it")
            }
            Self::Evidence { replica, offender, kind, about, .. } => {
                write!(f, "{replica} EVIDENCE against {offender}: {}, {about}", kind.as_str())
            }
            Self::Alarm { replica, by, detail } => write!(f, "{replica} ALARM about {by}: {detail}"),
        }
    }
}
