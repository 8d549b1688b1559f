use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    hint::black_box,
    sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard},
};

use bytes::Bytes;
use foldhash::{SharedSeed, quality::SeedableRandomState};
use hashbrown::{HashTable, hash_table::Entry};
use thiserror::Error;

/// One change to what a built-in application keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppWrite {
    /// The key.
    pub key: Vec<u8>,
    /// The value, or `None` to delete the key.
    pub value: Option<Bytes>,
}

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// What a built-in application keeps could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the application's data cannot be used: {0}")]
pub struct AppStoreError(pub String);

/// Reads of what a built-in application keeps. It is written by whoever applies the
/// application's [`AppWrite`]s together with the block that caused them.
pub trait AppStore: Send + Sync + 'static {
    /// The value of `key`, `None` when it is not there.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppStoreError>;

    /// All keys that begin with `prefix`, in their order. For prefixes of few keys only.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, AppStoreError>;
}

/// An [`AppStore`] that an application writes itself: that of an application in a process of its own.
pub trait OwnAppStore: AppStore {
    /// Makes `writes`, in their order, all or none. They survive a power cut when it returns.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn keep(&self, writes: Vec<AppWrite>) -> Result<(), AppStoreError>;
}

/// Bytes beyond twice what is kept that replaced pairs may hold, before what is kept is copied.
const SLACK: usize = 1 << 20;

/// Pairs that are set step by step together. More take memory, and do not stay in a cache until the
/// next step; fewer have less to wait for at once.
const AT_ONCE: usize = 1024;

/// An [`AppStore`] in memory, lost with the process.
#[derive(Debug, Default)]
pub struct MemoryAppStore {
    pairs: RwLock<Pairs>,
}

/// Keys and values, all in one piece of memory: there are as many as the chain has transactions.
#[derive(Debug, Clone, Default)]
struct Pairs {
    /// Keys, each with its value behind it; those of replaced and removed pairs too, until they are
    /// more than the others by [`SLACK`].
    bytes: Vec<u8>,
    /// Bytes of the pairs that are there.
    kept: usize,
    pairs: Vec<Pair>,
    /// Places in `pairs`, by the hash of the key.
    places: HashTable<usize>,
    hasher: KeyHasher,
}

/// Hashes keys. They come from transactions of strangers, who must not know which have one hash:
/// the seeds are random, and from the operating system, since foldhash's own are little more than
/// addresses. It takes a fraction of the time of the standard library's SipHash, and is weaker: who
/// could see hashes might find their seeds, but none leaves the process.
#[derive(Debug, Clone)]
struct KeyHasher(SeedableRandomState);

/// The seed that all hashers of the process share.
static SHARED_SEED: LazyLock<SharedSeed> = LazyLock::new(|| SharedSeed::from_u64(random()));

/// The standard library takes keys for its hashers from the operating system.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

impl Default for KeyHasher {
    fn default() -> Self {
        Self(SeedableRandomState::with_seed(random(), &SHARED_SEED))
    }
}

/// Where a key and its value are.
#[derive(Debug, Clone, Copy)]
struct Pair {
    /// Kept, since it takes longer to compute than to store.
    hash: u64,
    start: usize,
    key_bytes: u32,
    value_bytes: u32,
}

impl Pair {
    fn key(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..][..self.key_bytes as usize]
    }

    fn value(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start + self.key_bytes as usize..][..self.value_bytes as usize]
    }

    /// Whether this is its key, which has that hash.
    fn has(self, hash: u64, key: &[u8], bytes: &[u8]) -> bool {
        self.hash == hash && self.key(bytes) == key
    }

    const fn len(self) -> usize {
        self.key_bytes as usize + self.value_bytes as usize
    }
}

