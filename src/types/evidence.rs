//! Evidence as it travels: the exact bytes that a replica signed, which together show that it broke a rule.
//!
//! It carries and judges nothing: whoever holds it verifies it. Invariant: what a receiver needs for its judgement
//! is covered by the signatures inside; there is no claim beside them.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{ids::ReplicaIndex, keys::Signature};

/// Bytes of [`super::statement_bytes`] with a signature over exactly them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct SignedStatement {
    /// What was signed.
    pub bytes: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

/// The most bytes that a proposal's certificates in evidence may have: in a committee of a hundred some 22,000.
pub const MAX_CERTIFICATES_BYTES: usize = 48 * 1024;

/// What shows that a replica broke a rule. Nothing in it is trusted until it was verified.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Evidence {
    /// Two statements of which an honest replica signs one.
    Contradiction {
        /// Who signed both.
        offender: ReplicaIndex,
        /// The statements, in the order of their bytes.
        statements: [SignedStatement; 2],
    },
    /// A proposal whose signature covers a certificate that does not verify.
    InvalidCertificate {
        /// Who signed it.
        offender: ReplicaIndex,
        /// The proposal's statement, which holds the certificates' digest.
        proposal: SignedStatement,
        /// The certificates: the justification and, if there is one, the timeout certificate.
        certificates: Vec<u8>,
    },
}

impl Evidence {
    /// The evidence of two statements, in whatever order they were seen.
    #[must_use]
    pub fn contradiction(offender: ReplicaIndex, one: SignedStatement, other: SignedStatement) -> Self {
        let statements = if one <= other { [one, other] } else { [other, one] };
        Self::Contradiction { offender, statements }
    }

    /// Whom it is against.
    #[must_use]
    pub const fn offender(&self) -> ReplicaIndex {
        match self {
            Self::Contradiction { offender, .. } | Self::InvalidCertificate { offender, .. } => *offender,
        }
    }
}
