//! Decided blocks for peers that lag, out of the store.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use perihelion_store::{Store, StoreError};
use perihelion_types::{Height, PartSet};

use crate::{
    peer::{Stored, VotesView},
    shared::lock,
};

/// Blocks whose parts are kept ready. One is asked for once for each part that is sent: fewer, and
/// peers that lag by different heights have the same blocks cut again and again; more cost memory,
/// as much as the largest blocks.
const KEPT_BLOCKS: usize = 4;
/// Commits that are kept ready; they are small.
const KEPT_COMMITS: usize = 32;

/// The store, with what was asked for last.
pub(crate) struct StoredBlocks {
    store: Arc<Store>,
    parts: Mutex<Recent<PartSet>>,
    commits: Mutex<Recent<VotesView>>,
}

/// The last few by height, oldest first.
struct Recent<T> {
    kept: VecDeque<(Height, Arc<T>)>,
    most: usize,
}

impl<T> Recent<T> {
    fn new(most: usize) -> Mutex<Self> {
        Mutex::new(Self {
            kept: VecDeque::with_capacity(most),
            most,
        })
    }

    fn get(&self, height: Height) -> Option<Arc<T>> {
        let found = self.kept.iter().find(|(at, _)| *at == height);
        found.map(|(_, kept)| Arc::clone(kept))
    }

    fn keep(&mut self, height: Height, value: Arc<T>) {
        self.kept.retain(|(at, _)| *at != height);
        if self.kept.len() >= self.most {
            self.kept.pop_front();
        }
        self.kept.push_back((height, value));
    }
}

impl StoredBlocks {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            parts: Recent::new(KEPT_BLOCKS),
            commits: Recent::new(KEPT_COMMITS),
        }
    }

    /// A block that was decided just now: peers that lag by one ask for it first.
    pub(crate) fn decided(&self, height: Height, parts: Option<Arc<PartSet>>, commit: VotesView) {
        if let Some(parts) = parts.filter(|parts| parts.is_complete()) {
            lock(&self.parts).keep(height, parts);
        }
        lock(&self.commits).keep(height, Arc::new(commit));
    }

    /// The height above the last stored block.
    pub(crate) fn next_height(&self) -> Height {
        self.store.height().next()
    }

    /// The lowest stored block.
    pub(crate) fn base(&self) -> Height {
        self.store.base()
    }

    fn load_parts(&self, height: Height) -> Result<Option<PartSet>, StoreError> {
        let bytes = self.store.load_block_bytes(height)?;
        Ok(bytes
            .filter(|bytes| !bytes.is_empty())
            .map(PartSet::from_data))
    }

    /// Where vote extensions are enabled a peer takes no vote without one.
    fn load_commit(&self, height: Height) -> Result<Option<VotesView>, StoreError> {
        let params = self.store.load_consensus_params(height)?;
        if params.is_some_and(|params| params.vote_extensions_enabled(height)) {
            let commit = self.store.load_extended_commit(height)?;
            return Ok(commit.map(|commit| VotesView::of_extended_commit(&commit)));
        }
        let commit = match self.store.load_commit(height)? {
            Some(commit) => Some(commit),
            None => self.store.load_seen_commit(height)?,
        };
        Ok(commit.map(|commit| VotesView::of_commit(&commit)))
    }
}

impl Stored for StoredBlocks {
    fn parts(&self, height: Height) -> Option<Arc<PartSet>> {
        recall(&self.store, &self.parts, height, || self.load_parts(height))
    }

    fn commit(&self, height: Height) -> Option<Arc<VotesView>> {
        recall(&self.store, &self.commits, height, || {
            self.load_commit(height)
        })
    }
}

/// What is kept, or else is loaded; a store that cannot be read has nothing for peers.
fn recall<T>(
    store: &Store,
    recent: &Mutex<Recent<T>>,
    height: Height,
    load: impl FnOnce() -> Result<Option<T>, StoreError>,
) -> Option<Arc<T>> {
    if let Some(kept) = lock(recent).get(height) {
        return Some(kept);
    }
    match load() {
        Ok(loaded) => {
            let loaded = Arc::new(loaded?);
            lock(recent).keep(height, Arc::clone(&loaded));
            Some(loaded)
        }
        Err(error) => {
            store.report_unreadable(&error);
            tracing::debug!(height = height.get(), %error, "a stored block cannot be read for a peer");
            None
        }
    }
}
