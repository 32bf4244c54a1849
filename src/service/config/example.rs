//! The examples that `quorate config example` prints: every key, its default and the reason for it. Invariant
//! (tested): each example is a valid file, and what it states as defaults are the defaults.

/// A policy file.
pub const POLICY_EXAMPLE: &str = include_str!("policy.example.toml");

/// A replica file.
pub const REPLICA_EXAMPLE: &str = include_str!("replica.example.toml");
