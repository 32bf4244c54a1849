//! Tokens: who may ask for what over HTTP. A token is a secret that the server knows only by its hash; it has a
//! name, scopes and perhaps an end.
//!
//! They are one replica's own affair and no part of the agreement: what a token lets in is verified like
//! everything else, and a token signs nothing. Invariant: without a listed token that is valid now and has a
//! fitting scope, nothing is reached but the two questions of supervisors.

mod file;
mod guard;
mod list;
mod secret;

pub use file::{ListFileError, add_token, read_tokens, revoke_token};
pub use guard::{Denial, Guard, GuardCounters};
pub use list::{ListedToken, Scope, TokenName, TokenNameError, Tokens};
pub use secret::{NoRandomness, Token};