impl Pairs {
    /// The place of a key, where it is there.
    fn find(&self, key: &[u8]) -> Option<usize> {
        let hash = self.hasher.0.hash_one(key);
        let is_it = |at: &usize| self.pairs[*at].has(hash, key, &self.bytes);
        self.places.find(hash, is_it).copied()
    }

    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        Some(self.pairs[self.find(key)?].value(&self.bytes))
    }

    /// Sets values of keys that begin with `prefix`, each given without it, in their order; all are
    /// copied.
    ///
    /// What a pair needs of the map lies anywhere in more memory than caches hold. So each step is
    /// done for all before the next one: then the processor does not wait for one pair's memory
    /// before it asks for that of the next.
    fn set_all(&mut self, prefix: &[u8], rests_and_values: &[(&[u8], &[u8])]) {
        for some in rests_and_values.chunks(AT_ONCE) {
            self.set_some(prefix, some);
        }
    }

    fn set_some(&mut self, prefix: &[u8], rests_and_values: &[(&[u8], &[u8])]) {
        let pairs = rests_and_values.iter();
        let mut new: Vec<Pair> = pairs
            .map(|(rest, value)| self.append(prefix, rest, value))
            .collect();
        for pair in &mut new {
            pair.hash = self.hasher.0.hash_one(pair.key(&self.bytes));
        }
        self.places.reserve(new.len(), |at| self.pairs[*at].hash);
        for pair in &new {
            let is_it = |at: &usize| self.pairs[*at].hash == pair.hash;
            black_box(self.places.find(pair.hash, is_it));
        }
        for pair in new {
            self.put(pair);
        }
        self.give_back();
    }

    /// Copies a key and its value behind the others. The pair has no hash yet.
    fn append(&mut self, prefix: &[u8], rest: &[u8], value: &[u8]) -> Pair {
        let start = self.bytes.len();
        for part in [prefix, rest, value] {
            self.bytes.extend_from_slice(part);
        }
        let length = |bytes: usize| u32::try_from(bytes).expect("no transaction has 4 GiB");
        Pair {
            hash: 0,
            start,
            key_bytes: length(prefix.len() + rest.len()),
            value_bytes: length(value.len()),
        }
    }

    /// Puts a pair, whose bytes and hash are there, in the place of its key's last one.
    fn put(&mut self, new: Pair) {
        self.kept += new.len();
        let key = new.key(&self.bytes);
        let is_it = |at: &usize| self.pairs[*at].has(new.hash, key, &self.bytes);
        let hash = |at: &usize| self.pairs[*at].hash;
        match self.places.entry(new.hash, is_it, hash) {
            Entry::Occupied(place) => {
                let replaced = std::mem::replace(&mut self.pairs[*place.get()], new);
                self.kept -= replaced.len();
            }
            Entry::Vacant(place) => {
                place.insert(self.pairs.len());
                self.pairs.push(new);
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(at) = self.find(key) else { return };
        let removed = self.pairs.swap_remove(at);
        // The last pair took its place.
        let moved = self.pairs.len();
        if let Some(pair) = self.pairs.get(at)
            && let Some(place) = self.places.find_mut(pair.hash, |place| *place == moved)
        {
            *place = at;
        }
        if let Ok(place) = self.places.find_entry(removed.hash, |place| *place == at) {
            place.remove();
        }
        self.kept -= removed.len();
        self.give_back();
    }

    /// Copies what is kept where too much else is held.
    fn give_back(&mut self) {
        if self.bytes.len() <= 2 * self.kept + SLACK {
            return;
        }
        let mut bytes = Vec::with_capacity(self.kept);
        for pair in &mut self.pairs {
            let start = bytes.len();
            bytes.extend_from_slice(&self.bytes[pair.start..][..pair.len()]);
            pair.start = start;
        }
        self.bytes = bytes;
    }
}

impl MemoryAppStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another store with the same content, as a copy of its disk would be.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            pairs: RwLock::new(self.read().clone()),
        }
    }

    /// Applies changes, in their order.
    pub fn write(&self, writes: impl IntoIterator<Item = AppWrite>) {
        let mut pairs = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
        for AppWrite { key, value } in writes {
            match value {
                Some(value) => pairs.set_all(&[], &[(&key, &value)]),
                None => pairs.remove(&key),
            }
        }
    }

    /// Sets values of keys that begin with `prefix`, each given without it.
    pub(crate) fn set_all(&self, prefix: &[u8], rests_and_values: &[(&[u8], &[u8])]) {
        let mut pairs = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
        pairs.set_all(prefix, rests_and_values);
    }

    fn read(&self) -> RwLockReadGuard<'_, Pairs> {
        self.pairs.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For tests: it survives what holds it.
