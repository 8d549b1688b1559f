//! Decided blocks for peers that lag, out of the store.
//!
//! What peers claim must not make this node read: a block is loaded only once its header is what
//! the peer collects, off the threads that serve the connections, one at a time, and once for all
//! who want it. While a block is sent to a peer that peer's task holds it.
//!
//! Reading order: this file (what peers' tasks see), `ready` (what is at hand, and the loading).

mod ready;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use perihelion_store::{Store, StoreError};
use perihelion_types::{Height, PartSet, PartSetHeader};
use tokio::sync::watch;

use crate::peer::{Stored, VotesView};
pub(crate) use ready::Held;
use ready::Ready;

/// What is loaded for peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    /// A whole block, cut into parts.
    Parts(Height),
    /// A commit.
    Commit(Height),
}

/// Where decided blocks are read. What cannot be read is not there.
pub(crate) trait Source: Send + Sync {
    /// Count and root of a block's parts, in one small read.
    fn header(&self, height: Height) -> Option<PartSetHeader>;
    /// A block's parts: reads and hashes all of it.
    fn parts(&self, height: Height) -> Option<Arc<PartSet>>;
    /// What made a block final.
    fn commit(&self, height: Height) -> Option<Arc<VotesView>>;
}

/// The store, with what was asked for last.
pub(crate) struct StoredBlocks {
    store: Arc<Store>,
    ready: Arc<Ready>,
}

impl StoredBlocks {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let source = Arc::clone(&store);
        Self {
            store,
            ready: Ready::new(source),
        }
    }

    /// A block that was decided just now: peers that lag by one ask for it first.
    pub(crate) fn decided(&self, height: Height, parts: Option<Arc<PartSet>>, commit: VotesView) {
        if let Some(parts) = parts.filter(|parts| parts.is_complete()) {
            self.ready.keep_decided(height, parts);
        }
        self.ready.keep_commit(height, Arc::new(commit));
    }

    /// The height above the last stored block.
    pub(crate) fn next_height(&self) -> Height {
        self.store.height().next()
    }

    /// The lowest stored block.
    pub(crate) fn base(&self) -> Height {
        self.store.base()
    }

    /// One look for a peer: at what is at hand, and at the block that is held for it.
    pub(crate) fn look(&self, held: Option<Held>) -> Look<'_> {
        Look::at(&self.ready, held)
    }

    /// Has something loaded. The end of the receiver's changes tells that it is there, or cannot be
    /// had.
    pub(crate) fn load(&self, wanted: Wanted) -> watch::Receiver<()> {
        self.ready.load(wanted)
    }
}

/// What is at hand, and what was missed. Never reads a block.
pub(crate) struct Look<'a> {
    ready: &'a Ready,
    held: RefCell<Option<Held>>,
    commit: Cell<Option<Height>>,
    parts: Cell<Option<Height>>,
}

impl<'a> Look<'a> {
    fn at(ready: &'a Ready, held: Option<Held>) -> Self {
        Self {
            ready,
            held: RefCell::new(held),
            commit: Cell::new(None),
            parts: Cell::new(None),
        }
    }

    /// What was asked for and is to be loaded: a commit first, since it is small, and a peer
    /// collects a block when it has seen its commit.
    pub(crate) fn missed(&self) -> impl Iterator<Item = Wanted> + use<> {
        let commit = self.commit.get().map(Wanted::Commit);
        commit
            .into_iter()
            .chain(self.parts.get().map(Wanted::Parts))
    }

    /// The block that was looked at last, to be held as long as there is more of it to send.
    pub(crate) fn into_held(self) -> Option<Held> {
        self.held.into_inner()
    }
}

impl Stored for Look<'_> {
    fn header(&self, height: Height) -> Option<PartSetHeader> {
        self.ready.header(height)
    }

    fn parts(&self, height: Height) -> Option<Arc<PartSet>> {
        let mut held = self.held.borrow_mut();
        if let Some(held) = held.as_ref().filter(|held| held.height == height) {
            return Some(Arc::clone(&held.parts));
        }
        let parts = self.ready.parts(height);
        *held = match &parts {
            Some(parts) => self.ready.hold(height, parts),
            None => {
                self.parts.set(Some(height));
                None
            }
        };
        parts
    }

    fn commit(&self, height: Height) -> Option<Arc<VotesView>> {
        let commit = self.ready.commit(height);
        if commit.is_none() {
            self.commit.set(Some(height));
        }
        commit
    }
}

impl Source for Store {
    fn header(&self, height: Height) -> Option<PartSetHeader> {
        readable(self, height, self.load_parts_header(height))
    }

    fn parts(&self, height: Height) -> Option<Arc<PartSet>> {
        let bytes = readable(self, height, self.load_block_bytes(height))?;
        (!bytes.is_empty()).then(|| Arc::new(PartSet::from_data(bytes)))
    }

    fn commit(&self, height: Height) -> Option<Arc<VotesView>> {
        readable(self, height, load_commit(self, height)).map(Arc::new)
    }
}

/// Where vote extensions are enabled a peer takes no vote without one.
fn load_commit(store: &Store, height: Height) -> Result<Option<VotesView>, StoreError> {
    let params = store.load_consensus_params(height)?;
    if params.is_some_and(|params| params.vote_extensions_enabled(height)) {
        let commit = store.load_extended_commit(height)?;
        return Ok(commit.map(|commit| VotesView::of_extended_commit(&commit)));
    }
    let commit = match store.load_commit(height)? {
        Some(commit) => Some(commit),
        None => store.load_seen_commit(height)?,
    };
    Ok(commit.map(|commit| VotesView::of_commit(&commit)))
}

/// A store that cannot be read has nothing for peers.
fn readable<T>(store: &Store, height: Height, loaded: Result<Option<T>, StoreError>) -> Option<T> {
    loaded.unwrap_or_else(|error| {
        store.report_unreadable(&error);
        tracing::debug!(height = height.get(), %error, "a stored block cannot be read for a peer");
        None
    })
}
