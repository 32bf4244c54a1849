//! What a committed command changed: the fold's account, in order, for the store, the feed and the logs.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;

use super::{
    certified::Certified,
    evidence::VerifiedEvidence,
    finding::{Finding, Interval},
    fold::{EvidenceRefusal, OperatorRefusal},
    head::Head,
    observation::SeriesKey,
    operator_request::VerifiedOperatorRequest,
    plan::Plan,
    policy::Statistic,
    receipt::Receipt,
    snapshot::{Finality, Reading},
};
use crate::types::{
    Cycle, Digest, HeadNumber, KeyId, ReplicaIndex, Shard, TargetId, UnixMillis, WindowIndex,
};

/// One window after its reports were merged.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClosedWindow {
    /// Which window.
    pub window: WindowIndex,
    /// The control cycle that its closing began.
    pub cycle: Cycle,
    /// Agreed time of its closing.
    pub closed_at: UnixMillis,
    /// How it closed.
    pub finality: Finality,
    /// Whose reports were logged, and whether each was partial.
    pub reporters: Vec<(ReplicaIndex, bool)>,
    /// One reading for each of the genesis' indicators, in their order: those of the policies come first.
    pub readings: Vec<Reading>,
    /// Every series of the counted reports, each statistic merged by itself.
    pub series: BTreeMap<SeriesKey, BTreeMap<Statistic, Interval>>,
}

/// Why a `Certified` command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanRefusal {
    /// The certificate does not verify.
    NotCertified(String),
    /// The target is not in the genesis.
    UnknownTarget,
    /// The policy that it names is not in the genesis.
    UnknownPolicy,
    /// The plan's `prev` is no longer the target's newest logged plan.
    Superseded,
    /// Agreed time is past the activation limit.
    Late,
    /// The very same plan is logged already.
    Duplicate,
    /// An operator has stopped the target.
    Stopped,
    /// It was decided before the target was resumed.
    BeforeResume,
}

/// Why a report or a tick changed nothing but, perhaps, agreed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReportRefusal {
    /// The replica is not in the committee or its signature does not verify.
    BadSignature,
    /// The body is not the one that the header names, or has too many series.
    BadBody,
    /// The window is closed already, or lies too far back or ahead.
    OutsideOpenWindows,
    /// The replica reported the window before.
    Duplicate,
}

/// Why a receipt changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptRefusal {
    /// It is malformed, or its signature does not verify.
    NotVerified(String),
    /// Its key is not bound to the target.
    UnboundKey(KeyId),
    /// The target is not in the genesis.
    UnknownTarget,
    /// No such plan was logged for the target.
    UnknownPlan,
    /// It was logged before, or is too far below the newest one of its key for that to be known.
    Replayed,
}

/// Where a receipt's counter stands among those of its key that were logged before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Above all of them: it tells what the target is.
    Newest,
    /// Below the newest: it was ordered late, and tells only what was.
    Late,
}

/// What became of a logged plan's symptom, as the quorum's merged metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Effect {
    /// The symptom has ended.
    Better,
    /// The symptom is still there.
    Worse,
    /// The metrics do not say, the plan was not applied, or a newer plan came before.
    Inconclusive,
}

/// One thing that a committed command changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Agreed time moved to here.
    TimeMoved(UnixMillis),
    /// A window is final.
    WindowClosed(ClosedWindow),
    /// Windows that nobody reported were passed over: one finding, one cycle number, no cycle.
    Gap {
        /// The first of them.
        first: WindowIndex,
        /// The last of them.
        last: WindowIndex,
        /// The number that the gap took.
        cycle: Cycle,
    },
    /// Analysis saw something.
    Found {
        /// In which cycle.
        cycle: Cycle,
        /// What.
        finding: Finding,
    },
    /// A plan takes effect: certified by a quorum and ordered by consensus.
    PlanLogged(Box<Certified<Plan>>),
    /// A plan does not take effect.
    PlanRefused {
        /// SHA-256 of its body, when it could be read.
        plan: Option<Digest>,
        /// Why.
        why: PlanRefusal,
    },
    /// A head was derived, for all replicas to sign.
    HeadDerived(Box<Head>),
    /// A receipt was logged.
    ReceiptLogged {
        /// What the agent says.
        receipt: Box<Receipt>,
        /// The envelope's JSON.
        envelope: Vec<u8>,
        /// Whether it came in its turn.
        turn: Turn,
    },
    /// A receipt was refused.
    ReceiptRefused {
        /// The target it names, when it could be read.
        target: Option<TargetId>,
        /// Why.
        why: ReceiptRefusal,
    },
    /// The time by which a logged plan had to help has come.
    EffectSettled {
        /// The plan's target.
        target: TargetId,
        /// The plan's sequence number.
        seq: Cycle,
        /// SHA-256 of the plan's body.
        plan: Digest,
        /// The judgement.
        effect: Effect,
    },
    /// A report or a tick was refused.
    ReportRefused {
        /// Whose it claims to be.
        replica: ReplicaIndex,
        /// Why.
        why: ReportRefusal,
    },
    /// An operator's request takes effect.
    OperatorRequestLogged {
        /// The request.
        request: Box<VerifiedOperatorRequest>,
        /// The heads that were derived because of it; they follow this change.
        heads: Vec<(Shard, HeadNumber)>,
    },
    /// An operator's request was refused.
    OperatorRequestRefused {
        /// SHA-256 of its body and the operator's name, when it was verified.
        request: Option<(Digest, String)>,
        /// Why.
        why: OperatorRefusal,
    },
    /// A replica is proven to have broken a rule.
    EvidenceLogged(Box<VerifiedEvidence>),
    /// Evidence changed nothing.
    EvidenceRefused {
        /// Whom it is against.
        offender: ReplicaIndex,
        /// Why.
        why: EvidenceRefusal,
    },
    /// Bytes that are no command.
    Malformed,
}
