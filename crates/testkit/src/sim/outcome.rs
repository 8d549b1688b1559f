use std::time::Duration;

use perihelion_schedule::{Fault, Mode, ModeReason, StallReason};

use super::Switch;

/// What came out of a simulation.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The last applied height.
    pub height: i64,
    /// Virtual time when it ended, or first caught up.
    pub took: Duration,
    /// When the schedule was caught up first, at which height.
    pub caught_up: Option<(Duration, i64)>,
    /// Punished peers by index, with fault and ban.
    pub punished: Vec<(usize, Fault, bool)>,
    /// Why it halted.
    pub halted: Option<StallReason>,
    /// Reasons told while nothing moved.
    pub stalls: Vec<StallReason>,
    /// Requests made, in all and by peer.
    pub requests: Vec<u64>,
    /// Most bytes held and expected at once.
    pub most_bytes: usize,
    /// Most bytes held at once.
    pub most_held: usize,
    /// Signatures verified.
    pub signatures: u64,
    /// The longest run.
    pub longest_run: usize,
    /// The longest time from a block's being made to the one below it being applied by blocksync, of
    /// blocks made since the start.
    pub longest_delay: Option<Duration>,
    /// The longest time from a block's being applied to consensus being entered after it.
    pub entered_after: Option<Duration>,
    /// What became of the executor, and when.
    pub switches: Vec<(Duration, Switch)>,
    /// Requests made while consensus had the executor.
    pub lookout_requests: u64,
    /// What the node was at in the end.
    pub mode: Mode,
    /// Why.
    pub why: ModeReason,
    /// For how long.
    pub in_mode: Duration,
    /// Everything that happened, a line each.
    pub log: Vec<String>,
}
