//! What a monitoring system reads: Prometheus' text, with CometBFT's names where it has one.
//!
//! Nothing is counted while the node works: who asks gets what the parts tell of themselves then,
//! and what the blocks say that came since the last question.

mod chain;
mod serve;

use std::{fmt, sync::Arc};

use perihelion_consensus_reactor::peer::View;
use perihelion_crypto::Address;
use perihelion_evidence::EvidencePool;
use perihelion_mempool::Mempool;
use perihelion_p2p::SwitchHandle;
use perihelion_schedule::{Mode, ModeReason, Progress};
use perihelion_store::Store;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::sync::watch;

use self::chain::Chain;
pub(crate) use self::serve::serve;

/// What the metrics are taken from.
pub(crate) struct Sources {
    pub(crate) store: Arc<Store>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) view: watch::Receiver<Option<Arc<View>>>,
    pub(crate) mempool: Arc<Mempool>,
    pub(crate) evidence: Arc<EvidencePool>,
    pub(crate) switch: SwitchHandle,
    /// The address of our validator key.
    pub(crate) own_address: Option<Address>,
}

/// All metrics of a node.
pub(crate) struct Metrics(Registry);

impl Metrics {
    /// Metrics whose names begin with `namespace`.
    pub(crate) fn new(namespace: &str, sources: Sources) -> Self {
        let mut registry = Registry::with_prefix(namespace);
        let chain = Chain::new(Arc::clone(&sources.store), sources.own_address);
        registry.register_collector(Box::new(Node { sources, chain }));
        Self(registry)
    }

    /// Their text. Reads the store: to be called where that may take its time.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.0).is_err() {
            // Writing into a String cannot fail.
            tracing::error!("the metrics cannot be written as text");
        }
        text
    }
}

struct Node {
    sources: Sources,
    chain: Chain,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl Collector for Node {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(&mut encoder);
        let progress = self.sources.progress.borrow().clone();
        self.modes(&mut out, &progress)?;
        self.round(&mut out)?;
        self.chain
            .encode(&mut out, progress.mode == Mode::Consensus)?;
        self.pools(&mut out)?;
        self.network(&mut out)
    }
}

impl Node {
    /// Who decides blocks. CometBFT has a metric for each of its reactors that sync.
    fn modes(&self, out: &mut Out<'_, '_>, progress: &Progress) -> fmt::Result {
        let is_syncing = matches!(progress.mode, Mode::WaitForPeers | Mode::BlockSync);
        out.gauge(
            "blocksync_syncing",
            "1 while the node catches up by blocksync",
            i64::from(is_syncing),
        )?;
        out.gauge("statesync_syncing", "1 while the node takes a snapshot", 0)?;
        out.gauge(
            "blocksync_latest_block_height",
            "The last applied height",
            progress.height.get(),
        )?;
        let modes = [
            ("wait_for_peers", Mode::WaitForPeers),
            ("block_sync", Mode::BlockSync),
            ("consensus", Mode::Consensus),
            ("halted", Mode::Halted),
        ];
        let values = modes.map(|(name, mode)| (name, i64::from(mode == progress.mode)));
        out.gauges("mode", "1 for what the node is at", "mode", &values)?;
        let why = reason_name(progress.why);
        let values = REASONS.map(|name| (name, i64::from(name == why)));
        out.gauges("mode_reason", "1 for why it is", "reason", &values)?;
        out.gauge(
            "mode_seconds",
            "For how long it has been at it",
            progress.in_mode.as_secs_f64(),
        )?;
        out.gauge(
            "mode_switches",
            "How often that has changed since the node started",
            i64::try_from(progress.switches).unwrap_or(i64::MAX),
        )
    }

    /// Where consensus is.
    fn round(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let view = self.sources.view.borrow().clone();
        let Some(view) = view else {
            return Ok(());
        };
        out.gauge(
            "consensus_height",
            "The height that is being decided",
            view.height().get(),
        )?;
        out.gauge(
            "consensus_rounds",
            "The round that it is in",
            i64::from(view.round().get()),
        )
    }

