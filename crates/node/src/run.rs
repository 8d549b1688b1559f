//! Wires the parts of a node together, runs them, and stops them in order.
//!
//! ```text
//! switch ── events ─▶ reactor ── inputs ─▶ pool ── certified blocks ─▶ executor ─▶ store
//!    ▲                   ▲                   │
//!    └─ requests, blocks ┴──── commands ─────┘        progress ─▶ rpc, log, live line
//! ```

mod application;
mod show;
mod stand_in;

use std::{num::NonZero, sync::Arc, time::Duration};

use anyhow::Context as _;
use perihelion_abci::AppConnections;
use perihelion_blocksync_reactor::{BlocksyncReactor, ServeLimits};
use perihelion_p2p::{
    ByteBudget, MConnectionConfig, NodeInfo, NodeKey, P2pConfig, PeerAddress, ProtocolVersion,
    Switch, SwitchHandle, SwitchSetup,
};
use perihelion_pool::{Absence, LastCommitKnown, PoolConfig, PoolExit, PoolHandle, VerifyMode};
use perihelion_rpc::{RpcContext, RpcServer};
use perihelion_schedule::Progress;
use perihelion_state::{
    COMETBFT_VERSION, Executor, ExecutorConfig, P2P_PROTOCOL, Rules, StartError, until_genesis,
};
use perihelion_store::{IndexKind, Indexer, Store, StoreOptions};
use perihelion_types::{Height, RulesByHeight, State, Time, state::BLOCK_PROTOCOL};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::{Config, Indexer as IndexChoice, MedianTime, Verify},
    prepare::{PrepareError, Prepared},
    progress::LiveLine,
    signals,
};

/// How long the parts may take to stop before the process ends without them. Stores are closed by
/// then; only what waits for a peer or an application can take longer.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop or must halt.
///
/// # Errors
/// Whatever keeps the node from starting or going on: names the thing and the remedy.
pub fn run(prepared: Prepared, live: Option<LiveLine>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(run_until_stopped(prepared, live));
    runtime.shutdown_timeout(STOP_TIMEOUT);
    result
}

async fn run_until_stopped(mut prepared: Prepared, live: Option<LiveLine>) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    signals::watch(stop.clone()).context("cannot wait for signals")?;
    if !wait_for_genesis(&prepared, &stop).await {
        return Ok(());
    }
    let store = open_store(&prepared)?;
    choose_application(&mut prepared, &store)?;
    let base = &prepared.config.base;
    let Some(apps) = application::connect(base, &store, &stop).await? else {
        return Ok(());
    };
    let watch = application::Watch::start(&apps, &stop);
    let result = run_application(prepared, store, &apps, &stop, live).await;
    watch.judge(result)
}

/// Runs a node whose application is there.
async fn run_application(
    prepared: Prepared,
    store: Arc<Store>,
    apps: &AppConnections,
    stop: &CancellationToken,
    live: Option<LiveLine>,
) -> anyhow::Result<()> {
    let Some(executor) = start_executor(&prepared, &store, apps, stop).await? else {
        return Ok(());
    };
    let indexer = match store.options().index {
        IndexKind::Kv => {
            Some(Indexer::start(Arc::clone(&store)).context("cannot start the indexer")?)
        }
        IndexKind::Null => None,
    };
    let result = sync_and_serve(prepared, store, apps, executor, stop, live).await;
    drop(indexer);
    result
}

/// Puts a built-in application in the place of one that nobody has chosen and that is not there.
fn choose_application(prepared: &mut Prepared, store: &Arc<Store>) -> anyhow::Result<()> {
    let application = &mut prepared.config.base.proxy_app;
    if stand_in::stands_in(prepared.may_stand_in, application, store)? {
        warn!("{}", stand_in::message(application));
        *application = stand_in::STAND_IN.to_owned();
    }
    Ok(())
}

