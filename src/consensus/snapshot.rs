//! Snapshots: an application's state as bytes in chunks, each of which is proven alone against one root.
//!
//! It knows nothing of what the bytes mean. Invariant: a [`SnapshotId`] names chunks and bytes within
//! [`super::limits`], and a [`ProvenChunk`] that is taken is the certified chunk of that place.

use borsh::{BorshDeserialize, BorshSerialize, io};
use std::sync::Arc;

use super::limits::{MAX_SNAPSHOT_BYTES, MAX_SNAPSHOT_CHUNKS, SNAPSHOT_CHUNK_BYTES};
use crate::types::{Digest, InclusionProof, MerkleTree, leaf_hash};

/// What identifies a snapshot: it is signed in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize)]
pub struct SnapshotId {
    root: Digest,
    chunks: u32,
    bytes: u64,
}

impl SnapshotId {
    /// The Merkle tree hash over the chunks (RFC 9162, section 2.1.1).
    #[must_use]
    pub const fn root(&self) -> Digest {
        self.root
    }

    /// How many chunks there are.
    #[must_use]
    pub const fn chunks(&self) -> u32 {
        self.chunks
    }

    /// How many bytes all chunks have together.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl BorshDeserialize for SnapshotId {
    /// Refuses more chunks or bytes than a snapshot may have.
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let (root, chunks, bytes) = BorshDeserialize::deserialize_reader(reader)?;
        if chunks > MAX_SNAPSHOT_CHUNKS || bytes > MAX_SNAPSHOT_BYTES {
            let error = format!("a snapshot of {chunks} chunks and {bytes} bytes is larger than any may be");
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(Self { root, chunks, bytes })
    }
}

/// A state that is larger than any snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a state of {bytes} bytes in {chunks} chunks is larger than a snapshot may be: {MAX_SNAPSHOT_BYTES} bytes in {MAX_SNAPSHOT_CHUNKS} chunks"
)]
pub struct SnapshotTooLarge {
    chunks: usize,
    bytes: u64,
}

/// An application's state in chunks. A copy shares them.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    chunks: Vec<Arc<[u8]>>,
    id: SnapshotId,
}

impl Snapshot {
    /// The snapshot of a state's canonical bytes, cut into chunks of [`SNAPSHOT_CHUNK_BYTES`].
    ///
    /// # Errors
    /// [`SnapshotTooLarge`].
    pub fn of(bytes: &[u8]) -> Result<Self, SnapshotTooLarge> {
        Self::cut(bytes, SNAPSHOT_CHUNK_BYTES)
    }

    /// As [`Self::of`], with chunks of another size, which all replicas must share.
    ///
    /// # Errors
    /// [`SnapshotTooLarge`].
    pub fn cut(bytes: &[u8], chunk_bytes: usize) -> Result<Self, SnapshotTooLarge> {
        Self::of_chunks(bytes.chunks(chunk_bytes.clamp(1, SNAPSHOT_CHUNK_BYTES)).map(Arc::from).collect())
    }

    /// The snapshot of chunks that were cut before.
    ///
    /// # Errors
    /// [`SnapshotTooLarge`].
    pub fn of_chunks(chunks: Vec<Arc<[u8]>>) -> Result<Self, SnapshotTooLarge> {
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let too_large = SnapshotTooLarge { chunks: chunks.len(), bytes };
        let count = u32::try_from(chunks.len()).map_err(|_| too_large)?;
        if count > MAX_SNAPSHOT_CHUNKS || bytes > MAX_SNAPSHOT_BYTES {
            return Err(too_large);
        }
        let mut tree = MerkleTree::default();
        chunks.iter().for_each(|chunk| tree.append(chunk));
        Ok(Self { chunks, id: SnapshotId { root: tree.root(), chunks: count, bytes } })
    }

    /// What identifies it.
    #[must_use]
    pub const fn id(&self) -> SnapshotId {
        self.id
    }

    /// Its chunks, in order.
    #[must_use]
    pub fn chunks(&self) -> &[Arc<[u8]>] {
        &self.chunks
    }

    /// The state's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.chunks.concat()
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Snapshot").field(&self.id).finish()
    }
}

/// A chunk on its way, with the proof of its place.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct ProvenChunk {
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// That it stands at its place under the snapshot's root.
    pub proof: InclusionProof,
}

