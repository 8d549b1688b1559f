//! What comes before anything runs: the chain's time, the store, the executor.

use std::sync::Arc;

use anyhow::Context as _;
use perihelion_abci::AppConnections;
use perihelion_events::EventBus;
use perihelion_state::{Executor, ExecutorConfig, Rules, StartError, until_genesis};
use perihelion_store::{IndexKind, Store, StoreOptions};
use perihelion_types::{Height, RulesByHeight, Time};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::show;
use crate::{
    config::{Config, Indexer, MedianTime},
    prepare::{PrepareError, Prepared},
};

/// Waits until the chain begins; `false` when stopped meanwhile.
pub(super) async fn wait_for_genesis(prepared: &Prepared, stop: &CancellationToken) -> bool {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(Time::ZERO, |since| {
            Time::new(
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                i32::try_from(since.subsec_nanos()).unwrap_or_default(),
            )
        });
    let Some(wait) = until_genesis(&prepared.genesis, now) else {
        return true;
    };
    info!(
        "The chain begins at {}: waiting for {}",
        prepared.genesis.genesis_time,
        crate::progress::format_eta(wait)
    );
    tokio::select! {
        () = tokio::time::sleep(wait) => true,
        () = stop.cancelled() => false,
    }
}

/// Opens the store for this chain.
pub(super) fn open_store(prepared: &Prepared) -> anyhow::Result<Arc<Store>> {
    let config = &prepared.config;
    let defaults = StoreOptions::default();
    let options = StoreOptions {
        cache_bytes: usize::try_from(config.perihelion.store_cache_bytes)
            .unwrap_or(defaults.cache_bytes),
        index: match config.tx_index.indexer {
            Indexer::Kv => IndexKind::Kv,
            Indexer::Null | Indexer::Psql => IndexKind::Null,
        },
        discard_abci_responses: config.storage.discard_abci_responses,
        ..defaults
    };
    let store = Store::open(&config.data_dir(), &options).and_then(|store| {
        store.save_genesis_hash(prepared.genesis_id)?;
        Ok(store)
    });
    Ok(Arc::new(
        store.map_err(|error| PrepareError::store(error, config))?,
    ))
}

/// Brings application and state to one height; `None` when stopped meanwhile.
pub(super) async fn start_executor(
    prepared: &Prepared,
    store: &Arc<Store>,
    apps: &AppConnections,
    events: &EventBus,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Executor>> {
    let config = ExecutorConfig {
        rules: rules(&prepared.config)?,
        events: events.clone(),
        block_time_tolerance: prepared.config.consensus.block_time_tolerance,
        ..ExecutorConfig::default()
    };
    let (store, genesis) = (Arc::clone(store), prepared.genesis.clone());
    let (consensus, query) = (apps.consensus.clone(), apps.query.clone());
    let stopped = stop.clone();
    let mut told = std::time::Instant::now();
    let start = move || {
        Executor::start_reporting(store, &genesis, consensus, &query, config, |replay| {
            if told.elapsed() >= show::INTERVAL {
                told = std::time::Instant::now();
                info!(height = %replay.height, to = %replay.target, "replaying stored blocks");
            }
            if stopped.is_cancelled() {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            }
        })
    };
    match tokio::task::spawn_blocking(start)
        .await
        .context("the executor's start panicked")?
    {
        Ok(executor) => Ok(Some(executor)),
        Err(StartError::Interrupted { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The rules of the median time by height.
pub(super) fn rules(config: &Config) -> anyhow::Result<RulesByHeight> {
    let from = config
        .perihelion
        .median_time
        .iter()
        .map(|rule| {
            let height = i64::try_from(rule.from_height).unwrap_or(i64::MAX);
            let rules = match rule.rule {
                MedianTime::V038 => Rules::V038,
                MedianTime::V040 => Rules::V040,
            };
            (Height::new(height), rules)
        })
        .collect();
    RulesByHeight::new(from).context("perihelion.median_time")
}
