use std::time::Duration;

use perihelion_types::Round;

/// Timeouts and the rules for empty blocks. The durations of a round's steps grow with the round,
/// so that after a network heals all validators meet in one round however long it was slow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsensusConfig {
    /// How long a proposal of round 0 is waited for before nil is prevoted (3 s).
    pub timeout_propose: Duration,
    /// By how much that grows with each round (500 ms).
    pub timeout_propose_delta: Duration,
    /// How long further prevotes are waited for once more than 2/3 have prevoted anything (1 s).
    pub timeout_prevote: Duration,
    /// By how much that grows with each round (500 ms).
    pub timeout_prevote_delta: Duration,
    /// How long further precommits are waited for once more than 2/3 have precommitted anything
    /// (1 s).
    pub timeout_precommit: Duration,
    /// By how much that grows with each round (500 ms).
    pub timeout_precommit_delta: Duration,
    /// From the commit of a block to the next height, so that late precommits get into the block
    /// after it (1 s).
    pub timeout_commit: Duration,
    /// Go on at once when every validator has precommitted (false).
    pub skip_timeout_commit: bool,
    /// Propose blocks without transactions (true). Otherwise round 0 waits for transactions, unless
    /// the last block changed the application's hash: the next one proves it.
    pub create_empty_blocks: bool,
    /// Longest wait for transactions; zero waits for ever (0 s). Anything else makes round 0 wait
    /// even where empty blocks are created.
    pub create_empty_blocks_interval: Duration,
}

impl Default for ConsensusConfig {
    /// CometBFT's defaults.
    fn default() -> Self {
        Self {
            timeout_propose: Duration::from_millis(3000),
            timeout_propose_delta: Duration::from_millis(500),
            timeout_prevote: Duration::from_millis(1000),
            timeout_prevote_delta: Duration::from_millis(500),
            timeout_precommit: Duration::from_millis(1000),
            timeout_precommit_delta: Duration::from_millis(500),
            timeout_commit: Duration::from_millis(1000),
            skip_timeout_commit: false,
            create_empty_blocks: true,
            create_empty_blocks_interval: Duration::ZERO,
        }
    }
}

impl ConsensusConfig {
    /// The wait for a proposal in `round`.
    #[must_use]
    pub fn propose(&self, round: Round) -> Duration {
        grown(self.timeout_propose, self.timeout_propose_delta, round)
    }

    /// The wait for prevotes in `round`.
    #[must_use]
    pub fn prevote(&self, round: Round) -> Duration {
        grown(self.timeout_prevote, self.timeout_prevote_delta, round)
    }

    /// The wait for precommits in `round`.
    #[must_use]
    pub fn precommit(&self, round: Round) -> Duration {
        grown(self.timeout_precommit, self.timeout_precommit_delta, round)
    }

    /// Whether round 0 waits for transactions.
    #[must_use]
    pub fn waits_for_txs(&self) -> bool {
        !self.create_empty_blocks || !self.create_empty_blocks_interval.is_zero()
    }
}

fn grown(base: Duration, delta: Duration, round: Round) -> Duration {
    base.saturating_add(delta.saturating_mul(round.get().max(0).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_the_round() {
        let config = ConsensusConfig::default();
        assert_eq!(config.propose(Round::ZERO), Duration::from_millis(3000));
        assert_eq!(config.propose(Round::new(3)), Duration::from_millis(4500));
        assert_eq!(config.prevote(Round::new(2)), Duration::from_millis(2000));
        assert_eq!(config.precommit(Round::new(1)), Duration::from_millis(1500));
        // The largest round there is does not overflow.
        assert!(config.propose(Round::new(i32::MAX)) > config.propose(Round::new(9)));
    }

    #[test]
    fn an_interval_makes_round_0_wait_even_where_empty_blocks_are_made() {
        let mut config = ConsensusConfig::default();
        assert!(!config.waits_for_txs());
        config.create_empty_blocks_interval = Duration::from_secs(1);
        assert!(config.waits_for_txs());
        config.create_empty_blocks_interval = Duration::ZERO;
        config.create_empty_blocks = false;
        assert!(config.waits_for_txs());
    }
}
