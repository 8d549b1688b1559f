//! Wires the parts of a node together, runs them, and stops them in order.
//!
//! ```text
//! switch ─┬─ blocksync reactor ⇄ pool ──┐ executor   ┌─▶ store
//!         ├─ consensus reactor ⇄ ─── modes ─▶ consensus ─┤
//!         ├─ mempool reactor ⇄ mempool ──────────┤   └─▶ application
//!         └─ evidence reactor ⇄ evidence ────────┘
//!            progress, round ─▶ rpc, log, live line, metrics
//! ```
//!
//! `modes` hands the executor, of which there is one, from blocksync to consensus and back.

mod application;
mod begin;
mod consensus;
mod filter;
mod modes;
mod parts;
mod rpc;
mod show;
mod stand_in;
mod switch;
mod sync;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use perihelion_abci::AppConnections;
use perihelion_blocksync_reactor::{BlocksyncReactor, ServeLimits};
use perihelion_events::EventBus;
use perihelion_evidence::EvidenceReactor;
use perihelion_mempool::MempoolReactor;
use perihelion_p2p::{ByteBudget, SwitchHandle};
use perihelion_rpc::RpcServer;
use perihelion_state::Executor;
use perihelion_store::{IndexKind, Indexer, Store};
use perihelion_types::{Address, RulesByHeight, State, ValidatorSet};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    consensus::Pools,
    modes::Modes,
    parts::{Parts, Stops},
    switch::Channels,
};
use crate::{
    metrics::{self, Metrics, Sources},
    prepare::Prepared,
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
    consensus::check_log(&prepared)?;
    if !begin::wait_for_genesis(&prepared, &stop).await {
        return Ok(());
    }
    let store = begin::open_store(&prepared)?;
    let data = prepared.config.data_dir();
    prepared.cometbft.keep_out(&data)?;
    consensus::check_signer(&prepared, &store)?;
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
    let events = EventBus::default();
    let Some(executor) = begin::start_executor(&prepared, &store, apps, &events, stop).await?
    else {
        return Ok(());
    };
    let indexer = match store.options().index {
        IndexKind::Kv => {
            Some(Indexer::start(Arc::clone(&store)).context("cannot start the indexer")?)
        }
        IndexKind::Null => None,
    };
    let basis = Basis {
        prepared: &prepared,
        store: &store,
        apps,
        events: &events,
        rules: &begin::rules(&prepared.config)?,
    };
    let result = run_parts(&basis, executor, stop, live).await;
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

/// What the parts are made of.
struct Basis<'a> {
    prepared: &'a Prepared,
    store: &'a Arc<Store>,
    apps: &'a AppConnections,
    events: &'a EventBus,
    rules: &'a RulesByHeight,
}

