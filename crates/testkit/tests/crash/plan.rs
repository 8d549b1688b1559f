//! How often, and when.

use std::{env, str::FromStr, time::Duration};

use perihelion_crypto::sha256;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Up to so many kills the plan is a short one.
const SHORT: usize = 20;
/// Kills that are no more than a look at whether it works.
const FEW: usize = 2;

/// What the environment asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) kills: usize,
    pub(crate) seed: u64,
}

impl Plan {
    pub(crate) fn from_environment() -> Self {
        Self {
            kills: number("PERIHELION_CRASHES", FEW),
            seed: number("PERIHELION_CRASH_SEED", 1),
        }
    }

    /// Few kills, of a chain that is made quickly.
    pub(crate) fn is_short(self) -> bool {
        self.kills <= SHORT
    }
}

fn number<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Err(_) => default,
        Ok(text) if text.is_empty() => default,
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, got {text:?}")),
    }
}

/// When a node is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// So long after its start.
    After(Duration),
    /// Once it is at this height.
    At(i64),
    /// Once it has all, and consensus.
    AtTheEnd,
}

/// What is drawn follows from the seed and from what it is drawn for.
pub(crate) struct Draw {
    source: ChaCha8Rng,
    is_strict: bool,
}

impl Draw {
    pub(crate) fn new(plan: Plan, purpose: &str) -> Self {
        let seed = sha256(format!("{}/{purpose}", plan.seed).as_bytes());
        Self {
            source: ChaCha8Rng::from_seed(seed),
            is_strict: plan.is_short(),
        }
    }

    /// Whether a power cut leaves all names as they are: in half of the cases, and never where there
    /// are few.
    pub(crate) fn keeps_names(&mut self) -> bool {
        self.below(2) == 0 && !self.is_strict
    }

    /// A number below `bound`; 0 where that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.source.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// A moment of a span.
    pub(crate) fn within(&mut self, span: Duration) -> Duration {
        let nanos = u64::try_from(span.as_nanos()).unwrap();
        Duration::from_nanos(self.below(nanos))
    }

    /// How much of `bytes` stays: in half of the cases nothing.
    pub(crate) fn share(&mut self, bytes: u64) -> u64 {
        if self.below(2) == 0 {
            0
        } else {
            self.below(bytes + 1)
        }
    }
}
