//! Shows progress: a live line on a terminal, a log line each ten seconds elsewhere.

use std::time::Duration;

use perihelion_abci::AppConnections;
use perihelion_schedule::{Limit, Mode, Progress, StallReason};
use perihelion_types::Height;
use tokio::{sync::watch, time::interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    config::ProgressDisplay,
    progress::{LiveLine, ProgressLine},
};

/// Between two log lines.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// Between two states of the live line.
const LIVE_INTERVAL: Duration = Duration::from_millis(250);

/// How long a call of the application may take before it is named.
const SLOW_CALL: Duration = Duration::from_secs(5);

/// Shows progress until `stop`. Without a terminal a line is logged only while something happens or
/// is awaited: a node that follows the chain logs nothing when nothing is new.
pub(super) async fn show(
    progress: watch::Receiver<Progress>,
    display: ProgressDisplay,
    live: Option<LiveLine>,
    apps: AppConnections,
    stop: CancellationToken,
) {
    if display == ProgressDisplay::None {
        return;
    }
    let mut ticks = interval(if live.is_some() {
        LIVE_INTERVAL
    } else {
        INTERVAL
    });
    ticks.tick().await;
    let mut last = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let now = progress.borrow().clone();
        let line = line(&now, busy(&apps));
        match &live {
            Some(live) => live.show(&line),
            None if last == Some((now.height, line.stalled.clone())) => {}
            None => info!("{}", line.format()),
        }
        last = Some((now.height, line.stalled));
    }
    if let Some(live) = live {
        live.finish();
    }
}

/// The call that the application does not finish, on any connection.
fn busy(apps: &AppConnections) -> Option<String> {
    let longest = apps.running().into_iter().max_by_key(|call| call.elapsed)?;
    (longest.elapsed >= SLOW_CALL).then(|| format!("the application is at {longest}"))
}

/// What the line shows of `progress`.
fn line(progress: &Progress, busy: Option<String>) -> ProgressLine {
    let height = |height: Height| u64::try_from(height.get()).unwrap_or_default();
    ProgressLine {
        mode: mode_name(progress.mode).to_owned(),
        height: height(progress.height),
        start_height: height(progress.start),
        target: (progress.target > Height::ZERO).then(|| height(progress.target)),
        blocks_per_second: progress.blocks_per_second,
        bytes_per_second: progress.bytes_per_second,
        eta: progress.eta,
        peers: progress.peers.len(),
        limiting_stage: limit_name(progress.limit).to_owned(),
        stalled: busy.or_else(|| progress.stalled.as_ref().map(StallReason::to_string)),
    }
}

/// The mode's name in lines and in `/sync_status`.
fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::WaitForPeers => "wait_for_peers",
        Mode::BlockSync => "block_sync",
        Mode::Following => "following",
        Mode::Consensus => "consensus",
        Mode::Halted => "halted",
    }
}

fn limit_name(limit: Limit) -> &'static str {
    match limit {
        Limit::Nothing => "",
        Limit::Network => "network",
        Limit::Verification => "verification",
        Limit::Execution => "execution",
    }
}
