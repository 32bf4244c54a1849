//! The log of plans as an RFC 9162 Merkle tree: its head, kept up to date one plan at a time.
//!
//! It is not the log itself and gives no proofs: it holds only the roots of the complete subtrees, at most
//! 64 of them. Invariant: the root equals the Merkle Tree Hash of RFC 9162, section 2.1.1, over all bodies.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::types::{Digest, Hasher};

/// A leaf's hash begins with this byte and a node's with the other, so that neither passes for the other.
const LEAF: &[u8] = &[0];
const NODE: &[u8] = &[1];

/// The head of a growing Merkle tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LogTree {
    size: u64,
    /// The roots of the complete subtrees, the largest first: one for each bit that is set in the size.
    subtrees: Vec<Digest>,
}

impl LogTree {
    /// Whether there is a subtree for each bit of the size.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.subtrees.len() == self.size.count_ones() as usize
    }

    /// How many bodies the log holds.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a body at the end.
    pub fn append(&mut self, body: &[u8]) {
        let mut root = hash(LEAF, &[body]);
        // Each trailing one of the size is a complete subtree that the new one completes to the next size.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                root = node(&left, &root);
            }
        }
        self.subtrees.push(root);
        self.size = self.size.saturating_add(1);
    }

    /// The tree head; of an empty log it is the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Digest {
        let from_the_right = self.subtrees.iter().rev().copied();
        from_the_right.reduce(|right, left| node(&left, &right)).unwrap_or_else(|| Digest::of(&[]))
    }
}

fn node(left: &Digest, right: &Digest) -> Digest {
    hash(NODE, &[left.as_bytes(), right.as_bytes()])
}

fn hash(prefix: &[u8], parts: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(prefix);
    for part in parts {
        hasher.update(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::{LEAF, LogTree, NODE, hash};
    use crate::types::Digest;

    /// The definition of RFC 9162, section 2.1.1, word for word.
    fn merkle_tree_hash(bodies: &[Vec<u8>]) -> Digest {
        match bodies {
            [] => Digest::of(&[]),
            [body] => hash(LEAF, &[body]),
            _ => {
                let mut split = 1;
                while split * 2 < bodies.len() {
                    split *= 2;
                }
                let (left, right) = bodies.split_at(split);
                let (left, right) = (merkle_tree_hash(left), merkle_tree_hash(right));
                hash(NODE, &[left.as_bytes(), right.as_bytes()])
            }
        }
    }

    #[test]
    fn the_root_is_the_merkle_tree_hash_of_the_definition() {
        let bodies: Vec<Vec<u8>> = (0..70_u8).map(|number| vec![number; usize::from(number)]).collect();
        let mut tree = LogTree::default();
        for size in 0..bodies.len() {
            assert_eq!(tree.root(), merkle_tree_hash(&bodies[..size]), "size {size}");
            assert_eq!(tree.size(), size as u64);
            tree.append(&bodies[size]);
        }
    }

    #[test]
    fn an_empty_log_has_the_hash_of_nothing() {
        let root = LogTree::default().root().to_string();
        assert_eq!(root, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
