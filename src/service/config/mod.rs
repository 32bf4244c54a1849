//! Configuration: TOML in, checked types out.
//!
//! Two kinds of files are read. The *policy file* says what all replicas must hold equally: times, targets,
//! policies; it becomes the genesis. The *replica file* says what is one replica's own: keys and
//! addresses. Nothing is started here, and nothing but these files and the secrets they name is read. Invariant:
//! a value of one of these types has passed every check that can be made without starting anything.

mod check;
mod error;
mod example;
mod policy_file;
mod policy_text;
mod replica;
mod scale;
mod values;

pub use check::{Checked, check_file};
pub use error::{ConfigError, Place};
pub(in crate::service) use error::{Source, nearest};
pub use example::{POLICY_EXAMPLE, REPLICA_EXAMPLE};
pub use policy_file::{Completion, IncompleteTarget, PolicyFile};
pub use policy_text::policy_text;
pub use replica::{DatabaseUrl, LogFormat, ReplicaConfig, ReplicaFlags};
pub use scale::{Speed, SpeedError, scaled};
pub(in crate::service) use values::SpanText;
pub use values::parse_span;
