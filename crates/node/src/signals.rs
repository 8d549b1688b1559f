//! Stopping by signals: the first SIGINT or SIGTERM asks for a clean stop, the second ends the
//! process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of a stop at once, as shells report SIGINT.
const FORCED: i32 = 130;

/// Waits for signals in a task of its own. The token is cancelled by the first SIGINT or SIGTERM;
/// `forced` is called by the second, and shall end the process.
///
/// # Errors
/// When the signals cannot be awaited.
pub fn watch_with(
    stop: CancellationToken,
    forced: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let name = next(&mut interrupt, &mut terminate).await;
        tracing::info!("{name}: stopping; once more to stop at once");
        stop.cancel();
        next(&mut interrupt, &mut terminate).await;
        forced();
    });
    Ok(())
}

/// The same, the second signal ending the process with exit code 130.
///
/// # Errors
/// When the signals cannot be awaited.
pub fn watch(stop: CancellationToken) -> io::Result<()> {
    watch_with(stop, || std::process::exit(FORCED))
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_first_asks_the_second_forces() {
        let stop = CancellationToken::new();
        let (sender, mut forced) = oneshot::channel();
        watch_with(stop.clone(), move || sender.send(()).unwrap()).unwrap();
        kill_process(getpid(), Signal::TERM).unwrap();
        stop.cancelled().await;
        assert!(forced.try_recv().is_err(), "one signal forces nothing");
        kill_process(getpid(), Signal::INT).unwrap();
        forced.await.unwrap();
    }
}
