//! What is at hand of decided blocks, and how more is loaded.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use perihelion_types::{Height, PartSet, PartSetHeader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{Source, Wanted};
use crate::{peer::VotesView, shared::lock};

/// Decided blocks that are kept ready before anybody asks for them: peers that follow are behind by
/// one or two.
const KEPT_DECIDED: usize = 4;
/// Bytes of them; the last one is kept however large.
const KEPT_DECIDED_BYTES: usize = 16 << 20;
/// Bytes of loaded blocks that are kept ready. Fewer, and peers that lag by different heights have
/// large blocks read and cut again for every few parts; more is memory of the node's. At least one
/// block is kept, however large: six of the default's largest fit.
const KEPT_PARTS_BYTES: usize = 128 << 20;
/// Small loaded blocks that are kept ready at most.
const KEPT_PARTS: usize = 256;
/// Commits that are kept ready; they are small.
const KEPT_COMMITS: usize = 32;
/// Bytes of blocks that are held while they are sent, of all peers, each block as often as it is
/// held. Fewer, and large blocks are loaded again for every few parts when more peers lag than
/// [`KEPT_PARTS_BYTES`] has room for; more is memory that peers can claim, one block each.
pub(super) const HELD_BYTES: usize = 128 << 20;
/// Blocks that are loaded at the same time, whoever asks, and commits likewise. More, and peers that
/// claim to lag keep as many cores busy.
const LOADS_AT_ONCE: usize = 1;

/// The last few blocks that were asked for or decided.
pub(super) struct Ready {
    source: Arc<dyn Source>,
    decided: Mutex<Recent<PartSet>>,
    loaded: Mutex<Recent<PartSet>>,
    commits: Mutex<Recent<VotesView>>,
    /// What is being loaded, or waits for its turn.
    loads: Mutex<BTreeMap<Wanted, watch::Receiver<()>>>,
    /// Commits are small: they do not queue behind blocks.
    block_turns: Semaphore,
    commit_turns: Semaphore,
    /// Bytes that may be held.
    pub(super) holds: Arc<Semaphore>,
}

/// A block that is being sent to a peer: it stays at hand for that peer, whatever others ask for.
pub(crate) struct Held {
    pub(super) height: Height,
    pub(super) parts: Arc<PartSet>,
    _room: OwnedSemaphorePermit,
}

impl Ready {
    pub(super) fn new(source: Arc<dyn Source>) -> Arc<Self> {
        Arc::new(Self {
            source,
            decided: Mutex::new(Recent::new(KEPT_DECIDED, KEPT_DECIDED_BYTES)),
            loaded: Mutex::new(Recent::new(KEPT_PARTS, KEPT_PARTS_BYTES)),
            commits: Mutex::new(Recent::new(KEPT_COMMITS, usize::MAX)),
            loads: Mutex::default(),
            block_turns: Semaphore::new(LOADS_AT_ONCE),
            commit_turns: Semaphore::new(LOADS_AT_ONCE),
            holds: Arc::new(Semaphore::new(HELD_BYTES)),
        })
    }

    pub(super) fn header(&self, height: Height) -> Option<PartSetHeader> {
        let of = |kept: &Mutex<Recent<PartSet>>| lock(kept).peek(height).map(|it| it.header());
        of(&self.decided)
            .or_else(|| of(&self.loaded))
            .or_else(|| self.source.header(height))
    }

    pub(super) fn parts(&self, height: Height) -> Option<Arc<PartSet>> {
        let decided = lock(&self.decided).get(height);
        decided.or_else(|| lock(&self.loaded).get(height))
    }

    /// Holds a block, if there is room for it.
    pub(super) fn hold(&self, height: Height, parts: &Arc<PartSet>) -> Option<Held> {
        let bytes = u32::try_from(parts.byte_size()).ok()?;
        let room = Arc::clone(&self.holds).try_acquire_many_owned(bytes).ok()?;
        Some(Held {
            height,
            parts: Arc::clone(parts),
            _room: room,
        })
    }

    pub(super) fn commit(&self, height: Height) -> Option<Arc<VotesView>> {
        lock(&self.commits).get(height)
    }

    /// A block that was decided just now.
    pub(super) fn keep_decided(&self, height: Height, parts: Arc<PartSet>) {
        let bytes = parts.byte_size();
        lock(&self.decided).keep(height, parts, bytes);
    }

    pub(super) fn keep_commit(&self, height: Height, commit: Arc<VotesView>) {
        lock(&self.commits).keep(height, commit, 0);
    }

