//! What the pool does beside its workers and the thread that applies: asking, handing over, waking.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use perihelion_pool::{
    Command, ConnectionId, LastCommitKnown, PoolConfig, PoolInput, VerifyMode, start,
};
use perihelion_types::{Height, HeightRange, PeerId};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{go_on, median};
use crate::{
    BenchError, Verify,
    chain::{Chain, executor, open_store, raw},
    clock,
};

/// Passes; each has a store of its own.
const PASSES: usize = 3;
/// The peer that has all.
const PEER: PeerId = PeerId::new([1; 20]);
const CONNECTION: ConnectionId = ConnectionId(1);
/// How long nothing may move. A pool that stands still would be a fault of this program.
const PATIENCE: Duration = Duration::from_secs(60);

/// Processor time of a whole pool for all blocks, that of its workers, of the thread that applies and
/// of the database included: the median pass.
pub(super) fn measure(
    chain: &Chain,
    verify: Verify,
    folder: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Duration, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(BenchError::system("a runtime"))?;
    let passes = (0..PASSES)
        .map(|number| {
            let folder = folder.join(format!("pool-{number}"));
            runtime.block_on(pass(chain, verify, &folder, stop))
        })
        .collect::<Result<Vec<_>, _>>()?;
    shut_down(runtime);
    Ok(median(passes))
}

fn shut_down(runtime: Runtime) {
    runtime.shutdown_timeout(PATIENCE);
}

/// Has a pool sync the chain from memory.
async fn pass(
    chain: &Chain,
    verify: Verify,
    folder: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Duration, BenchError> {
    let store = open_store(folder)?;
    let executor = executor(&chain.genesis, store)?;
    let config = PoolConfig {
        verify: match verify {
            Verify::Pinned => VerifyMode::Pinned,
            Verify::Every => VerifyMode::Every,
        },
        ..PoolConfig::default()
    };
    let top = chain.blocks.len();
    // The commit for the last block is in no other.
    let last = height_of(top - 1);
    let stopped = CancellationToken::new();
    // Of their own, as a connection makes them, which is another stage.
    let own = |block| Bytes::copy_from_slice(raw(block));
    let mut blocks: Vec<_> = chain.blocks.iter().map(own).map(Some).collect();
    let begun = clock::process();
    let mut pool = start(
        &config,
        executor,
        LastCommitKnown::Verified,
        stopped.clone(),
    )
    .map_err(BenchError::chain)?;
    let tell = async |input| {
        let told = pool.inputs.send(input).await;
        told.map_err(|_| BenchError::chain("the pool ended"))
    };
    let range = HeightRange::new(height_of(1), height_of(top));
    let range = range.ok_or_else(|| BenchError::chain("no range"))?;
    let (peer, connection) = (PEER, CONNECTION);
    tell(PoolInput::PeerAdded { peer, connection }).await?;
    tell(PoolInput::Status { peer, range }).await?;
    while pool.progress.borrow().height < last {
        go_on(stop)?;
        let command = tokio::time::timeout(PATIENCE, async {
            tokio::select! {
                command = pool.commands.recv() => command.map(Some),
                changed = pool.progress.changed() => changed.ok().map(|()| None),
            }
        });
        let command = command
            .await
            .map_err(|_| BenchError::chain("the pool stands still"))?;
        match command {
            None => return Err(BenchError::chain("the pool ended")),
            Some(Some(Command::Request { height, .. })) => {
                let index = usize::try_from(height.get() - 1).unwrap_or(usize::MAX);
                let input = match blocks.get_mut(index) {
                    None => PoolInput::NoBlock { peer, height },
                    Some(block) => PoolInput::Block {
                        peer,
                        // Asked for again, it is a copy again.
                        block: block.take().unwrap_or_else(|| own(&chain.blocks[index])),
                        extended_commit: None,
                        hold: None,
                    },
                };
                tell(input).await?;
            }
            Some(Some(Command::AskStatus { .. })) => {
                tell(PoolInput::Status { peer, range }).await?;
            }
            Some(Some(punished @ Command::Punish { .. })) => {
                return Err(BenchError::chain(format_args!("{punished:?}")));
            }
            Some(Some(Command::Admit { .. }) | None) => {}
        }
    }
    stopped.cancel();
    // What waits for the disk is part of it.
    let ended = tokio::time::timeout(PATIENCE, pool.task).await;
    ended
        .map_err(|_| BenchError::chain("the pool does not end"))?
        .map_err(BenchError::chain)?;
    Ok(clock::process().saturating_sub(begun))
}

fn height_of(number: usize) -> Height {
    Height::new(i64::try_from(number).unwrap_or(i64::MAX))
}
