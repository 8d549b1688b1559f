//! `[consensus]`: rounds and their timeouts.

use std::time::Duration;

use super::visit::{Key, Section, Visitor};

/// Rounds and their timeouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsensusConfig {
    /// The write-ahead log. Default `data/cs.wal/wal`.
    pub wal_file: String,
    /// Wait for a proposal before prevoting nil. Default 3s.
    pub timeout_propose: Duration,
    /// How much it grows each round. Default 500ms.
    pub timeout_propose_delta: Duration,
    /// Wait after 2/3 of any prevotes. Default 1s.
    pub timeout_prevote: Duration,
    /// How much it grows each round. Default 500ms.
    pub timeout_prevote_delta: Duration,
    /// Wait after 2/3 of any precommits. Default 1s.
    pub timeout_precommit: Duration,
    /// How much it grows each round. Default 500ms.
    pub timeout_precommit_delta: Duration,
    /// Wait for more precommits after a commit. Default 1s.
    pub timeout_commit: Duration,
    /// Blocks to search for own votes before joining; 0 for none. Default 0.
    pub double_sign_check_height: u64,
    /// Whether to go on as soon as all precommits are here. Default false.
    pub skip_timeout_commit: bool,
    /// Whether blocks without transactions are made. Default true.
    pub create_empty_blocks: bool,
    /// Pause between such blocks. Default 0s.
    pub create_empty_blocks_interval: Duration,
    /// Pause of gossip when there is nothing to send. Default 100ms.
    pub peer_gossip_sleep_duration: Duration,
    /// Pause between questions for majorities. Default 2s.
    pub peer_query_maj23_sleep_duration: Duration,
    /// How far a block's time may be ahead of ours. Default 1m.
    pub block_time_tolerance: Duration,
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        Self {
            wal_file: "data/cs.wal/wal".to_owned(),
            timeout_propose: Duration::from_secs(3),
            timeout_propose_delta: Duration::from_millis(500),
            timeout_prevote: Duration::from_secs(1),
            timeout_prevote_delta: Duration::from_millis(500),
            timeout_precommit: Duration::from_secs(1),
            timeout_precommit_delta: Duration::from_millis(500),
            timeout_commit: Duration::from_secs(1),
            double_sign_check_height: 0,
            skip_timeout_commit: false,
            create_empty_blocks: true,
            create_empty_blocks_interval: Duration::ZERO,
            peer_gossip_sleep_duration: Duration::from_millis(100),
            peer_query_maj23_sleep_duration: Duration::from_secs(2),
            block_time_tolerance: Duration::from_secs(60),
        }
    }
}

impl ConsensusConfig {
    fn visit_timeouts(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new(
                "timeout_propose",
                "How long a proposal is awaited before prevoting nil, and how much longer each round.",
            ),
            &mut self.timeout_propose,
        );
        v.key(
            Key::new("timeout_propose_delta", ""),
            &mut self.timeout_propose_delta,
        );
        v.key(
            Key::new(
                "timeout_prevote",
                "How long to wait after 2/3 of any prevotes, and how much longer each round.",
            ),
            &mut self.timeout_prevote,
        );
        v.key(
            Key::new("timeout_prevote_delta", ""),
            &mut self.timeout_prevote_delta,
        );
        v.key(
            Key::new(
                "timeout_precommit",
                "How long to wait after 2/3 of any precommits, and how much longer each round.",
            ),
            &mut self.timeout_precommit,
        );
        v.key(
            Key::new("timeout_precommit_delta", ""),
            &mut self.timeout_precommit_delta,
        );
        v.key(
            Key::new(
                "timeout_commit",
                "How long to wait for more precommits after a block is decided.",
            ),
            &mut self.timeout_commit,
        );
    }
}

impl Section for ConsensusConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new("wal_file", "The write-ahead log."),
            &mut self.wal_file,
        );
        self.visit_timeouts(v);
        v.key(
            Key::new(
                "double_sign_check_height",
                "Blocks that are searched for own votes before joining; 0: none.\nA validator restarted within so many blocks refuses to start.",
            ),
            &mut self.double_sign_check_height,
        );
        v.key(
            Key::new(
                "skip_timeout_commit",
                "Go on as soon as all precommits are here.",
            ),
            &mut self.skip_timeout_commit,
        );
        v.key(
            Key::new(
                "create_empty_blocks",
                "Make blocks without transactions, and with which pause.",
            ),
            &mut self.create_empty_blocks,
        );
        v.key(
            Key::new("create_empty_blocks_interval", ""),
            &mut self.create_empty_blocks_interval,
        );
        v.key(
            Key::new(
                "peer_gossip_sleep_duration",
                "Pauses of the gossip of parts and votes, and of questions for majorities.",
            ),
            &mut self.peer_gossip_sleep_duration,
        );
        v.key(
            Key::new("peer_query_maj23_sleep_duration", ""),
            &mut self.peer_query_maj23_sleep_duration,
        );
        v.key(
            Key::new(
                "block_time_tolerance",
                "How far the time of a proposed block may be ahead of ours.",
            ),
            &mut self.block_time_tolerance,
        );
    }
}
