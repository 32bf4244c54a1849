//! The words that every other module shares: identifiers, counters, agreed time, quorum arithmetic,
//! keys, signatures and the envelope in which documents leave the quorum.
//!
//! This module imports nothing of the crate. It holds no protocol and no policy, and it never reads a
//! clock, a file or a random number. Invariant: a value of one of these types is valid by construction.

mod committee;
mod digest;
mod dsse;
mod evidence;
mod ids;
mod keys;
mod merkle;
mod quantity;
mod quorum;
mod statement;
mod strict_json;
mod time;

pub use committee::{Committee, CommitteeError, MAX_REPLICAS};
pub use digest::{Digest, Hasher, ParseDigestError};
pub use dsse::{Envelope, EnvelopeError, MAX_DOCUMENT_BYTES, MAX_ENVELOPE_BYTES, Signed, pae};
pub use evidence::{Evidence, MAX_CERTIFICATES_BYTES, SignedStatement};
pub use ids::{Cycle, Epoch, HeadNumber, Height, InvalidName, ReplicaIndex, Shard, SourceId, TargetId, View};
pub use keys::{KeyError, KeyId, PublicKey, SecretKey, Signature, SignatureError};
pub use merkle::{InclusionProof, MerkleTree, ProofTree, leaf_hash};
pub use quantity::{Quantity, QuantityError};
pub use quorum::{CommitteeSize, CommitteeSizeError};
pub use statement::{Domain, Statement, StatementKind, statement_bytes};
pub use strict_json::{StrictJsonError, from_strict_json};
pub use time::{Millis, UnixMillis, WindowIndex};
