//! How far the node is.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use perihelion_consensus_reactor::Standing;
use perihelion_schedule::{Limit, Mode, PeerProgress, Progress, TargetSource};
use perihelion_types::{
    Hash, Header, Height, PublicKey, Time,
    json::{Hex, Text},
};
use serde::Serialize;

use super::{
    Answer,
    consensus::place_of,
    network::{NodeInfoForm, moment},
    uncommitted, write,
};
use crate::{arguments::Arguments, context::Backend};

/// CometBFT's fields first; behind `catching_up` those that Tendermint v0.35 had, durations in
/// nanoseconds. There is no state sync: its fields are 0. The last three are ours, as in
/// `/sync_status`.
#[derive(Serialize)]
struct SyncInfo {
    latest_block_hash: Hash,
    latest_app_hash: HexBytes,
    latest_block_height: Height,
    latest_block_time: Time,
    earliest_block_hash: Hash,
    earliest_app_hash: HexBytes,
    earliest_block_height: Height,
    earliest_block_time: Time,
    catching_up: bool,
    max_peer_block_height: Height,
    total_synced_time: Text<u128>,
    remaining_time: Text<u128>,
    total_snapshots: Text<u64>,
    chunk_process_avg_time: Text<u64>,
    snapshot_height: Text<u64>,
    snapshot_chunks_count: Text<u64>,
    snapshot_chunks_total: Text<u64>,
    backfilled_blocks: Text<u64>,
    backfill_blocks_total: Text<u64>,
    mode: &'static str,
    mode_reason: String,
    mode_time: Text<u128>,
}

struct HexBytes(Bytes);

impl Serialize for HexBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Hex(&self.0).serialize(serializer)
    }
}

#[derive(Serialize)]
struct ValidatorInfo<'a> {
    address: Hex<'a>,
    pub_key: Option<&'a PublicKey>,
    voting_power: Text<i64>,
}

#[derive(Serialize)]
struct Status<'a> {
    node_info: NodeInfoForm<'a>,
    sync_info: SyncInfo,
    validator_info: ValidatorInfo<'a>,
}

/// What is shown of a block that may not be there.
fn shown(header: Option<Header>) -> (Hash, HexBytes, Height, Time) {
    header.map_or_else(
        || {
            let epoch = Time::new(0, 0);
            (Hash::EMPTY, HexBytes(Bytes::new()), Height::ZERO, epoch)
        },
        |header| {
            let hash = header.hash();
            let app_hash = HexBytes(header.app_hash);
            (hash, app_hash, header.height, header.time)
        },
    )
}

/// The highest height that a peer claims.
fn highest_claim(progress: &Progress) -> Height {
    let claims = progress.peers.iter().filter_map(|peer| peer.range);
    claims
        .map(|range| range.height())
        .max()
        .unwrap_or(Height::ZERO)
}

fn sync_info(backend: &Backend, progress: &Progress) -> Result<SyncInfo, super::CallError> {
    let store = &backend.context.store;
    let (base, height) = store.base_and_height();
    let (earliest_block_hash, earliest_app_hash, earliest_block_height, earliest_block_time) =
        shown(store.load_header(base)?);
    let (latest_block_hash, latest_app_hash, _, latest_block_time) =
        shown(store.load_header(height)?);
    Ok(SyncInfo {
        latest_block_hash,
        latest_app_hash,
        latest_block_height: height,
        latest_block_time,
        earliest_block_hash,
        earliest_app_hash,
        earliest_block_height,
        earliest_block_time,
        catching_up: progress.is_catching_up(),
        max_peer_block_height: highest_claim(progress),
        total_synced_time: Text(backend.synced.total().as_nanos()),
        remaining_time: Text(progress.eta.unwrap_or(Duration::ZERO).as_nanos()),
        total_snapshots: Text(0),
        chunk_process_avg_time: Text(0),
        snapshot_height: Text(0),
        snapshot_chunks_count: Text(0),
        snapshot_chunks_total: Text(0),
        backfilled_blocks: Text(0),
        backfill_blocks_total: Text(0),
        mode: mode_name(progress.mode),
        mode_reason: progress.why.to_string(),
        mode_time: Text(progress.in_mode.as_nanos()),
    })
}

