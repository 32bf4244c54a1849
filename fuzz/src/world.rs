//! The cluster of the targets: four replicas, owners, operators, agents, targets of every kind, and policies with every
//! condition, from fixed seeds. The targets hold all keys, so that a signature stops no input.
//!
//! Invariant: it is the same in every process.

use std::{collections::BTreeMap, sync::LazyLock};

use quorate::{
    knowledge::{
        fold::State,
        genesis::Genesis,
        root::{ROOT_TYPE, Root, RootOperator, RootOwner, RootReplica, VerifiedRoot},
    },
    service::config::{Completion, PolicyFile},
    types::{Committee, Digest, Envelope, Epoch, ReplicaIndex, SecretKey, TargetId, UnixMillis, pae},
};

/// Replicas of the committee.
pub const REPLICAS: usize = 4;

/// The policies, with targets of every kind and every condition.
pub const POLICIES: &str = include_str!("world.toml");

/// All of it.
#[derive(Debug)]
pub struct World {
    /// The replicas' keys, in order.
    pub replicas: Vec<SecretKey>,
    /// The operators' keys: one for the first owner, two for the second.
    pub operators: Vec<SecretKey>,
    /// Keys that agents have or could have; the first of them speaks for all targets.
    pub agents: Vec<SecretKey>,
    /// The owners' keys.
    pub owners: Vec<SecretKey>,
    /// The genesis.
    pub genesis: Genesis,
    /// The first root.
    pub root: VerifiedRoot,
}

/// The one cluster.
pub static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let keys = |seeds: std::ops::Range<u8>| -> Vec<SecretKey> {
            seeds.map(|seed| SecretKey::from_seed(&[seed; 32])).collect()
        };
        let (replicas, owners) = (keys(1..5), keys(11..15));
        let (agents, operators) = (keys(21..31), keys(31..34));
        let genesis = genesis(&agents);
        let root = root(&replicas, &owners, &operators, &genesis);
        let envelope = sealed(ROOT_TYPE, root.to_bytes(), &owners);
        let root = VerifiedRoot::first(&envelope).expect("the world's root verifies");
        Self { replicas, operators, agents, owners, genesis, root }
    }

    /// The committee.
    #[must_use]
    pub fn committee(&self) -> &Committee {
        self.root.committee()
    }

    /// The state before the first command.
    #[must_use]
    pub fn state(&self) -> State {
        let operators = self.root.operators().clone();
        State::new(self.genesis.clone(), self.committee().clone(), operators).expect("the genesis is sound")
    }

    /// A target of the genesis, or one that is not in it.
    #[must_use]
    pub fn target(&self, place: usize) -> TargetId {
        let known = self.genesis.targets.get(place % (self.genesis.targets.len() + 1));
        known.map_or_else(|| TargetId::new("unknown").expect("a valid name"), |target| target.id.clone())
    }
}

/// A replica's place.
#[must_use]
pub fn place(replica: usize) -> ReplicaIndex {
    ReplicaIndex::new(u16::try_from(replica % REPLICAS).expect("committees are small"))
}

/// An envelope's JSON with these signatures.
#[must_use]
pub fn sealed<'a>(
    document_type: &str,
    body: Vec<u8>,
    signers: impl IntoIterator<Item = &'a SecretKey>,
) -> Vec<u8> {
    let bytes = pae(document_type, &body);
    let signatures = signers.into_iter().map(|key| (key.public().id(), key.sign(&bytes))).collect();
    Envelope::new(document_type, body, signatures).to_json()
}

fn genesis(agents: &[SecretKey]) -> Genesis {
    let file = PolicyFile::parse("world.toml", POLICIES).expect("the world's policies are correct");
    let agent = agents.first().expect("there are agents").public();
    let agents: BTreeMap<TargetId, _> = file.targets().map(|target| (target.clone(), agent)).collect();
    let completion = Completion { agents, owner: Some("owner-0".to_owned()) };
    file.genesis(&completion).expect("the world's policies are complete")
}

fn root(replicas: &[SecretKey], owners: &[SecretKey], operators: &[SecretKey], genesis: &Genesis) -> Root {
    let raw = |key: &SecretKey| Digest::from_bytes(key.public().to_bytes());
    let owner = |place: usize| format!("owner-{place}");
    let replica = |(place, key): (usize, &SecretKey)| RootReplica {
        keyid: key.public().id(),
        ed25519: raw(key),
        owner: owner(place),
    };
    let operator = |(key, (name, place)): (&SecretKey, (&str, usize))| RootOperator {
        name: name.to_owned(),
        ed25519: raw(key),
        owner: owner(place),
    };
    Root {
        v: 1,
        cluster: Digest::ZERO,
        epoch: Epoch::new(1),
        replicas: replicas.iter().enumerate().map(replica).collect(),
        owners: owners
            .iter()
            .enumerate()
            .map(|(place, key)| RootOwner { name: owner(place), ed25519: raw(key) })
            .collect(),
        operators: operators.iter().zip([("ana", 0), ("bea", 1), ("bob", 1)]).map(operator).collect(),
        owner_threshold: 3,
        genesis: genesis.digest(),
        not_after: UnixMillis::new(4_000_000_000_000),
        prev: Digest::ZERO,
    }
}
