use std::sync::Arc;

use perihelion_types::{Hash, Height, ValidatorSet};

/// Validator sets that our own state has confirmed, the latest last. Few: a chain that changes
/// its set often seldom returns to an old one.
const KEPT: usize = 8;

/// The sets that runs are verified against.
#[derive(Debug)]
pub(crate) struct Anchors {
    /// Distinct sets by hash.
    known: Vec<(Hash, Arc<ValidatorSet>)>,
    /// Set of the height after the last applied one.
    pub(crate) current: Arc<ValidatorSet>,
    /// Set of the height after that.
    pub(crate) next: Arc<ValidatorSet>,
    /// V, its hash, and the height whose set it is for certain.
    pub(crate) anchor: (Arc<ValidatorSet>, Hash, Height),
}

impl Anchors {
    pub(crate) fn new(
        next_height: Height,
        current: Arc<ValidatorSet>,
        next: Arc<ValidatorSet>,
    ) -> Self {
        let hash = current.hash();
        let mut anchors = Self {
            known: vec![(hash, Arc::clone(&current))],
            current: Arc::clone(&current),
            next: Arc::clone(&next),
            anchor: (current, hash, next_height),
        };
        anchors.learn(&next);
        anchors
    }

    /// Adds a set of our state; its hash is computed only when the members are new.
    fn learn(&mut self, set: &Arc<ValidatorSet>) {
        if self.known.iter().any(|(_, known)| same_members(known, set)) {
            return;
        }
        if self.known.len() == KEPT {
            self.known.remove(0);
        }
        self.known.push((set.hash(), Arc::clone(set)));
    }

    /// A block was applied: `next` is the set of the height two above it.
    pub(crate) fn applied(&mut self, next: &Arc<ValidatorSet>) {
        self.current = Arc::clone(&self.next);
        self.next = Arc::clone(next);
        self.learn(next);
    }

    /// Other blocks were applied: `current` is the set of the next height, `next` of the one after.
    pub(crate) fn decided(&mut self, current: Arc<ValidatorSet>, next: Arc<ValidatorSet>) {
        self.learn(&current);
        self.learn(&next);
        self.current = current;
        self.next = next;
    }

    /// Makes a known set with this hash the one of `height`; says whether there is one.
    pub(crate) fn certify(&mut self, height: Height, hash: Hash) -> bool {
        match self.by_hash(hash) {
            Some(set) => {
                self.anchor = (set, hash, height);
                true
            }
            None => false,
        }
    }

    pub(crate) fn by_hash(&self, hash: Hash) -> Option<Arc<ValidatorSet>> {
        let found = self.known.iter().find(|(known, _)| *known == hash);
        found.map(|(_, set)| Arc::clone(set))
    }

    /// Makes a set of our state V.
    pub(crate) fn restore(&mut self, height: Height, set: Arc<ValidatorSet>) {
        if same_members(&self.anchor.0, &set) {
            self.anchor.2 = height;
            return;
        }
        let known = self
            .known
            .iter()
            .find(|(_, known)| same_members(known, &set));
        let hash = known.map_or_else(|| set.hash(), |(hash, _)| *hash);
        self.anchor = (set, hash, height);
    }
}

/// Whether two sets hash alike: the same keys with the same powers in the same order.
fn same_members(a: &Arc<ValidatorSet>, b: &Arc<ValidatorSet>) -> bool {
    Arc::ptr_eq(a, b)
        || (a.len() == b.len()
            && a.validators()
                .iter()
                .zip(b.validators())
                .all(|(a, b)| a.voting_power == b.voting_power && a.pub_key == b.pub_key))
}
