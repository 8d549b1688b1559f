//! A node that runs.

use std::{
    fs, io,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{NodeClient, NodeStatus, Usage, usage};

/// How long a node may take to end after SIGTERM before it is killed: several that write all they
/// have to one disk at the same time need long.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of the log's end that an error quotes.
const LOG_END: usize = 2_000;

/// A node that runs. It is killed when this is dropped. What it serves is asked as of
/// its [`NodeClient`].
#[derive(Debug)]
pub struct NodeProcess {
    pub(super) client: NodeClient,
    pub(super) child: Child,
    pub(super) home: PathBuf,
    pub(super) log: PathBuf,
    pub(super) p2p: SocketAddr,
    /// Whether it was told to stop: the second time a node ends at once.
    pub(super) is_stopping: bool,
}

impl NodeProcess {
    /// Its home.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Where it listens for peers.
    #[must_use]
    pub fn p2p(&self) -> SocketAddr {
        self.p2p
    }

    /// What it is asked by, also from other threads.
    #[must_use]
    pub fn client(&self) -> &NodeClient {
        &self.client
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, `None` while it runs.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Fails when it has ended, quoting its log.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name(), self.log_end()),
        }
    }

    /// Waits until it answers `/status`.
    ///
    /// # Errors
    /// When it ends, or `patience` does.
    pub fn wait_ready(&mut self, patience: Duration) -> anyhow::Result<NodeStatus> {
        self.wait_for("an answer to /status", patience, |_| true)
    }

    /// Waits for a status of which `is_wanted` is true.
    ///
    /// # Errors
    /// When the node ends, or `patience` does; `what` then says what was awaited.
    pub fn wait_for(
        &mut self,
        what: &str,
        patience: Duration,
        mut is_wanted: impl FnMut(&NodeStatus) -> bool,
    ) -> anyhow::Result<NodeStatus> {
        let deadline = Instant::now() + patience;
        loop {
            self.check_alive()?;
            let last = self.status();
            if let Ok(status) = &last
                && is_wanted(status)
            {
                return last;
            }
            ensure!(
                Instant::now() < deadline,
                "{}: waited {patience:?} for {what}; last: {last:?}; its log ends:\n{}",
                self.name(),
                self.log_end()
            );
            thread::sleep(LOOK);
        }
    }

    /// What it has used so far. The time of threads that ended counts.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.pid())
    }

    /// Sends SIGTERM, unless that was done, and waits for the end; kills it after a minute.
    ///
    /// # Errors
    /// When it had to be killed, or could not be signalled.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.signal_stop()?;
        self.wait_stopped()
    }

    /// Sends SIGTERM, and SIGCONT behind it, without waiting, to be followed by [`stop`](Self::stop): so several nodes end
    /// at the same time.
    ///
    /// # Errors
    /// When it could not be signalled.
    pub fn signal_stop(&mut self) -> anyhow::Result<()> {
        if self.is_stopping || self.ended()?.is_some() {
            return Ok(());
        }
        self.is_stopping = true;
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .context("a process id is positive")?;
        let send = |signal| rustix::process::kill_process(pid, signal);
        // One that was halted (SIGSTOP) takes it when it goes on.
        send(rustix::process::Signal::TERM)
            .and_then(|()| send(rustix::process::Signal::CONT))
            .with_context(|| format!("cannot stop {}", self.name()))
    }

    fn wait_stopped(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!(
            "{} did not end within {STOP_TIMEOUT:?} of SIGTERM and was killed",
            self.name()
        )
    }

    /// Ends it at once, as a crash would (SIGKILL).
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// The end of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(last_lines(&log, LOG_END)).into_owned()
    }
}

/// So many bytes of the end of a log at most, from the beginning of a line where one begins there.
pub(super) fn last_lines(log: &[u8], most: usize) -> &[u8] {
    let start = log.len().saturating_sub(most);
    // What stands before is looked at too: a line may begin right there.
    let mut ends = (start.saturating_sub(1)..log.len()).filter(|at| log[*at] == b'\n');
    let begin = match ends.next() {
        Some(end) if start > 0 && end + 1 < log.len() => end + 1,
        _ => start,
    };
    &log[begin..]
}

impl Deref for NodeProcess {
    type Target = NodeClient;

    fn deref(&self) -> &NodeClient {
        &self.client
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}
