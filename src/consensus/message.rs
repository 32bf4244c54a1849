//! What replicas say to each other. Decoding gives unverified values; `verify` checks a message's own
//! signature, and the core checks the certificates inside.

use borsh::{BorshDeserialize, BorshSerialize, io};
use std::sync::Arc;

use super::limits::{MAX_FETCHED_BLOCKS, MAX_GOSSIP_COMMANDS, MAX_SENT_CHUNKS};
use super::{
    block::{Block, BlockId, Command, bounded_list},
    certificate::{
        CertificateError, QuorumCertificate, TimeoutCertificate, Verified, check_signature,
        proposal_statement, timeout_statement, vote_statement,
    },
    checkpoint::{CheckpointVote, StableCheckpoint},
    snapshot::ProvenChunk,
};
use crate::types::{Committee, Digest, Height, ReplicaIndex, Signature, View};

/// Anything that one replica sends another for consensus.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// A leader's block for its view.
    Proposal(Proposal),
    /// A vote for a block.
    Vote(Vote),
    /// A view that ended without a certificate, as one replica saw it.
    Timeout(Timeout),
    /// The newest certificates, for a peer that is behind.
    Certificates(Certificates),
    /// Commands that wait to be ordered.
    Commands(#[borsh(deserialize_with = "gossiped_commands")] Vec<Command>),
    /// Asks for blocks below a certified one.
    BlockRequest(BlockRequest),
    /// Answers with a certified chain.
    BlockResponse(BlockResponse),
    /// A statement about the state after a block (rule K1).
    CheckpointVote(CheckpointVote),
    /// A certified checkpoint (rule K2).
    Checkpoint(StableCheckpoint),
    /// What was asked for is gone (rule K4).
    Gone(Gone),
    /// Asks for chunks of a checkpoint's snapshot (rule K4).
    ChunkRequest(ChunkRequest),
    /// Answers with proven chunks.
    Chunks(Chunks),
    /// Some of the peer's commands are committed, by their digests (rule I3).
    Committed(#[borsh(deserialize_with = "committed_commands")] Vec<Digest>),
}

/// A leader's block (rule B2). The signer is the block's proposer.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// The block; its view is the proposal's.
    pub block: Arc<Block>,
    /// The timeout certificate of the view before, when the justification is older.
    pub entry: Option<TimeoutCertificate>,
    /// The proposer's signature over view, block and the digest of the certificates' bytes.
    pub signature: Signature,
}

impl Proposal {
    /// Checks the proposer's signature; the certificates inside are not checked here.
    ///
    /// # Errors
    /// [`CertificateError`] when it is no member's.
    pub fn verify(self, committee: &Committee) -> Result<Verified<Self>, CertificateError> {
        let certificates = self.certificates_digest();
        let statement = proposal_statement(committee, self.block.view(), self.block.id(), certificates);
        check_signature(committee, self.block.proposer(), &statement, &self.signature)?;
        Ok(Verified::vouch(self))
    }

    /// SHA-256 of [`Self::certificates_bytes`], which the signature covers.
    #[must_use]
    pub fn certificates_digest(&self) -> Digest {
        Digest::of(&self.certificates_bytes())
    }

    /// The canonical bytes of the certificates: the justification and the entry.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    #[must_use]
    pub fn certificates_bytes(&self) -> Vec<u8> {
        certificates_bytes(self.block.justify(), self.entry.as_ref())
    }
}

/// The canonical bytes of a proposal's certificates.
pub(super) fn certificates_bytes(justify: &QuorumCertificate, entry: Option<&TimeoutCertificate>) -> Vec<u8> {
    borsh::to_vec(&(justify, entry)).expect("writing to memory does not fail")
}

/// A vote (rule V1).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// In which view.
    pub view: View,
    /// The block's height.
    pub height: Height,
    /// The block.
    pub block: BlockId,
    /// Who votes.
    pub voter: ReplicaIndex,
    /// Its signature.
    pub signature: Signature,
}