impl OwnAppStore for MemoryAppStore {
    fn keep(&self, writes: Vec<AppWrite>) -> Result<(), AppStoreError> {
        self.write(writes);
        Ok(())
    }
}

impl AppStore for MemoryAppStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppStoreError> {
        Ok(self.read().get(key).map(<[u8]>::to_vec))
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, AppStoreError> {
        let read = self.read();
        let all = read.pairs.iter();
        let mut found: Vec<KeyValue> = all
            .map(|pair| (pair.key(&read.bytes), pair.value(&read.bytes)))
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn write(key: u32, value: Option<&[u8]>) -> AppWrite {
        AppWrite {
            key: key.to_be_bytes().into(),
            value: value.map(Bytes::copy_from_slice),
        }
    }

    #[test]
    fn what_was_replaced_is_given_back() {
        let store = MemoryAppStore::new();
        let value = |round: u8| [round; 4096];
        for round in 0..100 {
            for key in 0..100 {
                store.write([write(key, Some(&value(round)))]);
            }
            let pairs = store.read();
            assert_eq!(pairs.kept, 100 * 4100);
            assert!(pairs.bytes.len() <= 2 * pairs.kept + SLACK);
        }
        for key in 0..100_u32 {
            let found = store.get(&key.to_be_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(&value(99)[..]));
            store.write([write(key, None), write(key, None)]);
        }
        assert_eq!(store.read().kept, 0);
        assert!(store.scan_prefix(&[]).unwrap().is_empty());
    }

    /// Whoever sends keys cannot know which of them have one hash.
    #[test]
    fn no_two_stores_hash_alike() {
        let key: &[u8] = &[7; 250];
        let hash = |hasher: &KeyHasher| hasher.0.hash_one(key);
        let hashers: Vec<_> = (0..20).map(|_| KeyHasher::default()).collect();
        let hashes: BTreeSet<_> = hashers.iter().map(hash).collect();
        assert_eq!(hashes.len(), hashers.len());
        assert_eq!(hash(&hashers[0]), hash(&hashers[0].clone()));
    }

    #[test]
    fn more_pairs_than_are_set_at_once_are_all_set() {
        let keys: Vec<[u8; 8]> = (0..2 * AT_ONCE as u64 + 7).map(u64::to_be_bytes).collect();
        let pairs: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &key[4..])).collect();
        let store = MemoryAppStore::new();
        store.set_all(b"key:", &pairs);
        for key in &keys {
            let value = store.get(&[&b"key:"[..], key].concat()).unwrap();
            assert_eq!(value.as_deref(), Some(&key[4..]));
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(writes in vec((0..40_u32, option::of(vec(any::<u8>(), 0..40))), 0..400)) {
            let store = MemoryAppStore::new();
            let mut map = BTreeMap::new();
            for (key, value) in writes {
                store.write([write(key, value.as_deref())]);
                match value {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
                prop_assert_eq!(store.get(&key.to_be_bytes()).unwrap(), map.get(&key).cloned());
            }
            let map = map.into_iter().map(|(key, value)| (key.to_be_bytes().to_vec(), value));
            prop_assert_eq!(store.fork().scan_prefix(&[]).unwrap(), map.collect::<Vec<_>>());
        }

        #[test]
        fn pairs_that_are_set_at_once_are_set_in_their_order(
            blocks in vec(vec((0..30_u8, vec(any::<u8>(), 0..40)), 0..60), 0..8),
        ) {
            let store = MemoryAppStore::new();
            let mut map = BTreeMap::new();
            for block in blocks {
                let keys: Vec<[u8; 1]> = block.iter().map(|(key, _)| [*key]).collect();
                let values = block.iter().map(|(_, value)| &value[..]);
                let pairs: Vec<_> = keys.iter().map(|key| &key[..]).zip(values).collect();
                store.set_all(b"key:", &pairs);
                for (key, value) in block {
                    map.insert([&b"key:"[..], &[key]].concat(), value);
                }
                for (key, value) in &map {
                    prop_assert_eq!(store.get(key).unwrap(), Some(value.clone()));
                }
            }
            let kept: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
            prop_assert_eq!(store.read().kept, kept);
            prop_assert_eq!(store.scan_prefix(&[]).unwrap(), map.into_iter().collect::<Vec<_>>());
        }
    }
}
