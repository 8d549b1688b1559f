use std::{sync::Arc, time::Duration};

use perihelion_schedule::Config;
use perihelion_types::Time;

use super::{Consensus, PeerSpec};
use crate::chain::Chain;

/// A simulation before it starts.
#[derive(Clone)]
pub struct Setup {
    /// The chain that honest peers have.
    pub chain: Arc<Chain>,
    /// What forkers serve.
    pub fork: Arc<Chain>,
    /// The peers.
    pub peers: Vec<PeerSpec>,
    /// The schedule's bounds.
    pub config: Config,
    /// How long the application takes for a block.
    pub apply_time: Duration,
    /// Verification workers.
    pub workers: usize,
    /// The height that is applied at the start; one below the initial height for none.
    pub applied: i64,
    /// Whether a verified commit for it is at hand.
    pub last_commit_verified: bool,
    /// How consensus behaves; none decides nothing.
    pub consensus: Option<Consensus>,
    /// The chain's height at the start, and the time from one block to the next.
    pub growth: Option<(i64, Duration)>,
    /// What our wall clock shows at the start.
    pub wall: Time,
    /// Our own share of the voting power.
    pub own_power: i64,
    /// Bytes of a block at most, as far as the node knows.
    pub largest_block: usize,
    /// A height whose application fails with another app hash.
    pub wrong_app_at: Option<i64>,
    /// Our genesis has other validators than the chain.
    pub other_genesis: bool,
    /// Both chains are signed by two thirds: either may be applied, until that is found out.
    pub either_chain: bool,
    /// The schedule's books, whose check costs as much as the window is long, are checked after so
    /// many steps.
    pub check_every: u64,
}

impl Setup {
    /// A fresh node among `peers`.
    #[must_use]
    pub fn new(chain: &Arc<Chain>, peers: Vec<PeerSpec>) -> Self {
        Self {
            chain: Arc::clone(chain),
            fork: Arc::clone(chain),
            peers,
            config: Config::default(),
            apply_time: Duration::from_millis(1),
            workers: 2,
            applied: chain.shape().initial_height - 1,
            last_commit_verified: true,
            consensus: None,
            growth: None,
            // The chain has been standing for an hour.
            wall: chain.time(chain.height() + 3_600),
            own_power: 0,
            largest_block: 64 << 10,
            wrong_app_at: None,
            other_genesis: false,
            either_chain: false,
            check_every: 1,
        }
    }
}
