//! Transactions of peers on their way into the mempool.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use perihelion_p2p::Permit;
use perihelion_types::PeerId;
use tokio::sync::mpsc;
use tracing::debug;

use crate::{CheckTxError, Checked, Mempool};

/// Transactions of one message that are given to be checked before it is the next message's turn.
const TURN: usize = 256;
/// Transactions of peers that are being checked at a time: more than the application is asked
/// about at a time, so that there always is a next one, and few enough to leave most of the room to
/// those of clients.
const UNDER_WAY: usize = 256;

/// A message whose transactions wait to be checked.
pub(crate) struct FromPeer {
    /// Those that are left, the first of which was not seen before.
    txs: Box<dyn Iterator<Item = Bytes> + Send>,
    from: PeerId,
    share: Arc<Share>,
}

/// A message's part of what may wait; given back when all its transactions are checked.
pub(crate) struct Share {
    bytes: usize,
    waiting: Waiting,
    /// Of what may wait of its peer.
    _permit: Option<Permit>,
}

/// Bytes that wait to be checked.
#[derive(Clone)]
pub(crate) struct Waiting {
    bytes: Arc<AtomicUsize>,
    max: usize,
}

/// How many are being checked, and who waits for fewer.
struct Checks {
    under_way: Mutex<usize>,
    changed: Condvar,
}

impl FromPeer {
    pub(crate) fn new(
        txs: Box<dyn Iterator<Item = Bytes> + Send>,
        from: PeerId,
        share: Share,
    ) -> Self {
        let share = Arc::new(share);
        Self { txs, from, share }
    }
}

impl Waiting {
    pub(crate) fn new(max: usize) -> Self {
        let bytes = Arc::new(AtomicUsize::new(0));
        Self { bytes, max }
    }

    /// Takes room for a message, if there is some. One task alone takes.
    pub(crate) fn take(&self, bytes: usize, permit: Option<Permit>) -> Option<Share> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let share = Share {
            bytes,
            waiting: self.clone(),
            _permit: permit,
        };
        (before.saturating_add(bytes) <= self.max).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Has what peers sent checked, on a thread where waiting is allowed: in order, but a message of
/// very many transactions keeps no other waiting until its end.
pub(crate) fn check_all(mempool: &Mempool, mut queued: mpsc::Receiver<FromPeer>) {
    let checks = Arc::new(Checks {
        under_way: Mutex::new(0),
        changed: Condvar::new(),
    });
    // Messages whose turn is over before they are; each still has its peer's share.
    let mut long = VecDeque::new();
    let mut prefer_new = true;
    loop {
        prefer_new = !prefer_new;
        let new = if long.is_empty() {
            queued.blocking_recv()
        } else if prefer_new {
            queued.try_recv().ok()
        } else {
            None
        };
        let Some(mut message) = new.or_else(|| long.pop_front()) else {
            return;
        };
        if !checks.give(mempool, &mut message) {
            if queued.is_closed() {
                return;
            }
            long.push_back(message);
        }
    }
}

impl Checks {
    /// Gives a message's transactions to be checked, for one turn; whether there are no more.
    fn give(self: &Arc<Self>, mempool: &Mempool, message: &mut FromPeer) -> bool {
        for _ in 0..TURN {
            let Some(tx) = message.txs.next() else {
                return true;
            };
            self.wait_until_below(UNDER_WAY);
            self.give_one(mempool, &tx, message);
        }
        false
    }

    /// Where there is no room, those under way may be refused and leave some.
    fn give_one(self: &Arc<Self>, mempool: &Mempool, tx: &Bytes, message: &FromPeer) {
        let from = message.from;
        loop {
            *self.lock() += 1;
            let (checks, share) = (Arc::clone(self), Arc::clone(&message.share));
            let given = mempool.try_check_tx(tx, Some(from), move |outcome| {
                drop(share);
                checks.settle(from, outcome);
            });
            let Err(error) = given else {
                return;
            };
            let others = *self.lock() - 1;
            if others == 0 || !matches!(error, CheckTxError::Full(_)) {
                mempool.note(&error);
                self.settle(from, Err(error));
                return;
            }
            self.settle_quietly();
            self.wait_until_below(others);
        }
    }

    fn settle(&self, from: PeerId, outcome: Result<Checked, CheckTxError>) {
        match outcome {
            Ok(checked) => debug!(peer = %from, fate = ?checked.fate, "transaction checked"),
            Err(error) => debug!(peer = %from, %error, "transaction not checked"),
        }
        self.settle_quietly();
    }

    fn settle_quietly(&self) {
        *self.lock() -= 1;
        self.changed.notify_all();
    }

    /// Waits until fewer are under way.
    fn wait_until_below(&self, count: usize) {
        let waited = self
            .changed
            .wait_while(self.lock(), |under_way| *under_way >= count);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
