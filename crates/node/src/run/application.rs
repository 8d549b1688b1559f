//! The application that `proxy_app` names.

use std::sync::Arc;

use anyhow::Context as _;
use perihelion_abci::{AppConnections, KvStore, KvStoreOptions, Noop};
use perihelion_state::AppColumn;
use perihelion_store::Store;

/// Connects the built-in application `name`.
pub(super) fn connect(name: &str, store: &Arc<Store>) -> anyhow::Result<AppConnections> {
    let options = KvStoreOptions::default();
    Ok(match name {
        "kvstore" => AppConnections::in_process(Arc::new(KvStore::in_memory(options))),
        "persistent_kvstore" => {
            let column = Arc::new(AppColumn::new(Arc::clone(store)));
            let app = KvStore::persistent(column, options)
                .context("the state of persistent_kvstore cannot be read")?;
            AppConnections::in_process(Arc::new(app))
        }
        "noop" => AppConnections::in_process(Arc::new(Noop)),
        other => anyhow::bail!(
            "proxy_app {other:?} is no built-in application: use kvstore, persistent_kvstore or noop"
        ),
    })
}
