//! The keys and the signed root of a backtest's cluster. They are made from names, so that equal inputs give equal
//! bytes; they guard nothing, because nothing of a backtest leaves it.

use crate::{
    knowledge::{
        genesis::Genesis,
        root::{ROOT_TYPE, Root, RootError, RootOwner, RootReplica, VerifiedRoot},
    },
    types::{
        CommitteeSize, CommitteeSizeError, Digest, Envelope, Epoch, SecretKey, TargetId, UnixMillis, pae,
    },
};

/// The root outlives every backtest.
const NOT_AFTER: UnixMillis = UnixMillis::new(u64::MAX);

/// Whose keys a backtest makes.
#[derive(Debug)]
pub(super) struct Keys {
    /// One a replica.
    pub(super) replicas: Vec<SecretKey>,
    owner: SecretKey,
}

impl Keys {
    /// Keys for so many replicas.
    pub(super) fn new(replicas: usize) -> Result<Self, CommitteeSizeError> {
        let size = CommitteeSize::new(replicas)?;
        let replicas = (0..size.replicas()).map(|place| key(&format!("replica {place}"))).collect();
        Ok(Self { replicas, owner: key("owner") })
    }

    /// The first root: these replicas, and one owner of everything.
    pub(super) fn root(&self, genesis: &Genesis) -> Result<VerifiedRoot, RootError> {
        let raw = |key: &SecretKey| Digest::from_bytes(key.public().to_bytes());
        let body = Root {
            v: 1,
            cluster: Digest::ZERO,
            epoch: Epoch::new(1),
            replicas: self
                .replicas
                .iter()
                .map(|key| RootReplica {
                    keyid: key.public().id(),
                    ed25519: raw(key),
                    owner: OWNER.to_owned(),
                })
                .collect(),
            owners: vec![RootOwner { name: OWNER.to_owned(), ed25519: raw(&self.owner) }],
            operators: Vec::new(),
            owner_threshold: 1,
            genesis: genesis.digest(),
            not_after: NOT_AFTER,
            prev: Digest::ZERO,
        }
        .to_bytes();
        let signature = self.owner.sign(&pae(ROOT_TYPE, &body));
        let envelope = Envelope::new(ROOT_TYPE, body, vec![(self.owner.public().id(), signature)]);
        VerifiedRoot::first(&envelope.to_json())
    }
}

/// The name of the one owner.
pub const OWNER: &str = "owner-0";

/// The key of a target's agent in a backtest.
#[must_use]
pub fn agent_key(target: &TargetId) -> SecretKey {
    key(&format!("agent of {target}"))
}

fn key(name: &str) -> SecretKey {
    SecretKey::from_seed(Digest::of(format!("backtest: {name}").as_bytes()).as_bytes())
}
