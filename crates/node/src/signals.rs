//! Stopping by signals: the first SIGINT, SIGTERM or SIGHUP asks for a clean stop, the second ends the
//! process at once.
//!
//! CometBFT takes the first two; SIGHUP, which a terminal sends when it is closed, kills it. Where
//! SIGHUP is ignored from the start, as under `nohup`, it stays so.

use std::{fs, io};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What shells report of a process that a signal has ended: 128 and the signal's number.
const HANGUP: u8 = 129;
/// The same of SIGINT.
const INTERRUPTED: u8 = 130;
/// The same of SIGTERM.
const TERMINATED: u8 = 143;

/// Waits for signals in a task of its own. The token is cancelled by the first SIGINT, SIGTERM or
/// SIGHUP; `forced` is called by the second, and shall end the process with the code that it is
/// given: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
///
/// # Errors
/// When the signals cannot be awaited.
pub fn watch_with(
    stop: CancellationToken,
    forced: impl FnOnce(u8) + Send + 'static,
) -> io::Result<()> {
    let mut signals = Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        hangup: if hangup_is_ignored() {
            None
        } else {
            Some(signal(SignalKind::hangup())?)
        },
    };
    tokio::spawn(async move {
        let (name, _) = signals.next().await;
        tracing::info!("{name}: stopping; once more to stop at once");
        stop.cancel();
        let (name, code) = signals.next().await;
        tracing::warn!("{name} again: ended at once");
        forced(code);
    });
    Ok(())
}

/// The same, the second signal ending the process.
///
/// # Errors
/// When the signals cannot be awaited.
pub fn watch(stop: CancellationToken) -> io::Result<()> {
    watch_with(stop, |code| crate::memory::leave(code))
}

/// The signals that are awaited.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// The next one: its name, and the code of whoever it ends.
    async fn next(&mut self) -> (&'static str, u8) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", INTERRUPTED),
            _ = self.terminate.recv() => ("SIGTERM", TERMINATED),
            _ = hangup => ("SIGHUP", HANGUP),
        }
    }
}

/// Whether whoever started this process had SIGHUP ignored. Only Linux tells; elsewhere it is left
/// to the system, and ends the process.
#[must_use]
pub fn hangup_is_ignored() -> bool {
    fs::read_to_string("/proc/self/status").map_or(true, |status| ignores_hangup(&status))
}

/// Reads it out of the text of `/proc/PID/status`: of `SigIgn`, the lowest bit is signal 1.
fn ignores_hangup(status: &str) -> bool {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_none_or(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_first_asks_the_second_forces() {
        let pairs = [
            (Signal::TERM, Signal::INT, 130),
            (Signal::TERM, Signal::TERM, 143),
            (Signal::HUP, Signal::TERM, 143),
            (Signal::INT, Signal::HUP, 129),
        ];
        // Under `nohup` the last two are not sent to anybody.
        let pairs = &pairs[..if hangup_is_ignored() { 2 } else { 4 }];
        for &(first, second, code) in pairs {
            let stop = CancellationToken::new();
            let (sender, mut forced) = oneshot::channel();
            watch_with(stop.clone(), move |code| sender.send(code).unwrap()).unwrap();
            kill_process(getpid(), first).unwrap();
            stop.cancelled().await;
            assert!(forced.try_recv().is_err(), "one signal forces nothing");
            kill_process(getpid(), second).unwrap();
            assert_eq!(forced.await.unwrap(), code);
        }
    }

    #[test]
    fn who_ignores_sighup() {
        let status = |mask: &str| format!("Name:\tx\nSigBlk:\t1\nSigIgn:\t{mask}\nSigCgt:\t0\n");
        assert!(ignores_hangup(&status("0000000000000001")));
        assert!(ignores_hangup(&status("0000000000001007")));
        assert!(!ignores_hangup(&status("0000000000001000")));
        assert!(ignores_hangup("Name: x"), "unknown: left as it is");
    }
}
