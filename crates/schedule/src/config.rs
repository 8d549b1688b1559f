use std::time::Duration;

/// Bounds and times of a schedule. [`Config::default`] is what a node uses; tests shrink it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bytes of blocks that are held or expected, from the first byte asked for until the block is
    /// applied. Larger costs memory; smaller starves the application behind slow peers.
    pub window_bytes: usize,
    /// Heights in the window. Larger costs memory for bookkeeping (about 200 bytes a height);
    /// smaller limits chains of tiny blocks.
    pub window_blocks: usize,
    /// Requests in flight to one peer. CometBFT drops answers beyond its send queue of 1,000, so
    /// half of that is the most that is safe.
    pub peer_allowance: usize,
    /// Requests in flight to a peer of which nothing is known; and, once there are peers whose blocks
    /// were applied, to all others together. Larger makes a liar cost more, smaller makes the start
    /// slower.
    pub first_allowance: usize,
    /// How long a peer may be silent while it owes a block. Shorter loses honest peers behind long
    /// queues; longer lets a silent one hold its heights (near the apply height they are asked of
    /// others far earlier).
    pub peer_deadline: Duration,
    /// Least rate in bytes/s below which a peer that owes blocks counts as silent.
    pub minimum_rate: u64,
    /// How late a block near the apply height may be before a second peer is asked for it, at the
    /// least and at the most; between them it is twice the peer's usual latency.
    pub hedge_after: (Duration, Duration),
    /// For how long a peer whose answers are of no use is asked only for what nobody else can be
    /// asked for: the first time, and at the most; each time twice as long. Shorter lets a liar
    /// cost more, longer does without an honest peer that had one bad copy.
    pub bench: (Duration, Duration),
    /// How many heights above the apply height count as near it.
    pub hedge_depth: usize,
    /// Blocks for which a run waits far from the target.
    pub run_blocks: usize,
    /// Blocks in one run at most; reached only when verification is the slower stage.
    pub longest_run: usize,
    /// How long linked blocks wait for others to join their run.
    pub run_wait: Duration,
    /// How long they wait once no further block links; blocks that come this slowly gain nothing
    /// from waiting.
    pub run_idle: Duration,
    /// Runs being certified at once: one a worker, and one queued for each. Fewer leave workers idle;
    /// more only wait.
    pub runs: usize,
    /// Blocks handed to the executor and not yet applied.
    pub applying: usize,
    /// How often peers are asked for their status while catching up.
    pub status_interval: Duration,
    /// The same of a peer whose claim is nearly reached, and of all while consensus has not told of a
    /// block that is final: within one of these and a round trip a new block is noticed. Shorter costs
    /// messages, longer delays the end of a sync by as much.
    pub near_interval: Duration,
    /// How long configured peers may take to connect and to tell their status before the node may
    /// count as caught up without them.
    pub dial_deadline: Duration,
    /// How long nothing is applied before the reason is told.
    pub stall_after: Duration,
    /// After how long heights that every peer failed to serve are offered to all of them again.
    pub retry_after: Duration,
    /// Final blocks that consensus may be behind before the node goes back to blocksync; 1 at the
    /// least. One is on the way to being applied, and consensus makes up for another by itself, each in
    /// a few round trips, for its peers send what it lacks; a further one says that it does not keep
    /// up. Smaller leaves consensus for what it would have decided a moment later, and such a node
    /// would go to and fro; larger makes it vote where nothing is left to decide, and catch up slowly.
    pub reenter_behind: u32,
    /// How long a claim above what consensus decides stands before it is looked into. Consensus has
    /// applied what was claimed so long ago, unless it hangs: shorter fetches blocks that are on their
    /// way by consensus already, longer delays the return to blocksync.
    pub lookout_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window_bytes: 192 << 20,
            window_blocks: 16_384,
            peer_allowance: 500,
            first_allowance: 16,
            peer_deadline: Duration::from_secs(10),
            minimum_rate: 16 * 1024,
            hedge_after: (Duration::from_millis(250), Duration::from_secs(2)),
            bench: (Duration::from_secs(5), Duration::from_secs(300)),
            hedge_depth: 64,
            run_blocks: 128,
            longest_run: 2048,
            run_wait: Duration::from_secs(1),
            run_idle: Duration::from_millis(100),
            runs: 4,
            applying: 64,
            status_interval: Duration::from_secs(5),
            near_interval: Duration::from_secs(1),
            dial_deadline: Duration::from_secs(10),
            stall_after: Duration::from_secs(10),
            retry_after: Duration::from_secs(1),
            reenter_behind: 3,
            lookout_after: Duration::from_secs(1),
        }
    }
}
