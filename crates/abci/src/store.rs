use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;
use indexmap::IndexSet;
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

/// An [`AppStore`] in memory, lost with the process.
#[derive(Debug, Default)]
pub struct MemoryAppStore {
    /// By hash, which is kept: there are as many keys as the chain has transactions, each is looked
    /// up, and growing hashes none of them again.
    pairs: RwLock<IndexSet<Pair>>,
}

/// A key and its value in one piece of memory; what is equal and what is hashed is the key.
#[derive(Debug, Clone)]
struct Pair {
    bytes: Box<[u8]>,
    key_bytes: usize,
}

impl Pair {
    /// The key comes in two pieces. The value is copied: it may be a piece of a whole block, which is
    /// not to be kept.
    fn new(prefix: &[u8], key: &[u8], value: &[u8]) -> Self {
        Self {
            bytes: [prefix, key, value].concat().into(),
            key_bytes: prefix.len() + key.len(),
        }
    }

    fn key(&self) -> &[u8] {
        &self.bytes[..self.key_bytes]
    }

    fn value(&self) -> &[u8] {
        &self.bytes[self.key_bytes..]
    }
}

impl Borrow<[u8]> for Pair {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Hash for Pair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Pair {}

impl MemoryAppStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another store with the same content, as a copy of its disk would be.
    #[must_use]
    pub fn fork(&self) -> Self {
        let pairs = self.pairs.read().unwrap_or_else(PoisonError::into_inner);
        Self {
            pairs: RwLock::new(pairs.clone()),
        }
    }

    /// Applies changes, in their order.
    pub fn write(&self, writes: impl IntoIterator<Item = AppWrite>) {
        let mut pairs = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
        for AppWrite { key, value } in writes {
            match value {
                Some(value) => drop(pairs.replace(Pair::new(&[], &key, &value))),
                None => drop(pairs.swap_remove(&key[..])),
            }
        }
    }

    /// Sets values of keys that begin with `prefix`, each given without it.
    pub(crate) fn set_all(&self, prefix: &[u8], rests_and_values: &[(&[u8], &[u8])]) {
        let mut pairs = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
        for (rest, value) in rests_and_values {
            pairs.replace(Pair::new(prefix, rest, value));
        }
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
        let pairs = self.pairs.read().unwrap_or_else(PoisonError::into_inner);
        Ok(pairs.get(key).map(|pair| pair.value().to_vec()))
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, AppStoreError> {
        let pairs = self.pairs.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<KeyValue> = pairs
            .iter()
            .filter(|pair| pair.key().starts_with(prefix))
            .map(|pair| (pair.key().to_vec(), pair.value().to_vec()))
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}
