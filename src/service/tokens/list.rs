//! The tokens that a server knows, and what each may do: the pure part.
//!
//! It reads no file and no clock. Invariant: how long a look-up takes depends on how many tokens are listed,
//! never on how much of one was guessed.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::{guard::Denial, secret::digest_of};
use crate::types::{Digest, UnixMillis};

/// How many tokens a list holds; each look-up compares with all of them.
pub(super) const MAX_TOKENS: usize = 1_000;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Posting telemetry: engines, collectors, the relay.
    Ingest,
    /// Fetching heads, plans and roots, posting receipts: agents.
    Agent,
    /// Posting operators' signed requests, and reading everything: people who operate the cluster.
    Operator,
    /// Reading status, metrics, heads, plans and roots: dashboards.
    Read,
}

impl Scope {
    /// Its name in files, flags and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::Read => "read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token's name, for people: who holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenName(String);

/// A name that no token can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name: 1 to 64 letters, digits, dots, dashes and underscores")]
pub struct TokenNameError(String);

impl FromStr for TokenName {
    type Err = TokenNameError;

    fn from_str(text: &str) -> Result<Self, TokenNameError> {
        let allowed = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if (1..=64).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenNameError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for TokenName {
    type Error = TokenNameError;

    fn try_from(text: String) -> Result<Self, TokenNameError> {
        text.parse()
    }
}

impl From<TokenName> for String {
    fn from(name: TokenName) -> Self {
        name.0
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token as a server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedToken {
    /// Who holds it.
    pub name: TokenName,
    /// What it is for.
    pub scopes: BTreeSet<Scope>,
    /// SHA-256 of its text.
    pub sha256: Digest,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: UnixMillis,
    /// From when on it lets nobody in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<UnixMillis>,
}

impl ListedToken {
    /// Whether its time is over.
    #[must_use]
    pub fn has_expired(&self, now: UnixMillis) -> bool {
        self.expires_ms.is_some_and(|end| now >= end)
    }
}

/// All tokens that a server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(pub(super) Vec<ListedToken>);

impl Tokens {
    /// The tokens, oldest first.
    #[must_use]
    pub fn listed(&self) -> &[ListedToken] {
        &self.0
    }

    /// Whether the text is a token that is valid now and has one of these scopes.
    ///
    /// # Errors
    /// [`Denial`] says why not.
    pub fn admit(&self, text: &str, scopes: &[Scope], now: UnixMillis) -> Result<(), Denial> {
        let digest = digest_of(text);
        let (mut found, mut place) = (Choice::from(0), 0);
        for (at, token) in self.0.iter().enumerate() {
            let equal = token.sha256.as_bytes().ct_eq(digest.as_bytes());
            // The list's bound fits.
            place = u32::conditional_select(&place, &u32::try_from(at).unwrap_or(u32::MAX), equal);
            found |= equal;
        }
        let known = bool::from(found).then(|| self.0.get(place as usize)).flatten();
        match known {
            None => Err(Denial::Unknown),
            Some(token) if token.has_expired(now) => Err(Denial::Expired),
            Some(token) if scopes.iter().any(|scope| token.scopes.contains(scope)) => Ok(()),
            Some(_) => Err(Denial::WrongScope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ListedToken, Scope, TokenName, Tokens, digest_of};
    use crate::{service::tokens::Denial, types::UnixMillis};

    fn token(text: &str, scopes: &[Scope], expires: Option<u64>) -> ListedToken {
        ListedToken {
            name: text.parse().expect("a valid name"),
            scopes: scopes.iter().copied().collect(),
            sha256: digest_of(text),
            created_ms: UnixMillis::new(0),
            expires_ms: expires.map(UnixMillis::new),
        }
    }

    type Row = (&'static str, &'static [Scope], u64, Result<(), Denial>);

    #[test]
    fn a_token_lets_in_where_it_has_the_scope_and_while_it_is_valid() {
        let tokens = Tokens(vec![
            token("engine", &[Scope::Ingest], None),
            token("both", &[Scope::Agent, Scope::Read], Some(100)),
        ]);
        let rows: [Row; 9] = [
            ("engine", &[Scope::Ingest], 0, Ok(())),
            ("engine", &[Scope::Agent, Scope::Operator], 0, Err(Denial::WrongScope)),
            ("engine", &[], 0, Err(Denial::WrongScope)),
            ("both", &[Scope::Operator, Scope::Read], 99, Ok(())),
            ("both", &[Scope::Agent], 99, Ok(())),
            ("both", &[Scope::Agent], 100, Err(Denial::Expired)),
            ("both", &[Scope::Ingest], 100, Err(Denial::Expired)),
            ("Engine", &[Scope::Ingest], 0, Err(Denial::Unknown)),
            ("", &[Scope::Ingest], 0, Err(Denial::Unknown)),
        ];
        for (text, scopes, now, expected) in rows {
            assert_eq!(tokens.admit(text, scopes, UnixMillis::new(now)), expected, "{text} {scopes:?} {now}");
        }
        assert_eq!(Tokens::default().admit("x", &[Scope::Read], UnixMillis::ZERO), Err(Denial::Unknown));
    }

    #[test]
    fn names_are_short_and_plain() {
        for (text, good) in
            [("airflow-1.prod_eu", true), ("", false), ("a b", false), ("a\n", false), ("\u{e9}", false)]
        {
            assert_eq!(text.parse::<TokenName>().is_ok(), good, "{text:?}");
        }
        assert!("x".repeat(64).parse::<TokenName>().is_ok());
        assert!("x".repeat(65).parse::<TokenName>().is_err());
    }
}
