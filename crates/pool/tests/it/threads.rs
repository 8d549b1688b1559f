use std::sync::Arc;

use perihelion_pool::{ConnectionId, LastCommitKnown, PoolError};
use perihelion_state::{CommitHold, Follower};

use crate::util::{Pool, chain, peer, soon};

/// Whatever goes wrong there that nobody thought of.
struct Panics;

impl Follower for Panics {
    fn hold(&self) -> Box<dyn CommitHold + '_> {
        panic!("what cannot be")
    }
}

/// A panic in the thread that applies blocks ends the pool, which names the thread; what is stored is what
/// was applied.
#[tokio::test]
async fn a_panic_in_the_executors_thread_ends_the_pool_and_is_named() {
    let (chain, first) = (chain(), ConnectionId(1));
    let home = tempfile::tempdir().unwrap();
    let mut pool = Pool::start_changed(home.path(), LastCommitKnown::Verified, |executor| {
        executor.follow(Arc::new(Panics));
    });
    pool.add(peer(1), first, 5);
    let exit = soon("the pool to end", async {
        loop {
            tokio::select! {
                exit = &mut pool.handle.task => break exit.unwrap(),
                command = pool.handle.commands.recv() => {
                    if let Some(command) = command {
                        pool.answer(&chain, 5, command);
                    }
                }
            }
        }
    })
    .await;
    let error = exit.error.expect("it did not end by itself");
    assert!(matches!(error, PoolError::ThreadEnded("apply")), "{error}");
    assert!(exit.executor.is_none());
    assert_eq!(pool.store.height().get(), 0);
}