pub(super) fn status(backend: &Backend, _: &Arguments) -> Answer {
    let progress = backend.context.progress.borrow().clone();
    let node_info = backend.context.network.node_info();
    let key = backend.context.validator_key.as_ref();
    let address = key.map(PublicKey::address);
    let mut voting_power = 0;
    if let Some(address) = &address {
        let (_, last) = uncommitted(backend).into_inner();
        let set = backend.context.store.load_members(last)?;
        let member = set.as_ref().and_then(|set| set.by_address(address));
        voting_power = member.map_or(0, |(_, validator)| validator.voting_power);
    }
    write(&Status {
        node_info: NodeInfoForm::of(&node_info),
        sync_info: sync_info(backend, &progress)?,
        validator_info: ValidatorInfo {
            address: Hex(address.as_ref().map_or(&[], |address| address.as_bytes())),
            pub_key: key,
            voting_power: Text(voting_power),
        },
    })
}

#[derive(Serialize)]
struct Window {
    in_flight: usize,
    here: usize,
    linked: usize,
    pinned: usize,
    held_bytes: Text<usize>,
    expected_bytes: Text<usize>,
}

#[derive(Serialize)]
struct SyncPeer {
    id: String,
    /// `None` before the peer has told its range.
    base: Option<Height>,
    height: Option<Height>,
    bytes_per_second: f64,
    /// Nanoseconds.
    latency: Text<u128>,
    in_flight: usize,
    allowance: usize,
    blocks: Text<u64>,
    bytes: Text<u64>,
    no_blocks: Text<u64>,
    stalls: Text<u64>,
    set_aside: Text<u64>,
}

impl SyncPeer {
    fn of(peer: &PeerProgress) -> Self {
        Self {
            id: peer.peer.to_string(),
            base: peer.range.map(|range| range.base()),
            height: peer.range.map(|range| range.height()),
            bytes_per_second: peer.bytes_per_second,
            latency: Text(peer.latency.as_nanos()),
            in_flight: peer.in_flight,
            allowance: peer.allowance,
            blocks: Text(peer.blocks),
            bytes: Text(peer.bytes),
            no_blocks: Text(peer.no_blocks),
            stalls: Text(peer.stalls),
            set_aside: Text(peer.set_aside),
        }
    }
}

/// All that is known of the sync. Heights, counts that grow for ever and durations (nanoseconds)
/// are strings, rates are numbers.
#[derive(Serialize)]
struct SyncStatus<'a> {
    software: &'a str,
    version: &'a str,
    mode: &'static str,
    /// Why it is in that mode.
    mode_reason: String,
    /// Since how long.
    mode_time: Text<u128>,
    /// How often the mode has changed since the start.
    mode_switches: Text<u64>,
    /// How old the last applied block is by the wall clock, zero where it is of the future; `None`
    /// before there is one.
    block_age: Option<Text<u128>>,
    catching_up: bool,
    base: Height,
    height: Height,
    /// In consensus, what is being decided above `height`, as `/consensus_state` tells it.
    #[serde(rename = "height/round/step")]
    place: Option<String>,
    start_height: Height,
    certified_height: Height,
    /// `None` when nothing is known.
    target_height: Option<Height>,
    target_source: &'static str,
    blocks_per_second: f64,
    blocks_per_second_minute: f64,
    bytes_per_second: f64,
    bytes_per_second_minute: f64,
    /// `None` while it cannot be told.
    remaining_time: Option<Text<u128>>,
    total_synced_time: Text<u128>,
    window: Window,
    limiting_stage: &'static str,
    stalled_reason: Option<String>,
    /// Why this node's validator signs nothing.
    silent_reason: Option<String>,
    signatures_verified: Text<u64>,
    signatures_total: Text<u64>,
    longest_run: Text<usize>,
    blocks_received: Text<u64>,
    bytes_received: Text<u64>,
    peers: Vec<SyncPeer>,
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::WaitForPeers => "wait_for_peers",
        Mode::BlockSync => "block_sync",
        Mode::Consensus => "consensus",
        Mode::Halted => "halted",
    }
}

