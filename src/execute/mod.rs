//! Execute: what replicas serve to agents, and how an agent decides what to do with it.
//!
//! Everything here is pure: the HTTP interface, the agent's files, its network and its actuators are the
//! service's. Invariant: only a [`Certified`](crate::knowledge::certified::Certified) plan is served or acted
//! upon.

pub mod agent;
pub mod feed;
pub mod offline;
