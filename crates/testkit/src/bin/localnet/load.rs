//! A trickle of transactions.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use perihelion_testkit::process::http_get;
use tokio_util::sync::CancellationToken;

/// Between two bursts.
const TICK: Duration = Duration::from_millis(100);

/// Sends transactions to the validators in turn until `stop`; counts those that were taken.
pub(crate) fn start(rate: u32, nodes: Vec<SocketAddr>, stop: CancellationToken) -> Arc<AtomicU64> {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    if rate > 0 && !nodes.is_empty() {
        // It ends with the process at the latest.
        thread::spawn(move || send(rate, &nodes, &stop, &counted));
    }
    sent
}

fn send(rate: u32, nodes: &[SocketAddr], stop: &CancellationToken, sent: &AtomicU64) {
    let began = Instant::now();
    let mut number = 0_u64;
    while !stop.is_cancelled() {
        // What a burst could not send in its time is not sent later.
        let due = began.elapsed().as_millis() * u128::from(rate) / 1_000;
        let burst = due
            .saturating_sub(number.into())
            .min(u128::from(rate) / 10 + 1);
        number = u64::try_from(due).unwrap_or(u64::MAX);
        for index in 0..burst {
            let node = nodes[usize::try_from((due + index) % nodes.len() as u128).unwrap_or(0)];
            let key = format!("localnet-{number}-{index}");
            // A node that is just starting takes none.
            let answer = http_get(node, &format!("/broadcast_tx_async?tx=%22{key}=1%22"));
            if answer.is_ok_and(|answer| !answer.windows(7).any(|part| part == b"\"error\"")) {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        thread::sleep(TICK);
    }
}
