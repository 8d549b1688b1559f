use perihelion_consensus::BitArray;
use perihelion_types::PeerId;

/// Chooses among what a peer lacks. Nodes that send to one peer begin at different places, so that
/// it does not get the same thing from all of them; the same choices come again with the same ids.
#[derive(Debug, Clone)]
pub(super) struct Picks {
    seed: u64,
    count: u64,
}

impl Picks {
    pub(super) fn new(own: &PeerId, peer: &PeerId) -> Self {
        let bytes = own.as_bytes().iter().chain(peer.as_bytes());
        // FNV-1a.
        let seed = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { seed, count: 0 }
    }

    /// One of the indexes in `lacking`, if there is any.
    pub(super) fn pick(&mut self, lacking: &BitArray) -> Option<usize> {
        if lacking.is_empty() {
            return None;
        }
        self.count = self.count.wrapping_add(1);
        let size = u64::try_from(lacking.size()).unwrap_or(u64::MAX);
        let start = mixed(self.seed.wrapping_add(self.count)) % size;
        let start = usize::try_from(start).unwrap_or(0);
        // The first one from there on, else the first of all.
        let mut all = lacking.iter();
        let first = all.next()?;
        if first >= start {
            return Some(first);
        }
        Some(all.find(|index| *index >= start).unwrap_or(first))
    }
}

/// Spreads neighbours over all numbers (the finalizer of SplitMix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use perihelion_types::NodeId;

    use super::*;

    #[test]
    fn all_are_picked_and_nothing_else() {
        let mut picks = Picks::new(&NodeId::new([1; 20]), &NodeId::new([2; 20]));
        let mut lacking = BitArray::new(130);
        let wanted = [0, 63, 64, 100, 129];
        wanted.iter().for_each(|index| lacking.set(*index, true));
        let mut picked = BTreeSet::new();
        while let Some(index) = picks.pick(&lacking) {
            assert!(lacking.get(index));
            lacking.set(index, false);
            assert!(picked.insert(index));
        }
        assert_eq!(picked, BTreeSet::from(wanted));
    }

    #[test]
    fn senders_begin_at_different_places() {
        let mut all = BitArray::new(100);
        (0..100).for_each(|index| all.set(index, true));
        let to = NodeId::new([9; 20]);
        let first: BTreeSet<_> = (0..20)
            .map(|sender| Picks::new(&NodeId::new([sender; 20]), &to).pick(&all))
            .collect();
        assert!(first.len() >= 15, "{first:?}");
    }
}
