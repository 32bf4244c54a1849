//! Merkle trees as of RFC 9162: the head of a growing list, and proofs that one item stands in a list.
//!
//! It is not the list itself: a [`MerkleTree`] holds only the roots of the complete subtrees, at most 64 of
//! them, and a [`ProofTree`] hashes only. Invariant: the root equals the Merkle Tree Hash of RFC 9162, section 2.1.1, over all items.

use borsh::{BorshDeserialize, BorshSerialize, io};

use super::digest::{Digest, Hasher};

/// A leaf's hash begins with this byte and a node's with the other, so that neither passes for the other.
const LEAF: &[u8] = &[0];
const NODE: &[u8] = &[1];

/// The longest path of a proof: a list has fewer than 2^64 items.
const MAX_PATH: u32 = 64;

/// The head of a growing Merkle tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MerkleTree {
    size: u64,
    /// The roots of the complete subtrees, the largest first: one for each bit that is set in the size.
    subtrees: Vec<Digest>,
}

impl MerkleTree {
    /// Whether there is a subtree for each bit of the size: not of all bytes that decode.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.subtrees.len() == self.size.count_ones() as usize
    }

    /// How many items the list has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds an item at the end.
    pub fn append(&mut self, item: &[u8]) {
        self.append_leaf(leaf_hash(item));
    }

    /// Adds an item at the end, by its [`leaf_hash`].
    pub fn append_leaf(&mut self, leaf: Digest) {
        let mut root = leaf;
        // Each trailing one of the size is a complete subtree that the new one completes to the next size.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                root = node(&left, &root);
            }
        }
        self.subtrees.push(root);
        self.size = self.size.saturating_add(1);
    }

    /// The tree head; of an empty list it is the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Digest {
        let from_the_right = self.subtrees.iter().rev().copied();
        from_the_right.reduce(|right, left| node(&left, &right)).unwrap_or_else(|| Digest::of(&[]))
    }
}

/// The hash by which an item stands in the tree.
#[must_use]
pub fn leaf_hash(item: &[u8]) -> Digest {
    hash(LEAF, &[item])
}

/// A proof that an item stands at a place of a list (RFC 9162, section 2.1.3): the roots of the subtrees beside
/// its way to the root, the nearest first.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct InclusionProof(Vec<Digest>);

impl InclusionProof {
    /// The proof for the item at this place of a list, by the list's leaf hashes; `None` when there is none. Who needs
    /// several keeps a [`ProofTree`].
    #[must_use]
    pub fn of(leaves: &[Digest], place: usize) -> Option<Self> {
        ProofTree::of(leaves.to_vec()).proof(place)
    }

    /// Whether it proves that an item of this leaf hash stands at this place of a list of so many items with this
    /// root (RFC 9162, section 2.1.3.2).
    #[must_use]
    pub fn proves(&self, leaf: Digest, place: u64, items: u64, root: Digest) -> bool {
        if place >= items {
            return false;
        }
        let (mut place, mut last) = (place, items - 1);
        let mut hash = leaf;
        for beside in &self.0 {
            if last == 0 {
                return false;
            }
            if place % 2 == 1 || place == last {
                hash = node(beside, &hash);
                if place % 2 == 0 {
                    // It is the last item, whose way skips the levels where nothing stands beside it.
                    let skipped = place.trailing_zeros();
                    (place, last) = (place >> skipped, last >> skipped);
                }
            } else {
                hash = node(&hash, beside);
            }
            (place, last) = (place / 2, last / 2);
        }
        last == 0 && hash == root
    }
}

/// All nodes of a list's tree, for proofs: one takes as many steps as the tree has levels, not as the list has items.
#[derive(Clone, Debug)]
pub struct ProofTree {
    /// The leaf hashes, then the nodes above them, up to the root. A last node without one beside it stands in the next
    /// level as it is.
    levels: Vec<Vec<Digest>>,
}

