//! The server for clients.

use std::sync::Arc;

use perihelion_consensus_reactor::ConsensusHandle;
use perihelion_p2p::SwitchHandle;
use perihelion_rpc::{RpcContext, RpcServer};
use perihelion_schedule::Progress;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Basis, consensus::Pools};

/// What the server tells of, beside the home.
pub(super) struct Served<'a> {
    pub(super) switch: &'a SwitchHandle,
    pub(super) pools: &'a Pools,
    pub(super) consensus: &'a ConsensusHandle,
    pub(super) progress: watch::Receiver<Progress>,
}

/// Starts the RPC server, unless `rpc.laddr` is empty.
pub(super) fn serve(
    basis: &Basis<'_>,
    served: Served<'_>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<RpcServer>> {
    let prepared = basis.prepared;
    let config = &prepared.config.rpc;
    if config.laddr.is_empty() {
        return Ok(None);
    }
    let settings = prepared.config.rpc_server();
    if config.tls_cert_file.is_empty() != config.tls_key_file.is_empty() {
        warn!("RPC without TLS: that needs both rpc.tls_cert_file and rpc.tls_key_file");
    }
    let context = RpcContext {
        store: Arc::clone(basis.store),
        query: basis.apps.query.clone(),
        genesis: prepared.genesis.clone(),
        network: Arc::new(served.switch.clone()),
        progress: served.progress,
        mempool: Arc::clone(&served.pools.mempool),
        evidence: Arc::clone(&served.pools.evidence),
        consensus: Arc::new(served.consensus.clone()),
        events: basis.events.clone(),
        validator_key: prepared.validator.as_ref().map(|key| key.key.public_key()),
        software: "perihelion".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let server = perihelion_rpc::serve(&config.laddr, context, &settings, stop.clone())?;
    Ok(Some(server))
}
