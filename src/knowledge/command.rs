//! What consensus orders, in the words of the control loop. Consensus itself sees two byte strings.

use borsh::{BorshDeserialize, BorshSerialize};

use super::observation::{SignedReport, SignedTick, WindowSummary};
use crate::types::Evidence;

/// A command of the control loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// One replica's report on one window.
    Report {
        /// Who reports, and its signature.
        report: SignedReport,
        /// What it saw.
        summary: WindowSummary,
    },
    /// One replica's signed time.
    Tick(SignedTick),
    /// A plan's envelope with a quorum of signatures.
    Certified {
        /// The envelope's JSON.
        envelope: Vec<u8>,
    },
    /// An agent's receipt.
    Receipt {
        /// The envelope's JSON.
        envelope: Vec<u8>,
    },
    /// What an operator asks for.
    OperatorRequest {
        /// The envelope's JSON.
        envelope: Vec<u8>,
    },
    /// What shows that a replica broke a rule.
    Evidence(Evidence),
}

/// A command as consensus carries it: a head of its own and a body that equal commands of one block share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedCommand {
    /// The submitter's part.
    pub head: Vec<u8>,
    /// The part that may be shared: a report's summary. Empty for other commands.
    pub body: Vec<u8>,
}

/// Bytes that are no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the command's {part} is malformed")]
pub struct MalformedCommand {
    part: &'static str,
}

#[derive(BorshSerialize, BorshDeserialize)]
enum CommandHead {
    Report(SignedReport),
    Tick(SignedTick),
    Certified(Vec<u8>),
    Receipt(Vec<u8>),
    OperatorRequest(Vec<u8>),
    Evidence(Evidence),
}

impl Command {
    /// The bytes that consensus carries.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    #[must_use]
    pub fn encode(self) -> EncodedCommand {
        let (head, body) = match self {
            Self::Report { report, summary } => (
                CommandHead::Report(report),
                borsh::to_vec(&summary).expect("writing to memory does not fail"),
            ),
            Self::Tick(tick) => (CommandHead::Tick(tick), Vec::new()),
            Self::Certified { envelope } => (CommandHead::Certified(envelope), Vec::new()),
            Self::Receipt { envelope } => (CommandHead::Receipt(envelope), Vec::new()),
            Self::OperatorRequest { envelope } => (CommandHead::OperatorRequest(envelope), Vec::new()),
            Self::Evidence(evidence) => (CommandHead::Evidence(evidence), Vec::new()),
        };
        EncodedCommand { head: borsh::to_vec(&head).expect("writing to memory does not fail"), body }
    }

    /// The signed report in a command's head, when it is a report; its body is not looked at.
    #[must_use]
    pub fn report_in(head: &[u8]) -> Option<SignedReport> {
        match borsh::from_slice(head) {
            Ok(CommandHead::Report(report)) => Some(report),
            Ok(
                CommandHead::Tick(_)
                | CommandHead::Certified(_)
                | CommandHead::Receipt(_)
                | CommandHead::OperatorRequest(_)
                | CommandHead::Evidence(_),
            )
            | Err(_) => None,
        }
    }

    /// The command in these bytes. Bytes that encode it in a second way are refused.
    ///
    /// # Errors
    /// [`MalformedCommand`] when the head or the body is not what [`Self::encode`] writes.
    pub fn decode(head: &[u8], body: &[u8]) -> Result<Self, MalformedCommand> {
        let malformed = |part| move |_| MalformedCommand { part };
        let head: CommandHead = borsh::from_slice(head).map_err(malformed("head"))?;
        let command = match head {
            CommandHead::Report(report) => {
                let summary = borsh::from_slice(body).map_err(malformed("body"))?;
                return Ok(Self::Report { report, summary });
            }
            CommandHead::Tick(tick) => Self::Tick(tick),
            CommandHead::Certified(envelope) => Self::Certified { envelope },
            CommandHead::Receipt(envelope) => Self::Receipt { envelope },
            CommandHead::OperatorRequest(envelope) => Self::OperatorRequest { envelope },
            CommandHead::Evidence(evidence) => Self::Evidence(evidence),
        };
        if body.is_empty() { Ok(command) } else { Err(MalformedCommand { part: "body" }) }
    }
}
