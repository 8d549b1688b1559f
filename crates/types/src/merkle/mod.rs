//! RFC 6962 Merkle trees as CometBFT builds them, and proofs.

mod proof;
mod proof_ops;

pub use proof::{MAX_AUNTS, Proof, ProofError, proofs};
pub use proof_ops::{ProofOpsError, verify_value};

use crate::Hash;

/// A node's hash.
pub type Node = [u8; 32];

/// Hash of a leaf: SHA-256 of 0x00 and its bytes.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Node {
    perihelion_crypto::sha256_pair(&[0], leaf)
}

/// Hash of an inner node: SHA-256 of 0x01 and both children.
#[must_use]
pub fn inner_hash(left: &Node, right: &Node) -> Node {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    perihelion_crypto::sha256(&bytes)
}

/// Root over `leaves`; SHA-256 of nothing when there is none.
#[must_use]
pub fn root<L: AsRef<[u8]>>(leaves: &[L]) -> Hash {
    root_of(leaves.iter().map(|leaf| leaf_hash(leaf.as_ref())).collect())
}

/// Root over leaves that are hashed already ([`leaf_hash`]), in place.
///
/// A tree splits its leaves at the largest power of two below their number, so pairing neighbours
/// level by level, an odd last one moving up as it is, builds the same tree from below.
#[must_use]
pub fn root_of(mut nodes: Vec<Node>) -> Hash {
    while nodes.len() > 1 {
        let mut above = 0;
        for below in (0..nodes.len()).step_by(2) {
            nodes[above] = match nodes.get(below + 1) {
                Some(right) => inner_hash(&nodes[below], right),
                None => nodes[below],
            };
            above += 1;
        }
        nodes.truncate(above);
    }
    nodes
        .first()
        .map_or_else(|| Hash::of(&[]), |root| Hash::new(*root))
}

/// [`root_of`] over leaves that come one by one, without keeping them.
#[must_use]
pub fn root_of_iter(nodes: impl Iterator<Item = Node>) -> Hash {
    // Roots of whole subtrees from the left, each of fewer levels than the one before it.
    let mut whole: Vec<(u32, Node)> = Vec::new();
    for mut node in nodes {
        let mut level = 0;
        while let Some((_, left)) = whole.pop_if(|(below, _)| *below == level) {
            node = inner_hash(&left, &node);
            level += 1;
        }
        whole.push((level, node));
    }
    let mut nodes = whole.into_iter().rev().map(|(_, node)| node);
    let Some(last) = nodes.next() else {
        return Hash::of(&[]);
    };
    Hash::new(nodes.fold(last, |right, left| inner_hash(&left, &right)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_one_by_one_have_the_root_of_all_at_once() {
        for count in 0..200_u32 {
            let leaves: Vec<Node> = (0..count)
                .map(|leaf| leaf_hash(&leaf.to_be_bytes()))
                .collect();
            let one_by_one = root_of_iter(leaves.iter().copied());
            assert_eq!(one_by_one, root_of(leaves), "{count}");
        }
    }
}
