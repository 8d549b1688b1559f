use std::time::{SystemTime, UNIX_EPOCH};

use perihelion_pool::{ConnectionId, LastCommitKnown};
use perihelion_schedule::Mode;
use perihelion_types::{Block, Height};

use crate::util::{Pool, block, chain, peer, soon};

/// Seconds since 1970.
fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs().try_into().unwrap()
}

/// The schedule knows how old a block is, for by that it tells whether claims of more can be true.
#[tokio::test]
async fn the_schedule_is_told_the_wall_clock() {
    let (chain, first, last) = (chain(), ConnectionId(1), Height::new(20));
    let home = tempfile::tempdir().unwrap();
    let before = wall_clock();
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    assert_eq!(pool.handle.progress.borrow().block_age, None);
    pool.add(peer(1), first, last.next().get());
    pool.serve(&chain, first, last).await;
    let mut progress = pool.handle.progress.clone();
    let told = soon("the block's age", progress.wait_for(|it| it.height == last));
    let told = told.await.unwrap().clone();
    let after = wall_clock();
    let made = Block::decode(block(&chain, last)).unwrap().header.time;
    let age = i64::try_from(told.block_age.unwrap().as_secs()).unwrap();
    let ages = (before - made.seconds() - 1).max(0)..=(after - made.seconds()).max(0);
    assert!(ages.contains(&age), "{age} s is not within {ages:?}");
    assert_ne!(told.mode, Mode::Halted);
    pool.stop().await;
}
