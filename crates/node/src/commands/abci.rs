//! `abci`: serves a built-in application to nodes in other processes, ours and CometBFT's.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, ensure};
use perihelion_abci::{AppServer, AppTransport, KvStore, KvStoreOptions};
use perihelion_state::AppColumn;
use perihelion_store::{IndexKind, Store, StoreOptions};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::arguments::{AbciApplication, AbciKvStore, AbciProtocol};
use crate::{
    config::LogFormat,
    files::create_folder,
    logging::{self, LogLevels},
    progress::LogWriter,
    signals,
};

/// Bytes of the database's cache.
const CACHE_BYTES: usize = 16 << 20;

pub(super) fn run(application: &AbciApplication, log_level: Option<&str>) -> anyhow::Result<()> {
    let AbciApplication::Kvstore(options) = application;
    let levels = LogLevels::parse(log_level.unwrap_or("info")).context("flag --log_level")?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stdout());
    logging::start(&levels, LogFormat::Plain, colours, LogWriter::default());
    let app = match &options.persist {
        None => KvStore::in_memory(KvStoreOptions::default()),
        Some(folder) => persistent(folder)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(options, Arc::new(app)))
}

/// The application with its state in a database of its own.
fn persistent(folder: &Path) -> anyhow::Result<KvStore> {
    create_folder(folder)?;
    let options = StoreOptions {
        cache_bytes: CACHE_BYTES,
        index: IndexKind::Null,
        ..StoreOptions::default()
    };
    let store = Store::open(folder, &options)?;
    ensure!(
        store.height().get() == 0 && store.load_state()?.is_none(),
        "{} holds the chain of a node: give the application a folder of its own",
        folder.display()
    );
    let column = Arc::new(AppColumn::new(Arc::new(store)));
    KvStore::standalone(column, KvStoreOptions::default())
        .with_context(|| format!("the application's state in {} is damaged", folder.display()))
}

/// Serves until a signal comes, or until the application fails: then its state in memory cannot be
/// trusted, and the next start begins with what is stored.
async fn serve(options: &AbciKvStore, app: Arc<KvStore>) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    signals::watch(stop.clone()).context("cannot wait for signals")?;
    let transport = match options.abci {
        AbciProtocol::Socket => AppTransport::Socket,
        AbciProtocol::Grpc => AppTransport::Grpc,
    };
    let (tell, failed) = oneshot::channel();
    let server = AppServer::start(&options.address, transport, app, move |error| {
        // It may be stopping already.
        drop(tell.send(error));
    })
    .context("--address")?;
    tracing::info!(address = %server.address(), %transport, "kvstore is served");
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        Ok(error) = failed => Err(error.into()),
    }
}
