//! The committee of an epoch: who the replicas are and how many of them decide.

use super::{
    digest::Digest,
    ids::{Epoch, ReplicaIndex},
    keys::{KeyId, PublicKey},
    quorum::{CommitteeSize, CommitteeSizeError},
    statement::Domain,
};

/// The most replicas a committee may have.
pub const MAX_REPLICAS: usize = CommitteeSize::MAX as usize;

/// The replicas of one epoch, in the order of the root document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committee {
    cluster: Digest,
    epoch: Epoch,
    size: CommitteeSize,
    members: Vec<PublicKey>,
}

/// Why a list of keys is no committee.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitteeError {
    /// There are too few or too many.
    #[error(transparent)]
    Size(#[from] CommitteeSizeError),
    /// One key would vote twice.
    #[error("replicas {first} and {second} have the same key")]
    DuplicateKey {
        /// The earlier place.
        first: ReplicaIndex,
        /// The later place.
        second: ReplicaIndex,
    },
}

impl Committee {
    /// A committee of these keys.
    ///
    /// # Errors
    /// [`CommitteeError`] when the size is out of bounds or a key stands twice.
    pub fn new(cluster: Digest, epoch: Epoch, members: Vec<PublicKey>) -> Result<Self, CommitteeError> {
        let size = CommitteeSize::new(members.len())?;
        let places = (0..CommitteeSize::MAX).map(ReplicaIndex::new);
        for (second, key) in places.clone().zip(&members) {
            let earlier = places.clone().zip(&members[..second.as_usize()]);
            for (first, other) in earlier {
                if key == other {
                    return Err(CommitteeError::DuplicateKey { first, second });
                }
            }
        }
        Ok(Self { cluster, epoch, size, members })
    }

    /// SHA-256 of the first root's body.
    #[must_use]
    pub const fn cluster(&self) -> Digest {
        self.cluster
    }

    /// The epoch that this committee decides in.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many replicas there are and how many decide.
    #[must_use]
    pub const fn size(&self) -> CommitteeSize {
        self.size
    }

    /// The domain of statements signed for this committee under a consensus protocol (0: none).
    #[must_use]
    pub const fn domain(&self, protocol: u8) -> Domain {
        Domain { cluster: self.cluster, epoch: self.epoch, protocol }
    }

    /// The key of a replica, or `None` when the place is outside the committee.
    #[must_use]
    pub fn key(&self, replica: ReplicaIndex) -> Option<&PublicKey> {
        self.members.get(replica.as_usize())
    }

    /// The place of a key's owner.
    #[must_use]
    pub fn place_of(&self, key: &PublicKey) -> Option<ReplicaIndex> {
        self.iter().find(|(_, member)| *member == key).map(|(place, _)| place)
    }

    /// The place of the replica with this key identifier.
    #[must_use]
    pub fn place_of_id(&self, id: KeyId) -> Option<ReplicaIndex> {
        self.iter().find(|(_, member)| member.id() == id).map(|(place, _)| place)
    }

    /// All replicas with their keys, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaIndex, &PublicKey)> {
        (0..CommitteeSize::MAX).map(ReplicaIndex::new).zip(&self.members)
    }

    /// All places, in order.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaIndex> + use<> {
        (0..CommitteeSize::MAX).map(ReplicaIndex::new).take(self.members.len())
    }
}
