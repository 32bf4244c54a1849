//! The root: who the replicas, the owners and the operators of an epoch are. It is the agents' trust anchor.
//!
//! What operators ask for is not here. Invariant: one key has one role, and everybody belongs to an owner.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use super::genesis::Genesis;
use crate::types::{
    Committee, CommitteeError, Digest, Envelope, EnvelopeError, Epoch, KeyError, KeyId, PublicKey, TargetId,
    UnixMillis, from_strict_json,
};

/// The DSSE type of a root.
pub const ROOT_TYPE: &str = "application/vnd.quorate.root.v1+json";

/// The most operators of a root: several for each owner of a large committee, and few enough that the stops of
/// all of them are kept for every target.
pub const MAX_OPERATORS: usize = 64;
/// The longest name of an operator, in bytes: it stands in plans' accounts, logs and status lines.
const MAX_OPERATOR_NAME_BYTES: usize = 64;

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

/// An operator in a root: a person or a duty whose signed requests count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootOperator {
    /// The operator's name.
    pub name: String,
    /// The raw public key, 64 lower-case hexadecimal characters.
    pub ed25519: Digest,
    /// For which owner it acts.
    pub owner: String,
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
    /// The operators.
    pub operators: Vec<RootOperator>,
    /// How many owners must sign a root.
    pub owner_threshold: u32,
    /// Digest of the genesis: parameters, targets with their invariants, and first policies.
    pub genesis: Digest,
    /// Not to be trusted later.
    pub not_after: UnixMillis,
    /// SHA-256 of the previous root's body; zeros in the first.
    pub prev: Digest,
}

impl Root {
    /// The bytes that owners sign.
    ///
    /// # Panics
    /// Never: the fields are integers and strings.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("integers and strings are valid JSON")
    }
}

/// An operator whose key is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The operator's name.
    pub name: String,
    /// The key that signs its requests.
    pub key: PublicKey,
    /// For which owner it acts.
    pub owner: String,
}

/// The operators of an epoch, by their keys, and the keys of the owners for whom they act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operators {
    operators: BTreeMap<KeyId, Operator>,
    owners: BTreeSet<KeyId>,
}

impl Operators {
    /// These operators, who act for the owners with these keys.
    #[must_use]
    pub fn new(operators: impl IntoIterator<Item = Operator>, owners: &[PublicKey]) -> Self {
        let operators = operators.into_iter().map(|operator| (operator.key.id(), operator));
        Self { operators: operators.collect(), owners: owners.iter().map(PublicKey::id).collect() }
    }

    /// The operator with this key.
    #[must_use]
    pub fn by_key(&self, key: KeyId) -> Option<&Operator> {
        self.operators.get(&key)
    }

    /// All of them, in the order of their keys' identifiers.
    pub fn iter(&self) -> impl Iterator<Item = (KeyId, &Operator)> {
        self.operators.iter().map(|(id, operator)| (*id, operator))
    }

    /// Whether it is an owner's key, with which roots are signed.
    #[must_use]
    pub fn is_owner(&self, key: KeyId) -> bool {
        self.owners.contains(&key)
    }
}

/// A root whose owners' signatures have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRoot {
    root: Root,
    committee: Committee,
    operators: Operators,
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
        let threshold = root.owner_threshold as usize;
        if threshold == 0 || threshold > owners.len() {
            return Err(RootError::Body(
                "owner_threshold must be between 1 and the number of owners".to_owned(),
            ));
        }
        envelope.verify(ROOT_TYPE, &owners, threshold)?;
        let keys = admit(root.replicas.iter().map(|replica| (replica.owner.as_str(), replica.ed25519)))?;
        let named = root.operators.iter().map(|operator| (operator.name.as_str(), operator.ed25519));
        let operator_keys = admit(named)?;
        check_roles(&root, &owners, &keys, &operator_keys)?;
        check_operators(&root)?;
        let operators = root.operators.iter().zip(operator_keys).map(|(operator, key)| Operator {
            name: operator.name.clone(),
            key,
            owner: operator.owner.clone(),
        });
        let operators = Operators::new(operators, &owners);
        let cluster = Digest::of(envelope.unverified_body());
        let committee = Committee::new(cluster, root.epoch, keys)?;
        Ok(Self { root, committee, operators, envelope })
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

    /// The operators that the root names.
    #[must_use]
    pub const fn operators(&self) -> &Operators {
        &self.operators
    }

    /// The envelope it came in.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Checks a genesis against the root: it is the one that the root commits to, every target belongs to an
    /// owner of the root, and no agent has a key of another role.
    ///
    /// # Errors
    /// [`GenesisMismatch`] names the first thing that does not fit.
    pub fn check_genesis(&self, genesis: &Genesis) -> Result<(), GenesisMismatch> {
        let (got, expected) = (genesis.digest(), self.root.genesis);
        if got != expected {
            return Err(GenesisMismatch::Digest { got, expected });
        }
        self.check_targets(genesis)
    }

    fn check_targets(&self, genesis: &Genesis) -> Result<(), GenesisMismatch> {
        let owners: Vec<&str> = self.root.owners.iter().map(|owner| owner.name.as_str()).collect();
        let taken: BTreeSet<Digest> = (self.root.owners.iter().map(|owner| owner.ed25519))
            .chain(self.root.replicas.iter().map(|replica| replica.ed25519))
            .chain(self.root.operators.iter().map(|operator| operator.ed25519))
            .collect();
        for target in &genesis.targets {
            if !owners.contains(&target.owner.as_str()) {
                return Err(GenesisMismatch::UnknownOwner {
                    target: target.id.clone(),
                    owner: target.owner.clone(),
                    known: owners.join(", "),
                });
            }
            if taken.contains(&Digest::from_bytes(target.agent.to_bytes())) {
                return Err(GenesisMismatch::AgentKeyTaken { target: target.id.clone() });
            }
        }
        Ok(())
    }
}

