//! Applications for the tests.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use perihelion_abci::{
    Answer, AppConnections, AppFault, Application, KvStore, KvStoreOptions, MempoolConnection,
    types::{CheckTxType, RequestCheckTx, ResponseCheckTx},
};
use perihelion_mempool::{Mempool, MempoolConfig, TxLimits};
use perihelion_types::Height;

/// Finds transactions bad that begin with what it is told to, and panics on `panic`. The gas is the
/// second byte.
#[derive(Default)]
pub(crate) struct Picky {
    pub(crate) bad: Mutex<Vec<u8>>,
    pub(crate) asked: Mutex<Vec<(Bytes, bool)>>,
    pub(crate) slow: AtomicBool,
}

impl Picky {
    pub(crate) fn refuse(&self, bad: &[u8]) {
        *self.bad.lock().unwrap() = bad.to_vec();
    }

    pub(crate) fn take_asked(&self) -> Vec<(Bytes, bool)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Application for Picky {
    fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        assert_ne!(&request.tx[..], b"panic");
        let again = request.r#type() == CheckTxType::Recheck;
        self.asked.lock().unwrap().push((request.tx.clone(), again));
        if self.slow.load(Ordering::Relaxed) {
            // Longer than the time that the test allows, which is none.
            std::thread::yield_now();
        }
        let first = request.tx.first().copied().unwrap_or(0);
        Ok(ResponseCheckTx {
            code: u32::from(self.bad.lock().unwrap().contains(&first)),
            gas_wanted: request.tx.get(1).copied().unwrap_or(0).into(),
            ..ResponseCheckTx::default()
        })
    }
}

/// Answers all that it was asked so far whenever an answer is waited for that it has not given yet,
/// as one in another process does with what is under way.
#[derive(Default)]
pub(crate) struct Remote(Arc<Mutex<Line>>);

#[derive(Default)]
struct Line {
    asked: usize,
    answered: usize,
    round_trips: usize,
    most_under_way: usize,
}

impl Remote {
    /// Round trips since this was last asked, and how many were under way at most.
    pub(crate) fn take_figures(&self) -> (usize, usize) {
        let line = std::mem::take(&mut *self.0.lock().unwrap());
        assert_eq!(line.asked, line.answered, "all is answered");
        (line.round_trips, line.most_under_way)
    }
}

impl Application for Remote {
    fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        self.begin_check_tx(request)?.wait()
    }

    fn begin_check_tx(
        &self,
        request: &RequestCheckTx,
    ) -> Result<Answer<ResponseCheckTx>, AppFault> {
        let again = request.r#type() == CheckTxType::Recheck;
        let code = u32::from(again && request.tx.ends_with(b"7"));
        let line = Arc::clone(&self.0);
        let number = {
            let mut line = line.lock().unwrap();
            line.asked += 1;
            line.most_under_way = line.most_under_way.max(line.asked - line.answered);
            line.asked
        };
        Ok(Answer::later(move || {
            let mut line = line.lock().unwrap();
            if number > line.answered {
                line.round_trips += 1;
                line.answered = line.asked;
            }
            Ok(ResponseCheckTx {
                code,
                ..ResponseCheckTx::default()
            })
        }))
    }
}

pub(crate) fn connect(app: Arc<dyn Application>) -> MempoolConnection {
    AppConnections::in_process(app).mempool
}

pub(crate) fn picky(config: MempoolConfig) -> (Arc<Picky>, Mempool) {
    let app = Arc::<Picky>::default();
    let mempool = Mempool::new(config, connect(app.clone()), Height::new(1), TxLimits::NONE);
    (app, mempool)
}

pub(crate) fn kvstore() -> MempoolConnection {
    connect(Arc::new(KvStore::in_memory(KvStoreOptions::default())))
}

pub(crate) fn tx(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn waiting(mempool: &Mempool) -> Vec<Bytes> {
    mempool.reap_max_txs(None)
}
