use bytes::Bytes;
use perihelion_pool::{Command, ConnectionId, LastCommitKnown, PoolInput};
use perihelion_schedule::Fault;
use perihelion_types::{Block, Height};

use crate::util::{Pool, block, chain, peer, soon};

const FIRST: ConnectionId = ConnectionId(1);

/// Rule: a block that was never asked for costs its sender the connection, and is not decoded: were it,
/// this one would be found to contradict itself, and its sender would be banned.
#[tokio::test]
async fn what_was_never_asked_for_is_refused_before_it_is_decoded() {
    let chain = chain();
    let home = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    pool.add(peer(1), FIRST, 5);
    let height = Height::new(20);
    let mut forged = Block::decode(block(&chain, height)).unwrap();
    forged.data = perihelion_types::Data::new([Bytes::from_static(b"another body")]);
    pool.tell(PoolInput::Block {
        peer: peer(1),
        block: forged.encode(),
        extended_commit: None,
        hold: None,
    });
    let punished = soon("punishment", async {
        loop {
            match pool.command().await {
                Command::Punish { fault, ban, .. } => break (fault, ban),
                Command::Request { .. } | Command::AskStatus { .. } | Command::Admit { .. } => {}
            }
        }
    });
    assert_eq!(punished.await, (Fault::Unsolicited { height }, false));
    // The same body where it was asked for is decoded.
    pool.add(peer(2), FIRST, 25);
    let height = soon("a request", async {
        loop {
            if let Command::Request { height, .. } = pool.command().await {
                break height;
            }
        }
    })
    .await;
    let mut forged = Block::decode(block(&chain, height)).unwrap();
    forged.data = perihelion_types::Data::new([Bytes::from_static(b"another body")]);
    pool.tell(PoolInput::Block {
        peer: peer(2),
        block: forged.encode(),
        extended_commit: None,
        hold: None,
    });
    let punished = soon("punishment", async {
        loop {
            if let Command::Punish { fault, ban, .. } = pool.command().await {
                break (fault, ban);
            }
        }
    });
    let (fault, ban) = punished.await;
    assert!(matches!(fault, Fault::Body { .. }) && ban, "{fault}");
    assert!(pool.stop().await.error.is_none());
}
