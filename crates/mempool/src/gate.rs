//! Who may have the application asked about transactions, and when.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Lets a number of checks be under way at a time, and none while a block is committed. A commit
/// comes first: once one waits, no further check begins, so it waits for those under way alone.
///
/// CometBFT's `updateMtx`, a lock of Go that prefers writers, has the same effect.
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    /// Checks under way at most. More: a commit waits longer. Fewer: an application in another
    /// process idles while requests and answers travel.
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    under_way: usize,
    commits_waiting: usize,
    committing: bool,
}

/// One check; it is over when this is dropped, on whatever thread.
pub(crate) struct Pass(Arc<Inner>);

/// A commit; it is over when this is dropped.
pub(crate) struct Closed(Arc<Inner>);

impl Gate {
    /// Lets at most `most` checks, one at least, be under way.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Inner {
            most: most.max(1),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Waits until another check may begin.
    pub(crate) fn enter(&self) -> Pass {
        let inner = &self.0;
        let mut state = inner.wait_while(inner.state(), |state| {
            state.committing || state.commits_waiting > 0 || state.under_way >= inner.most
        });
        state.under_way += 1;
        Pass(Arc::clone(inner))
    }

    /// Waits until the checks under way, and the commits before this one, are over.
    pub(crate) fn close(&self) -> Closed {
        let inner = &self.0;
        let mut state = inner.state();
        state.commits_waiting += 1;
        let mut state = inner.wait_while(state, |state| state.committing || state.under_way > 0);
        state.commits_waiting -= 1;
        state.committing = true;
        Closed(Arc::clone(inner))
    }

    /// Commits that wait.
    #[cfg(test)]
    pub(crate) fn commits_waiting(&self) -> usize {
        self.0.state().commits_waiting
    }
}

impl Inner {
    /// Never left half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        waits: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_while(state, waits)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.change(|state| state.under_way -= 1);
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.change(|state| state.committing = false);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    /// Threads that have begun, and wait or not.
    fn until_a_commit_waits(gate: &Gate) {
        while gate.commits_waiting() == 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn a_commit_waits_for_the_checks_under_way_and_for_none_that_comes_later() {
        let gate = Gate::new(3);
        let (tell, told) = mpsc::channel();
        let mut under_way: Vec<Pass> = (0..3).map(|_| gate.enter()).collect();
        thread::scope(|scope| {
            for _ in 0..4 {
                let tell = tell.clone();
                let gate = &gate;
                scope.spawn(move || {
                    let pass = gate.enter();
                    tell.send("check").expect("the test listens");
                    drop(pass);
                });
            }
            let (closed, is_closed) = mpsc::channel();
            let (tell_closed, gate) = (tell.clone(), &gate);
            scope.spawn(move || {
                let commit = gate.close();
                tell_closed.send("commit").expect("the test listens");
                closed.send(commit).expect("the test listens");
            });
            until_a_commit_waits(gate);
            while let Some(pass) = under_way.pop() {
                assert!(told.try_recv().is_err(), "before all are over");
                drop(pass);
            }
            assert_eq!(told.recv(), Ok("commit"));
            let commit = is_closed.recv().expect("it is sent");
            assert!(told.try_recv().is_err(), "during the commit");
            drop(commit);
            for _ in 0..4 {
                assert_eq!(told.recv(), Ok("check"));
            }
        });
    }

    #[test]
    fn commits_exclude_one_another() {
        let gate = Gate::new(1);
        let first = gate.close();
        thread::scope(|scope| {
            let second = scope.spawn(|| gate.close());
            until_a_commit_waits(&gate);
            assert!(!second.is_finished());
            drop(first);
            drop(second.join().expect("it ends"));
        });
        drop(gate.enter());
    }
}