    /// What waits for a block.
    fn pools(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let mempool = self.sources.mempool.stats();
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let figure = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let gauges = [
            (
                "mempool_size",
                "Transactions that wait for a block",
                count(mempool.size),
            ),
            (
                "mempool_size_bytes",
                "Their bytes",
                figure(mempool.size_bytes),
            ),
            // CometBFT has these as counters whose names have no suffix.
            (
                "mempool_failed_txs",
                "Transactions that the application refused",
                figure(mempool.refused),
            ),
            (
                "mempool_rejected_txs",
                "Transactions for which there was no room",
                figure(mempool.no_room.saturating_add(mempool.unhandled)),
            ),
            (
                "mempool_evicted_txs",
                "Transactions that became invalid while they waited",
                figure(mempool.evicted),
            ),
            (
                "mempool_recheck_times",
                "Checks of transactions that waited",
                figure(mempool.rechecked),
            ),
            (
                "evidence_pool_num_evidence",
                "Pieces of evidence that wait for a block",
                count(self.sources.evidence.size()),
            ),
        ];
        for (name, help, value) in gauges {
            out.gauge(name, help, value)?;
        }
        Ok(())
    }

    /// The connections.
    fn network(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let peers = self.sources.switch.peers();
        let count = i64::try_from(peers.len()).unwrap_or(i64::MAX);
        out.gauge("p2p_peers", "Connected peers", count)?;
        let bytes = |pick: fn(&perihelion_p2p::PeerStats) -> u64| {
            let of = |peer: &perihelion_p2p::PeerSnapshot| {
                (peer.peer.id().to_string(), pick(&peer.stats))
            };
            peers.iter().map(of).collect::<Vec<_>>()
        };
        out.counters(
            "p2p_peer_receive_bytes",
            "Bytes received from a peer",
            "peer_id",
            &bytes(|stats| stats.received.bytes),
        )?;
        out.counters(
            "p2p_peer_send_bytes",
            "Bytes sent to a peer",
            "peer_id",
            &bytes(|stats| stats.sent.bytes),
        )?;
        let queued: Vec<_> = peers
            .iter()
            .map(|peer| {
                let bytes = i64::try_from(peer.stats.queued_bytes).unwrap_or(i64::MAX);
                (peer.peer.id().to_string(), bytes)
            })
            .collect();
        out.gauges(
            "p2p_peer_pending_send_bytes",
            "Bytes that wait to be sent to a peer",
            "peer_id",
            &queued,
        )
    }
}

/// Names of the reasons for a mode, without heights: each value of a label is kept for long by who
/// collects metrics.
const REASONS: [&str; 6] = [
    "started",
    "peers_told",
    "caught_up",
    "fell_behind",
    "left_consensus",
    "halted",
];

/// That of a reason.
const fn reason_name(why: ModeReason) -> &'static str {
    REASONS[match why {
        ModeReason::Started => 0,
        ModeReason::PeersTold => 1,
        ModeReason::CaughtUp { .. } => 2,
        ModeReason::FellBehind { .. } => 3,
        ModeReason::LeftConsensus => 4,
        ModeReason::Halted => 5,
    }]
}

/// Writes metrics.
struct Out<'a, 'e>(&'a mut DescriptorEncoder<'e>);

/// A number of either kind.
enum Number {
    Whole(i64),
    Real(f64),
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl Out<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl Into<Number>) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        match value.into() {
            Number::Whole(value) => ConstGauge::new(value).encode(encoder),
            Number::Real(value) => ConstGauge::new(value).encode(encoder),
        }
    }

    /// One gauge for each value of a label.
    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(impl AsRef<str>, i64)],
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, number) in values {
            let labels = [(label, value.as_ref())];
            ConstGauge::new(*number).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// One counter for each value of a label; `_total` is put behind the name.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(String, u64)],
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, number) in values {
            let labels = [(label, value.as_str())];
            ConstCounter::new(*number).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
