//! This node and its peers.

use std::time::{Duration, SystemTime};

use perihelion_p2p::{ChannelStats, FlowStatus, NodeInfo};
use perihelion_types::{
    Time,
    json::{Hex, Text},
};
use serde::Serialize;

use super::{Answer, write};
use crate::{
    arguments::Arguments,
    context::{Backend, DisconnectView, PeerView},
};

#[derive(Serialize)]
struct ProtocolVersion {
    p2p: Text<u64>,
    block: Text<u64>,
    app: Text<u64>,
}

#[derive(Serialize)]
struct Other<'a> {
    tx_index: &'a str,
    rpc_address: &'a str,
}

#[derive(Serialize)]
pub(super) struct NodeInfoForm<'a> {
    protocol_version: ProtocolVersion,
    id: &'a str,
    listen_addr: &'a str,
    network: &'a str,
    version: &'a str,
    channels: Hex<'a>,
    moniker: &'a str,
    other: Other<'a>,
}

impl<'a> NodeInfoForm<'a> {
    pub(super) fn of(info: &'a NodeInfo) -> Self {
        Self {
            protocol_version: ProtocolVersion {
                p2p: Text(info.protocol_version.p2p),
                block: Text(info.protocol_version.block),
                app: Text(info.protocol_version.app),
            },
            id: &info.id,
            listen_addr: &info.listen_addr,
            network: &info.network,
            version: &info.version,
            channels: Hex(&info.channels),
            moniker: &info.moniker,
            other: Other {
                tx_index: &info.tx_index,
                rpc_address: &info.rpc_address,
            },
        }
    }
}

/// Fields that say something of a transfer with an end are 0: a connection has none.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Monitor {
    start: Time,
    bytes: Text<u64>,
    samples: Text<u64>,
    inst_rate: Text<u64>,
    cur_rate: Text<u64>,
    avg_rate: Text<u64>,
    peak_rate: Text<u64>,
    bytes_rem: Text<u64>,
    duration: Text<u128>,
    idle: Text<u128>,
    time_rem: Text<u64>,
    progress: u32,
    active: bool,
}

impl Monitor {
    fn of(flow: &FlowStatus) -> Self {
        let start = SystemTime::now().checked_sub(flow.duration);
        Self {
            start: start.map_or(Time::ZERO, moment),
            bytes: Text(flow.bytes),
            samples: Text(flow.samples),
            inst_rate: Text(flow.inst_rate),
            cur_rate: Text(flow.cur_rate),
            avg_rate: Text(flow.avg_rate),
            peak_rate: Text(flow.peak_rate),
            bytes_rem: Text(0),
            duration: Text(flow.duration.as_nanos()),
            idle: Text(flow.idle.as_nanos()),
            time_rem: Text(0),
            progress: 0,
            active: true,
        }
    }
}

#[derive(Serialize)]
struct Channel {
    #[serde(rename = "ID")]
    id: u8,
    #[serde(rename = "SendQueueCapacity")]
    capacity: Text<usize>,
    #[serde(rename = "SendQueueSize")]
    size: Text<usize>,
    #[serde(rename = "Priority")]
    priority: Text<u8>,
    #[serde(rename = "RecentlySent")]
    recently_sent: Text<u64>,
}

impl Channel {
    fn of(stats: &ChannelStats) -> Self {
        Self {
            id: stats.id,
            capacity: Text(stats.send_queue_capacity),
            size: Text(stats.send_queue_size),
            priority: Text(stats.priority),
            recently_sent: Text(stats.recently_sent),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConnectionStatus {
    duration: Text<u128>,
    send_monitor: Monitor,
    recv_monitor: Monitor,
    channels: Vec<Channel>,
}

#[derive(Serialize)]
struct Peer<'a> {
    node_info: NodeInfoForm<'a>,
    is_outbound: bool,
    connection_status: ConnectionStatus,
    remote_ip: String,
}

impl<'a> Peer<'a> {
    fn of(peer: &'a PeerView) -> Self {
        let stats = &peer.stats;
        Self {
            node_info: NodeInfoForm::of(&peer.node_info),
            is_outbound: peer.is_outbound,
            connection_status: ConnectionStatus {
                duration: Text(stats.connected_for.as_nanos()),
                send_monitor: Monitor::of(&stats.sent),
                recv_monitor: Monitor::of(&stats.received),
                channels: stats.channels.iter().map(Channel::of).collect(),
            },
            remote_ip: peer.remote_ip.to_string(),
        }
    }
}

/// Not CometBFT's: who went of late and why.
#[derive(Serialize)]
struct Disconnect<'a> {
    id: String,
    remote: &'a str,
    is_outbound: bool,
    connected_for: Text<u128>,
    time: Time,
    reason: &'a str,
}

impl<'a> Disconnect<'a> {
    fn of(gone: &'a DisconnectView) -> Self {
        Self {
            id: gone.id.to_string(),
            remote: &gone.remote,
            is_outbound: gone.is_outbound,
            connected_for: Text(gone.connected_for.as_nanos()),
            time: moment(gone.at),
            reason: &gone.reason,
        }
    }
}

#[derive(Serialize)]
struct NetInfo<'a> {
    listening: bool,
    listeners: [&'static str; 1],
    n_peers: Text<usize>,
    peers: Vec<Peer<'a>>,
    /// Ours: CometBFT's answer has no such field, and neither has ours while there is nothing to tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recent_disconnects: Vec<Disconnect<'a>>,
}

pub(super) fn net_info(backend: &Backend, _: &Arguments) -> Answer {
    let network = &backend.context.network;
    let peers = network.peers();
    let gone = network.recent_disconnects();
    write(&NetInfo {
        listening: network.is_listening(),
        // What CometBFT prints of a listener without an external address; clients want a list.
        listeners: ["Listener(@)"],
        n_peers: Text(peers.len()),
        peers: peers.iter().map(Peer::of).collect(),
        recent_disconnects: gone.iter().map(Disconnect::of).collect(),
    })
}

/// A moment of the system's clock; the zero time for one outside of what can be told.
pub(super) fn moment(at: SystemTime) -> Time {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i128::try_from(since.as_nanos())
        .ok()
        .and_then(Time::from_unix_nanos)
        .unwrap_or(Time::ZERO)
}
