//! What the driver and its replicas say to each other: one JSON object a line, on standard input and output.
//!
//! Invariant: whoever reads a line that it does not understand ends.

use serde::{Deserialize, Serialize};

use crate::service::bench::Quantiles;

/// What the driver asks of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Link up with the replicas at these addresses, by place.
    Meet {
        /// All addresses, the own one among them.
        addresses: Vec<String>,
    },
    /// Be the client: keep so many commands under way.
    Load(Load),
    /// Tell the counters.
    Count,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Load {
    /// How many commands are under way at any time.
    pub(super) outstanding: usize,
    /// The size of each.
    pub(super) command_bytes: usize,
    /// How long before anything is measured.
    pub(super) warm_up_ms: u64,
    /// How long is measured.
    pub(super) measure_ms: u64,
}

/// What a replica says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It listens there.
    Listening {
        /// The address.
        address: String,
    },
    /// It is linked with all others.
    Linked,
    /// Measuring begins.
    Measuring,
    /// Measuring is over: how long commands took, from being handed over to being seen committed.
    Measured(Quantiles),
    /// Its counters.
    Counted(Counts),
}

/// A replica's counters since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Committed blocks.
    pub blocks: u64,
    /// Those with commands.
    pub full_blocks: u64,
    /// The commands in them.
    pub commands: u64,
    /// Flushes of the journal.
    pub syncs: u64,
}
