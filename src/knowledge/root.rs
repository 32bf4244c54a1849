//! The root: who the replicas and the owners of an epoch are. It is the agents' trust anchor.

use serde::{Deserialize, Serialize};

use crate::types::{
    Committee, CommitteeError, Digest, Envelope, EnvelopeError, Epoch, KeyError, PublicKey, UnixMillis,
    from_strict_json,
};

/// The DSSE type of a root.
pub const ROOT_TYPE: &str = "application/vnd.quorate.root.v1+json";

/// A replica in a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootReplica {
    /// SHA-256 of the raw public key.
    pub keyid: Digest,
    /// The raw public key, 64 lower-case hexadecimal characters.
    pub ed25519: Digest,
    /// Which owner runs it.
    pub owner: String,
}

/// An owner in a root, with the key it keeps offline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootOwner {
    /// The owner's name.
    pub name: String,
    /// The raw public key, 64 lower-case hexadecimal characters.
    pub ed25519: Digest,
}

/// A root's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// The format's version: 1.
    pub v: u32,
    /// SHA-256 of the first root's body; zeros in the first root itself, which cannot hold its own digest.
    pub cluster: Digest,
    /// The epoch that it begins.
    pub epoch: Epoch,
    /// The committee, in order.
    pub replicas: Vec<RootReplica>,
    /// The owners.
    pub owners: Vec<RootOwner>,
    /// How many owners must sign a root.
    pub owner_threshold: u32,
    /// Digest of the genesis: parameters, targets with their invariants, and first policies.
    pub genesis: Digest,
    /// Not to be trusted later.
    pub not_after: UnixMillis,
    /// SHA-256 of the previous root's body; zeros in the first.
    pub prev: Digest,
}

/// A root whose owners' signatures have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRoot {
    root: Root,
    committee: Committee,
    envelope: Envelope,
}

/// Why a root is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// The envelope is refused.
    #[error("root: {0}")]
    Envelope(#[from] EnvelopeError),
    /// The body is no root.
    #[error("root: the body is malformed: {0}")]
    Body(String),
    /// A key is not admissible.
    #[error("root: the key of {who}: {error}")]
    Key {
        /// Whose key.
        who: String,
        /// Why not.
        error: KeyError,
    },
    /// The committee is not possible.
    #[error("root: {0}")]
    Committee(#[from] CommitteeError),
}

impl VerifiedRoot {
    /// Verifies the first root of a cluster, which is trusted because it was handed over by hand: its own
    /// owners must have signed it, at least their threshold.
    ///
    /// # Errors
    /// [`RootError`] says what is wrong.
    pub fn first(envelope_bytes: &[u8]) -> Result<Self, RootError> {
        let envelope = Envelope::from_json(envelope_bytes)?;
        let root: Root = from_strict_json(envelope.unverified_body())
            .map_err(|error| RootError::Body(error.to_string()))?;
        if root.v != 1 || root.epoch != Epoch::new(1) {
            return Err(RootError::Body("a first root has v 1 and epoch 1".to_owned()));
        }
        if root.cluster != Digest::ZERO || root.prev != Digest::ZERO {
            return Err(RootError::Body("a first root has zeros as cluster and prev".to_owned()));
        }
        let owners = admit(root.owners.iter().map(|owner| (owner.name.as_str(), owner.ed25519)))?;
        let distinct: std::collections::BTreeSet<_> = owners.iter().map(PublicKey::id).collect();
        let threshold = root.owner_threshold as usize;
        if threshold == 0 || threshold > distinct.len() || distinct.len() != owners.len() {
            return Err(RootError::Body(
                "owner_threshold must be between 1 and the number of distinct owner keys".to_owned(),
            ));
        }
        envelope.verify(ROOT_TYPE, &owners, threshold)?;
        let keys = admit(root.replicas.iter().map(|replica| (replica.owner.as_str(), replica.ed25519)))?;
        for (key, replica) in keys.iter().zip(&root.replicas) {
            if key.id() != replica.keyid {
                return Err(RootError::Body(format!("keyid {} is not its key's", replica.keyid)));
            }
        }
        let cluster = Digest::of(envelope.unverified_body());
        let committee = Committee::new(cluster, root.epoch, keys)?;
        Ok(Self { root, committee, envelope })
    }

    /// The root's body.
    #[must_use]
    pub const fn root(&self) -> &Root {
        &self.root
    }

    /// The committee that the root appoints.
    #[must_use]
    pub const fn committee(&self) -> &Committee {
        &self.committee
    }

    /// The envelope it came in.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

fn admit<'a>(keys: impl Iterator<Item = (&'a str, Digest)>) -> Result<Vec<PublicKey>, RootError> {
    keys.map(|(who, key)| {
        PublicKey::from_bytes(key.as_bytes()).map_err(|error| RootError::Key { who: who.to_owned(), error })
    })
    .collect()
}
