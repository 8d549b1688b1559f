use perihelion_pool::{Command, ConnectionId, LastCommitKnown, PoolInput};
use perihelion_schedule::{BodyFault, Fault};
use perihelion_types::{Block, Height};

use crate::util::{Pool, block, chain, peer, soon};

const FIRST: ConnectionId = ConnectionId(1);

/// Blocks of another chain link to ours, and no run with one is ever certified: they are refused
/// when they come in, and cost their sender the connection, not the others their long runs.
#[tokio::test]
async fn a_block_of_another_chain_convicts_its_sender_at_once() {
    let chain = chain();
    let home = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    pool.add(peer(1), FIRST, 20);
    let asked = loop {
        if let Command::Request { height, .. } = pool.command().await {
            break height;
        }
    };
    let mut forged = Block::decode(block(&chain, asked)).unwrap();
    forged.header.chain_id.push('x');
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
    let (fault, ban) = punished.await;
    let height = asked;
    let expected = Fault::Body {
        height,
        fault: BodyFault::OtherChain,
    };
    assert_eq!((fault, ban), (expected, true));
    pool.add(peer(2), ConnectionId(2), 20);
    pool.serve(&chain, ConnectionId(2), Height::new(19)).await;
    assert!(pool.stop().await.error.is_none());
}
