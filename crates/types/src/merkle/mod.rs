//! RFC 6962 Merkle trees as CometBFT builds them, and proofs.

mod proof;
mod proof_ops;

pub use proof::{MAX_AUNTS, Proof, ProofError, Tree, proofs};
pub use proof_ops::{ProofOpsError, verify_value};

use perihelion_crypto::{SHA256_GROUP, sha256_each};

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

/// Leaves in a group of [`root_of_groups`]: a power of two, so that whole groups are whole subtrees.
/// More would take more memory beside the leaves, fewer would be hashed less at once.
pub const GROUP: usize = 1024;

/// Hashes of leaves, in order: as [`leaf_hash`] of each, many at once.
#[must_use]
pub fn leaf_hashes(leaves: &[&[u8]]) -> Vec<Node> {
    let mut nodes = vec![[0; 32]; leaves.len()];
    sha256_each(&[0], leaves, &mut nodes);
    nodes
}

/// Root over `leaves`; SHA-256 of nothing when there is none.
#[must_use]
pub fn root<L: AsRef<[u8]>>(leaves: &[L]) -> Hash {
    root_of_groups(leaves.chunks(GROUP).map(|group| {
        let group: Vec<&[u8]> = group.iter().map(AsRef::as_ref).collect();
        leaf_hashes(&group)
    }))
}

/// Root over leaves that are hashed already ([`leaf_hash`]), in place.
///
/// A tree splits its leaves at the largest power of two below their number, so pairing neighbours
/// level by level, an odd last one moving up as it is, builds the same tree from below.
#[must_use]
pub fn root_of(mut nodes: Vec<Node>) -> Hash {
    root_node(&mut nodes).map_or_else(|| Hash::of(&[]), Hash::new)
}

/// The same, `None` when there is no leaf.
fn root_node(nodes: &mut Vec<Node>) -> Option<Node> {
    while nodes.len() > 1 {
        fold(nodes);
    }
    nodes.first().copied()
}

/// [`root_of`] where many neighbours are equal: what was hashed for the pair before is not hashed
/// again. Where all differ it costs little more, but memory for twice as many nodes.
#[must_use]
pub fn root_of_runs(mut nodes: Vec<Node>) -> Hash {
    while nodes.len() > 1 {
        let (pairs, odd) = nodes.as_chunks::<2>();
        let runs: Vec<&[[Node; 2]]> = pairs.chunk_by(PartialEq::eq).collect();
        let children: Vec<&[u8]> = runs.iter().map(|run| run[0].as_flattened()).collect();
        let mut parents = vec![[0; 32]; runs.len()];
        sha256_each(&[1], &children, &mut parents);
        let mut above = Vec::with_capacity(nodes.len().div_ceil(2));
        for (run, parent) in runs.iter().zip(parents) {
            above.extend(std::iter::repeat_n(parent, run.len()));
        }
        above.extend(odd);
        nodes = above;
    }
    root_of(nodes)
}

/// Puts the level above `nodes`, of which there are two or more, in their place.
fn fold(nodes: &mut Vec<Node>) {
    let pairs = nodes.len() / 2;
    for start in (0..pairs).step_by(SHA256_GROUP) {
        let count = SHA256_GROUP.min(pairs - start);
        let mut above = [[0; 32]; SHA256_GROUP];
        let mut children = [&[][..]; SHA256_GROUP];
        let below = nodes[2 * start..].as_flattened().chunks_exact(64);
        children
            .iter_mut()
            .zip(below)
            .for_each(|(at, pair)| *at = pair);
        sha256_each(&[1], &children[..count], &mut above[..count]);
        nodes[start..start + count].copy_from_slice(&above[..count]);
    }
    if nodes.len() % 2 == 1 {
        nodes[pairs] = nodes[nodes.len() - 1];
    }
    nodes.truncate(nodes.len().div_ceil(2));
}

/// [`root_of`] over leaves that come in groups, without keeping them: each of [`GROUP`] leaves, but
/// for the last one, which may have fewer.
#[must_use]
pub fn root_of_groups(groups: impl Iterator<Item = Vec<Node>>) -> Hash {
    // Roots of whole subtrees from the left, each of fewer levels than the one before it.
    let mut whole: Vec<(u32, Node)> = Vec::new();
    let mut last = None;
    for mut group in groups {
        debug_assert!(last.is_none(), "only the last group is smaller");
        let is_whole = group.len() == GROUP;
        let Some(mut node) = root_node(&mut group) else {
            continue;
        };
        if !is_whole {
            last = Some(node);
            continue;
        }
        let mut level = 0;
        while let Some((_, left)) = whole.pop_if(|(below, _)| *below == level) {
            node = inner_hash(&left, &node);
            level += 1;
        }
        whole.push((level, node));
    }
    let mut nodes = last
        .into_iter()
        .chain(whole.into_iter().rev().map(|(_, node)| node));
    let Some(last) = nodes.next() else {
        return Hash::of(&[]);
    };
    Hash::new(nodes.fold(last, |right, left| inner_hash(&left, &right)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the specification has it: cut at the largest power of two below the number.
    fn by_cutting(leaves: &[Node]) -> Node {
        match leaves {
            [] => perihelion_crypto::sha256(&[]),
            [leaf] => *leaf,
            _ => {
                let cut = 1 << (leaves.len() - 1).ilog2();
                inner_hash(&by_cutting(&leaves[..cut]), &by_cutting(&leaves[cut..]))
            }
        }
    }

    #[test]
    fn however_leaves_come_their_root_is_that_of_cutting_in_two() {
        let many = [1, 2, 3, 4, 5].map(|groups| GROUP * groups);
        let near = many.iter().flat_map(|count| count - 1..=count + 2);
        for count in (0..200).chain(near) {
            let data: Vec<_> = (0..count).map(|leaf| leaf.to_be_bytes()).collect();
            let leaves: Vec<Node> = data.iter().map(|leaf| leaf_hash(leaf)).collect();
            let expected = Hash::new(by_cutting(&leaves));
            assert_eq!(root(&data), expected, "{count}");
            let groups = leaves.chunks(GROUP).map(<[_]>::to_vec);
            assert_eq!(root_of_groups(groups), expected, "{count}");
            assert_eq!(root_of_runs(leaves.clone()), expected, "{count}");
            assert_eq!(root_of(leaves), expected, "{count}");
        }
    }
}