/// How a genesis does not fit its root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisMismatch {
    /// It is another genesis.
    #[error("its digest is {got}, but the root commits to {expected}; use the file that was signed")]
    Digest {
        /// Its digest.
        got: Digest,
        /// The root's.
        expected: Digest,
    },
    /// A target belongs to nobody in the root.
    #[error("target {target} belongs to {owner:?}, which is no owner of the root; its owners are: {known}")]
    UnknownOwner {
        /// Which target.
        target: TargetId,
        /// The owner that it names.
        owner: String,
        /// The owners of the root.
        known: String,
    },
    /// An agent's key has another role.
    #[error("target {target}: its agent has the key of a replica, an owner or an operator; give it its own")]
    AgentKeyTaken {
        /// Which target.
        target: TargetId,
    },
}

/// One key has one role, one name is one owner, and every replica is run by an owner of this root.
fn check_roles(
    root: &Root,
    owners: &[PublicKey],
    replicas: &[PublicKey],
    operators: &[PublicKey],
) -> Result<(), RootError> {
    let refused = |what: String| Err(RootError::Body(what));
    let names: BTreeSet<&str> = root.owners.iter().map(|owner| owner.name.as_str()).collect();
    if names.len() != root.owners.len() {
        return refused("two owners have the same name".to_owned());
    }
    let keys: BTreeSet<&PublicKey> = owners.iter().chain(replicas).chain(operators).collect();
    if keys.len() != owners.len() + replicas.len() + operators.len() {
        return refused("a key stands twice".to_owned());
    }
    for (replica, key) in root.replicas.iter().zip(replicas) {
        if replica.keyid != key.id() {
            return refused(format!("keyid {} is not its key's", replica.keyid));
        }
        if !names.contains(replica.owner.as_str()) {
            return refused(format!("replica {} belongs to nobody in the list of owners", replica.keyid));
        }
    }
    Ok(())
}

/// Operators have distinct, plain names, and each acts for an owner of this root.
fn check_operators(root: &Root) -> Result<(), RootError> {
    let refused = |what: String| Err(RootError::Body(what));
    if root.operators.len() > MAX_OPERATORS {
        return refused(format!("{} operators; at most {MAX_OPERATORS} are allowed", root.operators.len()));
    }
    let mut names = BTreeSet::new();
    for operator in &root.operators {
        let name = operator.name.as_str();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
        if !(1..=MAX_OPERATOR_NAME_BYTES).contains(&name.len()) || !name.bytes().all(plain) {
            return refused(format!(
                "operator {name:?}: a name has 1 to {MAX_OPERATOR_NAME_BYTES} characters of a-z A-Z 0-9 . _ - / : @"
            ));
        }
        if !names.insert(name) {
            return refused(format!("two operators are named {name}"));
        }
        if !root.owners.iter().any(|owner| owner.name == operator.owner) {
            return refused(format!("operator {name} acts for nobody in the list of owners"));
        }
    }
    Ok(())
}

