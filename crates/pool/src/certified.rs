//! Certified blocks that wait to be applied, and the runs that may still bring some.

use std::collections::{BTreeMap, BTreeSet};

use perihelion_types::Height;

/// Blocks by height, with the id of the run that certified them. A run that was taken back brings
/// none, whenever its verdict comes: its heights belong to other runs by then, or are applied.
#[derive(Debug)]
pub(crate) struct Certified<I, B> {
    blocks: BTreeMap<Height, (I, B)>,
    awaited: BTreeSet<I>,
}

impl<I: Copy + Ord, B> Certified<I, B> {
    pub(crate) const fn new() -> Self {
        Self {
            blocks: BTreeMap::new(),
            awaited: BTreeSet::new(),
        }
    }

    /// A run went to the workers.
    pub(crate) fn await_run(&mut self, id: I) {
        self.awaited.insert(id);
    }

    /// Its verdict is here; `false` when it was taken back meanwhile.
    pub(crate) fn take_verdict(&mut self, id: I) -> bool {
        self.awaited.remove(&id)
    }

    /// A run was taken back, with or without a verdict.
    pub(crate) fn cancel(&mut self, id: I) {
        self.awaited.remove(&id);
        self.blocks.retain(|_, (run, _)| *run != id);
    }

    pub(crate) fn insert(&mut self, height: Height, id: I, block: B) {
        self.blocks.insert(height, (id, block));
    }

    pub(crate) fn get(&self, height: Height) -> Option<&B> {
        self.blocks.get(&height).map(|(_, block)| block)
    }

    pub(crate) fn get_mut(&mut self, height: Height) -> Option<&mut B> {
        self.blocks.get_mut(&height).map(|(_, block)| block)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// All up to this height are applied.
    pub(crate) fn pass(&mut self, height: Height) {
        self.blocks = self.blocks.split_off(&height.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule: a verdict that comes after its run was taken back changes nothing.
    #[test]
    fn a_cancelled_run_brings_no_blocks() {
        let (first, second) = (1, 2);
        let height = Height::new(7);
        let mut certified = Certified::new();
        certified.await_run(first);
        certified.await_run(second);
        certified.cancel(first);
        assert!(certified.take_verdict(second));
        certified.insert(height, second, "kept");
        assert!(!certified.take_verdict(first), "it was taken back");
        certified.cancel(second);
        assert_eq!(certified.get(height), None, "taken back after its verdict");
    }
}
