use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use indexmap::IndexMap;
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
    values: RwLock<IndexMap<Vec<u8>, Vec<u8>>>,
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
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        Self {
            values: RwLock::new(values.clone()),
        }
    }

    /// Applies changes, in their order.
    pub fn write(&self, writes: impl IntoIterator<Item = AppWrite>) {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            match write.value {
                // A copy: the value may be a piece of a whole block, which is not to be kept.
                Some(value) => values.insert(write.key, value.to_vec()),
                None => values.swap_remove(&write.key),
            };
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
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        Ok(values.get(key).cloned())
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, AppStoreError> {
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<KeyValue> = values
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}
