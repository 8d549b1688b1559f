//! `[p2p.libp2p]`: v0.40's experimental transport. It is understood so that a file that holds it
//! can be checked; it cannot be enabled.

use std::time::Duration;

use super::{
    value::{Refused, Row, Value, quoted},
    visit::{Key, Section, Visitor},
};

/// v0.40's experimental transport.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LibP2pConfig {
    /// Whether it replaces the classic transport: refused when true. Default false.
    pub enabled: bool,
    /// Peers to start with. Default none.
    pub bootstrap_peers: Vec<BootstrapPeer>,
    /// Workers of each reactor.
    pub scaler: ScalerConfig,
    /// Limits of its resources.
    pub limits: LimitsConfig,
}

/// A peer to start with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootstrapPeer {
    /// `IP:PORT`.
    pub host: String,
    /// Its libp2p peer id.
    pub id: String,
    /// Whether its address is told to nobody.
    pub private: bool,
    /// Whether to stay connected.
    pub persistent: bool,
    /// Whether no limit applies.
    pub unconditional: bool,
}

/// Workers of each reactor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalerConfig {
    /// Workers at least. Default 4.
    pub min_workers: u64,
    /// Workers at most. Default 32.
    pub max_workers: u64,
    /// Latency from which workers are added. Default 100ms.
    pub threshold_latency: Duration,
    /// Other numbers for single reactors. Default: `MEMPOOL` 8, 512, 500ms.
    pub overrides: Vec<ScalerOverride>,
}

/// Other numbers for one reactor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScalerOverride {
    /// Its name.
    pub reactor: String,
    /// Workers at least.
    pub min_workers: u64,
    /// Workers at most.
    pub max_workers: u64,
    /// Latency from which workers are added.
    pub threshold_latency: Duration,
}

/// Limits of its resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// `disabled`, `default` or `custom`. Default `default`.
    pub mode: String,
    /// Peers at most, for `custom`. Default 0.
    pub max_peers: u64,
    /// Streams of a peer at most, for `custom`. Default 0.
    pub max_peer_streams: u64,
}

impl Default for ScalerConfig {
    fn default() -> Self {
        Self {
            min_workers: 4,
            max_workers: 32,
            threshold_latency: Duration::from_millis(100),
            overrides: vec![ScalerOverride {
                reactor: "MEMPOOL".to_owned(),
                min_workers: 8,
                max_workers: 512,
                threshold_latency: Duration::from_millis(500),
            }],
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            mode: "default".to_owned(),
            max_peers: 0,
            max_peer_streams: 0,
        }
    }
}

impl Section for LibP2pConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(Key::quiet("enabled", "Not offered."), &mut self.enabled);
        v.key(
            Key::quiet("bootstrap_peers", "Peers to start with."),
            &mut self.bootstrap_peers,
        );
        v.table("scaler", "Workers of each reactor.", &mut self.scaler);
        v.table("limits", "Limits of its resources.", &mut self.limits);
    }
}

impl Section for ScalerConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::quiet("min_workers", "Workers at least."),
            &mut self.min_workers,
        );
        v.key(
            Key::quiet("max_workers", "Workers at most."),
            &mut self.max_workers,
        );
        v.key(
            Key::quiet("threshold_latency", "Latency from which workers are added."),
            &mut self.threshold_latency,
        );
        v.key(
            Key::quiet("overrides", "Other numbers for single reactors."),
            &mut self.overrides,
        );
    }
}

impl Section for LimitsConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::quiet("mode", "disabled, default or custom."),
            &mut self.mode,
        );
        v.key(
            Key::quiet("max_peers", "Peers at most."),
            &mut self.max_peers,
        );
        v.key(
            Key::quiet("max_peer_streams", "Streams of a peer at most."),
            &mut self.max_peer_streams,
        );
    }
}

impl Row for BootstrapPeer {
    const EXPECTED: &'static str =
        "a list of { host = \"IP:PORT\", id = \"…\", private, persistent, unconditional }";

    fn field(&mut self, key: &str) -> Option<&mut dyn Value> {
        Some(match key {
            "host" => &mut self.host,
            "id" => &mut self.id,
            "private" => &mut self.private,
            "persistent" => &mut self.persistent,
            "unconditional" => &mut self.unconditional,
            _ => return None,
        })
    }

    fn check(&self) -> Result<(), Refused> {
        if self.host.is_empty() || self.id.is_empty() {
            return Err(Refused::expecting("a host and an id for each peer"));
        }
        Ok(())
    }

    fn to_inline(&self) -> String {
        format!(
            "{{ host = {}, id = {}, private = {}, persistent = {}, unconditional = {} }}",
            quoted(&self.host),
            quoted(&self.id),
            self.private,
            self.persistent,
            self.unconditional
        )
    }
}

impl Row for ScalerOverride {
    const EXPECTED: &'static str =
        "a list of { reactor = \"NAME\", min_workers, max_workers, threshold_latency }";

    fn field(&mut self, key: &str) -> Option<&mut dyn Value> {
        Some(match key {
            "reactor" => &mut self.reactor,
            "min_workers" => &mut self.min_workers,
            "max_workers" => &mut self.max_workers,
            "threshold_latency" => &mut self.threshold_latency,
            _ => return None,
        })
    }

    fn check(&self) -> Result<(), Refused> {
        if self.reactor.is_empty() || self.min_workers > self.max_workers {
            return Err(Refused::expecting(
                "a reactor, and min_workers not above max_workers",
            ));
        }
        Ok(())
    }

    fn to_inline(&self) -> String {
        format!(
            "{{ reactor = {}, min_workers = {}, max_workers = {}, threshold_latency = {} }}",
            quoted(&self.reactor),
            self.min_workers,
            self.max_workers,
            self.threshold_latency.to_toml()
        )
    }
}
