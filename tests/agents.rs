//! Agents against replicas that lie, and agents as real processes: on one target together, killed in the middle of
//! a change, and in front of a contradiction.

#[path = "support/documents.rs"]
mod fixture;
#[expect(dead_code, reason = "each file of tests uses its part of the harness")]
mod harness;

#[path = "agents/cluster.rs"]
mod cluster;
#[path = "agents/lies.rs"]
mod lies;
#[path = "agents/processes.rs"]
mod processes;
#[path = "agents/replica.rs"]
mod replica;
