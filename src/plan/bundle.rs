//! The evidence bundle: everything that the plans of one control cycle were derived from, as the bytes whose SHA-256
//! stands in those plans as `evidence`.
//!
//! From it anyone computes the very same plan bytes, without a database, a policy file or a network: [`EvidenceBundle::replay`]
//! is the planner itself. It says nothing of why analysis found what it did, and of no plan that it was certified.
//! Invariant: what was read has the one encoding that it was read from, and its genesis is sound.
//!
//! Its bytes are the canonical (borsh) encoding of the snapshot, with its genesis, and the findings.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;

use super::planner::{Planned, plan};
use crate::knowledge::{
    finding::Finding,
    genesis::{Genesis, GenesisError},
    snapshot::{Finality, Reading, Snapshot, TargetState},
};
use crate::types::{Cycle, Digest, Epoch, ReplicaIndex, TargetId, UnixMillis, WindowIndex};

/// The longest bundle that is kept, served or read: the largest genesis, and what is known of each of its targets.
pub const MAX_BUNDLE_BYTES: usize = 4 * 1024 * 1024;

/// What one cycle's plans were derived from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceBundle {
    inputs: Inputs,
    findings: Vec<Finding>,
}

/// Why bytes are no evidence bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It is longer than any bundle.
    #[error("{got} bytes; an evidence bundle has at most {MAX_BUNDLE_BYTES}")]
    TooLong {
        /// How long it is.
        got: usize,
    },
    /// The bytes are no such encoding.
    #[error("not an evidence bundle of this version of quorate: {0}")]
    Malformed(String),
    /// The genesis in it contradicts itself: nothing was ever planned with it.
    #[error("its genesis is refused: {0}")]
    Genesis(#[from] GenesisError),
}

/// The fields of a [`Snapshot`], in their order, with the genesis itself.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Inputs {
    cluster: Digest,
    epoch: Epoch,
    cycle: Cycle,
    now: UnixMillis,
    window: WindowIndex,
    finality: Finality,
    reporters: Vec<(ReplicaIndex, bool)>,
    readings: Vec<Reading>,
    targets: BTreeMap<TargetId, TargetState>,
    stopped: BTreeMap<TargetId, Vec<String>>,
    genesis: Genesis,
}

impl EvidenceBundle {
    /// The bundle's bytes for a snapshot and the findings that count in it.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    #[must_use]
    pub(super) fn encode(snapshot: &Snapshot<'_>, findings: &[Finding]) -> Vec<u8> {
        borsh::to_vec(&(snapshot, findings)).expect("writing to memory does not fail")
    }

    /// Reads a bundle. Whoever relies on it compares [`Self::digest`] with a certified plan's `evidence`.
    ///
    /// # Errors
    /// [`BundleError`] says what is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLong { got: bytes.len() });
        }
        let malformed = |error: std::io::Error| BundleError::Malformed(error.to_string());
        let (inputs, findings): (Inputs, Vec<Finding>) = borsh::from_slice(bytes).map_err(malformed)?;
        inputs.genesis.check()?;
        Ok(Self { inputs, findings })
    }

    /// SHA-256 of its bytes: what its plans have as `evidence`.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_value(&(&self.inputs, &self.findings))
    }

    /// What the cycle read.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_> {
        let inputs = &self.inputs;
        Snapshot {
            cluster: inputs.cluster,
            epoch: inputs.epoch,
            cycle: inputs.cycle,
            now: inputs.now,
            window: inputs.window,
            finality: inputs.finality,
            reporters: inputs.reporters.clone(),
            readings: inputs.readings.clone(),
            targets: inputs.targets.clone(),
            stopped: inputs.stopped.clone(),
            genesis: &inputs.genesis,
        }
    }

    /// What analysis found in it.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The cycle's plans with the account of every policy, as each replica derived them.
    #[must_use]
    pub fn replay(&self) -> Planned {
        plan(&self.snapshot(), &self.findings)
    }
}

#[cfg(test)]
mod tests;