impl ProvenChunk {
    /// Whether this is the chunk of that place of the snapshot.
    #[must_use]
    pub fn is_chunk_of(&self, snapshot: &SnapshotId, place: u32) -> bool {
        let (place, chunks) = (u64::from(place), u64::from(snapshot.chunks));
        self.proof.proves(leaf_hash(&self.bytes), place, chunks, snapshot.root)
    }
}

impl BorshDeserialize for ProvenChunk {
    /// Refuses more bytes than a chunk may have.
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let bytes = Vec::<u8>::deserialize_reader(reader)?;
        if bytes.len() > SNAPSHOT_CHUNK_BYTES {
            let error =
                format!("a chunk of {} bytes, where {SNAPSHOT_CHUNK_BYTES} are the most", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(Self { bytes: bytes.into(), proof: InclusionProof::deserialize_reader(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, ProvenChunk, Snapshot, SnapshotId};
    use crate::{
        consensus::limits::{MAX_SNAPSHOT_BYTES, MAX_SNAPSHOT_CHUNKS, SNAPSHOT_CHUNK_BYTES},
        types::{Digest, InclusionProof, leaf_hash},
    };

    #[test]
    fn a_state_is_cut_into_chunks_and_put_together_again() {
        for bytes in [0, 1, 99, 100, 101, 1_000] {
            let state: Vec<u8> =
                (0..bytes).map(|number| u8::try_from(number % 251).expect("small")).collect();
            let snapshot = Snapshot::cut(&state, 100).expect("small");
            assert_eq!(snapshot.to_bytes(), state);
            assert_eq!(snapshot.id().chunks() as usize, state.len().div_ceil(100));
            assert_eq!(snapshot.id().bytes(), state.len() as u64);
            let again = Snapshot::of_chunks(snapshot.chunks().to_vec()).expect("small");
            assert_eq!(again.id(), snapshot.id());
        }
        let whole = Snapshot::of(&vec![7; SNAPSHOT_CHUNK_BYTES + 1]).expect("small");
        assert_eq!(whole.id().chunks(), 2);
    }

    #[test]
    fn a_chunk_is_taken_at_its_place_of_its_snapshot_only() {
        let snapshot = Snapshot::cut(&[3; 450], 100).expect("small");
        let leaves: Vec<Digest> = snapshot.chunks().iter().map(|chunk| leaf_hash(chunk)).collect();
        let proof = InclusionProof::of(&leaves, 4).expect("inside");
        let chunk = ProvenChunk { bytes: Arc::clone(&snapshot.chunks()[4]), proof };
        assert!(chunk.is_chunk_of(&snapshot.id(), 4));
        assert!(!chunk.is_chunk_of(&snapshot.id(), 3));
        assert!(!chunk.is_chunk_of(&snapshot.id(), 5));
        let other = ProvenChunk { bytes: Arc::clone(&snapshot.chunks()[0]), ..chunk };
        assert!(!other.is_chunk_of(&snapshot.id(), 4));
    }

    #[test]
    fn an_identity_beyond_the_limits_and_a_chunk_beyond_its_bytes_are_not_read() {
        let read = |chunks: u32, bytes: u64| {
            let encoded = borsh::to_vec(&(Digest::ZERO, chunks, bytes)).expect("in memory");
            borsh::from_slice::<SnapshotId>(&encoded)
        };
        assert!(read(MAX_SNAPSHOT_CHUNKS, MAX_SNAPSHOT_BYTES).is_ok());
        assert!(read(MAX_SNAPSHOT_CHUNKS + 1, 1).is_err());
        assert!(read(1, MAX_SNAPSHOT_BYTES + 1).is_err());
        let proof = InclusionProof::of(&[Digest::ZERO], 0).expect("one leaf");
        for (bytes, is_read) in [(SNAPSHOT_CHUNK_BYTES, true), (SNAPSHOT_CHUNK_BYTES + 1, false)] {
            let chunk = ProvenChunk { bytes: vec![0; bytes].into(), proof: proof.clone() };
            let encoded = borsh::to_vec(&chunk).expect("in memory");
            assert_eq!(borsh::from_slice::<ProvenChunk>(&encoded).is_ok(), is_read, "{bytes} bytes");
        }
    }
}
