//! The knowledge base: the model that the stages of the control loop share, the fold that builds the
//! replicated state from committed commands, and the Postgres store behind it.
//!
//! The model and the fold are pure: equal logs give equal state. Only `store` touches the world, and the
//! fold never reads it.

pub mod buckets;
pub mod certified;
pub mod change;
pub mod command;
pub mod evidence;
pub mod finding;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod fold;
pub mod genesis;
pub mod head;
pub mod merge;
pub mod observation;
pub mod operator_request;
pub mod plan;
pub mod policy;
pub mod receipt;
pub mod root;
pub mod snapshot;
#[cfg(feature = "service")]
pub mod store;
