use std::sync::Arc;

use perihelion_abci::{AppStore, AppStoreError, AppWrite, OwnAppStore};
use perihelion_store::{Store, StoreError, Sync};

use crate::execution::store_writes;

/// What a built-in application keeps, in the node's own database: the executor writes it together
/// with each block. In a database without blocks, of an application in a process of its own.
#[derive(Clone)]
pub struct AppColumn(Arc<Store>);

impl AppColumn {
    /// The application's part of `store`.
    #[must_use]
    pub const fn new(store: Arc<Store>) -> Self {
        Self(store)
    }
}

impl AppStore for AppColumn {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppStoreError> {
        self.0.app_get(key).map_err(unreadable)
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, AppStoreError> {
        self.0.app_scan(prefix).map_err(unreadable)
    }
}

/// For an application in a process of its own, with a store that holds no chain.
impl OwnAppStore for AppColumn {
    fn keep(&self, writes: Vec<AppWrite>) -> Result<(), AppStoreError> {
        self.0
            .save_app_writes(&store_writes(writes), Sync::Yes)
            .map_err(unreadable)
    }
}

fn unreadable(error: StoreError) -> AppStoreError {
    AppStoreError(error.to_string())
}
