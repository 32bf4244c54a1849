//! What an agent tells while it runs: a line for people, or JSON for programs.
//!
//! Invariant: nothing secret and no text from telemetry is in an event.

use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

use super::fault::FaultKind;
use crate::{
    knowledge::{plan::DesiredState, receipt::Refusal},
    types::{Cycle, Digest, HeadNumber, KeyId, TargetId},
};

/// One thing that happened to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It runs.
    Started {
        /// For which target.
        target: TargetId,
        /// How many replicas it asks.
        replicas: usize,
        /// How many of them must answer before it acts.
        needed: usize,
    },
    /// How many replicas answered has changed.
    Answers {
        /// How many did.
        answered: usize,
        /// How many must.
        needed: usize,
    },
    /// A replica's answer was wrong, or there was none. Told at the first, second, fourth, eighth time and so
    /// on, of each kind and replica.
    ReplicaFault {
        /// Which replica.
        replica: String,
        /// What kind.
        kind: FaultKind,
        /// How often in this run.
        count: u64,
        /// What was wrong this time.
        why: String,
    },
    /// What a quorum certified cannot be used.
    DocumentRefused {
        /// Why.
        why: String,
    },
    /// A plan is certified, fresh and within its limits.
    Verified {
        /// Which.
        seq: Cycle,
        /// Whose signatures it carries.
        signers: Vec<KeyId>,
        /// Out of how many replicas.
        replicas: usize,
        /// The head that names it.
        head: HeadNumber,
    },
    /// The target was told to change.
    Applied {
        /// By which plan.
        seq: Cycle,
        /// From what.
        before: DesiredState,
        /// To what.
        state: DesiredState,
    },
    /// The target was read after it was told to change.
    ReadBack {
        /// By which plan.
        seq: Cycle,
        /// What it says.
        state: DesiredState,
    },
    /// The target was as the plan wants it already.
    AlreadyThere {
        /// Which plan.
        seq: Cycle,
        /// The state.
        state: DesiredState,
    },
    /// A certified plan was not applied.
    PlanRefused {
        /// Which.
        seq: Cycle,
        /// Why.
        why: Refusal,
    },
    /// A plan was taken back.
    TakenBack {
        /// Which.
        seq: Cycle,
        /// Why.
        why: TakenBack,
        /// The target's state after.
        state: DesiredState,
    },
    /// The target could not be read or changed.
    TargetFailed {
        /// For which plan.
        seq: Cycle,
        /// What is wrong.
        error: String,
    },
    /// Enough replicas have a receipt.
    ReceiptSent {
        /// How many took it.
        replicas: usize,
    },
    /// Too few replicas took a receipt; it is sent again.
    ReceiptDelayed {
        /// How many took it.
        replicas: usize,
        /// How many must.
        needed: usize,
        /// What one of the others said.
        error: String,
    },
    /// A plan was carried out in part: what was done stays done.
    DoneInPart {
        /// Which.
        seq: Cycle,
    },
    /// The oldest receipt that waited was given up, because as many wait as are kept. The next receipts tell it too.
    ReceiptLost {
        /// How many this agent ever gave up.
        lost: u64,
    },
    /// Why nothing is applied has changed.
    Idle {
        /// Why.
        why: String,
    },
    /// The agent stops: certified documents contradict each other.
    Equivocation {
        /// Names the contradiction; a person who has looked into it gives it to `quorate agent clear`.
        contradiction: Digest,
        /// Where both documents are.
        folder: PathBuf,
    },
}

/// Why a plan was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakenBack {
    /// Heads are stale and the plan says so.
    Stale,
    /// The target landed elsewhere.
    LandedElsewhere,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { target, replicas, needed } => {
                write!(f, "agent of {target}: asking {replicas} replicas, acting once {needed} answered")
            }
            Self::Answers { answered, needed } => {
                write!(f, "{answered} replicas answer; {needed} are needed")
            }
            Self::ReplicaFault { replica, kind, count, why } => {
                write!(f, "{replica}: {kind}, {count} so far: {why}")
            }
            Self::DocumentRefused { why } => write!(f, "refused a document of the quorum: {why}"),
            Self::Verified { seq, signers, replicas, head } => {
                write!(
                    f,
                    "verified plan {seq} under head {head} ({} of {replicas} signatures:",
                    signers.len()
                )?;
                signers.iter().try_for_each(|signer| write!(f, " {signer:?}"))?;
                f.write_str(")")
            }
            Self::Applied { seq, before, state } => {
                write!(f, "applied plan {seq}: {} -> {}", before, state)
            }
            Self::ReadBack { seq: _, state } => write!(f, "read back {}", state),
            Self::AlreadyThere { seq, state } => {
                write!(f, "plan {seq} changes nothing: the target has {}", state)
            }
            Self::PlanRefused { seq, why } => write!(f, "refused plan {seq}: {}", refusal(*why)),
            Self::TakenBack { seq, why, state } => {
                let why = match why {
                    TakenBack::Stale => "heads are stale",
                    TakenBack::LandedElsewhere => "the target landed elsewhere",
                };
                write!(f, "took plan {seq} back, because {why}: the target has {}", state)
            }
            Self::TargetFailed { seq, error } => write!(f, "plan {seq}: {error}"),
            Self::ReceiptSent { replicas } => write!(f, "receipt sent to {replicas} replicas"),
            Self::ReceiptDelayed { replicas, needed, error } => {
                write!(f, "receipt taken by {replicas} replicas, {needed} are needed; trying again ({error})")
            }
            Self::DoneInPart { seq } => write!(f, "plan {seq} was done in part, and what was done stays"),
            Self::ReceiptLost { lost } => {
                write!(f, "too many receipts wait: the oldest is given up ({lost} so far)")
            }
            Self::Idle { why } => f.write_str(why),
            Self::Equivocation { contradiction, folder } => write!(
                f,
                "stopping: the quorum signed two things under one number (contradiction {contradiction}, kept in {})",
                folder.display()
            ),
        }
    }
}

const fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::Expired => "it has expired",
        Refusal::Precondition => "the target is not in the state that the plan was decided on",
        Refusal::TargetFailed => "the target could not be read or changed",
        Refusal::Limits => "it breaks the limits it carries",
        Refusal::Contradiction => "the quorum signed two things under one number",
    }
}

#[cfg(test)]
mod tests {
    use super::Event;
    use crate::{
        knowledge::plan::DesiredState,
        types::{Cycle, Digest, HeadNumber},
    };

    #[test]
    fn people_and_programs_read_the_same_event() {
        let verified = Event::Verified {
            seq: Cycle::new(37),
            signers: vec![Digest::ZERO, Digest::ZERO],
            replicas: 4,
            head: HeadNumber::new(8),
        };
        assert_eq!(
            verified.to_string(),
            "verified plan 37 under head 8 (2 of 4 signatures: 00000000.. 00000000..)"
        );
        let applied = Event::Applied {
            seq: Cycle::new(37),
            before: DesiredState::Slots { slots: 3 },
            state: DesiredState::Slots { slots: 6 },
        };
        assert_eq!(applied.to_string(), "applied plan 37: 3 slots -> 6 slots");
        let json = serde_json::to_value(&applied).expect("it has a JSON form");
        assert_eq!(json["event"], "applied");
        assert_eq!(json["state"]["slots"], 6);
    }
}
