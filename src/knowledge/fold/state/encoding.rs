//! The state as canonical bytes, and back: what a state root covers and a snapshot carries.
//!
//! It decides nothing and trusts no bytes. Invariant: bytes that are taken are exactly those that the restored state
//! gives, so equal states have equal bytes and nothing else is read from them.

use borsh::{BorshDeserialize, BorshSerialize, io};
use std::collections::BTreeMap;

use super::{AgreedTime, EvidenceLog, IndicatorMemory, OpenWindows, Operations, State, Targets};
use crate::{
    knowledge::{
        genesis::{Genesis, GenesisError},
        root::Operators,
    },
    types::{Committee, Cycle, Digest, Epoch, PublicKey},
};

/// The form of these bytes. `cycle::tests` holds the digest of a sample of it: when that changes, so must this number.
const VERSION: u32 = 2;

/// Why bytes are no state of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// They cannot be read.
    #[error("the snapshot is malformed: {0}")]
    Malformed(String),
    /// They are of another cluster, genesis or committee, or of another program's form.
    #[error("the snapshot is of another cluster, epoch, genesis or form")]
    Foreign,
    /// Their parts do not fit together.
    #[error("the snapshot contradicts itself: {0}")]
    Unsound(&'static str),
    /// The genesis itself is refused.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

/// Which states can be restored here.
#[derive(PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Founding {
    version: u32,
    cluster: Digest,
    epoch: Epoch,
    committee: Digest,
    genesis: Digest,
}

impl Founding {
    fn of(genesis: &Genesis, committee: &Committee) -> Self {
        let keys: Vec<PublicKey> = committee.iter().map(|(_, key)| *key).collect();
        Self {
            version: VERSION,
            cluster: committee.cluster(),
            epoch: committee.epoch(),
            committee: Digest::of_value(&keys),
            genesis: genesis.digest(),
        }
    }
}

/// What follows from genesis and root stands by digest.
impl BorshSerialize for State {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        Founding::of(&self.genesis, &self.committee).serialize(writer)?;
        (&self.agreed, &self.windows, &self.memories, self.cycle).serialize(writer)?;
        (&self.operations, &self.targets, &self.evidence).serialize(writer)
    }
}

impl State {
    /// Reads a state back from its canonical bytes, and moves past them.
    ///
    /// # Errors
    /// [`RestoreError`] says what is wrong with the bytes.
    pub fn restore(
        bytes: &mut &[u8],
        genesis: Genesis,
        committee: Committee,
        operators: Operators,
    ) -> Result<Self, RestoreError> {
        genesis.check()?;
        let written = *bytes;
        let founding: Founding = read(bytes)?;
        if founding != Founding::of(&genesis, &committee) {
            return Err(RestoreError::Foreign);
        }
        let (agreed, windows, memories, cycle): (AgreedTime, OpenWindows, Vec<IndicatorMemory>, Cycle) =
            read(bytes)?;
        let operations: Operations = read(bytes)?;
        let targets = Targets::restore(bytes, &genesis, &committee)?;
        let evidence: EvidenceLog = read(bytes)?;
        let size = committee.size();
        let checks = [
            (agreed.fits(size), "its times are not those of the committee"),
            (windows.fits(size), "its open windows are not those of the committee"),
            (memories.len() == genesis.indicators().count(), "it does not have a memory for each indicator"),
            (memories.iter().all(IndicatorMemory::is_sound), "it remembers too many distances"),
            (operations.fits(&genesis), "its orders are not about the genesis' targets"),
            (evidence.is_sound(&committee), "its evidence proves nothing, or something else"),
        ];
        if let Some((_, why)) = checks.into_iter().find(|(holds, _)| !holds) {
            return Err(RestoreError::Unsound(why));
        }
        let places = genesis.policies.iter().enumerate();
        let policies: BTreeMap<_, _> =
            places.map(|(place, policy)| (Digest::of_value(policy), place)).collect();
        let state = Self {
            genesis,
            committee,
            operators,
            policies,
            agreed,
            windows,
            memories,
            cycle,
            targets,
            operations,
            evidence,
        };
        let read_bytes = &written[..written.len() - bytes.len()];
        if is_written_as(&state, read_bytes) { Ok(state) } else { Err(RestoreError::Unsound(UNORDERED)) }
    }
}

const UNORDERED: &str = "it is not written in the one form that it has";

fn read<T: BorshDeserialize>(bytes: &mut &[u8]) -> Result<T, RestoreError> {
    T::deserialize(bytes).map_err(|error| RestoreError::Malformed(error.to_string()))
}

/// Whether the value's canonical bytes are these; it makes no copy of them.
fn is_written_as<T: BorshSerialize>(value: &T, bytes: &[u8]) -> bool {
    let mut expected = Expected { rest: bytes };
    value.serialize(&mut expected).is_ok() && expected.rest.is_empty()
}

struct Expected<'a> {
    rest: &'a [u8],
}

impl io::Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let rest = self.rest.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        self.rest = rest;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
