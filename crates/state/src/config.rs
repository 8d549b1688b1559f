use std::time::Duration;

use perihelion_events::EventBus;
use perihelion_types::RulesByHeight;

/// Settings of the executor.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// Which release's rules judge a block, by its height.
    pub rules: RulesByHeight,
    /// Blocks that may be written before the disk is made to keep them, when the application's
    /// state is written with its block or is not kept at all (100). More saves time; a power cut
    /// costs that many blocks, which are downloaded and executed again. At least 1.
    pub sync_blocks: u32,
    /// The same in time since the first of them (1 s).
    pub sync_interval: Duration,
    /// The same between [`Executor::begin_catch_up`](crate::Executor::begin_catch_up) and its end, from
    /// the second time on: in time (2 s), and where blocks come in hundreds an eighth of it. Shorter
    /// makes more and smaller files; longer loses more work in a crash.
    pub catch_up_interval: Duration,
    /// How far a proposed block's time may be ahead of the clock (60 s). Smaller: proposals are
    /// refused where clocks differ; larger: validators with wrong clocks may carry the chain's time
    /// away. Blocks that others have voted for are not refused for it.
    pub block_time_tolerance: Duration,
    /// Where each block that was applied is told of, once it is stored and the pools know of it.
    /// Blocks that are replayed at the start are not: they were before.
    pub events: EventBus,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self {
            rules: RulesByHeight::default(),
            sync_blocks: 100,
            sync_interval: Duration::from_secs(1),
            catch_up_interval: Duration::from_secs(2),
            block_time_tolerance: Duration::from_secs(60),
            events: EventBus::default(),
        }
    }
}