impl ProofTree {
    /// The tree over these leaf hashes.
    #[must_use]
    pub fn of(leaves: Vec<Digest>) -> Self {
        let mut levels = Vec::new();
        let mut level = leaves;
        while level.len() > 1 {
            let pairs = level.chunks(2).filter_map(|pair| {
                let nodes = pair.iter().copied();
                nodes.reduce(|left, right| node(&left, &right))
            });
            let above = pairs.collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        levels.push(level);
        Self { levels }
    }

    /// The proof for the item at this place; `None` when there is none.
    #[must_use]
    pub fn proof(&self, place: usize) -> Option<InclusionProof> {
        let mut place = Some(place).filter(|place| *place < self.levels[0].len())?;
        let mut path = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            path.extend(level.get(place ^ 1));
            place /= 2;
        }
        Some(InclusionProof(path))
    }
}

impl BorshDeserialize for InclusionProof {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let claimed = u32::deserialize_reader(reader)?;
        if claimed > MAX_PATH {
            let error = format!("a path of {claimed} hashes, where {MAX_PATH} are the most");
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        (0..claimed).map(|_| Digest::deserialize_reader(reader)).collect::<io::Result<_>>().map(Self)
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
    use super::{Digest, InclusionProof, LEAF, MerkleTree, NODE, hash, leaf_hash};

    /// The definition of RFC 9162, section 2.1.1, word for word.
    fn merkle_tree_hash(items: &[Vec<u8>]) -> Digest {
        match items {
            [] => Digest::of(&[]),
            [item] => hash(LEAF, &[item]),
            _ => {
                let mut split = 1;
                while split * 2 < items.len() {
                    split *= 2;
                }
                let (left, right) = items.split_at(split);
                let (left, right) = (merkle_tree_hash(left), merkle_tree_hash(right));
                hash(NODE, &[left.as_bytes(), right.as_bytes()])
            }
        }
    }

    fn items() -> Vec<Vec<u8>> {
        (0..70_u8).map(|number| vec![number; usize::from(number)]).collect()
    }

    #[test]
    fn the_root_is_the_merkle_tree_hash_of_the_definition() {
        let items = items();
        let mut tree = MerkleTree::default();
        for size in 0..items.len() {
            assert_eq!(tree.root(), merkle_tree_hash(&items[..size]), "size {size}");
            assert_eq!(tree.size(), size as u64);
            tree.append(&items[size]);
        }
    }

    #[test]
    fn an_empty_list_has_the_hash_of_nothing() {
        let root = MerkleTree::default().root().to_string();
        assert_eq!(root, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn each_item_is_proven_at_its_own_place_and_at_no_other() {
        let items = items();
        for size in 1..items.len() {
            let leaves: Vec<Digest> = items[..size].iter().map(|item| leaf_hash(item)).collect();
            let root = merkle_tree_hash(&items[..size]);
            for place in 0..size {
                let proof = InclusionProof::of(&leaves, place).expect("inside");
                for claimed in 0..=size {
                    let proven = proof.proves(leaves[place], claimed as u64, size as u64, root);
                    assert_eq!(proven, claimed == place, "item {place} of {size}, claimed at {claimed}");
                }
            }
            assert_eq!(InclusionProof::of(&leaves, size), None);
        }
    }

    #[test]
    fn a_proof_of_another_item_root_length_or_path_proves_nothing() {
        let items = items();
        let leaves: Vec<Digest> = items[..7].iter().map(|item| leaf_hash(item)).collect();
        let root = merkle_tree_hash(&items[..7]);
        let proof = InclusionProof::of(&leaves, 2).expect("inside");
        assert!(proof.proves(leaves[2], 2, 7, root));
        assert!(!proof.proves(leaf_hash(b"other"), 2, 7, root));
        assert!(!proof.proves(leaves[2], 2, 7, Digest::ZERO));
        for items in [0, 2, 3, 4, 9, 100, u64::MAX] {
            assert!(!proof.proves(leaves[2], 2, items, root), "of {items}");
        }
        let mut longer = proof.clone();
        longer.0.push(root);
        assert!(!longer.proves(leaves[2], 2, 7, root));
        let shorter = InclusionProof(proof.0[1..].to_vec());
        assert!(!shorter.proves(leaves[2], 2, 7, root));
    }
}