fn admit<'a>(keys: impl Iterator<Item = (&'a str, Digest)>) -> Result<Vec<PublicKey>, RootError> {
    keys.map(|(who, key)| {
        PublicKey::from_bytes(key.as_bytes()).map_err(|error| RootError::Key { who: who.to_owned(), error })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{ROOT_TYPE, Root, RootError, RootOperator, VerifiedRoot};
    use crate::{
        knowledge::fixtures::{operator_keys, owner_keys, replica_keys, root, seal},
        types::{Digest, EnvelopeError, Epoch, SecretKey},
    };

    fn first(root: &Root) -> Result<VerifiedRoot, RootError> {
        VerifiedRoot::first(&seal(ROOT_TYPE, root.to_bytes(), &owner_keys()[..3]))
    }

    #[test]
    fn the_first_root_makes_the_cluster_and_its_committee() {
        let verified = first(&root()).expect("the root is well made");
        assert_eq!(verified.committee().cluster(), Digest::of(&root().to_bytes()));
        assert_eq!(verified.committee().epoch(), Epoch::new(1));
        assert_eq!(verified.committee().size().replicas(), 4);
        assert_eq!(verified.root(), &root());
        let key = operator_keys()[1].public();
        let operator = verified.operators().by_key(key.id()).expect("it stands in the root");
        assert_eq!((operator.name.as_str(), operator.owner.as_str(), operator.key), ("bea", "owner-1", key));
    }

    #[test]
    fn fewer_owners_than_the_threshold_make_no_root() {
        let envelope = seal(ROOT_TYPE, root().to_bytes(), &owner_keys()[..2]);
        assert_eq!(
            VerifiedRoot::first(&envelope),
            Err(RootError::Envelope(EnvelopeError::TooFewSignatures { got: 2, needed: 3 }))
        );
    }

    #[test]
    fn replicas_cannot_sign_a_root_for_the_owners() {
        let envelope = seal(ROOT_TYPE, root().to_bytes(), &replica_keys());
        assert!(matches!(
            VerifiedRoot::first(&envelope),
            Err(RootError::Envelope(EnvelopeError::UnknownKey(_)))
        ));
    }

    #[test]
    fn a_root_that_contradicts_itself_is_refused_though_signed() {
        type Change = fn(&mut Root);
        let cases: [(&str, Change); 21] = [
            ("another version", |root| root.v = 2),
            ("another epoch", |root| root.epoch = Epoch::new(2)),
            ("a cluster", |root| root.cluster = Digest::of(b"x")),
            ("a predecessor", |root| root.prev = Digest::of(b"x")),
            ("no threshold", |root| root.owner_threshold = 0),
            ("a threshold above the owners", |root| root.owner_threshold = 5),
            ("a repeated owner's name", |root| root.owners[1].name = root.owners[0].name.clone()),
            ("a repeated owner's key", |root| root.owners[3].ed25519 = root.owners[0].ed25519),
            ("a repeated replica", |root| root.replicas[1] = root.replicas[0].clone()),
            ("a replica with an owner's key", |root| {
                root.replicas[0].ed25519 = root.owners[0].ed25519;
                root.replicas[0].keyid = Digest::of(root.owners[0].ed25519.as_bytes());
            }),
            ("a replica of nobody", |root| root.replicas[0].owner = "stranger".to_owned()),
            ("a wrong keyid", |root| root.replicas[0].keyid = Digest::of(b"x")),
            ("a key of small order", |root| root.replicas[0].ed25519 = Digest::ZERO),
            ("no replicas", |root| root.replicas.clear()),
            ("a repeated operator's name", |root| {
                root.operators[1].name = root.operators[0].name.clone();
            }),
            ("a repeated operator's key", |root| {
                root.operators[1].ed25519 = root.operators[0].ed25519;
            }),
            ("an operator with an owner's key", |root| root.operators[0].ed25519 = root.owners[2].ed25519),
            ("an operator with a replica's key", |root| root.operators[0].ed25519 = root.replicas[2].ed25519),
            ("an operator of nobody", |root| root.operators[0].owner = "stranger".to_owned()),
            ("an operator without a name", |root| root.operators[0].name.clear()),
            ("too many operators", |root| {
                for seed in 100..100 + 65 {
                    let key = SecretKey::from_seed(&[seed; 32]).public();
                    root.operators.push(RootOperator {
                        name: format!("operator-{seed}"),
                        ed25519: Digest::from_bytes(key.to_bytes()),
                        owner: root.owners[0].name.clone(),
                    });
                }
            }),
        ];
        for (what, change) in cases {
            let mut changed = root();
            change(&mut changed);
            assert!(first(&changed).is_err(), "{what}");
        }
    }

    #[test]
    fn no_single_changed_byte_of_a_root_passes() {
        let envelope = seal(ROOT_TYPE, root().to_bytes(), &owner_keys()[..3]);
        for place in 0..envelope.len() {
            let mut changed = envelope.clone();
            changed[place] ^= 1;
            assert!(VerifiedRoot::first(&changed).is_err(), "byte {place}");
        }
    }
}
