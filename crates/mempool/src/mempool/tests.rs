#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use perihelion_abci::{AppConnections, AppFault, Application, types::RequestCheckTx};

use super::*;

/// What happens, in order.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Asked,
    Locked,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An application that tells when it is asked, and answers when it is told to.
struct Slow {
    events: Mutex<Sender<Event>>,
    answers: Mutex<Receiver<()>>,
}

impl Application for Slow {
    fn check_tx(&self, _: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        // The test may be over.
        let _unheard = lock(&self.events).send(Event::Asked);
        let _over = lock(&self.answers).recv();
        Ok(ResponseCheckTx::default())
    }
}

#[test]
fn a_commit_does_not_queue_behind_floods_of_transactions() {
    let (tell, events) = channel();
    let (answer, answers) = channel();
    let app = Slow {
        events: Mutex::new(tell.clone()),
        answers: Mutex::new(answers),
    };
    let app = AppConnections::in_process(Arc::new(app)).mempool;
    let config = MempoolConfig::default();
    let mempool = Mempool::new(config, app, Height::new(1), TxLimits::NONE);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for flood in 0..5 {
            let (mempool, over) = (&mempool, &over);
            scope.spawn(move || {
                for number in 0.. {
                    let tx = Bytes::from(format!("{flood}.{number}"));
                    if over.load(Ordering::Relaxed) || mempool.check_tx(&tx, None).is_err() {
                        break;
                    }
                }
            });
        }
        // Each is followed by another one.
        for _ in 0..20 {
            assert_eq!(events.recv(), Ok(Event::Asked));
            answer.send(()).unwrap();
        }
        assert_eq!(events.recv(), Ok(Event::Asked));
        let mempool = &mempool;
        scope.spawn(move || {
            let lock = mempool.lock();
            tell.send(Event::Locked).unwrap();
            drop(lock);
        });
        while mempool.shared.gate.commits_waiting() == 0 {
            thread::yield_now();
        }
        // The answer to the one under way is all that it waits for.
        answer.send(()).unwrap();
        let next = events.recv();
        over.store(true, Ordering::Relaxed);
        drop(answer);
        assert_eq!(next, Ok(Event::Locked));
    });
}
