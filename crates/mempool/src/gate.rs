//! Who may have the application asked about transactions, and when.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a commit is to wait for the checks under way, of an application that takes its time for
/// each. Longer: this validator votes late. Shorter: fewer checks are under way at a time, so that
/// an application behind a long way idles.
const DRAIN: Duration = Duration::from_millis(50);

/// Lets a number of checks be under way at a time, and none while a block is committed. A commit
/// comes first: once one waits, no further check begins, so it waits for those under way alone. These
/// are fewer the longer they take, such that they are over in about [`DRAIN`].
///
/// CometBFT's `updateMtx`, a lock of Go that prefers writers, has the same effect.
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    under_way: usize,
    /// As many may be at present.
    window: usize,
    commits_waiting: usize,
    committing: bool,
}

/// One check; it is over when this is dropped, on whatever thread.
pub(crate) struct Pass {
    inner: Arc<Inner>,
    since: Instant,
}

/// A commit; it is over when this is dropped.
pub(crate) struct Closed(Arc<Inner>);

impl Gate {
    /// Lets at most `most` checks, one at least, be under way.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self(Arc::new(Inner {
            most,
            state: Mutex::new(State {
                under_way: 0,
                window: most,
                commits_waiting: 0,
                committing: false,
            }),
            changed: Condvar::new(),
        }))
    }

    /// Checks under way at most, when they take no time.
    pub(crate) fn most(&self) -> usize {
        self.0.most
    }

    /// Waits until another check may begin.
    pub(crate) fn enter(&self) -> Pass {
        let inner = &self.0;
        let mut state = inner.wait_while(inner.state(), |state| {
            state.committing || state.commits_waiting > 0 || state.under_way >= state.window
        });
        state.under_way += 1;
        Pass {
            inner: Arc::clone(inner),
            since: Instant::now(),
        }
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

    /// Whether no check is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.state().under_way == 0
    }

    /// Whether one check alone is under way: that of who asks, who has a pass.
    pub(crate) fn is_alone(&self) -> bool {
        self.0.state().under_way == 1
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
        let took = self.since.elapsed();
        let most = self.inner.most;
        self.inner.change(|state| {
            state.under_way -= 1;
            state.window = adapted(state.window, took, most);
        });
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.change(|state| state.committing = false);
    }
}

/// How many checks may be under way after one that took so long: half as many where it was too
/// long, else one more.
fn adapted(window: usize, took: Duration, most: usize) -> usize {
    if took > DRAIN {
        (window / 2).max(1)
    } else {
        (window + 1).min(most)
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
    fn fewer_are_under_way_where_they_take_long() {
        let long = DRAIN + Duration::from_millis(1);
        let windows = |window, took| {
            std::iter::successors(Some(window), move |&window| {
                Some(adapted(window, took, 128))
            })
        };
        let shrinking: Vec<usize> = windows(128, long).take(9).collect();
        assert_eq!(shrinking, [128, 64, 32, 16, 8, 4, 2, 1, 1]);
        let growing: Vec<usize> = windows(1, DRAIN).take(130).collect();
        assert_eq!(growing[..3], [1, 2, 3]);
        assert_eq!(growing[127..], [128, 128, 128]);
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