    /// Loads `wanted`, once for all who want it at the same time. What nobody waits for any more
    /// when its turn comes is not loaded.
    pub(super) fn load(self: &Arc<Self>, wanted: Wanted) -> watch::Receiver<()> {
        let mut loads = lock(&self.loads);
        if let Some(load) = loads.get(&wanted) {
            return load.clone();
        }
        let (tell, load) = watch::channel(());
        loads.insert(wanted, load.clone());
        drop(loads);
        let ready = Arc::clone(self);
        tokio::spawn(async move {
            let turns = match wanted {
                Wanted::Parts(_) => &ready.block_turns,
                Wanted::Commit(_) => &ready.commit_turns,
            };
            // The semaphore is never closed.
            let turn = turns.acquire().await;
            // One is kept among the loads.
            if turn.is_ok() && tell.receiver_count() > 1 {
                let reader = Arc::clone(&ready);
                let read = tokio::task::spawn_blocking(move || reader.read(wanted));
                // One that panicked, or comes while the node stops, has loaded nothing.
                drop(read.await);
            }
            lock(&ready.loads).remove(&wanted);
            drop(tell);
        });
        load
    }

    /// Reads `wanted` unless somebody brought it meanwhile.
    fn read(&self, wanted: Wanted) {
        match wanted {
            Wanted::Parts(height) => {
                if self.parts(height).is_none()
                    && let Some(parts) = self.source.parts(height)
                {
                    let bytes = parts.byte_size();
                    lock(&self.loaded).keep(height, parts, bytes);
                }
            }
            Wanted::Commit(height) => {
                if self.commit(height).is_none()
                    && let Some(commit) = self.source.commit(height)
                {
                    self.keep_commit(height, commit);
                }
            }
        }
    }
}

/// The last few by height, the one that was used longest ago first.
struct Recent<T> {
    kept: VecDeque<Kept<T>>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

struct Kept<T> {
    height: Height,
    bytes: usize,
    value: Arc<T>,
}

impl<T> Recent<T> {
    fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            bytes: 0,
            most,
            most_bytes,
        }
    }

    fn peek(&self, height: Height) -> Option<&Arc<T>> {
        let found = self.kept.iter().find(|kept| kept.height == height);
        found.map(|kept| &kept.value)
    }

    fn get(&mut self, height: Height) -> Option<Arc<T>> {
        let kept = self.take(height)?;
        let value = Arc::clone(&kept.value);
        self.put(kept);
        Some(value)
    }

    fn keep(&mut self, height: Height, value: Arc<T>, bytes: usize) {
        self.take(height);
        self.put(Kept {
            height,
            bytes,
            value,
        });
        while self.kept.len() > 1 && (self.kept.len() > self.most || self.bytes > self.most_bytes) {
            if let Some(oldest) = self.kept.pop_front() {
                self.bytes -= oldest.bytes;
            }
        }
    }

    fn take(&mut self, height: Height) -> Option<Kept<T>> {
        let place = self.kept.iter().position(|kept| kept.height == height)?;
        let kept = self.kept.remove(place)?;
        self.bytes -= kept.bytes;
        Some(kept)
    }

    fn put(&mut self, kept: Kept<T>) {
        self.bytes += kept.bytes;
        self.kept.push_back(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(recent: &Recent<i64>) -> Vec<i64> {
        recent.kept.iter().map(|kept| *kept.value).collect()
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut recent = Recent::new(3, 100);
        for number in 1..=3 {
            recent.keep(Height::new(number), Arc::new(number), 10);
        }
        // A hit, and not a look, makes it the last one.
        assert_eq!(recent.get(Height::new(1)).as_deref(), Some(&1));
        assert_eq!(recent.peek(Height::new(2)).map(|kept| **kept), Some(2));
        recent.keep(Height::new(4), Arc::new(4), 10);
        assert_eq!(kept(&recent), [3, 1, 4]);
        assert_eq!(recent.get(Height::new(2)), None);
        // The same height again takes no more room.
        recent.keep(Height::new(3), Arc::new(30), 70);
        assert_eq!((kept(&recent), recent.bytes), (vec![1, 4, 30], 90));
        recent.keep(Height::new(5), Arc::new(5), 25);
        assert_eq!((kept(&recent), recent.bytes), (vec![30, 5], 95));
        // However large, one is kept.
        recent.keep(Height::new(6), Arc::new(6), 1_000);
        assert_eq!((kept(&recent), recent.bytes), (vec![6], 1_000));
    }
}
