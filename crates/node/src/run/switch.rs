//! The connections to peers.

use std::sync::Arc;

use anyhow::Context as _;
use perihelion_abci::QueryConnection;
use perihelion_p2p::{
    ChannelDescriptor, MConnectionConfig, NodeId, NodeInfo, NodeKey, P2pConfig, PeerAddress,
    PeerEvent, PeerFilter, ProtocolVersion, Switch, SwitchHandle, SwitchSetup,
};
use perihelion_pool::Absence;
use perihelion_state::{COMETBFT_VERSION, P2P_PROTOCOL};
use perihelion_types::{State, state::BLOCK_PROTOCOL};
use tokio::sync::mpsc;

use super::filter::AppFilter;
use crate::{
    config::{Config, Indexer},
    prepare::Prepared,
};

/// What the reactors are told of peers.
pub(super) struct Events {
    pub(super) blocksync: mpsc::Receiver<PeerEvent>,
    pub(super) consensus: mpsc::Receiver<PeerEvent>,
    pub(super) mempool: mpsc::Receiver<PeerEvent>,
    pub(super) evidence: mpsc::Receiver<PeerEvent>,
}

/// The channels of the reactors.
pub(super) struct Channels {
    pub(super) blocksync: ChannelDescriptor,
    pub(super) mempool: Vec<ChannelDescriptor>,
}

/// Listens and dials. The channels are in CometBFT's order, in which the node's information names
/// them.
pub(super) async fn start(
    prepared: &Prepared,
    state: &State,
    channels: Channels,
    application: &QueryConnection,
) -> anyhow::Result<(SwitchHandle, Events)> {
    let filter = || -> Arc<dyn PeerFilter> { Arc::new(AppFilter::new(application.clone())) };
    let setup = SwitchSetup {
        config: p2p_config(&prepared.config)?,
        connection: MConnectionConfig::default(),
        node_key: NodeKey::from_private_key(prepared.node_key.clone())
            .context("node_key.json does not hold an ed25519 key")?,
        node_info: node_info(prepared, state),
        reactors: vec![
            ("blocksync", vec![channels.blocksync]),
            ("consensus", perihelion_consensus_reactor::wire::channels()),
            ("mempool", channels.mempool),
            ("evidence", vec![perihelion_evidence::channel()]),
        ],
        filter: prepared.config.base.filter_peers.then(filter),
    };
    let (switch, events) = Switch::start(setup).await?;
    let events: [_; 4] = events
        .try_into()
        .map_err(|_| anyhow::anyhow!("the switch has other reactors than it was given"))?;
    let [blocksync, consensus, mempool, evidence] = events;
    let events = Events {
        blocksync,
        consensus,
        mempool,
        evidence,
    };
    Ok((switch, events))
}

/// How the node presents itself.
fn node_info(prepared: &Prepared, state: &State) -> NodeInfo {
    let config = &prepared.config;
    NodeInfo {
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
            Indexer::Kv => "on",
            Indexer::Null | Indexer::Psql => "off",
        }
        .to_owned(),
        rpc_address: config.rpc.laddr.clone(),
    }
}

/// The configured peers.
pub(super) fn persistent_peers(config: &Config) -> anyhow::Result<Vec<PeerAddress>> {
    PeerAddress::parse_list(&config.p2p.persistent_peers).context("p2p.persistent_peers")
}

/// Those that are always let in.
pub(super) fn unconditional_peers<T: FromIterator<NodeId>>(config: &Config) -> anyhow::Result<T> {
    ids("unconditional_peer_ids", &config.p2p.unconditional_peer_ids)
}

fn ids<T: FromIterator<NodeId>>(key: &'static str, list: &str) -> anyhow::Result<T> {
    list.split(',')
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .map(|id| id.parse().with_context(|| format!("p2p.{key}")))
        .collect()
}

/// The switch's settings out of the home's.
fn p2p_config(config: &Config) -> anyhow::Result<P2pConfig> {
    let p2p = &config.p2p;
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Ok(P2pConfig {
        laddr: p2p.laddr.clone(),
        external_address: p2p.external_address.clone(),
        seeds: PeerAddress::parse_list(&p2p.seeds).context("p2p.seeds")?,
        persistent_peers: persistent_peers(config)?,
        addr_book_file: config.path(&p2p.addr_book_file),
        addr_book_strict: p2p.addr_book_strict,
        max_num_inbound_peers: size(p2p.max_num_inbound_peers),
        max_num_outbound_peers: size(p2p.max_num_outbound_peers),
        unconditional_peer_ids: unconditional_peers(config)?,
        persistent_peers_max_dial_period: p2p.persistent_peers_max_dial_period,
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

/// Tells which configured peer could not be dialled, and why.
pub(super) fn absence(switch: &SwitchHandle) -> Absence {
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
