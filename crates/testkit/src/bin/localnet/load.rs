//! A trickle of transactions.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use perihelion_testkit::process::{NodeClient, http_get};
use tokio_util::sync::CancellationToken;

/// Between two bursts.
const TICK: Duration = Duration::from_millis(100);

/// Sends transactions to the validators until `stop`; counts those that were not refused. Each
/// validator has a thread of its own, which ends with the process at the latest: while one does not
/// answer, the others get all.
pub(crate) fn start(rate: u32, nodes: Vec<NodeClient>, stop: &CancellationToken) -> Arc<AtomicU64> {
    let sent = Arc::new(AtomicU64::new(0));
    let due = Arc::new(Due::new(rate));
    for node in nodes.into_iter().take_while(|_| rate > 0) {
        let (due, sent, stop) = (Arc::clone(&due), Arc::clone(&sent), stop.clone());
        thread::spawn(move || {
            while !stop.is_cancelled() {
                while let Some(number) = due.take(due.began.elapsed()) {
                    send(&node, number, &sent);
                }
                thread::sleep(TICK);
            }
        });
    }
    sent
}

/// Counts before it sends, so that nothing is in a block that was not counted.
fn send(node: &NodeClient, number: u64, sent: &AtomicU64) {
    sent.fetch_add(1, Ordering::Relaxed);
    let path = format!("/broadcast_tx_async?tx=%22localnet-{number}=1%22");
    let was_refused = match http_get(node.rpc(), &path) {
        Ok(answer) => answer.windows(7).any(|part| part == b"\"error\""),
        // A node that is just starting takes none. One that was sent it and does not answer may.
        Err(error) => error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused),
    };
    if was_refused {
        sent.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which transaction is to be sent next, and when.
struct Due {
    rate: u32,
    began: Instant,
    next: Mutex<u64>,
}

impl Due {
    fn new(rate: u32) -> Self {
        Self {
            rate,
            began: Instant::now(),
            next: Mutex::new(0),
        }
    }

    /// The number of one that is due after so much time; what could not be sent for a second is not
    /// sent later.
    fn take(&self, elapsed: Duration) -> Option<u64> {
        let due = elapsed.as_millis() * u128::from(self.rate) / 1_000;
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (*next).max(due.saturating_sub(self.rate.into()));
        (number < due).then(|| {
            *next = number + 1;
            number
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_are_due_and_none_is_made_up_for() {
        let due = Due::new(4);
        let take = |seconds: u64| {
            let elapsed = Duration::from_secs(seconds);
            std::iter::from_fn(|| due.take(elapsed)).collect::<Vec<_>>()
        };
        assert_eq!(take(0), [0_u64; 0]);
        assert_eq!(take(1), [0, 1, 2, 3]);
        assert_eq!(take(1), [0_u64; 0]);
        // Ten seconds later those of the last one.
        assert_eq!(take(11), [40, 41, 42, 43]);
    }
}
