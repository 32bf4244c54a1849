//! Blocks and the commands in them. A block is immutable; its identity is a digest that never covers
//! signature bytes.

use borsh::{BorshDeserialize, BorshSerialize, io};
use std::{collections::BTreeMap, sync::Arc};

use super::{
    certificate::QuorumCertificate,
    limits::{MAX_BLOCK_BYTES, MAX_BLOCK_COMMANDS, MAX_COMMAND_BYTES},
};
use crate::types::{Committee, Digest, Hasher, Height, ReplicaIndex, View};

/// A block's identity.
pub type BlockId = Digest;

/// A command: two byte strings without meaning here. Equal bodies are carried once per block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    head: Arc<[u8]>,
    body: Arc<[u8]>,
    digest: Digest,
}

/// A command that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It is larger than any command may be.
    #[error("the command has {got} bytes; at most {MAX_COMMAND_BYTES} are allowed")]
    TooLarge {
        /// Its size.
        got: usize,
    },
}

impl Command {
    /// A command of a head of its own and a body that others may share.
    ///
    /// # Errors
    /// [`CommandError::TooLarge`].
    pub fn new(head: impl Into<Arc<[u8]>>, body: impl Into<Arc<[u8]>>) -> Result<Self, CommandError> {
        let (head, body) = (head.into(), body.into());
        let got = head.len() + body.len();
        if got > MAX_COMMAND_BYTES {
            return Err(CommandError::TooLarge { got });
        }
        let body_digest = Digest::of(&body);
        Ok(Self::with_body_digest(head, body, body_digest))
    }

    fn with_body_digest(head: Arc<[u8]>, body: Arc<[u8]>, body_digest: Digest) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(body_digest.as_bytes());
        hasher.update(&head);
        Self { head, body, digest: hasher.finish() }
    }

    /// The submitter's part.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The part that may be shared.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// SHA-256 of the body's digest and the head: the command's identity.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl BorshSerialize for Command {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.head.serialize(writer)?;
        self.body.serialize(writer)
    }
}

impl BorshDeserialize for Command {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let head = Vec::deserialize_reader(reader)?;
        let body = Vec::deserialize_reader(reader)?;
        Self::new(head, body).map_err(invalid)
    }
}

/// The commands of a block, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    commands: Vec<Command>,
}

impl Payload {
    /// A payload of these commands. The caller keeps within the limits: see [`super::limits`].
    #[must_use]
    pub const fn new(commands: Vec<Command>) -> Self {
        Self { commands }
    }

    /// The commands, in order.
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// How many bytes the commands have, equal bodies counted once, as they are carried.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let bodies: std::collections::BTreeSet<&[u8]> = self.commands.iter().map(Command::body).collect();
        let heads = self.commands.iter().map(|command| command.head.len());
        heads.chain(bodies.into_iter().map(<[u8]>::len)).sum()
    }

    /// The digest that a block's identity covers.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        for command in &self.commands {
            hasher.update(command.digest.as_bytes());
        }
        hasher.finish()
    }
}

impl BorshSerialize for Payload {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let mut places: BTreeMap<&[u8], u32> = BTreeMap::new();
        let mut bodies: Vec<&[u8]> = Vec::new();
        let mut rows: Vec<(&[u8], u32)> = Vec::with_capacity(self.commands.len());
        for command in &self.commands {
            let next = u32::try_from(bodies.len()).map_err(invalid)?;
            let place = *places.entry(&command.body).or_insert_with(|| {
                bodies.push(&command.body);
                next
            });
            rows.push((&command.head, place));
        }
        bodies.serialize(writer)?;
        rows.serialize(writer)
    }
}

