//! The thread that owns the executor: applies certified blocks strictly in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Sender, bounded};
use perihelion_certify::CertifiedBlock;
use perihelion_state::{Applied, ApplyError, Executor};
use perihelion_types::Height;
use tokio::sync::mpsc;

/// Certified blocks that may wait for the executor. The schedule hands out fewer
/// (`Config::applying`), so handing over never waits.
const QUEUE: usize = 1024;

/// What the executor reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// A block is applied.
    Applied(Box<Applied>),
    /// One could not be; nothing more is applied.
    Failed { height: Height, error: Box<ApplyError> },
}

/// The way to the executor's thread.
pub(crate) struct Applier {
    blocks: Sender<CertifiedBlock>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Executor>,
}

impl Applier {
    /// Moves `executor` to a thread of its own.
    ///
    /// # Errors
    /// When the operating system grants no thread.
    pub(crate) fn start(mut executor: Executor) -> std::io::Result<(Self, mpsc::Receiver<Report>)> {
        let (blocks, jobs) = bounded::<CertifiedBlock>(QUEUE);
        let (reports, receiver) = mpsc::channel(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("apply".into()).spawn(move || {
            while let Ok(block) = jobs.recv() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let report = match executor.apply(&block) {
                    Ok(applied) => Report::Applied(Box::new(applied)),
                    Err(error) => {
                        Report::Failed { height: block.height(), error: Box::new(error) }
                    }
                };
                let failed = matches!(report, Report::Failed { .. });
                if reports.blocking_send(report).is_err() || failed {
                    break;
                }
            }
            executor
        })?;
        Ok((Self { blocks, stop, thread }, receiver))
    }

    /// Hands over the next block; `false` when the thread has stopped.
    pub(crate) fn apply(&self, block: CertifiedBlock) -> bool {
        self.blocks.try_send(block).is_ok()
    }

    /// Ends the thread after the block that it is at, and gives the executor back.
    pub(crate) fn stop(self) -> thread::Result<Executor> {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.blocks);
        self.thread.join()
    }
}
