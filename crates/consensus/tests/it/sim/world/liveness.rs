//! How soon blocks must be decided once the network has healed.

use std::{sync::Arc, time::Duration};

use perihelion_types::{Height, Round, State, ValidatorSet};

use super::World;
use crate::{chain, sim::node::Node};

/// Rounds with an honest proposer that may pass before the block is decided that was being decided
/// when the network healed. Locks of before are told of meanwhile, and less than a third of the
/// power can make an honest round fail, by votes that only some get in time: each further one is
/// some ten times as rare, and of 2,000 networks none took more than five.
const HONEST_ROUNDS: usize = 8;
/// The same of the block above, which began without locks.
const HONEST_ROUNDS_ABOVE: usize = 5;
/// For how long a node may be down that crashed right before.
const AWAY: Duration = Duration::from_millis(800);
/// What signatures, answers and messages of one round may take beside its waits.
const ON_THE_WAY: Duration = Duration::from_millis(700);
/// In what time every node that waits for transactions has heard of one: by chance, with each of
/// more than 80 turns of gossip.
const TRANSACTIONS: Duration = Duration::from_secs(5);

/// The moment when the network heals.
#[derive(Debug)]
pub(super) struct Healed {
    at: Duration,
    /// Behind the highest block that any node has.
    state: Arc<State>,
    /// The highest round of an honest node at the height above that.
    round: Round,
    /// The rounds in which that height, and the one above it, are decided at the latest.
    last: [Round; 2],
}

impl Healed {
    /// The height that every honest node must come to.
    pub(super) fn aim(&self) -> Height {
        self.state.next_height().next()
    }
}

impl World {
    pub(super) fn heal(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let disks = self.nodes.iter().map(|node| &node.disk);
        let highest = disks.max_by_key(|disk| disk.state.last_block_height);
        let state = Arc::clone(&highest.expect("there are nodes").state);
        let next = state.next_height();
        let honest = self.nodes[..self.honest].iter();
        let rounds = honest.map(|node| round_at(node, next));
        let round = rounds.max().expect("some are honest");
        let first = self.last_round(&state.validators, round.get() + 1, HONEST_ROUNDS);
        let second = self.last_round(&state.next_validators, 0, HONEST_ROUNDS_ABOVE);
        self.healed = Some(Healed {
            at: self.time,
            state,
            round,
            last: [first, second],
        });
        self.trace(|| "healed".to_owned());
    }

    /// The round in which an honest validator has its turn for the `honest`th time from `from` on.
    fn last_round(&self, set: &ValidatorSet, from: i32, honest: usize) -> Round {
        let is_honest = |round: &i32| {
            let proposer = chain::proposer(set, *round);
            let mut evil = self.adversary.nodes.iter();
            evil.all(|(_, key)| key.public_key().address() != proposer)
        };
        let turns = (from..).filter(is_honest);
        let last = turns.take(honest).last();
        Round::new(last.expect("most of the power is honest"))
    }

    /// Whether every honest node has decided both heights, as soon as it had to.
    pub(super) fn check_progress(&self) -> Option<Result<(), String>> {
        let healed = self.healed.as_ref()?;
        let passed = self.time.saturating_sub(healed.at);
        let honest = &self.nodes[..self.honest];
        let is_done = |node: &Node| node.disk.state.last_block_height >= healed.aim();
        if !honest.iter().all(is_done) {
            let late = passed > self.longest(healed.last);
            return late.then(|| {
                let (aim, places) = (healed.aim(), self.places());
                Err(format!("no progress to {aim} in {passed:?}: {places}"))
            });
        }
        let heights = [healed.state.next_height(), healed.aim()];
        let rounds = heights.map(|height| decided_in(honest, height));
        let in_time = rounds
            .iter()
            .zip(&healed.last)
            .all(|(round, last)| round <= last);
        let longest = self.longest(rounds);
        if in_time && passed <= longest {
            return Some(Ok(()));
        }
        Some(Err(format!(
            "healed in round {}: {heights:?} were decided in rounds {rounds:?}, not by {:?}, or \
             not within {longest:?} but in {passed:?}",
            healed.round, healed.last
        )))
    }

    /// How long two heights may take that are decided in these rounds.
    fn longest(&self, rounds: [Round; 2]) -> Duration {
        let config = &self.plan.config;
        let begins = match (
            config.create_empty_blocks,
            config.create_empty_blocks_interval,
        ) {
            (false, Duration::ZERO) => TRANSACTIONS,
            (_, interval) => interval,
        };
        let mut longest = AWAY;
        for last in rounds {
            longest += begins + config.timeout_commit;
            for round in (0..=last.get()).map(Round::new) {
                longest += config.propose(round) + config.prevote(round) + config.precommit(round);
                longest += ON_THE_WAY;
            }
        }
        longest
    }
}

/// The first round in which one of the nodes had the height decided.
fn decided_in(nodes: &[Node], height: Height) -> Round {
    let index = usize::try_from(height.get() - 1).expect("heights begin with 1");
    let blocks = nodes.iter().map(|node| &node.disk.blocks[index]);
    let commits = blocks.filter_map(|block| block.commit());
    commits
        .map(|commit| commit.round)
        .min()
        .expect("it is decided")
}

/// The highest round that a node has reached at a height, as far as its memory or its disk tells.
fn round_at(node: &Node, height: Height) -> Round {
    let core = node.core.as_ref().filter(|core| core.height() == height);
    let now = core.map(perihelion_consensus::Consensus::round);
    let signed = node.disk.signed.last_round(height);
    now.max(signed).unwrap_or(Round::ZERO)
}