impl BorshDeserialize for Payload {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let bodies: Vec<Vec<u8>> = bounded_list(reader, MAX_BLOCK_COMMANDS)?;
        let rows: Vec<(Vec<u8>, u32)> = bounded_list(reader, MAX_BLOCK_COMMANDS)?;
        let size: usize = bodies.iter().map(Vec::len).chain(rows.iter().map(|(head, _)| head.len())).sum();
        if size > MAX_BLOCK_BYTES {
            return Err(invalid("the block is larger than any block may be"));
        }
        let bodies: Vec<(Arc<[u8]>, Digest)> = bodies
            .into_iter()
            .map(|body| {
                let digest = Digest::of(&body);
                (body.into(), digest)
            })
            .collect();
        // Only the encoding that `serialize` writes is taken: distinct bodies, in the order of first use.
        let mut used = 0;
        let mut commands = Vec::with_capacity(rows.len());
        for (head, place) in rows {
            let place = place as usize;
            let (body, digest) = bodies.get(place).ok_or_else(|| invalid("no such body"))?;
            if place > used {
                return Err(invalid("bodies are not in the order of first use"));
            }
            used += usize::from(place == used);
            if head.len() + body.len() > MAX_COMMAND_BYTES {
                return Err(invalid(CommandError::TooLarge { got: head.len() + body.len() }));
            }
            commands.push(Command::with_body_digest(head.into(), Arc::clone(body), *digest));
        }
        let distinct: std::collections::BTreeSet<Digest> = bodies.iter().map(|(_, digest)| *digest).collect();
        if used != bodies.len() || distinct.len() != bodies.len() {
            return Err(invalid("a body is repeated or not used"));
        }
        Ok(Self { commands })
    }
}

/// A list as borsh writes it, refused before it is read when it claims more items than there may be: a small item
/// costs far more than its bytes.
pub(super) fn bounded_list<T: BorshDeserialize, R: io::Read>(
    reader: &mut R,
    most: usize,
) -> io::Result<Vec<T>> {
    let claimed = u32::deserialize_reader(reader)? as usize;
    if claimed > most {
        return Err(invalid(format!("a list of {claimed} items, where {most} are allowed")));
    }
    (0..claimed).map(|_| T::deserialize_reader(reader)).collect()
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A block (rule B1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    height: Height,
    view: View,
    proposer: ReplicaIndex,
    justify: QuorumCertificate,
    payload: Payload,
    id: BlockId,
}

#[derive(BorshSerialize)]
struct Identity {
    height: Height,
    view: View,
    proposer: u16,
    parent: BlockId,
    justify_view: View,
    payload: Digest,
}

impl Block {
    /// A block on top of the one that `justify` certifies. Cluster and epoch are bound by the chain, which
    /// begins at their own genesis.
    #[must_use]
    pub fn new(view: View, proposer: ReplicaIndex, justify: QuorumCertificate, payload: Payload) -> Self {
        let height = justify.height.next();
        let id = Digest::of_value(&Identity {
            height,
            view,
            proposer: proposer.place(),
            parent: justify.block,
            justify_view: justify.view,
            payload: payload.digest(),
        });
        Self { height, view, proposer, justify, payload, id }
    }

    /// The identity of the block at height 0 that every replica of this epoch knows.
    #[must_use]
    pub fn genesis_id(committee: &Committee) -> BlockId {
        Digest::of_value(&("quorate genesis", committee.cluster(), committee.epoch()))
    }

    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> BlockId {
        self.id
    }

    /// Its distance from genesis.
    #[must_use]
    pub const fn height(&self) -> Height {
        self.height
    }

    /// The view it was proposed in.
    #[must_use]
    pub const fn view(&self) -> View {
        self.view
    }

    /// Who proposed it.
    #[must_use]
    pub const fn proposer(&self) -> ReplicaIndex {
        self.proposer
    }

    /// The block before it.
    #[must_use]
    pub const fn parent(&self) -> BlockId {
        self.justify.block
    }

    /// The certificate of the block before it.
    #[must_use]
    pub const fn justify(&self) -> &QuorumCertificate {
        &self.justify
    }

    /// Its commands.
    #[must_use]
    pub const fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The same block with another quorum's bytes of the same certificate; the identity does not change.
    #[must_use]
    pub(super) fn with_justify(mut self, justify: QuorumCertificate) -> Self {
        debug_assert!(justify.same_statement(&self.justify), "another certificate");
        self.justify = justify;
        self
    }

    /// How many bytes its commands have.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.payload.size_bytes()
    }
}

impl BorshSerialize for Block {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.view.serialize(writer)?;
        self.proposer.serialize(writer)?;
        self.justify.serialize(writer)?;
        self.payload.serialize(writer)
    }
}

impl BorshDeserialize for Block {
    /// The identity is computed again: bytes cannot claim one.
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let view = View::deserialize_reader(reader)?;
        let proposer = ReplicaIndex::deserialize_reader(reader)?;
        let justify = QuorumCertificate::deserialize_reader(reader)?;
        let payload = Payload::deserialize_reader(reader)?;
        Ok(Self::new(view, proposer, justify, payload))
    }
}
