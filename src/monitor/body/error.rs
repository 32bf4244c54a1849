//! Why a body is refused whole, in words for whoever sent it.

/// Why a body is refused whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The content type is none that its path takes.
    #[error("content type {given:?} is not supported; send {allowed}")]
    UnsupportedType {
        /// What was named, as far as it is short.
        given: String,
        /// What may be named.
        allowed: &'static str,
    },
    /// The content encoding is not supported.
    #[error("content encoding {given:?} is not supported; send {allowed}")]
    UnsupportedEncoding {
        /// What was named, as far as it is short.
        given: String,
        /// What may be named.
        allowed: &'static str,
    },
    /// It is larger than a body may be.
    #[error("the body has more than {most} bytes{}", if *decompressed { " after decompression" } else { "" })]
    TooLarge {
        /// The limit.
        most: usize,
        /// Whether it is the limit after decompression.
        decompressed: bool,
    },
    /// It is not what its content encoding says.
    #[error("the body is not valid {encoding}: {why}")]
    Compression {
        /// The encoding that was named.
        encoding: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It is not what its path and its content type say.
    #[error("the body is no {expected}: {why}")]
    Malformed {
        /// What is expected.
        expected: &'static str,
        /// What is wrong, and where.
        why: String,
    },
}

impl DecodeError {
    /// The content type that was named is none of those allowed.
    pub(in crate::monitor) fn unsupported_type(given: &str, allowed: &'static str) -> Self {
        Self::UnsupportedType { given: shortened(given), allowed }
    }

    /// The content encoding that was named is none of those allowed.
    pub(in crate::monitor) fn unsupported_encoding(given: &str, allowed: &'static str) -> Self {
        Self::UnsupportedEncoding { given: shortened(given), allowed }
    }
}

/// The beginning of what a client wrote: enough to know it by.
fn shortened(given: &str) -> String {
    given.chars().take(80).collect()
}
