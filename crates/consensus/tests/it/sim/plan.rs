//! What a seed decides about a run.

use std::time::Duration;

use perihelion_consensus::ConsensusConfig;

use super::rng::Rng;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Powers of the validators of the genesis.
    pub(crate) powers: Vec<i64>,
    /// How many of them are byzantine: less than a third of the power.
    pub(crate) byzantine: usize,
    /// Nodes without power at first.
    pub(crate) followers: usize,
    /// The height from which precommits carry extensions; 0 for never.
    pub(crate) extensions: i64,
    pub(crate) config: ConsensusConfig,
    /// Messages lost, of 100, until the network heals.
    pub(crate) loss: u64,
    /// Votes of 100 that one receiver never gets until the network heals, whoever tells them: so
    /// some see a majority where others do not.
    pub(crate) blind: u64,
    /// Messages that come twice, of 100.
    pub(crate) duplicates: u64,
    /// The longest delay until the network heals, in ms.
    pub(crate) delay_ms: u64,
    /// An effect in so many is followed by a crash, until the network heals; 0 for none.
    pub(crate) crash_every: u64,
    /// Whether the network is cut now and then until it heals.
    pub(crate) partitions: bool,
    /// An answer in so many comes late.
    pub(crate) slow_answers: u64,
    /// The network heals after so long at the latest.
    pub(crate) heals_after: Duration,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let count = if rng.chance(3, 4) {
            rng.within(4..6)
        } else {
            rng.within(6..11)
        };
        let mut powers: Vec<i64> = (0..count)
            .map(|_| {
                if rng.chance(1, 3) {
                    1 + rng.within(0..9) as i64
                } else {
                    10
                }
            })
            .collect();
        let most = powers.len().div_ceil(3);
        let mut byzantine = rng.index(most + 1);
        let total = |powers: &[i64]| powers.iter().sum::<i64>();
        while 3 * total(&powers[..byzantine]) >= total(&powers) {
            byzantine -= 1;
        }
        if rng.chance(1, 20) {
            // A validator alone.
            powers = vec![10];
            byzantine = 0;
        }
        let calm = rng.chance(1, 10);
        Self {
            powers,
            byzantine,
            followers: usize::from(rng.chance(1, 3)),
            extensions: *rng.pick(&[0, 0, 1, 2, 3]),
            config: config(rng),
            loss: if calm { 0 } else { rng.within(0..40) },
            blind: if calm || rng.chance(1, 3) {
                0
            } else {
                rng.within(5..50)
            },
            duplicates: rng.within(0..20),
            delay_ms: if calm { 20 } else { rng.within(10..500) },
            crash_every: if calm || rng.chance(1, 4) {
                0
            } else {
                rng.within(40..400)
            },
            partitions: !calm && rng.chance(2, 3),
            slow_answers: rng.within(5..60),
            heals_after: Duration::from_millis(rng.within(1000..5000)),
        }
    }
}

fn config(rng: &mut Rng) -> ConsensusConfig {
    let ms = Duration::from_millis;
    let waits = rng.chance(1, 6);
    ConsensusConfig {
        timeout_propose: ms(200),
        timeout_propose_delta: ms(60),
        timeout_prevote: ms(80),
        timeout_prevote_delta: ms(40),
        timeout_precommit: ms(80),
        timeout_precommit_delta: ms(40),
        timeout_commit: ms(rng.within(0..80)),
        skip_timeout_commit: rng.chance(1, 2),
        create_empty_blocks: !waits,
        create_empty_blocks_interval: if rng.chance(1, 2) { ms(150) } else { ms(0) },
    }
}
