//! `[statesync]` and `[blocksync]`: how a node catches up.

use std::time::Duration;

use super::{
    value::{Choice, CommaList, Quoted},
    visit::{Key, Section, Visitor},
};

/// Starting from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSyncConfig {
    /// Whether an empty node starts from a snapshot. Default false.
    pub enable: bool,
    /// RPC servers for light verification, at least two. Default none.
    pub rpc_servers: CommaList,
    /// Height that is trusted. Default 0.
    pub trust_height: i64,
    /// Hash of its header, hexadecimal. Default empty.
    pub trust_hash: String,
    /// How long validators are trusted. Default 168h.
    pub trust_period: Duration,
    /// How long snapshots are looked for; 0 or at least 5s. Default 15s.
    pub discovery_time: Duration,
    /// Folder of chunks; empty for the system's. Default empty.
    pub temp_dir: String,
    /// When a chunk is asked for again; at least 5s. Default 10s.
    pub chunk_request_timeout: Duration,
    /// Chunks fetched at once. Default 4.
    pub chunk_fetchers: Quoted,
    /// Chunks of a snapshot at most. Default 100000.
    pub max_snapshot_chunks: u32,
}

impl Default for StateSyncConfig {
    fn default() -> Self {
        Self {
            enable: false,
            rpc_servers: CommaList::default(),
            trust_height: 0,
            trust_hash: String::new(),
            trust_period: Duration::from_secs(168 * 3600),
            discovery_time: Duration::from_secs(15),
            temp_dir: String::new(),
            chunk_request_timeout: Duration::from_secs(10),
            chunk_fetchers: Quoted(4),
            max_snapshot_chunks: 100_000,
        }
    }
}

impl Section for StateSyncConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new(
                "enable",
                "Start an empty node from a snapshot of the application.",
            ),
            &mut self.enable,
        );
        v.key(
            Key::new(
                "rpc_servers",
                "At least two RPC servers to verify with, with commas between them; a trusted height,\nits header's hash, and how long validators are trusted (2/3 of the unbonding time).",
            ),
            &mut self.rpc_servers,
        );
        v.key(Key::new("trust_height", ""), &mut self.trust_height);
        v.key(Key::new("trust_hash", ""), &mut self.trust_hash);
        v.key(Key::new("trust_period", ""), &mut self.trust_period);
        v.key(
            Key::new("discovery_time", "How long snapshots are looked for."),
            &mut self.discovery_time,
        );
        v.key(
            Key::new("temp_dir", "Folder of chunks; empty: the system's."),
            &mut self.temp_dir,
        );
        v.key(
            Key::new(
                "chunk_request_timeout",
                "When a chunk is asked of another peer.",
            ),
            &mut self.chunk_request_timeout,
        );
        v.key(
            Key::new("chunk_fetchers", "Chunks fetched at once."),
            &mut self.chunk_fetchers,
        );
        v.key(
            Key::new("max_snapshot_chunks", "Chunks of a snapshot at most."),
            &mut self.max_snapshot_chunks,
        );
    }
}

/// Which commits are verified while catching up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// One commit pins a whole linked run of blocks.
    #[default]
    Pinned,
    /// The commit of every block.
    Every,
}

impl Choice for Verify {
    const NAMES: &'static [(Self, &'static str)] =
        &[(Self::Pinned, "pinned"), (Self::Every, "every")];
}

/// Catching up block by block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSyncConfig {
    /// `v0`, the only version. Default `v0`.
    pub version: String,
    /// v0.40's experiment; without effect. Default false.
    pub adaptive_sync: bool,
    /// Which commits are verified. Default `pinned`. Ours.
    pub verify: Verify,
    /// Bytes of blocks in flight and in memory at most, at least 16 MiB. Default 64 MiB. Ours.
    pub window_bytes: u64,
    /// Heights in flight and in memory at most, at least 2. Default 8192. Ours.
    pub window_heights: u64,
    /// Requests in flight to one peer at most, 1 to 500. Default 500; CometBFT drops answers
    /// beyond its queue of 1,000. Ours.
    pub peer_requests: u64,
    /// How long an asked block may take while no byte of it comes. Default 15s. Ours.
    pub peer_timeout: Duration,
    /// How many final blocks consensus may be behind before the node goes back to blocksync, at
    /// least 1. Default 3. Ours.
    pub reenter_behind: u64,
}

impl Default for BlockSyncConfig {
    fn default() -> Self {
        Self {
            version: "v0".to_owned(),
            adaptive_sync: false,
            verify: Verify::Pinned,
            window_bytes: 64 << 20,
            window_heights: 8192,
            peer_requests: 500,
            peer_timeout: Duration::from_secs(15),
            reenter_behind: 3,
        }
    }
}

impl Section for BlockSyncConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(Key::new("version", "Always v0."), &mut self.version);
        v.key(
            Key::quiet("adaptive_sync", "Without effect here."),
            &mut self.adaptive_sync,
        );
        v.key(
            Key::new(
                "verify",
                "Perihelion: pinned verifies one commit for a whole linked run of blocks, which is as safe;\nevery verifies each block's commit.",
            ),
            &mut self.verify,
        );
        v.key(
            Key::new(
                "window_bytes",
                "Perihelion: bytes of blocks on their way and in memory at most (16 MiB or more).",
            ),
            &mut self.window_bytes,
        );
        v.key(
            Key::new(
                "window_heights",
                "Perihelion: heights on their way and in memory at most.",
            ),
            &mut self.window_heights,
        );
        v.key(
            Key::new(
                "peer_requests",
                "Perihelion: blocks asked of one peer at once, 1 to 500.",
            ),
            &mut self.peer_requests,
        );
        v.key(
            Key::new(
                "peer_timeout",
                "Perihelion: how long a peer may stay silent before its blocks are asked elsewhere.",
            ),
            &mut self.peer_timeout,
        );
        v.key(
            Key::new(
                "reenter_behind",
                "Perihelion: how many final blocks consensus may be behind before the node goes back to\nblocksync.",
            ),
            &mut self.reenter_behind,
        );
    }
}