/// Runs all parts until one of them must halt or `stop`, and stops them: consensus first, then what
/// feeds it and who asks, the connections last.
async fn run_parts(
    basis: &Basis<'_>,
    mut executor: Executor,
    stop: &CancellationToken,
    live: Option<LiveLine>,
) -> anyhow::Result<()> {
    let prepared = basis.prepared;
    let state = executor.state_arc();
    let pools = Pools::open(basis, &state)?;
    executor.follow(pools.follower(basis.rules));
    let last_commit = sync::last_commit(basis.store, &state)?;
    let budget = ByteBudget::new(sync::window_bytes(prepared));
    let channels = Channels {
        blocksync: perihelion_blocksync_reactor::channel(budget.clone()),
        mempool: perihelion_mempool::channels(pools.mempool.config()),
    };
    let (switch, peers) = switch::start(prepared, &state, channels, &basis.apps.query).await?;

    let stops = Stops::default();
    let pool_config = sync::pool_config(prepared, &switch)?;
    let own_address = pool_config.own_address;
    let pool = perihelion_pool::start(&pool_config, executor, last_commit, stops.rest.clone())?;
    let consensus = consensus::start(basis, &pools, &switch, peers.consensus, stops.rest.clone())?;
    let (active, is_active) = watch::channel(false);
    let modes = Modes {
        decided: consensus.decided(),
        consensus: consensus.clone(),
        handover: pool.handover,
        inputs: pool.inputs.clone(),
        active,
        own_address,
    };
    let blocksync = BlocksyncReactor::new(
        Arc::clone(basis.store),
        switch.clone(),
        budget,
        ServeLimits::default(),
        pool.inputs,
    );
    let mempool = MempoolReactor::new(
        Arc::clone(&pools.mempool),
        consensus.heights(),
        switch::unconditional_peers(&prepared.config)?,
        is_active.clone(),
    );
    let evidence =
        EvidenceReactor::new(Arc::clone(&pools.evidence), consensus.heights(), is_active);
    let served = rpc::Served {
        switch: &switch,
        pools: &pools,
        consensus: &consensus,
        progress: pool.progress.clone(),
    };
    let rpc = rpc::serve(basis, served, &stops.rest)?;
    announce(prepared, &switch, rpc.as_ref(), &state, own_address);
    let metrics = serve_metrics(
        basis,
        Sources {
            store: Arc::clone(basis.store),
            progress: pool.progress.clone(),
            view: consensus.view(),
            mempool: Arc::clone(&pools.mempool),
            evidence: Arc::clone(&pools.evidence),
            switch: switch.clone(),
            own_address,
        },
        &stops.rest,
    )
    .await?;
    let shown = show::Shown {
        progress: pool.progress,
        view: consensus.view(),
    };
    let shown = show::show(
        shown,
        prepared.config.perihelion.progress,
        live,
        stops.rest.clone(),
    );
    let parts = Parts {
        modes: tokio::spawn(modes.run(stops.consensus.clone())),
        pool: pool.task,
        mempool: tokio::spawn(mempool.run(peers.mempool, stops.rest.clone())),
        evidence: tokio::spawn(evidence.run(peers.evidence, stops.rest.clone())),
        blocksync: tokio::spawn(blocksync.run(peers.blocksync, pool.commands, stops.rest.clone())),
        shown: tokio::spawn(shown),
        metrics,
        rpc,
        switch,
        consensus,
        stops,
    };
    parts.run(stop).await
}

/// Starts the server of metrics, where `instrumentation.prometheus` asks for it.
async fn serve_metrics(
    basis: &Basis<'_>,
    sources: Sources,
    stop: &CancellationToken,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let instrumentation = &basis.prepared.config.instrumentation;
    if !instrumentation.prometheus {
        return Ok(None);
    }
    let metrics = Metrics::new(&instrumentation.namespace, sources);
    let address = &instrumentation.prometheus_listen_addr;
    let most = instrumentation.max_open_connections;
    let server = metrics::serve(address, most, metrics, stop.clone()).await?;
    info!(address = %server.address, "metrics are served at /metrics");
    Ok(Some(server.task))
}

fn announce(
    prepared: &Prepared,
    switch: &SwitchHandle,
    rpc: Option<&RpcServer>,
    state: &State,
    own_address: Option<Address>,
) {
    info!(
        chain_id = prepared.genesis.chain_id,
        height = %state.last_block_height,
        node_id = %switch.id(),
        listen = switch.listen_address().map(tracing::field::display),
        rpc = rpc.map(|server| tracing::field::display(server.address())),
        home = %prepared.config.home().display(),
        version = env!("CARGO_PKG_VERSION"),
        "Perihelion is running"
    );
    let p2p = &prepared.config.p2p;
    if p2p.persistent_peers.is_empty() && !decides_alone(&state.validators, own_address) {
        let without = if p2p.seeds.is_empty() {
            "no persistent_peers are configured"
        } else {
            "seeds are not dialled by this version, and no persistent_peers are configured"
        };
        warn!("{without}: only peers that dial this node can be synced from");
    }
}

/// Whether the validator of this address needs nobody else: it has more than 2/3 of the power.
fn decides_alone(validators: &ValidatorSet, address: Option<Address>) -> bool {
    let own = address.and_then(|address| validators.by_address(&address));
    own.is_some_and(|(_, member)| {
        let power = i128::from(member.voting_power);
        power * 3 > i128::from(validators.total_voting_power()) * 2
    })
}
