use std::{fmt, time::Duration};

use perihelion_types::Height;

use crate::{PeerProgress, StallReason};

/// What the node is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No peer has told its range yet.
    WaitForPeers,
    /// Catching up.
    BlockSync,
    /// Caught up; consensus decides blocks.
    Consensus,
    /// Stopped for a local fault.
    Halted,
}

/// Why the node is at what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeReason {
    /// It has just started.
    Started,
    /// A peer told its range.
    PeersTold,
    /// Nothing was left to be learnt from peers.
    CaughtUp {
        /// The last applied height then.
        height: Height,
    },
    /// Consensus was behind blocks that are final.
    FellBehind {
        /// The last height that consensus had told then.
        applied: Height,
        /// The last certified height then.
        pinned: Height,
    },
    /// Consensus gave the executor back without being asked.
    LeftConsensus,
    /// Nothing more can be done; the reason is that of the stall.
    Halted,
}

impl fmt::Display for ModeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("the node started"),
            Self::PeersTold => f.write_str("peers told their heights"),
            Self::CaughtUp { height } => write!(f, "caught up at height {height}"),
            Self::FellBehind { applied, pinned } => {
                let behind = pinned.since(*applied);
                write!(
                    f,
                    "consensus was {behind} blocks behind final block {pinned}"
                )
            }
            Self::LeftConsensus => f.write_str("consensus was left"),
            Self::Halted => f.write_str("halted"),
        }
    }
}

/// How the target is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSource {
    /// It is not: there is no claim.
    Unknown,
    /// A peer alone claims it.
    OnePeer,
    /// At least two peers claim it or more.
    Peers,
    /// It is the last certified height, and no credible claim is higher.
    Certified,
}

/// Which stage the others wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Nothing is left to do.
    Nothing,
    /// Blocks come too slowly.
    Network,
    /// Signatures are verified too slowly.
    Verification,
    /// Blocks are applied too slowly: mostly the application's time.
    Execution,
    /// Blocks are applied too slowly: mostly the disk's time. Told by the owner of the schedule,
    /// which knows where the time goes.
    Storage,
}

/// Heights of the window by what is known of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowProgress {
    /// Asked, and not here.
    pub in_flight: usize,
    /// Held, not linked to the certified ones yet.
    pub here: usize,
    /// Linked, verification included.
    pub linked: usize,
    /// Final and not applied.
    pub pinned: usize,
    /// Bytes of the blocks held.
    pub held_bytes: usize,
    /// Bytes expected by requests in flight.
    pub expected_bytes: usize,
}

/// Everything that a status, a metric, a page or a progress line shows of catching up.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What the node is at.
    pub mode: Mode,
    /// Why.
    pub why: ModeReason,
    /// How long it had been at that when this was told.
    pub in_mode: Duration,
    /// How often the mode has changed since the start.
    pub switches: u64,
    /// The height at which this sync began (the last applied one then).
    pub start: Height,
    /// The last applied height.
    pub height: Height,
    /// The last certified height.
    pub certified: Height,
    /// Where the chain seems to end; at least `height`.
    pub target: Height,
    /// How that is known.
    pub target_source: TargetSource,
    /// How old the last block that blocksync applied is by the wall clock, zero where it is of the
    /// future; `None` before there is one, and once consensus has had the executor.
    pub block_age: Option<Duration>,
    /// Blocks applied a second, over the last second.
    pub blocks_per_second: f64,
    /// The same over the last minute.
    pub blocks_per_second_minute: f64,
    /// Bytes of blocks received a second, over the last second.
    pub bytes_per_second: f64,
    /// The same over the last minute.
    pub bytes_per_second_minute: f64,
    /// Time to the target at the rate of the last minute; `None` while nothing moves.
    pub eta: Option<Duration>,
    /// The window.
    pub window: WindowProgress,
    /// What limits the speed.
    pub limit: Limit,
    /// Each peer, by id.
    pub peers: Vec<PeerProgress>,
    /// Why nothing moves.
    pub stalled: Option<StallReason>,
    /// Signatures that were verified.
    pub signatures_verified: u64,
    /// Signatures that the certified blocks' commits hold.
    pub signatures_total: u64,
    /// Blocks that one commit made final, at most so far.
    pub longest_run: usize,
    /// Blocks received in all.
    pub blocks_received: u64,
    /// Bytes of blocks received in all.
    pub bytes_received: u64,
}

impl Progress {
    /// Of a node that starts after `height` and has heard of nobody.
    #[must_use]
    pub fn new(height: Height) -> Self {
        Self {
            mode: Mode::WaitForPeers,
            why: ModeReason::Started,
            in_mode: Duration::ZERO,
            switches: 0,
            start: height,
            height,
            certified: height,
            target: height,
            target_source: TargetSource::Unknown,
            block_age: None,
            blocks_per_second: 0.0,
            blocks_per_second_minute: 0.0,
            bytes_per_second: 0.0,
            bytes_per_second_minute: 0.0,
            eta: None,
            window: WindowProgress::default(),
            limit: Limit::Nothing,
            peers: Vec::new(),
            stalled: None,
            signatures_verified: 0,
            signatures_total: 0,
            longest_run: 0,
            blocks_received: 0,
            bytes_received: 0,
        }
    }

    /// The same where consensus has applied `height`: the schedule is told of that a little later.
    #[must_use]
    pub fn with_decided(mut self, height: Height) -> Self {
        let decides = self.mode == Mode::Consensus;
        self.height = if decides {
            height
        } else {
            self.height.max(height)
        };
        self.certified = self.certified.max(self.height);
        self.target = self.target.max(self.height);
        self
    }

    /// Whether the node is behind, as `catching_up` of `/status` says it.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        matches!(
            self.mode,
            Mode::WaitForPeers | Mode::BlockSync | Mode::Halted
        )
    }
}
