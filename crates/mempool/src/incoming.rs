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

use crate::{CheckTxError, Checked, Mempool, stats::count};

/// What a turn may cost: the transactions of one message of very many that are given to be checked before
/// others have their turn, and those of others before that one has its next.
const TURN: usize = 256 * ASKED;
/// What a transaction that the application is asked about costs.
const ASKED: usize = 16;
/// What one costs that it is not asked about, since it is known or refused without it: one hash of
/// bytes, which cost as much to receive.
const PASSED_OVER: usize = 1;
/// Transactions of peers that are being checked at a time: more than the application is asked
/// about at a time, so that there always is a next one, and few enough to leave most of the room to
/// those of clients.
const UNDER_WAY: usize = 256;

/// A message whose transactions wait to be checked.
pub(crate) struct FromPeer {
    /// The first one, until it was given.
    first: Option<Bytes>,
    /// Those behind it that are left.
    others: Box<dyn Iterator<Item = Bytes> + Send>,
    /// Whether there was more than one.
    is_long: bool,
    from: PeerId,
    /// Whether nobody waits for it any more.
    is_idle: IsIdle,
    share: Arc<Share>,
}

/// Tells whether nobody waits for a message: its peer is gone, or this node is not in consensus. What
/// is left of a message of many transactions is dropped then, so that nobody can leave much behind;
/// who is honest sends one in each, and, while the connection lasts, none again.
pub(crate) type IsIdle = Box<dyn Fn() -> bool + Send>;

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
    /// A message counts for so much at most.
    most_of_one: usize,
}

/// What waits to be checked and what is being checked, and who waits for less.
#[derive(Default)]
pub(crate) struct Checks {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    /// Transactions that are being checked.
    under_way: usize,
    /// Messages that wait for their turn, or for the rest of it.
    queued: usize,
}

impl FromPeer {
    /// `first` and those behind it.
    pub(crate) fn new(
        first: Bytes,
        others: impl Iterator<Item = Bytes> + Send + 'static,
        from: PeerId,
        is_idle: IsIdle,
        share: Share,
    ) -> Self {
        let mut others = others.peekable();
        let is_long = others.peek().is_some();
        Self {
            first: Some(first),
            others: Box::new(others),
            is_long,
            from,
            is_idle,
            share: Arc::new(share),
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        self.first.take().or_else(|| self.others.next())
    }

    /// Whether what is left of it is dropped, which is counted.
    fn is_dropped(&self, mempool: &Mempool) -> bool {
        let is_dropped = self.is_long && (self.is_idle)();
        if is_dropped {
            count(&mempool.counters().unhandled);
        }
        is_dropped
    }
}

impl Waiting {
    /// Room for `max` bytes, of which a message takes `most_of_one` at most.
    pub(crate) fn new(max: usize, most_of_one: usize) -> Self {
        let bytes = Arc::new(AtomicUsize::new(0));
        Self {
            bytes,
            max,
            most_of_one,
        }
    }

