use std::collections::BTreeSet;

use perihelion_pool::{Command, ConnectionId, LastCommitKnown, PoolInput};
use perihelion_types::Height;

use crate::util::{Pool, block, chain, peer, soon};

const FIRST: ConnectionId = ConnectionId(1);

/// Rule: where blocks on their way hold up one another, those pass that owe the next heights, and no
/// other peer.
#[tokio::test]
async fn who_owes_what_everything_waits_for_passes_and_nobody_else() {
    let chain = chain();
    let home = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    // Each is asked for what is left of what it has.
    pool.add(peer(1), FIRST, 5);
    pool.add(peer(2), FIRST, 25);
    pool.tell(PoolInput::Standstill);
    // What this one is punished for comes behind all that.
    pool.add(peer(3), FIRST, 1);
    pool.tell(PoolInput::Block {
        peer: peer(3),
        block: block(&chain, Height::new(30)),
        extended_commit: None,
        hold: None,
    });
    let (mut asked, mut passed) = (BTreeSet::new(), BTreeSet::new());
    soon("a punishment", async {
        loop {
            match pool.command().await {
                Command::Request { peer, height, .. } if height.get() <= 2 => {
                    asked.insert(peer);
                }
                Command::Admit {
                    peer, connection, ..
                } => {
                    assert_eq!(connection, FIRST);
                    passed.insert(peer);
                }
                Command::Punish { .. } => break,
                Command::Request { .. } | Command::AskStatus { .. } => {}
            }
        }
    })
    .await;
    assert!(passed.contains(&peer(1)), "{passed:?}");
    assert!(passed.is_subset(&asked), "{passed:?}, asked {asked:?}");
    assert!(pool.stop().await.error.is_none());
}