/// Waits until the chain begins; `false` when stopped meanwhile.
async fn wait_for_genesis(prepared: &Prepared, stop: &CancellationToken) -> bool {
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

fn open_store(prepared: &Prepared) -> anyhow::Result<Arc<Store>> {
    let config = &prepared.config;
    let defaults = StoreOptions::default();
    let options = StoreOptions {
        cache_bytes: usize::try_from(config.perihelion.store_cache_bytes)
            .unwrap_or(defaults.cache_bytes),
        index: match config.tx_index.indexer {
            IndexChoice::Kv => IndexKind::Kv,
            IndexChoice::Null | IndexChoice::Psql => IndexKind::Null,
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
async fn start_executor(
    prepared: &Prepared,
    store: &Arc<Store>,
    apps: &AppConnections,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Executor>> {
    let config = ExecutorConfig {
        rules: rules(&prepared.config)?,
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

fn rules(config: &Config) -> anyhow::Result<RulesByHeight> {
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

async fn sync_and_serve(
    prepared: Prepared,
    store: Arc<Store>,
    apps: &AppConnections,
    executor: Executor,
    stop: &CancellationToken,
    live: Option<LiveLine>,
) -> anyhow::Result<()> {
    let last_commit = last_commit(&store, executor.state())?;
    let mut pool_config = pool_config(&prepared)?;
    let budget = ByteBudget::new(pool_config.schedule.window_bytes);
    let channel = perihelion_blocksync_reactor::channel(budget.clone());
    let (switch, mut events) = start_switch(&prepared, executor.state(), channel).await?;
    let events = events.pop().context("the switch gave no events")?;
    let height = executor.state().last_block_height;
    pool_config.absence = absence(&switch);

    // The pool ends by itself when the node must halt; then the others are stopped with it.
    let halt = stop.child_token();
    let pool = perihelion_pool::start(&pool_config, executor, last_commit, halt.clone())?;
    let PoolHandle {
        inputs,
        commands,
        handover: _,
        progress,
        task,
    } = pool;
    let reactor = BlocksyncReactor::new(
        Arc::clone(&store),
        switch.clone(),
        budget,
        ServeLimits::default(),
        inputs,
    );
    let reactor = tokio::spawn(reactor.run(events, commands, halt.clone()));
    let rpc = serve_rpc(&prepared, &store, apps, &switch, progress.clone(), &halt)?;
    announce(&prepared, &switch, rpc.as_ref(), height);
    let shown = tokio::spawn(show::show(
        progress,
        prepared.config.perihelion.progress,
        live,
        halt.clone(),
    ));

    let exit = task.await.context("the pool panicked")?;
    halt.cancel();
    for task in [reactor, shown] {
        if tokio::time::timeout(STOP_TIMEOUT, task).await.is_err() {
            warn!("a part of the node did not stop in time");
        }
    }
    if let Some(rpc) = rpc {
        let joined = tokio::task::spawn_blocking(|| rpc.join());
        if tokio::time::timeout(STOP_TIMEOUT, joined).await.is_err() {
            warn!("the RPC server did not stop in time");
        }
    }
    if tokio::time::timeout(STOP_TIMEOUT, switch.shutdown())
        .await
        .is_err()
    {
        warn!("connections did not close in time");
    }
    finish(exit).await
}

/// Tells which configured peer could not be dialled, and why.
fn absence(switch: &SwitchHandle) -> Absence {
    let switch = switch.clone();
    Absence::new(move || {
        let failures = switch.dial_failures();
        let (address, reason) = failures.first()?;
        let others = match failures.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        Some(format!("{address} is not connected: {reason}{others}"))
    })
}

/// Starts the RPC server, unless `rpc.laddr` is empty.
fn serve_rpc(
    prepared: &Prepared,
    store: &Arc<Store>,
    apps: &AppConnections,
    switch: &SwitchHandle,
    progress: watch::Receiver<Progress>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<RpcServer>> {
    let config = &prepared.config.rpc;
    if config.laddr.is_empty() {
        return Ok(None);
    }
    let settings = prepared.config.rpc_server();
    if config.tls_cert_file.is_empty() != config.tls_key_file.is_empty() {
        warn!("RPC without TLS: that needs both rpc.tls_cert_file and rpc.tls_key_file");
    }
    let context = RpcContext {
        store: Arc::clone(store),
        query: apps.query.clone(),
        genesis: prepared.genesis.clone(),
        network: Arc::new(switch.clone()),
        progress,
        validator_key: prepared.validator.as_ref().map(|key| key.key.public_key()),
        software: "perihelion".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let server = perihelion_rpc::serve(&config.laddr, context, &settings, stop.clone())?;
    Ok(Some(server))
}

/// Makes what was applied durable and says how it ended.
async fn finish(exit: PoolExit) -> anyhow::Result<()> {
    let PoolExit { executor, error } = exit;
    let flushed = tokio::task::spawn_blocking(move || {
        let Some(mut executor) = executor else {
            return Ok(None);
        };
        executor
            .flush()
            .map(|()| Some(executor.state().last_block_height))
    })
    .await
    .context("the executor panicked")?;
    match (error, flushed) {
        (Some(error), _) => Err(error.into()),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(Some(height))) => {
            info!(%height, "stopped");
            Ok(())
        }
        (None, Ok(None)) => anyhow::bail!("the executor's thread panicked"),
    }
}

fn announce(prepared: &Prepared, switch: &SwitchHandle, rpc: Option<&RpcServer>, height: Height) {
    info!(
        chain_id = prepared.genesis.chain_id,
        %height,
        node_id = %switch.id(),
        listen = switch.listen_address().map(tracing::field::display),
        rpc = rpc.map(|server| tracing::field::display(server.address())),
        home = %prepared.config.home().display(),
        version = env!("CARGO_PKG_VERSION"),
        "Perihelion is running"
    );
    let p2p = &prepared.config.p2p;
    if p2p.persistent_peers.is_empty() {
        let without = if p2p.seeds.is_empty() {
            "no persistent_peers are configured"
        } else {
            "seeds are not dialled by this version, and no persistent_peers are configured"
        };
        warn!("{without}: only peers that dial this node can be synced from");
    }
}

/// Whether the last block's own commit is stored and verifies in full.
fn last_commit(store: &Store, state: &State) -> anyhow::Result<LastCommitKnown> {
    let height = state.last_block_height;
    if height == Height::ZERO {
        return Ok(LastCommitKnown::Verified);
    }
    let verified = store.load_seen_commit(height)?.is_some_and(|commit| {
        perihelion_certify::verify_commit(
            &state.chain_id,
            &state.last_validators,
            state.last_block_id,
            height,
            &commit,
        )
        .is_ok()
    });
    Ok(if verified {
        LastCommitKnown::Verified
    } else {
        LastCommitKnown::Missing
    })
}

fn pool_config(prepared: &Prepared) -> anyhow::Result<PoolConfig> {
    let sync = &prepared.config.block_sync;
    let defaults = PoolConfig::default();
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let persistent = PeerAddress::parse_list(&prepared.config.p2p.persistent_peers)
        .context("p2p.persistent_peers")?
        .into_iter()
        .map(|address| address.id)
        .collect();
    Ok(PoolConfig {
        verify: match sync.verify {
            Verify::Pinned => VerifyMode::Pinned,
            Verify::Every => VerifyMode::Every,
        },
        workers: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
        schedule: perihelion_schedule::Config {
            window_bytes: size(sync.window_bytes),
            window_blocks: size(sync.window_heights),
            peer_allowance: size(sync.peer_requests),
            peer_deadline: sync.peer_timeout,
            ..defaults.schedule
        },
        absence: defaults.absence,
        persistent,
        rules: rules(&prepared.config)?,
        own_address: prepared
            .validator
            .as_ref()
            .map(|key| key.key.public_key().address()),
    })
}

async fn start_switch(
    prepared: &Prepared,
    state: &State,
    channel: perihelion_p2p::ChannelDescriptor,
) -> anyhow::Result<(SwitchHandle, Vec<mpsc::Receiver<perihelion_p2p::PeerEvent>>)> {
    let config = &prepared.config;
    let node_info = NodeInfo {
        protocol_version: ProtocolVersion {
            p2p: P2P_PROTOCOL,
            block: BLOCK_PROTOCOL,
            app: state.version.app,
        },
        id: String::new(),
        listen_addr: config.p2p.external_address.clone(),
        network: prepared.genesis.chain_id.clone(),
        version: COMETBFT_VERSION.to_owned(),
        channels: bytes::Bytes::new(),
        moniker: config.base.moniker.clone(),
        tx_index: match config.tx_index.indexer {
            IndexChoice::Kv => "on",
            IndexChoice::Null | IndexChoice::Psql => "off",
        }
        .to_owned(),
        rpc_address: config.rpc.laddr.clone(),
    };
    let setup = SwitchSetup {
        config: p2p_config(config)?,
        connection: MConnectionConfig::default(),
        node_key: NodeKey::from_private_key(prepared.node_key.clone())
            .context("node_key.json does not hold an ed25519 key")?,
        node_info,
        reactors: vec![("blocksync", vec![channel])],
        filter: None,
    };
    Ok(Switch::start(setup).await?)
}

/// The switch's settings out of the home's.
fn p2p_config(config: &Config) -> anyhow::Result<P2pConfig> {
    let p2p = &config.p2p;
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let ids = |key: &'static str, list: &str| {
        list.split(',')
            .map(str::trim)
            .filter(|id| !id.is_empty())
            .map(|id| id.parse().with_context(|| format!("p2p.{key}")))
            .collect::<anyhow::Result<Vec<_>>>()
    };
    Ok(P2pConfig {
        laddr: p2p.laddr.clone(),
        external_address: p2p.external_address.clone(),
        seeds: PeerAddress::parse_list(&p2p.seeds).context("p2p.seeds")?,
        persistent_peers: PeerAddress::parse_list(&p2p.persistent_peers)
            .context("p2p.persistent_peers")?,
        addr_book_file: config.path(&p2p.addr_book_file),
        addr_book_strict: p2p.addr_book_strict,
        max_num_inbound_peers: size(p2p.max_num_inbound_peers),
        max_num_outbound_peers: size(p2p.max_num_outbound_peers),
        unconditional_peer_ids: ids("unconditional_peer_ids", &p2p.unconditional_peer_ids)?,
        persistent_peers_max_dial_period: p2p.persistent_peers_max_dial_period,
        flush_throttle_timeout: p2p.flush_throttle_timeout,
        max_packet_msg_payload_size: size(p2p.max_packet_msg_payload_size),
        send_rate: p2p.send_rate,
        recv_rate: p2p.recv_rate,
        pex: p2p.pex,
        seed_mode: p2p.seed_mode,
        private_peer_ids: ids("private_peer_ids", &p2p.private_peer_ids)?,
        allow_duplicate_ip: p2p.allow_duplicate_ip,
        handshake_timeout: p2p.handshake_timeout,
        dial_timeout: p2p.dial_timeout,
    })
}