const fn source_name(source: TargetSource) -> &'static str {
    match source {
        TargetSource::Unknown => "unknown",
        TargetSource::OnePeer => "one_peer",
        TargetSource::Peers => "peers",
        TargetSource::Certified => "certified",
    }
}

const fn limit_name(limit: Limit) -> &'static str {
    match limit {
        Limit::Nothing => "",
        Limit::Network => "network",
        Limit::Verification => "verification",
        Limit::Execution => "execution",
        Limit::Storage => "disk",
    }
}

/// How many nanoseconds old the block of `time` at `height` is; `None` where that is no block.
fn age(height: Height, time: Time, now: Time) -> Option<u128> {
    let age = now.nanos_since(time).max(0).unsigned_abs();
    (height > Height::ZERO).then_some(age)
}

pub(super) fn sync_status(backend: &Backend, _: &Arguments) -> Answer {
    let context = &backend.context;
    let view = context.consensus.view();
    let mut progress = context.progress.borrow().clone();
    let mut place = None;
    if let Some(view) = &view {
        progress = progress.with_decided(view.state().last_block_height);
        place = (progress.mode == Mode::Consensus).then(|| place_of(view));
    }
    let states = [
        Some(context.evidence.state()),
        view.as_ref().map(|view| Arc::clone(view.state())),
    ];
    let now = moment(SystemTime::now());
    // The newest block is the youngest, whoever applied it.
    let ages = states
        .iter()
        .flatten()
        .filter_map(|state| age(state.last_block_height, state.last_block_time, now));
    let synced = progress.block_age.filter(|_| view.is_none());
    let block_age = ages.chain(synced.map(|age| age.as_nanos())).min();
    let window = &progress.window;
    let stalled = progress.stalled.as_ref().map(ToString::to_string);
    let standing = || Some(Standing::of(view.as_deref()?, Instant::now())?.to_string());
    let silence = view.as_ref().and_then(|view| view.stay().silence.clone());
    let known = progress.target_source != TargetSource::Unknown;
    write(&SyncStatus {
        software: &context.software,
        version: &context.version,
        mode: mode_name(progress.mode),
        mode_reason: progress.why.to_string(),
        mode_time: Text(progress.in_mode.as_nanos()),
        mode_switches: Text(progress.switches),
        block_age: block_age.map(Text),
        catching_up: progress.is_catching_up(),
        base: context.store.base(),
        height: progress.height,
        place,
        start_height: progress.start,
        certified_height: progress.certified,
        target_height: known.then_some(progress.target),
        target_source: source_name(progress.target_source),
        blocks_per_second: progress.blocks_per_second,
        blocks_per_second_minute: progress.blocks_per_second_minute,
        bytes_per_second: progress.bytes_per_second,
        bytes_per_second_minute: progress.bytes_per_second_minute,
        remaining_time: progress.eta.map(|eta| Text(eta.as_nanos())),
        total_synced_time: Text(backend.synced.total().as_nanos()),
        window: Window {
            in_flight: window.in_flight,
            here: window.here,
            linked: window.linked,
            pinned: window.pinned,
            held_bytes: Text(window.held_bytes),
            expected_bytes: Text(window.expected_bytes),
        },
        limiting_stage: limit_name(progress.limit),
        stalled_reason: stalled.or_else(standing),
        silent_reason: silence.as_deref().map(str::to_owned),
        signatures_verified: Text(progress.signatures_verified),
        signatures_total: Text(progress.signatures_total),
        longest_run: Text(progress.longest_run),
        blocks_received: Text(progress.blocks_received),
        bytes_received: Text(progress.bytes_received),
        peers: progress.peers.iter().map(SyncPeer::of).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_as_old_as_its_time_whoever_applied_it() {
        let age = |height, now| age(Height::new(height), Time::new(100, 5), Time::new(now, 7));
        assert_eq!(age(3, 101), Some(1_000_000_002));
        assert_eq!(age(3, 99), Some(0), "of the future");
        assert_eq!(age(0, 101), None, "no block, the genesis' time");
    }
}