    /// Takes room for a message, if there is some. One task alone takes.
    pub(crate) fn take(&self, bytes: usize, permit: Option<Permit>) -> Option<Share> {
        let bytes = bytes.min(self.most_of_one);
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
/// very many transactions keeps no other waiting until its end. Between two turns of such messages new
/// ones have a turn together, which is as long: those of honest peers have one transaction each.
pub(crate) fn check_all(
    mempool: &Mempool,
    checks: &Arc<Checks>,
    mut queued: mpsc::Receiver<FromPeer>,
) {
    // Messages whose turn is over before they are; each still has its peer's share.
    let mut long = VecDeque::new();
    loop {
        let mut left = TURN;
        while left > 0 {
            let new = if long.is_empty() {
                queued.blocking_recv()
            } else {
                queued.try_recv().ok()
            };
            let Some(mut message) = new else {
                break;
            };
            if checks.give(mempool, &mut message, &mut left) {
                checks.lock().queued -= 1;
            } else {
                long.push_back(message);
            }
        }
        if queued.is_closed() {
            return;
        }
        let before = long.len();
        long.retain(|message: &FromPeer| !message.is_dropped(mempool));
        checks.lock().queued -= before - long.len();
        if let Some(mut message) = long.pop_front() {
            let mut left = TURN;
            if checks.give(mempool, &mut message, &mut left) {
                checks.lock().queued -= 1;
            } else {
                long.push_back(message);
            }
        }
    }
}

impl Checks {
    /// Gives a message that nothing waits in front of to be checked at once, where it has one
    /// transaction and there is room; else it goes into `queue`. Whether it did one of both.
    pub(crate) fn take(
        self: &Arc<Self>,
        mempool: &Mempool,
        message: FromPeer,
        queue: &mpsc::Sender<FromPeer>,
    ) -> bool {
        self.give_at_once(mempool, &message) || self.put(message, queue)
    }

    /// Whether it is in the queue.
    fn put(&self, message: FromPeer, queue: &mpsc::Sender<FromPeer>) -> bool {
        self.lock().queued += 1;
        let is_queued = queue.try_send(message).is_ok();
        if !is_queued {
            self.lock().queued -= 1;
        }
        is_queued
    }

    /// As [`Self::give_one`], but where that waits nothing is done.
    fn give_at_once(self: &Arc<Self>, mempool: &Mempool, message: &FromPeer) -> bool {
        let Some(tx) = message.first.as_ref().filter(|_| !message.is_long) else {
            return false;
        };
        let is_free = {
            let counts = self.lock();
            counts.queued == 0 && counts.under_way < UNDER_WAY
        };
        is_free && self.try_give(mempool, tx, message).is_ok()
    }

    /// Gives a message's transactions to be checked until the turn is over, of which `left` tells what
    /// it may cost; whether there are no more to be checked.
    fn give(self: &Arc<Self>, mempool: &Mempool, message: &mut FromPeer, left: &mut usize) -> bool {
        if message.is_dropped(mempool) {
            return true;
        }
        while *left > 0 {
            let Some(tx) = message.next() else {
                return true;
            };
            self.wait_until_below(UNDER_WAY);
            let cost = if self.give_one(mempool, &tx, message) {
                ASKED
            } else {
                PASSED_OVER
            };
            *left = left.saturating_sub(cost);
        }
        false
    }

    /// Whether the application is asked. Where there is no room, those under way may be refused and
    /// leave some.
    fn give_one(self: &Arc<Self>, mempool: &Mempool, tx: &Bytes, message: &FromPeer) -> bool {
        loop {
            match self.try_give(mempool, tx, message) {
                Ok(is_asked) => return is_asked,
                Err(others) => self.wait_until_below(others),
            }
        }
    }

    /// Whether the application is asked.
    ///
    /// # Errors
    /// Where there is no room, but others are under way: how many.
    fn try_give(
        self: &Arc<Self>,
        mempool: &Mempool,
        tx: &Bytes,
        message: &FromPeer,
    ) -> Result<bool, usize> {
        let from = message.from;
        self.lock().under_way += 1;
        let (checks, share) = (Arc::clone(self), Arc::clone(&message.share));
        let given = mempool.try_check_tx(tx, Some(from), move |outcome| {
            drop(share);
            checks.settle(from, outcome);
        });
        let Err(error) = given else {
            return Ok(true);
        };
        let others = self.lock().under_way - 1;
        if others > 0 && matches!(error, CheckTxError::Full(_)) {
            self.settle_quietly();
            return Err(others);
        }
        mempool.note(&error);
        self.settle(from, Err(error));
        Ok(false)
    }

    fn settle(&self, from: PeerId, outcome: Result<Checked, CheckTxError>) {
        match outcome {
            Ok(checked) => debug!(peer = %from, fate = ?checked.fate, "transaction checked"),
            Err(error) => debug!(peer = %from, %error, "transaction not checked"),
        }
        self.settle_quietly();
    }

    fn settle_quietly(&self) {
        self.lock().under_way -= 1;
        self.changed.notify_all();
    }

    /// Waits until fewer are under way.
    fn wait_until_below(&self, count: usize) {
        let waited = self
            .changed
            .wait_while(self.lock(), |counts| counts.under_way >= count);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::{
        sync::{atomic::AtomicBool, mpsc::Receiver},
        thread,
        time::Duration,
    };

    use perihelion_abci::{
        AppConnections, AppFault, Application,
        types::{RequestCheckTx, ResponseCheckTx},
    };
    use perihelion_types::{Height, NodeId};

    use super::*;
    use crate::{MempoolConfig, TxLimits};

    /// Beyond it a test has failed.
    const PATIENCE: Duration = Duration::from_secs(120);

    /// Tells what it is asked about, and refuses it.
    struct Teller(std::sync::mpsc::Sender<Bytes>);

    impl Application for Teller {
        fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
            drop(self.0.send(request.tx.clone()));
            Ok(ResponseCheckTx {
                code: 1,
                ..ResponseCheckTx::default()
            })
        }
    }

    fn mempool() -> (Mempool, Receiver<Bytes>) {
        let (tell, told) = std::sync::mpsc::channel();
        let app = AppConnections::in_process(Arc::new(Teller(tell))).mempool;
        let config = MempoolConfig {
            keep_invalid_txs_in_cache: true,
            cache_size: 1_000_000,
            ..MempoolConfig::default()
        };
        (
            Mempool::new(config, app, Height::new(1), TxLimits::NONE),
            told,
        )
    }

    fn queue(
        messages: usize,
    ) -> (
        Arc<Checks>,
        mpsc::Sender<FromPeer>,
        mpsc::Receiver<FromPeer>,
    ) {
        let (queue, queued) = mpsc::channel(messages);
        (Arc::default(), queue, queued)
    }

    fn txs(of: &str, count: usize) -> Vec<Bytes> {
        (0..count)
            .map(|at| Bytes::from(format!("{of}{at}")))
            .collect()
    }

    fn message(peer: u8, txs: Vec<Bytes>, is_idle: IsIdle) -> FromPeer {
        let share = Waiting::new(1, 1).take(1, None).unwrap();
        let mut txs = txs.into_iter();
        FromPeer::new(
            txs.next().unwrap(),
            txs,
            NodeId::new([peer; 20]),
            is_idle,
            share,
        )
    }

    fn live() -> IsIdle {
        Box::new(|| false)
    }

    /// What the application is asked about until it was asked about `last`.
    fn asked_until(told: &Receiver<Bytes>, last: &Bytes) -> Vec<Bytes> {
        let mut asked = Vec::new();
        while asked.last() != Some(last) {
            asked.push(told.recv_timeout(PATIENCE).unwrap());
        }
        asked
    }

    #[test]
    fn those_of_one_transaction_do_not_wait_for_a_turn_of_a_long_one_each() {
        let (mempool, told) = mempool();
        let (checks, queue, queued) = queue(100);
        let honest = txs("honest", 20);
        assert!(checks.put(message(1, txs("long", 10_000), live()), &queue));
        for tx in &honest {
            assert!(checks.put(message(2, vec![tx.clone()], live()), &queue));
        }
        thread::scope(|scope| {
            let thread = scope.spawn(|| check_all(&mempool, &checks, queued));
            let asked = asked_until(&told, &honest[19]);
            assert!(asked.len() < 1_200, "{}", asked.len());
            drop(queue);
            thread.join().unwrap();
        });
    }

    /// A message of known transactions alone costs as little as the look at each of them.
    #[test]
    fn what_is_known_by_then_costs_next_to_no_turn() {
        let (mempool, told) = mempool();
        let (checks, queue, queued) = queue(2_000);
        let again = txs("again", 200);
        assert!(checks.put(message(1, again.clone(), live()), &queue));
        assert!(checks.put(message(1, txs("long", 10_000), live()), &queue));
        for copy in again.iter().cycle().take(1_000) {
            assert!(checks.put(message(2, vec![copy.clone()], live()), &queue));
        }
        let new = Bytes::from_static(b"new");
        assert!(checks.put(message(2, vec![new.clone()], live()), &queue));
        thread::scope(|scope| {
            let thread = scope.spawn(|| check_all(&mempool, &checks, queued));
            let asked = asked_until(&told, &new);
            assert!(asked.len() < 200 + 4 * 256, "{}", asked.len());
            drop(queue);
            thread.join().unwrap();
        });
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_asked_about() {
        let (mempool, told) = mempool();
        let (checks, queue, queued) = queue(100);
        let is_gone = Arc::new(AtomicBool::new(false));
        let gone = || -> IsIdle {
            let is_gone = Arc::clone(&is_gone);
            Box::new(move || is_gone.load(Ordering::Relaxed))
        };
        let lock = mempool.lock();
        for number in 0..3 {
            let txs = txs(&format!("gone{number}-"), 10_000);
            assert!(checks.put(message(1, txs, gone()), &queue));
        }
        thread::scope(|scope| {
            let thread = scope.spawn(|| check_all(&mempool, &checks, queued));
            is_gone.store(true, Ordering::Relaxed);
            drop(lock);
            // It shares its turns with nobody.
            let live_txs = txs("live", 5_000);
            let last = live_txs[4_999].clone();
            assert!(checks.put(message(2, live_txs, live()), &queue));
            let asked = asked_until(&told, &last);
            assert!(asked.len() <= 5_000 + 4 * 256, "{}", asked.len());
            drop(queue);
            thread.join().unwrap();
        });
        assert_eq!(mempool.stats().unhandled, 3);
    }

    /// Whoever sent it does not send it again.
    #[test]
    fn one_transaction_is_asked_about_though_its_peer_is_gone() {
        let (mempool, told) = mempool();
        let (checks, queue, queued) = queue(100);
        let gone = || -> IsIdle { Box::new(|| true) };
        let one = txs("one", 1);
        assert!(checks.put(message(1, txs("two", 2), gone()), &queue));
        assert!(checks.put(message(1, one.clone(), gone()), &queue));
        drop(queue);
        check_all(&mempool, &checks, queued);
        assert_eq!(mempool.stats().unhandled, 1);
        assert_eq!(asked_until(&told, &one[0]), one);
    }

    #[test]
    fn one_transaction_that_nothing_waits_in_front_of_takes_no_turn() {
        let (mempool, told) = mempool();
        let (checks, queue, mut queued) = queue(100);
        let txs = txs("short", 3);
        let short = |at: usize| message(1, vec![txs[at].clone()], live());
        assert!(checks.take(&mempool, short(0), &queue));
        assert_eq!(asked_until(&told, &txs[0]), txs[..1]);
        assert!(queued.try_recv().is_err());
        // Order is kept.
        assert!(checks.take(&mempool, message(1, txs.clone(), live()), &queue));
        assert!(checks.take(&mempool, short(2), &queue));
        drop(queue);
        check_all(&mempool, &checks, queued);
        assert_eq!(asked_until(&told, &txs[2]), txs[1..]);
        assert_eq!(checks.lock().queued, 0);
    }
}
