//! New transactions on their way to the application and back.
//!
//! One thread asks about them in the order in which they came, another one takes in the answers in
//! the same order, so that many are under way at a time, and nobody who only gives one has to wait.
//! What is answered at once, by an application in this process, the first one takes in itself. It
//! also asks again about those that there was no time for behind a block, one by one, until
//! something may be proposed.

use std::{
    io,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use perihelion_abci::{AppError, AppFault, CallName, PendingCheckTx, types::CheckTxType};
use perihelion_types::PeerId;

use crate::{
    CheckTxError, Checked, TxKey,
    gate::Pass,
    pool::{Pool, Shared},
};

/// Told what became of a transaction.
pub(crate) type Tell = Box<dyn FnOnce(Result<Checked, CheckTxError>) + Send>;

/// A transaction that is to be checked.
pub(crate) struct Order {
    pub(crate) tx: Bytes,
    pub(crate) key: TxKey,
    pub(crate) sender: Option<PeerId>,
    pub(crate) answered: Answered,
}

/// Who gave an order is told once what became of it: at the latest when it is dropped.
pub(crate) struct Answered(Option<Tell>);

impl Answered {
    pub(crate) fn new(tell: Tell) -> Self {
        Self(Some(tell))
    }

    pub(crate) fn tell(mut self, outcome: Result<Checked, CheckTxError>) {
        if let Some(tell) = self.0.take() {
            tell(outcome);
        }
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Err(gone()));
        }
    }
}

/// One that the application is asked about.
struct UnderWay {
    order: Order,
    pending: PendingCheckTx,
    pass: Pass,
}

/// A transaction that is being checked. It goes on when this is dropped.
#[derive(Debug)]
pub struct PendingCheck(Receiver<Result<Checked, CheckTxError>>);

impl PendingCheck {
    /// A way to tell what became of a transaction, and to wait for it.
    pub(crate) fn new() -> (
        impl FnOnce(Result<Checked, CheckTxError>) + Send + 'static,
        Self,
    ) {
        let (tell, told) = sync_channel(1);
        let answered = move |outcome| {
            // Nobody may wait.
            let _unheard = tell.send(outcome);
        };
        (answered, Self(told))
    }

    /// Waits until it is known what became of it.
    ///
    /// # Errors
    /// As of [`Mempool::check_tx`](crate::Mempool::check_tx).
    pub fn wait(self) -> Result<Checked, CheckTxError> {
        self.0.recv().unwrap_or_else(|_| Err(gone()))
    }
}

/// Starts the two threads, which end once the pool is over.
pub(crate) fn start(shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let begun = || -> io::Result<Vec<JoinHandle<()>>> {
        // The gate lets no more be under way.
        let (asked, answers) = sync_channel(shared.gate.most());
        let asking = Arc::clone(shared);
        let taking = Arc::clone(shared);
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        Ok(vec![
            thread("mempool-take").spawn(move || take_answers(&taking, &answers))?,
            thread("mempool-ask").spawn(move || ask(&asking, &asked))?,
        ])
    };
    begun().unwrap_or_else(|error| {
        let fault = AppFault::failed(format!("there is no thread to ask it: {error}"));
        shared.fail(failure(fault));
        Vec::new()
    })
}

/// Nobody asks the application any more.
fn gone() -> CheckTxError {
    failure(AppFault::Closed("the mempool is gone".to_owned())).into()
}

fn failure(reason: AppFault) -> AppError {
    AppError {
        call: CallName::CheckTx,
        height: None,
        reason,
    }
}

/// Fails the mempool when its thread panics: what it was to do is done by nobody.
struct Watched<'a>(&'a Shared);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let fault = AppFault::Failed("a thread of the mempool panicked".to_owned());
            self.0.fail(failure(fault));
            let left = self.0.pool().withdraw(|_| true);
            // Outside of the lock: who gave them is told.
            drop(left);
        }
    }
}

fn ask(shared: &Shared, asked: &SyncSender<UnderWay>) {
    let _watched = Watched(shared);
    while await_work(shared) {
        let pass = shared.gate.enter();
        // Only now: a block may have had it.
        let left = {
            let pool = shared.pool();
            shared.first_left(&pool)
        };
        if let Some((key, tx)) = left {
            check_again(shared, &key, &tx);
            continue;
        }
        let Some(order) = shared.pool().orders.pop_front() else {
            continue;
        };
        let begun = shared.confirm(&order).and_then(|()| {
            let begun = shared.begin(&order.tx, CheckTxType::New);
            begun.map_err(|error| {
                shared.pool().release(&order);
                error.into()
            })
        });
        match begun {
            Ok(pending) => {
                let is_answered = pending.is_answered();
                let under_way = UnderWay {
                    order,
                    pending,
                    pass,
                };
                // Else it would overtake others.
                if is_answered && shared.gate.is_alone() {
                    take_answer(shared, under_way);
                } else if asked.send(under_way).is_err() {
                    return;
                }
            }
            Err(error) => {
                drop(pass);
                order.answered.tell(Err(error));
            }
        }
    }
}

/// Asks again about the first transaction, which there was no time for behind the block.
fn check_again(shared: &Shared, key: &TxKey, tx: &Bytes) {
    let pending = shared.begin(tx, CheckTxType::Recheck);
    let answer = pending.and_then(|pending| shared.heed(pending.wait()));
    // Whoever watches the application is told of its failure.
    if let Ok(response) = answer {
        shared.take_first_left(key, &response);
    }
}

/// Waits until there is an order, or something to be checked again; `false` when there will be none.
fn await_work(shared: &Shared) -> bool {
    let is_idle =
        |pool: &mut Pool| pool.orders.is_empty() && !pool.over && shared.first_left(pool).is_none();
    let pool = shared
        .ordered
        .wait_while(shared.pool(), is_idle)
        .unwrap_or_else(PoisonError::into_inner);
    !pool.over
}

fn take_answers(shared: &Shared, asked: &Receiver<UnderWay>) {
    let _watched = Watched(shared);
    for under_way in asked {
        take_answer(shared, under_way);
    }
}

fn take_answer(shared: &Shared, under_way: UnderWay) {
    let UnderWay {
        order,
        pending,
        pass,
    } = under_way;
    let response = shared.heed(pending.wait());
    let outcome = shared.take(&order, response);
    drop(pass);
    order.answered.tell(outcome);
}
