//! Stopping by signals: the first SIGINT or SIGTERM asks for a clean stop, the second ends the
//! process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What shells report of a process that SIGINT has ended.
const INTERRUPTED: i32 = 130;
/// The same of SIGTERM.
const TERMINATED: i32 = 143;

/// Waits for signals in a task of its own. The token is cancelled by the first SIGINT or SIGTERM;
/// `forced` is called by the second, and shall end the process with the code that it is given: 130
/// for SIGINT, 143 for SIGTERM.
///
/// # Errors
/// When the signals cannot be awaited.
pub fn watch_with(
    stop: CancellationToken,
    forced: impl FnOnce(i32) + Send + 'static,
) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let (name, _) = next(&mut interrupt, &mut terminate).await;
        tracing::info!("{name}: stopping; once more to stop at once");
        stop.cancel();
        let (name, code) = next(&mut interrupt, &mut terminate).await;
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
    watch_with(stop, |code| std::process::exit(code))
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = interrupt.recv() => ("SIGINT", INTERRUPTED),
        _ = terminate.recv() => ("SIGTERM", TERMINATED),
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_first_asks_the_second_forces() {
        for (second, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let stop = CancellationToken::new();
            let (sender, mut forced) = oneshot::channel();
            watch_with(stop.clone(), move |code| sender.send(code).unwrap()).unwrap();
            kill_process(getpid(), Signal::TERM).unwrap();
            stop.cancelled().await;
            assert!(forced.try_recv().is_err(), "one signal forces nothing");
            kill_process(getpid(), second).unwrap();
            assert_eq!(forced.await.unwrap(), code);
        }
    }
}