impl Vote {
    /// Checks the voter's signature.
    ///
    /// # Errors
    /// [`CertificateError`] when it is no member's.
    pub fn verify(self, committee: &Committee) -> Result<Verified<Self>, CertificateError> {
        let statement = vote_statement(committee, self.view, self.height, self.block);
        check_signature(committee, self.voter, &statement, &self.signature)?;
        Ok(Verified::vouch(self))
    }
}

/// A timeout (rule P3).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Timeout {
    /// The view that ended.
    pub view: View,
    /// The sender's highest QC; its view is signed.
    pub high_qc: QuorumCertificate,
    /// The TC by which the sender entered the view; absent when it was the highest QC.
    pub entry: Option<TimeoutCertificate>,
    /// Who timed out.
    pub sender: ReplicaIndex,
    /// Its signature over the view and the highest QC's view.
    pub signature: Signature,
}

impl Timeout {
    /// Checks the sender's signature; the certificates inside are not checked here.
    ///
    /// # Errors
    /// [`CertificateError`] when it is no member's.
    pub fn verify(self, committee: &Committee) -> Result<Verified<Self>, CertificateError> {
        let statement = timeout_statement(committee, self.view, self.high_qc.view);
        check_signature(committee, self.sender, &statement, &self.signature)?;
        if self.high_qc.view >= self.view {
            return Err(CertificateError::FromTheFuture);
        }
        Ok(Verified::vouch(self))
    }
}

/// The newest certificates of a replica (rule P6).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Certificates {
    /// Its highest QC.
    pub high_qc: QuorumCertificate,
    /// The TC of a later view than that, when it has one.
    pub high_tc: Option<TimeoutCertificate>,
}

/// Asks for the blocks from above a height up to a certified block (rule F1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockRequest {
    /// A block that the asker holds a QC for.
    pub target: BlockId,
    /// Its height.
    pub target_height: Height,
    /// The asker's newest committed height.
    pub above: Height,
}

/// A chain of blocks, lowest first, each the parent of the next (rule F1).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockResponse {
    /// The blocks.
    #[borsh(deserialize_with = "fetched_blocks")]
    pub blocks: Vec<Arc<Block>>,
    /// A certificate of the last of them.
    pub tip: QuorumCertificate,
}

/// What one replica asked another for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Asked {
    /// Blocks.
    Blocks(BlockRequest),
    /// Chunks of a snapshot.
    Chunks(ChunkRequest),
}

/// Answers that what was asked for is no longer here (rule K4).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Gone {
    /// What was asked for, as it was asked.
    pub asked: Asked,
    /// The newest certified checkpoint that is here: above it.
    pub checkpoint: StableCheckpoint,
}

/// Asks for the chunks of a certified snapshot from a place on (rule K4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChunkRequest {
    /// The checkpoint's height.
    pub height: Height,
    /// The snapshot's root.
    pub root: Digest,
    /// The first chunk's place.
    pub first: u32,
}

/// Chunks of a snapshot, each with its proof (rule K4).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Chunks {
    /// The checkpoint's height.
    pub height: Height,
    /// The snapshot's root.
    pub root: Digest,
    /// The first chunk's place.
    pub first: u32,
    /// The chunks, one place after the other.
    #[borsh(deserialize_with = "sent_chunks")]
    pub chunks: Vec<ProvenChunk>,
}

fn sent_chunks<R: io::Read>(reader: &mut R) -> io::Result<Vec<ProvenChunk>> {
    bounded_list(reader, MAX_SENT_CHUNKS)
}

fn gossiped_commands<R: io::Read>(reader: &mut R) -> io::Result<Vec<Command>> {
    bounded_list(reader, MAX_GOSSIP_COMMANDS)
}

fn committed_commands<R: io::Read>(reader: &mut R) -> io::Result<Vec<Digest>> {
    bounded_list(reader, MAX_GOSSIP_COMMANDS)
}

fn fetched_blocks<R: io::Read>(reader: &mut R) -> io::Result<Vec<Arc<Block>>> {
    bounded_list(reader, MAX_FETCHED_BLOCKS)
}
