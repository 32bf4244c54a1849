//! A token: 256 random bits, written so that people and scanners know it for one.
//!
//! Invariant: it never prints itself.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::types::Digest;

/// So that a token that was pasted somewhere is found by whoever looks for such.
const PREFIX: &str = "quorate_";

/// A secret that lets its bearer in.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The system gives no random numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers: {0}")]
pub struct NoRandomness(String);

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| NoRandomness(error.to_string()))?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// As it is shown once and sent with requests.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// By what a server knows it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest_of(&self.0)
    }
}

/// SHA-256 of a token's text. Slow hashes with salts protect passwords, which people choose and which can be
/// guessed; 256 random bits cannot, so that one fast hash hides them as well, and costs a flood of requests with
/// wrong tokens nothing.
pub(super) fn digest_of(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn tokens_differ_do_not_print_themselves_and_fit_into_a_header() {
        let (one, other) = (Token::generate().expect("random"), Token::generate().expect("random"));
        assert_ne!(one, other);
        assert_ne!(one.digest(), other.digest());
        assert_eq!(format!("{one:?}"), "Token(..)");
        let text = one.reveal();
        assert_eq!(text.len(), "quorate_".len() + 43);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
    }
}
