use std::sync::Arc;

use perihelion_pool::{ConnectionId, LastCommitKnown};
use perihelion_store::Sync;
use perihelion_types::{Block, Height};

use crate::util::{Pool, block, chain, peer, soon};

const FIRST: ConnectionId = ConnectionId(1);

/// A node that went down in the middle of a run has its last block without a commit of its own. The
/// next block brings it: once it is verified it is kept, for consensus starts from it.
#[tokio::test]
async fn the_last_blocks_own_commit_is_kept_once_it_is_verified() {
    let chain = chain();
    let home = tempfile::tempdir().unwrap();
    let last = Height::new(20);
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    pool.add(peer(1), FIRST, last.next().get());
    pool.serve(&chain, FIRST, last).await;
    let store = Arc::clone(&pool.store);
    assert!(pool.stop().await.error.is_none());
    let lower = store.load_commit(last.prev()).unwrap().unwrap();
    store.save_seen_commit(&lower, Sync::No).unwrap();
    drop(store);

    let mut pool = Pool::start(home.path(), LastCommitKnown::Missing);
    assert_eq!(pool.store.load_seen_commit(last).unwrap(), None);
    pool.add(peer(1), FIRST, last.next().get());
    let store = Arc::clone(&pool.store);
    let kept = soon("the commit to be kept", async {
        loop {
            if let Some(commit) = store.load_seen_commit(last).unwrap() {
                break commit;
            }
            pool.serve_one(&chain, FIRST).await;
        }
    })
    .await;
    let above = Block::decode(block(&chain, last.next())).unwrap();
    assert_eq!(Some(kept), above.last_commit);
    assert_eq!(store.height(), last);
    assert!(pool.stop().await.error.is_none());
}
