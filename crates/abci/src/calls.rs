use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use perihelion_types::Height;

use crate::CallName;

/// One of the four connections to an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionName {
    /// Decides and executes blocks.
    Consensus,
    /// Checks transactions.
    Mempool,
    /// Answers about the application's state.
    Query,
    /// Makes and restores snapshots.
    Snapshot,
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consensus => "consensus",
            Self::Mempool => "mempool",
            Self::Query => "query",
            Self::Snapshot => "snapshot",
        })
    }
}

/// A call that the application has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningCall {
    /// On which connection.
    pub connection: ConnectionName,
    /// The call.
    pub call: CallName,
    /// The height that it is about, where it is about one.
    pub height: Option<Height>,
    /// For how long.
    pub elapsed: Duration,
}

/// As in `FinalizeBlock of height 7 (12 s)`.
impl fmt::Display for RunningCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call)?;
        if let Some(height) = self.height {
            write!(f, " of height {height}")?;
        }
        write!(f, " ({} s)", self.elapsed.as_secs())
    }
}

/// The calls that run on one connection.
pub(crate) struct Calls {
    connection: ConnectionName,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// By the order in which they began.
    calls: BTreeMap<u64, (CallName, Option<Height>, Instant)>,
    begun: u64,
}

impl Calls {
    pub(crate) fn of(connection: ConnectionName) -> Self {
        Self {
            connection,
            running: Mutex::default(),
        }
    }

    pub(crate) fn connection(&self) -> ConnectionName {
        self.connection
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins; it ends by its number.
    pub(crate) fn begin(&self, call: CallName, height: Option<Height>) -> u64 {
        let mut running = self.lock();
        running.begun += 1;
        let number = running.begun;
        running.calls.insert(number, (call, height, Instant::now()));
        number
    }

    pub(crate) fn end(&self, number: u64) {
        self.lock().calls.remove(&number);
    }

    /// The one that has run longest.
    pub(crate) fn longest(&self) -> Option<RunningCall> {
        let running = self.lock();
        let (_, (call, height, since)) = running.calls.first_key_value()?;
        Some(RunningCall {
            connection: self.connection,
            call: *call,
            height: *height,
            elapsed: since.elapsed(),
        })
    }
}
