use std::{collections::BTreeSet, fmt, num::NonZero, sync::Arc};

use perihelion_types::{Address, PeerId, RulesByHeight};

/// Which commits are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyMode {
    /// One commit a run of linked blocks; see the book's page on pinning.
    #[default]
    Pinned,
    /// Every commit, in batches over many of them, ahead of the application.
    Every,
}

/// How a pool works.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Which commits are verified.
    pub verify: VerifyMode,
    /// Threads for decoding and verifying. More than cores only adds switching.
    pub workers: NonZero<usize>,
    /// Bounds and times of the scheduler; its `runs` follow from the workers.
    pub schedule: perihelion_schedule::Config,
    /// Configured peers: the node is not caught up before they told their status or missed their
    /// dial deadline.
    pub persistent: BTreeSet<PeerId>,
    /// Which release's rules a block is decoded by, by its height: those that the executor has.
    pub rules: RulesByHeight,
    /// The address of our validator key.
    pub own_address: Option<Address>,
    /// Asked when there are no peers: why not.
    pub absence: Absence,
}

/// Tells why configured peers are not connected, where somebody knows.
#[derive(Clone)]
pub struct Absence(Arc<dyn Fn() -> Option<String> + Send + Sync>);

impl Absence {
    /// `tell` is called a few times a second while there are no peers.
    pub fn new(tell: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Why, in words.
    #[must_use]
    pub fn tell(&self) -> Option<String> {
        (self.0)()
    }
}

impl Default for Absence {
    /// Nobody knows.
    fn default() -> Self {
        Self::new(|| None)
    }
}

impl fmt::Debug for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Absence").finish_non_exhaustive()
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            verify: VerifyMode::default(),
            workers: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
            schedule: perihelion_schedule::Config::default(),
            persistent: BTreeSet::new(),
            rules: RulesByHeight::default(),
            own_address: None,
            absence: Absence::default(),
        }
    }
}
