use perihelion_pool::{Command, ConnectionId, LastCommitKnown, PoolInput};
use perihelion_types::Height;

use crate::util::{Pool, block, chain, peer};

const FIRST: ConnectionId = ConnectionId(1);
const SECOND: ConnectionId = ConnectionId(2);

/// A block that was asked for and sent over the first connection is decoded when the peer has
/// already come back: nobody asked for it over the second one, and nobody is to blame.
#[tokio::test]
async fn a_block_of_an_earlier_connection_is_not_held_against_the_next_one() {
    let chain = chain();
    let home = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    let top = i64::try_from(chain.len()).unwrap();
    pool.add(peer(1), FIRST, top);
    let height = loop {
        if let Command::Request {
            height, connection, ..
        } = pool.command().await
        {
            assert_eq!(connection, FIRST);
            break height;
        }
    };
    // Nothing is awaited in between: the pool takes all of it at once, decoding comes later.
    pool.tell(PoolInput::Block {
        peer: peer(1),
        block: block(&chain, height),
        extended_commit: None,
        hold: None,
    });
    pool.tell(PoolInput::PeerRemoved { peer: peer(1) });
    pool.add(peer(1), SECOND, top);
    pool.serve(&chain, SECOND, Height::new(top - 2)).await;
    assert!(pool.stop().await.error.is_none());
}
