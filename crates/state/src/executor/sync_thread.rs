//! Syncs of the store that run beside the thread which applies.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use perihelion_store::{Store, StoreError};

/// A thread that makes durable what was written before it was asked. Dropped, it ends once that is
/// done.
pub(super) struct SyncThread {
    /// `None` while this is dropped.
    asked: Option<Sender<()>>,
    done: Receiver<Result<Duration, StoreError>>,
    /// Syncs that were asked for and not waited for.
    under_way: usize,
    /// What the last one took.
    took: Duration,
    thread: Option<JoinHandle<()>>,
}

impl SyncThread {
    /// # Errors
    /// When the operating system grants no thread.
    pub(super) fn start(store: &Arc<Store>) -> io::Result<Self> {
        let store = Arc::clone(store);
        let (asked, requests) = channel();
        let (results, done) = channel();
        let thread = thread::Builder::new().name("sync".into()).spawn(move || {
            for () in requests {
                let start = Instant::now();
                let result = store.sync().map(|()| start.elapsed());
                if results.send(result).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self {
            asked: Some(asked),
            done,
            under_way: 0,
            took: Duration::ZERO,
            thread: Some(thread),
        })
    }

    /// Asks for everything that is written by now.
    pub(super) fn begin(&mut self) {
        // A thread that is gone answers nobody, which is found when it is waited for.
        let _gone = self.asked.as_ref().map(|asked| asked.send(()));
        self.under_way += 1;
    }

    /// Whether something that was asked for is not durable yet.
    pub(super) fn is_under_way(&mut self) -> Result<bool, StoreError> {
        while let Ok(result) = self.done.try_recv() {
            self.note(result)?;
        }
        Ok(self.under_way > 0)
    }

    /// Waits for everything that was asked for.
    ///
    /// # Errors
    /// When the disk fails; the store takes no more writes then.
    pub(super) fn wait(&mut self) -> Result<(), StoreError> {
        while self.under_way > 0 {
            let result = self.done.recv().expect("the thread answers each request");
            self.note(result)?;
        }
        Ok(())
    }

    fn note(&mut self, result: Result<Duration, StoreError>) -> Result<(), StoreError> {
        self.under_way -= 1;
        self.took = result?;
        Ok(())
    }

    /// What the last sync took; zero before the first.
    pub(super) fn took(&self) -> Duration {
        self.took
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        drop(self.asked.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was told where it happened; what it synced is synced.
            let _panicked = thread.join();
        }
    }
}
