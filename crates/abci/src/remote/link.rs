use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::{ConnectionName, RunningCall, calls::Calls};

/// A connection to the application ended, and no one of this node ended it: the node stops.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the {connection} connection to the application is lost{}: {reason}", during(.running.as_ref()))]
pub struct LostConnection {
    /// Which one was lost first; the others are closed with it.
    pub connection: ConnectionName,
    /// The call that had run longest, on any of them.
    pub running: Option<RunningCall>,
    /// How it ended.
    pub reason: String,
}

fn during(running: Option<&RunningCall>) -> String {
    running.map_or(String::new(), |call| format!(" during {call}"))
}

type Told = Box<dyn FnOnce(LostConnection) + Send>;
type Closer = Box<dyn Fn(&str) + Send>;

/// What the four connections to one application share: when one is lost, all end.
#[derive(Default)]
pub(crate) struct Link {
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    /// Nobody is told of what ends from now on.
    is_over: bool,
    lost: Option<LostConnection>,
    calls: Vec<Arc<Calls>>,
    told: Vec<Told>,
    closers: Vec<Closer>,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `close` ends one of the connections, for the reason that it is given.
    pub(super) fn closes_by(&self, close: impl Fn(&str) + Send + 'static) {
        let mut state = self.lock();
        if state.is_over {
            drop(state);
            close("another connection ended");
        } else {
            state.closers.push(Box::new(close));
        }
    }

    /// One of the connections carries these calls.
    pub(super) fn carries(&self, calls: &Arc<Calls>) {
        self.lock().calls.push(Arc::clone(calls));
    }

    /// The call that has run longest on any connection.
    pub(super) fn longest(&self) -> Option<RunningCall> {
        let state = self.lock();
        let running = state.calls.iter().filter_map(|calls| calls.longest());
        running.max_by_key(|call| call.elapsed)
    }

    /// Calls `told` when the first connection is lost, at once when one is.
    pub(crate) fn on_lost(&self, told: impl FnOnce(LostConnection) + Send + 'static) {
        let mut state = self.lock();
        match state.lost.clone() {
            None => state.told.push(Box::new(told)),
            Some(lost) => {
                drop(state);
                told(lost);
            }
        }
    }

    /// A connection is lost. Only the first one counts.
    pub(super) fn lose(&self, lost: LostConnection) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.is_over, true) {
            return;
        }
        state.lost = Some(lost.clone());
        let (told, closers) = (
            std::mem::take(&mut state.told),
            std::mem::take(&mut state.closers),
        );
        drop(state);
        for close in closers {
            close(&lost.to_string());
        }
        for told in told {
            told(lost.clone());
        }
    }

    /// Ends all connections. Nobody is told.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_over = true;
        let closers = std::mem::take(&mut state.closers);
        drop(state);
        for close in closers {
            close("this node closed it");
        }
    }
}
